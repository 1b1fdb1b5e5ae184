//! The gateway under attack, and the upstream behind it.

use std::{
    convert::Infallible,
    fs,
    io::{BufRead, BufReader},
    net::{IpAddr, SocketAddr},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// A gateway in a process of its own, ended with this.
pub(crate) struct Gateway {
    child: Child,
    pub(crate) process: Arc<Process>,
    _folder: TempDir,
}

/// What a gateway is told beside what all are.
#[derive(Default)]
pub(crate) struct Additions<'a> {
    /// Lines of `[server]`.
    pub(crate) server: &'a str,
    /// Tables.
    pub(crate) tables: &'a str,
}

/// The variable with the secret of an issuer, for additions that name it, and the secret.
pub(crate) const SECRET_NAME: &str = "ATTACK_SECRET";
pub(crate) const SECRET: &str = "a secret of a bench that is longer than thirty-two bytes";
/// The path of which the upstream reads nothing and says nothing.
pub(crate) const SINK: &str = "/sink";

/// How the process is reached and looked at.
pub(crate) struct Process {
    id: u32,
    address: SocketAddr,
    admin: SocketAddr,
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
}

impl Gateway {
    /// Starts one with these additions to its configuration. `before` becomes the gateway as its last act: the words of a command
    /// that runs another one.
    pub(crate) async fn start(before: &[&str], additions: &Additions<'_>) -> Self {
        let upstream = upstream().await;
        let folder = tempfile::tempdir().unwrap();
        for name in ["config", "certs"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let config = folder.path().join("config/gateway.toml");
        fs::write(&config, configuration(upstream, additions)).unwrap();
        let program = std::env::var("ATTACK_GATEWAY")
            .unwrap_or_else(|_| env!("CARGO_BIN_EXE_portcullis").into());
        let mut words = before.iter().copied().chain([&*program]);
        let mut child = Command::new(words.next().unwrap())
            .args(words)
            .args(["run", "--config"])
            .arg(&config)
            .env(SECRET_NAME, SECRET)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut listening = |listener: &str| {
            let address = lines.by_ref().find_map(|line| {
                let event: serde_json::Value = serde_json::from_str(&line.ok()?).ok()?;
                let fields = event.get("fields")?;
                (fields.get("listener")? == listener)
                    .then(|| fields.get("address")?.as_str()?.parse().ok())?
            });
            address.unwrap()
        };
        let (address, admin) = (listening("tls"), listening("admin"));
        std::thread::spawn(move || lines.for_each(drop));
        let certificate =
            CertificateDer::from_pem_file(folder.path().join("certs/dev.crt")).unwrap();
        let process = Arc::new(Process {
            id: child.id(),
            address,
            admin,
            http1: client(&certificate, b"http/1.1"),
            http2: client(&certificate, b"h2"),
        });
        Self {
            child,
            process,
            _folder: folder,
        }
    }
}

impl Process {
    /// Opens TLS from one of the loopback addresses.
    pub(crate) async fn connect(
        &self,
        from: [u8; 4],
        http2: bool,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(IpAddr::from(from), 0))?;
        let stream = socket.connect(self.address).await?;
        stream.set_nodelay(true)?;
        let config = if http2 { &self.http2 } else { &self.http1 };
        TlsConnector::from(Arc::clone(config))
            .connect(ServerName::try_from("localhost").unwrap(), stream)
            .await
    }

    /// What the gateway says of itself in this metric; nothing when it does not answer.
    pub(crate) async fn metric(&self, series: &str) -> Option<f64> {
        let exchange = async {
            let mut stream = TcpStream::connect(self.admin).await.ok()?;
            let request = b"GET /metrics HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n";
            stream.write_all(request).await.ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.ok()?;
            let value = answer.lines().find_map(|line| line.strip_prefix(series));
            value?.split_whitespace().next()?.parse().ok()
        };
        timeout(Duration::from_secs(5), exchange).await.ok()?
    }

    /// Resident memory in MiB.
    pub(crate) fn memory(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id)).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let kib: f64 = line
            .and_then(|line| line.split_whitespace().nth(1))
            .unwrap()
            .parse()
            .unwrap();
        kib / 1024.0
    }

    /// Time of a processor that it has used.
    pub(crate) fn processor_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.id)).unwrap();
        let fields = stat.rsplit_once(')').unwrap().1.split_whitespace();
        let ticks: u64 = fields
            .skip(11)
            .take(2)
            .map(|ticks| ticks.parse::<u64>().unwrap())
            .sum();
        Duration::from_millis(ticks * 10)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn configuration(upstream: SocketAddr, additions: &Additions<'_>) -> String {
    let Additions { server, tables } = additions;
    format!(
        r#"
        version = 1
        [server]
        listen = ["127.0.0.1:0"]
        admin_listen = "127.0.0.1:0"
        {server}
        [tls]
        development = true
        [rate_limit]
        exempt = ["127.0.0.0/8"]
        [log]
        access = false
        [[upstream]]
        name = "app"
        servers = ["http://{upstream}"]
        [[route]]
        name = "all"
        path_prefix = "/"
        upstream = "app"
        access = "public"
        {tables}
        "#
    )
}

fn client(certificate: &CertificateDer<'static>, protocol: &[u8]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    Arc::new(config)
}

/// Reads each request's body and answers with a kibibyte.
async fn upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let service = service_fn(|request: Request<Incoming>| async {
                    if request.uri().path() == SINK {
                        std::future::pending::<()>().await;
                    }
                    let _ = request.into_body().collect().await;
                    let body = Full::new(Bytes::from_static(&[b'x'; 1024]));
                    Ok::<_, Infallible>(Response::new(body))
                });
                let _ = http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    address
}
