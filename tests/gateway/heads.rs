//! Sizes, hosts and repeated fields of a request's head.

use crate::harness::{
    Broken, Gateway, H2, Raw, Site, Token, Upstream, client::full, get, keys::bearer, request,
};

async fn gateway(upstream: &Upstream) -> Gateway {
    Site::new(upstream.address).start().await
}

#[tokio::test]
async fn msg_8_a_target_over_the_limit_is_414() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let target = |length: usize| format!("/public/{}", "a".repeat(length - "/public/".len()));
    get(&gateway, &target(8193), &[])
        .await
        .refused(414, "uri_too_long");
    let query = format!("/public?{}", "q".repeat(8193 - "/public?".len()));
    get(&gateway, &query, &[])
        .await
        .refused(414, "uri_too_long");
    let mut h2 = H2::connect(&gateway).await;
    h2.get(&target(8193), &[])
        .await
        .refused(414, "uri_too_long");
    upstream.saw_nothing();

    get(&gateway, &target(8192), &[]).await.is(200);
    h2.get(&target(8192), &[]).await.is(200);
    assert_eq!(upstream.last().target.len(), 8192);
}

#[tokio::test]
async fn msg_7_and_msg_8_too_many_fields_are_431() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let fields = |count: usize| -> Vec<(String, String)> {
        (0..count).map(|i| (format!("x-{i}"), "1".into())).collect()
    };
    fn borrowed(fields: &[(String, String)]) -> Vec<(&str, &str)> {
        fields
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect()
    }
    let mut h2 = H2::connect(&gateway).await;
    // Host is a field too.
    get(&gateway, "/public", &borrowed(&fields(100)))
        .await
        .is(431);
    get(&gateway, "/public", &borrowed(&fields(1000)))
        .await
        .is(431);
    h2.get("/public", &borrowed(&fields(101)))
        .await
        .refused(431, "headers_too_large");
    let crumbs: Vec<_> = (0..101).map(|_| ("cookie", "a=b")).collect();
    h2.get("/public", &crumbs)
        .await
        .refused(431, "headers_too_large");
    upstream.saw_nothing();

    get(&gateway, "/public", &borrowed(&fields(99)))
        .await
        .is(200);
    h2.get("/public", &borrowed(&fields(99))).await.is(200);
}

#[tokio::test]
async fn msg_8_a_header_section_over_the_limit_is_431() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    for length in [33 << 10, 39 << 10] {
        let mut raw = Raw::connect(&gateway).await;
        raw.exchange(request(
            "GET",
            "/public",
            &[("X-Long", &"a".repeat(length))],
            "",
        ))
        .await
        .is(431);
    }
    // So long that the gateway stops to read: the answer may be lost to a client that is still writing.
    for length in [100 << 10, 1 << 20] {
        let mut raw = Raw::connect(&gateway).await;
        raw.send(request(
            "GET",
            "/public",
            &[("X-Long", &"a".repeat(length))],
            "",
        ))
        .await;
        match raw.try_answer().await {
            Ok(answer) => assert_eq!(answer.status, 431),
            Err(broken) => assert!(
                matches!(broken, Broken::Closed | Broken::Cut(_)),
                "{broken:?}"
            ),
        }
        assert!(raw.rest().await.is_empty());
    }
    let mut h2 = H2::connect(&gateway).await;
    let request =
        http::Request::get("https://localhost/public").header("x-long", "a".repeat(33 << 10));
    match h2.send(request.body(full("")).unwrap()).await {
        Ok(answer) => assert_eq!(answer.status, 431),
        Err(broken) => assert!(matches!(broken, Broken::Cut(_))),
    }
    upstream.saw_nothing();
    get(&gateway, "/public", &[("X-Long", &"a".repeat(30 << 10))])
        .await
        .is(200);
    assert_eq!(upstream.last().header("x-long").unwrap().len(), 30 << 10);
}

#[tokio::test]
async fn msg_8_a_body_over_the_limit_of_its_route_is_413() {
    let upstream = Upstream::start().await;
    let gateway = Site::new(upstream.address)
        .route("small", "/small", "public")
        .on_route("max_body", "\"1KiB\"")
        .start()
        .await;
    let chunks = |length: usize| format!("{length:x}\r\n{}\r\n0\r\n\r\n", "b".repeat(length));
    let mut raw = Raw::connect(&gateway).await;
    raw.exchange(request("POST", "/small", &[], &"b".repeat(1025)))
        .await
        .refused(413, "body_too_large");
    upstream.saw_nothing();

    // A length that is not told is met while the body streams: no whole body may arrive.
    let mut raw = Raw::connect(&gateway).await;
    raw.send(request(
        "POST",
        "/small",
        &[("Transfer-Encoding", "chunked")],
        &chunks(1025),
    ))
    .await;
    match raw.try_answer().await {
        Ok(answer) => answer.refused(413, "body_too_large"),
        Err(broken) => assert!(matches!(broken, Broken::Closed | Broken::Cut(_))),
    }
    let mut h2 = H2::connect(&gateway).await;
    let post = |length: usize| {
        http::Request::post("https://localhost/small")
            .body(full("b".repeat(length)))
            .unwrap()
    };
    h2.send(post(1025))
        .await
        .unwrap()
        .refused(413, "body_too_large");
    assert!(
        upstream.seen().iter().all(|seen| !seen.complete),
        "{:?}",
        upstream.seen()
    );

    let mut raw = Raw::connect(&gateway).await;
    raw.exchange(request("POST", "/small", &[], &"b".repeat(1024)))
        .await
        .is(200);
    let mut raw = Raw::connect(&gateway).await;
    raw.exchange(request(
        "POST",
        "/small",
        &[("Transfer-Encoding", "chunked")],
        &chunks(1024),
    ))
    .await
    .is(200);
    h2.send(post(1024)).await.unwrap().is(200);
    assert_eq!(upstream.last().body_length, 1024);
}

/// A site with a route for one host alone, and one for every host.
async fn two_hosts(upstream: &Upstream) -> Gateway {
    Site::new(upstream.address)
        .without_routes()
        .route("app", "/", "public")
        .on_route("hosts", r#"["app.example.com"]"#)
        .route("wild", "/", "public")
        .on_route("hosts", r#"["*.apps.example.com"]"#)
        .start()
        .await
}

#[tokio::test]
async fn msg_9_http_2_host_must_equal_the_authority() {
    let upstream = Upstream::start().await;
    let gateway = two_hosts(&upstream).await;
    let mut h2 = H2::connect(&gateway).await;
    let get = |authority: &str, host: Option<&str>| {
        let builder = http::Request::get(format!("https://{authority}/x"));
        let builder = match host {
            Some(host) => builder.header("host", host),
            None => builder,
        };
        builder.body(full("")).unwrap()
    };
    for (authority, host) in [
        ("app.example.com", "evil.example.com"),
        ("evil.example.com", "app.example.com"),
        ("app.example.com", "app.example.com:444"),
        ("app.example.com", ""),
    ] {
        match h2.send(get(authority, Some(host))).await {
            Ok(answer) => assert!(
                [400, 404, 421].contains(&answer.status),
                "{authority} {host}: {}",
                answer.status
            ),
            Err(broken) => {
                assert!(matches!(broken, Broken::Cut(_)));
                h2 = H2::connect(&gateway).await;
            }
        }
    }
    upstream.saw_nothing();
    h2.send(get("app.example.com", Some("app.example.com")))
        .await
        .unwrap()
        .is(200);
    h2.send(get("app.example.com", None)).await.unwrap().is(200);
    assert_eq!(upstream.last().header("host"), Some("app.example.com"));
    upstream.saw_no_fault();
}

#[tokio::test]
async fn hdr_6_single_value_fields_sent_twice_are_refused() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let token = bearer(&Token::good().sign());
    let other = bearer(&Token::good().claim("sub", "bob").sign());
    let pairs = [
        ("authorization", &*token, &*token),
        ("authorization", &*token, &*other),
        ("authorization", &*token, "Basic YTpi"),
        ("authorization", "", &*token),
        ("origin", "https://localhost:8443", "https://localhost:8443"),
        (
            "origin",
            "https://localhost:8443",
            "https://evil.example.com",
        ),
        ("x-request-id", "a", "a"),
        ("x-request-id", "a", "b"),
    ];
    for (name, first, second) in pairs {
        let mut fields = vec![(name, first), (name, second)];
        if name != "authorization" {
            fields.push(("authorization", &token));
        }
        let code = if name == "authorization" {
            "ambiguous_credentials"
        } else {
            "bad_request"
        };
        for target in ["/private", "/optional", "/public"] {
            get(&gateway, target, &fields).await.refused(400, code);
            let mut h2 = H2::connect(&gateway).await;
            h2.get(target, &fields).await.refused(400, code);
        }
    }
    upstream.saw_nothing();
}
