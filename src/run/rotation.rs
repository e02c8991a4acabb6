//! SIGHUP: secrets are read again at once and the log's level is applied; of all else it is said that only a restart
//! brings it. It ends nothing, whenever it comes.

use crate::io::files;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tracing::{info, warn};
use windrow_core::settings::config::{CatalogSettings, Config, ConfigError};

/// From here on SIGHUP is heard and no longer ends the process.
///
/// # Errors
/// The system refuses.
pub fn hangups(runtime: &Runtime) -> std::io::Result<Signal> {
    let _inside = runtime.enter();
    signal(SignalKind::hangup())
}

/// What was read at the start, to see what is another now.
pub struct Known {
    path: Option<PathBuf>,
    config: Config,
    level: &'static str,
    ca_files: Vec<Option<Vec<u8>>>,
}

/// What is other than it was.
#[derive(Debug, Default, PartialEq, Eq)]
struct Changed {
    level: Option<&'static str>,
    /// Any other setting than the level.
    settings: bool,
    /// What a CA file holds.
    ca_files: bool,
}

impl Known {
    /// `path` is what `--config` says.
    pub fn new(path: Option<&Path>, config: &Config) -> Self {
        let path = path.map(Path::to_owned);
        Self {
            path,
            config: config.clone(),
            level: config.log.level,
            ca_files: ca_files(config),
        }
    }

    fn look(&mut self) -> Result<Changed, ConfigError> {
        let mut now = files::load_config(self.path.as_deref())?;
        let level = std::mem::replace(&mut now.log.level, self.config.log.level);
        let changed = Changed {
            level: (level != self.level).then_some(level),
            settings: now != self.config,
            ca_files: ca_files(&self.config) != self.ca_files,
        };
        self.level = level;
        Ok(changed)
    }
}

/// What the files hold that the settings name.
fn ca_files(config: &Config) -> Vec<Option<Vec<u8>>> {
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

/// Hears every SIGHUP until the process ends.
pub async fn hear(
    mut hangups: Signal,
    mut known: Known,
    secrets: Arc<Notify>,
    set_level: impl Fn(&'static str),
) {
    while hangups.recv().await.is_some() {
        secrets.notify_one();
        match known.look() {
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
                        "{what} have changed that are only read at the start: restart windrow to use them"
                    );
                }
            }
            Err(error) => {
                warn!(error = %error, "cannot read the settings again; going on with those we have");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_has_changed_is_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let (main, ca) = (
            folder.path().join("windrow.yaml"),
            folder.path().join("ca.pem"),
        );
        let write = |more: &str| {
            let ca = ca.display();
            let kafka =
                format!("kafka: {{ bootstrap: 'k:9092', topic: t, ca-file: {ca} }}\n{more}");
            fs::write(&main, kafka).unwrap();
        };
        write("");
        fs::write(&ca, "one").unwrap();
        let config = files::load_config(Some(&main)).unwrap();
        let mut known = Known::new(Some(&main), &config);
        assert_eq!(known.look().unwrap(), Changed::default());

        write("log: { level: debug }");
        assert_eq!(
            known.look().unwrap(),
            Changed {
                level: Some("debug"),
                ..Changed::default()
            }
        );
        assert_eq!(known.look().unwrap(), Changed::default(), "it is in force");
        write("log: { level: debug }\nwindow: 20s");
        assert_eq!(
            known.look().unwrap(),
            Changed {
                settings: true,
                ..Changed::default()
            }
        );
        assert_eq!(
            known.look().unwrap(),
            Changed {
                settings: true,
                ..Changed::default()
            },
            "still"
        );
        write("");
        fs::write(&ca, "two").unwrap();
        assert_eq!(
            known.look().unwrap(),
            Changed {
                level: Some("info"),
                ca_files: true,
                settings: false
            }
        );
        write("windw: 20s");
        assert!(known.look().is_err());
    }
}
