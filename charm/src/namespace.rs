//! Asks Kubernetes which namespace a model is in, and DNS whether a name resolves.
//!
//! Neither question takes more than 2 seconds. Nothing is asked twice, because the next dispatch
//! comes soon enough; and what follows from the answers is decided elsewhere.
#![expect(
    clippy::disallowed_methods,
    reason = "a thread waits for the system's resolver, which takes no deadline"
)]

use crate::facts::Namespace;
use k8s_openapi::api::core::v1 as core;
use kube::api::ListParams;
use std::net::ToSocketAddrs as _;
use std::sync::mpsc;
use std::time::Duration;
use windrow_core::values::cause::innermost_cause;

/// The most time that one question may take.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);

/// The label that Juju gives the namespace of a model.
const MODEL_LABEL: &str = "model.juju.is/id";

/// The namespace of the model with this UUID. Kubernetes is asked as the pod's service account.
#[must_use]
pub fn find_namespace(uuid: &str) -> Namespace {
    match kube::Config::incluster() {
        Ok(config) => ask_kubernetes(config, uuid),
        Err(error) => Namespace::Unknown(format!(
            "this is not a pod of Kubernetes: {}",
            innermost_cause(&error)
        )),
    }
}

fn ask_kubernetes(mut config: kube::Config, uuid: &str) -> Namespace {
    if uuid.is_empty() || !uuid.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-') {
        return Namespace::Unknown("the model's UUID is not known".to_owned());
    }
    config.default_retry = false;
    // This fails when there is a provider already, which does as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return Namespace::Later(format!("cannot start a runtime: {error}")),
    };
    let answer = runtime.block_on(async {
        tokio::time::timeout(ANSWERS_WITHIN, list(config, uuid))
            .await
            .unwrap_or_else(|_| {
                Namespace::Later(format!(
                    "Kubernetes did not answer within {} s",
                    ANSWERS_WITHIN.as_secs()
                ))
            })
    });
    // A thread of the resolver may still be waiting, and to drop the runtime would wait for it.
    runtime.shutdown_background();
    answer
}

async fn list(config: kube::Config, uuid: &str) -> Namespace {
    let client = match kube::Client::try_from(config) {
        Ok(client) => client,
        Err(error) => {
            return Namespace::Unknown(format!(
                "cannot set up a client of Kubernetes: {}",
                innermost_cause(&error)
            ));
        }
    };
    let with_label = ListParams::default().labels(&format!("{MODEL_LABEL}={uuid}"));
    match kube::Api::<core::Namespace>::all(client)
        .list_metadata(&with_label)
        .await
    {
        Ok(list) => {
            let names = list.items.into_iter();
            pick(uuid, names.filter_map(|item| item.metadata.name).collect())
        }
        Err(error) => describe_refusal(error),
    }
}

/// The namespace, from the names of all that have the model's label.
fn pick(uuid: &str, mut names: Vec<String>) -> Namespace {
    names.sort();
    match names.as_slice() {
        [name] => Namespace::Is(name.clone()),
        [] => Namespace::Unknown(format!(
            "no namespace here has the label {MODEL_LABEL}={uuid}"
        )),
        [one, two, ..] => Namespace::Unknown(format!(
            "{} namespaces have the label {MODEL_LABEL}={uuid}: {one}, {two}",
            names.len()
        )),
    }
}

fn describe_refusal(error: kube::Error) -> Namespace {
    use kube::Error::{Api, HyperError, ReadEvents, SerdeError, Service};
    match error {
        Api(status) if matches!(status.code, 401 | 403) => Namespace::Unknown(format!(
            "this unit may not list namespaces (Kubernetes answers {})",
            status.code
        )),
        Api(status) if status.code == 429 || status.code >= 500 => {
            Namespace::Later(format!("Kubernetes answers {}", status.code))
        }
        Api(status) => Namespace::Unknown(format!("Kubernetes answers {}", status.code)),
        SerdeError(_) => Namespace::Later("Kubernetes' answer cannot be read".to_owned()),
        HyperError(_) | Service(_) | ReadEvents(_) => Namespace::Later(format!(
            "Kubernetes does not answer: {}",
            innermost_cause(&error)
        )),
        _ => Namespace::Unknown(format!(
            "cannot ask Kubernetes: {}",
            innermost_cause(&error)
        )),
    }
}

/// Whether a host's name, or an address, resolves from here within 2 seconds.
#[must_use]
pub fn resolves(host: &str) -> bool {
    let (sender, receiver) = mpsc::channel();
    let host = host.to_owned();
    std::thread::spawn(move || {
        let resolves = (host.as_str(), 0)
            .to_socket_addrs()
            .is_ok_and(|mut addresses| addresses.next().is_some());
        // When it took too long, nobody is waiting any more.
        let _ = sender.send(resolves);
    });
    receiver.recv_timeout(ANSWERS_WITHIN).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::time::Instant;

    const MODEL: &str = "3f2c0a11-dcb3-4870-8509-330eb9745ee8";

    fn config(address: impl std::fmt::Display) -> kube::Config {
        kube::Config::new(format!("http://{address}").parse().unwrap())
    }

    /// A server that reads one request and answers it with `status` and `body`. The thread gives
    /// the request.
    fn answering(status: &str, body: &str) -> (kube::Config, std::thread::JoinHandle<String>) {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let config = config(server.local_addr().unwrap());
        let answer = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        let thread = std::thread::spawn(move || {
            let (mut client, _) = server.accept().unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                client.read_exact(&mut byte).unwrap();
                asked.push(byte[0]);
            }
            client.write_all(answer.as_bytes()).unwrap();
            String::from_utf8(asked).unwrap()
        });
        (config, thread)
    }

    fn check(status: &str, body: &str, expect: Namespace) -> String {
        let (config, thread) = answering(status, body);
        assert_eq!(ask_kubernetes(config, MODEL), expect);
        thread.join().unwrap()
    }

    fn list(names: &[&str]) -> String {
        let items: Vec<_> = names
            .iter()
            .map(|name| {
                serde_json::json!({
                    "kind": "PartialObjectMetadata",
                    "apiVersion": "meta.k8s.io/v1",
                    "metadata": {"name": name, "labels": {MODEL_LABEL: MODEL}},
                })
            })
            .collect();
        serde_json::json!({
            "kind": "PartialObjectMetadataList",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": {"resourceVersion": "7"},
            "items": items,
        })
        .to_string()
    }

    fn status(code: u16) -> String {
        let text = format!("namespaces is forbidden: {code}");
        serde_json::json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": text,
            "reason": "Forbidden",
            "code": code,
        })
        .to_string()
    }

    fn unknown(why: &str) -> Namespace {
        Namespace::Unknown(why.to_owned())
    }

    fn later(why: &str) -> Namespace {
        Namespace::Later(why.to_owned())
    }

    #[test]
    fn the_namespace_with_the_label_is_found_and_only_metadata_is_asked_for() {
        let asked = check(
            "200 OK",
            &list(&["kafka"]),
            Namespace::Is("kafka".to_owned()),
        );
        assert!(
            asked.starts_with(&format!(
                "GET /api/v1/namespaces?&labelSelector=model.juju.is%2Fid%3D{MODEL}"
            )),
            "{asked}"
        );
        assert!(asked.contains("as=PartialObjectMetadataList"), "{asked}");
    }

    #[test]
    fn without_a_namespace_or_with_several_it_is_unknown() {
        let why = format!("no namespace here has the label model.juju.is/id={MODEL}");
        check("200 OK", &list(&[]), unknown(&why));
        let why = format!("2 namespaces have the label model.juju.is/id={MODEL}: a, b");
        check("200 OK", &list(&["b", "a"]), unknown(&why));
    }

    #[test]
    fn without_rights_it_is_unknown_and_in_trouble_it_is_later() {
        for code in [401, 403] {
            let why = format!("this unit may not list namespaces (Kubernetes answers {code})");
            check(&format!("{code} No"), &status(code), unknown(&why));
        }
        for code in [429, 500, 503, 504] {
            let why = format!("Kubernetes answers {code}");
            check(&format!("{code} No"), &status(code), later(&why));
            check(&format!("{code} No"), "<html>", later(&why));
        }
        check(
            "404 No",
            "page not found",
            unknown("Kubernetes answers 404"),
        );
        check(
            "200 OK",
            "<html>",
            later("Kubernetes' answer cannot be read"),
        );
    }

    #[test]
    fn a_server_that_hangs_is_waited_for_2_seconds() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let began = Instant::now();
        let answer = ask_kubernetes(config(server.local_addr().unwrap()), MODEL);
        let took = began.elapsed();
        assert_eq!(answer, later("Kubernetes did not answer within 2 s"));
        assert!(
            took >= ANSWERS_WITHIN && took < ANSWERS_WITHIN * 2,
            "{took:?}"
        );
    }

    #[test]
    fn a_server_that_refuses_is_asked_again_later() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let config = config(server.local_addr().unwrap());
        drop(server);
        let began = Instant::now();
        let answer = ask_kubernetes(config, MODEL);
        assert!(
            matches!(&answer, Namespace::Later(why) if why.contains("refused")),
            "{answer:?}"
        );
        assert!(began.elapsed() < ANSWERS_WITHIN);
    }

    #[test]
    fn outside_of_a_pod_and_without_a_uuid_nobody_is_asked() {
        let answer = find_namespace(MODEL);
        assert!(
            matches!(&answer, Namespace::Unknown(why) if why.contains("not a pod")),
            "{answer:?}"
        );
        for uuid in ["", "x,y", "3f2c0a11 "] {
            assert!(matches!(
                ask_kubernetes(config("127.0.0.1:9"), uuid),
                Namespace::Unknown(_)
            ));
        }
    }

    #[test]
    fn names_resolve_or_do_not() {
        assert!(resolves("localhost") && resolves("127.0.0.1"));
        for host in ["", "no-such-host.invalid", "a b"] {
            assert!(!resolves(host), "{host}");
        }
    }

    /// `WINDROW_KUBE_API` is a URL; `_CA`, `_TOKEN_ALLOWED` and `_TOKEN_DENIED` are files; `_MODEL`
    /// is a UUID, and `_NAMESPACE` is the name of that model's namespace.
    #[test]
    #[ignore = "needs a kube-apiserver: WINDROW_KUBE_*"]
    fn a_real_kube_apiserver_answers() {
        let set = |name: &str| {
            let name = format!("WINDROW_KUBE_{name}");
            std::env::var(&name).unwrap_or_else(|_| panic!("{name} is not set"))
        };
        let ca = std::fs::read_to_string(set("CA")).unwrap();
        let ca = windrow_core::settings::certificates::Certificates::read_all(&ca).unwrap();
        let der = rustls::pki_types::pem::PemObject::from_pem_slice(ca.as_bytes())
            .map(|der: rustls::pki_types::CertificateDer<'_>| der.to_vec())
            .unwrap();
        let with = |token: &str| {
            let mut config = kube::Config::new(set("API").parse().unwrap());
            config.root_cert = Some(vec![der.clone()]);
            config.root_cert_file = Some(set("CA").into());
            config.auth_info.token_file = Some(token.to_owned());
            config
        };
        assert_eq!(
            ask_kubernetes(with(&set("TOKEN_ALLOWED")), &set("MODEL")),
            Namespace::Is(set("NAMESPACE"))
        );
        let other = ask_kubernetes(with(&set("TOKEN_ALLOWED")), MODEL);
        assert!(
            matches!(&other, Namespace::Unknown(why) if why.contains("no namespace here")),
            "{other:?}"
        );
        let denied = ask_kubernetes(with(&set("TOKEN_DENIED")), &set("MODEL"));
        assert!(
            matches!(&denied, Namespace::Unknown(why) if why.contains("may not list")),
            "{denied:?}"
        );

        // A server whose certificate another CA has signed is not believed.
        let mut stranger = with(&set("TOKEN_ALLOWED"));
        stranger.root_cert_file = None;
        stranger.root_cert = Some(Vec::new());
        let answer = ask_kubernetes(stranger, &set("MODEL"));
        assert!(
            matches!(&answer, Namespace::Later(why) if why.contains("certificate")),
            "{answer:?}"
        );
    }
}
