//! RATE-3, RATE-6: budgets, the bound of the table, and what a flood can do.

mod flood;

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use governor::clock::FakeRelativeClock;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn quota(count: u32, window: Duration, burst: u32) -> Quota {
    Quota {
        count,
        window,
        burst,
    }
}

fn limiter(
    quota: Quota,
    max_keys: usize,
) -> (KeyedLimiter<u64, FakeRelativeClock>, FakeRelativeClock) {
    let clock = FakeRelativeClock::default();
    (
        KeyedLimiter::with_clock("test", quota, max_keys, clock.clone()),
        clock,
    )
}

/// How many of `tries` pass.
fn passing<K: std::hash::Hash + Eq + Copy, C: Clock>(
    limiter: &KeyedLimiter<K, C>,
    key: K,
    tries: usize,
) -> usize {
    (0..tries).filter(|_| limiter.check(key).is_ok()).count()
}

#[test]
fn rate_7_a_refusal_says_exactly_how_long_to_wait() {
    let (limiter, clock) = limiter(quota(4, SECOND, 2), 10);
    assert_eq!(passing(&limiter, 1, 2), 2);
    let exceeded = limiter.check(1).unwrap_err();
    assert_eq!(
        exceeded,
        Exceeded {
            limit: "test",
            retry_after: Duration::from_millis(250),
            quota: 4,
            window: SECOND
        }
    );
    clock.advance(Duration::from_millis(100));
    assert_eq!(
        limiter.check(1).unwrap_err().retry_after,
        Duration::from_millis(150)
    );
    clock.advance(Duration::from_nanos(149_999_999));
    assert_eq!(
        limiter.check(1).unwrap_err().retry_after,
        Duration::from_nanos(1)
    );
    clock.advance(Duration::from_nanos(1));
    assert_eq!(limiter.check(1), Ok(()));
    assert!(limiter.check(1).is_err());
}

#[test]
fn rate_6_the_burst_and_then_the_rate_pass_and_no_more() {
    for (count, burst) in [(1, 1), (5, 10), (100, 200), (7, 3)] {
        let (limiter, clock) = limiter(quota(count, SECOND, burst), 10);
        let tries = 1000;
        assert_eq!(passing(&limiter, 1, tries), usize::try_from(burst).unwrap());
        for _ in 0..3 {
            clock.advance(SECOND);
            let want = usize::try_from(count.min(burst)).unwrap();
            assert_eq!(passing(&limiter, 1, tries), want, "{count} {burst}");
        }
        clock.advance(SECOND * 1000);
        assert_eq!(passing(&limiter, 1, tries), usize::try_from(burst).unwrap());
    }
}

#[test]
fn rate_6_a_refusal_takes_nothing() {
    let (limiter, clock) = limiter(quota(1, SECOND, 1), 10);
    assert!(limiter.check(1).is_ok());
    for _ in 0..99 {
        clock.advance(Duration::from_millis(10));
        assert!(limiter.check(1).is_err());
    }
    clock.advance(Duration::from_millis(10));
    assert!(limiter.check(1).is_ok());
}

#[test]
fn rate_6_a_thousand_at_once_get_ten() {
    let (limiter, _) = limiter(quota(10, SECOND, 10), 10);
    let passed = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| passed.fetch_add(passing(&limiter, 1, 125), Ordering::Relaxed));
        }
    });
    assert_eq!(passed.into_inner(), 10);
}

#[test]
fn rate_6_a_thousand_new_keys_at_once_get_one_budget_when_there_is_no_room() {
    let (limiter, _) = limiter(quota(10, SECOND, 10), 0);
    let passed = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (limiter, passed) = (&limiter, &passed);
            scope.spawn(move || {
                let keys = (0..125).filter(|n| limiter.check(thread * 1000 + n).is_ok());
                passed.fetch_add(keys.count(), Ordering::Relaxed)
            });
        }
    });
    assert_eq!((passed.into_inner(), limiter.len()), (10, 0));
}

#[test]
fn rate_3_keys_do_not_share_while_there_is_room() {
    let (limiter, _) = limiter(quota(1, SECOND, 3), 100_000);
    for key in 0..5000 {
        assert_eq!(passing(&limiter, key, 4), 3);
    }
    assert_eq!(limiter.len(), 5000);
}

#[test]
fn rate_3_a_flood_is_bounded_and_shares_one_budget() {
    for max_keys in [0, 1, 2, 10, 1023, 5000] {
        let (limiter, _) = limiter(quota(1, SECOND, 5), max_keys);
        let passed = (0..100_000)
            .filter(|key| limiter.check(*key).is_ok())
            .count();
        assert!(limiter.len() <= max_keys, "{} of {max_keys}", limiter.len());
        // Each key that was kept passed once, and all others together have one burst.
        assert_eq!(passed, limiter.len() + 5, "{max_keys}");
        assert!(
            limiter.len() >= max_keys * 9 / 10,
            "{} of {max_keys}",
            limiter.len()
        );
    }
}

#[test]
fn rate_3_a_flood_frees_no_blocked_key_and_takes_no_known_one_its_budget() {
    let (limiter, clock) = limiter(quota(1, SECOND, 10), 1000);
    let (blocked, known) = (1, 2);
    assert_eq!(passing(&limiter, blocked, 20), 10);
    assert_eq!(passing(&limiter, known, 4), 4);
    for wave in 1..=8 {
        for key in 0..20_000 {
            let _ = limiter.check(wave * 1_000_000 + key);
        }
        assert!(limiter.check(blocked).is_err(), "still blocked");
    }
    assert_eq!(passing(&limiter, known, 20), 6, "the rest of its burst");
    // Under the flood the blocked one gets what its own rate gives, and nothing else.
    clock.advance(SECOND * 3);
    assert_eq!(passing(&limiter, blocked, 20), 3);
}

#[test]
fn rate_3_a_full_table_takes_new_keys_again_when_budgets_have_refilled() {
    let (limiter, clock) = limiter(quota(1, SECOND, 2), 100);
    for key in 0..100 {
        assert!(limiter.check(key).is_ok());
    }
    assert_eq!(limiter.len(), 100);
    // Full: two of these share the overflow budget, the others are refused.
    assert_eq!(
        (1000..1100)
            .filter(|key| limiter.check(*key).is_ok())
            .count(),
        2
    );
    clock.advance(SECOND);
    // Every kept budget is full again, so that forgetting it changes nothing.
    for key in 2000..2100 {
        assert_eq!(passing(&limiter, key, 3), 2);
        assert!(limiter.len() <= 100);
    }
}

#[test]
fn rate_3_expired_entries_leave_as_new_keys_come() {
    let (limiter, clock) = limiter(quota(1, SECOND, 1), 100_000);
    for key in 0..3000 {
        limiter.check(key).unwrap();
    }
    clock.advance(SECOND);
    for key in 10_000..11_100 {
        limiter.check(key).unwrap();
    }
    // Four looked at for each new key.
    assert!(limiter.len() < 1300, "{}", limiter.len());
}

#[test]
fn rate_3_a_limit_of_days_and_a_burst_of_millions_neither_overflow_nor_refuse() {
    for quota in [
        quota(1, SECOND * 86400 * 365, u32::MAX),
        quota(u32::MAX, Duration::from_nanos(1), u32::MAX),
        quota(0, SECOND, 0),
        quota(1, Duration::MAX, u32::MAX),
        quota(1, Duration::ZERO, 1),
    ] {
        let (limiter, clock) = limiter(quota, 10);
        assert!(limiter.check(1).is_ok(), "{quota:?}");
        clock.advance(SECOND);
        let _ = limiter.check(1);
    }
}

#[test]
fn cache_8_keys_are_kept_as_digests_under_a_secret() {
    let limiter: KeyedLimiter<String> = KeyedLimiter::new("test", quota(1, SECOND, 1), 10);
    limiter.check("canary@example.com".to_owned()).unwrap();
    assert!(
        limiter.check_ref("canary@example.com").is_err(),
        "borrowed and owned are one key"
    );
    assert!(limiter.check_ref("other@example.com").is_ok());
    assert!(!format!("{limiter:?} {:?}", limiter.limiter).contains("canary"));
    assert!(!limiter.is_empty());
}
