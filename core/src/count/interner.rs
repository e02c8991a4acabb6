//! The interner gives each key of a lane a small number, counted from 0. Its hash has a random
//! seed, so its order never leaves this file.

use hashbrown::{DefaultHashBuilder, HashTable};
use std::hash::BuildHasher;
use std::sync::Arc;

/// What a key costs besides its own bytes: the counters of its `Arc` and what the allocator adds,
/// its place in the list, and its number in the hash table.
const KEY_BYTES: usize = 72;

/// The keys of one lane, by number and by their bytes.
#[derive(Default)]
pub(super) struct Interner {
    keys: Vec<Arc<[u8]>>,
    ids: HashTable<u32>,
    hasher: DefaultHashBuilder,
    /// What all of this takes in memory, roughly.
    bytes: usize,
}

impl Interner {
    /// How many keys have a number.
    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// What this takes in memory, in bytes, roughly.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The key that has this number.
    pub(super) fn key(&self, id: u32) -> &Arc<[u8]> {
        &self.keys[id as usize]
    }

    /// All keys, in the order of their numbers.
    pub(super) fn keys(&self) -> &[Arc<[u8]>] {
        &self.keys
    }

    /// What one key takes in memory, in bytes, roughly.
    pub(super) fn cost(key: &[u8]) -> usize {
        key.len() + KEY_BYTES
    }

    /// The number of a key, if it has one.
    pub(super) fn find(&self, key: &[u8]) -> Option<u32> {
        let hash = self.hasher.hash_one(key);
        self.ids
            .find(hash, |id| *self.keys[*id as usize] == *key)
            .copied()
    }

    /// The number of a key, which gets one if it has none.
    pub(super) fn intern(&mut self, key: &[u8]) -> u32 {
        match self.find(key) {
            Some(id) => id,
            None => self.insert(Arc::from(key)),
        }
    }

    /// The same for a key that is held already, which is not copied.
    pub(super) fn intern_shared(&mut self, key: &Arc<[u8]>) -> u32 {
        self.find(key)
            .unwrap_or_else(|| self.insert(Arc::clone(key)))
    }

    fn insert(&mut self, key: Arc<[u8]>) -> u32 {
        let hash = self.hasher.hash_one(&*key);
        let id = u32::try_from(self.keys.len())
            .expect("fewer than 2^32 live keys: max-keys bounds them");
        self.bytes += Self::cost(&key);
        self.keys.push(key);
        let (keys, hasher) = (&self.keys, &self.hasher);
        self.ids
            .insert_unique(hash, id, |id| hasher.hash_one(&*keys[*id as usize]));
        id
    }
}
