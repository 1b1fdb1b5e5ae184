//! From where may a route be reached? Networks that it admits and networks that it does not.

use ipnet::IpNet;

use super::{client_ip::ClientIp, rejection::Rejection};

/// The networks of a route. Both empty, the usual case: every address.
#[derive(Debug, Clone, Default)]
pub struct Addresses {
    /// Only these; empty: all.
    pub allow: Vec<IpNet>,
    /// Not these, whatever `allow` says.
    pub deny: Vec<IpNet>,
}

impl Addresses {
    /// Decides on the address that a request is charged to.
    ///
    /// # Errors
    /// [`Rejection::AddressDenied`].
    pub fn check(&self, client: ClientIp) -> Result<(), Rejection> {
        let holds = |networks: &[IpNet]| networks.iter().any(|net| net.contains(&client.ip()));
        if holds(&self.deny) || !(self.allow.is_empty() || holds(&self.allow)) {
            return Err(Rejection::AddressDenied);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::PeerIp;

    #[track_caller]
    fn check(allow: &[&str], deny: &[&str], client: &str, admitted: bool) {
        let networks = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        let addresses = Addresses {
            allow: networks(allow),
            deny: networks(deny),
        };
        let client = PeerIp::new(client.parse().unwrap()).into();
        assert_eq!(addresses.check(client).is_ok(), admitted);
    }

    #[test]
    fn deny_wins_and_an_allow_list_admits_nobody_else() {
        check(&[], &["192.0.2.0/24"], "192.0.2.7", false);
        check(&["192.0.2.0/24"], &["192.0.2.7/32"], "192.0.2.7", false);
        check(&["192.0.2.7/32"], &["192.0.2.0/24"], "192.0.2.7", false);
        check(&["192.0.2.0/24"], &[], "198.51.100.7", false);
        check(&["192.0.2.0/24"], &[], "2001:db8::1", false);
        check(&["2001:db8::/32"], &[], "192.0.2.7", false);
        check(&[], &["192.0.2.0/24"], "::ffff:192.0.2.7", false);
        check(&[], &["192.0.2.0/24"], "198.51.100.7", true);
        check(&["192.0.2.0/24"], &["192.0.2.7/32"], "192.0.2.8", true);
        check(&["192.0.2.0/24"], &[], "::ffff:192.0.2.7", true);
        check(&["2001:db8::/32"], &[], "2001:db8::1", true);
        check(&[], &[], "192.0.2.7", true);
    }
}
