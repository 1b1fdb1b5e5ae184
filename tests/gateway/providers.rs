//! Keys of a provider: fetched, rotated, lost and found, while the upstream sees exactly those whom they vouch for.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::harness::{
    Gateway, Kind, PATIENCE, Reply, Site, Step, Token, Upstream, eventually, get,
    keys::{base64, bearer, ec_key, keys},
};

/// A provider's key set over HTTP, as the test last said.
struct Provider {
    server: Upstream,
    keys: Arc<Mutex<Reply>>,
}

impl Provider {
    async fn start(set: &[Value]) -> Self {
        let keys = Arc::new(Mutex::new(published(set)));
        let shared = Arc::clone(&keys);
        let server = Upstream::scripted(move |_| shared.lock().unwrap().clone()).await;
        Self { server, keys }
    }

    fn publish(&self, set: &[Value]) {
        self.answer(published(set));
    }

    fn answer(&self, reply: Reply) {
        *self.keys.lock().unwrap() = reply;
    }

    fn url(&self) -> String {
        format!("\"http://{}/keys\"", self.server.address)
    }
}

fn published(set: &[Value]) -> Reply {
    let body = json!({"keys": set}).to_string();
    Reply::with(200, &[("cache-control", "max-age=3600")], &body)
}

/// The public half of a P-256 key.
fn jwk(kid: &str, pair: &rcgen::KeyPair) -> Value {
    let (x, y) = pair.public_key_raw()[1..].split_at(32);
    json!({"kty": "EC", "crv": "P-256", "kid": kid, "use": "sig", "x": base64(x), "y": base64(y)})
}

fn ours(kid: &str) -> Value {
    jwk(kid, &keys().ec)
}

/// A token of the provider under this key id.
fn token(kid: &str) -> String {
    bearer(&Token::new(Kind::Es).header("kid", kid).sign())
}

fn other_token(kid: &str) -> String {
    let token = Token::new(Kind::Es).header("kid", kid);
    bearer(&token.sign_by(&ec_key(&keys().foreign_ec), jsonwebtoken::Algorithm::ES256))
}

fn site(upstream: &Upstream, provider: &Provider) -> Site {
    Site::bare()
        .upstream("legacy", &format!("http://{}", upstream.address))
        .issuer(Kind::Hs)
        .issuer(Kind::Es)
        .off_issuer("public_key_file")
        .on_issuer("jwks_url", &provider.url())
        .on_issuer("fetch", r#"{ cooldown = "1s", wait = "10s" }"#)
        .route("private", "/private", "authenticated")
}

async fn status(gateway: &Gateway, token: &str) -> u16 {
    get(gateway, "/private", &[("Authorization", token)])
        .await
        .status
}

#[tokio::test]
async fn key_1_a_token_of_a_new_key_waits_for_it_and_the_key_it_replaced_is_dead() {
    let upstream = Upstream::start().await;
    let provider = Provider::start(&[ours("a")]).await;
    let gateway = site(&upstream, &provider).start().await;
    assert_eq!(status(&gateway, &token("a")).await, 200);
    provider.publish(&[jwk("b", &keys().foreign_ec)]);
    // Within the cooldown the new key is unknown; then the first to ask waits for it.
    eventually("the new key", async || {
        (status(&gateway, &other_token("b")).await == 200).then_some(())
    })
    .await;
    let count = upstream.count();
    get(&gateway, "/private", &[("Authorization", &token("a"))])
        .await
        .refused(401, "token_invalid");
    assert_eq!(upstream.count(), count);
    let line = gateway
        .access_line(|line| line["reason"] == "key_unknown")
        .await;
    assert_eq!(line["code"], "token_invalid");
}

#[tokio::test]
async fn key_1_other_requests_go_on_while_one_waits_for_its_key() {
    let upstream = Upstream::start().await;
    let provider = Provider::start(&[ours("a")]).await;
    let gateway = site(&upstream, &provider).start().await;
    assert_eq!(status(&gateway, &token("a")).await, 200);
    let go_on = Arc::new(Notify::new());
    let mut held = vec![Step::Until(Arc::clone(&go_on))];
    held.extend(published(&[ours("a"), ours("b")]).0);
    provider.answer(Reply(held));
    let asked = provider.server.count();
    let done = AtomicBool::new(false);
    let waits = async {
        let answer = eventually("a fetch", async || {
            let status = status(&gateway, &token("b")).await;
            (provider.server.count() > asked).then_some(status)
        })
        .await;
        done.store(true, Ordering::SeqCst);
        answer
    };
    let others = async {
        eventually("the fetch", async || {
            (provider.server.count() > asked).then_some(())
        })
        .await;
        for _ in 0..20 {
            assert_eq!(status(&gateway, &token("a")).await, 200);
            assert_eq!(status(&gateway, &bearer(&Token::good().sign())).await, 200);
        }
        assert!(!done.load(Ordering::SeqCst), "it did not wait");
        go_on.notify_one();
    };
    let (answer, ()) = tokio::join!(waits, others);
    assert_eq!(answer, 200);
}

#[tokio::test]
async fn key_2_a_provider_that_fails_is_seen_in_metrics_and_readiness_and_by_no_user() {
    let upstream = Upstream::start().await;
    let provider = Provider::start(&[ours("a"), json!({"kty": "oct", "k": "AAAA"})]).await;
    let gateway = site(&upstream, &provider).start().await;
    assert_eq!(status(&gateway, &token("a")).await, 200);
    let ready = gateway.admin("/readyz").await.json();
    assert_eq!(
        (&ready["ready"], &ready["degraded"]),
        (&json!(true), &json!(null))
    );
    for (state, count) in [("usable", 1.0), ("skipped", 1.0)] {
        let series = format!("portcullis_jwks_keys{{issuer=\"es\",state=\"{state}\"}}");
        assert_eq!(gateway.metric(&series).await, Some(count));
    }
    provider.answer(Reply::with(500, &[], "{}"));
    let failed = r#"portcullis_jwks_fetches_total{issuer="es",result="status"}"#;
    eventually("a failed fetch", async || {
        get(&gateway, "/private", &[("Authorization", &token("x"))])
            .await
            .refused(401, "token_invalid");
        gateway.metric(failed).await
    })
    .await;
    let fresh = Token::new(Kind::Es)
        .header("kid", "a")
        .claim("jti", "fresh");
    assert_eq!(status(&gateway, &bearer(&fresh.sign())).await, 200);
    let readiness = gateway.admin("/readyz").await;
    let ready = readiness.is(200).json();
    assert_eq!(ready["degraded"][0]["what"], "keys of es");
    assert!(
        ready["degraded"][0]["detail"]
            .as_str()
            .unwrap()
            .contains("500")
    );
    let age = r#"portcullis_jwks_age_seconds{issuer="es"}"#;
    assert!(gateway.metric(age).await.is_some());
}

#[tokio::test]
async fn key_2_the_gateway_starts_without_its_provider_and_again_with_the_keys_it_kept() {
    let upstream = Upstream::start().await;
    let provider = Provider::start(&[ours("a")]).await;
    provider.answer(Reply(vec![Step::Close]));
    let mut gateway = site(&upstream, &provider).start().await;
    get(&gateway, "/private", &[("Authorization", &token("a"))])
        .await
        .refused(503, "keys_unavailable");
    upstream.saw_nothing();
    assert_eq!(status(&gateway, &bearer(&Token::good().sign())).await, 200);
    provider.publish(&[ours("a")]);
    eventually("the keys", async || {
        (status(&gateway, &token("a")).await == 200).then_some(())
    })
    .await;
    let folder = gateway.path().join("data/issuers");
    eventually("the copy", async || {
        let entries = std::fs::read_dir(&folder).ok()?;
        let kept = |entry: std::io::Result<std::fs::DirEntry>| {
            entry
                .unwrap()
                .path()
                .extension()
                .is_some_and(|end| end == "json")
        };
        entries.into_iter().any(kept).then_some(())
    })
    .await;
    provider.answer(Reply(vec![Step::Hang]));
    gateway.signal("TERM");
    assert!(gateway.exit().await.success());
    let gateway = gateway.again().await;
    assert_eq!(status(&gateway, &token("a")).await, 200);
    assert_eq!(upstream.last().header("x-forwarded-user"), Some("alice"));
}

#[tokio::test]
async fn key_3_discovery_leads_to_the_keys_of_its_own_issuer_alone() {
    let upstream = Upstream::start().await;
    let honest = Arc::new(AtomicBool::new(false));
    let (shared, address) = (Arc::clone(&honest), Arc::new(Mutex::new(String::new())));
    let own = Arc::clone(&address);
    let provider = Upstream::scripted(move |seen| {
        let base = own.lock().unwrap().clone();
        if seen.target == "/realm/.well-known/openid-configuration" {
            let tenant = if shared.load(Ordering::SeqCst) {
                "realm"
            } else {
                "other"
            };
            let document =
                json!({"issuer": format!("{base}/{tenant}"), "jwks_uri": format!("{base}/keys")});
            Reply::ok(&document.to_string())
        } else {
            published(&[ours("a")])
        }
    })
    .await;
    *address.lock().unwrap() = format!("http://{}", provider.address);
    let issuer = format!("http://{}/realm", provider.address);
    let gateway = Site::bare()
        .upstream("legacy", &format!("http://{}", upstream.address))
        .issuer(Kind::Es)
        .off_issuer("public_key_file")
        .on_issuer("issuer", &format!("{issuer:?}"))
        .on_issuer("fetch", r#"{ cooldown = "1s" }"#)
        .route("private", "/private", "authenticated")
        .start()
        .await;
    let token = Token::new(Kind::Es)
        .header("kid", "a")
        .claim("iss", &*issuer);
    let token = bearer(&token.sign());
    get(&gateway, "/private", &[("Authorization", &token)])
        .await
        .refused(503, "keys_unavailable");
    upstream.saw_nothing();
    assert!(provider.seen().iter().all(|seen| seen.target != "/keys"));
    honest.store(true, Ordering::SeqCst);
    eventually("the keys", async || {
        (status(&gateway, &token).await == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn key_2_a_provider_that_hangs_delays_its_own_new_tokens_alone_and_not_for_long() {
    let upstream = Upstream::start().await;
    let provider = Provider::start(&[]).await;
    provider.answer(Reply(vec![Step::Hang]));
    let gateway = site(&upstream, &provider)
        .on_issuer("fetch", r#"{ wait = "100ms" }"#)
        .start()
        .await;
    let begun = std::time::Instant::now();
    get(&gateway, "/private", &[("Authorization", &token("a"))])
        .await
        .refused(503, "keys_unavailable");
    let took = begun.elapsed();
    assert!(
        took >= Duration::from_millis(100) && took < PATIENCE,
        "{took:?}"
    );
    assert_eq!(status(&gateway, &bearer(&Token::good().sign())).await, 200);
}

#[tokio::test]
async fn explain_fetches_keys_as_the_gateway_does() {
    let upstream = Upstream::start().await;
    let provider = Provider::start(&[ours("a")]).await;
    let site = site(&upstream, &provider);
    site.write();
    let token = Token::new(Kind::Es).header("kid", "a").sign();
    let arguments = [
        "explain",
        "GET",
        "https://localhost/private",
        "--token",
        "-",
    ];
    let exit = site.run(&arguments, &format!("{token}\n")).await;
    assert!(exit.stdout.contains("admitted: to legacy"), "{exit:?}");
    upstream.saw_nothing();
}
