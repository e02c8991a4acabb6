//! How long to wait before more bytes may be moved, so that they do not exceed a bandwidth. No
//! clock is read here.

use std::time::Duration;

/// A bandwidth, and how far it is used up.
///
/// With 8 MiB a second:
///
/// ```text
/// at 0 s     wait_for(4 MiB)   at once
/// at 0.1 s   wait_for(1 MiB)   0.4 s, because the first 4 MiB take until 0.5 s
/// at 60 s    wait_for(4 MiB)   at once, and no more than these: what was not used is gone
/// ```
#[derive(Debug)]
pub struct Pace {
    bytes_per_second: u64,
    /// When the bytes so far are moved at this bandwidth, as the time since any beginning.
    free_at: Duration,
}

impl Pace {
    /// A bandwidth of which nothing is used yet.
    ///
    /// # Panics
    /// When it is zero.
    #[must_use]
    pub fn new(bytes_per_second: u64) -> Self {
        assert!(bytes_per_second > 0, "some bytes may be moved");
        Self {
            bytes_per_second,
            free_at: Duration::ZERO,
        }
    }

    /// How long to wait at `now` before so many bytes are moved. They count from here on.
    #[must_use]
    pub fn wait_for(&mut self, now: Duration, bytes: u64) -> Duration {
        let begin = self.free_at.max(now);
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second);
        let takes = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        self.free_at = begin.saturating_add(takes);
        begin - now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn bytes_wait_for_those_before_them() {
        let mut pace = Pace::new(8 * MIB);
        assert_eq!(pace.wait_for(ms(0), 4 * MIB), ms(0));
        assert_eq!(pace.wait_for(ms(100), MIB), ms(400));
        assert_eq!(pace.wait_for(ms(500), MIB), ms(125));
    }

    #[test]
    fn bandwidth_that_was_not_used_is_not_saved() {
        let mut pace = Pace::new(MIB);
        assert_eq!(pace.wait_for(ms(60_000), MIB), ms(0));
        assert_eq!(pace.wait_for(ms(60_000), 1), ms(1000));
    }

    /// Whatever the sizes are, and however long each request takes.
    #[test]
    fn no_second_has_more_bytes_than_the_bandwidth_and_one_request() {
        let mut pace = Pace::new(MIB);
        let (mut now, mut moved) = (ms(0), 0);
        for i in 0..10_000 {
            let bytes = i * 7919 % (2 * MIB);
            now += pace.wait_for(now, bytes) + ms(i % 3);
            let most = now.as_nanos() * u128::from(MIB) / 1_000_000_000;
            assert!(u128::from(moved) <= most + 1, "{i}: {moved} > {most}");
            moved += bytes;
        }
        assert!(moved * 1000 / MIB + 2000 > u64::try_from(now.as_millis()).unwrap());
    }

    #[test]
    fn no_size_overflows() {
        let mut pace = Pace::new(1);
        for _ in 0..3 {
            let _ = pace.wait_for(ms(0), u64::MAX);
        }
        assert!(pace.wait_for(ms(0), 0) > ms(1 << 40));
    }
}
