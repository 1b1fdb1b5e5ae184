//! Forwards an admitted request to its backend and streams the answer back.
//!
//! Takes a [`Permit`](crate::policy::Permit) and nothing less. Knows connections, deadlines and what may be sent again;
//! knows nothing of who is calling.

mod body;
mod forward;
mod pool;
pub mod settings;
#[cfg(test)]
mod tests;

use std::{
    cell::RefCell,
    collections::HashMap,
    io,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

pub use body::{AnswerFault, AnswerStream, RequestBody, UploadFault, UploadProgress};
pub use forward::{Outbound, forward};
pub use pool::{Caps, Lease, Pool};
use settings::UpstreamSettings;

use crate::telemetry::UpstreamMetrics;

/// A backend of the running configuration, shared by all workers.
#[derive(Debug)]
pub struct Upstream {
    id: u64,
    settings: UpstreamSettings,
    metrics: Arc<UpstreamMetrics>,
    reachable: AtomicBool,
}

/// One worker's pools, one for each upstream in use.
#[derive(Debug)]
pub struct Pools {
    workers: usize,
    pools: RefCell<HashMap<u64, Rc<Pool>>>,
}

impl Upstream {
    /// Makes an upstream. Reachable until a dial says otherwise.
    #[must_use]
    pub fn new(settings: UpstreamSettings, metrics: Arc<UpstreamMetrics>) -> Arc<Self> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        metrics.set_healthy(true);
        Arc::new(Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            settings,
            metrics,
            reachable: AtomicBool::new(true),
        })
    }

    /// What the configuration says.
    #[must_use]
    pub fn settings(&self) -> &UpstreamSettings {
        &self.settings
    }

    /// The handles of its metrics.
    #[must_use]
    pub fn metrics(&self) -> &Arc<UpstreamMetrics> {
        &self.metrics
    }

    /// Notes how a dial ended; logs and counts the changes alone.
    fn report(&self, dial: Result<(), &io::Error>) {
        if self.reachable.swap(dial.is_ok(), Ordering::Relaxed) == dial.is_ok() {
            return;
        }
        self.metrics.set_healthy(dial.is_ok());
        match dial {
            Ok(()) => tracing::info!(upstream = %self.settings.name, "upstream is reachable again"),
            Err(error) => {
                tracing::warn!(upstream = %self.settings.name, %error, "upstream cannot be reached")
            }
        }
    }
}

impl Pools {
    /// Makes the pools of one of `workers` workers, 1 or more.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self {
            workers: workers.max(1),
            pools: RefCell::default(),
        }
    }

    /// The pool of an upstream, made at its first use.
    #[must_use]
    pub fn of(&self, upstream: &Arc<Upstream>) -> Rc<Pool> {
        let mut pools = self.pools.borrow_mut();
        let pool = pools.entry(upstream.id).or_insert_with(|| {
            let share = |cap: usize| cap.div_ceil(self.workers);
            let settings = &upstream.settings;
            let caps = Caps {
                connections: share(settings.max_connections),
                pending: share(settings.max_pending),
            };
            Pool::new(Arc::clone(upstream), caps)
        });
        Rc::clone(pool)
    }

    /// Closes connections that were idle too long, and forgets the pools that hold none.
    pub fn sweep(&self, now: Instant) {
        let pools: Vec<Rc<Pool>> = self.pools.borrow().values().cloned().collect();
        for pool in &pools {
            pool.sweep(now);
        }
        drop(pools);
        self.pools
            .borrow_mut()
            .retain(|_, pool| !pool.is_empty() || Rc::strong_count(pool) > 1);
    }
}
