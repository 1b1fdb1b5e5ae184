//! RATE-1, RATE-2: who shares a budget.

use std::{
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use governor::clock::FakeRelativeClock;

use super::*;
use crate::{limit::settings::Quota, policy::PeerIp};

fn limiter(ipv6_prefix: u8, exempt: &[&str]) -> IpLimiter<FakeRelativeClock> {
    let settings = IpLimitSettings {
        per_ip: Quota {
            count: 1,
            window: Duration::from_secs(1),
            burst: 3,
        },
        bad_tokens: Quota {
            count: 1,
            window: Duration::from_secs(1),
            burst: 1,
        },
        bad_tokens_wait: Duration::ZERO,
        exempt: exempt
            .iter()
            .map(|network| network.parse().unwrap())
            .collect(),
        ipv6_prefix,
        max_keys: 1000,
    };
    IpLimiter::with_clock(&settings, FakeRelativeClock::default())
}

fn client(address: &str) -> ClientIp {
    PeerIp::new(address.parse().unwrap()).into()
}

/// How many of these pass, one after the other.
fn passing(limiter: &IpLimiter<FakeRelativeClock>, addresses: &[&str]) -> usize {
    addresses
        .iter()
        .filter(|address| limiter.check(client(address)).is_ok())
        .count()
}

#[test]
fn rate_2_a_network_of_ipv6_has_one_budget() {
    let limiter = limiter(64, &[]);
    let mut passed = 0;
    for n in 0..=u16::MAX {
        let address = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, n, n ^ 0xff, 0, n);
        let client = PeerIp::new(IpAddr::V6(address)).into();
        passed += usize::from(limiter.check(client).is_ok());
    }
    assert_eq!(passed, 3);
    assert_eq!(limiter.limiter.len(), 1);
    assert_eq!(
        passing(&limiter, &["2001:db8:0:2::1"; 4]),
        3,
        "another network has its own"
    );
}

#[test]
fn rate_2_the_prefix_is_the_configured_one() {
    for (prefix, same, other) in [
        (32, "2001:db8:ffff::", "2001:db9::1"),
        (48, "2001:db8:0:ffff::", "2001:db8:1::1"),
        (64, "2001:db8::ffff:0:0:0", "2001:db8:0:1::1"),
        (128, "2001:db8::1", "2001:db8::2"),
    ] {
        let limiter = limiter(prefix, &[]);
        assert_eq!(
            passing(&limiter, &["2001:db8::1", same, "2001:db8::1", same]),
            3,
            "{prefix}"
        );
        assert_eq!(passing(&limiter, &[other; 4]), 3, "{prefix}");
    }
}

#[test]
fn rate_2_ipv4_in_ipv6_is_ipv4() {
    let limiter = limiter(64, &["198.51.100.0/24"]);
    assert_eq!(
        passing(
            &limiter,
            &[
                "192.0.2.1",
                "::ffff:192.0.2.1",
                "192.0.2.1",
                "::ffff:c000:201"
            ]
        ),
        3
    );
    // If mapped addresses were one network, they would all share.
    assert_eq!(passing(&limiter, &["::ffff:192.0.2.2"; 4]), 3);
    assert_eq!(passing(&limiter, &["::ffff:198.51.100.1"; 9]), 9);
}

#[test]
fn rate_2_each_ipv4_address_has_its_own() {
    let limiter = limiter(64, &[]);
    for last in 0..=255 {
        assert_eq!(passing(&limiter, &[&*format!("192.0.2.{last}"); 4]), 3);
    }
}

#[test]
fn rate_1_exempt_networks_have_no_limit_and_their_neighbours_have() {
    let limiter = limiter(64, &["10.0.0.0/8", "2001:db8:1::/48"]);
    assert_eq!(passing(&limiter, &["10.255.255.255"; 9]), 9);
    assert_eq!(passing(&limiter, &["2001:db8:1:2::3"; 9]), 9);
    assert_eq!(passing(&limiter, &["11.0.0.0"; 9]), 3);
    assert_eq!(passing(&limiter, &["2001:db8:2::3"; 9]), 3);
    assert_eq!(
        limiter.check(client("11.0.0.0")).unwrap_err().limit,
        "per_ip"
    );
}

#[test]
fn cfg_2_a_reload_renews_no_budget_that_did_not_change() {
    let quota = |burst| Quota {
        count: 1,
        window: Duration::from_secs(24 * 3600),
        burst,
    };
    let settings = IpLimitSettings {
        per_ip: quota(3),
        bad_tokens: quota(2),
        bad_tokens_wait: Duration::ZERO,
        exempt: vec![],
        ipv6_prefix: 64,
        max_keys: 100,
    };
    let client: ClientIp = PeerIp::new("192.0.2.1".parse().unwrap()).into();
    let passed = |limiter: &IpLimiter| (0..10).filter(|_| limiter.check(client).is_ok()).count();
    let taken = |budget: &crate::limit::BadTokens| {
        use crate::policy::Allowance;
        (0..10).filter(|_| budget.of(client).take().is_ok()).count()
    };
    let (before, bad) = (
        IpLimiter::new(&settings),
        crate::limit::BadTokens::new(&settings),
    );
    assert_eq!((passed(&before), taken(&bad)), (3, 2));
    // Another limit and another exemption: these budgets are the same.
    let other = IpLimitSettings {
        exempt: vec!["10.0.0.0/8".parse().unwrap()],
        bad_tokens: quota(5),
        ..settings.clone()
    };
    assert_eq!(passed(&IpLimiter::following(&other, &before)), 0);
    assert_eq!(taken(&crate::limit::BadTokens::following(&other, &bad)), 5);
    let other = IpLimitSettings {
        per_ip: quota(4),
        ..settings.clone()
    };
    assert_eq!(passed(&IpLimiter::following(&other, &before)), 4);
    assert_eq!(taken(&crate::limit::BadTokens::following(&other, &bad)), 0);
    let other = IpLimitSettings {
        ipv6_prefix: 56,
        ..settings
    };
    assert_eq!(passed(&IpLimiter::following(&other, &before)), 3);
}
