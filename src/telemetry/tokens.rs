//! The metrics of what tokens are verified with: the cache of those that were, issuers' keys and answers, revocations.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};

use super::{
    Scrape,
    labels::{FetchLabels, IssuerLabel, KeysLabels, ResultLabel},
    metrics::Seconds,
};

#[derive(Debug, Default)]
pub(super) struct TokenMetrics {
    cached: Family<ResultLabel, Counter>,
    cache_bytes: Gauge,
    cache_sampled: Mutex<[u64; 3]>,
    key_age: Family<IssuerLabel, Seconds>,
    keys: Family<KeysLabels, Gauge>,
    pub(super) fetches: Family<FetchLabels, Counter>,
    pub(super) introspections: Family<FetchLabels, Counter>,
    revocation_lag: Seconds,
}

impl TokenMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "token_cache",
            "Look-ups of verified tokens",
            self.cached.clone(),
        );
        registry.register_with_unit(
            "token_cache",
            "Memory of verified tokens",
            Unit::Bytes,
            self.cache_bytes.clone(),
        );
        registry.register_with_unit(
            "jwks_age",
            "Since an issuer's keys were loaded",
            Unit::Seconds,
            self.key_age.clone(),
        );
        registry.register(
            "jwks_keys",
            "Keys of an issuer: usable, and skipped because they do not fit",
            self.keys.clone(),
        );
        registry.register(
            "jwks_fetches",
            "Fetches of an issuer's keys by outcome",
            self.fetches.clone(),
        );
        registry.register(
            "introspections",
            "Questions to an issuer about an opaque token by outcome",
            self.introspections.clone(),
        );
        registry.register_with_unit(
            "revocation_lag",
            "Since revocations of other processes were last read to the end; 0 without accounts",
            Unit::Seconds,
            self.revocation_lag.clone(),
        );
    }

    /// Issuers that are gone must not keep their last value.
    pub(super) fn begin_scrape(&self) {
        self.key_age.clear();
        self.keys.clear();
    }
}

impl Scrape<'_> {
    /// The memory that the token cache takes, in bytes.
    pub fn token_cache_bytes(&mut self, bytes: u64) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.metrics().tokens.cache_bytes.set(bytes);
    }

    /// How many look-ups of the token cache hit, were answered by another's verification, and missed since it was made, for a
    /// cache that counts for itself. A cache that a reload replaced starts at 0 again; the metric goes on.
    pub fn token_cache_lookups(&mut self, counts: [u64; 3]) {
        let tokens = &self.metrics().tokens;
        let last = tokens.cache_sampled.lock();
        let mut last = last.unwrap_or_else(PoisonError::into_inner);
        let results = ["hit", "joined", "miss"].into_iter();
        for ((result, now), last) in results.zip(counts).zip(*last) {
            let counter = tokens.cached.get_or_create(&ResultLabel { result });
            counter.inc_by(now.checked_sub(last).unwrap_or(now));
        }
        *last = counts;
    }

    /// How old what is known of revocations is.
    pub fn revocation_lag(&mut self, lag: Duration) {
        self.metrics().tokens.revocation_lag.set(lag.as_secs_f64());
    }

    /// How long ago an issuer's keys were loaded. Issuers that are not told in a scrape are not in it.
    pub fn jwks_age(&mut self, issuer: &str, age: Duration) {
        let issuer = issuer.into();
        let ages = &self.metrics().tokens.key_age;
        ages.get_or_create(&IssuerLabel { issuer })
            .set(age.as_secs_f64());
    }

    /// How many keys of an issuer can be used, and how many of its set were left out.
    pub fn jwks_keys(&mut self, issuer: &str, usable: usize, skipped: usize) {
        for (state, count) in [("usable", usable), ("skipped", skipped)] {
            let issuer = issuer.into();
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            let keys = &self.metrics().tokens.keys;
            keys.get_or_create(&KeysLabels { issuer, state }).set(count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::tests::{check_series, silent};

    #[test]
    fn issuers_that_are_gone_have_no_age() {
        let telemetry = silent();
        let sampler = |issuer: &'static str| -> Box<dyn Fn(&mut Scrape<'_>) + Send + Sync> {
            Box::new(move |scrape| scrape.jwks_age(issuer, Duration::from_secs(2)))
        };
        telemetry.on_scrape("authn", sampler("old"));
        check_series(
            &telemetry,
            r#"portcullis_jwks_age_seconds{issuer="old"}"#,
            Some("2.0"),
        );
        telemetry.on_scrape("authn", sampler("new"));
        check_series(
            &telemetry,
            r#"portcullis_jwks_age_seconds{issuer="old"}"#,
            None,
        );
        check_series(
            &telemetry,
            r#"portcullis_jwks_age_seconds{issuer="new"}"#,
            Some("2.0"),
        );
    }

    #[test]
    fn a_new_token_cache_goes_on_where_the_old_one_was() {
        let telemetry = silent();
        let sample = |hits, misses| {
            telemetry.on_scrape(
                "authn",
                Box::new(move |scrape| scrape.token_cache_lookups([hits, 0, misses])),
            );
        };
        let check = |hits, misses| {
            // Each check is a scrape; the first one takes the sample, the second finds nothing new.
            let hit = r#"portcullis_token_cache_total{result="hit"}"#;
            let miss = r#"portcullis_token_cache_total{result="miss"}"#;
            check_series(&telemetry, hit, Some(hits));
            check_series(&telemetry, miss, Some(misses));
        };
        sample(10, 2);
        check("10", "2");
        sample(15, 2);
        check("15", "2");
        sample(3, 1);
        check("18", "3");
    }
}
