//! How often things go wrong in one run, and how far. All of it is drawn from the seed.

use crate::rng::Rng;
use crate::scenes::Scene;

/// How far a clock that counts as right may be off, in either direction.
pub const CLOCK_OFF_MS: i64 = 5000;
/// A day in milliseconds.
pub const DAY_MS: i64 = 86_400_000;

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
    /// Objects that cannot be deleted when it is tried. 0 is never.
    pub undeletable_one_in: u64,
    /// Whether one object can never be deleted.
    pub one_key_is_stuck: bool,
    /// A broker is behind: the end of a log that it tells is an older one. 0 is never.
    pub stale_broker_one_in: u64,
    /// Whether a broker may have old metadata for a while.
    pub facts_get_stale: bool,
    /// The answer to a fetch is damaged, so that its topic partition is read no further. 0 is
    /// never.
    pub damaged_one_in: u64,
    /// Whether each process starts with other settings.
    pub settings_vary: bool,
    /// Whether clocks go wrong by minutes, hours or days, in either direction, and machines sleep.
    pub clocks_vary: bool,
    /// Whether the catalog may lose its last epochs, as after a failover or from a backup.
    pub epochs_are_forgotten: bool,
    /// What this run brings about on purpose.
    pub scene: Option<Scene>,
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
            undeletable_one_in: rng.pick(&[0, 2, 10]),
            one_key_is_stuck: rng.one_in(4),
            settings_vary: rng.one_in(2),
            stale_broker_one_in: if lost_one_in > 0 {
                rng.pick(&[0, 4])
            } else {
                0
            },
            damaged_one_in: if lost_one_in > 0 {
                rng.pick(&[0, 30])
            } else {
                0
            },
            facts_get_stale: false,
            clocks_vary: false,
            epochs_are_forgotten: false,
            scene: None,
        }
    }

    /// Draws what came later than the rest, so that the seeds from before keep their runs.
    pub fn draw_more(&mut self, rng: &mut Rng) {
        self.facts_get_stale = rng.one_in(3) && self.lost_one_in > 0;
        self.clocks_vary = rng.one_in(3) && self.lost_one_in > 0;
        self.epochs_are_forgotten = rng.one_in(3) && self.lost_one_in > 0 && !self.log_is_harmed;
        if self.lost_one_in > 0 {
            self.scene = Scene::draw(rng);
        }
        if let Some(scene) = self.scene {
            scene.set_faults(self);
        }
    }

    /// Draws by how much a clock is wrong from now on.
    pub fn draw_clock(&self, rng: &mut Rng) -> i64 {
        let little = rng.below(2 * CLOCK_OFF_MS as u64 + 1) as i64 - CLOCK_OFF_MS;
        if !self.clocks_vary || rng.one_in(3) {
            return little;
        }
        let far = rng.pick(&[50_000, 130_000, 10_800_000, 40 * DAY_MS, 2000 * DAY_MS]);
        little + if rng.one_in(2) { far } else { -far }
    }

    /// From now on nothing goes wrong.
    pub fn end(&mut self) {
        self.lost_one_in = 0;
        self.undeletable_one_in = 0;
        self.stale_broker_one_in = 0;
        self.facts_get_stale = false;
        self.damaged_one_in = 0;
        self.scene = None;
    }
}
