//! How often may a route be asked: by one user, by one client address, by all together?

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use governor::clock::{Clock, DefaultClock};
use ipnet::IpNet;

use super::{
    client::ClientKeys,
    keyed::KeyedLimiter,
    settings::{IpLimitSettings, LimitKey, RouteLimitSettings},
};
use crate::policy::{ClientIp, Identity, Permit, rejection::Exceeded};

/// The limits of all routes, by the route's index.
#[derive(Debug)]
pub struct RouteLimits<C: Clock = DefaultClock> {
    routes: Vec<Box<[RouteLimit<C>]>>,
    /// The places of the routes that have any, for a reload.
    by_name: HashMap<Arc<str>, usize>,
    exempt: Vec<IpNet>,
    keys: ClientKeys,
}

#[derive(Debug, Clone)]
struct RouteLimit<C: Clock> {
    key: LimitKey,
    limiter: Arc<KeyedLimiter<Who<'static>, C>>,
}

/// Who shares a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Who<'k> {
    Everybody,
    Client(IpAddr),
    /// Issuer and subject: a subject alone is another person's at another issuer.
    User(&'k str, &'k str),
}

impl RouteLimits {
    /// Makes the limits, for each route in the order of the table, in which everybody has the whole budget. `clients` says which
    /// clients share one, which networks have none, and how many keys each limit remembers.
    #[must_use]
    pub fn new<'s>(
        routes: impl IntoIterator<Item = (&'s Arc<str>, &'s [RouteLimitSettings])>,
        clients: &IpLimitSettings,
    ) -> Self {
        Self::with_clock(routes, clients, &DefaultClock::default())
    }

    /// The limits of other routes. A limit that a route of the same name had in `before` goes on with what it has counted.
    #[must_use]
    pub fn following<'s>(
        routes: impl IntoIterator<Item = (&'s Arc<str>, &'s [RouteLimitSettings])>,
        clients: &IpLimitSettings,
        before: &Self,
    ) -> Self {
        let mut next = Self::new(routes, clients);
        if next.keys != before.keys {
            return next;
        }
        for (name, place) in &next.by_name {
            let old = before.by_name.get(name);
            let old = old.and_then(|place| before.routes.get(*place));
            let mut old: Vec<RouteLimit<DefaultClock>> =
                old.map_or_else(Vec::new, |old| old.to_vec());
            for limit in next.routes.get_mut(*place).into_iter().flatten() {
                let same = old.iter().position(|one| one.is_like(limit));
                if let Some(same) = same {
                    limit.limiter = old.swap_remove(same).limiter;
                }
            }
        }
        next
    }
}

impl<C: Clock> RouteLimit<C> {
    fn is_like(&self, other: &Self) -> bool {
        self.key == other.key && self.limiter.is_like(&other.limiter)
    }
}

impl<C: Clock> RouteLimits<C> {
    /// The same by another clock.
    pub fn with_clock<'s>(
        routes: impl IntoIterator<Item = (&'s Arc<str>, &'s [RouteLimitSettings])>,
        clients: &IpLimitSettings,
        clock: &C,
    ) -> Self
    where
        C: Clone,
    {
        let limit = |settings: &RouteLimitSettings| {
            let (name, max_keys) = match settings.key {
                LimitKey::Ip => ("route_ip", clients.max_keys),
                LimitKey::Route => ("route", 1),
                LimitKey::User => ("route_user", clients.max_keys),
            };
            let clock = clock.clone();
            RouteLimit {
                key: settings.key,
                limiter: Arc::new(KeyedLimiter::with_clock(
                    name,
                    settings.quota,
                    max_keys,
                    clock,
                )),
            }
        };
        let mut by_name = HashMap::new();
        let routes = routes.into_iter().enumerate();
        let routes = routes.map(|(place, (name, limits))| {
            if !limits.is_empty() {
                by_name.insert(Arc::clone(name), place);
            }
            limits.iter().map(limit).collect()
        });
        Self {
            routes: routes.collect(),
            by_name,
            exempt: clients.exempt.clone(),
            keys: ClientKeys::new(clients.ipv6_prefix),
        }
    }

    /// Takes one request from every budget of the permit's route, or from none.
    ///
    /// # Errors
    /// [`Exceeded`] by the first limit that is used up.
    pub fn check(&self, permit: &Permit<'_>) -> Result<(), Exceeded> {
        let limits = self.routes.get(permit.route().index);
        let limits = limits.map_or(&[][..], |limits| limits);
        for (place, limit) in limits.iter().enumerate() {
            let Some(who) = self.who(limit.key, permit) else {
                continue;
            };
            if let Err(exceeded) = limit.limiter.check(who) {
                for taken in limits.iter().take(place) {
                    if let Some(who) = self.who(taken.key, permit) {
                        taken.limiter.give_back(&who);
                    }
                }
                return Err(exceeded);
            }
        }
        Ok(())
    }

    /// `None` where the limit is not for this caller.
    fn who<'p>(&self, key: LimitKey, permit: &'p Permit<'_>) -> Option<Who<'p>> {
        match (key, permit.caller().identity().map(Identity::claims)) {
            (LimitKey::Route, _) => Some(Who::Everybody),
            (LimitKey::User, Some(claims)) => Some(Who::User(&claims.issuer, &claims.subject)),
            (LimitKey::User, None) | (LimitKey::Ip, _) => self.client(permit.client()),
        }
    }

    fn client(&self, client: ClientIp) -> Option<Who<'static>> {
        let address = client.ip().to_canonical();
        let is_exempt = self.exempt.iter().any(|network| network.contains(&address));
        (!is_exempt).then(|| Who::Client(self.keys.of(client)))
    }
}

#[cfg(test)]
mod tests;
