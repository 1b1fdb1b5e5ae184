//! TLS towards clients: which versions and suites, which certificate, and how new files take the place of old ones.
//!
//! TLS 1.3 and TLS 1.2 with forward-secret AEAD suites: what aws-lc offers through rustls, and nothing else (NET-5).
//! Early data stays off, for it can be replayed (NET-8). Client certificates are asked for by the names of the server's: where
//! not all ask for the same, the name that a client asks for chooses, and the gateway checks each request's host (NET-6). What handshakes use is one immutable value behind an atomic
//! pointer: a handshake goes on with the one that it began with, a change is seen by the next (NET-9).

mod clients;
mod fault;
pub mod files;
mod leaf;
mod pair;
mod reload;
mod resolver;

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use arc_swap::ArcSwap;
use rustls::{
    CipherSuite, ProtocolVersion, ServerConfig, SupportedCipherSuite, SupportedProtocolVersion,
    crypto::aws_lc_rs,
    server::{Acceptor, NoServerSessionStorage, ServerSessionMemoryCache},
    version::{TLS12, TLS13},
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor, server::TlsStream};

use self::resolver::{Certificates, normal};
pub use self::{
    clients::Anchors,
    fault::TlsFault,
    leaf::{Leaf, LeafFault},
    pair::Pair,
    reload::{WARNED_BEFORE, watch},
};
use super::settings::{CertificateFiles, ClientRule, TlsSettings, TlsVersion};
use crate::{
    policy::{TlsPolicies, TlsPolicyId},
    telemetry::Scrape,
};

/// The protocols that are spoken over TLS, the preferred one first.
pub const ALPN: [&str; 2] = ["h2", "http/1.1"];

/// Sessions kept for clients that resume without tickets.
const SESSIONS_MAX: usize = 4096;

/// What new connections are encrypted with, shared by all workers.
#[derive(Debug)]
pub struct Tls {
    live: ArcSwap<Live>,
    /// Held by whoever makes a successor of what is live, so that none is made of what is no longer.
    successor: Mutex<()>,
}

/// What handshakes use at one time.
#[derive(Debug)]
struct Live {
    lowest: TlsVersion,
    hosts: TlsPolicies,
    pairs: Vec<Arc<Pair>>,
    /// At least one.
    policies: Vec<Policy>,
}

/// How connections under one rule about client certificates are made.
#[derive(Debug, Clone)]
struct Policy {
    id: TlsPolicyId,
    rule: ClientRule,
    anchors: Option<Arc<Anchors>>,
    config: Arc<ServerConfig>,
}

/// Other certificates, authorities and versions, read and checked, that can take the place of those in use. Until it is dropped
/// nobody else can put anything there.
#[derive(Debug)]
#[must_use = "it changes nothing until it is installed"]
pub struct Prepared<'t> {
    tls: &'t Tls,
    live: Arc<Live>,
    _successor: MutexGuard<'t, ()>,
}

impl Tls {
    /// Reads certificates and client authorities.
    ///
    /// # Errors
    /// The first file that is missing, empty, unreadable, or does not go with another (NET-7).
    pub fn load(settings: &TlsSettings) -> Result<Self, TlsFault> {
        let live = Live::load(settings, None, SystemTime::now())?;
        Ok(Self {
            live: ArcSwap::from_pointee(live),
            successor: Mutex::default(),
        })
    }

    /// Reads what other settings name. Files that are in use and look the same are not read again.
    ///
    /// # Errors
    /// As [`Tls::load`], and a certificate that is not valid now in the place of one that is (NET-9).
    pub fn prepare(&self, settings: &TlsSettings) -> Result<Prepared<'_>, TlsFault> {
        let successor = self.begin_successor();
        let before = self.live.load_full();
        let live = Live::load(settings, Some(&before), SystemTime::now())?;
        Ok(Prepared {
            tls: self,
            live: Arc::new(live),
            _successor: successor,
        })
    }

    // Nothing is half done under this lock: what is live is swapped in one step.
    fn begin_successor(&self) -> MutexGuard<'_, ()> {
        let lock = self.successor.lock();
        lock.unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a connection of a socket, and says under which rule. To be run under a deadline.
    ///
    /// # Errors
    /// A handshake that fails.
    pub async fn accept<S>(&self, socket: S) -> io::Result<(TlsStream<S>, TlsPolicyId)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let live = self.live.load_full();
        if let [only] = &*live.policies {
            let acceptor = TlsAcceptor::from(Arc::clone(&only.config));
            return Ok((acceptor.accept(socket).await?, only.id));
        }
        // The name must be known before anything is answered.
        let start = LazyConfigAcceptor::new(Acceptor::default(), socket).await?;
        let id = {
            let hello = start.client_hello();
            let name = hello.server_name().map(normal);
            live.hosts.of(name.as_deref())
        };
        let policy = live.policies.iter().find(|policy| policy.id == id);
        let policy = policy.ok_or_else(|| io::Error::other("no certificate has this policy"))?;
        let stream = start.into_stream(Arc::clone(&policy.config)).await?;
        Ok((stream, id))
    }

    /// The certificates in use.
    #[must_use]
    pub fn pairs(&self) -> Vec<Arc<Pair>> {
        self.live.load().pairs.clone()
    }

    /// Tells when each certificate in use ends, by the first of its names.
    pub fn sample(&self, scrape: &mut Scrape<'_>) {
        for (name, ends) in self.certificates() {
            scrape.certificate_expiry(&name, ends);
        }
    }

    /// The certificates in use: the first name of each, and when it ends.
    #[must_use]
    pub fn certificates(&self) -> Vec<(String, SystemTime)> {
        let live = self.live.load();
        let pairs = live.pairs.iter();
        pairs
            .map(|pair| (label(pair), pair.leaf.not_after))
            .collect()
    }

    /// The authorities in use, one place for each policy.
    fn anchors(&self) -> Vec<Option<Arc<Anchors>>> {
        let live = self.live.load();
        let anchors = live.policies.iter().map(|policy| policy.anchors.clone());
        anchors.collect()
    }

    /// Puts other certificates and authorities in the place of those in use.
    fn install(
        &self,
        pairs: Vec<Arc<Pair>>,
        anchors: Vec<Option<Arc<Anchors>>>,
    ) -> Result<(), TlsFault> {
        let live = self.live.load();
        let policies = live.policies.iter().zip(anchors);
        let policies = policies.map(|(policy, anchors)| {
            if policy.anchors.is_none() {
                return Ok(policy.showing(&pairs));
            }
            let config = new_config(live.lowest, &policy.rule, anchors.as_deref(), &pairs)?;
            Ok(Policy {
                anchors,
                config: Arc::new(config),
                ..policy.clone()
            })
        });
        let policies = policies.collect::<Result<_, TlsFault>>()?;
        self.live.store(Arc::new(Live {
            lowest: live.lowest,
            hosts: live.hosts.clone(),
            pairs,
            policies,
        }));
        Ok(())
    }
}

impl Prepared<'_> {
    /// Has new connections use it. Those that are open go on as they were made.
    pub fn install(self) {
        self.tls.live.store(self.live);
    }
}

impl Live {
    /// Reads what the settings name, or takes it from what was live `before` where it looks the same.
    fn load(
        settings: &TlsSettings,
        before: Option<&Self>,
        now: SystemTime,
    ) -> Result<Self, TlsFault> {
        let lowest = settings.min_version;
        let pair = |files: &CertificateFiles| {
            let mut old = before.iter().flat_map(|live| &live.pairs);
            match old.find(|pair| pair.files == *files) {
                Some(old) if old.stamp == Pair::stamp_of(files) => Ok(Arc::clone(old)),
                Some(old) => old.renew(now).map(Arc::new),
                None => Pair::load(files).map(Arc::new),
            }
        };
        let pairs = settings.certificates.iter().map(pair);
        let pairs: Vec<_> = pairs.collect::<Result<_, _>>()?;
        let mut policies: Vec<Policy> = Vec::new();
        for CertificateFiles { clients: rule, .. } in &settings.certificates {
            let id = rule.id();
            if policies.iter().any(|policy| policy.id == id) {
                continue;
            }
            let same = before.filter(|live| live.lowest == lowest);
            let old = same.and_then(|live| live.policies.iter().find(|old| old.id == id));
            policies.push(match old {
                Some(old) if old.anchors.is_none() => old.showing(&pairs),
                Some(_) | None => Policy::load(lowest, rule, &pairs)?,
            });
        }
        Ok(Self {
            lowest,
            hosts: settings.policies.clone(),
            pairs,
            policies,
        })
    }
}

impl Policy {
    fn load(lowest: TlsVersion, rule: &ClientRule, pairs: &[Arc<Pair>]) -> Result<Self, TlsFault> {
        let anchors = rule.ca.as_deref().map(Anchors::load).transpose()?;
        let anchors = anchors.map(Arc::new);
        let config = new_config(lowest, rule, anchors.as_deref(), pairs)?;
        Ok(Self {
            id: rule.id(),
            rule: rule.clone(),
            anchors,
            config: Arc::new(config),
        })
    }

    /// The same policy with other certificates: clients go on to resume their sessions.
    fn showing(&self, pairs: &[Arc<Pair>]) -> Self {
        let mut config = ServerConfig::clone(&self.config);
        config.cert_resolver = Arc::new(certificates(&self.rule, pairs));
        Self {
            config: Arc::new(config),
            ..self.clone()
        }
    }
}

/// What a certificate is called in metrics.
fn label(pair: &Pair) -> String {
    match pair.leaf.names.first() {
        Some(name) => name.to_string(),
        None => pair.files.cert.display().to_string(),
    }
}

/// The certificates under which connections follow a rule.
fn certificates(rule: &ClientRule, pairs: &[Arc<Pair>]) -> Certificates {
    let under = pairs.iter().filter(|pair| pair.files.clients == *rule);
    Certificates::new(under.map(|pair| &**pair))
}

fn versions(lowest: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    const FROM_12: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];
    const FROM_13: &[&SupportedProtocolVersion] = &[&TLS13];
    match lowest {
        TlsVersion::Tls12 => FROM_12,
        TlsVersion::Tls13 => FROM_13,
    }
}

/// What clients may negotiate: each version with its suites, the newest and the preferred first (NET-5).
#[must_use]
pub fn offered(lowest: TlsVersion) -> Vec<(ProtocolVersion, Vec<CipherSuite>)> {
    let suites = aws_lc_rs::default_provider().cipher_suites;
    let of = |version: &SupportedProtocolVersion| {
        let version = version.version;
        let suites = suites
            .iter()
            .filter(|suite| suite.version().version == version);
        (version, suites.map(SupportedCipherSuite::suite).collect())
    };
    versions(lowest).iter().map(|version| of(version)).collect()
}

fn new_config(
    lowest: TlsVersion,
    rule: &ClientRule,
    anchors: Option<&Anchors>,
    pairs: &[Arc<Pair>],
) -> Result<ServerConfig, TlsFault> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder =
        ServerConfig::builder_with_provider(provider).with_protocol_versions(versions(lowest))?;
    let builder = match anchors {
        None => builder.with_no_client_auth(),
        Some(anchors) => builder.with_client_cert_verifier(anchors.verifier(rule)?),
    };
    let mut config = builder.with_cert_resolver(Arc::new(certificates(rule, pairs)));
    config.alpn_protocols = ALPN.map(|name| name.as_bytes().to_vec()).to_vec();
    config.max_early_data_size = 0;
    if anchors.is_none() {
        config.session_storage = ServerSessionMemoryCache::new(SESSIONS_MAX);
        config.ticketer = aws_lc_rs::Ticketer::new()?;
        config.send_tls13_tickets = 1;
    } else {
        // A client certificate is verified at each handshake: a resumed session would outlive its end, and that of the trust in
        // its authority. And no session of a host without client certificates can be resumed here (NET-6).
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    Ok(config)
}

#[cfg(test)]
mod tests;
