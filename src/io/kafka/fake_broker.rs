//! Tests against a port that is not what it should be: its certificate is not trusted, has expired
//! or is another host's, or it speaks no TLS at all.

use super::{KafkaConfig, open};
use openssl::asn1::Asn1Time;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::PKey;
use openssl::x509::extension::SubjectAlternativeName;
use openssl::x509::{X509, X509Name};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::io::Read;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;
use windrow_core::settings::config::{Config, Secret};
use windrow_core::values::cause::{Cause, Trouble};

const PATIENCE: Duration = Duration::from_secs(8);

/// A certificate that signs itself, in PEM, and a server that has it.
fn certificate(host: &str, days: std::ops::Range<i64>) -> (String, Arc<ServerConfig>) {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    let key = PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap();
    let mut name = X509Name::builder().unwrap();
    name.append_entry_by_text("CN", host).unwrap();
    let name = name.build();
    let mut made = X509::builder().unwrap();
    made.set_version(2).unwrap();
    made.set_subject_name(&name).unwrap();
    made.set_issuer_name(&name).unwrap();
    made.set_pubkey(&key).unwrap();
    let day = |days: i64| Asn1Time::from_unix(NOW + days * 86_400).unwrap();
    made.set_not_before(&day(days.start)).unwrap();
    made.set_not_after(&day(days.end)).unwrap();
    let names = SubjectAlternativeName::new()
        .dns(host)
        .build(&made.x509v3_context(None, None));
    made.append_extension(names.unwrap()).unwrap();
    made.sign(&key, MessageDigest::sha256()).unwrap();
    let made = made.build();
    let chain = vec![CertificateDer::from(made.to_der().unwrap())];
    let key = PrivatePkcs8KeyDer::from(key.private_key_to_pkcs8().unwrap());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from(key))
        .unwrap();
    let pem = String::from_utf8(made.to_pem().unwrap()).unwrap();
    (pem, Arc::new(server))
}

/// A day in 2026, in seconds since 1970. The certificates are valid, or not, for decades around it.
const NOW: i64 = 1_790_000_000;

#[expect(
    clippy::disallowed_methods,
    reason = "the port is served beside the test"
)]
/// A port on loopback that speaks TLS, or hangs up on whatever comes.
fn serve(tls: Option<Arc<ServerConfig>>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let mut some = [0; 1024];
            match &tls {
                Some(tls) => {
                    let connection = ServerConnection::new(Arc::clone(tls)).unwrap();
                    let _ = StreamOwned::new(connection, client).read(&mut some);
                }
                None => {
                    let _ = (&client).read(&mut some);
                }
            }
        }
    });
    port
}

/// What is said of a port of `localhost`, where this CA is given.
fn trouble(port: u16, ca: Option<String>) -> Trouble {
    let settings = format!(
        "kafka: {{ bootstrap: 'localhost:{port}', topic: clicks, security: ssl, ca-file: /ca }}"
    );
    let config = KafkaConfig {
        settings: Config::parse(&settings).unwrap().kafka,
        topic: "clicks".to_owned(),
        username: String::new(),
        password: Secret::default(),
        group: "windrow-test".to_owned(),
        ca_pem: ca,
        fetched_bytes: 32 << 20,
        partitions: 1,
    };
    let (brokers, _reader) = open(&config).expect("a client");
    let error = brokers.topic(PATIENCE).expect_err("it is no broker");
    Trouble::from(error)
}

#[test]
fn only_a_certificate_that_is_not_trusted_wants_a_ca() {
    let (pem, server) = certificate("localhost", -9000..9000);
    let (other_pem, other) = certificate("elsewhere", -9000..9000);
    let (old_pem, old) = certificate("localhost", -9000..-8000);
    for (server, ca, cause, part) in [
        (Some(server), None, Cause::TlsKafka, "give the CA"),
        (
            Some(other),
            Some(other_pem),
            Cause::CertificateKafka,
            "another host's",
        ),
        (Some(old), Some(old_pem), Cause::CertificateKafka, "expired"),
        (None, Some(pem), Cause::NoTlsKafka, "speaks TLS"),
    ] {
        let trouble = trouble(serve(server), ca);
        assert_eq!(trouble.cause, Some(cause), "{trouble}");
        assert!(trouble.text.contains(part), "{trouble}");
    }
}
