//! The settings of one run, drawn from its seed.

use crate::rng::Rng;
use windrow_core::engine::Limits;
use windrow_core::values::shape::{
    Aggregate, Column, Function, Number, OnBadRecord, Shape, TimeField, TimeUnit,
};

/// Limits that logs of some dozens of records reach.
pub fn draw_limits(rng: &mut Rng) -> Limits {
    Limits {
        checkpoint_keys_small: rng.pick(&[0, 0, 4, 20_000]),
        checkpoint_every_ms: rng.pick(&[2000, 60_000, 60_000]),
        checkpoint_every_records: rng.pick(&[20, 5_000_000, 5_000_000]),
        checkpoint_inline_bytes: rng.pick(&[0, 200, 16_384]),
        progress_every_ms: rng.pick(&[1000, 30_000]),
        file_rows: rng.pick(&[1, 3, 1_000_000]),
        idle_holds_ms: rng.pick(&[1000, 5000]),
    }
}

/// The settings that shape rows.
pub fn draw_shape(rng: &mut Rng) -> Shape {
    let (size, slide) = rng.pick(&[
        (10_000, 10_000),
        (10_000, 5000),
        (10_000, 3000),
        (7000, 7000),
        (12_000, 4000),
    ]);
    let mut shape = Shape::count_by_origin("t", size, slide);
    shape.offset_ms = rng.pick(&[0, 0, 1000, slide - 1]);
    let number = rng.pick(&[
        Number::Integer,
        Number::Integer,
        Number::Decimal {
            precision: 18,
            scale: 2,
        },
    ]);
    let of_n = |function, name: &str| Aggregate {
        function,
        path: vec!["n".to_owned()],
        number,
        name: name.to_owned(),
    };
    shape.aggregates.push(of_n(Function::Sum, "sum_n"));
    if rng.one_in(3) {
        shape.aggregates.push(of_n(Function::Min, "min_n"));
        shape.aggregates.push(of_n(Function::Avg, "avg_n"));
        shape.aggregates.push(of_n(Function::Max, "max_n"));
    }
    if rng.one_in(3) {
        let path: &[&str] = rng.pick(&[&["kind"], &["payload", "kind"]]);
        shape.group_by.push(Column {
            path: path.iter().map(|name| (*name).to_owned()).collect(),
            name: "kind".to_owned(),
        });
        shape.on_bad_record = rng.pick(&[OnBadRecord::Reject, OnBadRecord::Null]);
    }
    if rng.one_in(6) {
        let unit = rng.pick(&[
            TimeUnit::Auto,
            TimeUnit::Seconds,
            TimeUnit::Millis,
            TimeUnit::Micros,
            TimeUnit::Rfc3339,
        ]);
        shape.timestamp_field = Some(TimeField {
            path: vec!["at".to_owned()],
            unit,
        });
    }
    if rng.one_in(10) {
        shape.on_bad_record = OnBadRecord::Fail;
    } else {
        shape.max_keys = rng.pick(&[1_000_000, 1_000_000, 1, 3]);
        shape.max_key_bytes = rng.pick(&[65_536, 65_536, 12]);
    }
    shape
}
