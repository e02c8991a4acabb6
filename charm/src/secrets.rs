//! The secrets file: which values windrow can use, and its text. Nothing is written here.

use std::collections::BTreeMap;
use windrow_core::settings::config::{Secret, Secrets};

/// A secret as windrow's file may hold it: without the line ends that a file brought along.
///
/// # Errors
/// Why windrow cannot use it. No piece of it is in the text.
pub fn usable_secret(key: &str, secret: &Secret) -> Result<Secret, String> {
    let text = secret.expose().trim_matches(['\r', '\n']);
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    let file = yaml(&BTreeMap::from([(key, text)]));
    let read = Secrets::parse(&file).map_err(|error| error.to_string())?;
    // As windrow reads it: what it cannot use it leaves out, and says why.
    if let Some(problem) = read.problems.first() {
        let begin = format!("cannot read secret {key}: ");
        let why = problem.text.strip_prefix(&begin);
        return Err(why.unwrap_or(&problem.text).to_owned());
    }
    by_key(&read)
        .into_iter()
        .find_map(|(known, value)| value.filter(|_| known == key).cloned())
        .ok_or_else(|| "windrow cannot read it".to_owned())
}

/// The secrets of a file, by their keys in it. All keys are there.
#[must_use]
pub fn by_key(secrets: &Secrets) -> [(&'static str, Option<&Secret>); 8] {
    [
        ("kafka-username", secrets.kafka_username.as_ref()),
        ("kafka-password", secrets.kafka_password.as_ref()),
        ("s3-access-key", secrets.s3_access_key.as_ref()),
        ("s3-secret-key", secrets.s3_secret_key.as_ref()),
        ("s3-proxy", secrets.s3_proxy.as_ref()),
        ("catalog-username", secrets.catalog_username.as_ref()),
        ("catalog-password", secrets.catalog_password.as_ref()),
        ("api-token", secrets.api_token.as_ref()),
    ]
}

/// The text of the file with these secrets.
#[must_use]
pub fn file_text(secrets: &BTreeMap<&'static str, &Secret>) -> Secret {
    let texts: BTreeMap<_, _> = secrets
        .iter()
        .map(|(key, secret)| (*key, secret.expose()))
        .collect();
    let comment = "# The secrets of windrow. The charm writes this file, so changes are lost.";
    Secret::new(format!("{comment}\n{}", yaml(&texts)))
}

fn yaml(texts: &BTreeMap<&str, &str>) -> String {
    serde_yaml::to_string(texts).expect("maps of texts are YAML")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_with_a_line_end_is_trimmed_and_a_bad_one_says_why() {
        let usable = |text: &str| usable_secret("api-token", &Secret::new(text));
        assert_eq!(usable("t0ken\r\n\n").unwrap().expose(), "t0ken");
        for bad in ["", "\n"] {
            assert_eq!(usable(bad).unwrap_err(), "it is empty");
        }
        for bad in ["two words", "a\tb", "hunter2 \u{e9}"] {
            assert_eq!(
                usable(bad).unwrap_err(),
                "it goes into an HTTP header; write letters, digits and signs without blanks"
            );
        }
        let proxy = usable_secret("s3-proxy", &Secret::new("ftp://u:hunter2@proxy"));
        let why = proxy.unwrap_err();
        assert!(
            why.starts_with("not the address of a proxy; write http://"),
            "{why}"
        );
        assert!(!why.contains("hunter2"), "{why}");
    }
}
