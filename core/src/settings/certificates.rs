//! CA certificates in PEM (RFC 7468): text → those that TLS can use, and why others cannot be used.
//! A text from elsewhere may hold one bad certificate among many, and each client of TLS refuses to
//! start because of one. So the program and its charm leave out what cannot be used, by this rule.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use x509_cert::Certificate;
use x509_cert::der::asn1::AnyRef;
use x509_cert::der::{Decode as _, Reader as _, SliceReader, Tag, Tagged as _};
use x509_cert::name::Name;

/// A longer text is not taken for a chain of certificates.
pub const PEM_BYTES_MAX: usize = 256 << 10;

/// What a text holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Certificates {
    /// Each certificate as a PEM block with lines of 64 characters, in the order of the text and
    /// each once.
    pub blocks: Vec<String>,
    /// Why the rest was left out: one reason for each piece. No piece of the text is in them,
    /// because it may be a key.
    pub left_out: Vec<String>,
}

impl Certificates {
    /// Reads a text. What stands between the blocks does not matter.
    ///
    /// Example: a CA's certificate, a certificate that is cut off and a private key give one block
    /// and two reasons.
    #[must_use]
    pub fn read(text: &str) -> Self {
        let mut read = Self::default();
        if text.len() > PEM_BYTES_MAX {
            let most = PEM_BYTES_MAX >> 10;
            read.left_out.push(format!("it is longer than {most} KiB"));
            return read;
        }
        let mut rest = text;
        while let Some((_, begun)) = rest.split_once("-----BEGIN ") {
            match read_block(begun) {
                Ok((block, after)) => {
                    if !read.blocks.contains(&block) {
                        read.blocks.push(block);
                    }
                    rest = after;
                }
                Err(why) => {
                    read.left_out.push(why.to_owned());
                    rest = begun;
                }
            }
        }
        if read == Self::default() {
            read.left_out.push("it is not a PEM certificate".to_owned());
        }
        read
    }

    /// The certificates of a text of which every piece must be one: the blocks together.
    ///
    /// # Errors
    /// The first reason why not, to be put after the name of what it is.
    pub fn read_all(text: &str) -> Result<String, String> {
        let read = Self::read(text);
        match read.left_out.into_iter().next() {
            Some(why) => Err(why),
            None => Ok(read.blocks.concat()),
        }
    }
}

/// The block whose first line goes on with `begun`, and what comes after the block.
fn read_block(begun: &str) -> Result<(String, &str), &'static str> {
    let (label, body) = begun.split_once("-----").unwrap_or_default();
    if label.ends_with("PRIVATE KEY") {
        return Err("it holds a private key; give certificates only");
    }
    if label != "CERTIFICATE" {
        return Err("it holds something that is not a certificate; give certificates only");
    }
    let (body, after) = body
        .split_once("-----END CERTIFICATE-----")
        .filter(|(body, _)| !body.contains("-----BEGIN "))
        .ok_or("a certificate in it has no end")?;
    let body: String = body.split_ascii_whitespace().collect();
    let der = BASE64_STANDARD
        .decode(&body)
        .map_err(|_| "a certificate in it is not base64")?;
    if !is_usable(&der) {
        return Err("a certificate in it is cut off, or is something else");
    }
    Ok((block(&der), after))
}

/// Whether TLS can trust this certificate. Kafka's client takes it apart as a whole (OpenSSL), the
/// clients of S3 and PostgreSQL as an anchor of trust (webpki). OpenSSL cannot be asked here, so
/// what it looks at beyond x509-cert is looked at: the texts of names, and object identifiers.
fn is_usable(der: &[u8]) -> bool {
    let Ok(certificate) = Certificate::from_der(der) else {
        return false;
    };
    let inner = &certificate.tbs_certificate;
    webpki::anchor_from_trusted_cert(&der.into()).is_ok()
        && is_readable(&inner.issuer)
        && is_readable(&inner.subject)
        && are_values_sound(der)
}

/// Whether the texts of a name are of types that names have, with characters that these have.
fn is_readable(name: &Name) -> bool {
    name.0.iter().flat_map(|part| part.0.iter()).all(|part| {
        let text = part.value.value();
        match part.value.tag() {
            Tag::Utf8String => std::str::from_utf8(text).is_ok(),
            // UTF-16, of which only characters of one unit are allowed.
            Tag::BmpString => {
                text.len() % 2 == 0 && text.chunks(2).all(|unit| !(0xd8..0xe0).contains(&unit[0]))
            }
            Tag::PrintableString | Tag::Ia5String | Tag::TeletexString | Tag::NumericString => true,
            _ => false,
        }
    })
}

/// Whether these values, and those in them, are as their types must be (X.690). An object
/// identifier for example is of numbers of seven bits a byte, none of which begins with zeros.
fn are_values_sound(der: &[u8]) -> bool {
    let Ok(mut reader) = SliceReader::new(der) else {
        return der.is_empty();
    };
    while !reader.is_finished() {
        let Ok(any) = reader.decode::<AnyRef<'_>>() else {
            return false;
        };
        let value = any.value();
        let is_sound = match any.tag() {
            Tag::Null => value.is_empty(),
            Tag::Boolean => value.len() == 1,
            Tag::BitString => value.first().is_some_and(|unused| *unused < 8),
            Tag::Integer => match value {
                [] => false,
                [0, second, ..] => *second >= 0x80,
                [0xff, second, ..] => *second < 0x80,
                _ => true,
            },
            Tag::ObjectIdentifier => {
                let mut is_first = true;
                value.iter().all(|byte| {
                    let begins = std::mem::replace(&mut is_first, *byte < 0x80);
                    !begins || *byte != 0x80
                }) && is_first
            }
            tag if tag.is_constructed() => are_values_sound(value),
            _ => true,
        };
        if !is_sound {
            return false;
        }
    }
    true
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

#[cfg(test)]
mod tests {
    use super::*;

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
    fn pem_is_checked_and_written_in_one_way() {
        let pem = Certificates::read_all;
        assert_eq!(pem(A).unwrap(), A);
        assert_eq!(
            pem(&format!("{A}{B}{A}")).unwrap(),
            format!("{A}{B}"),
            "a chain keeps its order, and each is there once"
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
    fn one_certificate_that_is_none_takes_no_other_with_it() {
        // Well-formed on the outside: one sequence that begins with another.
        let shaped = block(&[0x30, 4, 0x30, 2, 5, 0]);
        let cut: String = A.lines().take(5).map(|line| format!("{line}\n")).collect();
        let key = "-----BEGIN PRIVATE KEY-----\naHVudGVyMg==\n-----END PRIVATE KEY-----\n";
        for bad in [shaped.as_str(), &cut, key] {
            for text in [
                format!("{bad}{A}{B}"),
                format!("{A}{bad}{B}"),
                format!("{A}{B}{bad}"),
            ] {
                let read = Certificates::read(&text);
                assert_eq!(read.blocks, [A, B], "{bad}");
                assert_eq!(read.left_out.len(), 1, "{bad}: {:?}", read.left_out);
            }
        }
    }

    #[test]
    fn a_name_in_latin_1_is_left_out() {
        let body: String = A.lines().filter(|l| !l.starts_with('-')).collect();
        let mut der = BASE64_STANDARD.decode(body).unwrap();
        let name = der.windows(4).position(|bytes| bytes == b"a-ca").unwrap();
        der[name] = 0xfc;
        let read = Certificates::read(&format!("{A}{}", block(&der)));
        assert_eq!(read.blocks, [A]);
        assert_eq!(read.left_out.len(), 1);
    }

    #[test]
    fn a_certificate_with_one_byte_changed_is_only_taken_when_it_is_one() {
        let body: String = A.lines().filter(|l| !l.starts_with('-')).collect();
        let der = BASE64_STANDARD.decode(body).unwrap();
        let mut refused = 0;
        for at in 0..der.len() {
            let mut changed = der.clone();
            changed[at] ^= 0x20;
            // Whatever is taken, both libraries can read again.
            match Certificates::read(&block(&changed)).blocks.first() {
                Some(text) => assert!(Certificates::read_all(text).is_ok(), "{at}"),
                None => refused += 1,
            }
        }
        assert!(refused > 50, "{refused}");
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
            let refused = Certificates::read_all(text).unwrap_err();
            assert!(refused.contains(why), "{refused}");
            assert!(
                !refused.contains("hunter2") && !refused.contains("secret"),
                "{refused}"
            );
        }
    }
}
