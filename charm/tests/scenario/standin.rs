//! Tests of the stand-ins themselves: they refuse what Juju and Pebble refuse, with the same texts
//! and exit codes.

use crate::golden;
use crate::pebble::Mood;
use crate::provider::Provider;
use crate::workload::{Answers, Workload};
use crate::world::{OTHER_MODEL, World};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

const METADATA: &str = "
name: windrow
containers: { windrow: { resource: windrow-image } }
requires:
  kafka-client: { interface: kafka_client, limit: 1 }
  s3-credentials: { interface: s3, optional: true, limit: 1 }
  metastore-db: { interface: postgresql_client, optional: true, limit: 1 }
  receive-ca-cert: { interface: certificate_transfer, optional: true }
  logging: { interface: loki_push_api, optional: true }
";
const CONFIG: &str = "
options:
  topic-name: { type: string, default: test-topic }
  max-keys: { type: int, default: 1000000 }
  init-metastore: { type: boolean, default: false }
  kafka-namespace: { type: string }
  api-token: { type: secret }
";
const ACTIONS: &str = "
list-tables: {}
preview-table:
  params:
    table: { type: string }
    limit: { type: integer, default: 10, minimum: 1, maximum: 1000 }
  required: [table]
  additionalProperties: false
";

fn world() -> World {
    World::with_charm(METADATA, CONFIG, ACTIONS)
}

pub fn trials() -> Vec<Trial> {
    let tests: [(&str, fn()); 20] = [
        ("hook_commands_refuse_bad_arguments_as_juju_does", refusals),
        (
            "hook_commands_refuse_a_unit_that_does_not_lead",
            not_the_leader,
        ),
        ("another_context_and_no_socket_are_refused", contexts),
        ("what_is_buffered_waits_for_the_good_end", buffering),
        (
            "a_secret_that_only_the_leader_may_change_fails_at_the_commit",
            secrets_at_commit,
        ),
        ("secrets_are_tracked_peeked_refreshed_and_labelled", secrets),
        ("options_have_types_and_defaults", options),
        ("relation_data_is_read_as_the_event_says", relation_data),
        ("a_broken_relation_is_in_no_list_but_can_be_read", broken),
        ("status_get_shows_what_was_read_first", status_get),
        ("actions_have_parameters_results_and_an_end", actions),
        ("providers_answer_only_what_is_asked", providers),
        ("juju_3_5_lacks_relation_model_get", juju_3_5),
        (
            "a_credential_out_of_its_place_fails_the_scenario",
            credentials,
        ),
        ("pebble_keeps_layers_files_and_services", pebble),
        ("pebble_refuses_what_pebble_refuses", pebble_refuses),
        ("pebble_can_be_away_deaf_late_broken_or_full", pebble_moods),
        ("pebble_executes_what_it_was_told_of", exec),
        ("the_workload_answers_on_its_port", workload),
        ("a_dispatch_with_twelve_hook_commands_is_quick", quick),
    ];
    crate::named("standin", &tests)
}

/// Runs command lines in a hook. Each comes with the exit code and the standard error (without
/// `ERROR `) that it should have.
fn refused(
    world: &mut World,
    event: impl Fn(&mut World) -> crate::world::Run,
    rows: &[(&str, u8, &str)],
) {
    let lines: Vec<&str> = rows.iter().map(|(line, _, _)| *line).collect();
    world.script(&format!("{}\nexit 0", lines.join("\n")));
    let run = event(world).good();
    assert_eq!(run.calls.len(), rows.len(), "{}", run.tell());
    for (call, (line, code, text)) in run.calls.iter().zip(rows) {
        let said = call.stderr.trim_end().trim_start_matches("ERROR ");
        assert_eq!((call.code, said), (*code, *text), "{line}");
    }
    // The hook commands print what the agent answers.
    let all: String = run.calls.iter().map(|c| c.stderr.clone()).collect();
    assert_eq!(run.stderr, all);
}

/// Command lines with the exit code and the standard error (without `ERROR `) that they have.
const REFUSALS: &[(&str, u8, &str)] = &[
    (
        "relation-get -r 99",
        2,
        "invalid value \"99\" for option -r: relation not found",
    ),
    (
        "relation-set --relation=kafka-client:x a=b",
        2,
        "invalid value \"kafka-client:x\" for option --relation: invalid relation id",
    ),
    ("relation-get", 2, "no relation id specified"),
    ("relation-set a=b", 2, "no relation id specified"),
    ("relation-list", 2, "no relation id specified"),
    ("relation-ids", 2, "no endpoint name specified"),
    ("relation-ids nosuch", 0, ""),
    ("relation-get -r 0", 2, "no unit or application specified"),
    ("relation-get -r 0 - other/0", 1, "permission denied"),
    (
        "relation-get -r 0 - kafka-k8s",
        2,
        "expected unit name, got application name \"kafka-k8s\"",
    ),
    (
        "relation-get -r 0 - Kafka",
        2,
        "invalid unit name \"Kafka\"",
    ),
    (
        "relation-get -r 0 --app - kafka-k8s more",
        2,
        "unrecognized args: [\"more\"]",
    ),
    (
        "relation-get -r 0 --bogus",
        2,
        "option provided but not defined: --bogus",
    ),
    ("relation-get -r", 2, "option needs an argument: -r"),
    (
        "relation-get -r 0 --format=xml - windrow/0",
        2,
        "invalid value \"xml\" for option --format: unknown format \"xml\"",
    ),
    (
        "relation-set -r 0 plain",
        2,
        "expected \"key=value\", got \"plain\"",
    ),
    (
        "relation-set -r 0 a=1 a=2",
        2,
        "key \"a\" specified more than once",
    ),
    (
        "is-leader --json",
        2,
        "option provided but not defined: --json",
    ),
    (
        "config-get --all topic-name",
        2,
        "cannot use argument --all together with key \"topic-name\"",
    ),
    (
        "status-set bogus",
        2,
        "invalid status \"bogus\", expected one of [maintenance blocked waiting active]",
    ),
    ("status-set", 2, "invalid args, require <status> [message]"),
    ("status-set active a b", 2, "unrecognized args: [\"b\"]"),
    (
        "secret-get secret:d0000000000000000000",
        1,
        "secret \"d0000000000000000000\" not found",
    ),
    ("secret-get --label X", 1, "consumer label \"X\" not found"),
    (
        "secret-get not-a-uri",
        2,
        "secret URI \"not-a-uri\" not valid",
    ),
    ("secret-get", 2, "require either a secret URI or label"),
    (
        "secret-get --peek --refresh secret:d0000000000000000000",
        2,
        "specify one of --peek or --refresh but not both",
    ),
    ("secret-add a=b", 2, "key \"a\" not valid"),
    ("state-get --strict X", 1, "\"X\" not found"),
    ("state-get X", 0, ""),
    ("action-get", 1, "not running an action"),
    ("action-set a=1", 1, "not running an action"),
    (
        "action-set stdout=1",
        2,
        "cannot set reserved action key \"stdout\"",
    ),
    (
        "network-get NOSUCH",
        1,
        "no network config found for binding \"NOSUCH\"",
    ),
    ("network-get", 2, "no arguments specified"),
    (
        "credential-get",
        1,
        "cannot access cloud credentials: getting model credentials: permission denied",
    ),
    (
        "open-port 80-90/tcp",
        1,
        "port ranges are not supported for k8s applications, please specify a single port",
    ),
    ("juju-log", 2, "no message specified"),
    ("application-version-set", 2, "no version specified"),
    (
        "relation-get -r 0 - kafka-k8s/9",
        1,
        "cannot read settings for unit \"kafka-k8s/9\" in relation \
         \"windrow:kafka-client kafka-k8s:kafka-client\": unit \"kafka-k8s/9\": settings not found",
    ),
    (
        "head -c 70000 /dev/zero | tr '\\0' x | sed 's/^/v: /' | state-set --file -",
        1,
        "max allowed value length (65536) exceeded",
    ),
    (
        "action-set Bad_Key=1",
        2,
        "key \"Bad_Key\" must start and end with lowercase alphanumeric, \
         and contain only lowercase alphanumeric and hyphens",
    ),
];

fn refusals() {
    let mut world = world();
    let id = world.integrate("kafka-client", Provider::kafka_3());
    assert_eq!(id, 0);
    let token = world.user_secret(&[("token", "hidden-token")]);
    let lost = world.user_secret(&[("token", "hidden-token")]);
    world
        .juju()
        .secrets
        .get_mut(&lost["secret:".len()..])
        .expect("there")
        .granted = false;
    let key_absent = format!("secret-get {token} other");
    let denied = format!("secret-get {lost}");
    let info = format!("secret-info-get {token}");
    let info_said = format!("secret {:?} not found", &token["secret:".len()..]);
    let mut rows = REFUSALS.to_vec();
    rows.extend([
        (denied.as_str(), 1, "permission denied"),
        (&key_absent, 1, "secret key value \"other\" not found"),
        (&info, 1, &info_said),
    ]);
    refused(&mut world, |world| world.hook("update-status"), &rows);
}

fn not_the_leader() {
    let mut world = world();
    let id = world.integrate("kafka-client", Provider::kafka_3());
    world.juju().leader = false;
    let rows = [
        ("relation-get --app - windrow", 1, "permission denied"),
        (
            "relation-set --app a=b",
            1,
            "cannot write relation settings",
        ),
        (
            "status-get --application",
            1,
            "finding application status: this unit is not the leader",
        ),
        (
            "status-set --application active",
            1,
            "this unit is not the leader",
        ),
        ("secret-add abc=d", 1, "this unit is not the leader"),
        ("relation-set a=b", 0, ""),
        ("is-leader", 0, ""),
    ];
    refused(
        &mut world,
        |world| world.relation_event(id, "changed"),
        &rows,
    );
}

fn contexts() {
    let mut world = world();
    world.script(
        "JUJU_CONTEXT_ID=X is-leader; echo $?
         JUJU_AGENT_SOCKET_ADDRESS=/nowhere/agent.socket is-leader; echo $?
         unset JUJU_CONTEXT_ID; is-leader; echo $?",
    );
    let run = world.hook("start").good();
    assert_eq!(run.stdout, "1\n1\n1\n");
    let said = "ERROR bad request: wrong context ID; got \"X\"\n\
                ERROR dial unix /nowhere/agent.socket: connect: no such file or directory\n\
                ERROR JUJU_CONTEXT_ID not set\n";
    assert_eq!(run.stderr, said);
}

fn buffering() {
    let mut world = world();
    let id = world.integrate("kafka-client", Provider::kafka_3());
    let all = "
        echo 'topic: test-topic' | relation-set --app --file - extra=1
        relation-set unit=2 egress-subnets=
        relation-get --app - windrow
        relation-get unit windrow/0
        state-set memo='{}'
        state-get memo
        open-port 8080/tcp
        opened-ports
        status-set waiting 'for Kafka'
        application-version-set 0.1.0
        juju-log -l WARN said
    ";
    let printed = "extra: '1'\ntopic: test-topic\n2\n{}\n";
    world.script(&format!("{all}exit 3"));
    let run = world.relation_event(id, "created");
    assert_eq!(run.error.as_deref(), Some("exit status 3"));
    assert_eq!(run.stdout, printed);
    assert!(run.flushed.is_empty());
    assert_eq!(run.status, "waiting \"for Kafka\"");
    assert_eq!(run.log, [format!("WARNING kafka-client:{id}: said")]);
    assert_eq!(world.juju().workload_version, "0.1.0");
    assert!(world.juju().state.is_empty() && world.juju().ports.is_empty());
    assert!(world.juju().relations[&id].ours_app.is_empty());

    world.script(all);
    let run = world.relation_event(id, "created").good();
    assert_eq!(
        run.flushed,
        [
            format!("kafka-client:{id} unit egress-subnets: "),
            format!("kafka-client:{id} unit unit: 2"),
            format!("kafka-client:{id} application extra: 1"),
            format!("kafka-client:{id} application topic: test-topic"),
            "state memo: {}".to_owned(),
            "open 8080/tcp".to_owned(),
        ]
    );
    golden::check(
        "standin-buffering",
        "A hook that writes everything that can be buffered",
        &run.tell(),
    )
    .expect("same");
    // The same layer again changes nothing.
    let run = world.relation_event(id, "created").good();
    assert!(
        run.flushed.iter().all(|l| l.contains("8080")),
        "{:?}",
        run.flushed
    );
}

fn secrets_at_commit() {
    let mut world = world();
    world.juju().leader = false;
    let uri = world.user_secret(&[("token", "hidden-token")]);
    world
        .juju()
        .secrets
        .get_mut(&uri["secret:".len()..])
        .expect("there")
        .owner = "windrow".to_owned();
    world.script(&format!("secret-set {uri} token=other && state-set a=b"));
    let run = world.hook("update-status");
    assert_eq!(
        (run.exit, run.error.as_deref()),
        (0, Some("updating secrets: permission denied"))
    );
    assert!(world.juju().state.is_empty());
}

fn secrets() {
    let mut world = world();
    let id = world.integrate("kafka-client", Provider::kafka_3().model(OTHER_MODEL));
    world.script("relation-set --app -r 0 topic=t");
    world.hook("start").good();
    let uri = world.juju().relations[&id].remote["secret-user"].clone();
    assert!(
        uri.starts_with(&format!("secret://{OTHER_MODEL}/")),
        "{uri}"
    );
    let get = |flags: &str| format!("secret-get {uri} {flags} --format=json password >>seen\n");
    world.script(&get(""));
    world.hook("start").good();
    world.rotate(id, "secret-user", &[("password", "kafka-password-new")]);
    world.script(
        &[
            get(""),
            get("--peek"),
            get(""),
            get("--refresh --label ours"),
            get(""),
        ]
        .concat(),
    );
    world.secret_changed(id, "secret-user").good();
    world.script("secret-get --label ours --format=json >>seen");
    world.hook("start").good();
    let seen = std::fs::read_to_string(world.charm().join("seen")).expect("written");
    let (old, new) = ("\"kafka-password-0\"\n", "\"kafka-password-new\"\n");
    let all = "{\"password\":\"kafka-password-new\",\"username\":\"relation-0\"}\n";
    assert_eq!(seen, [old, old, new, old, new, new, all].concat());
    world.script("echo \"$JUJU_SECRET_ID $JUJU_SECRET_LABEL\"");
    let run = world.secret_changed(id, "secret-user");
    assert_eq!(
        run.stdout,
        format!("secret:{} ours\n", uri.rsplit('/').next().expect("an id"))
    );
    // A revision that has been removed.
    let secret = uri.rsplit('/').next().expect("an id").to_owned();
    *world
        .juju()
        .secrets
        .get_mut(&secret)
        .expect("there")
        .revisions
        .last_mut()
        .expect("two") = None;
    world.script(&format!("secret-get {uri} --refresh"));
    let run = world.hook("start");
    assert_eq!(run.stderr, "ERROR secret revision 2 not found\n");
}

fn options() {
    let mut world = world();
    world.set("max-keys", 5);
    world.script(
        "config-get --format=json; config-get --all --format=json; config-get nosuch --format=json",
    );
    let run = world.hook("config-changed").good();
    let lines: Vec<Value> = run
        .stdout
        .lines()
        .map(|l| serde_json::from_str(l).expect("JSON"))
        .collect();
    let set = json!({"topic-name": "test-topic", "max-keys": 5, "init-metastore": false});
    assert_eq!(lines[0], set);
    assert_eq!(
        (&lines[1]["api-token"], &lines[1]["max-keys"]),
        (&Value::Null, &json!(5))
    );
    assert_eq!(lines[2], Value::Null);
    let set = std::panic::AssertUnwindSafe(|| world.set("max-keys", "many"));
    let wrong = quietly(|| std::panic::catch_unwind(set));
    assert!(wrong.is_err());
}

fn relation_data() {
    let mut world = world();
    let id = world.integrate("logging", Provider::loki());
    world.script(
        "relation-get --format=json; relation-get --app --format=json
         relation-get ingress-address windrow/0
         relation-list; relation-list --app; relation-ids logging; relation-ids
         relation-model-get --format=json
         echo \"$JUJU_RELATION $JUJU_RELATION_ID $JUJU_REMOTE_APP \
         $JUJU_REMOTE_UNIT. $JUJU_DEPARTING_UNIT.\"",
    );
    world
        .juju()
        .relations
        .get_mut(&id)
        .expect("there")
        .members
        .insert("loki/0".to_owned());
    let run = world.unit_event(id, "changed", "loki/1").good();
    let lines: Vec<&str> = run.stdout.lines().collect();
    let bag: Value = serde_json::from_str(lines[0]).expect("JSON");
    assert!(
        bag["endpoint"]
            .as_str()
            .is_some_and(|e| e.contains("loki-1.")),
        "{bag}"
    );
    assert_eq!(lines[1..5], ["{}", "10.1.63.230", "loki/0", "loki/1"]);
    assert_eq!(lines[5..8], ["loki", "logging:0", "logging:0"]);
    assert_eq!(
        lines[8],
        format!("{{\"uuid\":\"{}\"}}", crate::world::MODEL)
    );
    assert_eq!(lines[9], "logging logging:0 loki loki/1. .");
    world.script(
        "echo \"$JUJU_DEPARTING_UNIT $JUJU_REMOTE_UNIT $JUJU_DISPATCH_PATH\"; relation-list",
    );
    let run = world.unit_event(id, "departed", "loki/1").good();
    assert_eq!(
        run.stdout,
        "loki/1 loki/1 hooks/logging-relation-departed\nloki/0\n"
    );
    world.script("relation-list; relation-get ingress-address loki/1; env | cut -d= -f1 | sort");
    let run = world.relation_event(id, "changed").good();
    assert!(
        run.stdout.starts_with("loki/0\n10.152.183.7\n"),
        "{}",
        run.stdout
    );
    assert!(
        !run.stdout.contains("HOME") && !run.stdout.contains("CARGO"),
        "{}",
        run.stdout
    );
}

fn broken() {
    let mut world = world();
    let id = world.integrate("kafka-client", Provider::kafka_3());
    world.script("relation-set --app -r 0 topic=t");
    world.hook("start").good();
    world.script(
        "relation-ids kafka-client; relation-list; relation-get endpoints; \
         relation-get tls kafka-k8s/0; relation-set a=b",
    );
    let run = world.relation_event(id, "broken").good();
    assert_eq!(run.stdout, "kafka-k8s-0.kafka-k8s-endpoints:9092\n");
    assert!(world.juju().relations.is_empty() && world.juju().secrets.is_empty());
}

fn status_get() {
    let mut world = world();
    world.script(
        "status-get; status-set active ok; status-get; status-get --include-data --format=json",
    );
    let run = world.hook("start").good();
    assert!(
        run.stdout.starts_with("waiting\nwaiting\n{"),
        "{}",
        run.stdout
    );
    let run = world.hook("start").good();
    assert!(run.stdout.starts_with("active\nactive\n"), "{}", run.stdout);
}

fn actions() {
    let mut world = world();
    world.script(
        "action-get --format=json; action-get limit; action-set rows=1 a.b=2 a.c=x=y; \
         action-log at it",
    );
    let run = world
        .action("preview-table", &json!({"table": "default.newtable"}))
        .good();
    let done = run.action.as_ref().expect("an action");
    assert_eq!((done.status, done.message.as_str()), ("completed", ""));
    assert_eq!(done.results["a"], json!({"b": "2", "c": "x=y"}));
    assert_eq!(
        done.results["stdout"],
        json!("{\"limit\":10,\"table\":\"default.newtable\"}\n10\n")
    );
    assert_eq!(done.log, ["at it"]);
    world.script(
        "action-fail 'no rows'; \
         test -z \"$JUJU_HOOK_NAME\" && echo \"$JUJU_ACTION_NAME $JUJU_DISPATCH_PATH\"",
    );
    let run = world.action("list-tables", &json!({})).good();
    let done = run.action.as_ref().expect("an action");
    assert_eq!((done.status, done.message.as_str()), ("failed", "no rows"));
    assert_eq!(run.stdout, "list-tables actions/list-tables\n");
    world.script("exit 7");
    let run = world.action("list-tables", &json!({})).good();
    assert_eq!(run.action.expect("an action").message, "exit status 7");
    let refused = |parameters: Value| {
        world
            .juju()
            .charm
            .parameters("preview-table", &parameters)
            .expect_err("bad")
    };
    assert_eq!(refused(json!({})), "table is missing and required");
    assert_eq!(
        refused(json!({"table": "t", "limit": "ten"})),
        "limit must be of type integer"
    );
    assert_eq!(
        refused(json!({"table": "t", "limit": 0})),
        "limit is out of bounds"
    );
    assert_eq!(
        refused(json!({"table": "t", "more": 1})),
        "additional property \"more\" is not allowed"
    );
}

fn providers() {
    let all: [(&str, &str, Provider, &str); 7] = [
        ("kafka-client", "topic", Provider::kafka_56(), "secret-user"),
        ("kafka-client", "topic", Provider::kafka_3(), "secret-tls"),
        ("kafka-client", "topic", Provider::kafka_4(), "secret-tls"),
        ("s3-credentials", "bucket", Provider::s3_1(), "access-key"),
        ("s3-credentials", "bucket", Provider::s3_2(), "secret-extra"),
        (
            "metastore-db",
            "database",
            Provider::postgresql_14(),
            "secret-user",
        ),
        (
            "metastore-db",
            "database",
            Provider::postgresql_16(),
            "secret-tls",
        ),
    ];
    for (endpoint, key, provider, told) in all {
        let mut world = world();
        let id = world.integrate(endpoint, provider);
        assert!(!world.juju().relations[&id].remote.contains_key(told));
        world.script(&format!("relation-set --app {key}=asked-for"));
        world.relation_event(id, "created").good();
        let juju = world.juju();
        let remote = &juju.relations[&id].remote;
        assert!(remote.contains_key(told), "{remote:?}");
        assert_eq!(remote[key], "asked-for");
    }
    let mut world = world();
    let id = world.integrate("receive-ca-cert", Provider::certificates_1());
    assert!(world.juju().relations[&id].remote["certificates"].starts_with("[\"-----BEGIN"));
    let id = world.integrate("receive-ca-cert", Provider::certificates_0());
    let juju = world.juju();
    assert!(juju.relations[&id].units["manual-tls-certificates/0"]["ca"].starts_with("-----BEGIN"));
}

fn juju_3_5() {
    let mut world = world();
    world.juju().version = "3.5.7".to_owned();
    world.integrate("kafka-client", Provider::kafka_3());
    world.script("relation-model-get -r 0; echo \"$? $JUJU_METER_STATUS\"");
    assert_eq!(world.hook("start").good().stdout, "127 AMBER\n");
}

fn credentials() {
    let places = [
        "juju-log $(secret-get $URI password)",
        "status-set blocked \"no login with $(secret-get $URI password)\"",
        "secret-get $URI",
        "state-set memo=$(secret-get $URI password)",
        "secret-get $URI | state-set --file -",
        "P=$(secret-get $URI password); export P; is-leader",
        "secret-get $URI | relation-set -r 0 --file -",
    ];
    for place in places {
        let mut world = world();
        let id = world.integrate("kafka-client", Provider::kafka_3());
        world.script("relation-set --app -r 0 topic=t");
        world.hook("start").good();
        let uri = world.juju().relations[&id].remote["secret-user"].clone();
        world.script(&format!("URI={uri}\n{place}"));
        let hook = std::panic::AssertUnwindSafe(|| world.hook("start"));
        let caught = quietly(|| std::panic::catch_unwind(hook));
        assert!(caught.is_err(), "{place}");
    }
}

/// Runs something that should panic, without showing the panic's text.
fn quietly<T>(what: impl FnOnce() -> T) -> T {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let result = what();
    std::panic::set_hook(hook);
    result
}

/// Asks the container's Pebble at the socket that the charm uses, and gives code and body. `None`
/// when nobody answers.
fn ask(world: &World, method: &str, path: &str, kind: &str, body: &str) -> Option<(u16, String)> {
    world.pebble.show();
    let mut stream = UnixStream::connect("/charm/containers/windrow/pebble.socket").ok()?;
    let head = format!(
        "Host: pebble\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close",
        body.len()
    );
    stream
        .write_all(format!("{method} {path} HTTP/1.1\r\n{head}\r\n\r\n{body}").as_bytes())
        .expect("it reads");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("text");
    let code = text
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .expect("a status line");
    Some((
        code,
        text.split_once("\r\n\r\n").expect("a head").1.to_owned(),
    ))
}

fn get(world: &World, path: &str) -> Value {
    let (_, body) = ask(world, "GET", &format!("/v1/{path}"), "", "").expect("it is up");
    serde_json::from_str(&body).expect("JSON")
}

fn post(world: &World, path: &str, body: &Value) -> Value {
    let path = format!("/v1/{path}");
    let (_, body) =
        ask(world, "POST", &path, "application/json", &body.to_string()).expect("it is up");
    serde_json::from_str(&body).expect("JSON")
}

fn layer(world: &World, yaml: &str) -> Value {
    let body = json!({
        "action": "add",
        "combine": true,
        "label": "windrow",
        "format": "yaml",
        "layer": yaml,
    });
    post(world, "layers", &body)
}

const BOUNDARY: &str = "0123456789abcdef0123456789abcdef";

fn push(world: &World, path: &str, mode: &str, text: &str) -> Value {
    let file = json!({
        "path": path,
        "make-dirs": true,
        "permissions": mode,
        "user-id": 584_792,
        "group-id": 584_792,
    });
    let request = json!({"action": "write", "files": [file]});
    let part = |head: &str, content: &str| {
        format!("--{BOUNDARY}\r\nContent-Disposition: form-data; {head}\r\n\r\n{content}\r\n")
    };
    let body = [
        part("name=\"request\"", &request.to_string()),
        part(&format!("name=\"files\"; filename=\"{path}\""), text),
        format!("--{BOUNDARY}--\r\n"),
    ];
    let kind = format!("multipart/form-data; boundary={BOUNDARY}");
    let (_, body) = ask(world, "POST", "/v1/files", &kind, &body.concat()).expect("it is up");
    serde_json::from_str(&body).expect("JSON")
}

const LAYER: &str = "
services:
  windrow:
    override: replace
    command: /opt/windrow/windrow run
    startup: enabled
    environment: { WINDROW_CONFIG_DIGEST: '1' }
checks:
  up:
    override: replace
    http: { url: 'http://127.0.0.1:8080/healthz' }
";

/// A container whose service runs.
fn started() -> World {
    let world = world();
    push(&world, "/opt/windrow/windrow", "755", "program");
    layer(&world, LAYER);
    post(&world, "services", &json!({"action": "replan"}));
    world
}

fn pebble() {
    let world = started();
    assert_eq!(get(&world, "system-info")["result"]["version"], "v1.19.2");
    assert_eq!(
        get(&world, "changes/1/wait?timeout=5s")["result"]["status"],
        "Done"
    );
    assert_eq!(get(&world, "services")["result"][0]["current"], "active");
    let signal = json!({"signal": "SIGHUP", "services": ["windrow"]});
    assert_eq!(post(&world, "signals", &signal)["result"], true);
    let list = get(
        &world,
        "files?action=list&path=/opt/windrow&pattern=windrow*",
    );
    assert_eq!(list["result"][0]["size"], 7);
    let (_, read) = ask(
        &world,
        "GET",
        "/v1/files?action=read&path=%2Fopt%2Fwindrow%2Fwindrow",
        "",
        "",
    )
    .expect("up");
    assert!(read.contains("\r\n\r\nprogram\r\n--"), "{read}");
    assert_eq!(get(&world, "checks")["result"][0]["status"], "up");
    let notice = json!({
        "action": "add",
        "type": "custom",
        "key": "windrow.dev/state",
        "data": {"state": "failed"},
    });
    post(&world, "notices", &notice);
    let notices = get(&world, "notices?types=custom&keys=windrow.dev/state");
    assert_eq!(notices["result"][0]["last-data"]["state"], "failed");
    assert_eq!(
        get(&world, "notices?keys=windrow.dev/other")["result"],
        json!([])
    );
    let plan = get(&world, "plan?format=yaml")["result"]
        .as_str()
        .expect("YAML in JSON")
        .to_owned();
    assert!(plan.contains("threshold: 3"), "{plan}");
    let mut told = world.container().requests.clone();
    told.extend(world.container().tell());
    let told = told.join("\n") + "\n";
    golden::check(
        "standin-pebble",
        "A container that gets a program, a layer and a replan",
        &told,
    )
    .expect("same");
    // A replan without a change restarts nothing; with another environment it does.
    let digest =
        |world: &World| world.container().services["windrow"].started["environment"].to_string();
    layer(&world, &LAYER.replace("'1'", "'2'"));
    assert!(digest(&world).contains("\"1\""));
    post(&world, "services", &json!({"action": "replan"}));
    assert!(digest(&world).contains("\"2\""));
    post(
        &world,
        "services",
        &json!({"action": "stop", "services": ["windrow"]}),
    );
    assert_eq!(get(&world, "services")["result"][0]["current"], "inactive");
}

fn pebble_refuses() {
    let world = world();
    let start = json!({"action": "start", "services": ["x"]});
    let rows = [
        (
            layer(&world, "services: { a: { command: x } }"),
            "layer \"windrow\" must define \"override\" for service \"a\"",
        ),
        (
            layer(&world, "services: { a: { override: replace, comand: x } }"),
            "field comand not found in type plan.Service",
        ),
        (
            layer(&world, "services: { a: { override: replace } }"),
            "plan must define \"command\" for service \"a\"",
        ),
        (
            layer(&world, "checks: { up: { override: replace } }"),
            "plan must specify one of \"http\", \"tcp\", or \"exec\"",
        ),
        (
            post(&world, "services", &start),
            "cannot start services: service \"x\" does not exist",
        ),
        (get(&world, "changes/9"), "cannot find change with id \"9\""),
        (
            get(&world, "files?action=list&path=/nowhere"),
            "stat /nowhere: no such file or directory",
        ),
        (
            get(&world, "files?action=list&path=nowhere"),
            "path must be absolute",
        ),
        (get(&world, "nowhere"), "invalid API endpoint"),
        (
            post(
                &world,
                "notices",
                &json!({"action": "add", "type": "custom", "key": "bad"}),
            ),
            "custom notice key",
        ),
        (
            post(&world, "exec", &json!({"command": ["/no/such"]})),
            "cannot find executable \"/no/such\"",
        ),
    ];
    for (said, text) in rows {
        assert!(
            said["result"]["message"]
                .as_str()
                .is_some_and(|m| m.contains(text)),
            "{text}: {said}"
        );
        assert!(said["status-code"].as_u64().is_some_and(|code| code >= 400));
    }
    let short = ask(
        &world,
        "POST",
        "/v1/files",
        "multipart/form-data; boundary=short",
        "x",
    )
    .expect("it is up");
    assert!(
        short.0 == 400 && short.1.contains("invalid boundary"),
        "{short:?}"
    );
    assert!(world.container().layers.is_empty());
}

fn pebble_moods() {
    let world = world();
    let rows = [
        (Mood::Up, Some(200)),
        (Mood::Down, None),
        (Mood::Deaf, None),
        (Mood::Late, Some(504)),
        (Mood::Broken, Some(500)),
        (Mood::Up, Some(200)),
    ];
    for (mood, code) in rows {
        world.mood(mood);
        let there =
            std::path::Path::new("/charm/containers/windrow/pebble.socket").symlink_metadata();
        assert_eq!(
            ask(&world, "GET", "/v1/system-info", "", "").map(|(code, _)| code),
            code,
            "{mood:?} {there:?}"
        );
    }
    world.container().file_errors.insert(
        "/etc/windrow/".to_owned(),
        "no space left on device".to_owned(),
    );
    let full = push(&world, "/etc/windrow/windrow.yaml", "644", "text");
    assert_eq!(full["result"][0]["error"]["kind"], "generic-file-error");
    world.container().start_error = Some("exited quickly with code 1".to_owned());
    push(&world, "/opt/windrow/windrow", "755", "program");
    layer(&world, LAYER);
    let change = post(&world, "services", &json!({"action": "replan"}))["change"]
        .as_str()
        .expect("an id")
        .to_owned();
    let change = get(&world, &format!("changes/{change}/wait"));
    assert!(
        change["result"]["err"]
            .as_str()
            .is_some_and(|e| e.contains("exited quickly")),
        "{change}"
    );
    world.container().renew();
    assert!(world.container().layers.is_empty());
    assert_eq!(world.container().boot, 2);
}

fn exec() {
    use tungstenite::Message;
    let world = started();
    world.container().execs.push((
        "tables --output json".to_owned(),
        (1, "[]".to_owned(), "no".to_owned()),
    ));
    let command = json!({
        "command": ["/opt/windrow/windrow", "tables", "--output", "json"],
        "split-stderr": true,
    });
    let started = post(&world, "exec", &command);
    let (task, change) = (&started["result"]["task-id"], &started["change"]);
    let mut streams = Vec::new();
    for channel in ["control", "stdio", "stderr"] {
        let url = format!(
            "ws://pebble/v1/tasks/{}/websocket/{channel}",
            task.as_str().expect("an id")
        );
        let stream =
            UnixStream::connect("/charm/containers/windrow/pebble.socket").expect("it is up");
        streams.push(
            tungstenite::client::client(url, stream)
                .expect("a websocket")
                .0,
        );
    }
    for (stream, text) in [(1, "[]"), (2, "no")] {
        assert_eq!(
            streams[stream].read().expect("output"),
            Message::binary(text.as_bytes().to_vec())
        );
        assert_eq!(
            streams[stream].read().expect("its end"),
            Message::text(r#"{"command":"end"}"#)
        );
    }
    let change = get(
        &world,
        &format!("changes/{}/wait", change.as_str().expect("an id")),
    );
    assert_eq!(change["result"]["tasks"][0]["data"]["exit-code"], 1);
    let other = post(
        &world,
        "exec",
        &json!({"command": ["/opt/windrow/windrow", "rows"]}),
    );
    assert_eq!(other["status-code"], 500, "what nobody told it of");
}

fn workload() {
    let answers = Answers::from([(
        "GET /v1/status".to_owned(),
        (200, json!({"state": "counting"})),
    )]);
    for _ in 0..3 {
        let workload = Workload::new(answers.clone(), None);
        let mut stream = TcpStream::connect("127.0.0.1:8080").expect("it listens");
        stream
            .write_all(b"GET /v1/status HTTP/1.1\r\nConnection: close\r\n\r\n")
            .expect("it reads");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("text");
        assert!(text.ends_with("{\"state\":\"counting\"}"), "{text}");
        assert_eq!(
            *workload.requests.lock().expect("not poisoned"),
            ["GET /v1/status"]
        );
        drop(workload);
        assert!(TcpStream::connect("127.0.0.1:8080").is_err());
    }
}

fn quick() {
    let mut world = world();
    world.integrate("kafka-client", Provider::kafka_3());
    let line = "is-leader --format=json >/dev/null\n\
                relation-get -r 0 --app - kafka-k8s --format=json >/dev/null\n";
    world.script(&line.repeat(6));
    let least = (0..5)
        .map(|_| world.hook("update-status").good().took)
        .min()
        .expect("five");
    println!("twelve hook commands: {} ms", least.as_millis());
    assert!(least.as_millis() < 500, "{least:?}");
}
