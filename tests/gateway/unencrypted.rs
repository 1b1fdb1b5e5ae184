//! The listener without TLS: it sends browsers on, and does nothing else for anybody.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::harness::{
    Answer, Gateway, Raw, Site, Token, Upstream, eventually, get, keys::bearer, request, within,
};

const PAYLOADS: &str = include_str!("../../src/policy/redirect/payloads.txt");

fn site(upstream: &Upstream) -> Site {
    Site::new(upstream.address)
        .set("server", "redirect_listen", r#"["127.0.0.1:0"]"#)
        .set("server", "public_url", r#""https://app.example.com:8443""#)
        .accounts()
}

async fn start(upstream: &Upstream) -> (Gateway, SocketAddr) {
    let gateway = site(upstream).start().await;
    let address = gateway.listener("redirect").await;
    (gateway, address)
}

async fn ask(address: SocketAddr, bytes: impl AsRef<[u8]>) -> Answer {
    let mut raw = Raw::plain(address).await;
    let answer = raw.exchange(bytes).await;
    assert!(raw.rest().await.is_empty(), "one answer, and the end");
    answer
}

#[tokio::test]
async fn net_11_whatever_is_no_navigation_is_refused() {
    let upstream = Upstream::start().await;
    let (gateway, address) = start(&upstream).await;
    let token = bearer(&Token::good().sign());
    let basic = ("Authorization", "Basic dTpw");
    let json = ("Accept", "application/json");
    let image = ("Accept", "image/avif,image/webp;q=0.9");
    type Fields<'f> = &'f [(&'f str, &'f str)];
    let cases: [(&str, &str, Fields<'_>, &str); 20] = [
        ("POST", "/public", &[], "a=b"),
        (
            "POST",
            "/auth/login",
            &[("Content-Type", "application/json")],
            "{}",
        ),
        ("PUT", "/public", &[], "x"),
        ("DELETE", "/public", &[], ""),
        ("PATCH", "/public", &[], ""),
        ("OPTIONS", "/public", &[], ""),
        ("PROPFIND", "/public", &[], ""),
        ("GET", "/private", &[("Authorization", &token)], ""),
        ("GET", "/public", &[basic], ""),
        ("HEAD", "/public", &[basic], ""),
        (
            "GET",
            "/public",
            &[("Proxy-Authorization", "Basic dTpw")],
            "",
        ),
        ("GET", "/public", &[json], ""),
        ("GET", "/public", &[image], ""),
        ("GET", "/public", &[("Accept", "")], ""),
        ("GET", "/auth/login", &[], ""),
        ("GET", "/auth/me", &[], ""),
        ("GET", "/auth", &[], ""),
        ("GET", "/.well-known/jwks.json", &[], ""),
        ("GET", "/.well-known/openid-configuration", &[], ""),
        ("GET", "/nowhere", &[], ""),
    ];
    for (method, target, fields, body) in cases {
        let mut raw = Raw::plain(address).await;
        raw.send(request(method, target, fields, body)).await;
        if method == "HEAD" {
            assert_eq!(raw.answer_to_head().await.status, 403);
            continue;
        }
        let answer = raw.answer().await;
        answer.refused(403, "https_required");
        assert!(raw.rest().await.is_empty());
        assert_eq!(answer.header("location"), None);
        assert_eq!(answer.header("www-authenticate"), None);
    }
    for method in ["TRACE", "CONNECT"] {
        let answer = ask(address, request(method, "/public", &[], "")).await;
        assert!(matches!(answer.status, 400 | 405), "{answer:?}");
    }
    upstream.saw_nothing();
    for line in gateway.out.all() {
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["route"], "redirect", "no exchange of a route: {line}");
    }
}

#[tokio::test]
async fn what_comes_without_tls_is_counted_and_logged_without_secrets() {
    let upstream = Upstream::start().await;
    let (gateway, address) = start(&upstream).await;
    ask(address, request("GET", "/public/a?token=s3cr3t", &[], ""))
        .await
        .is(308);
    let basic = [("Authorization", "Basic czNjcjN0")];
    let answer = ask(address, request("POST", "/private", &basic, "s3cr3t")).await;
    answer.refused(403, "https_required");
    let sent_on = gateway.access_line(|line| line["status"] == 308).await;
    let refused = gateway.access_line(|line| line["status"] == 403).await;
    for (line, method, path) in [
        (&sent_on, "GET", "/public/a"),
        (&refused, "POST", "/private"),
    ] {
        assert_eq!(line["route"], "redirect", "{line}");
        assert_eq!(line["method"], method, "{line}");
        assert_eq!(line["path"], path, "{line}");
        assert_eq!(line["host"], "localhost", "{line}");
        assert_eq!(line["ending"], "complete", "{line}");
        assert_eq!(line["client"], "127.0.0.1", "{line}");
    }
    assert_eq!(refused["code"], "https_required", "{refused}");
    // The answer names the line.
    let id = refused["request_id"].as_str().unwrap();
    assert!(answer.text().contains(id), "{answer:?} {id}");
    let out = gateway.out.text();
    assert!(
        !out.contains("s3cr3t") && !out.contains("czNjcjN0"),
        "{out}"
    );
    for (series, want) in [
        (
            "portcullis_requests_total{route=\"redirect\",method=\"GET\",status=\"308\"}",
            1.0,
        ),
        (
            "portcullis_decisions_total{route=\"redirect\",code=\"https_required\"}",
            1.0,
        ),
    ] {
        assert_eq!(gateway.metric(series).await, Some(want), "{series}");
    }
    upstream.saw_nothing();
}

#[tokio::test]
async fn net_11_browsers_are_sent_to_the_configured_host_alone() {
    let upstream = Upstream::start().await;
    let (_gateway, address) = start(&upstream).await;
    let html = "text/html,application/xhtml+xml,*/*;q=0.8";
    for host in [
        "localhost",
        "evil.example",
        "evil.example:80",
        "[::1]:80",
        "APP.example.com",
    ] {
        for fields in [
            &[("Host", host)][..],
            &[("Host", host), ("Accept", html)],
            &[("Host", host), ("Accept", "*/*")],
            &[("Host", host), ("X-Forwarded-Host", "evil.example")],
            &[("Host", host), ("Cookie", "a=b")],
        ] {
            let answer = ask(address, request("GET", "/public//%61?b=c&d", fields, "")).await;
            let location = answer.is(308).header("location");
            assert_eq!(
                location,
                Some("https://app.example.com:8443/public/a?b=c&d")
            );
            assert_eq!(answer.header("strict-transport-security"), None);
            assert_eq!(answer.header("cache-control"), Some("no-store"));
        }
    }
    let absolute = request(
        "GET",
        "http://evil.example/private",
        &[("Host", "evil.example")],
        "",
    );
    let answer = ask(address, absolute).await;
    let location = answer.is(308).header("location");
    assert_eq!(location, Some("https://app.example.com:8443/private"));
    let mut raw = Raw::plain(address).await;
    raw.send(request("HEAD", "/private", &[], "")).await;
    let answer = raw.answer_to_head().await;
    assert_eq!(answer.status, 308);
    // One request for each connection: what follows is not looked at.
    let two = request("GET", "/public/1", &[], "").repeat(2);
    ask(address, two).await.is(308);
    upstream.saw_nothing();
}

#[tokio::test]
async fn net_11_answers_over_tls_say_so_for_a_year() {
    let upstream = Upstream::start().await;
    let (gateway, _) = start(&upstream).await;
    let answer = get(&gateway, "/public", &[]).await;
    let hsts = answer.header("strict-transport-security").unwrap();
    let age = hsts
        .split(';')
        .next()
        .unwrap()
        .strip_prefix("max-age=")
        .unwrap();
    assert!(age.parse::<u64>().unwrap() >= 31_536_000, "{hsts}");
}

#[tokio::test]
async fn uri_6_no_payload_turns_a_redirect_elsewhere() {
    let upstream = Upstream::start().await;
    let gateway = site(&upstream).route("all", "/", "public").start().await;
    let address = gateway.listener("redirect").await;
    let (mut asked, mut sent_on) = (0, 0);
    for line in PAYLOADS.lines().filter(|line| !line.starts_with("# ")) {
        let payload = line.replace("\\\\", "\\").replace("\\t", "\t");
        for target in [
            payload.clone(),
            format!("/{payload}"),
            format!("/a?next={payload}"),
        ] {
            if target.contains("\\r") || target.contains("\\n") || target.contains("\\0") {
                continue;
            }
            let mut raw = Raw::plain(address).await;
            raw.send(request("GET", &target, &[], "")).await;
            asked += 1;
            let Ok(answer) = raw.try_answer().await else {
                continue;
            };
            match answer.header("location") {
                None => assert!(answer.status >= 400, "{target:?}: {answer:?}"),
                Some(location) => {
                    let rest = location.strip_prefix("https://app.example.com:8443/");
                    let rest = rest.unwrap_or_else(|| panic!("{target:?}: {location}"));
                    assert!(!rest.starts_with(['/', '\\']), "{target:?}: {location}");
                    sent_on += 1;
                }
            }
        }
    }
    // Some are honest in a query, or where a slash goes before them.
    assert!(
        asked > 400 && sent_on > 100,
        "{asked} asked, {sent_on} sent on"
    );
    upstream.saw_nothing();
}

#[tokio::test]
async fn net_4_and_net_11_a_slow_head_without_tls_ends_at_the_deadline() {
    let upstream = Upstream::start().await;
    let gateway = site(&upstream)
        .set("server.timeouts", "header", "\"400ms\"")
        .start()
        .await;
    let address = gateway.listener("redirect").await;
    for start in ["", "GET / HTTP/1.1\r\nHost: localhost\r\nX: "] {
        let mut raw = Raw::plain(address).await;
        let begun = Instant::now();
        raw.send(start).await;
        assert_eq!(raw.answer().await.status, 408);
        assert!(raw.rest().await.is_empty());
        assert!(begun.elapsed() < Duration::from_secs(8));
    }
    // Byte by byte extends nothing.
    let mut socket = TcpStream::connect(address).await.unwrap();
    let (mut reading, mut writing) = socket.split();
    let drip = async {
        loop {
            if writing.write_all(b"G").await.is_err() {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let mut said = Vec::new();
    within("the end of the connection", async {
        tokio::select! {
            _ = reading.read_to_end(&mut said) => {}
            () = drip => {}
        }
    })
    .await;
    // A body is not waited for.
    let declared = request("POST", "/public", &[("Content-Length", "1000000")], "");
    ask(address, declared).await.refused(403, "https_required");
    eventually("nobody is left", async || {
        let open = "portcullis_connections{listener=\"redirect\"}";
        (gateway.metric(open).await == Some(0.0)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn net_2_and_net_11_connections_without_tls_take_no_place_of_others() {
    let upstream = Upstream::start().await;
    let gateway = site(&upstream)
        .set("server", "max_connections", "40")
        .set("server", "max_connections_per_ip", "30")
        .set("server", "workers", "1")
        .start()
        .await;
    let address = gateway.listener("redirect").await;
    let mut held = Vec::new();
    for _ in 0..60 {
        held.push(TcpStream::connect(address).await.unwrap());
    }
    eventually("as many as may", async || {
        let open = "portcullis_connections{listener=\"redirect\"}";
        (gateway.metric(open).await == Some(3.0)).then_some(())
    })
    .await;
    get(&gateway, "/public", &[]).await.is(200);
    drop(held);
    eventually("a free place", async || {
        let mut raw = Raw::plain(address).await;
        raw.send(request("GET", "/public", &[], "")).await;
        (raw.try_answer().await.ok()?.status == 308).then_some(())
    })
    .await;
}

#[tokio::test]
async fn msg_8_a_head_without_tls_is_small() {
    let upstream = Upstream::start().await;
    let (_gateway, address) = start(&upstream).await;
    let long = format!("/public?{}", "a".repeat(5000));
    ask(address, request("GET", &long, &[], ""))
        .await
        .refused(414, "uri_too_long");
    let many: Vec<_> = (0..70).map(|_| ("X-A", "b")).collect();
    ask(address, request("GET", "/public", &many, ""))
        .await
        .refused(431, "headers_too_large");
    let huge = "a".repeat(20_000);
    let mut raw = Raw::plain(address).await;
    raw.send(request("GET", "/public", &[("X", &huge)], ""))
        .await;
    if let Ok(answer) = raw.try_answer().await {
        assert_eq!(answer.status, 431);
    }
    upstream.saw_nothing();
}

#[tokio::test]
async fn rate_1_redirects_are_limited_like_other_requests() {
    let upstream = Upstream::start().await;
    let gateway = site(&upstream)
        .set("rate_limit", "per_ip", r#"{ rate = "1/1h", burst = 2 }"#)
        .start()
        .await;
    let address = gateway.listener("redirect").await;
    for _ in 0..2 {
        ask(address, request("GET", "/public", &[], ""))
            .await
            .is(308);
    }
    let forged = [("X-Forwarded-For", "192.0.2.66")];
    ask(address, request("GET", "/public", &forged, ""))
        .await
        .refused(429, "rate_limited");
}
