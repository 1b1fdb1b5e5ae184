//! Spans as OTLP has them, in the JSON of its Protobuf messages (OTLP 1.x, "JSON Protobuf Encoding"): ids in hexadecimal digits, 64-bit
//! numbers as strings. Attributes are those of OpenTelemetry's semantic conventions for HTTP; ours begin with `portcullis.`.
//!
//! There is no place in them for a header, a cookie, a token or a query (LOG-1): the [`Record`] that they are made of has none.

use std::{
    borrow::Cow,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::{Method, Version};
use serde::Serialize;

use super::settings::TracingSettings;
use crate::telemetry::{Ending, Record, Trace, Traced};

/// Kinds of spans: SPAN_KIND_SERVER and SPAN_KIND_CLIENT.
const SERVER: u8 = 2;
const CLIENT: u8 = 3;
/// STATUS_CODE_ERROR.
const ERROR: u8 = 2;

/// Whose spans they are: the same in each export of one process.
#[derive(Debug, Clone)]
pub(super) struct Resource {
    service_name: Box<str>,
    instance: String,
    user: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Export<'a> {
    resource_spans: [ResourceSpans<'a>; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResourceSpans<'a> {
    resource: Attributes<'a>,
    scope_spans: [ScopeSpans<'a>; 1],
}

#[derive(Serialize)]
struct Attributes<'a> {
    attributes: Vec<Attribute<'a>>,
}

#[derive(Serialize)]
struct ScopeSpans<'a> {
    scope: Scope,
    spans: Vec<Span<'a>>,
}

#[derive(Serialize)]
struct Scope {
    name: &'static str,
    version: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Span<'a> {
    trace_id: &'a str,
    span_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_span_id: Option<&'a str>,
    name: String,
    kind: u8,
    start_time_unix_nano: String,
    end_time_unix_nano: String,
    attributes: Vec<Attribute<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
}

#[derive(Serialize)]
struct Status {
    code: u8,
}

#[derive(Serialize)]
struct Attribute<'a> {
    key: &'static str,
    value: Value<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum Value<'a> {
    StringValue(Cow<'a, str>),
    /// As a string, as Protobuf's JSON has 64-bit numbers.
    IntValue(String),
}

impl Resource {
    pub(super) fn new(settings: &TracingSettings) -> Self {
        Self {
            service_name: settings.service_name.clone(),
            instance: uuid::Uuid::new_v4().to_string(),
            user: settings.user,
        }
    }

    /// The body of one export.
    pub(super) fn export(&self, batch: &[Box<Traced>]) -> Vec<u8> {
        let spans = batch.iter().flat_map(|traced| {
            let trace = traced.record.trace.as_deref();
            let server = trace.map(|trace| server(traced, trace, self.user));
            let client = trace.and_then(|trace| client(&traced.record, trace));
            [server, client].into_iter().flatten()
        });
        let resource = [
            text("service.name", &*self.service_name),
            text("service.version", env!("CARGO_PKG_VERSION")),
            text("service.instance.id", &*self.instance),
        ];
        let export = Export {
            resource_spans: [ResourceSpans {
                resource: Attributes {
                    attributes: resource.into(),
                },
                scope_spans: [ScopeSpans {
                    scope: Scope {
                        name: "portcullis",
                        version: env!("CARGO_PKG_VERSION"),
                    },
                    spans: spans.collect(),
                }],
            }],
        };
        // Nothing in it can fail to be written: no map, no number that is none.
        serde_json::to_vec(&export).unwrap_or_default()
    }
}

/// The span of a request as the gateway served it.
fn server<'a>(traced: &'a Traced, trace: &'a Trace, user: bool) -> Span<'a> {
    let record = &traced.record;
    let route = record.route.as_ref().map(|route| route.name());
    let status = record.status;
    let mut attributes = method(&record.method);
    let mut add = |attribute| attributes.push(attribute);
    add(text("url.scheme", "https"));
    if let Some(path) = traced.path() {
        add(text("url.path", path));
    }
    if let Some(host) = traced.host() {
        add(text("server.address", host));
    }
    if let Some(version) = protocol(record.version) {
        add(text("network.protocol.version", version));
    }
    let client = record.client.unwrap_or(record.peer);
    add(text("client.address", client.to_string()));
    add(text("network.peer.address", record.peer.to_string()));
    if let Some(route) = route {
        add(text("http.route", route));
    }
    add(number("http.response.status_code", status.as_u16().into()));
    add(text("portcullis.request_id", record.request_id.as_str()));
    if let Some(upstream) = &record.upstream {
        add(text("portcullis.upstream", upstream.name()));
    }
    if let Some(code) = record.unenforced {
        add(text("portcullis.unenforced", code));
    }
    if record.ending != Ending::Complete {
        add(text("portcullis.ending", record.ending.name()));
    }
    if let Some(caller) = record.caller.as_ref().filter(|_| user) {
        add(text("user.id", &*caller.claims().subject));
    }
    let broken = matches!(record.ending, Ending::Panicked | Ending::UpstreamAborted);
    let failed = status.is_server_error() || broken;
    let error = match record.code {
        Some(code) => Some(Cow::Borrowed(code)),
        None if broken => Some(record.ending.name().into()),
        None => failed.then(|| status.as_u16().to_string().into()),
    };
    if let Some(error) = error {
        add(text("error.type", error));
    }
    Span {
        parent_span_id: trace.parent.as_ref().map(digits),
        name: name(&record.method, route),
        end_time_unix_nano: nanos(record.time, traced.took),
        status: failed.then_some(Status { code: ERROR }),
        ..span(record, trace, (SERVER, &trace.server), attributes)
    }
}

/// The span of the request to the upstream, all attempts together, until the first byte of the answer; `None` where no upstream was
/// asked.
fn client<'a>(record: &'a Record, trace: &'a Trace) -> Option<Span<'a>> {
    let (asked, took) = record.upstream_asked.zip(record.upstream_time)?;
    let upstream = record.upstream.as_ref().map(|upstream| upstream.name());
    let mut attributes = method(&record.method);
    if let Some(upstream) = upstream {
        attributes.push(text("peer.service", upstream));
    }
    if let Some(asked) = &trace.asked {
        let (host, port) = address(asked.server());
        attributes.push(text("server.address", host));
        attributes.extend(port.map(|port| number("server.port", port.into())));
    }
    let status = record.status.as_u16();
    // Where there is a code, the answer is ours.
    let error = match record.code {
        Some(code) => Some(Cow::Borrowed(code)),
        None => {
            attributes.push(number("http.response.status_code", status.into()));
            (status >= 400).then(|| status.to_string().into())
        }
    };
    let is_error = error.is_some();
    attributes.extend(error.map(|error| text("error.type", error)));
    Some(Span {
        parent_span_id: Some(digits(&trace.server)),
        name: name(&record.method, upstream),
        start_time_unix_nano: nanos(record.time, asked),
        end_time_unix_nano: nanos(record.time, asked.saturating_add(took)),
        status: is_error.then_some(Status { code: ERROR }),
        ..span(record, trace, (CLIENT, &trace.client.span), attributes)
    })
}

/// Host and port of a server by its name in metrics; the path and no port of a Unix socket.
fn address(server: &str) -> (&str, Option<u16>) {
    if let Some(path) = server.strip_prefix("unix:") {
        return (path, None);
    }
    let (authority, usual) = match server.strip_prefix("https://") {
        Some(authority) => (authority, 443),
        None => (server, 80),
    };
    let named = authority.rsplit_once(':');
    let named = named.and_then(|(host, port)| Some((host, port.parse().ok()?)));
    let (host, port) = named.unwrap_or((authority, usual));
    (host.trim_matches(['[', ']']), Some(port))
}

fn span<'a>(
    record: &Record,
    trace: &'a Trace,
    (kind, id): (u8, &'a [u8; 16]),
    attributes: Vec<Attribute<'a>>,
) -> Span<'a> {
    Span {
        trace_id: trace.id(),
        span_id: digits(id),
        parent_span_id: None,
        name: String::new(),
        kind,
        start_time_unix_nano: nanos(record.time, Duration::ZERO),
        end_time_unix_nano: String::new(),
        attributes,
        status: None,
    }
}

/// Method and what was asked for, both of closed sets: a name that strangers can make up would be as many names as they like.
fn name(method: &Method, what: Option<&str>) -> String {
    let method = known(method).unwrap_or("HTTP");
    match what {
        Some(what) => format!("{method} {what}"),
        None => method.to_owned(),
    }
}

fn method(method: &Method) -> Vec<Attribute<'_>> {
    let mut attributes = Vec::with_capacity(18);
    let name = known(method);
    attributes.push(text("http.request.method", name.unwrap_or("_OTHER")));
    if name.is_none() {
        attributes.push(text("http.request.method_original", method.as_str()));
    }
    attributes
}

/// The methods that the conventions know: those of RFC 9110, and PATCH.
fn known(method: &Method) -> Option<&'static str> {
    let all = [
        "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
    ];
    all.into_iter().find(|known| method.as_str() == *known)
}

const fn protocol(version: Version) -> Option<&'static str> {
    match version {
        Version::HTTP_10 => Some("1.0"),
        Version::HTTP_11 => Some("1.1"),
        Version::HTTP_2 => Some("2"),
        Version::HTTP_3 => Some("3"),
        _ => None,
    }
}

fn digits(id: &[u8; 16]) -> &str {
    std::str::from_utf8(id).unwrap_or_default()
}

/// A moment in nanoseconds since 1970.
fn nanos(start: SystemTime, after: Duration) -> String {
    let since = start.duration_since(UNIX_EPOCH).unwrap_or_default();
    since.saturating_add(after).as_nanos().to_string()
}

fn text<'a>(key: &'static str, value: impl Into<Cow<'a, str>>) -> Attribute<'a> {
    let value = Value::StringValue(value.into());
    Attribute { key, value }
}

fn number(key: &'static str, value: u64) -> Attribute<'static> {
    let value = Value::IntValue(value.to_string());
    Attribute { key, value }
}
