//! Whether what a checkpoint says of a lane can be true. A small checkpoint lies in the catalog,
//! where people can reach it, without a hash. What was set by hand must end in a sentence, and not
//! in an overflow somewhere later.

use crate::count::lane::LaneState;
use crate::count::window::Windows;
use crate::values::aggregate::Acc;
use crate::values::ledger::{NUMBER_MAX, check_numbers};
use crate::values::shape::Shape;
use crate::values::time::YEARS_2_TO_9998_MS;
use std::collections::BTreeSet;

/// No aggregate comes near this, and a sum of some of them is still an i128.
const VALUE_MAX: u128 = 1 << 120;

/// Checks a lane of a table with these settings. `columns` is how many columns each of its keys
/// has.
///
/// # Errors
/// What cannot be true, as the end of a sentence.
pub(super) fn check(state: &LaneState, columns: &[usize], shape: &Shape) -> Result<(), String> {
    let columns_must = shape.group_by.len();
    if let Some(n) = columns.iter().find(|n| **n != columns_must) {
        return Err(format!(
            "a key has {n} columns, and must have {columns_must}"
        ));
    }
    if !are_distinct(&state.keys) {
        return Err("a key is there twice".to_owned());
    }
    check_offsets(state)?;
    if let Some(ms) = state.watermark.times().find(|ms| !is_time(*ms)) {
        return Err(format!("the watermark is made of {ms}, which is no time"));
    }
    let width = shape.inputs().count();
    let windows = Windows::of_shape(shape);
    let mut sum = 0;
    for slice in &state.slices {
        let start = slice.start;
        if !is_time(start) || windows.span(start).start != start {
            return Err(format!("no slice begins at {start}"));
        }
        if !are_distinct(&slice.ids) {
            return Err(format!("the slice {start} has a key twice"));
        }
        if slice.accs.len() != slice.ids.len() * width {
            return Err(format!(
                "the slice {start} has other aggregates than the table"
            ));
        }
        check_counts(&slice.counts, &slice.accs, &mut sum)?;
    }
    if !are_distinct(state.slices.iter().map(|slice| slice.start)) {
        return Err("a slice is there twice".to_owned());
    }
    for (start, entries) in &state.closed {
        if !is_time(*start) || (start - shape.offset_ms) % shape.slide_ms != 0 {
            return Err(format!("no window begins at {start}"));
        }
        if !are_distinct(entries.iter().map(|entry| &entry.key)) {
            return Err(format!("the window {start} has a key twice"));
        }
        for entry in entries {
            if entry.accs.len() != width {
                return Err(format!(
                    "the window {start} has other aggregates than the table"
                ));
            }
            check_counts(&[entry.count], &entry.accs, &mut sum)?;
        }
    }
    Ok(())
}

fn check_offsets(state: &LaneState) -> Result<(), String> {
    let ledger = &state.ledger;
    for offset in [ledger.start_offset, ledger.next_offset] {
        if !(0..NUMBER_MAX).contains(&offset) {
            return Err(format!("there is no offset {offset}"));
        }
    }
    check_numbers(ledger)?;
    ledger.check()?;
    if let Some(adoption) = state.adoption
        && !((0..NUMBER_MAX).contains(&adoption.to) && is_time(adoption.through.0))
    {
        let (to, through) = (adoption.to, adoption.through.0);
        return Err(format!(
            "nothing was adopted up to offset {to} and time {through}"
        ));
    }
    match state.epoch_mark {
        Some(mark) if !(0..=ledger.next_offset).contains(&mark.offset) || mark.leader_epoch < 0 => {
            let (epoch, offset) = (mark.leader_epoch, mark.offset);
            Err(format!(
                "there is no leader epoch {epoch} below offset {offset}"
            ))
        }
        _ => Ok(()),
    }
}

/// Checks the counts of keys, and their aggregates. `sum` is that of all counts so far.
fn check_counts(counts: &[u64], accs: &[Acc], sum: &mut u64) -> Result<(), String> {
    for n in counts {
        *sum = sum.saturating_add(*n);
        if *n == 0 || *sum >= NUMBER_MAX.unsigned_abs() {
            return Err(format!("a count is {n}"));
        }
    }
    let is_wrong =
        |acc: &&Acc| acc.n >= NUMBER_MAX.unsigned_abs() || acc.value.unsigned_abs() >= VALUE_MAX;
    match accs.iter().find(is_wrong) {
        Some(acc) => Err(format!("an aggregate of {} values is {}", acc.n, acc.value)),
        None => Ok(()),
    }
}

fn is_time(ms: i64) -> bool {
    YEARS_2_TO_9998_MS.contains(&ms)
}

fn are_distinct<T: Ord>(all: impl IntoIterator<Item = T>) -> bool {
    let mut seen = BTreeSet::new();
    all.into_iter().all(|one| seen.insert(one))
}
