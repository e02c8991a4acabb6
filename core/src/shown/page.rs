//! The status page: a [`Status`] as one HTML document. It loads nothing else and runs no script.

use crate::shown::status::{State, Status};
use crate::values::time::EventTime;
use std::fmt::Write;

/// A browser loads the page again after this many seconds.
const REFRESH_S: u32 = 5;
/// How many open windows are shown, oldest first. Of the others the page says how many there are.
const WINDOWS_MAX: usize = 50;

const STYLE: &str = "
:root{color-scheme:light dark;--line:#8884;--dim:#888;--ok:#1a7f37;--warn:#9a6700;--bad:#cf222e}
@media(prefers-color-scheme:dark){:root{--ok:#3fb950;--warn:#d29922;--bad:#f85149}}
body{font:15px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.4rem;margin:0}h2{font-size:1.05rem;margin:2rem 0 .5rem}
.state{font-weight:600}.counting{color:var(--ok)}.failed{color:var(--bad)}
.waiting,.paused,.standby{color:var(--warn)}
dl{display:grid;grid-template-columns:repeat(auto-fill,minmax(11rem,1fr));gap:.75rem 1.5rem}
dl{margin:1.5rem 0}dt{color:var(--dim);font-size:.85rem}
dd{margin:0;font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%}
th,td{text-align:right;padding:.25rem .75rem;border-bottom:1px solid var(--line)}
th,td{font-variant-numeric:tabular-nums;white-space:nowrap}
th{color:var(--dim);font-weight:400}th:first-child,td:first-child{text-align:left}
footer,.note{color:var(--dim);font-size:.85rem}
";

/// The whole page, as HTML.
#[must_use]
pub fn page(status: &Status) -> String {
    let name = if status.table.is_empty() {
        "console"
    } else {
        status.table.as_str()
    };
    let mut out = String::with_capacity(8192);
    out += "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">";
    out += "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">";
    push(
        &mut out,
        format_args!(
            "<meta http-equiv=\"refresh\" content=\"{REFRESH_S}\"><title>{} · windrow</title>",
            Html(name)
        ),
    );
    push(
        &mut out,
        format_args!("<style>{STYLE}</style></head><body><h1>{}</h1>", Html(name)),
    );
    push(
        &mut out,
        format_args!(
            "<p><span class=\"state {0}\">{0}</span>",
            status.state.name()
        ),
    );
    if status.state != State::Counting && !status.reason.is_empty() {
        push(&mut out, format_args!(": {}", Html(&status.reason)));
    }
    out += "</p>";
    if !status.problems.is_empty() {
        push(
            &mut out,
            format_args!("<p class=\"waiting\">{}</p>", Html(&status.problems)),
        );
    }
    push_figures(&mut out, status);
    push_lanes(&mut out, status);
    push_windows(&mut out, status);
    push(
        &mut out,
        format_args!(
            "<footer><p>windrow {} · topic {} · owner {} · <a href=\"/metrics\">metrics</a> · \
             <a href=\"/v1/status\">json</a></p></footer></body></html>",
            Html(&status.version),
            Html(&status.topic),
            Html(&status.owner),
        ),
    );
    out
}

fn push_figures(out: &mut String, s: &Status) {
    let times = [
        ("watermark", s.watermark),
        ("first window", s.first_window),
        ("last window", s.last_window),
        ("last commit", s.last_commit),
    ];
    let numbers = [("lag", s.lag), ("epoch", s.epoch)];
    let counts = [
        ("rows", s.rows),
        ("files", s.files),
        ("bytes", s.bytes),
        ("consumed", s.consumed),
        ("counted", s.counted),
        ("late", s.late),
        ("rejected", s.rejected),
        ("tombstones", s.tombstones),
        ("gaps", s.gaps),
        ("lost", s.lost),
        ("lost-hits", s.lost_hits),
    ];
    *out += "<dl>";
    for (name, time) in times {
        push(
            out,
            format_args!("<div><dt>{name}</dt><dd>{}</dd></div>", time_text(time)),
        );
    }
    for (name, n) in numbers
        .into_iter()
        .chain(counts.map(|(name, n)| (name, Some(n))))
    {
        let n = n.map_or_else(|| "–".to_owned(), grouped);
        push(out, format_args!("<div><dt>{name}</dt><dd>{n}</dd></div>"));
    }
    *out += "</dl>";
}

fn push_lanes(out: &mut String, status: &Status) {
    if status.lanes.is_empty() {
        return;
    }
    *out += "<h2>Topic partitions</h2><div class=\"wide\"><table>\
        <tr><th>partition</th><th>next offset</th><th>lag</th><th>watermark</th>\
        <th>counted</th><th>late</th><th>rejected</th><th></th></tr>";
    for lane in &status.lanes {
        let mut note = match lane.held_by {
            Some(slow) => format!("held by {slow}"),
            None if lane.idle => "idle".to_owned(),
            None => String::new(),
        };
        if status.frontier_holder == Some(lane.partition) && status.lanes.len() > 1 {
            note += if note.is_empty() { "" } else { ", " };
            note += "the others wait for it";
        }
        push(
            out,
            format_args!(
                "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td>\
                 <td>{}</td><td>{}</td><td>{}</td><td>{note}</td></tr>",
                lane.partition,
                lane.next_offset,
                lane.lag.map_or_else(|| "–".to_owned(), grouped),
                time_text(lane.watermark),
                grouped(lane.ledger.counted),
                grouped(lane.ledger.late),
                grouped(lane.ledger.rejected),
            ),
        );
    }
    *out += "</table></div>";
}

fn push_windows(out: &mut String, status: &Status) {
    *out += "<h2>Open windows</h2>";
    if status.windows.is_empty() {
        *out += "<p class=\"note\">None.</p>";
        return;
    }
    *out +=
        "<div class=\"wide\"><table><tr><th>start</th><th>end</th><th>keys</th><th>count</th></tr>";
    for window in status.windows.iter().take(WINDOWS_MAX) {
        let (keys, count) = (grouped(window.keys), grouped(window.count));
        push(
            out,
            format_args!(
                "<tr><td>{}</td><td>{}</td><td>{keys}</td><td>{count}</td></tr>",
                window.start, window.end
            ),
        );
    }
    *out += "</table></div>";
    if let Some(more) = status
        .windows
        .len()
        .checked_sub(WINDOWS_MAX)
        .filter(|n| *n > 0)
    {
        push(out, format_args!("<p class=\"note\">and {more} more</p>"));
    }
}

fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a string takes all text");
}

fn time_text(time: Option<EventTime>) -> String {
    time.map_or_else(|| "–".to_owned(), |t| t.to_string())
}

/// `1234567` as `1 234 567`, with narrow spaces at which a line does not break.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() * 2);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

/// Text from outside, escaped so that a browser takes it as text, both in elements and in quoted
/// attributes.
struct Html<'a>(&'a str);

impl std::fmt::Display for Html<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shown::example::full;

    #[test]
    fn the_page_shows_what_the_status_says() {
        let html = page(&full());
        for part in [
            "<title>default.newtable · windrow</title>",
            "counting",
            "2024-09-01T19:43:25Z",
            "held by 2",
            "2\u{202f}048",
        ] {
            assert!(html.contains(part), "{part}\n{html}");
        }
        assert!(!html.contains("<script") && !html.contains("src=") && !html.contains("http://"));
    }

    #[test]
    fn text_from_outside_stays_text() {
        let bad = "<img src=x onerror='alert(1)'>\"&";
        let status = Status {
            table: bad.into(),
            reason: bad.into(),
            topic: bad.into(),
            owner: bad.into(),
            version: bad.into(),
            ..Status::default()
        };
        let html = page(&status);
        assert!(
            !html.contains("<img") && !html.contains("alert(1)'"),
            "{html}"
        );
        assert_eq!(
            html.matches("&lt;img src=x onerror=&#39;alert(1)&#39;&gt;&quot;&amp;")
                .count(),
            6
        );
    }
}
