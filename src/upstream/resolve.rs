//! The addresses behind the names of servers: looked up again and again in the background, for they change.
//!
//! A look-up that fails changes nothing: the last good addresses stay (UP-10). Only names of the configuration are ever looked
//! up; what a client writes into its request is none of them.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::time::{sleep, timeout};

use super::{
    Server,
    settings::{Endpoint, ServerAddress},
};
use crate::jitter;

/// How long a look-up in the background may take.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);

/// What a look-up finds, some time.
pub type Lookup<'r> = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'r>>;

/// Finds the addresses of a name.
pub trait Resolver: fmt::Debug + Send + Sync {
    /// Looks a name up. Must not block the thread.
    fn resolve<'r>(&'r self, host: &'r str, port: u16) -> Lookup<'r>;
}

/// Asks the system, as every program does: its hosts file, its name servers.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemResolver;

/// Where a server is.
#[derive(Debug)]
pub(super) enum Target {
    /// At an address that the configuration gives, or no address at all.
    Fixed(Option<SocketAddr>),
    /// Behind a name.
    Named(Name),
}

/// A name and what is known of it.
#[derive(Debug)]
pub(super) struct Name {
    host: Box<str>,
    port: u16,
    resolver: Arc<dyn Resolver>,
    /// The last good addresses; none before the first look-up.
    known: ArcSwap<Vec<SocketAddr>>,
}

impl Resolver for SystemResolver {
    fn resolve<'r>(&'r self, host: &'r str, port: u16) -> Lookup<'r> {
        // On a thread for what blocks, by tokio.
        Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) })
    }
}

impl Target {
    pub(super) fn new(address: &ServerAddress, resolver: &Arc<dyn Resolver>) -> Self {
        let Endpoint::Tcp { host, port, .. } = &address.endpoint else {
            return Self::Fixed(None);
        };
        match host.parse::<IpAddr>() {
            Ok(ip) => Self::Fixed(Some(SocketAddr::new(ip, *port))),
            Err(_) => Self::Named(Name {
                host: host.clone(),
                port: *port,
                resolver: Arc::clone(resolver),
                known: ArcSwap::default(),
            }),
        }
    }

    /// Whether an address is still one of the server's. `None` is what has no address.
    pub(super) fn has(&self, address: Option<SocketAddr>) -> bool {
        match (self, address) {
            (Self::Named(name), Some(address)) => name.known.load().contains(&address),
            (Self::Fixed(_), _) | (_, None) => true,
        }
    }
}

impl Name {
    /// What is known, or a look-up where nothing is yet.
    pub(super) async fn addresses(&self) -> io::Result<Arc<Vec<SocketAddr>>> {
        let known = self.known.load_full();
        if !known.is_empty() {
            return Ok(known);
        }
        self.look_up().await?;
        Ok(self.known.load_full())
    }

    /// Looks up; whether that was news. Nothing found is a failure.
    async fn look_up(&self) -> io::Result<bool> {
        let mut found = self.resolver.resolve(&self.host, self.port).await?;
        if found.is_empty() {
            return Err(io::ErrorKind::NotFound.into());
        }
        found.dedup();
        // Name servers turn the order round; that is no news.
        let known = self.known.load();
        let is_news = known.len() != found.len() || !found.iter().all(|one| known.contains(one));
        drop(known);
        if is_news {
            self.known.store(Arc::new(found));
        }
        Ok(is_news)
    }
}

/// Looks a server's name up again and again, `every` so often.
pub(super) async fn refresh(server: Arc<Server>, every: Duration) {
    let Target::Named(name) = server.target() else {
        return;
    };
    let (upstream, host) = (&server.settings().name, &name.host);
    let mut failing = false;
    loop {
        let outcome = timeout(LOOKUP_TIMEOUT, name.look_up()).await;
        let outcome = outcome.unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()));
        match &outcome {
            Ok(true) => {
                let addresses = name.known.load_full();
                tracing::info!(%upstream, %host, ?addresses, "the server's addresses");
            }
            Err(error) if !failing => {
                tracing::warn!(%upstream, %host, %error, "the server's name cannot be looked up: its last addresses stay");
            }
            Ok(false) | Err(_) => {}
        }
        failing = outcome.is_err();
        sleep(jitter::about(every)).await;
    }
}
