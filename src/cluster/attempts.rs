//! Tries at a secret: how often, and how many in a row that went wrong.

use std::sync::Arc;

use super::{
    Cluster,
    limit::{Budgets, take},
};
use crate::{limit::settings::Quota, policy::rejection::Exceeded};

/// A rate of tries for each key, and a stop after so many of them in a row without success (RATE-4); exact over all nodes of a
/// cluster. A try is charged to both or to none, in one step.
#[derive(Debug)]
pub struct AttemptLimiter {
    rate: Budgets,
    streak: Budgets,
    cluster: Option<Arc<Cluster>>,
}

/// A try that was charged. Dropped, it counts as one that went wrong.
#[derive(Debug)]
#[must_use = "a try that went well begins a new count"]
pub struct Attempt<'a> {
    of: &'a AttemptLimiter,
    streak: Box<str>,
}

impl AttemptLimiter {
    /// `names` are those of the rate and of the stop, in metrics and in keys of Redis. `streak` is how many in a row, and for how
    /// long there is none afterwards. Each of two tables remembers `max_keys`.
    #[must_use]
    pub fn new(
        names: [&'static str; 2],
        rate: Quota,
        streak: Quota,
        max_keys: usize,
        cluster: Option<Arc<Cluster>>,
    ) -> Self {
        let [rate_name, streak_name] = names;
        let shared = cluster.is_some();
        Self {
            rate: Budgets::new(rate_name, rate, max_keys, shared),
            streak: Budgets::in_a_row(streak_name, streak, max_keys, shared),
            cluster,
        }
    }

    /// Takes one try from the rate of a key and from the count of another. Waits for Redis for 50 ms at most.
    ///
    /// # Errors
    /// [`Exceeded`] with the time until one is allowed again. A refusal takes nothing and is not counted.
    pub async fn check(&self, rate: &str, streak: Box<str>) -> Result<Attempt<'_>, Exceeded> {
        let both = [(&self.rate, rate), (&self.streak, &*streak)];
        take(&both, self.cluster.as_deref()).await?;
        Ok(Attempt { of: self, streak })
    }
}

impl Attempt<'_> {
    /// It went well: a new count begins, at all nodes. Does not wait for that.
    pub fn succeeded(self) {
        self.of
            .streak
            .succeeded(&self.streak, self.of.cluster.as_deref());
    }
}
