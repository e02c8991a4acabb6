//! Tells the program which git revision it is built from, where there is one.
//!
//! It does so for release builds only: with a revision in every build, the program would be
//! compiled anew after each commit. A source archive has no `.git`; then, and when anything else is
//! missing, the version stands alone.

#![expect(
    clippy::disallowed_methods,
    reason = "cargo passes facts to build scripts in the environment"
)]

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let version = std::env::var("CARGO_PKG_VERSION").expect("cargo sets it");
    if std::env::var("PROFILE").as_deref() == Ok("release")
        // If the file did not exist, cargo would run this script each time.
        && let Some(head) = git(&["rev-parse", "--git-path", "logs/HEAD"])
        && Path::new(&head).exists()
        // An archive that was unpacked inside of another repository would get that one's revision.
        && git(&["rev-parse", "--show-prefix"]).as_deref() == Some("")
        && let Some(revision) = git(&["rev-parse", "--short=12", "HEAD"])
    {
        println!("cargo::rerun-if-changed={head}");
        println!("cargo::rustc-env=WINDROW_VERSION={version} ({revision})");
    }
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git")
        .args(arguments)
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
