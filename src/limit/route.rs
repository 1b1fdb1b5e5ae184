//! How often may a route be asked: by one user, by one client address, by all together?

use std::{collections::HashMap, net::IpAddr, sync::Arc, time::Duration};

use governor::clock::{Clock, DefaultClock};
use ipnet::IpNet;

use super::{
    client::ClientKeys,
    keyed::{KeyedLimiter, Sharing},
    settings::{IpLimitSettings, LimitKey, RouteLimitSettings},
    share::{Named, Share},
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
    share: Option<Share>,
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

impl Named for Who<'_> {
    fn name(&self) -> [Box<str>; 2] {
        match self {
            // An issuer is never empty.
            Self::Everybody => ["".into(), "everybody".into()],
            Self::Client(address) => address.name(),
            Self::User(issuer, subject) => [(*issuer).into(), (*subject).into()],
        }
    }
}

impl RouteLimits {
    /// Makes the limits, for each route in the order of the table, in which everybody has the whole budget. `clients` says which
    /// clients share one, which networks have none, and how many keys each limit remembers.
    #[must_use]
    pub fn new<'s>(
        routes: impl IntoIterator<Item = (&'s Arc<str>, &'s [RouteLimitSettings])>,
        clients: &IpLimitSettings,
    ) -> Self {
        Self::shared(routes, clients, None)
    }

    /// The same with budgets that other nodes take from too, where `share` leads to them.
    #[must_use]
    pub fn shared<'s>(
        routes: impl IntoIterator<Item = (&'s Arc<str>, &'s [RouteLimitSettings])>,
        clients: &IpLimitSettings,
        share: Option<&Share>,
    ) -> Self {
        Self::make(routes, clients, &DefaultClock::default(), share)
    }

    /// The limits of other routes. A limit that a route of the same name had in `before` goes on with what it has counted.
    #[must_use]
    pub fn following<'s>(
        routes: impl IntoIterator<Item = (&'s Arc<str>, &'s [RouteLimitSettings])>,
        clients: &IpLimitSettings,
        before: &Self,
    ) -> Self {
        let mut next = Self::shared(routes, clients, before.share.as_ref());
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
        Self::make(routes, clients, clock, None)
    }

    fn make<'s>(
        routes: impl IntoIterator<Item = (&'s Arc<str>, &'s [RouteLimitSettings])>,
        clients: &IpLimitSettings,
        clock: &C,
        share: Option<&Share>,
    ) -> Self
    where
        C: Clone,
    {
        let mut by_name = HashMap::new();
        let routes = routes.into_iter().enumerate();
        let routes = routes.map(|(place, (name, limits))| {
            if !limits.is_empty() {
                by_name.insert(Arc::clone(name), place);
            }
            let before = |end| limits.get(..end).unwrap_or_default();
            let limits = limits.iter().enumerate().map(|(number, limit)| {
                let twins = before(number).iter().filter(|other| *other == limit);
                let sharing = share.map(|share| sharing(share, name, limit, twins.count()));
                RouteLimit::new(limit, clients.max_keys, clock.clone(), sharing)
            });
            limits.collect()
        });
        Self {
            routes: routes.collect(),
            by_name,
            exempt: clients.exempt.clone(),
            keys: ClientKeys::new(clients.ipv6_prefix),
            share: share.cloned(),
        }
    }
}

impl<C: Clock> RouteLimit<C> {
    fn new(
        settings: &RouteLimitSettings,
        max_keys: usize,
        clock: C,
        sharing: Option<Sharing>,
    ) -> Self {
        let max_keys = match settings.key {
            LimitKey::Ip | LimitKey::User => max_keys,
            LimitKey::Route => 1,
        };
        let (key, name, quota) = (settings.key, name(settings.key), settings.quota);
        let limiter = KeyedLimiter::shared(name, quota, max_keys, clock, sharing);
        Self {
            key,
            limiter: Arc::new(limiter),
        }
    }
}

impl<C: Clock + Send + Sync + 'static> RouteLimits<C> {
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
            if let Err(exceeded) = limit.limiter.check_shared(&who) {
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

/// In metrics.
const fn name(key: LimitKey) -> &'static str {
    match key {
        LimitKey::Ip => "route_ip",
        LimitKey::Route => "route",
        LimitKey::User => "route_user",
    }
}

/// `twins`: how many limits before it in the route are the same.
fn sharing(share: &Share, route: &str, limit: &RouteLimitSettings, twins: usize) -> Sharing {
    let (name, quota) = (name(limit.key), limit.quota.title());
    Sharing {
        share: share.clone(),
        title: format!("{name} {quota} {twins} {route}").into(),
        wait_max: Duration::MAX,
    }
}

#[cfg(test)]
mod tests;
