//! Stories: deploying with three integrates, and what may happen afterwards. A golden file tells
//! each story step by step.

use crate::golden;
use crate::pebble::Mood;
use crate::provider::{Provider, pem};
use crate::world::{MODEL, OTHER_MODEL, Run, World, hosts};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use windrow_core::shown::status::{State, Status};
use windrow_core::values::cause::{Cause, name_or_empty};

pub fn trials() -> Vec<Trial> {
    let tests: [(&str, fn()); 25] = [
        ("deploy_and_three_integrates_start_the_workload", deploy),
        (
            "a_password_that_changes_is_reloaded_and_nothing_restarts",
            rotation,
        ),
        ("tls_secrets_and_certificates_of_every_provider", tls),
        ("a_kafka_without_secrets_is_read_as_it_is", plain),
        ("without_a_table_only_kafka_is_needed", console),
        ("a_bad_option_never_stops_what_runs", bad_option),
        (
            "a_unit_that_never_had_good_options_starts_nothing",
            never_good,
        ),
        (
            "a_container_that_starts_anew_gets_everything_again",
            new_container,
        ),
        (
            "a_new_pod_ends_the_stop_of_the_old_one_and_is_set_up",
            new_pod,
        ),
        (
            "what_is_shown_is_noted_for_the_check_that_wakes_the_charm",
            noted,
        ),
        (
            "a_refresh_brings_the_new_binary_and_takes_the_old_away",
            refresh,
        ),
        ("a_kafka_of_another_model_needs_its_namespace", other_model),
        (
            "what_is_gone_stops_the_workload_and_takes_its_credentials",
            gone,
        ),
        (
            "of_two_kafkas_the_newest_that_is_not_breaking_counts",
            two_kafkas,
        ),
        ("a_request_stays_as_it_was_written", frozen),
        ("each_state_of_the_workload_has_a_status", states),
        (
            "logs_metrics_and_dashboards_go_where_they_are_asked_for",
            cos,
        ),
        ("the_token_is_a_user_s_secret", token),
        ("proxies_reach_the_workload_as_credentials", proxies),
        ("juju_3_5_is_enough", juju_3_5),
        (
            "a_unit_that_does_not_lead_writes_no_request_and_runs_all_the_same",
            not_the_leader,
        ),
        (
            "a_new_leader_leaves_the_requests_of_the_old_one",
            new_leader,
        ),
        (
            "actions_ask_the_workload_then_its_binary_then_say_why_not",
            actions,
        ),
        ("a_hook_that_cannot_look_fails_and_says_so", hook_fails),
        (
            "a_no_change_dispatch_calls_few_hook_commands_and_changes_nothing",
            quiet,
        ),
    ];
    crate::named("usecase", &tests)
}

/// A story: runs that are told one after another.
#[derive(Default)]
struct Story(String);

impl Story {
    /// Tells everything about a run.
    fn full(&mut self, why: &str, run: &Run) {
        self.0 += &format!("\n== {why}\n{}", run.tell());
    }

    /// Tells the result of a run, on one line.
    fn brief(&mut self, why: &str, run: &Run) {
        self.0 += &format!("\n== {why}\n{}: {}\n", run.event, run.brief());
    }

    fn check(&self, name: &str, what: &str) {
        golden::check(name, what, &self.0).unwrap_or_else(|e| panic!("{e}"));
    }
}

/// What a workload that counts answers.
pub fn says(state: State, cause: Option<Cause>, reason: &str, owner: &str) -> Value {
    let status = Status {
        table: "default.newtable".to_owned(),
        topic: "test-topic".to_owned(),
        state,
        cause,
        reason: reason.to_owned(),
        owner: owner.to_owned(),
        version: "0.1.0".to_owned(),
        ..Status::default()
    };
    serde_json::to_value(status).expect("it is made for JSON")
}

pub fn answers(world: &mut World, status: Value) {
    world
        .workload
        .insert("GET /v1/status".to_owned(), (200, status));
}

pub fn counts(world: &mut World) {
    answers(world, says(State::Counting, None, "", ""));
}

/// A unit whose workload counts: the use case, one minute later.
pub fn counting() -> (World, [u32; 3]) {
    counting_with([
        Provider::kafka_3(),
        Provider::s3_1(),
        Provider::postgresql_14(),
    ])
}

/// The same; Kafka, S3 and PostgreSQL speak TLS.
pub fn counting_with_tls() -> (World, [u32; 3]) {
    counting_with([
        Provider::kafka_4(),
        Provider::s3_2(),
        Provider::postgresql_16(),
    ])
}

pub fn counting_with([kafka, s3, metastore]: [Provider; 3]) -> (World, [u32; 3]) {
    let mut world = World::new();
    world.hook("config-changed").good();
    let ids = [
        world.relate("kafka-client", kafka),
        world.relate("s3-credentials", s3),
        world.relate("metastore-db", metastore),
    ];
    assert!(
        world.container().services["windrow"].active,
        "{}",
        world.juju().unit_status.1
    );
    counts(&mut world);
    let run = world.hook("update-status").good();
    assert_eq!(
        run.status,
        "active \"counting test-topic into default.newtable\""
    );
    (world, ids)
}

/// The state of the workload changes, and its notice wakes the charm.
fn notice(world: &mut World) -> Run {
    let says = world
        .workload
        .get("GET /v1/status")
        .map(|(_, status)| status.clone())
        .unwrap_or_default();
    let state = says["state"].as_str().unwrap_or("down");
    let news =
        json!({"state": state, "cause": says["cause"], "reason": says["reason"], "credit": "180"});
    world.notice("windrow.dev/state", &news).good()
}

fn deploy() {
    let mut world = World::new();
    let mut story = Story::default();
    world.mood(Mood::Down);
    story.full(
        "The container is not up yet.",
        &world.hook("install").good(),
    );
    story.brief("", &world.hook("leader-elected").good());
    story.brief("", &world.hook("config-changed").good());
    story.brief("", &world.hook("start").good());
    world.mood(Mood::Up);
    story.full("It is.", &world.pebble_ready().good());
    let kafka = world.integrate("kafka-client", Provider::kafka_3());
    story.full(
        "The first integrate.",
        &world.relation_event(kafka, "created").good(),
    );
    story.full(
        "Kafka has answered.",
        &world.relation_event(kafka, "changed").good(),
    );
    world.relate("s3-credentials", Provider::s3_1());
    let metastore = world.integrate("metastore-db", Provider::postgresql_14());
    world.relation_event(metastore, "created").good();
    story.full(
        "The last of three has answered.",
        &world.relation_event(metastore, "changed").good(),
    );
    counts(&mut world);
    story.full(
        "The workload is up, and its notice wakes the charm.",
        &notice(&mut world),
    );
    story.full("Nothing more.", &world.hook("update-status").good());
    story.check("deploy", "Deploy and three integrates, no option");
}

fn rotation() {
    let (mut world, [kafka, ..]) = counting();
    let mut story = Story::default();
    world.rotate(
        kafka,
        "secret-user",
        &[("password", "kafka-password-rotated")],
    );
    answers(
        &mut world,
        says(
            State::Waiting,
            Some(Cause::LoginKafka),
            "Kafka refuses the login",
            "",
        ),
    );
    story.full(
        "Juju does not tell that a secret changed. The workload's login fails.",
        &notice(&mut world),
    );
    assert!(
        world
            .container()
            .file("/etc/windrow/secrets.yaml")
            .is_some_and(|f| f.contains("kafka-password-rotated"))
    );
    counts(&mut world);
    story.brief("It counts again.", &notice(&mut world));
    world.rotate(
        kafka,
        "secret-user",
        &[("password", "kafka-password-once-more")],
    );
    world.set("log-level", "debug");
    story.brief(
        "An option changes in the middle of a rotation.",
        &world.hook("config-changed").good(),
    );
    story.brief(
        "Juju tells of the secret afterwards.",
        &world.secret_changed(kafka, "secret-user").good(),
    );
    assert!(
        world
            .container()
            .file("/etc/windrow/secrets.yaml")
            .is_some_and(|f| f.contains("kafka-password-once-more"))
    );
    story.check("rotation", "Kafka's password changes");
}

fn tls() {
    let mut story = Story::default();
    let (mut world, _) = counting_with([
        Provider::kafka_4(),
        Provider::s3_2(),
        Provider::postgresql_16(),
    ]);
    world.container().renew();
    story.full("All speak TLS.", &world.pebble_ready().good());
    let ca = world.integrate("receive-ca-cert", Provider::certificates_1());
    story.full(
        "More certificates come.",
        &world.relation_event(ca, "created").good(),
    );
    world.write(
        ca,
        "certificates",
        &json!([pem("another root")]).to_string(),
    );
    story.brief("They change.", &world.relation_event(ca, "changed").good());
    let old = world.integrate("receive-ca-cert", Provider::certificates_0());
    world.relation_event(old, "created").good();
    story.brief(
        "A provider that writes them into units' bags.",
        &world
            .unit_event(old, "changed", "manual-tls-certificates/0")
            .good(),
    );
    world.remove(old).good();
    story.brief("They go.", &world.remove(ca).good());
    story.check(
        "tls",
        "Kafka 4, s3-integrator 2 and PostgreSQL 16 with TLS, certificates by certificate_transfer",
    );
}

fn plain() {
    let mut story = Story::default();
    let (mut world, _) = counting_with([
        Provider::kafka_56().plain(),
        Provider::s3_1().with("region", "eu-west-1"),
        Provider::postgresql_281().plain(),
    ]);
    world.container().renew();
    story.full("A new container.", &world.pebble_ready().good());
    story.check("plain", "Providers of a Juju or a library without secrets");
}

fn console() {
    let mut story = Story::default();
    let mut world = World::new();
    world.set("table-name", "");
    world.hook("config-changed").good();
    let kafka = world.integrate("kafka-client", Provider::kafka_3());
    world.relation_event(kafka, "created").good();
    story.full(
        "Kafka alone.",
        &world.relation_event(kafka, "changed").good(),
    );
    let mut status = says(State::Counting, None, "", "");
    status["table"] = json!("");
    answers(&mut world, status);
    story.brief("It prints.", &notice(&mut world));
    story.check("console", "table-name=\"\": windows go to the log");
}

fn bad_option() {
    let (mut world, _) = counting();
    let mut story = Story::default();
    world.set("window", "10 sconds");
    world.set("watermark-delay", "soon");
    story.full("Two bad options.", &world.hook("config-changed").good());
    assert!(world.container().services["windrow"].active);
    world.container().renew();
    story.brief(
        "A container that starts anew gets the last good ones.",
        &world.pebble_ready().good(),
    );
    assert!(
        world
            .container()
            .file("/etc/windrow/windrow.yaml")
            .is_some_and(|f| f.contains("window: 10s"))
    );
    world.set("window", "20s");
    world.set("watermark-delay", "5s");
    story.brief("They are good again.", &world.hook("config-changed").good());
    story.check("bad-option", "Options that are not allowed");
}

fn never_good() {
    let mut story = Story::default();
    let mut world = World::new();
    world.set("max-keys", -1);
    story.brief(
        "The first options are bad.",
        &world.hook("config-changed").good(),
    );
    for (endpoint, provider) in [
        ("kafka-client", Provider::kafka_3()),
        ("s3-credentials", Provider::s3_1()),
        ("metastore-db", Provider::postgresql_14()),
    ] {
        let id = world.integrate(endpoint, provider);
        story.brief("", &world.relation_event(id, "created").good());
    }
    assert!(world.container().services.is_empty());
    world.set("max-keys", 1000);
    story.brief("Good ones.", &world.hook("config-changed").good());
    story.brief("", &world.hook("update-status").good());
    story.check("never-good", "A unit that never had good options");
}

fn new_container() {
    let (mut world, _) = counting();
    let mut story = Story::default();
    let before = world.container().tell();
    world.container().renew();
    world.mood(Mood::Deaf);
    story.brief("Pebble has just died.", &world.hook("update-status").good());
    world.mood(Mood::Up);
    story.brief(
        "The container is there again.",
        &world.pebble_ready().good(),
    );
    assert_eq!(world.container().tell(), before);
    world
        .container()
        .services
        .get_mut("windrow")
        .expect("runs")
        .active = false;
    story.brief(
        "Somebody stopped the service.",
        &world.hook("update-status").good(),
    );
    world.container().files.remove("/etc/windrow/secrets.yaml");
    story.brief(
        "Somebody removed a file.",
        &world.hook("update-status").good(),
    );
    assert_eq!(world.container().tell(), before);
    story.check("new-container", "A container that starts anew");
}

/// The order in which Juju runs the first hooks of a pod that was killed in its `stop` hook. Pebble
/// may not be up yet when they run.
fn new_pod() {
    let (mut world, _) = counting();
    let before = world.container().tell();
    world.hook("stop").good();
    world.container().renew();
    world.container().notices.clear();
    world.workload.clear();
    world.mood(Mood::Down);
    for hook in ["stop", "upgrade-charm", "config-changed"] {
        let run = world.hook(hook).good();
        assert_eq!(
            run.status, "waiting \"waiting for Pebble in container windrow\"",
            "{hook}"
        );
    }
    world.mood(Mood::Up);
    world.hook("start").good();
    assert_eq!(world.container().tell(), before);
    assert_eq!(
        world.pebble_ready().good().status,
        "maintenance \"starting windrow\""
    );
    counts(&mut world);
    assert_eq!(
        notice(&mut world).status,
        "active \"counting test-topic into default.newtable\""
    );
}

/// Seen on a real Juju: a container died, and windrow counted again before the check looked next.
/// The last notice said "counting", so there was nothing new, and the charm went on to show
/// "starting windrow".
fn noted() {
    let (mut world, _) = counting();
    notice(&mut world);
    let told = |world: &World| {
        let notice = world.container().notices[0].clone();
        (
            notice["last-data"]["state"].clone(),
            notice["last-repeated"].clone(),
        )
    };
    let before = told(&world);
    world.hook("update-status").good();
    assert_eq!(told(&world), before, "what is shown was told");
    world.container().renew();
    world.workload.clear();
    assert_eq!(
        world.pebble_ready().good().status,
        "maintenance \"starting windrow\""
    );
    assert_eq!(
        told(&world),
        (json!("down"), before.1.clone()),
        "noted, and nobody is woken by it"
    );
    counts(&mut world);
    world.hook("update-status").good();
    assert_eq!(told(&world), before);
    assert_eq!(world.container().notices.len(), 1);
}

fn refresh() {
    let (mut world, _) = counting();
    let mut story = Story::default();
    world.refresh(b"\x7fELF a newer workload\0");
    story.full(
        "The container is the old one.",
        &world.hook("upgrade-charm").good(),
    );
    let binaries: Vec<String> = world
        .container()
        .files
        .keys()
        .filter(|path| path.starts_with("/opt/windrow/"))
        .cloned()
        .collect();
    assert_eq!(binaries.len(), 1, "{binaries:?}");
    world.mood(Mood::Late);
    world.refresh(b"\x7fELF the newest workload\0");
    story.brief(
        "Pebble does not answer in time.",
        &world.hook("upgrade-charm").good(),
    );
    world.mood(Mood::Up);
    story.brief("It does.", &world.hook("config-changed").good());
    story.check("refresh", "A refresh of the charm");
}

fn other_model() {
    let mut story = Story::default();
    let mut world = World::new();
    world.hook("config-changed").good();
    world.relate("s3-credentials", Provider::s3_1());
    world.relate("metastore-db", Provider::postgresql_14());
    let kafka = world.integrate("kafka-client", Provider::kafka_3().model(OTHER_MODEL));
    world.relation_event(kafka, "created").good();
    story.full(
        "Nobody tells Kafka's namespace.",
        &world.relation_event(kafka, "changed").good(),
    );
    hosts(&["kafka-k8s-0.kafka-k8s-endpoints"]);
    story.brief(
        "Its names resolve from here.",
        &world.hook("update-status").good(),
    );
    hosts(&[]);
    world.container().renew();
    story.brief("They do not.", &world.pebble_ready().good());
    world.set("kafka-namespace", "kafka");
    story.full("The option says it.", &world.hook("config-changed").good());
    story.check("other-model", "Kafka in another model");
}

fn gone() {
    let mut story = Story::default();
    for (at, endpoint) in ["kafka-client", "s3-credentials", "metastore-db"]
        .into_iter()
        .enumerate()
    {
        let (mut world, ids) = counting();
        let run = world.remove(ids[at]).good();
        story.full(&format!("{endpoint} is gone."), &run);
        assert!(!world.container().services["windrow"].active);
        assert!(
            !world
                .container()
                .files
                .contains_key("/etc/windrow/secrets.yaml")
        );
        let provider = [
            Provider::kafka_3(),
            Provider::s3_1(),
            Provider::postgresql_14(),
        ][at]
            .clone();
        let id = world.integrate(endpoint, provider);
        world.relation_event(id, "created").good();
        story.brief(
            "A new relation.",
            &world.relation_event(id, "changed").good(),
        );
        assert!(world.container().services["windrow"].active);
        assert!(
            world
                .container()
                .files
                .contains_key("/etc/windrow/secrets.yaml")
        );
    }
    story.check("gone", "What it needs goes, and comes again");
}

fn two_kafkas() {
    let (mut world, [old, ..]) = counting();
    let mut story = Story::default();
    let new = world.integrate("kafka-client", Provider::kafka_3().app("kafka-two"));
    story.brief(
        "A second Kafka.",
        &world.relation_event(new, "created").good(),
    );
    story.brief("It answers.", &world.relation_event(new, "changed").good());
    let settings = |world: &World| {
        world
            .container()
            .file("/etc/windrow/windrow.yaml")
            .expect("there")
            .to_owned()
    };
    assert!(settings(&world).contains(&format!("relation-{new}-")));
    story.brief("The first goes.", &world.remove(old).good());
    assert!(settings(&world).contains(&format!("relation-{new}-")));
    let third = world.integrate("kafka-client", Provider::kafka_3());
    world.relation_event(third, "created").good();
    world.relation_event(third, "changed").good();
    story.brief(
        "A third came, and goes before the second.",
        &world.remove(third).good(),
    );
    assert!(settings(&world).contains(&format!("relation-{new}-")));
    story.check("two-kafkas", "Two Kafkas at once");
}

fn frozen() {
    let (mut world, [kafka, ..]) = counting();
    let mut story = Story::default();
    world.set("topic-name", "clicks");
    world.set("metastore-roles", "pg_read_all_data,pg_write_all_data");
    story.full(
        "Options that were asked for.",
        &world.hook("config-changed").good(),
    );
    assert_eq!(
        world.juju().relations[&kafka].ours_app["topic"],
        "test-topic"
    );
    world.remove(kafka).good();
    let again = world.relate("kafka-client", Provider::kafka_3());
    assert_eq!(world.juju().relations[&again].ours_app["topic"], "clicks");
    story.brief(
        "Kafka was removed and added again.",
        &world.hook("update-status").good(),
    );
    story.check("frozen", "A request stays as it was written");
}

fn states() {
    let (mut world, _) = counting();
    let mut story = Story::default();
    let held = says(
        State::Standby,
        Some(Cause::Held),
        "another process has the table",
        &format!("{MODEL}/windrow/1"),
    );
    let other = says(
        State::Waiting,
        Some(Cause::Held),
        "another process has the table",
        &format!("{MODEL}/other/0"),
    );
    let stranger = says(
        State::Waiting,
        Some(Cause::Held),
        "another process has the table",
        "host/17",
    );
    let hostile = says(
        State::Failed,
        None,
        "line\nline \u{1b}[31m red ' \" $(reboot)",
        "",
    );
    for (why, status) in [
        ("another unit leads", held),
        ("another application's table", other),
        ("another program's table", stranger),
        ("a reason of odd characters", hostile),
        (
            "a reason of great length",
            says(State::Failed, None, &"long ".repeat(500), ""),
        ),
    ] {
        answers(&mut world, status);
        story.brief(why, &notice(&mut world));
    }
    for state in State::ALL {
        for cause in Cause::ALL.map(Some).into_iter().chain([None]) {
            answers(&mut world, says(state, cause, "the workload's reason", ""));
            let run = notice(&mut world);
            assert_eq!(
                (run.did().as_str(), run.flushed.len()),
                ("", 0),
                "{}",
                run.tell()
            );
            story.0 += &format!("{state} {}: {}\n", name_or_empty(cause), run.status);
        }
    }
    for (what, answer) in [
        ("a 500", (500, json!({"error": "no"}))),
        ("no JSON of ours", (200, json!(["odd"]))),
        ("another program's", (200, json!({"state": "counting"}))),
        (
            "a state of a newer workload",
            (200, json!({"state": "dancing"})),
        ),
    ] {
        world.workload.insert("GET /v1/status".to_owned(), answer);
        story.brief(what, &notice(&mut world));
    }
    world.workload.clear();
    story.brief("silence", &notice(&mut world));
    story.check(
        "states",
        "States of the workload, and what juju status shows",
    );
}

fn cos() {
    let (mut world, ids) = counting();
    let mut story = Story::default();
    let loki = world.integrate("logging", Provider::loki());
    story.brief("", &world.relation_event(loki, "created").good());
    story.full(
        "A unit of Loki.",
        &world.unit_event(loki, "joined", "loki/0").good(),
    );
    story.brief("", &world.unit_event(loki, "changed", "loki/0").good());
    story.brief(
        "Another one.",
        &world.unit_event(loki, "joined", "loki/1").good(),
    );
    story.full(
        "It goes.",
        &world.unit_event(loki, "departed", "loki/1").good(),
    );
    story.brief("", &world.hook("update-status").good());
    world.rotate(
        ids[0],
        "secret-user",
        &[("password", "kafka-password-rotated")],
    );
    let bag = world.juju().relations[&loki].gone["loki/1"].clone();
    world
        .juju()
        .relations
        .get_mut(&loki)
        .expect("there")
        .units
        .insert("loki/1".to_owned(), bag);
    story.brief(
        "It comes again, with another password of Kafka.",
        &world.unit_event(loki, "joined", "loki/1").good(),
    );
    let metrics = world.integrate("metrics-endpoint", Provider::prometheus());
    story.full(
        "Prometheus.",
        &world.relation_event(metrics, "created").good(),
    );
    let dashboards = world.integrate("grafana-dashboard", Provider::grafana());
    story.brief(
        "Grafana.",
        &world.relation_event(dashboards, "created").good(),
    );
    let dashboard = world.juju().relations[&dashboards].ours_app["dashboards"].clone();
    let dashboard: Value = serde_json::from_str(&dashboard).expect("JSON");
    assert!(
        dashboard["templates"]
            .as_object()
            .is_some_and(|t| t.len() == 1),
        "{dashboard}"
    );
    story.brief("Loki goes.", &world.remove(loki).good());
    story.brief("", &world.remove(metrics).good());
    story.brief("", &world.remove(dashboards).good());
    story.check("cos", "Loki, Prometheus and Grafana");
}

fn token() {
    let (mut world, _) = counting();
    let mut story = Story::default();
    let uri = world.user_secret(&[("token", "the-token-of-a-user")]);
    let id = uri["secret:".len()..].to_owned();
    world.set("api-token", uri);
    world.juju().secrets.get_mut(&id).expect("added").granted = false;
    story.brief("It is not granted.", &world.hook("config-changed").good());
    world.juju().secrets.get_mut(&id).expect("added").granted = true;
    story.full("It is.", &world.hook("update-status").good());
    assert!(
        world
            .container()
            .file("/etc/windrow/secrets.yaml")
            .is_some_and(|f| f.contains("the-token-of-a-user"))
    );
    // Windrow answers nobody without it, its own machine included.
    let run = world.hook("update-status").good();
    assert!(run.status.contains("counting test-topic"), "{}", run.tell());
    world.juju().secrets.remove(&id);
    story.brief("It is removed.", &world.hook("update-status").good());
    story.check("token", "The token of the status page");
}

fn proxies() {
    let (mut world, _) = counting();
    let mut story = Story::default();
    world.hidden.insert("proxy-password".to_owned());
    world.environment.insert(
        "JUJU_CHARM_HTTP_PROXY".to_owned(),
        "http://u:proxy-password@10.0.0.1:3128".to_owned(),
    );
    world.environment.insert(
        "JUJU_CHARM_NO_PROXY".to_owned(),
        "10.152.183.0/24,.svc".to_owned(),
    );
    story.full(
        "The model has a proxy.",
        &world.hook("config-changed").good(),
    );
    world.environment.clear();
    story.brief("It has none.", &world.hook("config-changed").good());
    story.check("proxies", "Proxies of the model");
}

fn juju_3_5() {
    let mut world = World::new();
    world.juju().version = "3.5.7".to_owned();
    world.container().version = "v1.10.2".to_owned();
    let mut story = Story::default();
    story.brief("", &world.hook("config-changed").good());
    world.relate("s3-credentials", Provider::s3_1());
    world.relate("metastore-db", Provider::postgresql_281());
    let kafka = world.integrate("kafka-client", Provider::kafka_56());
    world.relation_event(kafka, "created").good();
    story.brief(
        "Kafka's model is not told.",
        &world.relation_event(kafka, "changed").good(),
    );
    hosts(&["kafka-k8s-0.kafka-k8s-endpoints"]);
    story.brief("Its names resolve.", &world.hook("update-status").good());
    world.set("kafka-namespace", "kafka");
    story.brief(
        "The option says its namespace.",
        &world.hook("config-changed").good(),
    );
    story.check("juju-3-5", "Juju 3.5: no relation-model-get");
}

fn not_the_leader() {
    let mut world = World::new();
    world.juju().leader = false;
    let mut story = Story::default();
    story.brief("", &world.hook("config-changed").good());
    let mut ids = Vec::new();
    for (endpoint, provider) in [
        ("kafka-client", Provider::kafka_3()),
        ("s3-credentials", Provider::s3_1()),
        ("metastore-db", Provider::postgresql_14()),
        ("metrics-endpoint", Provider::prometheus()),
    ] {
        let id = world.integrate(endpoint, provider);
        ids.push(id);
        story.full(endpoint, &world.relation_event(id, "created").good());
        assert!(world.juju().relations[&id].ours_app.is_empty());
    }
    // The leader writes its requests. The providers answer when the next hook has ended.
    for (id, key, value) in [
        (0, "topic", "test-topic"),
        (1, "bucket", "spark"),
        (2, "database", "hivemetastore"),
    ] {
        world
            .juju()
            .relations
            .get_mut(&ids[id])
            .expect("there")
            .ours_app
            .insert(key.to_owned(), value.to_owned());
    }
    story.brief("The leader has asked.", &world.hook("update-status").good());
    story.full(
        "The providers have answered.",
        &world.relation_event(ids[2], "changed").good(),
    );
    answers(
        &mut world,
        says(
            State::Standby,
            Some(Cause::Held),
            "",
            &format!("{MODEL}/windrow/1"),
        ),
    );
    story.brief("The other unit counts.", &notice(&mut world));
    story.check("not-the-leader", "A unit that does not lead");
}

fn new_leader() {
    let mut world = World::new();
    world.juju().leader = false;
    world.hook("config-changed").good();
    let mut story = Story::default();
    let kafka = world.integrate("kafka-client", Provider::kafka_3());
    world.relation_event(kafka, "created").good();
    world
        .juju()
        .relations
        .get_mut(&kafka)
        .expect("there")
        .ours_app
        .insert("topic".to_owned(), "before".to_owned());
    world.hook("update-status").good();
    world.juju().leader = true;
    story.full(
        "It leads now; another topic was asked for before.",
        &world.hook("leader-elected").good(),
    );
    assert_eq!(world.juju().relations[&kafka].ours_app["topic"], "before");
    story.check("new-leader", "A new leader");
}

/// The newest rows of a table, as windrow answers them.
fn some_rows() -> Value {
    json!({
        "table": "default.newtable",
        "columns": ["origin", "count"],
        "rows": [{"origin": "a", "count": 1}],
        "count": 1,
        "truncated": false,
    })
}

/// What a workload that counts answers to all actions, by method and path.
fn action_answers() -> Vec<(&'static str, Value)> {
    let rows = some_rows();
    let mut status = says(State::Counting, None, "", "");
    status["rows"] = json!(7);
    status["frontier-holder"] = json!("test-topic/0");
    status["frontier-held-because"] = json!("its newest record is from 12:00:03");
    status["lanes"] = json!([{
        "partition": "test-topic/0", "next-offset": 5, "end-offset": 7, "lag": 2,
        "watermark": null, "idle": false,
        "held-by": "",
    }]);
    vec![
        ("GET /v1/status", status),
        (
            "GET /v1/tables",
            json!({"tables": [{"table": "default.newtable", "rows": 7}], "truncated": false}),
        ),
        (
            "GET /v1/windows",
            json!({"windows": [{"origin": "a", "count": 1}], "truncated": false}),
        ),
        ("GET /v1/tables/default.newtable/rows", rows.clone()),
        (
            "GET /v1/tables/default.newtable__rejects/rows",
            rows.clone(),
        ),
        ("GET /v1/tables/default.newtable__late/rows", rows.clone()),
        ("POST /v1/pause", json!({"paused": true})),
        ("POST /v1/resume", json!({"paused": false})),
        ("POST /v1/verify", json!({"id": "verify-1"})),
        (
            "POST /v1/compact",
            json!({"compaction": "1 merge is due", "compaction-due-merges": 1}),
        ),
        (
            "GET /v1/verify",
            json!({"differences": 1, "findings": [{"kind": "hive", "text": "it is not there"}]}),
        ),
    ]
}

const RESTORED: &str = "Hive shows what the journal says\n";

/// Words of a command, how many seconds it takes, and the action that runs it. To restore a table
/// of many files takes minutes, and with a database that stands still it would take for ever.
const SLOW: [(&str, u64, &str); 3] = [
    (" restore", 300, "restore-table"),
    (" restore", 4000, "restore-table"),
    (" rows ", 60, "preview-table"),
];

/// What the program prints when the workload does not answer.
fn program_answers(world: &mut World, rows: &Value) {
    let plan = json!({
        "table": "default.newtable",
        "merges": [{"table": "newtable__chunks", "period": "2024-09-01", "files": 64, "into": 1}],
        "drops": [],
        "count": 1,
    });
    for (words, answer) in [(" rows ", rows), (" compact ", &plan)] {
        let printed = (0, answer.to_string(), String::new());
        world.container().execs.push((words.to_owned(), printed));
    }
    world.container().execs.push((
        " pause".to_owned(),
        (1, String::new(), "log\nwindrow: no lease".to_owned()),
    ));
}

/// What goes on in the background, and how far it is.
fn verify_and_compact(world: &mut World, told: &mut impl FnMut(&str, &mut World, &Value)) {
    told(
        "verify-table",
        world,
        &json!({"from": "2024-09-01", "deep": true}),
    );
    let mut verified = says(State::Counting, None, "", "");
    verified["verification"] = json!("verify-1: it is not there");
    let verified = ("GET /v1/status".to_owned(), (200, verified));
    world.workload.extend([verified]);
    told("get-table-status", world, &json!({}));
    told("compact-table", world, &json!({}));
}

fn actions() {
    let (mut world, _) = counting();
    let mut story = Story::default();
    let mut told = |name: &str, world: &mut World, parameters: &Value| {
        let run = world.action(name, parameters).good();
        story.0 += &format!("\n== {} {parameters}\n", run.event);
        let done = run.action.expect("an action");
        story.0 += &format!("{} {}\n", done.status, done.message);
        for (key, value) in &done.results {
            story.0 += &format!(
                "  {key}: {}\n",
                value.to_string().replace("the-token", "***")
            );
        }
        for line in run
            .workload
            .iter()
            .chain(run.pebble.iter().filter(|l| l.contains("exec")))
        {
            story.0 += &format!("  {line}\n");
        }
    };
    let rows = some_rows();
    world.workload.extend(
        action_answers()
            .into_iter()
            .map(|(path, answer)| (path.to_owned(), (200, answer))),
    );
    let all = [
        ("get-table-status", json!({})),
        ("list-tables", json!({})),
        ("preview-table", json!({"limit": 5})),
        ("show-windows", json!({})),
        ("get-lag", json!({})),
        ("pause", json!({})),
        ("resume", json!({})),
        ("list-rejects", json!({})),
        ("list-rejects", json!({"late": true})),
    ];
    for (name, parameters) in &all {
        told(name, &mut world, parameters);
    }
    verify_and_compact(&mut world, &mut told);
    world.workload.insert(
        "POST /v1/pause".to_owned(),
        (403, json!({"error": "the token is another one"})),
    );
    told("pause", &mut world, &json!({}));
    // The workload does not answer, so its program is asked.
    world.workload.clear();
    program_answers(&mut world, &rows);
    told("preview-table", &mut world, &json!({}));
    told("pause", &mut world, &json!({}));
    told("get-lag", &mut world, &json!({}));
    told("verify-table", &mut world, &json!({}));
    told("compact-table", &mut world, &json!({}));
    told("compact-table", &mut world, &json!({"dry-run": true}));
    // Only the program can write the table's entries in Hive again.
    let done = (0, RESTORED.to_owned(), String::new());
    world.container().execs.push((" restore".to_owned(), done));
    told("restore-table", &mut world, &json!({}));
    let from_manifests = json!({"from-manifests": true});
    told("restore-table", &mut world, &from_manifests);
    for (words, seconds, action) in SLOW {
        world.container().slow.push((words.to_owned(), seconds));
        told(action, &mut world, &json!({}));
    }
    world.mood(Mood::Down);
    told("preview-table", &mut world, &json!({}));
    story.check("actions", "Actions: results, and what was asked for them");
}

fn hook_fails() {
    let (mut world, _) = counting();
    let mut story = Story::default();
    for command in [
        "config-get",
        "state-get",
        "relation-ids",
        "relation-get",
        "status-get",
    ] {
        let fault = (1, "cannot talk to the controller".to_owned());
        world.juju().faults.insert(command.to_owned(), fault);
        let run = world.hook("config-changed");
        story.0 += &format!("\n== {command} fails\n{}\n", run.brief());
        assert_eq!(run.did(), "", "{}", run.tell());
        world.juju().faults.clear();
    }
    // Writing fails, and nothing else that the hook did is kept.
    world.set("log-level", "debug");
    let fault = (1, "cannot talk to the controller".to_owned());
    world.juju().faults.insert("state-set".to_owned(), fault);
    let run = world.hook("config-changed");
    story.0 += &format!("\n== state-set fails\n{}\n", run.brief());
    world.juju().faults.clear();
    story.brief("Juju runs it again.", &world.hook("config-changed").good());
    std::fs::remove_file(world.charm().join("windrow.sha256")).expect("it was there");
    let run = world.hook("config-changed");
    story.0 += &format!(
        "\n== The charm is incomplete.\n{}\n{}",
        run.brief(),
        run.tell()
    );
    story.check("hook-fails", "A hook command fails");
}

fn quiet() {
    let (mut world, _) = counting();
    world.relate("logging", Provider::loki());
    world.relate("metrics-endpoint", Provider::prometheus());
    world.relate("grafana-dashboard", Provider::grafana());
    let (mut usual, _) = counting();
    for (world, most) in [(&mut usual, 11), (&mut world, 14)] {
        world.hook("update-status").good();
        let run = world.hook("update-status").good();
        assert!(run.count("") <= most, "{}", run.tell());
        assert_eq!(
            (run.did().as_str(), run.flushed.len(), run.statuses.len()),
            ("", 0, 0),
            "{}",
            run.tell()
        );
        let least = (0..5)
            .map(|_| world.hook("update-status").good().took)
            .min()
            .expect("five");
        println!(
            "a no-change dispatch: {} hook commands, {} ms",
            run.count(""),
            least.as_millis()
        );
    }
}
