//! What two routes mean together: ties, routes under the gateway's own, and doors left open beside a protected one
//! (CFG-1).

use std::{collections::BTreeSet, sync::Arc};

use http::Method;

use super::{
    closed::{ClosedRoutes, hosts_of},
    diagnostic::{Fault, Problems, Related},
    gaps,
    route::Placed,
};
use crate::{
    accounts::settings::AccountSettings,
    assertion::KEYS_PATH,
    gateway::forward_auth::{ALIAS, ForwardAuthSettings},
    policy::{Access, HostPattern, PathPattern, Route, Routes},
};

/// Documents that the gateway serves where it has accounts.
const DOCUMENTS: [&str; 2] = [
    "/.well-known/jwks.json",
    "/.well-known/openid-configuration",
];

/// What any method stands for when routes are compared.
const METHODS: [Method; 7] = [
    Method::DELETE,
    Method::GET,
    Method::HEAD,
    Method::OPTIONS,
    Method::PATCH,
    Method::POST,
    Method::PUT,
];

/// What the gateway answers itself.
pub(super) struct BuiltIn<'c> {
    pub(super) accounts: Option<&'c AccountSettings>,
    pub(super) forward_auth: Option<&'c ForwardAuthSettings>,
    /// Whether the keys of assertions are published.
    pub(super) assertion_keys: bool,
}

/// Checks all routes against each other and against the built-in ones. Gives them as requests find them; `None` where two tie.
pub(super) fn check(
    problems: &Problems,
    routes: &[Placed],
    built_in: &BuiltIn<'_>,
) -> Option<Routes> {
    if built_in.assertion_keys {
        for placed in routes {
            refuse_at_keys(problems, placed);
        }
    }
    if let Some(settings) = built_in.forward_auth {
        for placed in routes {
            refuse_at_endpoint(problems, placed, &settings.path);
        }
    }
    if let Some(accounts) = built_in.accounts {
        for placed in routes {
            refuse_under_accounts(problems, placed, &accounts.path);
        }
    }
    let table = routes.iter().map(|placed| Arc::clone(&placed.route));
    match Routes::new(table.collect()) {
        Ok(table) => {
            let closed = ClosedRoutes::new(routes);
            for placed in routes {
                refuse_host_shadows(problems, placed, &closed, &table);
                warn_of_open_doors(problems, placed, &closed);
                refuse_back_door(problems, placed, &closed);
                gaps::warn(problems, placed, routes, &table);
            }
            Some(table)
        }
        Err(conflicts) => {
            // By place and not by name: a name may be there twice, which is reported elsewhere.
            let mut pairs: Vec<_> = conflicts.iter().map(|pair| pair.places).collect();
            pairs.sort_unstable();
            pairs.dedup();
            for [first, second] in pairs {
                if let Some((first, second)) = routes.get(first).zip(routes.get(second)) {
                    report_tie(problems, first, second);
                }
            }
            None
        }
    }
}

fn report_tie(problems: &Problems, first: &Placed, second: &Placed) {
    let related = Related {
        span: first.place.span.clone(),
        label: "this one takes the same requests",
    };
    let message = format!(
        "`{}` and `{}` tie: same host, same path and a method in common",
        first.route.name, second.route.name
    );
    let hint = "a request could not choose; give one of them another host, path or methods";
    problems.add_related(&second.place, related, Fault::new(message, hint));
}

/// Refuses a route at the place where other proxies ask: its requests would be taken for questions.
fn refuse_at_endpoint(problems: &Problems, placed: &Placed, endpoint: &str) {
    let path = text(&placed.route.path);
    if covers(endpoint, path) || path == ALIAS {
        let message = format!("`{path}` belongs to the endpoint of [forward_auth]");
        let hint = "choose another path, or move the endpoint with forward_auth.path";
        problems.add(&placed.place, Fault::new(message, hint));
    }
}

/// Refuses a route in place of the public keys, for whoever serves them decides what upstreams believe.
fn refuse_at_keys(problems: &Problems, placed: &Placed) {
    let path = text(&placed.route.path);
    if path == KEYS_PATH {
        let message = format!("`{path}` belongs to the keys of identity.assertion");
        problems.add(&placed.place, Fault::new(message, "choose another path"));
    }
}

fn refuse_under_accounts(problems: &Problems, placed: &Placed, prefix: &str) {
    let path = text(&placed.route.path);
    let document = DOCUMENTS.iter().find(|document| path == **document);
    let taken = if covers(prefix, path) {
        Some(prefix)
    } else {
        document.copied()
    };
    if let Some(taken) = taken {
        let message = format!("`{path}` belongs to the gateway's own routes at `{taken}`");
        let hint = "choose another path, or move the account routes with accounts.path";
        problems.add(&placed.place, Fault::new(message, hint));
    }
}

/// Refuses an open route that takes, on a host of its own, a path which a protected route names more closely: the host
/// is the more specific part and wins, which nobody sees who reads the protected route.
fn refuse_host_shadows(
    problems: &Problems,
    placed: &Placed,
    closed: &ClosedRoutes<'_>,
    table: &Routes,
) {
    let open = &placed.route;
    if !is_open(open) || !matches!(open.path, PathPattern::Prefix(_)) {
        return;
    }
    let mut reported = BTreeSet::new();
    for pattern in &open.hosts {
        let host = one_of(pattern);
        let taken = closed
            .below_less_specific(pattern, bare(&open.path))
            .filter(|protected| protected.route.access == Access::Authenticated)
            .filter(|protected| takes(table, &host, &protected.route, open.index));
        for protected in taken {
            if reported.insert(protected.route.index) {
                report_shadow(problems, protected, placed, &host);
            }
        }
    }
}

/// Whether a request for the path of one route would, on this host, be taken by another.
fn takes(table: &Routes, host: &str, route: &Route, other: usize) -> bool {
    let methods = if route.methods.is_empty() {
        &METHODS[..]
    } else {
        &route.methods
    };
    methods.iter().any(|method| {
        let found = table.find(host, text(&route.path), method);
        found.is_ok_and(|found| found.index == other)
    })
}

fn report_shadow(problems: &Problems, protected: &Placed, open: &Placed, host: &str) {
    let related = Related {
        span: protected.place.span.clone(),
        label: "this one does not apply there",
    };
    let path = text(&protected.route.path);
    let message = format!(
        "on {host} it opens `{path}`, which `{}` protects on other hosts",
        protected.route.name
    );
    let hint = format!(
        "an exact host wins over a longer path: give `{}` this host too, or name the hosts it is for",
        protected.route.name
    );
    problems.add_related(&open.place, related, Fault::new(message, hint));
}

/// Refuses an open route that, its prefix cut off, reaches what another route of the same upstream protects.
fn refuse_back_door(problems: &Problems, placed: &Placed, closed: &ClosedRoutes<'_>) {
    let open = &placed.route;
    if !is_open(open) || open.strip_prefix.is_none() {
        return;
    }
    if let Some(protected) = closed.reached(open.target, at_upstream(open)) {
        let name = &protected.route.name;
        let message = format!("without its prefix it reaches what route `{name}` protects");
        let hint =
            "protect this route too, name a longer path_prefix, or give it an upstream of its own";
        let related = Related {
            span: protected.place.span.clone(),
            label: "protected here",
        };
        problems.add_related(&placed.place, related, Fault::new(message, hint));
    }
}

/// The part of an upstream's paths that a route leads to.
pub(super) fn at_upstream(route: &Route) -> &str {
    let path = bare(&route.path);
    let cut = route.strip_prefix.as_deref().unwrap_or_default();
    path.strip_prefix(cut.trim_end_matches('/')).unwrap_or(path)
}

/// Points at public routes that lie around or beside a protected one; both are legal and easily overlooked.
fn warn_of_open_doors(problems: &Problems, placed: &Placed, closed: &ClosedRoutes<'_>) {
    let public = &placed.route;
    if public.access != Access::Public {
        return;
    }
    let path = bare(&public.path);
    let shown = text(&public.path);
    let hosts = || hosts_of(public);
    let around = match public.path {
        PathPattern::Exact(_) => None,
        PathPattern::Prefix(_) => hosts().find_map(|host| closed.below(host, path).next()),
    };
    let beside = hosts()
        .filter(|_| !public.methods.is_empty())
        .find_map(|host| closed.at(host, path));
    let fault = if let Some(other) = beside {
        let name = &other.route.name;
        Fault::new(
            format!("some methods of `{shown}` are public beside `{name}`"),
            "see that none of them changes anything",
        )
    } else if let Some(other) = around {
        let name = &other.route.name;
        Fault::new(
            format!("all of `{shown}` is public except what other routes name, as `{name}` does"),
            "safer the other way round: protect the whole and open parts of it",
        )
    } else {
        return;
    };
    problems.warn(&placed.place, fault);
}

/// A host that a pattern stands for.
pub(super) fn one_of(pattern: &HostPattern) -> String {
    match pattern {
        HostPattern::Exact(name) => name.to_string(),
        HostPattern::Wildcard(name) => format!("any.{name}"),
    }
}

pub(super) fn is_open(route: &Route) -> bool {
    route.access != Access::Authenticated || !route.enforce
}

/// The path without the slash that means nothing at the end of a prefix.
pub(super) fn bare(path: &PathPattern) -> &str {
    text(path).trim_end_matches('/')
}

pub(super) fn text(path: &PathPattern) -> &str {
    match path {
        PathPattern::Exact(path) | PathPattern::Prefix(path) => path,
    }
}

/// Whether a path is a prefix or lies below it, on segment boundaries.
pub(super) fn covers(prefix: &str, path: &str) -> bool {
    path.strip_prefix(prefix.trim_end_matches('/'))
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
