//! A connection that speaks HTTP/1.1: talk and rest by turns.
//!
//! hyper keeps 8 KiB for reading and as much for writing for as long as its connection lives. Most kept connections are silent most
//! of the time, so hyper is taken off one that has been silent for a second, and put on again when something comes. What is left
//! meanwhile is the TLS session, the socket and a timer.

use std::{
    cell::Cell,
    convert::Infallible,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{HeaderValue, Request, header::CONNECTION};
use http_body::Body;
use hyper::{
    body::Incoming,
    server::conn::http1::Connection,
    service::{HttpService, service_fn},
};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;

use super::{
    connection::{Ended, Graceful, Marked, answer, drive},
    farewell::{FAREWELL, linger, refuse_slow_head},
    segments::Gathered,
    terms::Terms,
    vitals::{Phase, Stream, Vitals, Watched},
    worker::Worker,
};
use crate::{gateway::Peer, socket::Socket};

/// Serves a connection until it ends.
pub(super) async fn serve(
    worker: &Rc<Worker>,
    terms: &Terms,
    stream: Box<TlsStream<Socket<Gathered>>>,
    peer: &Peer,
) {
    let vitals = Vitals::new(terms.timeouts, false);
    let stream = Watched::new(stream, Rc::clone(&vitals))
        .with_early(Rc::clone(peer.early()))
        .under(Arc::clone(&worker.memory));
    // A connection that has just been made and says nothing rests, too.
    let mut resting = Some(stream);
    while let Some(stream) = resting {
        let Some(stream) = rest(worker, &vitals, stream).await else {
            return;
        };
        // On the heap, so that a resting connection has no room for it.
        resting = Box::pin(talk(worker, terms, &vitals, peer, stream)).await;
    }
}

/// Waits until something comes; `None` when the connection is to end, and has ended then.
async fn rest(worker: &Worker, vitals: &Vitals, stream: Stream) -> Option<Stream> {
    vitals.set_resting(true);
    let mut resting = Resting {
        stream: &stream,
        is_ending: false,
        is_over: false,
    };
    let ended = drive(worker, vitals, Pin::new(&mut resting)).await;
    let is_over = resting.is_over;
    vitals.set_resting(false);
    match ended {
        Ended::Closed if is_over => return Some(stream),
        Ended::Closed => {
            let _ = timeout(FAREWELL, linger(stream.undriven())).await;
        }
        Ended::Expired(_) | Ended::Resting => {}
    }
    None
}

/// Answers requests. Gives the stream back when the connection has fallen silent; `None` when it has ended.
async fn talk(
    worker: &Rc<Worker>,
    terms: &Terms,
    vitals: &Rc<Vitals>,
    peer: &Peer,
    stream: Stream,
) -> Option<Stream> {
    let tunnel = Cell::new(None);
    let service = service_fn(async |request| {
        if is_last(&request) {
            vitals.expect_no_more();
        }
        let mut response = answer(worker, vitals, peer, request).await;
        tunnel.set(response.body_mut().answer.take_tunnel());
        if worker.is_leaving() {
            // A switch of protocols has said what it needs there.
            let close = HeaderValue::from_static("close");
            response.headers_mut().entry(CONNECTION).or_insert(close);
        }
        Ok::<_, Infallible>(response)
    });
    let mut connection = terms.http1.serve_connection(TokioIo::new(stream), service);
    let ended = drive(worker, vitals, Pin::new(&mut connection)).await;
    if ended == Ended::Resting {
        // Nothing is under way and nothing unwritten, so it ends at once, the stream untouched.
        Pin::new(&mut connection).graceful_shutdown();
        let parts = timeout(FAREWELL, connection.without_shutdown()).await;
        let parts = parts.ok()?.ok()?;
        let mut stream = parts.io.into_inner();
        stream.put_back(&parts.read_buf);
        return Some(stream);
    }
    let parts = connection.into_parts();
    let (mut stream, early) = (parts.io.into_inner().undriven(), parts.read_buf);
    let is_over = early.is_empty() && vitals.is_over() && !stream.has_unread();
    if let (Ended::Closed, Some(tunnel)) = (ended, tunnel.take()) {
        // On the heap: few connections become a tunnel, and each would have room for one, as much as a buffer of its TLS session. The
        // allocator would put both side by side, and what is freed between buffers that stay does not go back to the system.
        Box::pin(tunnel.join(&mut stream, early, worker.drain.requested())).await;
    }
    let _ = match ended {
        // Nothing is left unread, and nothing comes: a socket that is closed now resets nobody.
        Ended::Closed if is_over => Ok(Ok(())),
        Ended::Closed => timeout(FAREWELL, linger(stream)).await,
        Ended::Expired(Phase::Head) => {
            let request_id = worker.lane.request_ids.next();
            timeout(FAREWELL, refuse_slow_head(stream, &request_id)).await
        }
        Ended::Expired(Phase::Exchange | Phase::Idle) | Ended::Resting => Ok(Ok(())),
    };
    None
}

/// Whether a client has said that it sends nothing after a request: it asks for the connection to be closed (RFC 9112 §9.6), and for
/// nothing else of it, and there is no body.
fn is_last<B: Body>(request: &Request<B>) -> bool {
    let mut options = request.headers().get_all(CONNECTION).iter();
    let closes = options
        .next()
        .is_some_and(|option| option.as_bytes().eq_ignore_ascii_case(b"close"));
    closes && options.next().is_none() && request.body().is_end_stream()
}

/// A connection of which nothing is left but its stream. It is over when something comes, or has ended when it was asked to.
struct Resting<'s> {
    stream: &'s Stream,
    is_ending: bool,
    is_over: bool,
}

impl Future for Resting<'_> {
    type Output = hyper::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        if !self.is_ending {
            ready!(self.stream.poll_readable(cx));
            self.is_over = true;
        }
        Poll::Ready(Ok(()))
    }
}

impl Graceful for Resting<'_> {
    fn graceful_shutdown(mut self: Pin<&mut Self>) {
        self.is_ending = true;
    }
}

impl<S> Graceful for Connection<TokioIo<Stream>, S>
where
    S: HttpService<Incoming, ResBody = Marked>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn graceful_shutdown(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::{Empty, Full};

    use super::*;

    #[test]
    fn a_request_is_the_last_where_its_client_says_so_and_sends_nothing_more() {
        let last = |options: &[&str]| {
            let mut request = Request::new(Empty::<Bytes>::new());
            for option in options {
                let option = HeaderValue::from_str(option).unwrap();
                request.headers_mut().append(CONNECTION, option);
            }
            is_last(&request)
        };
        assert!(last(&["close"]) && last(&["Close"]));
        assert!(!last(&[]));
        assert!(!last(&["keep-alive"]));
        assert!(!last(&["close, upgrade"]), "another protocol may follow");
        assert!(!last(&["upgrade", "close"]));
        assert!(!last(&["close", "upgrade"]));
        let mut request = Request::new(Full::new(Bytes::from_static(b"a body")));
        let close = HeaderValue::from_static("close");
        request.headers_mut().insert(CONNECTION, close);
        assert!(!is_last(&request), "it may be on its way yet");
    }
}
