//! A provider of keys that does what it is told, however badly.

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::Uri;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
    sync::Notify,
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

/// What it does when it is asked for the keys.
#[derive(Clone)]
pub(super) enum Reply {
    /// Ends the connection.
    Close,
    /// A good answer, byte by byte.
    Drip(String),
    /// A body without an end.
    Endless,
    /// Nothing.
    Hang,
    /// Waits to be told, then answers.
    Held(Arc<Notify>, Box<Reply>),
    /// These bytes.
    Raw(String),
}

impl Reply {
    pub(super) fn ok(body: &str) -> Self {
        Self::with(200, body)
    }

    pub(super) fn with(status: u16, body: &str) -> Self {
        let length = body.len();
        Self::Raw(format!(
            "HTTP/1.1 {status} Scripted\r\ncontent-length: {length}\r\ncache-control: max-age=600\r\n\r\n{body}"
        ))
    }

    pub(super) fn raw(text: &str) -> Self {
        Self::Raw(text.to_owned())
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Close => f.write_str("Close"),
            Self::Drip(_) => f.write_str("Drip"),
            Self::Endless => f.write_str("Endless"),
            Self::Hang => f.write_str("Hang"),
            Self::Held(..) => f.write_str("Held"),
            Self::Raw(text) => f.write_str(&text.chars().take(90).collect::<String>()),
        }
    }
}

struct Script {
    reply: Mutex<Reply>,
    /// The discovery document.
    description: Mutex<String>,
    asked: AtomicUsize,
    /// The last request for anything but the document, head and body.
    request: Mutex<String>,
}

/// A listening provider, until it is dropped.
pub(super) struct Provider {
    authority: String,
    scheme: &'static str,
    script: Arc<Script>,
    task: JoinHandle<()>,
}

impl Provider {
    pub(super) async fn start(reply: Reply) -> Self {
        Self::serve(reply, None).await
    }

    /// One with a certificate for this name, which is returned.
    pub(super) async fn with_tls(name: &str, reply: Reply) -> (Self, CertificateDer<'static>) {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec![name.to_owned()])
            .unwrap()
            .self_signed(&key)
            .unwrap();
        let private = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private)
            .unwrap();
        let mut started = Self::serve(reply, Some(TlsAcceptor::from(Arc::new(tls)))).await;
        started.authority = started.authority.replace("127.0.0.1", name);
        started.scheme = "https";
        (started, certificate.der().clone())
    }

    async fn serve(reply: Reply, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let script = Arc::new(Script {
            reply: Mutex::new(reply),
            description: Mutex::default(),
            asked: AtomicUsize::new(0),
            request: Mutex::default(),
        });
        let shared = Arc::clone(&script);
        let task = tokio::spawn(async move {
            let mut open = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (script, tls) = (Arc::clone(&shared), tls.clone());
                open.spawn(async move {
                    match tls {
                        None => exchange(stream, &script).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                exchange(stream, &script).await;
                            }
                        }
                    }
                });
            }
        });
        Self {
            authority: address.to_string(),
            scheme: "http",
            script,
            task,
        }
    }

    /// Where its keys are.
    pub(super) fn uri(&self) -> Uri {
        let text = format!("{}://{}/keys", self.scheme, self.authority);
        text.parse().unwrap()
    }

    /// Where its discovery document is.
    pub(super) fn document(&self) -> Uri {
        let text = format!("{}://{}/.well-known/it", self.scheme, self.authority);
        text.parse().unwrap()
    }

    /// What it answers from now on.
    pub(super) fn answer(&self, reply: Reply) {
        *self.script.reply.lock().unwrap() = reply;
    }

    /// What its discovery document says from now on.
    pub(super) fn describe(&self, document: &str) {
        *self.script.description.lock().unwrap() = document.to_owned();
    }

    /// Answers so once it is told.
    pub(super) fn hold(&self, reply: Reply) -> Arc<Notify> {
        let go_on = Arc::new(Notify::new());
        self.answer(Reply::Held(Arc::clone(&go_on), Box::new(reply)));
        go_on
    }

    /// What it was asked last, head and body.
    pub(super) fn request(&self) -> String {
        self.script.request.lock().unwrap().clone()
    }

    /// How often it was asked for the keys.
    pub(super) fn asked(&self) -> usize {
        self.script.asked.load(Ordering::SeqCst)
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One request and its answer, then the end of the connection.
async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, script: &Script) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if !matches!(stream.read(&mut byte).await, Ok(1)) {
            return;
        }
        head.extend(byte);
    }
    if head.starts_with(b"GET /.well-known/") {
        let document = script.description.lock().unwrap().clone();
        let length = document.len();
        let text = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{document}");
        let _ = stream.write_all(text.as_bytes()).await;
        let _ = stream.shutdown().await;
        return;
    }
    let mut request = String::from_utf8(head).unwrap();
    let length = request
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    if stream.read_exact(&mut body).await.is_err() {
        return;
    }
    request.push_str(&String::from_utf8(body).unwrap());
    *script.request.lock().unwrap() = request;
    script.asked.fetch_add(1, Ordering::SeqCst);
    let mut reply = script.reply.lock().unwrap().clone();
    if let Reply::Held(go_on, then) = reply {
        go_on.notified().await;
        reply = *then;
    }
    // Whoever reads may have gone away, as it should.
    let _ = send(&mut stream, reply).await;
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), reply: Reply) -> std::io::Result<()> {
    match reply {
        Reply::Close | Reply::Held(..) => {}
        Reply::Drip(body) => {
            let length = body.len();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
            for byte in head.bytes().chain(body.bytes()) {
                stream.write_all(&[byte]).await?;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Reply::Endless => {
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
            loop {
                stream.write_all(&[b' '; 4096]).await?;
            }
        }
        Reply::Hang => std::future::pending().await,
        Reply::Raw(text) => stream.write_all(text.as_bytes()).await?,
    }
    stream.shutdown().await
}
