//! Who shares a budget that is for each client?

use std::net::{IpAddr, Ipv6Addr};

use super::share::Named;
use crate::policy::ClientIp;

/// Makes the key of a client: its address, or the network of an IPv6 one. One IPv6 subscriber has a whole network, so that a
/// limit for each address would be none (RATE-2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ClientKeys {
    ipv6_mask: u128,
}

impl ClientKeys {
    /// IPv6 addresses with so many leading bits in common share a key.
    pub(super) fn new(ipv6_prefix: u8) -> Self {
        let host_bits = 128 - u32::from(ipv6_prefix.min(128));
        Self {
            ipv6_mask: u128::MAX.checked_shl(host_bits).unwrap_or(0),
        }
    }

    /// The client's key; IPv4 in IPv6 is IPv4.
    pub(super) fn of(self, client: ClientIp) -> IpAddr {
        match client.ip().to_canonical() {
            IpAddr::V6(address) => {
                IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & self.ipv6_mask))
            }
            address @ IpAddr::V4(_) => address,
        }
    }
}

impl Named for IpAddr {
    fn name(&self) -> [Box<str>; 2] {
        ["".into(), self.to_string().into()]
    }
}
