//! Decides whether a Pebble notice should wake the charm: what windrow says now is compared with
//! what the last notice said. There is no socket here; `io/pebble` asks and tells. The last notice
//! itself is all that is remembered from one look to the next.

use crate::shown::causes::{Again, row};
use crate::shown::status::State;
use crate::values::cause::{Cause, optional};
use serde::{Deserialize, Serialize};

/// The key of the notice.
pub const KEY: &str = "windrow.dev/state";
/// The state of a windrow that does not answer. No running windrow has this state.
pub const DOWN: &str = "down";

/// A start is told only when the last notice is at least this old. Usually the start is over
/// before.
const START_AFTER_MS: u64 = 10_000;
/// A windrow that comes up and goes down again and again is told at most this often.
const RESTLESS_MS: u64 = 60_000;
/// What one notice costs, in seconds of waiting: on average there is at most one a minute.
const COST_S: u64 = 60;
/// How much can be saved up: four notices may follow each other at once.
const CREDIT_MAX_S: u64 = 4 * COST_S;
/// The most characters of a reason. Pebble takes 4 KiB of data, and JSON may write one character as
/// six bytes.
const REASON_MAX_CHARS: usize = 600;

/// What a look at windrow has found, or what a notice says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct News {
    /// The name of a [`crate::shown::status::State`], or [`DOWN`].
    pub state: String,
    /// What kind of reason it is, for programs; `None`, in JSON the empty text, where it is of no
    /// known kind.
    #[serde(with = "optional")]
    pub cause: Option<Cause>,
    /// Why it is not counting, for people; empty while it is counting.
    pub reason: String,
}

/// The data of a notice. Each value is a text, because Pebble keeps nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Notice {
    /// What the notice says.
    #[serde(flatten)]
    pub news: News,
    /// The seconds of waiting that are saved up for further notices, as a number; each costs 60.
    /// Example: with `180`, three more may follow at once.
    pub credit: String,
    /// For a cause that is told again while it lasts: the seconds until then, as a number. Other
    /// news keep it, until nothing hinders windrow any more. Empty: it was not told yet.
    pub wait: String,
}

impl Notice {
    fn wait_ms(&self) -> Option<u64> {
        Some(self.wait.parse::<u64>().ok()?.saturating_mul(1000))
    }

    fn credit_after(&self, age_ms: u64) -> u64 {
        self.credit
            .parse()
            .unwrap_or(CREDIT_MAX_S)
            .saturating_add(age_ms / 1000)
            .min(CREDIT_MAX_S)
    }
}

/// The notice to add now; `None` where there is nothing new, or where it is too soon. `last` is the
/// latest notice and its age in milliseconds.
#[must_use]
pub fn decide(now: &News, last: Option<(&Notice, u64)>) -> Option<Notice> {
    let news = clipped(now);
    let starting = news.cause == Some(Cause::Starting);
    let Some((last, age_ms)) = last else {
        // There is no notice of a start: whoever started windrow knows about it.
        return (!starting).then(|| Notice {
            wait: pauses(&news).map_or_else(String::new, |(first, _)| seconds_of(first)),
            news,
            credit: (CREDIT_MAX_S - COST_S).to_string(),
        });
    };
    let credit = last.credit_after(age_ms);
    if let Some(pauses) = pauses(&news) {
        return tell_again(news, pauses, credit, last, age_ms);
    }
    if same(&news, &last.news) {
        return None;
    }
    let restless = |news: &News| news.state == DOWN || news.cause == Some(Cause::Starting);
    let too_soon = (starting && age_ms < START_AFTER_MS)
        || (restless(&news) && restless(&last.news) && age_ms < RESTLESS_MS);
    if too_soon {
        return None;
    }
    credit.checked_sub(COST_S).map(|left| Notice {
        wait: kept_wait(&news, last),
        news,
        credit: left.to_string(),
    })
}

/// The first and the longest pause between two notices of the same trouble; `None` for news that
/// are told once.
fn pauses(news: &News) -> Option<(u64, u64)> {
    match news.cause.map(|cause| row(cause).again)? {
        Again::Never => None,
        Again::BackOff { first_ms, most_ms } => Some((first_ms, most_ms)),
    }
}

fn seconds_of(ms: u64) -> String {
    (ms / 1000).to_string()
}

/// The pause that the next refused login keeps: none once nothing hinders windrow any more.
fn kept_wait(news: &News, last: &Notice) -> String {
    let well = [State::Counting, State::Paused, State::Standby].map(State::name);
    // A pause has a cause where nothing can be committed.
    let hindered = news.state == State::Paused.name() && news.cause.is_some();
    if well.contains(&news.state.as_str()) && !hindered {
        return String::new();
    }
    last.wait.clone()
}

/// The notice of a trouble that only the charm can end, such as a refused login: new credentials
/// may be there already, and only the charm can fetch them. So the first never waits for credit.
/// While it lasts it is told ever less often, however its sentence changes. Where another login is
/// refused in its place, that is told after the first pause, as long as there is credit for it.
fn tell_again(
    news: News,
    (first_ms, most_ms): (u64, u64),
    credit: u64,
    last: &Notice,
    age_ms: u64,
) -> Option<Notice> {
    let told = |wait_ms, credit: u64| {
        Some(Notice {
            news: news.clone(),
            credit: credit.to_string(),
            wait: seconds_of(wait_ms),
        })
    };
    let was = pauses(&last.news).and(last.wait_ms());
    match (was, last.wait_ms()) {
        // Something else was told since, for instance that windrow was down. The pause goes on.
        (None, None) => told(first_ms, credit),
        (_, Some(wait_ms)) if age_ms >= wait_ms => {
            told((wait_ms * 2).clamp(first_ms, most_ms), credit)
        }
        // Something else was told since, for instance that windrow was down. The pause goes on.
        (None, Some(wait_ms)) => credit
            .checked_sub(COST_S)
            .and_then(|left| told(wait_ms, left)),
        (Some(wait_ms), _) if news.cause != last.news.cause && age_ms >= first_ms => credit
            .checked_sub(COST_S)
            .and_then(|left| told(wait_ms, left)),
        _ => None,
    }
}

/// The notice that says what the charm shows now; `None` where the last notice says the same. It is
/// noted without waking anybody, so that the next look compares with what is shown. Otherwise a
/// state that came and went between two looks would be shown for a long time.
///
/// With `restarted`, the charm has just restarted windrow, and the notice of how that ends is free.
#[must_use]
pub fn shown(seen: &News, restarted: bool, last: &Notice, age_ms: u64) -> Option<Notice> {
    let news = clipped(seen);
    let free = if restarted { COST_S } else { 0 };
    let credit = (last.credit_after(age_ms) + free).min(CREDIT_MAX_S);
    (!same(&news, &last.news)).then(|| Notice {
        // Whoever restarts windrow has something new for it.
        wait: match pauses(&news) {
            _ if restarted => String::new(),
            // The charm has just read the credentials.
            Some((first_ms, _)) if last.wait.is_empty() => seconds_of(first_ms),
            _ => kept_wait(&news, last),
        },
        news,
        credit: credit.to_string(),
    })
}

fn clipped(news: &News) -> News {
    News {
        reason: news.reason.chars().take(REASON_MAX_CHARS).collect(),
        ..news.clone()
    }
}

/// Whether two pieces of news say the same, apart from numbers, ids and paths in them. For
/// [`Cause::Held`] the reason names the holder of the table, so there every character counts.
fn same(a: &News, b: &News) -> bool {
    let reason = if a.cause == Some(Cause::Held) {
        a.reason == b.reason
    } else {
        kind(&a.reason) == kind(&b.reason)
    };
    (&a.state, a.cause) == (&b.state, b.cause) && reason
}

/// A sentence without those words that have a digit in them.
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

    fn news(state: &str, cause: Option<Cause>, reason: &str) -> News {
        News {
            state: state.to_owned(),
            cause,
            reason: reason.to_owned(),
        }
    }

    fn counting() -> News {
        news("counting", None, "")
    }

    fn starting() -> News {
        news("waiting", Some(Cause::Starting), "asking for the table")
    }

    fn down() -> News {
        news(
            DOWN,
            None,
            "cannot ask windrow at 127.0.0.1:8080: connection refused",
        )
    }

    /// Looks every five seconds at what windrow says then; gives the second and state of each
    /// notice.
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
            ..Notice::default()
        };
        let refused = news("waiting", Some(Cause::LoginKafka), "cannot log in");
        let told = decide(&refused, Some((&spent, 5000)))
            .expect("only the charm can fetch the new password");
        let other = news("waiting", Some(Cause::LoginS3), "cannot log in");
        assert!(
            decide(&other, Some((&told, 5000))).is_none(),
            "the charm has just looked"
        );
        assert!(decide(&other, Some((&told, 20_000))).is_some());
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
            ..Notice::default()
        };
        assert_eq!(
            shown(&counting(), false, &told, 5000),
            None,
            "it shows what was told"
        );
        // A container that was started anew: the charm saw it down, and it counts before the next
        // look.
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
            ..Notice::default()
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
                None,
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
            news("waiting", None, what)
        });
        assert_eq!(seconds(&told), [0, 30]);
    }

    #[test]
    fn another_holder_of_the_table_is_news() {
        let told = watch(60, |at| {
            news(
                "standby",
                Some(Cause::Held),
                &format!("table a.b is written by m/windrow/{}", at / 30),
            )
        });
        assert_eq!(seconds(&told), [0, 30]);
    }

    #[test]
    fn a_refused_login_is_told_again_until_it_is_over() {
        let refused = || news("waiting", Some(Cause::LoginKafka), "cannot log in");
        let told = watch(600, |at| if at < 90 { refused() } else { counting() });
        assert_eq!(seconds(&told), [0, 20, 60, 90]);
        assert_eq!(told.last().unwrap().1, "counting");
    }

    #[test]
    fn a_login_that_stays_refused_wakes_ever_less() {
        let refused = |cause, reason: &str| news("waiting", Some(cause), reason);
        let told = watch(3600, |_| refused(Cause::LoginKafka, "cannot log in"));
        assert_eq!(
            seconds(&told)[..8],
            [0, 20, 60, 140, 300, 600, 900, 1200],
            "20 s, twice as long each time, and 5 min at last"
        );
        // Two brokers, each with its own words.
        let told = watch(3600, |at| {
            let words = ["no such user", "the password is another one"];
            let at = usize::try_from(at / 5 % 2).unwrap();
            refused(Cause::LoginKafka, words[at])
        });
        assert_eq!(seconds(&told)[..5], [0, 20, 60, 140, 300]);
        // Two logins in turn, and a windrow that comes up and goes down.
        for other in [refused(Cause::LoginS3, "no"), down(), starting()] {
            let told = watch(3600, |at| {
                if at / 5 % 2 == 0 {
                    refused(Cause::LoginKafka, "cannot log in")
                } else {
                    other.clone()
                }
            });
            let last_hour_half = told.iter().filter(|(at, _)| *at >= 1800).count();
            assert!(last_hour_half <= 31, "{other:?}: {told:?}");
        }
        // Once nothing hinders it any more, the next refusal is told at once.
        let told = watch(3600, |at| match at {
            0..1000 | 1100.. => refused(Cause::LoginKafka, "cannot log in"),
            _ => counting(),
        });
        let after: Vec<u64> = seconds(&told)
            .into_iter()
            .filter(|at| *at >= 1000)
            .collect();
        assert_eq!(after[..4], [1000, 1100, 1120, 1160], "{told:?}");
    }

    #[test]
    fn rights_and_trust_wake_the_charm_once() {
        for cause in Cause::ALL.into_iter().filter(|cause| !cause.is_login()) {
            let told = watch(3600, |_| news("waiting", Some(cause), "no"));
            assert!(told.len() <= 1, "{cause}: {told:?}");
        }
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
        let long = news("failed", Some(Cause::OtherBucket), &"\u{1}é".repeat(5000));
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
