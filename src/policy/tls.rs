//! Was the TLS connection made under the rule that the host of this request asks for? (NET-6)
//!
//! One connection may carry requests for several hosts: HTTP/2 clients do so on purpose, and `Host` is whatever the client
//! writes. A host that asks for client certificates must not be reached over a connection that was made for another.

use std::collections::HashMap;

use super::{rejection::Rejection, route::HostPattern};

/// Names the rule about client certificates under which a connection was made. Equal rules have equal ids, also in another
/// configuration; the default is that of connections without client certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TlsPolicyId(pub u64);

/// Which rule each host has.
#[derive(Debug, Clone, Default)]
pub struct TlsPolicies {
    exact: HashMap<Box<str>, TlsPolicyId>,
    wildcard: HashMap<Box<str>, TlsPolicyId>,
    other: TlsPolicyId,
}

impl TlsPolicies {
    /// One rule for every host.
    #[must_use]
    pub fn only(policy: TlsPolicyId) -> Self {
        Self {
            other: policy,
            ..Self::default()
        }
    }

    /// Gives a host its rule; false where it has another already.
    #[must_use]
    pub fn insert(&mut self, host: &HostPattern, policy: TlsPolicyId) -> bool {
        let entry = match host {
            HostPattern::Exact(name) => self.exact.entry(name.clone()),
            HostPattern::Wildcard(parent) => self.wildcard.entry(parent.clone()),
        };
        *entry.or_insert(policy) == policy
    }

    /// The rule of a host, lower case without port: the most specific, as routes match. Hosts without one, and clients that
    /// name none, have the rule that was given first.
    #[must_use]
    pub fn of(&self, host: Option<&str>) -> TlsPolicyId {
        // Mostly there is one rule for all.
        if self.exact.is_empty() && self.wildcard.is_empty() {
            return self.other;
        }
        let found = host.and_then(|host| {
            let wildcard = || self.wildcard.get(host.split_once('.')?.1);
            self.exact.get(host).or_else(wildcard)
        });
        found.copied().unwrap_or(self.other)
    }

    /// Checks that a connection made under `made` may carry a request for `host`.
    ///
    /// # Errors
    /// [`Rejection::MisdirectedRequest`] where the host has another rule, stricter or not (RFC 9110 §15.5.20).
    pub fn check(&self, made: TlsPolicyId, host: &str) -> Result<(), Rejection> {
        if self.of(Some(host)) == made {
            Ok(())
        } else {
            Err(Rejection::MisdirectedRequest)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRICT: TlsPolicyId = TlsPolicyId(1);
    const OPEN: TlsPolicyId = TlsPolicyId(2);

    fn policies() -> TlsPolicies {
        let mut policies = TlsPolicies::only(STRICT);
        assert!(policies.insert(&HostPattern::Wildcard("example.com".into()), OPEN));
        assert!(policies.insert(&HostPattern::Exact("a.example.com".into()), STRICT));
        policies
    }

    #[test]
    fn net_6_the_most_specific_name_has_the_rule() {
        for (host, want) in [
            (None, STRICT),
            (Some("a.example.com"), STRICT),
            (Some("b.example.com"), OPEN),
            (Some("x.b.example.com"), STRICT),
            (Some("example.com"), STRICT),
            (Some("unknown"), STRICT),
            (Some("127.0.0.1"), STRICT),
            (Some(""), STRICT),
        ] {
            assert_eq!(policies().of(host), want, "{host:?}");
        }
    }

    #[test]
    fn net_6_any_other_rule_is_refused() {
        let policies = policies();
        for (made, host, good) in [
            (OPEN, "a.example.com", false),
            (OPEN, "unknown", false),
            (STRICT, "b.example.com", false),
            (TlsPolicyId::default(), "b.example.com", false),
            (STRICT, "a.example.com", true),
            (OPEN, "b.example.com", true),
        ] {
            assert_eq!(policies.check(made, host).is_ok(), good, "{made:?} {host}");
        }
        // Another configuration may ask for more than the connection gave.
        let none = TlsPolicyId::default();
        assert!(TlsPolicies::only(STRICT).check(none, "a").is_err());
        assert!(TlsPolicies::default().check(none, "a").is_ok());
    }

    #[test]
    fn net_6_a_host_has_one_rule() {
        let mut policies = policies();
        let host = HostPattern::Exact("a.example.com".into());
        assert!(policies.insert(&host, STRICT));
        assert!(!policies.insert(&host, OPEN));
        assert_eq!(policies.of(Some("a.example.com")), STRICT);
    }
}
