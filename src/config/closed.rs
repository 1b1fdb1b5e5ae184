//! Which protected routes lie near a path, on a host or at an upstream? Found without comparing each route with each: ten thousand
//! of them are read at every start.

use std::collections::HashMap;

use super::{
    overlap::{at_upstream, bare, text},
    route::Placed,
};
use crate::policy::{Access, HostPattern, Route, Target};

/// The routes that are not public, by host and by upstream, each list sorted by path.
pub(super) struct ClosedRoutes<'p> {
    every_host: Vec<&'p Placed>,
    by_host: HashMap<&'p HostPattern, Vec<&'p Placed>>,
    has_wildcards: bool,
    /// Authenticated ones alone, sorted by the path that the upstream is told.
    by_upstream: HashMap<Target, Vec<&'p Placed>>,
}

/// The hosts of a route; one `None` for every host.
pub(super) fn hosts_of(route: &Route) -> impl Iterator<Item = Option<&HostPattern>> {
    let every = route.hosts.is_empty().then_some(None);
    every.into_iter().chain(route.hosts.iter().map(Some))
}

impl<'p> ClosedRoutes<'p> {
    pub(super) fn new(routes: &'p [Placed]) -> Self {
        let mut closed = Self {
            every_host: Vec::new(),
            by_host: HashMap::new(),
            has_wildcards: false,
            by_upstream: HashMap::new(),
        };
        for placed in routes {
            let route = &placed.route;
            if route.access == Access::Public {
                continue;
            }
            for host in hosts_of(route) {
                closed.has_wildcards |= matches!(host, Some(HostPattern::Wildcard(_)));
                let same = match host {
                    None => &mut closed.every_host,
                    Some(host) => closed.by_host.entry(host).or_default(),
                };
                same.push(placed);
            }
            if route.access == Access::Authenticated {
                let same = closed.by_upstream.entry(route.target).or_default();
                same.push(placed);
            }
        }
        let by_host = closed.by_host.values_mut();
        for list in by_host.chain([&mut closed.every_host]) {
            list.sort_by_key(|placed| text(&placed.route.path));
        }
        for list in closed.by_upstream.values_mut() {
            list.sort_by_key(|placed| at_upstream(&placed.route));
        }
        closed
    }

    fn on(&self, host: Option<&HostPattern>) -> &[&'p Placed] {
        match host {
            None => &self.every_host,
            Some(host) => self.by_host.get(host).map_or(&[], Vec::as_slice),
        }
    }

    /// Those of a host whose path lies below a prefix, the prefix itself left out.
    pub(super) fn below(
        &self,
        host: Option<&HostPattern>,
        prefix: &str,
    ) -> impl Iterator<Item = &'p Placed> {
        let list = self.on(host);
        // Nothing is looked for in an empty list.
        let start = match list.is_empty() {
            true => String::new(),
            false => format!("{prefix}/"),
        };
        let first = list.partition_point(|placed| text(&placed.route.path) < &*start);
        // A slash at the end means nothing: such a path is the prefix itself.
        let is_prefix = start.len();
        let near = list.iter().skip(first).copied();
        near.take_while(move |placed| text(&placed.route.path).starts_with(&start))
            .filter(move |placed| text(&placed.route.path).len() > is_prefix)
    }

    /// Those below a prefix on hosts that a host is more specific than: of every host, and of the wildcard that covers it.
    pub(super) fn below_less_specific(
        &self,
        host: &HostPattern,
        prefix: &str,
    ) -> impl Iterator<Item = &'p Placed> {
        let wildcard = match host {
            HostPattern::Exact(name) if self.has_wildcards => name
                .split_once('.')
                .map(|(_, parent)| HostPattern::Wildcard(parent.into())),
            HostPattern::Exact(_) | HostPattern::Wildcard(_) => None,
        };
        let covering: Vec<&Placed> = wildcard
            .map(|wildcard| self.below(Some(&wildcard), prefix).collect())
            .unwrap_or_default();
        self.below(None, prefix).chain(covering)
    }

    /// One of a host with this path.
    pub(super) fn at(&self, host: Option<&HostPattern>, path: &str) -> Option<&'p Placed> {
        let list = self.on(host);
        let with_slash = format!("{path}/");
        [path, &*with_slash].into_iter().find_map(|path| {
            let first = list.partition_point(|placed| text(&placed.route.path) < path);
            let found = list.get(first)?;
            (bare(&found.route.path) == bare_text(path)).then_some(*found)
        })
    }

    /// An authenticated one whose upstream is told this path or one below it.
    pub(super) fn reached(&self, target: Target, path: &str) -> Option<&'p Placed> {
        let list = self.by_upstream.get(&target)?;
        let below = format!("{path}/");
        let from = |start: &str| {
            let first = list.partition_point(|placed| at_upstream(&placed.route) < start);
            list.get(first).copied()
        };
        let is_same = |placed: &&Placed| at_upstream(&placed.route) == path;
        let is_below = |placed: &&Placed| at_upstream(&placed.route).starts_with(&below);
        from(path)
            .filter(is_same)
            .or_else(|| from(&below).filter(is_below))
    }
}

fn bare_text(path: &str) -> &str {
    path.trim_end_matches('/')
}
