//! The CA certificates that TLS trusts, as PEM: Mozilla's and those that a person gives.
//! Mozilla's are part of the program, because the image of a container may have none. No file is
//! read here.

use base64::Engine;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// Mozilla's CA certificates and, after them, the given ones.
///
/// # Errors
/// The given text is not PEM, has no certificate in it, or has one that cannot be a CA's. The text
/// of the error is the end of a sentence.
pub fn trusted_pem(given: Option<&str>) -> Result<String, String> {
    let mut pem = mozilla_pem();
    if let Some(given) = given {
        check_pem(given)?;
        pem.push_str(given);
    }
    Ok(pem)
}

/// Mozilla's CA certificates.
pub(crate) fn mozilla_pem() -> String {
    let mut pem = String::new();
    for certificate in webpki_root_certs::TLS_SERVER_ROOT_CERTS {
        pem.push_str("-----BEGIN CERTIFICATE-----\n");
        let text = base64::engine::general_purpose::STANDARD.encode(certificate);
        // A line has 64 characters (RFC 7468).
        for line in text.as_bytes().chunks(64) {
            pem.push_str(std::str::from_utf8(line).expect("base64 is ASCII"));
            pem.push('\n');
        }
        pem.push_str("-----END CERTIFICATE-----\n");
    }
    pem
}

/// Checks certificates before they go to a client, because clients panic at a bad certificate or
/// ignore it in silence.
fn check_pem(pem: &str) -> Result<(), String> {
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate =
            certificate.map_err(|e| format!("not PEM ({e}); give CA certificates in PEM"))?;
        store
            .add(certificate)
            .map_err(|e| format!("not a CA certificate ({e}); give CA certificates in PEM"))?;
    }
    if store.is_empty() {
        Err("no certificate in it; give CA certificates in PEM".to_owned())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use windrow_core::settings::certificates::Certificates;

    #[test]
    fn mozillas_roots_are_there_and_parse() {
        let pem = trusted_pem(None).unwrap();
        assert!(pem.matches("BEGIN CERTIFICATE").count() > 100);
        check_pem(&pem).unwrap();
    }

    /// The settings' own rule cannot ask OpenSSL, which is not part of the charm.
    #[test]
    fn what_the_settings_take_for_a_certificate_openssl_reads() {
        let mut refused = 0;
        for root in webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().take(3) {
            for bit in 0..root.len() * 8 {
                let mut changed = root.to_vec();
                changed[bit / 8] ^= 1 << (bit % 8);
                let body = base64::engine::general_purpose::STANDARD.encode(&changed);
                let text =
                    format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n");
                let is_read = openssl::x509::X509::from_der(&changed).is_ok();
                let is_taken = !Certificates::read(&text).blocks.is_empty();
                assert!(is_read || !is_taken, "bit {bit} of {body}");
                refused += usize::from(!is_taken);
            }
        }
        assert!(refused > 0);
    }

    #[test]
    fn given_certificates_are_added_or_refused_with_a_reason() {
        let mozilla = mozilla_pem();
        let one = &mozilla[..=mozilla.find("END CERTIFICATE-----\n").unwrap() + 20];
        let both = trusted_pem(Some(one)).unwrap();
        assert!(both.starts_with(&mozilla) && both.ends_with(one));
        for bad in [
            "",
            "hello",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            &one[..one.len() - 20],
        ] {
            assert!(trusted_pem(Some(bad)).is_err(), "{bad}");
        }
    }
}
