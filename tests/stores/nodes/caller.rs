//! A client as browsers and libraries are: it keeps its connection, and asks once more, on another, where a kept one ended
//! before an answer began and asking twice does no harm (RFC 9112 §9.3.1).

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
};

use rustls::{
    ClientConfig,
    pki_types::{CertificateDer, pem::PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::harness::{
    Answer, Broken, H2, Raw,
    certs::{Authority, secure},
    client::{full, over},
    keys::{self, bearer},
    within,
};

/// A request without an answer.
#[derive(Debug)]
pub(crate) enum Lost {
    /// There was no connection, or it ended, from this address, while TLS was agreed on.
    Unconnected(
        Option<SocketAddr>,
        #[expect(dead_code, reason = "shown by `Debug`")] std::io::Error,
    ),
    /// The connection from this address ended, or brought nonsense.
    Unanswered(SocketAddr, Broken),
}

pub(crate) struct Caller {
    address: SocketAddr,
    kept: Option<(Raw, SocketAddr)>,
    /// Requests that were sent again.
    pub(crate) repeated: usize,
}

impl Lost {
    /// The client's end of the connection that it was lost on.
    pub(crate) fn local(&self) -> Option<SocketAddr> {
        match self {
            Self::Unconnected(local, _) => *local,
            Self::Unanswered(local, _) => Some(*local),
        }
    }
}

impl Caller {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            kept: None,
            repeated: 0,
        }
    }

    /// What every caller trusts: the sites' first certificate, and what [`authority`] signs.
    pub(crate) fn trust() -> Arc<ClientConfig> {
        static TRUST: OnceLock<Arc<ClientConfig>> = OnceLock::new();
        let make = || {
            let mut roots = authority().roots();
            let first = keys::keys().certificate_pem.as_bytes();
            roots
                .add(CertificateDer::from_pem_slice(first).unwrap())
                .unwrap();
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let config = ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
            Arc::new(config)
        };
        Arc::clone(TRUST.get_or_init(make))
    }

    /// Begins anew at the next request.
    pub(crate) fn leave(&mut self) {
        self.kept = None;
    }

    pub(crate) async fn ask(&mut self, bytes: &str) -> Result<Answer, Lost> {
        let is_safe = bytes.starts_with("GET ");
        if let Some((raw, local)) = self.kept.take() {
            match self.exchange(raw, local, bytes).await {
                Err(Lost::Unanswered(_, Broken::Closed)) if is_safe => self.repeated += 1,
                ended => return ended,
            }
        }
        let (raw, local) = connect(self.address).await?;
        self.exchange(raw, local, bytes).await
    }

    async fn exchange(
        &mut self,
        mut raw: Raw,
        local: SocketAddr,
        bytes: &str,
    ) -> Result<Answer, Lost> {
        let lost = |broken| Lost::Unanswered(local, broken);
        raw.send(bytes).await;
        let answer = raw.try_answer().await.map_err(lost)?;
        if answer.header("connection") != Some("close") {
            self.kept = Some((raw, local));
        }
        Ok(answer)
    }
}

async fn connect(address: SocketAddr) -> Result<(Raw, SocketAddr), Lost> {
    let (stream, local) = agree(address, Caller::trust()).await?;
    Ok((over(stream), local))
}

/// A TLS connection, and the client's end of it.
async fn agree(
    address: SocketAddr,
    client: Arc<ClientConfig>,
) -> Result<(TlsStream<TcpStream>, SocketAddr), Lost> {
    within("a connection or its refusal", async move {
        let unconnected = |error| Lost::Unconnected(None, error);
        let socket = TcpStream::connect(address).await.map_err(unconnected)?;
        let local = socket.local_addr().map_err(unconnected)?;
        let unconnected = |error| Lost::Unconnected(Some(local), error);
        socket.set_nodelay(true).map_err(unconnected)?;
        let stream = secure(socket, client, "localhost").await;
        Ok((stream.map_err(unconnected)?, local))
    })
    .await
}

/// A client of HTTP/2, which asks for nothing but what may be asked for twice.
pub(crate) struct Multiplexed {
    address: SocketAddr,
    kept: Option<(H2, SocketAddr)>,
    /// Requests that were sent again.
    pub(crate) repeated: usize,
}

impl Multiplexed {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            kept: None,
            repeated: 0,
        }
    }

    pub(crate) async fn get(&mut self, target: &str, token: &str) -> Result<Answer, Lost> {
        if let Some((h2, local)) = self.kept.take() {
            if let Ok(answer) = self.exchange(h2, local, target, token).await {
                return Ok(answer);
            }
            // The node has said that it leaves, or has died.
            self.repeated += 1;
        }
        let mut client = (*Caller::trust()).clone();
        client.alpn_protocols = vec![b"h2".to_vec()];
        let (stream, local) = agree(self.address, Arc::new(client)).await?;
        self.exchange(H2::over(stream).await, local, target, token)
            .await
    }

    async fn exchange(
        &mut self,
        mut h2: H2,
        local: SocketAddr,
        target: &str,
        token: &str,
    ) -> Result<Answer, Lost> {
        let request = http::Request::get(format!("https://localhost{target}"))
            .header("authorization", bearer(token))
            .body(full(""))
            .unwrap();
        let lost = |broken| Lost::Unanswered(local, broken);
        let answer = h2.send(request).await.map_err(lost)?;
        self.kept = Some((h2, local));
        Ok(answer)
    }
}

/// Who signs the certificates that nodes are given while they run.
pub(crate) fn authority() -> &'static Authority {
    static AUTHORITY: OnceLock<Authority> = OnceLock::new();
    AUTHORITY.get_or_init(Authority::new)
}
