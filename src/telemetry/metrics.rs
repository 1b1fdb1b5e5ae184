//! Every metric of the process, under the names that the contract fixes: each subject has its file, and all are told together here.

use std::{
    fmt,
    sync::{Arc, atomic::AtomicU64},
};

use prometheus_client::{
    encoding::text,
    metrics::{counter::Counter, family::Family, gauge::Gauge, info::Info},
    registry::{Registry, Unit},
};

use super::{
    accounts::AccountMetrics,
    cluster::ClusterMetrics,
    faults::FaultMetrics,
    handles::{Connections, RouteTable, UpstreamTable},
    histogram::Histogram,
    labels::{
        DecisionLabels, LimitLabel, ListenerLabel, RequestLabels, ResultLabel, RouteLabel,
        VersionLabel,
    },
    memory::MemoryMetrics,
    reloads::ReloadMetrics,
    results::HandshakeResult,
    spans::SpanMetrics,
    tokens::TokenMetrics,
};

/// A gauge of seconds and parts of them.
pub(super) type Seconds = Gauge<f64, AtomicU64>;

/// The registry and what is in it. Names get `_total`, `_seconds`, `_bytes` and `_info` from their kind and unit.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    pub(super) routes: Arc<RouteTable>,
    pub(super) upstreams: Arc<UpstreamTable>,
    connections: Family<ListenerLabel, Gauge>,
    pub(super) tunnels: Gauge,
    handshakes: Family<ResultLabel, Counter>,
    pub(super) rate_limited: Family<LimitLabel, Counter>,
    pub(super) mails: Family<ResultLabel, Counter>,
    pub(super) mail_queue: Gauge,
    pub(super) accounts: AccountMetrics,
    pub(super) cluster: ClusterMetrics,
    pub(super) memory: MemoryMetrics,
    pub(super) spans: SpanMetrics,
    pub(super) tokens: TokenMetrics,
    pub(super) reloads: ReloadMetrics,
    pub(super) faults: FaultMetrics,
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
            connections: Family::default(),
            tunnels: Gauge::default(),
            handshakes: Family::default(),
            rate_limited: Family::default(),
            mails: Family::default(),
            mail_queue: Gauge::default(),
            accounts: AccountMetrics::default(),
            cluster: ClusterMetrics::default(),
            memory: MemoryMetrics::default(),
            spans: SpanMetrics::default(),
            tokens: TokenMetrics::default(),
            reloads: ReloadMetrics::default(),
            faults: FaultMetrics::default(),
        };
        metrics.register_exchanges();
        metrics.register_connections();
        metrics.tokens.register(&mut metrics.registry);
        metrics.faults.register(&mut metrics.registry);
        metrics.register_mail();
        metrics.accounts.register(&mut metrics.registry);
        metrics.cluster.register(&mut metrics.registry);
        metrics.memory.register(&mut metrics.registry);
        metrics.spans.register(&mut metrics.registry);
        metrics.reloads.register(&mut metrics.registry);
        let build = VersionLabel {
            version: env!("CARGO_PKG_VERSION"),
        };
        let build = Info::new(build);
        (metrics.registry).register("build", "The running version", build);
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

    /// A scrape begins: what is gone must not keep its last value.
    pub(super) fn scrape(&self) -> Scrape<'_> {
        self.tokens.begin_scrape();
        self.reloads.begin_scrape();
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

impl Scrape<'_> {
    pub(super) fn metrics(&self) -> &Metrics {
        self.0
    }
}

impl fmt::Debug for Scrape<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scrape(..)")
    }
}

#[cfg(test)]
mod tests;
