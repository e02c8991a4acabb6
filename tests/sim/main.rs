//! The simulation: seeded logs, faults and crashes around real engines, and an auditor that knows
//! only the logs, the recorded decisions and a plain group-by. It has no clock and does no I/O, and
//! each run stays in one thread: a seed is a whole run.
//!
//! `WINDROW_SIM_SEEDS=100000 cargo test -p windrow-core --test sim` runs more of it.
//! `WINDROW_SIM_SEED=17` runs one seed and prints what it did.
#![expect(
    clippy::disallowed_methods,
    reason = "the person at the keyboard says how many seeds are run"
)]

mod audit;
mod chain;
mod choices;
mod clocks;
mod failover;
#[path = "../catalog_cases.rs"]
mod catalog_cases;
mod draw;
mod faults;
mod finish;
mod floors;
mod garbage;
mod harm;
#[path = "../hands.rs"]
mod hands;
mod judge;
mod liveness;
mod mutants;
mod mutations;
mod process;
mod replays;
mod requests;
#[path = "../rng.rs"]
mod rng;
mod scenes;
mod stale;
mod store;
mod store_cases;
mod topic;
mod upkeep;
mod verify;
mod world;

use mutants::SEEDS_MAX;
use std::ops::Range;
use store::Mistake;
use world::World;

fn run(seed: u64, mistake: Option<Mistake>) -> Result<world::Summary, String> {
    let mut world = World::new(seed, mistake);
    let result = world.run().and_then(|()| world.audit());
    if std::env::var("WINDROW_SIM_SEED").is_ok() && mistake.is_none() {
        println!("seed {seed}:\n{}", world.tell());
    }
    result
}

/// Runs seeds in as many threads as there are processors; a thread ends after `failures` of its
/// seeds have failed. Returns what happened in all of them, and the seeds that failed, in order.
fn run_all(
    seeds: Range<u64>,
    mistake: Option<Mistake>,
    failures: usize,
) -> (world::Summary, Vec<(u64, String)>) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    type Part = (world::Summary, Vec<(u64, String)>);
    let one = &|thread: u64| -> Part {
        let (mut sum, mut failed) = (world::Summary::default(), Vec::new());
        for seed in seeds.clone().filter(|s| s % threads == thread) {
            // A panic is said above; here is only whose it was.
            match std::panic::catch_unwind(|| run(seed, mistake)) {
                Ok(Ok(one)) => sum.add(&one),
                Ok(Err(reason)) => failed.push((seed, reason)),
                Err(_) => failed.push((seed, "an engine panicked".to_owned())),
            }
            if failed.len() >= failures {
                break;
            }
        }
        (sum, failed)
    };
    let parts: Vec<Part> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads)
            .map(|thread| scope.spawn(move || one(thread)))
            .collect();
        handles
            .into_iter()
            .map(|h| h.join().expect("an engine panicked: see above"))
            .collect()
    });
    let (mut sum, mut failed) = (world::Summary::default(), Vec::new());
    for (part, failures) in parts {
        sum.add(&part);
        failed.extend(failures);
    }
    failed.sort();
    (sum, failed)
}

fn seeds_that_fail(seeds: Range<u64>, failures: usize) -> Vec<(u64, String)> {
    run_all(seeds, None, failures).1
}

fn seeds() -> std::ops::Range<u64> {
    if let Ok(one) = std::env::var("WINDROW_SIM_SEED") {
        let one = one.parse().expect("WINDROW_SIM_SEED is a number");
        return one..one + 1;
    }
    let n = std::env::var("WINDROW_SIM_SEEDS").map_or(10_000, |n| {
        n.parse().expect("WINDROW_SIM_SEEDS is a number")
    });
    0..n
}

#[test]
fn the_table_is_a_function_of_the_log_whatever_fails() {
    let seeds = seeds();
    let (sum, failed) = run_all(seeds.clone(), None, usize::MAX);
    let first: Vec<String> = failed
        .iter()
        .take(20)
        .map(|(seed, why)| format!("seed {seed}: {why}"))
        .collect();
    assert!(
        failed.is_empty(),
        "{} seeds failed:\n{}\nrun one alone: WINDROW_SIM_SEED={}",
        failed.len(),
        first.join("\n"),
        failed[0].0
    );
    println!("{sum:?}");
    if seeds.end - seeds.start >= 1000 {
        // A simulation in which nothing happens finds nothing.
        let n = seeds.end - seeds.start;
        for (what, seen) in sum.all() {
            assert!(seen * 100 > n, "too few {what} in {n} seeds: {seen}");
        }
    }
}

#[test]
fn planted_mistakes_are_caught() {
    for mistake in Mistake::ALL {
        let caught = (0..SEEDS_MAX).find(|seed| run(*seed, Some(mistake)).is_err());
        let caught =
            caught.unwrap_or_else(|| panic!("{mistake:?} was not caught in {SEEDS_MAX} seeds"));
        println!("{mistake:?} is caught by seed {caught}");
    }
}

/// The same, with how often.
#[test]
#[ignore = "it takes a minute; make test-mutations runs it"]
fn how_often_planted_mistakes_are_caught() {
    std::panic::set_hook(Box::new(|_| {}));
    for mistake in Mistake::ALL {
        let (_, failed) = run_all(0..500, Some(mistake), usize::MAX);
        let first = failed.first().map(|(seed, _)| *seed);
        println!(
            "{mistake:?}: {} of 500 seeds, first {first:?}",
            failed.len()
        );
    }
}

#[test]
fn a_seed_gives_the_same_run_twice() {
    for seed in 0..50 {
        assert_eq!(run(seed, None), run(seed, None), "seed {seed}");
    }
}
