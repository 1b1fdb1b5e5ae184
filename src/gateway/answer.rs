//! The body of an answer: a few bytes of ours, or an upstream's stream, with the record that is written when it has ended.

use std::{
    fmt,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::Method;
use http_body::{Body, Frame, SizeHint};

use super::{
    contain::contain_poll,
    tunnel::Tunnel,
    vigil::{Vigil, WATCH_AFTER},
};
use crate::{
    moment,
    policy::Rejection,
    telemetry::{Ending, Record, Telemetry},
    upstream::{AnswerFault, AnswerStream},
};

/// An answer's body.
#[derive(Debug)]
pub struct Answer {
    content: Content,
    record: Option<Box<Recording>>,
}

/// Why an answer broke off; the client sees no proper end.
pub type AnswerError = AnswerFault;

#[derive(Debug)]
enum Content {
    Bytes(Bytes),
    /// No body: what follows the head is a tunnel, until it is taken.
    Tunnel(Option<Box<Tunnel>>),
    /// On the heap: an answer is handed on through a dozen layers.
    Upstream(Box<AnswerStream>),
}

/// A record under way. It is written when the last byte has been handed over, or when the body is dropped before.
pub(super) struct Recording {
    pub(super) record: Record,
    telemetry: Arc<Telemetry>,
    /// Bytes still to come, where that is known.
    remaining: Option<u64>,
    /// The watch over the caller's credential, where there is one.
    vigil: Option<Rc<Vigil>>,
    /// Completes when that credential ends. Made when the answer has gone on for a while.
    lapse: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

impl Answer {
    /// A body of ours.
    #[must_use]
    pub fn from_bytes(bytes: Bytes) -> Self {
        Self {
            content: Content::Bytes(bytes),
            record: None,
        }
    }

    /// A body that streams from an upstream.
    #[must_use]
    pub fn from_upstream(stream: Box<AnswerStream>) -> Self {
        Self {
            content: Content::Upstream(stream),
            record: None,
        }
    }

    /// The beginning of a tunnel.
    pub(super) fn from_tunnel(tunnel: Tunnel) -> Self {
        Self {
            content: Content::Tunnel(Some(Box::new(tunnel))),
            record: None,
        }
    }

    /// Takes the tunnel that begins when this answer's head has been sent, and with it the record.
    pub fn take_tunnel(&mut self) -> Option<Box<Tunnel>> {
        let Content::Tunnel(tunnel) = &mut self.content else {
            return None;
        };
        let mut tunnel = tunnel.take()?;
        if let Some(recording) = self.record.take() {
            tunnel.record(recording);
        }
        Some(tunnel)
    }

    /// Attaches the record of the exchange. The answer to a HEAD request has no body to wait for.
    #[must_use]
    pub(super) fn recorded(
        mut self,
        mut recording: Box<Recording>,
        is_head: bool,
        vigil: &Rc<Vigil>,
    ) -> Self {
        if is_head && let Content::Bytes(bytes) = &mut self.content {
            // hyper drops it in HTTP/1 alone; in HTTP/2 it would be sent, which is a stream error for the client.
            bytes.clear();
        }
        recording.remaining = if is_head || self.is_end_stream() {
            Some(0)
        } else {
            self.size_hint().exact()
        };
        let is_ours = matches!(self.content, Content::Bytes(_));
        let has_caller = recording.record.caller.is_some();
        recording.vigil = (!is_ours && has_caller).then(|| Rc::clone(vigil));
        self.record = Some(recording);
        self
    }

    fn count(&mut self, bytes: usize) {
        if let Some(recording) = &mut self.record {
            let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
            recording.record.bytes_out = recording.record.bytes_out.saturating_add(bytes);
            recording.remaining = recording
                .remaining
                .map(|remaining| remaining.saturating_sub(bytes));
        }
    }

    fn has_lapsed(&mut self, cx: &mut Context<'_>) -> bool {
        let recording = self.record.as_mut();
        recording.is_some_and(|recording| recording.has_lapsed(cx))
    }

    fn end(&mut self, ending: Ending) {
        if let Some(recording) = self.record.take() {
            recording.write(ending);
        }
    }
}

impl Content {
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, AnswerError>>> {
        match self {
            Self::Bytes(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Bytes(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Tunnel(_) => Poll::Ready(None),
            Self::Upstream(stream) => Pin::new(stream).poll_frame(cx),
        }
    }
}

impl Recording {
    /// Begins a record. On the heap from the beginning, where it stays.
    pub(super) fn begin(record: Record, telemetry: Arc<Telemetry>) -> Box<Self> {
        Box::new(Self {
            record,
            telemetry,
            remaining: None,
            vigil: None,
            lapse: None,
        })
    }

    /// Waits for the end of the caller's credential; never, where there is none.
    pub(super) fn lapse(&self) -> impl Future<Output = ()> + use<> {
        let watched = self.vigil.clone().zip(self.record.caller.clone());
        async move {
            match watched {
                Some((vigil, caller)) => vigil.lapse(caller).await,
                None => std::future::pending().await,
            }
        }
    }

    /// Whether the caller's credential has ended; wakes when it does, once the exchange has gone on for a while.
    fn has_lapsed(&mut self, cx: &mut Context<'_>) -> bool {
        if self.vigil.is_none() {
            return false;
        }
        if self.lapse.is_none() {
            if moment::recent().saturating_duration_since(self.record.started) < WATCH_AFTER {
                return false;
            }
            self.lapse = Some(Box::pin(self.lapse()));
        }
        let lapse = self.lapse.as_mut();
        lapse.is_some_and(|lapse| lapse.as_mut().poll(cx).is_ready())
    }

    pub(super) fn write(mut self: Box<Self>, ending: Ending) {
        self.record.ending = ending;
        self.telemetry.record(self.record);
    }
}

/// Whether nothing more is read from an HTTP/1 connection after this refusal: its body was not read to the end, or where the
/// request ends is in doubt. What follows might be part of it and is not to be taken for another request (MSG-1, MSG-11).
pub(super) fn ends_connection(rejection: &Rejection, method: &Method, has_body: bool) -> bool {
    has_body
        || matches!(*method, Method::CONNECT | Method::TRACE)
        || matches!(
            rejection,
            Rejection::BadRequest(_) | Rejection::HeadersTooLarge | Rejection::UriTooLong
        )
}

impl Body for Answer {
    type Data = Bytes;
    type Error = AnswerError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, AnswerError>>> {
        let answer = self.get_mut();
        let content = &mut answer.content;
        let telemetry = answer
            .record
            .as_ref()
            .map(|recording| &*recording.telemetry);
        let polled = contain_poll(telemetry, || content.poll_frame(cx));
        if matches!(answer.content, Content::Upstream(_))
            && !matches!(polled, Poll::Ready(None))
            && answer.has_lapsed(cx)
        {
            // With its connection: nothing more of it is read.
            answer.content = Content::Bytes(Bytes::new());
            answer.end(Ending::CredentialEnded);
            return Poll::Ready(Some(Err(AnswerFault::CredentialEnded)));
        }
        let frame = std::task::ready!(polled);
        match &frame {
            // Nobody asks for more after them.
            Some(Ok(frame)) if frame.is_trailers() => answer.end(Ending::Complete),
            Some(Ok(frame)) => answer.count(frame.data_ref().map_or(0, Bytes::len)),
            Some(Err(AnswerError::Panicked)) => answer.end(Ending::Panicked),
            Some(Err(_)) => answer.end(Ending::UpstreamAborted),
            None => answer.end(Ending::Complete),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Bytes(bytes) => bytes.is_empty(),
            Content::Tunnel(_) => true,
            Content::Upstream(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Bytes(bytes) => {
                SizeHint::with_exact(u64::try_from(bytes.len()).unwrap_or(u64::MAX))
            }
            Content::Tunnel(_) => SizeHint::with_exact(0),
            Content::Upstream(stream) => stream.size_hint(),
        }
    }
}

impl Drop for Answer {
    /// hyper drops a body of known length after its last byte without asking for the end.
    fn drop(&mut self) {
        let complete = self
            .record
            .as_ref()
            .is_some_and(|recording| recording.remaining == Some(0));
        self.end(if complete {
            Ending::Complete
        } else {
            Ending::ClientGone
        });
    }
}

impl fmt::Debug for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recording")
            .field("remaining", &self.remaining)
            .finish_non_exhaustive()
    }
}
