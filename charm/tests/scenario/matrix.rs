//! Every combination: each event, leader or not, each mood of Pebble, and each endpoint absent,
//! incomplete, ready and gone.

use crate::golden;
use crate::pebble::Mood;
use crate::provider::Provider;
use crate::usecase::{counting, counts};
use crate::world::{Run, World};
use libtest_mimic::Trial;
use serde_json::json;
use std::collections::BTreeMap;

pub fn trials() -> Vec<Trial> {
    let tests: [(&str, fn()); 3] = [
        ("endpoints_in_every_state", endpoints),
        ("events_where_nothing_is_related", events_of_nothing),
        ("events_where_all_is_well", events_where_all_is_well),
    ];
    crate::named("matrix", &tests)
}

const MOODS: [Mood; 5] = [Mood::Down, Mood::Deaf, Mood::Late, Mood::Broken, Mood::Up];

const ENDPOINTS: [&str; 3] = ["kafka-client", "s3-credentials", "metastore-db"];

fn whole(endpoint: &str) -> Provider {
    match endpoint {
        "kafka-client" => Provider::kafka_3(),
        "s3-credentials" => Provider::s3_1(),
        _ => Provider::postgresql_14(),
    }
}

/// As it is for a while: the answer is there, but the credentials are not.
fn partial(endpoint: &str) -> Provider {
    let mut provider = whole(endpoint)
        .with("access-key", "")
        .with("secret-key", "");
    provider.secrets.clear();
    provider
}

/// Outcomes, each with everything that led to it.
#[derive(Default)]
struct Outcomes(Vec<(String, Vec<String>)>);

impl Outcomes {
    fn add(&mut self, after: String, run: &Run) {
        assert!(run.error.is_none(), "{after}: {}", run.tell());
        let outcome = run.brief();
        match self.0.iter_mut().find(|(known, _)| *known == outcome) {
            Some((_, all)) if all.contains(&after) => {}
            Some((_, all)) => all.push(after),
            None => self.0.push((outcome, vec![after])),
        }
    }

    fn tell(&self) -> String {
        self.0
            .iter()
            .map(|(outcome, after)| format!("  {}\n    {outcome}\n", after.join(", ")))
            .collect()
    }
}

fn endpoints() {
    let mut told = String::new();
    let mut away = Outcomes::default();
    let states = ["absent", "partial", "ready", "gone"];
    for n in 0..64 {
        let of = [states[n / 16], states[n / 4 % 4], states[n % 4]];
        let mut world = World::new();
        world.hook("config-changed").good();
        let mut going = Vec::new();
        for (endpoint, state) in ENDPOINTS.into_iter().zip(of) {
            let provider = match state {
                "absent" => continue,
                "partial" => partial(endpoint),
                _ => whole(endpoint),
            };
            let id = world.integrate(endpoint, provider);
            world.relation_event(id, "created").good();
            if state == "gone" {
                going.push(id);
            }
        }
        if !going.is_empty() {
            world.hook("update-status").good();
        }
        for id in going {
            world.relation_event(id, "broken").good();
        }
        let mut outcomes = Outcomes::default();
        for leader in [true, false] {
            world.juju().leader = leader;
            world.container().renew();
            for mood in MOODS {
                world.mood(mood);
                let run = world.hook("update-status");
                // It runs only when everything is there. Otherwise nothing is started, and no
                // credentials are left.
                let runs = of == ["ready"; 3] && mood == Mood::Up;
                let container = world.container();
                assert_eq!(
                    container.services.values().any(|s| s.active),
                    runs,
                    "{of:?} {mood:?}"
                );
                assert_eq!(
                    container.files.contains_key("/etc/windrow/secrets.yaml"),
                    runs,
                    "{of:?} {mood:?}"
                );
                drop(container);
                match mood {
                    Mood::Up => outcomes.add(
                        if leader { "leader" } else { "not the leader" }.to_owned(),
                        &run,
                    ),
                    _ => away.add(format!("Pebble {mood:?}"), &run),
                }
            }
        }
        told += &format!(
            "kafka-client {}, s3-credentials {}, metastore-db {}\n{}",
            of[0],
            of[1],
            of[2],
            outcomes.tell()
        );
    }
    // When the container is away, the status says in which way, whatever is related.
    assert_eq!(away.0.len(), 3, "{}", away.tell());
    told += &format!("any of these\n{}", away.tell());
    let what = "Each endpoint absent, partial, ready and gone, a leader or not, \
                in a new container with Pebble as it may be";
    golden::check("matrix-endpoints", what, &told).unwrap_or_else(|e| panic!("{e}"));
}

/// All hooks that need no relation, and all actions.
fn events(world: &mut World) -> Vec<(String, Run)> {
    let mut all = Vec::new();
    for hook in [
        "install",
        "leader-elected",
        "config-changed",
        "start",
        "update-status",
        "leader-settings-changed",
        "upgrade-charm",
        "stop",
    ] {
        all.push((hook.to_owned(), world.hook(hook)));
    }
    all.push(("pebble-ready".to_owned(), world.pebble_ready()));
    all.push((
        "custom-notice".to_owned(),
        world.notice("windrow.dev/state", &json!({"state": "counting"})),
    ));
    all.push((
        "another's notice".to_owned(),
        world.notice("example.com/other", &json!({})),
    ));
    all.push(("check-failed".to_owned(), world.check("failed")));
    all.push(("check-recovered".to_owned(), world.check("recovered")));
    for hook in [
        "secret-changed",
        "secret-remove",
        "secret-rotate",
        "secret-expired",
    ] {
        all.push((
            hook.to_owned(),
            world.secret_event(hook, "c0nobody000000000000"),
        ));
    }
    all.push((
        "a hook of a newer Juju".to_owned(),
        world.hook("something-new"),
    ));
    let actions: Vec<String> = world.juju().charm.actions.keys().cloned().collect();
    for action in actions {
        all.push((action.clone(), world.action(&action, &json!({}))));
    }
    all
}

/// The outcomes by Pebble's mood, told once where a leader and another unit do the same.
fn told_of(outcomes: BTreeMap<(String, bool), Outcomes>) -> String {
    let mut told = String::new();
    for mood in MOODS.map(|mood| format!("{mood:?}")) {
        let [leader, unit] = [true, false].map(|leader| outcomes[&(mood.clone(), leader)].tell());
        if leader == unit {
            told += &format!("Pebble {mood}, leader or not\n{leader}");
        } else {
            told +=
                &format!("Pebble {mood}, leader\n{leader}Pebble {mood}, not the leader\n{unit}");
        }
    }
    told
}

fn events_of_nothing() {
    let mut outcomes: BTreeMap<(String, bool), Outcomes> = BTreeMap::new();
    for leader in [true, false] {
        for mood in MOODS {
            let mut world = World::new();
            world.juju().leader = leader;
            world.mood(mood);
            let who = (format!("{mood:?}"), leader);
            for (event, run) in events(&mut world) {
                assert!(["", "exec"].contains(&run.did().as_str()), "{event}");
                outcomes.entry(who.clone()).or_default().add(event, &run);
            }
            outcomes
                .entry(who)
                .or_default()
                .add("remove".to_owned(), &world.hook("remove"));
        }
    }
    let what = "Every event of a unit with no relation";
    golden::check("matrix-nothing", what, &told_of(outcomes)).unwrap_or_else(|e| panic!("{e}"));
}

fn events_where_all_is_well() {
    let mut outcomes: BTreeMap<(String, bool), Outcomes> = BTreeMap::new();
    for leader in [true, false] {
        for mood in MOODS {
            let (mut world, ids) = counting();
            let more = [
                ("receive-ca-cert", Provider::certificates_1()),
                ("logging", Provider::loki()),
                ("metrics-endpoint", Provider::prometheus()),
                ("grafana-dashboard", Provider::grafana()),
            ];
            let more: Vec<u32> = more.into_iter().map(|(e, p)| world.relate(e, p)).collect();
            world.hook("update-status").good();
            counts(&mut world);
            world.juju().leader = leader;
            world.mood(mood);
            let before = world.container().tell();
            let who = (format!("{mood:?}"), leader);
            let of = outcomes.entry(who).or_default();
            for (event, run) in events(&mut world) {
                of.add(event, &run);
            }
            for id in ids.into_iter().chain(more) {
                let endpoint = world.juju().relations[&id].endpoint.clone();
                of.add(
                    format!("{endpoint} created"),
                    &world.relation_event(id, "created"),
                );
                let units: Vec<String> =
                    world.juju().relations[&id].units.keys().cloned().collect();
                for unit in units {
                    of.add(
                        format!("{endpoint} joined"),
                        &world.unit_event(id, "joined", &unit),
                    );
                    of.add(
                        format!("{endpoint} changed"),
                        &world.unit_event(id, "changed", &unit),
                    );
                }
                of.add(
                    format!("{endpoint} changed by its application"),
                    &world.relation_event(id, "changed"),
                );
            }
            for id in ids {
                let groups: Vec<String> = world.juju().relations[&id]
                    .secrets
                    .keys()
                    .cloned()
                    .collect();
                for group in groups {
                    of.add(
                        format!("secret-changed {group}"),
                        &world.secret_changed(id, &group),
                    );
                }
            }
            // None of this has changed anything.
            assert_eq!(world.container().tell(), before);
        }
    }
    let what = "Every event of a unit that counts, when nothing has changed";
    golden::check("matrix-well", what, &told_of(outcomes)).unwrap_or_else(|e| panic!("{e}"));
}
