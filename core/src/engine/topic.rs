//! The topic and the table together: epoch 0, restoring from a checkpoint, topic partitions that join, another topic,
//! lost records. What a record counts is the lane's.

use super::*;

impl Engine {
    pub(super) fn look_up_topic(&mut self, out: &mut Vec<Effect>) {
        if self.topic_asked.ask() {
            out.push(BrokersRequest::Topic.into());
        }
    }

    pub(super) fn list_manifests(&mut self, out: &mut Vec<Effect>) {
        if self.manifests_asked.ask() {
            out.push(
                StoreRequest::List {
                    prefix: format!("{}manifests/", self.prefix),
                }
                .into(),
            );
        }
    }

    pub(super) fn fetch_checkpoint(&mut self, key: String, out: &mut Vec<Effect>) {
        if self.checkpoint_asked.ask() {
            out.push(StoreRequest::Get { key }.into());
        }
    }

    pub(super) fn topic(&mut self, answer: Result<TopicFacts, Trouble>, out: &mut Vec<Effect>) {
        if !self.topic_asked.answered() {
            if matches!(self.phase, Phase::Locating { .. } | Phase::Counting) {
                self.look_up_topic(out);
            }
            return;
        }
        self.topic_ask_at = self.now.plus(TOPIC_EVERY_MS);
        let facts = match answer {
            Ok(facts) if !facts.partitions.is_empty() => facts,
            Ok(_) => {
                let why = format!(
                    "topic \"{}\" has no partitions yet",
                    self.settings.shape.topic
                );
                return self.topic_missing(Trouble::new(Cause::NoTopic, why));
            }
            Err(reason) => return self.topic_missing(reason),
        };
        match self.phase {
            Phase::Locating { .. } => {
                self.troubles.remove(&Side::Topic);
                match self.head.take() {
                    None => {
                        self.phase = Phase::Searching {
                            ask_at: None,
                            facts,
                        };
                        self.list_manifests(out);
                    }
                    Some(head) => self.resume(head, facts, out),
                }
            }
            Phase::Counting => {
                self.troubles.remove(&Side::Topic);
                // Brokers answer: a login that was refused is over, also where there is nothing to read that would show it.
                if self
                    .troubles
                    .get(&Side::Reader)
                    .is_some_and(|t| t.cause == Cause::LoginKafka)
                {
                    self.troubles.remove(&Side::Reader);
                }
                self.topic_seen(&facts, out);
            }
            _ => {}
        }
    }

    pub(super) fn topic_missing(&mut self, trouble: Trouble) {
        self.trouble(Side::Topic, trouble);
        self.topic_ask_at = self.now.plus(RETRY_MS);
        if let Phase::Locating { ask_at } = &mut self.phase {
            *ask_at = Some(self.now.plus(RETRY_MS));
        }
    }

    pub(super) fn manifests(
        &mut self,
        answer: Result<Vec<String>, Trouble>,
        out: &mut Vec<Effect>,
    ) {
        let counts = self.manifests_asked.answered();
        let Phase::Searching { ask_at, facts } = &mut self.phase else {
            return;
        };
        if !counts {
            *ask_at = Some(self.now);
            return;
        }
        let keys = match answer {
            Ok(keys) => keys,
            Err(reason) => {
                *ask_at = Some(self.now.plus(RETRY_MS));
                self.trouble(Side::Store, reason);
                return;
            }
        };
        // One of epoch 0 proves nothing: it is stored before epoch 0 is committed.
        let epoch = |key: &String| {
            key.rsplit('/')
                .next()?
                .split('-')
                .nth(1)?
                .parse::<u64>()
                .ok()
        };
        if let Some(lost) = keys.iter().filter_map(epoch).filter(|e| *e > 0).max() {
            let reason = format!(
                "the catalog has no epoch of table {}.{}, but {} holds manifests up to epoch {lost}: the catalog was \
                 lost, or restored from before the table; restore it, or choose another table name",
                self.settings.database, self.settings.table, self.settings.warehouse
            );
            // Unless they are of another owner that came after us: only a lease that still holds proves it.
            self.lost_catalog = Some((reason.into(), !self.renewing));
            return self.renew(out);
        }
        let facts = facts.clone();
        self.troubles.remove(&Side::Store);
        self.found_table(facts, out);
    }

    /// Epoch 0: everything that later epochs only refer to.
    pub(super) fn found_table(&mut self, facts: TopicFacts, out: &mut Vec<Effect>) {
        let at_end = self.settings.start_at_end;
        let start_offsets: BTreeMap<_, _> = facts
            .partitions
            .iter()
            .map(|(p, (first, end))| (*p, if at_end { *end } else { *first }))
            .collect();
        for (partition, start) in &start_offsets {
            let mut lane = Lane::new(*partition, &self.settings.shape, *start);
            lane.set_delay(self.settings.delay_ms);
            self.lanes.insert(*partition, lane);
            self.watches.insert(*partition, Watch::default());
            self.committed.insert(*partition, *start);
        }
        self.topic_id.clone_from(&facts.topic_id);
        let genesis = Genesis {
            shape: self.settings.shape.clone(),
            warehouse: self.settings.warehouse.clone(),
            cluster_id: facts.cluster_id,
            topic_id: facts.topic_id,
            start_offsets,
        };
        self.phase = Phase::Founding;
        self.cut(Some(genesis), out);
    }

    /// Goes on where the last commit was: lanes from the checkpoint, then a replay.
    pub(super) fn resume(&mut self, head: Box<Head>, facts: TopicFacts, out: &mut Vec<Effect>) {
        self.topic_id.clone_from(&head.last.topic_id);
        let recorded = &head.genesis;
        if facts.topic_id.is_empty() && facts.cluster_id != recorded.cluster_id {
            let reason = format!(
                "topic \"{}\" is of Kafka cluster \"{}\", but table {}.{} counts the one of cluster \"{}\"; choose another table name",
                recorded.shape.topic,
                facts.cluster_id,
                self.settings.database,
                self.settings.table,
                recorded.cluster_id
            );
            return self.fail(reason, out);
        }
        self.next_epoch = head.last.epoch + 1;
        self.closed_through = head.last.closed_through;
        self.rows = head.last.ledger.rows;
        self.row_count = head.last.ledger.row_count;
        self.archived = archived(&head.last);
        self.committed = head
            .last
            .lanes
            .iter()
            .map(|(p, lane)| (*p, lane.to))
            .collect();
        let at = head.checkpoint.clone();
        self.head = Some(head);
        match at {
            None => self.restore(BTreeMap::new(), &facts, out),
            Some((_, CheckpointAt::Inline(hex))) => match unhex(&hex) {
                Some(bytes) => self.restore_bytes(&bytes, &facts, out),
                None => self.fail(
                    "cannot read the checkpoint in the catalog: it is no hex".to_owned(),
                    out,
                ),
            },
            Some((_, CheckpointAt::Object(key))) => {
                self.phase = Phase::Restoring {
                    ask_at: None,
                    key: key.clone(),
                    facts,
                };
                self.fetch_checkpoint(key, out);
            }
        }
    }

    pub(super) fn checkpoint(
        &mut self,
        key: &str,
        answer: Result<Option<Vec<u8>>, Trouble>,
        out: &mut Vec<Effect>,
    ) {
        let counts = self.checkpoint_asked.answered();
        let Phase::Restoring { ask_at, facts, .. } = &mut self.phase else {
            return;
        };
        if !counts {
            *ask_at = Some(self.now);
            return;
        }
        let answer = answer.and_then(|bytes| {
            bytes.ok_or_else(|| {
                format!("cannot read the checkpoint \"{key}\": it is not in the bucket; restore it from a backup").into()
            })
        });
        match answer {
            Ok(bytes) => {
                let facts = facts.clone();
                self.restore_bytes(&bytes, &facts, out);
            }
            Err(reason) => {
                *ask_at = Some(self.now.plus(RETRY_MS));
                self.trouble(Side::Store, reason);
            }
        }
    }

    pub(super) fn restore_bytes(
        &mut self,
        bytes: &[u8],
        facts: &TopicFacts,
        out: &mut Vec<Effect>,
    ) {
        match checkpoint::decode(bytes) {
            Ok(states) => self.restore(states, facts, out),
            Err(reason) => self.fail(reason, out),
        }
    }

    pub(super) fn restore(
        &mut self,
        mut states: BTreeMap<Partition, LaneState>,
        facts: &TopicFacts,
        out: &mut Vec<Effect>,
    ) {
        let head = self
            .head
            .take()
            .expect("a head was read before its checkpoint");
        let shape = &self.settings.shape;
        for (partition, commit) in &head.last.lanes {
            let state = match states.remove(partition) {
                Some(state) => state,
                // No checkpoint yet, or none since it joined: a lane begins at its start offset.
                None => Lane::new(*partition, shape, commit.ledger.start_offset).state(),
            };
            let decisions = head
                .decisions
                .iter()
                .filter(|d| d.partition == *partition)
                .cloned()
                .collect();
            let lane = Lane::restore(*partition, shape, state, commit.ledger, decisions);
            self.watches.insert(
                *partition,
                Watch {
                    last_record: self.now,
                    ..Watch::default()
                },
            );
            self.checkpoint_behind |= lane.replaying();
            self.lanes.insert(*partition, lane);
        }
        self.troubles.remove(&Side::Store);
        self.replaying = true;
        self.phase = Phase::Counting;
        self.last_progress = self.now;
        self.checkpoint_at = self.now;
        // Before anything is read: it may be another topic of the same name.
        if self.is_other_topic(facts) {
            return self.new_generation(facts, out);
        }
        self.topic_seen(facts, out);
    }

    pub(super) fn is_other_topic(&self, facts: &TopicFacts) -> bool {
        !facts.topic_id.is_empty() && !self.topic_id.is_empty() && facts.topic_id != self.topic_id
    }

    /// Reads every lane that is not read yet and whose first commit is through.
    pub(super) fn start_lanes(&mut self, out: &mut Vec<Effect>) {
        for (partition, lane) in &self.lanes {
            let watch = self.watches.entry(*partition).or_default();
            if watch.reading || watch.gone.is_some() || !self.committed.contains_key(partition) {
                continue;
            }
            if self.out_of_range.contains_key(partition) || watch.limits.is_some() {
                continue;
            }
            *watch = Watch {
                reading: true,
                last_record: self.now,
                log_end: watch.log_end,
                ..Watch::default()
            };
            out.push(Effect::Start {
                partition: *partition,
                offset: lane.ledger.next_offset,
                leader_epoch: lane.leader_epoch,
            });
        }
        if self.paused {
            // Not with the next tick: a batch would be counted before it.
            self.flow(out);
        }
    }

    /// The topic as it is now against the topic as we count it.
    pub(super) fn topic_seen(&mut self, facts: &TopicFacts, out: &mut Vec<Effect>) {
        for (partition, (_, end)) in &facts.partitions {
            if let Some(watch) = self.watches.get_mut(partition) {
                watch.log_end = watch.log_end.max(*end);
            }
        }
        if self.is_other_topic(facts) {
            // What was read since the last commit may be of either: back to the ledger, which is of the one before.
            let reason = format!(
                "topic \"{}\" was made again: its id is {}",
                self.settings.shape.topic, facts.topic_id
            );
            self.give_back(out);
            return self.fenced(reason, out);
        }
        for (partition, watch) in &mut self.watches {
            // Without an id nothing says that the topic was made again, with fewer topic partitions.
            let there = facts.topic_id.is_empty() || facts.partitions.contains_key(partition);
            watch.gone = if there {
                None
            } else {
                watch.gone.or(Some(self.now))
            };
        }
        for (partition, (log_start, log_end)) in std::mem::take(&mut self.out_of_range) {
            // Either answer may be an old one; a log neither begins earlier nor, uncut, ends earlier than it says.
            let (first, end) = facts
                .partitions
                .get(&partition)
                .copied()
                .unwrap_or((log_start, log_end));
            self.lost(partition, log_start.max(first), log_end.max(end), out);
            if matches!(self.phase, Phase::Over(_)) {
                return;
            }
        }
        for (partition, (first, _)) in &facts.partitions {
            if !self.lanes.contains_key(partition) {
                self.joining.insert(*partition, *first);
            }
        }
        self.start_lanes(out);
    }

    /// The topic was deleted and made again: its offsets mean other records now.
    pub(super) fn new_generation(&mut self, facts: &TopicFacts, out: &mut Vec<Effect>) {
        let topic = &self.settings.shape.topic;
        if self.lanes.values().any(Lane::replaying) {
            let reason = format!(
                "cannot go on from the checkpoint: topic \"{topic}\" was deleted and made again since (its id is {}), and \
                 open windows counted the old one; choose another table name",
                facts.topic_id
            );
            return self.fail(reason, out);
        }
        if !self.settings.continue_on_data_loss {
            let reason = format!(
                "topic \"{topic}\" was deleted and made again: its id is {}, table {}.{} counts {}; set on-data-loss: continue \
                 to count the new one into the same table, or choose another table name",
                facts.topic_id, self.settings.database, self.settings.table, self.topic_id
            );
            return self.fail(reason, out);
        }
        out.push(Effect::StopAll);
        self.out_of_range.clear();
        let frontier = merger::frontier(&self.lanes);
        for (partition, lane) in &mut self.lanes {
            self.archived.add(&lane.ledger);
            lane.decide(Decided::Generation {
                to: 0,
                topic_id: facts.topic_id.clone(),
                reason: "the topic was made again".to_owned(),
            });
            if let Some(frontier) = frontier {
                lane.raise_floor(frontier, FloorReason::Generation);
            }
            let gone = (!facts.partitions.contains_key(partition)).then_some(self.now);
            self.watches.insert(
                *partition,
                Watch {
                    gone,
                    last_record: self.now,
                    ..Watch::default()
                },
            );
        }
        self.topic_id.clone_from(&facts.topic_id);
        self.want_checkpoint = true;
        for (partition, (first, _)) in &facts.partitions {
            if !self.lanes.contains_key(partition) {
                self.joining.insert(*partition, *first);
            }
        }
        self.start_lanes(out);
    }

    /// The log of one topic partition does not reach to where we are.
    pub(super) fn lost(
        &mut self,
        partition: Partition,
        log_start: Offset,
        log_end: Offset,
        out: &mut Vec<Effect>,
    ) {
        let Some(lane) = self.lanes.get_mut(&partition) else {
            return;
        };
        let next = lane.ledger.next_offset;
        if (log_start..=log_end).contains(&next) {
            return;
        }
        let what = if next < log_start {
            format!(
                "offsets {next} to {log_start} of topic partition {partition} are no longer in Kafka (retention, or deleted records)"
            )
        } else {
            format!(
                "topic partition {partition} was cut off at offset {log_end}, below the next offset {next}"
            )
        };
        if lane.replaying() {
            let reason = format!(
                "cannot go on from the checkpoint: {what}, and open windows counted them; choose another table name"
            );
            return self.fail(reason, out);
        }
        if !self.settings.continue_on_data_loss {
            let reason = format!(
                "{what}; set on-data-loss: continue to go on without them, or choose another table name"
            );
            return self.fail(reason, out);
        }
        if next < log_start {
            lane.decide(Decided::Lost {
                to: log_start,
                reason: what,
            });
        } else {
            self.archived.add(&lane.ledger);
            lane.decide(Decided::Generation {
                to: log_end,
                topic_id: self.topic_id.clone(),
                reason: what,
            });
        }
        self.want_checkpoint = true;
    }

    /// A cut whose place nobody knows: what was counted of it is gone from the log.
    pub(super) fn truncated(&mut self, partition: Partition, why: String, out: &mut Vec<Effect>) {
        let Some(lane) = self.lanes.get_mut(&partition) else {
            return;
        };
        if lane.replaying() {
            let reason = format!(
                "cannot go on from the checkpoint: {why}, and open windows counted what was cut off; choose another table name"
            );
            return self.fail(reason, out);
        }
        if !self.settings.continue_on_data_loss {
            let reason = format!(
                "{why}; set on-data-loss: continue to go on behind it, or choose another table name"
            );
            return self.fail(reason, out);
        }
        self.archived.add(&lane.ledger);
        lane.decide(Decided::Generation {
            to: lane.ledger.next_offset,
            topic_id: self.topic_id.clone(),
            reason: why,
        });
        self.want_checkpoint = true;
        if let Some(watch) = self.watches.get_mut(&partition) {
            watch.reading = false;
        }
        self.start_lanes(out);
    }
}

/// The sums that `commit` holds beside those of its own lanes.
fn archived(commit: &Commit) -> TableLedger {
    let mut lanes = TableLedger::default();
    for lane in commit.lanes.values() {
        lanes.add(&lane.ledger);
    }
    let all = commit.ledger;
    TableLedger {
        consumed: all.consumed - lanes.consumed,
        counted: all.counted - lanes.counted,
        late: all.late - lanes.late,
        rejected: all.rejected - lanes.rejected,
        tombstones: all.tombstones - lanes.tombstones,
        gaps: all.gaps - lanes.gaps,
        lost: all.lost - lanes.lost,
        hits: all.hits - lanes.hits,
        late_hits: all.late_hits - lanes.late_hits,
        ..TableLedger::default()
    }
}

/// Whether the recorded table is the one the settings ask for.
///
/// # Errors
/// The setting, both values, and the way out.
pub fn same_table(recorded: &Genesis, settings: &Rules) -> Result<(), Trouble> {
    let differs = |cause, name: &str, then: &str, now: &str| {
        let why = format!(
            "table {}.{} was made with {name} {then}, the settings say {now}; set it back, or choose another table name",
            settings.database, settings.table
        );
        Err(Trouble::new(cause, why))
    };
    for ((name, then), (_, now)) in recorded
        .shape
        .as_settings()
        .iter()
        .zip(settings.shape.as_settings())
    {
        if *then != now {
            return differs(Cause::None, name, then, &now);
        }
    }
    if recorded.warehouse != settings.warehouse {
        let other = bucket(&recorded.warehouse) != bucket(&settings.warehouse);
        let cause = if other {
            Cause::OtherBucket
        } else {
            Cause::None
        };
        return differs(cause, "warehouse", &recorded.warehouse, &settings.warehouse);
    }
    Ok(())
}

/// The bucket of a warehouse; `None` for a directory.
fn bucket(warehouse: &str) -> Option<&str> {
    let (_, rest) = warehouse.split_once("://")?;
    rest.split('/').next()
}
