//! The hook commands about secrets.

use super::Stop::{Failed, Usage};
use super::parse::{Parsed, secret_id, secret_pairs};
use super::{Bag, Juju, Secret, SecretChange, Stop, app_of};
use serde_json::json;

impl Juju {
    /// Whether this unit may change the secret and see its metadata.
    pub(super) fn manages(&self, secret: &Secret) -> bool {
        secret.owner == self.unit || (secret.owner == app_of(&self.unit) && self.leader)
    }

    pub(super) fn secret_get(&mut self, p: &Parsed) -> Result<String, Stop> {
        let mut id = None;
        if let Some(uri) = p.args.first() {
            id =
                Some(secret_id(uri).ok_or_else(|| Usage(format!("secret URI {uri:?} not valid")))?);
        }
        let label = p.text("label").to_owned();
        if id.is_none() && label.is_empty() {
            return Err(Usage("require either a secret URI or label".to_owned()));
        }
        if p.has("peek") && p.has("refresh") {
            return Err(Usage(
                "specify one of --peek or --refresh but not both".to_owned(),
            ));
        }
        p.at_most(2)?;
        let key = p.args.get(1).cloned().unwrap_or_default();
        for change in &self.hook().secrets {
            if let SecretChange::Add(added, secret) = change
                && (id.as_ref() == Some(added) || (!label.is_empty() && secret.label == label))
            {
                let content = secret.revisions[0].clone().unwrap_or_default();
                return show_secret(p, &content, &key);
            }
        }
        let (unit, own_app) = (self.unit.clone(), app_of(&self.unit).to_owned());
        let mine = |s: &Secret| s.owner == unit || s.owner == own_app;
        let id = match id {
            Some(id) => id,
            None => {
                let ours = self
                    .secrets
                    .iter()
                    .find(|(_, s)| mine(s) && s.label == label);
                let found = ours.or_else(|| {
                    self.secrets
                        .iter()
                        .find(|(_, s)| !mine(s) && s.our_label == label)
                });
                found
                    .map(|(id, _)| id.clone())
                    .ok_or_else(|| Failed(format!("consumer label {label:?} not found")))?
            }
        };
        let taken = self
            .secrets
            .iter()
            .any(|(other, s)| *other != id && !mine(s) && s.our_label == label);
        let secret = self
            .secrets
            .get_mut(&id)
            .ok_or_else(|| Failed(format!("secret {id:?} not found")))?;
        if !secret.granted && !mine(secret) {
            return Err(Failed("permission denied".to_owned()));
        }
        if !label.is_empty() && !mine(secret) && !p.args.is_empty() && !taken {
            secret.our_label = label;
        }
        let latest = secret.revisions.len();
        let wanted = if p.has("peek") || p.has("refresh") || secret.tracked == 0 {
            latest
        } else {
            secret.tracked
        };
        if p.has("refresh") || secret.tracked == 0 {
            secret.tracked = wanted;
        }
        let content = secret.revisions[wanted - 1].clone();
        let content =
            content.ok_or_else(|| Failed(format!("secret revision {wanted} not found")))?;
        show_secret(p, &content, &key)
    }

    pub(super) fn secret_add(&mut self, p: &Parsed) -> Result<String, Stop> {
        if p.args.is_empty() && p.text("file").is_empty() {
            return Err(Usage("missing secret value or filename".to_owned()));
        }
        let owner = match p.text("owner") {
            "" | "application" => app_of(&self.unit).to_owned(),
            "unit" => self.unit.clone(),
            other => return Err(Usage(format!("secret owner {other:?} not valid"))),
        };
        let content = secret_pairs(&p.args)?;
        if owner != self.unit && !self.leader {
            return Err(Failed("this unit is not the leader".to_owned()));
        }
        self.made += 1;
        let id = format!("c0added{:012}g", self.made);
        let secret = Secret {
            owner,
            label: p.text("label").to_owned(),
            our_label: String::new(),
            revisions: vec![Some(content)],
            granted: true,
            tracked: 0,
        };
        self.hook()
            .secrets
            .push(SecretChange::Add(id.clone(), secret));
        Ok(format!("secret:{id}\n"))
    }

    pub(super) fn secret_change(&mut self, command: &str, p: &Parsed) -> Result<String, Stop> {
        let Some(uri) = p.args.first() else {
            return Err(Usage("missing secret URI".to_owned()));
        };
        let id = secret_id(uri).ok_or_else(|| Usage(format!("secret URI {uri:?} not valid")))?;
        let change = if command == "secret-set" {
            SecretChange::Set(id, secret_pairs(&p.args[1..])?)
        } else {
            p.at_most(1)?;
            SecretChange::Remove(id)
        };
        // Whether this unit may do so is checked only when the hook ends.
        self.hook().secrets.push(change);
        Ok(String::new())
    }

    pub(super) fn secret_info_get(&mut self, p: &Parsed) -> Result<String, Stop> {
        let mut wanted = p.text("label").to_owned();
        let by_id = !p.args.is_empty();
        if let Some(uri) = p.args.first() {
            if !wanted.is_empty() {
                return Err(Usage(
                    "specify either a secret URI or label but not both".to_owned(),
                ));
            }
            wanted =
                secret_id(uri).ok_or_else(|| Usage(format!("secret URI {uri:?} not valid")))?;
        }
        if wanted.is_empty() {
            return Err(Usage("require either a secret URI or label".to_owned()));
        }
        p.at_most(1)?;
        let is = |id: &String, s: &Secret| {
            self.manages(s)
                && if by_id {
                    *id == wanted
                } else {
                    s.label == wanted
                }
        };
        let found = self.secrets.iter().find(|(id, s)| is(id, s));
        let (id, secret) = found.ok_or_else(|| Failed(format!("secret {wanted:?} not found")))?;
        let owner = if secret.owner == self.unit {
            "unit"
        } else {
            "application"
        };
        let info =
            json!({"revision": secret.revisions.len(), "label": secret.label, "owner": owner});
        Ok(p.write(&json!({id.clone(): info})))
    }
}

fn show_secret(p: &Parsed, content: &Bag, key: &str) -> Result<String, Stop> {
    match key {
        "" => Ok(p.write(&json!(content))),
        key => match content.get(key.trim_end_matches("#base64")) {
            None => Err(Failed(format!("secret key value {key:?} not found"))),
            Some(value) => Ok(p.write(&json!(value))),
        },
    }
}
