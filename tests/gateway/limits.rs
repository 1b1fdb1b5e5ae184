//! Who asks too often: charged to the address that was decided, whatever a client says of itself.

use crate::harness::{Answer, Gateway, H2, Raw, Site, Token, Upstream, get, keys::bearer, request};

/// Sends this many requests on one connection and counts those that were limited.
async fn limited(gateway: &Gateway, count: usize, field: impl Fn(usize) -> String) -> usize {
    let mut raw = Raw::connect(gateway).await;
    let mut limited = 0;
    for number in 0..count {
        let from = field(number);
        let answer = raw
            .exchange(request("GET", "/public", &[("X-Forwarded-For", &from)], ""))
            .await;
        match answer.status {
            200 => {}
            429 => limited += 1,
            other => panic!("{from}: {other}"),
        }
    }
    limited
}

/// So slow a rate that nothing is renewed while a test runs.
fn slow(burst: usize) -> String {
    format!("{{ rate = \"1/1h\", burst = {burst} }}")
}

#[tokio::test]
async fn rate_1_naming_other_addresses_renews_no_budget() {
    let upstream = Upstream::start().await;
    let gateway = Site::new(upstream.address)
        .set("rate_limit", "per_ip", &slow(5))
        .start()
        .await;
    assert_eq!(
        limited(&gateway, 50, |n| format!("203.0.113.{n}")).await,
        45
    );
    for name in [
        "X-Real-IP",
        "Forwarded",
        "True-Client-IP",
        "CF-Connecting-IP",
        "X-Client-IP",
        "X-Cluster-Client-IP",
    ] {
        get(&gateway, "/public", &[(name, "203.0.113.200")])
            .await
            .refused(429, "rate_limited");
    }
    assert_eq!(upstream.count(), 5);
    let mut h2 = H2::connect(&gateway).await;
    h2.get("/public", &[("x-forwarded-for", "203.0.113.201")])
        .await
        .refused(429, "rate_limited");
    // Whatever the route says, and whether there is a route or not.
    for target in ["/private", "/nowhere"] {
        get(
            &gateway,
            target,
            &[("Authorization", &bearer(&Token::good().sign()))],
        )
        .await
        .refused(429, "rate_limited");
    }
}

#[tokio::test]
async fn rate_1_behind_a_trusted_proxy_each_client_has_a_budget() {
    let upstream = Upstream::start().await;
    let gateway = Site::new(upstream.address)
        .set("server", "trusted_proxies", r#"["127.0.0.1/32"]"#)
        .set("rate_limit", "per_ip", &slow(3))
        .start()
        .await;
    assert_eq!(limited(&gateway, 10, |_| "203.0.113.1".into()).await, 7);
    assert_eq!(limited(&gateway, 3, |_| "203.0.113.2".into()).await, 0);
    // What stands left of a stranger is the stranger's own word.
    assert_eq!(
        limited(&gateway, 10, |n| format!("198.51.100.{n}, 203.0.113.3")).await,
        7
    );
    assert_eq!(
        limited(&gateway, 10, |n| format!("garbage{n}, 203.0.113.4")).await,
        7
    );
}

#[tokio::test]
async fn hdr_4_forwarded_is_never_believed_beside_or_without_the_field_that_is() {
    let upstream = Upstream::start().await;
    let gateway = Site::new(upstream.address)
        .set("server", "trusted_proxies", r#"["127.0.0.1/32"]"#)
        .start()
        .await;
    let forged = "for=192.0.2.66;proto=http;host=evil.example";
    for (fields, client) in [
        (&[("Forwarded", forged)][..], "127.0.0.1"),
        (
            &[("Forwarded", forged), ("X-Forwarded-For", "203.0.113.1")],
            "203.0.113.1",
        ),
        (
            &[("X-Forwarded-For", "203.0.113.1, a"), ("Forwarded", forged)],
            "127.0.0.1",
        ),
    ] {
        get(&gateway, "/public", fields).await.is(200);
        let seen = upstream.last();
        assert_eq!(seen.header("x-real-ip"), Some(client));
        assert_eq!(seen.header("x-forwarded-proto"), Some("https"));
        assert_eq!(seen.header("x-forwarded-host"), Some("localhost"));
        assert_eq!(seen.header("forwarded"), None);
    }
}

#[tokio::test]
async fn hdr_4_where_forwarded_is_believed_the_other_field_never_is() {
    let upstream = Upstream::start().await;
    let gateway = Site::new(upstream.address)
        .set("server", "trusted_proxies", r#"["127.0.0.1/32"]"#)
        .set("server", "forwarded_headers", r#""forwarded""#)
        .start()
        .await;
    let forged = [
        ("X-Forwarded-For", "192.0.2.66"),
        ("X-Forwarded-Proto", "http"),
        ("X-Forwarded-Host", "evil.example"),
    ];
    for (line, client, host) in [
        (None, "127.0.0.1", "localhost"),
        (Some("for=\""), "127.0.0.1", "localhost"),
        (
            Some("for=192.0.2.66;host=far.example, for=\"[2001:db8::1]:4711\";proto=https"),
            "2001:db8::1",
            "localhost",
        ),
        (
            Some("for=\"192.0.2.66, for=203.0.113.1;host=app.example;proto=https"),
            "203.0.113.1",
            "app.example",
        ),
        (
            Some("for=203.0.113.1, for=unknown"),
            "127.0.0.1",
            "localhost",
        ),
    ] {
        let mut fields = forged.to_vec();
        fields.extend(line.map(|line| ("Forwarded", line)));
        get(&gateway, "/public", &fields).await.is(200);
        let seen = upstream.last();
        assert_eq!(seen.header("x-real-ip"), Some(client), "{line:?}");
        assert_eq!(seen.header("x-forwarded-proto"), Some("https"));
        assert_eq!(seen.header("x-forwarded-host"), Some(host), "{line:?}");
        assert_eq!(seen.header("forwarded"), None);
        let chain = seen.header("x-forwarded-for").unwrap();
        assert!(chain.ends_with("127.0.0.1"), "{chain}");
        assert!(!chain.starts_with("192.0.2.66, 127"), "{chain}");
    }
}

#[tokio::test]
async fn rate_2_one_network_of_ipv6_is_one_client() {
    let upstream = Upstream::start().await;
    let gateway = Site::new(upstream.address)
        .set("server", "trusted_proxies", r#"["127.0.0.1/32"]"#)
        .set("rate_limit", "per_ip", &slow(3))
        .start()
        .await;
    assert_eq!(
        limited(&gateway, 30, |n| format!("2001:db8:0:1::{n:x}")).await,
        27
    );
    assert_eq!(
        limited(&gateway, 30, |n| format!("2001:db8:0:2:{n:x}:1:2:3")).await,
        27
    );
    assert_eq!(limited(&gateway, 3, |_| "2001:db8:0:3::1".into()).await, 0);
    // One address, spelt as IPv4 and as IPv4 in IPv6.
    assert_eq!(
        limited(&gateway, 10, |n| if n % 2 == 0 {
            "192.0.2.1".into()
        } else {
            "::ffff:192.0.2.1".into()
        })
        .await,
        7
    );
}

#[tokio::test]
async fn rate_3_a_full_table_neither_grows_nor_forgets_the_blocked() {
    let upstream = Upstream::start().await;
    let gateway = Site::new(upstream.address)
        .set("server", "trusted_proxies", r#"["127.0.0.1/32"]"#)
        .set("rate_limit", "per_ip", &slow(3))
        .set("rate_limit", "max_keys", "1000")
        .start()
        .await;
    assert_eq!(limited(&gateway, 4, |_| "203.0.113.1".into()).await, 1);
    let before = gateway.memory();
    let strangers = |n: usize| format!("10.{}.{}.{}", n >> 16, (n >> 8) & 255, n & 255);
    let refused = limited(&gateway, 4000, strangers).await;
    assert!(
        refused >= 2000,
        "only {refused} of those beyond the table were refused"
    );
    assert_eq!(
        limited(&gateway, 5, |_| "203.0.113.1".into()).await,
        5,
        "the blocked address is free again"
    );
    let grown = gateway.memory().saturating_sub(before);
    assert!(grown < 32 << 10, "{grown} KiB more");
}

#[tokio::test]
async fn rate_7_a_refusal_says_when_to_come_again() {
    let upstream = Upstream::start().await;
    let gateway = Site::new(upstream.address)
        .set("rate_limit", "per_ip", r#"{ rate = "1/1m", burst = 1 }"#)
        .start()
        .await;
    get(&gateway, "/public", &[]).await.is(200);
    let answer = get(&gateway, "/public", &[]).await;
    answer.refused(429, "rate_limited");
    let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    assert!(
        answer.header("ratelimit").is_some() && answer.header("ratelimit-policy").is_some(),
        "{:?}",
        answer.head.fields
    );
    assert_eq!(
        gateway
            .metric("portcullis_rate_limited_total{limit=\"per_ip\"}")
            .await,
        Some(1.0)
    );
}

/// `X-RateLimit-Limit`, `-Remaining` and `-Reset` of an answer, and `Retry-After`.
fn x_fields(answer: &Answer) -> [Option<&str>; 4] {
    [
        "x-ratelimit-limit",
        "x-ratelimit-remaining",
        "x-ratelimit-reset",
        "retry-after",
    ]
    .map(|name| answer.header(name))
}

#[tokio::test]
async fn rate_7_x_fields_are_on_every_429_where_they_are_wanted_and_on_nothing_else() {
    let upstream = Upstream::start().await;
    let login = r#"{"username":"ann","password":"a wrong password"}"#;
    let page = [("Accept", "text/html"), ("Sec-Fetch-Mode", "navigate")];
    for wanted in [true, false] {
        let site = Site::new(upstream.address)
            .accounts()
            .set("accounts", "login_limit", r#"{ per_account = "1/1h" }"#)
            .set("rate_limit", "x_headers", &wanted.to_string())
            .route("few", "/few", "public")
            .on_route(
                "rate_limit",
                r#"[{ key = "ip", rate = "1/1h", burst = 1 }]"#,
            );
        let gateway = site.start().await;
        let json = [("Content-Type", "application/json")];
        let ask = async || {
            let mut raw = Raw::connect(&gateway).await;
            [
                raw.exchange(request("GET", "/few", &[], "")).await,
                raw.exchange(request("GET", "/few", &page, "")).await,
                raw.exchange(request("POST", "/auth/login", &json, login))
                    .await,
            ]
        };
        let [answer, ..] = ask().await;
        answer.is(200);
        assert_eq!(x_fields(&answer), [None; 4]);
        for answer in ask().await {
            answer.is(429);
            let [limit, remaining, reset, wait] = x_fields(&answer);
            assert!(wait.is_some());
            if wanted {
                assert_eq!((limit, remaining, reset), (Some("1"), Some("0"), wait));
            } else {
                assert_eq!((limit, remaining, reset), (None, None, None));
            }
        }
        get(&gateway, "/nowhere", &[])
            .await
            .refused(404, "route_not_found");
    }
}

#[tokio::test]
async fn rate_7_a_refused_login_says_the_same_whether_or_not_the_account_exists() {
    let upstream = Upstream::start().await;
    let site = Site::new(upstream.address).accounts().set(
        "accounts",
        "login_limit",
        r#"{ per_ip = "1000/1h", per_account = "2/1h" }"#,
    );
    site.write();
    site.user("ann", "correct horse battery staple", &[]).await;
    let gateway = site.start().await;
    let mut said = Vec::new();
    for name in ["ann", "ann@example.com", "nobody", "nobody@example.com"] {
        let login = format!(r#"{{"username":"{name}","password":"a wrong password"}}"#);
        let json = [("Content-Type", "application/json")];
        let mut raw = Raw::connect(&gateway).await;
        let mut answers = Vec::new();
        for _ in 0..3 {
            answers.push(
                raw.exchange(request("POST", "/auth/login", &json, &login))
                    .await,
            );
        }
        let last = answers.pop().unwrap();
        last.refused(429, "rate_limited");
        // Some part of the half hour until the next one is over.
        let mut body = last.json();
        body["request_id"] = "".into();
        said.push((last.head.start.clone(), last.head.names().join(" "), body));
    }
    said.dedup();
    assert_eq!(said.len(), 1, "{said:?}");
}

#[tokio::test]
async fn exempt_networks_are_not_limited() {
    let upstream = Upstream::start().await;
    let gateway = Site::new(upstream.address)
        .set("rate_limit", "per_ip", &slow(1))
        .set("rate_limit", "exempt", r#"["127.0.0.0/8"]"#)
        .start()
        .await;
    assert_eq!(limited(&gateway, 20, |_| "203.0.113.1".into()).await, 0);
}

#[tokio::test]
async fn msg_11_a_limited_request_s_body_is_never_read_as_a_request() {
    let upstream = Upstream::start().await;
    let gateway = Site::new(upstream.address)
        .set("rate_limit", "per_ip", &slow(1))
        .start()
        .await;
    get(&gateway, "/public/first", &[]).await.is(200);
    let inner = request("GET", "/public/smuggled", &[], "");
    for body in [inner.clone(), format!("{inner}{}", "x".repeat(300 << 10))] {
        let mut raw = Raw::connect(&gateway).await;
        raw.send(request("POST", "/public", &[], &body)).await;
        raw.answer().await.refused(429, "rate_limited");
        raw.send(request(
            "GET",
            "/public/after",
            &[("Connection", "close")],
            "",
        ))
        .await;
        let rest = String::from_utf8_lossy(&raw.rest().await).into_owned();
        assert!(
            rest.is_empty()
                || rest.starts_with("HTTP/1.1 429") && rest.matches("HTTP/1.1 ").count() == 1,
            "{rest}"
        );
    }
    assert_eq!(upstream.count(), 1);
    assert!(!gateway.out.text().contains("smuggled"));
}
