//! Certificates and the TLS policy of the listeners.
//!
//! TLS 1.3 and TLS 1.2 with forward-secret AEAD suites: what aws-lc offers through rustls, and nothing else (NET-5).
//! Early data stays off, for it can be replayed (NET-8).

use std::{path::PathBuf, sync::Arc};

use rustls::{
    ServerConfig,
    client::verify_server_name,
    crypto::aws_lc_rs,
    server::{ClientHello, ParsedCertificate, ResolvesServerCert, ServerSessionMemoryCache},
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};

use super::settings::{CertificateFiles, TlsSettings, TlsVersion};

/// Sessions kept for clients that resume without tickets.
const SESSIONS_MAX: usize = 4096;

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsFault {
    /// A chain that cannot be read.
    #[error("cannot read the certificate chain {path}")]
    Chain {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rustls_pki_types::pem::Error,
    },
    /// A file without a certificate.
    #[error("no certificate in {path}")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A key that cannot be read.
    #[error("cannot read the private key {path}")]
    Key {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rustls_pki_types::pem::Error,
    },
    /// A key that does not belong to its certificate, or is of no use.
    #[error("certificate {cert} and key {key} do not go together")]
    Pair {
        /// The chain's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// A TLS library that refuses the policy.
    #[error("the TLS policy cannot be set up")]
    Policy(#[from] rustls::Error),
}

/// The certificates, chosen by the name that a client asks for.
#[derive(Debug)]
struct Certificates(Vec<Arc<CertifiedKey>>);

/// Makes the TLS configuration of the listeners.
///
/// # Errors
/// The first pair of files that is missing, empty, unreadable, or does not go together (NET-7).
pub fn server_config(settings: &TlsSettings) -> Result<Arc<ServerConfig>, TlsFault> {
    let certificates = settings
        .certificates
        .iter()
        .map(load)
        .collect::<Result<Vec<_>, _>>()?;
    let versions: &[&rustls::SupportedProtocolVersion] = match settings.min_version {
        TlsVersion::Tls12 => &[&TLS13, &TLS12],
        TlsVersion::Tls13 => &[&TLS13],
    };
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Certificates(certificates)));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.session_storage = ServerSessionMemoryCache::new(SESSIONS_MAX);
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    config.send_tls13_tickets = 1;
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

/// Reads one pair and checks that it goes together.
fn load(files: &CertificateFiles) -> Result<Arc<CertifiedKey>, TlsFault> {
    let unreadable = |source| TlsFault::Chain {
        path: files.cert.clone(),
        source,
    };
    let chain = CertificateDer::pem_file_iter(&files.cert)
        .map_err(unreadable)?
        .collect::<Result<Vec<_>, _>>()
        .map_err(|source| TlsFault::Chain {
            path: files.cert.clone(),
            source,
        })?;
    if chain.is_empty() {
        return Err(TlsFault::Empty {
            path: files.cert.clone(),
        });
    }
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|source| TlsFault::Key {
        path: files.key.clone(),
        source,
    })?;
    CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())
        .map(Arc::new)
        .map_err(|source| TlsFault::Pair {
            cert: files.cert.clone(),
            key: files.key.clone(),
            source,
        })
}

impl ResolvesServerCert for Certificates {
    /// The first certificate that is valid for the name asked for; else the first of all, so that the client itself sees
    /// whom it reached and refuses.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if let (true, Some(name)) = (
            self.0.len() > 1,
            hello
                .server_name()
                .and_then(|name| ServerName::try_from(name).ok()),
        ) {
            let is_for = |key: &&Arc<CertifiedKey>| {
                let leaf = key
                    .end_entity_cert()
                    .ok()
                    .and_then(|leaf| ParsedCertificate::try_from(leaf).ok());
                leaf.is_some_and(|leaf| verify_server_name(&leaf, &name).is_ok())
            };
            if let Some(key) = self.0.iter().find(is_for) {
                return Some(Arc::clone(key));
            }
        }
        self.0.first().cloned()
    }
}
