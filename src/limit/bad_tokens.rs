//! How many signatures may one client have checked in vain (RATE-8)?
//!
//! A token is charged before its signature is checked and the charge is given back when the check was not in vain. So asking and
//! taking is one step (RATE-6), and sixty-four connections with bad tokens get no more checks than one.

use std::{net::IpAddr, sync::Arc, time::Duration};

use governor::clock::{Clock, DefaultClock};

use super::{
    client::ClientKeys,
    keyed::{KeyedLimiter, Sharing},
    settings::{IpLimitSettings, Quota},
    share::Share,
};
use crate::policy::{Allowance, ClientIp, rejection::Exceeded};

/// The limit's name.
const LIMIT: &str = "bad_tokens";

/// For how long after the last failure somebody may be refused at most.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// A budget of failed verifications for each client address, or each network of an IPv6 client. No network is exempt: who is
/// trusted to ask often has no need of bad tokens.
#[derive(Debug)]
pub struct BadTokens<C: Clock = DefaultClock> {
    limiter: Arc<KeyedLimiter<IpAddr, C>>,
    keys: ClientKeys,
    wait: Duration,
}

/// One client's budget.
#[derive(Debug)]
pub struct BadTokensOf<'b, C: Clock = DefaultClock> {
    budget: &'b BadTokens<C>,
    key: IpAddr,
}

impl BadTokens {
    /// Makes the limiter `bad_tokens`, in which every address has its whole budget.
    #[must_use]
    pub fn new(settings: &IpLimitSettings) -> Self {
        Self::shared(settings, None)
    }

    /// The same with budgets that other nodes take from too, where `share` leads to them.
    #[must_use]
    pub fn shared(settings: &IpLimitSettings, share: Option<&Share>) -> Self {
        Self::make(settings, DefaultClock::default(), share)
    }

    /// The limiter for other settings. What `before` has counted goes on where the budget and whom it is for are the same.
    #[must_use]
    pub fn following(settings: &IpLimitSettings, before: &Self) -> Self {
        let mut next = Self::shared(settings, before.limiter.share());
        let same = before
            .limiter
            .is_for(settings.bad_tokens, settings.max_keys);
        if same && before.keys == next.keys {
            next.limiter = Arc::clone(&before.limiter);
        }
        next
    }
}

impl<C: Clock> BadTokens<C> {
    /// The same by another clock.
    pub fn with_clock(settings: &IpLimitSettings, clock: C) -> Self {
        Self::make(settings, clock, None)
    }

    fn make(settings: &IpLimitSettings, clock: C, share: Option<&Share>) -> Self {
        let (quota, max_keys) = (settings.bad_tokens, settings.max_keys);
        let sharing = share.map(|share| Sharing {
            share: share.clone(),
            title: format!("{LIMIT} {}", quota.title()).into(),
            wait_max: WAIT_MAX.saturating_sub(one(quota)),
        });
        Self {
            limiter: Arc::new(KeyedLimiter::shared(LIMIT, quota, max_keys, clock, sharing)),
            keys: ClientKeys::new(settings.ipv6_prefix),
            wait: settings.bad_tokens_wait,
        }
    }

    /// The limit's name: a label of metrics and of `RateLimit-Policy`.
    pub const fn limit(&self) -> &'static str {
        LIMIT
    }

    /// How long a client who has used its budget up is to wait for each refusal; zero for not at all.
    pub const fn wait(&self) -> Duration {
        self.wait
    }

    /// The budget of one client.
    pub fn of(&self, client: ClientIp) -> BadTokensOf<'_, C> {
        BadTokensOf {
            budget: self,
            key: self.keys.of(client),
        }
    }
}

/// How long an empty budget makes somebody wait.
fn one(quota: Quota) -> Duration {
    quota.window.checked_div(quota.count).unwrap_or_default()
}

impl<C: Clock + Send + Sync + 'static> Allowance for BadTokensOf<'_, C> {
    fn take(&self) -> Result<(), Exceeded> {
        self.budget.limiter.check_shared(&self.key)
    }

    fn give_back(&self) {
        self.budget.limiter.give_back(&self.key);
    }
}

#[cfg(test)]
mod tests;
