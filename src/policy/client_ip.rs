//! Whose request is it? The address that limits, rules, logs and the upstream are told.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, header::HeaderName};
use ipnet::IpNet;

/// The address at the other end of the socket, as the kernel saw it, with IPv4-mapped IPv6 folded to IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PeerIp(IpAddr);

/// The address that a request is charged to. Only [`TrustedProxies::client_ip`] makes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientIp(IpAddr);

/// The networks whose `X-Forwarded-*` fields are believed. Empty by default: nobody's.
#[derive(Debug, Clone, Default)]
pub struct TrustedProxies(Vec<IpNet>);

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

impl PeerIp {
    /// Folds an IPv4-mapped IPv6 address to IPv4, so that one host has one name (RATE-2).
    #[must_use]
    pub fn new(address: IpAddr) -> Self {
        Self(address.to_canonical())
    }

    /// The address.
    #[must_use]
    pub fn ip(self) -> IpAddr {
        self.0
    }
}

impl ClientIp {
    /// The address.
    #[must_use]
    pub fn ip(self) -> IpAddr {
        self.0
    }
}

impl From<PeerIp> for ClientIp {
    /// The client of a connection that no proxy relayed.
    fn from(peer: PeerIp) -> Self {
        Self(peer.0)
    }
}

impl std::fmt::Display for ClientIp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl TrustedProxies {
    /// Trusts exactly these networks.
    #[must_use]
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    /// Whether nobody is trusted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether what this peer says of others is believed.
    #[must_use]
    pub fn trusts(&self, peer: PeerIp) -> bool {
        self.contains(peer.0)
    }

    /// Finds the address that a request is charged to.
    ///
    /// `X-Forwarded-For` lists hops left to right, nearest proxy last, over any number of lines. Starting at `peer` the walk
    /// goes left while the address in hand is a trusted proxy; an unreadable hop ends it. Whatever is further left was
    /// written by someone whom we do not trust (RFC 7239 §8.1). Never fails: with no usable hop the answer is `peer`.
    #[must_use]
    pub fn client_ip(&self, peer: PeerIp, headers: &HeaderMap) -> ClientIp {
        let mut client = peer.0;
        if self.0.is_empty() || !self.contains(client) {
            return ClientIp(client);
        }
        let lines: Vec<_> = headers.get_all(X_FORWARDED_FOR).iter().collect();
        for line in lines.into_iter().rev() {
            let Ok(line) = line.to_str() else {
                return ClientIp(client);
            };
            for hop in line.rsplit(',') {
                let Some(address) = parse_hop(hop) else {
                    return ClientIp(client);
                };
                client = address;
                if !self.contains(client) {
                    return ClientIp(client);
                }
            }
        }
        ClientIp(client)
    }

    fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// Reads one hop: an address, an IPv4 address with a port, or a bracketed IPv6 address with or without a port.
fn parse_hop(hop: &str) -> Option<IpAddr> {
    let hop = hop.trim_matches([' ', '\t']);
    let address = hop
        .parse::<IpAddr>()
        .ok()
        .or_else(|| hop.parse::<SocketAddr>().ok().map(|socket| socket.ip()))
        .or_else(|| hop.strip_prefix('[')?.strip_suffix(']')?.parse().ok())?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[track_caller]
    fn check(trusted: &[&str], peer: &str, lines: &[&str], want: &str) {
        let proxies = TrustedProxies::new(trusted.iter().map(|n| n.parse().unwrap()).collect());
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(
                X_FORWARDED_FOR,
                HeaderValue::from_bytes(line.as_bytes()).unwrap(),
            );
        }
        let client = proxies.client_ip(PeerIp::new(peer.parse().unwrap()), &headers);
        assert_eq!(client.ip(), want.parse::<IpAddr>().unwrap());
    }

    #[test]
    fn hdr_4_untrusted_peer_cannot_name_another_client() {
        check(&[], "203.0.113.9", &["10.0.0.1"], "203.0.113.9");
        check(&["10.0.0.0/8"], "203.0.113.9", &["10.0.0.1"], "203.0.113.9");
    }

    #[test]
    fn hdr_4_trusted_peer_names_the_right_most_untrusted_hop() {
        let trusted = &["10.0.0.0/8"];
        check(trusted, "10.0.0.2", &["198.51.100.7"], "198.51.100.7");
        check(
            trusted,
            "10.0.0.2",
            &["1.1.1.1, 198.51.100.7"],
            "198.51.100.7",
        );
        check(
            trusted,
            "10.0.0.2",
            &["1.1.1.1, 198.51.100.7, 10.0.0.9"],
            "198.51.100.7",
        );
        check(
            trusted,
            "10.0.0.2",
            &["198.51.100.7", "10.0.0.9"],
            "198.51.100.7",
        );
        check(trusted, "10.0.0.2", &["198.51.100.7:4711"], "198.51.100.7");
        check(trusted, "10.0.0.2", &["[2001:db8::1]:4711"], "2001:db8::1");
        check(trusted, "10.0.0.2", &["[2001:db8::1]"], "2001:db8::1");
        check(
            trusted,
            "10.0.0.2",
            &["::ffff:198.51.100.7"],
            "198.51.100.7",
        );
    }

    #[test]
    fn hdr_4_unreadable_hop_ends_the_walk() {
        let trusted = &["10.0.0.0/8"];
        check(trusted, "10.0.0.2", &["a"], "10.0.0.2");
        check(
            trusted,
            "10.0.0.2",
            &["198.51.100.7, a, 10.0.0.9"],
            "10.0.0.9",
        );
        check(trusted, "10.0.0.2", &["198.51.100.7,,"], "10.0.0.2");
        check(trusted, "10.0.0.2", &["fe80::1%eth0"], "10.0.0.2");
        check(trusted, "10.0.0.2", &["\u{fffd}"], "10.0.0.2");
        check(trusted, "10.0.0.2", &[], "10.0.0.2");
    }

    #[test]
    fn hdr_4_long_chains_walk_to_the_first_stranger() {
        let chain = |n: u8| {
            (0..n)
                .map(|i| format!("10.0.1.{i}"))
                .collect::<Vec<_>>()
                .join(", ")
        };
        for n in 1..=50 {
            check(
                &["10.0.0.0/8"],
                "10.0.0.2",
                &[&format!("192.0.2.1, {}", chain(n))],
                "192.0.2.1",
            );
        }
    }

    #[test]
    fn rate_2_mapped_ipv4_is_folded() {
        check(&[], "::ffff:192.0.2.1", &[], "192.0.2.1");
    }
}
