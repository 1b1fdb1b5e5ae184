//! Whether a server takes requests: what dials and answers say of it, kept in atomics that all workers share.
//!
//! A server with too many faults is out for a while; then one request, and no other, finds out whether it is back. Nothing
//! here is touched by an exchange without fault on a server that is in, but for one read.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    time::Duration,
};

use tokio::time::Instant;

use super::settings::EjectSettings;

/// The state of one server. Times are milliseconds since it was made, and 0 is none.
#[derive(Debug)]
pub(super) struct Health {
    made: Instant,
    unreachable: AtomicBool,
    /// What the active checks say.
    down: AtomicBool,
    eject: Option<Ejection>,
}

/// Passive ejection.
#[derive(Debug)]
struct Ejection {
    window: Duration,
    duration: Duration,
    /// When the last faults were, as many as eject; the next one goes where `next` says.
    faults: Box<[AtomicU64]>,
    next: AtomicUsize,
    /// Until when the server is out. Past, it is still out for all but one, who moves it on.
    until: AtomicU64,
}

/// How a server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// Too many of its answers were faults: it is out for a while.
    Ejected,
    /// Its health checks fail: it gets no requests.
    FailsChecks,
    /// The last attempt to connect failed.
    Unreachable,
    /// It takes requests, as far as anybody knows.
    Well,
}

/// What a request may do with a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    /// Go there.
    In,
    /// Go elsewhere.
    Out,
    /// Go there and report: nobody else does until then, or until as much time has passed as the server was out.
    Probe,
}

/// A change for the log and the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// The server is out.
    Ejected,
    /// The server is in again.
    Returned,
}

impl Health {
    /// In, and reachable until a dial says otherwise.
    pub(super) fn new(eject: Option<&EjectSettings>) -> Self {
        Self {
            made: Instant::now(),
            unreachable: AtomicBool::new(false),
            down: AtomicBool::new(false),
            eject: eject.map(|settings| Ejection {
                window: settings.window,
                duration: settings.duration,
                faults: (0..settings.failures).map(|_| AtomicU64::new(0)).collect(),
                next: AtomicUsize::new(0),
                until: AtomicU64::new(0),
            }),
        }
    }

    /// Goes on with what was known of the same server under another configuration. Verdicts that nothing would ever take back
    /// are left behind: those of checks that are not `checked` any more, and an ejection where there is none now.
    pub(super) fn continue_from(&self, before: &Self, checked: bool) {
        let now = Instant::now();
        let unreachable = before.unreachable.load(Ordering::Relaxed);
        self.unreachable.store(unreachable, Ordering::Relaxed);
        self.set_down(checked && before.is_down());
        if let (Some(eject), Some(old)) = (&self.eject, &before.eject) {
            let until = old.until.load(Ordering::Relaxed);
            if until != 0 {
                let left = until.saturating_sub(before.millis(now));
                let until = self.millis(now).saturating_add(left);
                eject.until.store(until, Ordering::Relaxed);
            }
        }
    }

    /// Whether the server takes requests, as far as anybody knows.
    pub(super) fn is_well(&self) -> bool {
        self.condition() == Condition::Well
    }

    /// How it is, for an operator; the worst that is known.
    pub(super) fn condition(&self) -> Condition {
        let ejected = |eject: &Ejection| eject.until.load(Ordering::Relaxed) != 0;
        if self.is_down() {
            Condition::FailsChecks
        } else if self.unreachable.load(Ordering::Relaxed) {
            Condition::Unreachable
        } else if self.eject.as_ref().is_some_and(ejected) {
            Condition::Ejected
        } else {
            Condition::Well
        }
    }

    /// Whether the active checks have put it out. Then nobody goes there at all: no request has a part in that.
    pub(super) fn is_down(&self) -> bool {
        self.down.load(Ordering::Relaxed)
    }

    /// Notes what the active checks say.
    pub(super) fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::Relaxed);
    }

    /// Notes how a dial ended; whether that is news.
    pub(super) fn dialed(&self, connected: bool) -> bool {
        self.unreachable.load(Ordering::Relaxed) == connected
            && self.unreachable.swap(!connected, Ordering::Relaxed) == connected
    }

    /// Whether nobody may go there now; a probe that is due may.
    pub(super) fn is_ejected(&self, now: Instant) -> bool {
        let Some(eject) = &self.eject else {
            return false;
        };
        let until = eject.until.load(Ordering::Relaxed);
        until != 0 && self.millis(now) < until
    }

    /// Asks to go there.
    pub(super) fn claim(&self, now: Instant) -> Claim {
        let Some(eject) = &self.eject else {
            return Claim::In;
        };
        let until = eject.until.load(Ordering::Relaxed);
        let now = self.millis(now);
        if until == 0 {
            return Claim::In;
        }
        if now < until {
            return Claim::Out;
        }
        let next = now.saturating_add(millis(eject.duration));
        let moved = eject
            .until
            .compare_exchange(until, next, Ordering::Relaxed, Ordering::Relaxed);
        if moved.is_ok() {
            Claim::Probe
        } else {
            Claim::Out
        }
    }

    /// Notes a fault of the server.
    pub(super) fn fault(&self, now: Instant, probe: bool) -> Option<Change> {
        let eject = self.eject.as_ref()?;
        let now = self.millis(now);
        let until = now.saturating_add(millis(eject.duration));
        if probe {
            eject.until.store(until, Ordering::Relaxed);
            return None;
        }
        let place = eject.next.fetch_add(1, Ordering::Relaxed);
        let slot = |place: usize| eject.faults.get(place % eject.faults.len());
        slot(place)?.store(now, Ordering::Relaxed);
        // Of the last faults, as many as eject, this is the first.
        let first = slot(place.wrapping_add(1))?.load(Ordering::Relaxed);
        if first == 0 || now.saturating_sub(first) > millis(eject.window) {
            return None;
        }
        let put_out = eject
            .until
            .compare_exchange(0, until, Ordering::Relaxed, Ordering::Relaxed);
        put_out.is_ok().then_some(Change::Ejected)
    }

    /// Notes that a probe was answered.
    pub(super) fn probed(&self) -> Option<Change> {
        let eject = self.eject.as_ref()?;
        for fault in &eject.faults {
            fault.store(0, Ordering::Relaxed);
        }
        (eject.until.swap(0, Ordering::Relaxed) != 0).then_some(Change::Returned)
    }

    fn millis(&self, now: Instant) -> u64 {
        millis(now.saturating_duration_since(self.made)).saturating_add(1)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health(failures: usize) -> Health {
        Health::new(Some(&EjectSettings {
            failures,
            window: Duration::from_secs(10),
            duration: Duration::from_secs(5),
        }))
    }

    fn after(health: &Health, millis: u64) -> Instant {
        health.made + Duration::from_millis(millis)
    }

    #[test]
    fn faults_that_lie_too_far_apart_do_not_eject() {
        let health = health(3);
        for time in [0, 6000, 12_000, 18_000, 24_000] {
            assert_eq!(health.fault(after(&health, time), false), None, "{time}");
            assert_eq!(health.claim(after(&health, time)), Claim::In);
        }
    }

    #[test]
    fn the_last_of_enough_faults_in_the_window_ejects() {
        let health = health(3);
        for time in [0, 9000, 10_500] {
            assert_eq!(health.fault(after(&health, time), false), None);
        }
        let ejected = health.fault(after(&health, 11_000), false);
        assert_eq!(ejected, Some(Change::Ejected));
        assert_eq!(health.fault(after(&health, 11_000), false), None);
        assert_eq!(health.claim(after(&health, 15_999)), Claim::Out);
        assert!(health.is_ejected(after(&health, 15_999)) && !health.is_well());
    }

    #[test]
    fn one_fault_may_be_enough() {
        let health = health(1);
        let ejected = health.fault(after(&health, 0), false);
        assert_eq!(ejected, Some(Change::Ejected));
    }

    #[test]
    fn up_4_one_probe_goes_and_its_answer_decides() {
        let health = health(1);
        health.fault(after(&health, 0), false);
        assert_eq!(health.claim(after(&health, 5000)), Claim::Probe);
        assert_eq!(health.claim(after(&health, 5000)), Claim::Out);
        // It fails: out for as long again.
        assert_eq!(health.fault(after(&health, 6000), true), None);
        assert_eq!(health.claim(after(&health, 10_999)), Claim::Out);
        assert_eq!(health.claim(after(&health, 11_000)), Claim::Probe);
        assert_eq!(health.probed(), Some(Change::Returned));
        assert_eq!(health.claim(after(&health, 11_000)), Claim::In);
        assert!(health.is_well());
    }

    #[test]
    fn a_probe_that_never_reports_gives_way_to_another() {
        let health = health(1);
        health.fault(after(&health, 0), false);
        assert_eq!(health.claim(after(&health, 5000)), Claim::Probe);
        assert_eq!(health.claim(after(&health, 9_999)), Claim::Out);
        assert_eq!(health.claim(after(&health, 10_000)), Claim::Probe);
    }

    #[test]
    fn a_server_that_returned_begins_anew() {
        let health = health(2);
        health.fault(after(&health, 0), false);
        health.fault(after(&health, 1), false);
        assert_eq!(health.claim(after(&health, 5001)), Claim::Probe);
        health.probed();
        assert_eq!(health.fault(after(&health, 5002), false), None);
        assert_eq!(health.claim(after(&health, 5002)), Claim::In);
    }

    #[test]
    fn cfg_2_what_is_known_goes_on_and_what_nothing_would_take_back_does_not() {
        let before = health(1);
        before.dialed(false);
        before.set_down(true);
        before.fault(Instant::now(), false);
        let next = health(1);
        next.continue_from(&before, true);
        assert!(next.is_down() && next.is_ejected(Instant::now()) && next.dialed(true));
        let unchecked = health(1);
        unchecked.continue_from(&before, false);
        assert!(!unchecked.is_down() && unchecked.is_ejected(Instant::now()));
        let without = Health::new(None);
        without.continue_from(&before, true);
        assert!(without.is_down() && !without.is_ejected(Instant::now()));
        assert_eq!(without.claim(Instant::now()), Claim::In);
    }

    #[test]
    fn without_ejection_faults_change_nothing() {
        let health = Health::new(None);
        for _ in 0..100 {
            assert_eq!(health.fault(Instant::now(), false), None);
        }
        assert_eq!(health.claim(Instant::now()), Claim::In);
        assert!(health.dialed(false) && !health.dialed(false) && !health.is_well());
        assert!(health.dialed(true) && !health.dialed(true) && health.is_well());
    }
}
