//! A limit that all nodes share, and that goes on without the others.

use std::sync::Arc;

use super::{Cluster, Verdict};
use crate::{
    limit::{KeyedLimiter, settings::Quota},
    policy::rejection::Exceeded,
};

/// A limit for each key, exact over all nodes of a cluster. Without a cluster it is that of this process.
///
/// In a cluster this node counts along, at half of the limit, so that it knows what was used up when Redis fails: then it
/// decides alone, and is stricter than all nodes together were (RATE-5). With N nodes that is N halves at most.
#[derive(Debug)]
pub struct SharedLimiter {
    name: &'static str,
    quota: Quota,
    local: KeyedLimiter<Box<str>>,
    cluster: Option<Arc<Cluster>>,
}

impl SharedLimiter {
    /// `name` is the limit's name in metrics and part of its keys in Redis; `max_keys` bounds the memory of this process.
    #[must_use]
    pub fn new(
        name: &'static str,
        quota: Quota,
        max_keys: usize,
        cluster: Option<Arc<Cluster>>,
    ) -> Self {
        let local = match cluster {
            Some(_) => half(quota),
            None => quota,
        };
        Self {
            name,
            quota,
            local: KeyedLimiter::new(name, local, max_keys),
            cluster,
        }
    }

    /// Takes one request from the key's budget. Waits for Redis for 50 ms at most.
    ///
    /// # Errors
    /// [`Exceeded`] with the time until one is allowed again. A refusal takes nothing from the shared budget.
    pub async fn check(&self, key: &str) -> Result<(), Exceeded> {
        let alone = self.local.check_ref(key);
        let Some(cluster) = &self.cluster else {
            return alone;
        };
        match cluster.take(self.name, key, self.quota).await {
            None => alone,
            Some(Verdict::Taken) => Ok(()),
            Some(Verdict::Refused(retry_after)) => Err(Exceeded {
                limit: self.name,
                retry_after,
                quota: self.quota.count,
                window: self.quota.window,
            }),
        }
    }
}

/// Half of a limit: as many requests in twice the time, and half as many at once.
fn half(quota: Quota) -> Quota {
    Quota {
        window: quota.window.saturating_mul(2),
        burst: (quota.burst / 2).max(1),
        ..quota
    }
}
