//! A panic anywhere ends the process. A process that goes on without one of its tasks looks well
//! from outside: it reads and counts, and never commits again.
#![expect(
    clippy::disallowed_methods,
    reason = "it ends the process, also when that takes too long"
)]

use crate::run::cli::EXIT_FAILED;
use std::time::Duration;
use windrow_core::values::cause::Trouble;

/// How long the exit handlers of libraries may take. Other threads may still use what they tear
/// down.
const EXIT_MAX: Duration = Duration::from_millis(500);

/// From here on, a panic in any thread or task is printed, and then ends the process with code 1.
/// The last line says so in the form in which every process of ours says why it ends. What was not
/// committed is read again by the next start.
pub fn end_the_process() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        // The library that reads Parquet panics at damaged files, and that is caught there.
        if windrow_core::table::file::is_reading_a_file() {
            return;
        }
        print(panic);
        let place = panic
            .location()
            .map_or_else(String::new, |place| format!(" at {place}"));
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("without a name");
        eprintln!("{}", last_words(name, &place).last_line());
        let _ = std::thread::Builder::new().spawn(|| {
            std::thread::sleep(EXIT_MAX);
            std::process::abort();
        });
        std::process::exit(i32::from(EXIT_FAILED));
    }));
}

fn last_words(thread: &str, place: &str) -> Trouble {
    format!(
        "a task panicked{place} (thread {thread}): this is a mistake in windrow, please report it \
         with the lines above; nothing is lost, start it again"
    )
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};
    use std::time::Instant;

    /// Says to this very test program which panic it is to have in a process of its own.
    const KIND: &str = "WINDROW_TEST_PANIC";

    fn panic_as(kind: &str) {
        end_the_process();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        match kind {
            "task" => drop(runtime.spawn(async { panic!("in a task") })),
            "blocking" => drop(runtime.spawn_blocking(|| panic!("in a task that blocks"))),
            "thread" => drop(std::thread::spawn(|| panic!("in a thread"))),
            _ => drop(runtime.spawn(async {
                let _ = tokio::spawn(async { panic!("in a task whose end is awaited") }).await;
            })),
        }
        // The rest of the process goes on, as the loop does.
        std::thread::sleep(Duration::from_mins(1));
    }

    #[test]
    fn a_task_that_panics_ends_the_process() {
        if let Ok(kind) = std::env::var(KIND) {
            return panic_as(&kind);
        }
        for kind in ["task", "blocking", "thread", "awaited"] {
            let started = Instant::now();
            let ended = Command::new(std::env::current_exe().unwrap())
                .args([
                    "run::panics::tests::a_task_that_panics_ends_the_process",
                    "--exact",
                ])
                .arg("--nocapture")
                .env(KIND, kind)
                .env("RUST_BACKTRACE", "0")
                .stdin(Stdio::null())
                .output()
                .unwrap();
            let took = started.elapsed();
            let errors = String::from_utf8(ended.stderr).unwrap();
            assert_eq!(ended.status.code(), Some(1), "{kind}: {errors}");
            let last = Trouble::of_last_line(errors.lines().last().unwrap()).expect(&errors);
            assert!(
                last.text
                    .starts_with("a task panicked at src/run/panics.rs:"),
                "{errors}"
            );
            assert!(
                took < Duration::from_secs(20),
                "it does not wait for the others: {took:?}"
            );
        }
    }
}
