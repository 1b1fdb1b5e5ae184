//! Limits of clients by their addresses, for routes where each try may be a guess.

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use ipnet::Ipv6Net;

use super::{
    Cluster,
    limit::{Budgets, take},
};
use crate::{limit::settings::Quota, policy::rejection::Exceeded};

/// One network of a customer, which counts as one client.
const CLIENT: u8 = 64;
/// What most providers give a home (RFC 6177 §2).
const HOME: u8 = 56;
/// What many give whoever asks, and a place may have (RFC 6177 §2).
const SITE: u8 = 48;

/// A limit for each client, exact over all nodes of a cluster: each IPv4 address, and each /64 of IPv6.
///
/// Who has a /48 has 65 536 of those. So each /48 has a budget too, some times a client's, and each /56 half of that: one home
/// cannot use up what its neighbours under the same /48 share with it (RATE-2). A request is taken from all three budgets or from
/// none.
#[derive(Debug)]
pub struct ClientLimiter {
    client: Budgets,
    home: Budgets,
    site: Budgets,
    cluster: Option<Arc<Cluster>>,
}

impl ClientLimiter {
    /// `names` are those of the limits of one client and of wider networks, in metrics and in keys of Redis. A /48 has the
    /// budget of `site_factor` clients, 1 or more. Each of three tables remembers `max_keys`.
    #[must_use]
    pub fn new(
        names: [&'static str; 2],
        quota: Quota,
        site_factor: u32,
        max_keys: usize,
        cluster: Option<Arc<Cluster>>,
    ) -> Self {
        let [name, wider] = names;
        let budgets =
            |name, factor| Budgets::new(name, times(quota, factor), max_keys, cluster.is_some());
        Self {
            client: budgets(name, 1),
            home: budgets(wider, (site_factor / 2).max(1)),
            site: budgets(wider, site_factor.max(1)),
            cluster,
        }
    }

    /// Takes one request from the budgets of a client. Waits for Redis for 50 ms at most.
    ///
    /// # Errors
    /// [`Exceeded`] with the time until one is allowed again. A refusal takes nothing from any shared budget.
    pub async fn check(&self, client: IpAddr) -> Result<(), Exceeded> {
        let cluster = self.cluster.as_deref();
        match client.to_canonical() {
            IpAddr::V4(address) => take(&[(&self.client, &address.to_string())], cluster).await,
            IpAddr::V6(address) => {
                let client = network(address, CLIENT).addr().to_string();
                let [home, site] = [HOME, SITE].map(|length| network(address, length).to_string());
                let budgets = [
                    (&self.client, &*client),
                    (&self.home, &home),
                    (&self.site, &site),
                ];
                take(&budgets, cluster).await
            }
        }
    }
}

/// The network of an address, with its length: names of two lengths are never the same.
fn network(address: Ipv6Addr, length: u8) -> Ipv6Net {
    let whole = Ipv6Net::from(address);
    Ipv6Net::new(address, length).unwrap_or(whole).trunc()
}

/// So many times a budget, as far as numbers go.
fn times(quota: Quota, factor: u32) -> Quota {
    Quota {
        count: quota.count.saturating_mul(factor),
        burst: quota.burst.saturating_mul(factor),
        ..quota
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const FOUR: Quota = Quota {
        count: 4,
        window: Duration::from_secs(3600),
        burst: 4,
    };

    fn limiter(site_factor: u32) -> ClientLimiter {
        ClientLimiter::new(["one", "wider"], FOUR, site_factor, 10_000, None)
    }

    /// How many pass, and the names of the limits that refuse.
    async fn ask(
        limiter: &ClientLimiter,
        addresses: impl IntoIterator<Item = String>,
    ) -> (usize, Vec<&'static str>) {
        let (mut passed, mut refused) = (0, Vec::new());
        for address in addresses {
            match limiter.check(address.parse().unwrap()).await {
                Ok(()) => passed += 1,
                Err(exceeded) => refused.push(exceeded.limit),
            }
        }
        refused.dedup();
        (passed, refused)
    }

    /// Addresses of so many networks of 64 bits, each in a home of its own.
    fn homes(site: &str, count: usize) -> impl Iterator<Item = String> {
        (0..count).map(move |home| format!("{site}:{home:x}00::1"))
    }

    #[tokio::test]
    async fn rate_2_a_site_has_the_budget_of_some_clients_and_a_home_half_of_it() {
        let limiter = limiter(4);
        let one = (0..50).map(|host| format!("2001:db8:1::{host:x}"));
        assert_eq!(ask(&limiter, one).await, (4, vec!["one"]));
        let home = (1..256).map(|network| format!("2001:db8:1:{network:x}::1"));
        assert_eq!(ask(&limiter, home).await, (4, vec!["wider"]), "with one");
        // The neighbours have the other half, and no more.
        let neighbours = homes("2001:db8:1", 256).skip(1);
        assert_eq!(ask(&limiter, neighbours).await, (8, vec!["wider"]));
        let elsewhere = (0..10).map(|host| format!("2001:db8:2::{host:x}"));
        assert_eq!(ask(&limiter, elsewhere).await, (4, vec!["one"]));
    }

    #[tokio::test]
    async fn rate_2_what_one_budget_refuses_is_taken_from_no_other() {
        let limiter = limiter(4);
        // Refused by its own, a client costs its home and its site nothing.
        let one = (0..500).map(|host| format!("2001:db8:1::{host:x}"));
        assert_eq!(ask(&limiter, one).await, (4, vec!["one"]));
        let rest = homes("2001:db8:1", 100).skip(1);
        assert_eq!(ask(&limiter, rest).await, (12, vec!["wider"]));
        // Refused by the site, a client still has its own: otherwise that would refuse it from the fifth time on.
        let another = (0..100).map(|_| "2001:db8:1:ff00::1".to_owned());
        assert_eq!(ask(&limiter, another).await, (0, vec!["wider"]));
    }

    #[tokio::test]
    async fn rate_2_ipv4_has_no_wider_budget_however_it_is_spelt() {
        let limiter = limiter(1);
        let all = (0..200).map(|host| format!("192.0.2.{host}"));
        assert_eq!(ask(&limiter, all).await, (200, Vec::new()));
        let mapped = (0..200).map(|host| format!("::ffff:192.0.2.{host}"));
        assert_eq!(ask(&limiter, mapped).await, (200, Vec::new()));
        let one = (0..4).map(|_| "::ffff:192.0.2.1".to_owned());
        assert_eq!(ask(&limiter, one).await, (2, vec!["one"]));
    }

    #[tokio::test]
    async fn rate_2_factors_from_one_to_all_networks_of_a_site() {
        let narrow = limiter(1);
        assert_eq!(ask(&narrow, homes("2001:db8:1", 99)).await.0, 4);
        let none = limiter(65_536);
        let each_twice = homes("2001:db8:1", 250).chain(homes("2001:db8:1", 250));
        assert_eq!(ask(&none, each_twice).await, (500, Vec::new()));
        assert_eq!(times(FOUR, u32::MAX).count, u32::MAX);
    }
}
