//! The metrics of memory, and of what is done while it is scarce.

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::{Registry, Unit},
};

use super::Scrape;

#[derive(Debug, Default)]
pub(super) struct MemoryMetrics {
    used: Gauge,
    limit: Gauge,
    stage: Gauge,
    pub(super) shed: Counter,
}

impl MemoryMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register_with_unit(
            "memory",
            "Memory in use that cannot be had back, of what the limit counts",
            Unit::Bytes,
            self.used.clone(),
        );
        registry.register_with_unit(
            "memory_limit",
            "The limit of memory that is nearest; 0 without one",
            Unit::Bytes,
            self.limit.clone(),
        );
        registry.register(
            "memory_stage",
            "How scarce memory is: 0 not, 1 connections end, 2 requests are refused, 3 connections are, 4 open ones are cut off",
            self.stage.clone(),
        );
        registry.register(
            "connections_shed",
            "Client connections closed for want of memory",
            self.shed.clone(),
        );
    }
}

impl Scrape<'_> {
    /// The memory in use and its limit in bytes, and the stage by its number.
    pub fn memory(&mut self, (used, limit): (u64, u64), stage: u8) {
        let bytes = |bytes| i64::try_from(bytes).unwrap_or(i64::MAX);
        let memory = &self.metrics().memory;
        memory.used.set(bytes(used));
        memory.limit.set(bytes(limit));
        memory.stage.set(stage.into());
    }
}
