//! TLS towards upstreams: whom the gateway believes there, and who it says it is.
//!
//! A configuration is made once for an upstream and shared by all its connections. Verification is never off by accident:
//! what cannot be read is an error, and so is a system without roots (NET-7, UP-5).

use std::{
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use rustls::{
    ClientConfig, ConfigBuilder, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WantsClientCert,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem, pem::PemObject};

use super::settings::TlsSettings;

/// The roots of the system, read when an upstream first needs them.
#[derive(Debug, Default)]
pub struct SystemRoots(OnceLock<Arc<RootCertStore>>);

/// How one server is spoken to by TLS.
#[derive(Debug)]
pub(super) struct Tls {
    /// What the upstream's servers share.
    pub(super) config: Arc<ClientConfig>,
    /// The name that this one must prove, and that SNI tells.
    pub(super) name: ServerName<'static>,
}

/// Why TLS to an upstream cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsFault {
    /// A file without a certificate.
    #[error("{path} holds no certificate")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A file that cannot be read as PEM.
    #[error("{path} cannot be read")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// A key that does not belong to its certificate, or is of no use.
    #[error("{key} does not go with its certificate")]
    Pair {
        /// The key's file.
        key: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// A certificate that cannot be a root.
    #[error("{path} holds a certificate that cannot be a root")]
    Root {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// A system without root certificates.
    #[error("this system has no root certificates; install them, or name a file in `tls.ca`")]
    NoRoots,
    /// A name that no certificate could bear.
    #[error("`{name}` is neither a DNS name nor an address; give one in `tls.server_name`")]
    ServerName {
        /// The name.
        name: Box<str>,
    },
    /// A TLS library that refuses the policy.
    #[error("the TLS policy cannot be set up")]
    Policy(#[from] rustls::Error),
}

/// Lets every certificate pass. What is signed with its key is still verified.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl SystemRoots {
    /// Reads them, once.
    fn get(&self) -> Result<Arc<RootCertStore>, TlsFault> {
        let roots = self.0.get_or_init(|| {
            let found = rustls_native_certs::load_native_certs();
            for error in &found.errors {
                tracing::warn!(%error, "a root certificate of the system cannot be read");
            }
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(found.certs);
            Arc::new(roots)
        });
        if roots.is_empty() {
            return Err(TlsFault::NoRoots);
        }
        Ok(Arc::clone(roots))
    }
}

/// Makes the TLS configuration of an upstream or another server, which offers the protocols `alpn`.
///
/// # Errors
/// The first file that is missing, empty, unreadable or of no use, and a system without roots where they are needed.
pub fn client_config(
    settings: &TlsSettings,
    system: &SystemRoots,
    alpn: &[&[u8]],
) -> Result<Arc<ClientConfig>, TlsFault> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let builder = if settings.danger_accept_any_certificate {
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
    } else {
        builder.with_root_certificates(match &settings.ca {
            Some(path) => Arc::new(roots(path)?),
            None => system.get()?,
        })
    };
    let mut config = client_certificate(builder, settings)?;
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

impl Tls {
    /// Says whom to expect at `host`.
    ///
    /// # Errors
    /// [`TlsFault::ServerName`] where that is no name.
    pub(super) fn new(
        config: &Arc<ClientConfig>,
        settings: &TlsSettings,
        host: &str,
    ) -> Result<Self, TlsFault> {
        let name = settings.server_name.as_deref().unwrap_or(host);
        let parsed = ServerName::try_from(name.to_owned());
        let name = parsed.map_err(|_| TlsFault::ServerName { name: name.into() })?;
        Ok(Self {
            config: Arc::clone(config),
            name,
        })
    }
}

fn client_certificate(
    builder: ConfigBuilder<ClientConfig, WantsClientCert>,
    settings: &TlsSettings,
) -> Result<ClientConfig, TlsFault> {
    let Some(files) = &settings.client else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = certificates(&files.cert)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|source| TlsFault::File {
        path: files.key.clone(),
        source,
    })?;
    builder
        .with_client_auth_cert(chain, key)
        .map_err(|source| TlsFault::Pair {
            key: files.key.clone(),
            source,
        })
}

fn roots(path: &Path) -> Result<RootCertStore, TlsFault> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|source| TlsFault::Root {
            path: path.to_owned(),
            source,
        })?;
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsFault> {
    let unreadable = |source| TlsFault::File {
        path: path.to_owned(),
        source,
    };
    let certificates = CertificateDer::pem_file_iter(path).map_err(unreadable)?;
    let certificates = certificates
        .collect::<Result<Vec<_>, _>>()
        .map_err(unreadable)?;
    if certificates.is_empty() {
        return Err(TlsFault::Empty {
            path: path.to_owned(),
        });
    }
    Ok(certificates)
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
