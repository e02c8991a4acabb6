//! The loops and tasks that perform what the engine asks for and hand its answers back.

pub mod cli;
pub mod clients;
pub mod driver;
pub mod rotation;
pub mod console_loop;
pub mod demo;
