//! The charm's options → what they say, checked as a whole. Most are settings of windrow, and the
//! core knows their names, defaults and rules; here is what only the charm knows.

use crate::facts::OptionValues;
use serde_json::Value;
use serde_yaml::{Mapping, Value as Yaml};
use windrow_core::settings::certificates::Certificates;
use windrow_core::settings::charm_options::OWN_OPTIONS;
use windrow_core::settings::config::Config;
use windrow_core::settings::parse::parse_bucket;
use windrow_core::settings::setting;

/// The names of all options in `config.yaml`.
pub fn names() -> impl Iterator<Item = &'static str> {
    setting::options()
        .map(|(option, _)| option)
        .chain(OWN_OPTIONS.iter().map(|option| option.name))
}

/// How long all options may be together. The last good ones are kept in the unit's state, of which
/// Juju takes 64 KiB.
const BYTES_MAX: usize = 48 * 1024;

/// What the options say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The workload's settings, by section, as they go into its file.
    pub settings: Mapping,
    /// The topic to ask Kafka for.
    pub topic: String,
    /// The table's name; `None` in console mode.
    pub table: Option<String>,
    /// The bucket to ask S3 for.
    pub bucket: String,
    /// The bucket that the option `warehouse` names; `None` where it is not set.
    pub warehouse_bucket: Option<String>,
    /// Whether the option `kafka-namespace` names one.
    pub has_namespace: bool,
    /// Certificates for Kafka in PEM, normalized; empty where none are given.
    pub kafka_ca: String,
    /// The same for S3.
    pub s3_ca: String,
    /// The same for PostgreSQL.
    pub metastore_ca: String,
    /// The database to ask PostgreSQL for.
    pub metastore_database: String,
    /// The roles to ask PostgreSQL for, with commas between; empty asks for none.
    pub metastore_roles: String,
}

/// Reads all options.
///
/// # Errors
/// All problems, each with the option, its value and what is allowed. No secret is in them.
pub fn read(values: &OptionValues) -> Result<Options, Vec<String>> {
    let text = |name: &str| values.get(name).map(text_of).unwrap_or_default();
    let mut problems = too_long(values);
    let mut certificate = |name: &str| {
        let value = text(name);
        if value.trim().is_empty() {
            return String::new();
        }
        Certificates::read_all(&value).unwrap_or_else(|why| {
            problems.push(format!(
                "option {name}: {why}; give the certificate as PEM text: juju config APP \
                 {name}=@FILE"
            ));
            String::new()
        })
    };
    let (kafka_ca, s3_ca, metastore_ca) = (
        certificate("kafka-ca"),
        certificate("s3-ca"),
        certificate("metastore-ca"),
    );
    let or_default = |name: &str| {
        let value = text(name);
        let row = OWN_OPTIONS.iter().find(|option| option.name == name);
        match row.and_then(|row| row.default) {
            Some(default) if value.is_empty() => default.to_owned(),
            _ => value,
        }
    };
    let options = Options {
        settings: settings(values),
        topic: text("topic-name"),
        table: Some(text("table-name")).filter(|name| !name.is_empty()),
        bucket: or_default("bucket"),
        warehouse_bucket: warehouse_bucket(&text("warehouse"), &mut problems),
        has_namespace: !text("kafka-namespace").is_empty(),
        kafka_ca,
        s3_ca,
        metastore_ca,
        metastore_database: or_default("metastore-database"),
        metastore_roles: text("metastore-roles")
            .split(',')
            .map(str::trim)
            .collect::<Vec<_>>()
            .join(","),
    };
    check_own(&options, &mut problems);
    if let Err(error) = Config::parse(&probe(&options)) {
        let told = problems.clone();
        let is_told = |problem: &String| {
            let name = problem.split(['"', ':']).next().unwrap_or_default();
            told.iter().any(|told| told.starts_with(name))
        };
        let more = error.0.iter().map(|problem| as_option(problem));
        problems.extend(more.filter(|problem| !is_told(problem)));
    }
    if problems.is_empty() {
        Ok(options)
    } else {
        Err(problems)
    }
}

/// The bucket of the option `warehouse`. A directory would be one of the container, which goes with
/// its pod, while the offsets and Hive's rows of the table stay.
fn warehouse_bucket(warehouse: &str, problems: &mut Vec<String>) -> Option<String> {
    if warehouse.is_empty() {
        return None;
    }
    let Some(path) = warehouse.strip_prefix("s3a://") else {
        let cut: String = warehouse.chars().take(60).collect();
        problems.push(format!(
            "option warehouse \"{}\": the table's files must be in S3; write s3a://BUCKET/PATH",
            cut.escape_debug()
        ));
        return None;
    };
    Some(path.split('/').next().unwrap_or_default().to_owned())
}

/// A problem where all options together are longer than [`BYTES_MAX`], told of the longest.
fn too_long(values: &OptionValues) -> Vec<String> {
    let lengths = || {
        values
            .iter()
            .map(|(name, value)| (text_of(value).len(), name))
    };
    let longest = lengths()
        .max()
        .filter(|_| lengths().map(|(length, _)| length).sum::<usize>() > BYTES_MAX);
    let say = |(_, name): (usize, &String)| {
        format!(
            "option {name}: all options are longer than {} KiB together; write less",
            BYTES_MAX / 1024
        )
    };
    longest.map(say).into_iter().collect()
}

/// Checks the options that only the charm reads.
fn check_own(options: &Options, problems: &mut Vec<String>) {
    if let Err(why) = parse_bucket(&options.bucket) {
        let cut: String = options.bucket.chars().take(60).collect();
        problems.push(format!("option bucket \"{}\": {why}", cut.escape_debug()));
    }
    let mut must = |right: bool, name: &str, value: &str, allowed: &str| {
        if !right {
            let cut: String = value.chars().take(60).collect();
            problems.push(format!(
                "option {name} \"{}\": write {allowed}",
                cut.escape_debug()
            ));
        }
    };
    let word = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    };
    let database = &options.metastore_database;
    must(
        word(database) && database.len() <= 49,
        "metastore-database",
        database,
        "1 to 49 letters, digits, hyphens and underscores",
    );
    let roles = &options.metastore_roles;
    must(
        roles.is_empty() || (roles.len() <= 500 && roles.split(',').all(word)),
        "metastore-roles",
        roles,
        "roles of PostgreSQL with commas between, such as pg_read_all_data,pg_write_all_data",
    );
}

/// The options that are settings, in the sections of the workload's file. An empty option is left
/// out, so that the setting has its default.
fn settings(values: &OptionValues) -> Mapping {
    let mut all = Mapping::new();
    for (option, key) in setting::options() {
        let value = values.get(option).map(text_of).unwrap_or_default();
        if !value.is_empty() {
            put(&mut all, key, value);
        }
    }
    all
}

/// Sets a setting such as `kafka.topic`, and makes its section where there is none.
pub fn put(all: &mut Mapping, path: &str, value: String) {
    match path.split_once('.') {
        None => {
            all.insert(path.into(), value.into());
        }
        Some((section, name)) => {
            let section = all
                .entry(section.into())
                .or_insert_with(|| Yaml::Mapping(Mapping::new()))
                .as_mapping_mut();
            if let Some(section) = section {
                section.insert(name.into(), value.into());
            }
        }
    }
}

/// The options as a whole file, with valid values in place of what the relations will say.
fn probe(options: &Options) -> String {
    let mut all = options.settings.clone();
    put(&mut all, "kafka.bootstrap", "kafka:9092".to_owned());
    put(
        &mut all,
        "catalog",
        "postgresql://metastore:5432/hivemetastore".to_owned(),
    );
    let has_warehouse = all
        .get("table")
        .and_then(|table| table.get("warehouse"))
        .is_some();
    if !has_warehouse {
        put(&mut all, "table.bucket", "spark".to_owned());
    }
    serde_yaml::to_string(&all).unwrap_or_default()
}

/// A problem with a setting, told of the option that the setting comes from.
#[must_use]
pub fn as_option(problem: &str) -> String {
    for (option, key) in setting::options() {
        for verb in ["read", "use", "find"] {
            let prefix = format!("cannot {verb} setting {key}");
            if let Some(rest) = problem.strip_prefix(&prefix)
                && rest.starts_with([' ', ':'])
            {
                return format!("option {option}{rest}");
            }
        }
    }
    problem.to_owned()
}

/// A value as `juju config` shows it.
fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.trim().to_owned(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// The defaults of `config.yaml`, as Juju gives them.
    pub(crate) fn defaults() -> OptionValues {
        let file: Yaml = serde_yaml::from_str(include_str!("../../config.yaml")).unwrap();
        let options = file["options"].as_mapping().unwrap();
        let mut values = OptionValues::new();
        for (name, option) in options {
            if let Some(default) = option.get("default") {
                values.insert(
                    name.as_str().unwrap().to_owned(),
                    serde_json::to_value(default).unwrap(),
                );
            }
        }
        values
    }

    fn with(pairs: &[(&str, &str)]) -> Result<Options, Vec<String>> {
        let mut values = defaults();
        for (name, value) in pairs {
            values.insert((*name).to_owned(), (*value).into());
        }
        read(&values)
    }

    #[test]
    fn every_option_of_the_file_is_read_and_every_one_read_is_in_the_file() {
        let file: Yaml = serde_yaml::from_str(include_str!("../../config.yaml")).unwrap();
        let there: BTreeSet<&str> = file["options"]
            .as_mapping()
            .unwrap()
            .keys()
            .map(|k| k.as_str().unwrap())
            .collect();
        assert_eq!(there, names().collect());
    }

    #[test]
    fn the_defaults_are_right_and_are_the_workload_s() {
        let options = read(&defaults()).unwrap();
        assert_eq!(
            (options.topic.as_str(), options.table.as_deref()),
            ("test-topic", Some("newtable"))
        );
        assert_eq!(
            (options.bucket.as_str(), options.metastore_database.as_str()),
            ("spark", "hivemetastore")
        );
        let mut bare = Mapping::new();
        put(&mut bare, "kafka.topic", "test-topic".to_owned());
        put(&mut bare, "table.name", "newtable".to_owned());
        let bare = Options {
            settings: bare,
            ..options.clone()
        };
        assert_eq!(
            Config::parse(&probe(&options)),
            Config::parse(&probe(&bare))
        );
    }

    #[test]
    fn what_is_wrong_names_option_value_and_what_is_allowed() {
        for (option, value, expect) in [
            (
                "watermark-delay",
                "10 sconds",
                "option watermark-delay \"10 sconds\": ",
            ),
            ("slide", "20s", "option slide \"20s\" with window \"10s\": "),
            (
                "window-offset",
                "1h",
                "option window-offset \"1h\" with slide",
            ),
            ("topic-name", "", "option topic-name: "),
            (
                "bucket",
                "Spark!",
                "option bucket \"Spark!\": not a bucket's name; write",
            ),
            (
                "metastore-roles",
                "a;drop",
                "option metastore-roles \"a;drop\": write roles",
            ),
            ("metastore-database", "", ""),
            (
                "warehouse",
                "/var/lib/windrow",
                "option warehouse \"/var/lib/windrow\": the table's files must be in S3; \
                 write s3a://BUCKET/PATH",
            ),
            (
                "warehouse",
                "file:///var/lib",
                "option warehouse \"file:///var/lib\": the table's files must be in S3",
            ),
            ("warehouse", "s3a://spark/warehouse", ""),
            ("kafka-ca", "enabled", "option kafka-ca: "),
            ("log-level", "loud", "option log-level \"loud\": "),
            ("max-keys", "0", "option max-keys \"0\": "),
        ] {
            match with(&[(option, value)]) {
                Ok(_) => assert_eq!(expect, "", "{option}={value}"),
                Err(problems) => assert!(
                    !expect.is_empty() && problems.len() == 1 && problems[0].starts_with(expect),
                    "{option}: {problems:?}"
                ),
            }
        }
        let two = with(&[("window", "x"), ("idle-timeout", "y")]).unwrap_err();
        assert_eq!(two.len(), 2, "all that is wrong is told at once: {two:?}");
    }

    #[test]
    fn console_mode_has_no_table() {
        assert_eq!(with(&[("table-name", "")]).unwrap().table, None);
    }
}
