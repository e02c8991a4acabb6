//! `receive-ca-cert`, interface certificate_transfer (requirer): CA certificates that Kafka, S3 and
//! PostgreSQL may be signed by.
//!
//! The charm library `certificate_transfer`, versions 0 and 1, says what the databags hold.

use super::bag;
use crate::facts::{Bag, Relation};
use serde_json::Value;
use windrow_core::settings::certificates::Certificates;

/// The application's databag: we read version 1, and version 0 as well.
#[must_use]
pub fn app_data() -> Bag {
    bag([("version", "1".to_owned())])
}

/// Reads the certificates of all relations. What cannot be used is left out, and the others count;
/// so this does not answer with an [`Endpoint`](super::Endpoint).
#[must_use]
pub fn read(relations: &[Relation]) -> Certificates {
    let mut all = Certificates::default();
    for (place, text) in relations.iter().flat_map(certificate_texts) {
        let read = Certificates::read(&text);
        all.blocks.extend(read.blocks);
        let why = read.left_out.into_iter();
        all.left_out
            .extend(why.map(|why| format!("{place}: {why}")));
    }
    all
}

/// The texts in the databags that should be certificates, each with the place where it was found.
/// Version 1 has them in the application's databag. Version 0 has them in the databags of the
/// units, where a certificate that stands beside its CA must not be trusted itself.
fn certificate_texts(relation: &Relation) -> Vec<(String, String)> {
    let texts_at = |data: &Bag, key: &str, who: &str| -> Vec<(String, String)> {
        let texts = data.get(key).map(|value| parse_texts(value));
        texts
            .into_iter()
            .flatten()
            .map(|text| (format!("{key} of {who}"), text))
            .collect()
    };
    let version_1 = texts_at(&relation.data, "certificates", &relation.app);
    if !version_1.is_empty() {
        return version_1;
    }
    let mut all = Vec::new();
    for (unit, data) in &relation.units {
        let authorities = [texts_at(data, "ca", unit), texts_at(data, "chain", unit)].concat();
        if authorities.is_empty() {
            all.extend(texts_at(data, "certificate", unit));
        } else {
            all.extend(authorities);
        }
    }
    all
}

/// The texts in a value: a JSON list of texts, one JSON text, or plain text, because libraries
/// differ.
fn parse_texts(value: &str) -> Vec<String> {
    let text = |item: Value| match item {
        Value::String(text) => text,
        // It is not PEM, and will be left out for that reason.
        other => other.to_string(),
    };
    let mut all = match serde_json::from_str(value) {
        Ok(Value::Array(list)) => list.into_iter().map(text).collect(),
        Ok(Value::String(text)) => vec![text],
        Ok(Value::Null) => Vec::new(),
        Ok(_) | Err(_) => vec![value.to_owned()],
    };
    all.retain(|text| !text.trim().is_empty());
    all
}

#[cfg(test)]
mod tests {
    use super::super::tests::{of_app, of_units};
    use super::*;
    use serde_json::json;
    use std::collections::BTreeSet;

    const A: &str = "\
-----BEGIN CERTIFICATE-----\n\
MIIBdTCCARugAwIBAgIUD6gfrXaar4nXieLIDSPrWAZVG4AwCgYIKoZIzj0EAwIw\n\
DzENMAsGA1UEAwwEYS1jYTAgFw0yNjExMjIyMjE2NTVaGA8yMTI2MTAyOTIyMTY1\n\
NVowDzENMAsGA1UEAwwEYS1jYTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABLMA\n\
am9Ni2G7TCWNFJkP2c/Hvri3SxRcLGlFoPKZREn4LJ9YbBQkwrAt/3IjI+ql7QAO\n\
pvu0BANIleK1IF3oX1ijUzBRMB0GA1UdDgQWBBQJQpTcR7VkiKaAqCxjjvbeH01U\n\
8jAfBgNVHSMEGDAWgBQJQpTcR7VkiKaAqCxjjvbeH01U8jAPBgNVHRMBAf8EBTAD\n\
AQH/MAoGCCqGSM49BAMCA0gAMEUCIEoyGcXCTQ099oGljIKLKYtgL25TNQoXjODy\n\
MrzLKU8IAiEAjgqcrzmH9nYuYqsp2wgzY7y6vKZi9SvtAL05O0RjvGY=\n\
-----END CERTIFICATE-----\n\
";
    const B: &str = "\
-----BEGIN CERTIFICATE-----\n\
MIIBdDCCARugAwIBAgIUWUvCCeBhBnDMi50xlQRlyZymNMYwCgYIKoZIzj0EAwIw\n\
DzENMAsGA1UEAwwEYi1jYTAgFw0yNjExMjIyMjE2NTVaGA8yMTI2MTAyOTIyMTY1\n\
NVowDzENMAsGA1UEAwwEYi1jYTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABK1x\n\
9C1RolcTbNqe/Ivmj0uPB5mZKAFBUEaRCa1i2AAWQtQpuUPYtSuvi2++98o1Wytz\n\
nMOQQi9gw4+Z3e+94hOjUzBRMB0GA1UdDgQWBBSqsgnwLChnVtlTQoKKc2d41Yps\n\
tTAfBgNVHSMEGDAWgBSqsgnwLChnVtlTQoKKc2d41YpstTAPBgNVHRMBAf8EBTAD\n\
AQH/MAoGCCqGSM49BAMCA0cAMEQCIA+KZBjiVvVMvG+GWRkbllyk0308rOdYRiyS\n\
V49gDgu7AiBAaA7bYq7FBvhF7ptaj3RTz6vcbNNAT13Ik9XedxDQ5g==\n\
-----END CERTIFICATE-----\n\
";

    #[test]
    fn certificates_of_version_1_are_read() {
        let one = json!([A, B, A]).to_string();
        let two = json!([format!("{B}{A}")]).to_string();
        let first = of_app("ca", &[("certificates", &one), ("version", "1")]);
        let second = of_app("other", &[("certificates", &two), ("version", "1")]);
        let Certificates { blocks, left_out } = read(&[first, second]);
        assert_eq!(
            BTreeSet::from_iter(blocks),
            BTreeSet::from([B, A].map(str::to_owned))
        );
        assert_eq!(left_out, [""; 0]);
        assert_eq!(app_data(), bag([("version", "1".to_owned())]));
    }

    #[test]
    fn certificates_of_version_0_are_in_the_units_bags() {
        // As its own library writes them, and as version 1's does for an old requirer.
        let chain = json!([B]).to_string();
        let plain = of_units(
            "ca",
            &[(
                "ca/0",
                &[
                    ("certificate", A),
                    ("ca", B),
                    ("chain", &chain),
                    ("version", "0"),
                ],
            )],
        );
        let ca = json!(B).to_string();
        let quoted = of_units(
            "ca",
            &[(
                "ca/0",
                &[("certificate", "\"\""), ("ca", &ca), ("chain", "null")],
            )],
        );
        let lone = of_units("ca", &[("ca/0", &[("certificate", B)])]);
        for relation in [plain, quoted, lone] {
            let read = read(&[relation]);
            assert_eq!(
                BTreeSet::from_iter(read.blocks),
                BTreeSet::from([B.to_owned()])
            );
            assert_eq!(read.left_out, [""; 0]);
        }
    }

    #[test]
    fn what_is_not_a_certificate_is_left_out_with_a_reason_and_the_rest_counts() {
        let list = json!([
            A,
            "enabled",
            7,
            "",
            "-----BEGIN RSA PRIVATE KEY-----\nc2VjcmV0\n-----END RSA PRIVATE KEY-----"
        ]);
        let Certificates { blocks, left_out } =
            read(&[of_app("ca", &[("certificates", &list.to_string())])]);
        assert_eq!(blocks, [A]);
        assert_eq!(
            left_out,
            [
                "certificates of ca: it is not a PEM certificate",
                "certificates of ca: it is not a PEM certificate",
                "certificates of ca: it holds a private key; give certificates only",
            ]
        );
        let broken = of_app("ca", &[("certificates", "[\"-----BEGIN")]);
        assert_eq!(read(&[broken]).left_out.len(), 1);
        for nothing in ["", "[]", "null"] {
            assert_eq!(
                read(&[of_app("ca", &[("certificates", nothing)])]),
                Certificates::default()
            );
        }
    }
}
