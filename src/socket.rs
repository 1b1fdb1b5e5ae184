//! A socket under TLS or HTTP, whose writes take the kernel's shortest way.
//!
//! hyper and rustls always hand over a list of pieces, and nearly always it has one: a request's head, a record with an answer in
//! it. `send` takes a piece in three quarters of the kernel's time that `writev` takes for a list of one.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Passes everything on to a socket, a list of one piece as the piece alone.
#[derive(Debug)]
pub(crate) struct Socket<S> {
    inner: S,
    /// Told the kernel that nothing more is written. TLS says so each time it is asked to, and it is asked by hyper and by the farewell.
    is_shut: bool,
}

impl<S> Socket<S> {
    /// Of an open connection.
    pub(crate) const fn new(inner: S) -> Self {
        Self {
            inner,
            is_shut: false,
        }
    }

    /// What it writes to.
    pub(crate) const fn inner(&self) -> &S {
        &self.inner
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Socket<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Socket<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let inner = Pin::new(&mut self.get_mut().inner);
        match pieces {
            [only] => inner.poll_write(cx, only),
            several => inner.poll_write_vectored(cx, several),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.is_shut {
            ready!(Pin::new(&mut this.inner).poll_shutdown(cx))?;
            this.is_shut = true;
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, io::IoSlice};

    use super::*;

    /// Takes everything, and remembers by which call it came.
    #[derive(Default)]
    struct Calls(Vec<(&'static str, Vec<u8>)>);

    impl AsyncWrite for Calls {
        fn poll_write(
            self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.get_mut().0.push(("one", bytes.to_vec()));
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_write_vectored(
            self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
            pieces: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let bytes = pieces.iter().flat_map(|piece| piece.to_vec()).collect();
            self.get_mut().0.push(("several", bytes));
            Poll::Ready(Ok(pieces.iter().map(|piece| piece.len()).sum()))
        }

        fn is_write_vectored(&self) -> bool {
            true
        }

        fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.get_mut().0.push(("end", Vec::new()));
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn the_kernel_is_told_once_that_nothing_more_is_written() {
        let mut socket = Socket::new(Calls::default());
        for _ in 0..2 {
            let shut = poll_fn(|cx| Pin::new(&mut socket).poll_shutdown(cx));
            shut.await.unwrap();
        }
        assert_eq!(socket.inner().0, [("end", Vec::new())]);
    }

    #[tokio::test]
    async fn a_list_of_one_piece_is_written_as_that_piece_and_others_as_they_are() {
        let mut socket = Socket::new(Calls::default());
        let lists: [&[IoSlice<'_>]; 3] = [
            &[IoSlice::new(b"head")],
            &[IoSlice::new(b"head"), IoSlice::new(b"body")],
            &[],
        ];
        for (list, length) in lists.into_iter().zip([4, 8, 0]) {
            let written = poll_fn(|cx| Pin::new(&mut socket).poll_write_vectored(cx, list));
            assert_eq!(written.await.unwrap(), length);
        }
        let expected = [
            ("one", b"head".to_vec()),
            ("several", b"headbody".to_vec()),
            ("several", Vec::new()),
        ];
        assert_eq!(socket.inner().0, expected);
    }
}
