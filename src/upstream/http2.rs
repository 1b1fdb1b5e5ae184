//! HTTP/2 connections of a pool: each carries many exchanges at once, and an exchange that ends badly takes down its own
//! stream alone.

use std::{
    cell::{Cell, RefCell},
    error::Error,
    future::poll_fn,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    task::Poll,
    time::{Duration, Instant},
};

use futures_util::TryFutureExt;
use http::{
    HeaderValue, Request, Response, header,
    uri::{Authority, Scheme, Uri},
};
use hyper::{
    body::Incoming,
    client::conn::http2::{self, SendRequest},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::task::AbortHandle;

use super::{body::RequestBody, connect::Stream, lease::SendFault, pool::OpenCount};

/// What an upstream may send of one answer before somebody has read it, in bytes (UP-8).
const STREAM_WINDOW: u32 = 256 << 10;
/// What is kept of one request that the upstream does not take yet, in bytes (UP-8).
const SEND_BUFFER: usize = 256 << 10;
/// The largest header section of an answer, in bytes (UP-8).
const ANSWER_HEADER_BYTES_MAX: u32 = 64 << 10;
/// A silent peer is asked whether it is there so often, and must answer within that time again: a dead one is gone after 30 s
/// (FAULT-6).
const PING: Duration = Duration::from_secs(15);

type Driver = http2::Connection<TokioIo<Stream>, RequestBody, LocalExecutor>;

/// An open connection. Dropped, it closes when its last stream has ended.
#[derive(Debug)]
pub(super) struct Shared {
    sender: SendRequest<RequestBody>,
    /// Knows how many streams the peer takes at once. Gone when it has ended: with it go the requests that it still held.
    driver: Rc<RefCell<Option<Driver>>>,
    task: AbortHandle,
    scheme: Scheme,
    streams_max: usize,
    streams: Cell<usize>,
    /// When the last stream ended.
    since: Cell<Instant>,
    open: OpenCount,
    peer: Option<SocketAddr>,
}

/// One exchange's place on a connection.
#[derive(Debug)]
pub(super) struct Place(Rc<Shared>);

/// Runs what belongs to a connection on its worker's thread.
#[derive(Debug, Clone, Copy)]
pub(super) struct LocalExecutor;

impl Shared {
    /// Begins HTTP/2 on an open stream, for at most `streams_max` requests at once.
    pub(super) async fn open(
        stream: Stream,
        streams_max: usize,
        open: OpenCount,
    ) -> hyper::Result<Rc<Self>> {
        let peer = stream.peer();
        let scheme = match &stream {
            Stream::Tls(_) => Scheme::HTTPS,
            Stream::Tcp(_) | Stream::Unix(_) => Scheme::HTTP,
        };
        let (sender, driver) = builder(streams_max).handshake(TokioIo::new(stream)).await?;
        let driver = Rc::new(RefCell::new(Some(driver)));
        let task = tokio::task::spawn_local(drive(Rc::clone(&driver)));
        Ok(Rc::new(Self {
            sender,
            driver,
            task: task.abort_handle(),
            scheme,
            streams_max,
            streams: Cell::new(0),
            since: Cell::new(Instant::now()),
            open,
            peer,
        }))
    }

    /// Whether the peer takes no new requests on it.
    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Where it leads.
    pub(super) fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// Exchanges under way.
    pub(super) fn streams(&self) -> usize {
        self.streams.get()
    }

    /// Since when nothing is under way; `None` while something is.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        (self.streams.get() == 0).then(|| self.since.get())
    }

    /// How many more exchanges it may carry now.
    pub(super) fn room(&self) -> usize {
        let Some(peer) = (self.driver.try_borrow().ok())
            .and_then(|driver| Some(driver.as_ref()?.current_max_send_streams()))
        else {
            return 0;
        };
        // It has not said yet: what it does not take at once waits in the connection.
        let peer = if peer == 0 { usize::MAX } else { peer };
        let most = self.streams_max.min(peer);
        most.saturating_sub(self.streams.get())
    }

    /// Takes a place, whether or not there is room.
    pub(super) fn place(self: &Rc<Self>) -> Place {
        self.streams.set(self.streams.get() + 1);
        Place(Rc::clone(self))
    }
}

impl Place {
    /// How many more exchanges the connection may carry now.
    pub(super) fn room(&self) -> usize {
        self.0.room()
    }

    /// Sends a request on a stream of its own. Dropped, it resets that stream.
    pub(super) fn send(
        &self,
        mut request: Request<RequestBody>,
    ) -> impl Future<Output = Result<Response<Incoming>, SendFault>> + use<> {
        let host = tell_authority(&mut request, &self.0.scheme);
        let sent = self.0.sender.clone().try_send_request(request);
        sent.map_err(move |failure| {
            let mut fault = SendFault::from(failure);
            if let (Some(request), Some(host)) = (&mut fault.unsent, host) {
                tell_host(request, host);
            }
            fault
        })
    }
}

async fn drive(driver: Rc<RefCell<Option<Driver>>>) {
    let ended = poll_fn(|cx| match &mut *driver.borrow_mut() {
        Some(driver) => Pin::new(driver).poll(cx),
        None => Poll::Ready(Ok(())),
    });
    if let Err(error) = ended.await {
        tracing::debug!(%error, "upstream connection ended");
    }
    let ended = driver.borrow_mut().take();
    drop(ended);
}

fn builder(streams_max: usize) -> http2::Builder<LocalExecutor> {
    let mut builder = http2::Builder::new(LocalExecutor);
    let streams = u32::try_from(streams_max).unwrap_or(u32::MAX);
    // Answers that nobody reads must not hold up those that somebody does: the connection's window has room for all of them.
    let window = STREAM_WINDOW.saturating_mul(streams);
    builder
        .timer(TokioTimer::new())
        // The peer says how many it takes before any is sent: what it has not agreed to it would refuse.
        .initial_max_send_streams(0)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(window.min(i32::MAX.unsigned_abs()))
        .max_header_list_size(ANSWER_HEADER_BYTES_MAX)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        .keep_alive_while_idle(true);
    builder
}

/// Names the server as HTTP/2 does: by `:scheme` and `:authority` in place of `Host` (RFC 9113 §8.3.1). Gives the field that
/// was taken out; `None` where it stays, which is allowed to whoever forwards.
fn tell_authority(request: &mut Request<RequestBody>, scheme: &Scheme) -> Option<HeaderValue> {
    let host = request.headers().get(header::HOST)?;
    let authority = Authority::try_from(host.as_bytes()).ok()?;
    let mut parts = request.uri().clone().into_parts();
    parts.scheme = Some(scheme.clone());
    parts.authority = Some(authority);
    *request.uri_mut() = Uri::from_parts(parts).ok()?;
    request.headers_mut().remove(header::HOST)
}

/// Takes that back: the request may go out as HTTP/1.1 next.
fn tell_host(request: &mut Request<RequestBody>, host: HeaderValue) {
    let target = request.uri().path_and_query().cloned();
    if let Some(target) = target {
        *request.uri_mut() = target.into();
    }
    request.headers_mut().insert(header::HOST, host);
}

/// Whether the peer broke the rules of HTTP/2, or does not speak it.
pub(super) fn is_invalid(error: &hyper::Error) -> bool {
    fault(error).is_some_and(|fault| fault.is_library())
}

/// Whether the peer says that it did nothing with the request (RFC 9113 §8.7).
pub(super) fn is_unprocessed(error: &hyper::Error) -> bool {
    fault(error).is_some_and(|fault| {
        let refused = fault.reason() == Some(h2::Reason::REFUSED_STREAM);
        fault.is_remote() && (refused || fault.is_go_away())
    })
}

fn fault(error: &hyper::Error) -> Option<&h2::Error> {
    error.source()?.downcast_ref()
}

impl<F: Future + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let shared = &self.0;
        shared.streams.set(shared.streams.get().saturating_sub(1));
        shared.since.set(Instant::now());
        shared.open.pool().wake(1);
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.task.abort();
    }
}
