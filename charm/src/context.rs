//! The environment of a dispatch: what happened, and which unit this is.
//!
//! Juju's documentation lists the variables under "charm environment variables". The charm reads no
//! others.

use anyhow::{Context as _, anyhow};
use std::path::PathBuf;
use windrow_core::settings::config::Secret;

/// Which unit this is, and why Juju has called it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// What Juju calls us for.
    pub happened: Happened,
    /// `windrow/0`.
    pub unit: String,
    /// The UUID of our model.
    pub model_uuid: String,
    /// The name of our model; empty where Juju does not say it.
    pub model_name: String,
    /// The charm's own folder.
    pub charm_dir: PathBuf,
    /// The model's proxy for `http://` URLs, through which S3 is reached. It may hold a password.
    pub http_proxy: Option<Secret>,
    /// The same for `https://` URLs.
    pub https_proxy: Option<Secret>,
    /// Hosts that are reached without a proxy, with commas between them.
    pub no_proxy: String,
}

/// What Juju calls us for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happened {
    /// An event.
    Hook {
        /// `config-changed`, `windrow-pebble-ready` and so on.
        name: String,
        /// The relation whose event it is; `None` for the other events.
        relation: Option<RelationEvent>,
    },
    /// An action, by its name.
    Action(String),
}

/// The relation of a relation's event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelationEvent {
    /// `kafka-client`.
    pub endpoint: String,
    /// `kafka-client:4`.
    pub id: String,
    /// The remote application; empty where an old Juju does not say it.
    pub app: String,
    /// Whether the relation is ending. Then nothing that it gave counts any more.
    pub broken: bool,
}

impl Context {
    /// Reads Juju's variables; `variable` gives the value of one by its name.
    ///
    /// # Errors
    /// A variable is not set: it was not Juju that called us.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> anyhow::Result<Self> {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let need = |name: &str| {
            set(name).ok_or_else(|| {
                anyhow!(
                    "cannot read variable {name}: it is not set; only Juju can run dispatch; \
                     to look at a table run: windrow status"
                )
            })
        };
        let happened = match set("JUJU_ACTION_NAME") {
            Some(action) => Happened::Action(action),
            None => {
                let path = need("JUJU_DISPATCH_PATH")?;
                let name = path.strip_prefix("hooks/").unwrap_or(&path).to_owned();
                Happened::Hook {
                    relation: relation_event(&name, &set),
                    name,
                }
            }
        };
        let unit = need("JUJU_UNIT_NAME")?;
        unit.split_once('/')
            .context("cannot parse variable JUJU_UNIT_NAME: it has no number")?;
        let secret = |name: &str| set(name).map(Secret::new);
        Ok(Self {
            happened,
            unit,
            model_uuid: need("JUJU_MODEL_UUID")?,
            model_name: set("JUJU_MODEL_NAME").unwrap_or_default(),
            charm_dir: need("JUJU_CHARM_DIR")
                .or_else(|_| need("CHARM_DIR"))?
                .into(),
            http_proxy: secret("JUJU_CHARM_HTTP_PROXY"),
            https_proxy: secret("JUJU_CHARM_HTTPS_PROXY"),
            no_proxy: set("JUJU_CHARM_NO_PROXY").unwrap_or_default(),
        })
    }

    /// The application's name: `windrow` of `windrow/0`.
    #[must_use]
    pub fn app(&self) -> &str {
        self.unit.split('/').next().unwrap_or_default()
    }

    /// The name by which other processes know this one: `<model uuid>/<application>/<unit number>`.
    #[must_use]
    pub fn instance(&self) -> String {
        format!("{}/{}", self.model_uuid, self.unit)
    }

    /// The name of the hook; `None` in an action.
    #[must_use]
    pub fn hook(&self) -> Option<&str> {
        match &self.happened {
            Happened::Hook { name, .. } => Some(name),
            Happened::Action(_) => None,
        }
    }

    /// The relation whose event it is; `None` for other events and in an action.
    #[must_use]
    pub fn relation(&self) -> Option<&RelationEvent> {
        match &self.happened {
            Happened::Hook { relation, .. } => relation.as_ref(),
            Happened::Action(_) => None,
        }
    }
}

fn relation_event(hook: &str, set: &impl Fn(&str) -> Option<String>) -> Option<RelationEvent> {
    Some(RelationEvent {
        endpoint: set("JUJU_RELATION")?,
        id: set("JUJU_RELATION_ID")?,
        app: set("JUJU_REMOTE_APP").unwrap_or_default(),
        broken: hook.ends_with("-relation-broken"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(set: &[(&str, &str)]) -> anyhow::Result<Context> {
        let always = [
            ("JUJU_UNIT_NAME", "w/3"),
            ("JUJU_MODEL_UUID", "uuid-1"),
            ("JUJU_CHARM_DIR", "/charm"),
        ];
        Context::read(|name| {
            set.iter()
                .chain(&always)
                .find(|(n, _)| *n == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn hooks_relations_and_actions_are_told_apart() {
        let context = read(&[
            ("JUJU_DISPATCH_PATH", "hooks/config-changed"),
            ("JUJU_RELATION", ""),
        ])
        .unwrap();
        assert_eq!(context.hook(), Some("config-changed"));
        assert_eq!(
            (context.app(), context.instance().as_str()),
            ("w", "uuid-1/w/3")
        );
        assert_eq!(context.relation(), None);

        let context = read(&[
            ("JUJU_DISPATCH_PATH", "hooks/s3-credentials-relation-broken"),
            ("JUJU_RELATION", "s3-credentials"),
            ("JUJU_RELATION_ID", "s3-credentials:7"),
            ("JUJU_REMOTE_APP", "s3"),
        ])
        .unwrap();
        let relation = context.relation().unwrap();
        assert!(relation.broken && relation.id == "s3-credentials:7" && relation.app == "s3");

        let context = read(&[
            ("JUJU_DISPATCH_PATH", "actions/pause"),
            ("JUJU_ACTION_NAME", "pause"),
        ])
        .unwrap();
        assert_eq!(context.happened, Happened::Action("pause".to_owned()));
        assert!(
            read(&[])
                .unwrap_err()
                .to_string()
                .contains("only Juju can run dispatch")
        );
    }
}
