//! A stream that knows whether anything has come, and what went out first.
//!
//! When a connection ends before the head of an answer is whole, hyper does not tell whether a part of it had come. A request
//! to which the upstream has begun to answer is not sent again (UP-2). Neither does hyper give back a head that it has written:
//! the bytes of one that may be sent again are kept here, which is cheaper than a second copy of its fields.

use std::{
    fmt, io, iter,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What goes out first is kept no longer than this between requests, in bytes: most heads fit.
const ROOM: usize = 4096;

/// Nothing is kept of what goes out.
const FORGETS: u8 = 0;
/// What goes out next is to be kept.
const LISTENS: u8 = 1;
/// What went out first is kept.
const KEEPS: u8 = 2;

/// Whether a byte has come since the request began, and what went out first. One thread has it; it is of a type that may change
/// threads because hyper hands over no other stream at an upgrade.
#[derive(Debug, Clone, Default)]
pub(super) struct Ear(Arc<Said>);

/// The bytes have no part in what `Debug` shows: there are secrets in them.
#[derive(Default)]
struct Said {
    heard: AtomicBool,
    /// Whether what is in `first` belongs to the present request: one of another one must never be taken for it.
    state: AtomicU8,
    first: Mutex<Vec<u8>>,
}

/// A stream with an ear.
#[derive(Debug)]
pub(super) struct Heard<S> {
    stream: S,
    ear: Ear,
}

impl Ear {
    pub(super) fn begin(&self) {
        self.0.heard.store(false, Ordering::Relaxed);
        self.0.state.store(FORGETS, Ordering::Relaxed);
    }

    pub(super) fn has_heard(&self) -> bool {
        self.0.heard.load(Ordering::Relaxed)
    }

    /// Keeps what goes out next, which is the head of a request: hyper hands it over as a whole.
    pub(super) fn keep_next(&self) {
        self.0.state.store(LISTENS, Ordering::Relaxed);
    }

    /// What went out first since [`Ear::keep_next`], if anything did; once.
    pub(super) fn take_first(&self) -> Option<Vec<u8>> {
        let kept = self.0.state.swap(FORGETS, Ordering::Relaxed) == KEEPS;
        kept.then(|| {
            std::mem::take(&mut *self.0.first.lock().unwrap_or_else(PoisonError::into_inner))
        })
    }

    /// Hears what is about to be written, all of it, for some may have gone out when the write fails.
    fn goes_out<'b>(&self, parts: impl Iterator<Item = &'b [u8]>) {
        if self.0.state.load(Ordering::Relaxed) != LISTENS {
            return;
        }
        let mut first = self.0.first.lock().unwrap_or_else(PoisonError::into_inner);
        first.clear();
        first.shrink_to(ROOM);
        for part in parts {
            first.extend_from_slice(part);
        }
        self.0.state.store(KEEPS, Ordering::Relaxed);
    }
}

impl fmt::Debug for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Said")
            .field("heard", &self.heard)
            .finish_non_exhaustive()
    }
}

impl<S> Heard<S> {
    pub(super) fn new(stream: S, ear: Ear) -> Self {
        Self { stream, ear }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Heard<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut this.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            this.ear.0.heard.store(true, Ordering::Relaxed);
        }
        outcome
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Heard<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.ear.goes_out(iter::once(bytes));
        Pin::new(&mut this.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.ear.goes_out(slices.iter().map(|slice| &**slice));
        Pin::new(&mut this.stream).poll_write_vectored(cx, slices)
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
    use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    fn heard() -> (Heard<DuplexStream>, Ear, DuplexStream) {
        let (near, far) = duplex(1 << 16);
        let ear = Ear::default();
        (Heard::new(near, ear.clone()), ear, far)
    }

    #[tokio::test]
    async fn up_2_and_up_1_a_head_is_kept_for_its_own_exchange_alone() {
        let (mut stream, ear, _far) = heard();
        ear.begin();
        ear.keep_next();
        stream.write_all(b"the head").await.unwrap();
        stream.write_all(b"what follows").await.unwrap();
        assert_eq!(ear.take_first().as_deref(), Some(&b"the head"[..]));
        assert_eq!(ear.take_first(), None);

        ear.begin();
        stream.write_all(b"of one that is not kept").await.unwrap();
        assert_eq!(ear.take_first(), None);

        ear.begin();
        ear.keep_next();
        stream.write_all(b"of one that was answered").await.unwrap();
        ear.begin();
        assert_eq!(ear.take_first(), None);
        ear.keep_next();
        assert_eq!(ear.take_first(), None, "nothing went out since");
    }

    #[tokio::test]
    async fn up_2_a_head_that_could_not_be_written_is_kept() {
        let (mut stream, ear, far) = heard();
        drop(far);
        ear.begin();
        ear.keep_next();
        let parts = [io::IoSlice::new(b"the "), io::IoSlice::new(b"head")];
        stream.write_vectored(&parts).await.unwrap_err();
        assert_eq!(ear.take_first().as_deref(), Some(&b"the head"[..]));
    }

    #[tokio::test]
    async fn what_was_large_is_not_kept_room_for() {
        let (mut stream, ear, _far) = heard();
        for (length, most) in [(5 * ROOM, 8 * ROOM), (100, ROOM)] {
            ear.begin();
            ear.keep_next();
            stream.write_all(&vec![b'x'; length]).await.unwrap();
            assert!(ear.0.first.lock().unwrap().capacity() <= most);
        }
        assert!(!format!("{ear:?}").contains("120"), "{ear:?}");
    }
}
