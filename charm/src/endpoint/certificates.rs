//! `receive-ca-cert`, interface certificate_transfer (requirer): CA certificates that Kafka, S3 and
//! PostgreSQL may be signed by. Also the check of every certificate that the charm is given.
//!
//! The charm library `certificate_transfer`, versions 0 and 1, says what the databags hold.

use super::bag;
use crate::facts::{Bag, Relation};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;
use std::collections::BTreeSet;

/// The application's databag: we read version 1, and version 0 as well.
#[must_use]
pub fn app_data() -> Bag {
    bag([("version", "1".to_owned())])
}

/// The most that all certificates together may hold, in bytes of PEM.
const CERTIFICATES_BYTES_MAX: usize = 1 << 20;

/// The CA certificates that the relations give.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Certificates {
    /// PEM blocks, each once. They are sorted, so that it does not matter which came first.
    pub blocks: BTreeSet<String>,
    /// Why others were left out: one reason for each text that cannot be used.
    pub left_out: Vec<String>,
}

/// Reads the certificates of all relations. A text that cannot be used is left out, and the others
/// count; so this does not answer with an [`Endpoint`](super::Endpoint).
#[must_use]
pub fn read(relations: &[Relation]) -> Certificates {
    let mut read = Certificates::default();
    let mut bytes = 0;
    for relation in relations {
        for (place, text) in certificate_texts(relation) {
            let blocks = match pem_blocks(&text) {
                Ok(blocks) => blocks,
                Err(why) => {
                    read.left_out.push(format!("{place}: {why}"));
                    continue;
                }
            };
            for block in blocks {
                if read.blocks.contains(&block) {
                    continue;
                }
                bytes += block.len();
                if bytes > CERTIFICATES_BYTES_MAX {
                    let app = &relation.app;
                    read.left_out
                        .push(format!("with those of {app} there are more than 1 MiB"));
                    return read;
                }
                read.blocks.insert(block);
            }
        }
    }
    read
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

/// A longer text is not taken for a chain of certificates.
const PEM_BYTES_MAX: usize = 256 << 10;

/// A chain of PEM certificates (RFC 7468), checked and written in one way: blocks only, with lines
/// of 64 characters.
///
/// # Errors
/// Why it is not a chain of certificates, to be put after the name of what it is. The reason never
/// quotes the text, because that may be a key.
pub fn pem(text: &str) -> Result<String, String> {
    Ok(pem_blocks(text)?.concat())
}

/// The certificates in a text, each as a PEM block.
fn pem_blocks(text: &str) -> Result<Vec<String>, String> {
    if text.len() > PEM_BYTES_MAX {
        return Err("it is longer than 256 KiB".to_owned());
    }
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((_, begun)) = rest.split_once("-----BEGIN ") {
        let (label, begun) = begun.split_once("-----").unwrap_or_default();
        if label.ends_with("PRIVATE KEY") {
            return Err("it holds a private key; give certificates only".to_owned());
        }
        if label != "CERTIFICATE" {
            return Err(
                "it holds something that is not a certificate; give certificates only".to_owned(),
            );
        }
        let (body, after) = begun
            .split_once("-----END CERTIFICATE-----")
            .ok_or("a certificate in it has no end")?;
        let body: String = body.split_ascii_whitespace().collect();
        let der = BASE64_STANDARD
            .decode(&body)
            .map_err(|_| "a certificate in it is not base64")?;
        if !is_certificate(&der) {
            return Err("a certificate in it is cut off, or is something else".to_owned());
        }
        found.push(block(&der));
        rest = after;
    }
    if found.is_empty() {
        Err("it is not a PEM certificate".to_owned())
    } else {
        Ok(found)
    }
}

/// A certificate in DER as a PEM block.
fn block(der: &[u8]) -> String {
    let body = BASE64_STANDARD.encode(der);
    let mut out = "-----BEGIN CERTIFICATE-----\n".to_owned();
    for line in body.as_bytes().chunks(64) {
        out.extend(line.iter().map(|b| char::from(*b)));
        out.push('\n');
    }
    out + "-----END CERTIFICATE-----\n"
}

/// Whether these bytes are one whole DER sequence that begins with another, as X.509 certificates
/// do. The TLS library that uses them looks closer.
fn is_certificate(der: &[u8]) -> bool {
    contents(der).is_some_and(|(inner, after)| after.is_empty() && contents(inner).is_some())
}

/// The contents of a DER sequence, and what comes after it; `None` when there is no sequence.
fn contents(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let [0x30, first, rest @ ..] = der else {
        return None;
    };
    let (length, rest) = match first {
        0..=0x7f => (usize::from(*first), rest),
        0x81..=0x84 => {
            let (length, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
            (
                length
                    .iter()
                    .fold(0, |n, byte| (n << 8) | usize::from(*byte)),
                rest,
            )
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{of_app, of_units};
    use super::*;
    use serde_json::json;

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
    fn certificates_of_version_1_are_read_once_each_and_in_fixed_order() {
        let one = json!([A, B, A]).to_string();
        let two = json!([format!("{B}{A}")]).to_string();
        let first = of_app("ca", &[("certificates", &one), ("version", "1")]);
        let second = of_app("other", &[("certificates", &two), ("version", "1")]);
        let Certificates { blocks, left_out } = read(&[first.clone(), second.clone()]);
        assert_eq!(blocks, BTreeSet::from([B, A].map(str::to_owned)));
        assert_eq!(left_out, [""; 0]);
        assert_eq!(read(&[second, first]).blocks, blocks);
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
            assert_eq!(read.blocks, BTreeSet::from([B.to_owned()]));
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
        assert_eq!(blocks, BTreeSet::from([A.to_owned()]));
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

    #[test]
    fn there_is_an_end_to_certificates() {
        // As many different ones as are needed, each 60 KB long.
        let many: Vec<String> = (0..30_u8)
            .map(|n| block(&sequence(&sequence(&[n; 60_000]))))
            .collect();
        let Certificates { blocks, left_out } =
            read(&[of_app("ca", &[("certificates", &json!(many).to_string())])]);
        assert!((10..20).contains(&blocks.len()), "{}", blocks.len());
        assert_eq!(left_out, ["with those of ca there are more than 1 MiB"]);
    }

    fn sequence(contents: &[u8]) -> Vec<u8> {
        let length = u32::try_from(contents.len()).unwrap().to_be_bytes();
        [&[0x30, 0x84][..], &length, contents].concat()
    }

    #[test]
    fn pem_is_checked_and_written_in_one_way() {
        assert_eq!(pem(A).unwrap(), A);
        assert_eq!(
            pem(&format!("{A}{B}")).unwrap(),
            format!("{A}{B}"),
            "a chain keeps its order"
        );
        let messy = format!(
            "subject=CN = a\r\n{}\r\n\r\n",
            A.trim_end().replace('\n', "\r\n")
        );
        assert_eq!(pem(&messy).unwrap(), A);
        assert_eq!(
            pem(&A.replace('\n', " ")).unwrap(),
            A,
            "lines lost on a command line"
        );
    }

    #[test]
    fn what_is_not_pem_is_refused_without_showing_it() {
        let base64 = |text: &str| BASE64_STANDARD.encode(text);
        let with = |body: &str| {
            format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
        };
        let half: String = A.lines().take(5).map(|line| format!("{line}\n")).collect();
        for (text, why) in [
            ("", "not a PEM certificate"),
            ("enabled", "not a PEM certificate"),
            ("disabled", "not a PEM certificate"),
            (&half, "has no end"),
            (&format!("{half}-----END CERTIFICATE-----"), "cut off"),
            (&with("secret!"), "not base64"),
            (&with(&base64("hunter2")), "something else"),
            (&with(&base64("0\u{0}")), "something else"),
            (&with(""), "something else"),
            (
                &format!("{A}-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----"),
                "private key",
            ),
            (&format!("{A}-----BEGIN hunter2"), "not a certificate"),
            (
                &A.replace("CERTIFICATE", "CERTIFICATE REQUEST"),
                "not a certificate",
            ),
            (
                &format!("{A}{}", " ".repeat(300_000)),
                "longer than 256 KiB",
            ),
        ] {
            let refused = pem(text).unwrap_err();
            assert!(refused.contains(why), "{refused}");
            assert!(
                !refused.contains("hunter2") && !refused.contains("secret"),
                "{refused}"
            );
        }
    }
}
