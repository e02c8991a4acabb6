//! The state of an aggregate: a sum, a least or a greatest value, or the exact average.
//! How the numbers are read from a record is not known here.
//!
//! Example: `avg(price decimal(18,2))` over the prices 1.00, 2.00 and 2.00 is kept as three values
//! with the sum 500, in hundredths. Only when the window closes does it become the double nearest
//! to 500 / (3 · 100), which is 1.6666666666666667.

use crate::values::shape::Function;
use std::cmp::Ordering;

/// The state of one aggregate other than `count`: for `sum` and `avg` the exact sum, for `min` and
/// `max` the extreme value. Values are integers in units of `10^-scale`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Acc {
    /// How many values were not null. With zero the column of the row is null.
    pub n: u64,
    /// The sum or the extreme. A sum cannot overflow, because it adds fewer than 2^63 values of
    /// i64.
    pub value: i128,
}

/// Adds the state `b` to the state `a`; both are of the aggregate `function`.
pub fn merge(a: &mut Acc, function: Function, b: Acc) {
    if b.n == 0 {
        return;
    }
    a.value = match function {
        _ if a.n == 0 => b.value,
        Function::Min => a.value.min(b.value),
        Function::Max => a.value.max(b.value),
        Function::Sum | Function::Avg | Function::Count => a.value + b.value,
    };
    a.n += b.n;
}

/// The average as the table shows it: the exact quotient, rounded once. `scale` is the number of
/// digits after the point in `acc.value`.
///
/// # Panics
/// When `acc` has no value.
#[must_use]
pub fn average(acc: Acc, scale: u8) -> f64 {
    quotient(acc.value, u128::from(acc.n) * 10_u128.pow(u32::from(scale)))
}

/// The double that is nearest to `value / divisor`. Of two that are equally near, it is the even
/// one. The exact quotient is rounded only once.
///
/// # Panics
/// When `divisor` is zero.
fn quotient(value: i128, divisor: u128) -> f64 {
    assert!(divisor != 0, "an average needs at least one value");
    if value == 0 {
        return 0.0;
    }
    let dividend = value.unsigned_abs();
    let (mut q, mut rest) = (dividend / divisor, dividend % divisor);
    // Long division, bit by bit, until q has 54 bits, one more than a double keeps. Throughout,
    // |value| / divisor is (q + rest / divisor) * 2^exponent.
    let mut exponent = 0_i64;
    while q >> 53 == 0 {
        let carry = rest >> 127 == 1;
        rest <<= 1;
        q <<= 1;
        if carry || rest >= divisor {
            rest = rest.wrapping_sub(divisor);
            q |= 1;
        }
        exponent -= 1;
    }
    let dropped = 128 - q.leading_zeros() - 53;
    let kept = q >> dropped;
    let below = q & ((1 << dropped) - 1);
    let half = 1_u128 << (dropped - 1);
    let up = match below.cmp(&half) {
        Ordering::Greater => true,
        Ordering::Equal => rest != 0 || kept & 1 == 1,
        Ordering::Less => false,
    };
    let mantissa = u64::try_from(kept).expect("53 bits") + u64::from(up);
    // The result is never subnormal, because 2^-128 <= quotient < 2^128. A mantissa that was
    // rounded up to 2^53 carries into the exponent.
    let biased = u64::try_from(exponent + i64::from(dropped) + 52 + 1023)
        .expect("within a double's exponents");
    let sign = u64::from(value < 0) << 63;
    f64::from_bits(sign | ((biased << 52) + (mantissa - (1 << 52))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotient_is_the_nearest_double() {
        let check = |value: i128, divisor: u128, expect: f64| {
            assert_eq!(
                quotient(value, divisor).to_bits(),
                expect.to_bits(),
                "{value} / {divisor}"
            );
            if value != 0 && value != i128::MIN {
                assert_eq!(
                    quotient(-value, divisor).to_bits(),
                    (-expect).to_bits(),
                    "-{value} / {divisor}"
                );
            }
        };
        check(0, 7, 0.0);
        check(1, 3, 1.0 / 3.0);
        let two53 = 1_i128 << 53;
        check(two53 + 1, 1, 9_007_199_254_740_992.0);
        check(two53 + 3, 1, 9_007_199_254_740_996.0);
        check((two53 + 1) * 3 + 1, 3, 9_007_199_254_740_994.0);
        check(i128::MIN, 1, -(2.0_f64.powi(127)));
        check(1, u128::MAX, 2.0_f64.powi(-128));
        check(i128::MAX, u128::MAX, 0.5);
        // IEEE division rounds once, so it is right where both numbers are exact as doubles.
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        for _ in 0..20_000 {
            let (a, b) = (
                next() >> (11 + next() % 50),
                (next() >> (11 + next() % 50)).max(1),
            );
            check(i128::from(a), u128::from(b), a as f64 / b as f64);
            // The conversion from i128 to f64 rounds once as well.
            let wide = i128::from(next()) << (next() % 63) | i128::from(next());
            check(wide, 1, wide as f64);
            check(wide, 1 << 40, wide as f64 / (1_u64 << 40) as f64);
        }
    }
}
