//! A status and rows with a value in every field, for tests here and in the other crates.

use crate::shown::status::{LaneStatus, Rows, State, Status, WindowStatus};
use crate::values::time::EventTime;
use serde_json::value::RawValue;

/// A status with a value in every field.
pub fn full() -> Status {
    let at = |s: i64| EventTime(1_725_219_735_000 + s * 1000);
    Status {
        table: "default.newtable".to_owned(),
        state: State::Counting,
        rows: 10,
        files: 2,
        bytes: 2048,
        first_window: Some(at(0)),
        last_window: Some(at(60)),
        watermark: Some(at(70)),
        frontier_holder: Some(7),
        frontier_held_because: "it has records that are not read yet".to_owned(),
        frontier_age_ms: 1500,
        lag: Some(5),
        epoch: Some(3),
        last_commit: Some(EventTime(1_725_219_800_500)),
        consumed: 180,
        counted: 170,
        late: 4,
        rejected: 3,
        tombstones: 2,
        gaps: 1,
        rows_committed: 10,
        commits: 4,
        compactions: 6,
        compaction_read_bytes: 5000,
        compaction_written_bytes: 4000,
        compaction: "2 merges are due".to_owned(),
        compaction_due_merges: 2,
        compaction_due_files: 64,
        compaction_behind_ms: 2500,
        compaction_left_out_files: 1,
        topic: "test-topic".to_owned(),
        owner: "model/app/0".to_owned(),
        version: "0.1.0".to_owned(),
        memory_bytes: 3 << 20,
        memory_limit_bytes: 512 << 20,
        lanes: vec![LaneStatus {
            partition: 7,
            next_offset: 180,
            end_offset: Some(185),
            lag: Some(5),
            watermark: Some(at(70)),
            held_by: Some(2),
            ..LaneStatus::default()
        }],
        windows: vec![WindowStatus {
            start: at(70),
            end: at(80),
            keys: 1,
            count: 9,
        }],
        ..Status::default()
    }
}

/// One answer with rows: `json` is the list of maps.
pub fn rows(columns: &[&str], json: &str) -> Rows {
    let columns = columns.iter().map(|c| (*c).to_owned()).collect();
    Rows {
        table: "default.newtable".to_owned(),
        columns,
        rows: RawValue::from_string(json.to_owned()).unwrap(),
        count: 1,
        truncated: true,
    }
}
