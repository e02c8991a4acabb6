//! Properties that hold for every log, tried on drawn ones: neither batches nor interleavings nor
//! restarts change a row, and counting by slice gives the same as counting by window.

use crate::rng::Rng;
use std::collections::{BTreeMap, BTreeSet};
use windrow_core::count::checkpoint;
use windrow_core::count::lane::Lane;
use windrow_core::count::merger::{self, Lanes};
use windrow_core::values::decision::{Decided, FloorReason};
use windrow_core::values::record::{Key, Offset, Partition, Record};
use windrow_core::values::row::{LateRecord, RejectRecord, Row};
use windrow_core::values::shape::{Aggregate, Function, Number, Shape};
use windrow_core::values::time::EventTime;

/// How many logs each property is tried on.
const SEEDS: u64 = 300;
/// The time around which logs begin, in ms since 1970.
const BASE: i64 = 1_700_000_000_000;
/// A time after the end of every window that is drawn.
const END_OF_TIME: EventTime = EventTime(BASE + 1_000_000_000);

/// Something that happens to a lane.
#[derive(Clone, Debug)]
enum Happening {
    Record {
        offset: Offset,
        /// Its event time in ms since 1970.
        time: i64,
        /// The field `n` of its value.
        n: i64,
        /// `None` for a tombstone.
        value: Option<Vec<u8>>,
    },
    Floor(EventTime),
    /// Another watermark delay in ms.
    Delay(i64),
    Ceiling(EventTime),
    /// The end of the log.
    End(Offset),
}

fn draw_shape(rng: &mut Rng) -> Shape {
    let (size, slide) = rng.pick(&[
        (10_000, 10_000),
        (10_000, 5000),
        (10_000, 3000),
        (7000, 7000),
        (9000, 1000),
    ]);
    let mut shape = Shape::count_by_origin("t", size, slide);
    shape.offset_ms = rng.below(slide as u64) as i64;
    for (function, name) in [
        (Function::Sum, "sum_n"),
        (Function::Min, "min_n"),
        (Function::Max, "max_n"),
        (Function::Avg, "avg_n"),
    ] {
        let path = vec!["n".to_owned()];
        shape.aggregates.push(Aggregate {
            function,
            path,
            number: Number::Integer,
            name: name.to_owned(),
        });
    }
    shape.max_keys = rng.pick(&[2, 1000]);
    shape
}

fn draw_happenings(rng: &mut Rng) -> Vec<Happening> {
    let mut events = vec![
        Happening::Delay(rng.pick(&[0, 1000, 10_000])),
        Happening::Ceiling(EventTime(BASE + 500_000)),
    ];
    let (mut time, mut offset) = (BASE + rng.below(20_000) as i64, 5);
    let step = rng.pick(&[100, 1000, 5000]);
    for _ in 0..rng.below(80) {
        time += rng.below(step) as i64;
        let at = time - rng.below(15_000) as i64;
        match rng.below(30) {
            0 => events.push(Happening::Floor(EventTime(at + 5000))),
            1 => events.push(Happening::Delay(rng.pick(&[0, 1000, 10_000]))),
            2 => events.push(Happening::Ceiling(EventTime(time + 60_000))),
            3 => {
                offset += rng.below(3) as Offset;
                events.push(Happening::End(offset));
            }
            _ => {}
        }
        offset += if rng.one_in(10) { 2 } else { 0 };
        let n = rng.below(2000) as i64 - 1000;
        let value = match rng.below(20) {
            0 => None,
            1 => Some(b"{\"origin\": 1.5}".to_vec()),
            _ => Some(format!("{{\"origin\": \"o{}\", \"n\": {n}}}", rng.below(4)).into_bytes()),
        };
        let time = if rng.one_in(40) { END_OF_TIME.0 } else { at };
        events.push(Happening::Record {
            offset,
            time,
            n,
            value,
        });
        offset += 1;
    }
    events.push(Happening::End(offset));
    events
}

/// Lets the happenings come to the lane, in order. Records come in batches of up to `most`,
/// everything else alone.
fn play(lane: &mut Lane, events: &[Happening], rng: &mut Rng, most: u64) {
    let mut rest = events;
    while let [first, ..] = rest {
        let run = rest
            .iter()
            .take_while(|e| matches!(e, Happening::Record { .. }))
            .count();
        let n = run.min(1 + rng.below(most) as usize).max(1);
        let (now, later) = rest.split_at(n);
        rest = later;
        match first {
            Happening::Record { .. } => {
                let records: Vec<Record<'_>> = now.iter().filter_map(record).collect();
                lane.records(&&records[..]);
            }
            Happening::Floor(at) => {
                lane.raise_floor(*at, FloorReason::Idle);
            }
            Happening::Delay(ms) => lane.set_delay(*ms),
            Happening::Ceiling(at) => lane.offer_ceiling(*at),
            Happening::End(offset) => lane.end(*offset),
        }
    }
}

/// The record of a happening that is one.
fn record(event: &Happening) -> Option<Record<'_>> {
    match event {
        Happening::Record {
            offset,
            time,
            value,
            ..
        } => Some(Record {
            offset: *offset,
            timestamp_ms: *time,
            value: value.as_deref(),
        }),
        _ => None,
    }
}

/// Everything that a lane is and has given: its checkpoint, its late records, its rejects. The
/// bytes of a checkpoint are in order where the lane's own lists are not.
fn everything_of(lane: &Lane) -> (Vec<u8>, Vec<LateRecord>, Vec<RejectRecord>) {
    (
        checkpoint::encode([(0, lane)], 1),
        lane.late.clone(),
        lane.rejects.clone(),
    )
}

/// The final rows of all windows up to `frontier`.
fn closed(lanes: &mut Lanes, shape: &Shape, frontier: EventTime) -> Vec<Row> {
    let mut rows = Vec::new();
    merger::close(lanes, shape, frontier, |window| rows.extend(window));
    rows
}

#[test]
fn one_by_one_gives_the_same_as_in_batches() {
    for seed in 0..SEEDS {
        let mut rng = Rng(seed);
        let (shape, events) = (draw_shape(&mut rng), draw_happenings(&mut rng));
        let lane = |most: u64, rng: &mut Rng| {
            let mut lane = Lane::new(0, &shape, 3);
            play(&mut lane, &events, rng, most);
            lane.ledger
                .check()
                .unwrap_or_else(|e| panic!("seed {seed}: {e}"));
            (everything_of(&lane), lane.decisions)
        };
        assert_eq!(lane(1, &mut rng), lane(40, &mut rng), "seed {seed}");
    }
}

#[test]
fn any_interleaving_of_topic_partitions_gives_the_same_rows() {
    for seed in 0..SEEDS {
        let mut rng = Rng(seed);
        let shape = draw_shape(&mut rng);
        let logs: Vec<Vec<Happening>> = (0..1 + rng.below(3))
            .map(|_| draw_happenings(&mut rng))
            .collect();
        let fresh = || -> Lanes {
            (0..)
                .zip(&logs)
                .map(|(p, _)| (p, Lane::new(p, &shape, 0)))
                .collect()
        };
        let rows_of = |lanes: &mut Lanes| {
            merger::frontier(lanes)
                .map_or_else(Vec::new, |frontier| closed(lanes, &shape, frontier))
        };
        let mut lanes = fresh();
        for (p, events) in (0..).zip(&logs) {
            play(
                lanes.get_mut(&p).expect("made for it"),
                events,
                &mut rng,
                40,
            );
        }
        let straight = rows_of(&mut lanes);
        let mut lanes = fresh();
        let mut rests: Vec<&[Happening]> = logs.iter().map(Vec::as_slice).collect();
        let mut mixed = Vec::new();
        while rests.iter().any(|rest| !rest.is_empty()) {
            let p = rng.below(rests.len() as u64) as usize;
            let (now, later) = rests[p].split_at(rests[p].len().min(1 + rng.below(9) as usize));
            rests[p] = later;
            play(
                lanes.get_mut(&(p as Partition)).expect("made for it"),
                now,
                &mut rng,
                4,
            );
            if rng.one_in(3) {
                mixed.extend(rows_of(&mut lanes));
            }
        }
        mixed.extend(rows_of(&mut lanes));
        let place = |row: &Row| (row.start, row.key.clone());
        assert_eq!(
            mixed.iter().map(place).collect::<BTreeSet<_>>().len(),
            mixed.len(),
            "seed {seed}: a row twice"
        );
        mixed.sort_by_key(place);
        assert_eq!(mixed, straight, "seed {seed}");
    }
}

#[test]
fn a_restart_from_any_checkpoint_goes_on_identically() {
    for seed in 0..SEEDS {
        let mut rng = Rng(seed);
        let (shape, events) = (draw_shape(&mut rng), draw_happenings(&mut rng));
        let checkpointed = rng.below(events.len() as u64 + 1) as usize;
        let committed = checkpointed + rng.below((events.len() - checkpointed) as u64 + 1) as usize;
        let mut lane = Lane::new(0, &shape, 3);
        play(&mut lane, &events[..checkpointed], &mut rng, 9);
        let bytes = checkpoint::encode([(0, &lane)], 1);
        lane.decisions.clear();
        play(&mut lane, &events[checkpointed..committed], &mut rng, 9);
        // The commit holds the ledger and the decisions since the checkpoint. The late records and
        // the rejects so far are in files.
        let (goal, decisions) = (lane.ledger, std::mem::take(&mut lane.decisions));
        (lane.late, lane.rejects) = (Vec::new(), Vec::new());

        let state = checkpoint::decode(&bytes, &shape)
            .expect("just encoded")
            .remove(&0)
            .expect("the lane");
        let mut again = Lane::restore(0, &shape, state, goal, decisions);
        again.begin_replay(lane.watermark(), lane.newest());
        let replayed: Vec<Happening> = events[checkpointed..committed]
            .iter()
            .filter(|e| record(e).is_some())
            .cloned()
            .collect();
        play(&mut again, &replayed, &mut rng, 9);
        again.end(goal.next_offset);
        assert!(!again.replaying(), "seed {seed}");
        assert_eq!(again.stopped(), None, "seed {seed}");
        if let Some(ceiling) = events[..committed]
            .iter()
            .rev()
            .find(|e| matches!(e, Happening::Ceiling(_)))
        {
            play(&mut again, std::slice::from_ref(ceiling), &mut rng, 1);
        }
        for lane in [&mut lane, &mut again] {
            play(lane, &events[committed..], &mut rng, 9);
        }
        assert_eq!(
            everything_of(&again),
            everything_of(&lane),
            "seed {seed}, from {checkpointed} to {committed}"
        );
    }
}

/// Of the field `n` in one window, under one key: count, sum, least and greatest value.
type Counts = (u64, i128, i128, i128);

/// What a lane must count, by the definition: each record against each window that it falls in.
fn count_by_window(shape: &Shape, events: &[Happening]) -> BTreeMap<(i64, Key), Counts> {
    let mut windows = BTreeMap::new();
    let (mut newest, mut floor, mut delay, mut ceiling) = (None::<i64>, None::<i64>, 0, 0);
    for event in events {
        let watermark = newest.map(|t: i64| t - delay).max(floor);
        match event {
            Happening::Floor(at) => floor = floor.max(Some(at.0)),
            Happening::Delay(ms) => (floor, delay) = (watermark, *ms),
            Happening::Ceiling(at) => ceiling = at.0,
            Happening::End(_) => {}
            Happening::Record { time, n, value, .. } => {
                // Whatever becomes of it, it moves the watermark. It is judged by the one before.
                if (0..=ceiling).contains(time) {
                    newest = newest.max(Some(*time));
                }
                let Some(value) = value else { continue };
                let value = String::from_utf8(value.clone()).expect("as drawn");
                let Some(origin) = value
                    .split('"')
                    .nth(3)
                    .filter(|origin| origin.starts_with('o'))
                else {
                    continue;
                };
                if *time > ceiling {
                    continue;
                }
                let mut start = (time - shape.offset_ms).div_euclid(shape.slide_ms)
                    * shape.slide_ms
                    + shape.offset_ms;
                while start + shape.window_ms > *time {
                    if watermark.is_none_or(|w| start + shape.window_ms > w) {
                        let n = i128::from(*n);
                        let at = (start, Key::of(&[Some(origin)]));
                        let counts: &mut Counts = windows.entry(at).or_insert((0, 0, n, n));
                        *counts = (counts.0 + 1, counts.1 + n, counts.2.min(n), counts.3.max(n));
                    }
                    start -= shape.slide_ms;
                }
            }
        }
    }
    windows
}

#[test]
fn counting_by_slice_gives_the_same_as_counting_by_window() {
    for seed in 0..SEEDS {
        let mut rng = Rng(seed);
        let mut shape = draw_shape(&mut rng);
        shape.max_keys = 1000;
        let events = draw_happenings(&mut rng);
        let mut lane = Lane::new(0, &shape, 3);
        play(&mut lane, &events, &mut rng, 9);
        lane.decide(Decided::Floor {
            at: END_OF_TIME,
            reason: FloorReason::Quiet,
        });
        let mut lanes = Lanes::from([(0, lane)]);
        let counts = |row: Row| {
            assert!(
                row.accs.iter().all(|acc| acc.n == row.count),
                "every record has the field"
            );
            let [sum, min, max, avg] = row.accs[..] else {
                panic!("four aggregates")
            };
            assert_eq!(sum, avg, "an average is kept as its sum");
            (
                (row.start.0, Key(row.key[..].into())),
                (row.count, sum.value, min.value, max.value),
            )
        };
        let rows: BTreeMap<_, _> = closed(&mut lanes, &shape, END_OF_TIME)
            .into_iter()
            .map(counts)
            .collect();
        assert_eq!(rows, count_by_window(&shape, &events), "seed {seed}");
    }
}
