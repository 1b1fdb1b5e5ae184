//! RATE-3 at the size that it names: ten million keys.

use std::time::Instant;

use super::*;

/// Ten seconds of one core in a debug build.
const KEYS: u64 = 10_000_000;

/// A hundredth of them fits.
const MAX_KEYS: usize = 100_000;

#[test]
fn rate_3_ten_million_keys_cost_no_memory_and_nobody_his_budget() {
    let (keys, max_keys) = (KEYS, MAX_KEYS);
    let quota = quota(1, Duration::from_secs(3600), 100);
    let limiter: KeyedLimiter<u64> = KeyedLimiter::new("test", quota, max_keys);
    // Every one of these was there before the flood: half are blocked, half have 60 left.
    let there = 0..1000_u64;
    for key in there.clone() {
        let used = if key % 2 == 0 { 100 } else { 40 };
        assert_eq!(passing(&limiter, key, used), used);
    }
    let (most, begun) = (AtomicUsize::new(0), Instant::now());
    let (passed, wrong) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let (limiter, there) = (&limiter, &there);
        let (most, passed, wrong) = (&most, &passed, &wrong);
        for part in 0..4 {
            scope.spawn(move || {
                for number in 0..keys / 4 {
                    // Above all that were there.
                    let key = (1 << 32) + part * keys + number;
                    let is_ok = limiter.check(key).is_ok();
                    passed.fetch_add(usize::from(is_ok), Ordering::Relaxed);
                    if number % 10_000 == 0 {
                        most.fetch_max(limiter.table.bytes(), Ordering::Relaxed);
                        let blocked = (number / 10_000 * 2) % there.end;
                        let free = usize::from(limiter.check(blocked).is_ok());
                        wrong.fetch_add(free, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let (most, took) = (most.into_inner(), begun.elapsed());
    let kept = limiter.len();
    println!("{keys} keys over {max_keys} in {took:?}: {kept} kept, {most} bytes");
    assert_eq!(wrong.into_inner(), 0, "a blocked key was free");
    assert!(kept <= max_keys, "{kept} kept");
    // Those that found room had their own first request; all others together one burst, and what an hour gives.
    let hours = usize::try_from(took.as_secs() / 3600).unwrap() + 1;
    assert!(passed.into_inner() <= kept - 1000 + 100 + hours);
    // 65 to 90 bytes a key, as the documentation says, and what half-filled maps have too much.
    assert!(most <= max_keys * 150, "{most} bytes");
    for key in there {
        let left = if key % 2 == 0 { 0 } else { 60 };
        let passed = passing(&limiter, key, left + 5);
        assert!((left..=left + hours).contains(&passed), "{key}: {passed}");
    }
}
