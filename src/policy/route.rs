//! Which route does a request take? Host, normalised path and method lead to one route, or to 404 or 405.
//!
//! The most specific route wins: exact host over wildcard over any, exact path over longest prefix, named methods over any.
//! A request's path is walked once, segment by segment, so ten thousand routes match as fast as ten.

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use http::Method;

use super::{
    addresses::Addresses,
    authorize::{Access, Rule},
    browser::Browsers,
    cors::Cors,
    headers::HeaderEdits,
    path::decoded_segments,
    rejection::Rejection,
};

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

/// Two routes between which a request could not choose, by their names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteConflict {
    /// The one defined first.
    pub first: Arc<str>,
    /// The one defined second.
    pub second: Arc<str>,
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

/// The route table.
#[derive(Debug, Default)]
pub struct Routes {
    routes: Vec<Route>,
    exact: HashMap<Box<str>, Segments>,
    wildcard: HashMap<Box<str>, Segments>,
    any: Segments,
    has_websockets: bool,
}

/// A trie of path segments.
#[derive(Debug, Default)]
struct Segments {
    below: HashMap<Box<str>, Segments>,
    exact: Vec<usize>,
    prefix: Vec<usize>,
}

impl Routes {
    /// Builds the table. The order of `routes` means nothing but their index.
    ///
    /// # Errors
    /// Every pair of routes that tie: same host, same path, and a method in common at the same specificity (CFG-1).
    pub fn new(mut routes: Vec<Route>) -> Result<Self, Vec<RouteConflict>> {
        for (index, route) in routes.iter_mut().enumerate() {
            route.index = index;
        }
        let mut table = Self::default();
        let mut conflicts = Vec::new();
        for route in &routes {
            if route.hosts.is_empty() {
                table.any.insert(route, &routes, &mut conflicts);
            }
            for host in &route.hosts {
                let segments = match host {
                    HostPattern::Exact(name) => table.exact.entry(name.clone()).or_default(),
                    HostPattern::Wildcard(name) => table.wildcard.entry(name.clone()).or_default(),
                };
                segments.insert(route, &routes, &mut conflicts);
            }
        }
        table.has_websockets = routes.iter().any(|route| route.streams.websocket);
        table.routes = routes;
        if conflicts.is_empty() {
            Ok(table)
        } else {
            Err(conflicts)
        }
    }

    /// Every route, by index.
    #[must_use]
    pub fn all(&self) -> &[Route] {
        &self.routes
    }

    /// Whether any route opens WebSockets.
    #[must_use]
    pub fn have_websockets(&self) -> bool {
        self.has_websockets
    }

    /// Finds the route of a request. `host` is lower case without port, `path` normalised.
    ///
    /// # Errors
    /// [`Rejection::RouteNotFound`], or [`Rejection::MethodNotAllowed`] with the methods that the path does take.
    pub fn find(&self, host: &str, path: &str, method: &Method) -> Result<&Route, Rejection> {
        let mut allowed = Vec::new();
        let wildcard = host
            .split_once('.')
            .and_then(|(_, parent)| self.wildcard.get(parent));
        let tables = [self.exact.get(host), wildcard, Some(&self.any)];
        for segments in tables.into_iter().flatten() {
            if let Some(route) = segments.find(path, method, &self.routes, &mut allowed) {
                return Ok(route);
            }
        }
        if allowed.is_empty() {
            Err(Rejection::RouteNotFound)
        } else {
            Err(Rejection::MethodNotAllowed(allowed))
        }
    }
}

impl Segments {
    fn insert(&mut self, route: &Route, routes: &[Route], conflicts: &mut Vec<RouteConflict>) {
        let mut node = self;
        let (path, exact) = match &route.path {
            PathPattern::Exact(path) => (&**path, true),
            PathPattern::Prefix(path) => (path.trim_end_matches('/'), false),
        };
        for segment in decoded_segments(path) {
            node = node.below.entry(segment.into()).or_default();
        }
        let level = if exact {
            &mut node.exact
        } else {
            &mut node.prefix
        };
        for other in level.iter().filter_map(|index| routes.get(*index)) {
            if route.ties_with(other) {
                conflicts.push(RouteConflict {
                    first: Arc::clone(&other.name),
                    second: Arc::clone(&route.name),
                });
            }
        }
        // Routes that name their methods come before one that takes any.
        let place = if route.methods.is_empty() {
            level.len()
        } else {
            0
        };
        level.insert(place, route.index);
    }

    fn find<'r>(
        &self,
        path: &str,
        method: &Method,
        routes: &'r [Route],
        allowed: &mut Vec<Method>,
    ) -> Option<&'r Route> {
        let mut node = self;
        let mut best = pick(&node.prefix, method, routes, allowed);
        for segment in decoded_segments(path) {
            let Some(below) = node.below.get(&*segment) else {
                return best;
            };
            node = below;
            best = pick(&node.prefix, method, routes, allowed).or(best);
        }
        pick(&node.exact, method, routes, allowed).or(best)
    }
}

fn pick<'r>(
    level: &[usize],
    method: &Method,
    routes: &'r [Route],
    allowed: &mut Vec<Method>,
) -> Option<&'r Route> {
    for route in level.iter().filter_map(|index| routes.get(*index)) {
        if route.takes(method) {
            return Some(route);
        }
        allowed.extend(route.methods.iter().cloned());
    }
    None
}

impl Route {
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
