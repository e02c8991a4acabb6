//! Answers as tables of text for a terminal, drawn as Hive's beeline draws the result of a query.
//! The input is the JSON of an answer, so that an answer over HTTP and one that was made from the
//! catalog look the same.

use crate::shown::status::Rows;
use crate::values::time::sql_time;
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// What people are shown of a topic partition: keys of `lanes` in the JSON of a status, in this
/// order.
pub const LANE_COLUMNS: [&str; 7] = [
    "partition",
    "next-offset",
    "end-offset",
    "lag",
    "watermark",
    "idle",
    "held-by",
];

/// The answer of `/v1/status`: first the keys of the action `get-table-status`, then a table of the
/// topic partitions, where the answer has any.
#[must_use]
pub fn status_table(status: &Value) -> String {
    const KEYS: [&str; 29] = [
        "table",
        "state",
        "reason",
        "cause",
        "problems",
        "rows",
        "files",
        "bytes",
        "first-window",
        "last-window",
        "watermark",
        "lag",
        "epoch",
        "last-commit",
        "consumed",
        "counted",
        "late",
        "rejected",
        "tombstones",
        "gaps",
        "lost",
        "lost-hits",
        "adopted",
        "commits",
        "commit-failures",
        "compaction",
        "topic",
        "owner",
        "version",
    ];
    let rows: Vec<_> = KEYS
        .iter()
        .filter_map(|key| {
            status
                .get(key)
                .map(|value| vec![(*key).to_owned(), cell_or_dash(value)])
        })
        .collect();
    let mut out = draw_box(&["key", "value"], &rows);
    if let Some(lanes) = status["lanes"].as_array().filter(|lanes| !lanes.is_empty()) {
        out += &draw_maps(&LANE_COLUMNS, lanes.iter());
    }
    out
}

/// The answer of `/v1/tables`, one table a line.
#[must_use]
pub fn tables_table(tables: &Value) -> String {
    let columns = [
        "table",
        "state",
        "rows",
        "files",
        "bytes",
        "first-window",
        "last-window",
    ];
    draw_maps(&columns, tables["tables"].as_array().into_iter().flatten())
}

/// The answer of `/v1/windows`, one window a line.
#[must_use]
pub fn windows_table(windows: &Value) -> String {
    draw_maps(
        &["start", "end", "keys", "count"],
        windows["windows"].as_array().into_iter().flatten(),
    )
}

/// The answer of `windrow compact --dry-run`: the merges and the drops, or a sentence where there
/// is nothing to do.
#[must_use]
pub fn compaction_plan_table(plan: &Value) -> String {
    let list = |key: &str| plan[key].as_array().filter(|items| !items.is_empty());
    let merges = list("merges").map(|merges| {
        let columns = ["table", "period", "files", "into", "rows", "bytes"];
        format!("would merge\n{}", draw_maps(&columns, merges.iter()))
    });
    let drops = list("drops").map(|drops| {
        let columns = ["table", "day", "files", "rows", "bytes"];
        format!("would drop\n{}", draw_maps(&columns, drops.iter()))
    });
    match (merges, drops) {
        (None, None) => "nothing is to be merged or dropped now\n".to_owned(),
        (merges, drops) => merges.into_iter().chain(drops).collect(),
    }
}

/// Rows as beeline prints the result of a query.
///
/// # Errors
/// The rows are not a list of maps.
pub fn rows_table(rows: &Rows) -> Result<String, serde_json::Error> {
    let maps: Vec<BTreeMap<&str, &RawValue>> = serde_json::from_str(rows.rows.get())?;
    let line = |map: &BTreeMap<&str, &RawValue>| {
        let raw = |column: &String| map.get(column.as_str()).map_or("null", |raw| raw.get());
        rows.columns
            .iter()
            .map(|column| raw_cell(raw(column)))
            .collect()
    };
    Ok(draw_box(
        &rows.columns,
        &maps.iter().map(line).collect::<Vec<Vec<String>>>(),
    ))
}

/// One value of a row. A number is shown as it is written, with all its digits.
fn raw_cell(raw: &str) -> String {
    if raw.starts_with(|c: char| c == '-' || c.is_ascii_digit()) {
        return raw.to_owned();
    }
    serde_json::from_str(raw).map_or_else(|_| raw.to_owned(), |value| cell(&value))
}

fn draw_maps<'a>(columns: &[&str], maps: impl Iterator<Item = &'a Value>) -> String {
    let rows: Vec<Vec<String>> = maps
        .map(|map| {
            let cell = |column: &&str| cell_or_dash(&map[*column]);
            columns.iter().map(cell).collect()
        })
        .collect();
    draw_box(columns, &rows)
}

/// A value of a status. What there is none of is a dash: `NULL` means something in rows alone.
fn cell_or_dash(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        value => cell(value),
    }
}

/// A value as beeline prints it. For example, a window is
/// `{"start":2024-09-01 19:42:15,"end":2024-09-01 19:42:25}`.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::String(text) => text.clone(),
        Value::Object(map)
            if map.len() == 2 && map.contains_key("start") && map.contains_key("end") =>
        {
            let time = |key: &str| map[key].as_str().map(sql_time).unwrap_or_default();
            format!("{{\"start\":{},\"end\":{}}}", time("start"), time("end"))
        }
        other => other.to_string(),
    }
}

/// Draws a box as beeline does: headers are centered, and cells are aligned to the left. Control
/// characters are written out, because the text of a record must not steer the terminal.
fn draw_box<S: AsRef<str>>(columns: &[S], rows: &[Vec<String>]) -> String {
    let columns: Vec<String> = columns.iter().map(|c| printable(c.as_ref())).collect();
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| row.iter().map(|c| printable(c)).collect())
        .collect();
    let length = |text: &String| text.chars().count();
    let widths: Vec<usize> = (0..columns.len())
        .map(|i| {
            rows.iter()
                .filter_map(|r| r.get(i))
                .chain([&columns[i]])
                .map(length)
                .max()
                .unwrap_or(0)
                + 1
        })
        .collect();
    let line: String = widths
        .iter()
        .map(|w| format!("+{}", "-".repeat(w + 2)))
        .collect::<String>()
        + "+\n";
    let mut out = line.clone();
    for (column, w) in columns.iter().zip(&widths) {
        out += &format!("| {column:^w$} ");
    }
    out += "|\n";
    out += &line;
    for row in &rows {
        for (text, w) in row.iter().zip(&widths) {
            out += &format!("| {text:<w$} ");
        }
        out += "|\n";
    }
    if !rows.is_empty() {
        out += &line;
    }
    out
}

/// The text with its control characters written out: an escape character becomes `\u{1b}`.
#[must_use]
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        // Marks that change the direction of writing can hide text just as control characters can.
        if c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}')
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shown::example::{full, rows};
    use serde_json::json;

    #[test]
    fn rows_print_as_beeline_prints_them() {
        let row = |start: &str, end: &str, count: u64| {
            json!({
                "window": {"start": start, "end": end},
                "origin": "producer-0 (10.1.63.230)",
                "count": count,
            })
        };
        let rows = rows(
            &["window", "origin", "count"],
            &json!([
                row("2024-09-01T19:42:15Z", "2024-09-01T19:42:25Z", 4),
                row("2024-09-01T19:42:30.500Z", "2024-09-01T19:42:40.500Z", 20),
            ])
            .to_string(),
        );
        let expect = r#"
+--------------------------------------------------------------+---------------------------+--------+
|                            window                            |          origin           | count  |
+--------------------------------------------------------------+---------------------------+--------+
| {"start":2024-09-01 19:42:15,"end":2024-09-01 19:42:25}      | producer-0 (10.1.63.230)  | 4      |
| {"start":2024-09-01 19:42:30.5,"end":2024-09-01 19:42:40.5}  | producer-0 (10.1.63.230)  | 20     |
+--------------------------------------------------------------+---------------------------+--------+
"#;
        assert_eq!(rows_table(&rows).unwrap(), expect.trim_start());
    }

    #[test]
    fn numbers_keep_all_their_digits() {
        let out = rows_table(&rows(
            &["a", "b", "c"],
            r#"[{"a":0.10,"b":-85070591730234615865843651857942052863}]"#,
        ))
        .unwrap();
        assert!(
            out.contains("| 0.10  | -85070591730234615865843651857942052863  | NULL  |"),
            "{out}"
        );
    }

    #[test]
    fn empty_answers_print_their_headers() {
        assert_eq!(windows_table(&json!({"windows": []})).lines().count(), 3);
        assert_eq!(tables_table(&json!({})).lines().count(), 3);
        assert!(status_table(&full().summary()).contains("| watermark "));
    }

    #[test]
    fn nothing_in_a_status_is_a_dash() {
        let status = json!({
            "reason": "", "lag": null, "epoch": 0, "watermark": null,
            "lanes": [{"partition": 0, "held-by": null, "lag": null, "idle": false}],
        });
        let tables = json!({"tables": [{"table": "a.b", "first-window": null}]});
        for out in [status_table(&status), tables_table(&tables)] {
            assert!(!out.contains("NULL") && out.contains("| -"), "{out}");
        }
        assert!(status_table(&status).contains("| epoch      | 0      |"));
    }

    #[test]
    fn a_records_text_does_not_steer_the_terminal() {
        let out = draw_box(&["a"], &[vec!["\x1b[2J\nx\u{202e}".to_owned()]]);
        assert!(!out.contains('\x1b') && !out.contains('\u{202e}'));
        assert_eq!(out.lines().count(), 5);
    }
}
