//! The two bodies of a forwarded exchange. Both are streams: neither is ever held whole.

use std::{
    fmt,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep_until};

use super::{
    client_body::ClientBody,
    contain::contain_upload,
    lease::Lease,
    progress::{UploadFault, UploadProgress},
    upgrade::Switched,
};
use crate::telemetry::Telemetry;

/// When an answer that waits for its upstream first wakes, to be looked at: no sooner than it counts as one that goes on.
const FIRST_LOOK: Duration = Duration::from_millis(1100);

/// The body of a request on its way to the upstream.
#[derive(Debug)]
pub enum RequestBody {
    /// No body: nothing to stream, count or wait for.
    Empty,
    /// The client's body, counted and timed.
    Streamed(Box<Upload>),
}

/// A client's body with its limits. Trailers are dropped (MSG-13).
#[derive(Debug)]
pub struct Upload {
    incoming: ClientBody,
    remaining: u64,
    idle: IdleTimer,
    progress: Rc<UploadProgress>,
    telemetry: Arc<Telemetry>,
}

/// The upstream's answer on its way to the client. At its end the connection goes back to the pool; dropped before, the
/// connection is closed, so no part of this answer can reach anyone else (UP-1).
#[derive(Debug)]
pub struct AnswerStream {
    incoming: Incoming,
    lease: Option<Lease>,
    switched: Option<Box<Switched>>,
    deadline: Instant,
    /// The longest silence, where that is what ends it.
    silence: Option<Duration>,
    timer: Option<Pin<Box<Sleep>>>,
}

/// Why an answer ended early. The client sees its connection or stream end without the proper end (UP-3).
#[derive(Debug)]
pub enum AnswerFault {
    /// The token of whoever asked ended or was revoked.
    CredentialEnded,
    /// The upstream reset the stream of its answer as if nothing was wrong.
    Cut,
    /// A fault of ours.
    Panicked,
    /// The route's time for the whole exchange is over.
    TimedOut,
    /// The upstream broke off or sent bad framing.
    Upstream(hyper::Error),
}

/// How fast a client must send its body.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// The longest wait for the next byte.
    pub idle: Duration,
    /// The least, in bytes a second, over all the time that was waited beyond `idle`; 1 or more.
    pub rate: u64,
}

/// Fires when a client is too slow: one wait too long, or too many for what has come. Costs nothing while things happen: the
/// timer is made only when there is something to wait for, and time that the upstream takes is not the client's.
#[derive(Debug)]
struct IdleTimer {
    pace: Pace,
    waited: Duration,
    since: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

impl IdleTimer {
    fn new(pace: Pace) -> Self {
        Self {
            pace,
            waited: Duration::ZERO,
            since: Instant::now(),
            timer: None,
        }
    }

    fn reset(&mut self) {
        if self.timer.take().is_some() {
            self.waited = self.waited.saturating_add(self.since.elapsed());
        }
    }

    /// `bytes` have come so far.
    fn poll_expired(&mut self, cx: &mut Context<'_>, bytes: u64) -> Poll<()> {
        if self.timer.is_none() {
            self.since = Instant::now();
        }
        let until = self.since + self.allowed(bytes);
        self.timer
            .get_or_insert_with(|| Box::pin(sleep_until(until)))
            .as_mut()
            .poll(cx)
    }

    fn allowed(&self, bytes: u64) -> Duration {
        let Pace { idle, rate } = self.pace;
        let earned = Duration::from_millis(bytes.saturating_mul(1000) / rate.max(1));
        idle.saturating_add(earned)
            .saturating_sub(self.waited)
            .min(idle)
    }
}

impl RequestBody {
    /// Wraps a client's body. `limit` is in bytes.
    #[must_use]
    pub fn new(
        incoming: ClientBody,
        limit: u64,
        pace: Pace,
        telemetry: &Arc<Telemetry>,
    ) -> (Self, Rc<UploadProgress>) {
        if incoming.is_end_stream() {
            return (Self::Empty, UploadProgress::finished_now());
        }
        let progress = Rc::new(UploadProgress::default());
        let idle = IdleTimer::new(pace);
        let upload = Upload {
            incoming,
            remaining: limit,
            idle,
            progress: Rc::clone(&progress),
            telemetry: Arc::clone(telemetry),
        };
        (Self::Streamed(Box::new(upload)), progress)
    }
}

impl Upload {
    fn poll_contained(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, UploadFault>>> {
        let (telemetry, progress) = (Arc::clone(&self.telemetry), Rc::clone(&self.progress));
        contain_upload(&telemetry, &progress, || self.poll_data(cx))
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, UploadFault>>> {
        if !self.progress.is_wanted(cx) {
            return Poll::Ready(Some(Err(UploadFault::Broken)));
        }
        loop {
            let frame = match Pin::new(&mut self.incoming).poll_frame(cx) {
                Poll::Ready(frame) => frame,
                Poll::Pending => {
                    ready!(self.idle.poll_expired(cx, self.progress.bytes()));
                    return Poll::Ready(Some(Err(self.progress.fail(UploadFault::Stalled))));
                }
            };
            self.idle.reset();
            let data = match frame {
                // A client may reset its stream so that hyper takes it for an end (MSG-5).
                None if !self.incoming.is_whole() => {
                    return Poll::Ready(Some(Err(self.progress.fail(UploadFault::Broken))));
                }
                None => {
                    self.progress.finish();
                    return Poll::Ready(None);
                }
                Some(Err(_)) => {
                    return Poll::Ready(Some(Err(self.progress.fail(UploadFault::Broken))));
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => data,
                    Err(_trailers) => continue,
                },
            };
            let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
            let Some(remaining) = self.remaining.checked_sub(length) else {
                return Poll::Ready(Some(Err(self.progress.fail(UploadFault::TooLarge))));
            };
            self.remaining = remaining;
            self.progress.count(length);
            if self.incoming.is_end_stream() {
                self.progress.finish();
            }
            return Poll::Ready(Some(Ok(data)));
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = UploadFault;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadFault>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Streamed(upload) => upload
                .poll_contained(cx)
                .map(|data| data.map(|data| data.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Streamed(upload) => upload.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Streamed(upload) => upload.incoming.size_hint(),
        }
    }
}

impl AnswerStream {
    /// Wraps an upstream's body with the connection that it comes from. `deadline` ends the whole exchange.
    #[must_use]
    pub fn new(incoming: Incoming, lease: Lease, deadline: Instant) -> Self {
        Self::with(incoming, Some(lease), deadline)
    }

    /// The end of an answer after which the connection is no longer HTTP.
    pub(super) fn switched(incoming: Incoming, switched: Switched) -> Self {
        Self {
            switched: Some(Box::new(switched)),
            ..Self::with(incoming, None, Instant::now())
        }
    }

    fn with(incoming: Incoming, lease: Option<Lease>, deadline: Instant) -> Self {
        let mut stream = Self {
            incoming,
            lease,
            switched: None,
            deadline,
            silence: None,
            timer: None,
        };
        stream.release_at_end();
        stream
    }

    /// Lets the answer go on as long as something comes of it: no silence may be longer than this.
    pub fn end_by_silence(&mut self, allowed: Duration) {
        self.silence = Some(allowed);
        self.deadline = Instant::now() + allowed;
    }

    /// Takes the connection, where it is no longer HTTP.
    pub fn take_switched(&mut self) -> Option<Box<Switched>> {
        self.switched.take()
    }

    /// Wakes at the deadline, and once before that for whoever looks after exchanges that go on.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = self.deadline;
        let timer = self.timer.get_or_insert_with(|| {
            let first = deadline.min(Instant::now() + FIRST_LOOK);
            Box::pin(sleep_until(first))
        });
        loop {
            ready!(timer.as_mut().poll(cx));
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline);
        }
    }

    fn release_at_end(&mut self) {
        if self.incoming.is_end_stream() {
            self.release();
        }
    }

    fn release(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.release();
        }
    }
}

impl Body for AnswerStream {
    type Data = Bytes;
    type Error = AnswerFault;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, AnswerFault>>> {
        let stream = self.get_mut();
        loop {
            let frame = match Pin::new(&mut stream.incoming).poll_frame(cx) {
                Poll::Ready(frame) => frame,
                Poll::Pending => {
                    ready!(stream.poll_deadline(cx));
                    stream.lease = None;
                    return Poll::Ready(Some(Err(AnswerFault::TimedOut)));
                }
            };
            match frame {
                Some(Ok(frame)) if frame.is_data() => {
                    stream.release_at_end();
                    if let Some(allowed) = stream.silence {
                        stream.deadline = Instant::now() + allowed;
                    }
                    // A client that reads slowly from an upstream that is always ready never waits above.
                    if stream.lease.is_some() && Instant::now() >= stream.deadline {
                        stream.lease = None;
                        return Poll::Ready(Some(Err(AnswerFault::TimedOut)));
                    }
                    return Poll::Ready(Some(Ok(frame)));
                }
                // Trailers of an upstream are dropped like those of a client.
                Some(Ok(_trailers)) => {}
                Some(Err(error)) => {
                    stream.lease = None;
                    return Poll::Ready(Some(Err(AnswerFault::Upstream(error))));
                }
                None => {
                    // A stream that is reset with NO_ERROR ends here, too, for hyper (UP-3).
                    let shared = stream.lease.as_ref().is_some_and(Lease::is_shared);
                    if shared && !stream.incoming.is_end_stream() {
                        stream.lease = None;
                        return Poll::Ready(Some(Err(AnswerFault::Cut)));
                    }
                    stream.release();
                    return Poll::Ready(None);
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl fmt::Display for AnswerFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CredentialEnded => "the caller's token ended",
            Self::Panicked => "the gateway has a fault",
            Self::TimedOut => "the exchange took too long",
            Self::Cut | Self::Upstream(_) => "the upstream's answer broke off",
        })
    }
}

impl std::error::Error for AnswerFault {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::CredentialEnded | Self::Cut | Self::Panicked | Self::TimedOut => None,
            Self::Upstream(error) => Some(error),
        }
    }
}
