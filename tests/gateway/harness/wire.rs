//! What an upstream is reached by: TCP, TLS with certificates of every kind, a Unix socket.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::WebPkiClientVerifier,
};
use tokio::net::{TcpListener, UnixListener};
use tokio_rustls::TlsAcceptor;

use super::client::Stream;

/// Who signs certificates.
pub(crate) struct Authority {
    /// Its own certificate.
    pub(crate) pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key.
pub(crate) struct Pair {
    pub(crate) cert_pem: String,
    pub(crate) key_pem: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // No two have one name: a certificate would seem to come from the other.
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let name = format!("authority {}", NUMBER.fetch_add(1, Ordering::Relaxed));
        params.distinguished_name.push(DnType::CommonName, name);
        Self {
            pem: params.self_signed(&key).unwrap().pem(),
            issuer: Issuer::new(params, key),
        }
    }

    /// A certificate for these names.
    pub(crate) fn sign(&self, names: &[&str]) -> Pair {
        self.pair(params(names))
    }

    /// One whose time was over long ago.
    pub(crate) fn sign_expired(&self, names: &[&str]) -> Pair {
        let mut params = params(names);
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2002, 1, 1);
        self.pair(params)
    }

    fn pair(&self, params: CertificateParams) -> Pair {
        let key = KeyPair::generate().unwrap();
        Pair {
            cert_pem: params.signed_by(&key, &self.issuer).unwrap().pem(),
            key_pem: key.serialize_pem(),
        }
    }
}

fn params(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    CertificateParams::new(names).unwrap()
}

impl Pair {
    /// A certificate that nobody but itself vouches for.
    pub(crate) fn self_signed(names: &[&str]) -> Self {
        let key = KeyPair::generate().unwrap();
        Self {
            cert_pem: params(names).self_signed(&key).unwrap().pem(),
            key_pem: key.serialize_pem(),
        }
    }
}

/// What stands between TCP and HTTP.
#[derive(Clone)]
pub(crate) enum Wire {
    Plain,
    Tls(Arc<ServerConfig>),
    Unix(PathBuf),
}

impl Wire {
    /// TLS with this certificate and these protocols on offer.
    pub(crate) fn tls(pair: &Pair, alpn: &[&[u8]]) -> Self {
        Self::tls_for(pair, alpn, None)
    }

    /// TLS for clients that this authority knows, where one is given.
    pub(crate) fn tls_for(pair: &Pair, alpn: &[&[u8]], clients: Option<&Authority>) -> Self {
        use rustls::pki_types::pem::PemObject;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                let root = CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap();
                roots.add(root).unwrap();
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let chain = CertificateDer::pem_slice_iter(pair.cert_pem.as_bytes());
        let chain = chain.collect::<Result<Vec<_>, _>>().unwrap();
        let key = PrivateKeyDer::from_pem_slice(pair.key_pem.as_bytes()).unwrap();
        let mut config = builder.with_single_cert(chain, key).unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Self::Tls(Arc::new(config))
    }

    pub(crate) async fn listen(self) -> Listener {
        match &self {
            Self::Plain | Self::Tls(_) => {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let address = listener.local_addr().unwrap();
                let scheme = match &self {
                    Self::Tls(_) => "https",
                    Self::Plain | Self::Unix(_) => "http",
                };
                let url = format!("{scheme}://{address}");
                Listener {
                    url,
                    address,
                    socket: Socket::Tcp(listener),
                    wire: self,
                }
            }
            Self::Unix(path) => Listener {
                url: format!("unix:{}", path.display()),
                address: SocketAddr::from(([0, 0, 0, 0], 0)),
                socket: Socket::Unix(UnixListener::bind(path).unwrap()),
                wire: self,
            },
        }
    }

    /// Does what comes before HTTP.
    pub(crate) async fn open(&self, raw: Box<dyn Stream>) -> io::Result<Box<dyn Stream>> {
        match self {
            Self::Plain | Self::Unix(_) => Ok(raw),
            Self::Tls(config) => {
                let stream = TlsAcceptor::from(Arc::clone(config)).accept(raw).await?;
                Ok(Box::new(stream))
            }
        }
    }
}

enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A listener for one kind of wire.
pub(crate) struct Listener {
    pub(crate) url: String,
    /// Nothing that could be connected to for a Unix socket.
    pub(crate) address: SocketAddr,
    pub(crate) wire: Wire,
    socket: Socket,
}

/// The socket below whatever is spoken on it.
pub(crate) struct Below(OwnedFd);

impl Listener {
    /// The next connection, before anything was said on it.
    pub(crate) async fn accept(&self) -> io::Result<(Box<dyn Stream>, Below)> {
        match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                let below = Below(stream.as_fd().try_clone_to_owned()?);
                Ok((Box::new(stream), below))
            }
            Socket::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let below = Below(stream.as_fd().try_clone_to_owned()?);
                Ok((Box::new(stream), below))
            }
        }
    }
}

impl Below {
    /// Has the connection end with a reset.
    pub(crate) fn reset_at_close(&self) -> io::Result<()> {
        socket2::SockRef::from(&self.0).set_linger(Some(Duration::ZERO))
    }
}
