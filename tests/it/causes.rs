//! What the engine says of its troubles: which one of several, with which cause, and who has the
//! table.

use std::collections::BTreeMap;
use windrow::run::clients::engine_settings;
use windrow_core::engine::{
    BrokersAnswer, CatalogAnswer, Effect, Engine, Input, Rules, State, StoreAnswer, TopicFacts,
    same_table,
};
use windrow_core::settings::config::Config;
use windrow_core::table::commit::{Acquired, CatalogError, Genesis, Owner};
use windrow_core::values::cause::{Cause, Trouble};
use windrow_core::values::shape::SEMANTICS;
use windrow_core::values::time::{DbTime, Mono, WallTime};

fn settings(warehouse: &str) -> Rules {
    engine_settings(
        &Config::parse(&format!(
            "kafka: {{ bootstrap: 'k:9092', topic: t }}\ntable: {{ name: n, warehouse: \
             '{warehouse}' }}\ncatalog: postgresql://db/hive"
        ))
        .unwrap(),
    )
}

struct Play {
    engine: Engine,
    now: u64,
}

impl Play {
    fn new() -> Self {
        Self {
            engine: Engine::new(settings("s3a://spark/w")),
            now: 0,
        }
    }

    fn step<'a>(&mut self, input: impl Into<Input<'a>>) -> Vec<Effect> {
        let mut out = Vec::new();
        self.engine.step(input.into(), &mut out);
        out
    }

    fn later(&mut self) -> Vec<Effect> {
        self.now += 6000;
        self.step(Input::Tick {
            now: Mono(self.now),
            wall: WallTime(self.now as i64),
        })
    }

    /// State, cause and sentence.
    fn says(&self) -> (&'static str, Option<Cause>, String) {
        match self.engine.state() {
            State::Counting => ("counting", None, String::new()),
            State::Paused => ("paused", None, String::new()),
            State::Waiting(why) => ("waiting", why.cause, why.text),
            State::Standby(why) => ("standby", why.cause, why.text),
            State::Failed(why) => ("failed", why.cause, why.text),
        }
    }

    fn ours(&mut self) {
        self.later();
        let owner = Owner {
            term: 1,
            owner_id: "me".to_owned(),
        };
        let ours = Acquired::Ours {
            owner,
            lease_ms: 15_000,
            now: DbTime(0),
            head: None,
        };
        self.step(CatalogAnswer::Acquire(Ok(ours)));
    }
}

#[test]
fn each_side_is_heard_until_it_does_what_it_is_asked() {
    let mut play = Play::new();
    assert_eq!(play.says().1, Some(Cause::Starting));
    play.later();
    let refused = CatalogError::Retry(Trouble::new(Cause::LoginCatalog, "refused"));
    play.step(CatalogAnswer::Acquire(Err(refused)));
    assert_eq!(
        play.says(),
        ("waiting", Some(Cause::LoginCatalog), "refused".to_owned())
    );

    play.later();
    play.step(CatalogAnswer::Acquire(Ok(Acquired::Held {
        by: "m/windrow/0".to_owned(),
        left_ms: 5000,
        lease: None,
    })));
    assert_eq!(
        play.says(),
        (
            "standby",
            Some(Cause::Held),
            "table default.n is written by m/windrow/0".to_owned()
        )
    );
    assert_eq!(play.engine.holder(), Some("m/windrow/0"));

    play.ours();
    assert_eq!(
        (play.says().1, play.engine.holder()),
        (Some(Cause::Starting), None)
    );
    play.step(BrokersAnswer::Topic(Err(Trouble::new(
        Cause::LoginKafka,
        "no",
    ))));
    assert_eq!(
        play.says(),
        ("waiting", Some(Cause::LoginKafka), "no".to_owned())
    );
    play.later();
    let empty = TopicFacts {
        cluster_id: "c".to_owned(),
        unknown: BTreeMap::new(),
        topic_id: "1".to_owned(),
        partitions: BTreeMap::new(),
    };
    play.step(BrokersAnswer::Topic(Ok(empty.clone())));
    assert_eq!(play.says().1, Some(Cause::NoTopic));

    play.later();
    let there = TopicFacts {
        partitions: BTreeMap::from([(0, (0, 0))]),
        ..empty
    };
    play.step(BrokersAnswer::Topic(Ok(there)));
    assert_eq!(play.says().1, Some(Cause::Starting));
    play.step(StoreAnswer::ListPage {
        prefix: "_windrow/default.n/manifests/".to_owned(),
        after: None,
        result: Err(Trouble::new(Cause::LoginS3, "no key")),
    });
    assert_eq!(
        play.says(),
        ("waiting", Some(Cause::LoginS3), "no key".to_owned())
    );
}

#[test]
fn a_standby_says_that_its_clock_is_wrong_before_it_must_take_over() {
    let mut play = Play::new();
    play.later();
    let owner = Owner {
        term: 1,
        owner_id: "me".to_owned(),
    };
    play.step(CatalogAnswer::Acquire(Ok(Acquired::Ours {
        owner,
        lease_ms: 15_000,
        now: DbTime(86_400_000),
        head: None,
    })));
    assert_eq!(play.says().1, Some(Cause::Clocks));
    // Another process takes the table, whose clock is right.
    for _ in 0..60 {
        if !play.later().is_empty() {
            break;
        }
    }
    play.step(CatalogAnswer::Acquire(Ok(Acquired::Held {
        by: "m/windrow/0".to_owned(),
        left_ms: 5000,
        lease: None,
    })));
    assert_eq!(play.engine.holder(), Some("m/windrow/0"));
    let (state, cause, _) = play.says();
    assert_eq!((state, cause), ("standby", Some(Cause::Clocks)));
}

#[test]
fn of_several_troubles_one_with_a_cause_is_told() {
    let mut play = Play::new();
    play.ours();
    play.step(Input::Trouble {
        partition: None,
        trouble: "cannot reach Kafka".into(),
    });
    assert_eq!(
        play.says(),
        ("waiting", None, "cannot reach Kafka".to_owned())
    );
    play.step(BrokersAnswer::Topic(Err("no answer".into())));
    assert_eq!(play.says().2, "no answer", "the topic before its records");
    play.step(Input::Trouble {
        partition: None,
        trouble: Trouble::new(Cause::LoginKafka, "refused"),
    });
    assert_eq!(
        play.says(),
        ("waiting", Some(Cause::LoginKafka), "refused".to_owned())
    );
}

#[test]
fn a_table_that_was_counted_by_another_revision_is_refused() {
    let rules = settings("s3a://spark/w");
    let recorded = |json: &str| {
        let mut value = serde_json::to_value(&rules.shape).unwrap();
        if json == "none" {
            value.as_object_mut().unwrap().remove("semantics");
        } else {
            value["semantics"] = serde_json::from_str(json).unwrap();
        }
        Genesis {
            shape: serde_json::from_value(value).expect("an older epoch 0 is still read"),
            warehouse: "s3a://spark/w".parse().unwrap(),
            cluster_id: String::new(),
            topic_id: String::new(),
            start_offsets: BTreeMap::new(),
            empty_file: String::new(),
            adopted: None,
        }
    };
    let now = SEMANTICS;
    for (then, said) in [("none", 0), ("1", 1), ("99", 99)] {
        let place = "s3a://spark/w".parse().unwrap();
        let why = same_table(&recorded(then), &rules, &place).expect_err("another revision");
        assert_eq!(why.cause, Some(Cause::OtherVersion), "{then}");
        assert_eq!(
            why.text,
            format!(
                "table default.n was made by a windrow that counts by revision {said} of its \
                 rules, and this one counts by revision {now}, which gives other rows for the same \
                 log; run the windrow that made it, or choose another table name"
            )
        );
    }
}

#[test]
fn a_table_in_another_bucket_is_told_from_one_in_another_folder() {
    let recorded = Genesis {
        shape: settings("s3a://spark/w").shape,
        warehouse: "s3a://spark/w".parse().unwrap(),
        cluster_id: String::new(),
        topic_id: String::new(),
        start_offsets: BTreeMap::new(),
        empty_file: String::new(),
        adopted: None,
    };
    for (now, cause) in [
        ("s3a://other/w", Some(Some(Cause::OtherBucket))),
        ("/data", Some(Some(Cause::OtherBucket))),
        ("s3a://spark/elsewhere", Some(Some(Cause::OtherSettings))),
        ("s3a://spark/w", None),
    ] {
        assert_eq!(
            same_table(&recorded, &settings(now), &now.parse().expect("a place"))
                .err()
                .map(|why| why.cause),
            cause,
            "{now}"
        );
    }
}
