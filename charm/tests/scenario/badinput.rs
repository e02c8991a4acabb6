//! What other charms and people may write, by mistake or on purpose. No hook fails because of it,
//! no text harms what runs, and the status says where the text came from.

use crate::golden;
use crate::pebble::Mood;
use crate::provider::{Provider, pem};
use crate::usecase::{counting, counting_with, counting_with_tls};
use crate::world::World;
use libtest_mimic::Trial;
use serde_json::{Value, json};

pub fn trials() -> Vec<Trial> {
    let tests: [(&str, fn()); 6] = [
        ("databags_with_odd_values", databags),
        ("secrets_that_cannot_be_read", secrets),
        ("certificates_that_are_none", certificates),
        ("lokis_that_are_none", lokis),
        ("options_that_are_not_allowed", options),
        ("a_container_that_fails", containers),
    ];
    crate::named("badinput", &tests)
}

/// Values that are right for no option and no field.
fn odd() -> Vec<(&'static str, String)> {
    vec![
        ("empty", String::new()),
        ("blank", "   ".to_owned()),
        ("no JSON", "{\"a\":".to_owned()),
        ("a list", "[]".to_owned()),
        ("lines", "a\nb: c\n- d".to_owned()),
        ("YAML", "a\": [*x, &y, !!python/object z], '#".to_owned()),
        (
            "a shell's",
            "$(reboot) `reboot`; reboot | reboot".to_owned(),
        ),
        ("controls", "a\u{1b}[31mb\u{7}".to_owned()),
        ("directions", "a\u{202e}b\u{200b}c".to_owned()),
        ("a path", "../../etc/passwd".to_owned()),
        ("a format's", "%s%n{0}{}".to_owned()),
        ("long", "x".repeat(100_000)),
    ]
}

/// Compares with a golden file.
fn check(name: &str, what: &str, told: &str) {
    golden::check(name, what, told).unwrap_or_else(|e| panic!("{e}"));
}

/// The fields of databags that get odd values.
const ODD_FIELDS: [(&str, &[&str]); 3] = [
    (
        "kafka-client",
        &[
            "endpoints",
            "topic",
            "tls",
            "consumer-group-prefix",
            "secret-user",
            "zookeeper-uris",
        ],
    ),
    (
        "s3-credentials",
        &[
            "endpoint",
            "bucket",
            "access-key",
            "secret-key",
            "region",
            "s3-uri-style",
            "tls-ca-chain",
        ],
    ),
    (
        "metastore-db",
        &[
            "endpoints",
            "database",
            "secret-user",
            "secret-tls",
            "version",
            "read-only-endpoints",
        ],
    ),
];

fn databags() {
    let (mut world, ids) = counting();
    let before = world.container().tell();
    let mut told = String::new();
    for (at, (endpoint, keys)) in ODD_FIELDS.into_iter().enumerate() {
        for key in keys {
            told += &format!("{endpoint} {key}\n");
            // A CA counts only where TLS is spoken.
            let is_ca = *key == "tls-ca-chain";
            if is_ca {
                set_remote(&mut world, ids[at], "endpoint", "https://s3.example.com");
                world.relation_event(ids[at], "changed").good();
            }
            let was = world.juju().relations[&ids[at]]
                .remote
                .get(*key)
                .cloned()
                .unwrap_or_default();
            for (what, value) in odd() {
                set_remote(&mut world, ids[at], key, &value);
                let run = world.relation_event(ids[at], "changed").good();
                told += &format!("  {what}: {}\n", run.brief());
                harmless(&world);
                set_remote(&mut world, ids[at], key, &was);
                if world.container().tell() != before && !is_ca {
                    world.relation_event(ids[at], "changed").good();
                }
            }
            if is_ca {
                set_remote(&mut world, ids[at], "endpoint", "http://10.152.183.128:80");
                world.relation_event(ids[at], "changed").good();
            }
        }
    }
    told += &odd_endpoints(&mut world, &ids);
    check(
        "bad-databags",
        "Odd values in the databags of a unit that counts",
        &told,
    );
}

/// Sets a field of a provider's databag. This is not `write`, because it is not a credential.
fn set_remote(world: &mut World, relation: u32, key: &str, value: &str) {
    let mut juju = world.juju();
    let remote = &mut juju.relations.get_mut(&relation).expect("there").remote;
    remote.insert(key.to_owned(), value.to_owned());
    if value.is_empty() {
        remote.remove(key);
    }
}

/// Odd values of the field `endpoints`, of Kafka and of the metastore.
fn odd_endpoints(world: &mut World, ids: &[u32; 3]) -> String {
    let mut told = String::new();
    for (what, value) in [
        ("no port", "kafka-k8s-0.kafka-k8s-endpoints"),
        ("port 0", "kafka:0"),
        ("a port too great", "kafka:70000"),
        ("a URL", "http://kafka:9092/"),
        ("a user", "user@kafka:9092"),
        ("one of two", "kafka:9092,kafka"),
        ("commas", ",,,"),
        ("blanks", " kafka:9092 , other:9092 "),
        ("IPv6", "[2001:db8::1]:9092"),
        ("many", &"kafka:9092,".repeat(500)),
    ] {
        for at in [0, 2] {
            let was = world.juju().relations[&ids[at]].remote["endpoints"].clone();
            world.write(ids[at], "endpoints", value);
            let run = world.relation_event(ids[at], "changed").good();
            told += &format!(
                "{} endpoints, {what}: {}\n",
                run.event.replace("-relation-changed", ""),
                run.brief()
            );
            harmless(world);
            world.write(ids[at], "endpoints", &was);
        }
    }
    told
}

/// The workload's files are YAML and say what they should, whatever others have written.
fn harmless(world: &World) {
    let container = world.container();
    for file in ["/etc/windrow/windrow.yaml", "/etc/windrow/secrets.yaml"] {
        if let Some(text) = container.file(file) {
            let value: Value =
                serde_yaml::from_str(text).unwrap_or_else(|e| panic!("{file}: {e}: {text}"));
            assert!(value.is_object(), "{text}");
        }
    }
    let (config, secrets) = (
        container.file("/etc/windrow/windrow.yaml"),
        container.file("/etc/windrow/secrets.yaml"),
    );
    if let (Some(config), Some(secrets), true) =
        (config, secrets, container.services["windrow"].active)
    {
        let config: Value = serde_yaml::from_str(config).expect("seen above");
        assert_eq!(config["http"], "0.0.0.0:8080");
        assert_eq!(config["secrets-file"], "/etc/windrow/secrets.yaml");
        assert!(
            secrets
                .lines()
                .all(|line| line.starts_with('#') || line.contains(": ")),
            "lines of secrets"
        );
    }
    drop(container);
    let status = world.juju().unit_status.1.clone();
    assert!(
        status.chars().count() <= 250 && !status.contains('\n'),
        "{status}"
    );
}

/// Odd values of fields in secrets.
const ODD_SECRETS: [(&str, &str, &str); 7] = [
    ("an empty password", "password", ""),
    ("an empty key", "secret-key", ""),
    (
        "a password of lines",
        "password",
        "first-line\nsecond: line",
    ),
    ("a key of lines", "secret-key", "first-line\nsecond: line"),
    (
        "a password of quotes",
        "password",
        "it's \"quoted\" # : {} \\ $x",
    ),
    (
        "a key of quotes",
        "secret-key",
        "it's \"quoted\" # : {} \\ $x",
    ),
    ("a name of odd characters", "username", "a\u{1b}[31m: b"),
];

fn secrets() {
    let mut told = String::new();
    let providers = [
        Provider::kafka_3(),
        Provider::s3_2(),
        Provider::postgresql_16(),
    ];
    let groups = ["secret-user", "secret-extra", "secret-user"];
    for at in 0..3 {
        let (mut world, ids) = counting_with(providers.clone());
        let (id, group) = (ids[at], groups[at]);
        told += &format!("{}\n", world.juju().relations[&id].endpoint);
        let mut tell = |what: &str, world: &mut World| {
            let run = world.hook("update-status").good();
            told += &format!("  {what}: {}\n", run.brief());
            harmless(world);
        };
        world.with_secret(id, group, |s| s.granted = false);
        tell("not granted", &mut world);
        world.with_secret(id, group, |s| s.granted = true);
        tell("granted again", &mut world);
        for text in [
            "cannot talk to the controller",
            "getting secret backend config: model \"x\" not found",
            "secret \"x\" not found",
            "rpc: connection is shut down",
            "",
        ] {
            world
                .juju()
                .faults
                .insert("secret-get".to_owned(), (1, text.to_owned()));
            tell(&format!("secret-get says {text:?}"), &mut world);
            world.juju().faults.clear();
        }
        tell("Juju is well again", &mut world);
        for (what, field, value) in ODD_SECRETS {
            let fits = world.with_secret(id, group, |s| {
                s.revisions[0]
                    .as_ref()
                    .is_some_and(|r| r.contains_key(field))
            });
            if fits {
                world.rotate(id, group, &[(field, value)]);
                tell(what, &mut world);
            }
        }
        world.rotate(
            id,
            group,
            &[
                ("password", "good-password"),
                ("secret-key", "good-secret-key"),
                ("username", "name"),
            ],
        );
        tell("good again", &mut world);
        world.with_secret(id, group, |s| *s.revisions.last_mut().expect("many") = None);
        tell("the latest revision is removed", &mut world);
        let secret = world.juju().relations[&id].secrets[group].clone();
        world.juju().secrets.remove(&secret);
        tell("removed", &mut world);
    }
    check(
        "bad-secrets",
        "Secrets that cannot be read, and what may be in them",
        &told,
    );
}

fn certificates() {
    let mut told = String::new();
    let (mut world, _) = counting_with_tls();
    let ca = world.relate("receive-ca-cert", Provider::certificates_1());
    world.hook("update-status").good();
    for (what, value) in odd() {
        world.write(ca, "certificates", &value);
        let run = world.relation_event(ca, "changed").good();
        told += &format!("{what}: {}\n", run.brief());
        world.write(ca, "certificates", &json!([value]).to_string());
        let run = world.relation_event(ca, "changed").good();
        told += &format!("{what}, in a list: {}\n", run.brief());
        assert!(world.container().services["windrow"].active, "{what}");
    }
    let key = "-----BEGIN PRIVATE KEY-----\naGlkZGVuIGtleQ==\n-----END PRIVATE KEY-----\n";
    world.hidden.insert("aGlkZGVuIGtleQ==".to_owned());
    world.write(ca, "certificates", &json!([key]).to_string());
    told += &format!(
        "a private key: {}\n",
        world.relation_event(ca, "changed").good().brief()
    );
    check(
        "bad-certificates",
        "receive-ca-cert with what is no certificate",
        &told,
    );
}

fn lokis() {
    let mut told = String::new();
    let (mut world, _) = counting();
    let loki = world.relate("logging", Provider::loki().units(1));
    world.hook("update-status").good();
    let mut all = odd();
    for url in [
        "",
        "no URL",
        "ftp://loki/",
        "http://",
        "http://loki:3100/ x",
        "http://user:loki-password@loki/push",
    ] {
        all.push(("a URL", json!({"url": url}).to_string()));
    }
    all.push(("a number", json!({"url": 7}).to_string()));
    for (what, value) in all {
        let bag = |world: &mut World| {
            let mut juju = world.juju();
            let units = &mut juju.relations.get_mut(&loki).expect("there").units;
            units
                .get_mut("loki/0")
                .expect("there")
                .insert("endpoint".to_owned(), value.clone());
        };
        bag(&mut world);
        let run = world.unit_event(loki, "changed", "loki/0").good();
        let shown: String = value.chars().take(60).collect();
        told += &format!("{what} {shown:?}: {}\n", run.brief());
        assert!(world.container().services["windrow"].active, "{what}");
    }
    check("bad-lokis", "logging with what is no Loki", &told);
}

fn options() {
    let mut told = String::new();
    let (mut world, _) = counting();
    let before = world.container().tell();
    let mut failed: Vec<String> = Vec::new();
    let names: Vec<(String, String)> = world
        .juju()
        .charm
        .options
        .iter()
        .map(|(name, (kind, _))| (name.clone(), kind.clone()))
        .collect();
    for (name, kind) in names {
        told += &format!("{name}\n");
        let values: Vec<(&str, Value)> = match kind.as_str() {
            "string" => {
                let mut all = odd();
                if name.ends_with("-ca") {
                    all.push((
                        "a bundle of certificates",
                        (0..100).map(|n| pem(&n.to_string()) + "\n").collect(),
                    ));
                }
                all.into_iter()
                    .map(|(what, value)| (what, json!(value)))
                    .collect()
            }
            "int" => vec![
                ("below", json!(-1)),
                ("zero", json!(0)),
                ("great", json!(i64::MAX)),
            ],
            "boolean" => vec![],
            "secret" => {
                vec![
                    ("empty", json!("")),
                    ("blank", json!(" ")),
                    ("no secret there is", json!("secret:d0000000000000000000")),
                    ("no URI", json!("token")),
                ]
            }
            other => panic!("no test for options of type {other}"),
        };
        for (what, value) in values {
            world.set(&name, value);
            let run = world.hook("config-changed");
            failed.extend(
                run.error
                    .as_ref()
                    .map(|_| format!("{name}, {what}: {}", run.brief())),
            );
            told += &format!("  {what}: {}\n", run.brief());
            harmless(&world);
            world.juju().config.clear();
            if world.container().tell() != before {
                world.hook("config-changed").good();
            }
        }
    }
    assert_eq!(world.container().tell(), before);
    assert!(failed.is_empty(), "hooks failed:\n{}", failed.join("\n"));
    check(
        "bad-options",
        "Odd values of each option, on a unit that counts",
        &told,
    );
}

/// Runs the hook `windrow-pebble-ready` and tells its result on a line.
fn tell_start(told: &mut String, what: &str, world: &mut World) {
    let run = world.pebble_ready().good();
    *told += &format!("{what}: {}\n", run.brief());
}

fn containers() {
    let mut told = String::new();
    full_disks(&mut told);
    let mut world = failing_starts(&mut told);
    foreign_contents(&mut told, &mut world);
    check(
        "bad-containers",
        "A container that fails, on a unit that has counted",
        &told,
    );
}

fn full_disks(told: &mut String) {
    for (what, path, error) in [
        (
            "a full disk for the binary",
            "/opt/windrow/",
            "no space left on device",
        ),
        (
            "a full disk for the settings",
            "/etc/windrow/windrow.yaml",
            "no space left on device",
        ),
        (
            "a full disk for the secrets",
            "/etc/windrow/secrets.yaml",
            "no space left on device",
        ),
        ("a disk that is read-only", "/", "read-only file system"),
    ] {
        let (mut world, _) = counting();
        world.container().renew();
        world
            .container()
            .file_errors
            .insert(path.to_owned(), error.to_owned());
        tell_start(told, what, &mut world);
        assert!(!world.container().services.values().any(|s| s.active));
        world.container().file_errors.clear();
        tell_start(told, "  there is room again", &mut world);
        assert!(world.container().services["windrow"].active);
    }
}

/// A service that does not start, a Pebble in each mood, and no room for a newer program.
fn failing_starts(told: &mut String) -> World {
    let (mut world, _) = counting();
    world.container().renew();
    world.container().start_error = Some("exited quickly with code 1".to_owned());
    tell_start(told, "it does not start", &mut world);
    tell_start(told, "  and again", &mut world);
    world.container().start_error = None;
    tell_start(told, "  it does", &mut world);
    for mood in [Mood::Down, Mood::Deaf, Mood::Late, Mood::Broken, Mood::Up] {
        world.mood(mood);
        tell_start(told, &format!("Pebble {mood:?}"), &mut world);
    }
    world.refresh(b"\x7fELF a newer workload\0");
    world.container().file_errors.insert(
        "/opt/windrow/".to_owned(),
        "no space left on device".to_owned(),
    );
    world.container().said.push("an ordinary line".to_owned());
    tell_start(
        told,
        "no room for a newer binary, while the older one runs",
        &mut world,
    );
    assert!(world.container().services["windrow"].active);
    world.container().file_errors.clear();
    tell_start(told, "  there is room again", &mut world);
    world
}

/// A container in which others have changed something.
fn foreign_contents(told: &mut String, world: &mut World) {
    // Something else has put a layer and files there.
    let other = json!({"override": "replace", "command": "/bin/other", "startup": "disabled"});
    let foreign = json!({"services": {"other": other}});
    world
        .container()
        .layers
        .insert(0, ("other".to_owned(), foreign));
    tell_start(told, "another layer", world);
    let old = crate::pebble::File {
        bytes: b"old".to_vec(),
        mode: "755".to_owned(),
        uid: 0,
        gid: 0,
        folder: false,
    };
    world
        .container()
        .files
        .insert("/opt/windrow/windrow-0000000000000000".to_owned(), old);
    tell_start(told, "a binary of before", world);
    let name = world
        .container()
        .files
        .keys()
        .find(|p| p.starts_with("/opt/windrow/windrow-"))
        .cloned()
        .expect("one");
    world
        .container()
        .files
        .get_mut(&name)
        .expect("there")
        .bytes
        .truncate(3);
    tell_start(told, "half a binary", world);
    world
        .container()
        .files
        .get_mut("/etc/windrow/windrow.yaml")
        .expect("there")
        .bytes = vec![0xff, 0xfe];
    tell_start(told, "settings that are no text", world);
}
