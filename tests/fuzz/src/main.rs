//! Fuzzing: libFuzzer makes up bytes, and here is what they are given to.
//! Each target is one parser that meets bytes from outside. It says what must hold of the answers,
//! beside that nothing panics. `run.sh` builds this program and runs each target.
#![no_main]
#![expect(
    clippy::disallowed_methods,
    reason = "libFuzzer has the command line, so a target is named by the environment"
)]

mod charm;
mod core;

use libfuzzer_sys::{Corpus, fuzz_target};
use std::sync::LazyLock;

/// What gets the bytes. It panics where something does not hold.
type Target = fn(&[u8]);

/// All targets; `run.sh` reads their names here, and each has a folder in `corpus/`.
const TARGETS: &[(&str, Target)] = &[
    ("record-value", core::record_value),
    ("time", core::time),
    ("settings", core::settings),
    ("secrets", core::secrets),
    ("checkpoint", core::checkpoint),
    ("manifest", core::manifest),
    ("ledger-row", core::ledger_row),
    ("table-file", core::table_file),
    ("spark-job", core::spark_job),
    ("http-request", core::http_request),
    ("last-line", core::last_line),
    ("databag", charm::databag),
    ("certificates", charm::certificates),
    ("options", charm::options),
    ("status", charm::status),
];

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let wanted = std::env::var("WINDROW_FUZZ_TARGET").unwrap_or_default();
    let found = TARGETS.iter().find(|(name, _)| *name == wanted);
    found
        .expect("WINDROW_FUZZ_TARGET is the name of a target")
        .1
});

fuzz_target!(|data: &[u8]| -> Corpus {
    TARGET(data);
    Corpus::Keep
});

/// The bytes as text; targets whose parser takes text have nothing to say of others.
fn text(data: &[u8]) -> Option<&str> {
    std::str::from_utf8(data).ok()
}
