//! Forwards an admitted request to its backend and streams the answer back.
//!
//! Takes a [`Permit`](crate::policy::Permit) and nothing less. Knows servers, connections, deadlines and what may be sent
//! again; of who is calling it knows only which server that may mean.

mod balance;
mod body;
mod checks;
mod client_body;
mod connect;
mod contain;
mod driver;
mod forward;
mod framing;
mod health;
mod heard;
mod hints;
mod http2;
mod lease;
mod pace;
mod patience;
mod pins;
mod pool;
mod progress;
mod resolve;
mod retry;
mod server;
pub mod settings;
mod spare;
#[cfg(test)]
mod tests;
mod tls;
mod upgrade;

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    hash::{BuildHasher, RandomState},
    rc::Rc,
    sync::{Arc, atomic::AtomicUsize},
    time::Instant,
};

pub use body::{AnswerFault, AnswerStream, RequestBody};
use checks::Checks;
pub use client_body::ClientBody;
pub use forward::{Outbound, forward};
pub use health::Condition;
pub use hints::Hints;
use http::Version;
pub use lease::Lease;
pub use pace::Pace;
use patience::Patience;
pub use pins::Pins;
pub use pool::{Caps, Pool};
pub use progress::{UploadFault, UploadProgress};
use resolve::Target;
pub use resolve::{Lookup, Resolver, SystemResolver};
use retry::Budget;
use rustls::ClientConfig;
pub use server::Server;
use server::Way;
use settings::{Endpoint, Protocol, ServerAddress, UpstreamSettings};
use tls::Tls;
pub use tls::{SystemRoots, TlsFault, client_config};
use tokio::runtime::Handle;
pub use upgrade::{Handshake, Switched};

use crate::telemetry::UpstreamMetrics;

/// HTTP/1.1 as TLS names it.
const HTTP1: &[u8] = b"http/1.1";
/// HTTP/2 as TLS names it.
const HTTP2: &[u8] = b"h2";

/// A backend of the running configuration, shared by all workers: one server or several that serve the same.
#[derive(Debug)]
pub struct Upstream {
    settings: Arc<UpstreamSettings>,
    servers: Vec<Arc<Server>>,
    /// Whose turn it is, where they take turns.
    turn: AtomicUsize,
    checks: Checks,
    /// How many requests may be sent again; `None`: none.
    retries: Option<Budget>,
}

/// One worker's pools, one for each server in use.
#[derive(Debug)]
pub struct Pools {
    workers: usize,
    pools: RefCell<BTreeMap<u64, Rc<Pool>>>,
    random: Cell<u64>,
    /// The time limits of exchanges that have only just begun.
    patience: Patience,
}

impl Upstream {
    /// Makes an upstream, with the handles that `metrics` gives for each server. `system` is read where a server is to be
    /// verified against the roots of the system.
    ///
    /// # Errors
    /// What keeps its TLS from being set up (NET-7).
    pub fn new(
        settings: UpstreamSettings,
        system: &SystemRoots,
        metrics: impl Fn(&ServerAddress) -> Arc<UpstreamMetrics>,
    ) -> Result<Arc<Self>, TlsFault> {
        let resolver: Arc<dyn Resolver> = Arc::new(SystemResolver);
        Self::resolving(settings, system, metrics, &resolver)
    }

    /// Makes an upstream as [`Upstream::new`] does, whose names are looked up by this resolver.
    ///
    /// # Errors
    /// What keeps its TLS from being set up (NET-7).
    pub fn resolving(
        settings: UpstreamSettings,
        system: &SystemRoots,
        metrics: impl Fn(&ServerAddress) -> Arc<UpstreamMetrics>,
        resolver: &Arc<dyn Resolver>,
    ) -> Result<Arc<Self>, TlsFault> {
        let settings = Arc::new(settings);
        let config = tls_config(&settings, system)?;
        let server = |address: &ServerAddress| {
            let tls = match (&address.endpoint, &config) {
                (
                    Endpoint::Tcp {
                        host, tls: true, ..
                    },
                    Some(config),
                ) => Some(Tls::new(config, &settings.tls, host)?),
                (Endpoint::Tcp { .. } | Endpoint::Unix(_), _) => None,
            };
            let way = Way {
                address: address.clone(),
                target: Target::new(address, resolver),
                tls,
            };
            Ok(Server::new(Arc::clone(&settings), way, metrics(address)))
        };
        let servers: Result<_, TlsFault> = settings.servers.iter().map(server).collect();
        if settings.tls.danger_accept_any_certificate {
            tracing::warn!(upstream = %settings.name, "any certificate is accepted: whoever is in between can read and write everything");
        }
        Ok(Arc::new(Self {
            servers: servers?,
            turn: AtomicUsize::new(0),
            checks: Checks::default(),
            retries: settings.retry.map(Budget::new),
            settings,
        }))
    }

    /// Begins the look-ups of names, and the health checks that the configuration asks for, on the control runtime, unless they
    /// have begun. They end with this value.
    pub fn start_checks(&self, control: &Handle) {
        if !self.checks.begin() {
            return;
        }
        self.servers.iter().for_each(|server| server.tell());
        for server in &self.servers {
            self.checks
                .look_up(Arc::clone(server), self.settings.resolve_every, control);
        }
        if let Some(settings) = &self.settings.health {
            for server in &self.servers {
                self.checks
                    .start(Arc::clone(server), settings.clone(), control);
            }
        }
    }

    /// Goes on with what was known of its servers under another configuration.
    pub fn continue_from(&self, before: &Self) {
        for server in &self.servers {
            let mut old = before.servers.iter();
            if let Some(old) = old.find(|old| old.address() == server.address()) {
                server.continue_from(old);
            }
        }
    }

    /// Says that no configuration names it any more. What is under way ends as it would have; every worker closes its kept
    /// connections within a second or two, and nobody asks for its health.
    pub fn retire(&self) {
        self.checks.stop();
        for server in &self.servers {
            server.retire();
        }
    }

    /// What the configuration says.
    #[must_use]
    pub fn settings(&self) -> &UpstreamSettings {
        &self.settings
    }

    /// Where the interim answers to a request go that came by this version of HTTP; `None`: nowhere. HTTP/1.0 knows none, and
    /// over HTTP/2 the library sends none.
    #[must_use]
    pub fn hints(&self, version: Version) -> Option<Arc<Hints>> {
        let wanted = self.settings().early_hints && version == Version::HTTP_11;
        wanted.then(Arc::default)
    }

    /// The handles of its first server's metrics: name and times are those of the upstream, whichever server it will be.
    #[must_use]
    pub fn metrics(&self) -> Option<&Arc<UpstreamMetrics>> {
        self.servers.first().map(|server| server.metrics())
    }

    /// The handles of the server that was asked last for this exchange; `None` where none could be.
    #[must_use]
    pub fn asked(&self, progress: &UploadProgress) -> Option<&Arc<UpstreamMetrics>> {
        let mut servers = self.servers.iter();
        let server = servers.find(|server| progress.has_asked(server))?;
        Some(server.metrics())
    }

    /// Its servers, in the order of the configuration.
    #[must_use]
    pub fn servers(&self) -> &[Arc<Server>] {
        &self.servers
    }
}

/// Makes the TLS configuration of an upstream; `None` where no server is reached by TLS.
///
/// # Errors
/// What keeps it from being set up (NET-7).
pub fn tls_config(
    settings: &UpstreamSettings,
    system: &SystemRoots,
) -> Result<Option<Arc<ClientConfig>>, TlsFault> {
    if !settings.servers.iter().any(ServerAddress::is_tls) {
        return Ok(None);
    }
    let alpn: &[&[u8]] = match settings.protocol {
        Protocol::Auto => &[HTTP2, HTTP1],
        Protocol::Http1 => &[HTTP1],
        Protocol::Http2 => &[HTTP2],
    };
    tls::client_config(&settings.tls, system, alpn).map(Some)
}

impl Pools {
    /// Makes the pools of one of `workers` workers, 1 or more.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self {
            workers: workers.max(1),
            pools: RefCell::default(),
            random: Cell::new(RandomState::new().hash_one(workers)),
            patience: Patience::default(),
        }
    }

    /// The pool of a server, made at its first use.
    #[must_use]
    pub fn of(&self, server: &Arc<Server>) -> Rc<Pool> {
        let mut pools = self.pools.borrow_mut();
        let pool = pools.entry(server.id()).or_insert_with(|| {
            let share = |cap: usize| cap.div_ceil(self.workers);
            let settings = server.settings();
            let caps = Caps {
                connections: share(settings.max_connections),
                pending: share(settings.max_pending),
            };
            Pool::new(Arc::clone(server), caps)
        });
        Rc::clone(pool)
    }

    /// The requests of this worker under way to a server.
    fn load(&self, server: &Server) -> usize {
        let pools = self.pools.borrow();
        pools.get(&server.id()).map_or(0, |pool| pool.load())
    }

    /// A number below `count`, which is not 0, for choices that nobody gains by foreseeing.
    fn random(&self, count: usize) -> usize {
        self.random.set(self.random.get().wrapping_add(1));
        balance::spread(self.random.get(), count)
    }

    /// Closes connections that were idle too long, forgets the pools that hold none, and looks after exchanges that go on. To be
    /// called every second.
    pub fn sweep(&self, now: Instant) {
        self.patience.look();
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
