//! Event time, processing time, dates and durations: the only arithmetic on time.
//! No clock is read here; what a clock says arrives as an argument.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::RangeInclusive;

/// The time at which a record says that it happened, in milliseconds since 1970 UTC. Times before
/// 1970 are negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EventTime(pub i64);

/// The machine's own monotonic time, in milliseconds since an arbitrary start. It is never mixed
/// with [`EventTime`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Mono(pub u64);

/// A time of the database's clock, in milliseconds since 1970 UTC. It bounds event times and ends
/// leases; it is used for nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DbTime(pub i64);

/// A time of the machine's own wall clock, in milliseconds since 1970 UTC. People, NTP and a
/// hypervisor may set it at any moment, in either direction. It is the second witness beside
/// [`DbTime`] of what time it is, and is used for nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct WallTime(pub i64);

/// The event times in ms that can be counted: those of the years 2 to 9998. SQL has the years 1 to
/// 9999, and the year at each end is left for windows that reach beyond the time, and for readers
/// that show it in a zone of theirs: PySpark fails at `0001-01-01T00:00:00Z` (which is .NET's date
/// that was never set) with `ValueError: year 0 is out of range`.
pub const YEARS_2_TO_9998_MS: RangeInclusive<i64> = -62_104_060_800_000..=253_370_764_799_999;

/// The times in ms that a file may have: two days within the years 1 to 9999, so that they are of
/// these years in every zone of a reader. It is from 0001-01-03 to 9999-12-29.
pub const READABLE_MS: RangeInclusive<i64> = -62_135_424_000_000..=253_402_127_999_999;

impl EventTime {
    /// The time `ms` milliseconds later. It saturates, so that the year 292 million is an end and
    /// does not wrap around.
    #[must_use]
    pub fn plus(self, ms: i64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// The time `ms` milliseconds earlier. It saturates.
    #[must_use]
    pub fn minus(self, ms: i64) -> Self {
        Self(self.0.saturating_sub(ms))
    }

    /// The day in UTC that this time falls in, for example `2024-09-01`. It is the value of `date`,
    /// the column that names the table partition.
    #[must_use]
    pub fn date(self) -> String {
        let (year, month, day) = civil_from_days(self.0.div_euclid(86_400_000));
        format!("{year:04}-{month:02}-{day:02}")
    }
}

/// RFC 3339 in UTC, with milliseconds only when they are not zero: `2024-09-01T19:42:15Z`,
/// `2024-09-01T19:42:15.250Z`.
impl fmt::Display for EventTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.rem_euclid(86_400_000);
        let (s, ms) = (ms / 1000, ms % 1000);
        write!(
            f,
            "{}T{:02}:{:02}:{:02}",
            self.date(),
            s / 3600,
            s / 60 % 60,
            s % 60
        )?;
        if ms != 0 {
            write!(f, ".{ms:03}")?;
        }
        write!(f, "Z")
    }
}

impl Mono {
    /// The milliseconds from `earlier` to this time; zero when `earlier` is the later one.
    #[must_use]
    pub fn since(self, earlier: Mono) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The time `ms` milliseconds later. It saturates.
    #[must_use]
    pub fn plus(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }
}

/// The year, month and day of a day that is counted from 1970-01-01, in the proleptic Gregorian
/// calendar (after Howard Hinnant, "chrono-compatible low-level date algorithms").
fn civil_from_days(days: i64) -> (i64, u32, u32) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + i64::from(month <= 2);
    (
        year,
        u32::try_from(month).expect("1..=12"),
        u32::try_from(day).expect("1..=31"),
    )
}

/// Reads a duration such as `500ms`, `10s`, `5m`, `1h` or `30d`, and gives it in milliseconds. A
/// zero needs no unit. The longest duration is a century.
///
/// # Errors
/// The reason and what is allowed, as the end of a sentence:
/// `unknown unit "sconds"; write 500ms, 10s or 5m`.
pub fn parse_duration_ms(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err("no number; write 500ms, 10s or 5m".to_owned());
    }
    let scale = match unit.trim() {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "" if number == "0" => 1,
        "" => return Err("no unit; write 500ms, 10s or 5m".to_owned()),
        other => return Err(format!("unknown unit \"{other}\"; write 500ms, 10s or 5m")),
    };
    // A century. With longer durations every sum of times would have to mind overflow.
    const MAX_MS: u64 = 36_525 * 86_400_000;
    match number
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(scale))
    {
        Some(ms) if ms <= MAX_MS => Ok(ms),
        _ => Err("too long; write at most 36525d".to_owned()),
    }
}

/// The shortest text that [`parse_duration_ms`] reads as `ms` milliseconds: `10s`, `1500ms`, `1h`.
#[must_use]
pub fn format_duration_ms(ms: u64) -> String {
    for (scale, unit) in [
        (86_400_000, "d"),
        (3_600_000, "h"),
        (60_000, "m"),
        (1000, "s"),
    ] {
        if ms >= scale && ms.is_multiple_of(scale) {
            return format!("{}{unit}", ms / scale);
        }
    }
    format!("{ms}ms")
}

/// About how long `ms` milliseconds are, for people: in whole days, hours, minutes or seconds, with
/// at least two of them where there are as many: `36h`, `2d`, `90s`. A little less than a whole
/// number is that number: two days without a second are `2d`.
#[must_use]
pub fn about_duration(ms: u64) -> String {
    for (scale, unit) in [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m")] {
        let a_little_more = ms.saturating_add(scale / 20);
        if a_little_more >= 2 * scale {
            return format!("{}{unit}", a_little_more / scale);
        }
    }
    format!("{}s", ms / 1000)
}

/// A time as SQL prints it: `2024-09-01T19:42:15.500Z` becomes `2024-09-01 19:42:15.5`.
#[must_use]
pub fn sql_time(rfc3339: &str) -> String {
    let text = rfc3339.trim_end_matches('Z').replacen('T', " ", 1);
    if text.contains('.') {
        text.trim_end_matches('0').to_owned()
    } else {
        text
    }
}

/// Reads a time as RFC 3339 writes it, such as [`EventTime`]'s `Display` does. It is rounded down
/// to a millisecond. `None` for any other text.
///
/// Between date and time stands `T`, `t` or a blank. The last second of a UTC day may have the
/// number 60, and then counts as the millisecond before midnight.
#[must_use]
pub fn parse_rfc3339(text: &str) -> Option<EventTime> {
    use ::time::{OffsetDateTime, format_description::well_known::Rfc3339};
    // RFC 3339, 5.6 allows others "for the sake of readability", and the crate takes any byte.
    if !matches!(text.as_bytes().get(10), Some(b'T' | b't' | b' ')) {
        return None;
    }
    let ns = OffsetDateTime::parse(text, &Rfc3339)
        .ok()?
        .unix_timestamp_nanos();
    i64::try_from(ns.div_euclid(1_000_000)).ok().map(EventTime)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_print_as_utc() {
        assert_eq!(
            EventTime(1_725_219_735_000).to_string(),
            "2024-09-01T19:42:15Z"
        );
        assert_eq!(EventTime(-1).to_string(), "1969-12-31T23:59:59.999Z");
        assert_eq!(
            EventTime(253_402_300_799_000).to_string(),
            "9999-12-31T23:59:59Z"
        );
        assert_eq!(EventTime(951_782_400_000).date(), "2000-02-29");
    }

    #[test]
    fn times_at_the_ends_of_the_range_are_these() {
        let ends = |range: RangeInclusive<i64>| {
            [*range.start(), *range.end()].map(|ms| EventTime(ms).to_string())
        };
        assert_eq!(
            ends(YEARS_2_TO_9998_MS),
            ["0002-01-01T00:00:00Z", "9998-12-31T23:59:59.999Z"]
        );
        assert_eq!(
            ends(READABLE_MS),
            ["0001-01-03T00:00:00Z", "9999-12-29T23:59:59.999Z"]
        );
    }

    #[test]
    fn durations_read_and_print() {
        for (text, ms) in [
            ("500ms", 500),
            ("10s", 10_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("30d", 2_592_000_000),
        ] {
            assert_eq!(parse_duration_ms(text), Ok(ms));
            assert_eq!(format_duration_ms(ms), text);
        }
        assert_eq!(parse_duration_ms("0"), Ok(0));
        for bad in ["", "10", "10 sconds", "-1s", "1.5s", "99999999999d", "s"] {
            assert!(parse_duration_ms(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn long_durations_are_said_roughly() {
        for (ms, text) in [
            (999, "0s"),
            (90_000, "90s"),
            (120_000, "2m"),
            (129_600_000, "36h"),
            (172_799_000, "2d"),
            (165_000_000, "45h"),
            (400 * 86_400_000, "400d"),
        ] {
            assert_eq!(about_duration(ms), text);
        }
    }

    #[test]
    fn times_come_back() {
        for ms in [0, -1, 1_725_219_735_123, 253_402_300_799_999] {
            assert_eq!(
                parse_rfc3339(&EventTime(ms).to_string()),
                Some(EventTime(ms))
            );
        }
        assert_eq!(parse_rfc3339("yesterday"), None);
    }

    #[test]
    fn only_what_rfc_3339_writes_is_a_time() {
        const AT: i64 = 1_725_219_735_000;
        for (text, ms) in [
            ("2024-09-01T19:42:15Z", AT),
            ("2024-09-01t19:42:15z", AT),
            ("2024-09-01 19:42:15Z", AT),
            ("2024-09-01T19:42:15+00:00", AT),
            ("2024-09-01T19:42:15-00:00", AT),
            ("2024-09-01T21:42:15+02:00", AT),
            ("2024-09-01T14:12:15-05:30", AT),
            ("2024-09-02T19:41:15+23:59", AT),
            ("2024-09-01T19:42:15.1Z", AT + 100),
            ("2024-09-01T19:42:15.123456789Z", AT + 123),
            ("2024-09-01T19:42:15.9999999999999Z", AT + 999),
            ("1969-12-31T23:59:59.9999Z", -1),
            ("2016-12-31T23:59:60Z", 1_483_228_799_999),
            ("2017-01-01T05:29:60+05:30", 1_483_228_799_999),
            ("2024-02-29T00:00:00Z", 1_709_164_800_000),
        ] {
            assert_eq!(parse_rfc3339(text), Some(EventTime(ms)), "{text}");
        }
        for text in [
            "2024-09-01x19:42:15Z",
            "2024-09-01_19:42:15Z",
            "2024-09-01\u{0}19:42:15Z",
            "2024-09-01\t19:42:15Z",
            "2024-09-01  19:42:15Z",
            "2024-09-01T19:42:15",
            "2024-09-01T19:42Z",
            "2024-09-01T19:42:15.Z",
            "2024-09-01T19:42:15,5Z",
            "2024-09-01T19:42:15+0000",
            "2024-09-01T19:42:15+24:00",
            "2024-09-01T19:42:15+00:60",
            "2024-09-01T19:42:15 Z",
            " 2024-09-01T19:42:15Z",
            "2024-09-01T19:42:15Z ",
            "2024-09-01T24:00:00Z",
            "2024-09-01T19:60:00Z",
            "2024-09-01T19:42:60Z",
            "2023-02-29T00:00:00Z",
            "2024-13-01T00:00:00Z",
            "2024-09-00T00:00:00Z",
            "24-09-01T19:42:15Z",
            "20240901T194215Z",
            "+2024-09-01T19:42:15Z",
            "12024-09-01T19:42:15Z",
            "2024-09-01",
            "\u{0662}024-09-01T19:42:15Z",
            "",
        ] {
            assert_eq!(parse_rfc3339(text), None, "{text:?}");
        }
    }
}
