//! One server of an upstream: what the workers share of it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use tokio::time::Instant;

use super::{
    HTTP2, balance,
    connect::{ConnectFault, Stream},
    health::{Change, Condition, Health},
    resolve::Target,
    settings::{HostPolicy, Protocol, ServerAddress, UpstreamSettings},
    tls::Tls,
};
use crate::{policy::Rejection, telemetry::UpstreamMetrics};

/// How a server is reached.
#[derive(Debug)]
pub(super) struct Way {
    /// What the configuration says.
    pub(super) address: ServerAddress,
    /// Where that is.
    pub(super) target: Target,
    /// How TLS is spoken, where it is.
    pub(super) tls: Option<Tls>,
}

/// A server of the running configuration, shared by all workers.
#[derive(Debug)]
pub struct Server {
    id: u64,
    settings: Arc<UpstreamSettings>,
    way: Way,
    /// Where it stands among the servers that a caller may belong to: the same on every node and after every start.
    seed: u64,
    metrics: Arc<UpstreamMetrics>,
    health: Health,
    /// Whether no configuration names it any more.
    retired: AtomicBool,
}

impl Server {
    /// Makes a server. Reachable until a dial says otherwise.
    #[must_use]
    pub(super) fn new(
        settings: Arc<UpstreamSettings>,
        way: Way,
        metrics: Arc<UpstreamMetrics>,
    ) -> Arc<Self> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        Arc::new(Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            seed: balance::seed(&way.address),
            health: Health::new(settings.eject.as_ref()),
            settings,
            way,
            metrics,
            retired: AtomicBool::new(false),
        })
    }

    /// Says that no new request will come: what is under way ends, and kept connections are closed.
    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    /// Whether its connections are not to be kept.
    pub(super) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }

    /// Goes on with what was known of it under another configuration.
    pub(super) fn continue_from(&self, before: &Self) {
        let checked = self.settings.health.is_some();
        self.health.continue_from(&before.health, checked);
    }

    /// Tells the metrics how it is: their handle may be that of a server that it takes the place of.
    pub(super) fn tell(&self) {
        self.metrics.set_healthy(self.health.is_well());
    }

    /// What tells it from every other server of the process.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// What the configuration says of its upstream.
    #[must_use]
    pub fn settings(&self) -> &UpstreamSettings {
        &self.settings
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> &ServerAddress {
        &self.way.address
    }

    /// How it is.
    #[must_use]
    pub fn condition(&self) -> Condition {
        self.health.condition()
    }

    /// The handles of its metrics.
    #[must_use]
    pub fn metrics(&self) -> &Arc<UpstreamMetrics> {
        &self.metrics
    }

    /// Where it is.
    pub(super) fn target(&self) -> &Target {
        &self.way.target
    }

    /// How it is spoken to by TLS, where it is.
    pub(super) fn tls(&self) -> Option<&Tls> {
        self.way.tls.as_ref()
    }

    /// Whether connections to it may turn out to carry many requests at once.
    pub(super) fn may_share(&self) -> bool {
        match self.settings.protocol {
            Protocol::Auto => self.way.tls.is_some(),
            Protocol::Http1 => false,
            Protocol::Http2 => true,
        }
    }

    /// Whether this connection to it does: whether it speaks HTTP/2.
    pub(super) fn shares(&self, stream: &Stream) -> bool {
        match self.settings.protocol {
            Protocol::Auto => stream.has_agreed_on(HTTP2),
            Protocol::Http1 => false,
            Protocol::Http2 => true,
        }
    }

    pub(super) fn seed(&self) -> u64 {
        self.seed
    }

    /// Notes how a dial ended; logs and counts the changes alone.
    pub(super) fn report(&self, dial: Result<(), &ConnectFault>) {
        if !self.health.dialed(dial.is_ok()) {
            return;
        }
        self.metrics.set_healthy(self.health.is_well());
        let (upstream, server) = (&self.settings.name, &self.way.address);
        match dial {
            Ok(()) => tracing::info!(%upstream, %server, "upstream is reachable again"),
            Err(error) => tracing::warn!(%upstream, %server, %error, "upstream cannot be reached"),
        }
    }

    /// Whether it takes requests.
    pub(super) fn health(&self) -> &Health {
        &self.health
    }

    /// Notes how an exchange ended: an answer's head, whatever its status, or a refusal that is the server's fault.
    pub(super) fn note(&self, outcome: Result<(), &Rejection>, probe: bool) {
        let change = match outcome {
            Ok(()) if probe => self.health.probed(),
            Err(
                Rejection::UpstreamInvalid
                | Rejection::UpstreamTimeout
                | Rejection::UpstreamTls
                | Rejection::UpstreamUnreachable,
            ) => self.health.fault(Instant::now(), probe),
            Ok(()) | Err(_) => return,
        };
        let Some(change) = change else { return };
        self.metrics.set_healthy(self.health.is_well());
        let (upstream, server) = (&self.settings.name, &self.way.address);
        match change {
            Change::Ejected => {
                tracing::warn!(%upstream, %server, "too many faults: the server is out for a while");
            }
            Change::Returned => tracing::info!(%upstream, %server, "the server is back"),
        }
    }
    /// Notes that the active checks changed their mind.
    pub(super) fn checked(&self, passed: bool) {
        self.health.set_down(!passed);
        if passed {
            self.health.dialed(true);
        }
        self.metrics.set_healthy(self.health.is_well());
        let (upstream, server) = (&self.settings.name, &self.way.address);
        if passed {
            tracing::info!(%upstream, %server, "health checks passed: the server is in again");
        } else {
            tracing::warn!(%upstream, %server, "health checks failed: the server is out");
        }
    }

    /// The `Host` that it is told where no client names one.
    pub(super) fn told_host(&self) -> String {
        match &self.settings.host {
            HostPolicy::Client | HostPolicy::Upstream => self.way.address.authority(),
            HostPolicy::Fixed(host) => host.to_string(),
        }
    }
}
