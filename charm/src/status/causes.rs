//! What the workload says of itself → what `juju status` shows. Each cause has one row here.

use super::{Level, Status, TEXT_MAX_CHARS, shorten};
use crate::facts::{CA, KAFKA, METASTORE, S3};
use crate::options::as_option;
use crate::rendered::name_endpoint;
use windrow_core::shown::causes::{Acts, row};
use windrow_core::shown::status::{State, Status as Windrow};
use windrow_core::values::cause::{Cause, Trouble};

/// The names that statuses need: our own, and what the relations have given.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// Our unit, such as `windrow/0`.
    pub unit: String,
    /// The UUID of our model.
    pub model: String,
    /// The name of our model.
    pub model_name: String,
    /// The application on the other side of `kafka-client`.
    pub kafka: String,
    /// The user that Kafka knows us as.
    pub kafka_user: String,
    /// What the name of our consumer group begins with.
    pub group_prefix: String,
    /// The application on the other side of `s3-credentials`.
    pub s3: String,
    /// The bucket that it gives.
    pub bucket: String,
    /// The application on the other side of `metastore-db`.
    pub metastore: String,
    /// The database that it gives.
    pub database: String,
    /// The user that PostgreSQL knows us as.
    pub metastore_user: String,
    /// PostgreSQL's major version, where it is known.
    pub postgresql: Option<u32>,
    /// Whether roles are asked for.
    pub has_roles: bool,
    /// The endpoints that say of themselves that they speak no TLS.
    pub plain: Vec<&'static str>,
}

impl Names {
    /// The application's name: `windrow` of `windrow/0`.
    #[must_use]
    pub fn app(&self) -> &str {
        self.unit.split('/').next().unwrap_or_default()
    }
}

/// The first PostgreSQL whose charm gives rights by roles of its own, and refuses others.
const POSTGRESQL_WITH_ROLES: u32 = 16;

/// What the running windrow says about itself.
#[must_use]
pub fn describe_windrow(windrow: &Windrow, names: &Names) -> Status {
    let (table, topic) = (&windrow.table, &windrow.topic);
    match (windrow.cause, windrow.state) {
        (_, State::Counting) if table.is_empty() => Status::new(
            Level::Active,
            format!("printing windows of {topic}; see: kubectl logs -c windrow"),
        ),
        (_, State::Counting) => {
            Status::new(Level::Active, format!("counting {topic} into {table}"))
        }
        (_, State::Paused) => Status::new(
            Level::Maintenance,
            format!(
                "Paused by action; to go on run: juju run {}/leader resume",
                names.app()
            ),
        ),
        (Some(Cause::Held), _) => describe_holder(&windrow.owner, table, names),
        // As long as a person must act here, it could not take over.
        (Some(cause), State::Standby) if row(cause).acts != Acts::Person => standby(),
        (None, State::Standby) => standby(),
        (Some(cause), _) => describe_cause(cause, &windrow.reason, table, topic, names),
        (None, State::Failed) => Status::blocked(&windrow.reason),
        (None, State::Waiting) => Status::waiting(&windrow.reason),
    }
}

fn standby() -> Status {
    Status::new(Level::Active, "Standby")
}

/// What is shown for a cause, with windrow's own reason where that has data which matters. The step
/// comes before the reason, which alone is shortened where both are too long for one line.
#[must_use]
#[expect(
    clippy::too_many_lines,
    reason = "it is a table with one row for each cause"
)]
pub fn describe_cause(
    cause: Cause,
    reason: &str,
    table: &str,
    topic: &str,
    names: &Names,
) -> Status {
    let level = match row(cause).acts {
        Acts::Person => Level::Blocked,
        Acts::Provider => Level::Waiting,
        Acts::Itself => Level::Maintenance,
    };
    let (app, unit, reason) = (names.app(), &names.unit, one_line(reason));
    let text = match cause {
        Cause::LoginKafka => refused_login(KAFKA, &names.kafka, app),
        Cause::LoginCatalog => refused_login(METASTORE, &names.metastore, app),
        Cause::LoginS3 => format!(
            "{S3}: the login was refused; waiting for new credentials; to give them run: \
             juju run {}/leader sync-s3-credentials, or set its option credentials",
            names.s3
        ),
        Cause::NoRights => no_rights(names),
        Cause::NoCreate => no_create(names),
        Cause::NoSchema => format!(
            "Hive schema not there yet: open Kyuubi and create a table, \
             or run: juju config {app} init-metastore=true"
        ),
        Cause::NoTopic => {
            format!("{KAFKA}: topic {topic} is not there yet; a producer creates it")
        }
        Cause::KafkaRights => format!(
            "{KAFKA}: user {user} has no rights on topic {topic} or on groups {prefix}*; grant it \
             READ and DESCRIBE there, or run: juju remove-relation {app} {remote}, \
             then juju integrate {app}:{KAFKA} {remote}",
            remote = names.kafka,
            user = names.kafka_user,
            prefix = names.group_prefix,
        ),
        Cause::S3Rights => format!(
            "{S3}: the keys have no rights on bucket {}: let their policy allow to list it, and to \
             get, put and delete objects, or give other keys: juju run {}/leader \
             sync-s3-credentials",
            names.bucket, names.s3
        ),
        Cause::NoBucket => format!(
            "{S3}: bucket {} is not there; create it, or name another: juju config {} bucket=NAME",
            names.bucket, names.s3
        ),
        Cause::S3Region => format!(
            "{S3}: bucket {} lies in another region; give it: juju config {} region=REGION; \
             {reason}",
            names.bucket, names.s3
        ),
        Cause::S3Proxy => format!(
            "{S3}: the proxy refuses; to set another run: \
             juju model-config {}=http://HOST:PORT, or name the store in juju-no-proxy; {reason}",
            if names.plain.contains(&S3) {
                "juju-http-proxy"
            } else {
                "juju-https-proxy"
            }
        ),
        Cause::KafkaMechanism => format!(
            "{KAFKA}: {} takes no login by SCRAM-SHA-512 at the port that it gave; switch that on \
             there; {reason}",
            names.kafka
        ),
        Cause::CatalogRules => format!(
            "{METASTORE}: the rules of {} keep the user out of database {}; {reason}",
            names.metastore, names.database
        ),
        Cause::CertificateKafka => bad_certificate(KAFKA, &names.kafka, &reason),
        Cause::CertificateS3 => format!(
            "{S3}: the certificate of {remote} is expired or another host's; give it a valid one, \
             or its right name: juju config {remote} endpoint=https://HOST:PORT; {reason}",
            remote = names.s3
        ),
        Cause::CertificateCatalog => bad_certificate(METASTORE, &names.metastore, &reason),
        Cause::TlsKafka if names.plain.contains(&KAFKA) => {
            wants_tls(KAFKA, &names.kafka, app, &reason)
        }
        Cause::TlsCatalog if names.plain.contains(&METASTORE) => {
            wants_tls(METASTORE, &names.metastore, app, &reason)
        }
        Cause::TlsS3 if names.plain.contains(&S3) => format!(
            "{S3}: TLS is wanted, and {remote} gives an endpoint with http://; run: \
             juju config {remote} endpoint=https://HOST:PORT; {reason}",
            remote = names.s3
        ),
        Cause::TlsKafka => no_trust(KAFKA, &names.kafka, "kafka-ca", app, &reason),
        Cause::TlsS3 => no_trust(S3, &names.s3, "s3-ca", app, &reason),
        Cause::TlsCatalog => no_trust(METASTORE, &names.metastore, "metastore-ca", app, &reason),
        Cause::NoTlsKafka => has_no_tls(KAFKA, &names.kafka, app, &reason),
        Cause::NoTlsS3 => format!(
            "{S3}: the endpoint that {remote} gives speaks no TLS with windrow; name the port that \
             does, or run: juju config {remote} endpoint=http://HOST:PORT; {reason}",
            remote = names.s3
        ),
        Cause::NoTlsCatalog => has_no_tls(METASTORE, &names.metastore, app, &reason),
        Cause::Clocks => format!("set the clock that is wrong: {reason}"),
        Cause::OpenTransaction => format!("{KAFKA}: {reason}"),
        Cause::Stalled => {
            // Only the unit that counts knows what it waits for; a leader may stand by.
            format!("no window closes; to see why run: juju run {unit} get-lag; {reason}")
        }
        Cause::Memory => format!("memory is full, so reading waits: {reason}"),
        Cause::DataLoss => format!(
            "{KAFKA}: records are gone; to go on without them run: \
             juju config {app} on-data-loss=continue; {reason}"
        ),
        Cause::BadRecord => format!(
            "{KAFKA}: a record cannot be counted; for a table that leaves such records out run: \
             juju config {app} table-name=NAME on-bad-record=reject; {reason}"
        ),
        Cause::TableDropped => format!(
            "{METASTORE}: the entries of table {table} were dropped or altered; to write them \
             again run: juju run {app}/leader restore-table; {reason}"
        ),
        Cause::OtherSettings => format!(
            "table {table} was made with other options or from another topic; set that back, or \
             for a new table run: juju config {app} table-name=NAME; {reason}"
        ),
        Cause::OtherVersion => format!(
            "table {table} was made by a windrow whose rules give other rows; to go back to it \
             run: juju refresh {app} --revision=REVISION, or for a new table: \
             juju config {app} table-name=NAME; {reason}"
        ),
        Cause::OtherCheckpoint => format!(
            "the checkpoint of table {table} is of another windrow; to go back to that run: \
             juju refresh {app} --revision=REVISION, or to give up what open windows had: \
             juju config {app} on-data-loss=continue; {reason}"
        ),
        Cause::OtherBucket => format!(
            "{S3}: table {table} lies in another bucket; give that one, or for a new table run: \
             juju config {app} table-name=NAME; {reason}"
        ),
        Cause::Following => format!("taking back what the database lost: {reason}"),
        Cause::Held => format!("another process has table {table}: {reason}"),
        Cause::Starting => "starting windrow".to_owned(),
    };
    let (may_be_long, text) = fit_reason(&text, &reason);
    let text = text.trim_end_matches(['\u{20}', ';', ':']);
    if may_be_long {
        return Status::new(level, text);
    }
    // It is as short as it can be. Shortened once more, it could lose its step to the reason.
    let text = one_line(text);
    Status { level, text }
}

/// A text that ends with `reason`, with the reason shortened until the whole fits: the step before
/// it stays whole, and of the reason that part stays which says most, its innermost one. For
/// example `cannot reach metastore: db error: ...: certificate has expired`. Also whether the text
/// may be too long all the same: it has no reason, or the step alone is.
fn fit_reason(text: &str, reason: &str) -> (bool, String) {
    let Some(step) = text.strip_suffix(reason).filter(|_| !reason.is_empty()) else {
        return (true, text.to_owned());
    };
    let count = step.chars().count();
    let left = TEXT_MAX_CHARS.saturating_sub(count);
    let max = left.max(REASON_MIN_CHARS);
    let text = format!("{step}{}", shorten(reason, max, max));
    (count > TEXT_MAX_CHARS, text)
}

/// The least that is left of a reason.
const REASON_MIN_CHARS: usize = 40;

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn refused_login(endpoint: &str, remote: &str, app: &str) -> String {
    format!(
        "{endpoint}: the login was refused; waiting for new credentials; if none come run: \
         juju remove-relation {app} {remote}, then juju integrate {app}:{endpoint} {remote}"
    )
}

/// PostgreSQL 14 gives rights on the tables of others by roles that are asked for. The charm of
/// PostgreSQL 16 gives all users of a database the same owner, and is Blocked by those roles.
fn no_rights(names: &Names) -> String {
    let app = names.app();
    let is_new = names
        .postgresql
        .is_some_and(|major| major >= POSTGRESQL_WITH_ROLES);
    match (is_new, names.has_roles) {
        (true, true) => format!(
            "{METASTORE}: no rights on Hive's tables. PostgreSQL {major} wants no roles: run: \
             juju config {app} metastore-roles=\"\", then remove and add the relation",
            major = names.postgresql.unwrap_or_default(),
        ),
        (true, false) => format!(
            "{METASTORE}: no rights on Hive's tables, which somebody else owns; as their owner run \
             in database {database}: GRANT ALL ON ALL TABLES IN SCHEMA public TO \
             charmed_{database}_owner",
            database = names.database,
        ),
        // They are asked for, and do not help. What may be missing is the relation's own user.
        (false, true) => format!(
            "{METASTORE}: no rights on Hive's tables in spite of metastore-roles; remove and add \
             the relation, or as their owner run in database {database}: GRANT ALL ON ALL TABLES \
             IN SCHEMA public TO \"{user}\"",
            database = names.database,
            user = names.metastore_user,
        ),
        (false, false) => format!(
            "{METASTORE}: no rights on Hive's tables. Run: juju config {app} \
             metastore-roles=pg_read_all_data,pg_write_all_data, \
             then remove and add the relation"
        ),
    }
}

/// Both charms let the user of a new relation create schemas, except where roles take the place of
/// that.
fn no_create(names: &Names) -> String {
    let (app, remote) = (names.app(), &names.metastore);
    let is_new = names
        .postgresql
        .is_some_and(|major| major >= POSTGRESQL_WITH_ROLES);
    if is_new && names.has_roles {
        return format!(
            "{METASTORE}: no right to create schemas and tables. PostgreSQL {major} wants no \
             roles: run: juju config {app} metastore-roles=\"\", then remove and add the relation",
            major = names.postgresql.unwrap_or_default(),
        );
    }
    format!(
        "{METASTORE}: no right to create windrow's schema or Hive's tables; grant CREATE on \
         database {database} and on its schema public, or run: \
         juju remove-relation {app} {remote}, then juju integrate {app}:{METASTORE} {remote}",
        database = names.database,
    )
}

/// The server takes TLS only, and its relation says that it has none. No CA would help.
fn wants_tls(endpoint: &str, remote: &str, app: &str, reason: &str) -> String {
    format!(
        "{endpoint}: {remote} wants TLS, and said that it has none; to ask again run: \
         juju remove-relation {app} {remote}, then juju integrate {app}:{endpoint} {remote}; \
         {reason}"
    )
}

/// The relation says that the server has TLS, and it has none that windrow speaks. No CA would
/// help.
fn has_no_tls(endpoint: &str, remote: &str, app: &str, reason: &str) -> String {
    format!(
        "{endpoint}: {remote} said that it has TLS, and windrow finds none; switch it on there, or \
         run: juju remove-relation {app} {remote}, then juju integrate {app}:{endpoint} {remote}; \
         {reason}"
    )
}

fn no_trust(endpoint: &str, remote: &str, option: &str, app: &str, reason: &str) -> String {
    format!(
        "{endpoint}: no TLS with {remote}; give the CA of its certificate: \
         juju config {app} {option}=@FILE, or juju integrate {app}:{CA} CA-APP; {reason}"
    )
}

fn bad_certificate(endpoint: &str, remote: &str, reason: &str) -> String {
    format!(
        "{endpoint}: the certificate of {remote} is expired or another host's; give it a valid \
         one; {reason}"
    )
}

/// Who writes the table in our place. When it is a unit of our own application, we stand by for it.
/// When it is another application, its table is not ours.
///
/// `owner` is `<model uuid>/<application>/<unit number>`, or any other name that a windrow without
/// Juju has.
fn describe_holder(owner: &str, table: &str, names: &Names) -> Status {
    let (app, model, model_name) = (names.app(), &names.model, &names.model_name);
    let mut parts = owner.splitn(3, '/');
    let (their_model, their_app, number) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
        parts.next(),
    );
    match number {
        Some(number) if their_model == *model && their_app == app => {
            Status::new(Level::Active, format!("Standby for {their_app}/{number}"))
        }
        Some(_) => {
            let place = if their_model == *model {
                model_name
            } else {
                their_model
            };
            Status::blocked(format!(
                "table {table} is written by {their_app} in model {place}; \
                 choose another table-name"
            ))
        }
        None => Status::blocked(format!(
            "table {table} is written by {owner}; choose another table-name"
        )),
    }
}

/// A windrow that should run and does not answer. `service` is Pebble's state of it, and
/// `last_words` are the last lines of its log.
#[must_use]
pub fn describe_silence(service: Option<&str>, last_words: &[String], names: &Names) -> Status {
    if !matches!(service, Some("backoff" | "error")) {
        return Status::new(Level::Maintenance, "starting windrow");
    }
    let mut lines = last_words.iter().rev();
    let Some(trouble) = lines.find_map(|line| Trouble::of_last_line(line)) else {
        return Status::new(
            Level::Maintenance,
            "windrow ended and is started again; see: kubectl logs -c windrow",
        );
    };
    if let Some(cause) = trouble.cause {
        let table = "of option table-name";
        return describe_cause(cause, &trouble.text, table, "of option topic-name", names);
    }
    match refused_setting(&trouble.text) {
        Some(problem) => describe_refused_setting(problem, names),
        None => Status::blocked(format!("windrow ended: {trouble}")),
    }
}

/// What is wrong with a setting, a secret or a file of ours, where that is why windrow has ended:
/// it checks its files before it begins. It names the file first where it was reading that file,
/// and no file where it missed something in what it had read.
fn refused_setting(text: &str) -> Option<&str> {
    let of_file = text
        .strip_prefix("/etc/windrow/")
        .and_then(|rest| rest.split_once(": "))
        .map(|(_, problem)| problem);
    let problem = of_file.unwrap_or(text);
    let begins = [
        "cannot read setting",
        "cannot use setting",
        "cannot find setting",
        "cannot read secret",
        "cannot find secret",
        "cannot read file \"/etc/windrow/",
    ];
    let is_refusal = begins.iter().any(|begin| problem.starts_with(begin));
    (of_file.is_some() || is_refusal).then_some(problem)
}

/// A setting or a secret that windrow refuses, told of the option or the endpoint it comes from.
fn describe_refused_setting(problem: &str, names: &Names) -> Status {
    let (app, unit) = (names.app(), &names.unit);
    let secret = ["cannot read secret ", "cannot find secret "]
        .iter()
        .find_map(|begin| problem.strip_prefix(begin));
    let Some(secret) = secret else {
        let problem = name_endpoint(&as_option(problem));
        return Status::blocked(format!("windrow does not start: {problem}"));
    };
    // In Juju the charm writes the file, so nobody can add anything to it.
    let secret = secret.trim_end_matches("; add it to the secrets file");
    let from = [
        ("api-token", "option api-token"),
        ("s3-proxy", "the model's proxy"),
        ("kafka-", KAFKA),
        ("s3-", S3),
        ("catalog-", METASTORE),
    ];
    let place = from.iter().find(|(key, _)| secret.starts_with(key));
    let place = place.map_or("the secrets file", |(_, place)| *place);
    let step = match place {
        "option api-token" => format!("; run: juju config {app} api-token=\"\""),
        KAFKA | S3 | METASTORE => format!("; run: juju show-unit {unit} --endpoint {place}"),
        _ => String::new(),
    };
    Status::blocked(format!(
        "windrow does not start: {place}: secret {secret}{step}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn describe(state: State, cause: Option<Cause>, owner: &str) -> Status {
        let windrow = Windrow {
            table: "default.newtable".to_owned(),
            topic: "test-topic".to_owned(),
            reason: "the reason".to_owned(),
            state,
            cause,
            owner: owner.to_owned(),
            ..Windrow::default()
        };
        describe_windrow(&windrow, &names())
    }

    fn names() -> Names {
        Names {
            unit: "windrow/1".to_owned(),
            model: "uuid-1".to_owned(),
            model_name: "spark".to_owned(),
            kafka: "kafka".to_owned(),
            kafka_user: "relation-4".to_owned(),
            group_prefix: "relation-4-".to_owned(),
            s3: "s3".to_owned(),
            bucket: "lake".to_owned(),
            metastore: "metastore".to_owned(),
            database: "hivemetastore".to_owned(),
            metastore_user: "relation-6".to_owned(),
            postgresql: Some(14),
            has_roles: false,
            plain: Vec::new(),
        }
    }

    #[test]
    fn each_state_says_the_next_step() {
        let check = |state, cause, owner, level, text: &str| {
            let status = describe(state, cause, owner);
            assert_eq!((status.level, status.text.as_str()), (level, text));
        };
        check(
            State::Counting,
            None,
            "",
            Level::Active,
            "counting test-topic into default.newtable",
        );
        check(
            State::Standby,
            Some(Cause::Held),
            "uuid-1/windrow/0",
            Level::Active,
            "Standby for windrow/0",
        );
        check(
            State::Standby,
            Some(Cause::Held),
            "uuid-1/other/0",
            Level::Blocked,
            "table default.newtable is written by other in model spark; choose another table-name",
        );
        check(
            State::Standby,
            Some(Cause::Held),
            "uuid-2/windrow/0",
            Level::Blocked,
            "table default.newtable is written by windrow in model uuid-2; \
             choose another table-name",
        );
        check(
            State::Paused,
            None,
            "",
            Level::Maintenance,
            "Paused by action; to go on run: juju run windrow/leader resume",
        );
        check(
            State::Waiting,
            Some(Cause::NoRights),
            "",
            Level::Blocked,
            "metastore-db: no rights on Hive's tables. Run: juju config windrow \
             metastore-roles=pg_read_all_data,pg_write_all_data, then remove and add the relation",
        );
        check(
            State::Waiting,
            Some(Cause::LoginKafka),
            "",
            Level::Waiting,
            "kafka-client: the login was refused; waiting for new credentials; if none come run: \
             juju remove-relation windrow kafka, then juju integrate windrow:kafka-client kafka",
        );
        check(State::Failed, None, "", Level::Blocked, "the reason");
        check(State::Waiting, None, "", Level::Waiting, "the reason");
    }

    #[test]
    fn a_standby_that_could_not_take_over_is_not_active() {
        for (cause, level, text) in [
            (
                Cause::Clocks,
                Level::Blocked,
                "set the clock that is wrong: the reason",
            ),
            (Cause::Starting, Level::Active, "Standby"),
        ] {
            let status = describe(State::Standby, Some(cause), "uuid-1/windrow/0");
            assert_eq!((status.level, status.text.as_str()), (level, text));
        }
    }

    #[test]
    fn a_dead_windrow_is_described_by_its_last_words() {
        let words = [
            "INFO x".to_owned(),
            "windrow: table was dropped; run windrow restore".to_owned(),
        ];
        let describe = |service, words: &[String]| describe_silence(service, words, &names());
        assert_eq!(
            describe(Some("backoff"), &words).text,
            "windrow ended: table was dropped; run windrow restore"
        );
        assert_eq!(describe(Some("active"), &words).level, Level::Maintenance);
    }

    /// Windrow's reason in each cause that shows it: it has the data of this one trouble, and it is
    /// as long as real ones are.
    const REASON: &str = "cannot reach metastore-primary.spark.svc.cluster.local:5432: db error: \
                          error performing TLS handshake: invalid peer certificate: certificate \
                          not valid for name \"metastore-primary.spark.svc.cluster.local\"";

    /// What must be seen of it.
    const INNERMOST: &str =
        ": certificate not valid for name \"metastore-primary.spark.svc.cluster.local\"";

    #[test]
    fn every_cause_says_who_acts_and_what_to_do() {
        for cause in Cause::ALL.into_iter().filter(|cause| *cause != Cause::Held) {
            for state in [State::Waiting, State::Failed] {
                let status = describe(state, Some(cause), "");
                let text = &status.text;
                let level = match row(cause).acts {
                    Acts::Person => Level::Blocked,
                    Acts::Provider => Level::Waiting,
                    Acts::Itself => Level::Maintenance,
                };
                assert_eq!(status.level, level, "{cause}: {text}");
                assert!(!text.ends_with("..."), "{cause}: {text}");
                let step = step(cause);
                assert!(
                    !step.is_empty() || level != Level::Blocked,
                    "{cause}: {text}"
                );
                for part in step.split(" … ") {
                    assert!(text.contains(part), "{cause}: no {part:?} in {text}");
                }
                let no_ca_helps = [
                    Cause::NoTlsKafka,
                    Cause::NoTlsS3,
                    Cause::NoTlsCatalog,
                    Cause::CertificateKafka,
                    Cause::CertificateS3,
                    Cause::CertificateCatalog,
                ];
                if no_ca_helps.contains(&cause) {
                    assert!(
                        !text.contains("-ca=") && !text.contains(CA),
                        "{cause}: {text}"
                    );
                }
            }
        }
    }

    /// What ends a cause, as parts of its status with ` … ` between them; empty where nothing but
    /// time, or another application by itself, ends it. That its commands exist, `commands.rs`
    /// sees.
    fn step(cause: Cause) -> &'static str {
        match cause {
            Cause::LoginKafka => "juju integrate windrow:kafka-client kafka",
            Cause::LoginS3 => "juju run s3/leader sync-s3-credentials",
            Cause::LoginCatalog => "juju integrate windrow:metastore-db metastore",
            Cause::NoRights => "juju config windrow metastore-roles=pg_read_all_data",
            Cause::NoCreate => "grant CREATE on database hivemetastore and on its schema public",
            Cause::NoSchema => "juju config windrow init-metastore=true",
            Cause::NoTopic => "a producer creates it",
            Cause::OtherBucket | Cause::OtherSettings => "juju config windrow table-name=NAME",
            Cause::OtherVersion => {
                "juju refresh windrow --revision=REVISION … juju config windrow table-name=NAME"
            }
            Cause::OtherCheckpoint => {
                "juju refresh windrow --revision=REVISION … juju config windrow \
                 on-data-loss=continue"
            }
            Cause::KafkaRights => "grant it READ and DESCRIBE",
            Cause::S3Rights => "let their policy allow … sync-s3-credentials",
            Cause::NoBucket => "juju config s3 bucket=NAME",
            Cause::S3Region => "juju config s3 region=REGION",
            Cause::S3Proxy => "juju model-config juju-https-proxy=",
            Cause::KafkaMechanism => "SCRAM-SHA-512 … switch that on",
            Cause::CatalogRules => "the rules of metastore … the reason",
            Cause::TlsKafka => "juju config windrow kafka-ca=@FILE",
            Cause::TlsS3 => "juju config windrow s3-ca=@FILE",
            Cause::TlsCatalog => "juju config windrow metastore-ca=@FILE",
            Cause::NoTlsKafka => "switch it on … juju integrate windrow:kafka-client kafka",
            Cause::NoTlsS3 => "juju config s3 endpoint=http://HOST:PORT",
            Cause::NoTlsCatalog => "switch it on … juju integrate windrow:metastore-db metastore",
            Cause::CertificateKafka | Cause::CertificateCatalog => "give it a valid one",
            Cause::CertificateS3 => "juju config s3 endpoint=https://HOST:PORT",
            Cause::Clocks => "set the clock that is wrong",
            Cause::OpenTransaction | Cause::Memory => "the reason",
            Cause::Stalled => "juju run windrow/1 get-lag",
            Cause::DataLoss => "juju config windrow on-data-loss=continue",
            Cause::BadRecord => "juju config windrow table-name=NAME on-bad-record=reject",
            Cause::TableDropped => "juju run windrow/leader restore-table",
            Cause::Following | Cause::Held | Cause::Starting => "",
        }
    }

    #[test]
    fn where_the_trouble_is_is_shown() {
        for cause in [
            Cause::Clocks,
            Cause::S3Region,
            Cause::OpenTransaction,
            Cause::Stalled,
            Cause::Memory,
            Cause::DataLoss,
            Cause::BadRecord,
            Cause::TlsCatalog,
        ] {
            let status = describe_cause(cause, REASON, "default.newtable", "t", &names());
            let text = &status.text;
            let of_room = |end: &str| end.chars().take(REASON_MIN_CHARS - 3).collect::<String>();
            assert!(text.contains(&of_room(INNERMOST)), "{cause}: {text}");
            assert!(
                text.chars().count() <= TEXT_MAX_CHARS + 6,
                "{cause}: {text}"
            );
            let short = describe_cause(cause, "offset 17", "default.newtable", "t", &names());
            assert!(short.text.ends_with("offset 17"), "{cause}: {}", short.text);
        }
    }

    #[test]
    fn the_innermost_reason_of_a_refused_certificate_is_not_cut() {
        for (reason, innermost) in [
            (REASON, INNERMOST),
            (
                "cannot connect to Kafka \"kafka-k8s-0.kafka-k8s-endpoints.kafka:9093\": TLS: the \
                 broker's certificate is not trusted",
                ": the broker's certificate is not trusted",
            ),
        ] {
            for cause in [Cause::TlsKafka, Cause::TlsS3, Cause::TlsCatalog] {
                let text = describe_cause(cause, reason, "t", "t", &names()).text;
                assert!(text.ends_with(innermost), "{cause}: {text}");
                assert!(
                    text.contains("=@FILE, or juju integrate"),
                    "{cause}: {text}"
                );
                assert!(
                    text.contains(":receive-ca-cert CA-APP; "),
                    "{cause}: {text}"
                );
            }
        }
    }

    /// With the reasons that windrow gives, which are long.
    #[test]
    fn after_a_refresh_the_way_back_is_not_cut_off() {
        let of_rules = "table default.newtable was made by a windrow that counts by revision 1 of \
                        its rules, and this one counts by revision 2, which gives other rows for \
                        the same log; run the windrow that made it, or choose another table name";
        let of_checkpoint = "cannot read any checkpoint of table default.newtable: cannot read \
                             checkpoint: it has version 2, but this program reads version 1; run \
                             the windrow that wrote it, which counts on from there; or, where that \
                             cannot be, set on-data-loss: continue to go on without what open \
                             windows had counted";
        for (cause, reason) in [
            (Cause::OtherVersion, of_rules),
            (Cause::OtherCheckpoint, of_checkpoint),
        ] {
            for table in ["default.newtable", "of option table-name"] {
                let status = describe_cause(cause, reason, table, "t", &names());
                for part in step(cause).split(" … ") {
                    assert!(status.text.contains(part), "{}", status.text);
                }
                assert!(!status.text.contains("set them back"), "{}", status.text);
            }
        }
    }

    #[test]
    fn only_a_person_can_give_rights_and_trust() {
        let of = |cause| describe_cause(cause, "", "default.newtable", "test-topic", &names());
        let kafka = of(Cause::KafkaRights);
        assert_eq!(kafka.level, Level::Blocked);
        for word in ["relation-4 ", "READ", "test-topic", "relation-4-*"] {
            assert!(kafka.text.contains(word), "{}", kafka.text);
        }
        for (cause, option) in [
            (Cause::TlsKafka, "kafka-ca=@FILE"),
            (Cause::TlsS3, "s3-ca=@FILE"),
            (Cause::TlsCatalog, "metastore-ca=@FILE"),
            (Cause::S3Rights, "bucket lake"),
            (Cause::CertificateKafka, "of kafka is expired"),
            (Cause::NoTlsS3, "endpoint=http://"),
        ] {
            let status = of(cause);
            assert_eq!(status.level, Level::Blocked);
            assert!(status.text.contains(option), "{}", status.text);
            assert!(!status.text.contains("credentials; "), "{}", status.text);
        }
    }

    #[test]
    fn a_server_that_takes_tls_only_is_not_told_to_need_a_ca() {
        let names = Names {
            plain: vec![KAFKA, S3, METASTORE],
            ..names()
        };
        for cause in [Cause::TlsKafka, Cause::TlsS3, Cause::TlsCatalog] {
            let status = describe_cause(cause, REASON, "t", "t", &names);
            assert_eq!(status.level, Level::Blocked);
            assert!(!status.text.contains("-ca"), "{}", status.text);
            assert!(!status.text.contains("login"), "{}", status.text);
        }
    }

    #[test]
    fn the_proxy_to_change_is_the_one_that_s3_is_reached_through() {
        for (plain, key) in [
            (vec![S3], "model-config juju-http-proxy="),
            (vec![KAFKA], "model-config juju-https-proxy="),
        ] {
            let names = Names { plain, ..names() };
            let text = describe_cause(Cause::S3Proxy, REASON, "t", "t", &names).text;
            assert!(text.contains(key), "{text}");
        }
    }

    #[test]
    fn no_postgresql_is_told_to_take_roles_that_it_has_or_does_not_want() {
        let with = |postgresql, has_roles| {
            let names = Names {
                postgresql,
                has_roles,
                ..names()
            };
            let of = |cause| describe_cause(cause, "", "t", "t", &names).text;
            (of(Cause::NoRights), of(Cause::NoCreate))
        };
        let (rights, create) = with(Some(16), false);
        assert!(
            rights.contains("TO charmed_hivemetastore_owner"),
            "{rights}"
        );
        assert!(!(rights + &create).contains("roles"));
        let (rights, create) = with(Some(16), true);
        for text in [rights, create] {
            assert!(text.contains("metastore-roles=\"\""), "{text}");
        }
        for old in [Some(14), None] {
            assert!(with(old, false).0.contains("=pg_read_all_data,"));
            let (rights, create) = with(old, true);
            assert!(!rights.contains("juju config"), "they are set: {rights}");
            assert!(rights.contains("GRANT ALL ON ALL TABLES"), "{rights}");
            assert!(create.contains("and on its schema public"), "{create}");
        }
    }

    #[test]
    fn settings_that_windrow_refuses_are_told_of_their_option() {
        // As the program prints them when it ends.
        let of = |text: &str| {
            let words = ["INFO x".to_owned(), Trouble::from(text).last_line()];
            describe_silence(Some("backoff"), &words, &names())
        };
        for (line, begin) in [
            (
                "/etc/windrow/windrow.yaml: cannot read setting idle-timeout \"x\": no",
                "windrow does not start: option idle-timeout \"x\": no",
            ),
            (
                "/etc/windrow/secrets.yaml: cannot read secret api-token: it is odd",
                "windrow does not start: option api-token: secret api-token: it is odd; run: ",
            ),
            (
                "/etc/windrow/secrets.yaml: cannot read secret kafka-password: not a text",
                "windrow does not start: kafka-client: secret kafka-password: not a text; run: \
                 juju show-unit windrow/1 --endpoint kafka-client",
            ),
            (
                "cannot find secret catalog-password: the catalog wants it; add it to the secrets \
                 file",
                "windrow does not start: metastore-db: secret catalog-password: the catalog wants \
                 it; run: juju show-unit windrow/1 --endpoint metastore-db",
            ),
            (
                "/etc/windrow/windrow.yaml: cannot read setting kafka.group-prefix \"x\": no",
                "windrow does not start: kafka-client: what is given cannot be used: cannot read \
                 setting kafka.group-prefix \"x\": no",
            ),
            (
                "cannot read file \"/etc/windrow/secrets.yaml\": it holds secrets",
                "windrow does not start: cannot read file \"/etc/windrow/secrets.yaml\": it holds",
            ),
        ] {
            let status = of(line);
            assert_eq!(status.level, Level::Blocked);
            assert!(status.text.starts_with(begin), "{}", status.text);
        }
        let ordinary = ["an ordinary line".to_owned()];
        let status = describe_silence(Some("backoff"), &ordinary, &names());
        assert_eq!(status.level, Level::Maintenance);
    }

    /// The statuses of all causes, as a list for `docs/charm.md`.
    fn document() -> String {
        let mut text = "<!-- causes -->\n\n".to_owned();
        for cause in Cause::ALL.into_iter().filter(|cause| *cause != Cause::Held) {
            let status =
                describe_cause(cause, "REASON", "default.newtable", "test-topic", &names());
            let says = format!("- `{cause}`, {}: {}", status.level.name(), status.text);
            let mut line = String::new();
            for word in says.split(' ') {
                if line.chars().count() + 1 + word.chars().count() > 100 {
                    text += &line;
                    text += "\n";
                    line = "  ".to_owned();
                } else if !line.is_empty() {
                    line += " ";
                }
                line += word;
            }
            text += &line;
            text += "\n";
        }
        text + "\n<!-- end of causes -->"
    }

    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "WINDROW_WRITE is for the person at the keyboard"
    )]
    fn documents_say_what_the_statuses_say() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/charm.md");
        let there = std::fs::read_to_string(path).unwrap();
        let (before, rest) = there.split_once("<!-- causes -->").expect("the list");
        let (_, after) = rest.split_once("<!-- end of causes -->").expect("its end");
        let right = format!("{before}{}{after}", document());
        if std::env::var("WINDROW_WRITE").is_ok_and(|w| w == "1") {
            std::fs::write(path, right).unwrap();
            return;
        }
        assert!(
            there == right,
            "docs/charm.md differs; run: WINDROW_WRITE=1 cargo test -p windrow-charm documents"
        );
    }
}
