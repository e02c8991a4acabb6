//! One thing that is bad and not needed takes nothing else with it: what runs goes on as it is,
//! passwords reach it, and the status names what was left out.

use crate::pebble::{File, Mood};
use crate::provider::{Provider, pem};
use crate::usecase::{counting, counting_with, counting_with_tls};
use crate::world::{Run, World};
use libtest_mimic::Trial;
use serde_json::json;

pub fn trials() -> Vec<Trial> {
    let tests: [(&str, fn()); 12] = [
        ("a_certificate_that_is_none_restarts_nothing", certificates),
        ("a_bad_ca_of_one_provider_holds_back_no_password", bad_ca),
        ("more_certificates_than_fit_hold_nothing_up", many),
        ("files_that_cannot_be_read_back_hold_nothing_up", unreadable),
        ("a_refused_request_is_not_a_missing_pebble", refused),
        ("a_token_with_a_line_end_is_a_token", line_end),
        ("a_token_that_is_none_holds_back_no_password", bad_token),
        ("a_proxy_that_is_none_holds_back_no_password", bad_proxy),
        (
            "a_ca_for_a_server_without_tls_starts_nothing",
            ca_without_tls,
        ),
        ("a_warehouse_that_goes_with_the_pod_is_refused", warehouse),
        ("an_action_that_fails_leaves_the_units_status", action),
        ("settings_are_roots_and_the_program_never_is", users),
    ];
    crate::named("onebad", &tests)
}

/// Nothing was restarted by this run.
fn runs_on(run: &Run) {
    let did = run.did();
    assert!(
        !did.contains("replan") && !did.contains("layer"),
        "{}",
        run.tell()
    );
}

/// Kafka's charm changes the password, and windrow is told.
fn password_arrives(world: &mut World, kafka: u32, password: &str) -> Run {
    world.rotate(kafka, "secret-user", &[("password", password)]);
    let run = world.hook("update-status").good();
    runs_on(&run);
    assert!(
        world
            .container()
            .file("/etc/windrow/secrets.yaml")
            .is_some_and(|text| text.contains(password)),
        "{}",
        run.tell()
    );
    run
}

fn says(run: &Run, begin: &str) {
    assert!(run.status.starts_with(begin), "{}", run.status);
}

fn certificates() {
    let good: Vec<String> = (0..40).map(|n| pem(&format!("ca {n}"))).collect();
    // The frame of a certificate with nothing in it, one that is cut off, and one with a key.
    let frame = "-----BEGIN CERTIFICATE-----\nMAQwAgUA\n-----END CERTIFICATE-----";
    let cut = &good[0][..200];
    let key = "-----BEGIN PRIVATE KEY-----\naGlkZGVuIGtleQ==\n-----END PRIVATE KEY-----\n";
    for bad in [frame, cut, key] {
        let (mut world, _) = counting_with_tls();
        let ca = world.relate("receive-ca-cert", Provider::certificates_1());
        let tell = |world: &mut World, list: &[String]| {
            world.write(ca, "certificates", &json!(list).to_string());
            world.relation_event(ca, "changed").good()
        };
        tell(&mut world, &good);
        let before = world.container().tell();
        let mut with = good.clone();
        with.insert(7, bad.to_owned());
        let mut turned = good.clone();
        turned.reverse();
        turned.push(good[3].clone());
        let text = format!("{}\n{bad}\n{}", good[1], good[2]);
        for list in [with, vec![bad.to_owned()], vec![text]] {
            let run = tell(&mut world, &list);
            runs_on(&run);
            says(&run, "blocked \"receive-ca-cert: certificates of ");
        }
        let run = tell(&mut world, &turned);
        says(&run, "active ");
        assert_eq!(world.container().tell(), before, "{}", run.tell());
    }
}

fn bad_ca() {
    let (mut world, ids) = counting_with([
        Provider::kafka_3(),
        Provider::s3_2(),
        Provider::postgresql_16(),
    ]);
    world.rotate(ids[2], "secret-tls", &[("tls-ca", "-----BEGIN nothing")]);
    let run = password_arrives(&mut world, ids[0], "second-password");
    says(
        &run,
        "blocked \"metastore-db: a CA certificate that it gives is left out",
    );
    // A container that starts anew gets all the rest.
    world.container().renew();
    world.pebble_ready().good();
    assert!(world.container().services["windrow"].active);
}

fn many() {
    let (mut world, ids) = counting_with_tls();
    let list: Vec<String> = (0..1200).map(|n| pem(&format!("ca {n}"))).collect();
    let ca = world.relate("receive-ca-cert", Provider::certificates_1());
    world.write(ca, "certificates", &json!(list).to_string());
    let run = world.relation_event(ca, "changed").good();
    assert!(world.container().services["windrow"].active);
    assert!(run.did().contains("replan"), "{}", run.did());
    let run = world.hook("update-status").good();
    assert_eq!(run.did(), "", "{}", run.tell());
    assert!(run.status.contains("more than 256 KiB"), "{}", run.status);
    password_arrives(&mut world, ids[0], "second-password");
}

fn unreadable() {
    let (mut world, ids) = counting();
    let long = File {
        bytes: vec![b'x'; 3 << 20],
        ..File::folder()
    };
    let long = File {
        folder: false,
        ..long
    };
    world
        .container()
        .files
        .insert("/etc/windrow/s3-ca.pem".to_owned(), long);
    let run = password_arrives(&mut world, ids[0], "second-password");
    says(&run, "active ");
    let run = password_arrives(&mut world, ids[0], "third-password");
    assert!(!run.did().contains("remove"), "it is gone: {}", run.did());
}

fn refused() {
    let (mut world, _) = counting();
    world.mood(Mood::Forbidden);
    let run = world.hook("update-status").good();
    says(
        &run,
        "blocked \"cannot set up container windrow: cannot read plan: access denied",
    );
    assert!(
        run.status.contains("juju debug-log --include windrow/0"),
        "{}",
        run.status
    );
    // All that needs no container goes on.
    let metrics = world.relate("metrics-endpoint", Provider::prometheus());
    assert!(
        world.juju().relations[&metrics]
            .ours_app
            .contains_key("scrape_jobs")
    );
    for (mood, begin) in [
        (Mood::Down, "waiting \"waiting for Pebble"),
        (
            Mood::Late,
            "waiting \"Pebble in container windrow does not answer in time",
        ),
        (
            Mood::Broken,
            "waiting \"Pebble in container windrow is not well",
        ),
        (Mood::Up, "active "),
    ] {
        world.mood(mood);
        says(&world.hook("update-status").good(), begin);
    }
}

/// A unit with a token that `juju add-secret token#file=FILE` has made of this text.
fn with_token(token: &str) -> (World, [u32; 3], Run) {
    let (mut world, ids) = counting();
    let uri = world.user_secret(&[("token", token)]);
    world.set("api-token", uri);
    let run = world.hook("config-changed").good();
    (world, ids, run)
}

fn line_end() {
    for end in ["\n", "\r\n"] {
        let (world, _, run) = with_token(&format!("the-token-of-a-user{end}"));
        says(&run, "active ");
        assert!(
            world
                .container()
                .file("/etc/windrow/secrets.yaml")
                .is_some_and(|text| text.contains("api-token: the-token-of-a-user\n"))
        );
    }
}

fn bad_token() {
    for token in [
        "two words of a user",
        "one-token\nand-another",
        "t\u{f6}ken-of-a-user",
    ] {
        let (mut world, ids, run) = with_token(token);
        says(
            &run,
            "blocked \"option api-token: the secret cannot be used and is left out",
        );
        assert!(run.status.contains("juju update-secret"), "{}", run.status);
        password_arrives(&mut world, ids[0], "second-password");
        assert!(
            world
                .container()
                .file("/etc/windrow/secrets.yaml")
                .is_some_and(|text| !text.contains("api-token"))
        );
    }
}

fn bad_proxy() {
    let (mut world, ids) = counting();
    world.hidden.insert("proxy-password".to_owned());
    world.environment.insert(
        "JUJU_CHARM_HTTP_PROXY".to_owned(),
        "ftp://u:proxy-password@10.0.0.1:3128".to_owned(),
    );
    let run = password_arrives(&mut world, ids[0], "second-password");
    says(
        &run,
        "blocked \"the model's juju-http-proxy cannot be used and is left out",
    );
    world.environment.clear();
    says(&world.hook("config-changed").good(), "active ");
}

fn ca_without_tls() {
    // What runs goes on, and a new unit does not begin.
    let (mut world, ids) = counting();
    world.set("metastore-ca", pem("postgresql"));
    let run = world.hook("config-changed").good();
    says(
        &run,
        "blocked \"option metastore-ca is set, and metastore speaks no TLS",
    );
    password_arrives(&mut world, ids[0], "second-password");
    world.container().renew();
    world.pebble_ready().good();
    assert!(world.container().services.is_empty());
    world.set("metastore-ca", "");
    world.hook("config-changed").good();
    assert!(world.container().services["windrow"].active);
}

fn warehouse() {
    let (mut world, ids) = counting();
    for (warehouse, begin) in [
        (
            "/var/lib/windrow",
            "blocked \"option warehouse \\\"/var/lib/windrow\\\": the table's",
        ),
        (
            "s3a://other/warehouse",
            "blocked \"option warehouse: bucket \\\"other\\\" is not",
        ),
        ("s3a://logs.2024/warehouse", "blocked \"option warehouse"),
    ] {
        world.set("warehouse", warehouse);
        let run = world.hook("config-changed").good();
        runs_on(&run);
        says(&run, begin);
    }
    world.set("warehouse", "s3a://spark/warehouse");
    let run = world.hook("config-changed").good();
    assert!(run.did().contains("replan"), "{}", run.tell());
    password_arrives(&mut world, ids[0], "second-password");
}

fn action() {
    let (mut world, _) = counting();
    let before = world.juju().unit_status.clone();
    for (command, action) in [
        ("action-get", "get-lag"),
        ("action-set", "get-table-status"),
        ("config-get", "pause"),
    ] {
        let fault = (1, "cannot talk to the controller".to_owned());
        world.juju().faults.insert(command.to_owned(), fault);
        let run = world.action(action, &json!({}));
        let done = run.action.as_ref().expect("an action");
        assert_eq!(done.status, "failed", "{command}: {}", run.tell());
        assert!(
            done.message.contains("cannot talk to the controller"),
            "{command}: {}",
            done.message
        );
        assert_eq!(world.juju().unit_status, before, "{command}");
        world.juju().faults.clear();
    }
}

fn users() {
    let (mut world, _) = counting_with([
        Provider::kafka_4(),
        Provider::s3_2(),
        Provider::postgresql_16(),
    ]);
    {
        let container = world.container();
        let ours = |path: &&String| path.starts_with("/etc/windrow") || path.starts_with("/opt/");
        assert!(container.files.keys().filter(ours).count() > 5);
        for (path, file) in &container.files {
            let is_secret = path == "/etc/windrow/secrets.yaml";
            let owner = if is_secret { 584_792 } else { 0 };
            assert_eq!((file.uid, file.gid), (owner, owner), "{path}");
            assert!(!is_secret || file.mode == "600");
        }
        let plan = container.plan();
        assert_eq!(plan["services"]["windrow"]["user-id"], 584_792);
        assert_eq!(plan["services"]["windrow"]["group-id"], 584_792);
    }
    // Windrow does not answer, so an action asks its program.
    let done = (0, "{}".to_owned(), String::new());
    world.container().execs.push((" status".to_owned(), done));
    world.workload.clear();
    let run = world.action("get-table-status", &json!({})).good();
    let exec = run.pebble.iter().find(|line| line.contains("/v1/exec"));
    let exec = exec.expect("the program is asked");
    assert!(
        exec.contains("\"user-id\":584792") && exec.contains("\"group-id\":584792"),
        "{exec}"
    );
}
