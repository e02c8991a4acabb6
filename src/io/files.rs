//! Opens the settings and secrets files; what they mean is `config`'s.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use windrow_core::settings::config::{Config, ConfigError, DEFAULT_SECRETS_FILE, Secrets};

/// Where the settings are looked for when `--config` does not say.
pub const DEFAULT_CONFIG_FILES: [&str; 2] = ["/etc/windrow/windrow.yaml", "windrow.yaml"];

/// Reads the settings and the secrets they name. `path` is what `--config` says.
///
/// # Errors
/// All that is wrong with the files, each line beginning with the file's name; no secret is in it.
/// Whether the secrets suffice is [`Config::check_secrets`]'s.
pub fn load(path: Option<&Path>) -> Result<(Config, Secrets), ConfigError> {
    let config = load_config(path)?;
    let secrets = load_secrets(&config)?;
    Ok((config, secrets))
}

/// Reads the settings alone.
///
/// # Errors
/// As of [`load`].
pub fn load_config(path: Option<&Path>) -> Result<Config, ConfigError> {
    let path = match path {
        Some(path) => path.to_owned(),
        None => DEFAULT_CONFIG_FILES.iter().map(PathBuf::from).find(|p| p.exists()).ok_or_else(|| {
            let [first, second] = DEFAULT_CONFIG_FILES;
            ConfigError(vec![format!("cannot find settings: neither {first} nor ./{second} is there; write one, or name it with --config")])
        })?,
    };
    Config::parse(&text(&path, false)?).map_err(|error| named(&path, error))
}

/// Reads the secrets file again, for instance after a rotation.
///
/// # Errors
/// As of [`load`].
pub fn load_secrets(config: &Config) -> Result<Secrets, ConfigError> {
    let path = match &config.secrets_file {
        Some(path) => path.as_path(),
        None if Path::new(DEFAULT_SECRETS_FILE).exists() => Path::new(DEFAULT_SECRETS_FILE),
        None => return Ok(Secrets::default()),
    };
    Secrets::parse(&text(path, true)?).map_err(|error| named(path, error))
}

fn named(path: &Path, error: ConfigError) -> ConfigError {
    ConfigError(
        error
            .0
            .into_iter()
            .map(|problem| format!("{}: {problem}", path.display()))
            .collect(),
    )
}

/// A file's text. A secret file's mode is asked of the opened file, so that no other file can take
/// its place between.
fn text(path: &Path, secret: bool) -> Result<String, ConfigError> {
    let name = path.display();
    let fail = |why: String| ConfigError(vec![format!("cannot read file \"{name}\": {why}")]);
    let cause = |error: std::io::Error| match error.kind() {
        ErrorKind::InvalidData => fail("it is not UTF-8 text".to_owned()),
        _ => fail(error.to_string()),
    };
    let mut file = File::open(path).map_err(cause)?;
    let mode = file.metadata().map_err(cause)?.permissions().mode() & 0o777;
    if secret && mode & 0o077 != 0 {
        return Err(fail(format!(
            "it holds secrets, and its mode {mode:03o} lets others at them; run: chmod 600 {name}"
        )));
    }
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(cause)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_secrets_file_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (main, secrets) = (
            dir.path().join("windrow.yaml"),
            dir.path().join("secrets.yaml"),
        );
        let text = format!(
            "kafka: {{ bootstrap: 'k:9092', topic: t }}\nsecrets-file: {}\n",
            secrets.display()
        );
        fs::write(&main, text).unwrap();
        let error = load(Some(&main)).unwrap_err().to_string();
        assert!(error.contains("secrets.yaml\": No such file"), "{error}");

        fs::write(&secrets, "kafka-password: hunter2\n").unwrap();
        fs::set_permissions(&secrets, fs::Permissions::from_mode(0o640)).unwrap();
        let error = load(Some(&main)).unwrap_err().to_string();
        assert!(
            error.contains("its mode 640 lets others at them; run: chmod 600 "),
            "{error}"
        );

        for mode in [0o600, 0o400] {
            fs::set_permissions(&secrets, fs::Permissions::from_mode(mode)).unwrap();
            let (_, read) = load(Some(&main)).unwrap();
            assert_eq!(read.kafka_password.unwrap().expose(), "hunter2");
        }
    }

    #[test]
    fn problems_name_their_file() {
        let dir = tempfile::tempdir().unwrap();
        let main = dir.path().join("windrow.yaml");
        fs::write(
            &main,
            "windw: 1s\nkafka: { bootstrap: 'k:9092', topic: t }\n",
        )
        .unwrap();
        let error = load(Some(&main)).unwrap_err();
        assert_eq!(
            error.0,
            [format!(
                "{}: cannot read setting windw: unknown key; did you mean \"window\"?",
                main.display()
            )]
        );
    }
}
