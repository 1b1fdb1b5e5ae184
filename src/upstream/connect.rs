//! An open connection to a server, whatever its transport: TCP, TLS or a Unix socket.

use std::{
    fmt,
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
    time::{Instant, sleep, timeout_at},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    HTTP2, Server,
    resolve::Target,
    settings::{Endpoint, Protocol},
    tls::Tls,
};
use crate::{keepalive, policy::Rejection, socket::Socket};

/// How long one address of several may say nothing before the next one is tried, too.
const STAGGER: Duration = Duration::from_millis(250);

/// A connection on which HTTP may be spoken.
#[derive(Debug)]
pub(super) enum Stream {
    /// Plain TCP.
    Tcp(Socket<TcpStream>),
    /// TLS over TCP, the server verified.
    Tls(Box<TlsStream<Socket<TcpStream>>>),
    /// A Unix socket.
    Unix(Socket<UnixStream>),
}

/// Why there is no connection. Not a byte of any request was sent.
#[derive(Debug)]
pub(super) enum ConnectFault {
    /// No name, no route, nobody there, or not in time.
    Unreachable(io::Error),
    /// Somebody is there, but no TLS, or not the one who was meant.
    Tls(io::Error),
}

/// Opens a connection to a server within this time, name look-up and TLS handshake included.
pub(super) async fn connect(server: &Server, within: Duration) -> Result<Stream, ConnectFault> {
    let deadline = Instant::now() + within;
    if let Endpoint::Unix(path) = &server.address().endpoint {
        let opened = in_time(deadline, UnixStream::connect(path)).await;
        return match opened {
            Ok(stream) => Ok(Stream::Unix(Socket::new(stream))),
            Err(error) => Err(ConnectFault::Unreachable(error)),
        };
    }
    let opened = in_time(deadline, reach(server.target())).await;
    let stream = opened.map_err(ConnectFault::Unreachable)?;
    // Requests are written whole; waiting for more of them to fill a segment only adds delay.
    let _ = stream.set_nodelay(true);
    keepalive::ask(&stream);
    let stream = Socket::new(stream);
    let Some(Tls { config, name }) = server.tls() else {
        return Ok(Stream::Tcp(stream));
    };
    let handshake = TlsConnector::from(Arc::clone(config)).connect(name.clone(), stream);
    let secured = match in_time(deadline, handshake).await {
        Ok(stream) => agreed(server, Stream::Tls(Box::new(stream))),
        Err(error) => Err(error),
    };
    secured.map_err(|error| {
        server.metrics().tls_failed();
        ConnectFault::Tls(error)
    })
}

/// Opens a connection to any address of a server.
async fn reach(target: &Target) -> io::Result<TcpStream> {
    match target {
        Target::Fixed(Some(address)) => TcpStream::connect(address).await,
        Target::Fixed(None) => Err(io::ErrorKind::AddrNotAvailable.into()),
        Target::Named(name) => first_of(&name.addresses().await?).await,
    }
}

/// The first connection that opens. Another address is tried when one fails, or has said nothing for a while (RFC 8305).
async fn first_of(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut left = addresses.iter();
    let mut attempts: Vec<Pin<Box<_>>> = Vec::new();
    let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
    loop {
        let next = left.next();
        attempts.extend(next.map(|address| Box::pin(TcpStream::connect(*address))));
        if attempts.is_empty() {
            return Err(failure);
        }
        let ended = poll_fn(|cx| {
            let polled = attempts.iter_mut().map(|attempt| attempt.as_mut().poll(cx));
            let ended = polled.enumerate().find_map(|(place, polled)| match polled {
                Poll::Ready(outcome) => Some((place, outcome)),
                Poll::Pending => None,
            });
            ended.map_or(Poll::Pending, Poll::Ready)
        });
        let (place, outcome) = tokio::select! {
            ended = ended => ended,
            () = sleep(STAGGER), if left.len() > 0 => continue,
        };
        drop(attempts.remove(place));
        match outcome {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
}

/// Refuses a server that TLS did not agree with on the one version that it is to be spoken to.
fn agreed(server: &Server, stream: Stream) -> io::Result<Stream> {
    if server.settings().protocol == Protocol::Http2 && !stream.has_agreed_on(HTTP2) {
        return Err(io::Error::other(
            "the server does not agree to speak HTTP/2",
        ));
    }
    Ok(stream)
}

impl Stream {
    /// The other end's address, where it has one.
    pub(super) fn peer(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.inner().peer_addr().ok(),
            Self::Tls(stream) => stream.get_ref().0.inner().peer_addr().ok(),
            Self::Unix(_) => None,
        }
    }

    /// Whether TLS has agreed on this protocol.
    pub(super) fn has_agreed_on(&self, protocol: &[u8]) -> bool {
        match self {
            Self::Tls(stream) => stream.get_ref().1.alpn_protocol() == Some(protocol),
            Self::Tcp(_) | Self::Unix(_) => false,
        }
    }
}

async fn in_time<T>(deadline: Instant, step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let outcome = timeout_at(deadline, step).await;
    outcome.unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()))
}

impl From<ConnectFault> for Rejection {
    fn from(fault: ConnectFault) -> Self {
        match fault {
            ConnectFault::Tls(_) => Self::UpstreamTls,
            ConnectFault::Unreachable(_) => Self::UpstreamUnreachable,
        }
    }
}

impl fmt::Display for ConnectFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(error) => error.fmt(f),
            Self::Tls(error) => write!(f, "TLS: {error}"),
        }
    }
}

impl std::error::Error for ConnectFault {}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
            Self::Unix(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
