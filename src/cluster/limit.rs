//! A limit that all nodes share, and that goes on without the others.

use std::sync::Arc;

use super::{Asked, Cluster, Verdict};
use crate::{
    limit::{KeyedLimiter, Streaks, settings::Quota},
    policy::rejection::Exceeded,
};

/// A limit for each key, exact over all nodes of a cluster. Without a cluster it is that of this process.
///
/// In a cluster this node counts along, at half of the limit, so that it knows what was used up when Redis fails: then it
/// decides alone, and is stricter than all nodes together were (RATE-5). With N nodes that is N halves at most.
#[derive(Debug)]
pub struct SharedLimiter {
    budgets: Budgets,
    cluster: Option<Arc<Cluster>>,
}

/// The budgets of one limit by its keys.
#[derive(Debug)]
pub(super) struct Budgets {
    name: &'static str,
    quota: Quota,
    local: Local,
}

/// What this node counts.
#[derive(Debug)]
enum Local {
    Rate(KeyedLimiter<Box<str>>),
    Streak(Streaks),
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
        Self {
            budgets: Budgets::new(name, quota, max_keys, cluster.is_some()),
            cluster,
        }
    }

    /// Takes one request from the key's budget. Waits for Redis for 50 ms at most.
    ///
    /// # Errors
    /// [`Exceeded`] with the time until one is allowed again. A refusal takes nothing from the shared budget.
    pub async fn check(&self, key: &str) -> Result<(), Exceeded> {
        take(&[(&self.budgets, key)], self.cluster.as_deref()).await
    }
}

impl Budgets {
    /// `shared`: whether other nodes take from them too.
    pub(super) fn new(name: &'static str, quota: Quota, max_keys: usize, shared: bool) -> Self {
        let local = if shared { half(quota) } else { quota };
        Self {
            name,
            quota,
            local: Local::Rate(KeyedLimiter::new(name, local, max_keys)),
        }
    }

    /// So many in a row, and then none for the window.
    pub(super) fn in_a_row(
        name: &'static str,
        quota: Quota,
        max_keys: usize,
        shared: bool,
    ) -> Self {
        let count = if shared { quota.count / 2 } else { quota.count }.max(1);
        let quota = Quota {
            burst: quota.count,
            ..quota
        };
        Self {
            name,
            quota,
            local: Local::Streak(Streaks::new(name, Quota { count, ..quota }, max_keys)),
        }
    }

    /// Begins a new count for a key.
    pub(super) fn succeeded(&self, key: &str, cluster: Option<&Cluster>) {
        if let Local::Streak(streaks) = &self.local {
            streaks.succeeded(key);
        }
        if let Some(cluster) = cluster {
            cluster.forget(self.name, key);
        }
    }

    fn asked<'a>(&self, key: &'a str) -> Asked<'a> {
        Asked {
            limit: self.name,
            key,
            quota: self.quota,
            in_a_row: matches!(self.local, Local::Streak(_)),
        }
    }

    fn check_here(&self, key: &str) -> Result<(), Exceeded> {
        match &self.local {
            Local::Rate(limiter) => limiter.check_ref(key),
            Local::Streak(streaks) => streaks.check(key),
        }
    }

    fn give_back(&self, key: &str) {
        match &self.local {
            Local::Rate(limiter) => limiter.give_back(key),
            Local::Streak(streaks) => streaks.give_back(key),
        }
    }
}

/// Takes one request from each budget, or from none. The order is from who is charged alone to who shares with others: what is
/// taken here for a moment, while a wider one is asked, is then nobody else's.
pub(super) async fn take(
    from: &[(&Budgets, &str)],
    cluster: Option<&Cluster>,
) -> Result<(), Exceeded> {
    let alone = take_here(from);
    let Some(cluster) = cluster else {
        return alone;
    };
    let asked = from.iter().map(|(budgets, key)| budgets.asked(key));
    let asked: Vec<Asked<'_>> = asked.collect();
    match cluster.take(&asked).await {
        None => alone,
        Some(Verdict::Taken) => Ok(()),
        Some(Verdict::Refused { place, exceeded }) => {
            // The others were charged for nothing; the one that refuses is as little to be had without Redis.
            if alone.is_ok() {
                give_back(from, |other| other != place);
            }
            Err(exceeded)
        }
    }
}

/// The same from what this node counts.
fn take_here(from: &[(&Budgets, &str)]) -> Result<(), Exceeded> {
    for (place, (budgets, key)) in from.iter().enumerate() {
        if let Err(exceeded) = budgets.check_here(key) {
            give_back(from, |taken| taken < place);
            return Err(exceeded);
        }
    }
    Ok(())
}

fn give_back(from: &[(&Budgets, &str)], which: impl Fn(usize) -> bool) {
    for (_, (budgets, key)) in from.iter().enumerate().filter(|(place, _)| which(*place)) {
        budgets.give_back(key);
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
