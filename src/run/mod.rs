//! The loops and tasks that perform what the engine asks for and hand its answers back.

pub mod cli;
pub mod panics;
pub mod from_manifests;
pub mod clients;
pub mod running;
mod clock;
pub mod driver;
pub mod catalog_task;
pub mod perform;
pub mod pace;
pub mod merging;
pub mod verify;
pub mod verify_task;
pub mod rows;
pub mod log;
pub mod rotation;
pub mod compact;
pub mod console_loop;
pub mod demo;
pub mod adopt;
