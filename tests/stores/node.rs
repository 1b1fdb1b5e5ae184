//! Gateways over PostgreSQL: what they do without it, and what they tell each other by it.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    cluster::share_keys,
    harness::{
        Answer, Gateway, Raw, Site, Token, Upstream, eventually, get, keys::bearer, request,
    },
    server::Server,
};

const PASSWORD: &str = "correct horse battery staple";

fn site(upstream: &Upstream, url: &str) -> Site {
    let site = Site::new(upstream.address)
        .accounts()
        .set("accounts", "store", &format!("{url:?}"));
    site.write();
    site
}

async fn post(gateway: &Gateway, target: &str, body: &serde_json::Value) -> Answer {
    let fields = [("Content-Type", "application/json")];
    let request = request("POST", target, &fields, &body.to_string());
    Raw::connect(gateway).await.exchange(request).await
}

async fn login(gateway: &Gateway) -> Answer {
    let body = json!({ "username": "alice", "password": PASSWORD, "delivery": "body" });
    post(gateway, "/auth/login", &body).await
}

/// The access token and the refresh token of an answer.
fn pair(answer: &Answer) -> (String, String) {
    answer.is(200);
    let grant = answer.json();
    let text = |name: &str| grant[name].as_str().unwrap().to_owned();
    (text("access_token"), text("refresh_token"))
}

async fn ask(gateway: &Gateway, token: &str) -> Answer {
    get(gateway, "/private", &[("Authorization", &bearer(token))]).await
}

fn is_unavailable(answer: &Answer) {
    answer.refused(503, "store_unavailable");
    assert!(answer.header("retry-after").is_some());
}

/// Waits until the admin listener says this of the store, and is ready all the same.
async fn degraded(gateway: &Gateway, want: bool) {
    eventually("the state of the store", async || {
        let answer = gateway.admin("/readyz").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let found = answer.text().contains("account store");
        (found == want).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_5_a_gateway_without_its_store_serves_what_needs_none_and_signs_in_when_it_is_there()
{
    let Some(mut server) = Server::start(|_| ()) else {
        return;
    };
    let url = server.database().await;
    let upstream = Upstream::start().await;
    let site = site(&upstream, &url);
    site.user("alice", PASSWORD, &[]).await;
    let gateway = site.start().await;
    let (access, renewal) = pair(&login(&gateway).await);
    ask(&gateway, &access).await.is(200);
    server.kill();
    let refused = gateway.site.run(&["user", "list"], "").await;
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    // Begun anew without its store, it cannot know which of its own tokens were revoked.
    let mut gateway = gateway;
    gateway.signal("TERM");
    assert!(gateway.exit().await.success());
    let gateway = gateway.again().await;
    degraded(&gateway, true).await;
    ask(&gateway, &Token::good().sign()).await.is(200);
    get(&gateway, "/public", &[]).await.is(200);
    let before = upstream.count();
    let unknown = ask(&gateway, &access).await;
    assert_eq!(unknown.status, 503, "{}", unknown.text());
    is_unavailable(&login(&gateway).await);
    let renew = json!({ "refresh_token": renewal });
    is_unavailable(&post(&gateway, "/auth/refresh", &renew).await);
    assert_eq!(upstream.count(), before, "nothing of these went through");
    server.resume();
    degraded(&gateway, false).await;
    ask(&gateway, &access).await.is(200);
    pair(&post(&gateway, "/auth/refresh", &renew).await);
    pair(&login(&gateway).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_5_requests_go_on_while_the_store_dies_under_load_and_sessions_are_there_afterwards()
{
    let Some(mut server) = Server::start(|_| ()) else {
        return;
    };
    let url = server.database().await;
    let upstream = Upstream::start().await;
    let site = site(&upstream, &url);
    site.user("alice", PASSWORD, &[]).await;
    let gateway = site.start().await;
    let (access, renewal) = pair(&login(&gateway).await);
    let (stop, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    let load = async {
        while !stop.load(Ordering::SeqCst) {
            ask(&gateway, &access).await.is(200);
            served.fetch_add(1, Ordering::SeqCst);
        }
    };
    let story = async {
        server.kill();
        let begun = Instant::now();
        let renew = json!({ "refresh_token": renewal });
        is_unavailable(&post(&gateway, "/auth/refresh", &renew).await);
        is_unavailable(&login(&gateway).await);
        assert!(begun.elapsed() < Duration::from_secs(10));
        degraded(&gateway, true).await;
        let so_far = served.load(Ordering::SeqCst);
        eventually("requests without the store", async || {
            (served.load(Ordering::SeqCst) > so_far + 50).then_some(())
        })
        .await;
        server.resume();
        degraded(&gateway, false).await;
        pair(&post(&gateway, "/auth/refresh", &renew).await);
        stop.store(true, Ordering::SeqCst);
    };
    tokio::join!(load, story);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cache_4_a_logout_at_one_gateway_ends_the_session_at_the_other_within_five_seconds() {
    let Some(server) = Server::shared() else {
        return;
    };
    let url = server.database().await;
    let upstream = Upstream::start().await;
    let (first, second) = (site(&upstream, &url), site(&upstream, &url));
    first.user("alice", PASSWORD, &[]).await;
    // Both need the same signing keys.
    share_keys(&first, &second);
    let (first, second) = (first.start().await, second.start().await);
    let (access, renewal) = pair(&login(&first).await);
    ask(&second, &access).await.is(200);
    let renew = json!({ "refresh_token": renewal });
    let (access, renewal) = pair(&post(&second, "/auth/refresh", &renew).await);
    ask(&first, &access).await.is(200);
    let out = json!({ "refresh_token": renewal });
    let left = post(&first, "/auth/logout", &out).await;
    assert!(left.status < 300, "{}", left.text());
    assert_eq!(ask(&first, &access).await.status, 401);
    let begun = Instant::now();
    eventually("the other gateway to refuse", async || {
        (ask(&second, &access).await.status == 401).then_some(())
    })
    .await;
    assert!(begun.elapsed() < Duration::from_secs(5));
    let over = post(&second, "/auth/refresh", &out).await;
    assert_eq!(over.status, 401, "{}", over.text());
}
