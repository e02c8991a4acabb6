//! A **record** is read from a topic partition; **extract** takes its key and time, or rejects it
//! with a reason; **window** says which windows that time falls in; the **watermark** trails the
//! newest times and closes windows; a **partial** is an open window's count so far; closed partials
//! become the rows of a **file**; the **commit** of an epoch binds files, offsets and open partials
//! in one act; and the **table** shows the files of committed epochs, and only those.
//!
//! These are the rooms, in reading order. Each one uses only those above it. Two pairs do not know
//! each other: `count` and `table`, and `engine` and `settings`.

pub mod values;
pub mod count;
pub mod table;
pub mod adopt;
pub mod engine;
pub mod verify;
pub mod settings;
pub mod shown;
