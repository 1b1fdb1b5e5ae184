//! How many signatures may one client have checked in vain (RATE-8)?
//!
//! A token is charged before its signature is checked and the charge is given back when the check was not in vain. So asking and
//! taking is one step (RATE-6), and sixty-four connections with bad tokens get no more checks than one.

use std::{net::IpAddr, sync::Arc};

use governor::clock::{Clock, DefaultClock};

use super::{client::ClientKeys, keyed::KeyedLimiter, settings::IpLimitSettings};
use crate::policy::{Allowance, ClientIp, rejection::Exceeded};

/// A budget of failed verifications for each client address, or each network of an IPv6 client. No network is exempt: who is
/// trusted to ask often has no need of bad tokens.
#[derive(Debug)]
pub struct BadTokens<C: Clock = DefaultClock> {
    limiter: Arc<KeyedLimiter<IpAddr, C>>,
    keys: ClientKeys,
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
        Self::with_clock(settings, DefaultClock::default())
    }

    /// The limiter for other settings. What `before` has counted goes on where the budget and whom it is for are the same.
    #[must_use]
    pub fn following(settings: &IpLimitSettings, before: &Self) -> Self {
        let mut next = Self::new(settings);
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
        let (quota, max_keys) = (settings.bad_tokens, settings.max_keys);
        Self {
            limiter: Arc::new(KeyedLimiter::with_clock(
                "bad_tokens",
                quota,
                max_keys,
                clock,
            )),
            keys: ClientKeys::new(settings.ipv6_prefix),
        }
    }

    /// The budget of one client.
    pub fn of(&self, client: ClientIp) -> BadTokensOf<'_, C> {
        BadTokensOf {
            budget: self,
            key: self.keys.of(client),
        }
    }
}

impl<C: Clock> Allowance for BadTokensOf<'_, C> {
    fn take(&self) -> Result<(), Exceeded> {
        self.budget.limiter.check(self.key)
    }

    fn give_back(&self) {
        self.budget.limiter.give_back(&self.key);
    }
}

#[cfg(test)]
mod tests;
