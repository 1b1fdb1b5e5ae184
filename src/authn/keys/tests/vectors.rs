//! JWT-8: the signature vectors of Project Wycheproof and the examples of RFC 7515, 7520 and 8037, through our own reading of
//! keys and our own verification.
//!
//! The vectors sign bytes of their own, which are no token; what is driven is everything that looks at key and signature.

use jsonwebtoken::Algorithm;
use serde_json::json;
use wycheproof::TestResult;
use zeroize::Zeroizing;

use super::super::{KeyFault, KeySet};
use crate::authn::{settings::KeySource, tests::fixtures::base64};

/// How many vectors were valid and how many were not, so that an empty file proves nothing.
#[derive(Debug, Default)]
struct Count {
    valid: usize,
    invalid: usize,
}

impl Count {
    /// Compares the verdict over one vector.
    #[track_caller]
    fn check(&mut self, what: &str, verified: bool, result: TestResult) {
        match result {
            TestResult::Valid => {
                assert!(verified, "{what} is valid");
                self.valid += 1;
            }
            TestResult::Invalid => {
                assert!(!verified, "{what} is forged");
                self.invalid += 1;
            }
            // A matter of taste; nothing that was written by a JWT library is among them.
            TestResult::Acceptable => {}
        }
    }
}

fn public(der: &[u8], algorithm: Algorithm) -> KeySet {
    KeySet::load(&KeySource::PublicKey(der.to_vec()), &[algorithm]).unwrap()
}

fn verifies(keys: &KeySet, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
    let key = keys.find(algorithm, None).unwrap();
    key.verifies(message, &base64(signature))
}

macro_rules! public_key_vectors {
    ($module:ident: $($name:ident => $algorithm:ident),*) => {{
        let mut count = Count::default();
        $(
            let set = wycheproof::$module::TestSet::load(wycheproof::$module::TestName::$name).unwrap();
            for group in set.test_groups {
                let keys = public(&group.der, Algorithm::$algorithm);
                for test in group.tests {
                    let what = format!("{} {}", stringify!($name), test.tc_id);
                    let verified = verifies(&keys, Algorithm::$algorithm, &test.msg, &test.sig);
                    count.check(&what, verified, test.result);
                }
            }
        )*
        count
    }};
}

#[test]
fn jwt_8_wycheproof_ecdsa() {
    let count = public_key_vectors!(ecdsa:
        EcdsaSecp256r1Sha256P1363 => ES256,
        EcdsaSecp384r1Sha384P1363 => ES384
    );
    assert!(count.valid > 200 && count.invalid > 50, "{count:?}");
}

#[test]
fn jwt_8_wycheproof_ecdsa_signatures_in_der_are_no_signatures_here() {
    let set = wycheproof::ecdsa::TestName::EcdsaSecp256r1Sha256;
    for group in wycheproof::ecdsa::TestSet::load(set).unwrap().test_groups {
        let keys = public(&group.der, Algorithm::ES256);
        for test in group.tests {
            let verified = verifies(&keys, Algorithm::ES256, &test.msg, &test.sig);
            assert!(!verified, "{}", test.tc_id);
        }
    }
}

#[test]
fn jwt_8_wycheproof_eddsa() {
    let count = public_key_vectors!(eddsa: Ed25519 => EdDSA);
    assert!(count.valid > 50 && count.invalid > 50, "{count:?}");
}

#[test]
fn jwt_8_wycheproof_rsa_pkcs1() {
    let count = public_key_vectors!(rsa_pkcs1_verify:
        Rsa2048Sha256 => RS256,
        Rsa2048Sha384 => RS384,
        Rsa2048Sha512 => RS512,
        Rsa3072Sha256 => RS256,
        Rsa3072Sha384 => RS384,
        Rsa3072Sha512 => RS512,
        Rsa4096Sha256 => RS256,
        Rsa4096Sha384 => RS384,
        Rsa4096Sha512 => RS512,
        Rsa8192Sha256 => RS256
    );
    assert!(count.valid > 50 && count.invalid > 1000, "{count:?}");
}

#[test]
fn jwt_8_wycheproof_rsa_pss() {
    let count = public_key_vectors!(rsa_pss_verify:
        RsaPss2048Sha256Mgf1SaltLen32 => PS256,
        RsaPss3072Sha256Mgf1SaltLen32 => PS256,
        RsaPss4096Sha256Mgf1SaltLen32 => PS256,
        RsaPss2048Sha384Mgf1SaltLen48 => PS384,
        RsaPss4096Sha384Mgf1SaltLen48 => PS384,
        RsaPss4096Sha512Mgf1SaltLen64 => PS512
    );
    assert!(count.valid > 20 && count.invalid > 100, "{count:?}");
}

#[test]
fn jwt_8_wycheproof_hmac() {
    use wycheproof::mac::{TestName, TestSet};
    let mut count = Count::default();
    let mut refused = 0;
    for (name, algorithm, bits) in [
        (TestName::HmacSha256, Algorithm::HS256, 256),
        (TestName::HmacSha384, Algorithm::HS384, 384),
        (TestName::HmacSha512, Algorithm::HS512, 512),
    ] {
        for group in TestSet::load(name).unwrap().test_groups {
            for test in group.tests {
                let secret = Zeroizing::new(test.key.to_vec());
                let keys = match KeySet::load(&KeySource::Secret(secret), &[algorithm]) {
                    Ok(keys) => keys,
                    Err(KeyFault::SecretTooShort { .. } | KeyFault::GuessableSecret) => {
                        refused += 1;
                        continue;
                    }
                    Err(fault) => panic!("{fault}"),
                };
                let verified = verifies(&keys, algorithm, &test.msg, &test.tag);
                // A tag that was cut off is good there and not here (RFC 7518 §3.2).
                let whole = group.tag_size == bits;
                let result = if whole {
                    test.result
                } else {
                    TestResult::Invalid
                };
                count.check(&format!("{algorithm:?} {}", test.tc_id), verified, result);
            }
        }
    }
    assert!(
        count.valid > 50 && count.invalid > 100 && refused > 10,
        "{count:?} {refused}"
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table; a row for each case")]
fn jwt_8_the_examples_of_the_rfcs_verify_and_a_bit_more_does_not() {
    let frodo = "SXTigJlzIGEgZGFuZ2Vyb3VzIGJ1c2luZXNzLCBGcm9kbywgZ29pbmcgb3V0IHlvdXIgZG9vci4gWW91IHN0ZXAgb250byB0aGUgcm9hZCwgYW5kIGlmIHlvdSBkb24ndCBrZWVwIHlvdXIgZmVldCwgdGhlcmXigJlzIG5vIGtub3dpbmcgd2hlcmUgeW91IG1pZ2h0IGJlIHN3ZXB0IG9mZiB0by4";
    let joe = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    // Under its name there, with an `@`, this key is taken by no set here (JWT-2).
    let bilbo = json!({"kty": "RSA", "use": "sig", "n": "n4EPtAOCc9AlkeQHPzHStgAbgs7bTZLwUBZdR8_KuKPEHLd4rHVTeT-O-XV2jRojdNhxJWTDvNd7nqQ0VEiZQHz_AJmSCpMaJMRBSFKrKb2wqVwGU_NsYOYL-QtiWN2lbzcEe6XC0dApr5ydQLrHqkHHig3RBordaZ6Aj-oBHqFEHYpPe7Tpe-OfVfHd1E6cS6M1FZcD1NNLYD5lFHpPI9bTwJlsde3uhGqC0ZCuEHg8lhzwOHrtIQbS0FVbb9k3-tVTU4fg_3L_vniUFAKwuCLqKnS2BYwdq_mzSnbLY7h_qixoR7jig3__kRhuaxwUkRz5iaiQkqgc5gHdrNP5zw", "e": "AQAB"});
    for (what, algorithm, jwk, header, payload, signature) in [
        (
            "RFC 7515 A.1",
            Algorithm::HS256,
            json!({"kty": "oct", "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"}),
            "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9",
            joe,
            "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
        ),
        (
            "RFC 7515 A.2",
            Algorithm::RS256,
            json!({"kty": "RSA", "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ", "e": "AQAB"}),
            "eyJhbGciOiJSUzI1NiJ9",
            joe,
            "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
        ),
        (
            "RFC 7515 A.3",
            Algorithm::ES256,
            json!({"kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}),
            "eyJhbGciOiJFUzI1NiJ9",
            joe,
            "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
        ),
        (
            "RFC 7520 4.1",
            Algorithm::RS256,
            bilbo.clone(),
            "eyJhbGciOiJSUzI1NiIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbXBsZSJ9",
            frodo,
            "MRjdkly7_-oTPTS3AXP41iQIGKa80A0ZmTuV5MEaHoxnW2e5CZ5NlKtainoFmKZopdHM1O2U4mwzJdQx996ivp83xuglII7PNDi84wnB-BDkoBwA78185hX-Es4JIwmDLJK3lfWRa-XtL0RnltuYv746iYTh_qHRD68BNt1uSNCrUCTJDt5aAE6x8wW1Kt9eRo4QPocSadnHXFxnt8Is9UzpERV0ePPQdLuW3IS_de3xyIrDaLGdjluPxUAhb6L2aXic1U12podGU0KLUQSE_oI-ZnmKJ3F4uOZDnd6QZWJushZ41Axf_fcIe8u9ipH84ogoree7vjbU5y18kDquDg",
        ),
        (
            "RFC 7520 4.2",
            Algorithm::PS384,
            bilbo,
            "eyJhbGciOiJQUzM4NCIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbXBsZSJ9",
            frodo,
            "cu22eBqkYDKgIlTpzDXGvaFfz6WGoz7fUDcfT0kkOy42miAh2qyBzk1xEsnk2IpN6-tPid6VrklHkqsGqDqHCdP6O8TTB5dDDItllVo6_1OLPpcbUrhiUSMxbbXUvdvWXzg-UD8biiReQFlfz28zGWVsdiNAUf8ZnyPEgVFn442ZdNqiVJRmBqrYRXe8P_ijQ7p8Vdz0TTrxUeT3lm8d9shnr2lfJT8ImUjvAA2Xez2Mlp8cBE5awDzT0qI0n6uiP1aCN_2_jLAeQTlqRHtfa64QQSUmFAAjVKPbByi7xho0uTOcbH510a6GYmJUAfmWjwZ6oD4ifKo8DYM-X72Eaw",
        ),
        (
            "RFC 7520 4.4",
            Algorithm::HS256,
            json!({"kty": "oct", "kid": "018c0ae5-4d9b-471b-bfd6-eef314bc7037", "use": "sig", "alg": "HS256", "k": "hJtXIZ2uSN5kbQfbtTNWbpdmhkV8FJG-Onbc6mxCcYg"}),
            "eyJhbGciOiJIUzI1NiIsImtpZCI6IjAxOGMwYWU1LTRkOWItNDcxYi1iZmQ2LWVlZjMxNGJjNzAzNyJ9",
            frodo,
            "s0h6KThzkfBBBkLspW1h84VsJZFTsPPqMDA7g1Md7p0",
        ),
        (
            "RFC 8037 A.4",
            Algorithm::EdDSA,
            json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}),
            "eyJhbGciOiJFZERTQSJ9",
            "RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc",
            "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
        ),
    ] {
        let set = json!({"keys": [jwk]}).to_string().into_bytes();
        let keys = KeySet::load(&KeySource::Jwks(set), &[algorithm]).unwrap();
        let key = keys.find(algorithm, None).unwrap();
        let signed = format!("{header}.{payload}");
        let other: String = signature.chars().rev().collect();
        assert!(key.verifies(signed.as_bytes(), signature), "{what}");
        assert!(
            !key.verifies(format!("{signed}A").as_bytes(), signature),
            "{what}"
        );
        assert!(!key.verifies(signed.as_bytes(), &other), "{what}");
    }
}

/// The examples of RFC 7515 A.4 and RFC 7520 4.3 are signed by keys on P-521, which this gateway has no use for.
#[test]
fn jwt_8_a_key_on_p_521_is_none_that_can_be_used() {
    for jwk in [
        json!({"kty": "EC", "crv": "P-521", "x": "AekpBQ8ST8a8VcfVOTNl353vSrDCLLJXmPk06wTjxrrjcBpXp5EOnYG_NjFZ6OvLFV1jSfS9tsz4qUxcWceqwQGk", "y": "ADSmRA43Z1DSNx_RvcLI87cdL07l6jQyyBXMoxVg_l2Th-x3S1WDhjDly79ajL4Kkd0AZMaZmh9ubmf63e3kyMj2"}),
        json!({"kty": "EC", "use": "sig", "crv": "P-521", "x": "AHKZLLOsCOzz5cY97ewNUajB957y-C-U88c3v13nmGZx6sYl_oJXu9A5RkTKqjqvjyekWF-7ytDyRXYgCF5cj0Kt", "y": "AdymlHvOiLxXkEhayXQnNCvDX4h9htZaCJN34kfmC6pV5OhQHiraVySsUdaQkAgDPrwQrJmbnX9cwlGfP-HqHZR1"}),
    ] {
        let set = json!({"keys": [jwk]}).to_string().into_bytes();
        for algorithm in [Algorithm::ES256, Algorithm::ES384] {
            let loaded = KeySet::load(&KeySource::Jwks(set.clone()), &[algorithm]);
            assert!(
                matches!(loaded, Err(KeyFault::NoUsableKey(1))),
                "{loaded:?}"
            );
        }
    }
}
