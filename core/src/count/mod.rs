//! A record's key and time are extracted, its windows found, the watermark moved, its count added.
//!
//! A lane is one topic partition and everything that windrow keeps about it; the merger combines
//! all lanes into the table. Two topic partitions, p0 and p1, with `window` and `slide` 10s,
//! `watermark-delay` 10s and `idle-timeout` 30s (all times of day are event times):
//!
//! | what happens | p0's watermark | p1's watermark | what follows |
//! |---|---|---|---|
//! | p0, offset 0: `a` at 12:00:03 | 11:59:53 | – | counted in [12:00:00, 12:00:10) |
//! | p1, offset 0: `a` at 12:00:05 | 11:59:53 | 11:59:55 | counted in the same window |
//! | p0, offset 1: `b` at 12:00:21 | 12:00:11 | 11:59:55 | p0's partial is final; p1's is open |
//! | p1 has nothing for 30 s | 12:00:11 | 12:00:11 | p1 gets the floor 12:00:11 at offset 1 |
//! | | | | the row `12:00:00 12:00:10 a 2` is final |
//! | p1, offset 1: `a` at 12:00:07 | 12:00:11 | 12:00:11 | late, and late in every replay |
//!
//! Who decides that a topic partition is idle is not known here: a floor arrives as a decision.

mod json_text;
mod json;
pub mod extract;
pub mod window;
pub mod watermark;
mod interner;
mod slice;
mod plausible;
pub mod partial;
pub mod lane;
pub mod merger;
pub mod checkpoint;
