//! KEY-2, KEY-6: which keys of a set are taken.

use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use super::{load, refused};
use crate::authn::{
    keys::{KeyFault, KeySet},
    settings::KeySource,
    tests::fixtures::*,
};

/// Keys that are no ES256 key for signatures, each for one reason.
fn odd_keys() -> Vec<Value> {
    let with = |name: &str, value: Value| {
        let mut jwk = P256_OTHER.named("odd");
        jwk[name] = value;
        jwk
    };
    let without = |name: &str| {
        let mut jwk = P256_OTHER.named("odd");
        jwk.as_object_mut().unwrap().remove(name);
        jwk
    };
    let (x, y) = (
        P256_OTHER.jwk["x"].as_str().unwrap(),
        P256.jwk["y"].as_str().unwrap(),
    );
    vec![
        with("use", json!("enc")),
        with("use", json!("SIG")),
        with("use", json!(null)),
        with("use", json!(["sig"])),
        with("key_ops", json!(["sign"])),
        with("key_ops", json!([])),
        with("key_ops", json!("verify")),
        with("alg", json!("ES384")),
        with("alg", json!("none")),
        with("alg", json!("ECDH-ES")),
        with("alg", json!(1)),
        with("kid", json!(5)),
        with("kid", json!("")),
        with("kid", json!("a b")),
        with("kid", json!("k".repeat(257))),
        with("kty", json!("ec")),
        with("kty", json!("XX")),
        with("kty", json!(null)),
        with("kty", json!("OKP")),
        with("crv", json!("P-384")),
        with("crv", json!("P-521")),
        with("crv", json!("secp256k1")),
        with("crv", json!(256)),
        with("x", json!("")),
        with("x", json!("AA")),
        with("x", json!(format!("{x}="))),
        with("x", json!(1)),
        with("y", json!(y)),
        without("x"),
        without("y"),
        without("crv"),
        without("kty"),
        without("kid"),
        json!({"kty": "OKP", "crv": "X25519", "x": ED25519.jwk["x"], "kid": "x"}),
        json!({"kty": "OKP", "crv": "Ed448", "x": "AAAA", "kid": "x"}),
        RSA.named("rsa"),
        P384.named("p384"),
        ED25519.named("ed"),
        json!(null),
        json!(1),
        json!("key"),
        json!([]),
        json!({}),
    ]
}

#[test]
fn key_6_keys_that_do_not_fit_are_skipped_and_counted() {
    let odd = odd_keys();
    for key in &odd {
        let set = jwks(&[P256.named("good"), key.clone(), P384.named("more")]);
        let loaded = KeySet::load(&set, &[Algorithm::ES256]).unwrap();
        assert_eq!(loaded.skipped, 2, "{key}");
        assert!(loaded.find(Algorithm::ES256, Some("good")).is_some());
        assert!(loaded.find(Algorithm::ES256, Some("odd")).is_none());
        // A key without a name is good alone, and none among several.
        let unnamed = key.get("kid").is_none() && key.get("y").is_some();
        if key.is_object() && !unnamed {
            refused(
                &jwks(std::slice::from_ref(key)),
                Algorithm::ES256,
                &KeyFault::NoUsableKey(1),
            );
        }
    }
    let all = KeySet::load(
        &jwks(&[&[P256.named("good")], &odd[..]].concat()),
        &[Algorithm::ES256],
    )
    .unwrap();
    assert_eq!(all.skipped, odd.len());
}

#[test]
fn key_6_keys_that_fit_are_loaded() {
    let with = |name: &str, value: Value| {
        let mut jwk = P256.named("k");
        jwk[name] = value;
        jwk
    };
    for key in [
        P256.named("k"),
        with("use", json!("sig")),
        with("key_ops", json!(["verify"])),
        with("key_ops", json!(["sign", "verify"])),
        with("alg", json!("ES256")),
        with("x5c", json!(["MIIB"])),
        with("kid", json!("k".repeat(256))),
        with("unknown", json!({"a": [1]})),
    ] {
        assert!(
            load(&jwks(std::slice::from_ref(&key)), Algorithm::ES256).is_ok(),
            "{key}"
        );
    }
    let mut pss = RSA.named("pss");
    pss["alg"] = "PS256".into();
    let set = KeySet::load(
        &jwks(&[RSA.named("any"), pss]),
        &[Algorithm::RS256, Algorithm::PS256],
    )
    .unwrap();
    for (algorithm, kid, found) in [
        (Algorithm::RS256, "any", true),
        (Algorithm::PS256, "any", true),
        (Algorithm::RS512, "any", false),
        (Algorithm::PS256, "pss", true),
        (Algorithm::RS256, "pss", false),
        (Algorithm::ES256, "any", false),
    ] {
        assert_eq!(
            set.find(algorithm, Some(kid)).is_some(),
            found,
            "{algorithm:?} {kid}"
        );
        assert!(set.find(algorithm, None).is_none());
    }
}

#[test]
fn key_6_duplicate_names_are_refused() {
    let set = jwks(&[
        P256.named("a"),
        P256_OTHER.named("b"),
        P256_OTHER.named("a"),
    ]);
    refused(
        &set,
        Algorithm::ES256,
        &KeyFault::DuplicateKeyId("a".into()),
    );
    let same = jwks(&[P256.named("a"), P256.named("a")]);
    refused(
        &same,
        Algorithm::ES256,
        &KeyFault::DuplicateKeyId("a".into()),
    );
}

#[test]
fn key_6_a_set_without_a_usable_key_is_a_fault() {
    refused(&jwks(&[]), Algorithm::ES256, &KeyFault::NoUsableKey(0));
    let unnamed = jwks(&[P256.jwk.clone(), P256_OTHER.jwk.clone()]);
    refused(&unnamed, Algorithm::ES256, &KeyFault::NoUsableKey(2));
    for text in [
        "",
        "null",
        "[]",
        "{}",
        "{\"keys\":null}",
        "{\"keys\":{}}",
        "{\"keys\":\"x\"}",
        "{\"keys\":[",
        "{\"Keys\":[]}",
        "{\"keys\":[],\"keys\":[]}",
        "{\"keys\":[{\"kty\":\"EC\",\"kty\":\"EC\"}]}",
        "{\"keys\":[]}x",
    ] {
        let fault = load(&KeySource::Jwks(text.into()), Algorithm::ES256)
            .map(|_| "loaded")
            .unwrap_err();
        assert!(matches!(fault, KeyFault::Malformed(_)), "{text}");
    }
}

#[test]
fn key_2_large_sets_are_refused() {
    let many: Vec<Value> = (0..101).map(|n| P256.named(&n.to_string())).collect();
    refused(&jwks(&many), Algorithm::ES256, &KeyFault::TooLarge);
    assert!(load(&jwks(&many[..100]), Algorithm::ES256).is_ok());
    let mut padded = P256.named("k");
    padded["pad"] = "p".repeat(256 << 10).into();
    refused(&jwks(&[padded]), Algorithm::ES256, &KeyFault::TooLarge);
}
