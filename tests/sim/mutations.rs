//! The mutations of the engine that the auditor must notice, each a sentence, a place and another
//! text for it. How they are run is in `mutants.rs`.

/// One mistake in the engine.
pub struct Mutation {
    /// What the engine does wrong then.
    pub name: &'static str,
    /// The file, below `core/src`.
    pub file: &'static str,
    /// An expression, or statements that end with `;`, as it stands there exactly once. Where it
    /// needs more text around it to be the only one, the expression stands between « and ».
    pub from: &'static str,
    /// What stands there instead.
    pub to: &'static str,
}

const fn mutation(
    name: &'static str,
    file: &'static str,
    from: &'static str,
    to: &'static str,
) -> Mutation {
    Mutation {
        name,
        file,
        from,
        to,
    }
}

/// All of them, in the order of their files.
///
/// Not here is what 2,000 seeds do not catch:
///
/// - The answers to an earlier ownership do not count (`engine/questions.rs`). Behind that rule
///   stand the check of the topic before each commit, and the keys of checkpoints. It is alone
///   only where a list of manifests is an old one and the catalog was lost since.
/// - The digest of an epoch that was found after a lost answer (`engine/flight.rs`). Without it the
///   engine reports an epoch of another owner as its own; its next commit is refused all the same.
#[rustfmt::skip] // One text a line.
pub const ALL: &[Mutation] = &[
    mutation(
        "a window that ends at the watermark still takes records",
        "count/lane.rs",
        "span.last_end <= self.watermark_ms",
        "span.last_end < self.watermark_ms",
    ),
    mutation(
        "a window is closed a little after the watermark has reached its end",
        "count/lane.rs",
        "self.watermark_ms >= self.next_end",
        "self.watermark_ms > self.next_end + 500",
    ),
    mutation(
        "late hits are not counted",
        "count/lane/hits.rs",
        "self.ledger.late_hits += span.closed(self.slide, self.watermark_ms) - adopted;",
        "",
    ),
    mutation(
        "a ceiling is not obeyed in a replay",
        "count/lane/replay.rs",
        "self.ledger.next_offset));\n            «self.obey(&decision.what);»",
        "if !matches!(decision.what, Decided::Ceiling { .. }) { self.obey(&decision.what); }",
    ),
    mutation(
        "a floor is not obeyed in a replay",
        "count/lane/replay.rs",
        "self.ledger.next_offset));\n            «self.obey(&decision.what);»",
        "if !matches!(decision.what, Decided::Floor { .. }) { self.obey(&decision.what); }",
    ),
    mutation(
        "a delay is not obeyed in a replay",
        "count/lane/replay.rs",
        "self.ledger.next_offset));\n            «self.obey(&decision.what);»",
        "if !matches!(decision.what, Decided::Delay { .. }) { self.obey(&decision.what); }",
    ),
    mutation(
        "a replay obeys a decision one offset late",
        "count/lane/replay.rs",
        "d.offset <= until",
        "d.offset < until",
    ),
    mutation(
        "a replay that comes to another watermark or newest time is taken for right",
        "count/lane/replay.rs",
        "«self.ledger != goal || times != must» {",
        "self.ledger != goal",
    ),
    mutation(
        "a replay writes late records once more",
        "count/lane.rs",
        "is in a file already.\n            if «self.replay.is_none()»",
        "true",
    ),
    mutation(
        "a checkpoint forgets the windows that are closed and not final",
        "count/checkpoint.rs",
        "closed: «closed.collect()»,",
        "closed.take(0).collect()",
    ),
    mutation(
        "other lanes follow the loss floor of the lane that lost",
        "count/lane/look.rs",
        "self.watermark.without_loss()",
        "self.watermark.get()",
    ),
    mutation(
        "only counted records move the watermark",
        "count/lane.rs",
        "«time.0 <= self.ceiling»\n            && self.stopped",
        "time.0 < i64::MIN",
    ),
    mutation(
        "tombstones and rejects from the future move the watermark",
        "count/lane.rs",
        "«time.0 <= self.ceiling»\n            && self.stopped",
        "time.0 >= i64::MIN",
    ),
    mutation(
        "a longer delay lowers the watermark",
        "count/watermark.rs",
        "self.floor = self.without_loss();",
        "",
    ),
    mutation(
        "the table closes by the greatest watermark",
        "count/merger.rs",
        "lanes.values().map(Lane::watermark).min().flatten()",
        "lanes.values().map(Lane::watermark).max().flatten()",
    ),
    mutation(
        "the table takes windows that end after the frontier",
        "count/merger.rs",
        "frontier.0 - shape.window_ms + 1",
        "frontier.0 - shape.window_ms + shape.slide_ms + 1",
    ),
    mutation(
        "a window that ends at the frontier is not final",
        "count/merger.rs",
        "frontier.0 - shape.window_ms + 1",
        "frontier.0 - shape.window_ms",
    ),
    mutation(
        "a day manifest goes although the log still has its offsets",
        "table/history.rs",
        "log_starts.get(p).is_some_and(|start| «to <= start»)",
        "to <= start || *start >= 0",
    ),
    mutation(
        "an epoch is committed again although one of its objects is not there",
        "engine/chain.rs",
        "if let Some(why) = «wrong» {",
        "wrong.filter(|_| false)",
    ),
    mutation(
        "an epoch is committed again although one of its objects is doomed",
        "engine/chain.rs",
        "match «doomed.first()» {",
        "doomed.first().filter(|_| false)",
    ),
    mutation(
        "of several branches of the chain a shorter one is followed",
        "engine/chain.rs",
        "1 => return Ok(«tips.into_values().next().expect(\"there is one\").1»)",
        "{ let long = tips.into_values().next().expect(\"there is one\"); \
         fork.tips.into_values().find(|tip| *tip != long).expect(\"there are several\").1 }",
    ),
    mutation(
        "of branches of the same length the one of the lowest term is followed",
        "engine/chain.rs",
        "let highest = «fork.tips.into_values().max()»",
        "fork.tips.into_values().min()",
    ),
    mutation(
        "an epoch that may never have been committed is followed whatever the topic is",
        "engine/flight.rs",
        "let same = «was_committed || !commit.retired.is_empty()»;",
        "true",
    ),
    mutation(
        "the table is not read anew after the chain was followed",
        "engine/following.rs",
        "self.followed > 0",
        "false",
    ),
    mutation(
        "the chain is not followed",
        "engine/following.rs",
        "let next = «self.chain.next()»;",
        "Next::End",
    ),
    mutation(
        "orphans are looked for before the chain is followed",
        "engine/ours.rs",
        "self.garbage.tick(«has_epochs && is_followed», step);",
        "has_epochs",
    ),
    mutation(
        "windows that are committed are not taken after a replay",
        "engine/table.rs",
        "merger::take(&mut self.lanes, &step.rules.shape, through);",
        "let _ = through;",
    ),
    mutation(
        "a topic partition that joins begins below the frontier",
        "engine/table.rs",
        "lane.raise_floor(frontier, FloorReason::Join);",
        "let _ = frontier;",
    ),
    mutation(
        "a loss brings no checkpoint with it",
        "engine/table.rs",
        "«!self.checkpoint.wanted» && !step.ending",
        "true",
    ),
    mutation(
        "nothing is committed while there is nothing to show",
        "engine/table.rs",
        "«(moved || decided)» && step.now.since(self.last_progress)",
        "false",
    ),
    mutation(
        "a frontier that stands still is taken for one that moves",
        "engine/stall.rs",
        "self.frontier != frontier",
        "now.0 > 0",
    ),
    mutation(
        "the trouble of one lane is wiped by another lane's progress",
        "engine/counting.rs",
        "step.troubles.end(Side::Lane(partition));",
        "for other in self.table.lanes().keys() { step.troubles.end(Side::Lane(*other)); }",
    ),
    mutation(
        "no floor is raised while another topic partition is read",
        "engine/reading.rs",
        "lanes.iter().filter_map(watermark).min().flatten()",
        "lanes.iter().filter_map(watermark).min().flatten().filter(|_| false)",
    ),
    mutation(
        "an open transaction is no reason to wait",
        "engine/reading.rs",
        "end.last_stable < end.high_watermark",
        "end.last_stable > end.high_watermark",
    ),
    mutation(
        "the floor is the greatest watermark and not the least",
        "engine/reading.rs",
        "lanes.iter().filter_map(watermark).min().flatten()",
        "lanes.iter().filter_map(watermark).max().flatten()",
    ),
    mutation(
        "a floor goes further than was known when the log was seen to be empty",
        "engine/reading.rs",
        "limit.min(target)",
        "{ let _ = limit; target }",
    ),
    mutation(
        "a log's end counts for ever once it was seen",
        "engine/feed.rs",
        "self.idle_until.is_some_and(|until| now < until)",
        "self.idle_until.is_some_and(|until| now.0 > 0 || now < until)",
    ),
    mutation(
        "a topic partition is gone once one broker does not know it",
        "engine/feed.rs",
        "self.gone.is_some_and(Answers::are_believed)",
        "self.gone.is_some()",
    ),
    mutation(
        "a log is cut off once one broker says that it ends earlier",
        "engine/counting/losses.rs",
        "!self.reading.believes_cut(partition, step)",
        "!self.reading.believes_cut(partition, step) && step.now.0 == 0",
    ),
    mutation(
        "a topic partition stands aside before it has read to the end that was asked for",
        "engine/feed.rs",
        "next >= self.offset",
        "self.offset >= 0 && next >= 0",
    ),
    mutation(
        "a record that is not counted and moves nothing is a sign of life",
        "engine/table.rs",
        "before != (lane.ledger.counted, lane.watermark())",
        "before != (u64::MAX, None)",
    ),
    mutation(
        "a broker that is behind is believed where a log ends",
        "engine/reading.rs",
        "end.high_watermark < question.next_offset",
        "question.next_offset < 0",
    ),
    mutation(
        "what came damaged is not asked for again",
        "engine/reading.rs",
        "«step.now >= at»\n                && feed.reading\n",
        "step.now < at && step.now >= at",
    ),
    mutation(
        "what flow control holds back is never read again",
        "engine/reading.rs",
        "feed.held != hold",
        "feed.held != hold && hold",
    ),
    mutation(
        "the quiet floor goes past the last open window",
        "engine/reading.rs",
        "lanes.values().filter_map(Lane::last_end).max()",
        "lanes.values().filter_map(Lane::last_end).max().map(|at| at.plus(20_000))",
    ),
    mutation(
        "a commit does not wait for its objects",
        "engine/flight.rs",
        "«self.puts.is_empty()» && self.topic",
        "true",
    ),
    mutation(
        "a commit does not wait for the topic to be checked",
        "engine/flight.rs",
        "self.topic == TopicCheck::Same",
        "true",
    ),
    mutation(
        "an epoch that is absent is taken for committed",
        "engine/flight.rs",
        "self.stage = Stage::Committing;\n                self.send(step);",
        "return Ok(Some((Arc::clone(&self.commit), DbTime(0))));",
    ),
    mutation(
        "decisions are not committed",
        "engine/cut.rs",
        "decisions.into_iter().flatten().collect()",
        "Vec::new()",
    ),
    mutation(
        "what is doomed is deleted at once",
        "engine/garbage.rs",
        "let (after, grace_ms) = (after.clone(), «step.rules.keep_replaced_ms»);",
        "0",
    ),
    mutation(
        "a key is forgotten although its object could not be deleted",
        "engine/garbage.rs",
        "step.ask(CatalogRequest::Forget { owner, keys: «gone» });",
        "[gone, kept.to_vec()].concat()",
    ),
    mutation(
        "a merged file that waits for its swap is taken for an orphan",
        "engine/garbage.rs",
        "self.watch.in_hand.iter().any(|ours| ours == key)",
        "false",
    ),
    mutation(
        "a merge is begun during a pause",
        "engine/upkeep.rs",
        "«step.paused» || step.ending || table.last()",
        "false",
    ),
    mutation(
        "files are retired without the one that replaces them",
        "engine/upkeep.rs",
        "self.work = Work::Ready(Swap { files, retired });",
        "let _ = files; self.work = Work::Ready(Swap { files: Vec::new(), retired });",
    ),
    mutation(
        "emptied table partitions are deleted at once",
        "engine/upkeep.rs",
        "emptied_ms: «step.rules.compaction.emptied_ms»,",
        "0",
    ),
    mutation(
        "a file that is gone is merged again and again",
        "engine/upkeep.rs",
        "self.left_out.extend(left_out);",
        "drop(left_out);",
    ),
    mutation(
        "the files of a period that is not closed become one",
        "table/compaction.rs",
        "«closed» && is_worth_it(*period",
        "true",
    ),
    mutation(
        "a file is merged right after its commit",
        "table/compaction.rs",
        "facts.now.0.saturating_sub(live.committed_at.0) >= facts.times.settled_ms",
        "facts.now.0 > 0",
    ),
    mutation(
        "an epoch with other contents is taken for the same one",
        "table/admit.rs",
        "there.digest == commit.digest",
        "true",
    ),
    mutation(
        "a former owner may commit",
        "table/admit.rs",
        "check_owner(facts, &commit.owner)",
        "Ok::<(), String>(())",
    ),
];
