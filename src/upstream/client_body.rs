//! A client's body that is let go of gently.
//!
//! Over HTTP/2 an answer may be complete before the request is. Letting go of the body then resets the stream (RFC 9113
//! §8.1 allows it, with `NO_ERROR`), and clients that are still sending take that for a fault and lose the answer: curl before
//! 8 and httpx among them. So what was not read is read a little longer and thrown away, as a socket's last bytes are for
//! HTTP/1.1.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::Version;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::timeout;

/// How long a body that nobody reads any more may go on.
const FAREWELL: Duration = Duration::from_secs(1);

/// The most that is read of it, in bytes.
const FAREWELL_BYTES_MAX: usize = 64 << 10;

/// The body of a client's request. Dropped before its end, an HTTP/2 stream stays open for a moment, so that its client can
/// read the answer: one second and 64 KiB at most. It counts among the connection's streams for so long.
#[derive(Debug, Default)]
pub struct ClientBody {
    incoming: Option<Incoming>,
    is_stream: bool,
}

impl ClientBody {
    /// Takes the body of a request of this version. It must be dropped on the worker's thread.
    #[must_use]
    pub fn new(incoming: Incoming, version: Version) -> Self {
        Self {
            incoming: Some(incoming),
            is_stream: version >= Version::HTTP_2,
        }
    }
}

impl ClientBody {
    /// Whether a body that yields nothing more has come to its own end. A stream that its client resets with `NO_ERROR`
    /// yields nothing more, either.
    pub(super) fn is_whole(&self) -> bool {
        !self.is_stream || self.is_end_stream()
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.incoming {
            Some(incoming) => Pin::new(incoming).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for ClientBody {
    fn drop(&mut self) {
        if self.is_stream
            && let Some(rest) = self.incoming.take().filter(|body| !body.is_end_stream())
        {
            // Ends by itself within a second, or with the connection.
            tokio::task::spawn_local(timeout(FAREWELL, discard(rest)));
        }
    }
}

async fn discard(mut body: Incoming) {
    let mut left = FAREWELL_BYTES_MAX;
    while left > 0 {
        let Some(Ok(frame)) = body.frame().await else {
            return;
        };
        left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
    }
}
