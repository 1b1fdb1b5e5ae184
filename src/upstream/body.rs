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
    pace::{IdleTimer, Pace, Silence},
    progress::{UploadFault, UploadProgress},
    upgrade::Switched,
};
use crate::{policy::Trailers, telemetry::Telemetry};

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

/// A client's body with its limits. Trailers are dropped where nothing else is said (MSG-13).
#[derive(Debug)]
pub struct Upload {
    incoming: ClientBody,
    remaining: u64,
    idle: IdleTimer,
    /// What ends it in place of that, where it may pause.
    silence: Option<Silence>,
    trailers: Option<Box<Trailers>>,
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
    /// What ends it in place of that, where it goes on.
    silence: Option<Box<Silence>>,
    trailers: Option<Box<Trailers>>,
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
    /// The answer's trailers are larger than a header section may be.
    TrailersTooLarge,
    /// The upstream broke off or sent bad framing.
    Upstream(hyper::Error),
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
            silence: None,
            trailers: None,
            progress: Rc::clone(&progress),
            telemetry: Arc::clone(telemetry),
        };
        (Self::Streamed(Box::new(upload)), progress)
    }

    /// Lets these trailers follow it.
    #[must_use]
    pub fn followed_by(mut self, trailers: Option<Box<Trailers>>) -> Self {
        if let Self::Streamed(upload) = &mut self {
            upload.trailers = trailers;
        }
        self
    }

    /// Lets it pause as long as something goes either way: no silence may be longer than this.
    #[must_use]
    pub fn ended_by_silence(mut self, allowed: Duration) -> Self {
        if let Self::Streamed(upload) = &mut self {
            let progress = Rc::clone(&upload.progress);
            upload.silence = Some(Silence::new(allowed, progress));
        }
        self
    }
}

impl Upload {
    fn poll_contained(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadFault>>> {
        let (telemetry, progress) = (Arc::clone(&self.telemetry), Rc::clone(&self.progress));
        contain_upload(&telemetry, &progress, || self.poll_next(cx))
    }

    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadFault>>> {
        if !self.progress.is_wanted(cx) {
            return Poll::Ready(Some(Err(UploadFault::Broken)));
        }
        loop {
            let frame = match Pin::new(&mut self.incoming).poll_frame(cx) {
                Poll::Ready(frame) => frame,
                Poll::Pending => {
                    ready!(self.poll_too_slow(cx));
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
                    Err(last) => match self.let_follow(last) {
                        Some(last) => return Poll::Ready(Some(last)),
                        None => continue,
                    },
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
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
    }

    fn poll_too_slow(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.silence {
            Some(silence) => silence.poll_expired(cx),
            None => self.idle.poll_expired(cx, self.progress.bytes()),
        }
    }

    /// The trailers that are sent, which are the end of the body; `None` where none are.
    fn let_follow(&self, last: Frame<Bytes>) -> Option<Result<Frame<Bytes>, UploadFault>> {
        let trailers = last.into_trailers().ok()?;
        match self.trailers.as_ref()?.filter(trailers) {
            Ok(trailers) if trailers.is_empty() => None,
            Ok(trailers) => {
                self.progress.finish();
                Some(Ok(Frame::trailers(trailers)))
            }
            Err(_) => Some(Err(self.progress.fail(UploadFault::TrailersTooLarge))),
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
            Self::Streamed(upload) => upload.poll_contained(cx),
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
            trailers: None,
            timer: None,
        };
        stream.release_at_end();
        stream
    }

    /// Lets the answer go on as long as something goes either way: no silence may be longer than this.
    pub fn end_by_silence(&mut self, allowed: Duration, upload: Rc<UploadProgress>) {
        let silence = Silence::new(allowed, upload);
        self.deadline = silence.due();
        self.silence = Some(Box::new(silence));
    }

    /// Lets these trailers follow the answer.
    pub fn follow_with(&mut self, trailers: Option<Box<Trailers>>) {
        self.trailers = trailers;
    }

    /// Takes the connection, where it is no longer HTTP.
    pub fn take_switched(&mut self) -> Option<Box<Switched>> {
        self.switched.take()
    }

    fn poll_incoming(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Self {
            incoming, lease, ..
        } = self;
        let Some(lease) = lease else {
            return Pin::new(incoming).poll_frame(cx);
        };
        // A short answer has come with its head.
        if let Some(frame) = lease.peek(|cx| Pin::new(&mut *incoming).poll_frame(cx)) {
            return Poll::Ready(frame);
        }
        lease.poll_with(cx, |cx| Pin::new(incoming).poll_frame(cx))
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
            // A client that still sends keeps the exchange going, too.
            if let Some(silence) = &self.silence {
                self.deadline = silence.due();
            }
            if Instant::now() >= self.deadline {
                return Poll::Ready(());
            }
            timer.as_mut().reset(self.deadline);
        }
    }

    fn release_at_end(&mut self) {
        if self.incoming.is_end_stream() {
            self.release();
        }
    }

    /// The trailers that are sent, which are the end of the answer; `None` where none are.
    fn let_follow(&mut self, last: Frame<Bytes>) -> Option<Result<Frame<Bytes>, AnswerFault>> {
        let trailers = last.into_trailers().ok()?;
        match self.trailers.as_ref()?.filter(trailers) {
            Ok(trailers) if trailers.is_empty() => None,
            Ok(trailers) => {
                // Nobody asks for more after them.
                self.release();
                Some(Ok(Frame::trailers(trailers)))
            }
            Err(_) => {
                self.lease = None;
                Some(Err(AnswerFault::TrailersTooLarge))
            }
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
            let frame = match stream.poll_incoming(cx) {
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
                    if let Some(silence) = &stream.silence {
                        silence.stir();
                        stream.deadline = silence.due();
                    }
                    // A client that reads slowly from an upstream that is always ready never waits above.
                    if stream.lease.is_some() && Instant::now() >= stream.deadline {
                        stream.lease = None;
                        return Poll::Ready(Some(Err(AnswerFault::TimedOut)));
                    }
                    return Poll::Ready(Some(Ok(frame)));
                }
                Some(Ok(last)) => {
                    if let Some(last) = stream.let_follow(last) {
                        return Poll::Ready(Some(last));
                    }
                }
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
            Self::TrailersTooLarge => "the answer's trailers are too large",
            Self::Cut | Self::Upstream(_) => "the upstream's answer broke off",
        })
    }
}

impl std::error::Error for AnswerFault {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::CredentialEnded
            | Self::Cut
            | Self::Panicked
            | Self::TimedOut
            | Self::TrailersTooLarge => None,
            Self::Upstream(error) => Some(error),
        }
    }
}
