//! How many connections may be open, in all and for one address (NET-2). Decided at accept, before any TLS work;
//! where a proxy names the client, that client's cap is looked at as soon as it is named.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::policy::PeerIp;

/// Descriptors that stay free for upstreams, store, logs and the admin listener.
const RESERVED_DESCRIPTORS: usize = 64;

/// The caps, shared by all workers.
#[derive(Debug)]
pub struct ConnectionCaps {
    max: AtomicUsize,
    max_per_ip: AtomicUsize,
    /// What the descriptors allow.
    affordable: usize,
    open: AtomicUsize,
    by_ip: Mutex<HashMap<IpAddr, usize>>,
}

/// A place under the caps; dropped, it is free again.
#[derive(Debug)]
pub struct ConnectionSlot {
    caps: Arc<ConnectionCaps>,
    network: Option<IpAddr>,
}

impl ConnectionCaps {
    /// Makes the caps. `max` is lowered to half of what `descriptors` leave beside a reserve, for every connection may need
    /// one to an upstream.
    #[must_use]
    pub fn new(max: usize, max_per_ip: usize, descriptors: Option<usize>) -> Arc<Self> {
        let affordable = descriptors.map_or(usize::MAX, |limit| {
            limit.saturating_sub(RESERVED_DESCRIPTORS) / 2
        });
        let caps = Self {
            max: AtomicUsize::new(0),
            max_per_ip: AtomicUsize::new(0),
            affordable,
            open: AtomicUsize::new(0),
            by_ip: Mutex::default(),
        };
        caps.set(max, max_per_ip);
        Arc::new(caps)
    }

    /// Changes the caps, `max` as in [`ConnectionCaps::new`]. Connections beyond lower ones stay open.
    pub fn set(&self, max: usize, max_per_ip: usize) {
        let effective = max.min(self.affordable).max(1);
        if effective < max {
            tracing::info!(
                max_connections = max,
                effective,
                "the limit of open files allows fewer connections; raise it (ulimit -n) or lower server.max_connections"
            );
        }
        self.max.store(effective, Ordering::Relaxed);
        self.max_per_ip.store(max_per_ip, Ordering::Relaxed);
    }

    /// A tenth of these caps, counted apart: for listeners that must not take the places of those that serve.
    #[must_use]
    pub fn tenth(&self) -> Arc<Self> {
        let (max, max_per_ip) = self.tenths();
        let caps = Self {
            max: AtomicUsize::new(max),
            max_per_ip: AtomicUsize::new(max_per_ip),
            affordable: self.affordable,
            open: AtomicUsize::new(0),
            by_ip: Mutex::default(),
        };
        Arc::new(caps)
    }

    /// Changes these caps to a tenth of others.
    pub fn set_to_tenth_of(&self, whole: &Self) {
        let (max, max_per_ip) = whole.tenths();
        self.set(max, max_per_ip);
    }

    fn tenths(&self) -> (usize, usize) {
        let tenth = |cap: &AtomicUsize| (cap.load(Ordering::Relaxed) / 10).max(1);
        (tenth(&self.max), tenth(&self.max_per_ip))
    }

    /// Takes a place for a connection whose client is still to be named; `None` when there is none.
    #[must_use]
    pub fn admit(self: &Arc<Self>) -> Option<ConnectionSlot> {
        if self.open.fetch_add(1, Ordering::Relaxed) >= self.max.load(Ordering::Relaxed) {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(ConnectionSlot {
            caps: Arc::clone(self),
            network: None,
        })
    }

    /// Takes a place for a connection of `client`; `None` when there is none.
    #[must_use]
    pub fn admit_from(self: &Arc<Self>, client: PeerIp) -> Option<ConnectionSlot> {
        let mut slot = self.admit()?;
        slot.charge(client).then_some(slot)
    }

    /// How many connections are open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.by_ip.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnectionSlot {
    /// Counts the connection for its client, once; false when that one has as many as it may, and the connection is to end.
    #[must_use]
    pub fn charge(&mut self, client: PeerIp) -> bool {
        if self.network.is_some() {
            return true;
        }
        let network = network(client.ip());
        let mut by_ip = self.caps.counts();
        let count = by_ip.entry(network).or_default();
        if *count >= self.caps.max_per_ip.load(Ordering::Relaxed) {
            return false;
        }
        *count += 1;
        drop(by_ip);
        self.network = Some(network);
        true
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.caps.open.fetch_sub(1, Ordering::Relaxed);
        let Some(network) = self.network else {
            return;
        };
        let mut by_ip = self.caps.counts();
        if let Some(count) = by_ip.get_mut(&network) {
            *count -= 1;
            if *count == 0 {
                by_ip.remove(&network);
            }
        }
    }
}

/// One customer's IPv6 network is usually a /64, so that is what counts as one address.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into()),
    }
}

/// Raises the soft limit of open files to the hard one, as far as the system allows, and says what it is then; `None` where
/// there is no limit. The soft limit is often 1024 for the sake of old programs that keep descriptors in a fixed table.
#[must_use]
pub fn raise_descriptor_limit() -> Option<usize> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let now = if setrlimit(Resource::Nofile, raised).is_ok() {
        limit.maximum
    } else {
        limit.current
    };
    now.and_then(|limit| usize::try_from(limit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(text: &str) -> PeerIp {
        PeerIp::new(text.parse().unwrap())
    }

    #[test]
    fn net_2_one_address_has_a_cap_and_others_still_connect() {
        let caps = ConnectionCaps::new(10, 2, None);
        let first = caps.admit_from(peer("192.0.2.1"));
        let second = caps.admit_from(peer("::ffff:192.0.2.1"));
        assert!(first.is_some() && second.is_some());
        assert!(caps.admit_from(peer("192.0.2.1")).is_none());
        assert!(caps.admit_from(peer("192.0.2.2")).is_some());
        drop(first);
        assert!(caps.admit_from(peer("192.0.2.1")).is_some());
    }

    #[test]
    fn net_2_all_addresses_together_have_a_cap() {
        let caps = ConnectionCaps::new(2, 2, None);
        let held = (
            caps.admit_from(peer("192.0.2.1")),
            caps.admit_from(peer("192.0.2.2")),
        );
        assert!(caps.admit_from(peer("192.0.2.3")).is_none());
        assert_eq!(caps.open(), 2);
        drop(held);
        assert_eq!(caps.open(), 0);
        assert!(caps.by_ip.lock().unwrap().is_empty());
    }

    #[test]
    fn net_2_addresses_of_one_ipv6_network_share_a_cap() {
        let caps = ConnectionCaps::new(10, 1, None);
        let held = caps.admit_from(peer("2001:db8::1"));
        assert!(held.is_some());
        assert!(caps.admit_from(peer("2001:db8::2")).is_none());
        assert!(caps.admit_from(peer("2001:db8:0:1::1")).is_some());
    }

    #[test]
    fn net_2_a_client_that_is_named_later_is_counted_then() {
        let caps = ConnectionCaps::new(3, 1, None);
        let mut first = caps.admit().unwrap();
        let mut second = caps.admit().unwrap();
        assert!(first.charge(peer("192.0.2.1")));
        assert!(first.charge(peer("192.0.2.1")), "counted once");
        assert!(!second.charge(peer("192.0.2.1")));
        drop(second);
        assert_eq!(caps.open(), 1);
        let mut other = caps.admit().unwrap();
        assert!(other.charge(peer("192.0.2.2")));
        drop(first);
        assert!(caps.admit_from(peer("192.0.2.1")).is_some());
        drop(other);
        assert!(caps.by_ip.lock().unwrap().is_empty());
    }

    #[test]
    fn net_2_descriptors_bound_the_cap() {
        let caps = ConnectionCaps::new(20_000, 20_000, Some(128));
        let held: Vec<_> = (0..100)
            .map_while(|_| caps.admit_from(peer("192.0.2.1")))
            .collect();
        assert_eq!(held.len(), 32);
    }
}
