//! Upstreams of several servers: who gets a request, and who does not.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::{net::TcpListener, sync::Notify};

use crate::harness::{
    Gateway, Kind, Raw, Reply, Site, Step, Token, Upstream, eventually, get, keys::bearer, request,
};

/// A server that answers with its name.
async fn named(name: &'static str) -> Upstream {
    Upstream::scripted(move |_| Reply::ok(name)).await
}

async fn closed() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

/// A site with one upstream of these servers and one worker.
fn site(servers: &[SocketAddr], balance: &str) -> Site {
    let urls: Vec<String> = servers
        .iter()
        .map(|address| format!("\"http://{address}\""))
        .collect();
    Site::bare()
        .set("server", "workers", "1")
        .upstream("legacy", "http://replaced")
        .on_upstream("servers", &format!("[{}]", urls.join(", ")))
        .on_upstream("balance", &format!("\"{balance}\""))
        .issuer(Kind::Es)
        .route("public", "/public", "public")
        .route("private", "/private", "authenticated")
}

/// Waits until the metrics say so of a server.
async fn healthy(gateway: &Gateway, server: SocketAddr, value: u8) {
    let line =
        format!("portcullis_upstream_healthy{{upstream=\"legacy\",server=\"{server}\"}} {value}");
    eventually(&line, async || {
        let text = gateway.admin("/metrics").await.text();
        text.contains(&line).then_some(())
    })
    .await;
}

#[tokio::test]
async fn servers_take_turns() {
    let (one, other) = (named("one").await, named("other").await);
    let gateway = site(&[one.address, other.address], "round_robin")
        .start()
        .await;
    for _ in 0..5 {
        assert_eq!(get(&gateway, "/public", &[]).await.text(), "one");
        assert_eq!(get(&gateway, "/public", &[]).await.text(), "other");
    }
    healthy(&gateway, one.address, 1).await;
    healthy(&gateway, other.address, 1).await;
}

#[tokio::test]
async fn a_busy_server_gets_less() {
    let stop = Arc::new(Notify::new());
    let script = |name: &'static str| {
        let stop = Arc::clone(&stop);
        Upstream::scripted(move |seen| match &*seen.target {
            "/public/wait" => Reply(vec![Step::Until(Arc::clone(&stop)), Step::Close]),
            _ => Reply::ok(name),
        })
    };
    let (one, other) = (script("one").await, script("other").await);
    let gateway = site(&[one.address, other.address], "least_requests")
        .start()
        .await;
    let mut raw = Raw::connect(&gateway).await;
    raw.send(request("GET", "/public/wait", &[], "")).await;
    let busy = eventually("the request at a server", async || {
        match (one.count(), other.count()) {
            (1, _) => Some("one"),
            (_, 1) => Some("other"),
            _ => None,
        }
    })
    .await;
    for _ in 0..10 {
        assert_ne!(get(&gateway, "/public", &[]).await.text(), busy);
    }
    stop.notify_waiters();
}

#[tokio::test]
async fn a_user_stays_with_a_server_from_any_connection() {
    let servers = [
        named("a").await,
        named("b").await,
        named("c").await,
        named("d").await,
    ];
    let addresses: Vec<SocketAddr> = servers.iter().map(|server| server.address).collect();
    let gateway = site(&addresses, "hash_user").start().await;
    let mut places = std::collections::BTreeSet::new();
    for user in 0..12 {
        let token = |id: &str| {
            let token = Token::new(Kind::Es).claim("sub", format!("user-{user}"));
            bearer(&token.claim("jti", id).sign())
        };
        let first = get(&gateway, "/private", &[("Authorization", &token("1"))]).await;
        let again = get(&gateway, "/private", &[("Authorization", &token("2"))]).await;
        assert_eq!(first.is(200).text(), again.text(), "user {user}");
        places.insert(first.text());
    }
    assert!(places.len() > 1, "all users on one server");
    // Nobody is logged in: the address decides.
    let anonymous = get(&gateway, "/public", &[]).await.text();
    for _ in 0..5 {
        assert_eq!(get(&gateway, "/public", &[]).await.text(), anonymous);
    }
}

#[tokio::test]
async fn up_4_a_server_that_is_down_is_passed_over_unseen() {
    let (one, down) = (Upstream::start().await, closed().await);
    let gateway = site(&[down, one.address], "round_robin").start().await;
    let mut raw = Raw::connect(&gateway).await;
    for number in 0..20 {
        let answer = match number % 2 {
            0 => raw.exchange(request("GET", "/public", &[], "")).await,
            _ => raw.exchange(request("POST", "/public", &[], "body")).await,
        };
        answer.is(200);
    }
    assert_eq!(one.count(), 20);
    assert!(one.seen().iter().all(|seen| seen.complete));
    healthy(&gateway, down, 0).await;
    healthy(&gateway, one.address, 1).await;
}

#[tokio::test]
async fn with_every_server_down_it_is_502() {
    let gateway = site(&[closed().await, closed().await], "least_requests")
        .start()
        .await;
    get(&gateway, "/public", &[])
        .await
        .refused(502, "upstream_unreachable");
}

#[tokio::test]
async fn up_2_a_request_that_was_seen_goes_to_no_other_server() {
    let drops = Upstream::scripted(|_| Reply(vec![Step::Reset])).await;
    let other = named("other").await;
    let gateway = site(&[drops.address, other.address], "round_robin")
        .start()
        .await;
    let mut raw = Raw::connect(&gateway).await;
    let answer = raw.exchange(request("POST", "/public", &[], "once")).await;
    answer.refused(502, "upstream_unreachable");
    assert_eq!((drops.count(), other.count()), (1, 0));
}

#[tokio::test]
async fn up_4_a_server_with_faults_is_out_and_comes_back() {
    let broken = Arc::new(AtomicBool::new(true));
    let is_broken = Arc::clone(&broken);
    let bad = Upstream::scripted(move |_| {
        if is_broken.load(Ordering::SeqCst) {
            Reply(vec![Step::Reset])
        } else {
            Reply::ok("back")
        }
    })
    .await;
    let good = named("good").await;
    let gateway = site(&[bad.address, good.address], "round_robin")
        .on_upstream("eject", r#"{ failures = 3, window = "1m", for = "2s" }"#)
        .on_upstream("retry", "{ attempts = 0 }")
        .start()
        .await;
    let mut failed = 0;
    for _ in 0..6 {
        failed += usize::from(get(&gateway, "/public", &[]).await.status == 502);
    }
    assert_eq!(failed, 3);
    healthy(&gateway, bad.address, 0).await;
    healthy(&gateway, good.address, 1).await;
    broken.store(false, Ordering::SeqCst);
    // Nobody notices how it comes back.
    eventually("the server to be back", async || {
        let answer = get(&gateway, "/public", &[]).await;
        (answer.is(200).text() == "back").then_some(())
    })
    .await;
    healthy(&gateway, bad.address, 1).await;
    gateway
        .err
        .find("the log of it", |line| {
            line.contains("too many faults").then_some(())
        })
        .await;
}

#[tokio::test]
async fn a_server_whose_health_checks_fail_gets_no_requests() {
    let sick = Arc::new(AtomicBool::new(true));
    let is_sick = Arc::clone(&sick);
    let patient = Upstream::scripted(move |seen| match &*seen.target {
        "/healthz" if is_sick.load(Ordering::SeqCst) => Reply::with(500, &[], "sick"),
        _ => Reply::ok("patient"),
    })
    .await;
    let health = r#"{ path = "/healthz", interval = "100ms", healthy = 1, unhealthy = 2 }"#;
    let gateway = site(&[patient.address], "least_requests")
        .on_upstream("health", health)
        .start()
        .await;
    healthy(&gateway, patient.address, 0).await;
    let answer = get(&gateway, "/public", &[]).await;
    answer.refused(503, "no_healthy_upstream");
    assert!(answer.header("retry-after").is_some());
    assert!(patient.seen().iter().all(|seen| seen.target == "/healthz"));
    sick.store(false, Ordering::SeqCst);
    healthy(&gateway, patient.address, 1).await;
    assert_eq!(get(&gateway, "/public", &[]).await.text(), "patient");
}
