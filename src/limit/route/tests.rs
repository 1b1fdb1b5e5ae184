//! Limits of routes: who shares a budget, and that a refusal takes nothing (RATE-2, RATE-3, RATE-6).

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use governor::clock::FakeRelativeClock;

use super::*;
use crate::{
    limit::settings::Quota,
    policy::{
        Access, Caller, Claims, IdentityHeaders, PeerIp, Route, authorize, route::tests::route,
    },
};

fn per_minute(key: LimitKey, burst: u32) -> RouteLimitSettings {
    let quota = Quota {
        count: 60,
        window: Duration::from_secs(60),
        burst,
    };
    RouteLimitSettings { key, quota }
}

fn limits(
    settings: &[RouteLimitSettings],
    max_keys: usize,
) -> (RouteLimits<FakeRelativeClock>, FakeRelativeClock) {
    let clock = FakeRelativeClock::default();
    let quota = per_minute(LimitKey::Ip, 1).quota;
    let clients = IpLimitSettings {
        per_ip: quota,
        bad_tokens: quota,
        bad_tokens_wait: Duration::ZERO,
        exempt: vec!["10.0.0.0/8".parse().unwrap()],
        ipv6_prefix: 64,
        max_keys,
    };
    let names = [Arc::from("r"), Arc::from("s")];
    let routes = [(&names[0], settings), (&names[1], &[][..])];
    let routes = RouteLimits::with_clock(routes, &clients, &clock);
    (routes, clock)
}

fn on(index: usize) -> Route {
    Route {
        index,
        access: Access::Optional,
        ..route("r")
    }
}

fn user(issuer: &str, subject: &str) -> Caller {
    let claims = Claims {
        issuer: issuer.into(),
        subject: subject.into(),
        ..Claims::default()
    };
    let identity = Identity::assert_verified(claims, &IdentityHeaders::default()).unwrap();
    Caller::Verified(Arc::new(identity))
}

/// How many of a hundred requests pass, and the limit that refuses the next.
fn passing(
    limits: &RouteLimits<FakeRelativeClock>,
    route: &Route,
    address: &str,
    caller: &Caller,
) -> (usize, Option<&'static str>) {
    let client = PeerIp::new(address.parse().unwrap()).into();
    let permit = authorize(route, client, Ok(caller.clone())).unwrap();
    let passed = (0..100).filter(|_| limits.check(&permit).is_ok()).count();
    (passed, limits.check(&permit).err().map(|over| over.limit))
}

#[test]
fn a_user_has_one_budget_from_everywhere_and_shares_it_with_nobody() {
    let (limits, clock) = limits(&[per_minute(LimitKey::User, 5)], 100);
    let route = on(0);
    let used_up = (5, Some("route_user"));
    let none = (0, Some("route_user"));
    let ann = user("https://a", "ann");
    assert_eq!(passing(&limits, &route, "192.0.2.1", &ann), used_up);
    assert_eq!(passing(&limits, &route, "192.0.2.2", &ann), none);
    let same_name = user("https://b", "ann");
    assert_eq!(passing(&limits, &route, "192.0.2.1", &same_name), used_up);
    let joined = user("https://aann", "");
    assert_eq!(passing(&limits, &route, "192.0.2.1", &joined), used_up);
    // Nobody is counted by the address.
    let nobody = Caller::Anonymous;
    assert_eq!(passing(&limits, &route, "192.0.2.1", &nobody), used_up);
    assert_eq!(passing(&limits, &route, "192.0.2.1", &nobody), none);
    assert_eq!(passing(&limits, &route, "192.0.2.3", &nobody), used_up);
    clock.advance(Duration::from_secs(2));
    assert_eq!(passing(&limits, &route, "192.0.2.2", &ann).0, 2);
}

#[test]
fn rate_2_a_client_is_an_address_or_a_network_of_ipv6() {
    let (limits, _) = limits(&[per_minute(LimitKey::Ip, 5)], 100_000);
    let (route, caller) = (on(0), user("https://a", "ann"));
    let passed: usize = (0..=u16::MAX)
        .map(|n| {
            let client = PeerIp::new(format!("2001:db8::{n:x}").parse().unwrap()).into();
            let permit = authorize(&route, client, Ok(caller.clone())).unwrap();
            usize::from(limits.check(&permit).is_ok())
        })
        .sum();
    assert_eq!(passed, 5);
    let used_up = (5, Some("route_ip"));
    assert_eq!(
        passing(&limits, &route, "2001:db8:0:1::1", &caller),
        used_up
    );
    assert_eq!(passing(&limits, &route, "192.0.2.1", &caller), used_up);
    let mapped = "::ffff:192.0.2.1";
    assert_eq!(passing(&limits, &route, mapped, &caller).0, 0);
    // Exempt networks have no limit by address.
    assert_eq!(passing(&limits, &route, "10.1.2.3", &caller), (100, None));
}

#[test]
fn all_together_have_one_budget_and_other_routes_have_their_own() {
    let (limits, _) = limits(&[per_minute(LimitKey::Route, 5)], 100);
    let caller = Caller::Anonymous;
    for (address, passed) in [("10.1.2.3", 5), ("192.0.2.1", 0), ("2001:db8::1", 0)] {
        let found = passing(&limits, &on(0), address, &caller);
        assert_eq!(found, (passed, Some("route")), "exempt or not");
    }
    for index in [1, 2, 99] {
        let found = passing(&limits, &on(index), "192.0.2.1", &caller);
        assert_eq!(found, (100, None));
    }
}

#[test]
fn rate_6_a_refusal_by_one_of_several_takes_nothing_from_the_others() {
    let settings = [
        per_minute(LimitKey::Route, 50),
        per_minute(LimitKey::User, 20),
        per_minute(LimitKey::Ip, 5),
    ];
    let (limits, _) = limits(&settings, 100);
    let ann = user("https://a", "ann");
    // A hundred requests of each address, of which the narrowest limit lets five pass.
    for (address, want) in [
        ("192.0.2.1", (5, Some("route_ip"))),
        ("192.0.2.2", (5, Some("route_ip"))),
        ("192.0.2.3", (5, Some("route_ip"))),
        ("192.0.2.4", (5, Some("route_user"))),
        ("192.0.2.5", (0, Some("route_user"))),
    ] {
        assert_eq!(passing(&limits, &on(0), address, &ann), want, "{address}");
    }
    let bob = user("https://a", "bob");
    for last in 5..11 {
        let address = format!("192.0.2.{last}");
        assert_eq!(
            passing(&limits, &on(0), &address, &bob).0,
            if last < 9 { 5 } else { 0 }
        );
    }
    let eve = user("https://a", "eve");
    assert_eq!(passing(&limits, &on(0), "192.0.2.20", &eve).0, 5);
    assert_eq!(
        passing(&limits, &on(0), "192.0.2.21", &eve),
        (5, Some("route"))
    );
}

#[test]
fn rate_6_a_thousand_at_once_get_ten() {
    for key in [LimitKey::Ip, LimitKey::Route, LimitKey::User] {
        let (limits, _) = limits(&[per_minute(key, 10)], 1000);
        let passed = AtomicUsize::new(0);
        let (route, ann) = (on(0), user("https://a", "ann"));
        std::thread::scope(|scope| {
            for _ in 0..10 {
                scope.spawn(|| {
                    let (count, _) = passing(&limits, &route, "192.0.2.1", &ann);
                    passed.fetch_add(count, Ordering::Relaxed)
                });
            }
        });
        assert_eq!(passed.into_inner(), 10, "{key:?}");
    }
}

#[test]
fn rate_3_a_flood_of_users_is_bounded_and_frees_nobody() {
    let (limits, _) = limits(&[per_minute(LimitKey::User, 5)], 100);
    let route = on(0);
    let ann = user("https://a", "ann");
    assert_eq!(passing(&limits, &route, "192.0.2.1", &ann).0, 5);
    let client = PeerIp::new("192.0.2.1".parse().unwrap()).into();
    let passed = (0..2000).filter(|n| {
        let permit = authorize(&route, client, Ok(user("https://a", &n.to_string()))).unwrap();
        limits.check(&permit).is_ok()
    });
    assert_eq!(passed.count(), 99 + 5, "those kept, and one shared budget");
    assert_eq!(passing(&limits, &route, "192.0.2.1", &ann).0, 0);
}

#[test]
fn cache_8_keys_are_not_kept() {
    let (limits, _) = limits(&[per_minute(LimitKey::User, 5)], 100);
    passing(&limits, &on(0), "192.0.2.1", &user("https://a", "canary"));
    assert!(!format!("{limits:?}").contains("canary"));
}

#[test]
fn cfg_2_a_reload_renews_no_budget_that_did_not_change() {
    let slow = |key, burst| RouteLimitSettings {
        key,
        quota: Quota {
            count: 1,
            window: Duration::from_secs(24 * 3600),
            burst,
        },
    };
    let clients = |exempt: &str, ipv6_prefix| IpLimitSettings {
        per_ip: slow(LimitKey::Ip, 1).quota,
        bad_tokens: slow(LimitKey::Ip, 1).quota,
        bad_tokens_wait: Duration::ZERO,
        exempt: vec![exempt.parse().unwrap()],
        ipv6_prefix,
        max_keys: 100,
    };
    let (name, other): (Arc<str>, Arc<str>) = ("r".into(), "other".into());
    let limits = [slow(LimitKey::Ip, 3), slow(LimitKey::Route, 50)];
    let before = RouteLimits::new([(&name, &limits[..])], &clients("10.0.0.0/8", 64));
    let client: ClientIp = PeerIp::new("192.0.2.1".parse().unwrap()).into();
    let passed = |limits: &RouteLimits, index| {
        let route = on(index);
        let permit = authorize(&route, client, Ok(Caller::Anonymous)).unwrap();
        (0..100).filter(|_| limits.check(&permit).is_ok()).count()
    };
    assert_eq!(passed(&before, 0), 3);
    // The route has moved, its limits are in another order, and another network is exempt: the same budgets.
    let turned = [limits[1], limits[0]];
    let routes = [(&other, &[][..]), (&name, &turned[..])];
    let next = RouteLimits::following(routes, &clients("10.1.0.0/16", 64), &before);
    assert_eq!(passed(&next, 1), 0);
    // What one version takes is gone in the other.
    let wide = RouteLimits::new([(&name, &limits[1..])], &clients("10.0.0.0/8", 64));
    let same = RouteLimits::following([(&name, &limits[1..])], &clients("10.0.0.0/8", 64), &wide);
    assert_eq!((passed(&same, 0), passed(&wide, 0)), (50, 0));
    // Another budget, another route, or other keys: a new one.
    let changed = [slow(LimitKey::Ip, 4)];
    let next = RouteLimits::following([(&name, &changed[..])], &clients("10.0.0.0/8", 64), &before);
    assert_eq!(passed(&next, 0), 4);
    let next = RouteLimits::following(
        [(&other, &limits[..1])],
        &clients("10.0.0.0/8", 64),
        &before,
    );
    assert_eq!(passed(&next, 0), 3);
    let next = RouteLimits::following([(&name, &limits[..1])], &clients("10.0.0.0/8", 56), &before);
    assert_eq!(passed(&next, 0), 3);
}
