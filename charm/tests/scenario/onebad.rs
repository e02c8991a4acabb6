//! One thing that is bad and not needed takes nothing else with it: what runs goes on as it is,
//! passwords reach it, and the status names what was left out.

use crate::pebble::{File, Mood};
use crate::provider::{Provider, pem};
use crate::usecase::{
    answers, counting, counting_with, counting_with_tls, counts, says as windrow_says,
};
use crate::world::{MODEL, Run, World};
use libtest_mimic::Trial;
use serde_json::json;
use windrow_core::shown::status::State;
use windrow_core::values::cause::Cause;

pub fn trials() -> Vec<Trial> {
    let tests: [(&str, fn()); 23] = [
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
        ("a_key_with_a_line_end_is_a_key", key_line_end),
        (
            "an_endpoint_that_is_not_ready_holds_back_no_other_password",
            other_endpoints,
        ),
        (
            "a_hint_does_not_hide_that_windrow_has_stopped",
            hints_and_stops,
        ),
        (
            "a_kept_request_does_not_hide_that_windrow_has_stopped",
            kept_request,
        ),
        ("a_token_that_cannot_be_read_stays_in_force", unread_token),
        ("an_action_brings_the_token_in_force", token_of_action),
        (
            "an_optional_endpoint_that_cannot_be_read_stays_as_it_was",
            unread_endpoint,
        ),
        ("a_bad_cluster_domain_is_not_told_to_prometheus", bad_domain),
        ("a_proxy_that_is_not_used_blocks_nothing", unused_proxy),
        (
            "a_standby_answers_from_the_catalog_and_not_with_zeros",
            standby,
        ),
        ("the_last_words_of_an_ended_windrow_are_its_status", ended),
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
        assert_eq!(
            run.status,
            "blocked \"option api-token: the secret cannot be used and is left out: it goes into \
             an HTTP header; write letters, digits and signs without blanks; run: juju \
             update-secret NAME token=TOKEN\""
        );
        // Windrow answers without a token, so an action works without one.
        let run = world.action("get-table-status", &json!({})).good();
        let done = run.action.as_ref().expect("an action");
        assert_eq!(done.status, "completed", "{}", run.tell());
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
    assert_eq!(
        run.status,
        "blocked \"the model's juju-http-proxy cannot be used and is left out: not the address of \
         a proxy; write http://HOST:PORT or http://USER:PASSWORD@HOST:PORT, with signs in the \
         password as %40; run: juju model-config juju-http-proxy=VALUE\""
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
    // The same where the option `warehouse` is set, and names the right bucket.
    counts(&mut world);
    world.set("warehouse", "s3a://spark/warehouse");
    world.hook("config-changed").good();
    world.set("kafka-ca", pem("kafka"));
    let run = world.hook("config-changed").good();
    says(
        &run,
        "blocked \"option kafka-ca is set, and kafka-k8s speaks",
    );
    password_arrives(&mut world, ids[0], "third-password");
}

fn key_line_end() {
    for end in ["\n", "\r\n"] {
        let (mut world, ids) = counting_with([
            Provider::kafka_3(),
            Provider::s3_2(),
            Provider::postgresql_14(),
        ]);
        let keys = [
            ("access-key", format!("new-access-key{end}")),
            ("secret-key", format!("new-secret-key{end}")),
        ];
        let keys = [(keys[0].0, &*keys[0].1), (keys[1].0, &*keys[1].1)];
        world.rotate(ids[1], "secret-extra", &keys);
        let run = world.hook("update-status").good();
        says(&run, "active ");
        runs_on(&run);
        let container = world.container();
        let text = container.file("/etc/windrow/secrets.yaml").expect("a file");
        for line in [
            "s3-access-key: new-access-key\n",
            "s3-secret-key: new-secret-key\n",
        ] {
            assert!(text.contains(line), "{}", run.tell());
        }
    }
}

/// A unit whose S3 has a secret of its own.
fn with_s3_secret() -> (World, [u32; 3]) {
    counting_with([
        Provider::kafka_3(),
        Provider::s3_2(),
        Provider::postgresql_14(),
    ])
}

fn other_endpoints() {
    let (mut world, ids) = with_s3_secret();
    let before = world
        .container()
        .file("/etc/windrow/windrow.yaml")
        .map(str::to_owned);
    world.with_secret(ids[1], "secret-extra", |secret| secret.granted = false);
    let waits = "waiting \"s3-credentials: the secret cannot be read yet: permission denied";
    says(
        &password_arrives(&mut world, ids[0], "second-password"),
        waits,
    );
    says(
        &password_arrives(&mut world, ids[2], "third-password"),
        waits,
    );
    world.with_secret(ids[1], "secret-extra", |secret| secret.granted = true);
    says(&world.hook("update-status").good(), "active ");
    for (at, key, bad, begin) in [
        (
            1,
            "region",
            "../../etc/passwd",
            "blocked \"s3-credentials: ",
        ),
        (1, "endpoint", "minio", "blocked \"s3-credentials: "),
        (0, "topic", "[]", "blocked \"kafka-client: "),
        (2, "endpoints", "h", "blocked \"metastore-db: "),
    ] {
        let was = world.juju().relations[&ids[at]].remote[key].clone();
        world.write(ids[at], key, bad);
        // What a databag holds is read as a whole, with its password.
        for (of, id) in ids
            .into_iter()
            .enumerate()
            .filter(|(of, _)| ![1, at].contains(of))
        {
            let password = format!("password-{of}-and-{key}");
            says(&password_arrives(&mut world, id, &password), begin);
        }
        world.write(ids[at], key, &was);
        says(&world.hook("update-status").good(), "active ");
    }
    // One bad login holds back no other either.
    world.rotate(ids[1], "secret-extra", &[("access-key", "a key of words")]);
    let run = password_arrives(&mut world, ids[0], "fourth-password");
    says(
        &run,
        "blocked \"s3-credentials: s3-integrator gives an access-key that cannot be used: it goes",
    );
    let container = world.container();
    let secrets = container.file("/etc/windrow/secrets.yaml").expect("a file");
    assert!(
        secrets.contains("s3-access-key: s3-access-key-"),
        "the one before"
    );
    let after = container
        .file("/etc/windrow/windrow.yaml")
        .map(str::to_owned);
    assert_eq!(before, after, "nothing but logins has changed");
}

fn hints_and_stops() {
    let (mut world, _, run) = with_token("two words of a user");
    says(&run, "blocked \"option api-token: ");
    let lost = "offset 17 of clicks/0 is gone";
    let shows = |world: &mut World, state, cause, begin: &str| {
        answers(world, windrow_says(state, Some(cause), lost, ""));
        says(&world.hook("update-status").good(), begin);
    };
    let data_loss = (State::Failed, Cause::DataLoss);
    let login = (State::Waiting, Cause::LoginKafka);
    shows(
        &mut world,
        data_loss.0,
        data_loss.1,
        "blocked \"kafka-client: records are gone",
    );
    shows(
        &mut world,
        login.0,
        login.1,
        "waiting \"kafka-client: the login was refused",
    );
    // Whoever sets a bad option sees that, and that windrow has stopped.
    world.set("on-data-loss", "contineu");
    answers(
        &mut world,
        windrow_says(data_loss.0, Some(data_loss.1), lost, ""),
    );
    let run = world.hook("config-changed").good();
    says(&run, "blocked \"option on-data-loss \\\"contineu\\\": ");
    assert!(
        run.status
            .contains("; also: kafka-client: records are gone"),
        "{}",
        run.status
    );
    world.set("on-data-loss", "stop");
    counts(&mut world);
    says(
        &world.hook("config-changed").good(),
        "blocked \"option api-token: ",
    );
    // A secret that is awaited does not hide it either.
    let (mut world, ids) = with_s3_secret();
    world.with_secret(ids[1], "secret-extra", |secret| secret.granted = false);
    shows(
        &mut world,
        data_loss.0,
        data_loss.1,
        "blocked \"kafka-client: records are gone",
    );
}

/// A request that cannot be changed is told beside a windrow that has stopped, and is none of
/// console mode's business.
fn kept_request() {
    let (mut world, _) = counting();
    world.set("topic-name", "clicks");
    for (state, cause, both) in [
        (
            State::Failed,
            Cause::DataLoss,
            "kafka-client: records are gone",
        ),
        (
            State::Waiting,
            Cause::LoginKafka,
            "kafka-client: the login was refused",
        ),
    ] {
        answers(
            &mut world,
            windrow_says(state, Some(cause), "offset 17", ""),
        );
        let run = world.hook("config-changed").good();
        says(&run, &format!("blocked \"{both}"));
        let also = "; also: option topic-name: the relation on kafka-client was made with";
        assert!(run.status.contains(also), "{}", run.status);
    }
    world.set("topic-name", "test-topic");
    world.set("bucket", "other");
    counts(&mut world);
    let run = world.hook("config-changed").good();
    says(
        &run,
        "blocked \"option bucket: the relation on s3-credentials",
    );
    world.set("table-name", "");
    world.hook("config-changed").good();
    let mut console = windrow_says(State::Counting, None, "", "");
    console["table"] = json!("");
    answers(&mut world, console);
    says(
        &world.hook("update-status").good(),
        "active \"printing windows",
    );
}

fn unread_token() {
    let (mut world, ids, _) = with_token("the-token-of-a-user");
    let uri = world.juju().config["api-token"].clone();
    let id = uri.as_str().expect("a URI")["secret:".len()..].to_owned();
    let keeps = |world: &mut World, begin: &str| {
        let run = world.hook("update-status").good();
        says(&run, begin);
        let container = world.container();
        let secrets = container.file("/etc/windrow/secrets.yaml").expect("a file");
        assert!(
            secrets.contains("api-token: the-token-of-a-user\n"),
            "{}",
            run.tell()
        );
    };
    world.juju().secrets.get_mut(&id).expect("added").granted = false;
    keeps(
        &mut world,
        "blocked \"option api-token: the secret cannot be read: permission denied",
    );
    password_arrives(&mut world, ids[0], "second-password");
    world.juju().secrets.get_mut(&id).expect("added").granted = true;
    keeps(&mut world, "active ");
    let fault = (1, "cannot talk to the controller".to_owned());
    let command = format!("secret-get --refresh --format=json -- secret:{id}");
    world.juju().faults.insert(command, fault);
    keeps(
        &mut world,
        "waiting \"option api-token: the secret cannot be read: cannot talk",
    );
    world.juju().faults.clear();
    world.juju().secrets.remove(&id);
    keeps(
        &mut world,
        "blocked \"option api-token: the secret cannot be read: secret ",
    );
    // Whoever takes the option away wants no token.
    world.juju().config.remove("api-token");
    says(&world.hook("config-changed").good(), "active ");
    let container = world.container();
    let secrets = container.file("/etc/windrow/secrets.yaml").expect("a file");
    assert!(!secrets.contains("api-token"));
}

fn token_of_action() {
    let (mut world, _, _) = with_token("the-token-of-a-user");
    let uri = world.juju().config["api-token"].clone();
    let id = uri.as_str().expect("a URI")["secret:".len()..].to_owned();
    // `juju update-secret`, and no hook has run yet: windrow has the token before.
    let newer = [("token".to_owned(), "a-newer-token".to_owned())];
    let mut juju = world.juju();
    let secret = juju.secrets.get_mut(&id).expect("added");
    secret.revisions.push(Some(newer.into_iter().collect()));
    drop(juju);
    let run = world.action("get-table-status", &json!({})).good();
    let done = run.action.as_ref().expect("an action");
    assert_eq!(done.status, "completed", "{}: {}", done.message, run.tell());
    assert_eq!(done.results["state"], "counting");
}

fn unread_endpoint() {
    let (mut world, ids) = counting();
    world.relate("receive-ca-cert", Provider::certificates_1());
    world.relate("logging", Provider::loki());
    counts(&mut world);
    says(&world.hook("update-status").good(), "active ");
    let before = world.container().tell();
    for endpoint in ["receive-ca-cert", "logging"] {
        let fault = (1, "cannot talk to the controller".to_owned());
        world
            .juju()
            .faults
            .insert(format!("relation-get -r {endpoint}"), fault);
        for hook in ["update-status", "config-changed"] {
            let run = world.hook(hook).good();
            let begin = format!("waiting \"{endpoint}: what ");
            says(&run, &begin);
            assert_eq!(world.container().tell(), before, "{}", run.tell());
        }
        world.juju().faults.clear();
        says(&world.hook("update-status").good(), "active ");
        assert_eq!(world.container().tell(), before);
    }
    password_arrives(&mut world, ids[0], "second-password");
}

/// The name that Prometheus is told is made with the last good domain.
fn bad_domain() {
    let (mut world, _) = counting();
    let metrics = world.relate("metrics-endpoint", Provider::prometheus());
    let address = |world: &World| {
        let relation = &world.juju().relations[&metrics];
        relation.ours_unit["prometheus_scrape_unit_fqdn"].clone()
    };
    let name = |domain| format!("windrow-0.windrow-endpoints.spark.svc.{domain}");
    assert_eq!(address(&world), name("cluster.local"));
    for (domain, told) in [
        ("a b: {\n", "cluster.local"),
        (" other.domain ", "other.domain"),
        ("Other_Domain", "other.domain"),
        ("", "cluster.local"),
    ] {
        world.set("cluster-domain", domain);
        world.hook("config-changed").good();
        assert_eq!(address(&world), name(told), "{domain:?}");
    }
}

fn unused_proxy() {
    let proxy = |world: &mut World, key: &str| {
        world.hidden.insert("proxy-password".to_owned());
        let bad = "ftp://u:proxy-password@10.0.0.1:3128".to_owned();
        world.environment.insert(format!("JUJU_CHARM_{key}"), bad);
        world.hook("config-changed").good()
    };
    let (mut world, _) = with_s3_secret();
    says(&proxy(&mut world, "HTTP_PROXY"), "active ");
    says(
        &proxy(&mut world, "HTTPS_PROXY"),
        "blocked \"the model's juju-https-proxy",
    );
    // Console mode writes nothing to S3.
    world.set("table-name", "");
    says(
        &world.hook("config-changed").good(),
        "maintenance \"starting windrow",
    );
    says(&world.hook("config-changed").good(), "active ");
}

fn standby() {
    let (mut world, _) = counting();
    let owner = format!("{MODEL}/windrow/1");
    let standby = windrow_says(State::Standby, Some(Cause::Held), "another has it", &owner);
    answers(&mut world, standby);
    let zeros = (200, json!({"tables": [], "truncated": false}));
    world.workload.insert("GET /v1/tables".to_owned(), zeros);
    let mut status = windrow_says(State::Waiting, None, "no windrow runs here", "");
    status["rows"] = json!(7);
    status["lanes"] = json!([{"partition": "test-topic/0", "next-offset": 5}]);
    let tables = json!({"tables": [{"table": "default.newtable", "rows": 7}], "truncated": false});
    for (verb, answer) in [(" status", &status), (" tables", &tables)] {
        let done = (0, answer.to_string(), String::new());
        world.container().execs.push((verb.to_owned(), done));
    }
    let ask = |world: &mut World, action: &str| {
        let run = world.action(action, &json!({})).good();
        let done = run.action.as_ref().expect("an action");
        assert_eq!(done.status, "completed", "{action}: {}", done.message);
        run.action.expect("an action").results
    };
    let status = ask(&mut world, "get-table-status");
    assert_eq!(
        (&status["rows"], &status["state"]),
        (&json!("7"), &json!("standby"))
    );
    assert_eq!(
        (&status["owner"], &status["reason"]),
        (&json!(owner), &json!("another has it"))
    );
    let tables = ask(&mut world, "list-tables");
    assert_eq!(tables["count"], "1");
    let text = tables["tables"].to_string();
    assert!(text.contains("another has it"), "{text}");
    assert_eq!(ask(&mut world, "get-lag")["count"], "1");
}

/// Windrow ends for a reason that only a person can end. Whoever asks for the status is told it,
/// and no command that the charm has no use for.
fn ended() {
    let (mut world, _) = counting();
    world.workload.clear();
    let mut of_catalog = windrow_says(State::Waiting, None, "none runs; run: windrow run", "");
    of_catalog["rows"] = json!(7);
    let tables = json!({"tables": [&of_catalog], "truncated": false});
    for (verb, answer) in [(" status", &of_catalog), (" tables", &tables)] {
        let done = (0, answer.to_string(), String::new());
        world.container().execs.push((verb.to_owned(), done));
    }
    let ask = |world: &mut World, name: &str| {
        let run = world.action(name, &json!({})).good();
        let done = run.action.expect("an action");
        assert_eq!(done.status, "completed", "{}", done.message);
        let told = format!("{:?}", done.results);
        assert!(!told.contains("windrow run"), "{told}");
        done.results
    };
    let ends = |world: &World, ended: bool| {
        let mut container = world.container();
        let service = container.services.get_mut("windrow").expect("it ran");
        (service.active, service.backoff) = (false, ended);
    };
    ends(&world, false);
    let status = ask(&mut world, "get-table-status");
    let reason = json!("windrow does not run; see the unit's status");
    assert_eq!((&status["rows"], &status["reason"]), (&json!("7"), &reason));
    ends(&world, true);
    let words = ["windrow: x (cause: data-loss)", "INFO an ordinary line"];
    world.container().said.extend(words.map(str::to_owned));
    let of_trouble = [("state", "failed"), ("cause", "data-loss"), ("reason", "x")];
    let status = ask(&mut world, "get-table-status");
    for (key, value) in of_trouble {
        assert_eq!(status[key], value, "{key}");
    }
    assert_eq!(status["rows"], "7");
    let tables = ask(&mut world, "list-tables")["tables"].to_string();
    assert!(tables.contains("data-loss"), "{tables}");
    // Where the catalog cannot be asked either, the last words are all that is known.
    world.container().execs.clear();
    let status = ask(&mut world, "get-table-status");
    for (key, value) in of_trouble {
        assert_eq!(status[key], value, "{key}");
    }
    let run = world.action("get-lag", &json!({})).good();
    let done = run.action.expect("an action");
    assert_eq!(
        (done.status, done.message.as_str()),
        ("failed", "windrow ended: x")
    );
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
        ("action-get", "pause"),
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
