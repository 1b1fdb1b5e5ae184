//! What a connection remembers of its last token changes nothing but what a request costs: CACHE-1 to CACHE-4, JWT-10, CFG-2.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, header::AUTHORIZATION};
use jsonwebtoken::Algorithm;
use proptest::prelude::*;
use serde_json::json;

use super::fixtures::*;
use crate::{
    authn::{Authenticator, LastToken, LastTokens, Revocations, settings::CacheSettings},
    policy::{Access, Caller, Identity, IdentityHeaders, Rejection, TokenFault, Unlimited},
};

/// One request on a connection, at a time.
fn ask_at(
    authenticator: &Authenticator,
    last: &LastToken,
    token: &str,
    secs: u64,
) -> Result<Arc<Identity>, Rejection> {
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
    let access = Access::Authenticated;
    match authenticator.authenticate_on(last, &headers, access.into(), (at(secs), &Unlimited))? {
        Caller::Verified(identity) => Ok(identity),
        Caller::Anonymous => panic!("a token is somebody's"),
    }
}

fn ask(
    authenticator: &Authenticator,
    last: &LastToken,
    token: &str,
) -> Result<Arc<Identity>, Rejection> {
    ask_at(authenticator, last, token, NOW)
}

/// A connection that remembers this token.
fn remembering(authenticator: &Authenticator, token: &str) -> LastToken {
    let last = LastToken::default();
    for is_kept in [false, false, true] {
        ask(authenticator, &last, token).unwrap();
        assert_eq!(last.is_kept(), is_kept);
    }
    last
}

fn es256_only() -> Authenticator {
    authenticator(&[settings(Algorithm::ES256)])
}

fn invalid(fault: TokenFault) -> Rejection {
    Rejection::TokenInvalid(fault)
}

fn counts(authenticator: &Authenticator) -> (u64, u64) {
    let stats = authenticator.cache_stats();
    (stats.hits, stats.misses)
}

#[test]
fn cache_1_only_every_byte_of_the_remembered_token_is_it() {
    let authenticator = es256_only();
    let token = good(Algorithm::ES256);
    let last = remembering(&authenticator, &token);
    let (signed, signature) = token.rsplit_once('.').unwrap();
    for forged in [
        format!("{signed}.{}", "A".repeat(signature.len())),
        format!("{signed}.{}", signature.to_ascii_lowercase()),
        token.split_at(token.len() - 1).0.to_owned(),
        format!("{token}A"),
    ] {
        let refused = ask(&authenticator, &last, &forged);
        assert!(
            matches!(refused, Err(Rejection::TokenInvalid(_))),
            "{forged}"
        );
        assert!(ask(&authenticator, &last, &token).is_ok());
    }
}

#[test]
fn cache_1_tokens_of_several_users_on_one_connection_give_each_his_own_identity() {
    let authenticator = es256_only();
    let last = LastToken::default();
    let of = |user: usize| es256(&payload_with("sub", Some(format!("user-{user}").into())));
    let tokens: Vec<String> = (0..4).map(of).collect();
    // Each several times in a row, then in turn, then in pairs.
    let orders = [
        (0..40).map(|n| n / 10).collect::<Vec<usize>>(),
        (0..40).map(|n| n % 4).collect(),
        (0..40).map(|n| n / 2 % 4).collect(),
    ];
    for user in orders.into_iter().flatten() {
        let identity = ask(&authenticator, &last, &tokens[user]).unwrap();
        assert_eq!(*identity.claims().subject, format!("user-{user}"));
    }
    assert_eq!(counts(&authenticator), (116, 4));
}

#[test]
fn jwt_10_times_are_compared_on_every_repeat() {
    let authenticator = es256_only();
    let token = es256(&payload_with("nbf", Some((NOW - 100).into())));
    let last = remembering(&authenticator, &token);
    assert!(ask_at(&authenticator, &last, &token, NOW + 299).is_ok());
    assert_eq!(
        ask_at(&authenticator, &last, &token, NOW + 400).unwrap_err(),
        Rejection::TokenExpired
    );
    // The clock that judges does not run back.
    assert_eq!(
        ask(&authenticator, &last, &token).unwrap_err(),
        Rejection::TokenExpired
    );
}

#[test]
fn cache_3_a_repeat_does_not_extend_the_time_in_the_cache() {
    let cache = CacheSettings {
        max_ttl: Duration::from_secs(20),
        ..CacheSettings::default()
    };
    let templates = Arc::new(IdentityHeaders::default());
    let issuers = [settings(Algorithm::ES256)];
    let authenticator =
        Authenticator::new(&issuers, &cache, Arc::new(Revocations::new()), templates).unwrap();
    let token = good(Algorithm::ES256);
    let last = remembering(&authenticator, &token);
    for second in 0..20 {
        ask_at(&authenticator, &last, &token, NOW + second).unwrap();
    }
    assert_eq!(counts(&authenticator).1, 1);
    ask_at(&authenticator, &last, &token, NOW + 20).unwrap();
    assert_eq!(counts(&authenticator).1, 2, "it is verified anew");
}

#[test]
fn cache_4_a_revocation_is_seen_by_the_next_repeat() {
    let revocations = Arc::new(Revocations::new());
    let authenticator = with_revocations(&[settings(Algorithm::ES256)], Arc::clone(&revocations));
    let of = |session: &str| es256(&payload_with("sid", Some(session.into())));
    for (session, end) in [("s1", true), ("s2", false)] {
        let token = of(session);
        let last = remembering(&authenticator, &token);
        if end {
            revocations.revoke_session(ISSUER, session, NOW + 400);
        } else {
            revocations.revoke_session(ISSUER, "another", NOW + 400);
        }
        for _ in 0..3 {
            let asked = ask(&authenticator, &last, &token).map(drop);
            let want = if end {
                Err(invalid(TokenFault::Revoked))
            } else {
                Ok(())
            };
            assert_eq!(asked, want, "{session}");
        }
    }
}

#[test]
fn cache_4_a_key_that_was_taken_back_is_seen_by_the_next_repeat() {
    let revocations = Arc::new(Revocations::new());
    let authenticator = with_revocations(&[settings(Algorithm::ES256)], Arc::clone(&revocations));
    let token = good(Algorithm::ES256);
    let last = remembering(&authenticator, &token);
    for (_, keys) in authenticator.verifier.keys() {
        keys.withdraw(&revocations);
    }
    for _ in 0..3 {
        assert_eq!(
            ask(&authenticator, &last, &token).unwrap_err(),
            Rejection::KeysUnavailable
        );
    }
}

#[test]
fn cfg_2_what_was_remembered_under_another_configuration_is_worth_nothing() {
    let before = es256_only();
    let token = good(Algorithm::ES256);
    let last = remembering(&before, &token);
    let after = authenticator(&[settings(Algorithm::RS256)]);
    assert_eq!(
        ask(&after, &last, &token).unwrap_err(),
        invalid(TokenFault::Algorithm)
    );
    // Nor does the new one learn of it that the token is good.
    let same = es256_only();
    assert!(ask(&same, &last, &token).is_ok());
    assert_eq!(counts(&same), (0, 1));
}

#[test]
fn cache_6_what_the_cache_has_let_go_is_not_kept_by_a_connection() {
    let authenticator = es256_only();
    let token = good(Algorithm::ES256);
    let last = remembering(&authenticator, &token);
    let identity = Arc::downgrade(&ask(&authenticator, &last, &token).unwrap());
    authenticator.give_up_cache();
    // moka takes entries out of its table in the background of later calls.
    for n in 0..10_000 {
        let other = es256(&payload_with("sub", Some(format!("user-{n}").into())));
        verify(&authenticator, &other).unwrap();
        authenticator.tidy_cache();
        if identity.upgrade().is_none() {
            break;
        }
    }
    assert!(identity.upgrade().is_none());
    assert!(ask(&authenticator, &last, &token).is_ok());
}

#[test]
fn cache_6_a_long_token_is_not_remembered() {
    let authenticator = es256_only();
    let long = es256(&payload_with("x", Some("x".repeat(2000).into())));
    let last = LastToken::default();
    for _ in 0..5 {
        ask(&authenticator, &last, &long).unwrap();
        assert!(!last.is_kept());
    }
}

#[test]
fn cache_8_no_token_is_kept_that_was_not_used_for_two_looks() {
    let authenticator = es256_only();
    let all = LastTokens::default();
    let token = good(Algorithm::ES256);
    let connections: Vec<LastToken> = (0..3).map(|_| all.of_connection()).collect();
    for last in &connections {
        for _ in 0..3 {
            ask(&authenticator, last, &token).unwrap();
        }
        assert!(last.is_kept());
    }
    all.forget_unused();
    ask(&authenticator, &connections[1], &token).unwrap();
    all.forget_unused();
    let kept: Vec<bool> = connections.iter().map(LastToken::is_kept).collect();
    assert_eq!(kept, [false, true, false]);
    all.forget_unused();
    assert!(!connections[1].is_kept());
    // Whoever comes again is remembered again, and forgotten again.
    for _ in 0..2 {
        ask(&authenticator, &connections[0], &token).unwrap();
    }
    assert!(connections[0].is_kept());
    drop(connections);
    all.forget_unused();
    all.forget_unused();
}

#[test]
fn a_token_that_is_remembered_is_looked_up_now_and_then_and_counted_always() {
    let authenticator = es256_only();
    let token = good(Algorithm::ES256);
    let last = remembering(&authenticator, &token);
    for _ in 0..1000 {
        ask(&authenticator, &last, &token).unwrap();
    }
    assert_eq!(counts(&authenticator), (1002, 1));
}

#[test]
fn log_1_a_remembered_token_is_not_printed() {
    let authenticator = es256_only();
    let token = good(Algorithm::ES256);
    let last = remembering(&authenticator, &token);
    let printed = format!("{last:?}");
    assert_eq!(printed, "LastToken { .. }");
}

proptest! {
    /// Whatever comes in whatever order, a connection that remembers and one that does not are told the same.
    #[test]
    fn cache_1_remembering_changes_no_answer(order in prop::collection::vec((0usize..5, 0u64..400), 1..60)) {
        let (with, without) = (es256_only(), es256_only());
        let tokens = [
            good(Algorithm::ES256),
            es256(&payload_with("sub", Some("another".into()))),
            es256(&payload_with("exp", Some((NOW + 100).into()))),
            es256(&payload_with("nbf", Some((NOW + 50).into()))),
            token(&json!({"alg": "ES256"}), &payload_with("aud", Some("elsewhere".into()))),
        ];
        let last = LastToken::default();
        let mut order = order;
        order.sort_by_key(|(_, secs)| *secs);
        for (which, secs) in order {
            let asked = |authenticator: &Authenticator, last: &LastToken| {
                ask_at(authenticator, last, &tokens[which], NOW + secs)
                    .map(|identity| identity.claims().subject.clone())
            };
            prop_assert_eq!(asked(&with, &last), asked(&without, &LastToken::default()));
        }
    }
}
