//! A checkpoint is what a restart goes on from: all lanes as bytes, and back.
//! It holds no late records and no rejects: those are in the files of the same commit.
//!
//! The bytes are JSON, compressed with zstd, so that a person can read them (`zstd -d`). This is a
//! lane that has counted `a` twice in the slice that begins at 1725192000000:
//!
//! ```json
//! {"version": 1, "lanes": {"0": {
//!     "watermark": {"delay-ms": 10000, "greatest": 1725192003000, "floor": null},
//!     "ceiling": 1725195600000,
//!     "ledger": {"start-offset": 0, "next-offset": 2, "counted": 2, "hits": 2, ...},
//!     "leader-epoch": 5,
//!     "keys": [["a"]],
//!     "slices": [[1725192000000, [[0, 2, []]]]],
//!     "closed": []
//! }}}
//! ```
//!
//! An entry `[0, 2, []]` names the key by its place in `keys`, then the count, then a pair
//! `[n, value]` for each aggregate except `count`.

use crate::count::interner::Interner;
use crate::count::lane::{Adoption, Kept, Lane, LaneState};
use crate::count::partial::{Closed, Entry, Partials, SliceState};
use crate::count::plausible;
use crate::count::slice::Slice;
use crate::count::watermark::Watermark;
use crate::values::aggregate::Acc;
use crate::values::ledger::LaneLedger;
use crate::values::record::{EpochMark, Key, Partition, key_columns};
use crate::values::shape::Shape;
use serde::de::{DeserializeOwned, Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufReader, BufWriter, Write};
use std::sync::Arc;

/// Raised when the form below changes. A program reads its own version only.
const VERSION: u32 = 1;

/// Why a checkpoint cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Another windrow wrote it, and can read it.
    #[error("cannot read checkpoint: it has version {0}, but this program reads version {VERSION}")]
    OtherVersion(u32),
    /// It is damaged, as this sentence says.
    #[error("{0}")]
    Damaged(String),
}

// ---- Writing ----

/// Writes the lanes as bytes, in the order of their numbers. The same lanes give the same bytes.
/// `key_columns` is the number of columns of a key. What a lane has counted is written from where
/// it is, so this takes little memory besides the bytes.
///
/// # Panics
/// Never: memory takes all bytes.
#[must_use]
pub fn encode<'a>(
    lanes: impl IntoIterator<Item = (Partition, &'a Lane)>,
    key_columns: usize,
) -> Vec<u8> {
    let file = zstd::Encoder::new(Vec::new(), 1).expect("level 1 is one of zstd's");
    let mut out = BufWriter::new(file);
    let in_memory = "memory takes all bytes";
    write!(out, "{{\"version\":{VERSION},\"lanes\":{{").expect(in_memory);
    for (n, (partition, lane)) in lanes.into_iter().enumerate() {
        let comma = if n > 0 { "," } else { "" };
        write!(out, "{comma}\"{partition}\":").expect(in_memory);
        let kept = lane.kept();
        let named = Named::of(&kept);
        let lane = WrittenLane {
            watermark: kept.watermark,
            ceiling: kept.ceiling,
            ledger: kept.ledger,
            leader_epoch: EpochMark::leader_epoch_at(kept.epoch_mark, kept.ledger.next_offset),
            epoch_mark: EpochMark::below(kept.epoch_mark, kept.ledger.next_offset),
            adoption: kept.adoption,
            keys: WrittenKeys(&named, key_columns),
            slices: WrittenSlices(&named, kept.partials),
            closed: WrittenClosed(&named, kept.closed),
        };
        serde_json::to_writer(&mut out, &lane).expect("plain values");
    }
    write!(out, "}}}}").expect(in_memory);
    out.flush().expect(in_memory);
    let (file, _) = out.into_parts();
    file.finish().expect(in_memory)
}

/// The keys of a lane by number. Those of the interner come first, and then those that only closed
/// windows still have.
struct Keys<'a> {
    interner: &'a Interner,
    bytes: Vec<&'a [u8]>,
    others: BTreeMap<&'a [u8], u32>,
    /// By number: the place among all keys when they are sorted by their bytes.
    ranks: Vec<u32>,
}

impl<'a> Keys<'a> {
    fn of(kept: &Kept<'a>) -> Self {
        let interner = kept.partials.interner();
        let mut bytes: Vec<&[u8]> = interner.keys().iter().map(|key| &**key).collect();
        let mut others = BTreeMap::new();
        for entry in kept.closed.values().flatten() {
            if interner.find(&entry.key).is_none() {
                others.entry(&*entry.key).or_insert_with(|| {
                    bytes.push(&entry.key);
                    number(bytes.len() - 1)
                });
            }
        }
        let mut sorted: Vec<u32> = (0..number(bytes.len())).collect();
        sorted.sort_unstable_by_key(|id| bytes[*id as usize]);
        let mut ranks = vec![0; bytes.len()];
        for (rank, id) in sorted.into_iter().enumerate() {
            ranks[id as usize] = number(rank);
        }
        Self {
            interner,
            bytes,
            others,
            ranks,
        }
    }

    fn number_of(&self, key: &[u8]) -> u32 {
        self.interner
            .find(key)
            .unwrap_or_else(|| *self.others.get(key).expect("each key was taken in"))
    }

    /// The numbers of the keys of a slice, sorted by the keys' bytes.
    fn of_slice(&self, slice: &Slice, width: usize) -> Vec<u32> {
        let mut ids = Vec::with_capacity(usize::try_from(slice.keys()).unwrap_or(0));
        slice.each(width, |id, _, _| ids.push(id));
        ids.sort_unstable_by_key(|id| self.ranks[*id as usize]);
        ids
    }

    /// The entries of a closed window with the numbers of their keys, sorted in the same way.
    fn of_entries<'e>(&self, entries: &'e [Entry]) -> Vec<(u32, &'e Entry)> {
        let numbered = entries.iter().map(|e| (self.number_of(&e.key), e));
        let mut sorted: Vec<(u32, &Entry)> = numbered.collect();
        sorted.sort_unstable_by_key(|(id, _)| self.ranks[*id as usize]);
        sorted
    }
}

fn number(n: usize) -> u32 {
    u32::try_from(n).expect("fewer than 2^32 live keys: max-keys bounds them")
}

/// The place of each key in the file. Keys stand there in the order in which the slices and then
/// the closed windows name them first.
struct Named<'a> {
    keys: Keys<'a>,
    /// By number; `NOWHERE` for a key that is not in the file.
    places: Vec<u32>,
    /// The numbers of the keys in the order of the file.
    order: Vec<u32>,
}

const NOWHERE: u32 = u32::MAX;

impl<'a> Named<'a> {
    fn of(kept: &Kept<'a>) -> Self {
        let keys = Keys::of(kept);
        let mut named = Self {
            places: vec![NOWHERE; keys.bytes.len()],
            order: Vec::new(),
            keys,
        };
        for slice in kept.partials.slices() {
            for id in named.keys.of_slice(slice, kept.partials.width()) {
                named.name(id);
            }
        }
        for entries in kept.closed.values() {
            for (id, _) in named.keys.of_entries(entries) {
                named.name(id);
            }
        }
        named
    }

    fn name(&mut self, id: u32) {
        let place = &mut self.places[id as usize];
        if *place == NOWHERE {
            *place = number(self.order.len());
            self.order.push(id);
        }
    }
}

/// A lane as it stands in the file. [`FileLane`] reads it.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct WrittenLane<'a> {
    watermark: Watermark,
    ceiling: i64,
    ledger: LaneLedger,
    leader_epoch: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch_mark: Option<EpochMark>,
    #[serde(skip_serializing_if = "Option::is_none")]
    adoption: Option<Adoption>,
    keys: WrittenKeys<'a>,
    slices: WrittenSlices<'a>,
    closed: WrittenClosed<'a>,
}

/// The keys, with the number of their columns.
struct WrittenKeys<'a>(&'a Named<'a>, usize);

impl Serialize for WrittenKeys<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Self(named, columns) = self;
        let bytes = |id: &u32| named.keys.bytes[*id as usize];
        to.collect_seq(
            named
                .order
                .iter()
                .map(|id| key_columns(bytes(id), *columns)),
        )
    }
}

struct WrittenSlices<'a>(&'a Named<'a>, &'a Partials);

impl Serialize for WrittenSlices<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Self(named, partials) = self;
        let slices = partials.slices().iter();
        to.collect_seq(slices.map(|slice| {
            let entries = WrittenSlice(named, slice, partials.width());
            (slice.span.start, entries)
        }))
    }
}

struct WrittenSlice<'a>(&'a Named<'a>, &'a Slice, usize);

impl Serialize for WrittenSlice<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Self(named, slice, width) = self;
        let ids = named.keys.of_slice(slice, *width);
        to.collect_seq(ids.into_iter().map(|id| {
            let place = slice.find(id).expect("it was found there");
            let (count, accs) = slice.at(place, *width);
            (named.places[id as usize], count, WrittenAccs(accs))
        }))
    }
}

struct WrittenClosed<'a>(&'a Named<'a>, &'a Closed);

impl Serialize for WrittenClosed<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Self(named, closed) = self;
        let windows = closed.iter();
        to.collect_seq(windows.map(|(start, entries)| (start, WrittenEntries(named, entries))))
    }
}

struct WrittenEntries<'a>(&'a Named<'a>, &'a [Entry]);

impl Serialize for WrittenEntries<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Self(named, entries) = self;
        let entries = named.keys.of_entries(entries).into_iter();
        to.collect_seq(entries.map(|(id, entry)| {
            let place = named.places[id as usize];
            (place, entry.count, WrittenAccs(&entry.accs))
        }))
    }
}

/// `(n, value)` of each aggregate. The value is text, because JSON's numbers do not reach as far as
/// those of i128.
struct WrittenAccs<'a>(&'a [Acc]);

impl Serialize for WrittenAccs<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.0.iter().map(|acc| (acc.n, acc.value.to_string())))
    }
}

// ---- Reading ----

/// What a checkpoint of any version says first.
#[derive(Deserialize)]
struct AnyFile {
    version: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct File {
    version: u32,
    lanes: BTreeMap<Partition, ReadLane>,
}

/// A lane that was read. Each is taken out of the form of the file at once, so that only one of
/// them is in memory twice.
#[derive(Deserialize)]
#[serde(try_from = "FileLane")]
struct ReadLane {
    state: LaneState,
    /// How many columns each of its keys has.
    columns: Vec<usize>,
}

impl TryFrom<FileLane> for ReadLane {
    type Error = String;

    fn try_from(lane: FileLane) -> Result<Self, String> {
        let columns = lane.keys.iter().map(|key| key.columns).collect();
        lane_state(lane).map(|state| Self { state, columns })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct FileLane {
    watermark: Watermark,
    ceiling: i64,
    ledger: LaneLedger,
    /// That of the record before the next offset; -1 when it is unknown.
    leader_epoch: i32,
    /// Where it is unknown: the last record whose leader epoch is known.
    #[serde(default)]
    epoch_mark: Option<EpochMark>,
    /// What another job had counted.
    #[serde(default)]
    adoption: Option<Adoption>,
    /// Slices and closed windows name a key by its place here.
    keys: Vec<FileKey>,
    /// The start of each slice in ms since 1970, and its entries.
    slices: Vec<(i64, FileEntries)>,
    /// The start of each closed window in ms since 1970, and its entries.
    closed: Vec<(i64, FileEntries)>,
}

/// A key, which stands in the file as its columns.
#[derive(Deserialize)]
#[serde(from = "Vec<Option<String>>")]
struct FileKey {
    bytes: Arc<[u8]>,
    columns: usize,
}

impl From<Vec<Option<String>>> for FileKey {
    fn from(columns: Vec<Option<String>>) -> Self {
        let columns: Vec<Option<&str>> = columns.iter().map(Option::as_deref).collect();
        Self {
            bytes: Arc::from(Key::of(&columns).0),
            columns: columns.len(),
        }
    }
}

/// The entries of a slice or of a closed window, in lists that take little memory.
#[derive(Default)]
struct FileEntries {
    ids: Vec<u32>,
    counts: Vec<u64>,
    accs: Vec<Acc>,
}

/// The key, the count, and `(n, value)` of each aggregate.
#[derive(Deserialize)]
struct FileEntry(u32, u64, Vec<(u64, String)>);

impl<'de> Deserialize<'de> for FileEntries {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_seq(ReadEntries)
    }
}

struct ReadEntries;

impl<'de> Visitor<'de> for ReadEntries {
    type Value = FileEntries;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of entries")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<FileEntries, A::Error> {
        let mut entries = FileEntries::default();
        while let Some(FileEntry(id, count, accs)) = list.next_element()? {
            entries.ids.push(id);
            entries.counts.push(count);
            for (n, value) in accs {
                let value = value.parse();
                let value = value.map_err(|_| A::Error::custom("an aggregate is not a number"))?;
                entries.accs.push(Acc { n, value });
            }
        }
        if entries.accs.len() % entries.ids.len().max(1) != 0 {
            return Err(A::Error::custom("not all entries have the same aggregates"));
        }
        entries.ids.shrink_to_fit();
        entries.counts.shrink_to_fit();
        entries.accs.shrink_to_fit();
        Ok(entries)
    }
}

/// Reads the lanes that [`encode`] was given, of a table with these settings.
///
/// # Errors
/// What is wrong with the bytes: they are damaged, or of another version, or say what cannot be
/// true. Nothing may be counted from them.
pub fn decode(bytes: &[u8], shape: &Shape) -> Result<BTreeMap<Partition, LaneState>, Unreadable> {
    let checked = |(partition, lane): (Partition, ReadLane)| {
        let ReadLane { state, columns } = lane;
        plausible::check(&state, &columns, shape).map_err(|why| {
            let why = format!("cannot read checkpoint: topic partition {partition}: {why}");
            Unreadable::Damaged(why)
        })?;
        Ok((partition, state))
    };
    match read::<File>(bytes) {
        Ok(file) if file.version == VERSION => file.lanes.into_iter().map(checked).collect(),
        Ok(file) => Err(Unreadable::OtherVersion(file.version)),
        // Another version may have another form.
        Err(why) => Err(match read::<AnyFile>(bytes) {
            Ok(file) if file.version != VERSION => Unreadable::OtherVersion(file.version),
            _ => Unreadable::Damaged(why),
        }),
    }
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let json =
        zstd::Decoder::new(bytes).map_err(|e| format!("cannot decompress checkpoint: {e}"))?;
    serde_json::from_reader(BufReader::new(json))
        .map_err(|e| format!("cannot read checkpoint: {e}"))
}

fn lane_state(file: FileLane) -> Result<LaneState, String> {
    let keys: Vec<Arc<[u8]>> = file.keys.into_iter().map(|key| key.bytes).collect();
    let lists = file.slices.iter().chain(&file.closed);
    let named = lists.flat_map(|(_, entries)| &entries.ids).max();
    if named.is_some_and(|id| *id as usize >= keys.len()) {
        return Err("cannot read checkpoint: it names a key that it does not hold".to_owned());
    }
    let slice = |(start, FileEntries { ids, counts, accs })| SliceState {
        start,
        ids,
        counts,
        accs,
    };
    let closed = file.closed.into_iter().map(|(start, entries)| {
        let width = entries.accs.len() / entries.ids.len().max(1);
        let places = entries.ids.iter().enumerate();
        let window = places.map(|(place, id)| Entry {
            key: Arc::clone(&keys[*id as usize]),
            count: entries.counts[place],
            accs: entries.accs[place * width..(place + 1) * width].into(),
        });
        (start, window.collect())
    });
    Ok(LaneState {
        watermark: file.watermark,
        ceiling: file.ceiling,
        ledger: file.ledger,
        epoch_mark: EpochMark::read(file.epoch_mark, file.leader_epoch, file.ledger.next_offset),
        adoption: file.adoption,
        closed: closed.collect(),
        slices: file.slices.into_iter().map(slice).collect(),
        keys,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::values::record::{Batch, Record};
    use crate::values::time::EventTime;

    struct Records<'a>(&'a [(i64, &'a str)]);

    impl Batch for Records<'_> {
        fn each(&self, f: &mut dyn FnMut(Record<'_>)) {
            for (offset, (time, origin)) in (0..).zip(self.0) {
                f(Record {
                    offset,
                    timestamp_ms: *time,
                    value: Some(format!("{{\"origin\": \"{origin}\"}}").as_bytes()),
                });
            }
        }
    }

    /// A lane that counts in windows of 10 s and was given these times and keys.
    fn lane(records: &[(i64, &str)]) -> Lane {
        let mut lane = Lane::new(0, &Shape::count_by_origin("t", 10_000, 10_000), 0);
        lane.set_delay(0);
        lane.offer_ceiling(EventTime(1_000_000));
        lane.records(&Records(records));
        lane
    }

    fn text(bytes: &[u8]) -> String {
        String::from_utf8(zstd::decode_all(bytes).unwrap()).unwrap()
    }

    #[test]
    fn keys_stand_in_the_order_in_which_sorted_entries_name_them() {
        let lane = lane(&[
            (1_000, "c"),
            (2_000, "a"),
            (15_000, "d"),
            (16_000, "b"),
            (17_000, "d"),
        ]);
        let text = text(&encode([(0, &lane)], 1));
        assert_eq!(
            text,
            concat!(
                r#"{"version":1,"lanes":{"0":{"#,
                r#""watermark":{"delay-ms":0,"greatest":17000,"floor":null,"loss":null},"#,
                r#""ceiling":1000000,"#,
                r#""ledger":{"start-offset":0,"next-offset":5,"counted":5,"late":0,"rejected":0,"#,
                r#""tombstones":0,"gaps":0,"lost":0,"hits":5,"late-hits":0,"lost-hits":0},"#,
                r#""leader-epoch":-1,"keys":[["b"],["d"],["a"],["c"]],"#,
                r#""slices":[[10000,[[0,1,[]],[1,2,[]]]]],"#,
                r#""closed":[[0,[[2,1,[]],[3,1,[]]]]]}}}"#
            )
        );
    }

    #[test]
    fn keys_that_only_closed_windows_have_are_kept() {
        // So many keys leave their last slice that the lane forgets them.
        let names: Vec<String> = (0..3000).map(|n| format!("key {n}")).collect();
        let mut records: Vec<(i64, &str)> = names.iter().map(|name| (1_000, &**name)).collect();
        records.push((25_000, "other"));
        let lane = lane(&records);
        let bytes = encode([(7, &lane)], 1);
        let shape = Shape::count_by_origin("t", 10_000, 10_000);
        let state = decode(&bytes, &shape).unwrap().remove(&7).unwrap();
        assert_eq!(state.closed.get(&0).map(Vec::len), Some(3000));
        let again = Lane::restore(7, &shape, state, lane.ledger, Vec::new());
        assert_eq!(encode([(7, &again)], 1), bytes);
    }

    #[test]
    fn damaged_bytes_are_refused() {
        let good = text(&encode([(0, &lane(&[(1_000, "a")]))], 1));
        for (from, to, why) in [
            (r#"[[0,1,[]]]"#, r#"[[1,1,[]]]"#, "names a key"),
            (r#"[[0,1,[]]]"#, r#"[[0,1,[[1,"x"]]]]"#, "is not a number"),
            (
                r#"[[0,1,[]]]"#,
                r#"[[0,1,[[1,"2"]]],[0,1,[]]]"#,
                "the same aggregates",
            ),
            (r#""version":1"#, r#""version":2"#, "has version 2"),
            // All of these can be read, and cannot be true.
            (r#"[["a"]]"#, r#"[["a",null]]"#, "a key has 2 columns"),
            (r#"[["a"]]"#, r#"[["a"],["a"]]"#, "a key is there twice"),
            (r#"[[0,1,[]]]"#, r#"[[0,1,[[1,"2"]]]]"#, "other aggregates"),
            (r#"[[0,1,[]]]"#, r#"[[0,1,[]],[0,1,[]]]"#, "a key twice"),
            (r#"[[0,1,[]]]"#, r#"[[0,0,[]]]"#, "a count is 0"),
            (r#"[[0,[["#, r#"[[1,[["#, "no slice begins at 1"),
            (r#""counted":1"#, r#""counted":2"#, "does not add up"),
            (r#""next-offset":1"#, r#""next-offset":-1"#, "no offset -1"),
            (
                r#""greatest":1000"#,
                r#""greatest":9223372036854775807"#,
                "no time",
            ),
        ] {
            assert!(good.contains(from), "{good}");
            let bytes = zstd::encode_all(good.replacen(from, to, 1).as_bytes(), 1).unwrap();
            let shape = Shape::count_by_origin("t", 10_000, 10_000);
            let error = decode(&bytes, &shape).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
