//! Which server a request goes to.
//!
//! With one server there is nothing to choose, and nothing is computed. Loads are those of the worker that asks: a count
//! over all workers would cost each request a cache line that every core writes to, and choose hardly better.

use std::{
    net::IpAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    Pools, Server, Upstream,
    health::Claim,
    settings::{Balance, ServerAddress},
};
use crate::policy::{Permit, Rejection};

/// The servers that one request may go to, one after the other while none can be connected to.
#[derive(Debug)]
pub(super) struct Choice<'c> {
    upstream: &'c Upstream,
    pools: &'c Pools,
    permit: &'c Permit<'c>,
    /// Places of the servers that could not be connected to.
    tried: Vec<usize>,
    /// Servers given out.
    picks: usize,
    begun: Option<Instant>,
}

/// A server that a request goes to.
#[derive(Debug)]
pub(super) struct Picked<'c> {
    pub(super) server: &'c Arc<Server>,
    /// How long a dial may take.
    pub(super) dial: Duration,
    /// Whether the answer decides if the server is in again.
    pub(super) probe: bool,
}

impl<'c> Picked<'c> {
    /// The server at which the client's connection has one of its own.
    pub(super) fn pinned(server: &'c Arc<Server>) -> Self {
        Self {
            server,
            dial: server.settings().connect_timeout,
            probe: false,
        }
    }
}

impl<'c> Choice<'c> {
    pub(super) fn new(upstream: &'c Upstream, pools: &'c Pools, permit: &'c Permit<'c>) -> Self {
        Self {
            upstream,
            pools,
            permit,
            tried: Vec::new(),
            picks: 0,
            begun: None,
        }
    }

    pub(super) fn pools(&self) -> &'c Pools {
        self.pools
    }

    /// Picks the next server.
    ///
    /// # Errors
    /// [`Rejection::UpstreamUnreachable`] when every one was tried or the connect timeout is over,
    /// [`Rejection::NoHealthyUpstream`] when there was none to try.
    pub(super) fn pick(&mut self) -> Result<Picked<'c>, Rejection> {
        let settings = &self.upstream.settings;
        let within = settings.connect_timeout;
        let watched = settings.eject.is_some() || settings.health.is_some();
        if let ([only], 0, false) = (self.upstream.servers(), self.picks, watched) {
            self.picks = 1;
            return Ok(Picked {
                server: only,
                dial: within,
                probe: false,
            });
        }
        let now = Instant::now();
        let begun = *self.begun.get_or_insert(now);
        let left = within.saturating_sub(now.duration_since(begun));
        loop {
            let usable = self.usable(now);
            let (Some(place), false) = (self.choose(&usable), left.is_zero()) else {
                return Err(self.exhausted());
            };
            let server = self.upstream.servers.get(place);
            let server = server.ok_or(Rejection::Internal)?;
            self.tried.push(place);
            let claim = server.health().claim(now);
            if claim == Claim::Out && !self.panics(now) {
                // Another worker's request has just become its probe.
                continue;
            }
            self.picks += 1;
            // A server that swallows the dial must leave time for another one.
            let dial = if usable.len() > 1 { left / 2 } else { left };
            let probe = claim == Claim::Probe;
            return Ok(Picked {
                server,
                dial,
                probe,
            });
        }
    }

    /// Begins anew for a request that is sent once more: with the servers not tried yet or, where none of them is usable, with
    /// all.
    pub(super) fn begin_again(&mut self) {
        self.picks = 0;
        self.begun = None;
        if self.usable(Instant::now()).is_empty() {
            self.tried.clear();
        }
    }

    fn exhausted(&self) -> Rejection {
        if self.picks == 0 {
            Rejection::NoHealthyUpstream
        } else {
            Rejection::UpstreamUnreachable
        }
    }

    /// The places of the servers that come into question.
    fn usable(&self, now: Instant) -> Vec<usize> {
        let servers = &self.upstream.servers;
        if servers.len() <= self.picks {
            return Vec::new();
        }
        let panics = self.panics(now);
        let may = |server: &Server| {
            !server.health().is_down() && (panics || !server.health().is_ejected(now))
        };
        let places = servers.iter().enumerate();
        let places = places.filter(|(place, server)| !self.tried.contains(place) && may(server));
        places.map(|(place, _)| place).collect()
    }

    /// Whether more than half of the servers are out: then all whose checks do not fail are used, for the few that are left could not carry the
    /// load, and a fault that every server shows is rather one of the requests (UP-4).
    fn panics(&self, now: Instant) -> bool {
        let servers = &self.upstream.servers;
        let out = servers
            .iter()
            .filter(|server| server.health().is_down() || server.health().is_ejected(now));
        self.upstream.settings.eject.is_some() && 2 * out.count() > servers.len()
    }

    fn choose(&self, usable: &[usize]) -> Option<usize> {
        match self.upstream.settings.balance {
            _ if usable.len() < 2 => usable.first().copied(),
            Balance::HashIp => self.belonging(usable, address_hash(self.permit.client().ip())),
            Balance::HashUser => self.belonging(usable, user_hash(self.permit)),
            Balance::LeastRequests => self.less_loaded(usable),
            Balance::RoundRobin => {
                let turn = self.upstream.turn.fetch_add(1, Ordering::Relaxed);
                usable.get(turn % usable.len()).copied()
            }
        }
    }

    /// The one of two, taken at random, with fewer requests under way: nearly as even as asking all of them, and a server
    /// that has just come back is not sent everything at once.
    fn less_loaded(&self, usable: &[usize]) -> Option<usize> {
        let one = self.pools.random(usable.len());
        let step = 1 + self.pools.random(usable.len() - 1);
        let (one, other) = (usable.get(one)?, usable.get((one + step) % usable.len())?);
        let load = |place: &usize| {
            let server = self.upstream.servers.get(*place);
            server.map_or(usize::MAX, |server| self.pools.load(server))
        };
        Some(if load(other) < load(one) {
            *other
        } else {
            *one
        })
    }

    /// The one that the key belongs to (rendezvous hashing): each key ranks all servers in an order of its own, so when one
    /// goes, only its own keys move, and they spread over all others.
    fn belonging(&self, usable: &[usize], key: u64) -> Option<usize> {
        let rank = |place: &usize| {
            let server = self.upstream.servers.get(*place);
            server.map(|server| mix(key ^ server.seed()))
        };
        usable.iter().copied().max_by_key(rank)
    }
}

/// The client's address; for IPv6 its network, for hosts change the rest of their own accord.
fn address_hash(client: IpAddr) -> u64 {
    match client {
        IpAddr::V4(address) => hash([&address.octets()[..]]),
        IpAddr::V6(address) => hash([address.octets().get(..8).unwrap_or_default()]),
    }
}

fn user_hash(permit: &Permit<'_>) -> u64 {
    permit.caller().identity().map_or_else(
        || address_hash(permit.client().ip()),
        |identity| {
            let claims = identity.claims();
            hash([claims.issuer.as_bytes(), claims.subject.as_bytes()])
        },
    )
}

/// Where a server stands among others, by its address alone.
pub(super) fn seed(address: &ServerAddress) -> u64 {
    hash([address.to_string().as_bytes(), address.base_path.as_bytes()])
}

/// A number below `count`, which is not 0, from any other.
pub(super) fn spread(number: u64, count: usize) -> usize {
    let count = u64::try_from(count).unwrap_or(u64::MAX).max(1);
    usize::try_from(mix(number) % count).unwrap_or(0)
}

/// FNV-1a over parts that cannot run into each other. Who chooses the input can choose the server, and gains nothing.
fn hash<const N: usize>(parts: [&[u8]; N]) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for part in parts {
        let length = part.len().to_le_bytes();
        for byte in length.iter().chain(part) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    mix(hash)
}

/// Makes each bit depend on every other (the finaliser of splitmix64).
fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}
