//! What time is it, for tokens? The wall clock, but never earlier than it has been.
//!
//! A clock that is set back would bring dead tokens to life, so the latest time seen is remembered and time never falls
//! behind it (JWT-10). One wild reading ahead must not be remembered for ever either, or every token would be dead until
//! the wall clock caught up: a jump that the monotonic clock does not confirm counts for the moment, and is remembered only
//! once it has lasted (FAULT-4).

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// A reading no further ahead than this is believed without a look at the monotonic clock.
const STEP_MAX: u64 = 60 * 1000;
/// How far the wall clock may run ahead of the monotonic one before its reading is doubted.
const JUMP_MAX: u64 = 5 * 60 * 1000;
/// How long a doubted reading must last before it is remembered.
const DOUBT: Duration = Duration::from_secs(60);

/// Milliseconds since 1970. Fine enough for whole seconds to compare exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct UnixMillis(pub(super) u64);

impl UnixMillis {
    /// A claim's seconds; beyond the end of time, the end of time.
    pub(super) fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1000))
    }

    /// This much later.
    pub(super) fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(millis(span)))
    }

    /// This much earlier, 1970 at the earliest.
    pub(super) fn minus(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(millis(span)))
    }

    /// How long from `earlier` to this; nothing when it is not earlier.
    pub(super) fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl From<SystemTime> for UnixMillis {
    fn from(time: SystemTime) -> Self {
        Self(millis(time.duration_since(UNIX_EPOCH).unwrap_or_default()))
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// How far the wall clock is from where it should be: more than five minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockFault {
    /// It jumped ahead by this much less than a minute ago, and may come back.
    Ahead(Duration),
    /// It is this much before the latest time that tokens were judged by.
    Behind(Duration),
}

/// The time to erase by, and what is wrong with the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settled {
    /// What the wall clock says; while it is doubted, how much later it is than its last good reading by the monotonic clock.
    pub time: SystemTime,
    /// Nothing, mostly.
    pub fault: Option<ClockFault>,
}

/// The latest time seen.
#[derive(Debug, Default)]
pub(super) struct HighWater {
    latest: AtomicU64,
    is_doubting: AtomicBool,
    readings: Mutex<Option<Readings>>,
}

/// One reading of both clocks that was believed, and since when the wall clock has been doubted.
#[derive(Debug)]
struct Readings {
    wall: u64,
    at: Instant,
    doubted_since: Option<Instant>,
}

impl HighWater {
    /// Takes a reading of the wall clock and returns the time to judge tokens by: never earlier than any returned before,
    /// save after a jump ahead that did not last.
    pub(super) fn observe(&self, wall: SystemTime) -> UnixMillis {
        let wall = UnixMillis::from(wall).0;
        let latest = self.latest.load(Ordering::Relaxed);
        if latest == 0 || wall > latest.saturating_add(STEP_MAX) {
            return self.observe_jump(wall, Instant::now());
        }
        // Nearly every request comes this way: nothing is locked, and at most one write a millisecond.
        if self.is_doubting.load(Ordering::Relaxed) {
            self.stop_doubting();
        }
        if wall > latest {
            self.latest.fetch_max(wall, Ordering::Relaxed);
        }
        UnixMillis(wall.max(latest))
    }

    /// Takes a reading of both clocks and returns the time for what cannot be undone: a jump ahead that may not last has no part
    /// in it (FAULT-4).
    pub(super) fn settle(&self, wall: SystemTime, at: Instant) -> Settled {
        let reading = UnixMillis::from(wall);
        let latest = self.latest.load(Ordering::Relaxed);
        let judged_by = match reading.0 > latest.saturating_add(STEP_MAX) {
            true => self.observe_jump(reading.0, at),
            false => self.observe(wall),
        };
        if let Some(time) = self.undoubted(at) {
            let ahead = reading.since(time);
            return Settled {
                time: UNIX_EPOCH
                    .checked_add(Duration::from_millis(time.0))
                    .unwrap_or(wall),
                fault: Some(ClockFault::Ahead(ahead)),
            };
        }
        let behind = judged_by.since(reading);
        Settled {
            time: wall,
            fault: (millis(behind) > JUMP_MAX).then_some(ClockFault::Behind(behind)),
        }
    }

    /// While a jump is doubted, the time without it.
    fn undoubted(&self, at: Instant) -> Option<UnixMillis> {
        if !self.is_doubting.load(Ordering::Relaxed) {
            return None;
        }
        let readings = self.readings.lock().unwrap_or_else(PoisonError::into_inner);
        let believed = readings.as_ref()?;
        believed.doubted_since?;
        let passed = millis(at.saturating_duration_since(believed.at));
        let latest = self.latest.load(Ordering::Relaxed);
        Some(UnixMillis(believed.wall.saturating_add(passed).max(latest)))
    }

    fn observe_jump(&self, wall: u64, at: Instant) -> UnixMillis {
        let mut readings = self.readings.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(believed) = readings.as_mut() {
            let passed = millis(at.saturating_duration_since(believed.at));
            let plausible = believed
                .wall
                .saturating_add(passed)
                .saturating_add(JUMP_MAX);
            let since = *believed.doubted_since.get_or_insert(at);
            if wall > plausible && at.saturating_duration_since(since) < DOUBT {
                self.is_doubting.store(true, Ordering::Relaxed);
                return UnixMillis(wall);
            }
        }
        *readings = Some(Readings {
            wall,
            at,
            doubted_since: None,
        });
        self.is_doubting.store(false, Ordering::Relaxed);
        self.latest.fetch_max(wall, Ordering::Relaxed);
        UnixMillis(wall)
    }

    fn stop_doubting(&self) {
        let mut readings = self.readings.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(believed) = readings.as_mut() {
            believed.doubted_since = None;
        }
        self.is_doubting.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_800_000_000_000;
    const HOUR: u64 = 3_600_000;

    fn wall(millis: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(millis)
    }

    fn started() -> (HighWater, Instant) {
        let (clock, at) = (HighWater::default(), Instant::now());
        assert_eq!(clock.observe_jump(START, at), UnixMillis(START));
        (clock, at)
    }

    #[test]
    fn jwt_10_time_never_falls_behind_what_was_seen() {
        let clock = HighWater::default();
        for (reading, want) in [
            (START, START),
            (START + 10, START + 10),
            (START + 9, START + 10),
            (0, START + 10),
        ] {
            assert_eq!(clock.observe(wall(reading)), UnixMillis(want));
        }
        assert_eq!(
            clock.observe(UNIX_EPOCH - Duration::from_secs(1)),
            UnixMillis(START + 10)
        );
        assert_eq!(clock.observe(wall(START + 11)), UnixMillis(START + 11));
    }

    #[test]
    fn fault_4_a_jump_counts_for_the_moment_only() {
        let (clock, at) = started();
        assert_eq!(
            clock.observe_jump(START + HOUR, at),
            UnixMillis(START + HOUR)
        );
        assert_eq!(clock.observe(wall(START + 5)), UnixMillis(START + 5));
    }

    #[test]
    fn fault_4_a_jump_that_lasts_a_minute_is_the_time() {
        let (clock, at) = started();
        for second in [0, 30, 59] {
            let reading = START + HOUR + second * 1000;
            assert_eq!(
                clock.observe_jump(reading, at + Duration::from_secs(second)),
                UnixMillis(reading)
            );
        }
        assert_eq!(clock.latest.load(Ordering::Relaxed), START);
        clock.observe_jump(START + HOUR + 60_000, at + DOUBT);
        assert_eq!(
            clock.observe(wall(START)),
            UnixMillis(START + HOUR + 60_000)
        );
    }

    #[test]
    fn fault_4_doubts_do_not_add_up_over_corrections() {
        let (clock, at) = started();
        for hour in 0..5 {
            let later = at + Duration::from_secs(hour);
            assert_eq!(
                clock.observe_jump(START + HOUR, later),
                UnixMillis(START + HOUR)
            );
            assert_eq!(clock.observe(wall(START + hour)), UnixMillis(START + hour));
        }
        assert_eq!(
            clock.observe_jump(START + HOUR, at + DOUBT * 3),
            UnixMillis(START + HOUR)
        );
        assert_eq!(clock.observe(wall(START + 10)), UnixMillis(START + 10));
    }

    #[test]
    fn fault_4_what_is_erased_is_not_erased_by_a_jump() {
        let (clock, at) = started();
        let settle = |reading: u64, second: u64| {
            let settled = clock.settle(wall(reading), at + Duration::from_secs(second));
            (UnixMillis::from(settled.time).0, settled.fault)
        };
        assert_eq!(settle(START + 5000, 5), (START + 5000, None));
        let ahead = |millis| Some(ClockFault::Ahead(Duration::from_millis(millis)));
        for second in [6, 30, 65] {
            let time = START + second * 1000;
            assert_eq!(
                settle(time + 10 * HOUR, second),
                (time, ahead(10 * HOUR)),
                "{second}"
            );
        }
        // It came back: nothing has happened.
        assert_eq!(settle(START + 66_000, 66), (START + 66_000, None));
        // It came again and stays: it was right.
        let time = START + HOUR + 67_000;
        assert_eq!(settle(time, 67), (START + 67_000, ahead(HOUR)));
        assert_eq!(settle(time + 60_000, 127), (time + 60_000, None));
        // It was not after all: the time is what it says, and tokens are judged by a later one.
        let behind = Some(ClockFault::Behind(Duration::from_millis(HOUR)));
        assert_eq!(settle(START + 127_000, 128), (START + 127_000, behind));
    }

    #[test]
    fn jwt_10_a_quiet_day_is_no_jump() {
        let (clock, at) = started();
        let day = 24 * HOUR;
        clock.observe_jump(START + day, at + Duration::from_millis(day));
        assert_eq!(clock.observe(wall(START)), UnixMillis(START + day));
        // Nor is a wall clock that runs a few minutes fast.
        clock.observe_jump(START + day + JUMP_MAX, at + Duration::from_millis(day));
        assert_eq!(
            clock.observe(wall(START)),
            UnixMillis(START + day + JUMP_MAX)
        );
    }

    #[test]
    fn jwt_10_times_at_the_ends_of_the_range_do_not_wrap() {
        let minute = Duration::from_secs(60);
        assert_eq!(
            UnixMillis::from_secs(u64::MAX).plus(minute),
            UnixMillis(u64::MAX)
        );
        assert_eq!(UnixMillis(0).minus(minute), UnixMillis(0));
        assert_eq!(UnixMillis(5).since(UnixMillis(10)), Duration::ZERO);
        let clock = HighWater::default();
        clock.observe_jump(u64::MAX, Instant::now());
        assert_eq!(
            clock.observe_jump(u64::MAX, Instant::now()),
            UnixMillis(u64::MAX)
        );
    }
}
