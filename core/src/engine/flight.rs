//! When an epoch is due, what is in it, and its way into the catalog: store, check the topic, commit, find.

use super::*;

impl Engine {
    /// After each step: stop where a lane stopped, commit where something is due, end where nothing is left.
    pub(super) fn settle(&mut self, out: &mut Vec<Effect>) {
        if matches!(self.phase, Phase::Counting) {
            match self.lanes.values().find_map(Lane::stopped).cloned() {
                Some(Stopped::Replay(reason)) => return self.fail(reason, out),
                Some(Stopped::BadRecord(reason)) => {
                    self.stop(Some(reason.into()));
                }
                None => {}
            }
            self.drop_committed();
            if self.in_flight.is_none() && self.due() {
                self.cut(None, out);
            }
        }
        let busy = self.in_flight.is_some() || matches!(self.phase, Phase::Asking);
        let waited = self.now.since(self.stopping_since) >= STOP_WAITS_MS;
        if !matches!(self.phase, Phase::Over(_))
            && (!busy || waited)
            && let Some(reason) = self.stopping.clone()
        {
            out.push(Effect::StopAll);
            self.give_back(out);
            self.phase = Phase::Over(reason.clone());
            out.push(Effect::Exit(reason));
        }
    }

    /// A replay closes windows anew whose rows are committed already. After it the settings' delay holds, which may be
    /// another one than before.
    pub(super) fn drop_committed(&mut self) {
        if !self.replaying {
            return;
        }
        self.replaying = self.lanes.values().any(Lane::replaying);
        if let Some(through) = self.closed_through {
            merger::take(&mut self.lanes, &self.settings.shape, through);
        }
        if !self.replaying {
            self.lanes
                .values_mut()
                .for_each(|lane| lane.set_delay(self.settings.delay_ms));
        }
    }

    /// Whether a commit should be cut now.
    pub(super) fn due(&self) -> bool {
        if self.lanes.values().any(Lane::replaying) {
            return false;
        }
        let moved = self
            .lanes
            .iter()
            .any(|(p, lane)| self.committed.get(p) != Some(&lane.ledger.next_offset));
        let decided = self.lanes.values().any(|lane| !lane.decisions.is_empty());
        if self.stopping.is_some() || !self.joining.is_empty() || self.want_checkpoint {
            return moved || decided || !self.joining.is_empty() || self.checkpoint_behind;
        }
        // Also when nothing comes any more: the log's start moves up to where a restart would begin.
        if self.checkpoint_behind && self.now.since(self.checkpoint_at) >= CHECKPOINT_EVERY_MS {
            return true;
        }
        let side: usize = self.lanes.values().map(|l| l.side_bytes).sum();
        if side > SIDE_BYTES_MAX {
            return true;
        }
        let rows = merger::frontier(&self.lanes)
            .is_some_and(|f| merger::has_rows(&self.lanes, &self.settings.shape, f));
        if rows || side > 0 {
            let closed: u64 = self
                .lanes
                .values()
                .flat_map(|l| l.closed.values())
                .map(|e| e.len() as u64)
                .sum();
            let interval = self.settings.commit_interval_ms;
            return (rows && closed > CLOSED_ENTRIES_MAX)
                || self
                    .last_cut
                    .is_none_or(|at| self.now.since(at) >= interval);
        }
        (moved || decided) && self.now.since(self.last_progress) >= PROGRESS_EVERY_MS
    }

    /// Draws the line: everything up to here becomes one epoch. Reading goes on at once.
    pub(super) fn cut(&mut self, genesis: Option<Genesis>, out: &mut Vec<Effect>) {
        let owner = self.owner.clone().expect("only an owner cuts");
        let epoch = self.next_epoch;
        let frontier = merger::frontier(&self.lanes).max(self.closed_through);
        self.join(frontier);
        let rows = frontier.map_or_else(Vec::new, |f| {
            merger::close(&mut self.lanes, &self.settings.shape, f)
        });
        self.rows += rows.len() as u64;
        self.row_count += rows.iter().map(|row| row.count).sum::<u64>();
        let ledger = self.table_ledger();
        let checks = self
            .lanes
            .values()
            .map(|lane| lane.ledger.check())
            .chain([ledger.check()]);
        if let Err(reason) = checks.collect::<Result<Vec<()>, String>>() {
            return self.fail(reason, out);
        }
        let lanes: BTreeMap<_, _> = self
            .lanes
            .iter()
            .map(|(p, lane)| (*p, self.lane_commit(*p, lane)))
            .collect();
        let mut puts = BTreeMap::new();
        let meta = footer(epoch, &lanes, &ledger);
        let files = self.files(&owner, epoch, &rows, &meta, &mut puts);
        let decisions = self
            .lanes
            .values_mut()
            .flat_map(|lane| std::mem::take(&mut lane.decisions))
            .collect();
        let checkpoint = self.write_checkpoint(&owner, epoch, ledger.consumed, &mut puts);
        let mut commit = Commit {
            owner,
            epoch,
            genesis,
            lanes,
            topic_id: self.topic_id.clone(),
            decisions,
            closed_through: frontier,
            ledger,
            files,
            checkpoint,
            manifest: String::new(),
            digest: String::new(),
        };
        commit.seal(&self.prefix);
        let manifest = serde_json::to_vec(&commit).expect("plain values");
        puts.insert(commit.manifest.clone(), (Arc::new(manifest), false));
        self.closed_through = frontier;
        self.last_cut = Some(self.now);
        self.last_progress = self.now;
        // Epoch 0 holds no record.
        let topic = if commit.genesis.is_some() || self.topic_id.is_empty() {
            TopicCheck::Same
        } else {
            TopicCheck::AskAt(self.now)
        };
        let commit = Arc::new(commit);
        self.in_flight = Some(InFlight {
            commit,
            puts,
            stage: Stage::Storing,
            retry_at: None,
            topic,
        });
        self.push_commit(out);
    }

    /// Topic partitions that appeared begin at the frontier: what they hold of closed windows is late.
    pub(super) fn join(&mut self, frontier: Option<EventTime>) {
        for (partition, start) in std::mem::take(&mut self.joining) {
            let mut lane = Lane::new(partition, &self.settings.shape, start);
            lane.set_delay(self.settings.delay_ms);
            if let Some(frontier) = frontier {
                lane.raise_floor(frontier, FloorReason::Join);
            }
            self.lanes.insert(partition, lane);
            self.watches.insert(
                partition,
                Watch {
                    last_record: self.now,
                    ..Watch::default()
                },
            );
            self.want_checkpoint = true;
        }
    }

    pub(super) fn lane_commit(&self, partition: Partition, lane: &Lane) -> LaneCommit {
        LaneCommit {
            from: self
                .committed
                .get(&partition)
                .copied()
                .unwrap_or(lane.ledger.start_offset),
            to: lane.ledger.next_offset,
            leader_epoch: lane.leader_epoch,
            watermark: lane.watermark(),
            ledger: lane.ledger,
        }
    }

    pub(super) fn table_ledger(&self) -> TableLedger {
        let mut ledger = self.archived;
        for lane in self.lanes.values() {
            ledger.add(&lane.ledger);
        }
        ledger.rows = self.rows;
        ledger.row_count = self.row_count;
        ledger.open = self.lanes.values().map(Lane::open_count).sum();
        ledger.closed = self.lanes.values().map(Lane::closed_count).sum();
        ledger
    }

    pub(super) fn files(
        &mut self,
        owner: &Owner,
        epoch: u64,
        rows: &[Row],
        meta: &[(String, String)],
        puts: &mut BTreeMap<String, (Arc<Vec<u8>>, bool)>,
    ) -> Vec<NewFile> {
        let shape = &self.settings.shape;
        let timestamps = self.settings.timestamps;
        let mut files = Vec::new();
        let mut add = |kind: FileKind,
                       folder: &str,
                       part: usize,
                       rows: usize,
                       windows: Option<(EventTime, EventTime)>,
                       bytes: Vec<u8>| {
            let sha256 = sha256_hex(&bytes);
            let key = object_key(&self.prefix, folder, owner, epoch, &sha256) + "/part.parquet";
            files.push(NewFile {
                kind,
                chunk: if part == 0 {
                    format!("{epoch:010}")
                } else {
                    format!("{epoch:010}-{part}")
                },
                key: key.clone(),
                bytes: bytes.len() as u64,
                rows: rows as u64,
                sha256,
                first_window: windows.map(|w| w.0),
                last_window: windows.map(|w| w.1),
            });
            puts.insert(key, (Arc::new(bytes), false));
        };
        for day in rows
            .chunk_by(|a, b| a.start.0.div_euclid(86_400_000) == b.start.0.div_euclid(86_400_000))
        {
            let date = day[0].start.date();
            for (part, rows) in day.chunks(FILE_ROWS_MAX).enumerate() {
                let bytes = file::write_rows(shape, timestamps, rows, meta);
                let windows = (rows[0].start, rows[rows.len() - 1].start);
                let folder = format!("rows/{date}");
                add(
                    FileKind::Rows { date: date.clone() },
                    &folder,
                    part,
                    rows.len(),
                    Some(windows),
                    bytes,
                );
            }
        }
        let (mut late, mut rejects) = (Vec::new(), Vec::new());
        for lane in self.lanes.values_mut() {
            late.append(&mut lane.late);
            rejects.append(&mut lane.rejects);
            lane.side_bytes = 0;
        }
        // They are, but where a log was cut off: what was read before and behind the cut may go into one epoch.
        late.sort_by_key(|row| (row.partition, row.offset));
        rejects.sort_by_key(|row| (row.partition, row.offset));
        if !late.is_empty() {
            let bytes = file::write_late(&shape.topic, timestamps, &shape.group_by, &late, meta);
            add(FileKind::Late, "late", 0, late.len(), None, bytes);
        }
        if !rejects.is_empty() {
            let bytes = file::write_rejects(&shape.topic, timestamps, &rejects, meta);
            add(FileKind::Rejects, "rejects", 0, rejects.len(), None, bytes);
        }
        files
    }

    /// A checkpoint goes with every commit while it is small, else by replay distance, and always with decisions that
    /// a replay could not repeat.
    pub(super) fn write_checkpoint(
        &mut self,
        owner: &Owner,
        epoch: u64,
        consumed: u64,
        puts: &mut BTreeMap<String, (Arc<Vec<u8>>, bool)>,
    ) -> Option<CheckpointAt> {
        let keys: u64 = self.lanes.values().map(Lane::key_slots).sum();
        let far = self.now.since(self.checkpoint_at) >= CHECKPOINT_EVERY_MS
            || consumed.saturating_sub(self.consumed_at_checkpoint) >= CHECKPOINT_EVERY_RECORDS;
        if epoch > 0
            && keys > self.settings.checkpoint_keys_small
            && !far
            && !self.want_checkpoint
            && self.stopping.is_none()
        {
            self.checkpoint_behind = true;
            return None;
        }
        self.checkpoint_behind = false;
        self.checkpoint_at = self.now;
        self.consumed_at_checkpoint = consumed;
        self.want_checkpoint = false;
        let states = self
            .lanes
            .iter()
            .map(|(p, lane)| (*p, lane.state()))
            .collect();
        let bytes = checkpoint::encode(&states, self.settings.shape.group_by.len());
        if bytes.len() <= CHECKPOINT_INLINE_MAX_BYTES {
            return Some(CheckpointAt::Inline(hex(&bytes)));
        }
        let key = object_key(
            &self.prefix,
            "checkpoints",
            owner,
            epoch,
            &sha256_hex(&bytes),
        );
        puts.insert(key.clone(), (Arc::new(bytes), false));
        Some(CheckpointAt::Object(key))
    }

    /// Carries the commit on: what is not stored is stored, then the catalog is told, then asked when it was silent.
    pub(super) fn push_commit(&mut self, out: &mut Vec<Effect>) {
        let Some(flight) = &mut self.in_flight else {
            return;
        };
        if flight.retry_at.is_some_and(|at| self.now < at) {
            return;
        }
        let retry = flight.retry_at.take().is_some();
        if flight.stage == Stage::Storing {
            if let TopicCheck::AskAt(at) = flight.topic
                && self.now >= at
                && self.topic_check_asked.ask()
            {
                flight.topic = TopicCheck::Asked;
                out.push(BrokersRequest::TopicId.into());
            }
            if flight.puts.is_empty() && flight.topic == TopicCheck::Same {
                flight.stage = Stage::Committing;
                out.push(CatalogRequest::Commit(Arc::clone(&flight.commit)).into());
                return;
            }
            // The manifest first, and alone: whoever comes after us finds by it what we left behind.
            let first = flight.puts.contains_key(&flight.commit.manifest);
            for (key, (bytes, asked)) in &mut flight.puts {
                if !*asked && (!first || *key == flight.commit.manifest) {
                    *asked = true;
                    out.push(
                        StoreRequest::Put {
                            key: key.clone(),
                            bytes: Arc::clone(bytes),
                        }
                        .into(),
                    );
                }
            }
        } else if retry {
            out.push(match flight.stage {
                Stage::Finding => CatalogRequest::Outcome {
                    owner: flight.commit.owner.clone(),
                    epoch: flight.commit.epoch,
                }
                .into(),
                _ => CatalogRequest::Commit(Arc::clone(&flight.commit)).into(),
            });
        }
    }

    pub(super) fn stored(&mut self, key: &str, result: Result<(), Trouble>, out: &mut Vec<Effect>) {
        let Some(flight) = &mut self.in_flight else {
            return;
        };
        let Some((_, asked)) = flight.puts.get_mut(key) else {
            return;
        };
        match result {
            Ok(()) => {
                flight.puts.remove(key);
                if flight.puts.is_empty() {
                    self.troubles.remove(&Side::Store);
                }
                self.push_commit(out);
            }
            Err(reason) => {
                *asked = false;
                flight.retry_at = Some(self.now.plus(RETRY_MS));
                self.trouble(Side::Store, reason);
            }
        }
    }

    pub(super) fn topic_checked(&mut self, answer: Result<String, Trouble>, out: &mut Vec<Effect>) {
        // One that was asked for earlier came in the place of ours, which is asked now.
        if !self.topic_check_asked.answered() {
            return;
        }
        let Some(flight) = self
            .in_flight
            .as_mut()
            .filter(|f| f.topic == TopicCheck::Asked)
        else {
            return;
        };
        match answer {
            Ok(id) if id.is_empty() || id == flight.commit.topic_id => {
                flight.topic = TopicCheck::Same;
                self.troubles.remove(&Side::Topic);
                self.push_commit(out);
            }
            // What was read since the last commit may be of either topic: back to the ledger, which decides by the id.
            Ok(id) => {
                let reason = format!(
                    "topic \"{}\" was made again while it was read: its id is {id}",
                    self.settings.shape.topic
                );
                self.give_back(out);
                self.fenced(reason, out);
            }
            Err(reason) => {
                flight.topic = TopicCheck::AskAt(self.now.plus(RETRY_MS));
                self.trouble(Side::Topic, reason);
            }
        }
    }

    pub(super) fn committed(
        &mut self,
        epoch: u64,
        result: Result<DbTime, CatalogError>,
        out: &mut Vec<Effect>,
    ) {
        let Some(flight) = &mut self.in_flight else {
            return;
        };
        if flight.commit.epoch != epoch || flight.stage != Stage::Committing {
            return;
        }
        match result {
            Ok(now) => self.epoch_is_true(now, out),
            Err(CatalogError::Fenced(reason)) => self.fenced(reason, out),
            Err(CatalogError::Stop(reason)) => self.fail(reason, out),
            Err(CatalogError::Retry(reason)) => {
                flight.retry_at = Some(self.now.plus(RETRY_MS));
                self.trouble(Side::Catalog, reason);
            }
            Err(CatalogError::Unknown(reason)) => {
                flight.stage = Stage::Finding;
                out.push(
                    CatalogRequest::Outcome {
                        owner: flight.commit.owner.clone(),
                        epoch,
                    }
                    .into(),
                );
                self.trouble(Side::Catalog, reason);
            }
        }
    }

    pub(super) fn found(
        &mut self,
        epoch: u64,
        result: Result<Outcome, CatalogError>,
        out: &mut Vec<Effect>,
    ) {
        let Some(flight) = &mut self.in_flight else {
            return;
        };
        if flight.commit.epoch != epoch || flight.stage != Stage::Finding {
            return;
        }
        match result {
            Ok(Outcome::Committed {
                digest,
                committed_at,
            }) if digest == flight.commit.digest => {
                self.epoch_is_true(committed_at, out);
            }
            Ok(Outcome::Committed { .. }) => {
                self.fenced(format!("epoch {epoch} is another owner's"), out);
            }
            Ok(Outcome::Absent) => {
                flight.stage = Stage::Committing;
                out.push(CatalogRequest::Commit(Arc::clone(&flight.commit)).into());
            }
            Err(CatalogError::Fenced(reason)) => self.fenced(reason, out),
            Err(error) => {
                flight.retry_at = Some(self.now.plus(RETRY_MS));
                self.trouble(Side::Catalog, error);
            }
        }
    }

    pub(super) fn epoch_is_true(&mut self, now: DbTime, out: &mut Vec<Effect>) {
        let flight = self.in_flight.take().expect("a commit was under way");
        self.troubles.remove(&Side::Catalog);
        self.next_epoch = flight.commit.epoch + 1;
        self.committed_at = self.committed_at.max(Some(now));
        self.committed = flight
            .commit
            .lanes
            .iter()
            .map(|(p, lane)| (*p, lane.to))
            .collect();
        out.push(Effect::CommitGroup(self.committed.clone()));
        out.push(Effect::Report(flight.commit));
        if matches!(self.phase, Phase::Founding) {
            self.phase = Phase::Counting;
            self.topic_ask_at = self.now.plus(TOPIC_EVERY_MS);
        }
        self.start_lanes(out);
    }
}

/// Lineage in each file's footer.
fn footer(
    epoch: u64,
    lanes: &BTreeMap<Partition, LaneCommit>,
    ledger: &TableLedger,
) -> Vec<(String, String)> {
    let offsets: BTreeMap<_, _> = lanes
        .iter()
        .map(|(p, lane)| (p, (lane.from, lane.to)))
        .collect();
    vec![
        ("windrow.epoch".to_owned(), epoch.to_string()),
        (
            "windrow.ledger".to_owned(),
            serde_json::to_string(ledger).expect("plain values"),
        ),
        (
            "windrow.offsets".to_owned(),
            serde_json::to_string(&offsets).expect("plain values"),
        ),
    ]
}
