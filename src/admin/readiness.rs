//! Whether this node should get requests, and if not, why.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use serde::Serialize;

/// Named conditions that must all hold, shared by `Arc`. Before the first one is reported the node is not ready, and once it
/// drains it never is again.
#[derive(Debug, Default)]
pub struct Readiness {
    conditions: Mutex<BTreeMap<Box<str>, Result<(), String>>>,
    degraded: Mutex<BTreeMap<Box<str>, String>>,
    last_reload: Mutex<Option<LastReload>>,
    draining: AtomicBool,
}

/// A condition that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The condition's name.
    pub what: String,
    /// What is wrong, for the operator.
    pub detail: String,
}

/// An attempt to load the configuration anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct LastReload {
    /// When it ended, in seconds since 1970.
    pub at: u64,
    /// What came of it, in the word of the metric.
    pub result: &'static str,
}

impl Readiness {
    /// No condition reported yet: not ready.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reports a condition, in place of what was reported under this name before.
    pub fn set(&self, name: &str, condition: Result<(), String>) {
        let conditions = self.conditions.lock();
        let mut conditions = conditions.unwrap_or_else(PoisonError::into_inner);
        conditions.insert(name.into(), condition);
    }

    /// Reports something that need not hold for the node to be of use, in place of what was reported under this name before.
    pub fn set_degraded(&self, name: &str, condition: Result<(), String>) {
        let degraded = self.degraded.lock();
        let mut degraded = degraded.unwrap_or_else(PoisonError::into_inner);
        match condition {
            Ok(()) => degraded.remove(name),
            Err(detail) => degraded.insert(name.into(), detail),
        };
    }

    /// Notes what came of an attempt to load the configuration anew.
    pub fn set_last_reload(&self, last: LastReload) {
        let lock = self.last_reload.lock();
        *lock.unwrap_or_else(PoisonError::into_inner) = Some(last);
    }

    /// The last attempt to load the configuration anew.
    #[must_use]
    pub fn last_reload(&self) -> Option<LastReload> {
        *self
            .last_reload
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// What is wrong although the node is of use, by name.
    #[must_use]
    pub fn degraded(&self) -> Vec<Problem> {
        let degraded = self.degraded.lock();
        let degraded = degraded.unwrap_or_else(PoisonError::into_inner);
        let entries = degraded.iter();
        entries
            .map(|(what, detail)| Problem {
                what: what.to_string(),
                detail: detail.clone(),
            })
            .collect()
    }

    /// Forgets a condition, for what a new configuration does not have any more.
    pub fn clear(&self, name: &str) {
        let conditions = self.conditions.lock();
        let mut conditions = conditions.unwrap_or_else(PoisonError::into_inner);
        conditions.remove(name);
    }

    /// From now on the node is not ready: it is going down.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether the node is going down.
    #[must_use]
    pub fn draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// What stands in the way, by name; empty when the node is ready.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let problem = |what: &str, detail: &str| Problem {
            what: what.into(),
            detail: detail.into(),
        };
        let mut problems = Vec::new();
        if self.draining() {
            problems.push(problem("drain", "the node is shutting down"));
        }
        let conditions = self.conditions.lock();
        let conditions = conditions.unwrap_or_else(PoisonError::into_inner);
        if conditions.is_empty() {
            problems.push(problem("start", "nothing has been reported yet"));
        }
        for (name, condition) in conditions.iter() {
            if let Err(detail) = condition {
                problems.push(problem(name, detail));
            }
        }
        problems
    }
}
