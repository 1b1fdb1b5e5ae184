//! Nonsense about where a request comes from, in `X-Forwarded-For` and in PROXY headers: nobody gets another client's address by it,
//! and what cannot be read leaves the address that the kernel saw (HDR-4, NET-10, RATE-1).

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::harness::{Gateway, H2, Raw, Site, Upstream, eventually, request, within};

/// The socket's peer in all of these.
const PEER: &str = "127.0.0.1";
const CLIENT: &str = "203.0.113.9";

/// The lines of one request, and whose it is where the peer is trusted.
fn lists() -> Vec<(Vec<String>, &'static str)> {
    let one = |line: &str, want| (vec![line.to_owned()], want);
    let unreadable = [
        "",
        ",",
        ", ,\t,",
        "a",
        "*",
        "unknown",
        "_hidden",
        "localhost",
        "for=203.0.113.9",
        "\"203.0.113.9\"",
        "203.0.113.9;proto=https",
        "203.0.113.9/32",
        "203.0.113.9 198.51.100.66",
        "203.0.113.9:",
        "203.0.113.9:65536",
        "203.0.113.9:-1",
        "203.0.113.256",
        "203.0.113.09",
        "203.0.113",
        "0xcb.0.113.9",
        "3405803785",
        "127.1",
        "fe80::1%eth0",
        "fe80::1%1",
        "[fe80::1%eth0]:443",
        "[fe80::1%25eth0]",
        "[2001:db8::7",
        "2001:db8::7]",
        "[[2001:db8::7]]",
        "[]",
        "[]:443",
        "[2001:db8::7]443",
        "[2001:db8::7]:65536",
        "2001:db8::7::1",
        "2001:db8:0:0:0:0:0:0:1",
        "::ffff:203.0.113.256",
        "203.0.113.9,",
        "203.0.113.9, a, 10.0.0.3, b",
        "203.0.113.9, \u{ff12}03.0.113.9",
    ];
    let mut lists: Vec<_> = unreadable.map(|line| one(line, PEER)).into();
    for (line, want) in [
        (" \t203.0.113.9\t ", CLIENT),
        ("203.0.113.9:0", CLIENT),
        ("203.0.113.9:65535", CLIENT),
        ("::ffff:203.0.113.9", CLIENT),
        ("::ffff:cb00:7109", CLIENT),
        ("[::ffff:203.0.113.9]:443", CLIENT),
        ("198.51.100.66, 203.0.113.9, ::ffff:10.0.0.3", CLIENT),
        ("198.51.100.66, 203.0.113.9, [::ffff:10.0.0.3]:1", CLIENT),
        ("[2001:db8::7]", "2001:db8::7"),
        ("[2001:DB8:0::0:7]:443", "2001:db8::7"),
        // The zone is one of another machine.
        ("[fe80::1%1]:443", "fe80::1"),
        ("203.0.113.9, a, 10.0.0.3", "10.0.0.3"),
        ("198.51.100.66, 127.0.0.1, 203.0.113.9", CLIENT),
    ] {
        lists.push(one(line, want));
    }
    let hops = ", 10.0.0.3".repeat(2000);
    lists.push(one(&format!("198.51.100.66, {CLIENT}{hops}"), CLIENT));
    lists.push(one(&format!("{CLIENT}, a{hops}"), "10.0.0.3"));
    lists.push(one(&format!("{CLIENT}{}", ",".repeat(20_000)), PEER));
    let several = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect();
    lists.push((several(&["198.51.100.66", CLIENT]), CLIENT));
    lists.push((several(&[CLIENT, "10.0.0.3"]), CLIENT));
    lists.push((several(&[CLIENT, ""]), PEER));
    lists.push((several(&[CLIENT, "a"]), PEER));
    let mut many = vec!["10.0.0.3"; 80];
    many[0] = CLIENT;
    lists.push((several(&many), CLIENT));
    lists
}

async fn gateway(upstream: &Upstream, trusted: &str) -> Gateway {
    Site::new(upstream.address)
        .set("server", "trusted_proxies", trusted)
        .set("rate_limit", "per_ip", r#"{ rate = "10000/s" }"#)
        .start()
        .await
}

/// Sends each list over both versions of HTTP and looks at whose request the upstream was told it is.
async fn ask_all(gateway: &Gateway, upstream: &Upstream, is_trusted: bool) {
    let mut raw = Raw::connect(gateway).await;
    let mut h2 = H2::connect(gateway).await;
    for (lines, client) in lists() {
        let want = if is_trusted { client } else { PEER };
        let fields: Vec<_> = lines
            .iter()
            .map(|line| ("X-Forwarded-For", line.as_str()))
            .collect();
        raw.exchange(request("GET", "/public", &fields, ""))
            .await
            .is(200);
        let mut all = vec![upstream.last()];
        // HTTP/2 has no room for so much, and no blanks around a value (RFC 9113 §8.2.1).
        if lines
            .iter()
            .all(|line| line.len() < 5000 && line.trim() == line)
        {
            h2.get("/public", &fields).await.is(200);
            all.push(upstream.last());
        }
        for seen in all {
            let shown = format!("{:.120?}", lines.join(" | "));
            assert_eq!(seen.head.values("x-real-ip"), [want], "{shown}");
            let chain = seen.head.values("x-forwarded-for");
            let [chain] = chain[..] else {
                panic!("{shown}: {chain:?}");
            };
            assert!(chain.ends_with(PEER), "{shown}: {chain:.200}");
            assert!(is_trusted || chain == PEER, "{shown}: {chain:.200}");
        }
    }
    upstream.saw_no_fault();
}

#[tokio::test]
async fn hdr_4_nonsense_of_a_trusted_proxy_ends_the_list_and_names_nobody() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream, r#"["127.0.0.0/8", "10.0.0.0/8"]"#).await;
    ask_all(&gateway, &upstream, true).await;
}

#[tokio::test]
async fn hdr_4_and_rate_1_nonsense_of_a_stranger_is_not_read_at_all() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream, r#"["10.0.0.0/8"]"#).await;
    ask_all(&gateway, &upstream, false).await;
}

#[tokio::test]
async fn rate_1_nonsense_renews_no_budget() {
    let upstream = Upstream::start().await;
    let gateway = Site::new(upstream.address)
        .set(
            "server",
            "trusted_proxies",
            r#"["127.0.0.0/8", "10.0.0.0/8"]"#,
        )
        .set("rate_limit", "per_ip", r#"{ rate = "1/1h", burst = 3 }"#)
        .start()
        .await;
    let mut raw = Raw::connect(&gateway).await;
    let mut passed = 0;
    // All of these are the peer's, whatever they look like.
    for (lines, _) in lists().into_iter().filter(|(_, client)| *client == PEER) {
        let fields: Vec<_> = lines
            .iter()
            .map(|line| ("X-Forwarded-For", line.as_str()))
            .collect();
        let answer = raw.exchange(request("GET", "/public", &fields, "")).await;
        if answer.status == 200 {
            passed += 1;
        } else {
            answer.refused(429, "rate_limited");
        }
    }
    assert_eq!((passed, upstream.count()), (3, 3));
}

#[tokio::test]
async fn msg_10_and_hdr_4_a_field_that_two_would_read_differently_is_refused() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream, r#"["127.0.0.0/8"]"#).await;
    for line in [
        &b"X-Forwarded-For: 203.0.113.9,\r\n 198.51.100.66"[..],
        b"X-Forwarded-For: 203.0.113.9\r\n\t, 198.51.100.66",
        b"X-Forwarded-For:\r\n 203.0.113.9",
        b"X-Forwarded-For : 203.0.113.9",
        b" X-Forwarded-For: 203.0.113.9",
        b"X-Forwarded-For: 203.0.113.9\0",
        b"X-Forwarded-For: 203.0.113.9\r, 198.51.100.66",
        b"X-Forwarded-For\x00: 203.0.113.9",
        b"X-Forwarded-For\t: 203.0.113.9",
    ] {
        let head = [
            b"GET /public HTTP/1.1\r\nHost: localhost\r\n",
            line,
            b"\r\n\r\n",
        ];
        let mut raw = Raw::connect(&gateway).await;
        let answer = raw.exchange(head.concat()).await;
        assert_eq!(answer.status, 400, "{}", line.escape_ascii());
    }
    upstream.saw_nothing();
    // Too many and too long are no reason to skip any of it.
    for (count, length) in [(101, 1), (1, 40_000)] {
        let line = format!("{CLIENT}{}", ",".repeat(length));
        let fields = vec![("X-Forwarded-For", &*line); count];
        let mut raw = Raw::connect(&gateway).await;
        let answer = raw.exchange(request("GET", "/public", &fields, "")).await;
        assert_eq!(answer.status, 431, "{count} of {length}");
    }
    upstream.saw_nothing();
    // Other spellings of the name are none of it, and reach nobody.
    for name in ["X_Forwarded_For", "X-Forwarded_For", "X.Forwarded.For"] {
        let mut raw = Raw::connect(&gateway).await;
        raw.exchange(request("GET", "/public", &[(name, CLIENT)], ""))
            .await
            .is(200);
        let seen = upstream.last();
        assert_eq!(seen.head.values("x-real-ip"), [PEER], "{name}");
        assert_eq!(seen.head.values("x-forwarded-for"), [PEER], "{name}");
        assert_eq!(seen.head.value(name).filter(|value| *value == CLIENT), None);
    }
    // Bytes that are no text.
    let head = b"GET /public HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 203.0.113.9, \xff\xfe\r\n\r\n";
    Raw::connect(&gateway).await.exchange(head).await.is(200);
    assert_eq!(upstream.last().head.values("x-real-ip"), [PEER]);
}

#[tokio::test]
async fn net_10_a_header_that_ends_too_soon_ends_the_connection() {
    let upstream = Upstream::start().await;
    let gateway = Site::new(upstream.address)
        .set("server", "trusted_proxies", r#"["127.0.0.0/8"]"#)
        .set("server", "proxy_protocol", "true")
        .start()
        .await;
    let v1 = b"PROXY TCP4 203.0.113.9 198.51.100.1 56324 443\r\n".to_vec();
    let mut v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    v2.extend([203, 0, 113, 9, 198, 51, 100, 1, 220, 4, 1, 187]);
    for header in [&v1, &v2] {
        for cut in 0..header.len() {
            let mut socket = TcpStream::connect(gateway.tls).await.unwrap();
            socket.write_all(&header[..cut]).await.unwrap();
            socket.shutdown().await.unwrap();
            let mut said = Vec::new();
            let _ = within("the end", socket.read_to_end(&mut said)).await;
            assert_eq!(said, b"", "{cut} of {}", header.escape_ascii());
        }
    }
    eventually("nobody is left", async || {
        let open = "portcullis_connections{listener=\"tls\"}";
        (gateway.metric(open).await == Some(0.0)).then_some(())
    })
    .await;
    upstream.saw_nothing();
    for header in [&v1, &v2] {
        let mut raw = Raw::after(header, &gateway).await.unwrap();
        raw.exchange(request("GET", "/public", &[], ""))
            .await
            .is(200);
        assert_eq!(upstream.last().head.values("x-real-ip"), [CLIENT]);
    }
}
