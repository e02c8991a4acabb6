//! A record's key and time are extracted, its windows found, the watermark moved, its count added.

pub mod json;
pub mod extract;
pub mod window;
pub mod watermark;
pub mod partial;
pub mod lane;
pub mod merger;
pub mod checkpoint;
