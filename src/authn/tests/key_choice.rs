//! JWT-2, JWT-4: which issuer and which key a token is judged by, and which kinds of token.

use std::{net::TcpListener, sync::Arc};

use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use super::fixtures::*;
use crate::{
    authn::{
        Authenticator,
        settings::{CacheSettings, IssuerSettings, KeySource},
    },
    policy::TokenFault,
};

#[test]
fn jwt_2_kid_that_is_no_plain_name_is_refused() {
    let authenticators = [
        authenticator(&[settings(Algorithm::ES256)]),
        authenticator(&[IssuerSettings {
            keys: jwks(&[P256.named("a"), P256_OTHER.named("b")]),
            ..settings(Algorithm::ES256)
        }]),
    ];
    let kids = [
        json!(""),
        json!(" "),
        json!("a b"),
        json!("a\u{0}"),
        json!("\u{0}"),
        json!("a' OR '1'='1"),
        json!("a\"; DROP TABLE keys;--"),
        json!("a|id"),
        json!("$(id)"),
        json!("a\n"),
        json!("..\\..\\windows"),
        json!("%2e%2e"),
        json!("é"),
        json!("a\u{202e}"),
        json!("k".repeat(257)),
        json!("k".repeat(5000)),
        json!(null),
        json!(5),
        json!(true),
        json!(["a"]),
        json!({"a": 1}),
    ];
    for authenticator in &authenticators {
        for kid in &kids {
            let token = token(&json!({"alg": "ES256", "kid": kid}), &payload());
            refused(authenticator, &token, TokenFault::KeyUnknown);
        }
    }
}

#[test]
fn jwt_2_kid_of_allowed_characters_is_only_a_map_key() {
    let set = authenticator(&[IssuerSettings {
        keys: jwks(&[P256.named("a"), P256_OTHER.named("b")]),
        ..settings(Algorithm::ES256)
    }]);
    for kid in [
        "../../../dev/null",
        "/etc/passwd",
        "a/../a",
        "A",
        "a=",
        "aa",
        "c",
        "http-//x",
    ] {
        let token = token(&json!({"alg": "ES256", "kid": kid}), &payload());
        refused(&set, &token, TokenFault::KeyUnknown);
    }
    let header = |kid: &str| json!({"alg": "ES256", "kid": kid});
    assert!(verify(&set, &token(&header("a"), &payload())).is_ok());
    // The key is chosen by name alone: the right signature under the other key's name is a bad signature.
    refused(
        &set,
        &token(&header("b"), &payload()),
        TokenFault::Signature,
    );
    refused(
        &set,
        &token(&json!({"alg": "ES256"}), &payload()),
        TokenFault::KeyUnknown,
    );
}

#[test]
fn jwt_2_a_set_of_one_key_needs_no_kid_but_takes_no_wrong_one() {
    let one = authenticator(&[IssuerSettings {
        keys: jwks(&[P256.named("a")]),
        ..settings(Algorithm::ES256)
    }]);
    refused(
        &one,
        &token(&json!({"alg": "ES256", "kid": "b"}), &payload()),
        TokenFault::KeyUnknown,
    );
    assert!(verify(&one, &good(Algorithm::ES256)).is_ok());
    let identity = verify(
        &one,
        &token(&json!({"alg": "ES256", "kid": "a"}), &payload()),
    )
    .unwrap();
    assert_eq!(identity.claims().key_id.as_deref(), Some("a"));
    let unnamed = authenticator(&[settings(Algorithm::ES256)]);
    assert!(
        verify(
            &unnamed,
            &token(&json!({"alg": "ES256", "kid": "any"}), &payload())
        )
        .is_ok()
    );
}

#[test]
fn jwt_2_keys_and_addresses_in_the_header_are_never_used() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("https://{}/keys", listener.local_addr().unwrap());
    let authenticator = authenticator(&[settings(Algorithm::ES256)]);
    let embedded = [
        json!({"alg": "ES256", "jwk": P256_OTHER.jwk}),
        json!({"alg": "ES256", "jku": url}),
        json!({"alg": "ES256", "x5u": url}),
        json!({"alg": "ES256", "x5c": ["MIIB"]}),
        json!({"alg": "ES256", "kid": "k", "jwk": P256_OTHER.named("k"), "jku": url, "x5u": url}),
    ];
    for header in embedded {
        let text = header.to_string();
        let forged = sign(
            &text,
            &payload().to_string(),
            &P256_OTHER.signing,
            Algorithm::ES256,
        );
        refused(&authenticator, &forged, TokenFault::Signature);
        // Signed by the issuer's own key they say nothing, like any unknown parameter (RFC 7515 §4).
        assert!(verify(&authenticator, &token(&header, &payload())).is_ok());
    }
    assert_eq!(
        listener
            .accept()
            .map(|_| "a connection")
            .unwrap_err()
            .kind(),
        std::io::ErrorKind::WouldBlock
    );
}

/// Two issuers with different keys, and one more entry of the first with another algorithm.
fn three() -> [IssuerSettings; 3] {
    let other = IssuerSettings {
        name: "other".into(),
        issuer: "https://other.example.com".into(),
        keys: KeySource::PublicKey(P256_OTHER.public_der.clone()),
        ..settings(Algorithm::ES256)
    };
    let old = IssuerSettings {
        name: "old".into(),
        ..settings(Algorithm::HS256)
    };
    [settings(Algorithm::ES256), other, old]
}

#[test]
fn jwt_4_a_key_speaks_for_its_own_issuer_only() {
    let authenticator = authenticator(&three());
    let other = payload_with("iss", Some("https://other.example.com".into()));
    let header = json!({"alg": "ES256"}).to_string();
    let crossed = [
        sign(
            &header,
            &payload().to_string(),
            &P256_OTHER.signing,
            Algorithm::ES256,
        ),
        sign(&header, &other.to_string(), &P256.signing, Algorithm::ES256),
    ];
    for token in crossed {
        refused(&authenticator, &token, TokenFault::Signature);
    }
    // The other issuer has no entry for HS256, whatever secret signs.
    refused(
        &authenticator,
        &token(&json!({"alg": "HS256"}), &other),
        TokenFault::Algorithm,
    );

    let name = |token: &str| {
        verify(&authenticator, token)
            .unwrap()
            .claims()
            .issuer_name
            .to_string()
    };
    assert_eq!(name(&good(Algorithm::ES256)), "corp");
    assert_eq!(name(&good(Algorithm::HS256)), "old");
    let token = sign(
        &header,
        &other.to_string(),
        &P256_OTHER.signing,
        Algorithm::ES256,
    );
    assert_eq!(name(&token), "other");
}

#[test]
fn jwt_4_issuer_is_compared_byte_for_byte() {
    let authenticator = authenticator(&[settings(Algorithm::ES256)]);
    for iss in [
        json!(""),
        json!("https://idp.example.com/"),
        json!("https://IDP.example.com"),
        json!("https://idp.example.com "),
        json!("https://idp.example.com\u{0}"),
        json!("http://idp.example.com"),
        json!("idp.example.com"),
        json!("corp"),
        json!([ISSUER]),
        json!({"iss": ISSUER}),
        json!(1),
        json!(true),
        Value::Null,
    ] {
        refused(
            &authenticator,
            &es256(&payload_with("iss", Some(iss))),
            TokenFault::Issuer,
        );
    }
    refused(
        &authenticator,
        &es256(&payload_with("iss", None)),
        TokenFault::Issuer,
    );
}

#[test]
fn jwt_4_other_kinds_of_token_are_refused_by_type() {
    let strict = authenticator(&[IssuerSettings {
        token_types: vec!["at+jwt".into()],
        ..settings(Algorithm::ES256)
    }]);
    let typed = |typ: Value| token(&json!({"alg": "ES256", "typ": typ}), &payload());
    for typ in [
        json!("JWT"),
        json!("logout+jwt"),
        json!("secevent+jwt"),
        json!("dpop+jwt"),
        json!("id+jwt"),
        json!("refresh+jwt"),
        json!("reset+jwt"),
        json!("assertion+jwt"),
        json!("jwt"),
        json!("at"),
        json!("at+jwt "),
        json!("application/application/at+jwt"),
        json!("text/at+jwt"),
        json!(""),
        json!("application/"),
        json!(null),
        json!(1),
        json!(["at+jwt"]),
        json!({"t": "at+jwt"}),
    ] {
        refused(&strict, &typed(typ), TokenFault::Type);
    }
    refused(&strict, &good(Algorithm::ES256), TokenFault::Type);
    for typ in [
        "at+jwt",
        "AT+JWT",
        "application/at+jwt",
        "Application/At+Jwt",
    ] {
        assert!(verify(&strict, &typed(typ.into())).is_ok(), "{typ}");
    }

    let lenient = authenticator(&[settings(Algorithm::ES256)]);
    for typ in ["logout+jwt", "", "JWE"] {
        refused(&lenient, &typed(typ.into()), TokenFault::Type);
    }
    assert!(verify(&lenient, &good(Algorithm::ES256)).is_ok());
    assert!(verify(&lenient, &typed("JWT".into())).is_ok());
}

#[test]
fn jwt_4_entries_that_share_issuer_and_algorithm_are_refused() {
    let entry = |name: &str, algorithms: &[Algorithm], keys: KeySource| IssuerSettings {
        name: name.into(),
        algorithms: algorithms.to_vec(),
        keys,
        ..settings(Algorithm::ES256)
    };
    let rsa = || source(Algorithm::RS256);
    let faults = |entries: &[IssuerSettings]| {
        let faults = Authenticator::new(
            entries,
            &CacheSettings::default(),
            Arc::default(),
            Arc::default(),
        )
        .err();
        faults
            .unwrap_or_default()
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    let shared = faults(&[
        entry("a", &[Algorithm::RS256, Algorithm::PS256], rsa()),
        entry("b", &[Algorithm::PS256], rsa()),
    ]);
    assert_eq!(shared.len(), 1);
    assert!(
        shared[0].starts_with("issuer `b`: entry `a` has the same issuer"),
        "{shared:?}"
    );
    assert!(
        faults(&[
            entry("a", &[Algorithm::RS256], rsa()),
            entry("b", &[Algorithm::PS256], rsa())
        ])
        .is_empty()
    );
    let elsewhere = IssuerSettings {
        issuer: "x".into(),
        ..entry("b", &[Algorithm::RS256], rsa())
    };
    assert!(faults(&[entry("a", &[Algorithm::RS256], rsa()), elsewhere]).is_empty());
    // All at once, so that all are repaired at once.
    let deaf = IssuerSettings {
        audience: Vec::new(),
        ..settings(Algorithm::ES256)
    };
    let many = faults(&[
        deaf,
        entry("b", &[], rsa()),
        entry("c", &[Algorithm::ES256], rsa()),
    ]);
    assert_eq!(many.len(), 3, "{many:?}");
}

#[test]
fn key_6_loaded_keys_have_an_age_and_a_count_of_those_left_out() {
    let authenticator = authenticator(&[IssuerSettings {
        keys: jwks(&[P256.named("a"), RSA.named("b")]),
        ..settings(Algorithm::ES256)
    }]);
    let status = authenticator.key_status();
    let keys = status[0].1.unwrap();
    assert_eq!((status.len(), &*status[0].0), (1, "corp"));
    assert_eq!((keys.usable, keys.skipped), (1, 1));
}
