//! A certificate authority of the test's own, what it signs, and clients that trust it alone.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    ClientConfig, RootCertStore, SupportedProtocolVersion,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{Gateway, Site, within};

/// Versions that a client may speak.
pub(crate) const ANY: &[&SupportedProtocolVersion] =
    &[&rustls::version::TLS13, &rustls::version::TLS12];

pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: rcgen::Certificate,
}

/// A certificate and its key.
#[derive(Clone)]
pub(crate) struct Signed {
    pub(crate) cert: String,
    pub(crate) key: String,
    pub(crate) der: CertificateDer<'static>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self {
            issuer: Issuer::new(params, key),
            certificate,
        }
    }

    /// Its own certificate.
    pub(crate) fn pem(&self) -> String {
        self.certificate.pem()
    }

    pub(crate) fn sign(&self, names: &[&str]) -> Signed {
        self.sign_with(names, |_| {})
    }

    pub(crate) fn sign_with(
        &self,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Signed {
        self.sign_key(names, KeyPair::generate().unwrap(), change)
    }

    /// With an RSA key.
    pub(crate) fn sign_rsa(&self, names: &[&str]) -> Signed {
        let key = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
        self.sign_key(names, key, |_| {})
    }

    fn sign_key(
        &self,
        names: &[&str],
        key: KeyPair,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Signed {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Signed {
            cert: certificate.pem(),
            key: key.serialize_pem(),
            der: certificate.der().clone(),
        }
    }

    /// What a client believes that trusts this authority.
    pub(crate) fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.der().clone()).unwrap();
        roots
    }

    /// A client that trusts this authority, with these versions and protocols on offer, and a certificate of its own or none.
    pub(crate) fn client(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        alpn: &[&[u8]],
        own: Option<&Signed>,
    ) -> Arc<ClientConfig> {
        let roots = self.roots();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some(own) => builder
                .with_client_auth_cert(
                    vec![own.der.clone()],
                    PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap(),
                )
                .unwrap(),
        };
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Arc::new(config)
    }
}

impl Site {
    /// Writes a pair to `certs/NAME.crt` and `certs/NAME.key`, each in one step, the certificate first.
    pub(crate) fn put_pair(&self, name: &str, pair: &Signed) {
        self.put(&format!("certs/{name}.crt"), &pair.cert);
        self.put(&format!("certs/{name}.key"), &pair.key);
    }

    /// Writes a file that only its owner may read in one step, in the place of what was there.
    pub(crate) fn put(&self, name: &str, text: &str) {
        let new = format!("{name}.new");
        self.secret_file(&new, text);
        std::fs::rename(self.path().join(new), self.path().join(name)).unwrap();
    }
}

/// A handshake with the gateway for a host.
#[track_caller]
pub(crate) fn handshake(
    gateway: &Gateway,
    client: &Arc<ClientConfig>,
    host: &str,
) -> impl Future<Output = std::io::Result<TlsStream<TcpStream>>> {
    let (address, client, host) = (gateway.tls, Arc::clone(client), host.to_owned());
    within("a handshake", async move {
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        secure(socket, client, &host).await
    })
}

/// A handshake over any stream.
pub(crate) async fn secure<S: AsyncRead + AsyncWrite + Unpin>(
    socket: S,
    client: Arc<ClientConfig>,
    host: &str,
) -> std::io::Result<TlsStream<S>> {
    let name = ServerName::try_from(host.to_owned()).unwrap();
    TlsConnector::from(client).connect(name, socket).await
}

/// The certificate that the gateway showed.
pub(crate) fn shown<S>(stream: &TlsStream<S>) -> CertificateDer<'static> {
    let chain = stream.get_ref().1.peer_certificates().unwrap();
    chain[0].clone().into_owned()
}
