//! What is read again while windrow runs: the secrets whenever their file changes, and settings and
//! secrets at a SIGHUP. New secrets and a new log level are used at once. Of everything else it is
//! only said that it needs a restart. A SIGHUP never ends the process.
#![expect(
    clippy::disallowed_methods,
    reason = "the edge that waits until the secrets file is due to be read again"
)]

use crate::io::catalog::session::PgConfig;
use crate::io::files;
use crate::io::kafka::KafkaConfig;
use crate::io::store::Store;
use crate::run::clients::{expose, http_token, kafka_login};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, watch};
use tracing::{info, warn};
use windrow_core::settings::config::{CatalogSettings, Config, ConfigError};
use windrow_core::settings::secrets::{Secret, SecretProblem, Secrets};

/// How long between two looks at whether the secrets file has changed.
const SECRETS_EVERY: Duration = Duration::from_secs(5);

/// Reads the secrets file every few seconds, and at once when `reload` says so. What is in force
/// from then on is handed to `report` when it has changed, until that answers `false`, because
/// nobody listens any more. While the file cannot be read, the secrets in force stay, and their
/// problem is that file.
pub async fn watch_secrets(
    config: Config,
    mut in_force: Secrets,
    reload: Arc<Notify>,
    report: impl Fn(Secrets) -> bool,
) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(SECRETS_EVERY) => {}
            () = reload.notified() => {}
        }
        let now = match files::load_secrets(&config) {
            Ok(read) => config.rotate_secrets(&in_force, read),
            Err(error) => {
                let text = error.0.join("; ") + "; going on with the secrets as they were before";
                let problems = vec![SecretProblem { key: None, text }];
                Secrets {
                    problems,
                    ..in_force.clone()
                }
            }
        };
        if now == in_force {
            continue;
        }
        if now.problems != in_force.problems {
            log_problems(&now);
        }
        in_force = now.clone();
        if !report(now) {
            return;
        }
    }
}

/// Logs what of the secrets file cannot be used. The sentences hold no secret.
pub fn log_problems(secrets: &Secrets) {
    for problem in &secrets.problems {
        warn!(
            problem = problem.text,
            "a secret is left out; all others are used"
        );
    }
}

/// Where new secrets go, except to the clients of the loop itself.
pub struct Rotation {
    /// How PostgreSQL was reached at the start; `None` for a catalog in a directory. CA files are
    /// not read again, so that one that is gone by now holds back no login.
    pub catalog: Option<PgConfig>,
    /// The secrets that are in use.
    pub in_use: Secrets,
    /// The token that the HTTP server asks for.
    pub token: watch::Sender<Option<Secret>>,
    /// The login of those who look into the catalog beside the loop; `None` before the first
    /// rotation.
    pub look_login: watch::Sender<Option<PgConfig>>,
}

/// What the loop must do about new secrets.
pub struct NewLogins {
    /// The login to the catalog; `None` for a directory, which needs none.
    pub catalog: Option<PgConfig>,
    /// How to reach Kafka, where the name or the password of the user changed. Then a new client
    /// is needed.
    pub kafka: Option<KafkaConfig>,
}

impl Rotation {
    /// Puts new secrets to use. `kafka` is how Kafka is reached now. Returns `None` where they are
    /// those that are in use.
    pub fn apply(
        &mut self,
        secrets: &Secrets,
        kafka: &KafkaConfig,
        store: &Store,
    ) -> Option<NewLogins> {
        if self.in_use.has_same_values(secrets) {
            return None;
        }
        self.in_use = secrets.clone();
        info!("secrets have changed: using the new ones");
        store.set_credentials(
            &expose(secrets.s3_access_key.as_ref()),
            &expose(secrets.s3_secret_key.as_ref()),
        );
        if let Err(error) = store.set_proxy(secrets.s3_proxy.as_ref()) {
            warn!(error = %error, "cannot use the new secrets for S3");
        }
        let catalog = self.catalog.as_ref().map(|catalog| {
            catalog.with_login(
                &expose(secrets.catalog_username.as_ref()),
                &expose(secrets.catalog_password.as_ref()),
            )
        });
        if let Some(login) = &catalog {
            self.look_login.send_replace(Some(login.clone()));
        }
        match http_token(secrets) {
            Ok(token) => drop(self.token.send_replace(token)),
            Err(error) => warn!(error = %error, "cannot use the new api-token"),
        }
        let (username, password) = kafka_login(secrets);
        let kafka = kafka.with_login(username, password);
        Some(NewLogins { catalog, kafka })
    }
}

/// From here on a SIGHUP is received and no longer ends the process.
///
/// # Errors
/// The system refuses.
pub fn hangups(runtime: &Runtime) -> std::io::Result<Signal> {
    let _inside = runtime.enter();
    signal(SignalKind::hangup())
}

/// The settings as they were read at the start, so that a change can be seen.
pub struct Loaded {
    path: Option<PathBuf>,
    config: Config,
    level: &'static str,
    /// What each CA file held; `None` for one that is not set or cannot be read.
    ca_files: Vec<Option<Vec<u8>>>,
}

/// What differs from what was read before.
#[derive(Debug, Default, PartialEq, Eq)]
struct Changed {
    /// The new level of the log. It is reported once, because it is used at once.
    level: Option<&'static str>,
    /// Any setting other than the level.
    settings: bool,
    /// What a CA file holds.
    ca_files: bool,
}

impl Loaded {
    /// `path` is what `--config` says.
    pub fn new(path: Option<&Path>, config: &Config) -> Self {
        let path = path.map(Path::to_owned);
        Self {
            path,
            config: config.clone(),
            level: config.log.level,
            ca_files: read_ca_files(config),
        }
    }

    fn read_again(&mut self) -> Result<Changed, ConfigError> {
        let mut now = files::load_config(self.path.as_deref())?;
        let level = std::mem::replace(&mut now.log.level, self.config.log.level);
        let changed = Changed {
            level: (level != self.level).then_some(level),
            settings: now != self.config,
            ca_files: read_ca_files(&self.config) != self.ca_files,
        };
        self.level = level;
        Ok(changed)
    }
}

fn read_ca_files(config: &Config) -> Vec<Option<Vec<u8>>> {
    let catalog = match &config.catalog {
        Some(CatalogSettings::Postgres { ca_file, .. }) => ca_file.as_ref(),
        _ => None,
    };
    let files = [
        config.kafka.ca_file.as_ref(),
        config.s3.ca_file.as_ref(),
        catalog,
    ];
    files
        .into_iter()
        .map(|file| std::fs::read(file?).ok())
        .collect()
}

/// Answers every SIGHUP until the process ends. `secrets` has the secrets file read again.
pub async fn reload_at_hangups(
    mut hangups: Signal,
    mut loaded: Loaded,
    secrets: Arc<Notify>,
    set_level: impl Fn(&'static str),
) {
    while hangups.recv().await.is_some() {
        secrets.notify_one();
        match loaded.read_again() {
            Ok(changed) => {
                if let Some(level) = changed.level {
                    set_level(level);
                }
                info!("SIGHUP: settings and secrets are read again");
                if changed.settings || changed.ca_files {
                    let what = if changed.settings {
                        "settings"
                    } else {
                        "CA files"
                    };
                    warn!(
                        "{what} have changed that are only read at the start: restart windrow to \
                         use them"
                    );
                }
            }
            Err(error) => {
                warn!(
                    error = %error,
                    "cannot read the settings again; going on with the ones in force"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::store::S3Config;
    use std::fs;
    use windrow_core::settings::config::CatalogTls;

    /// A secrets file of a folder, and the settings that need Kafka's login and name that file.
    fn with_secrets(text: &str) -> (tempfile::TempDir, Config, Secrets) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secrets.yaml");
        let settings = format!(
            "kafka: {{ bootstrap: 'k:9092', topic: t }}\nsecrets-file: {}\n",
            path.display()
        );
        write_secrets(&folder, text);
        let config = Config::parse(&settings).unwrap();
        let secrets = files::load_secrets(&config).unwrap();
        (folder, config, secrets)
    }

    fn write_secrets(folder: &tempfile::TempDir, text: &str) {
        use std::os::unix::fs::PermissionsExt;
        let path = folder.path().join("secrets.yaml");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// Watches the file through these texts, one after the other, and gives what was reported.
    async fn rotations(texts: &[&str]) -> Vec<Secrets> {
        let (folder, config, secrets) =
            with_secrets("kafka-username: me\nkafka-password: one\napi-token: t1\n");
        let (reload, mut reported) = (Arc::new(Notify::new()), Vec::new());
        let (report, mut reports) = tokio::sync::mpsc::unbounded_channel();
        let watching = tokio::spawn(watch_secrets(
            config,
            secrets,
            Arc::clone(&reload),
            move |secrets| report.send(secrets).is_ok(),
        ));
        for text in texts {
            write_secrets(&folder, text);
            reload.notify_one();
            let report = tokio::time::timeout(Duration::from_secs(10), reports.recv()).await;
            reported.push(report.expect("a report in time").expect("it watches"));
        }
        watching.abort();
        reported
    }

    fn shown(secret: Option<&Secret>) -> &str {
        secret.map_or("-", Secret::expose)
    }

    #[tokio::test]
    async fn a_newline_after_the_token_stops_no_rotation() {
        let reported = rotations(&[
            "kafka-username: me\nkafka-password: two\napi-token: \"t2\\n\"\n",
            "kafka-username: me\nkafka-password: \"three\\r\\n\"\napi-token: \"t\\nx\"\n",
        ])
        .await;
        let [first, second] = &reported[..] else {
            panic!("{reported:?}");
        };
        assert_eq!(shown(first.kafka_password.as_ref()), "two");
        assert_eq!(shown(first.api_token.as_ref()), "t2");
        assert_eq!(first.problems_text(), "");
        assert_eq!(shown(second.kafka_password.as_ref()), "three");
        let text = second.problems_text();
        assert!(
            text.starts_with("cannot read secret api-token: ")
                && text.ends_with("; the one before stays in use"),
            "{text}"
        );
        // The door stays shut.
        assert_eq!(shown(second.api_token.as_ref()), "t2");
    }

    #[test]
    fn a_bad_token_at_the_start_lets_nobody_in() {
        let secrets = Secrets::parse("api-token: \"t\\nx\"\n").unwrap();
        let token = http_token(&secrets)
            .unwrap()
            .expect("one that nobody knows");
        assert_eq!(token.expose().len(), 32);
        assert_eq!(http_token(&Secrets::default()).unwrap(), None);
    }

    #[test]
    fn a_ca_file_that_is_gone_holds_back_no_new_login() {
        let settings = "kafka: { bootstrap: 'k:9092', topic: t, security: sasl-ssl, \
                        ca-file: /nowhere/ca.pem }\n";
        let old = Secrets::parse("kafka-username: me\nkafka-password: one\n").unwrap();
        let kafka = KafkaConfig {
            settings: Config::parse(settings).unwrap().kafka,
            topic: "t".to_owned(),
            username: "me".to_owned(),
            password: Secret::new("one"),
            group: "g".to_owned(),
            ca_pem: None,
            fetched_bytes: 1 << 20,
            partitions: 0,
        };
        let url = "postgresql://db:5432/hive";
        let catalog = PgConfig::new(url, "u", "p1", CatalogTls::VerifyFull, None).unwrap();
        let s3 = S3Config {
            settings: Config::parse(settings).unwrap().s3,
            ca_pem: None,
            access_key: String::new(),
            secret_key: String::new(),
            proxy: None,
        };
        let store = Store::open(&"/nowhere".parse().unwrap(), &s3).unwrap();
        let (token, _token) = watch::channel(None);
        let (look_login, look) = watch::channel(None);
        let mut rotation = Rotation {
            catalog: Some(catalog),
            in_use: old.clone(),
            token,
            look_login,
        };
        assert!(rotation.apply(&old, &kafka, &store).is_none());
        let new = "kafka-username: me\nkafka-password: two\ncatalog-username: u\n\
                   catalog-password: p2\napi-token: t1\n";
        let new = Secrets::parse(new).unwrap();
        let logins = rotation.apply(&new, &kafka, &store).expect("new secrets");
        assert_eq!(logins.kafka.expect("a new client").password.expose(), "two");
        assert!(logins.catalog.is_some() && look.borrow().is_some());
        // The same user of Kafka needs no new client.
        let other = Secrets::parse("kafka-username: me\nkafka-password: one\n").unwrap();
        let logins = rotation
            .apply(&other, &kafka, &store)
            .expect("other secrets");
        assert!(logins.kafka.is_none());
    }

    #[tokio::test]
    async fn a_secrets_file_that_cannot_be_read_is_named_and_changes_no_secret() {
        let reported = rotations(&[
            "kafka-username: me\nkafka-password: [two\n",
            "kafka-username: me\nkafka-password: two\n",
        ])
        .await;
        assert_eq!(shown(reported[0].kafka_password.as_ref()), "one");
        let text = reported[0].problems_text();
        assert!(
            text.contains("secrets.yaml: ")
                && text.ends_with("; going on with the secrets as they were before"),
            "{text}"
        );
        assert_eq!(shown(reported[1].kafka_password.as_ref()), "two");
        assert_eq!(reported[1].problems_text(), "");
    }

    #[test]
    fn each_kind_of_change_is_reported() {
        let folder = tempfile::tempdir().unwrap();
        let (main, ca) = (
            folder.path().join("windrow.yaml"),
            folder.path().join("ca.pem"),
        );
        let write = |more: &str| {
            let ca = ca.display();
            let kafka = format!(
                "kafka: {{ bootstrap: 'k:9092', topic: t, security: ssl, ca-file: {ca} }}\n{more}"
            );
            fs::write(&main, kafka).unwrap();
        };
        write("");
        fs::write(&ca, "one").unwrap();
        let config = files::load_config(Some(&main)).unwrap();
        let mut loaded = Loaded::new(Some(&main), &config);
        assert_eq!(loaded.read_again().unwrap(), Changed::default());

        write("log: { level: debug }");
        assert_eq!(
            loaded.read_again().unwrap(),
            Changed {
                level: Some("debug"),
                ..Changed::default()
            }
        );
        assert_eq!(
            loaded.read_again().unwrap(),
            Changed::default(),
            "the level is used already"
        );
        write("log: { level: debug }\nwindow: 20s");
        assert_eq!(
            loaded.read_again().unwrap(),
            Changed {
                settings: true,
                ..Changed::default()
            }
        );
        assert_eq!(
            loaded.read_again().unwrap(),
            Changed {
                settings: true,
                ..Changed::default()
            },
            "the restart is still needed"
        );
        write("");
        fs::write(&ca, "two").unwrap();
        assert_eq!(
            loaded.read_again().unwrap(),
            Changed {
                level: Some("info"),
                ca_files: true,
                settings: false
            }
        );
        write("windw: 20s");
        assert!(loaded.read_again().is_err());
    }
}
