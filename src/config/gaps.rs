//! What a route leaves to others by its list of methods: a request whose method it does not name goes on to a less specific route,
//! which may ask for less (CFG-1).

use http::Method;

use super::{
    diagnostic::{Fault, Problems, Related},
    overlap::{bare, is_open, one_of, text},
    route::Placed,
};
use crate::policy::{Route, Routes, Rule};

/// Methods that change something.
const CHANGES: [Method; 4] = [Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

/// Warns where a protected route names its methods, and another takes one that changes something to the same paths, and asks for
/// less. Another route of the very same path is what the operator wrote for the other methods.
pub(super) fn warn(problems: &Problems, placed: &Placed, routes: &[Placed], table: &Routes) {
    let protected = &placed.route;
    if protected.methods.is_empty() || is_open(protected) {
        return;
    }
    let hosts = match &*protected.hosts {
        [] => vec![String::new()],
        hosts => hosts.iter().map(one_of).collect(),
    };
    for host in hosts {
        let mut left = missing(&protected.methods)
            .into_iter()
            .filter_map(|method| {
                let taker = table.find(&host, text(&protected.path), &method).ok()?;
                is_weaker(taker, protected).then_some((method, taker))
            });
        let Some((first, taker)) = left.next() else {
            continue;
        };
        let others = left.filter(|(_, other)| other.index == taker.index);
        let methods: Vec<Method> = others.map(|(method, _)| method).collect();
        let methods: Vec<&str> = std::iter::once(&first)
            .chain(&methods)
            .map(Method::as_str)
            .collect();
        let message = format!(
            "{} of `{}` are not its own: route `{}` takes them, and asks for less",
            methods.join(", "),
            text(&protected.path),
            taker.name
        );
        let hint = "leave `methods` out, so that it decides about all of them, or give the others a route of this path";
        let fault = Fault::new(message, hint);
        match routes.get(taker.index) {
            Some(taker) => {
                let span = taker.place.span.clone();
                let label = "takes what is not listed there";
                problems.warn_related(&placed.place, Related { span, label }, fault);
            }
            None => problems.warn(&placed.place, fault),
        }
        return;
    }
}

/// The methods that change something and are not listed; and `HEAD` beside `GET`, for servers answer both alike.
fn missing(listed: &[Method]) -> Vec<Method> {
    let head = listed.contains(&Method::GET).then_some(Method::HEAD);
    let all = CHANGES.into_iter().chain(head);
    all.filter(|method| !listed.contains(method)).collect()
}

/// Whether another path's route admits somebody whom this one may not.
fn is_weaker(other: &Route, than: &Route) -> bool {
    bare(&other.path) != bare(&than.path)
        && (is_open(other)
            || !asks_as_much(&other.rule, &than.rule)
            || (than.addresses.allow != other.addresses.allow && !than.addresses.allow.is_empty())
            || !(than.addresses.deny.iter()).all(|net| other.addresses.deny.contains(net)))
}

/// Whether whoever meets `rule` meets `wanted` too.
fn asks_as_much(rule: &Rule, wanted: &Rule) -> bool {
    /// Of lists of which one entry is enough.
    fn is_narrower(list: &[Box<str>], wanted: &[Box<str>]) -> bool {
        wanted.is_empty() || (!list.is_empty() && list.iter().all(|one| wanted.contains(one)))
    }
    let claims = wanted.claims.iter().all(|(name, values)| {
        let mut same = rule.claims.iter().filter(|(other, _)| other == name);
        same.any(|(_, others)| others.iter().all(|value| values.contains(value)))
    });
    claims
        && is_narrower(&rule.roles, &wanted.roles)
        && is_narrower(&rule.issuers, &wanted.issuers)
        && is_narrower(&rule.audiences, &wanted.audiences)
        && (wanted.scopes.iter()).all(|scope| rule.scopes.contains(scope))
}
