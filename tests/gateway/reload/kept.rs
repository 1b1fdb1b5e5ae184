//! What a reload leaves as it is, and what it must not.

use std::time::Duration;

use serde_json::json;

use super::{load, post, put};
use crate::harness::{
    Gateway, Kind, Raw, Reply, Site, Token, Upstream,
    certs::{ANY, Authority, handshake, shown},
    eventually, get,
    keys::{base64, bearer, keys},
    request,
};

async fn with_token(raw: &mut Raw, target: &str, token: &str) -> u16 {
    let token = bearer(token);
    let fields = [("Authorization", token.as_str())];
    raw.exchange(request("GET", target, &fields, ""))
        .await
        .status
}

async fn misses(gateway: &Gateway) -> f64 {
    let series = "portcullis_token_cache_total{result=\"miss\"}";
    gateway.metric(series).await.unwrap_or(0.0)
}

#[tokio::test]
async fn cfg_2_cached_tokens_are_forgotten_when_their_issuer_changes_and_kept_when_not() {
    let upstream = Upstream::start().await;
    let gateway = Site::new(upstream.address).start().await;
    let toml = gateway.site.toml();
    let token = Token::good().sign();
    let mut raw = Raw::connect(&gateway).await;
    assert_eq!(with_token(&mut raw, "/private", &token).await, 200);
    let before = misses(&gateway).await;
    // Another route, another rule, another limit: nothing that says who the caller is.
    let rules = toml
        .replace("\"/public\"", "\"/moved\"")
        .replace("\"admin\"]", "\"boss\"]");
    load(&gateway, &rules).await;
    assert_eq!(with_token(&mut raw, "/private", &token).await, 200);
    assert!(misses(&gateway).await - before < 0.5, "it was in the cache");
    // Another audience: refused at once, on the same connection, without waiting for the entry's end.
    load(&gateway, &rules.replace("\"orders\"", "\"invoices\"")).await;
    let seen = upstream.count();
    assert_eq!(with_token(&mut raw, "/private", &token).await, 401);
    assert_eq!(upstream.count(), seen);
    load(&gateway, &rules).await;
    assert_eq!(with_token(&mut raw, "/private", &token).await, 200);
    // Other identity headers: an identity has its headers written in it.
    let headers = rules.replace(
        "[rate_limit]",
        "[identity]\npreset = \"authelia\"\n[rate_limit]",
    );
    load(&gateway, &headers).await;
    assert_eq!(with_token(&mut raw, "/private", &token).await, 200);
    let seen = upstream.last();
    assert_eq!(seen.header("remote-user"), Some("alice"));
    assert_eq!(seen.header("x-forwarded-user"), None);
}

#[tokio::test]
async fn cfg_2_no_budget_is_renewed_by_a_reload() {
    let upstream = Upstream::start().await;
    let gateway = Site::new(upstream.address)
        .set(
            "rate_limit",
            "bad_tokens",
            r#"{ rate = "1/1m", burst = 2 }"#,
        )
        .route("limited", "/limited", "public")
        .on_route(
            "rate_limit",
            r#"[{ key = "ip", rate = "1/1h", burst = 3 }]"#,
        )
        .start()
        .await;
    let toml = gateway.site.toml();
    let bad = Token::good().sign_by(
        &jsonwebtoken::EncodingKey::from_secret(b"another secret of more than 32 bytes"),
        jsonwebtoken::Algorithm::HS256,
    );
    let mut raw = Raw::connect(&gateway).await;
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(
            raw.exchange(request("GET", "/limited", &[], ""))
                .await
                .status,
        );
    }
    for _ in 0..3 {
        statuses.push(with_token(&mut raw, "/private", &bad).await);
    }
    assert_eq!(statuses, [200, 200, 200, 429, 401, 401, 429]);
    for round in 0..6 {
        let next = toml
            .replace("\"/public\"", &format!("\"/public-{round}\""))
            .replace("\"orders:read\"", &format!("\"orders:{round}\""));
        load(&gateway, &next).await;
        let limited = raw.exchange(request("GET", "/limited", &[], "")).await;
        limited.refused(429, "rate_limited");
        assert_eq!(with_token(&mut raw, "/private", &bad).await, 429);
    }
    // A limit that is another one is another one.
    load(&gateway, &toml.replace("burst = 3", "burst = 4")).await;
    raw.exchange(request("GET", "/limited", &[], ""))
        .await
        .is(200);
    assert_eq!(with_token(&mut raw, "/private", &bad).await, 429);
}

#[tokio::test]
async fn cfg_2_upstreams_that_did_not_change_keep_their_connections_and_others_close_them() {
    let (kept, gone) = (Upstream::start().await, Upstream::start().await);
    let gateway = Site::bare()
        .set("server", "workers", "1")
        .upstream("gone", &format!("http://{}", gone.address))
        .on_upstream("health", r#"{ path = "/healthz", interval = "100ms" }"#)
        .upstream("legacy", &format!("http://{}", kept.address))
        .route("kept", "/kept", "public")
        .route("gone", "/gone", "public")
        .on_route("upstream", "\"gone\"")
        .start()
        .await;
    let toml = gateway.site.toml();
    get(&gateway, "/kept", &[]).await.is(200);
    get(&gateway, "/gone", &[]).await.is(200);
    // The other moves to the first place: it is known by its name.
    let other = Upstream::start().await;
    let rest = toml.replace("\"gone\"", "\"next\"");
    let rest = rest.replace(&gone.address.to_string(), &other.address.to_string());
    load(&gateway, &rest).await;
    get(&gateway, "/kept", &[]).await.is(200);
    assert_eq!((kept.connections(), kept.open()), (1, 1));
    eventually("idle connections that are closed", async || {
        (gone.open() == 0).then_some(())
    })
    .await;
    let asked = gone.count();
    eventually("checks of the new one", async || {
        (other.count() > 2).then_some(())
    })
    .await;
    assert_eq!(gone.count(), asked, "nobody asks for its health");
    let healthy = |name: &str, at: &Upstream| {
        format!(
            "portcullis_upstream_healthy{{upstream=\"{name}\",server=\"{}\"}}",
            at.address
        )
    };
    eventually("a server that is gone", async || {
        gateway
            .metric(&healthy("gone", &gone))
            .await
            .is_none()
            .then_some(())
    })
    .await;
    assert_eq!(gateway.metric(&healthy("next", &other)).await, Some(1.0));
}

#[tokio::test]
async fn cfg_2_a_server_that_is_out_stays_out_when_its_upstream_changes() {
    let (well, ill) = (
        Upstream::start().await,
        Upstream::scripted(|_| Reply::with(500, &[], "ill")).await,
    );
    let gateway = Site::bare()
        .set("server", "workers", "1")
        .upstream("legacy", &format!("http://{}", well.address))
        .on_upstream(
            "servers",
            &format!("[\"http://{}\", \"http://{}\"]", well.address, ill.address),
        )
        .on_upstream("balance", "\"round_robin\"")
        .on_upstream(
            "health",
            r#"{ path = "/healthz", interval = "100ms", unhealthy = 2 }"#,
        )
        .route("public", "/public", "public")
        .start()
        .await;
    let series = format!(
        "portcullis_upstream_healthy{{upstream=\"legacy\",server=\"{}\"}}",
        ill.address
    );
    eventually("the server is out", async || {
        (gateway.metric(&series).await == Some(0.0)).then_some(())
    })
    .await;
    let next = gateway
        .site
        .toml()
        .replace("unhealthy = 2", "unhealthy = 1000");
    load(&gateway, &next).await;
    assert_eq!(gateway.metric(&series).await, Some(0.0));
    for _ in 0..6 {
        get(&gateway, "/public", &[]).await.is(200);
    }
    assert!(ill.seen().iter().all(|seen| seen.target == "/healthz"));
}

#[tokio::test]
async fn key_1_a_reload_fetches_no_keys_of_issuers_that_did_not_change() {
    let (x, y) = keys().ec.public_key_raw()[1..].split_at(32);
    let set = json!({"keys": [{"kty": "EC", "crv": "P-256", "use": "sig", "x": base64(x), "y": base64(y)}]});
    let provider = Upstream::scripted(move |_| Reply::ok(&set.to_string())).await;
    let upstream = Upstream::start().await;
    let gateway = Site::bare()
        .upstream("legacy", &format!("http://{}", upstream.address))
        .issuer(Kind::Hs)
        .issuer(Kind::Es)
        .off_issuer("public_key_file")
        .on_issuer("jwks_url", &format!("\"http://{}/keys\"", provider.address))
        .on_issuer("fetch", "{ refresh_min = \"1h\" }")
        .route("private", "/private", "authenticated")
        .start()
        .await;
    let toml = gateway.site.toml();
    let token = Token::new(Kind::Es).sign();
    let mut raw = Raw::connect(&gateway).await;
    assert_eq!(with_token(&mut raw, "/private", &token).await, 200);
    assert_eq!(provider.count(), 1);
    for round in 0..10 {
        // The other issuer changes, and with it who is believed.
        let next = toml.replacen(
            "leeway = \"0s\"",
            &format!("leeway = \"{}s\"", round + 1),
            1,
        );
        load(&gateway, &next).await;
        assert_eq!(with_token(&mut raw, "/private", &token).await, 200);
    }
    assert_eq!(provider.count(), 1, "its keys went on");
    // Gone, nobody believes it; back, it is asked anew.
    let place = toml.rfind("[[issuer]]").unwrap();
    let end = place + toml[place..].find("[[upstream]]").unwrap();
    let without = format!("{}{}", &toml[..place], &toml[end..]);
    load(&gateway, &without).await;
    assert_eq!(with_token(&mut raw, "/private", &token).await, 401);
    let series = "portcullis_jwks_keys{issuer=\"es\",state=\"usable\"}";
    assert_eq!(gateway.metric(series).await, None);
    load(&gateway, &toml).await;
    assert_eq!(with_token(&mut raw, "/private", &token).await, 200);
}

#[tokio::test]
async fn cfg_2_new_connections_are_made_under_the_new_terms() {
    let upstream = Upstream::start().await;
    let authority = Authority::new();
    let pair = authority.sign(&["new.example.com"]);
    let gateway = Site::new(upstream.address).start().await;
    let toml = gateway.site.toml();
    let mut old = Raw::connect(&gateway).await;
    old.exchange(request("GET", "/public", &[], ""))
        .await
        .is(200);
    gateway.site.put_pair("more", &pair);
    let next = toml
        .replace(
            "key = \"certs/site.key\" }]",
            "key = \"certs/site.key\" }, { cert = \"certs/more.crt\", key = \"certs/more.key\" }]",
        )
        .replace(
            "[tls]",
            "max_connections_per_ip = 2\n[server.limits]\nuri_bytes = \"1KiB\"\n[tls]",
        );
    load(&gateway, &next).await;
    let client = authority.client(ANY, &[b"http/1.1"], None);
    let stream = handshake(&gateway, &client, "new.example.com")
        .await
        .unwrap();
    assert_eq!(shown(&stream), pair.der);
    drop(stream);
    let ask = request("GET", "/public", &[], "");
    let mut second = eventually("a place for a second connection", async || {
        let mut raw = Raw::after(b"", &gateway).await.ok()?;
        raw.try_send(&ask).await.ok()?;
        raw.try_answer().await.ok().map(|_| raw)
    })
    .await;
    assert!(Raw::after(b"", &gateway).await.is_err(), "one too many");
    let long = request("GET", &format!("/public/{}", "x".repeat(2000)), &[], "");
    second.exchange(&ask).await.is(200);
    second.exchange(&long).await.refused(414, "uri_too_long");
    // The connection that was there before is still there.
    old.exchange(&ask).await.is(200);
    load(&gateway, &toml).await;
    old.exchange(&long).await.is(200);
}

/// Hundreds of versions leave nothing behind.
#[tokio::test]
async fn cfg_2_reloads_do_not_pile_up() {
    let upstream = Upstream::start().await;
    let gateway = Site::new(upstream.address).start().await;
    let toml = gateway.site.toml();
    let mut versions = 0;
    let mut run = async |rounds: usize| {
        for _ in 0..rounds {
            versions += 1;
            let next = toml
                .replace(
                    "servers",
                    &format!("idle_timeout = \"{}s\"\nservers", 60 + versions),
                )
                .replace("\"public\"", &format!("\"public-{versions}\""))
                .replace(
                    &format!("access = \"public-{versions}\""),
                    "access = \"public\"",
                );
            put(&gateway, &next);
            assert_eq!(post(&gateway).await.status, 200);
            get(&gateway, "/public", &[]).await.is(200);
        }
        tokio::time::sleep(Duration::from_millis(1500)).await;
        gateway.memory()
    };
    let before = run(60).await;
    let after = run(240).await;
    assert!(after < before + 24 * 1024, "{before} KiB, then {after} KiB");
    assert!(upstream.open() <= 2, "{} connections", upstream.open());
    let text = gateway.admin("/metrics").await.text();
    let series = text.lines().filter(|line| line.contains("route=\"public-"));
    assert!(series.count() < 40, "{text}");
}
