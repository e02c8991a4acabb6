//! What an engine does about garbage, down to the objects: an owner's table with modelled catalog
//! and store, in which single requests fail.

use crate::hands::{self, Client, Objects};
use crate::store::Catalog;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use windrow::run::clients::engine_settings;
use windrow_core::engine::{
    Answer, Effect, Engine, Input, Request, StoreAnswer, StoreRequest, TopicFacts,
};
use windrow_core::settings::config::Config;
use windrow_core::table::place::Names;
use windrow_core::values::time::{DbTime, Mono, WallTime};

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

struct Play {
    engine: Engine,
    catalog: Catalog,
    objects: Objects,
    /// When each object was stored, if that was not long ago.
    stored_at: BTreeMap<String, u64>,
    now: u64,
    /// Objects that cannot be deleted.
    stuck: BTreeSet<String>,
    /// How many listings fail from now on.
    failing_listings: u32,
    /// The store ignores what a page is to begin behind, and always gives the first page.
    ignores_after: bool,
    listings: u32,
    /// Foreign keys that the engine has reported.
    foreign: Vec<String>,
    /// Why the process ended.
    ended: Option<String>,
}

impl Play {
    fn new() -> Self {
        let config = Config::parse(
            "kafka: { bootstrap: 'k:9092', topic: t }\n\
             table: { name: n, warehouse: 's3a://spark/w', keep-replaced: 7d }\n\
             catalog: postgresql://db/hive",
        );
        Self {
            engine: Engine::new(engine_settings(&config.unwrap())),
            catalog: Catalog::default(),
            objects: Objects::new(),
            stored_at: BTreeMap::new(),
            now: 0,
            stuck: BTreeSet::new(),
            failing_listings: 0,
            ignores_after: false,
            listings: 0,
            foreign: Vec::new(),
            ended: None,
        }
    }

    /// One that owns its table, after epoch 0.
    fn counting() -> Self {
        let mut play = Self::new();
        play.wait(10_000);
        assert_eq!(play.catalog.epochs.len(), 1);
        play
    }

    /// Lets time go by, a minute at a time at most.
    fn wait(&mut self, ms: u64) {
        let until = self.now + ms;
        while self.now < until {
            self.now = (self.now + MINUTE).min(until);
            for _ in 0..20 {
                self.step(Input::Tick {
                    now: Mono(self.now),
                    wall: WallTime(1_700_000_000_000 + self.now as i64),
                });
            }
        }
    }

    fn step(&mut self, input: Input<'_>) {
        let mut effects = Vec::new();
        self.engine.step(input, &mut effects);
        while !effects.is_empty() {
            for effect in std::mem::take(&mut effects) {
                match effect {
                    Effect::Ask(request) => {
                        if let Some(answer) = self.answer(request) {
                            self.engine.step(Input::Answer(answer), &mut effects);
                        }
                    }
                    Effect::ReportForeignKeys(keys) => self.foreign.extend(keys),
                    Effect::Exit(why) => {
                        self.ended = Some(why.map_or(String::new(), |why| why.text))
                    }
                    _ => {}
                }
            }
        }
    }

    fn answer(&mut self, request: Request) -> Option<Answer> {
        let client = Client {
            owner_id: "me".to_owned(),
            lease_ms: 15_000,
            mistake: None,
        };
        let topic = TopicFacts {
            cluster_id: "c".to_owned(),
            unknown: BTreeMap::new(),
            topic_id: "1".to_owned(),
            partitions: BTreeMap::from([(0, (0, 0))]),
        };
        let now = DbTime(1_700_000_000_000 + self.now as i64);
        match request {
            Request::Catalog(request) => {
                let (catalog, objects) = (&mut self.catalog, &self.objects);
                hands::ask_catalog(catalog, objects, &client, now, request).map(Answer::Catalog)
            }
            Request::Brokers(request) => {
                Some(Answer::Brokers(hands::ask_brokers(&topic, &request)))
            }
            Request::Store(request) => Some(Answer::Store(self.ask_store(request))),
        }
    }

    fn ask_store(&mut self, request: StoreRequest) -> StoreAnswer {
        match request {
            StoreRequest::ListPage { prefix, after } if self.failing_listings > 0 => {
                self.failing_listings -= 1;
                StoreAnswer::ListPage {
                    prefix,
                    after,
                    result: Err("no answer in time".into()),
                }
            }
            StoreRequest::Delete { keys } => {
                let (kept, gone): (Vec<_>, Vec<_>) =
                    keys.into_iter().partition(|key| self.stuck.contains(key));
                self.objects.retain(|key, _| !gone.contains(key));
                StoreAnswer::Delete { gone, kept }
            }
            StoreRequest::ListPage { prefix, after } if self.ignores_after => {
                self.listings += 1;
                let first = StoreRequest::ListPage {
                    prefix,
                    after: None,
                };
                let StoreAnswer::ListPage { prefix, result, .. } =
                    hands::ask_store(&mut self.objects, first)
                else {
                    unreachable!("a listing was asked for")
                };
                StoreAnswer::ListPage {
                    prefix,
                    after,
                    result,
                }
            }
            request => {
                self.listings += u32::from(matches!(request, StoreRequest::ListPage { .. }));
                let mut answer = hands::ask_store(&mut self.objects, request);
                if let StoreAnswer::ListPage {
                    result: Ok(page), ..
                } = &mut answer
                {
                    for object in &mut page.objects {
                        let at = self.stored_at.get(&object.key).copied();
                        object.age_ms = at.map_or(400 * DAY, |at| self.now - at);
                    }
                }
                answer
            }
        }
    }

    /// Stores an object, as an owner of this term did for this epoch.
    fn put(&mut self, term: u64, epoch: u64, n: u32) -> String {
        let key = Names::new("default", "n").file("rows", term, epoch, &format!("{n:064}"));
        let key = key.replace(&"0".repeat(32), &format!("{n:032}"));
        self.objects.insert(key.clone(), Arc::new(Vec::new()));
        self.stored_at.insert(key.clone(), self.now);
        key
    }

    fn is_doomed(&self, key: &str) -> bool {
        self.catalog.doomed.contains_key(key)
    }
}

#[test]
fn a_key_that_cannot_be_deleted_holds_back_no_other() {
    let mut play = Play::counting();
    // More than a page of them, and the one that is stuck is the first.
    let keys: Vec<String> = (0..50).map(|n| play.put(0, 0, n)).collect();
    play.stuck.insert(keys[0].clone());
    play.wait(DAY + HOUR);
    assert!(keys.iter().all(|key| play.is_doomed(key)));
    play.wait(7 * DAY);
    let left = |play: &Play| -> Vec<String> {
        let left = keys.iter().filter(|key| play.objects.contains_key(*key));
        left.cloned().collect()
    };
    assert_eq!(left(&play), keys[..1]);
    assert!(play.is_doomed(&keys[0]), "it is not forgotten");

    // It is tried again within an hour, once it can be deleted.
    play.stuck.clear();
    play.wait(HOUR + MINUTE);
    assert_eq!(left(&play), [""; 0]);
    assert!(!play.is_doomed(&keys[0]));
}

#[test]
fn orphans_are_looked_for_again_every_day() {
    let mut play = Play::counting();
    play.wait(HOUR);
    let listings = play.listings;
    assert!(listings > 0, "an owner looks when it takes the table");
    // A paused owner of before puts an object after its successor has looked.
    let key = play.put(0, 0, 1);
    play.wait(HOUR);
    assert_eq!(play.listings, listings);
    assert!(!play.is_doomed(&key));
    play.wait(DAY);
    assert!(play.is_doomed(&key));
    play.wait(7 * DAY + HOUR);
    assert!(!play.objects.contains_key(&key));
}

#[test]
fn an_object_of_ones_own_is_an_orphan_once_it_is_a_day_old() {
    let mut play = Play::counting();
    play.wait(23 * HOUR);
    let (old, on_its_way) = (play.put(1, 0, 1), play.put(1, 1, 2));
    play.wait(2 * HOUR);
    assert!(!play.is_doomed(&old), "it is two hours old");
    play.wait(2 * DAY);
    assert!(play.is_doomed(&old));
    assert!(!play.is_doomed(&on_its_way), "the next epoch may name it");
}

#[test]
fn a_listing_that_fails_is_asked_for_again() {
    let mut play = Play::new();
    let keys: Vec<String> = (0..50).map(|n| play.put(0, 0, n)).collect();
    play.failing_listings = 3;
    play.wait(10 * MINUTE);
    assert_eq!(play.failing_listings, 0);
    assert!(keys.iter().all(|key| play.is_doomed(key)));
}

#[test]
fn what_the_table_names_is_never_doomed() {
    let mut play = Play::counting();
    play.stored_at.clear();
    play.wait(3 * DAY);
    assert!(play.listings > 2);
    assert_eq!(play.catalog.doomed.len(), 0);
    let manifest = &play.catalog.epochs[0].0.manifest;
    assert!(play.objects.contains_key(manifest));
}

#[test]
fn a_doomed_key_that_windrow_did_not_make_is_never_deleted() {
    let mut play = Play::counting();
    let foreign = [
        "elsewhere/part.parquet",
        "_windrow/default.other/rows/1-0000000001-aaaa/part.parquet",
        "_windrow/default.n/rows/1-0000000001-aaaa/notes.txt",
        "zzz/last-of-its-page",
    ];
    let at = DbTime(1_700_000_000_000 + play.now as i64);
    for key in foreign {
        play.objects.insert(key.to_owned(), Arc::new(Vec::new()));
        play.catalog.doomed.insert(key.to_owned(), at);
    }
    let own: Vec<String> = (0..50).map(|n| play.put(0, 0, n)).collect();
    for key in &own {
        play.catalog.doomed.insert(key.clone(), at);
    }
    play.wait(9 * DAY);
    for key in foreign {
        assert!(play.objects.contains_key(key), "{key} is deleted");
        assert!(play.is_doomed(key), "{key} is forgotten");
    }
    assert!(own.iter().all(|key| !play.objects.contains_key(key)));
    assert!(own.iter().all(|key| !play.is_doomed(key)));
    // It is said once, and not at each of the many rounds.
    assert!((1..=foreign.len()).contains(&play.foreign.len()));
}

#[test]
fn a_store_that_gives_the_same_page_again_is_not_asked_without_end() {
    let mut play = Play::counting();
    for n in 0..50 {
        play.put(0, 0, n);
    }
    (play.ignores_after, play.listings) = (true, 0);
    play.wait(DAY + 10 * MINUTE);
    // The first page, and the second one each minute.
    assert!((2..=15).contains(&play.listings), "{}", play.listings);
    play.ignores_after = false;
    play.wait(2 * MINUTE);
    assert!(
        play.objects
            .keys()
            .filter(|key| play.is_doomed(key))
            .count()
            == 50
    );
}

/// A manifest that an owner of this term stored for this epoch.
fn manifest(term: u64, epoch: u64) -> String {
    format!("_windrow/default.n/manifests/{term}-{epoch:010}-aaaa.json")
}

#[test]
fn the_manifests_of_a_lost_catalog_are_not_all_listed() {
    let mut play = Play::new();
    for epoch in 0..10_000 {
        let key = manifest(1, epoch);
        play.objects.insert(key, Arc::new(Vec::new()));
    }
    play.wait(10 * MINUTE);
    let why = play.ended.as_deref().unwrap_or_default();
    assert!(
        why.contains("holds manifests of later ones, such as epoch 19:"),
        "{why}"
    );
    assert_eq!(play.listings, 1);
}

#[test]
fn a_lost_catalog_is_noticed_behind_many_manifests_of_epoch_0() {
    let mut play = Play::new();
    for term in 1..=50 {
        let key = manifest(term, 0);
        play.objects.insert(key, Arc::new(Vec::new()));
    }
    // As long as these are all, the table may begin.
    let mut begins = Play::new();
    begins.objects = play.objects.clone();
    begins.wait(10_000);
    assert_eq!(begins.catalog.epochs.len(), 1);

    play.objects.insert(manifest(9, 7), Arc::new(Vec::new()));
    play.wait(10 * MINUTE);
    let why = play.ended.as_deref().unwrap_or_default();
    assert!(why.contains("such as epoch 7:"), "{why}");
    assert_eq!((play.listings, play.catalog.epochs.len()), (3, 0));
}
