//! Value → key and time, or a reject with a reason.
use crate::shape::Shape;
use crate::time::EventTime;

pub struct Extracted<'a> { pub key: &'a [u8], pub time: EventTime, pub values: &'a [Option<i64>] }
pub enum Extraction<'a> { Counted(Extracted<'a>), Reject { reason: String, time: Option<EventTime> } }
pub struct Extractor { key: Vec<u8> }
impl Extractor {
    pub fn new(_shape: &Shape) -> Self { Self { key: Vec::new() } }
    pub fn extract(&mut self, timestamp_ms: i64, value: &[u8]) -> Extraction<'_> {
        let v: serde_json::Value = match serde_json::from_slice(value) { Ok(v) => v, Err(e) => return Extraction::Reject { reason: e.to_string(), time: None } };
        self.key.clear();
        match v.get("origin").and_then(|o| o.as_str()) { Some(s) => crate::record::Key::push_column(&mut self.key, Some(s), true), None => return Extraction::Reject { reason: "no field".into(), time: None } }
        Extraction::Counted(Extracted { key: &self.key, time: EventTime(timestamp_ms), values: &[] })
    }
}
