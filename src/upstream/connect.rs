//! An open connection to a server, whatever its transport: TCP, TLS or a Unix socket.

use std::{
    fmt, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
    time::{Instant, timeout_at},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    HTTP2, Server,
    settings::{Endpoint, Protocol},
    tls::Tls,
};
use crate::policy::Rejection;

/// A connection on which HTTP may be spoken.
#[derive(Debug)]
pub(super) enum Stream {
    /// Plain TCP.
    Tcp(TcpStream),
    /// TLS over TCP, the server verified.
    Tls(Box<TlsStream<TcpStream>>),
    /// A Unix socket.
    Unix(UnixStream),
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
    let (host, port) = match &server.address().endpoint {
        Endpoint::Tcp { host, port, .. } => (&**host, *port),
        Endpoint::Unix(path) => {
            let opened = in_time(deadline, UnixStream::connect(path)).await;
            return opened.map(Stream::Unix).map_err(ConnectFault::Unreachable);
        }
    };
    let opened = in_time(deadline, TcpStream::connect((host, port))).await;
    let stream = opened.map_err(ConnectFault::Unreachable)?;
    // Requests are written whole; waiting for more of them to fill a segment only adds delay.
    let _ = stream.set_nodelay(true);
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
