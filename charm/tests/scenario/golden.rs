//! Golden files: what a run has said, compared to the letter. `WINDROW_WRITE=1` writes them.

use std::path::Path;

/// Compares with `golden/NAME.txt`.
///
/// # Errors
/// The first line that differs, and the whole text as it is now.
pub fn check(name: &str, what: &str, text: &str) -> Result<(), String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/scenario/golden")
        .join(format!("{name}.txt"));
    let text = format!("# {what}\n{text}");
    if std::env::var("WINDROW_WRITE").is_ok_and(|w| w == "1") {
        std::fs::create_dir_all(path.parent().expect("joined")).map_err(|e| e.to_string())?;
        return std::fs::write(&path, text).map_err(|e| e.to_string());
    }
    let told = std::fs::read_to_string(&path)
        .map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    if told == text {
        return Ok(());
    }
    let line = text
        .lines()
        .zip(told.lines())
        .position(|(a, b)| a != b)
        .unwrap_or(0);
    let (now, was) = (
        text.lines().nth(line).unwrap_or_default(),
        told.lines().nth(line).unwrap_or_default(),
    );
    Err(format!(
        "{}:{}: was\n{was}\nis now\n{now}\nin all\n{text}",
        path.display(),
        line + 1
    ))
}
