//! What Juju keeps when a hook has ended well.

use super::{Bag, Hook, Juju, SecretChange, apply};

impl Juju {
    /// Keeps what the hook has left behind, and says what that was, line by line.
    ///
    /// # Errors
    /// Why Juju would refuse it. Then the hook has failed, and nothing that it left behind is kept.
    pub fn commit(&mut self, hook: &mut Hook) -> Result<Vec<String>, String> {
        let mut said = Vec::new();
        self.commit_secrets(hook, &mut said)?;
        if let Some(state) = &hook.state {
            let size: usize = state.iter().map(|(k, v)| k.len() + v.len()).sum();
            if size > 2 << 20 {
                return Err(format!(
                    "max allowed size ({}) exceeded: quota limit exceeded",
                    2 << 20
                ));
            }
        }
        self.commit_bags(hook, &mut said);
        self.commit_state(hook, &mut said);
        for port in std::mem::take(&mut hook.close) {
            if self.ports.remove(&port) {
                said.push(format!("close {port}"));
            }
        }
        for port in std::mem::take(&mut hook.open) {
            said.push(format!("open {port}"));
            self.ports.insert(port);
        }
        Ok(said)
    }

    fn commit_secrets(&mut self, hook: &mut Hook, said: &mut Vec<String>) -> Result<(), String> {
        for change in std::mem::take(&mut hook.secrets) {
            let may = |juju: &Juju, id: &String| match juju.secrets.get(id) {
                None => Err("updating secrets: secret not found".to_owned()),
                Some(secret) if juju.manages(secret) => Ok(()),
                Some(_) => Err("updating secrets: permission denied".to_owned()),
            };
            match change {
                SecretChange::Add(id, secret) => {
                    said.push(format!("secret {id} added"));
                    self.secrets.insert(id, secret);
                }
                SecretChange::Set(id, content) => {
                    may(self, &id)?;
                    said.push(format!("secret {id} set"));
                    self.secrets
                        .get_mut(&id)
                        .expect("checked")
                        .revisions
                        .push(Some(content));
                }
                SecretChange::Remove(id) => {
                    may(self, &id)?;
                    said.push(format!("secret {id} removed"));
                    self.secrets.remove(&id);
                }
            }
        }
        Ok(())
    }

    fn commit_bags(&mut self, hook: &mut Hook, said: &mut Vec<String>) {
        for ((id, app), changes) in std::mem::take(&mut hook.bags) {
            let relation = self.relations.get_mut(&id).expect("checked by the command");
            let name = format!("{}:{id}", relation.endpoint);
            let bag = if app {
                &mut relation.ours_app
            } else {
                &mut relation.ours_unit
            };
            for (key, value) in changes {
                let before = bag.get(&key).cloned().unwrap_or_default();
                if before == value {
                    continue;
                }
                let whose = if app { "application" } else { "unit" };
                said.push(format!("{name} {whose} {key}: {value}"));
                apply(bag, &Bag::from([(key, value)]));
            }
        }
    }

    fn commit_state(&mut self, hook: &mut Hook, said: &mut Vec<String>) {
        if let Some(state) = hook.state.take() {
            for (key, value) in &state {
                if self.state.get(key) != Some(value) {
                    said.push(format!("state {key}: {value}"));
                }
            }
            said.extend(
                self.state
                    .keys()
                    .filter(|k| !state.contains_key(*k))
                    .map(|k| format!("state {k} deleted")),
            );
            self.state = state;
        }
    }
}
