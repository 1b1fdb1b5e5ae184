//! One client connection, from accept to close: handshake, requests, deadlines, drain.

use std::{
    convert::Infallible,
    future::poll_fn,
    io,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    time::{sleep_until, timeout_at},
};
use tokio_rustls::server::TlsStream;

use super::{
    caps::ConnectionSlot,
    frames::FrameBudget,
    http1,
    proxy_protocol::{self, Relayed},
    segments::Gathered,
    terms::Terms,
    vitals::{ExchangeMark, Phase, Stream, Verdict, Vitals, Watched},
    worker::Worker,
};
use crate::{
    gateway::{Answer, AnswerError, Inbound, Peer, Tunnel, contain},
    limit::MemoryStage,
    policy::PeerIp,
    respond::answer::detach,
    socket::Socket,
    telemetry::HandshakeResult,
};

/// Why a connection is no longer driven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// Either side closed it.
    Closed,
    /// A phase went on too long.
    Expired(Phase),
    /// It has been silent long enough to give its buffers back.
    Resting,
}

/// Serves a connection until it ends. Never fails: what a client does wrong is its own loss.
pub(super) async fn serve(
    worker: Rc<Worker>,
    terms: Rc<Terms>,
    mut stream: TcpStream,
    mut peer: PeerIp,
    mut slot: ConnectionSlot,
) {
    // One deadline for all that comes before the first byte of HTTP (NET-3).
    let deadline = tokio::time::Instant::now() + terms.timeouts.handshake;
    let _open = worker.open_connections.open();
    if terms.relays.is_some() {
        let named = timeout_at(deadline, client(&worker, &mut stream, peer, &mut slot)).await;
        peer = match named {
            Ok(Some(client)) => client,
            Ok(None) => return,
            Err(_elapsed) => return worker.telemetry.handshake(HandshakeResult::TimedOut),
        };
    }
    // On the heap, each part of a connection's life for itself: one that is silent has no room for a handshake.
    let accepted = Box::pin(async {
        let (stream, policy) = worker
            .tls
            .accept(Socket::new(Gathered::new(stream)))
            .await?;
        Ok::<_, io::Error>((Box::new(stream), policy))
    });
    let accepted = timeout_at(deadline, accepted).await;
    let (stream, policy) = match accepted {
        Ok(Ok(accepted)) => accepted,
        Ok(Err(error)) => {
            worker.telemetry.handshake(HandshakeResult::Failed);
            tracing::debug!(%error, peer = %peer.ip(), "TLS handshake failed");
            return;
        }
        Err(_elapsed) => {
            worker.telemetry.handshake(HandshakeResult::TimedOut);
            return;
        }
    };
    worker.telemetry.handshake(HandshakeResult::Completed);
    let last_token = worker.lane.last_tokens.of_connection();
    let peer = Peer::new(peer.ip(), policy, last_token);
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        Box::pin(serve_http2(&worker, &terms, stream, Rc::new(peer))).await;
    } else {
        http1::serve(&worker, &terms, stream, &peer).await;
    }
}

/// Reads for whom a proxy has opened a connection; `None` when it does not say so properly (NET-10), or when that client has as
/// many connections as it may (NET-2). From here on the client is the peer.
async fn client(
    worker: &Worker,
    stream: &mut TcpStream,
    proxy: PeerIp,
    slot: &mut ConnectionSlot,
) -> Option<PeerIp> {
    let client = match proxy_protocol::read(stream).await {
        Ok(Relayed::From(address)) => PeerIp::new(address),
        Ok(Relayed::Itself) => proxy,
        Err(fault) => {
            worker.telemetry.handshake(HandshakeResult::NotRelayed);
            tracing::debug!(error = %fault, proxy = %proxy.ip(), "connection closed");
            return None;
        }
    };
    if !slot.charge(client) {
        tracing::debug!(peer = %client.ip(), "connection closed: a cap is reached");
        return None;
    }
    Some(client)
}

async fn serve_http2(
    worker: &Rc<Worker>,
    terms: &Terms,
    stream: Box<TlsStream<Socket<Gathered>>>,
    peer: Rc<Peer>,
) {
    let vitals = Vitals::new(terms.timeouts, true);
    let budget = FrameBudget::new(terms.control_frames, Instant::now());
    let stream = Watched::with_budget(stream, Rc::clone(&vitals), budget);
    let stream = TokioIo::new(stream.under(Arc::clone(&worker.memory)));
    let service = {
        let (worker, vitals) = (Rc::clone(worker), Rc::clone(&vitals));
        service_fn(move |request| {
            let (worker, vitals, peer) = (Rc::clone(&worker), Rc::clone(&vitals), Rc::clone(&peer));
            async move {
                let mut response = answer(&worker, &vitals, &peer, request).await;
                if let Some(tunnel) = response.body_mut().answer.take_tunnel() {
                    join_stream(tunnel, worker, vitals.begin_exchange());
                }
                Ok::<_, Infallible>(response)
            }
        })
    };
    let mut builder = terms.http2.clone();
    if worker.gateway.load().routes.have_websockets() {
        builder.enable_connect_protocol();
    }
    let connection = pin!(builder.serve_connection(stream, service));
    drive(worker, &vitals, connection).await;
    if vitals.is_flooded() {
        worker.telemetry.flooded();
        tracing::debug!("connection closed: too many HTTP/2 control frames");
    }
}

/// Serves a tunnel on a stream of HTTP/2. It ends with the stream at the latest, and the stream with its connection.
fn join_stream(tunnel: Box<Tunnel>, worker: Rc<Worker>, mark: ExchangeMark) {
    tokio::task::spawn_local(async move {
        let _mark = mark;
        tunnel.join_stream(worker.drain.requested()).await;
    });
}

/// Answers one request. The exchange lasts until the answer's body has ended.
pub(super) async fn answer(
    worker: &Rc<Worker>,
    vitals: &Rc<Vitals>,
    peer: &Peer,
    request: Request<Incoming>,
) -> Response<Marked> {
    let mark = vitals.begin_exchange();
    let gateway = worker.gateway.load_full();
    let mut inbound = Inbound::new(&worker.lane, peer, request, vitals.take_fragment());
    // On the heap at once: the future is large, and each layer around it would copy it. `Box::pin` would, once.
    let exchange = Box::into_pin(Box::write(Box::new_uninit(), gateway.handle(&mut inbound)));
    let response = contain(&worker.telemetry, &worker.lane.request_ids, exchange).await;
    response.map(|answer| Marked { answer, mark })
}

/// Polls a connection to its end. The timer is touched only when a phase may be too long, the drain only when it begins.
pub(super) async fn drive<C: Graceful>(
    worker: &Worker,
    vitals: &Vitals,
    mut connection: Pin<&mut C>,
) -> Ended {
    let first_look = vitals.due().unwrap_or_else(Instant::now);
    let mut timer = pin!(sleep_until(first_look.into()));
    let place = worker.drain.register();
    let (mut armed, mut draining) = (false, false);
    poll_fn(move |cx| {
        place.wake_by(cx.waker());
        if worker.memory.is_at(MemoryStage::Cutting) && place.has_turn() {
            worker.telemetry.shed();
            return Poll::Ready(Ended::Expired(Phase::Exchange));
        }
        loop {
            if let Poll::Ready(outcome) = connection.as_mut().poll(cx) {
                if let Err(error) = outcome {
                    if error.is_parse() {
                        worker.telemetry.head_malformed();
                    }
                    tracing::debug!(%error, "client connection ended");
                }
                return Poll::Ready(Ended::Closed);
            }
            // Only now: a request that has arrived has been read, and is not lost with a connection that looked silent.
            if draining || !should_end(worker, vitals) {
                break;
            }
            draining = true;
            connection.as_mut().graceful_shutdown();
        }
        if let Some(latest) = vitals.look_before()
            && timer.deadline() > latest.into()
        {
            timer.as_mut().reset(latest.into());
            armed = false;
        }
        while !armed || timer.is_elapsed() {
            armed = timer.as_mut().poll(cx).is_pending();
            if armed {
                break;
            }
            match vitals.verdict(Instant::now()) {
                Verdict::Look(due) => timer.as_mut().reset(due.into()),
                Verdict::Rest => return Poll::Ready(Ended::Resting),
                Verdict::TooOld => {
                    vitals.retire();
                    connection.as_mut().graceful_shutdown();
                    // The connection may have ended by this; it says so when it is polled.
                    cx.waker().wake_by_ref();
                }
                Verdict::Expired(phase) => return Poll::Ready(Ended::Expired(phase)),
                Verdict::WriteStalled => return Poll::Ready(Ended::Expired(Phase::Exchange)),
            }
        }
        Poll::Pending
    })
    .await
}

/// Whether a connection is to end, for the gateway leaves or memory is scarce, and may: without a request lost that is on its way.
fn should_end(worker: &Worker, vitals: &Vitals) -> bool {
    let leaves = worker.drain.ends(vitals.is_multiplexed());
    if leaves {
        vitals.leave();
    }
    (leaves || worker.memory.is_at(MemoryStage::Lean)) && vitals.may_end(Instant::now())
}

/// A connection that can be asked to end after what is under way.
pub(super) trait Graceful: Future<Output = hyper::Result<()>> {
    fn graceful_shutdown(self: Pin<&mut Self>);
}

impl<S> Graceful
    for hyper::server::conn::http2::Connection<TokioIo<Stream>, S, super::worker::LocalExecutor>
where
    S: hyper::service::HttpService<Incoming, ResBody = Marked>,
    S::Future: 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn graceful_shutdown(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// An answer's body that holds its connection's exchange open until it is dropped.
#[derive(Debug)]
pub struct Marked {
    pub(super) answer: Answer,
    mark: ExchangeMark,
}

impl Body for Marked {
    type Data = Bytes;
    type Error = AnswerError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, AnswerError>>> {
        let this = self.get_mut();
        this.mark.clients_turn(false);
        let mut frame = Pin::new(&mut this.answer).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &mut frame
            && let Some(trailers) = frame.trailers_mut()
        {
            detach(trailers);
        }
        // hyper holds a piece of an HTTP/2 answer until a window is open, and the body with it, were it the last piece.
        this.mark
            .clients_turn(matches!(frame, Poll::Ready(Some(Ok(_)))));
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.answer.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.answer.size_hint()
    }
}
