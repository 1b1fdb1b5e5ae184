//! How often may one client address ask?

use std::net::{IpAddr, Ipv6Addr};

use governor::clock::{Clock, DefaultClock};
use ipnet::IpNet;

use super::{keyed::KeyedLimiter, settings::IpLimitSettings};
use crate::policy::{ClientIp, rejection::Exceeded};

/// A limit for each client address, or each network of an IPv6 client.
#[derive(Debug)]
pub struct IpLimiter<C: Clock = DefaultClock> {
    limiter: KeyedLimiter<IpAddr, C>,
    exempt: Vec<IpNet>,
    ipv6_mask: u128,
}

impl IpLimiter {
    /// Makes the limiter `per_ip`, in which every address has its whole budget.
    #[must_use]
    pub fn new(settings: &IpLimitSettings) -> Self {
        Self::with_clock(settings, DefaultClock::default())
    }
}

impl<C: Clock> IpLimiter<C> {
    /// The same by another clock.
    pub fn with_clock(settings: &IpLimitSettings, clock: C) -> Self {
        let host_bits = 128 - u32::from(settings.ipv6_prefix.min(128));
        Self {
            limiter: KeyedLimiter::with_clock("per_ip", settings.per_ip, settings.max_keys, clock),
            exempt: settings.exempt.clone(),
            ipv6_mask: u128::MAX.checked_shl(host_bits).unwrap_or(0),
        }
    }

    /// Takes one request from the address's budget.
    ///
    /// # Errors
    /// [`Exceeded`] where the budget is used up. Addresses of an exempt network have none.
    pub fn check(&self, client: ClientIp) -> Result<(), Exceeded> {
        let address = client.ip().to_canonical();
        if self.exempt.iter().any(|network| network.contains(&address)) {
            return Ok(());
        }
        self.limiter.check(self.key(address))
    }

    /// Who shares a budget. One IPv6 subscriber has a whole network, so that a limit for each address would be none
    /// (RATE-2).
    fn key(&self, address: IpAddr) -> IpAddr {
        match address {
            IpAddr::V4(_) => address,
            IpAddr::V6(address) => {
                IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & self.ipv6_mask))
            }
        }
    }
}

#[cfg(test)]
mod tests;
