//! Whether the charm should be woken by a Pebble notice: what windrow says now against what was told last.
//! No socket here: `io/pebble` asks and tells. All memory between two looks is the last notice itself.

use crate::values::cause::Cause;
use serde::{Deserialize, Serialize};

/// The notice's key.
pub const KEY: &str = "windrow.dev/state";
/// The state of a windrow that does not answer; it is none of its own.
pub const DOWN: &str = "down";

/// A refused login is told again this often: each time the credentials are read anew.
const LOGIN_AGAIN_MS: u64 = 20_000;
/// A start is told only this long after the last notice: mostly it is over by then.
const START_AFTER_MS: u64 = 10_000;
/// One that comes up and goes down again is told this often.
const RESTLESS_MS: u64 = 60_000;
/// What a notice costs, and how much can be saved up: four at once, then one a minute.
const COST_S: u64 = 60;
const CREDIT_MAX_S: u64 = 4 * COST_S;
/// Letters of a reason. Pebble takes 4 KiB of data, and JSON may write a letter as six bytes.
const REASON_MAX: usize = 600;

/// What a look found, or a notice says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct News {
    /// The name of a [`crate::shown::status::State`], or [`DOWN`].
    pub state: String,
    pub cause: Cause,
    pub reason: String,
}

/// The data of a notice: Pebble keeps texts only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Notice {
    #[serde(flatten)]
    pub news: News,
    /// How many more may follow soon, in seconds that were waited for them; a number.
    pub credit: String,
}

impl Notice {
    fn credit_after(&self, age_ms: u64) -> u64 {
        self.credit
            .parse()
            .unwrap_or(CREDIT_MAX_S)
            .saturating_add(age_ms / 1000)
            .min(CREDIT_MAX_S)
    }
}

/// The notice to add now, if any. `last` is the latest one and how long ago it was, in milliseconds.
#[must_use]
pub fn decide(now: &News, last: Option<(&Notice, u64)>) -> Option<Notice> {
    let news = clipped(now);
    let starting = news.cause == Cause::Starting;
    let Some((last, age_ms)) = last else {
        // Whoever started it knows.
        return (!starting).then(|| Notice {
            news,
            credit: (CREDIT_MAX_S - COST_S).to_string(),
        });
    };
    let credit = last.credit_after(age_ms);
    if same(&news, &last.news) {
        let again = news.cause.is_login() && age_ms >= LOGIN_AGAIN_MS;
        return again.then(|| Notice {
            news,
            credit: credit.to_string(),
        });
    }
    // New credentials may be there already, and only the charm can fetch them: that never waits for credit.
    if news.cause.is_login() {
        let soon = last.news.cause.is_login() && age_ms < LOGIN_AGAIN_MS;
        return (!soon).then(|| Notice {
            news,
            credit: credit.to_string(),
        });
    }
    let restless = |news: &News| news.state == DOWN || news.cause == Cause::Starting;
    let too_soon = (starting && age_ms < START_AFTER_MS)
        || (restless(&news) && restless(&last.news) && age_ms < RESTLESS_MS);
    if too_soon {
        return None;
    }
    credit.checked_sub(COST_S).map(|left| Notice {
        news,
        credit: left.to_string(),
    })
}

/// What the charm shows now, where that is not what was told last: to be noted without waking anybody. The next look then
/// compares with what is shown; or a state that came and went between two looks would be shown for long. `restarted`: the
/// charm has just done so, and the notice of how that ends is free.
#[must_use]
pub fn shown(seen: &News, restarted: bool, last: &Notice, age_ms: u64) -> Option<Notice> {
    let news = clipped(seen);
    let free = if restarted { COST_S } else { 0 };
    let credit = (last.credit_after(age_ms) + free).min(CREDIT_MAX_S);
    (!same(&news, &last.news)).then(|| Notice {
        news,
        credit: credit.to_string(),
    })
}

fn clipped(news: &News) -> News {
    News {
        reason: news.reason.chars().take(REASON_MAX).collect(),
        ..news.clone()
    }
}

/// Whether two say the same, but for numbers, ids and paths in them. Who has the table is told by name, and names count.
fn same(a: &News, b: &News) -> bool {
    let reason = if a.cause == Cause::Held {
        a.reason == b.reason
    } else {
        kind(&a.reason) == kind(&b.reason)
    };
    (&a.state, a.cause) == (&b.state, b.cause) && reason
}

/// A sentence with each word that has a digit in it left out.
fn kind(reason: &str) -> String {
    let words = reason.split(|c: char| !c.is_alphanumeric());
    words
        .filter(|word| !word.contains(|c: char| c.is_ascii_digit()))
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn news(state: &str, cause: Cause, reason: &str) -> News {
        News {
            state: state.to_owned(),
            cause,
            reason: reason.to_owned(),
        }
    }

    fn counting() -> News {
        news("counting", Cause::None, "")
    }

    fn starting() -> News {
        news("waiting", Cause::Starting, "asking for the table")
    }

    fn down() -> News {
        news(
            DOWN,
            Cause::None,
            "cannot ask windrow at 127.0.0.1:8080: connection refused",
        )
    }

    /// Looks every five seconds at what windrow says then; gives the second and state of each notice.
    fn watch(seconds: u64, says: impl Fn(u64) -> News) -> Vec<(u64, String)> {
        let mut last: Option<(Notice, u64)> = None;
        let mut told = Vec::new();
        for at in (0..seconds).step_by(5) {
            let before = last
                .as_ref()
                .map(|(notice, then)| (notice, (at - then) * 1000));
            if let Some(notice) = decide(&says(at), before) {
                told.push((at, notice.news.state.clone()));
                last = Some((notice, at));
            }
        }
        told
    }

    fn seconds(told: &[(u64, String)]) -> Vec<u64> {
        told.iter().map(|(at, _)| *at).collect()
    }

    #[test]
    fn a_refused_login_is_told_at_once_whatever_was_told_before() {
        let spent = Notice {
            news: counting(),
            credit: "0".to_owned(),
        };
        let refused = news("waiting", Cause::LoginKafka, "cannot log in");
        let told = decide(&refused, Some((&spent, 5000)))
            .expect("only the charm can fetch the new password");
        let other = news("waiting", Cause::LoginS3, "cannot log in");
        assert!(
            decide(&other, Some((&told, 5000))).is_none(),
            "the charm has just looked"
        );
        assert!(decide(&other, Some((&told, LOGIN_AGAIN_MS))).is_some());
        assert!(
            decide(&counting(), Some((&told, 5000))).is_none(),
            "all else waits for credit"
        );
    }

    #[test]
    fn what_the_charm_shows_since_is_compared_with() {
        let told = Notice {
            news: counting(),
            credit: "180".to_owned(),
        };
        assert_eq!(
            shown(&counting(), false, &told, 5000),
            None,
            "it shows what was told"
        );
        // A container that was started anew: the charm saw it down, and it counts before the next look.
        let noted = shown(&down(), false, &told, 5000).expect("it shows something else");
        assert_eq!(noted.credit, "185");
        let again =
            decide(&counting(), Some((&noted, 1000))).expect("it counts, and is shown as down");
        assert_eq!(
            (again.news.state.as_str(), again.credit.as_str()),
            ("counting", "126")
        );
        assert!(
            decide(&starting(), Some((&noted, 1000))).is_none(),
            "mostly it is over soon"
        );
        // Restarts by the charm, one after another: each is told of how it ended.
        let mut last = Notice {
            news: counting(),
            credit: "0".to_owned(),
        };
        for _ in 0..9 {
            last = shown(&down(), true, &last, 1000).expect("it has just been stopped");
            last = decide(&counting(), Some((&last, 5000))).expect("it is free");
        }
        assert!(
            shown(&starting(), false, &last, 0).is_some_and(|n| n.credit == last.credit),
            "others are not"
        );
    }

    #[test]
    fn a_state_is_told_once() {
        let told = watch(600, |at| if at < 10 { starting() } else { counting() });
        assert_eq!(told, [(10, "counting".to_owned())]);
    }

    #[test]
    fn numbers_that_change_are_no_news() {
        let told = watch(600, |at| {
            news(
                "waiting",
                Cause::None,
                &format!("cannot write object \"rows/0-{at:010}-ab{at}f\" in {at}ms; again"),
            )
        });
        assert_eq!(seconds(&told), [0]);
        let told = watch(60, |at| {
            let what = if at < 30 {
                "cannot reach Kafka"
            } else {
                "cannot reach S3"
            };
            news("waiting", Cause::None, what)
        });
        assert_eq!(seconds(&told), [0, 30]);
    }

    #[test]
    fn another_holder_of_the_table_is_news() {
        let told = watch(60, |at| {
            news(
                "standby",
                Cause::Held,
                &format!("table a.b is written by m/windrow/{}", at / 30),
            )
        });
        assert_eq!(seconds(&told), [0, 30]);
    }

    #[test]
    fn a_refused_login_is_told_again_until_it_is_over() {
        let refused = || news("waiting", Cause::LoginKafka, "cannot log in");
        let told = watch(600, |at| if at < 90 { refused() } else { counting() });
        assert_eq!(seconds(&told), [0, 20, 40, 60, 80, 90]);
        assert_eq!(told.last().unwrap().1, "counting");
    }

    #[test]
    fn a_crash_loop_wakes_once_a_minute() {
        let told = watch(3600, |at| match at {
            0..60 => counting(),
            _ if at % 10 == 0 => down(),
            _ => starting(),
        });
        assert_eq!(told[1], (60, DOWN.to_owned()), "the first time at once");
        assert!(
            told.windows(2).skip(1).all(|w| w[1].0 - w[0].0 >= 60),
            "{told:?}"
        );
        assert!(told.len() > 50, "{told:?}");
        let told = watch(3600, |at| if at % 10 == 0 { down() } else { counting() });
        assert!((55..=64).contains(&told.len()), "{told:?}");
    }

    #[test]
    fn what_comes_up_again_is_told_soon() {
        let told = watch(3600, |at| match at {
            60 => down(),
            65..75 => starting(),
            _ => counting(),
        });
        assert_eq!(seconds(&told), [0, 60, 75]);
        let told = watch(3600, |at| {
            if (300..400).contains(&at) {
                starting()
            } else {
                counting()
            }
        });
        assert_eq!(seconds(&told), [0, 300, 400], "a long start is told");
    }

    #[test]
    fn a_notice_is_small_and_made_of_texts() {
        let long = news("failed", Cause::OtherBucket, &"\u{1}é".repeat(5000));
        let notice = decide(&long, None).unwrap();
        let json = serde_json::to_value(&notice).unwrap();
        assert!(json.to_string().len() < 4096);
        assert!(
            json.as_object()
                .unwrap()
                .values()
                .all(serde_json::Value::is_string),
            "{json}"
        );
        assert_eq!(json["cause"], "other-bucket");
        assert_eq!(serde_json::from_value::<Notice>(json).unwrap(), notice);
        assert_eq!(
            decide(&long, Some((&notice, 3_600_000))),
            None,
            "it was cut, not changed"
        );
        let odd = Notice {
            credit: "x".to_owned(),
            ..notice
        };
        assert!(decide(&counting(), Some((&odd, 0))).is_some());
    }
}
