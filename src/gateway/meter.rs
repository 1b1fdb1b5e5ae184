//! A client's side of a tunnel, counted: bytes each way, the last of them, and where in its frames the upstream's part is.

use std::{
    cell::Cell,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, sleep, sleep_until},
};

use super::frames::Frames;

/// How often a frame's end is looked for, once somebody waits for it.
const LOOK: Duration = Duration::from_millis(20);

/// The longest silence once one side has ended its part: there is no half of a WebSocket.
const HALF_CLOSED: Duration = Duration::from_secs(10);

/// What went through a tunnel.
#[derive(Debug)]
pub(super) struct Meter {
    from_client: Cell<u64>,
    to_client: Cell<u64>,
    last: Cell<Instant>,
    half_closed: Cell<bool>,
    frames: Cell<Frames>,
}

/// A client's stream that is counted.
#[derive(Debug)]
pub(super) struct Metered<'m, S> {
    stream: S,
    /// What the client sent before the tunnel was there.
    early: Bytes,
    meter: &'m Meter,
}

impl Meter {
    pub(super) fn new() -> Self {
        Self {
            from_client: Cell::new(0),
            to_client: Cell::new(0),
            last: Cell::new(Instant::now()),
            half_closed: Cell::new(false),
            frames: Cell::default(),
        }
    }

    /// Bytes from the client, and to it.
    pub(super) fn bytes(&self) -> (u64, u64) {
        (self.from_client.get(), self.to_client.get())
    }

    /// Whether the client has been sent whole frames alone, and no close frame.
    pub(super) fn takes_another_frame(&self) -> bool {
        self.frames.get().takes_another()
    }

    /// Waits until a frame may be put in.
    pub(super) async fn frame_end(&self) {
        while !self.takes_another_frame() {
            sleep(LOOK).await;
        }
    }

    /// Waits until nothing has gone either way for so long.
    pub(super) async fn silence(&self, allowed: Duration) {
        loop {
            let allowed = if self.half_closed.get() {
                allowed.min(HALF_CLOSED)
            } else {
                allowed
            };
            let due = self.last.get() + allowed;
            if due <= Instant::now() {
                return;
            }
            // Looked at now and then: what ends a half of the tunnel does not wake who waits here.
            sleep_until(due.min(Instant::now() + HALF_CLOSED)).await;
        }
    }

    fn half_close(&self) {
        if !self.half_closed.replace(true) {
            self.last.set(Instant::now());
        }
    }

    fn count(&self, counter: &Cell<u64>, bytes: usize) {
        if bytes > 0 {
            let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
            counter.set(counter.get().saturating_add(bytes));
            self.last.set(Instant::now());
        }
    }
}

impl<'m, S> Metered<'m, S> {
    pub(super) fn new(stream: S, early: Bytes, meter: &'m Meter) -> Self {
        Self {
            stream,
            early,
            meter,
        }
    }

    /// The stream, for what is not counted.
    pub(super) fn stream(&mut self) -> &mut S {
        &mut self.stream
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<'_, S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let outcome = if this.early.is_empty() {
            Pin::new(&mut this.stream).poll_read(cx, buffer)
        } else {
            let piece = this.early.len().min(buffer.remaining());
            buffer.put_slice(this.early.get(..piece).unwrap_or_default());
            this.early.advance(piece);
            Poll::Ready(Ok(()))
        };
        let arrived = buffer.filled().len() - before;
        if arrived == 0 && matches!(outcome, Poll::Ready(Ok(()))) {
            this.meter.half_close();
        }
        this.meter.count(&this.meter.from_client, arrived);
        outcome
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<'_, S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_write(cx, bytes);
        if let Poll::Ready(Ok(written)) = &outcome {
            this.meter.count(&this.meter.to_client, *written);
            let mut frames = this.meter.frames.get();
            frames.advance(bytes.get(..*written).unwrap_or_default());
            this.meter.frames.set(frames);
        }
        outcome
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.meter.half_close();
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}
