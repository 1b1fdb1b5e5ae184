//! Whether the workers turn: nothing on a worker's thread may keep it from its other requests (FAULT-3).
//!
//! A worker polls its tasks in turns of a few dozen. Each turn is timed; one that took long is a stall, is counted and logged.
//! Time that the thread waited for a processor is taken off as far as the kernel tells, for that is not the worker's doing.
//! [`watch`] looks from outside for a worker that does not come back at all.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{moment, telemetry::Telemetry};

/// A turn that takes longer is a stall.
const STALL: Duration = Duration::from_millis(10);
/// A worker that is in one turn for longer is stuck, and the node un-ready until it comes back.
const STUCK: Duration = Duration::from_secs(5);
/// How often it is looked for.
const LOOK: Duration = Duration::from_secs(1);

/// The turns of one worker.
#[derive(Debug)]
pub struct Pulse {
    made: Instant,
    /// When the present turn began, in milliseconds since then; 0 between turns.
    since: AtomicU64,
}

/// Times the turns of the worker on whose thread it was made.
#[derive(Debug)]
pub(super) struct Turns {
    pulse: Arc<Pulse>,
    telemetry: Arc<Telemetry>,
    /// Where the kernel tells how long this thread has waited for a processor; `None` where it does not.
    schedule: Option<File>,
    waited: Duration,
}

impl Pulse {
    pub(super) fn new() -> Self {
        Self {
            made: Instant::now(),
            since: AtomicU64::new(0),
        }
    }

    /// How long the worker has been in its present turn; `None` between turns.
    fn in_turn(&self) -> Option<Duration> {
        let since = self.since.load(Ordering::Relaxed);
        let now = self.millis(Instant::now());
        (since != 0).then(|| Duration::from_millis(now.saturating_sub(since)))
    }

    /// A moment as it is noted; never 0.
    fn millis(&self, moment: Instant) -> u64 {
        let since = moment.saturating_duration_since(self.made);
        u64::try_from(since.as_millis()).map_or(u64::MAX, |millis| millis.saturating_add(1))
    }
}

impl Turns {
    /// To be made on the worker's thread.
    pub(super) fn new(pulse: Arc<Pulse>, telemetry: Arc<Telemetry>) -> Self {
        let mut turns = Self {
            pulse,
            telemetry,
            schedule: File::open("/proc/thread-self/schedstat").ok(),
            waited: Duration::ZERO,
        };
        turns.waited = turns.waited();
        turns
    }

    /// Makes one turn.
    pub(super) fn turn<T>(&mut self, turn: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let noted = self.pulse.millis(begun);
        self.pulse.since.store(noted, Ordering::Relaxed);
        let result = moment::turn(begun, turn);
        self.pulse.since.store(0, Ordering::Relaxed);
        let took = begun.elapsed();
        if took > STALL {
            self.judge(took);
        }
        result
    }

    fn judge(&mut self, took: Duration) {
        // All waits since the last long turn are taken off this one, which was not the only one to wait: rather a stall too few
        // than a busy machine called a fault of ours.
        let waited = self.waited();
        let own = took.saturating_sub(waited.saturating_sub(self.waited));
        self.waited = waited;
        if own > STALL {
            self.telemetry.stalled();
            tracing::warn!(took = ?own, "a worker did not look at its connections for too long");
        }
    }

    /// How long this thread has waited for a processor so far: the second number of its `schedstat`, in nanoseconds.
    fn waited(&self) -> Duration {
        let mut text = [0; 64];
        let read = self.schedule.as_ref();
        let read = read.and_then(|file| file.read_at(&mut text, 0).ok());
        let text = read.and_then(|len| str::from_utf8(text.get(..len)?).ok());
        let nanoseconds = text.and_then(|text| text.split(' ').nth(1)?.parse().ok());
        nanoseconds.map_or(Duration::ZERO, Duration::from_nanos)
    }
}

/// Whether a worker turns, or rests between turns.
#[must_use]
pub fn turns(pulse: &Pulse) -> bool {
    pulse.in_turn().is_none_or(|time| time <= STUCK)
}

/// Tells `report` of a worker that does not come back from a turn, by its number, and that it has come back, for as long as the
/// process lives. To be run on the control runtime.
pub async fn watch(pulses: Vec<Arc<Pulse>>, report: impl Fn(usize, Result<(), String>)) {
    let mut stuck = vec![false; pulses.len()];
    let mut looks = tokio::time::interval(LOOK);
    loop {
        looks.tick().await;
        for (index, (pulse, was_stuck)) in pulses.iter().zip(&mut stuck).enumerate() {
            let is_stuck = !turns(pulse);
            if is_stuck == *was_stuck {
                continue;
            }
            *was_stuck = is_stuck;
            if is_stuck {
                tracing::error!(worker = index, "a worker is stuck; its connections hang");
                let seconds = STUCK.as_secs();
                report(index, Err(format!("has not turned for {seconds} seconds")));
            } else {
                tracing::info!(worker = index, "the worker turns again");
                report(index, Ok(()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::telemetry::settings::LogSettings;

    fn turns() -> (Turns, Arc<Pulse>, Arc<Telemetry>) {
        let settings = LogSettings {
            access: false,
            ..LogSettings::default()
        };
        let telemetry = Telemetry::with_sink(&settings, Box::new(std::io::sink()));
        let pulse = Arc::new(Pulse::new());
        let turns = Turns::new(Arc::clone(&pulse), Arc::clone(&telemetry));
        (turns, pulse, telemetry)
    }

    #[track_caller]
    fn check(telemetry: &Telemetry, stalls: usize) {
        let text = telemetry.encode();
        let want = format!("portcullis_worker_stalls_total {stalls}\n");
        assert!(text.contains(&want), "{want}: {text}");
    }

    #[test]
    fn fault_3_a_turn_that_blocks_is_counted() {
        let (mut turns, _pulse, telemetry) = turns();
        check(&telemetry, 0);
        let (_keep, nothing) = mpsc::channel::<()>();
        let blocked = turns.turn(|| nothing.recv_timeout(Duration::from_millis(100)));
        assert!(blocked.is_err());
        check(&telemetry, 1);
    }

    #[test]
    fn fault_3_a_turn_that_computes_for_long_is_counted() {
        let (mut turns, _pulse, telemetry) = turns();
        let begun = Instant::now();
        turns.turn(|| {
            while begun.elapsed() < Duration::from_millis(200) {
                std::hint::spin_loop();
            }
        });
        check(&telemetry, 1);
    }

    #[test]
    fn fault_3_short_turns_are_not_counted() {
        let (mut turns, pulse, telemetry) = turns();
        for _ in 0..10_000 {
            turns.turn(|| ());
        }
        check(&telemetry, 0);
        assert_eq!(pulse.in_turn(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn fault_2_a_stuck_worker_is_reported_until_it_comes_back() {
        let (reports, mut told) = tokio::sync::mpsc::unbounded_channel();
        let hour = Duration::from_secs(3600);
        let old = || Pulse {
            made: Instant::now().checked_sub(hour).unwrap(),
            ..Pulse::new()
        };
        let pulses = vec![Arc::new(old()), Arc::new(old())];
        let stuck = Arc::clone(&pulses[1]);
        tokio::spawn(watch(pulses, move |worker, condition| {
            reports.send((worker, condition.is_ok())).unwrap();
        }));
        let noted = Arc::clone(&stuck);
        let past = |seconds: u64| noted.millis(Instant::now()) - seconds * 1000;
        for (since, want) in [
            (past(1), None),
            (past(6), Some((1, false))),
            (past(60), None),
            (0, Some((1, true))),
            (past(2), None),
        ] {
            stuck.since.store(since, Ordering::Relaxed);
            tokio::time::sleep(LOOK * 2).await;
            assert_eq!(told.try_recv().ok(), want);
        }
    }
}
