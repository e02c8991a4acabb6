//! How often things go wrong in one run, and how far. All of it is drawn from the seed.

use crate::rng::Rng;

/// How far the database's clock may be off, in either direction.
pub const CLOCK_OFF_MS: i64 = 5000;

/// The rates of one run. A name that ends in `_one_in` is read like this: 8 is one in eight.
pub struct Faults {
    /// Requests that never arrive, and as many answers that are lost. 0 is never, and then nothing
    /// else goes wrong either.
    pub lost_one_in: u64,
    /// Requests of a process that was killed are lost with it. The others still arrive.
    pub lost_with_sender_one_in: u64,
    /// How long a process is frozen, while the world goes on. A lease lasts 3 s.
    pub freezes_ms: [u64; 3],
    /// The longest time in which no broker answers.
    pub outage_max_ms: u64,
    /// The most processes at a time.
    pub processes_max: usize,
    /// Whether the log itself comes to harm: records expire unread, the topic is made again, a log
    /// is cut off, the newest checkpoint is gone or damaged.
    pub log_is_harmed: bool,
    /// Whether each process starts with other settings.
    pub settings_vary: bool,
}

impl Faults {
    pub fn draw(rng: &mut Rng) -> Self {
        let lost_one_in = rng.pick(&[0, 8, 20, 60]);
        Self {
            lost_one_in,
            lost_with_sender_one_in: 2,
            freezes_ms: [2000, 10_000, 100_000],
            outage_max_ms: 10_000,
            processes_max: 3,
            log_is_harmed: rng.one_in(2) && lost_one_in > 0,
            settings_vary: rng.one_in(2),
        }
    }

    /// From now on nothing goes wrong.
    pub fn end(&mut self) {
        self.lost_one_in = 0;
    }
}
