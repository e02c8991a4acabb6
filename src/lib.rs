//! A **record** is read from a topic partition; **extract** takes its key and time, or rejects it with a reason;
//! **window** says which windows that time falls in; the **watermark** trails the newest times and closes windows;
//! a **partial** is an open window's count so far; closed partials become the rows of a **file**; the **commit** of an
//! epoch binds files, offsets and open partials in one act; and the **table** shows the files of committed epochs, and
//! only those.

pub mod time;
pub mod record;
pub mod shape;
pub mod json;
pub mod extract;
pub mod window;
pub mod watermark;
pub mod row;
pub mod partial;
pub mod ledger;
pub mod lane;
pub mod merger;
pub mod cause;
pub mod commit;
pub mod listing;
mod columnar;
pub mod file;
pub mod checkpoint;
pub mod engine;
pub mod table;
pub mod grammar;
pub mod config;
pub mod status;
pub mod notify;
pub mod page;
pub mod access;
pub mod console;
pub mod cli;
pub mod io;
pub mod parts;
pub mod driver;
