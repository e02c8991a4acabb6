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
mod clocks;
mod failover;
#[path = "../catalog_cases.rs"]
mod catalog_cases;
mod faults;
mod finish;
mod garbage;
#[path = "../hands.rs"]
mod hands;
mod judge;
mod process;
mod requests;
#[path = "../rng.rs"]
mod rng;
mod store;
mod store_cases;
mod topic;
mod world;

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
    let mut sum = world::Summary::default();
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let seeds = seeds();
    type Part = (world::Summary, Vec<(u64, String)>);
    let one = &|thread: u64| -> Part {
        let (mut sum, mut failed) = (world::Summary::default(), Vec::new());
        for seed in seeds.clone().filter(|s| s % threads == thread) {
            // A panic is said above; here is only whose it was.
            match std::panic::catch_unwind(|| run(seed, None)) {
                Ok(Ok(one)) => sum.add(&one),
                Ok(Err(reason)) => failed.push((seed, reason)),
                Err(_) => failed.push((seed, "an engine panicked".to_owned())),
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
    let mut failed = Vec::new();
    for (part, failures) in parts {
        sum.add(&part);
        failed.extend(failures);
    }
    failed.sort();
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
        let caught = (0..4000).find(|seed| run(*seed, Some(mistake)).is_err());
        let caught = caught.unwrap_or_else(|| panic!("{mistake:?} was not caught in 4000 seeds"));
        println!("{mistake:?} is caught by seed {caught}");
    }
}

#[test]
fn a_seed_gives_the_same_run_twice() {
    for seed in 0..50 {
        assert_eq!(run(seed, None), run(seed, None), "seed {seed}");
    }
}
