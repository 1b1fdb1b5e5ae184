//! What a connection is made under: it keeps these terms to its end, whatever is loaded meanwhile.

use std::{
    cell::RefCell,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use hyper::{
    rt::{Sleep, Timer},
    server::conn::{http1, http2},
};
use hyper_util::rt::TokioTimer;

use super::{
    settings::{ServerSettings, Timeouts},
    worker::LocalExecutor,
};
use crate::{limit::settings::Quota, moment, policy::TrustedProxies};

/// HTTP/2 flow-control windows: what one stream and one connection may send unread, and so keep in memory. An upload gets one
/// stream window through in each round trip.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 512 << 10;
/// Streams that a client may reset before we have looked at them (rapid reset), and that we may reset for its faults.
const PENDING_RESETS_MAX: usize = 20;
const LOCAL_RESETS_MAX: usize = 128;
/// What hyper buffers of an answer on one HTTP/2 stream.
const SEND_BUFFER: usize = 64 << 10;
/// What the listeners read of a head beyond its limits: the gateway itself refuses what is a little too large, with a
/// problem body and a record; hyper refuses what is larger still with a bare status.
const HEAD_SLACK: usize = 8 << 10;

/// A client with a stream open is asked for a sign of life after this silence at the latest, and has `timeouts.header` to answer
/// (FAULT-6).
const PING_AFTER: Duration = Duration::from_secs(30);

/// A client who takes nothing for `timeouts.body_idle` is let go by the gateway, where it has something to send. After this time
/// more the kernel does so, with what it has taken over and nobody acknowledges.
const GONE_AFTER: Duration = Duration::from_secs(30);

/// The terms of a connection.
#[derive(Debug)]
pub(super) struct Terms {
    settings: Arc<ServerSettings>,
    /// Who may connect, and must say for whom, where the PROXY protocol is required.
    pub(super) relays: Option<TrustedProxies>,
    pub(super) timeouts: Timeouts,
    /// What HTTP/2 clients may send of control frames.
    pub(super) control_frames: Quota,
    pub(super) http1: http1::Builder,
    pub(super) http2: http2::Builder<LocalExecutor>,
}

/// The terms of new connections, as one worker knows them: made anew when the configuration is another one.
#[derive(Debug)]
pub(super) struct CurrentTerms {
    settings: Arc<ArcSwap<ServerSettings>>,
    made: RefCell<Rc<Terms>>,
}

impl CurrentTerms {
    /// Follows these settings.
    pub(super) fn of(settings: &Arc<ArcSwap<ServerSettings>>) -> Self {
        Self {
            made: RefCell::new(Rc::new(Terms::new(settings.load_full()))),
            settings: Arc::clone(settings),
        }
    }

    /// The terms of a connection that is made now.
    pub(super) fn get(&self) -> Rc<Terms> {
        let mut made = self.made.borrow_mut();
        let settings = self.settings.load();
        if !Arc::ptr_eq(&made.settings, &settings) {
            *made = Rc::new(Terms::new(Arc::clone(&settings)));
        }
        Rc::clone(&made)
    }

    /// How long open exchanges may go on when the listeners close.
    pub(super) fn drain_timeout(&self) -> Duration {
        self.settings.load().drain_timeout
    }
}

impl Terms {
    /// How long the kernel goes on with a client that acknowledges nothing.
    pub(super) fn gone_after(&self) -> Duration {
        self.timeouts.body_idle + GONE_AFTER
    }

    fn new(settings: Arc<ServerSettings>) -> Self {
        Self {
            relays: settings
                .proxy_protocol
                .then(|| settings.trusted_proxies.clone()),
            timeouts: settings.timeouts,
            control_frames: settings.h2_control_frames,
            http1: http1_builder(&settings),
            http2: http2_builder(&settings),
            settings,
        }
    }
}

/// The timer of HTTP/2 connections. hyper asks it for the time at each request, only to know since when a client is silent.
struct TurnTimer(TokioTimer);

impl Timer for TurnTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.0.sleep(duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        self.0.sleep_until(deadline)
    }

    fn now(&self) -> Instant {
        moment::recent()
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn Sleep>>, new_deadline: Instant) {
        self.0.reset(sleep, new_deadline);
    }
}

fn http1_builder(settings: &ServerSettings) -> http1::Builder {
    let head_bytes = settings.head.header_bytes + settings.head.uri_bytes + HEAD_SLACK;
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        // The connection's vitals watch the head; hyper's own timer would also run while a kept connection is silent.
        .header_read_timeout(None)
        .max_header_size(head_bytes)
        .max_buf_size(head_bytes);
    // Up to a hundred fields hyper parses on its stack; more cost an allocation.
    if settings.head.header_count > 100 {
        builder.max_headers(settings.head.header_count);
    }
    builder
}

fn http2_builder(settings: &ServerSettings) -> http2::Builder<LocalExecutor> {
    let head_bytes = settings.head.header_bytes + settings.head.uri_bytes + HEAD_SLACK;
    let mut builder = http2::Builder::new(LocalExecutor);
    builder
        .timer(TurnTimer(TokioTimer::new()))
        .max_concurrent_streams(settings.h2_streams)
        .max_header_list_size(u32::try_from(head_bytes).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .max_local_error_reset_streams(LOCAL_RESETS_MAX)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(settings.timeouts.keep_alive.min(PING_AFTER))
        .keep_alive_timeout(settings.timeouts.header);
    builder
}
