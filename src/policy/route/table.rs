//! The route table: hosts lead to tries of path segments, and those to routes.

use std::{collections::HashMap, slice, sync::Arc};

use http::{HeaderMap, Method, header::ACCESS_CONTROL_REQUEST_METHOD};

use super::{
    super::{cors::Cors, head::Head, path::decoded_segments, rejection::Rejection},
    HostPattern, PathPattern, Route,
};

/// The route table. A copy shares what requests walk through.
#[derive(Debug, Clone, Default)]
pub struct Routes {
    routes: Vec<Arc<Route>>,
    hosts: Arc<Hosts>,
    /// What stands beside the routes of each host, named or not; `None` where nothing does.
    built_in: Option<Arc<Segments>>,
    has_websockets: bool,
}

/// The routes of each host.
#[derive(Debug, Default)]
struct Hosts {
    exact: HashMap<Box<str>, Segments>,
    wildcard: HashMap<Box<str>, Segments>,
    any: Segments,
}

/// Two routes between which a request could not choose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteConflict {
    /// The name of the one defined first.
    pub first: Arc<str>,
    /// The name of the one defined second.
    pub second: Arc<str>,
    /// Their places in the table, in the same order.
    pub places: [usize; 2],
}

/// A trie of path segments. Small, for there is one for each segment of ten thousand paths, and the memory that a search
/// touches is what it costs.
#[derive(Debug, Default)]
struct Segments {
    below: Below,
    exact: Level,
    prefix: Level,
}

/// What lies below a segment: most often one thing, for which a table would be waste.
#[derive(Debug, Default)]
#[expect(
    clippy::box_collection,
    reason = "nodes with one child or none are many, and shall not have room for a table"
)]
enum Below {
    #[default]
    Nothing,
    One(Box<(Box<str>, Segments)>),
    Many(Box<HashMap<Box<str>, Segments>>),
}

/// The routes of one path, by their places: most often one.
#[derive(Debug, Default)]
enum Level {
    #[default]
    Nobody,
    One(usize),
    Many(Vec<usize>),
}

impl Routes {
    /// Builds the table. The order of `routes` means nothing but their index.
    ///
    /// # Errors
    /// Every pair of routes that tie: same host, same path, and a method in common at the same specificity (CFG-1).
    pub fn new(routes: Vec<impl Into<Arc<Route>>>) -> Result<Self, Vec<RouteConflict>> {
        let mut routes: Vec<Arc<Route>> = routes.into_iter().map(Into::into).collect();
        number(&mut routes, 0);
        let mut hosts = Hosts::default();
        let mut conflicts = Vec::new();
        for route in &routes {
            hosts.insert(route, &routes, &mut conflicts);
        }
        let table = Self {
            has_websockets: routes.iter().any(|route| route.streams.websocket),
            routes,
            hosts: Arc::new(hosts),
            built_in: None,
        };
        match conflicts.is_empty() {
            true => Ok(table),
            false => Err(conflicts),
        }
    }

    /// The table in which `built_in` stand besides, on every host that a route names and on every other too, whatever hosts they
    /// name themselves. A route of a named host and the prefix `/` is more specific than one of any host: a login on that host
    /// would otherwise go to its upstream, password and all. Their indices follow those of the others.
    ///
    /// # Errors
    /// As [`Routes::new`].
    pub fn with_built_in(mut self, built_in: Vec<Route>) -> Result<Self, Vec<RouteConflict>> {
        if built_in.is_empty() {
            return Ok(self);
        }
        let named = self.routes.len();
        self.routes.extend(built_in.into_iter().map(Arc::new));
        number(&mut self.routes, named);
        let (configured, built_in) = self.routes.split_at(named);
        let (mut segments, mut conflicts) = (Segments::default(), Vec::new());
        for route in built_in {
            segments.insert(route, &self.routes, &mut conflicts);
        }
        for route in configured {
            segments.compare(route, &self.routes, &mut conflicts);
        }
        let opens_one = |route: &Arc<Route>| route.streams.websocket;
        self.has_websockets |= built_in.iter().any(opens_one);
        self.built_in = Some(Arc::new(segments));
        match conflicts.is_empty() {
            true => Ok(self),
            false => Err(conflicts),
        }
    }

    /// Every route, by index.
    #[must_use]
    pub fn all(&self) -> &[Arc<Route>] {
        &self.routes
    }

    /// Whether any route names its methods, so that the method decides who may.
    #[must_use]
    pub fn go_by_method(&self) -> bool {
        self.routes.iter().any(|route| !route.methods.is_empty())
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
        let Hosts {
            exact,
            wildcard,
            any,
        } = &*self.hosts;
        let parent = match wildcard.is_empty() {
            true => None,
            false => host.split_once('.'),
        };
        let wildcard = parent.and_then(|(_, parent)| wildcard.get(parent));
        let tables = [exact.get(host), wildcard, Some(any)];
        for segments in tables.into_iter().flatten() {
            if let Some(route) = self.search(segments, (path, method), &mut allowed) {
                return Ok(route);
            }
        }
        if allowed.is_empty() {
            Err(Rejection::RouteNotFound)
        } else {
            Err(Rejection::MethodNotAllowed(allowed))
        }
    }

    /// Finds the route of the request that a preflight announces, where that route says something of other origins. It is the
    /// announced method that counts: `OPTIONS` itself may have another route, or none.
    #[must_use]
    pub fn find_announced(
        &self,
        head: &Head<'_>,
        preflight: &HeaderMap,
    ) -> Option<(&Route, &Cors)> {
        let method = preflight.get(ACCESS_CONTROL_REQUEST_METHOD)?;
        let method = Method::from_bytes(method.as_bytes()).ok()?;
        let route = self.find(&head.host, head.path.as_str(), &method).ok()?;
        Some((route, route.cors.as_ref()?))
    }

    /// Walks the routes of one host and the built-in ones side by side, as if they were one trie.
    fn search(
        &self,
        segments: &Segments,
        (path, method): (&str, &Method),
        allowed: &mut Vec<Method>,
    ) -> Option<&Route> {
        let mut nodes = [Some(segments), self.built_in.as_deref()];
        let mut best = self.pick(nodes, |node| &node.prefix, method, allowed);
        for segment in decoded_segments(path) {
            nodes = nodes.map(|node| node.and_then(|node| node.below.get(&segment)));
            if nodes.iter().all(Option::is_none) {
                return best;
            }
            best = self
                .pick(nodes, |node| &node.prefix, method, allowed)
                .or(best);
        }
        self.pick(nodes, |node| &node.exact, method, allowed)
            .or(best)
    }

    /// The route of one path that names the method, or else the one that takes any.
    fn pick(
        &self,
        nodes: [Option<&Segments>; 2],
        level: impl Fn(&Segments) -> &Level,
        method: &Method,
        allowed: &mut Vec<Method>,
    ) -> Option<&Route> {
        let mut takes_any = None;
        let places = nodes.into_iter().flatten().map(level);
        for place in places.flat_map(Level::places) {
            let Some(route) = self.routes.get(*place) else {
                continue;
            };
            match (route.takes(method), route.methods.is_empty()) {
                (true, false) => return Some(route),
                (true, true) => takes_any = Some(&**route),
                (false, _) => {
                    for method in &route.methods {
                        if !allowed.contains(method) {
                            allowed.push(method.clone());
                        }
                    }
                }
            }
        }
        takes_any
    }
}

impl Hosts {
    fn insert(&mut self, route: &Route, routes: &[Arc<Route>], conflicts: &mut Vec<RouteConflict>) {
        if route.hosts.is_empty() {
            self.any.insert(route, routes, conflicts);
        }
        for host in &route.hosts {
            let (hosts, name) = match host {
                HostPattern::Exact(name) => (&mut self.exact, name),
                HostPattern::Wildcard(name) => (&mut self.wildcard, name),
            };
            // Looked for first: most hosts have several routes, and an entry would take a copy of the name each time.
            match hosts.get_mut(name) {
                Some(segments) => segments.insert(route, routes, conflicts),
                None => {
                    let segments = hosts.entry(name.clone()).or_default();
                    segments.insert(route, routes, conflicts);
                }
            }
        }
    }
}

/// Gives the routes from a place on their index in the table.
fn number(routes: &mut [Arc<Route>], from: usize) {
    for (index, route) in routes.iter_mut().enumerate().skip(from) {
        if route.index != index {
            Arc::make_mut(route).index = index;
        }
    }
}

impl Segments {
    fn insert(&mut self, route: &Route, routes: &[Arc<Route>], conflicts: &mut Vec<RouteConflict>) {
        let mut node = self;
        let (path, exact) = end_of(&route.path);
        for segment in decoded_segments(path) {
            node = node.below.get_or_insert(&segment);
        }
        let level = if exact {
            &mut node.exact
        } else {
            &mut node.prefix
        };
        level.compare(routes, |other| report(other, route, conflicts));
        level.push(route.index);
    }

    /// Reports the routes here between which and this one, of another trie, a request could not choose.
    fn compare(&self, route: &Route, routes: &[Arc<Route>], conflicts: &mut Vec<RouteConflict>) {
        let mut node = self;
        let (path, exact) = end_of(&route.path);
        for segment in decoded_segments(path) {
            let Some(below) = node.below.get(&segment) else {
                return;
            };
            node = below;
        }
        let level = if exact { &node.exact } else { &node.prefix };
        level.compare(routes, |other| report(route, other, conflicts));
    }
}

/// The path whose segments lead to a route, and whether that path alone is meant.
fn end_of(path: &PathPattern) -> (&str, bool) {
    match path {
        PathPattern::Exact(path) => (path, true),
        PathPattern::Prefix(path) => (path.trim_end_matches('/'), false),
    }
}

fn report(first: &Route, second: &Route, conflicts: &mut Vec<RouteConflict>) {
    if first.ties_with(second) {
        conflicts.push(RouteConflict {
            first: Arc::clone(&first.name),
            second: Arc::clone(&second.name),
            places: [first.index, second.index],
        });
    }
}

impl Below {
    fn get(&self, segment: &str) -> Option<&Segments> {
        match self {
            Self::Nothing => None,
            Self::One(one) => (*one.0 == *segment).then_some(&one.1),
            Self::Many(many) => many.get(segment),
        }
    }

    fn get_or_insert(&mut self, segment: &str) -> &mut Segments {
        match self {
            Self::Nothing => *self = Self::One(Box::new((segment.into(), Segments::default()))),
            Self::One(one) if *one.0 != *segment => {
                if let Self::One(one) = std::mem::take(self) {
                    *self = Self::Many(Box::new(HashMap::from([*one])));
                }
            }
            Self::One(_) | Self::Many(_) => {}
        }
        match self {
            Self::Nothing => self.get_or_insert(segment),
            Self::One(one) => &mut one.1,
            Self::Many(many) => many.entry(segment.into()).or_default(),
        }
    }
}

impl Level {
    fn places(&self) -> &[usize] {
        match self {
            Self::Nobody => &[],
            Self::One(place) => slice::from_ref(place),
            Self::Many(places) => places,
        }
    }

    fn push(&mut self, place: usize) {
        *self = match std::mem::take(self) {
            Self::Nobody => Self::One(place),
            Self::One(first) => Self::Many(vec![first, place]),
            Self::Many(mut places) => {
                places.push(place);
                Self::Many(places)
            }
        };
    }

    fn compare(&self, routes: &[Arc<Route>], mut with: impl FnMut(&Route)) {
        for other in self.places().iter().filter_map(|place| routes.get(*place)) {
            with(other);
        }
    }
}
