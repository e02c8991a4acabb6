//! Tells the program which git revision it is built from.
//!
//! A release knows its revision exactly. A build for development says "or later": with an exact
//! revision, the program would be compiled anew after each commit. A source archive has no `.git`,
//! and then the version says so.

#![expect(
    clippy::disallowed_methods,
    reason = "cargo passes facts to build scripts in the environment"
)]

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let version = std::env::var("CARGO_PKG_VERSION").expect("cargo sets it");
    let release = std::env::var("PROFILE").as_deref() == Ok("release");
    let head = git(&["rev-parse", "--git-path", "logs/HEAD"])
        // An archive that was unpacked inside of another repository would get that one's revision.
        .filter(|_| git(&["rev-parse", "--show-prefix"]).as_deref() == Some(""));
    let revision = head
        .as_ref()
        .and_then(|_| git(&["rev-parse", "--short=12", "HEAD"]));
    let built_from = match revision {
        Some(revision) if release => revision,
        Some(revision) => format!("{revision} or later"),
        None => "revision unknown: built outside of git".to_owned(),
    };
    // If the file did not exist, cargo would run this script each time.
    if let Some(head) = head.filter(|head| release && Path::new(head).exists()) {
        println!("cargo::rerun-if-changed={head}");
    }
    println!("cargo::rustc-env=WINDROW_VERSION={version} ({built_from})");
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git")
        .args(arguments)
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
