//! Tests against a server that is not what it should be: it says that it is PostgreSQL, and takes
//! whatever password it is given.

use super::Catalog;
use super::postgres::PostgresCatalog;
use super::session::PgConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use windrow_core::settings::config::CatalogTls;
use windrow_core::table::commit::CatalogError;
use windrow_core::table::hive::TableName;
use windrow_core::values::cause::Cause;

/// For `localhost`, signed by itself, valid for a hundred years. Its key is worth nothing.
const CERTIFICATE: &str = "\
-----BEGIN CERTIFICATE-----
MIIBkjCCATigAwIBAgIUUl6WgtNFQwxManvT8vZGCnIZh9UwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyNzIwMzUxOVoYDzIxMjYxMTAz
MjAzNTE5WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAATagGgNtBwUV2pxMLh3H3Bl+Itufv5LMlOaXaKuAU0LTnuDr2rZFBic
GLPfH41q984jHIT88CUbQF/i6uwmlea6o2YwZDAdBgNVHQ4EFgQUs6kyFk71BtTi
m9q+VX373MKrK0kwHwYDVR0jBBgwFoAUs6kyFk71BtTim9q+VX373MKrK0kwFAYD
VR0RBA0wC4IJbG9jYWxob3N0MAwGA1UdEwEB/wQCMAAwCgYIKoZIzj0EAwIDSAAw
RQIgG2nz/eRZ0GOvPdrF3f6hH0PiTZiBfvxqX9PKawqLhjoCIQCFY1ExUGEeo8GT
xMH0yQS9kYjMnypcxoGHCabbicm+Og==
-----END CERTIFICATE-----
";
const KEY: &str = "\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgGC2uyvCGgyOn68hz
K16iZw2g54YZgmQFaClXNZPSja6hRANCAATagGgNtBwUV2pxMLh3H3Bl+Itufv5L
MlOaXaKuAU0LTnuDr2rZFBicGLPfH41q984jHIT88CUbQF/i6uwmlea6
-----END PRIVATE KEY-----
";

const PASSWORD: &str = "s3cret-of-the-catalog";

/// How a server answers the client's question for TLS (PostgreSQL's protocol, "SSLRequest").
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tls {
    Yes,
    No,
}

#[expect(clippy::disallowed_methods, reason = "the server runs beside the test")]
/// Serves one client; returns the port, and all that the client said after the greeting.
fn serve(tls: Tls) -> (u16, JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let served = thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let mut request = [0; 8];
        socket.read_exact(&mut request).unwrap();
        if tls == Tls::No {
            socket.write_all(b"N").unwrap();
            let mut said = Vec::new();
            let _ = socket.read_to_end(&mut said);
            return said;
        }
        socket.write_all(b"S").unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(CERTIFICATE.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(KEY.as_bytes()).unwrap(),
            )
            .unwrap();
        let connection = rustls::ServerConnection::new(Arc::new(config)).unwrap();
        let mut stream = rustls::StreamOwned::new(connection, socket);
        let mut said = vec![0; 4096];
        // The client's name and database, if it believes in the certificate.
        let Ok(n) = stream.read(&mut said) else {
            return Vec::new();
        };
        // AuthenticationCleartextPassword
        let _ = stream.write_all(b"R\0\0\0\x08\0\0\0\x03");
        let more = stream.read(&mut said[n..]).unwrap_or(0);
        said.truncate(n + more);
        said
    });
    (port, served)
}

/// What a look at the catalog comes to, and whether the password was given to the server.
async fn look(answer: Tls, host: &str, tls: CatalogTls, ca: Option<&str>) -> (CatalogError, bool) {
    let (port, served) = serve(answer);
    let url = format!("postgresql://{host}:{port}/hive");
    let config = PgConfig::new(&url, "u", PASSWORD, tls, ca).unwrap();
    let name = TableName::new("default", "t").unwrap();
    let mut catalog = Catalog::Postgres(Box::new(PostgresCatalog::new(config, name)));
    let error = catalog.head().await.unwrap_err();
    drop(catalog);
    let said = served.join().unwrap();
    let password = PASSWORD.as_bytes();
    (
        error,
        said.windows(password.len()).any(|some| some == password),
    )
}

#[track_caller]
fn is_trouble(error: &CatalogError, cause: Cause, parts: &[&str]) {
    let CatalogError::Retry(trouble) = error else {
        panic!("{error:?}");
    };
    assert_eq!(trouble.cause, Some(cause), "{trouble:?}");
    for part in parts {
        assert!(trouble.text.contains(part), "{trouble:?}");
    }
    assert!(!trouble.text.contains(PASSWORD));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_self_signed_server_gets_no_password() {
    let (error, given) = look(Tls::Yes, "localhost", CatalogTls::VerifyFull, None).await;
    assert!(!given, "the password was given away");
    is_trouble(
        &error,
        Cause::TlsCatalog,
        &["not trusted", "catalog-ca-file"],
    );

    // With its certificate among the CAs it is the right server, unless it has another name.
    let ca = Some(CERTIFICATE);
    let (_, given) = look(Tls::Yes, "localhost", CatalogTls::VerifyFull, ca).await;
    assert!(
        given,
        "the server is trusted, and was not given the password"
    );
    let (error, given) = look(Tls::Yes, "127.0.0.1", CatalogTls::VerifyFull, ca).await;
    assert!(!given, "the password was given to another host");
    is_trouble(
        &error,
        Cause::CertificateCatalog,
        &["another host's", "catalog-ca-file"],
    );

    // Set by hand, `require` believes whoever answers. It shows that the server here does listen.
    let (_, given) = look(Tls::Yes, "localhost", CatalogTls::Require, None).await;
    assert!(given);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_tls_gets_no_password_when_tls_is_asked_for() {
    for tls in [CatalogTls::VerifyFull, CatalogTls::Require] {
        let (error, given) = look(Tls::No, "localhost", tls, None).await;
        assert!(!given);
        is_trouble(
            &error,
            Cause::NoTlsCatalog,
            &["no TLS", "catalog-tls: disable"],
        );
    }
}
