//! One server of an upstream: what the workers share of it.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use super::{
    balance,
    settings::{ServerAddress, UpstreamSettings},
};
use crate::telemetry::UpstreamMetrics;

/// A server of the running configuration, shared by all workers.
#[derive(Debug)]
pub struct Server {
    id: u64,
    settings: Arc<UpstreamSettings>,
    address: ServerAddress,
    /// Where it stands among the servers that a caller may belong to: the same on every node and after every start.
    seed: u64,
    metrics: Arc<UpstreamMetrics>,
    reachable: AtomicBool,
}

impl Server {
    /// Makes a server. Reachable until a dial says otherwise.
    #[must_use]
    pub fn new(
        settings: Arc<UpstreamSettings>,
        address: ServerAddress,
        metrics: Arc<UpstreamMetrics>,
    ) -> Arc<Self> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        metrics.set_healthy(true);
        Arc::new(Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            seed: balance::seed(&address),
            settings,
            address,
            metrics,
            reachable: AtomicBool::new(true),
        })
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
        &self.address
    }

    /// The handles of its metrics.
    #[must_use]
    pub fn metrics(&self) -> &Arc<UpstreamMetrics> {
        &self.metrics
    }

    pub(super) fn seed(&self) -> u64 {
        self.seed
    }

    /// Notes how a dial ended; logs and counts the changes alone.
    pub(super) fn report(&self, dial: Result<(), &io::Error>) {
        if self.reachable.swap(dial.is_ok(), Ordering::Relaxed) == dial.is_ok() {
            return;
        }
        self.metrics.set_healthy(dial.is_ok());
        let (upstream, server) = (&self.settings.name, self.address.authority());
        match dial {
            Ok(()) => tracing::info!(%upstream, %server, "upstream is reachable again"),
            Err(error) => tracing::warn!(%upstream, %server, %error, "upstream cannot be reached"),
        }
    }
}
