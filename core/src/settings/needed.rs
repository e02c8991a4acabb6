//! Which secrets the settings need, and what is in force when some of them are not there.

use crate::settings::config::{CatalogSettings, Config};
use crate::settings::secrets::Secrets;
use crate::settings::yaml::ConfigError;
use crate::table::place::{Place, TablePlace};

impl Config {
    /// The keys of the secrets that these settings need, each with the setting that needs it.
    fn needed_secrets(&self) -> Vec<(&'static str, &'static str)> {
        let mut needed = Vec::new();
        if self.kafka.security.logs_in() {
            needed.extend(["kafka-username", "kafka-password"].map(|key| (key, "kafka.security")));
        }
        if let Some(table) = &self.table {
            let by = match &table.place {
                TablePlace::At(Place::Bucket { .. }) => Some("table.warehouse"),
                TablePlace::InBucket(_) => Some("table.bucket"),
                TablePlace::At(Place::Directory(_)) => None,
            };
            if let Some(by) = by {
                needed.extend(["s3-access-key", "s3-secret-key"].map(|key| (key, by)));
            }
            if matches!(self.catalog, Some(CatalogSettings::Postgres { .. })) {
                needed.extend(["catalog-username", "catalog-password"].map(|key| (key, "catalog")));
            }
        }
        needed
    }

    /// Checks that the secrets that these settings need are there.
    ///
    /// # Errors
    /// Those that cannot be used, and the names of those that are missing, with the settings that
    /// need them.
    pub fn check_secrets(&self, secrets: &Secrets) -> Result<(), ConfigError> {
        let mut missing = Vec::new();
        for (key, by) in self.needed_secrets() {
            if secrets.get(key).is_some() {
                continue;
            }
            missing.push(secrets.problem_of(key).map_or_else(
                || format!("cannot find secret {key}: {by} needs it; add it to the secrets file"),
                |problem| problem.text.clone(),
            ));
        }
        if missing.is_empty() {
            Ok(())
        } else {
            Err(ConfigError(missing))
        }
    }

    /// What is in force after a rotation from `in_force` to what the secrets file holds `now`. A
    /// login that these settings need, and that is not there as a whole, stays as it was; all the
    /// rest is as the file says.
    #[must_use]
    pub fn rotate_secrets(&self, in_force: &Secrets, now: Secrets) -> Secrets {
        let needed: Vec<_> = self.needed_secrets().iter().map(|(key, _)| *key).collect();
        in_force.rotated(now, &needed)
    }
}
