//! The metrics of what several nodes share.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::labels::StoreLabel;

#[derive(Debug, Default)]
pub(super) struct ClusterMetrics {
    pub(super) up: Family<StoreLabel, Gauge>,
    pub(super) fallbacks: Counter,
    pub(super) messages: Counter,
    pub(super) nodes: Gauge,
    pub(super) settled: Counter,
    pub(super) unsettled: Counter,
    pub(super) lag: Gauge<f64, AtomicU64>,
}

impl ClusterMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "cluster_up",
            "Whether Redis can be used: 1 or 0; absent without a cluster",
            self.up.clone(),
        );
        registry.register(
            "cluster_fallbacks",
            "Requests that this node decided by its own half of a limit, for Redis did not",
            self.fallbacks.clone(),
        );
        registry.register(
            "cluster_messages",
            "Messages of nodes that revoked something",
            self.messages.clone(),
        );
        registry.register(
            "cluster_nodes",
            "Nodes that share limits of clients and routes, this one among them; 0 while it counts alone",
            self.nodes.clone(),
        );
        registry.register(
            "cluster_settled_keys",
            "Keys of limits whose use Redis was told of",
            self.settled.clone(),
        );
        registry.register(
            "cluster_unsettled_keys",
            "Keys of limits whose use Redis could not be told of, for there were too many or it did not answer",
            self.unsettled.clone(),
        );
        registry.register(
            "cluster_settle_lag_seconds",
            "From the end of a lease until the use of all nodes was known, of the oldest key of the last call",
            self.lag.clone(),
        );
    }
}
