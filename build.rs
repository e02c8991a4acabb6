//! Tells the program which git revision it is built from, where there is one.
//!
//! Only for release builds: a revision in every build would compile the program anew after each
//! commit. A source archive has no `.git`; then, and when anything else is amiss, the version
//! stands alone.

#![expect(
    clippy::disallowed_methods,
    reason = "cargo speaks to build scripts by environment"
)]

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let version = std::env::var("CARGO_PKG_VERSION").expect("cargo sets it");
    if std::env::var("PROFILE").as_deref() == Ok("release")
        // A file that is not there would make cargo run this each time.
        && let Some(head) = git(&["rev-parse", "--git-path", "logs/HEAD"]).filter(|path| std::path::Path::new(path).exists())
        // An archive unpacked inside another repository has that one's revision, not its own.
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
