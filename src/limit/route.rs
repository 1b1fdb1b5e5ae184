//! How often may a route be asked: by one user, by one client address, by all together?

use std::net::IpAddr;

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
    exempt: Vec<IpNet>,
    keys: ClientKeys,
}

#[derive(Debug)]
struct RouteLimit<C: Clock> {
    key: LimitKey,
    limiter: KeyedLimiter<Who<'static>, C>,
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
        routes: impl IntoIterator<Item = &'s [RouteLimitSettings]>,
        clients: &IpLimitSettings,
    ) -> Self {
        Self::with_clock(routes, clients, &DefaultClock::default())
    }
}

impl<C: Clock> RouteLimits<C> {
    /// The same by another clock.
    pub fn with_clock<'s>(
        routes: impl IntoIterator<Item = &'s [RouteLimitSettings]>,
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
                limiter: KeyedLimiter::with_clock(name, settings.quota, max_keys, clock),
            }
        };
        let routes = routes.into_iter();
        Self {
            routes: routes
                .map(|limits| limits.iter().map(limit).collect())
                .collect(),
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
