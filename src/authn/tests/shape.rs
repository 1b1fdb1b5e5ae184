//! JWT-5, JWT-6, JWT-7: what is one token, and what is one JSON object.

use jsonwebtoken::Algorithm;
use proptest::prelude::*;
use serde_json::json;

use super::fixtures::*;
use crate::{
    authn::{Authenticator, strict_json::members},
    policy::TokenFault,
};

/// A token of these very texts with a good signature.
fn signed(header: &str, payload: &str) -> String {
    sign(header, payload, &P256.signing, Algorithm::ES256)
}

/// A good payload with more members.
fn payload_with(more: &str) -> String {
    let good = payload().to_string();
    format!("{},{more}}}", good.strip_suffix('}').unwrap())
}

fn es256_only() -> Authenticator {
    authenticator(&[settings(Algorithm::ES256)])
}

#[test]
fn jwt_5_anything_but_three_plain_segments_is_refused() {
    let authenticator = es256_only();
    let token = good(Algorithm::ES256);
    let parts: Vec<&str> = token.split('.').collect();
    let [header, payload, signature] = parts[..] else {
        panic!("three parts")
    };
    for bad in [
        String::new(),
        ".".into(),
        "..".into(),
        "...".into(),
        "....".into(),
        "a".into(),
        "a.b".into(),
        header.into(),
        format!("{header}.{payload}"),
        format!("{header}.{payload}."),
        format!("{header}..{signature}"),
        format!(".{payload}.{signature}"),
        format!(".{token}"),
        format!("{token}."),
        format!("{token}.{signature}"),
        // Five segments: a JWE, with and without an encrypted key.
        format!("{token}.{signature}.{signature}"),
        format!("{header}..{payload}.{signature}.{signature}"),
        format!("{token} "),
        format!(" {token}"),
        format!("{token}\n"),
        format!("{token}\u{0}"),
        format!("{token}="),
        format!("{token}=="),
        format!("{header}=.{payload}.{signature}"),
        format!("{header}.{payload}=.{signature}"),
        format!("{header}.{payload}\n.{signature}"),
        token.replacen('.', " .", 1),
        format!("+{token}"),
        format!("/{token}"),
        format!("~{token}"),
        format!("%{token}"),
        format!("é{token}"),
        token.replacen('.', "\u{2024}", 1),
    ] {
        refused(&authenticator, &bad, TokenFault::Segments);
    }
}

#[test]
fn jwt_5_json_serialisations_and_polyglots_are_refused() {
    let authenticator = es256_only();
    let token = good(Algorithm::ES256);
    let parts: Vec<&str> = token.split('.').collect();
    let flattened = json!({"protected": parts[0], "payload": parts[1], "signature": parts[2]});
    let general = json!({"payload": parts[1], "signatures": [{"protected": parts[0], "signature": parts[2]}]});
    for bad in [
        flattened.to_string(),
        general.to_string(),
        // A JSON serialisation that also splits in three at its dots (as in CVE-2022-39227).
        format!(
            "{{\"{}.{}.{}\":\"x\",\"payload\":\"{}\"}}",
            parts[0], parts[1], parts[2], parts[1]
        ),
        format!(
            "  {{\"  \": \"{}\", \".\": \"{}\", \".\": \"{}\"}}",
            parts[0], parts[1], parts[2]
        ),
    ] {
        refused(&authenticator, &bad, TokenFault::Segments);
    }
}

#[test]
fn jwt_5_a_token_has_one_spelling() {
    // Bits beyond the last byte decode to nothing, so that several spellings would be the same token (CACHE-1).
    let authenticator = es256_only();
    let token = good(Algorithm::ES256);
    let parts: Vec<&str> = token.split('.').collect();
    let respelled = |segment: &str| {
        let (start, last) = segment.split_at(segment.len() - 1);
        let next = char::from(last.as_bytes()[0] + 1);
        format!("{start}{next}")
    };
    // 64 bytes of signature leave four such bits.
    let bad = format!("{}.{}.{}", parts[0], parts[1], respelled(parts[2]));
    refused(&authenticator, &bad, TokenFault::Signature);
    let header = base64(r#"{"alg":"ES256"}"#);
    assert_eq!(header.len() % 4, 0);
    let header = base64(r#"{"alg":"ES256" }"#);
    let bad = format!("{}.{}.{}", respelled(&header), parts[1], parts[2]);
    refused(&authenticator, &bad, TokenFault::Segments);
    // A length that no bytes have.
    refused(
        &authenticator,
        &format!("{}.AAAAA.{}", parts[0], parts[2]),
        TokenFault::Segments,
    );
}

#[test]
fn jwt_5_encryption_and_compression_headers_are_refused_without_work() {
    let authenticator = es256_only();
    for header in [
        r#"{"alg":"ES256","zip":"DEF"}"#,
        r#"{"alg":"ES256","zip":null}"#,
        r#"{"alg":"ES256","enc":"A256GCM"}"#,
        r#"{"alg":"ES256","p2c":2147483647}"#,
        r#"{"alg":"ES256","p2s":"c2FsdA"}"#,
        r#"{"alg":"ES256","epk":{}}"#,
        r#"{"alg":"ES256","iv":""}"#,
        r#"{"alg":"ES256","tag":""}"#,
        r#"{"alg":"PBES2-HS256+A128KW","p2c":2147483647,"enc":"A128GCM"}"#,
        r#"{"alg":"dir","enc":"A256GCM","zip":"DEF"}"#,
    ] {
        let token = signed(header, &payload().to_string());
        refused(&authenticator, &token, TokenFault::CriticalHeader);
    }
}

#[test]
fn jwt_6_crit_and_b64_are_refused_whatever_they_hold() {
    let authenticator = es256_only();
    for header in [
        r#"{"alg":"ES256","crit":["x"]}"#,
        r#"{"alg":"ES256","crit":["x"],"x":1}"#,
        r#"{"alg":"ES256","crit":[]}"#,
        r#"{"alg":"ES256","crit":"x"}"#,
        r#"{"alg":"ES256","crit":null}"#,
        r#"{"alg":"ES256","crit":{}}"#,
        r#"{"alg":"ES256","crit":["alg"]}"#,
        r#"{"alg":"ES256","crit":["exp"],"exp":1}"#,
        r#"{"alg":"ES256","crit":["b64"],"b64":false}"#,
        r#"{"alg":"ES256","crit":["b64"],"b64":true}"#,
        r#"{"alg":"ES256","b64":false}"#,
        r#"{"alg":"ES256","b64":true}"#,
        r#"{"alg":"ES256","\u0063rit":["x"]}"#,
    ] {
        let token = signed(header, &payload().to_string());
        refused(&authenticator, &token, TokenFault::CriticalHeader);
    }
}

#[test]
fn jwt_6_repeated_names_are_refused_at_every_level() {
    let authenticator = es256_only();
    for header in [
        r#"{"alg":"ES256","alg":"ES256"}"#,
        r#"{"alg":"none","alg":"ES256"}"#,
        r#"{"alg":"ES256","alg":"none"}"#,
        r#"{"alg":"ES256","\u0061lg":"ES256"}"#,
        r#"{"alg":"ES256","kid":"a","kid":"a"}"#,
        r#"{"alg":"ES256","typ":"JWT","typ":"at+jwt"}"#,
        r#"{"alg":"ES256","x":1,"x":2}"#,
        r#"{"alg":"ES256","jwk":{"kty":"EC","kty":"oct"}}"#,
        r#"{"alg":"ES256","x":[{"a":1,"a":1}]}"#,
    ] {
        let token = signed(header, &payload().to_string());
        refused(&authenticator, &token, TokenFault::Header);
    }
    let with = payload_with;
    for payload in [
        with(r#""sub":"u1""#),
        with(r#""sub":"admin""#),
        with(r#""\u0073ub":"admin""#),
        with(r#""iss":"https://idp.example.com""#),
        with(r#""exp":9999999999"#),
        with(r#""aud":"orders""#),
        with(r#""x":1,"x":1"#),
        with(r#""x":{"a":1,"a":1}"#),
        with(r#""x":[[{"a":{"b":1,"c":2,"b":3}}]]"#),
        with(r#""realm_access":{"roles":[],"roles":["admin"]}"#),
    ] {
        let token = signed(r#"{"alg":"ES256"}"#, &payload);
        refused(&authenticator, &token, TokenFault::Payload);
    }
}

#[test]
fn jwt_6_what_is_not_one_json_object_is_refused() {
    let authenticator = es256_only();
    let good_payload = payload().to_string();
    for text in [
        "",
        " ",
        "null",
        "1",
        "\"alg\"",
        "[]",
        "[{\"alg\":\"ES256\"}]",
        "{",
        "}",
        "{}{}",
        "{\"alg\":\"ES256\"}x",
        "{\"alg\":\"ES256\"},",
        "{alg:\"ES256\"}",
        "{'alg':'ES256'}",
        "{\"alg\":\"ES256\",}",
        "{\"alg\" \"ES256\"}",
        "\u{feff}{\"alg\":\"ES256\"}",
        "{\"alg\":\"ES256\",\"x\":NaN}",
        "{\"alg\":\"ES256\",\"x\":1e400}",
        "{\"alg\":\"ES256\",\"x\":01}",
        "{\"alg\":\"ES256\",\"x\":\"\\ud800\"}",
        "{\"alg\":\"ES256\"/* */}",
        "{\"alg\":\"ES\n256\"}",
        "{\"alg\":\"ES256\",\"x\":\"\u{0}\"}",
    ] {
        if !text.is_empty() {
            let token = signed(text, &good_payload);
            refused(&authenticator, &token, TokenFault::Header);
            let token = signed(r#"{"alg":"ES256"}"#, text);
            refused(&authenticator, &token, TokenFault::Payload);
        }
    }
    // Bytes that are not UTF-8.
    let header = base64(r#"{"alg":"ES256"}"#);
    let token = format!("{header}.{}.AAAA", base64(b"{\"iss\":\"\xff\"}"));
    refused(&authenticator, &token, TokenFault::Payload);
}

#[test]
fn jwt_7_long_tokens_are_refused_before_anything_is_read() {
    let authenticator = es256_only();
    refused(&authenticator, &".".repeat(1 << 20), TokenFault::TooLong);
    refused(
        &authenticator,
        &"a".repeat((8 << 10) + 1),
        TokenFault::TooLong,
    );
    refused(&authenticator, &"a".repeat(8 << 10), TokenFault::Segments);
    let deep = format!("{{\"a\":{}", "[".repeat(10_000));
    let token = format!("{}.{}.AAAA", base64(r#"{"alg":"ES256"}"#), base64(deep));
    refused(&authenticator, &token, TokenFault::TooLong);

    // A good token of exactly 8 KiB passes, one byte more does not.
    let sized = |length: usize| {
        let mut payload = payload();
        payload["pad"] = "p".repeat(length).into();
        es256(&payload)
    };
    let longest = (5000..7000)
        .find(|pad| sized(*pad).len() > 8 << 10)
        .unwrap();
    refused(&authenticator, &sized(longest), TokenFault::TooLong);
    assert!(verify(&authenticator, &sized(longest - 1)).is_ok());
}

#[test]
fn jwt_7_deep_json_is_refused() {
    let authenticator = es256_only();
    let nested = |open: &str, inner: &str, close: &str, depth: usize| {
        format!("{}{inner}{}", open.repeat(depth), close.repeat(depth))
    };
    let with = |value: &str| payload_with(&format!("\"x\":{value}"));
    for (open, inner, close) in [
        ("[", "", "]"),
        ("{\"a\":", "1", "}"),
        ("[{\"a\":", "1", "}]"),
    ] {
        let levels = open.matches(['[', '{']).count();
        let fits = nested(open, inner, close, 15 / levels);
        let token = signed(r#"{"alg":"ES256"}"#, &with(&fits));
        assert!(verify(&authenticator, &token).is_ok());
        for depth in [16, 17, 128, 5000 / (open.len() + close.len())] {
            let deep = nested(open, inner, close, depth);
            let token = signed(r#"{"alg":"ES256"}"#, &with(&deep));
            refused(&authenticator, &token, TokenFault::Payload);
            let header = format!("{{\"alg\":\"ES256\",\"x\":{deep}}}");
            let token = signed(&header, &payload().to_string());
            refused(&authenticator, &token, TokenFault::Header);
        }
    }
    // Unclosed, as long as a token can be.
    for start in ["[", "{\"a\":"] {
        let token = format!(
            "{}.{}.AAAA",
            base64(r#"{"alg":"ES256"}"#),
            base64(start.repeat(1000))
        );
        refused(&authenticator, &token, TokenFault::Payload);
    }
}

#[test]
fn jwt_7_a_thousand_short_names_cost_little() {
    let text: Vec<String> = (0..600).map(|n| format!("\"{n:x}\":1")).collect();
    let json = format!("{{{}}}", text.join(","));
    assert_eq!(
        members(json.as_bytes(), ["0", "257", "258"]).map(|found| found.map(|m| m.is_some())),
        Some([true, true, false])
    );
    let repeated = format!("{{{},\"0\":1}}", text.join(","));
    assert_eq!(members(repeated.as_bytes(), ["0"]), None);
}

proptest! {
    #[test]
    fn jwt_7_random_text_never_panics_and_never_passes(token in "\\PC{0,200}") {
        prop_assert!(verify(&ES256_ONLY, &token).is_err());
    }

    #[test]
    fn jwt_7_random_segments_never_panic_and_never_pass(
        header in prop::collection::vec(any::<u8>(), 0..80),
        payload in prop::collection::vec(any::<u8>(), 0..80),
        signature in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        let token = format!("{}.{}.{}", base64(header), base64(payload), base64(signature));
        prop_assert!(verify(&ES256_ONLY, &token).is_err());
    }

    #[test]
    fn jwt_7_any_changed_byte_of_a_good_token_is_refused(place in 0usize..1000, byte in any::<u8>()) {
        let mut bytes = GOOD.clone().into_bytes();
        let place = place % bytes.len();
        prop_assume!(bytes[place] != byte);
        bytes[place] = byte;
        if let Ok(token) = String::from_utf8(bytes) {
            prop_assert!(verify(&ES256_ONLY, &token).is_err());
        }
    }

    #[test]
    fn jwt_7_strict_reading_accepts_only_what_serde_reads_alike(json in "[\\[\\]{}:,\"a0-9 .eE+-]{0,40}") {
        if members(json.as_bytes(), ["a"]).is_some() {
            prop_assert!(serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&json).is_ok());
        }
    }
}

static ES256_ONLY: std::sync::LazyLock<Authenticator> = std::sync::LazyLock::new(es256_only);
static GOOD: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| good(Algorithm::ES256));
