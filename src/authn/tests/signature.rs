//! JWT-1, JWT-2, JWT-4, JWT-8: which key may verify which token.

use std::net::TcpListener;

use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use super::fixtures::*;
use crate::{
    authn::settings::{IssuerSettings, KeySource},
    policy::{Rejection, TokenFault},
};

fn all() -> impl Iterator<Item = Algorithm> {
    ASYMMETRIC.into_iter().chain(SYMMETRIC)
}

#[test]
fn jwt_1_only_the_configured_algorithm_passes() {
    for configured in all() {
        let authenticator = authenticator(&[settings(configured)]);
        for sent in all() {
            let token = good(sent);
            if sent == configured {
                assert!(verify(&authenticator, &token).is_ok(), "{sent:?}");
            } else {
                refused(&authenticator, &token, TokenFault::Algorithm);
            }
        }
    }
}

#[test]
fn jwt_1_header_that_claims_the_configured_algorithm_does_not_pass_with_another_signature() {
    for configured in all() {
        let authenticator = authenticator(&[settings(configured)]);
        let header = json!({"alg": configured}).to_string();
        for sent in all().filter(|sent| *sent != configured) {
            let token = sign(&header, &payload().to_string(), &signing_key(sent), sent);
            refused(&authenticator, &token, TokenFault::Signature);
        }
    }
}

/// Every form in which an attacker finds a public key.
fn public_bytes(algorithm: Algorithm) -> Vec<Vec<u8>> {
    let pair = pair(algorithm);
    let text = &pair.public_pem;
    vec![
        text.clone().into_bytes(),
        text.trim_end().as_bytes().to_vec(),
        text.replace('\n', "\r\n").into_bytes(),
        text.replace('\n', "").into_bytes(),
        pair.public_der.clone(),
        pair.certificate_pem.clone().into_bytes(),
        pair.certificate_der.clone(),
        pair.jwk.to_string().into_bytes(),
        json!({"keys": [pair.jwk]}).to_string().into_bytes(),
        serde_json::to_vec_pretty(&pair.jwk).unwrap(),
    ]
}

#[test]
fn jwt_1_hmac_with_the_public_key_as_secret_is_refused() {
    for algorithm in ASYMMETRIC {
        let by_pem = authenticator(&[settings(algorithm)]);
        let by_jwks = authenticator(&[IssuerSettings {
            keys: jwks(&[pair(algorithm).named("k")]),
            ..settings(algorithm)
        }]);
        let both = authenticator(&[
            settings(algorithm),
            IssuerSettings {
                name: "old".into(),
                ..settings(Algorithm::HS256)
            },
        ]);
        for bytes in public_bytes(algorithm) {
            for hmac in SYMMETRIC {
                let header = json!({"alg": hmac, "kid": "k"}).to_string();
                let forged = sign(
                    &header,
                    &payload().to_string(),
                    &EncodingKey::from_secret(&bytes),
                    hmac,
                );
                refused(&by_pem, &forged, TokenFault::Algorithm);
                refused(&by_jwks, &forged, TokenFault::Algorithm);
                let fault = if hmac == Algorithm::HS256 {
                    TokenFault::Signature
                } else {
                    TokenFault::Algorithm
                };
                refused(&both, &forged, fault);
            }
        }
    }
}

#[test]
fn jwt_1_none_and_unknown_algorithms_are_refused_in_every_spelling() {
    let names = [
        "none",
        "None",
        "NONE",
        "nOnE",
        "n\u{6f}ne ",
        " none",
        "",
        "foo",
        "hs256",
        "Hs256",
        "HS256 ",
        "es256",
        "RS1",
        "ES256K",
        "ES512",
        "Ed25519",
        "EdDSA ",
        "eddsa",
        "RSA-OAEP",
        "dir",
        "A128KW",
        "PBES2-HS256+A128KW",
        "HS256\u{0}",
        "null",
        "HS256,ES256",
    ];
    for algorithm in [Algorithm::ES256, Algorithm::HS256, Algorithm::RS256] {
        let authenticator = authenticator(&[settings(algorithm)]);
        let good = good(algorithm);
        let signature = good.rsplit('.').next().unwrap();
        for name in names {
            let header = base64(json!({"alg": name}).to_string());
            let start = format!("{header}.{}", base64(payload().to_string()));
            refused(
                &authenticator,
                &format!("{start}.{signature}"),
                TokenFault::Algorithm,
            );
            refused(
                &authenticator,
                &format!("{start}.AA"),
                TokenFault::Algorithm,
            );
            refused(&authenticator, &format!("{start}."), TokenFault::Segments);
            refused(&authenticator, &start, TokenFault::Segments);
        }
    }
}

#[test]
fn jwt_1_alg_that_is_missing_or_no_string_is_refused() {
    let authenticator = authenticator(&[settings(Algorithm::ES256)]);
    for header in [
        json!({}),
        json!({"typ": "JWT"}),
        json!({"alg": null}),
        json!({"alg": 256}),
        json!({"alg": true}),
        json!({"alg": ["ES256"]}),
        json!({"alg": {"name": "ES256"}}),
        json!({"Alg": "ES256"}),
        json!({"ALG": "ES256"}),
    ] {
        let token = sign(
            &header.to_string(),
            &payload().to_string(),
            &P256.signing,
            Algorithm::ES256,
        );
        refused(&authenticator, &token, TokenFault::Header);
    }
}

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
fn jwt_8_every_changed_byte_of_a_signature_is_refused() {
    for algorithm in [
        Algorithm::HS256,
        Algorithm::RS256,
        Algorithm::PS256,
        Algorithm::ES256,
        Algorithm::EdDSA,
    ] {
        let authenticator = authenticator(&[settings(algorithm)]);
        let token = good(algorithm);
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let signature = jsonwebtoken_decode(signature);
        for place in (0..signature.len()).step_by(signature.len() / 16) {
            let mut changed = signature.clone();
            changed[place] ^= 1;
            refused(
                &authenticator,
                &format!("{signed}.{}", base64(changed)),
                TokenFault::Signature,
            );
        }
        let lengths = [1, signature.len() - 1, signature.len() + 1];
        for length in lengths {
            let mut changed = signature.clone();
            changed.resize(length, 0);
            refused(
                &authenticator,
                &format!("{signed}.{}", base64(changed)),
                TokenFault::Signature,
            );
        }
        assert!(verify(&authenticator, &token).is_ok());
    }
}

fn jsonwebtoken_decode(segment: &str) -> Vec<u8> {
    crate::authn::compact::decode(segment).unwrap()
}

#[test]
fn jwt_8_zero_and_out_of_range_signatures_are_refused() {
    // The order of P-256 (SEC 2 §2.4.2) and of Ed25519 (RFC 8032 §5.1, little-endian).
    let n = hex("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551");
    let l = hex("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010");
    let (zero, one, max) = (
        vec![0; 32],
        {
            let mut one = vec![0; 32];
            one[31] = 1;
            one
        },
        vec![0xff; 32],
    );
    let es256 = authenticator(&[settings(Algorithm::ES256)]);
    let token = good(Algorithm::ES256);
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let real = jsonwebtoken_decode(signature);
    let (r, s) = real.split_at(32);
    for pair in [
        [&*zero, &*zero],
        [&*zero, &*one],
        [&*one, &*zero],
        [&*n, &*n],
        [&*n, s],
        [r, &*n],
        [&*max, &*max],
        [r, &*zero],
        [&*zero, s],
        [s, r],
    ] {
        refused(
            &es256,
            &format!("{signed}.{}", base64(pair.concat())),
            TokenFault::Signature,
        );
    }
    // The ASN.1 form that other protocols use is another spelling of the same signature, and no JWS one.
    let asn1 = [&[0x30, 68, 2, 32][..], r, &[2, 32], s].concat();
    refused(
        &es256,
        &format!("{signed}.{}", base64(asn1)),
        TokenFault::Signature,
    );

    let eddsa = authenticator(&[settings(Algorithm::EdDSA)]);
    let token = good(Algorithm::EdDSA);
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let real = jsonwebtoken_decode(signature);
    let (r, s) = real.split_at(32);
    let mut malleable = s.to_vec();
    let mut carry = 0;
    for (to, add) in malleable.iter_mut().zip(&l) {
        let sum = u16::from(*to) + u16::from(*add) + carry;
        (*to, carry) = (sum.to_le_bytes()[0], sum >> 8);
    }
    for pair in [
        [&*zero, &*zero],
        [r, &*zero],
        [r, &*l],
        [r, &*malleable],
        [r, &*max],
    ] {
        refused(
            &eddsa,
            &format!("{signed}.{}", base64(pair.concat())),
            TokenFault::Signature,
        );
    }

    let rs256 = authenticator(&[settings(Algorithm::RS256)]);
    let token = good(Algorithm::RS256);
    let (signed, _) = token.rsplit_once('.').unwrap();
    for bytes in [
        vec![0; 256],
        {
            let mut one = vec![0; 256];
            one[255] = 1;
            one
        },
        vec![0xff; 256],
    ] {
        refused(
            &rs256,
            &format!("{signed}.{}", base64(bytes)),
            TokenFault::Signature,
        );
    }
}

fn hex(digits: &str) -> Vec<u8> {
    (0..digits.len())
        .step_by(2)
        .map(|place| u8::from_str_radix(&digits[place..place + 2], 16).unwrap())
        .collect()
}

#[test]
fn jwt_1_one_issuer_of_several_algorithms_keeps_them_apart() {
    let authenticator = authenticator(&[IssuerSettings {
        algorithms: vec![Algorithm::RS256, Algorithm::PS256, Algorithm::ES256],
        keys: jwks(&[RSA.named("r"), P256.named("e")]),
        ..settings(Algorithm::RS256)
    }]);
    let header = |alg: &str, kid: &str| json!({"alg": alg, "kid": kid});
    for (alg, kid) in [("RS256", "r"), ("PS256", "r"), ("ES256", "e")] {
        assert!(verify(&authenticator, &token(&header(alg, kid), &payload())).is_ok());
    }
    for (alg, kid) in [("RS256", "e"), ("ES256", "r")] {
        refused(
            &authenticator,
            &token(&header(alg, kid), &payload()),
            TokenFault::KeyUnknown,
        );
    }
    refused(
        &authenticator,
        &token(&header("RS512", "r"), &payload()),
        TokenFault::Algorithm,
    );
    assert_eq!(
        verify(&authenticator, "").unwrap_err(),
        Rejection::TokenInvalid(TokenFault::Segments)
    );
}
