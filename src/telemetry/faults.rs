//! The metrics of what ought not to happen: faults of ours, of sinks and of clients.

use prometheus_client::{metrics::counter::Counter, registry::Registry};

#[derive(Debug, Default)]
pub(super) struct FaultMetrics {
    pub(super) panics: Counter,
    pub(super) accept_errors: Counter,
    pub(super) malformed: Counter,
    pub(super) floods: Counter,
    pub(super) stalls: Counter,
    pub(super) log_dropped: Counter,
}

impl FaultMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
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
}
