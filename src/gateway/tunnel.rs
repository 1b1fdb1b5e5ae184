//! A WebSocket under way: bytes both ways, until either side ends it or the gateway must.

use std::{cell::Cell, fmt, io, pin::pin, time::Duration};

use bytes::Bytes;
use http::{Response, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, copy_bidirectional_with_sizes},
    time::timeout,
};

use super::{
    Answer,
    answer::Recording,
    frames::close_frame,
    meter::{Meter, Metered},
};
use crate::{
    policy::Streams,
    telemetry::{Ending, OpenTunnel, Telemetry},
    upstream::{Handshake, Switched},
};

/// What is read from either side at once.
const BUFFER: usize = 8 << 10;

/// The longest wait for a client to take a close frame.
const FAREWELL: Duration = Duration::from_secs(1);

/// A client's connection and an upstream's that are to be joined. Dropped, it closes the upstream's and writes the record.
pub struct Tunnel {
    upstream: Switched,
    /// The client's side, where that is a stream of HTTP/2. In HTTP/1.1 it is the connection itself.
    client: Option<OnUpgrade>,
    idle_timeout: Duration,
    log: Log,
    open: OpenTunnel,
}

/// The record of a tunnel, written when this is dropped.
struct Log {
    recording: Option<Box<Recording>>,
    meter: Meter,
    ending: Cell<Ending>,
}

/// Why the gateway ends a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// The gateway leaves.
    Drain,
    /// Nothing went either way for too long.
    Idle,
}

impl Tunnel {
    /// A tunnel to be. `client` is the client's stream of HTTP/2.
    pub(super) fn new(
        upstream: Switched,
        client: Option<OnUpgrade>,
        streams: Streams,
        telemetry: &Telemetry,
    ) -> Self {
        Self {
            upstream,
            client,
            idle_timeout: streams.idle_timeout,
            log: Log {
                recording: None,
                meter: Meter::new(),
                ending: Cell::new(Ending::ClientGone),
            },
            open: telemetry.open_tunnel(),
        }
    }

    /// The answer that begins it: with the upstream's `101` for HTTP/1.1, and what HTTP/2 says in its place (RFC 8441 §5).
    pub(super) fn answer<B>(self, upstream: Response<B>) -> Response<Answer> {
        let mut answer = upstream.map(|_| ());
        if self.client.is_some() {
            *answer.status_mut() = StatusCode::OK;
            answer.headers_mut().remove(header::SEC_WEBSOCKET_ACCEPT);
        } else {
            Handshake::mark(answer.headers_mut());
        }
        answer.map(|()| Answer::from_tunnel(self))
    }

    /// Attaches the record of the exchange.
    pub(super) fn record(&mut self, recording: Box<Recording>) {
        self.log.recording = Some(recording);
    }

    /// Joins the upstream with a client's connection that is no longer HTTP. `early` is what was read of the client already,
    /// `drain` completes when the gateway is to leave. What is left of the stream is the caller's to close.
    pub async fn join<S>(self, client: &mut S, early: Bytes, drain: impl Future<Output = ()>)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let Self {
            upstream,
            idle_timeout,
            log,
            open: _open,
            ..
        } = self;
        let (mut upstream, _lease) = match upstream.open().await {
            Ok(opened) => opened,
            Err(error) => {
                tracing::debug!(%error, "an upstream left right after the handshake");
                log.ending.set(Ending::UpstreamAborted);
                return;
            }
        };
        let meter = &log.meter;
        // Should nobody come to say how it ended.
        log.ending.set(Ending::Drained);
        let mut client = Metered::new(client, early, meter);
        let outcome = {
            let copy = copy_bidirectional_with_sizes(&mut client, &mut upstream, BUFFER, BUFFER);
            let mut order = pin!(order(meter, idle_timeout, drain));
            tokio::select! {
                copied = copy => Err(copied),
                order = &mut order => Ok(order),
            }
        };
        // Before the farewell: nothing of the client goes further, and its upstream knows.
        drop(upstream);
        match outcome {
            Ok(order) => {
                log.ending.set(order.ending());
                if meter.takes_another_frame() {
                    let _ = timeout(FAREWELL, say(client.stream(), order)).await;
                }
            }
            Err(Ok(_)) => log.ending.set(Ending::Complete),
            Err(Err(error)) => {
                log.ending.set(Ending::ClientGone);
                tracing::debug!(%error, "a tunnel broke off");
            }
        }
    }

    /// Joins the upstream with the stream of HTTP/2 that the request came on.
    pub async fn join_stream(mut self, drain: impl Future<Output = ()>) {
        let Some(client) = self.client.take() else {
            return;
        };
        match client.await {
            Ok(stream) => {
                let mut stream = TokioIo::new(stream);
                self.join(&mut stream, Bytes::new(), drain).await;
                let _ = timeout(FAREWELL, stream.shutdown()).await;
            }
            Err(error) => tracing::debug!(%error, "a client left right after the handshake"),
        }
    }
}

/// Waits for a reason to end a tunnel, and then for a place where it can be told. A tunnel that has been silent too long has no
/// such place to come.
async fn order(meter: &Meter, idle_timeout: Duration, drain: impl Future<Output = ()>) -> Order {
    let order = tokio::select! {
        () = meter.silence(idle_timeout) => Order::Idle,
        () = drain => Order::Drain,
    };
    match order {
        Order::Idle => {}
        // The connection's own deadline ends it where no frame does.
        Order::Drain => meter.frame_end().await,
    }
    order
}

async fn say<S: AsyncWrite + Unpin>(client: &mut S, order: Order) -> io::Result<()> {
    let (status, text) = order.close();
    client.write_all(&close_frame(status, text)).await?;
    client.flush().await
}

impl Order {
    fn ending(self) -> Ending {
        match self {
            Self::Drain => Ending::Drained,
            Self::Idle => Ending::Idle,
        }
    }

    /// Status and text of the close frame (RFC 6455 §7.4.1).
    fn close(self) -> (u16, &'static str) {
        match self {
            Self::Drain => (1001, "the gateway restarts"),
            Self::Idle => (1001, "idle for too long"),
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if let Some(mut recording) = self.recording.take() {
            let (from_client, to_client) = self.meter.bytes();
            recording.record.bytes_in = from_client;
            recording.record.bytes_out = to_client;
            recording.write(self.ending.get());
        }
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tunnel(..)")
    }
}
