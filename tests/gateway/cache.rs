//! The cache of verified tokens: it saves work and decides nothing.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::Algorithm;
use serde_json::json;

use crate::harness::{
    Answer, Gateway, H2, Kind, Raw, Site, Token, Upstream,
    client::full,
    get,
    keys::{AUDIENCE, base64, bearer, ec_key, keys, now, unbase64},
    request,
};

async fn gateway(upstream: &Upstream) -> Gateway {
    Site::new(upstream.address).start().await
}

#[tokio::test]
async fn cache_1_a_token_that_only_looks_like_a_cached_one_is_refused() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    for kind in Kind::ALL {
        let good = Token::new(kind).sign();
        get(&gateway, "/private", &[("Authorization", &bearer(&good))])
            .await
            .is(200);
        let count = upstream.count();
        let (message, signature) = good.rsplit_once('.').unwrap();
        let mut bytes = unbase64(signature);
        bytes[0] ^= 1;
        for forged in [
            format!("{message}.{}", base64(&bytes)),
            format!("{message}."),
            good[..good.len() - 1].to_owned(),
            format!("{good}A"),
            good.to_ascii_uppercase(),
        ] {
            get(&gateway, "/private", &[("Authorization", &bearer(&forged))])
                .await
                .refused(401, "token_invalid");
        }
        assert_eq!(upstream.count(), count);
    }
}

#[tokio::test]
async fn cache_2_a_cached_token_meets_every_rule_again() {
    let upstream = Upstream::start().await;
    let gateway = Site::new(upstream.address)
        .route("issuers", "/issuers", "authenticated")
        .on_route("require", r#"{ issuers = ["rs"] }"#)
        .route("audiences", "/audiences", "authenticated")
        .on_route("require", r#"{ audiences = ["billing"] }"#)
        .route("claims", "/claims", "authenticated")
        .on_route("require", r#"{ claims = { tenant = ["a", "b"] } }"#)
        .start()
        .await;
    let token = bearer(
        &Token::good()
            .claim("roles", json!(["clerk"]))
            .claim("tenant", "c")
            .sign(),
    );
    let mut raw = Raw::connect(&gateway).await;
    for _ in 0..3 {
        raw.exchange(request("GET", "/private", &[("Authorization", &token)], ""))
            .await
            .is(200);
        let count = upstream.count();
        for (target, code) in [
            ("/admin", "role_missing"),
            ("/scoped", "scope_missing"),
            ("/issuers", "claim_mismatch"),
            ("/audiences", "claim_mismatch"),
            ("/claims", "claim_mismatch"),
        ] {
            raw.exchange(request("GET", target, &[("Authorization", &token)], ""))
                .await
                .refused(403, code);
        }
        assert_eq!(upstream.count(), count);
    }
    let rich = Token::good()
        .claim("roles", json!(["admin"]))
        .claim("scope", "orders:read")
        .claim("tenant", "b");
    let rich = bearer(&rich.claim("aud", json!([AUDIENCE, "billing"])).sign());
    for target in ["/admin", "/scoped", "/audiences", "/claims"] {
        raw.exchange(request("GET", target, &[("Authorization", &rich)], ""))
            .await
            .is(200);
    }
    let answer = raw
        .exchange(request("GET", "/scoped", &[("Authorization", &token)], ""))
        .await;
    assert!(
        answer
            .header("www-authenticate")
            .unwrap_or_default()
            .contains("insufficient_scope"),
        "{:?}",
        answer.head.fields
    );
}

#[tokio::test]
async fn cache_3_a_cached_token_is_refused_from_the_moment_it_expires() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    for kind in [Kind::Hs, Kind::Es] {
        let expiry = now() + 2;
        let token = bearer(&Token::new(kind).claim("exp", expiry).sign());
        let mut raw = Raw::connect(&gateway).await;
        let (mut passed, mut refused) = (0, 0);
        while refused < 20 {
            // Read before the request is sent: what is sent after the expiry must be refused.
            let over = SystemTime::now()
                >= UNIX_EPOCH + Duration::from_secs(expiry) + Duration::from_millis(50);
            let answer = raw
                .exchange(request("GET", "/private", &[("Authorization", &token)], ""))
                .await;
            if answer.status == 200 {
                assert!(!over, "{kind:?}: served after its expiry");
                assert_eq!(refused, 0, "{kind:?}: served after it was refused");
                passed += 1;
            } else {
                answer.refused(401, "token_expired");
                refused += 1;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(passed > 0, "{kind:?}: never served");
    }
}

#[tokio::test]
async fn cache_5_a_refusal_does_not_stick_to_good_tokens() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let good = bearer(&Token::new(Kind::Es).sign());
    for _ in 0..50 {
        let bad = bearer(
            &Token::new(Kind::Es)
                .claim("jti", now())
                .sign_by(&ec_key(&keys().foreign_ec), Algorithm::ES256),
        );
        get(&gateway, "/private", &[("Authorization", &bad)])
            .await
            .is(401);
    }
    get(&gateway, "/private", &[("Authorization", &good)])
        .await
        .is(200);
}

/// Sends one request on a connection of either protocol.
enum Connection {
    One(Raw),
    Two(H2),
}

impl Connection {
    async fn both(gateway: &Gateway) -> [Self; 2] {
        [
            Self::One(Raw::connect(gateway).await),
            Self::Two(H2::connect(gateway).await),
        ]
    }

    async fn ask(&mut self, field: (&str, &str)) -> Answer {
        match self {
            Self::One(raw) => raw.exchange(request("GET", "/private", &[field], "")).await,
            Self::Two(h2) => {
                let request = http::Request::get("https://localhost/private");
                let request = request.header(field.0, field.1).body(full("")).unwrap();
                h2.send(request).await.unwrap()
            }
        }
    }
}

#[tokio::test]
async fn cache_1_users_who_share_a_connection_are_told_apart() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let of = |user: &str| bearer(&Token::good().claim("sub", user).claim("user", user).sign());
    let tokens = ["ann", "bob", "eve"].map(|user| (user, of(user)));
    for mut connection in Connection::both(&gateway).await {
        // Each several times in a row, so that the connection remembers it, then in turn.
        let order = (0..18).map(|n| n / 6).chain((0..12).map(|n| n % 3));
        for which in order {
            let (user, token) = &tokens[which];
            connection.ask(("Authorization", token)).await.is(200);
            let seen = upstream.last();
            assert_eq!(seen.header("x-forwarded-user"), Some(*user));
            // Who does not say who he is, or says it badly, is nobody.
            let count = upstream.count();
            let forged = format!("{}AAAA", &token[..token.len() - 4]);
            for field in [("Accept", "*/*"), ("Authorization", &*forged)] {
                let refused = connection.ask(field).await;
                assert_eq!(refused.status, 401);
            }
            assert_eq!(upstream.count(), count);
        }
    }
}

#[tokio::test]
async fn cache_3_a_repeated_token_expires_on_its_connection() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    for mut connection in Connection::both(&gateway).await {
        // The leeway of the issuer is what is left of it.
        let token = bearer(&Token::good().claim("exp", now() - 57).sign());
        let mut statuses = Vec::new();
        while statuses.last() != Some(&401) {
            assert!(statuses.len() < 2000, "it does not expire");
            statuses.push(connection.ask(("Authorization", &token)).await.status);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let count = upstream.count();
        for _ in 0..5 {
            let answer = connection.ask(("Authorization", &token)).await;
            answer.refused(401, "token_expired");
        }
        assert_eq!(upstream.count(), count);
    }
}
