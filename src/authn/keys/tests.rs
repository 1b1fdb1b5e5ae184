//! JWT-1, JWT-8, KEY-5: which keys are taken. Of sets: `sets`.

mod sets;
mod vectors;

use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::*;
use crate::authn::tests::fixtures::*;

fn load(source: &KeySource, algorithm: Algorithm) -> Result<KeySet, KeyFault> {
    KeySet::load(source, &[algorithm])
}

fn public(bytes: impl AsRef<[u8]>) -> KeySource {
    KeySource::PublicKey(bytes.as_ref().to_vec())
}

fn secret(bytes: &[u8]) -> KeySource {
    KeySource::Secret(Zeroizing::new(bytes.to_vec()))
}

#[track_caller]
fn refused(source: &KeySource, algorithm: Algorithm, want: &KeyFault) {
    assert_eq!(load(source, algorithm).map(|_| "loaded"), Err(want.clone()));
}

/// An RSA public key of this many bits that nobody has the private half of.
fn rsa(bits: usize) -> (Vec<u8>, Vec<u8>) {
    let mut n = vec![0; bits.div_ceil(8)];
    aws_lc_rs::rand::fill(&mut n).unwrap();
    let top = (bits - 1) % 8;
    n[0] = (n[0] & ((1 << top) - 1)) | (1 << top);
    *n.last_mut().unwrap() |= 1;
    (n, vec![1, 0, 1])
}

fn rsa_jwk(bits: usize, kid: &str) -> Value {
    let (n, e) = rsa(bits);
    json!({"kty": "RSA", "kid": kid, "n": base64(n), "e": base64(e)})
}

fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut head = vec![tag];
    match length {
        0..=0x7f => head.push(length.to_be_bytes()[7]),
        0x80..=0xff => head.extend([0x81, length.to_be_bytes()[7]]),
        _ => head.extend([0x82, length.to_be_bytes()[6], length.to_be_bytes()[7]]),
    }
    [head, content.to_vec()].concat()
}

fn pkcs1(n: &[u8], e: &[u8]) -> Vec<u8> {
    der(0x30, &[der(2, &[&[0], n].concat()), der(2, e)].concat())
}

#[test]
fn jwt_8_rsa_keys_outside_the_accepted_lengths_are_refused() {
    for bits in [512, 1024, 1536, 2040, 2047, 8193, 16384] {
        let (n, e) = rsa(bits);
        for algorithm in [Algorithm::RS256, Algorithm::PS512] {
            refused(&public(pkcs1(&n, &e)), algorithm, &KeyFault::RsaBits(bits));
            refused(
                &jwks(&[rsa_jwk(bits, "k")]),
                algorithm,
                &KeyFault::RsaBits(bits),
            );
        }
        // A good key beside it saves nothing: somebody believes in the weak one.
        let both = jwks(&[RSA.named("good"), rsa_jwk(bits, "weak")]);
        refused(&both, Algorithm::RS256, &KeyFault::RsaBits(bits));
    }
    // Leading zeros do not make a key longer.
    let (n, e) = rsa(1024);
    let padded = [vec![0; 128], n].concat();
    let jwk = json!({"kty": "RSA", "n": base64(padded), "e": base64(e)});
    refused(&jwks(&[jwk]), Algorithm::RS256, &KeyFault::RsaBits(1024));
    for bits in [2048, 2049, 3072, 4096, 8192] {
        let (n, e) = rsa(bits);
        assert!(
            load(&public(pkcs1(&n, &e)), Algorithm::RS256).is_ok(),
            "{bits}"
        );
    }
}

#[test]
fn jwt_8_rsa_exponents_that_are_none_are_refused() {
    let (n, _) = rsa(2048);
    for e in [&[][..], &[0], &[1], &[2], &[1, 0, 0], &[0x80; 9]] {
        assert!(
            matches!(
                load(&public(pkcs1(&n, e)), Algorithm::RS256),
                Err(KeyFault::Malformed(_))
            ),
            "{e:?}"
        );
    }
    let mut even = n.clone();
    *even.last_mut().unwrap() &= 0xfe;
    assert!(matches!(
        load(&public(pkcs1(&even, &[1, 0, 1])), Algorithm::RS256),
        Err(KeyFault::Malformed(_))
    ));
}

#[test]
fn jwt_8_secrets_shorter_than_the_hash_are_refused() {
    for (algorithm, needed) in [
        (Algorithm::HS256, 32),
        (Algorithm::HS384, 48),
        (Algorithm::HS512, 64),
    ] {
        for bytes in [0, 1, 8, 16, needed - 1] {
            refused(
                &secret(&SECRET[..bytes]),
                algorithm,
                &KeyFault::SecretTooShort { bytes, needed },
            );
        }
        assert!(load(&secret(&SECRET[..needed]), algorithm).is_ok());
    }
    let both = [Algorithm::HS256, Algorithm::HS512];
    assert_eq!(
        KeySet::load(&secret(&SECRET[..32]), &both).map(|_| ()),
        Err(KeyFault::SecretTooShort {
            bytes: 32,
            needed: 64
        })
    );
}

#[test]
fn key_5_known_and_guessable_secrets_are_refused() {
    for example in verifying::EXAMPLE_SECRETS
        .iter()
        .filter(|example| example.len() >= 32)
    {
        refused(
            &secret(example.as_bytes()),
            Algorithm::HS256,
            &KeyFault::ExampleSecret,
        );
        refused(
            &secret(example.to_uppercase().as_bytes()),
            Algorithm::HS256,
            &KeyFault::ExampleSecret,
        );
        refused(
            &secret(format!("{example}\n").as_bytes()),
            Algorithm::HS256,
            &KeyFault::ExampleSecret,
        );
    }
    for guessable in [
        vec![0; 32],
        vec![b'x'; 64],
        b"secret".repeat(8),
        b"12345".repeat(10),
        b"abc\n".repeat(16),
    ] {
        refused(
            &secret(&guessable),
            Algorithm::HS256,
            &KeyFault::GuessableSecret,
        );
    }
    for pair in [&*RSA, &*P256, &*ED25519] {
        for pem in [&pair.public_pem, &pair.certificate_pem, &pair.private_pem] {
            refused(
                &secret(pem.as_bytes()),
                Algorithm::HS256,
                &KeyFault::GuessableSecret,
            );
        }
    }
    assert!(
        load(
            &secret(b"0123456789abcdef0123456789abcdef"),
            Algorithm::HS256
        )
        .is_ok()
    );
}

#[test]
fn key_5_private_keys_are_refused_in_every_form() {
    for algorithm in [
        Algorithm::RS256,
        Algorithm::ES256,
        Algorithm::ES384,
        Algorithm::EdDSA,
    ] {
        let pair = pair(algorithm);
        refused(&public(&pair.private_pem), algorithm, &KeyFault::PrivateKey);
        refused(&public(&pair.private_der), algorithm, &KeyFault::PrivateKey);
        refused(
            &public(format!("{}{}", pair.public_pem, pair.private_pem)),
            algorithm,
            &KeyFault::PrivateKey,
        );
        let mut jwk = pair.named("k");
        jwk["d"] = "AAAA".into();
        refused(
            &jwks(&[pair.named("good"), jwk]),
            algorithm,
            &KeyFault::PrivateKey,
        );
    }
    for label in [
        "RSA PRIVATE KEY",
        "EC PRIVATE KEY",
        "ENCRYPTED PRIVATE KEY",
        "OPENSSH PRIVATE KEY",
    ] {
        let pem = format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n");
        refused(&public(pem), Algorithm::RS256, &KeyFault::PrivateKey);
    }
    for name in ["p", "q", "dp", "dq", "qi", "oth"] {
        let mut jwk = RSA.named("k");
        jwk[name] = "AAAA".into();
        refused(&jwks(&[jwk]), Algorithm::RS256, &KeyFault::PrivateKey);
    }
}

#[test]
fn jwt_1_a_published_secret_fails_the_set_of_an_asymmetric_issuer() {
    let oct = json!({"kty": "oct", "kid": "s", "k": base64(*SECRET)});
    for algorithm in ASYMMETRIC {
        let set = jwks(&[pair(algorithm).named("k"), oct.clone()]);
        refused(&set, algorithm, &KeyFault::SecretPublished);
    }
    // An issuer of secrets may have several, by name.
    assert!(load(&jwks(&[oct]), Algorithm::HS256).is_ok());
    refused(
        &jwks(&[RSA.named("k")]),
        Algorithm::HS256,
        &KeyFault::NoUsableKey(1),
    );
}

#[test]
fn jwt_1_secrets_and_public_keys_are_not_taken_for_each_other() {
    refused(
        &public(&RSA.public_pem),
        Algorithm::HS256,
        &KeyFault::PublicKeyForSecret(Algorithm::HS256),
    );
    refused(
        &secret(&*SECRET),
        Algorithm::RS256,
        &KeyFault::SecretForPublicKey(Algorithm::RS256),
    );
    for algorithms in [
        &[Algorithm::HS256, Algorithm::RS256][..],
        &[Algorithm::ES256, Algorithm::HS512],
    ] {
        for source in [
            secret(&*SECRET),
            public(&RSA.public_pem),
            jwks(&[RSA.named("k")]),
        ] {
            assert_eq!(
                KeySet::load(&source, algorithms).map(|_| ()),
                Err(KeyFault::AlgorithmsMixed)
            );
        }
    }
    assert_eq!(
        KeySet::load(&secret(&*SECRET), &[]).map(|_| ()),
        Err(KeyFault::AlgorithmsEmpty)
    );
}

#[test]
fn jwt_8_keys_of_the_wrong_kind_or_curve_are_refused() {
    let kinds = [
        (&*RSA, Algorithm::RS256),
        (&*P256, Algorithm::ES256),
        (&*P384, Algorithm::ES384),
        (&*ED25519, Algorithm::EdDSA),
    ];
    for (pair, of_pair) in kinds {
        for algorithm in ASYMMETRIC {
            let fits = of_pair == algorithm
                || (of_pair == Algorithm::RS256 && algorithm.family() == AlgorithmFamily::Rsa);
            for source in [
                public(&pair.public_pem),
                public(&pair.public_der),
                public(&pair.certificate_pem),
                public(&pair.certificate_der),
            ] {
                match load(&source, algorithm) {
                    Ok(_) => assert!(fits, "{algorithm:?}"),
                    Err(fault) => assert!(!fits && matches!(fault, KeyFault::Unfit(_)), "{fault}"),
                }
            }
            assert_eq!(load(&jwks(&[pair.named("k")]), algorithm).is_ok(), fits);
        }
    }
    let p521 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).unwrap();
    refused(
        &public(p521.public_key_pem()),
        Algorithm::ES256,
        &KeyFault::Unfit("of an unsupported kind or curve"),
    );
}

#[test]
fn jwt_8_what_is_no_key_is_refused() {
    let pem = &P256.public_pem;
    let twice = format!("{pem}{pem}");
    refused(&public(twice), Algorithm::ES256, &KeyFault::SeveralKeys);
    let chain = format!("{}{}", P256.certificate_pem, RSA.certificate_pem);
    refused(&public(chain), Algorithm::ES256, &KeyFault::SeveralKeys);
    let cut = &P256.public_der[..P256.public_der.len() - 1];
    let longer = [&P256.public_der[..], &[0]].concat();
    let mut off_curve = P256.public_der.clone();
    *off_curve.last_mut().unwrap() ^= 1;
    let mut infinity = P256.public_der.clone();
    let length = infinity.len();
    infinity[length - 64..].fill(0);
    let compressed = {
        let mut point = P256.public_der[length - 65..length - 32].to_vec();
        point[0] = 2;
        let algorithm = &P256.public_der[2..length - 68];
        der(
            0x30,
            &[algorithm, &der(3, &[&[0], &*point].concat())].concat(),
        )
    };
    for bad in [
        b"".to_vec(),
        b"\0".to_vec(),
        b"key".to_vec(),
        b"0\x80\0\0".to_vec(),
        vec![0x30, 0x84, 0xff, 0xff, 0xff, 0xff],
        b"-----BEGIN PUBLIC KEY-----".to_vec(),
        b"-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----".to_vec(),
        b"-----BEGIN PUBLIC KEY-----\n!!!!\n-----END PUBLIC KEY-----".to_vec(),
        pem.replace("-----END PUBLIC KEY", "-----END CERTIFICATE")
            .into_bytes(),
        pem.replace("PUBLIC KEY", "CERTIFICATE").into_bytes(),
        pem.replace("PUBLIC KEY", "RSA PUBLIC KEY").into_bytes(),
        pem.replace("PUBLIC KEY", "PUBLIC THING").into_bytes(),
        cut.to_vec(),
        longer,
        off_curve,
        infinity,
        compressed,
    ] {
        let fault = load(&public(&bad), Algorithm::ES256)
            .map(|_| "loaded")
            .unwrap_err();
        assert!(matches!(fault, KeyFault::Malformed(_)), "{fault} {bad:?}");
    }
}

#[test]
fn key_5_keys_do_not_print() {
    let set = load(&secret(&*SECRET), Algorithm::HS256).unwrap();
    let shown = format!("{set:?} {:?}", secret(&*SECRET));
    let bytes: Vec<String> = SECRET[..4].iter().map(u8::to_string).collect();
    assert!(!shown.contains(&bytes.join(", ")), "{shown}");
}

proptest::proptest! {
    #[test]
    fn jwt_7_random_key_files_never_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
        for prefix in [&b""[..], b"\x30\x59\x30\x13", b"-----BEGIN PUBLIC KEY-----\n", b"{\"keys\":["] {
            let bytes = [prefix, &*bytes].concat();
            proptest::prop_assert!(load(&public(&bytes), Algorithm::ES256).is_err());
            proptest::prop_assert!(load(&KeySource::Jwks(bytes), Algorithm::ES256).is_err());
        }
    }

    #[test]
    fn jwt_8_a_changed_byte_never_makes_another_key_of_another_kind(place in 0usize..91, byte in proptest::prelude::any::<u8>()) {
        let mut der = P256.public_der.clone();
        der[place] = byte;
        for algorithm in [Algorithm::RS256, Algorithm::ES384, Algorithm::EdDSA] {
            proptest::prop_assert!(load(&public(&der), algorithm).is_err());
        }
    }
}
