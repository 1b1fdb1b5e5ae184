//! TLS towards clients: which versions and suites, which certificate, and how new files take the place of old ones.
//!
//! TLS 1.3 and TLS 1.2 with forward-secret AEAD suites: what aws-lc offers through rustls, and nothing else (NET-5).
//! Early data stays off, for it can be replayed (NET-8). What handshakes use is one immutable value behind an atomic
//! pointer: a handshake goes on with the one that it began with, a change is seen by the next (NET-9).

mod fault;
pub mod files;
mod leaf;
mod pair;
mod reload;
mod resolver;

use std::{io, sync::Arc};

use arc_swap::ArcSwap;
use rustls::{
    ServerConfig, SupportedProtocolVersion,
    crypto::aws_lc_rs,
    server::ServerSessionMemoryCache,
    version::{TLS12, TLS13},
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use self::resolver::Certificates;
pub use self::{
    fault::TlsFault,
    leaf::{Leaf, LeafFault},
    pair::Pair,
    reload::{WARNED_BEFORE, watch},
};
use super::settings::{TlsSettings, TlsVersion};
use crate::{policy::HostPattern, telemetry::Scrape};

/// Sessions kept for clients that resume without tickets.
const SESSIONS_MAX: usize = 4096;

/// What new connections are encrypted with, shared by all workers.
#[derive(Debug)]
pub struct Tls {
    live: ArcSwap<Live>,
}

/// What handshakes use at one time.
#[derive(Debug)]
struct Live {
    pairs: Vec<Arc<Pair>>,
    config: Arc<ServerConfig>,
}

impl Tls {
    /// Reads the certificates.
    ///
    /// # Errors
    /// The first pair of files that is missing, empty, unreadable, or does not go together (NET-7).
    pub fn load(settings: &TlsSettings) -> Result<Self, TlsFault> {
        let pairs = settings.certificates.iter().map(Pair::load);
        let pairs = pairs.map(|pair| pair.map(Arc::new));
        let pairs: Vec<_> = pairs.collect::<Result<_, _>>()?;
        let config = Arc::new(new_config(settings.min_version, &pairs)?);
        let live = ArcSwap::from_pointee(Live { pairs, config });
        Ok(Self { live })
    }

    /// Makes a connection of a socket. To be run under a deadline.
    ///
    /// # Errors
    /// A handshake that fails.
    pub async fn accept<S>(&self, socket: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let config = Arc::clone(&self.live.load().config);
        TlsAcceptor::from(config).accept(socket).await
    }

    /// The certificates in use.
    #[must_use]
    pub fn pairs(&self) -> Vec<Arc<Pair>> {
        self.live.load().pairs.clone()
    }

    /// Tells when each certificate in use ends, by the first of its names.
    pub fn sample(&self, scrape: &mut Scrape<'_>) {
        for pair in &self.live.load().pairs {
            scrape.certificate_expiry(&label(pair), pair.leaf.not_after);
        }
    }

    /// Puts other certificates in the place of those in use. Clients go on to resume their sessions.
    fn install(&self, pairs: Vec<Arc<Pair>>) {
        let mut config = ServerConfig::clone(&self.live.load().config);
        config.cert_resolver = Arc::new(certificates(&pairs));
        let config = Arc::new(config);
        self.live.store(Arc::new(Live { pairs, config }));
    }
}

/// What a certificate is called in metrics.
fn label(pair: &Pair) -> String {
    match pair.leaf.names.first() {
        Some(HostPattern::Exact(name)) => name.to_string(),
        Some(HostPattern::Wildcard(parent)) => format!("*.{parent}"),
        None => pair.files.cert.display().to_string(),
    }
}

fn certificates(pairs: &[Arc<Pair>]) -> Certificates {
    Certificates::new(pairs.iter().map(|pair| &**pair))
}

fn versions(lowest: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    const FROM_12: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];
    const FROM_13: &[&SupportedProtocolVersion] = &[&TLS13];
    match lowest {
        TlsVersion::Tls12 => FROM_12,
        TlsVersion::Tls13 => FROM_13,
    }
}

fn new_config(lowest: TlsVersion, pairs: &[Arc<Pair>]) -> Result<ServerConfig, rustls::Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions(lowest))?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(certificates(pairs)));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.session_storage = ServerSessionMemoryCache::new(SESSIONS_MAX);
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    config.send_tls13_tickets = 1;
    config.max_early_data_size = 0;
    Ok(config)
}

#[cfg(test)]
mod tests;
