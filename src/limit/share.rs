//! How does a budget become that of several nodes? What lies between the limits, which decide at once and in memory, and
//! whoever speaks to the other nodes (`cluster`), in the background.
//!
//! A limit hands over a key when this node has used up its lease of it ([`Share`]). Whoever takes it ([`Settlements`]) asks what
//! is to be told ([`Due::settle`]) and later says what all nodes have used ([`Due::learn`]). A request does no more than put
//! a key into a queue, and does not wait for that either: where the queue is full, a later request tries again.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use governor::nanos::Nanos;
use tokio::sync::mpsc;

use super::{settings::Quota, table::Digest};

/// Keys that wait to be told of. More wait as a number in their own table alone.
const WAITING_MAX: usize = 4096;

/// Where limits hand over keys. A clone leads to the same place.
#[derive(Debug, Clone)]
pub struct Share {
    due: mpsc::Sender<Due>,
    nodes: Arc<AtomicU32>,
    lost: Arc<AtomicU64>,
}

/// The other end of a [`Share`]. Dropped, nothing is handed over any more.
#[derive(Debug)]
pub struct Settlements {
    due: mpsc::Receiver<Due>,
    nodes: Arc<AtomicU32>,
    lost: Arc<AtomicU64>,
}

/// A key of a limit whose lease is used up.
pub struct Due {
    pub(super) account: Arc<dyn Account>,
    pub(super) digest: Digest,
    pub(super) name: [Box<str>; 2],
    pub(super) since: Instant,
}

/// What is to be told of a key.
#[derive(Debug, Clone, Copy)]
pub struct Spent {
    /// Requests, 1 or more.
    pub requests: u32,
    at: Nanos,
}

/// A limit, whatever its keys.
pub(super) trait Account: Send + Sync {
    fn title(&self) -> &str;
    fn quota(&self) -> Quota;
    fn settle(&self, key: &Digest) -> (u32, Nanos);
    fn learn(&self, key: &Digest, at: Nanos, debt: Duration);
}

/// Keys that all nodes name alike.
pub(super) trait Named {
    /// Two parts, which no other key has.
    fn name(&self) -> [Box<str>; 2];
}

impl Share {
    /// Makes a way, on which nothing goes until [`Settlements::set_nodes`] says that there is somebody to share with.
    #[must_use]
    pub fn new() -> (Self, Settlements) {
        let (due, taken) = mpsc::channel(WAITING_MAX);
        let nodes = Arc::<AtomicU32>::default();
        let lost = Arc::<AtomicU64>::default();
        let settlements = Settlements {
            due: taken,
            nodes: Arc::clone(&nodes),
            lost: Arc::clone(&lost),
        };
        (Self { due, nodes, lost }, settlements)
    }

    pub(super) fn nodes(&self) -> Arc<AtomicU32> {
        Arc::clone(&self.nodes)
    }

    /// False where there is no room. Does not wait.
    pub(super) fn hand_over(&self, due: Due) -> bool {
        let handed = self.due.try_send(due).is_ok();
        if !handed {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        handed
    }
}

impl Settlements {
    /// Says how many nodes share, this one among them. Below two, keys are neither counted nor handed over.
    pub fn set_nodes(&self, nodes: u32) {
        self.nodes.store(nodes, Ordering::Relaxed);
    }

    /// How many nodes share.
    #[must_use]
    pub fn nodes(&self) -> u32 {
        self.nodes.load(Ordering::Relaxed)
    }

    /// Waits for keys and adds at most `limit` of them. False when nobody can hand over any more. Nothing is lost where the
    /// wait is given up.
    pub async fn next(&mut self, into: &mut Vec<Due>, limit: usize) -> bool {
        self.due.recv_many(into, limit).await > 0
    }

    /// How often a key could not be handed over since this was asked last, for too many waited.
    pub fn take_lost(&self) -> u64 {
        self.lost.swap(0, Ordering::Relaxed)
    }
}

impl Due {
    /// What distinguishes it from every other key of every other limit with other terms, in three parts.
    #[must_use]
    pub fn name(&self) -> [&str; 3] {
        let [kind, key] = &self.name;
        [self.account.title(), kind, key]
    }

    /// The budget.
    #[must_use]
    pub fn quota(&self) -> Quota {
        self.account.quota()
    }

    /// When its lease was used up.
    #[must_use]
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Takes what is to be told; `None` where it was given back, or is forgotten. From now on the key may be handed over anew.
    #[must_use]
    pub fn settle(&self) -> Option<Spent> {
        let (requests, at) = self.account.settle(&self.digest);
        (requests > 0).then_some(Spent { requests, at })
    }

    /// Takes in that, `spent` included, all nodes have used up so much that the budget is full again `debt` later.
    pub fn learn(&self, spent: Spent, debt: Duration) {
        self.account.learn(&self.digest, spent.at, debt);
    }
}

impl fmt::Debug for Due {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The key may be an address or a person.
        f.debug_struct("Due")
            .field("limit", &self.account.title())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
