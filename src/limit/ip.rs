//! How often may one client address ask?

use std::{net::IpAddr, sync::Arc, time::Duration};

use governor::clock::{Clock, DefaultClock};
use ipnet::IpNet;

use super::{
    client::ClientKeys,
    keyed::{KeyedLimiter, Sharing},
    settings::IpLimitSettings,
    share::Share,
};
use crate::policy::{ClientIp, rejection::Exceeded};

/// A limit for each client address, or each network of an IPv6 client.
#[derive(Debug)]
pub struct IpLimiter<C: Clock = DefaultClock> {
    limiter: Arc<KeyedLimiter<IpAddr, C>>,
    exempt: Vec<IpNet>,
    keys: ClientKeys,
}

impl IpLimiter {
    /// Makes the limiter `per_ip`, in which every address has its whole budget.
    #[must_use]
    pub fn new(settings: &IpLimitSettings) -> Self {
        Self::shared(settings, None)
    }

    /// The same with budgets that other nodes take from too, where `share` leads to them.
    #[must_use]
    pub fn shared(settings: &IpLimitSettings, share: Option<&Share>) -> Self {
        Self::make(settings, DefaultClock::default(), share)
    }

    /// The limiter for other settings. What `before` has counted goes on where the budget and whom it is for are the same: a
    /// reload gives nobody a budget anew.
    #[must_use]
    pub fn following(settings: &IpLimitSettings, before: &Self) -> Self {
        let mut next = Self::shared(settings, before.limiter.share());
        let same = before.limiter.is_for(settings.per_ip, settings.max_keys);
        if same && before.keys == next.keys {
            next.limiter = Arc::clone(&before.limiter);
        }
        next
    }
}

impl<C: Clock> IpLimiter<C> {
    /// The same by another clock.
    pub fn with_clock(settings: &IpLimitSettings, clock: C) -> Self {
        Self::make(settings, clock, None)
    }

    fn make(settings: &IpLimitSettings, clock: C, share: Option<&Share>) -> Self {
        let quota = settings.per_ip;
        let sharing = share.map(|share| Sharing {
            share: share.clone(),
            title: format!("per_ip {}", quota.title()).into(),
            wait_max: Duration::MAX,
        });
        Self {
            limiter: Arc::new(KeyedLimiter::shared(
                "per_ip",
                quota,
                settings.max_keys,
                clock,
                sharing,
            )),
            exempt: settings.exempt.clone(),
            keys: ClientKeys::new(settings.ipv6_prefix),
        }
    }
}

impl<C: Clock + Send + Sync + 'static> IpLimiter<C> {
    /// Takes one request from the address's budget.
    ///
    /// # Errors
    /// [`Exceeded`] where the budget is used up. Addresses of an exempt network have none.
    pub fn check(&self, client: ClientIp) -> Result<(), Exceeded> {
        let address = client.ip().to_canonical();
        if self.exempt.iter().any(|network| network.contains(&address)) {
            return Ok(());
        }
        self.limiter.check_shared(&self.keys.of(client))
    }
}

#[cfg(test)]
mod tests;
