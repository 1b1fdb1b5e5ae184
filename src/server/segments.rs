//! What goes to a client together: the last bytes of a connection wait in the kernel for its end.
//!
//! Each segment costs both sides more than what is in it. TLS writes an answer and its own farewell each by itself, and the kernel
//! the end of the connection after them, though nobody waits for the one without the other.
//!
//! The session ticket is not kept back for the first answer: it is what acknowledges the client's last message of the handshake, and
//! a client whose socket waits for that (RFC 9293 §3.7.4) would send its request 40 ms later.

use std::{
    cell::Cell,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;

use crate::socket::Socket;

/// A stream that can be told that its end is near.
pub trait Finish {
    /// What is written from now on may wait for what follows: more is written soon, or the stream is shut.
    fn end_soon(&self);
}

/// A client's socket.
#[derive(Debug)]
pub(crate) struct Gathered {
    stream: TcpStream,
    ends_soon: Cell<bool>,
}

impl Gathered {
    /// Of an open connection.
    pub(crate) const fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            ends_soon: Cell::new(false),
        }
    }

    /// What it writes to.
    pub(crate) const fn inner(&self) -> &TcpStream {
        &self.stream
    }

    /// Writes what more is to follow; the kernel sends it after 200 ms where nothing does (tcp(7), `MSG_MORE` in send(2)).
    #[cfg(target_os = "linux")]
    fn poll_write_more(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        use std::task::ready;

        use rustix::net::{SendFlags, send};
        use tokio::io::Interest;
        let flags = SendFlags::MORE | SendFlags::NOSIGNAL;
        loop {
            ready!(self.stream.poll_write_ready(cx))?;
            let sent = self.stream.try_io(Interest::WRITABLE, || {
                send(&self.stream, bytes, flags).map_err(io::Error::from)
            });
            match sent {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                sent => return Poll::Ready(sent),
            }
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn poll_write_more(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }
}

impl Finish for Box<TlsStream<Socket<Gathered>>> {
    fn end_soon(&self) {
        let (socket, _) = self.get_ref();
        socket.inner().ends_soon.set(true);
    }
}

impl AsyncRead for Gathered {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Gathered {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.ends_soon.get() {
            return this.poll_write_more(cx, bytes);
        }
        Pin::new(&mut this.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // Several pieces are many bytes, and fill segments by themselves.
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    /// Both ends of a connection.
    async fn pair() -> (Gathered, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let client = TcpStream::connect(address);
        let (client, accepted) = tokio::join!(client, listener.accept());
        (Gathered::new(accepted.unwrap().0), client.unwrap())
    }

    #[tokio::test]
    async fn what_waits_for_the_end_comes_with_it_whole_and_in_order() {
        // More than the kernel takes before somebody reads.
        let long: Vec<u8> = (0..8 << 20).map(|at: u32| at.to_le_bytes()[1]).collect();
        for bytes in [&b"short"[..], &long] {
            let (mut server, mut client) = pair().await;
            let write = async {
                server.write_all(b"first,").await.unwrap();
                server.ends_soon.set(true);
                server.write_all(bytes).await.unwrap();
                server.write_all(b", last").await.unwrap();
                server.shutdown().await.unwrap();
            };
            let mut read = Vec::new();
            let (outcome, ()) = tokio::join!(client.read_to_end(&mut read), write);
            outcome.unwrap();
            assert!(read == [b"first,", bytes, b", last"].concat());
        }
    }

    #[tokio::test]
    async fn what_waits_goes_although_nothing_follows() {
        let (mut server, mut client) = pair().await;
        server.ends_soon.set(true);
        server.write_all(b"alone").await.unwrap();
        let mut read = [0; 5];
        client.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"alone");
    }

    #[tokio::test]
    async fn a_client_that_has_gone_is_an_error() {
        let (mut server, client) = pair().await;
        server.ends_soon.set(true);
        drop(client);
        let gone = poll_fn(|cx| {
            let wrote = Pin::new(&mut server).poll_write(cx, b"lost");
            cx.waker().wake_by_ref();
            match wrote {
                Poll::Ready(Ok(_)) => Poll::Pending,
                ended @ (Poll::Ready(Err(_)) | Poll::Pending) => ended,
            }
        });
        assert!(gone.await.is_err());
    }
}
