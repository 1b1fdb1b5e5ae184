//! CACHE-1 to CACHE-8: what a hit may and may not do.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, header::AUTHORIZATION};
use jsonwebtoken::Algorithm;
use proptest::prelude::*;
use serde_json::json;

use super::fixtures::*;
use crate::{
    authn::{
        Authenticator, CacheStats,
        cache::TokenCache,
        settings::{CacheSettings, IssuerSettings, KeySource},
    },
    policy::{Access, Caller, IdentityHeaders, Rejection, TokenFault, Unlimited},
};

fn es256_only() -> Authenticator {
    authenticator(&[settings(Algorithm::ES256)])
}

fn hits(authenticator: &Authenticator) -> (u64, u64) {
    let CacheStats { hits, misses, .. } = authenticator.cache_stats();
    (hits, misses)
}

#[test]
fn cache_1_a_forged_signature_beside_a_cached_payload_is_refused() {
    let authenticator = es256_only();
    let token = good(Algorithm::ES256);
    assert!(verify(&authenticator, &token).is_ok());
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let again = good(Algorithm::ES256);
    let of_another = es256(&payload_with("sub", Some("u2".into())));
    for forged in [
        format!("{signed}.{}", "A".repeat(signature.len())),
        format!("{signed}.{}", of_another.rsplit('.').next().unwrap()),
        format!("{signed}.{}", signature.to_ascii_lowercase()),
    ] {
        refused(&authenticator, &forged, TokenFault::Signature);
    }
    refused(
        &authenticator,
        token.split_at(token.len() - 1).0,
        TokenFault::Signature,
    );
    assert_eq!(hits(&authenticator).0, 0, "no forgery may hit");
    // ECDSA is randomised: the same payload signed twice is two tokens, and two entries.
    assert!(verify(&authenticator, &again).is_ok());
    assert_eq!(hits(&authenticator).0, 0);
    assert!(verify(&authenticator, &token).is_ok());
    assert_eq!(hits(&authenticator).0, 1);
}

#[test]
fn cache_1_each_token_gives_its_own_identity() {
    let authenticator = es256_only();
    let tokens: Vec<String> = (0..50)
        .map(|n| es256(&payload_with("sub", Some(format!("user-{n}").into()))))
        .collect();
    for _ in 0..3 {
        for (n, token) in tokens.iter().enumerate() {
            let identity = verify(&authenticator, token).unwrap();
            assert_eq!(*identity.claims().subject, format!("user-{n}"));
        }
    }
    assert_eq!(hits(&authenticator), (100, 50));
}

#[test]
fn cache_7_concurrent_mixed_tokens_keep_their_identities() {
    let authenticator = es256_only();
    let tokens: Vec<String> = (0..40)
        .map(|n| es256(&payload_with("sub", Some(n.to_string().into()))))
        .collect();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (authenticator, tokens) = (&authenticator, &tokens);
            scope.spawn(move || {
                for step in 0..80 {
                    let n = (step * 7 + thread * 11) % tokens.len();
                    let identity = verify(authenticator, &tokens[n]).unwrap();
                    assert_eq!(*identity.claims().subject, n.to_string());
                }
            });
        }
    });
}

proptest! {
    #[test]
    fn cache_1_different_tokens_have_different_keys(a in "[A-Za-z0-9._-]{0,80}", b in "[A-Za-z0-9._-]{0,80}") {
        let cache = TokenCache::new(&CacheSettings::default()).unwrap();
        prop_assert_eq!(cache.key(&a) == cache.key(&b), a == b);
        // Prefix pairs: the end of one is not the beginning of the next part.
        prop_assert_ne!(cache.key(&a), cache.key(&format!("{a}A")));
        prop_assert_ne!(cache.key(&a), cache.key(&format!("A{a}")));
    }
}

#[test]
fn cache_1_and_8_keys_are_digests_under_a_secret_of_each_policy() {
    let token = good(Algorithm::ES256);
    let [one, two] = [0, 1].map(|_| TokenCache::new(&CacheSettings::default()).unwrap());
    assert_ne!(one.key(&token), two.key(&token));
    assert_eq!(one.key(&token), one.key(&token));
    let plain = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.as_bytes());
    assert_ne!(one.key(&token), plain.as_ref());
}

#[test]
fn cache_8_no_token_is_kept() {
    let authenticator = es256_only();
    let token = good(Algorithm::ES256);
    verify(&authenticator, &token).unwrap();
    let shown = format!("{authenticator:?}");
    let parts: Vec<&str> = token.split('.').collect();
    for part in [&*token, parts[1], parts[2]] {
        assert!(!shown.contains(part));
    }
}

#[test]
fn cache_2_a_hit_on_one_route_decides_nothing_on_another() {
    use crate::policy::{Route, Rule, authorize};
    let authenticator = es256_only();
    let token = es256(&payload_with("roles", Some(json!(["clerk"]))));
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
    let client = crate::policy::PeerIp::new([192, 0, 2, 1].into()).into();
    let decide = |route: &Route| {
        let caller = authenticator.authenticate(&headers, route.access, at(NOW), &Unlimited)?;
        authorize(route, client, Ok(caller)).map(|_| ())
    };
    let route = |rule: Rule| Route {
        rule,
        ..crate::policy::route::tests::route("r")
    };
    let open = route(Rule::default());
    let strict = [
        (
            Rule {
                roles: vec!["admin".into()],
                ..Rule::default()
            },
            "role_missing",
        ),
        (
            Rule {
                scopes: vec!["write".into()],
                ..Rule::default()
            },
            "scope_missing",
        ),
        (
            Rule {
                audiences: vec!["billing".into()],
                ..Rule::default()
            },
            "claim_mismatch",
        ),
        (
            Rule {
                issuers: vec!["other".into()],
                ..Rule::default()
            },
            "claim_mismatch",
        ),
        (
            Rule {
                claims: vec![("tenant".into(), vec![json!("a")])],
                ..Rule::default()
            },
            "claim_mismatch",
        ),
    ];
    assert_eq!(decide(&open), Ok(()));
    for (rule, code) in strict {
        let strict = route(rule);
        for _ in 0..3 {
            assert_eq!(decide(&strict).unwrap_err().code(), code);
            assert_eq!(decide(&open), Ok(()));
        }
    }
    assert_eq!(hits(&authenticator), (30, 1));
}

#[test]
fn cache_3_a_hit_ends_with_the_token() {
    let authenticator = authenticator(&[IssuerSettings {
        leeway: Duration::from_secs(5),
        ..settings(Algorithm::ES256)
    }]);
    let token = es256(&payload_with("exp", Some((NOW + 2).into())));
    // Polled each 10 ms, with no time for any eviction: good for 2 s and the leeway, and not a moment longer.
    for step in 0..800 {
        let now = at(NOW) + Duration::from_millis(step * 10);
        let found = authenticator.verify(&token, now, &Unlimited).err();
        let want = (step >= 700).then_some(Rejection::TokenExpired);
        assert_eq!(found, want, "{step}");
    }
    assert_eq!(hits(&authenticator).0, 699);
}

#[test]
fn cache_3_an_entry_ends_at_the_limit_however_often_it_is_read() {
    let cache = CacheSettings {
        max_ttl: Duration::from_secs(60),
        ..CacheSettings::default()
    };
    let authenticator = Authenticator::new(
        &[settings(Algorithm::ES256)],
        &cache,
        Arc::default(),
        Arc::new(IdentityHeaders::default()),
    )
    .unwrap();
    let token = good(Algorithm::ES256);
    for second in 0..60 {
        authenticator
            .verify(&token, at(NOW + second), &Unlimited)
            .unwrap();
    }
    assert_eq!(hits(&authenticator), (59, 1));
    authenticator
        .verify(&token, at(NOW + 60), &Unlimited)
        .unwrap();
    assert_eq!(hits(&authenticator), (59, 2), "verified anew");
    authenticator
        .verify(&token, at(NOW + 61), &Unlimited)
        .unwrap();
    assert_eq!(hits(&authenticator), (60, 2), "and kept anew");
}

#[test]
fn cache_5_failures_are_not_kept() {
    let authenticator = es256_only();
    let future = es256(&payload_with("nbf", Some((NOW + 40).into())));
    refused(&authenticator, &future, TokenFault::NotYetValid);
    assert!(
        authenticator
            .verify(&future, at(NOW + 10), &Unlimited)
            .is_ok()
    );
    for n in 0..100 {
        let text = payload_with("n", Some(n.into())).to_string();
        let forged = sign(
            r#"{"alg":"ES256"}"#,
            &text,
            &P256_OTHER.signing,
            Algorithm::ES256,
        );
        refused(&authenticator, &forged, TokenFault::Signature);
    }
    authenticator.cache.settle();
    assert!(authenticator.cache_stats().bytes < 4096, "one entry");
}

fn with_cache(cache: &CacheSettings) -> Authenticator {
    let secret = KeySource::Secret(zeroize::Zeroizing::new(SECRET.to_vec()));
    let issuer = IssuerSettings {
        keys: secret,
        ..settings(Algorithm::HS256)
    };
    let headers = Arc::new(IdentityHeaders::default());
    Authenticator::new(&[issuer], cache, Arc::default(), headers).unwrap()
}

#[test]
fn cache_6_the_cache_is_bounded_in_bytes() {
    let max_bytes = 64 << 10;
    let cache = CacheSettings {
        max_bytes,
        ..CacheSettings::default()
    };
    let authenticator = with_cache(&cache);
    for n in 0..300 {
        let mut payload = payload_with("sub", Some(n.to_string().into()));
        payload["pad"] = "p".repeat(n * 13).into();
        verify(&authenticator, &token(&json!({"alg": "HS256"}), &payload)).unwrap();
        authenticator.cache.settle();
        assert!(authenticator.cache_stats().bytes <= max_bytes);
    }
    assert!(
        authenticator.cache_stats().bytes > max_bytes / 4,
        "and used"
    );
}

#[tokio::test]
async fn cache_6_what_has_expired_is_dropped_though_nobody_comes() {
    let cache = CacheSettings {
        max_ttl: std::time::Duration::from_millis(50),
        ..CacheSettings::default()
    };
    let authenticator = with_cache(&cache);
    for n in 0..2000 {
        let payload = payload_with("sub", Some(n.to_string().into()));
        verify(&authenticator, &token(&json!({"alg": "HS256"}), &payload)).unwrap();
    }
    let entries = || authenticator.cache.len();
    // The last ones have still to expire when the first ones are gone.
    while entries() > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        authenticator.tidy_cache();
    }
}

#[test]
fn cache_6_an_entry_weighs_more_than_its_claims() {
    let weight = |pad: usize| {
        let authenticator = es256_only();
        verify(
            &authenticator,
            &es256(&payload_with("pad", Some("p".repeat(pad).into()))),
        )
        .unwrap();
        authenticator.cache.settle();
        authenticator.cache_stats().bytes
    };
    let (small, large) = (weight(0), weight(4000));
    assert!(small > 1000, "{small}");
    assert_eq!(large - small, 4000);
}

#[test]
fn jwt_9_access_decides_whether_credentials_are_looked_at() {
    let authenticator = es256_only();
    let with = |value: Option<&str>| {
        let mut headers = HeaderMap::new();
        if let Some(value) = value {
            headers.insert(AUTHORIZATION, value.parse().unwrap());
        }
        headers
    };
    let call = |value: Option<&str>, access| {
        authenticator.authenticate(&with(value), access, at(NOW), &Unlimited)
    };
    for bad in ["Basic eDp5", "Bearer", "Bearer x", "Bearer a.b.c"] {
        assert!(matches!(
            call(Some(bad), Access::Public),
            Ok(Caller::Anonymous)
        ));
        for access in [Access::Optional, Access::Authenticated] {
            assert!(
                matches!(call(Some(bad), access), Err(Rejection::TokenInvalid(_))),
                "{bad}"
            );
        }
    }
    assert_eq!(
        call(None, Access::Authenticated).unwrap_err(),
        Rejection::CredentialsMissing
    );
    assert!(matches!(
        call(None, Access::Optional),
        Ok(Caller::Anonymous)
    ));
    assert!(matches!(call(None, Access::Public), Ok(Caller::Anonymous)));
    let good = format!("bearer {}", good(Algorithm::ES256));
    assert!(matches!(
        call(Some(&good), Access::Public),
        Ok(Caller::Anonymous)
    ));
    for access in [Access::Optional, Access::Authenticated] {
        assert!(matches!(call(Some(&good), access), Ok(Caller::Verified(_))));
    }
}
