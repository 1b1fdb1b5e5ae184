//! Tokens: what is not exactly right is refused, with one text for every cause, and the upstream sees nothing.

use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use crate::harness::{
    Broken, Gateway, H2, Kind, Raw, Site, Token, Upstream, get,
    keys::{AUDIENCE, base64, bearer, ec_key, keys, now, rsa_key, unbase64},
    request,
};

async fn gateway(upstream: &Upstream) -> Gateway {
    Site::new(upstream.address).start().await
}

/// Presents each token over both protocols and on both kinds of routes that look at tokens; each must be refused alike.
async fn refused(tokens: impl IntoIterator<Item = (String, String)>) {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let mut faults = Vec::new();
    let mut h2 = H2::connect(&gateway).await;
    for (name, token) in tokens {
        let value = bearer(&token);
        let mut raw = Raw::connect(&gateway).await;
        for target in ["/private", "/optional"] {
            let answer = raw
                .exchange(request("GET", target, &[("Authorization", &value)], ""))
                .await;
            // A control byte in a field is no field; the parser says so before anyone looks for a token.
            if answer.status != 401 || answer.code() != "token_invalid" {
                faults.push(format!(
                    "{name} on {target}: {} {}",
                    answer.status,
                    answer.text()
                ));
            }
        }
        // The client library will not write some of them.
        if http::HeaderValue::from_str(&value).is_ok() {
            let answer = h2.get("/private", &[("authorization", &value)]).await;
            if answer.status != 401 {
                faults.push(format!("{name} over HTTP/2: {}", answer.status));
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
    upstream.saw_nothing();
}

fn named<const N: usize>(cases: [(&str, String); N]) -> impl Iterator<Item = (String, String)> {
    cases
        .into_iter()
        .map(|(name, token)| (name.to_owned(), token))
}

/// A token whose header says what it likes and whose signature is the issuer's.
fn with_header(kind: Kind, name: &str, value: impl Into<Value>) -> String {
    Token::new(kind).header(name, value).sign()
}

#[tokio::test]
async fn good_tokens_of_every_algorithm_pass() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    for kind in Kind::ALL {
        for _ in 0..2 {
            let token = Token::new(kind).sign();
            get(&gateway, "/private", &[("Authorization", &bearer(&token))])
                .await
                .is(200);
            assert_eq!(upstream.last().header("x-forwarded-user"), Some("alice"));
            assert_eq!(
                upstream.last().header("x-auth-issuer"),
                Some(&*kind.issuer())
            );
        }
    }
    let token = Token::good().sign();
    for scheme in ["bearer", "BEARER", "Bearer"] {
        get(
            &gateway,
            "/private",
            &[("Authorization", &format!("{scheme} {token}"))],
        )
        .await
        .is(200);
    }
}

#[tokio::test]
async fn jwt_1_the_key_alone_says_the_algorithm() {
    let mut tokens = Vec::new();
    for kind in Kind::ALL {
        for alg in [
            "none", "None", "NONE", "nOnE", "", "foo", "HS256", "HS384", "HS512", "RS256", "RS512",
            "PS256", "ES256", "ES384", "EdDSA", "hs256", "rs256", "ES512", "ES256K",
        ] {
            if alg == kind.algorithm() {
                continue;
            }
            let good = Token::new(kind).header("alg", alg);
            tokens.push((format!("{kind:?} says {alg:?}"), good.sign()));
            let unsigned = format!(
                "{}.{}.",
                base64(good.header_text()),
                base64(good.claims_text())
            );
            tokens.push((format!("{kind:?} says {alg:?}, unsigned"), unsigned));
        }
        for (name, value) in [
            ("absent", None),
            ("null", Some(Value::Null)),
            ("number", Some(json!(256))),
            ("list", Some(json!([kind.algorithm()]))),
        ] {
            let token = match value {
                None => Token::new(kind).without_header("alg"),
                Some(value) => Token::new(kind).header("alg", value),
            };
            tokens.push((format!("{kind:?}, alg {name}"), token.sign()));
        }
    }
    refused(tokens).await;
}

#[tokio::test]
async fn jwt_1_a_public_key_is_no_shared_secret() {
    let mut tokens = Vec::new();
    for kind in [Kind::Rs, Kind::Ps, Kind::Es, Kind::Ed] {
        let pem = kind.public_key().unwrap();
        let der = pem
            .lines()
            .filter(|line| !line.starts_with('-'))
            .collect::<String>();
        let der = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, der).unwrap();
        let secrets = [
            pem.as_bytes().to_vec(),
            pem.trim_end().as_bytes().to_vec(),
            pem.replace('\n', "\r\n").into_bytes(),
            der,
        ];
        for (number, secret) in secrets.into_iter().enumerate() {
            for (alg, algorithm) in [
                ("HS256", Algorithm::HS256),
                ("HS384", Algorithm::HS384),
                ("HS512", Algorithm::HS512),
            ] {
                let token = Token::new(kind).header("alg", alg);
                let signed = token.sign_by(&EncodingKey::from_secret(&secret), algorithm);
                tokens.push((
                    format!("{alg} with form {number} of {kind:?}'s public key"),
                    signed,
                ));
            }
        }
    }
    refused(tokens).await;
}

#[tokio::test]
async fn jwt_1_signatures_that_are_not_the_issuers_are_refused() {
    let cut = |token: &str, bytes: usize| {
        let (message, signature) = token.rsplit_once('.').unwrap();
        let signature = unbase64(signature);
        format!(
            "{message}.{}",
            base64(&signature[..bytes.min(signature.len())])
        )
    };
    let changed = |kind: Kind| {
        let token = Token::new(kind);
        let signed = token.sign();
        let signature = signed.rsplit('.').next().unwrap().to_owned();
        let other = token.claim("sub", "root");
        format!(
            "{}.{}.{signature}",
            base64(other.header_text()),
            base64(other.claims_text())
        )
    };
    let mut tokens = Vec::new();
    for kind in Kind::ALL {
        let good = Token::new(kind).sign();
        let message = good.rsplit_once('.').unwrap().0.to_owned();
        tokens.push((format!("{kind:?}: claims changed"), changed(kind)));
        for bytes in [1, 16, 31, 32, 63] {
            if (kind, bytes) != (Kind::Hs, 32) && (kind, bytes) != (Kind::Hs, 63) {
                tokens.push((
                    format!("{kind:?}: {bytes} bytes of signature"),
                    cut(&good, bytes),
                ));
            }
        }
        for zeros in [1, 32, 64, 96, 256] {
            tokens.push((
                format!("{kind:?}: {zeros} zeros"),
                format!("{message}.{}", base64(vec![0; zeros])),
            ));
        }
        tokens.push((
            format!("{kind:?}: ones"),
            format!("{message}.{}", base64([0xff; 64])),
        ));
    }
    let foreign = [
        (
            "a foreign RSA key",
            Token::new(Kind::Rs).sign_by(&rsa_key(&keys().foreign_rsa), Algorithm::RS256),
        ),
        (
            "a foreign RSA key, PSS",
            Token::new(Kind::Ps).sign_by(&rsa_key(&keys().foreign_rsa), Algorithm::PS256),
        ),
        (
            "a foreign EC key",
            Token::new(Kind::Es).sign_by(&ec_key(&keys().foreign_ec), Algorithm::ES256),
        ),
        (
            "a foreign secret",
            Token::good().sign_by(&EncodingKey::from_secret(&[7; 48]), Algorithm::HS256),
        ),
        (
            "an empty secret",
            Token::good().sign_by(&EncodingKey::from_secret(b""), Algorithm::HS256),
        ),
        (
            "RSA by the other padding",
            Token::new(Kind::Rs).sign_by(&rsa_key(&keys().rsa), Algorithm::PS256),
        ),
        (
            "RSA by the other padding too",
            Token::new(Kind::Ps).sign_by(&rsa_key(&keys().rsa), Algorithm::RS256),
        ),
    ];
    refused(tokens.into_iter().chain(named(foreign))).await;
}

#[tokio::test]
async fn jwt_2_keys_and_addresses_in_a_token_are_never_used() {
    let trap = Upstream::start().await;
    let url = format!("http://{}/keys", trap.address);
    let own = json!({ "kty": "oct", "k": base64([7; 48]), "alg": "HS256" });
    let attacker = EncodingKey::from_secret(&[7; 48]);
    let embedded = |name: &str, value: Value| {
        Token::good()
            .header(name, value)
            .sign_by(&attacker, Algorithm::HS256)
    };
    let mut tokens = vec![
        ("jwk".to_owned(), embedded("jwk", own.clone())),
        ("jku".to_owned(), embedded("jku", json!(url))),
        ("x5u".to_owned(), embedded("x5u", json!(url))),
        (
            "x5c".to_owned(),
            embedded("x5c", json!([base64(b"certificate")])),
        ),
    ];
    let kids = [
        "../../../../../../dev/null",
        "/dev/null",
        "' OR '1'='1",
        "'; DROP TABLE keys; --",
        "key\u{0}",
        "key\n",
        "| ls",
        "$(id)",
        url.as_str(),
        "\u{e9}",
        "",
    ];
    for kid in kids {
        let token = Token::good()
            .header("kid", kid)
            .sign_by(&attacker, Algorithm::HS256);
        tokens.push((format!("kid {kid:?}"), token));
    }
    for kid in [
        json!("k".repeat(257)),
        json!("k".repeat(5000)),
        json!(5),
        json!(null),
        json!(["a"]),
        json!({ "a": 1 }),
    ] {
        tokens.push((
            format!(
                "kid {}",
                kid.to_string().chars().take(20).collect::<String>()
            ),
            Token::good().header("kid", kid).sign(),
        ));
    }
    refused(tokens).await;
    assert_eq!(
        trap.connections(),
        0,
        "somebody followed an address in a token"
    );
}

#[tokio::test]
async fn jwt_3_claims_of_the_wrong_type_are_refused() {
    let wrong = [
        json!(null),
        json!(true),
        json!({}),
        json!([]),
        json!({ "a": 1 }),
    ];
    let mut tokens = Vec::new();
    for claim in ["exp", "iss", "aud", "sub"] {
        tokens.push((format!("no {claim}"), Token::good().without(claim).sign()));
    }
    for claim in ["exp", "nbf", "iat", "iss", "aud", "sub"] {
        for value in &wrong {
            tokens.push((
                format!("{claim} {value}"),
                Token::good().claim(claim, value.clone()).sign(),
            ));
        }
    }
    for claim in ["exp", "nbf", "iat"] {
        for value in [
            json!(now().to_string()),
            json!([now()]),
            json!(-1),
            json!(-now().cast_signed()),
            json!(""),
        ] {
            // In the past, some of these would be fine for nbf and iat, were they numbers in range.
            tokens.push((
                format!("{claim} {value}"),
                Token::good().claim(claim, value).sign(),
            ));
        }
        let good = Token::good();
        for text in [
            "1e400",
            "-1e400",
            "1e19",
            "99999999999999999999",
            "NaN",
            "Infinity",
            "0x7fffffff",
            "18446744073709551616",
        ] {
            let claims = good.clone().without(claim).claims_text();
            let claims = format!("{{\"{claim}\":{text},{}", &claims[1..]);
            tokens.push((
                format!("{claim} {text}"),
                good.sign_text(&good.header_text(), &claims),
            ));
        }
    }
    for (claim, value) in [
        ("sub", json!("")),
        ("sub", json!(5)),
        ("sub", json!(["alice"])),
        ("iss", json!("")),
        ("iss", json!([Kind::Hs.issuer()])),
        ("aud", json!("")),
        ("aud", json!(5)),
        ("aud", json!([5])),
        ("aud", json!([AUDIENCE, 5])),
        ("email", json!(5)),
        ("email", json!(["a@example.com"])),
        ("roles", json!(5)),
        ("roles", json!({ "admin": true })),
        ("roles", json!(["clerk", 5])),
        ("scope", json!(5)),
        ("scope", json!([5])),
    ] {
        tokens.push((
            format!("{claim} {value}"),
            Token::good().claim(claim, value).sign(),
        ));
    }
    refused(tokens).await;
}

#[tokio::test]
async fn jwt_3_claims_twice_and_payloads_that_are_no_object_are_refused() {
    let good = Token::good();
    let text = good.claims_text();
    let twice = |extra: &str| format!("{{{extra},{}", &text[1..]);
    let mut tokens = Vec::new();
    for extra in [
        "\"exp\":99999999999",
        "\"sub\":\"root\"",
        "\"sub\":\"alice\"",
        "\"iss\":\"https://evil.example.com\"",
        "\"aud\":\"orders\"",
        "\"s\\u0075b\":\"root\"",
        "\"a\":1,\"a\":2",
        "\"deep\":{\"a\":1,\"a\":2}",
        "\"list\":[{\"a\":1,\"a\":2}]",
    ] {
        tokens.push((
            extra.to_owned(),
            good.sign_text(&good.header_text(), &twice(extra)),
        ));
    }
    for payload in [
        "",
        "null",
        "[]",
        "\"text\"",
        "5",
        "{",
        "{}",
        "not json",
        &format!("{text}{text}"),
        &format!("{text} x"),
        &format!("\u{feff}{text}"),
    ] {
        tokens.push((
            format!("payload {payload:.20}"),
            good.sign_text(&good.header_text(), payload),
        ));
    }
    refused(tokens).await;
}

#[tokio::test]
async fn jwt_4_issuer_audience_and_type_must_be_ours() {
    let mut tokens = Vec::new();
    for issuer in [
        "https://evil.example.com",
        "https://HS.issuer.test",
        "https://hs.issuer.test/",
        "http://hs.issuer.test",
        " https://hs.issuer.test",
        "hs",
        "https://hs.issuer.test\u{0}",
    ] {
        tokens.push((
            format!("iss {issuer:?}"),
            Token::good().claim("iss", issuer).sign(),
        ));
    }
    // Another issuer's name over this issuer's key, in every pair.
    for kind in Kind::ALL {
        for other in Kind::ALL.into_iter().filter(|other| *other != kind) {
            tokens.push((
                format!("{kind:?} as {other:?}"),
                Token::new(kind).claim("iss", other.issuer()).sign(),
            ));
        }
    }
    for audience in [
        json!("other"),
        json!("order"),
        json!("orders "),
        json!("Orders"),
        json!(["a", "b"]),
        json!("orders,other"),
        json!([]),
    ] {
        tokens.push((
            format!("aud {audience}"),
            Token::good().claim("aud", audience).sign(),
        ));
    }
    for kind in [
        json!("logout+jwt"),
        json!("id+jwt"),
        json!("refresh+jwt"),
        json!("dpop+jwt"),
        json!("JWE"),
        json!("at"),
        json!("at+jwt "),
        json!(5),
        json!(["at+jwt"]),
        json!(null),
    ] {
        tokens.push((format!("typ {kind}"), with_header(Kind::Hs, "typ", kind)));
    }
    refused(tokens).await;
}

#[tokio::test]
async fn jwt_4_types_and_audiences_that_are_ours_pass() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    for token in [
        Token::good().header("typ", "JWT"),
        Token::good().header("typ", "at+JWT"),
        Token::good().header("typ", "application/at+jwt"),
        Token::good().without_header("typ"),
        Token::good().claim("aud", json!(["other", AUDIENCE])),
    ] {
        get(
            &gateway,
            "/private",
            &[("Authorization", &bearer(&token.sign()))],
        )
        .await
        .is(200);
    }
}

#[tokio::test]
async fn jwt_5_only_three_segments_of_base64url_are_a_token() {
    let good = Token::good().sign();
    let parts: Vec<&str> = good.split('.').collect();
    let (header, claims, signature) = (parts[0], parts[1], parts[2]);
    let flattened =
        json!({ "protected": header, "payload": claims, "signature": signature }).to_string();
    let jwe = base64(json!({ "alg": "dir", "enc": "A256GCM", "typ": "at+jwt" }).to_string());
    let tokens = [
        ("one segment", header.to_owned()),
        ("two segments", format!("{header}.{claims}")),
        ("four segments", format!("{good}.x")),
        (
            "five segments",
            format!("{jwe}..{claims}.{claims}.{signature}"),
        ),
        (
            "five segments of a token",
            format!("{good}.{claims}.{signature}"),
        ),
        ("no header", format!(".{claims}.{signature}")),
        ("no claims", format!("{header}..{signature}")),
        ("no signature", format!("{header}.{claims}.")),
        ("dots", "..".to_owned()),
        ("a leading dot", format!(".{good}")),
        ("a trailing dot", format!("{good}.")),
        ("padding", format!("{good}=")),
        (
            "padding in the claims",
            format!("{header}.{claims}=.{signature}"),
        ),
        ("a plus", format!("{header}.{claims}.+{signature}")),
        ("a slash", format!("{header}.{claims}./{signature}")),
        ("a space", format!("{header} .{claims}.{signature}")),
        ("a comma", format!("{good},{good}")),
        ("a quote", format!("\"{good}\"")),
        ("flattened JSON", flattened.replace('"', "'")),
        ("flattened JSON in quotes", flattened),
        ("not base64", format!("{header}.{claims}.a")),
        ("a percent sign", good.replacen('.', "%2E", 1)),
        ("Latin", format!("{header}.{claims}.\u{e9}{signature}")),
        ("text", "token".to_owned()),
        ("null", "null".to_owned()),
        ("another scheme inside", format!("Bearer {good}")),
        ("two tokens", format!("{good} {good}")),
    ];
    refused(named(tokens)).await;
}

#[tokio::test]
async fn jwt_5_encrypted_and_packed_tokens_are_refused_unread() {
    let tokens = [
        ("zip", with_header(Kind::Hs, "zip", "DEF")),
        ("enc", with_header(Kind::Hs, "enc", "A256GCM")),
        ("p2c", with_header(Kind::Hs, "p2c", 2_147_483_647_u32)),
        (
            "cty with enc",
            Token::good()
                .header("cty", "JWT")
                .header("enc", "A128GCM")
                .sign(),
        ),
    ];
    refused(named(tokens)).await;
}

#[tokio::test]
async fn jwt_5_authorization_that_is_no_bearer_token_is_refused() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let good = Token::good().sign();
    for value in [
        "",
        "Bearer",
        "Bearer ",
        &good,
        &format!("Bearer{good}"),
        &format!("Basic {good}"),
        &format!("Token {good}"),
        &format!("JWT {good}"),
        &format!("Bearer\t{good}"),
        &format!("Bearer, {good}"),
        &format!("Bearer token={good}"),
        &format!("Bearer {good}, Basic YTpi"),
        "Basic YTpi",
        "Negotiate x",
        "DPoP x",
        &format!("Bearer:{good}"),
    ] {
        let answer = get(&gateway, "/private", &[("Authorization", value)]).await;
        assert!(
            [400, 401].contains(&answer.status),
            "{value:.20}: {}",
            answer.status
        );
        answer.code();
    }
    upstream.saw_nothing();
}

#[tokio::test]
async fn jwt_6_critical_headers_and_names_twice_are_refused() {
    let good = Token::good();
    let mut tokens = Vec::new();
    for value in [
        json!(["x"]),
        json!([]),
        json!("x"),
        json!(["b64"]),
        json!(["exp"]),
        json!(["alg"]),
        json!({}),
        json!(null),
        json!([5]),
    ] {
        tokens.push((
            format!("crit {value}"),
            with_header(Kind::Hs, "crit", value),
        ));
    }
    for value in [json!(false), json!(true)] {
        tokens.push((
            format!("b64 {value}"),
            with_header(Kind::Hs, "b64", value.clone()),
        ));
        tokens.push((
            "b64 with crit".into(),
            good.clone()
                .header("b64", value)
                .header("crit", json!(["b64"]))
                .sign(),
        ));
    }
    let text = good.header_text();
    for extra in [
        "\"alg\":\"none\"",
        "\"alg\":\"HS256\"",
        "\"typ\":\"JWT\"",
        "\"\\u0061lg\":\"none\"",
        "\"kid\":\"a\",\"kid\":\"b\"",
        "\"x\":{\"a\":1,\"a\":2}",
    ] {
        for header in [
            format!("{{{extra},{}", &text[1..]),
            format!("{},{extra}}}", &text[..text.len() - 1]),
        ] {
            tokens.push((
                extra.to_owned(),
                good.sign_text(&header, &good.claims_text()),
            ));
        }
    }
    for header in [
        "",
        "null",
        "[]",
        "\"HS256\"",
        "{",
        "{}",
        &format!("{text}x"),
        &format!("{text}{text}"),
    ] {
        tokens.push((
            format!("header {header:.20}"),
            good.sign_text(header, &good.claims_text()),
        ));
    }
    refused(tokens).await;
}

#[tokio::test]
async fn jwt_7_long_and_deep_tokens_are_refused() {
    let good = Token::good();
    let deep = |depth: usize| {
        let text = good.claims_text();
        good.sign_text(
            &good.header_text(),
            &format!(
                "{{\"d\":{}{},{}",
                "[".repeat(depth),
                "]".repeat(depth),
                &text[1..]
            ),
        )
    };
    let long = good.clone().claim("long", "x".repeat(6200)).sign();
    assert!(long.len() > 8 << 10, "{}", long.len());
    let tokens = [
        ("over 8 KiB", long),
        ("9 KiB of dots", ".".repeat(9 << 10)),
        ("17 deep", deep(17)),
        ("2000 deep", deep(2000)),
        (
            "a long name",
            Token::good().claim(&"n".repeat(7000), 1).sign(),
        ),
    ];
    refused(named(tokens)).await;

    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let before = gateway.memory();
    for value in [
        ".".repeat(1 << 20),
        "[".repeat(1 << 20),
        "a".repeat(200 << 10),
    ] {
        let mut raw = Raw::connect(&gateway).await;
        raw.send(request(
            "GET",
            "/private",
            &[("Authorization", &bearer(&value))],
            "",
        ))
        .await;
        match raw.try_answer().await {
            Ok(answer) => assert_eq!(answer.status, 431),
            // Still writing when the gateway closed, a client may lose the answer.
            Err(broken) => assert!(
                matches!(broken, Broken::Closed | Broken::Cut(_)),
                "{broken:?}"
            ),
        }
    }
    let grown = gateway.memory().saturating_sub(before);
    assert!(grown < 32 << 10, "{grown} KiB more");
    upstream.saw_nothing();
    get(
        &gateway,
        "/private",
        &[("Authorization", &bearer(&deep(10)))],
    )
    .await
    .is(200);
}

#[tokio::test]
async fn jwt_9_exactly_one_credential_counts() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let token = Token::good().sign();
    for target in [
        format!("/private?access_token={token}"),
        format!("/private?token={token}"),
        format!("/private?jwt={token}"),
        format!("/private?Authorization=Bearer%20{token}"),
    ] {
        get(&gateway, &target, &[])
            .await
            .refused(401, "credentials_missing");
    }
    for (name, value) in [
        ("X-Authorization", bearer(&token)),
        ("Proxy-Authorization", bearer(&token)),
        ("X-Access-Token", token.clone()),
        ("Authorization-", bearer(&token)),
        ("Cookie", format!("access_token={token}")),
        ("Cookie", format!("Authorization=Bearer%20{token}")),
    ] {
        get(&gateway, "/private", &[(name, &value)])
            .await
            .refused(401, "credentials_missing");
    }
    let body = format!("access_token={token}");
    let mut raw = Raw::connect(&gateway).await;
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    raw.exchange(request("POST", "/private", &form, &body))
        .await
        .refused(401, "credentials_missing");
    let twice = [
        ("Authorization", &*bearer(&token)),
        ("Authorization", &*bearer(&token)),
    ];
    get(&gateway, "/private", &twice)
        .await
        .refused(400, "ambiguous_credentials");
    upstream.saw_nothing();
}

#[tokio::test]
async fn jwt_10_times_are_compared_with_the_leeway_and_no_more() {
    let upstream = Upstream::start().await;
    let gateway = Site::bare()
        .upstream("legacy", &format!("http://{}", upstream.address))
        .issuer(Kind::Hs)
        .on_issuer("leeway", "\"30s\"")
        .route("private", "/private", "authenticated")
        .start()
        .await;
    let present = async |token: Token| {
        get(
            &gateway,
            "/private",
            &[("Authorization", &bearer(&token.sign()))],
        )
        .await
    };
    let (token, now) = (Token::good, now());
    present(token().claim("exp", now - 60))
        .await
        .refused(401, "token_expired");
    present(token().claim("exp", now - 31))
        .await
        .refused(401, "token_expired");
    present(token().claim("nbf", now + 60))
        .await
        .refused(401, "token_invalid");
    present(token().claim("iat", now + 60))
        .await
        .refused(401, "token_invalid");
    upstream.saw_nothing();
    present(token().claim("exp", now - 15)).await.is(200);
    present(token().claim("nbf", now + 15)).await.is(200);
    present(token().claim("iat", now + 15)).await.is(200);
}

#[tokio::test]
async fn jwt_11_every_bad_token_gets_the_same_answer() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let causes = [
        Token::new(Kind::Rs).sign_by(&rsa_key(&keys().foreign_rsa), Algorithm::RS256),
        Token::good().header("alg", "none").sign(),
        Token::good().without("exp").sign(),
        Token::good()
            .claim("iss", "https://evil.example.com")
            .sign(),
        Token::good().claim("aud", "other").sign(),
        Token::good().claim("nbf", now() + 1000).sign(),
        Token::good().header("kid", "unknown key").sign(),
        Token::good().header("crit", json!(["x"])).sign(),
        "not-a-token".to_owned(),
        "a.b.c".to_owned(),
        // Expired and badly signed: that it is over is not told to a stranger.
        Token::good()
            .claim("exp", 5)
            .sign_by(&EncodingKey::from_secret(&[7; 48]), Algorithm::HS256),
    ];
    let golden = |answer: &crate::harness::Answer| {
        let mut problem = answer.json();
        let id = problem["request_id"].take();
        let mut fields: Vec<(String, String)> = answer.head.fields.clone();
        for (name, value) in &mut fields {
            if name == "date" || *value == id {
                value.clear();
            }
        }
        (answer.status, problem, fields)
    };
    let mut answers = Vec::new();
    for token in &causes {
        let answer = get(&gateway, "/private", &[("Authorization", &bearer(token))]).await;
        answer.refused(401, "token_invalid");
        answers.push(golden(&answer));
    }
    assert!(
        answers.iter().all(|answer| *answer == answers[0]),
        "{answers:#?}"
    );
    let answer = get(
        &gateway,
        "/private",
        &[("Authorization", &bearer(&causes[0]))],
    )
    .await;
    assert!(
        answer
            .header("www-authenticate")
            .unwrap()
            .contains("error=\"invalid_token\"")
    );

    let missing = get(&gateway, "/private", &[]).await;
    missing.refused(401, "credentials_missing");
    let challenge = missing.header("www-authenticate").unwrap();
    assert!(
        challenge.starts_with("Bearer") && !challenge.contains("error"),
        "{challenge}"
    );
    let expired = bearer(&Token::good().claim("exp", now() - 10).sign());
    get(&gateway, "/private", &[("Authorization", &expired)])
        .await
        .refused(401, "token_expired");
    upstream.saw_nothing();
    // The reason is in the log alone.
    let line = gateway
        .access_line(|line| line["reason"] == "audience")
        .await;
    assert_eq!(
        (&line["code"], &line["status"]),
        (&json!("token_invalid"), &json!(401)),
        "{line}"
    );
}
