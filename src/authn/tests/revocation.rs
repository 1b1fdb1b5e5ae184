//! CACHE-4: what is revoked is dead at once, cached or not.

use std::sync::Arc;

use jsonwebtoken::Algorithm;

use super::fixtures::*;
use crate::{
    authn::Revocations,
    policy::{Claims, TokenFault},
};

fn of_session(session: &str, token_id: &str) -> String {
    let mut payload = payload();
    payload["sid"] = session.into();
    payload["jti"] = token_id.into();
    es256(&payload)
}

#[test]
fn cache_4_a_revocation_is_seen_by_the_next_request_cached_or_not() {
    let revocations = Arc::new(Revocations::new());
    let authenticator = with_revocations(&[settings(Algorithm::ES256)], Arc::clone(&revocations));
    let [a1, a2, b1, b2] =
        [("a", "1"), ("a", "2"), ("b", "3"), ("b", "4")].map(|(s, t)| of_session(s, t));
    let plain = good(Algorithm::ES256);
    for token in [&a1, &b1, &b2, &plain] {
        verify(&authenticator, token).unwrap();
    }
    revocations.revoke_session(ISSUER, "a", NOW + 400);
    refused(&authenticator, &a1, TokenFault::Revoked);
    refused(&authenticator, &a2, TokenFault::Revoked);
    revocations.revoke_token(ISSUER, "3", NOW + 400);
    refused(&authenticator, &b1, TokenFault::Revoked);
    for token in [&b2, &plain] {
        verify(&authenticator, token).unwrap();
        verify(&authenticator, token).unwrap();
    }
    refused(&authenticator, &a1, TokenFault::Revoked);
}

#[test]
fn cache_4_names_of_other_issuers_and_kinds_revoke_nothing() {
    let revocations = Arc::new(Revocations::new());
    let authenticator = with_revocations(&[settings(Algorithm::ES256)], Arc::clone(&revocations));
    let token = of_session("s", "t");
    verify(&authenticator, &token).unwrap();
    for (issuer, name) in [
        ("https://other.example.com", "s"),
        ("corp", "s"),
        (ISSUER, ""),
        (ISSUER, "t"),
        (ISSUER, "S"),
    ] {
        revocations.revoke_session(issuer, name, NOW + 400);
    }
    for (issuer, name) in [
        ("https://other.example.com", "t"),
        (ISSUER, "s"),
        (ISSUER, ""),
    ] {
        revocations.revoke_token(issuer, name, NOW + 400);
    }
    assert!(verify(&authenticator, &token).is_ok());
}

#[test]
fn cache_4_revocations_outlive_a_reload() {
    let revocations = Arc::new(Revocations::new());
    let token = of_session("s", "t");
    let before = with_revocations(&[settings(Algorithm::ES256)], Arc::clone(&revocations));
    verify(&before, &token).unwrap();
    revocations.revoke_session(ISSUER, "s", NOW + 400);
    let after = with_revocations(&[settings(Algorithm::ES256)], revocations);
    refused(&after, &token, TokenFault::Revoked);
    refused(&before, &token, TokenFault::Revoked);
}

#[test]
fn cache_4_the_epoch_moves_with_each_revocation_and_purging_keeps_the_living() {
    let revocations = Revocations::new();
    let claims = |session: &str| Claims {
        issuer: ISSUER.into(),
        session: Some(session.into()),
        ..Claims::default()
    };
    assert_eq!(revocations.epoch(), 0);
    for n in 0..100 {
        revocations.revoke_session(ISSUER, &n.to_string(), NOW + n);
    }
    assert_eq!(revocations.epoch(), 100);
    // Revoked again with an earlier end, the later one counts.
    revocations.revoke_session(ISSUER, "99", NOW);
    revocations.purge(NOW + 50);
    assert!(!revocations.is_revoked(&claims("50")));
    assert!(revocations.is_revoked(&claims("51")));
    assert!(revocations.is_revoked(&claims("99")));
    revocations.purge(NOW + 1000);
    assert!(!revocations.is_revoked(&claims("99")));
    assert!(!revocations.is_revoked(&Claims::default()));
}

#[test]
fn cache_4_revoking_while_others_read_is_never_missed() {
    let revocations = Arc::new(Revocations::new());
    let authenticator = with_revocations(&[settings(Algorithm::ES256)], Arc::clone(&revocations));
    let tokens: Vec<String> = (0..20).map(|n| of_session(&n.to_string(), "t")).collect();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for token in tokens.iter().cycle().take(400) {
                    let _ = verify(&authenticator, token);
                }
            });
        }
        for (n, token) in tokens.iter().enumerate() {
            revocations.revoke_session(ISSUER, &n.to_string(), NOW + 400);
            refused(&authenticator, token, TokenFault::Revoked);
        }
    });
    for token in &tokens {
        refused(&authenticator, token, TokenFault::Revoked);
    }
}
