//! What the status page and `/status.json` say, row by row.

use serde::Serialize;

use super::units::{Bytes, Count, Millis, Moment, Name, Rate, Share, Span};
use crate::admin::Problem;

/// All of it. Numbers of programs: rates are in a second, durations in milliseconds, times in seconds since 1970.
#[derive(Debug, Serialize)]
pub(super) struct Status {
    pub(super) version: &'static str,
    pub(super) time: Moment,
    pub(super) started_at: Moment,
    pub(super) uptime: Span,
    pub(super) state: &'static str,
    pub(super) problems: Vec<Problem>,
    pub(super) degraded: Vec<Problem>,
    pub(super) last_reload: Option<ReloadRow>,
    pub(super) traffic: Traffic,
    pub(super) decisions: Vec<Counted>,
    pub(super) limits: Vec<Counted>,
    pub(super) upstreams: Vec<UpstreamRow>,
    pub(super) routes: Vec<RouteRow>,
    pub(super) routes_left_out: usize,
    pub(super) issuers: Vec<IssuerRow>,
    pub(super) signing_keys: Vec<KeyRow>,
    pub(super) certificates: Vec<CertificateRow>,
    pub(super) node: NodeRow,
    pub(super) refusals: Vec<RefusalRow>,
}

/// What goes on, over the last ten seconds; the cache over the last minute.
#[derive(Debug, Serialize)]
pub(super) struct Traffic {
    pub(super) requests: Rate,
    pub(super) refused: Rate,
    pub(super) failed: Rate,
    pub(super) p50: Millis,
    pub(super) p90: Millis,
    pub(super) p99: Millis,
    pub(super) cache_hits: Share,
    pub(super) connections: Count,
    pub(super) tunnels: Count,
}

/// Something that is counted by name.
#[derive(Debug, Serialize)]
pub(super) struct Counted {
    pub(super) name: &'static str,
    pub(super) last_minute: Count,
    pub(super) total: Count,
}

#[derive(Debug, Serialize)]
pub(super) struct ReloadRow {
    pub(super) at: Moment,
    pub(super) result: &'static str,
}

#[derive(Debug, Serialize)]
pub(super) struct UpstreamRow {
    pub(super) name: Name,
    pub(super) last_minute: Count,
    pub(super) p50: Millis,
    pub(super) p99: Millis,
    pub(super) servers: Vec<ServerRow>,
}

#[derive(Debug, Serialize)]
pub(super) struct ServerRow {
    pub(super) address: String,
    pub(super) state: &'static str,
    pub(super) well: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct RouteRow {
    pub(super) name: Name,
    pub(super) hosts: Vec<String>,
    pub(super) path: String,
    pub(super) methods: Vec<String>,
    pub(super) access: &'static str,
    pub(super) enforced: bool,
    pub(super) target: Name,
    /// `None` where it was not noted a minute ago.
    pub(super) last_minute: Option<Count>,
    pub(super) refused_last_minute: Option<Count>,
    pub(super) total: Count,
    pub(super) p99: Millis,
}

#[derive(Debug, Serialize)]
pub(super) struct IssuerRow {
    pub(super) name: Name,
    pub(super) keys: usize,
    pub(super) skipped: usize,
    pub(super) age: Option<Span>,
}

#[derive(Debug, Serialize)]
pub(super) struct KeyRow {
    pub(super) kid: Box<str>,
    pub(super) algorithm: String,
    pub(super) state: &'static str,
    pub(super) from: Moment,
}

#[derive(Debug, Serialize)]
pub(super) struct CertificateRow {
    pub(super) name: String,
    pub(super) ends: Moment,
    pub(super) days: i64,
    pub(super) well: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct NodeRow {
    pub(super) memory: Bytes,
    pub(super) memory_limit: Option<Bytes>,
    pub(super) memory_stage: u8,
    pub(super) cache: Bytes,
    pub(super) store: Option<&'static str>,
    pub(super) revocation_lag: Millis,
    pub(super) sessions: Option<Count>,
    pub(super) password_queue: Option<Count>,
    pub(super) redis: Option<bool>,
    pub(super) log_dropped: Count,
    pub(super) panics: Count,
    pub(super) admin_connections: Count,
}

#[derive(Debug, Serialize)]
pub(super) struct RefusalRow {
    pub(super) time: Moment,
    pub(super) status: u16,
    pub(super) code: &'static str,
    pub(super) reason: Option<&'static str>,
    pub(super) method: Box<str>,
    pub(super) host: Option<Box<str>>,
    pub(super) path: Option<Box<str>>,
    pub(super) route: Option<Name>,
    pub(super) client: String,
    pub(super) issuer: Option<Box<str>>,
    pub(super) user: Option<Box<str>>,
    pub(super) request_id: Box<str>,
}
