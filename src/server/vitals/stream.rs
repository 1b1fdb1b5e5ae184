//! The stream of a connection, watched: what comes and goes on it is what its vitals go by.

use std::{
    io,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Instant,
};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;

use super::{
    super::{
        frames::FrameBudget,
        segments::{Finish, Gathered},
    },
    Vitals,
};
use crate::{
    gateway::EarlyHeads,
    limit::{MemoryPressure, MemoryStage},
    socket::Socket,
};

/// A stream that keeps the vitals of its connection.
#[derive(Debug)]
pub struct Watched<S> {
    pub(super) stream: S,
    vitals: Rc<Vitals>,
    frames: Option<FrameBudget>,
    early: Option<Rc<EarlyHeads>>,
    memory: Option<Arc<MemoryPressure>>,
    /// What was read before and comes first.
    unread: Bytes,
}

impl<S> Watched<S> {
    /// Watches a stream.
    #[must_use]
    pub fn new(stream: S, vitals: Rc<Vitals>) -> Self {
        Self {
            stream,
            vitals,
            frames: None,
            early: None,
            memory: None,
            unread: Bytes::new(),
        }
    }

    /// Writes interim answers, too: a stream of HTTP/1.1.
    #[must_use]
    pub(in crate::server) fn with_early(self, early: Rc<EarlyHeads>) -> Self {
        early.set_flushed(true);
        Self {
            early: Some(early),
            ..self
        }
    }

    /// Reads nothing while memory is too scarce for it; its driver polls it now and then until that is over (FAULT-1).
    #[must_use]
    pub(in crate::server) fn under(self, memory: Arc<MemoryPressure>) -> Self {
        Self {
            memory: Some(memory),
            ..self
        }
    }

    /// Reads on whatever the memory: nobody polls it anew any more.
    #[must_use]
    pub(in crate::server) fn undriven(self) -> Self {
        Self {
            memory: None,
            ..self
        }
    }

    /// Watches a stream of HTTP/2, whose control frames have this budget.
    #[must_use]
    pub(in crate::server) fn with_budget(
        stream: S,
        vitals: Rc<Vitals>,
        budget: FrameBudget,
    ) -> Self {
        Self {
            stream,
            vitals,
            frames: Some(budget),
            early: None,
            memory: None,
            unread: Bytes::new(),
        }
    }

    /// Takes back what was read of it and not used. It is copied: a few bytes would keep the whole buffer that they are in.
    pub(in crate::server) fn put_back(&mut self, unread: &[u8]) {
        self.unread = Bytes::copy_from_slice(unread);
    }

    fn is_scarce(&self) -> bool {
        let memory = self.memory.as_ref();
        memory.is_some_and(|memory| memory.is_at(MemoryStage::Closed))
    }

    fn wrote(&mut self, outcome: &Poll<io::Result<usize>>) {
        self.vitals.write_outcome(outcome);
        let Poll::Ready(Ok(count)) = outcome else {
            return;
        };
        self.vitals.count_written(*count);
        if let Some(frames) = &mut self.frames {
            frames.wrote(*count);
        }
    }
}

/// That of a client's connection. The session is on the heap, for each future that the stream is handed to has room for it.
pub(crate) type Stream = Watched<Box<TlsStream<Socket<Gathered>>>>;

impl Stream {
    /// Waits until there may be something to read, or the client has gone, without room for what that is. Not while memory is too
    /// scarce for reading; the driver polls it now and then until that is over.
    pub(in crate::server) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_scarce() {
            return Poll::Pending;
        }
        let (socket, session) = self.stream.get_ref();
        // What is decrypted already comes without a byte more.
        if !self.unread.is_empty() || !session.wants_read() {
            return Poll::Ready(());
        }
        // An error is found out by whoever reads.
        let socket = socket.inner().inner();
        socket.poll_read_ready(cx).map(drop)
    }

    /// Whether something is known to have come that nobody has read. A socket that is closed with it resets its connection.
    pub(in crate::server) fn has_unread(&self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        self.poll_readable(&mut cx).is_ready()
    }
}

impl<S: AsyncWrite + Unpin> Watched<S> {
    /// Writes the interim answers that wait, whole, before anything that hyper writes. `has_more` says whether hyper is about to
    /// write: from then until its next flush there is no place for one.
    fn poll_early(&mut self, cx: &mut Context<'_>, has_more: bool) -> Poll<io::Result<()>> {
        let Some(early) = &self.early else {
            return Poll::Ready(Ok(()));
        };
        let mut unwritten = early.unwritten().borrow_mut();
        while !unwritten.is_empty() {
            let outcome = Pin::new(&mut self.stream).poll_write(cx, &unwritten);
            self.vitals.write_outcome(&outcome);
            match ready!(outcome)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => {
                    let count = count.min(unwritten.len());
                    drop(unwritten.drain(..count));
                }
            }
        }
        *unwritten = Vec::new();
        early.set_flushed(!has_more);
        Poll::Ready(Ok(()))
    }
}

impl<S: Finish> Watched<S> {
    /// The end of the last answer goes with the connection's end.
    fn note_end(&self) {
        if self.vitals.has_no_more() {
            self.stream.end_soon();
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.is_scarce() {
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let outcome = if this.unread.is_empty() {
            Pin::new(&mut this.stream).poll_read(cx, buffer)
        } else {
            let count = this.unread.len().min(buffer.remaining());
            buffer.put_slice(&this.unread.split_to(count));
            Poll::Ready(Ok(()))
        };
        if let Some(arrived) = buffer
            .filled()
            .get(before..)
            .filter(|arrived| !arrived.is_empty())
        {
            this.vitals.bytes_arrived(arrived);
            if let Some(frames) = &mut this.frames
                && !frames.read(arrived, Instant::now)
            {
                this.vitals.flooded.set(true);
                // The library has no way to say this. What it was about to write comes to nothing; so does the connection.
                let stream = &mut this.stream;
                let _ = Pin::new(&mut *stream).poll_write(cx, &frames.go_away());
                let _ = Pin::new(stream).poll_shutdown(cx);
                return Poll::Ready(Err(io::Error::other("too many control frames")));
            }
        }
        outcome
    }
}

impl<S: AsyncWrite + Finish + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_early(cx, true))?;
        this.note_end();
        let outcome = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.wrote(&outcome);
        outcome
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_early(cx, true))?;
        this.note_end();
        let outcome = Pin::new(&mut this.stream).poll_write_vectored(cx, slices);
        this.wrote(&outcome);
        outcome
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_early(cx, false))?;
        let outcome = Pin::new(&mut this.stream).poll_flush(cx);
        this.vitals.write_outcome(&outcome);
        outcome
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.stream.end_soon();
        ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
        this.vitals.is_shut.set(true);
        Poll::Ready(Ok(()))
    }
}
