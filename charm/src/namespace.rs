//! Asks Kubernetes which namespace a model is in, and DNS whether a name resolves. Both answer within 2 seconds.
//! Who decides what follows from it is elsewhere; nothing is asked twice here, as the next dispatch comes soon enough.
#![expect(clippy::disallowed_methods, reason = "a thread waits for the resolver, which knows no deadline")]

use crate::facts::Namespace;
use k8s_openapi::api::core::v1 as core;
use kube::api::ListParams;
use std::error::Error as _;
use std::net::ToSocketAddrs as _;
use std::sync::mpsc;
use std::time::Duration;

/// All that one question may take.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);

/// The label that Juju gives a model's namespace.
const MODEL_LABEL: &str = "model.juju.is/id";

/// The namespace of the model with this UUID, asked as the pod's service account.
#[must_use]
pub fn of_model(uuid: &str) -> Namespace {
    match kube::Config::incluster() {
        Ok(config) => ask(config, uuid),
        Err(error) => Namespace::Unknown(format!("this is not a pod of Kubernetes: {}", chain(&error))),
    }
}

/// The namespace of this pod: a file that Kubernetes puts into each.
#[must_use]
pub fn own() -> Option<String> {
    let name = std::fs::read_to_string("/var/run/secrets/kubernetes.io/serviceaccount/namespace").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

fn ask(mut config: kube::Config, uuid: &str) -> Namespace {
    if uuid.is_empty() || !uuid.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-') {
        return Namespace::Unknown("the model's UUID is not known".to_owned());
    }
    config.default_retry = false;
    // Fails when there is one already, which does as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Namespace::Later(format!("cannot start a runtime: {error}")),
    };
    let answer = runtime.block_on(async {
        tokio::time::timeout(ANSWERS_WITHIN, list(config, uuid)).await.unwrap_or_else(|_| {
            Namespace::Later(format!("Kubernetes did not answer within {} s", ANSWERS_WITHIN.as_secs()))
        })
    });
    // A resolver's thread may still wait; dropping the runtime would wait for it.
    runtime.shutdown_background();
    answer
}

async fn list(config: kube::Config, uuid: &str) -> Namespace {
    let client = match kube::Client::try_from(config) {
        Ok(client) => client,
        Err(error) => {
            return Namespace::Unknown(format!("cannot set up a client of Kubernetes: {}", chain(&error)));
        }
    };
    let with_label = ListParams::default().labels(&format!("{MODEL_LABEL}={uuid}"));
    match kube::Api::<core::Namespace>::all(client).list_metadata(&with_label).await {
        Ok(list) => found(uuid, list.items.into_iter().filter_map(|item| item.metadata.name).collect()),
        Err(error) => refused(&error),
    }
}

fn found(uuid: &str, mut names: Vec<String>) -> Namespace {
    names.sort();
    match names.as_slice() {
        [name] => Namespace::Is(name.clone()),
        [] => Namespace::Unknown(format!("no namespace here has the label {MODEL_LABEL}={uuid}")),
        [one, two, ..] => Namespace::Unknown(format!(
            "{} namespaces have the label {MODEL_LABEL}={uuid}: {one}, {two}",
            names.len()
        )),
    }
}

fn refused(error: &kube::Error) -> Namespace {
    use kube::Error::{Api, HyperError, ReadEvents, SerdeError, Service};
    match error {
        Api(status) if matches!(status.code, 401 | 403) => {
            Namespace::Unknown(format!("this unit may not list namespaces (Kubernetes answers {})", status.code))
        }
        Api(status) if status.code == 429 || status.code >= 500 => {
            Namespace::Later(format!("Kubernetes answers {}", status.code))
        }
        Api(status) => Namespace::Unknown(format!("Kubernetes answers {}", status.code)),
        SerdeError(_) => Namespace::Later("Kubernetes' answer cannot be read".to_owned()),
        HyperError(_) | Service(_) | ReadEvents(_) => {
            Namespace::Later(format!("Kubernetes does not answer: {}", chain(error)))
        }
        _ => Namespace::Unknown(format!("cannot ask Kubernetes: {}", chain(error))),
    }
}

/// The error's last cause says it; those before it only who noticed.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut last = error;
    while let Some(cause) = last.source() {
        last = cause;
    }
    last.to_string()
}

/// Whether a host name, or an address, resolves from here within 2 seconds.
#[must_use]
pub fn resolves(host: &str) -> bool {
    let (tell, told) = mpsc::channel();
    let host = host.to_owned();
    std::thread::spawn(move || {
        let found = (host.as_str(), 0).to_socket_addrs().is_ok_and(|mut addresses| addresses.next().is_some());
        // Nobody waits any more when it took too long.
        let _ = tell.send(found);
    });
    told.recv_timeout(ANSWERS_WITHIN).unwrap_or(false)
}
