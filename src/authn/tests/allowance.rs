//! RATE-8: which tokens cost their sender something, and which cost nobody anything.

use std::{cell::Cell, time::Duration};

use jsonwebtoken::Algorithm;
use serde_json::json;

use super::fixtures::*;
use crate::policy::{Allowance, Rejection, TokenFault, rejection::Exceeded};

/// A budget that counts.
struct Counted {
    left: Cell<u32>,
    asked: Cell<u32>,
}

impl Counted {
    fn new(left: u32) -> Self {
        let (left, asked) = (Cell::new(left), Cell::new(0));
        Self { left, asked }
    }
}

impl Allowance for Counted {
    fn take(&self) -> Result<(), Exceeded> {
        self.asked.set(self.asked.get() + 1);
        let left = self.left.get().checked_sub(1).ok_or(SPENT)?;
        self.left.set(left);
        Ok(())
    }

    fn give_back(&self) {
        self.left.set(self.left.get() + 1);
    }
}

const SPENT: Exceeded = Exceeded {
    limit: "bad_tokens",
    retry_after: Duration::from_secs(3),
    quota: 20,
    window: Duration::from_secs(60),
};

fn forged() -> String {
    let text = payload_with("n", None).to_string();
    sign(
        r#"{"alg":"ES256"}"#,
        &text,
        &P256_OTHER.signing,
        Algorithm::ES256,
    )
}

#[test]
fn rate_8_what_costs_a_signature_in_vain_is_counted_and_nothing_else() {
    let claim = |name, value| es256(&payload_with(name, value));
    for (token, cost) in [
        (good(Algorithm::ES256), 0),
        (forged(), 1),
        (claim("aud", Some(json!("other"))), 1),
        (claim("sub", None), 1),
        (claim("exp", None), 1),
        (claim("nbf", Some((NOW + 3600).into())), 1),
        (claim("iat", Some((NOW + 3600).into())), 1),
        (claim("exp", Some((NOW - 3600).into())), 0),
        (claim("iss", Some(json!("nobody"))), 0),
        ("a.b.c".into(), 0),
        ("no token".into(), 0),
        (".".repeat(1 << 20), 0),
    ] {
        let authenticator = authenticator(&[settings(Algorithm::ES256)]);
        let budget = Counted::new(5);
        let outcome = authenticator.verify(&token, at(NOW), &budget);
        assert_eq!(budget.left.get(), 5 - cost, "{outcome:?}");
    }
}

#[test]
fn rate_8_without_budget_a_new_token_is_refused_and_a_known_one_is_not() {
    let authenticator = authenticator(&[settings(Algorithm::ES256)]);
    let known = good(Algorithm::ES256);
    authenticator
        .verify(&known, at(NOW), &Counted::new(1))
        .unwrap();
    let spent = Counted::new(0);
    let new = es256(&payload_with("n", Some(json!(1))));
    for token in [&forged(), &new] {
        assert_eq!(
            authenticator.verify(token, at(NOW), &spent).unwrap_err(),
            Rejection::RateLimited(SPENT)
        );
    }
    assert_eq!(spent.asked.get(), 2);
    // From the cache, and when its entry there has ended and it must be verified anew.
    for second in [1, 59, 60, 61, 200] {
        let found = authenticator.verify(&known, at(NOW + second), &spent);
        assert!(found.is_ok(), "{second}");
    }
    assert_eq!(spent.asked.get(), 2, "known ones are not even asked about");
}

#[test]
fn rate_8_an_expired_token_is_remembered_and_costs_no_signature_again() {
    let authenticator = authenticator(&[settings(Algorithm::ES256)]);
    let token = es256(&payload_with("exp", Some((NOW - 3600).into())));
    let budget = Counted::new(1);
    for _ in 0..100 {
        assert_eq!(
            authenticator.verify(&token, at(NOW), &budget).unwrap_err(),
            Rejection::TokenExpired
        );
    }
    assert_eq!((budget.left.get(), budget.asked.get()), (1, 1));
    // One that was good before is not asked about at all.
    let token = es256(&payload_with("exp", Some((NOW + 30).into())));
    authenticator.verify(&token, at(NOW), &budget).unwrap();
    for second in 100..200 {
        let late = authenticator.verify(&token, at(NOW + second), &budget);
        assert_eq!(late.unwrap_err(), Rejection::TokenExpired);
    }
    assert_eq!((budget.left.get(), budget.asked.get()), (1, 2));
    // One byte of another, and it is another token.
    let last = if token.ends_with('A') { 'Q' } else { 'A' };
    let other = format!("{}{last}", token.get(..token.len() - 1).unwrap());
    let _ = authenticator.verify(&other, at(NOW + 200), &budget);
    assert_eq!(budget.asked.get(), 3);
}

#[test]
fn rate_8_a_revoked_token_is_remembered_as_such() {
    let authenticator = authenticator(&[settings(Algorithm::ES256)]);
    let revoked = es256(&payload_with("jti", Some(json!("one"))));
    let cached = es256(&payload_with("jti", Some(json!("two"))));
    let budget = Counted::new(5);
    authenticator.verify(&cached, at(NOW), &budget).unwrap();
    let issuer = settings(Algorithm::ES256).issuer;
    for token in ["one", "two"] {
        authenticator
            .revocations()
            .revoke_token(&issuer, token, NOW + 7200);
    }
    for _ in 0..50 {
        for token in [&revoked, &cached] {
            assert_eq!(
                authenticator.verify(token, at(NOW), &budget).unwrap_err(),
                Rejection::TokenInvalid(TokenFault::Revoked)
            );
        }
    }
    assert_eq!((budget.left.get(), budget.asked.get()), (5, 2));
}

#[test]
fn cache_6_and_rate_8_what_is_remembered_is_bounded() {
    let authenticator = authenticator(&[settings(Algorithm::ES256)]);
    let budget = Counted::new(1);
    for n in 0..50 {
        let payload = payload_with("exp", Some((NOW - 3600 - n).into()));
        let _ = authenticator.verify(&es256(&payload), at(NOW), &budget);
    }
    authenticator.cache.settle();
    let bytes = authenticator.cache_stats().bytes;
    assert!((1..=50 * 512).contains(&bytes), "{bytes}");
}
