//! What a Spark job has left becomes epoch 0: which files, from which offsets, under which floor.
//! Nothing is read or written here.
//!
//! A job leaves two directories behind. That of the table has the files, and `_spark_metadata`,
//! which names those that count. That of the checkpoint says how far the job was:
//!
//! | object | what it says |
//! |---|---|
//! | `<table>/_spark_metadata/7` | the files of batch 7; `9.compact` those of batches 0 to 9 |
//! | `<checkpoint>/offsets/7` | where batch 7 ends, and the watermark that it closed windows by |
//! | `<checkpoint>/commits/7` | batch 7 is done |
//! | `<checkpoint>/sources/0/0` | the offsets at which batch 0 began |
//!
//! Spark writes them in the order `offsets/7`, the files, `_spark_metadata/7`, `commits/7`. So a
//! job that was killed leaves the last of them out, and what is there still agrees (see [`job`]).

pub mod sink_log;
pub mod job;
pub mod epoch;
