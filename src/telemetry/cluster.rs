//! The metrics of what several nodes share.

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
    }
}
