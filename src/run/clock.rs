//! The machine's two clocks, as the engine is told of them. What they mean is decided by the
//! engine.
#![expect(
    clippy::disallowed_methods,
    reason = "the edge that reads clocks for the engine"
)]

use std::time::{Duration, Instant, SystemTime};
use windrow_core::engine::Input;
use windrow_core::values::time::{Mono, WallTime};

/// An engine that was told the time this long ago is told it again before it takes anything else.
const STALE: Duration = Duration::from_secs(1);

/// The monotonic clock and the wall clock.
#[derive(Debug)]
pub struct MachineClock {
    /// When the engine's time began.
    started: Instant,
    /// Both clocks when the engine was told the time last.
    told: (Instant, SystemTime),
}

impl MachineClock {
    /// The engine's time begins now.
    #[must_use]
    pub fn start() -> Self {
        let started = Instant::now();
        Self {
            started,
            told: (started, SystemTime::now()),
        }
    }

    /// What the engine is told.
    pub fn tick(&mut self) -> Input<'static> {
        self.told = (Instant::now(), SystemTime::now());
        let (now, wall) = self.told;
        let since_start = now.duration_since(self.started).as_millis();
        Input::Tick {
            now: Mono(u64::try_from(since_start).unwrap_or(u64::MAX)),
            wall: wall_time(wall),
        }
    }

    /// The same, where the engine was told it too long ago: the process was frozen, or the machine
    /// slept, or its wall clock was set. By the time of before that, records that came since would
    /// be from the future. Monotonic time alone does not show it, because it stands still in sleep.
    pub fn tick_if_stale(&mut self) -> Option<Input<'static>> {
        let (then, wall) = self.told;
        let moved = match SystemTime::now().duration_since(wall) {
            Ok(on) => on,
            Err(back) => back.duration(),
        };
        (then.elapsed() > STALE || moved > STALE).then(|| self.tick())
    }
}

/// What this machine's wall clock reads now.
#[must_use]
pub fn wall_now() -> WallTime {
    wall_time(SystemTime::now())
}

/// Milliseconds since 1970; less than zero on a machine whose clock is before that.
fn wall_time(wall: SystemTime) -> WallTime {
    let ms = |since: Duration| i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
    WallTime(match wall.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => ms(since),
        Err(before) => -ms(before.duration()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wall_clock_before_1970_is_told_as_it_is() {
        let at = |ms: u64| SystemTime::UNIX_EPOCH - Duration::from_millis(ms);
        assert_eq!(wall_time(at(0)), WallTime(0));
        assert_eq!(wall_time(at(86_400_000)), WallTime(-86_400_000));
    }

    #[test]
    fn after_a_sleep_the_engine_is_told_the_time_before_it_takes_records() {
        let mut clock = MachineClock::start();
        assert!(clock.tick_if_stale().is_none());
        // Monotonic time stood still, and the wall clock went on for two hours.
        clock.told.1 -= Duration::from_secs(7200);
        assert!(clock.tick_if_stale().is_some());
        assert!(clock.tick_if_stale().is_none());
        // Somebody set the wall clock back.
        clock.told.1 += Duration::from_secs(7200);
        assert!(clock.tick_if_stale().is_some());
    }
}
