//! What is known of one exchange when it has ended.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use http::{Method, StatusCode, Version, request::Parts};

use super::{RequestId, RouteMetrics, Trace, UpstreamMetrics};
use crate::policy::Identity;

/// One exchange, filled as it proceeds and given to [`Telemetry::record`](super::Telemetry::record) once, when the answer's
/// body has ended. There is no place in it for a header, a cookie, a token or a query (LOG-1).
#[derive(Debug, Clone)]
pub struct Record {
    /// When the head had arrived, for durations.
    pub started: Instant,
    /// When the head had arrived, for the log.
    pub time: SystemTime,
    /// The request's name.
    pub request_id: RequestId,
    /// The other end of the socket.
    pub peer: IpAddr,
    /// Whom the request is charged to, once decided.
    pub client: Option<IpAddr>,
    /// The method as sent.
    pub method: Method,
    /// The protocol towards the client.
    pub version: Version,
    /// The ids of its spans, where it is traced.
    pub trace: Option<Box<Trace>>,
    /// The host asked for; kept only where [`Telemetry::access_log`](super::Telemetry::access_log) says so, or `trace` is there.
    pub host: Option<Box<str>>,
    /// The path asked for, without query; kept as `host` is. What follows a `?` or `#` is not written even if it is here.
    pub path: Option<Box<str>>,
    /// The route taken, once found.
    pub route: Option<Arc<RouteMetrics>>,
    /// The server that was asked.
    pub upstream: Option<Arc<UpstreamMetrics>>,
    /// The verified caller.
    pub caller: Option<Arc<Identity>>,
    /// The status of the answer.
    pub status: StatusCode,
    /// The code of the refusal; `None` for an admitted request.
    pub code: Option<&'static str>,
    /// The finer reason, for the log alone.
    pub reason: Option<&'static str>,
    /// The code of the refusal that a route not enforced only tells; `None` where there would have been none.
    pub unenforced: Option<&'static str>,
    /// From the head's arrival to the request's start at the upstream.
    pub upstream_asked: Option<Duration>,
    /// From the request's start at the upstream to the first byte of its answer.
    pub upstream_time: Option<Duration>,
    /// Bytes of the request's body.
    pub bytes_in: u64,
    /// Bytes of the answer's body.
    pub bytes_out: u64,
    /// How the exchange ended.
    pub ending: Ending,
}

/// How an exchange ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ending {
    /// The client went before the answer's end.
    ClientGone,
    /// The answer was sent to its end.
    #[default]
    Complete,
    /// The caller's token ended or was revoked.
    CredentialEnded,
    /// The gateway left before the end.
    Drained,
    /// Nothing went either way for too long.
    Idle,
    /// A fault of ours broke the answer off.
    Panicked,
    /// The upstream broke off within its answer.
    UpstreamAborted,
}

impl Record {
    /// The record of a request that has just come, of which nothing is known but its head.
    #[must_use]
    pub fn begin(request: &Parts, peer: IpAddr, request_id: RequestId) -> Self {
        Self {
            started: Instant::now(),
            time: SystemTime::now(),
            request_id,
            peer,
            client: None,
            method: request.method.clone(),
            version: request.version,
            trace: None,
            host: None,
            path: None,
            route: None,
            upstream: None,
            caller: None,
            status: StatusCode::INTERNAL_SERVER_ERROR,
            code: None,
            reason: None,
            unenforced: None,
            upstream_asked: None,
            upstream_time: None,
            bytes_in: 0,
            bytes_out: 0,
            ending: Ending::ClientGone,
        }
    }
}

impl Ending {
    /// The ending's name in logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ClientGone => "client_gone",
            Self::Complete => "complete",
            Self::CredentialEnded => "credential_ended",
            Self::Drained => "drained",
            Self::Idle => "idle",
            Self::Panicked => "panicked",
            Self::UpstreamAborted => "upstream_aborted",
        }
    }
}

impl From<&Record> for Record {
    /// A copy, for callers that keep theirs.
    fn from(record: &Record) -> Self {
        record.clone()
    }
}
