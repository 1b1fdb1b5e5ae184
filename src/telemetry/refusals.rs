//! The last refusals, for whoever looks at the status page: as many as fit, and no more of one second than a few, so that a flood
//! costs its refusals next to nothing and does not wash away all that was before it at once.
//!
//! Holds what the access log may hold and nothing else (LOG-1).

use std::{
    collections::VecDeque,
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError, TryLockError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Instant, SystemTime},
};

use super::{
    line::{bare_host, bare_path, is_unsafe},
    record::Record,
};

/// How many are kept.
const KEPT_MAX: usize = 100;
/// How many of one second are kept.
const SECOND_MAX: u32 = 20;
/// The most characters that are kept of what a stranger wrote.
const CHARS_MAX: usize = 200;

/// A request that was refused. What strangers wrote is cut, and has no character that a terminal or a reader would obey.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// When its head had arrived.
    pub time: SystemTime,
    /// Its name.
    pub request_id: Box<str>,
    /// Whom it is charged to.
    pub client: IpAddr,
    /// The method.
    pub method: Box<str>,
    /// The host without user information; `None` where it was not read.
    pub host: Option<Box<str>>,
    /// The path without query; `None` where it was not read.
    pub path: Option<Box<str>>,
    /// The route, once found.
    pub route: Option<Arc<str>>,
    /// The verified caller: issuer and subject.
    pub caller: Option<(Box<str>, Box<str>)>,
    /// The status of the answer.
    pub status: u16,
    /// The code.
    pub code: &'static str,
    /// The finer reason, which the client was not told.
    pub reason: Option<&'static str>,
}

/// The ring. Whoever finds it busy leaves his refusal out.
#[derive(Debug)]
pub(super) struct Refusals {
    begun: Instant,
    /// The last second of which no more are kept, counted from `begun`, plus one.
    full: AtomicU64,
    ring: Mutex<Ring>,
}

#[derive(Debug, Default)]
struct Ring {
    kept: VecDeque<Refusal>,
    second: u64,
    taken: u32,
}

impl Refusals {
    pub(super) fn new() -> Self {
        Self {
            begun: Instant::now(),
            full: AtomicU64::new(0),
            ring: Mutex::default(),
        }
    }

    /// Keeps a refusal, unless many came within its second. Never waits: beyond those few it is one relaxed load.
    pub(super) fn note(&self, record: &Record, code: &'static str) {
        let since = record.started.saturating_duration_since(self.begun);
        let second = since.as_secs().saturating_add(1);
        if second <= self.full.load(Ordering::Relaxed) {
            return;
        }
        let refusal = Refusal::of(record, code);
        let mut ring = match self.ring.try_lock() {
            Ok(ring) => ring,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        if second > ring.second {
            (ring.second, ring.taken) = (second, 0);
        }
        ring.taken = ring.taken.saturating_add(1);
        if ring.taken >= SECOND_MAX {
            self.full.fetch_max(ring.second, Ordering::Relaxed);
        }
        let oldest = (ring.kept.len() >= KEPT_MAX).then(|| ring.kept.pop_front());
        ring.kept.push_back(refusal);
        drop(ring);
        drop(oldest);
    }

    /// Those that are kept, the last first.
    pub(super) fn all(&self) -> Vec<Refusal> {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.kept.iter().rev().cloned().collect()
    }
}

impl Refusal {
    fn of(record: &Record, code: &'static str) -> Self {
        let host = record.host.as_deref().map(bare_host);
        let path = record.path.as_deref().map(bare_path);
        let caller = record.caller.as_ref().map(|caller| {
            let claims = caller.claims();
            (harmless(&claims.issuer), harmless(&claims.subject))
        });
        Self {
            time: record.time,
            request_id: record.request_id.as_str().into(),
            client: record.client.unwrap_or(record.peer),
            method: harmless(record.method.as_str()),
            host: host.map(harmless),
            path: path.map(harmless),
            route: record
                .route
                .as_ref()
                .map(|route| Arc::clone(route.name_shared())),
            caller,
            status: record.status.as_u16(),
            code,
            reason: record.reason,
        }
    }
}

/// A text cut to its first characters, with a mark in place of each that is not to be shown as it is.
fn harmless(text: &str) -> Box<str> {
    let mut characters = text.chars();
    let shown = |character| match is_unsafe(character) {
        true => '\u{fffd}',
        false => character,
    };
    let mut kept: String = characters.by_ref().take(CHARS_MAX).map(shown).collect();
    if characters.next().is_some() {
        kept.push('…');
    }
    kept.into()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::telemetry::tests::record;

    fn at(refusals: &Refusals, second: u64, path: &str) -> Record {
        Record {
            started: refusals.begun + Duration::from_secs(second),
            path: Some(path.into()),
            ..record()
        }
    }

    fn paths(refusals: &Refusals) -> Vec<String> {
        let paths = refusals.all().into_iter().map(|kept| kept.path.unwrap());
        paths.map(String::from).collect()
    }

    #[test]
    fn the_last_is_first_and_the_oldest_goes() {
        let refusals = Refusals::new();
        for number in 0..250_u64 {
            let record = at(&refusals, number / 10, &format!("/{number}"));
            refusals.note(&record, "token_invalid");
        }
        let kept = paths(&refusals);
        assert_eq!(kept.len(), KEPT_MAX);
        assert_eq!(kept.first().unwrap(), "/249");
        assert_eq!(kept.last().unwrap(), "/150");
    }

    #[test]
    fn a_flood_does_not_wash_away_what_was_before_it() {
        let refusals = Refusals::new();
        refusals.note(&at(&refusals, 0, "/before"), "role_missing");
        for number in 0..10_000 {
            refusals.note(&at(&refusals, 1, &format!("/{number}")), "rate_limited");
        }
        // Late to be told, and of a second that is full.
        refusals.note(&at(&refusals, 0, "/late"), "role_missing");
        refusals.note(&at(&refusals, 2, "/after"), "role_missing");
        let kept = paths(&refusals);
        assert_eq!(kept.len(), 2 + usize::try_from(SECOND_MAX).unwrap());
        assert_eq!(kept.first().unwrap(), "/after");
        assert_eq!(kept.last().unwrap(), "/before");
    }

    #[test]
    fn log_1_query_and_user_information_are_left_out() {
        let refusals = Refusals::new();
        let record = Record {
            host: Some("name:password@example.com".into()),
            ..at(&refusals, 0, "/reset?token=secret#part")
        };
        refusals.note(&record, "route_not_found");
        let kept = refusals.all().remove(0);
        assert_eq!(kept.path.as_deref(), Some("/reset"));
        assert_eq!(kept.host.as_deref(), Some("example.com"));
    }

    #[test]
    fn log_2_what_strangers_wrote_is_cut_and_commands_nobody() {
        let refusals = Refusals::new();
        let path = format!("/\u{202e}\r\n\u{1b}[2J{}", "é".repeat(10_000));
        refusals.note(&at(&refusals, 0, &path), "route_not_found");
        let kept = refusals.all().remove(0).path.unwrap();
        assert!(
            kept.starts_with("/\u{fffd}\u{fffd}\u{fffd}\u{fffd}[2Jé"),
            "{kept}"
        );
        assert_eq!(kept.chars().count(), CHARS_MAX + 1);
        assert!(kept.ends_with('…'));
    }
}
