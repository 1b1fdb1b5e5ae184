//! Another configuration in the place of the one that runs: whole or not at all, while requests go on (CFG-2).

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::Value;

use crate::harness::{
    Answer, Gateway, H2, Kind, Raw, Reply, Site, Token, Upstream, eventually, get,
    keys::{bearer, keys},
    request, websocket, within,
};

mod files;
mod kept;

/// Writes a configuration in one step, in the place of what was there.
fn put(gateway: &Gateway, toml: &str) {
    gateway.site.put("config/gateway.toml", toml);
}

/// Asks for a reload.
async fn post(gateway: &Gateway) -> Answer {
    let mut raw = Raw::plain(gateway.admin).await;
    raw.exchange(request("POST", "/reload", &[("connection", "close")], ""))
        .await
}

/// Has a configuration loaded, which must be good. The gateway may have noticed it by itself a moment before.
#[track_caller]
fn load(gateway: &Gateway, toml: &str) -> impl Future<Output = Value> {
    put(gateway, toml);
    let place = std::panic::Location::caller();
    async move {
        let answer = post(gateway).await;
        assert_eq!(answer.status, 200, "{place}: {}", answer.text());
        let body = answer.json();
        let result = body["result"].as_str().unwrap();
        assert!(["taken", "unchanged"].contains(&result), "{place}: {body}");
        body
    }
}

/// Has a configuration loaded that must be refused.
#[track_caller]
fn refused(gateway: &Gateway, status: u16, code: &str) -> impl Future<Output = Value> {
    let place = std::panic::Location::caller();
    let code = code.to_owned();
    async move {
        let answer = post(gateway).await;
        assert_eq!(answer.status, status, "{place}: {}", answer.text());
        let body = answer.json();
        assert_eq!(body["code"], *code, "{place}: {body}");
        body
    }
}

async fn count(gateway: &Gateway, result: &str) -> f64 {
    let series = format!("portcullis_config_reloads_total{{result=\"{result}\"}}");
    gateway.metric(&series).await.unwrap()
}

/// A site whose one route and upstream say which version they are.
fn versioned(upstream: &Upstream) -> (Site, [String; 2]) {
    let site = Site::bare()
        .upstream("legacy", &format!("http://{}", upstream.address))
        .on_upstream("idle_timeout", "\"61s\"")
        .issuer(Kind::Hs)
        .route("app", "/app", "authenticated")
        .on_route("require", "{ roles = [\"version-1\"] }")
        .on_route(
            "request_headers",
            "{ set = { \"X-Version\" = \"version-1\" } }",
        )
        .on_route(
            "response_headers",
            "{ set = { \"X-Version\" = \"version-1\" } }",
        );
    let first = site.toml();
    let second = first
        .replace("version-1", "version-2")
        .replace("61s", "62s");
    assert_ne!(first, second);
    (site, [first, second])
}

/// What the versioned route said, wholly in one version; `None` where the caller may not.
#[track_caller]
fn version(answer: &Answer, role: &str) -> bool {
    match answer.status {
        200 => {
            assert_eq!(answer.header("x-version"), Some(role), "mixed: {answer:?}");
            assert_eq!(answer.text(), role, "mixed: {answer:?}");
            true
        }
        403 => {
            assert_eq!(answer.code(), "role_missing");
            assert_eq!(answer.header("x-version"), None);
            false
        }
        _ => panic!("{answer:?}"),
    }
}

async fn echo() -> Upstream {
    Upstream::scripted(|seen| Reply::ok(seen.header("x-version").unwrap_or("none"))).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cfg_2_alternating_reloads_lose_no_request_and_mix_no_versions() {
    let upstream = echo().await;
    let (site, versions) = versioned(&upstream);
    let gateway = Arc::new(site.start().await);
    let stop = Arc::new(AtomicBool::new(false));
    let seen: Arc<[AtomicUsize; 2]> = Arc::default();
    let mut tasks = Vec::new();
    for number in 0..4 {
        let (gateway, stop, seen) = (Arc::clone(&gateway), Arc::clone(&stop), Arc::clone(&seen));
        tasks.push(tokio::spawn(async move {
            let role = ["version-1", "version-2"][number % 2];
            let token = bearer(&Token::good().claim("roles", vec![role]).sign());
            let fields = [("Authorization", token.as_str())];
            let mut raw = Raw::connect(&gateway).await;
            let mut h2 = H2::connect(&gateway).await;
            // One kept connection each: none may be closed.
            while !stop.load(Ordering::Relaxed) {
                let answer = match number {
                    0 | 1 => raw.exchange(request("GET", "/app", &fields, "")).await,
                    _ => h2.get("/app", &fields).await,
                };
                seen[usize::from(version(&answer, role))].fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    for round in 0..100 {
        let version = &versions[(round / 2) % 2];
        if round % 2 == 0 {
            load(&gateway, version).await;
        } else {
            let broken = match round % 4 {
                1 => version.replace("authenticated", "everybody"),
                _ => version[..version.len() / 2].to_owned(),
            };
            put(&gateway, &broken);
            refused(&gateway, 422, "config_invalid").await;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
    let [no, yes] = [&seen[0], &seen[1]].map(|count| count.load(Ordering::Relaxed));
    assert!(no > 20 && yes > 20, "{no} {yes}: both versions were met");
    upstream.saw_no_fault();
    assert!(count(&gateway, "taken").await >= 49.0);
    assert!(count(&gateway, "refused").await >= 50.0);
    let connections = upstream.connections();
    assert!(
        connections > 10,
        "{connections}: the upstream changed with each version"
    );
}

#[tokio::test]
async fn cfg_2_what_differs_is_told_and_no_secret_is() {
    let upstream = Upstream::start().await;
    let gateway = Site::new(upstream.address).start().await;
    let toml = gateway.site.toml();
    let next = toml
        .replace("/optional", "/elsewhere")
        .replace("[tls]", "[server.timeouts]\nheader = \"9s\"\n[tls]");
    let secret: String = keys().secret.chars().rev().collect();
    gateway.site.put("keys/hs.secret", &secret);
    let told = load(&gateway, &next).await;
    let line = gateway
        .err
        .find("the event", |line| {
            line.contains("\"configuration reloaded\"")
                .then(|| line.to_owned())
        })
        .await;
    for change in [
        "issuer \"hs\" changed: secret_file",
        "route \"optional\" changed: path_prefix",
        "server changed: timeouts.header",
    ] {
        let quoted = change.replace('"', "\\\"");
        assert!(line.contains(&quoted), "{line}");
        if told["result"] == "taken" {
            let changes = told["changes"].as_array().unwrap();
            assert!(changes.contains(&change.into()), "{told}");
        }
    }
    let ready = gateway.admin("/readyz").await.json();
    assert!(ready["last_reload"]["at"].as_u64().unwrap() > 1_600_000_000);
    put(
        &gateway,
        &next.replace("upstream = \"legacy\"", "upstream = \"unknown\""),
    );
    let told = refused(&gateway, 422, "config_invalid").await;
    let problem = &told["problems"][0];
    assert!(problem["line"].as_u64().unwrap() > 0 && problem["column"].as_u64().unwrap() > 0);
    assert!(told.to_string().contains("upstream"), "{told}");
    let ready = gateway.admin("/readyz").await.json();
    assert_eq!(ready["ready"], true);
    assert_eq!(ready["degraded"][0]["what"], "configuration", "{ready}");
    assert_eq!(ready["last_reload"]["result"], "refused");
    let success = "portcullis_config_last_reload_success";
    assert_eq!(gateway.metric(success).await, Some(0.0));
    load(&gateway, &next).await;
    assert_eq!(gateway.metric(success).await, Some(1.0));
    assert!(gateway.admin("/readyz").await.json()["degraded"].is_null());
    let all = gateway.err.text() + &gateway.out.text() + &told.to_string();
    assert!(!all.contains(&keys().secret) && !all.contains(&secret));
}

#[tokio::test]
async fn cfg_2_routes_come_and_go_on_kept_connections() {
    let upstream = Upstream::start().await;
    let gateway = Site::new(upstream.address).start().await;
    let toml = gateway.site.toml();
    let mut raw = Raw::connect(&gateway).await;
    let mut h2 = H2::connect(&gateway).await;
    let ask = request("GET", "/public", &[], "");
    raw.exchange(&ask).await.is(200);
    h2.get("/public", &[]).await.is(200);
    let series = "portcullis_requests_total{route=\"public\",method=\"GET\",status=\"200\"}";
    assert_eq!(gateway.metric(series).await, Some(2.0));
    let without = toml
        .replace("name = \"public\"", "name = \"renamed\"")
        .replace("\"/public\"", "\"/renamed\"");
    load(&gateway, &without).await;
    let before = upstream.count();
    raw.exchange(&ask).await.refused(404, "route_not_found");
    h2.get("/public", &[]).await.refused(404, "route_not_found");
    assert_eq!(upstream.count(), before);
    h2.get("/renamed", &[]).await.is(200);
    // Its series have gone with it.
    eventually("series that are gone", async || {
        gateway.metric(series).await.is_none().then_some(())
    })
    .await;
    load(&gateway, &toml).await;
    raw.exchange(&ask).await.is(200);
}

#[tokio::test]
async fn cfg_2_an_exchange_goes_on_with_the_version_it_began_with() {
    let upstream = Upstream::scripted(websocket::mirror).await;
    let gateway = Site::bare()
        .upstream("legacy", &format!("http://{}", upstream.address))
        .route("socket", "/socket", "public")
        .on_route("websocket", "true")
        .start()
        .await;
    let toml = gateway.site.toml();
    let mut raw = Raw::connect(&gateway).await;
    websocket::open(&mut raw, "/socket", &[]).await;
    let next = toml
        .replace("/socket", "/other")
        .replace("servers", "idle_timeout = \"1s\"\nservers");
    load(&gateway, &next).await;
    get(&gateway, "/socket", &[])
        .await
        .refused(404, "route_not_found");
    // Beyond the sweeps that close what nobody uses.
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(600)).await;
        raw.send(b"still here").await;
        websocket::expect(&mut raw, b"still here").await;
    }
}

#[tokio::test]
async fn cfg_2_keys_that_need_a_restart_are_named_and_nothing_is_changed() {
    let upstream = Upstream::start().await;
    let gateway = Site::new(upstream.address).start().await;
    let toml = gateway.site.toml();
    let next = toml
        .replace("workers = 2", "workers = 3")
        .replace("https://localhost:8443", "https://localhost:8444")
        .replace("\"/public\"", "\"/moved\"");
    put(&gateway, &next);
    let told = refused(&gateway, 409, "restart_required").await;
    let keys = serde_json::json!(["server.public_url", "server.workers"]);
    assert_eq!(told["keys"], keys);
    get(&gateway, "/moved", &[])
        .await
        .refused(404, "route_not_found");
    get(&gateway, "/public", &[]).await.is(200);
    assert!(count(&gateway, "restart_required").await >= 1.0);
    load(&gateway, &toml).await;
}

#[tokio::test]
async fn log_3_a_reload_is_nobody_elses_to_ask_for() {
    let upstream = Upstream::start().await;
    let gateway = Site::new(upstream.address).start().await;
    for (method, field, status) in [
        ("GET", None, 405),
        ("PUT", None, 405),
        ("POST", Some(("Origin", "https://evil.example")), 403),
        ("POST", Some(("Origin", "null")), 403),
        ("POST", Some(("Host", "evil.example")), 403),
    ] {
        let mut raw = Raw::plain(gateway.admin).await;
        let fields: Vec<_> = field.into_iter().collect();
        let answer = raw.exchange(request(method, "/reload", &fields, "")).await;
        assert_eq!(answer.status, status, "{method} {field:?}");
    }
    get(&gateway, "/reload", &[])
        .await
        .refused(404, "route_not_found");
    for result in ["taken", "unchanged", "refused"] {
        assert!(count(&gateway, result).await < 0.5, "{result}");
    }
}

#[tokio::test]
async fn cfg_2_a_signal_reloads_and_a_drain_ends_that() {
    let upstream = Upstream::start().await;
    let mut gateway = Site::new(upstream.address).start().await;
    put(
        &gateway,
        &gateway.site.toml().replace("\"/public\"", "\"/moved\""),
    );
    gateway.signal("HUP");
    eventually("the new route", async || {
        (get(&gateway, "/moved", &[]).await.status == 200).then_some(())
    })
    .await;
    gateway.signal("HUP");
    eventually("a reload that changes nothing", async || {
        (count(&gateway, "unchanged").await >= 1.0).then_some(())
    })
    .await;
    gateway.signal("TERM");
    gateway.signal("HUP");
    assert!(within("the end", gateway.exit()).await.success());
}
