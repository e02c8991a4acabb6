//! The use case: deploy, three integrates, no option; then a table that fills.

use crate::golden;
use crate::provider::Provider;
use crate::world::World;
use libtest_mimic::Trial;

pub fn trials() -> Vec<Trial> {
    crate::named("usecase", &[("deploy_and_three_integrates_start_the_workload", deploy)])
}

/// A unit that Juju has brought up, with nothing related.
pub fn fresh() -> World {
    let mut world = World::new();
    for hook in ["install", "leader-elected"] {
        world.hook(hook).good();
    }
    world.pebble_ready().good();
    for hook in ["config-changed", "start"] {
        world.hook(hook).good();
    }
    world
}

fn deploy() {
    let mut world = World::new();
    let mut told = String::new();
    told += &world.hook("install").good().tell();
    told += &world.hook("leader-elected").good().tell();
    told += &world.pebble_ready().good().tell();
    told += &world.hook("config-changed").good().tell();
    world.relate("kafka-client", Provider::kafka_3());
    world.relate("s3-credentials", Provider::s3_1());
    world.relate("metastore-db", Provider::postgresql_14());
    told += &world.hook("update-status").good().tell();
    let quiet = world.hook("update-status").good();
    told += &quiet.tell();
    println!("a no-change dispatch: {} hook commands, {} ms", quiet.count(""), quiet.took.as_millis());
    golden::check("usecase", "Deploy and three integrates, then nothing more", &told).expect("same");
}
