//! JWT-1, JWT-8: which algorithm may verify which token, and what is a signature.

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use serde_json::json;

use super::fixtures::*;
use crate::{
    authn::{
        compact::decode,
        keys::KeySet,
        settings::{IssuerSettings, KeySource},
    },
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
        let signature = decode(signature).unwrap();
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

/// Puts other signatures, made from the real one, under a good token; each must be refused.
#[track_caller]
fn refused_with(algorithm: Algorithm, make: impl FnOnce(&[u8]) -> Vec<Vec<u8>>) {
    let authenticator = authenticator(&[settings(algorithm)]);
    let token = good(algorithm);
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let real = decode(signature).unwrap();
    for forged in make(&real) {
        let token = format!("{signed}.{}", base64(forged));
        refused(&authenticator, &token, TokenFault::Signature);
    }
    assert!(verify(&authenticator, &token).is_ok());
}

/// One, as a big-endian number of this many bytes.
fn one(bytes: usize) -> Vec<u8> {
    let mut one = vec![0; bytes];
    one[bytes - 1] = 1;
    one
}

#[test]
fn jwt_8_ecdsa_numbers_out_of_range_are_refused() {
    // The order of P-256 (SEC 2 §2.4.2): r and s lie strictly between 0 and it (CVE-2022-21449).
    let n = hex("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551");
    let (zero, one, max) = (vec![0; 32], one(32), vec![0xff; 32]);
    refused_with(Algorithm::ES256, |real| {
        let (r, s) = real.split_at(32);
        let pairs: [[&[u8]; 2]; 10] = [
            [&zero, &zero],
            [&zero, &one],
            [&one, &zero],
            [&n, &n],
            [&n, s],
            [r, &n],
            [&max, &max],
            [r, &zero],
            [&zero, s],
            [s, r],
        ];
        // The ASN.1 form that other protocols use is another spelling of the same numbers, and no JWS one.
        let asn1 = [&[0x30, 68, 2, 32][..], r, &[2, 32], s].concat();
        let mut forged: Vec<_> = pairs.iter().map(|pair| pair.concat()).collect();
        forged.push(asn1);
        forged
    });
}

#[test]
fn jwt_8_eddsa_has_one_signature_for_one_message() {
    // The order of the base point (RFC 8032 §5.1, little-endian): s must be below it, or s + l would verify too.
    let l = hex("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010");
    refused_with(Algorithm::EdDSA, |real| {
        let (r, s) = real.split_at(32);
        let mut carry = 0;
        let sum = |(a, b): (&u8, &u8)| {
            let sum = u16::from(*a) + u16::from(*b) + carry;
            carry = sum >> 8;
            sum.to_le_bytes()[0]
        };
        let malleable: Vec<u8> = s.iter().zip(&l).map(sum).collect();
        [&[0; 32][..], &l, &malleable, &[0xff; 32]]
            .iter()
            .map(|s| [r, s].concat())
            .chain([vec![0; 64], vec![0xff; 64]])
            .collect()
    });
}

#[test]
fn jwt_8_rsa_signatures_that_any_key_could_bear_are_refused() {
    for algorithm in [Algorithm::RS256, Algorithm::PS256] {
        refused_with(algorithm, |real| {
            vec![vec![0; real.len()], one(real.len()), vec![0xff; real.len()]]
        });
    }
}

#[test]
fn jwt_8_a_mac_of_zeros_or_of_a_part_is_refused() {
    for algorithm in SYMMETRIC {
        refused_with(algorithm, |real| {
            let parts = [1, 4, 16, real.len() - 1].map(|length| real[..length].to_vec());
            parts.into_iter().chain([vec![0; real.len()]]).collect()
        });
    }
}

fn hex(digits: &str) -> Vec<u8> {
    let nibble = |digit: u8| u8::try_from(char::from(digit).to_digit(16).unwrap()).unwrap();
    let pairs = digits.as_bytes().chunks(2);
    pairs
        .map(|pair| nibble(pair[0]) << 4 | nibble(pair[1]))
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

/// The library that issuers' keys are read with and own tokens are signed with has a verification too, which is not used here.
#[test]
fn jwt_8_every_verdict_is_that_of_jsonwebtoken() {
    let mut verdicts = [0_usize; 2];
    for algorithm in all() {
        let set = KeySet::load(&source(algorithm), &[algorithm]).unwrap();
        let key = set.find(algorithm, None).unwrap();
        let reference = reference(algorithm);
        let token = good(algorithm);
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let bytes = decode(signature).unwrap();
        let mut all = vec![
            signature.to_owned(),
            String::new(),
            "A".repeat(signature.len()),
            format!("{signature}="),
            format!("{signature}=="),
            format!("{signature}A"),
            format!("{signature}AA"),
            format!(" {signature}"),
            signature.to_ascii_lowercase(),
            signature.replace('-', "+").replace('_', "/"),
            "!".repeat(signature.len()),
            base64([&bytes[..], &[0]].concat()),
            base64([&[0], &bytes[..]].concat()),
            base64([&bytes[..], &bytes[..]].concat()),
        ];
        // Every bit of some bytes, every length, and a last character with the bits beyond the last byte set.
        for place in [0, 1, bytes.len() / 2, bytes.len() - 1] {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[place] ^= 1 << bit;
                all.push(base64(flipped));
            }
        }
        all.extend((0..bytes.len()).map(|length| base64(&bytes[..length])));
        let (head, last) = signature.split_at(signature.len() - 1);
        let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        all.extend(
            alphabet
                .chars()
                .filter(|c| !last.contains(*c))
                .map(|c| format!("{head}{c}")),
        );
        for other in self::all().filter(|other| *other != algorithm) {
            all.push(good(other).rsplit('.').next().unwrap().to_owned());
        }
        // A signature without `-` and `_` is one of its own changes.
        all.sort();
        all.dedup();
        for signed in [signed, "", signed.split_at(1).1] {
            for signature in &all {
                let signed = signed.as_bytes();
                let theirs = jsonwebtoken::crypto::verify(signature, signed, &reference, algorithm);
                let ours = key.verifies(signed, signature);
                assert_eq!(ours, theirs.unwrap_or(false), "{algorithm:?} {signature}");
                verdicts[usize::from(ours)] += 1;
            }
        }
    }
    assert_eq!(
        verdicts[1],
        all().count(),
        "of each algorithm the one signature"
    );
    assert!(verdicts[0] > 5000, "{verdicts:?}");
}

fn reference(algorithm: Algorithm) -> DecodingKey {
    if let KeySource::Secret(secret) = source(algorithm) {
        return DecodingKey::from_secret(&secret);
    }
    let jwk = serde_json::from_value(pair(algorithm).jwk.clone()).unwrap();
    DecodingKey::from_jwk(&jwk).unwrap()
}
