//! Runs the built hook binary against hook commands and a Pebble that refuse what the real ones
//! refuse.
//!
//! The process first enters namespaces of its own. Then `/charm/containers` (Pebble's sockets),
//! 127.0.0.1:8080 (the workload), `/etc/hosts` and `/run` belong to this test alone. As these
//! places are fixed, one world runs at a time.
//!
//! `WINDROW_WRITE=1 cargo test -p windrow-charm --test scenario` writes the golden files; look
//! at what has changed with `git diff`.
#![expect(
    clippy::disallowed_methods,
    reason = "a process that stands in for others has threads, clocks and an environment"
)]

mod client;
mod golden;
mod http;
mod juju;
mod pebble;
mod provider;
mod workload;
mod world;
mod standin;
mod usecase;
mod matrix;
mod badinput;
mod onebad;

use libtest_mimic::{Arguments, Failed, Trial};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

/// Makes trials of tests. A test fails by a panic.
fn named(module: &str, tests: &[(&str, fn())]) -> Vec<Trial> {
    let trial = |(name, test): &(&str, fn())| {
        let test = *test;
        Trial::test(format!("{module}::{name}"), move || {
            test();
            Ok::<(), Failed>(())
        })
    };
    tests.iter().map(trial).collect()
}

/// The first argument of the process inside the namespaces.
const INSIDE: &str = "--inside";

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().collect();
    // A hook command is this program under another name, as Juju's hook commands are all `jujuc`.
    let name = Path::new(&arguments[0])
        .file_name()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default();
    if juju::COMMANDS.contains(&name.as_str()) {
        return client::call(&name, &arguments[1..]);
    }
    let inside = arguments.get(1).is_some_and(|a| a == INSIDE);
    if inside {
        arguments.remove(1);
    }
    let mut parsed = Arguments::from_iter(&arguments);
    if !inside && !parsed.list {
        let why = enter(&arguments[1..]);
        let trial = Trial::test("namespaces", move || Err(Failed::from(why)));
        return libtest_mimic::run(&Arguments::default(), vec![trial]).exit_code();
    }
    parsed.test_threads = Some(1);
    let mut trials = standin::trials();
    trials.extend(usecase::trials());
    trials.extend(matrix::trials());
    trials.extend(badinput::trials());
    trials.extend(onebad::trials());
    libtest_mimic::run(&parsed, trials).exit_code()
}

/// Starts this program again in its place, inside namespaces. It returns only if that fails, with
/// the reason.
fn enter(arguments: &[String]) -> String {
    let works = |flags: &str| {
        let tried = Command::new("unshare")
            .args([flags, "true"])
            .stderr(Stdio::null())
            .status();
        tried.is_ok_and(|status| status.success())
    };
    let Some(flags) = ["-mn", "-rmn"].into_iter().find(|flags| works(flags)) else {
        return "cannot make a mount and a network namespace, neither as this user nor in a \
                user namespace (`unshare -rmn true` fails); run as root, or allow user namespaces"
            .to_owned();
    };
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("root");
    if let Err(e) = std::fs::create_dir_all(&root) {
        return format!("cannot make {}: {e}", root.display());
    }
    let me = std::env::current_exe().expect("a running program has a path");
    let e = Command::new("unshare")
        .args([flags, "sh", "-ec", INSIDE_SH, "sh"])
        .args([root.as_os_str(), me.as_os_str(), INSIDE.as_ref()])
        .args(arguments)
        .exec();
    format!("cannot start unshare: {e}")
}

/// Makes a root that is the machine's, except for what a charm's container has at fixed places.
const INSIDE_SH: &str = r#"
root=$1; shift
ip link set lo up
mount -t tmpfs -o mode=755 scenario "$root"
mount --make-unbindable "$root"
for entry in /* /.[!.]*; do
    case $entry in /charm|/run) continue ;; esac
    if [ -L "$entry" ]; then cp -P "$entry" "$root$entry"
    elif [ -d "$entry" ]; then mkdir "$root$entry"; mount --rbind "$entry" "$root$entry"
    fi
done
mkdir "$root/charm" "$root/run"
mount -t tmpfs -o mode=755 scenario "$root/charm"
mkdir "$root/charm/containers"
echo '127.0.0.1 localhost' >"$root/charm/hosts"
: >"$root/charm/resolv.conf"
mount --bind "$root/charm/hosts" "$root/etc/hosts"
if [ -e "$root/etc/resolv.conf" ]; then
    mount --bind "$root/charm/resolv.conf" "$root/etc/resolv.conf"
fi
exec chroot "$root" "$@"
"#;
