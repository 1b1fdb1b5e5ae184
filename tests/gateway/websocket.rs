//! WebSockets: which requests may become one, what goes through, and how it ends.

use std::sync::Arc;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::Notify,
};

use crate::harness::{
    Gateway, H2, Raw, Reply, Site, Step, Token, Upstream, eventually, get, keys, request,
    websocket::{KEY, accept, closed, expect, frame, handshake, mirror, open, switching},
    within,
};

fn site(upstream: &Upstream) -> Site {
    Site::new(upstream.address)
        .set("server", "workers", "1")
        .route("socket", "/socket", "public")
        .on_route("websocket", "true")
        .route("guarded", "/guarded", "authenticated")
        .on_route("websocket", "true")
        .on_route("cors", r#"{ origins = ["https://spa.example.com"] }"#)
        .route("open", "/open", "public")
        .on_route("websocket", "true")
        .on_route("cors", r#"{ origins = ["*"] }"#)
}

async fn gateway(upstream: &Upstream) -> Gateway {
    site(upstream).start().await
}

fn bearer() -> String {
    keys::bearer(&Token::good().sign())
}

/// A second request on the connection is one like any other: whatever was said of the first, it needs a token.
async fn is_still_http(raw: &mut Raw) {
    raw.exchange(request("GET", "/guarded", &[], ""))
        .await
        .refused(401, "credentials_missing");
}

#[tokio::test]
async fn msg_3_a_websocket_carries_bytes_both_ways() {
    let upstream = Upstream::scripted(mirror).await;
    let gateway = gateway(&upstream).await;
    let mut raw = Raw::connect(&gateway).await;
    let token = bearer();
    let fields = [
        ("Authorization", token.as_str()),
        ("X-Forwarded-User", "root"),
        ("Sec-WebSocket-Protocol", "chat"),
    ];
    open(&mut raw, "/guarded/a?b=c", &fields).await;
    assert_eq!(gateway.metric("portcullis_tunnels").await, Some(1.0));
    let seen = upstream.last();
    assert_eq!(seen.target, "/guarded/a?b=c");
    assert_eq!(seen.header("connection"), Some("upgrade"));
    assert_eq!(seen.header("upgrade"), Some("websocket"));
    assert_eq!(seen.header("sec-websocket-key"), Some(KEY));
    assert_eq!(seen.header("sec-websocket-protocol"), Some("chat"));
    assert_eq!(seen.header("sec-websocket-version"), Some("13"));
    assert_eq!(seen.header("authorization"), None);
    assert_ne!(seen.header("x-forwarded-user"), Some("root"));
    assert!(seen.header("x-forwarded-user").is_some());
    for bytes in [frame(1, b"hello"), vec![0; 100], frame(2, b"")] {
        raw.send(&bytes).await;
        expect(&mut raw, &bytes).await;
    }
    drop(raw);
    let line = gateway.access_line(|line| line["status"] == 101).await;
    assert_eq!(line["bytes_in"], 109, "{line}");
    assert_eq!(line["bytes_out"], 109, "{line}");
    assert_eq!(line["route"], "guarded");
    eventually("no tunnel", async || {
        (gateway.metric("portcullis_tunnels").await == Some(0.0)).then_some(())
    })
    .await;
    upstream
        .until("the end at the upstream", |upstream| upstream.open() == 0)
        .await;
    assert_eq!(upstream.last().body_length, 109);
}

#[tokio::test]
async fn msg_3_no_byte_goes_further_before_the_upstream_has_agreed() {
    let agree = Arc::new(Notify::new());
    let signal = Arc::clone(&agree);
    let upstream = Upstream::scripted(move |seen| {
        let until = Step::Until(Arc::clone(&signal));
        Reply(vec![until, Step::Send(switching(seen)), Step::Mirror])
    })
    .await;
    let gateway = gateway(&upstream).await;
    let mut raw = Raw::connect(&gateway).await;
    let mut bytes = handshake("/socket", &[]).into_bytes();
    bytes.extend(b"early");
    raw.send(&bytes).await;
    upstream.request(1).await;
    // A whole other exchange goes by meanwhile.
    get(&gateway, "/guarded", &[])
        .await
        .refused(401, "credentials_missing");
    assert_eq!(upstream.last().body_length, 0);
    agree.notify_one();
    assert!(raw.head().await.start.starts_with("HTTP/1.1 101"));
    expect(&mut raw, b"early").await;
    upstream.saw_no_fault();
}

#[tokio::test]
async fn msg_3_another_status_leaves_the_connection_http() {
    let upstream = Upstream::scripted(|_| Reply::ok("not a socket")).await;
    let gateway = gateway(&upstream).await;
    let mut raw = Raw::connect(&gateway).await;
    let inner = request("GET", "/guarded/inner", &[], "");
    raw.send(format!("{}{inner}", handshake("/socket", &[])))
        .await;
    let answer = raw.answer().await;
    assert_eq!(answer.is(200).text(), "not a socket");
    assert_eq!(answer.header("upgrade"), None);
    raw.answer().await.refused(401, "credentials_missing");
    is_still_http(&mut raw).await;
    assert_eq!(upstream.count(), 1, "what was sent ahead is no data");
    // The upstream's connection is not used again.
    upstream
        .until("its connection to end", |upstream| upstream.open() == 0)
        .await;
    get(&gateway, "/socket", &[]).await.is(200);
    get(&gateway, "/socket", &[]).await.is(200);
    assert_eq!(upstream.connections(), 2);
    upstream.saw_no_fault();
}

#[tokio::test]
async fn msg_3_a_101_that_answers_nothing_is_502() {
    let good = accept(KEY);
    let other = accept("AAAAAAAAAAAAAAAAAAAAAA==");
    let answers = [
        format!("Connection: upgrade\r\nUpgrade: foo\r\nSec-WebSocket-Accept: {good}\r\n"),
        format!("Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {other}\r\n"),
        "Connection: upgrade\r\nUpgrade: websocket\r\n".to_owned(),
        format!("Sec-WebSocket-Accept: {good}\r\n"),
    ];
    let next = std::sync::atomic::AtomicUsize::new(0);
    let scripts = answers.clone();
    let upstream = Upstream::scripted(move |_| {
        let index = next.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let fields = &scripts[index % scripts.len()];
        let head = format!("HTTP/1.1 101 Switching Protocols\r\n{fields}\r\n");
        Reply(vec![Step::Send(head.into_bytes()), Step::Mirror])
    })
    .await;
    let gateway = gateway(&upstream).await;
    for _ in &answers {
        let mut raw = Raw::connect(&gateway).await;
        let bytes = handshake("/socket", &[]);
        raw.exchange(bytes).await.refused(502, "upstream_invalid");
        is_still_http(&mut raw).await;
    }
    // Nobody asked, so nothing is the right answer.
    for fields in [&[][..], &[("Upgrade", "foo"), ("Connection", "upgrade")]] {
        get(&gateway, "/socket", fields)
            .await
            .refused(502, "upstream_invalid");
    }
    upstream
        .until("the connections to end", |upstream| upstream.open() == 0)
        .await;
    assert!(upstream.seen().iter().all(|seen| seen.body_length == 0));
}

#[tokio::test]
async fn msg_3_what_is_no_clear_handshake_is_refused_or_an_ordinary_request() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let upgrade = [("Upgrade", "websocket"), ("Connection", "upgrade")];
    let key = ("Sec-WebSocket-Key", KEY);
    for bytes in [
        request("POST", "/socket", &[upgrade[0], upgrade[1], key], "body"),
        request("GET", "/socket", &[upgrade[0], upgrade[1], key], "body"),
        request("POST", "/socket", &[upgrade[0], upgrade[1], key], ""),
        request("GET", "/socket", &upgrade, ""),
    ] {
        let mut raw = Raw::connect(&gateway).await;
        raw.exchange(bytes).await.refused(400, "bad_request");
    }
    upstream.saw_nothing();
    for fields in [
        [("Upgrade", "foo"), upgrade[1], key],
        [("Upgrade", "h2c, websocket"), upgrade[1], key],
        [upgrade[0], ("Connection", "keep-alive"), key],
    ] {
        get(&gateway, "/socket", &fields).await.is(200);
        assert_eq!(upstream.last().header("upgrade"), None);
        assert_eq!(upstream.last().header("connection"), None);
    }
    // A route that opens none.
    let mut raw = Raw::connect(&gateway).await;
    raw.exchange(handshake("/public", &[])).await.is(200);
    assert_eq!(upstream.last().header("upgrade"), None);
    is_still_http(&mut raw).await;
}

#[tokio::test]
async fn up_7_a_foreign_origin_is_403() {
    let upstream = Upstream::scripted(mirror).await;
    let gateway = gateway(&upstream).await;
    let token = bearer();
    let authorization = ("Authorization", token.as_str());
    for (target, origin) in [
        ("/guarded", "https://evil.example.com"),
        ("/guarded", "http://localhost"),
        ("/guarded", "https://localhost:8443"),
        ("/guarded", "null"),
        ("/socket", "https://spa.example.com"),
        ("/open", "https://evil.example.com"),
    ] {
        let mut raw = Raw::connect(&gateway).await;
        raw.exchange(handshake(target, &[("Origin", origin), authorization]))
            .await
            .refused(403, "origin_denied");
    }
    let mut raw = Raw::connect(&gateway).await;
    raw.exchange(handshake("/guarded", &[("Origin", "https://localhost")]))
        .await
        .refused(401, "credentials_missing");
    upstream.saw_nothing();
    for origin in ["https://localhost", "https://spa.example.com"] {
        let mut raw = Raw::connect(&gateway).await;
        open(&mut raw, "/guarded", &[("Origin", origin), authorization]).await;
        assert_eq!(upstream.last().header("origin"), Some(origin));
    }
}

#[tokio::test]
async fn up_7_a_silent_websocket_is_closed() {
    let upstream = Upstream::scripted(mirror).await;
    let gateway = site(&upstream)
        .route("hasty", "/hasty", "public")
        .on_route("websocket", "true")
        .on_route("idle_timeout", "\"1s\"")
        .start()
        .await;
    let mut raw = Raw::connect(&gateway).await;
    open(&mut raw, "/hasty", &[]).await;
    assert_eq!(closed(&mut raw).await, 1001);
    let line = gateway.access_line(|line| line["status"] == 101).await;
    assert_eq!(line["ending"], "idle");
    upstream
        .until("the end at the upstream", |upstream| upstream.open() == 0)
        .await;
}

#[tokio::test]
async fn net_4_the_deadlines_of_requests_do_not_end_a_websocket() {
    let upstream = Upstream::scripted(mirror).await;
    let gateway = site(&upstream)
        .set(
            "server",
            "timeouts",
            r#"{ header = "1s", keep_alive = "1s", body_idle = "1s" }"#,
        )
        .route("short", "/short", "public")
        .on_route("websocket", "true")
        .on_route("timeout", "\"1s\"")
        .start()
        .await;
    let mut raw = Raw::connect(&gateway).await;
    open(&mut raw, "/short", &[]).await;
    // The first byte of what would be a head, and then nothing for longer than any deadline.
    raw.send(&frame(1, b"a")[..1]).await;
    expect(&mut raw, &frame(1, b"a")[..1]).await;
    tokio::time::sleep(std::time::Duration::from_millis(2500)).await;
    raw.send(&frame(1, b"a")[1..]).await;
    expect(&mut raw, &frame(1, b"a")[1..]).await;
}

#[tokio::test]
async fn cfg_3_a_websocket_is_told_that_the_gateway_leaves() {
    let upstream = Upstream::scripted(mirror).await;
    let mut gateway = site(&upstream)
        .set("server", "drain_timeout", "\"20s\"")
        .start()
        .await;
    let mut raw = Raw::connect(&gateway).await;
    open(&mut raw, "/socket", &[]).await;
    raw.send(frame(1, b"a")).await;
    expect(&mut raw, &frame(1, b"a")).await;
    let begun = std::time::Instant::now();
    gateway.signal("TERM");
    assert_eq!(closed(&mut raw).await, 1001);
    assert!(gateway.exit().await.success());
    assert!(begun.elapsed() < std::time::Duration::from_secs(18));
    let line = gateway.access_line(|line| line["status"] == 101).await;
    assert_eq!(line["ending"], "drained");
    assert_eq!(line["bytes_in"], 3);
}

#[tokio::test]
async fn cfg_3_a_websocket_within_a_frame_ends_at_the_drain_deadline() {
    let upstream = Upstream::scripted(mirror).await;
    let mut gateway = site(&upstream)
        .set("server", "drain_timeout", "\"1s\"")
        .start()
        .await;
    let mut raw = Raw::connect(&gateway).await;
    open(&mut raw, "/socket", &[]).await;
    raw.send(&frame(1, b"abc")[..3]).await;
    expect(&mut raw, &frame(1, b"abc")[..3]).await;
    gateway.signal("TERM");
    assert_eq!(raw.rest().await, b"", "nothing is put into a frame");
    assert!(gateway.exit().await.success());
}

#[tokio::test]
async fn msg_4_a_websocket_over_http_2_has_its_own_connection() {
    let upstream = Upstream::scripted(mirror).await;
    let gateway = gateway(&upstream).await;
    let mut h2 = H2::connect(&gateway).await;
    // The gateway's settings have come with the first answer.
    h2.get("/guarded", &[])
        .await
        .refused(401, "credentials_missing");
    let token = keys::bearer(&Token::good().sign());
    let fields = [
        ("authorization", token.as_str()),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", KEY),
        ("origin", "https://localhost"),
    ];
    let (head, stream) = h2.connect_to("websocket", "/guarded/a?b=c", &fields).await;
    assert_eq!(head.status, 200);
    for name in ["sec-websocket-accept", "upgrade", "connection"] {
        assert!(!head.headers.contains_key(name), "{name}");
    }
    let seen = upstream.last();
    assert_eq!((&*seen.method, &*seen.target), ("GET", "/guarded/a?b=c"));
    assert_eq!(seen.header("host"), Some("localhost"));
    assert_eq!(seen.header("upgrade"), Some("websocket"));
    assert_eq!(seen.header("connection"), Some("upgrade"));
    assert_ne!(seen.header("sec-websocket-key"), Some(KEY));
    assert_eq!(seen.header("authorization"), None);
    assert!(seen.header("x-forwarded-user").is_some());
    let mut stream = stream.unwrap();
    let mut others = Vec::new();
    for round in 0..3 {
        let bytes = frame(2, &[round; 50]);
        stream.write_all(&bytes).await.unwrap();
        let mut got = vec![0; bytes.len()];
        within("an echo", stream.read_exact(&mut got))
            .await
            .unwrap();
        assert_eq!(got, bytes);
        // Other streams of the connection are not disturbed.
        others.push(h2.get("/guarded", &[]).await.status);
    }
    assert_eq!(others, [401; 3]);
    assert_eq!(upstream.connections(), 1);
    stream.shutdown().await.unwrap();
    let line = gateway
        .access_line(|line| line["protocol"] == "HTTP/2.0" && line["status"] == 200)
        .await;
    assert_eq!(
        (&line["bytes_in"], &line["bytes_out"]),
        (&156.into(), &156.into())
    );
    assert_eq!(line["ending"], "complete");
    upstream
        .until("the end at the upstream", |upstream| upstream.open() == 0)
        .await;
}

#[tokio::test]
async fn msg_4_no_other_connect_is_served() {
    let upstream = Upstream::scripted(mirror).await;
    let gateway = gateway(&upstream).await;
    let mut h2 = H2::connect(&gateway).await;
    h2.get("/guarded", &[])
        .await
        .refused(401, "credentials_missing");
    for (protocol, target, status) in [
        ("connect-udp", "/socket", 405),
        ("WebSocket", "/socket", 405),
        ("websocket", "/public", 405),
        ("websocket", "/nowhere", 404),
        ("websocket", "/guarded", 401),
    ] {
        let (head, _) = h2.connect_to(protocol, target, &[]).await;
        assert_eq!(head.status, status, "{protocol} {target}");
    }
    let origin = [("origin", "https://evil.example.com")];
    let (head, _) = h2.connect_to("websocket", "/socket", &origin).await;
    assert_eq!(head.status, 403);
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn msg_4_what_is_no_101_opens_no_stream() {
    let upstream = Upstream::scripted(|seen| match &*seen.target {
        "/socket/no" => Reply::with(403, &[], "no"),
        "/socket/wrong" => Reply::raw(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n",
        ),
        _ => Reply::ok("not a socket"),
    })
    .await;
    let gateway = gateway(&upstream).await;
    let mut h2 = H2::connect(&gateway).await;
    h2.get("/guarded", &[])
        .await
        .refused(401, "credentials_missing");
    for (target, status) in [
        ("/socket", 502),
        ("/socket/wrong", 502),
        ("/socket/no", 403),
    ] {
        let (head, _) = h2.connect_to("websocket", target, &[]).await;
        assert_eq!(head.status, status, "{target}");
    }
    upstream
        .until("the connections to end", |upstream| upstream.open() == 0)
        .await;
}

#[tokio::test]
async fn cfg_3_a_websocket_over_http_2_is_told_that_the_gateway_leaves() {
    let upstream = Upstream::scripted(mirror).await;
    let mut gateway = site(&upstream)
        .set("server", "drain_timeout", "\"20s\"")
        .start()
        .await;
    let mut h2 = H2::connect(&gateway).await;
    h2.get("/guarded", &[])
        .await
        .refused(401, "credentials_missing");
    let (_, stream) = h2.connect_to("websocket", "/socket", &[]).await;
    gateway.signal("TERM");
    let mut rest = Vec::new();
    let mut stream = stream.unwrap();
    within("the end", stream.read_to_end(&mut rest))
        .await
        .unwrap();
    assert_eq!(
        rest[..4],
        [0x88, u8::try_from(rest.len() - 2).unwrap(), 0x03, 0xe9]
    );
    assert!(gateway.exit().await.success());
}
