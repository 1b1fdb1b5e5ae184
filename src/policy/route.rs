//! Which route does a request take? Host, normalised path and method lead to one route, or to 404 or 405.
//!
//! The most specific route wins: exact host over wildcard over any, exact path over longest prefix, named methods over any.
//! A request's path is walked once, segment by segment, so ten thousand routes match as fast as ten.

mod table;

use std::{fmt, sync::Arc, time::Duration};

use http::Method;

use super::{
    addresses::Addresses,
    authorize::{Access, Rule},
    browser::Browsers,
    cors::Cors,
    headers::HeaderEdits,
};
pub use table::{RouteConflict, Routes};

/// The place of an upstream in the running configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct UpstreamId(pub usize);

/// Where an admitted request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Target {
    /// The built-in account routes and documents.
    Accounts,
    /// The public keys of signed statements.
    AssertionKeys,
    /// Another proxy, which asks and forwards by itself; the gateway has nowhere to send such a request.
    Elsewhere,
    /// The endpoint where other proxies ask.
    ForwardAuth,
    /// A backend.
    Upstream(UpstreamId),
}

/// One entry of the route table.
#[derive(Debug, Clone)]
pub struct Route {
    /// The name in logs and metrics.
    pub name: Arc<str>,
    /// The place in the route table: an index for per-route counters.
    pub index: usize,
    /// The hosts that it answers to; empty: every host.
    pub hosts: Vec<HostPattern>,
    /// The paths that it answers to.
    pub path: PathPattern,
    /// The methods that it takes; empty: all but CONNECT and TRACE.
    pub methods: Vec<Method>,
    /// Where its requests go.
    pub target: Target,
    /// What its upstream is not told of the path: a prefix of `path` without a slash at its end.
    pub strip_prefix: Option<Box<str>>,
    /// From where it may be reached.
    pub addresses: Addresses,
    /// Whether it looks at credentials.
    pub access: Access,
    /// What it requires of an identity.
    pub rule: Rule,
    /// Whether a caller whom `addresses`, `access` or `rule` turn away is refused; if not, the refusal is only told.
    pub enforce: bool,
    /// Whether identities of the built-in issuer are refused while revocations of other processes cannot be learned of.
    pub strict: bool,
    /// What is changed in the headers of requests, beside what the gateway does to all.
    pub request_headers: HeaderEdits,
    /// What is changed in the headers of the upstream's answers.
    pub response_headers: HeaderEdits,
    /// What pages of other origins may; `None`: nothing is said of it.
    pub cors: Option<Arc<Cors>>,
    /// The largest request body, in bytes.
    pub max_body: u64,
    /// How long the whole exchange may take; WebSockets, event streams and gRPC answers excepted.
    pub timeout: Duration,
    /// What it allows of exchanges that go on.
    pub streams: Streams,
    /// What it does for browsers.
    pub browsers: Browsers,
}

/// What a route allows of exchanges that go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Streams {
    /// Whether a request may open a WebSocket.
    pub websocket: bool,
    /// Whether trailers pass, without which there is no gRPC.
    pub trailers: bool,
    /// The longest silence of a WebSocket, an event stream or a gRPC call.
    pub idle_timeout: Duration,
}

/// A host of a route, lower case, without port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// This host.
    Exact(Box<str>),
    /// `*.` and this: exactly one label more.
    Wildcard(Box<str>),
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Wildcard(parent) => write!(f, "*.{parent}"),
        }
    }
}

/// A path of a route, normalised.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PathPattern {
    /// This path.
    Exact(Box<str>),
    /// This path and what lies below it, on segment boundaries (URI-5). A trailing slash is of no meaning.
    Prefix(Box<str>),
}

impl Default for Streams {
    /// No WebSocket, no trailers; five minutes of silence.
    fn default() -> Self {
        Self {
            websocket: false,
            trailers: false,
            idle_timeout: Duration::from_secs(300),
        }
    }
}

impl Route {
    /// A route of the gateway's own: on every host, for every method, without rule, edits or a body; 10 s for an exchange. What
    /// differs is written over it.
    #[must_use]
    pub fn built_in(name: &str, path: PathPattern, target: Target, access: Access) -> Self {
        Self {
            name: name.into(),
            index: 0,
            hosts: Vec::new(),
            path,
            methods: Vec::new(),
            target,
            strip_prefix: None,
            addresses: Addresses::default(),
            access,
            rule: Rule::default(),
            enforce: true,
            strict: false,
            request_headers: HeaderEdits::default(),
            response_headers: HeaderEdits::default(),
            cors: None,
            max_body: 0,
            timeout: Duration::from_secs(10),
            streams: Streams::default(),
            browsers: Browsers::default(),
        }
    }

    /// Whether the route takes this method. CONNECT and TRACE are taken by none (MSG-4).
    #[must_use]
    pub fn takes(&self, method: &Method) -> bool {
        if self.methods.is_empty() {
            !matches!(*method, Method::CONNECT | Method::TRACE)
        } else {
            self.methods.contains(method)
        }
    }

    fn ties_with(&self, other: &Self) -> bool {
        match (self.methods.is_empty(), other.methods.is_empty()) {
            (true, true) => true,
            (false, false) => self
                .methods
                .iter()
                .any(|method| other.methods.contains(method)),
            (true, false) | (false, true) => false,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
