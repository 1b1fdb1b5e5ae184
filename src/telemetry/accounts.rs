//! The metrics of accounts: sign-ins, renewals, and who waits for a password hash.

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::{Scrape, labels::ResultLabel};

/// The result of what was not refused.
const OK: &str = "ok";
/// Results of sign-ins that are there from the start, so that the first one is growth.
const LOGINS: [&str; 5] = [
    OK,
    "invalid_credentials",
    "overloaded",
    "rate_limited",
    "store_unavailable",
];
/// The same of renewals.
const REFRESHES: [&str; 4] = [OK, "invalid_grant", "reused", "store_unavailable"];

/// What accounts count. Clones count together; the default counts for nobody.
#[derive(Debug, Clone, Default)]
pub struct AccountMetrics {
    logins: Family<ResultLabel, Counter>,
    refreshes: Family<ResultLabel, Counter>,
    password_queue: Gauge,
}

impl AccountMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        for (family, results) in [
            (&self.logins, LOGINS.as_slice()),
            (&self.refreshes, REFRESHES.as_slice()),
        ] {
            for result in results {
                let _ = family.get_or_create_owned(&ResultLabel { result });
            }
        }
        registry.register(
            "logins",
            "Sign-ins with name and password by outcome",
            self.logins.clone(),
        );
        registry.register(
            "refreshes",
            "Uses of refresh tokens by outcome",
            self.refreshes.clone(),
        );
        registry.register(
            "password_queue",
            "Requests that wait for a password hash to begin",
            self.password_queue.clone(),
        );
    }

    /// Counts a sign-in: `Ok`, or the code of its refusal.
    pub fn login(&self, outcome: Result<(), &'static str>) {
        count(&self.logins, outcome);
    }

    /// Counts a use of a refresh token: `Ok`, or the code of its refusal, or a word of a closed set for the log alone.
    pub fn refresh(&self, outcome: Result<(), &'static str>) {
        count(&self.refreshes, outcome);
    }
}

/// Codes are a closed set, so series are (LOG-5).
fn count(family: &Family<ResultLabel, Counter>, outcome: Result<(), &'static str>) {
    let result = outcome.err().unwrap_or(OK);
    family.get_or_create(&ResultLabel { result }).inc();
}

impl Scrape<'_> {
    /// How many requests wait for a password hash to begin.
    pub fn password_queue(&mut self, waiting: usize) {
        let waiting = i64::try_from(waiting).unwrap_or(i64::MAX);
        self.metrics().accounts.password_queue.set(waiting);
    }
}
