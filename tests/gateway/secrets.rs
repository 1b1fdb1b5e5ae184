//! Canaries: whatever passes through the gateway, none of it is ever written down.

use std::collections::BTreeMap;

use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::json;

use crate::harness::{
    Broken, H2, Raw, Reply, Site, Token, Upstream, get,
    keys::{bearer, keys},
    request,
};

#[tokio::test]
async fn log_1_no_secret_is_written_at_any_level() {
    let upstream = Upstream::scripted(|_| {
        Reply::with(
            200,
            &[("Set-Cookie", "app=canary-set-cookie; Path=/")],
            "canary-body",
        )
    })
    .await;
    let site = Site::new(upstream.address)
        .accounts()
        .set("log", "level", "\"trace\"");
    site.write();
    let password = "canary-password-of-alice";
    site.user("alice", password, &["clerk"]).await;
    let gateway = site.start().await;
    let mut canaries: BTreeMap<&str, String> = BTreeMap::new();
    let mut keep = |name: &'static str, secret: &str| canaries.insert(name, secret.to_owned());

    let good = Token::good().sign();
    let expired = Token::good().claim("exp", 5).sign();
    let forged = Token::good()
        .claim("sub", "root")
        .sign_by(&EncodingKey::from_secret(&[7; 48]), Algorithm::HS256);
    for (name, token) in [
        ("good token", &good),
        ("expired token", &expired),
        ("forged token", &forged),
    ] {
        keep(name, token);
        get(&gateway, "/private", &[("Authorization", &bearer(token))]).await;
        get(&gateway, "/public", &[("Authorization", &bearer(token))]).await;
        H2::connect(&gateway)
            .await
            .get("/private", &[("authorization", &bearer(token))])
            .await;
    }
    keep("signature", good.rsplit('.').next().unwrap());
    for (name, canary, field) in [
        ("basic", "Y2FuYXJ5LWJhc2lj", "Authorization"),
        ("cookie", "canary-cookie", "Cookie"),
        (
            "proxy credential",
            "canary-proxy-credential",
            "Proxy-Authorization",
        ),
        ("api key", "canary-api-key", "X-Api-Key"),
    ] {
        keep(name, canary);
        get(&gateway, "/public", &[(field, &format!("Basic {canary}"))]).await;
        get(
            &gateway,
            "/private",
            &[(field, &format!("session={canary}"))],
        )
        .await;
    }
    keep("query", "canary-query");
    get(&gateway, "/public?token=canary-query", &[])
        .await
        .is(200);
    get(&gateway, "/auth/login?password=canary-query", &[]).await;
    get(
        &gateway,
        "/private?access_token=canary-query",
        &[("Referer", "https://a.example/?canary-query")],
    )
    .await;
    keep("request body", "canary-request-body");
    Raw::connect(&gateway)
        .await
        .exchange(request("POST", "/public", &[], "canary-request-body"))
        .await
        .is(200);
    keep("answer", "canary-body");
    keep("set-cookie", "canary-set-cookie");
    // Heads that are refused by the parser, with a secret in them.
    keep("unparsable", "canary-unparsable");
    for bytes in [
        "GET /public HTTP/1.1\r\nHost: localhost\r\nAuthorization : Bearer canary-unparsable\r\n\r\n",
        "canary-unparsable\r\n\r\n",
    ] {
        let mut raw = Raw::connect(&gateway).await;
        raw.send(bytes).await;
        assert!(!matches!(raw.try_answer().await, Err(Broken::Malformed(_))));
    }

    let post = async |target: &str, body: serde_json::Value| {
        let fields = [("Content-Type", "application/json")];
        Raw::connect(&gateway)
            .await
            .exchange(request("POST", target, &fields, &body.to_string()))
            .await
    };
    keep("password", password);
    keep("wrong password", "canary-wrong-password");
    let grant = post(
        "/auth/login",
        json!({ "username": "alice", "password": password, "delivery": "body" }),
    )
    .await
    .is(200)
    .json();
    post(
        "/auth/login",
        json!({ "username": "alice", "password": "canary-wrong-password" }),
    )
    .await
    .is(401);
    post(
        "/auth/login",
        json!({ "username": "nobody", "password": "canary-wrong-password" }),
    )
    .await
    .is(401);
    post(
        "/auth/login",
        json!({ "username": "alice", "password": "canary-wrong-password", "extra": 1 }),
    )
    .await
    .is(400);
    keep("password typed as name", "canary-password-as-name");
    post(
        "/auth/login",
        json!({ "username": "canary-password-as-name", "password": "x" }),
    )
    .await
    .is(401);
    let text = |grant: &serde_json::Value, name: &str| grant[name].as_str().unwrap().to_owned();
    let (access, refresh) = (text(&grant, "access_token"), text(&grant, "refresh_token"));
    get(&gateway, "/private", &[("Authorization", &bearer(&access))])
        .await
        .is(200);
    let next = post("/auth/refresh", json!({ "refresh_token": refresh }))
        .await
        .is(200)
        .json();
    post(
        "/auth/logout",
        json!({ "refresh_token": text(&next, "refresh_token") }),
    )
    .await
    .is(204);
    keep("access token", &access);
    keep("refresh token", &refresh);
    keep("next access token", &text(&next, "access_token"));
    keep("next refresh token", &text(&next, "refresh_token"));
    keep("shared secret", &keys().secret);
    keep("private key", "PRIVATE KEY");

    gateway
        .access_line(|line| line["path"] == "/auth/logout")
        .await;
    let metrics = gateway.admin("/metrics").await.text();
    let written = [gateway.out.text(), gateway.err.text(), metrics];
    assert!(!written[0].is_empty() && written[1].contains("listening"));
    for (name, secret) in &canaries {
        assert!(secret.len() > 10, "{name} proves nothing");
        for text in &written {
            if let Some(line) = text.lines().find(|line| line.contains(secret.as_str())) {
                panic!("the {name} is written: {line}");
            }
        }
    }
}
