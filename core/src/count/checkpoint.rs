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

use crate::count::lane::LaneState;
use crate::count::partial::{Closed, Entry};
use crate::count::watermark::Watermark;
use crate::values::aggregate::Acc;
use crate::values::ledger::LaneLedger;
use crate::values::record::{EpochMark, Key, Partition, key_columns};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::collections::btree_map;
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
struct ReadLane(LaneState);

impl TryFrom<FileLane> for ReadLane {
    type Error = String;

    fn try_from(lane: FileLane) -> Result<Self, String> {
        lane_state(lane).map(Self)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct FileLane {
    watermark: Watermark,
    ceiling: i64,
    ledger: LaneLedger,
    /// That of the record before the next offset; -1 when it is unknown.
    leader_epoch: i32,
    /// Where it is unknown: the last record whose leader epoch is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    epoch_mark: Option<EpochMark>,
    /// The columns of each key. Slices and closed windows name a key by its place here.
    keys: Vec<Vec<Option<String>>>,
    /// The start of each slice in ms since 1970, and its entries.
    slices: Vec<(i64, Vec<FileEntry>)>,
    /// The start of each closed window in ms since 1970, and its entries.
    closed: Vec<(i64, Vec<FileEntry>)>,
}

/// The key, the count, and `(n, value)` of each aggregate. The value is text, because JSON's
/// numbers do not reach as far as those of i128.
#[derive(Serialize, Deserialize)]
struct FileEntry(usize, u64, Vec<(u64, String)>);

/// Writes the lanes as bytes, in the order of their numbers. The same lanes give the same bytes.
/// `key_columns` is the number of columns of a key. One lane after the other is written, so that
/// only one of them is in memory as it stands in the file.
///
/// # Panics
/// Never: memory takes all bytes.
#[must_use]
pub fn encode(
    lanes: impl IntoIterator<Item = (Partition, LaneState)>,
    key_columns: usize,
) -> Vec<u8> {
    let file = zstd::Encoder::new(Vec::new(), 1).expect("level 1 is one of zstd's");
    let mut out = BufWriter::new(file);
    let in_memory = "memory takes all bytes";
    write!(out, "{{\"version\":{VERSION},\"lanes\":{{").expect(in_memory);
    for (n, (partition, lane)) in lanes.into_iter().enumerate() {
        let comma = if n > 0 { "," } else { "" };
        write!(out, "{comma}\"{partition}\":").expect(in_memory);
        serde_json::to_writer(&mut out, &file_lane(&lane, key_columns)).expect("plain values");
    }
    write!(out, "}}}}").expect(in_memory);
    out.flush().expect(in_memory);
    let (file, _) = out.into_parts();
    file.finish().expect(in_memory)
}

/// Reads the lanes that [`encode`] was given.
///
/// # Errors
/// What is wrong with the bytes: they are damaged, or of another version. Nothing may be counted
/// from them.
pub fn decode(bytes: &[u8]) -> Result<BTreeMap<Partition, LaneState>, Unreadable> {
    match read::<File>(bytes) {
        Ok(file) if file.version == VERSION => Ok(file
            .lanes
            .into_iter()
            .map(|(p, lane)| (p, lane.0))
            .collect()),
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

fn file_lane(lane: &LaneState, columns: usize) -> FileLane {
    let mut ids: BTreeMap<Arc<[u8]>, usize> = BTreeMap::new();
    let mut keys = Vec::new();
    let mut entries = |list: &[Entry]| -> Vec<FileEntry> {
        let mut sorted: Vec<&Entry> = list.iter().collect();
        sorted.sort_by(|a, b| a.key.cmp(&b.key));
        let mut file = Vec::with_capacity(sorted.len());
        for entry in sorted {
            let id = match ids.entry(Arc::clone(&entry.key)) {
                btree_map::Entry::Occupied(at) => *at.get(),
                btree_map::Entry::Vacant(at) => {
                    let columns = key_columns(&entry.key, columns).into_iter();
                    keys.push(
                        columns
                            .map(|c| c.map(std::borrow::Cow::into_owned))
                            .collect(),
                    );
                    *at.insert(keys.len() - 1)
                }
            };
            file.push(FileEntry(
                id,
                entry.count,
                entry
                    .accs
                    .iter()
                    .map(|a| (a.n, a.value.to_string()))
                    .collect(),
            ));
        }
        file
    };
    let slices = lane
        .slices
        .iter()
        .map(|(start, list)| (*start, entries(list)))
        .collect();
    let closed = lane
        .closed
        .iter()
        .map(|(start, list)| (*start, entries(list)))
        .collect();
    FileLane {
        watermark: lane.watermark,
        ceiling: lane.ceiling,
        ledger: lane.ledger,
        leader_epoch: EpochMark::leader_epoch_at(lane.epoch_mark, lane.ledger.next_offset),
        epoch_mark: EpochMark::below(lane.epoch_mark, lane.ledger.next_offset),
        keys,
        slices,
        closed,
    }
}

fn lane_state(file: FileLane) -> Result<LaneState, String> {
    let keys: Vec<Arc<[u8]>> = file
        .keys
        .iter()
        .map(|columns| {
            Arc::from(Key::of(&columns.iter().map(Option::as_deref).collect::<Vec<_>>()).0)
        })
        .collect();
    let entries = |list: Vec<FileEntry>| -> Result<Vec<Entry>, String> {
        list.into_iter()
            .map(|FileEntry(id, count, accs)| {
                let key = keys
                    .get(id)
                    .ok_or("cannot read checkpoint: it names a key that it does not hold")?;
                let accs = accs
                    .into_iter()
                    .map(|(n, value)| {
                        Some(Acc {
                            n,
                            value: value.parse().ok()?,
                        })
                    })
                    .collect::<Option<_>>()
                    .ok_or("cannot read checkpoint: an aggregate is not a number")?;
                Ok(Entry {
                    key: Arc::clone(key),
                    count,
                    accs,
                })
            })
            .collect()
    };
    Ok(LaneState {
        watermark: file.watermark,
        ceiling: file.ceiling,
        ledger: file.ledger,
        epoch_mark: EpochMark::read(file.epoch_mark, file.leader_epoch, file.ledger.next_offset),
        slices: file
            .slices
            .into_iter()
            .map(|(s, l)| Ok((s, entries(l)?)))
            .collect::<Result<_, String>>()?,
        closed: file
            .closed
            .into_iter()
            .map(|(s, l)| Ok((s, entries(l)?)))
            .collect::<Result<Closed, String>>()?,
    })
}
