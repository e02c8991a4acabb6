//! Properties over drawn logs: batches, interleavings and restarts change nothing, and slices count as windows do.

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

const SEEDS: u64 = 300;
const BASE: i64 = 1_700_000_000_000;
/// Past every window that is drawn.
const END_OF_TIME: EventTime = EventTime(BASE + 1_000_000_000);

/// What happens to a lane, in order.
#[derive(Clone, Debug)]
enum Event {
    Record {
        offset: Offset,
        time: i64,
        n: i64,
        value: Option<Vec<u8>>,
    },
    Floor(EventTime),
    Delay(i64),
    Ceiling(EventTime),
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

fn draw_events(rng: &mut Rng) -> Vec<Event> {
    let mut events = vec![
        Event::Delay(rng.pick(&[0, 1000, 10_000])),
        Event::Ceiling(EventTime(BASE + 500_000)),
    ];
    let (mut time, mut offset) = (BASE + rng.below(20_000) as i64, 5);
    let step = rng.pick(&[100, 1000, 5000]);
    for _ in 0..rng.below(80) {
        time += rng.below(step) as i64;
        let at = time - rng.below(15_000) as i64;
        match rng.below(30) {
            0 => events.push(Event::Floor(EventTime(at + 5000))),
            1 => events.push(Event::Delay(rng.pick(&[0, 1000, 10_000]))),
            2 => events.push(Event::Ceiling(EventTime(time + 60_000))),
            3 => {
                offset += rng.below(3) as Offset;
                events.push(Event::End(offset));
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
        events.push(Event::Record {
            offset,
            time,
            n,
            value,
        });
        offset += 1;
    }
    events.push(Event::End(offset));
    events
}

/// Records together in batches of up to `most`; all else alone, in its place.
fn play(lane: &mut Lane, events: &[Event], rng: &mut Rng, most: u64) {
    let mut rest = events;
    while let [first, ..] = rest {
        let run = rest
            .iter()
            .take_while(|e| matches!(e, Event::Record { .. }))
            .count();
        let n = run.min(1 + rng.below(most) as usize).max(1);
        let (now, later) = rest.split_at(n);
        rest = later;
        match first {
            Event::Record { .. } => {
                let records: Vec<Record<'_>> = now.iter().filter_map(record).collect();
                lane.records(&&records[..]);
            }
            Event::Floor(at) => {
                lane.raise_floor(*at, FloorReason::Idle);
            }
            Event::Delay(ms) => lane.set_delay(*ms),
            Event::Ceiling(at) => lane.offer_ceiling(*at),
            Event::End(offset) => lane.end(*offset),
        }
    }
}

fn record(event: &Event) -> Option<Record<'_>> {
    match event {
        Event::Record {
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

/// All that a lane is and has said. A checkpoint's bytes are in order where the lane's own lists are not.
fn all_of(lane: &Lane) -> (Vec<u8>, Vec<LateRecord>, Vec<RejectRecord>) {
    let state = BTreeMap::from([(0, lane.state())]);
    (
        checkpoint::encode(&state, 1),
        lane.late.clone(),
        lane.rejects.clone(),
    )
}

#[test]
fn one_by_one_is_as_in_batches() {
    for seed in 0..SEEDS {
        let mut rng = Rng(seed);
        let (shape, events) = (draw_shape(&mut rng), draw_events(&mut rng));
        let lane = |most: u64, rng: &mut Rng| {
            let mut lane = Lane::new(0, &shape, 3);
            play(&mut lane, &events, rng, most);
            lane.ledger
                .check()
                .unwrap_or_else(|e| panic!("seed {seed}: {e}"));
            (all_of(&lane), lane.decisions)
        };
        assert_eq!(lane(1, &mut rng), lane(40, &mut rng), "seed {seed}");
    }
}

#[test]
fn any_interleaving_of_topic_partitions_gives_the_same_rows() {
    for seed in 0..SEEDS {
        let mut rng = Rng(seed);
        let shape = draw_shape(&mut rng);
        let logs: Vec<Vec<Event>> = (0..1 + rng.below(3))
            .map(|_| draw_events(&mut rng))
            .collect();
        let fresh = || -> Lanes {
            (0..)
                .zip(&logs)
                .map(|(p, _)| (p, Lane::new(p, &shape, 0)))
                .collect()
        };
        let rows_of = |lanes: &mut Lanes| {
            merger::frontier(lanes)
                .map_or_else(Vec::new, |frontier| merger::close(lanes, &shape, frontier))
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
        let mut rests: Vec<&[Event]> = logs.iter().map(Vec::as_slice).collect();
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
        let (shape, events) = (draw_shape(&mut rng), draw_events(&mut rng));
        let checkpointed = rng.below(events.len() as u64 + 1) as usize;
        let committed = checkpointed + rng.below((events.len() - checkpointed) as u64 + 1) as usize;
        let mut lane = Lane::new(0, &shape, 3);
        play(&mut lane, &events[..checkpointed], &mut rng, 9);
        let bytes = checkpoint::encode(&BTreeMap::from([(0, lane.state())]), 1);
        lane.decisions.clear();
        play(&mut lane, &events[checkpointed..committed], &mut rng, 9);
        // The commit: its ledger, the decisions since the checkpoint; late records and rejects so far are in files.
        let (goal, decisions) = (lane.ledger, std::mem::take(&mut lane.decisions));
        (lane.late, lane.rejects) = (Vec::new(), Vec::new());

        let state = checkpoint::decode(&bytes)
            .expect("just encoded")
            .remove(&0)
            .expect("the lane");
        let mut again = Lane::restore(0, &shape, state, goal, decisions);
        let replayed: Vec<Event> = events[checkpointed..committed]
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
            .find(|e| matches!(e, Event::Ceiling(_)))
        {
            play(&mut again, std::slice::from_ref(ceiling), &mut rng, 1);
        }
        for lane in [&mut lane, &mut again] {
            play(lane, &events[committed..], &mut rng, 9);
        }
        assert_eq!(
            all_of(&again),
            all_of(&lane),
            "seed {seed}, from {checkpointed} to {committed}"
        );
    }
}

/// Count, sum, least, greatest.
type Counts = (u64, i128, i128, i128);

/// Each record against each window it falls in, one at a time.
fn naive(shape: &Shape, events: &[Event]) -> BTreeMap<(i64, Key), Counts> {
    let mut windows = BTreeMap::new();
    let (mut newest, mut floor, mut delay, mut ceiling) = (None::<i64>, None::<i64>, 0, 0);
    for event in events {
        let watermark = newest.map(|t: i64| t - delay).max(floor);
        match event {
            Event::Floor(at) => floor = floor.max(Some(at.0)),
            Event::Delay(ms) => (floor, delay) = (watermark, *ms),
            Event::Ceiling(at) => ceiling = at.0,
            Event::End(_) => {}
            Event::Record { time, n, value, .. } => {
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
                let mut counted = false;
                let mut start = (time - shape.offset_ms).div_euclid(shape.slide_ms)
                    * shape.slide_ms
                    + shape.offset_ms;
                while start + shape.window_ms > *time {
                    if watermark.is_none_or(|w| start + shape.window_ms > w) {
                        counted = true;
                        let n = i128::from(*n);
                        let at = (start, Key::of(&[Some(origin)]));
                        let counts: &mut Counts = windows.entry(at).or_insert((0, 0, n, n));
                        *counts = (counts.0 + 1, counts.1 + n, counts.2.min(n), counts.3.max(n));
                    }
                    start -= shape.slide_ms;
                }
                if counted {
                    newest = newest.max(Some(*time));
                }
            }
        }
    }
    windows
}

#[test]
fn slices_count_as_windows_do() {
    for seed in 0..SEEDS {
        let mut rng = Rng(seed);
        let mut shape = draw_shape(&mut rng);
        shape.max_keys = 1000;
        let events = draw_events(&mut rng);
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
        let rows: BTreeMap<_, _> = merger::close(&mut lanes, &shape, END_OF_TIME)
            .into_iter()
            .map(counts)
            .collect();
        assert_eq!(rows, naive(&shape, &events), "seed {seed}");
    }
}
