//! Whether what a catalog answers can be true. People can reach the journal's tables, and a number
//! that was set by hand must end in a sentence, not in an overflow somewhere later.

use crate::table::commit::Head;
use serde::Serialize;
use serde_json::Value;

/// No count and no offset comes near this, and a sum of some of them is still an i64.
const NUMBER_MAX: i64 = 1 << 58;

/// Checks the ledgers of the last commit.
///
/// # Errors
/// What cannot be true, as the end of a sentence.
pub fn check_head(head: &Head) -> Result<(), String> {
    let last = &head.last;
    for (partition, lane) in &last.lanes {
        let of_lane = |why: String| format!("topic partition {partition}: {why}");
        check_numbers(&lane.ledger).map_err(of_lane)?;
        lane.ledger.check().map_err(of_lane)?;
        if lane.to != lane.ledger.next_offset {
            return Err(of_lane(format!(
                "the next offset is {}, and {} by its ledger",
                lane.to, lane.ledger.next_offset
            )));
        }
    }
    check_numbers(&last.ledger)?;
    last.ledger.check()
}

/// Checks that no field is negative or absurdly large.
fn check_numbers(ledger: &impl Serialize) -> Result<(), String> {
    let fields = serde_json::to_value(ledger).unwrap_or_default();
    for (name, value) in fields.as_object().into_iter().flatten() {
        let is_fine = |n: &Value| n.as_i64().is_some_and(|n| (0..NUMBER_MAX).contains(&n));
        if !is_fine(value) {
            return Err(format!("{name} is {value}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::values::ledger::{LaneLedger, TableLedger};

    #[test]
    fn numbers_that_cannot_be_are_named() {
        let fine = LaneLedger {
            start_offset: 5,
            next_offset: 12,
            counted: 7,
            hits: 9,
            ..LaneLedger::default()
        };
        assert_eq!(check_numbers(&fine), Ok(()));
        assert_eq!(check_numbers(&TableLedger::default()), Ok(()));
        for (ledger, expect) in [
            (
                LaneLedger {
                    next_offset: -1,
                    ..fine
                },
                "next-offset is -1",
            ),
            (
                LaneLedger {
                    counted: u64::MAX,
                    ..fine
                },
                "counted is 18446744073709551615",
            ),
            (
                LaneLedger {
                    start_offset: i64::MIN,
                    ..fine
                },
                "start-offset is -9223372036854775808",
            ),
        ] {
            assert_eq!(check_numbers(&ledger), Err(expect.to_owned()));
        }
    }
}
