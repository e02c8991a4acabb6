//! What the others pass around: times, offsets, keys, rows, decisions. No rule of counting is here.

pub mod time;
pub mod record;
pub mod shape;
pub mod aggregate;
pub mod object;
pub mod row;
pub mod decision;
pub mod ledger;
pub mod cause;
pub mod digest;
