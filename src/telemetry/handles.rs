//! The handles by which others count. Each is resolved once; counting through it takes no lock and hashes no string.

mod sums;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
    time::Duration,
};

use http::{Method, StatusCode};
use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge};

use super::{
    histogram::Histogram,
    labels::{
        self, DecisionLabels, RequestLabels, RetryLabels, RouteLabel, ServerLabels, Status,
        UpstreamLabel,
    },
    metrics::RouteFamilies,
    results::RetryResult,
};

/// The code of a request that was not refused.
const ADMITTED: &str = "admitted";

/// Statuses whose counters a route keeps at hand, for `GET` and for `POST`.
const STATUSES: usize = 7;
/// Codes whose counters a route keeps at hand.
const CODES: usize = 5;

/// What one route counts. Handles are fetched at first use and kept, so that a usual request (`GET` or `POST`, a common
/// status) finds them by position, and ten thousand routes without traffic cost neither start-up time nor series.
#[derive(Debug)]
pub struct RouteMetrics {
    name: Arc<str>,
    table: Arc<RouteTable>,
    made: Mutex<Made>,
    duration: OnceLock<Histogram>,
    requests: [OnceLock<Counter>; 2 * STATUSES],
    decisions: [OnceLock<Counter>; CODES],
}

/// The routes that are part of a configuration in use, or that an exchange still counts for.
#[derive(Debug, Default)]
pub(super) struct RouteTable {
    pub(super) families: RouteFamilies,
    live: Mutex<HashMap<Arc<str>, Weak<RouteMetrics>>>,
}

/// The handles of the routes of one configuration, by their places: each is fetched when its route first has a request.
#[derive(Debug)]
pub struct RouteHandles {
    table: Arc<RouteTable>,
    handles: Vec<OnceLock<Arc<RouteMetrics>>>,
}

/// The series that a route has made, which go with it.
#[derive(Debug, Default)]
struct Made {
    requests: HashMap<(&'static str, Status), Counter>,
    decisions: HashMap<&'static str, Counter>,
    unenforced: HashMap<&'static str, Counter>,
}

/// What one upstream server counts.
#[derive(Debug)]
pub struct UpstreamMetrics {
    labels: ServerLabels,
    table: Arc<UpstreamTable>,
    duration: Histogram,
    healthy: Gauge,
    tls_failures: Counter,
}

/// The servers that are part of a configuration in use.
#[derive(Debug, Default)]
pub(super) struct UpstreamTable {
    pub(super) durations: Family<UpstreamLabel, Histogram>,
    pub(super) healthy: Family<ServerLabels, Gauge>,
    pub(super) retries: Family<RetryLabels, Counter>,
    pub(super) tls_failures: Family<UpstreamLabel, Counter>,
    live: Mutex<HashMap<ServerLabels, Weak<UpstreamMetrics>>>,
}

/// The open connections of one listener.
#[derive(Debug, Clone)]
pub struct Connections(pub(super) Gauge);

/// An open connection, counted until it is dropped.
#[derive(Debug)]
#[must_use = "the connection counts as open only as long as this lives"]
pub struct OpenConnection(Gauge);

/// An open tunnel, counted until it is dropped.
#[derive(Debug)]
#[must_use = "the tunnel counts as open only as long as this lives"]
pub struct OpenTunnel(Gauge);

impl RouteTable {
    /// The handle of a route; the same one while any is in use.
    pub(super) fn route(self: &Arc<Self>, name: &str) -> Arc<RouteMetrics> {
        let mut live = self.live();
        if let Some(handle) = live.get(name).and_then(Weak::upgrade) {
            return handle;
        }
        let handle = Arc::new(RouteMetrics {
            name: name.into(),
            table: Arc::clone(self),
            made: Mutex::default(),
            duration: OnceLock::new(),
            requests: Default::default(),
            decisions: Default::default(),
        });
        live.insert(Arc::clone(&handle.name), Arc::downgrade(&handle));
        handle
    }

    fn live(&self) -> MutexGuard<'_, HashMap<Arc<str>, Weak<RouteMetrics>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RouteHandles {
    pub(super) fn new(table: &Arc<RouteTable>, count: usize) -> Self {
        Self {
            table: Arc::clone(table),
            handles: std::iter::repeat_with(OnceLock::new).take(count).collect(),
        }
    }

    /// The handle of the route at a place, which has this name; `None` where the configuration has no such place.
    #[must_use]
    pub fn of(&self, place: usize, name: &str) -> Option<Arc<RouteMetrics>> {
        let handle = self.handles.get(place)?;
        Some(Arc::clone(handle.get_or_init(|| self.table.route(name))))
    }

    /// Keeps what other configurations count for routes of these names, in the order of their places: without it, series would go
    /// with the last configuration that has counted.
    pub fn keep<'n>(&self, names: impl IntoIterator<Item = &'n str>) {
        let live = self.table.live();
        let found: Vec<_> = (self.handles.iter().zip(names))
            .filter(|(handle, _)| handle.get().is_none())
            .filter_map(|(handle, name)| Some((handle, live.get(name)?.upgrade()?)))
            .collect();
        // A handle that is dropped asks for the same lock.
        drop(live);
        for (handle, found) in found {
            let _ = handle.set(found);
        }
    }
}

impl RouteMetrics {
    /// The route's name: a label of metrics, a field of the log.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn observe(&self, took: Duration) {
        let histogram = self.duration.get_or_init(|| {
            let durations = &self.table.families.durations;
            durations.get_or_create_owned(&self.label())
        });
        histogram.observe(took);
    }

    pub(super) fn count_request(&self, method: &Method, status: StatusCode) {
        let slot = request_slot(method, status).and_then(|slot| self.requests.get(slot));
        count(slot, || {
            let (method, status) = (labels::method(method), status.into());
            let requests = &mut self.made().requests;
            let counter = requests.entry((method, status)).or_insert_with(|| {
                let labels = self.request_labels(method, status);
                self.table.families.requests.get_or_create_owned(&labels)
            });
            counter.clone()
        });
    }

    pub(super) fn count_decision(&self, code: Option<&'static str>) {
        let slot = decision_slot(code).and_then(|slot| self.decisions.get(slot));
        count(slot, || {
            let code = code.unwrap_or(ADMITTED);
            let decisions = &mut self.made().decisions;
            let counter = decisions.entry(code).or_insert_with(|| {
                let labels = self.decision_labels(code);
                self.table.families.decisions.get_or_create_owned(&labels)
            });
            counter.clone()
        });
    }

    pub(super) fn count_unenforced(&self, code: &'static str) {
        let unenforced = &mut self.made().unenforced;
        let counter = unenforced.entry(code).or_insert_with(|| {
            let labels = self.decision_labels(code);
            self.table.families.unenforced.get_or_create_owned(&labels)
        });
        counter.inc();
    }

    fn label(&self) -> RouteLabel {
        RouteLabel {
            route: Arc::clone(&self.name),
        }
    }

    fn request_labels(&self, method: &'static str, status: Status) -> RequestLabels {
        RequestLabels {
            route: Arc::clone(&self.name),
            method,
            status,
        }
    }

    fn decision_labels(&self, code: &'static str) -> DecisionLabels {
        DecisionLabels {
            route: Arc::clone(&self.name),
            code,
        }
    }

    // Counters are made and put in one step: nothing is half done under this lock.
    fn made(&self) -> MutexGuard<'_, Made> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for RouteMetrics {
    /// Names that come and go with reloads must not pile up.
    fn drop(&mut self) {
        let live = self.table.live.lock();
        let mut live = live.unwrap_or_else(PoisonError::into_inner);
        // A later handle for the same route may have taken the place.
        if live
            .get(&self.name)
            .is_none_or(|weak| weak.strong_count() > 0)
        {
            return;
        }
        live.remove(&self.name);
        let families = &self.table.families;
        families.durations.remove(&self.label());
        let made = std::mem::take(&mut *self.made());
        for (method, status) in made.requests.into_keys() {
            families
                .requests
                .remove(&self.request_labels(method, status));
        }
        for code in made.decisions.into_keys() {
            families.decisions.remove(&self.decision_labels(code));
        }
        for code in made.unenforced.into_keys() {
            families.unenforced.remove(&self.decision_labels(code));
        }
    }
}

fn count(slot: Option<&OnceLock<Counter>>, fetch: impl Fn() -> Counter) {
    match slot {
        Some(slot) => slot.get_or_init(fetch).inc(),
        None => fetch().inc(),
    };
}

const fn request_slot(method: &Method, status: StatusCode) -> Option<usize> {
    let row = match *method {
        Method::GET => 0,
        Method::POST => STATUSES,
        _ => return None,
    };
    let column = match status {
        StatusCode::OK => 0,
        StatusCode::NO_CONTENT => 1,
        StatusCode::NOT_MODIFIED => 2,
        StatusCode::UNAUTHORIZED => 3,
        StatusCode::FORBIDDEN => 4,
        StatusCode::NOT_FOUND => 5,
        StatusCode::TOO_MANY_REQUESTS => 6,
        _ => return None,
    };
    Some(row + column)
}

fn decision_slot(code: Option<&str>) -> Option<usize> {
    match code {
        None => Some(0),
        Some("token_invalid") => Some(1),
        Some("rate_limited") => Some(2),
        Some("credentials_missing") => Some(3),
        Some("token_expired") => Some(4),
        Some(_) => None,
    }
}

impl UpstreamMetrics {
    /// The upstream's name: a label of metrics, a field of the log.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.labels.upstream
    }

    /// The server, as metrics name it: host and port, which is left out where it is the scheme's own; `https://` before them where it
    /// is reached by TLS; or `unix:` and a path.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.labels.server
    }

    /// Says whether the server takes requests. Until told otherwise it does.
    pub fn set_healthy(&self, healthy: bool) {
        self.healthy.set(i64::from(healthy));
    }

    /// Counts a request that was to be sent again.
    pub fn retried(&self, result: RetryResult) {
        let labels = RetryLabels {
            upstream: Arc::clone(&self.labels.upstream),
            result: result.name(),
        };
        self.table.retries.get_or_create_owned(&labels).inc();
    }

    /// A TLS handshake with the server failed.
    pub fn tls_failed(&self) {
        self.tls_failures.inc();
    }

    pub(super) fn observe(&self, took: Duration) {
        self.duration.observe(took);
    }
}

impl Drop for UpstreamMetrics {
    /// A server that no configuration names any more must not stay in an alert.
    fn drop(&mut self) {
        let live = self.table.live.lock();
        let mut live = live.unwrap_or_else(PoisonError::into_inner);
        // A later handle for the same server may have taken the place.
        if live
            .get(&self.labels)
            .is_some_and(|weak| weak.strong_count() == 0)
        {
            live.remove(&self.labels);
            self.table.healthy.remove(&self.labels);
            let upstream = &self.labels.upstream;
            if !live.keys().any(|labels| labels.upstream == *upstream) {
                self.table.forget(upstream);
            }
        }
    }
}

impl UpstreamTable {
    /// Takes the series out that all servers of an upstream share.
    fn forget(&self, upstream: &Arc<str>) {
        let upstream = || Arc::clone(upstream);
        let label = UpstreamLabel {
            upstream: upstream(),
        };
        self.durations.remove(&label);
        self.tls_failures.remove(&label);
        for result in RetryResult::ALL {
            self.retries.remove(&RetryLabels {
                upstream: upstream(),
                result: result.name(),
            });
        }
    }

    /// The handle of a server; the same one while any is in use.
    pub(super) fn server(self: &Arc<Self>, upstream: &str, server: &str) -> Arc<UpstreamMetrics> {
        let labels = ServerLabels {
            upstream: upstream.into(),
            server: server.into(),
        };
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(handle) = live.get(&labels).and_then(Weak::upgrade) {
            return handle;
        }
        let upstream = UpstreamLabel {
            upstream: Arc::clone(&labels.upstream),
        };
        let handle = Arc::new(UpstreamMetrics {
            labels: labels.clone(),
            table: Arc::clone(self),
            duration: self.durations.get_or_create_owned(&upstream),
            tls_failures: self.tls_failures.get_or_create_owned(&upstream),
            healthy: self.healthy.get_or_create_owned(&labels),
        });
        handle.set_healthy(true);
        live.insert(labels, Arc::downgrade(&handle));
        handle
    }
}

impl Connections {
    /// A connection was opened.
    pub fn inc(&self) {
        self.0.inc();
    }

    /// A connection was closed.
    pub fn dec(&self) {
        self.0.dec();
    }

    /// Counts a connection as open until the answer is dropped.
    pub fn open(&self) -> OpenConnection {
        self.inc();
        OpenConnection(self.0.clone())
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl OpenTunnel {
    pub(super) fn new(open: Gauge) -> Self {
        open.inc();
        Self(open)
    }
}

impl Drop for OpenTunnel {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests;
