//! The status page from outside: what it says of a gateway that works, and what of strangers' words it lets through.

use serde_json::{Value, json};

use crate::harness::{
    Gateway, Kind, Raw, Site, Token, Upstream, eventually, get, keys::bearer, request,
};

const PASSWORD: &str = "correct horse battery staple";

async fn status(gateway: &Gateway) -> Value {
    let answer = gateway.admin("/status.json").await;
    answer.is(200);
    answer.json()
}

/// The row of a table by its name.
fn row<'v>(table: &'v Value, name: &str) -> &'v Value {
    let mut rows = table.as_array().unwrap().iter();
    rows.find(|row| row["name"] == name)
        .unwrap_or_else(|| panic!("no {name} in {table}"))
}

#[tokio::test]
async fn the_page_tells_what_goes_on() {
    let upstream = Upstream::start().await;
    let site = Site::new(upstream.address)
        .accounts()
        .upstream("away", "http://127.0.0.1:1")
        .route("away", "/away", "public")
        .on_route("upstream", "\"away\"");
    site.write();
    site.user("alice", PASSWORD, &[]).await;
    let gateway = site.start().await;
    let token = bearer(&Token::new(Kind::Es).sign());
    for _ in 0..3 {
        let fields = [("Authorization", &*token)];
        get(&gateway, "/private/x", &fields).await.is(200);
    }
    get(&gateway, "/private/y?secret=query", &[]).await.is(401);
    get(&gateway, "/away", &[]).await.is(502);
    let body = json!({ "username": "alice", "password": PASSWORD }).to_string();
    let fields = [("Content-Type", "application/json")];
    let mut raw = Raw::connect(&gateway).await;
    raw.exchange(request("POST", "/auth/login", &fields, &body))
        .await
        .is(200);

    // What is counted is looked at once a second.
    let status = eventually("a look at the counters", async || {
        let status = status(&gateway).await;
        let decisions = status["decisions"].as_array()?;
        let counted: u64 = decisions
            .iter()
            .filter_map(|row| row["total"].as_u64())
            .sum();
        (counted == 6).then_some(status)
    })
    .await;
    assert_eq!(status["state"], "ready", "{status}");
    assert_eq!(row(&status["decisions"], "admitted")["total"], 4);
    assert_eq!(row(&status["decisions"], "credentials_missing")["total"], 1);
    let private = row(&status["routes"], "private");
    assert_eq!(private["access"], "authenticated");
    assert_eq!(private["path"], "/private/*");
    assert_eq!(private["target"], "legacy");
    assert_eq!(private["total"], 4);
    let server = |name| row(&status["upstreams"], name)["servers"][0].clone();
    assert_eq!(server("legacy")["state"], "healthy");
    assert_eq!(server("away")["state"], "unreachable");
    let es = status["issuers"].as_array().unwrap().iter();
    assert!(
        es.clone()
            .any(|issuer| issuer["name"] == Kind::Es.name() && issuer["keys"] == 1)
    );
    assert_eq!(status["signing_keys"][0]["state"], "signing");
    assert!(status["certificates"][0]["days"].as_i64().unwrap() > 0);
    assert_eq!(status["node"]["store"], "SQLite");
    assert_eq!(status["node"]["sessions"], 1);
    assert_eq!(status["node"]["redis"], Value::Null);
    assert_eq!(status["node"]["memory_stage"], 0);

    let refusals = status["refusals"].as_array().unwrap();
    let refusal = |code: &str| {
        let found = refusals.iter().find(|refusal| refusal["code"] == code);
        found.unwrap_or_else(|| panic!("no {code} in {status}"))
    };
    let missing = refusal("credentials_missing");
    assert_eq!(missing["path"], "/private/y");
    assert_eq!(missing["route"], "private");
    assert_eq!(missing["client"], "127.0.0.1");
    assert_eq!(refusal("upstream_unreachable")["status"], 502);
    let page = gateway.admin("/status").await.text();
    for text in [&*status.to_string(), &*page] {
        for secret in ["secret", "query", "eyJ", PASSWORD] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }
}

#[tokio::test]
async fn log_2_a_strangers_words_are_text_on_the_page() {
    let upstream = Upstream::start().await;
    let gateway = Site::new(upstream.address).start().await;
    let token = Token::good()
        .claim("sub", "<img src=x onerror=alert(1)>")
        .sign();
    get(&gateway, "/admin/x", &[("Authorization", &bearer(&token))])
        .await
        .is(403);
    for target in [
        "/private/<script>alert(1)</script>",
        "/private/%3Cscript%3E",
        "/private/'\"&",
    ] {
        let mut raw = Raw::connect(&gateway).await;
        let status = raw.exchange(request("GET", target, &[], "")).await.status;
        assert!(status >= 400, "{target}: {status}");
    }
    let page = eventually("the refusals", async || {
        let page = gateway.admin("/status").await.text();
        page.contains("role_missing").then_some(page)
    })
    .await;
    assert!(
        page.contains("&#60;img src=x onerror=alert(1)&#62;"),
        "{page}"
    );
    for unwanted in ["<img", "<script>"] {
        assert!(!page.contains(unwanted), "{unwanted} in {page}");
    }
}

#[tokio::test]
async fn cfg_3_an_open_page_does_not_hold_up_the_end() {
    let upstream = Upstream::start().await;
    let mut gateway = Site::new(upstream.address).start().await;
    let mut raw = Raw::plain(gateway.admin).await;
    raw.send(request("GET", "/status/events", &[], "")).await;
    assert!(raw.head().await.start.contains(" 200 "));
    raw.some().await;
    gateway.signal("TERM");
    raw.rest().await;
    assert_eq!(gateway.exit().await.code(), Some(0));
}
