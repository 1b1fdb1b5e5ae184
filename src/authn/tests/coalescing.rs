//! CACHE-7: many threads with one token verify it once, and nobody gets another's identity.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Barrier, Mutex,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
};

use jsonwebtoken::Algorithm;
use serde_json::json;

use super::fixtures::*;
use crate::{
    authn::Authenticator,
    policy::{Allowance, Rejection, TokenFault, Unlimited, rejection::Exceeded},
};

fn es256_only() -> Authenticator {
    authenticator(&[settings(Algorithm::ES256)])
}

/// Look-ups that were answered from the cache, early or late, and those that were verified.
fn answered_and_verified(authenticator: &Authenticator) -> (u64, u64) {
    let stats = authenticator.cache_stats();
    (stats.hits + stats.joined, stats.misses)
}

/// A budget that holds up whoever has it, and counts.
struct Held {
    go_on: Mutex<mpsc::Receiver<()>>,
    taken: AtomicU32,
    given_back: AtomicU32,
}

impl Allowance for Held {
    fn take(&self) -> Result<(), Exceeded> {
        self.taken.fetch_add(1, Ordering::SeqCst);
        let _ = self.go_on.lock().unwrap().recv();
        Ok(())
    }

    fn give_back(&self) {
        self.given_back.fetch_add(1, Ordering::SeqCst);
    }
}

/// A fault in the middle of a verification.
struct Panics;

impl Allowance for Panics {
    fn take(&self) -> Result<(), Exceeded> {
        panic!("a fault while it verifies");
    }

    fn give_back(&self) {}
}

#[test]
fn cache_7_many_threads_with_one_new_token_verify_it_once() {
    const THREADS: usize = 32;
    for _ in 0..20 {
        let authenticator = es256_only();
        let token = good(Algorithm::ES256);
        let start = Barrier::new(THREADS);
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    start.wait();
                    let identity = verify(&authenticator, &token).unwrap();
                    assert_eq!(&*identity.claims().subject, "u1");
                });
            }
        });
        let want = (u64::try_from(THREADS - 1).unwrap(), 1);
        assert_eq!(answered_and_verified(&authenticator), want);
    }
}

#[test]
fn cache_7_and_rate_8_those_who_wait_for_a_good_token_are_charged_nothing() {
    let authenticator = es256_only();
    let token = good(Algorithm::ES256);
    let (release, go_on) = mpsc::channel();
    let started = AtomicU32::new(0);
    let budget = Held {
        go_on: Mutex::new(go_on),
        taken: AtomicU32::new(0),
        given_back: AtomicU32::new(0),
    };
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                started.fetch_add(1, Ordering::SeqCst);
                authenticator.verify(&token, at(NOW), &budget).unwrap()
            });
        }
        // The first of them is in the middle of it; another that came second would be counted too.
        while budget.taken.load(Ordering::SeqCst) == 0 || started.load(Ordering::SeqCst) < 8 {
            std::thread::yield_now();
        }
        for _ in 0..10_000 {
            std::thread::yield_now();
        }
        drop(release);
    });
    assert_eq!(budget.taken.load(Ordering::SeqCst), 1);
    assert_eq!(budget.given_back.load(Ordering::SeqCst), 1);
    assert_eq!(answered_and_verified(&authenticator), (7, 1));
}

#[test]
fn cache_7_a_token_waits_for_no_other_that_is_refused() {
    let authenticator = es256_only();
    let forged = sign(
        r#"{"alg":"ES256"}"#,
        &payload().to_string(),
        &P256_OTHER.signing,
        Algorithm::ES256,
    );
    let start = Barrier::new(16);
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                start.wait();
                refused(&authenticator, &forged, TokenFault::Signature);
            });
        }
    });
    // A failure is nobody's but his who caused it: each was looked at.
    assert_eq!(answered_and_verified(&authenticator), (0, 16));
}

#[test]
fn cache_7_a_panicking_leader_leaves_the_work_to_the_next() {
    let authenticator = es256_only();
    let token = good(Algorithm::ES256);
    for _ in 0..3 {
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            drop(authenticator.verify(&token, at(NOW), &Panics));
        }));
        assert!(panicked.is_err());
    }
    let start = Barrier::new(12);
    std::thread::scope(|scope| {
        for thread in 0..12 {
            let (authenticator, token, start) = (&authenticator, &token, &start);
            scope.spawn(move || {
                start.wait();
                if thread % 3 == 0 {
                    // It panics unless somebody else has verified the token by then.
                    let _ = catch_unwind(AssertUnwindSafe(|| {
                        drop(authenticator.verify(token, at(NOW), &Panics));
                    }));
                } else {
                    assert!(verify(authenticator, token).is_ok());
                }
            });
        }
    });
    assert!(verify(&authenticator, &token).is_ok());
}

#[test]
fn cache_7_a_thousand_mixed_tokens_with_faults_give_each_its_own_subject() {
    const TOKENS: usize = 1000;
    const THREADS: usize = 8;
    let authenticator = es256_only();
    let tokens: Vec<(String, bool)> = (0..TOKENS)
        .map(|n| {
            let is_good = n % 5 != 0;
            let mut claims = payload_with("sub", Some(n.to_string().into()));
            if !is_good {
                claims["aud"] = json!("somebody-else");
            }
            (es256(&claims), is_good)
        })
        .collect();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (authenticator, tokens) = (&authenticator, &tokens);
            scope.spawn(move || {
                for step in 0..2 * TOKENS {
                    // Threads meet at the same tokens, in changing company.
                    let n = (step * (2 * thread + 1)) % TOKENS;
                    let (token, is_good) = &tokens[n];
                    if (step + thread) % 17 == 0 {
                        let _ = catch_unwind(AssertUnwindSafe(|| {
                            drop(authenticator.verify(token, at(NOW), &Panics));
                        }));
                        continue;
                    }
                    match authenticator.verify(token, at(NOW), &Unlimited) {
                        Ok(identity) => {
                            assert!(is_good, "{n}");
                            assert_eq!(*identity.claims().subject, n.to_string());
                        }
                        Err(rejection) => {
                            assert!(!is_good, "{n}: {rejection:?}");
                            let want = Rejection::TokenInvalid(TokenFault::Audience);
                            assert_eq!(rejection, want);
                        }
                    }
                }
            });
        }
    });
}
