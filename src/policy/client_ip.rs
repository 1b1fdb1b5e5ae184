//! Whose request is it? The address that limits, rules, logs and the upstream are told.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, header::HeaderName};
use ipnet::IpNet;

use super::forwarded;

/// The address at the other end of the socket, as the kernel saw it, with IPv4-mapped IPv6 folded to IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PeerIp(IpAddr);

/// The address that a request is charged to. Only [`TrustedProxies::client_ip`] makes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientIp(IpAddr);

/// In which fields trusted proxies tell of the client. One of the two is read and the other never: a proxy that writes one passes
/// on what a client wrote in the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ForwardedHeaders {
    /// `X-Forwarded-For`, `X-Forwarded-Proto` and `X-Forwarded-Host`.
    #[default]
    XForwarded,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// The networks whose forwarding fields are believed, and which fields those are. Empty by default: nobody's.
#[derive(Debug, Clone, Default)]
pub struct TrustedProxies {
    networks: Vec<IpNet>,
    fields: ForwardedHeaders,
}

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
    /// Trusts exactly these networks, in `X-Forwarded-*`.
    #[must_use]
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self {
            networks,
            fields: ForwardedHeaders::default(),
        }
    }

    /// Believes them in these fields instead.
    #[must_use]
    pub fn by(self, fields: ForwardedHeaders) -> Self {
        Self { fields, ..self }
    }

    /// The fields that are read of those who are trusted.
    #[must_use]
    pub fn fields(&self) -> ForwardedHeaders {
        self.fields
    }

    /// Whether nobody is trusted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty()
    }

    /// Whether what this peer says of others is believed.
    #[must_use]
    pub fn trusts(&self, peer: PeerIp) -> bool {
        self.contains(peer.0)
    }

    /// The fields in which this peer is believed; `None` where it is not trusted.
    #[must_use]
    pub fn believed(&self, peer: PeerIp) -> Option<ForwardedHeaders> {
        self.trusts(peer).then_some(self.fields)
    }

    /// Finds the address that a request is charged to.
    ///
    /// `X-Forwarded-For` and `Forwarded` list hops left to right, nearest proxy last, over any number of lines; the one of them
    /// that is believed is read. Starting at `peer` the walk goes left while the address in hand is a trusted proxy; a hop that
    /// cannot be read or has no address ends it. Whatever is further left was written by someone whom we do not trust (RFC 7239
    /// §8.1). Never fails: with no usable hop the answer is `peer`.
    #[must_use]
    pub fn client_ip(&self, peer: PeerIp, headers: &HeaderMap) -> ClientIp {
        if self.networks.is_empty() || !self.contains(peer.0) {
            return ClientIp(peer.0);
        }
        match self.fields {
            ForwardedHeaders::XForwarded => self.walk(peer, x_forwarded_for(headers)),
            ForwardedHeaders::Forwarded => {
                let elements = forwarded::elements(headers);
                self.walk(peer, elements.map(|element| element.client))
            }
        }
    }

    /// Goes from hop to hop, nearest first, while the one in hand is trusted.
    fn walk(&self, peer: PeerIp, hops: impl Iterator<Item = Option<IpAddr>>) -> ClientIp {
        let mut client = peer.0;
        for address in hops.map_while(|hop| hop) {
            client = address;
            if !self.contains(client) {
                break;
            }
        }
        ClientIp(client)
    }

    fn contains(&self, address: IpAddr) -> bool {
        self.networks
            .iter()
            .any(|network| network.contains(&address))
    }
}

/// The hops of `X-Forwarded-For`, nearest first; `None` for what cannot be read.
fn x_forwarded_for(headers: &HeaderMap) -> impl Iterator<Item = Option<IpAddr>> {
    let lines = headers.get_all(X_FORWARDED_FOR).iter();
    lines.rev().flat_map(|line| {
        // A line that is no text is one hop that cannot be read.
        let hops = line.to_str().unwrap_or_default();
        hops.rsplit(',').map(parse_hop)
    })
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
    fn hdr_4_of_the_two_fields_one_is_read_and_the_other_never() {
        let networks: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap()];
        let mut headers = HeaderMap::new();
        headers.insert(X_FORWARDED_FOR, HeaderValue::from_static("192.0.2.1"));
        headers.insert("forwarded", HeaderValue::from_static("for=192.0.2.2"));
        let proxy = PeerIp::new("10.0.0.2".parse().unwrap());
        let stranger = PeerIp::new("203.0.113.9".parse().unwrap());
        for (fields, want, alone) in [
            (ForwardedHeaders::XForwarded, "192.0.2.1", "forwarded"),
            (ForwardedHeaders::Forwarded, "192.0.2.2", "x-forwarded-for"),
        ] {
            let proxies = TrustedProxies::new(networks.clone()).by(fields);
            let found = proxies.client_ip(proxy, &headers).to_string();
            assert_eq!(found, want);
            assert_eq!(proxies.client_ip(stranger, &headers), stranger.into());
            let value = headers.get(alone).unwrap().clone();
            let other = HeaderMap::from_iter([(alone.parse().unwrap(), value)]);
            assert_eq!(proxies.client_ip(proxy, &other), proxy.into(), "{alone}");
        }
    }

    #[test]
    fn hdr_4_forwarded_names_the_right_most_untrusted_hop() {
        let networks = vec!["10.0.0.0/8".parse().unwrap()];
        let proxies = TrustedProxies::new(networks).by(ForwardedHeaders::Forwarded);
        for (lines, want) in [
            (&["for=192.0.2.66, for=198.51.100.7"][..], "198.51.100.7"),
            (
                &["for=192.0.2.66, for=198.51.100.7, for=10.0.0.9"],
                "198.51.100.7",
            ),
            (&["for=198.51.100.7", "for=10.0.0.9"], "198.51.100.7"),
            (&["for=10.0.0.8", "for=198.51.100.7"], "198.51.100.7"),
            (&["for=198.51.100.7, for=_a, for=10.0.0.9"], "10.0.0.9"),
            (&["for=198.51.100.7, for=unknown"], "10.0.0.2"),
            (&["for=198.51.100.7, proto=https"], "10.0.0.2"),
            (&["for=198.51.100.7, ,for=10.0.0.9"], "10.0.0.9"),
            (&["for=198.51.100.7,"], "10.0.0.2"),
            (&["for=198.51.100.7", ""], "10.0.0.2"),
            (&["for=198.51.100.7", "\u{fffd}"], "10.0.0.2"),
            (&["198.51.100.7"], "10.0.0.2"),
            (&[], "10.0.0.2"),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                let line = HeaderValue::from_bytes(line.as_bytes()).unwrap();
                headers.append("forwarded", line);
            }
            let peer = PeerIp::new("10.0.0.2".parse().unwrap());
            let found = proxies.client_ip(peer, &headers).to_string();
            assert_eq!(found, want, "{lines:?}");
        }
    }

    #[test]
    fn rate_2_mapped_ipv4_is_folded() {
        check(&[], "::ffff:192.0.2.1", &[], "192.0.2.1");
    }
}
