//! What is seen from outside: access log, events, metrics, spans, request ids.
//!
//! One [`Telemetry`] lives as long as the process, over all reloads. Requests give it one [`Record`] each, at their end;
//! nothing here makes a request wait. It never learns headers, cookies, tokens or queries (LOG-1).

use std::{
    borrow::Borrow,
    collections::BTreeMap,
    fmt,
    io::Write,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use prometheus_client::metrics::counter::Counter;

mod access_log;
mod accounts;
mod audit_file;
mod cluster;
mod events;
mod faults;
mod handles;
mod histogram;
mod labels;
mod line;
mod line_queue;
mod memory;
mod metrics;
mod record;
mod refusals;
mod reloads;
mod request_id;
mod results;
pub mod settings;
mod spans;
mod tokens;
mod totals;

pub use accounts::AccountMetrics;
pub use events::{flush_audit, init_audit, init_events, reopen_audit_file, set_level};
pub use handles::{
    Connections, OpenConnection, OpenTunnel, RouteHandles, RouteMetrics, UpstreamMetrics,
};
pub use metrics::Scrape;
pub use record::{Ending, Record};
pub use refusals::Refusal;
pub use request_id::{RequestId, RequestIds};
pub use results::{
    CertificateReload, ConfigReload, HandshakeResult, MailResult, RetryResult, SpanResult,
};
pub use spans::{SpanMetrics, Trace, Traced, Tracer};
pub use totals::{Durations, RouteTotals, Totals};

use labels::{FetchLabels, LimitLabel, ResultLabel, StoreLabel};
use line_queue::LineQueue;
use metrics::Metrics;
use refusals::Refusals;
use settings::LogSettings;

/// The label of requests that took no route. A route of this name shares their series.
const NO_ROUTE: &str = "none";

/// How long [`Telemetry::flush`] waits for a sink.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

type Sampler = Box<dyn Fn(&mut Scrape<'_>) + Send + Sync>;

/// Metrics and access log of the process, shared by `Arc`.
pub struct Telemetry {
    metrics: Metrics,
    no_route: Arc<RouteMetrics>,
    handshakes: [Counter; 4],
    access_log: Option<LineQueue<access_log::Entry>>,
    refusals: Refusals,
    samplers: Mutex<BTreeMap<&'static str, Sampler>>,
}

impl Telemetry {
    /// Starts with the access log on standard output, if the settings want one. From now on a thread writes the events too
    /// ([`init_events`]), so that no request waits for either stream.
    #[must_use]
    pub fn start(settings: &LogSettings) -> Arc<Self> {
        events::write_behind();
        Self::with_sink(settings, Box::new(std::io::stdout()))
    }

    /// Starts with the access log written to `sink`, by a thread of its own.
    #[must_use]
    pub fn with_sink(settings: &LogSettings, sink: Box<dyn Write + Send>) -> Arc<Self> {
        let metrics = Metrics::new();
        let access_log = settings
            .access
            .then(|| access_log::start(settings.format, sink, metrics.faults.log_dropped.clone()));
        Arc::new(Self {
            no_route: metrics.routes.route(NO_ROUTE),
            handshakes: [
                HandshakeResult::Completed,
                HandshakeResult::Failed,
                HandshakeResult::NotRelayed,
                HandshakeResult::TimedOut,
            ]
            .map(|result| metrics.handshake(result)),
            access_log: access_log.flatten(),
            refusals: Refusals::new(),
            samplers: Mutex::default(),
            metrics,
        })
    }

    /// The handle of a route. While one is in use the same is given again, so a reload goes on where the last one was; when the
    /// last is dropped the route's series go.
    #[must_use]
    pub fn route(&self, name: &str) -> Arc<RouteMetrics> {
        self.metrics.routes.route(name)
    }

    /// The handles of this many routes, by their places.
    #[must_use]
    pub fn routes(&self, count: usize) -> RouteHandles {
        RouteHandles::new(&self.metrics.routes, count)
    }

    /// The handle of an upstream's server, healthy until told otherwise. While one is in use the same is given again; when
    /// the last is dropped the server leaves `portcullis_upstream_healthy`.
    #[must_use]
    pub fn upstream(&self, name: &str, server: &str) -> Arc<UpstreamMetrics> {
        self.metrics.upstreams.server(name, server)
    }

    /// Whether exchanges get a line each: only then need host and path be kept for the [`Record`].
    #[must_use]
    pub fn access_log(&self) -> bool {
        self.access_log.is_some()
    }

    /// Counts an exchange that has ended and logs it. Never blocks: where the log cannot follow, the line is dropped and
    /// counted. Takes the record, or a reference to it, which is copied if it is to be logged.
    pub fn record<R: Borrow<Record> + Into<Record>>(&self, record: R) {
        let took = {
            let record: &Record = record.borrow();
            let took = record.started.elapsed();
            let route = record.route.as_deref().unwrap_or(&self.no_route);
            route.count_request(&record.method, record.status);
            route.count_decision(record.code);
            if let Some(code) = record.unenforced {
                route.count_unenforced(code);
            }
            route.observe(took);
            if let (Some(upstream), Some(time)) = (&record.upstream, record.upstream_time) {
                upstream.observe(time);
            }
            if let (Some("rate_limited"), Some(limit)) = (record.code, record.reason) {
                let limited = &self.metrics.rate_limited;
                limited.get_or_create(&LimitLabel { limit }).inc();
            }
            if let Some(code) = record.code {
                self.refusals.note(record, code);
            }
            if let Some(trace) = &record.trace {
                trace.end(record, took);
            }
            took
        };
        if let Some(log) = &self.access_log {
            log.push((record.into(), took));
        }
    }

    /// What accounts count with.
    #[must_use]
    pub fn accounts(&self) -> AccountMetrics {
        self.metrics.accounts.clone()
    }

    /// What spans are counted with. Their series are there from now on.
    #[must_use]
    pub fn spans(&self) -> SpanMetrics {
        self.metrics.spans.begun()
    }

    /// The last refusals, the last first: 100 at most, and no more than 20 of one second.
    #[must_use]
    pub fn refusals(&self) -> Vec<Refusal> {
        self.refusals.all()
    }

    /// The open connections of a listener: `tls`, `redirect` or `admin`. To be kept, not fetched for each connection.
    #[must_use]
    pub fn connections(&self, listener: &'static str) -> Connections {
        self.metrics.connections(listener)
    }

    /// Counts a tunnel as open until the answer is dropped.
    pub fn open_tunnel(&self) -> OpenTunnel {
        OpenTunnel::new(self.metrics.tunnels.clone())
    }

    /// Counts a TLS handshake.
    pub fn handshake(&self, result: HandshakeResult) {
        let [completed, failed, not_relayed, timed_out] = &self.handshakes;
        match result {
            HandshakeResult::Completed => completed.inc(),
            HandshakeResult::Failed => failed.inc(),
            HandshakeResult::NotRelayed => not_relayed.inc(),
            HandshakeResult::TimedOut => timed_out.inc(),
        };
    }

    /// Counts a fetch of an issuer's keys; `result` is a word of a closed set.
    pub fn jwks_fetched(&self, issuer: &str, result: &'static str) {
        let issuer = issuer.into();
        let fetches = &self.metrics.tokens.fetches;
        fetches.get_or_create(&FetchLabels { issuer, result }).inc();
    }

    /// Counts a question to an issuer about an opaque token; `result` is a word of a closed set.
    pub fn introspected(&self, issuer: &str, result: &'static str) {
        let issuer = issuer.into();
        let asked = &self.metrics.tokens.introspections;
        asked.get_or_create(&FetchLabels { issuer, result }).inc();
    }

    /// Counts certificate files that changed.
    pub fn certificate_reload(&self, result: CertificateReload) {
        self.metrics.reloads.certificate(result).inc();
    }

    /// Counts attempts to send a mail.
    pub fn mail(&self, result: MailResult, count: u64) {
        let result = result.name();
        self.metrics
            .mails
            .get_or_create(&ResultLabel { result })
            .inc_by(count);
    }

    /// Says how many mails wait.
    pub fn mail_queued(&self, mails: u64) {
        let mails = i64::try_from(mails).unwrap_or(i64::MAX);
        self.metrics.mail_queue.set(mails);
    }

    /// Says whether the cluster's Redis can be used.
    pub fn cluster_up(&self, up: bool) {
        let gauge = &self.metrics.cluster.up;
        gauge
            .get_or_create(&StoreLabel { store: "redis" })
            .set(i64::from(up));
    }

    /// Counts a request to which a limit of this node alone was applied, for Redis did not answer.
    pub fn cluster_fallback(&self) {
        self.metrics.cluster.fallbacks.inc();
    }

    /// Counts a message of a node that revoked something.
    pub fn cluster_message(&self) {
        self.metrics.cluster.messages.inc();
    }

    /// Says how many nodes share limits of clients and routes, this one among them.
    pub fn cluster_nodes(&self, nodes: u32) {
        self.metrics.cluster.nodes.set(nodes.into());
    }

    /// Counts keys of limits whose use Redis was told of, and says how long the oldest has waited.
    pub fn cluster_settled(&self, keys: usize, oldest: Duration) {
        let metrics = &self.metrics.cluster;
        metrics.settled.inc_by(u64::try_from(keys).unwrap_or(0));
        metrics.lag.set(oldest.as_secs_f64());
    }

    /// Counts keys of limits whose use Redis could not be told of.
    pub fn cluster_unsettled(&self, keys: u64) {
        self.metrics.cluster.unsettled.inc_by(keys);
    }

    /// Counts an attempt to load the configuration anew.
    pub fn config_reload(&self, result: ConfigReload) {
        self.metrics.reloads.config_loaded(result);
    }

    /// Counts a task that panicked.
    pub fn panicked(&self) {
        self.metrics.faults.panics.inc();
    }

    /// Counts a connection that could not be accepted.
    pub fn accept_failed(&self) {
        self.metrics.faults.accept_errors.inc();
    }

    /// Counts a request whose head could not be read.
    pub fn head_malformed(&self) {
        self.metrics.faults.malformed.inc();
    }

    /// Counts an HTTP/2 connection that was ended for its control frames.
    pub fn flooded(&self) {
        self.metrics.faults.floods.inc();
    }

    /// Counts a client connection that was closed for want of memory.
    pub fn shed(&self) {
        self.metrics.memory.shed.inc();
    }

    /// Counts a turn of a worker that took too long.
    pub fn stalled(&self) {
        self.metrics.faults.stalls.inc();
    }

    /// Runs `sampler` at each scrape, in place of an earlier one of this name. It must be quick and must not scrape.
    pub fn on_scrape(&self, name: &'static str, sampler: Sampler) {
        let samplers = self.samplers.lock();
        let mut samplers = samplers.unwrap_or_else(PoisonError::into_inner);
        samplers.insert(name, sampler);
    }

    /// All metrics as OpenMetrics 1.0 text.
    #[must_use]
    pub fn encode(&self) -> String {
        let samplers = self.samplers.lock();
        let samplers = samplers.unwrap_or_else(PoisonError::into_inner);
        let mut scrape = self.metrics.scrape();
        for sampler in samplers.values() {
            sampler(&mut scrape);
        }
        self.metrics
            .faults
            .log_dropped
            .inc_by(events::newly_dropped());
        self.metrics.encode()
    }

    /// Waits until the lines and events queued so far are written, at most two seconds for either. For shutdown: it blocks
    /// the thread. Dropping the `Telemetry` does it too.
    pub fn flush(&self) {
        if let Some(log) = &self.access_log {
            log.flush(FLUSH_TIMEOUT);
        }
        events::flush(FLUSH_TIMEOUT);
    }
}

impl Drop for Telemetry {
    /// The last events of a process that fails are those that matter.
    fn drop(&mut self) {
        self.flush();
    }
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry")
            .field("access_log", &self.access_log())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
