//! JWT-3, JWT-4, JWT-11, JWT-13: what a signed payload must say, and what becomes of it.

use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use super::fixtures::*;
use crate::{
    authn::{
        Authenticator,
        settings::{ClaimNames, IssuerSettings},
    },
    policy::{Identity, Rejection, TokenFault},
};

fn es256_only() -> Authenticator {
    authenticator(&[settings(Algorithm::ES256)])
}

/// A payload with one claim as raw JSON text, for numbers that `Value` does not hold.
fn raw(name: &str, value: &str) -> String {
    let rest = payload_with(name, None).to_string();
    let text = format!("{},\"{name}\":{value}}}", rest.strip_suffix('}').unwrap());
    sign(r#"{"alg":"ES256"}"#, &text, &P256.signing, Algorithm::ES256)
}

#[test]
fn jwt_3_a_required_claim_that_is_missing_is_refused() {
    let authenticator = es256_only();
    for (name, fault) in [
        ("exp", TokenFault::ExpiryMissing),
        ("iss", TokenFault::Issuer),
        ("aud", TokenFault::Audience),
        ("sub", TokenFault::Subject),
    ] {
        refused(&authenticator, &es256(&payload_with(name, None)), fault);
    }
    refused(&authenticator, &es256(&json!({})), TokenFault::Issuer);
}

#[test]
fn jwt_3_times_that_are_no_whole_numbers_in_range_are_refused() {
    let authenticator = es256_only();
    for name in ["exp", "nbf", "iat"] {
        for value in [
            "null",
            "true",
            "\"1800000300\"",
            "\"\"",
            "\"never\"",
            "[]",
            "[1800000300]",
            "{}",
            "{\"a\":1}",
            "-1",
            "-1800000300",
            "1800000300.0",
            "1800000300.5",
            "1.8e9",
            "0.0",
            "-0.0",
            "1e18",
            "1e308",
            "253402300800",
            "18446744073709551615",
            "18446744073709551616",
            "9223372036854775808",
            "99999999999999999999999999",
        ] {
            refused(&authenticator, &raw(name, value), TokenFault::ClaimType);
        }
        // No number of JSON, or none that fits: the payload as a whole is unreadable.
        for value in [
            "NaN",
            "Infinity",
            "-Infinity",
            "1e400",
            "0x6b49d200",
            "+1",
            "1_000",
            "01",
        ] {
            refused(&authenticator, &raw(name, value), TokenFault::Payload);
        }
    }
}

#[test]
fn jwt_3_names_that_are_no_strings_are_refused() {
    let authenticator = es256_only();
    let bad = [
        json!(null),
        json!(1),
        json!(1.5),
        json!(true),
        json!([]),
        json!(["x"]),
        json!({"x": "x"}),
    ];
    for name in ["sub", "jti", "sid", "email", "preferred_username"] {
        for value in &bad {
            let token = es256(&payload_with(name, Some(value.clone())));
            refused(&authenticator, &token, TokenFault::ClaimType);
        }
    }
    refused(
        &authenticator,
        &es256(&payload_with("sub", Some("".into()))),
        TokenFault::Subject,
    );
}

#[test]
fn jwt_3_audience_is_a_string_or_strings() {
    let authenticator = es256_only();
    for value in [
        json!(null),
        json!(1),
        json!(true),
        json!({"orders": true}),
        json!(["orders", 1]),
        json!([["orders"]]),
        json!(["orders", null]),
    ] {
        refused(
            &authenticator,
            &es256(&payload_with("aud", Some(value))),
            TokenFault::ClaimType,
        );
    }
    for value in [
        json!(""),
        json!("other"),
        json!("Orders"),
        json!("orders "),
        json!("orders,billing"),
        json!("orders billing"),
        json!("order"),
        json!("ordersx"),
        json!([]),
        json!([""]),
        json!(["other", "Orders"]),
        json!("*"),
    ] {
        refused(
            &authenticator,
            &es256(&payload_with("aud", Some(value))),
            TokenFault::Audience,
        );
    }
    for value in [
        json!("orders"),
        json!("billing"),
        json!(["orders"]),
        json!(["x", "billing"]),
    ] {
        assert!(verify(&authenticator, &es256(&payload_with("aud", Some(value)))).is_ok());
    }
}

#[test]
fn jwt_3_roles_and_scopes_are_words_or_a_list_of_strings() {
    let authenticator = es256_only();
    for name in ["roles", "scope"] {
        for value in [
            json!(null),
            json!(1),
            json!(true),
            json!({"admin": true}),
            json!(["a", 1]),
            json!([["a"]]),
            json!([null]),
        ] {
            let token = es256(&payload_with(name, Some(value)));
            refused(&authenticator, &token, TokenFault::ClaimType);
        }
    }
    let words = |value: Value| {
        let token = es256(&payload_with("roles", Some(value)));
        let identity = verify(&authenticator, &token).unwrap();
        identity.claims().roles.join("|")
    };
    assert_eq!(words(json!("")), "");
    assert_eq!(words(json!([])), "");
    assert_eq!(words(json!("clerk  admin ")), "clerk|admin");
    assert_eq!(
        words(json!(["clerk", "two words", "a,admin"])),
        "clerk|two words|a,admin"
    );
}

#[test]
fn jwt_3_paths_through_other_types_are_refused_not_absent() {
    let claims = ClaimNames {
        roles: "realm_access.roles".into(),
        ..ClaimNames::default()
    };
    let authenticator = authenticator(&[IssuerSettings {
        claims,
        ..settings(Algorithm::ES256)
    }]);
    let with = |value: Value| es256(&payload_with("realm_access", Some(value)));
    for value in [
        json!("admin"),
        json!(null),
        json!(["roles"]),
        json!(1),
        json!({"roles": 1}),
    ] {
        refused(&authenticator, &with(value), TokenFault::ClaimType);
    }
    let roles = |token: &str| {
        verify(&authenticator, token)
            .unwrap()
            .claims()
            .roles
            .join("|")
    };
    assert_eq!(roles(&es256(&payload())), "");
    assert_eq!(roles(&with(json!({}))), "");
    assert_eq!(roles(&with(json!({"roles": ["a", "b"]}))), "a|b");
    // Top-level `roles` is not what this issuer's entry names.
    assert_eq!(
        roles(&es256(&payload_with("roles", Some(json!(["admin"]))))),
        ""
    );
    // A name with dots in it, as some providers use, is found before a path is tried.
    let dotted = payload_with("realm_access.roles", Some(json!(["c"])));
    assert_eq!(roles(&es256(&dotted)), "c");
}

#[test]
fn jwt_13_identity_is_issuer_and_subject_and_claims_keep_their_names() {
    let claims = ClaimNames {
        user: "preferred_username".into(),
        email: "mail.primary".into(),
        name: "name".into(),
        roles: "groups".into(),
        scopes: "scp".into(),
    };
    let authenticator = authenticator(&[IssuerSettings {
        claims,
        ..settings(Algorithm::ES256)
    }]);
    let token = token(
        &json!({"alg": "ES256", "kid": "k1", "typ": "at+jwt"}),
        &json!({
            "iss": ISSUER, "aud": ["orders", "x"], "sub": "u-1", "exp": NOW + 60, "iat": NOW, "nbf": NOW - 5,
            "jti": "t1", "sid": "s1", "preferred_username": "ada", "mail": {"primary": "ada@example.com"},
            "name": "Ada", "groups": ["clerk"], "scp": "read write", "tenant": {"id": 7},
            "email": "not this one", "roles": ["nor this"],
        }),
    );
    let identity = verify(&authenticator, &token).unwrap();
    let claims = identity.claims();
    assert_eq!(
        (&*claims.issuer_name, &*claims.issuer, &*claims.subject),
        ("corp", ISSUER, "u-1")
    );
    assert_eq!(claims.user.as_deref(), Some("ada"));
    assert_eq!(claims.email.as_deref(), Some("ada@example.com"));
    assert_eq!(claims.name.as_deref(), Some("Ada"));
    assert_eq!(claims.roles.join("|"), "clerk");
    assert_eq!(claims.scopes.join("|"), "read|write");
    assert_eq!(claims.audience.join("|"), "orders|x");
    assert_eq!(
        (claims.session.as_deref(), claims.token_id.as_deref()),
        (Some("s1"), Some("t1"))
    );
    assert_eq!(claims.key_id.as_deref(), Some("k1"));
    assert_eq!(
        (claims.issued_at, claims.expires_at, claims.not_before),
        (Some(NOW), NOW + 60, Some(NOW - 5))
    );
    assert_eq!(claims.all["tenant"]["id"], 7);
}

#[test]
fn jwt_13_the_user_is_absent_where_its_claim_is() {
    let claims = ClaimNames {
        user: "preferred_username".into(),
        ..ClaimNames::default()
    };
    let authenticator = authenticator(&[IssuerSettings {
        claims,
        ..settings(Algorithm::ES256)
    }]);
    let identity = verify(&authenticator, &es256(&payload())).unwrap();
    assert_eq!(
        (
            identity.claims().user.as_deref(),
            &*identity.claims().subject
        ),
        (None, "u1")
    );
}

#[test]
fn hdr_5_a_claim_that_fits_no_header_refuses_the_request() {
    let templates = crate::policy::IdentityHeaders::new(
        crate::policy::headers::Preset::Portcullis,
        Vec::new(),
        crate::policy::headers::MultiValue::Comma,
    );
    let authenticator = Authenticator::new(
        &[settings(Algorithm::ES256)],
        &crate::authn::settings::CacheSettings::default(),
        std::sync::Arc::default(),
        std::sync::Arc::new(templates),
    )
    .unwrap();
    for value in ["a\r\nX-Admin: 1", "a\u{0}", "\u{85}", "\u{7f}"] {
        let token = es256(&payload_with("email", Some(value.into())));
        let refusal = verify(&authenticator, &token).unwrap_err();
        assert_eq!(refusal.status(), 403);
        assert_eq!(refusal.reason(), Some("unprintable"));
    }
}

/// A refusal of each kind that a stranger can cause with a token.
fn refusals() -> Vec<Rejection> {
    let authenticator = es256_only();
    let good = es256(&payload());
    let forged = sign(
        r#"{"alg":"ES256"}"#,
        &payload().to_string(),
        &P256_OTHER.signing,
        Algorithm::ES256,
    );
    let tokens = [
        ".".repeat(9000),
        "x".into(),
        format!("{good}A"),
        forged,
        token(&json!({"alg": "HS256"}), &payload()),
        token(&json!({"alg": "ES256", "kid": "\u{0}"}), &payload()),
        token(&json!({"alg": "ES256", "typ": "other"}), &payload()),
        token(&json!({"alg": "ES256", "crit": ["x"]}), &payload()),
        sign(
            "{}",
            &payload().to_string(),
            &P256.signing,
            Algorithm::ES256,
        ),
        sign(r#"{"alg":"ES256"}"#, "[]", &P256.signing, Algorithm::ES256),
        es256(&payload_with("iss", Some("x".into()))),
        es256(&payload_with("aud", Some("x".into()))),
        es256(&payload_with("sub", None)),
        es256(&payload_with("exp", None)),
        es256(&payload_with("exp", Some("x".into()))),
        es256(&payload_with("nbf", Some((NOW + 3600).into()))),
        es256(&payload_with("iat", Some((NOW + 3600).into()))),
    ];
    tokens
        .iter()
        .map(|token| verify(&authenticator, token).unwrap_err())
        .collect()
}

#[test]
fn jwt_11_every_bad_token_looks_alike_from_outside() {
    let refusals = refusals();
    for refusal in &refusals {
        assert_eq!(refusal.status(), 401);
        assert_eq!(refusal.code(), "token_invalid");
        assert_eq!(
            (refusal.title(), refusal.detail()),
            (refusals[0].title(), refusals[0].detail())
        );
        assert!(
            refusal.reason().is_some(),
            "the log must say which check failed"
        );
        assert_eq!(refusal.retry_after(), None);
    }
    let reasons: std::collections::HashSet<_> = refusals.iter().map(Rejection::reason).collect();
    assert!(reasons.len() >= 14, "{reasons:?}");
}

#[test]
fn jwt_11_expired_is_said_only_when_nothing_else_is_wrong() {
    let authenticator = es256_only();
    let expired = |name: &str, value: Option<Value>| {
        let mut payload = payload_with(name, value);
        payload["exp"] = (NOW - 3600).into();
        payload
    };
    assert_eq!(
        verify(&authenticator, &es256(&expired("x", Some(1.into())))).unwrap_err(),
        Rejection::TokenExpired
    );
    for (name, value, fault) in [
        ("sub", None, TokenFault::Subject),
        ("aud", Some("other".into()), TokenFault::Audience),
        ("iss", Some("other".into()), TokenFault::Issuer),
        ("jti", Some(1.into()), TokenFault::ClaimType),
        ("nbf", Some((NOW + 3600).into()), TokenFault::NotYetValid),
        ("iat", Some((NOW + 3600).into()), TokenFault::IssuedInFuture),
    ] {
        refused(&authenticator, &es256(&expired(name, value)), fault);
    }
    let text = expired("x", None).to_string();
    let forged = sign(
        r#"{"alg":"ES256"}"#,
        &text,
        &P256_OTHER.signing,
        Algorithm::ES256,
    );
    refused(&authenticator, &forged, TokenFault::Signature);
}

#[test]
fn jwt_12_an_identity_carries_its_header_values() {
    let identity: std::sync::Arc<Identity> = verify(&es256_only(), &es256(&payload())).unwrap();
    assert!(identity.headers().is_empty(), "no templates, no headers");
}
