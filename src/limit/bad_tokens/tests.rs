//! RATE-8: what a client's bad tokens cost it, and nobody else.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use governor::clock::FakeRelativeClock;

use super::*;
use crate::{limit::settings::Quota, policy::PeerIp};

const MINUTE: Duration = Duration::from_secs(60);

fn budget(max_keys: usize) -> (BadTokens<FakeRelativeClock>, FakeRelativeClock) {
    let clock = FakeRelativeClock::default();
    let quota = |burst| Quota {
        count: 20,
        window: MINUTE,
        burst,
    };
    let settings = IpLimitSettings {
        per_ip: quota(1),
        bad_tokens: quota(50),
        bad_tokens_wait: Duration::ZERO,
        exempt: vec!["192.0.2.0/24".parse().unwrap()],
        ipv6_prefix: 64,
        max_keys,
    };
    (BadTokens::with_clock(&settings, clock.clone()), clock)
}

fn client(address: &str) -> ClientIp {
    PeerIp::new(address.parse().unwrap()).into()
}

/// How many bad tokens of a thousand are looked at.
fn looked_at(budget: &BadTokens<FakeRelativeClock>, address: &str) -> usize {
    let of = budget.of(client(address));
    (0..1000).filter(|_| of.take().is_ok()).count()
}

#[test]
fn rate_8_beyond_the_burst_no_signature_is_looked_at_and_soon_some_are_again() {
    let (budget, clock) = budget(1000);
    assert_eq!(looked_at(&budget, "192.0.2.1"), 50, "exempt or not");
    let exceeded = budget.of(client("192.0.2.1")).take().unwrap_err();
    assert_eq!(
        (exceeded.limit, exceeded.retry_after),
        ("bad_tokens", Duration::from_secs(3))
    );
    assert_eq!(looked_at(&budget, "192.0.2.2"), 50, "another has its own");
    clock.advance(MINUTE);
    assert_eq!(looked_at(&budget, "192.0.2.1"), 20);
}

#[test]
fn rate_8_what_is_given_back_was_never_taken() {
    let (budget, clock) = budget(1000);
    let of = budget.of(client("192.0.2.1"));
    for _ in 0..1000 {
        of.take().unwrap();
        of.give_back();
    }
    assert_eq!(looked_at(&budget, "192.0.2.1"), 50);
    assert!(of.take().is_err());
    clock.advance(Duration::from_secs(3));
    for _ in 0..1000 {
        of.take().unwrap();
        of.give_back();
    }
    assert!(of.take().is_ok());
    assert!(of.take().is_err());
}

#[test]
fn rate_8_giving_back_what_was_not_taken_makes_no_budget_larger() {
    let (budget, _) = budget(1000);
    let of = budget.of(client("192.0.2.1"));
    for _ in 0..1000 {
        of.give_back();
    }
    assert_eq!(looked_at(&budget, "192.0.2.1"), 50);
}

#[test]
fn rate_2_and_rate_8_a_network_of_ipv6_has_one_budget() {
    let (budget, _) = budget(1000);
    let looked_at = (0..1000)
        .filter(|n| {
            let address = format!("2001:db8:0:1::{n:x}");
            budget.of(client(&address)).take().is_ok()
        })
        .count();
    assert_eq!(looked_at, 50);
    assert!(budget.of(client("2001:db8:0:2::1")).take().is_ok());
}

#[test]
fn rate_3_and_rate_8_beyond_the_table_good_tokens_cost_the_shared_budget_nothing() {
    let (budget, _) = budget(1);
    assert_eq!(looked_at(&budget, "192.0.2.1"), 50);
    for n in 0..=255 {
        let of = budget.of(client(&format!("198.51.100.{n}")));
        of.take().unwrap();
        of.give_back();
    }
    assert_eq!(looked_at(&budget, "203.0.113.1"), 50);
    assert!(budget.of(client("203.0.113.2")).take().is_err(), "shared");
    assert!(budget.of(client("192.0.2.1")).take().is_err());
}

#[test]
fn rate_6_and_rate_8_a_thousand_at_once_get_the_burst() {
    let (budget, _) = budget(1000);
    let passed = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| passed.fetch_add(looked_at(&budget, "192.0.2.1"), Ordering::Relaxed));
        }
    });
    assert_eq!(passed.into_inner(), 50);
}
