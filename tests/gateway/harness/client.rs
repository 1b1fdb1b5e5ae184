//! Clients: one that writes any bytes over TLS, and one for HTTP/2.

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{body::Incoming, client::conn::http2::SendRequest, ext::Protocol, upgrade::Upgraded};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    Gateway, PATIENCE,
    http1::{Answer, Broken, Head, read_answer},
    keys, within,
};

/// How long a connection that is to be closed may stay open.
const CLOSING: Duration = Duration::from_secs(10);

pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// An HTTP/1.1 connection on which a test may write any bytes.
pub(crate) struct Raw {
    io: BufReader<Box<dyn Stream>>,
}

/// Opens TLS for a host with these protocols on offer.
pub(crate) async fn tls(
    address: SocketAddr,
    host: &str,
    alpn: &[&[u8]],
) -> std::io::Result<TlsStream<TcpStream>> {
    tls_after(b"", address, host, alpn).await
}

/// Opens TLS as [`tls`] does, after these bytes.
pub(crate) async fn tls_after(
    preamble: &[u8],
    address: SocketAddr,
    host: &str,
    alpn: &[&[u8]],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    socket.write_all(preamble).await?;
    let name = ServerName::try_from(host.to_owned()).unwrap();
    TlsConnector::from(keys::tls_client(alpn))
        .connect(name, socket)
        .await
}

/// HTTP/1.1 over a stream that is there already.
pub(crate) fn over(stream: impl Stream + 'static) -> Raw {
    Raw {
        io: BufReader::new(Box::new(stream)),
    }
}

impl Raw {
    /// Opens a TLS connection that speaks HTTP/1.1.
    #[track_caller]
    pub(crate) fn connect(gateway: &Gateway) -> impl Future<Output = Self> {
        let address = gateway.tls;
        within("a TLS connection", async move {
            let stream = tls(address, "localhost", &[b"http/1.1"]).await.unwrap();
            Self {
                io: BufReader::new(Box::new(stream)),
            }
        })
    }

    /// Opens a TLS connection after these bytes; an error when the gateway closes it.
    #[track_caller]
    pub(crate) fn after(
        preamble: &[u8],
        gateway: &Gateway,
    ) -> impl Future<Output = std::io::Result<Self>> {
        let address = gateway.tls;
        within("a TLS connection or its end", async move {
            let stream = tls_after(preamble, address, "localhost", &[b"http/1.1"]).await?;
            Ok(Self {
                io: BufReader::new(Box::new(stream)),
            })
        })
    }

    /// Opens a connection without TLS.
    #[track_caller]
    pub(crate) fn plain(address: SocketAddr) -> impl Future<Output = Self> {
        within("a connection", async move {
            let stream = TcpStream::connect(address).await.unwrap();
            Self {
                io: BufReader::new(Box::new(stream)),
            }
        })
    }

    /// Writes. A gateway that has closed already is no fault: the answer tells.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.try_send(bytes).await;
    }

    /// Writes, and says whether the connection took it.
    pub(crate) async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        within("a write", async {
            self.io.write_all(bytes.as_ref()).await?;
            self.io.flush().await
        })
        .await
    }

    /// Reads one answer that must be whole.
    #[track_caller]
    pub(crate) fn answer(&mut self) -> impl Future<Output = Answer> {
        let place = std::panic::Location::caller();
        async move {
            match self.try_answer().await {
                Ok(answer) => answer,
                Err(broken) => panic!("{place}: {broken:?}"),
            }
        }
    }

    /// Reads one answer.
    pub(crate) async fn try_answer(&mut self) -> Result<Answer, Broken> {
        within("an answer", read_answer(&mut self.io, false)).await
    }

    /// Says that nothing more will be sent.
    pub(crate) async fn finish(&mut self) {
        let _ = within("the end of the writing side", self.io.shutdown()).await;
    }

    /// Reads one answer to a HEAD request.
    pub(crate) async fn answer_to_head(&mut self) -> Answer {
        within("an answer", read_answer(&mut self.io, true))
            .await
            .unwrap()
    }

    /// Reads the head of an answer alone.
    pub(crate) async fn head(&mut self) -> Head {
        within("a head", super::http1::read_head(&mut self.io))
            .await
            .unwrap()
            .unwrap()
    }

    /// Reads some bytes; none at the end of the connection.
    pub(crate) async fn some(&mut self) -> Vec<u8> {
        let mut bytes = vec![0; 1 << 16];
        let count = within("bytes", self.io.read(&mut bytes)).await.unwrap_or(0);
        bytes.truncate(count);
        bytes
    }

    /// Everything until the gateway closes, which it must.
    #[track_caller]
    pub(crate) fn rest(&mut self) -> impl Future<Output = Vec<u8>> {
        let place = std::panic::Location::caller();
        async move {
            match self.end().await {
                Some(bytes) => bytes,
                None => panic!("{place}: the gateway did not close the connection"),
            }
        }
    }

    /// Everything until the gateway closes; `None` when it does not.
    pub(crate) async fn end(&mut self) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        let end = tokio::time::timeout(CLOSING, self.io.read_to_end(&mut bytes)).await;
        // An end without close_notify, or a reset, is an end.
        end.is_ok().then_some(bytes)
    }

    /// Sends a request and reads its answer.
    #[track_caller]
    pub(crate) fn exchange(&mut self, bytes: impl AsRef<[u8]>) -> impl Future<Output = Answer> {
        let place = std::panic::Location::caller();
        async move {
            self.send(bytes).await;
            match self.try_answer().await {
                Ok(answer) => answer,
                Err(broken) => panic!("{place}: {broken:?}"),
            }
        }
    }
}

/// A well-formed request. `Host` is added unless given, and so is a `Content-Length` where there is a body.
pub(crate) fn request(method: &str, target: &str, fields: &[(&str, &str)], body: &str) -> String {
    let has = |name: &str| {
        fields
            .iter()
            .any(|(field, _)| field.eq_ignore_ascii_case(name))
    };
    let mut text = format!("{method} {target} HTTP/1.1\r\n");
    if !has("host") {
        text.push_str("Host: localhost\r\n");
    }
    if !body.is_empty() && !has("content-length") && !has("transfer-encoding") {
        text.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    for (name, value) in fields {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    format!("{text}\r\n{body}")
}

/// One GET on a connection of its own.
#[track_caller]
pub(crate) fn get(
    gateway: &Gateway,
    target: &str,
    fields: &[(&str, &str)],
) -> impl Future<Output = Answer> {
    let place = std::panic::Location::caller();
    let bytes = request("GET", target, fields, "");
    async move {
        let mut raw = Raw::connect(gateway).await;
        raw.send(bytes).await;
        match raw.try_answer().await {
            Ok(answer) => answer,
            Err(broken) => panic!("{place}: {broken:?}"),
        }
    }
}

fn fields(headers: &http::HeaderMap) -> Vec<(String, String)> {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let fields = headers.iter();
    let fields = fields.map(|(name, value)| (name.to_string(), text(value)));
    fields.collect()
}

pub(crate) type Body = BoxBody<Bytes, Infallible>;

/// A body that is known already.
pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed()
}

/// An HTTP/2 connection.
pub(crate) struct H2 {
    sender: SendRequest<Body>,
    driver: tokio::task::JoinHandle<()>,
}

impl Drop for H2 {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl H2 {
    #[track_caller]
    pub(crate) fn connect(gateway: &Gateway) -> impl Future<Output = Self> {
        let address = gateway.tls;
        within("an HTTP/2 connection", async move {
            let stream = tls(address, "localhost", &[b"h2"]).await.unwrap();
            Self::over(stream).await
        })
    }

    /// Speaks HTTP/2 on a TLS connection that has agreed to it.
    pub(crate) async fn over(stream: TlsStream<TcpStream>) -> Self {
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .handshake(TokioIo::new(stream))
            .await
            .unwrap();
        let driver = tokio::spawn(async move {
            let _ = connection.await;
        });
        Self { sender, driver }
    }

    /// Waits for the end of the connection.
    pub(crate) async fn ended(&mut self) {
        let _ = (&mut self.driver).await;
    }

    /// Sends a request and gives its answer's head with the body yet to come. Dropped before, the stream is reset.
    pub(crate) fn begin(
        &mut self,
        request: http::Request<Body>,
    ) -> impl Future<Output = hyper::Result<http::Response<Incoming>>> + use<> {
        self.sender.send_request(request)
    }

    /// Sends a request; the error of the stream or connection is [`Broken::Cut`].
    pub(crate) async fn send(&mut self, request: http::Request<Body>) -> Result<Answer, Broken> {
        let cut = |error: hyper::Error| Broken::Cut(format!("{error:?}"));
        let exchange = async {
            self.sender.ready().await.map_err(cut)?;
            let answer = self.sender.send_request(request).await.map_err(cut)?;
            let (parts, body) = answer.into_parts();
            let body = body.collect().await.map_err(cut)?;
            let trailers = body.trailers().map(fields).unwrap_or_default();
            let body = body.to_bytes().to_vec();
            Ok(Answer {
                status: parts.status.as_u16(),
                head: Head {
                    start: String::new(),
                    fields: fields(&parts.headers),
                    raw: Vec::new(),
                },
                body,
                trailers,
                interim: Vec::new(),
            })
        };
        tokio::time::timeout(PATIENCE, exchange)
            .await
            .expect("an answer over HTTP/2")
    }

    /// Asks for a tunnel to a target of the host `localhost` (RFC 8441). The stream is there where the answer is `200`.
    #[track_caller]
    pub(crate) fn connect_to(
        &mut self,
        protocol: &'static str,
        target: &str,
        fields: &[(&str, &str)],
    ) -> impl Future<Output = (http::response::Parts, Option<TokioIo<Upgraded>>)> {
        let mut builder = http::Request::builder()
            .method("CONNECT")
            .uri(format!("https://localhost{target}"))
            .extension(Protocol::from_static(protocol));
        for (name, value) in fields {
            builder = builder.header(*name, *value);
        }
        let request = builder.body(full("")).unwrap();
        within("an answer to CONNECT", async move {
            self.sender.ready().await.unwrap();
            let mut answer = self.sender.send_request(request).await.unwrap();
            let stream = match answer.status().as_u16() {
                200 => Some(TokioIo::new(hyper::upgrade::on(&mut answer).await.unwrap())),
                _ => None,
            };
            (answer.into_parts().0, stream)
        })
    }

    /// One request without a body, for the host `localhost`.
    #[track_caller]
    pub(crate) fn request(
        &mut self,
        method: &str,
        target: &str,
        fields: &[(&str, &str)],
    ) -> impl Future<Output = Answer> {
        let place = std::panic::Location::caller();
        let mut builder = http::Request::builder()
            .method(method)
            .uri(format!("https://localhost{target}"));
        for (name, value) in fields {
            builder = builder.header(*name, *value);
        }
        let request = builder.body(full("")).unwrap();
        async move {
            match self.send(request).await {
                Ok(answer) => answer,
                Err(broken) => panic!("{place}: {broken:?}"),
            }
        }
    }

    #[track_caller]
    pub(crate) fn get(
        &mut self,
        target: &str,
        fields: &[(&str, &str)],
    ) -> impl Future<Output = Answer> {
        self.request("GET", target, fields)
    }
}
