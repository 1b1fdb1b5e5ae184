//! Every metric of the process, under the names that the contract fixes, and the handles by which others count.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use prometheus_client::{
    encoding::text,
    metrics::{counter::Counter, family::Family, gauge::Gauge, info::Info},
    registry::{Registry, Unit},
};

use super::{
    accounts::AccountMetrics,
    cluster::ClusterMetrics,
    handles::{Connections, RouteTable, UpstreamTable},
    histogram::Histogram,
    labels::{
        CertificateLabel, DecisionLabels, FetchLabels, IssuerLabel, KeysLabels, LimitLabel,
        ListenerLabel, RequestLabels, ResultLabel, RouteLabel, VersionLabel,
    },
    memory::MemoryMetrics,
    results::{CertificateReload, ConfigReload, HandshakeResult},
    spans::SpanMetrics,
};

type Seconds = Gauge<f64, AtomicU64>;

/// The registry and what is in it. Names get `_total`, `_seconds`, `_bytes` and `_info` from their kind and unit.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    pub(super) routes: Arc<RouteTable>,
    pub(super) upstreams: Arc<UpstreamTable>,
    token_cache: Family<ResultLabel, Counter>,
    token_cache_bytes: Gauge,
    token_cache_sampled: Mutex<[u64; 3]>,
    jwks_age: Family<IssuerLabel, Seconds>,
    jwks_keys: Family<KeysLabels, Gauge>,
    pub(super) jwks_fetches: Family<FetchLabels, Counter>,
    pub(super) introspections: Family<FetchLabels, Counter>,
    connections: Family<ListenerLabel, Gauge>,
    pub(super) tunnels: Gauge,
    handshakes: Family<ResultLabel, Counter>,
    certificate_expiry: Family<CertificateLabel, Gauge>,
    certificate_reloads: Family<ResultLabel, Counter>,
    config_reloads: Family<ResultLabel, Counter>,
    config_success: Gauge,
    config_success_at: Seconds,
    pub(super) rate_limited: Family<LimitLabel, Counter>,
    pub(super) mails: Family<ResultLabel, Counter>,
    pub(super) mail_queue: Gauge,
    pub(super) accounts: AccountMetrics,
    pub(super) cluster: ClusterMetrics,
    pub(super) memory: MemoryMetrics,
    pub(super) spans: SpanMetrics,
    revocation_lag: Seconds,
    pub(super) panics: Counter,
    pub(super) accept_errors: Counter,
    pub(super) malformed: Counter,
    pub(super) floods: Counter,
    pub(super) stalls: Counter,
    pub(super) log_dropped: Counter,
}

/// The families that a route's handles come from.
#[derive(Debug, Clone, Default)]
pub(super) struct RouteFamilies {
    pub(super) requests: Family<RequestLabels, Counter>,
    pub(super) durations: Family<RouteLabel, Histogram>,
    pub(super) decisions: Family<DecisionLabels, Counter>,
    pub(super) unenforced: Family<DecisionLabels, Counter>,
}

/// What closures given to [`Telemetry::on_scrape`](super::Telemetry::on_scrape) may set.
pub struct Scrape<'a>(&'a Metrics);

impl Metrics {
    pub(super) fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("portcullis"),
            routes: Arc::default(),
            upstreams: Arc::default(),
            token_cache: Family::default(),
            token_cache_bytes: Gauge::default(),
            token_cache_sampled: Mutex::default(),
            jwks_age: Family::default(),
            jwks_keys: Family::default(),
            jwks_fetches: Family::default(),
            introspections: Family::default(),
            connections: Family::default(),
            tunnels: Gauge::default(),
            handshakes: Family::default(),
            certificate_expiry: Family::default(),
            certificate_reloads: Family::default(),
            config_reloads: Family::default(),
            config_success: Gauge::default(),
            config_success_at: Seconds::default(),
            rate_limited: Family::default(),
            mails: Family::default(),
            mail_queue: Gauge::default(),
            accounts: AccountMetrics::default(),
            cluster: ClusterMetrics::default(),
            memory: MemoryMetrics::default(),
            spans: SpanMetrics::default(),
            revocation_lag: Seconds::default(),
            panics: Counter::default(),
            accept_errors: Counter::default(),
            malformed: Counter::default(),
            floods: Counter::default(),
            stalls: Counter::default(),
            log_dropped: Counter::default(),
        };
        metrics.register_exchanges();
        metrics.register_connections();
        metrics.register_process();
        metrics.register_certificates();
        metrics.register_mail();
        metrics.accounts.register(&mut metrics.registry);
        metrics.cluster.register(&mut metrics.registry);
        metrics.memory.register(&mut metrics.registry);
        metrics.spans.register(&mut metrics.registry);
        metrics.register_reloads();
        metrics
    }

    fn register_exchanges(&mut self) {
        let registry = &mut self.registry;
        let routes = &self.routes.families;
        registry.register("requests", "Exchanges ended", routes.requests.clone());
        registry.register_with_unit(
            "request_duration",
            "From a request's head to its answer's end",
            Unit::Seconds,
            routes.durations.clone(),
        );
        registry.register(
            "decisions",
            "Requests by code: admitted, or why not",
            routes.decisions.clone(),
        );
        registry.register(
            "unenforced",
            "Requests that a route not enforced let pass, by the code of the refusal",
            routes.unenforced.clone(),
        );
        registry.register_with_unit(
            "upstream_duration",
            "From a request's start at the upstream to the first byte of its answer",
            Unit::Seconds,
            self.upstreams.durations.clone(),
        );
        registry.register(
            "upstream_healthy",
            "Whether a server takes requests: 1 or 0",
            self.upstreams.healthy.clone(),
        );
        registry.register(
            "upstream_retries",
            "Requests sent again after a connection that ended before an answer, by what became of them",
            self.upstreams.retries.clone(),
        );
        registry.register(
            "upstream_tls_failures",
            "TLS handshakes with servers that failed",
            self.upstreams.tls_failures.clone(),
        );
        registry.register(
            "rate_limited",
            "Requests refused by a limit",
            self.rate_limited.clone(),
        );
    }

    fn register_certificates(&mut self) {
        let registry = &mut self.registry;
        // There from the start, so that the first one is growth.
        for result in [CertificateReload::Refused, CertificateReload::Taken] {
            let result = result.name();
            let _ = self
                .certificate_reloads
                .get_or_create_owned(&ResultLabel { result });
        }
        registry.register_with_unit(
            "certificate_expiry_timestamp",
            "When a certificate in use ends, since 1970",
            Unit::Seconds,
            self.certificate_expiry.clone(),
        );
        registry.register(
            "certificate_reloads",
            "Changed certificate files by outcome",
            self.certificate_reloads.clone(),
        );
    }

    fn register_mail(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "mails",
            "Attempts to send a mail by outcome",
            self.mails.clone(),
        );
        registry.register(
            "mail_queue",
            "Mails that wait to be sent",
            self.mail_queue.clone(),
        );
    }

    fn register_reloads(&mut self) {
        let registry = &mut self.registry;
        for result in ConfigReload::ALL {
            let result = result.name();
            let _ = self
                .config_reloads
                .get_or_create_owned(&ResultLabel { result });
        }
        // A start is a load that went well.
        self.config_success.set(1);
        self.config_success_at.set(seconds(SystemTime::now()));
        registry.register(
            "config_reloads",
            "Attempts to load the configuration anew by outcome",
            self.config_reloads.clone(),
        );
        registry.register(
            "config_last_reload_success",
            "Whether what runs is what the file said when it was last read: 1 or 0",
            self.config_success.clone(),
        );
        registry.register_with_unit(
            "config_last_reload_success_timestamp",
            "When that was last so, since 1970",
            Unit::Seconds,
            self.config_success_at.clone(),
        );
    }

    fn register_process(&mut self) {
        let registry = &mut self.registry;
        let build = VersionLabel {
            version: env!("CARGO_PKG_VERSION"),
        };
        registry.register("build", "The running version", Info::new(build));
        registry.register(
            "token_cache",
            "Look-ups of verified tokens",
            self.token_cache.clone(),
        );
        registry.register_with_unit(
            "token_cache",
            "Memory of verified tokens",
            Unit::Bytes,
            self.token_cache_bytes.clone(),
        );
        registry.register_with_unit(
            "jwks_age",
            "Since an issuer's keys were loaded",
            Unit::Seconds,
            self.jwks_age.clone(),
        );
        registry.register(
            "jwks_keys",
            "Keys of an issuer: usable, and skipped because they do not fit",
            self.jwks_keys.clone(),
        );
        registry.register(
            "jwks_fetches",
            "Fetches of an issuer's keys by outcome",
            self.jwks_fetches.clone(),
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
        registry.register("panics", "Tasks that panicked", self.panics.clone());
        registry.register(
            "accept_errors",
            "Connections that could not be accepted",
            self.accept_errors.clone(),
        );
        registry.register(
            "malformed_heads",
            "Requests whose head is no HTTP or far too large: refused before anything is known of them",
            self.malformed.clone(),
        );
        registry.register(
            "http2_floods",
            "HTTP/2 connections ended for their control frames",
            self.floods.clone(),
        );
        registry.register(
            "worker_stalls",
            "Turns of a worker in which it did not look at its connections for more than 10 ms",
            self.stalls.clone(),
        );
        registry.register(
            "log_dropped",
            "Log lines dropped because their sink was slow or broken",
            self.log_dropped.clone(),
        );
    }

    /// Connections of clients.
    fn register_connections(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "connections",
            "Open client connections",
            self.connections.clone(),
        );
        registry.register("tunnels", "Open WebSockets", self.tunnels.clone());
        registry.register(
            "tls_handshakes",
            "TLS handshakes by outcome",
            self.handshakes.clone(),
        );
    }

    pub(super) fn connections(&self, listener: &'static str) -> Connections {
        Connections(
            self.connections
                .get_or_create_owned(&ListenerLabel { listener }),
        )
    }

    pub(super) fn handshake(&self, result: HandshakeResult) -> Counter {
        let result = result.name();
        self.handshakes.get_or_create_owned(&ResultLabel { result })
    }

    pub(super) fn certificate_reload(&self, result: CertificateReload) -> Counter {
        let result = result.name();
        self.certificate_reloads
            .get_or_create_owned(&ResultLabel { result })
    }

    pub(super) fn config_reload(&self, result: ConfigReload) {
        let label = ResultLabel {
            result: result.name(),
        };
        self.config_reloads.get_or_create(&label).inc();
        self.config_success.set(i64::from(result.is_success()));
        if result.is_success() {
            self.config_success_at.set(seconds(SystemTime::now()));
        }
    }

    /// A scrape begins: issuers and certificates that are gone must not keep their last value.
    pub(super) fn scrape(&self) -> Scrape<'_> {
        self.jwks_age.clear();
        self.jwks_keys.clear();
        self.certificate_expiry.clear();
        Scrape(self)
    }

    /// OpenMetrics 1.0 text.
    pub(super) fn encode(&self) -> String {
        let mut out = String::with_capacity(16 << 10);
        // Writing to a `String` cannot fail, and no value of ours refuses to be written.
        let _ = text::encode(&mut out, &self.registry);
        out
    }
}

fn seconds(time: SystemTime) -> f64 {
    (time.duration_since(UNIX_EPOCH).unwrap_or_default()).as_secs_f64()
}

impl Scrape<'_> {
    pub(super) fn metrics(&self) -> &Metrics {
        self.0
    }

    /// The memory that the token cache takes, in bytes.
    pub fn token_cache_bytes(&mut self, bytes: u64) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.0.token_cache_bytes.set(bytes);
    }

    /// How many look-ups of the token cache hit, were answered by another's verification, and missed since it was made, for a
    /// cache that counts for itself. A cache that a reload replaced starts at 0 again; the metric goes on.
    pub fn token_cache_lookups(&mut self, counts: [u64; 3]) {
        let last = self.0.token_cache_sampled.lock();
        let mut last = last.unwrap_or_else(PoisonError::into_inner);
        let results = ["hit", "joined", "miss"].into_iter();
        for ((result, now), last) in results.zip(counts).zip(*last) {
            let counter = self.0.token_cache.get_or_create(&ResultLabel { result });
            counter.inc_by(now.checked_sub(last).unwrap_or(now));
        }
        *last = counts;
    }

    /// When a certificate ends. Of several by one name the first to end counts.
    pub fn certificate_expiry(&mut self, name: &str, ends: SystemTime) {
        let seconds = ends.duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = i64::try_from(seconds.as_secs()).unwrap_or(i64::MAX);
        let gauge = self
            .0
            .certificate_expiry
            .get_or_create_owned(&CertificateLabel { name: name.into() });
        let before = gauge.get();
        if before == 0 || seconds < before {
            gauge.set(seconds);
        }
    }

    /// How old what is known of revocations is.
    pub fn revocation_lag(&mut self, lag: Duration) {
        self.0.revocation_lag.set(lag.as_secs_f64());
    }

    /// How long ago an issuer's keys were loaded. Issuers that are not told in a scrape are not in it.
    pub fn jwks_age(&mut self, issuer: &str, age: Duration) {
        let issuer = issuer.into();
        self.0
            .jwks_age
            .get_or_create(&IssuerLabel { issuer })
            .set(age.as_secs_f64());
    }

    /// How many keys of an issuer can be used, and how many of its set were left out.
    pub fn jwks_keys(&mut self, issuer: &str, usable: usize, skipped: usize) {
        for (state, count) in [("usable", usable), ("skipped", skipped)] {
            let issuer = issuer.into();
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            let keys = &self.0.jwks_keys;
            keys.get_or_create(&KeysLabels { issuer, state }).set(count);
        }
    }
}

impl fmt::Debug for Scrape<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scrape(..)")
    }
}

#[cfg(test)]
mod tests;
