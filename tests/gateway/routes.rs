//! What a route may say beyond who: what is cut off its path, from where it is reached, what becomes of its headers.

use crate::harness::{
    Gateway, H2, Raw, Reply, Site, Step, Token, Upstream, get, keys::bearer, request,
};

/// Asks by raw bytes, so that nothing normalises the target on the way.
async fn ask(gateway: &Gateway, target: &str, token: Option<&str>) -> crate::harness::Answer {
    let fields: Vec<(&str, &str)> = token.iter().map(|t| ("Authorization", *t)).collect();
    let mut raw = Raw::connect(gateway).await;
    raw.exchange(request("GET", target, &fields, "")).await
}

fn stripping(upstream: &Upstream) -> Site {
    Site::new(upstream.address)
        .route("orders", "/orders", "authenticated")
        .on_route("strip_prefix", "\"/orders\"")
}

#[tokio::test]
async fn uri_5_a_stripped_prefix_leaves_no_way_out() {
    let upstream = Upstream::start().await;
    let gateway = stripping(&upstream).start().await;
    let token = bearer(&Token::good().sign());
    for target in [
        "/orders/..",
        "/orders/../private",
        "/orders/%2e%2e/private",
        "/orders/.%2e/private",
        "/orders/./private",
        "/orders/..%2fprivate",
        "/orders/%2fprivate",
        "/orders%2fprivate",
        "/orders/..%5cprivate",
        "/orders/..;/private",
        "/orders/%252e%252e/private",
        "/orders;/private",
        "/orders%00/private",
    ] {
        ask(&gateway, target, Some(&token))
            .await
            .refused(400, "ambiguous_path");
    }
    for target in [
        "/ordersx",
        "/orders.x",
        "/order",
        "/Orders/1",
        "/orders-1/x",
    ] {
        ask(&gateway, target, Some(&token))
            .await
            .refused(404, "route_not_found");
    }
    // What is decided on is the path before the cut: `/orders/public` is not `/public`.
    for target in [
        "/orders",
        "/orders/",
        "/orders/public",
        "/%6frders/public",
        "//orders//public",
    ] {
        ask(&gateway, target, None)
            .await
            .refused(401, "credentials_missing");
    }
    upstream.saw_nothing();
}

#[tokio::test]
async fn uri_5_the_upstream_is_told_the_path_below_the_prefix() {
    let upstream = Upstream::start().await;
    let gateway = stripping(&upstream).start().await;
    let token = bearer(&Token::good().sign());
    for (target, want) in [
        ("/orders", "/"),
        ("/orders/", "/"),
        ("/orders?a=1", "/?a=1"),
        ("/orders/?a=/orders", "/?a=/orders"),
        ("/orders/7", "/7"),
        ("/orders/7/", "/7/"),
        ("/orders/orders/7", "/orders/7"),
        ("/%6frders/7", "/7"),
        ("/orders/%37?x=%2e%2e", "/7?x=%2e%2e"),
        ("//orders//7", "/7"),
        ("/orders//evil.example.com/x", "/evil.example.com/x"),
        ("/orders/caf%c3%a9", "/caf%C3%A9"),
    ] {
        ask(&gateway, target, Some(&token)).await.is(200);
        assert_eq!(upstream.last().target, want, "{target}");
    }
    let mut h2 = H2::connect(&gateway).await;
    let fields = [("authorization", token.as_str())];
    h2.get("/orders/7?a=1", &fields).await.is(200);
    assert_eq!(upstream.last().target, "/7?a=1");
    // Another route of the same upstream is told the whole path.
    get(&gateway, "/public/orders/7", &[]).await.is(200);
    assert_eq!(upstream.last().target, "/public/orders/7");
    upstream.saw_no_fault();
}

#[tokio::test]
async fn uri_5_a_stripped_path_stays_under_the_upstreams_base() {
    let upstream = Upstream::start().await;
    let gateway = stripping(&upstream)
        .upstream("based", &format!("http://{}/app/v1", upstream.address))
        .route("shop", "/shop/api", "public")
        .on_route("upstream", "\"based\"")
        .on_route("strip_prefix", "\"/shop\"")
        .start()
        .await;
    for (target, want) in [
        ("/shop/api", "/app/v1/api"),
        ("/shop/api/x?y", "/app/v1/api/x?y"),
        ("/shop/api//x", "/app/v1/api/x"),
    ] {
        ask(&gateway, target, None).await.is(200);
        assert_eq!(upstream.last().target, want, "{target}");
    }
    let count = upstream.count();
    for target in ["/shop/api/../..", "/shop/api/%2e%2e/%2e%2e/x"] {
        ask(&gateway, target, None)
            .await
            .refused(400, "ambiguous_path");
    }
    assert_eq!(upstream.count(), count);
}

#[tokio::test]
async fn addresses_are_decided_before_any_token_is_looked_at() {
    let upstream = Upstream::start().await;
    let gateway = Site::new(upstream.address)
        .set("server", "trusted_proxies", r#"["127.0.0.1"]"#)
        .route("office", "/office", "authenticated")
        .on_route("allow_ips", r#"["192.0.2.0/24", "2001:db8::/32"]"#)
        .on_route("deny_ips", r#"["192.0.2.66", "2001:db8:66::/48"]"#)
        .route("open", "/open", "public")
        .on_route("deny_ips", r#"["192.0.2.0/24"]"#)
        .start()
        .await;
    let good = bearer(&Token::good().sign());
    let from = async |target: &str, client: &str, token: &str| {
        let fields = [("X-Forwarded-For", client), ("Authorization", token)];
        get(&gateway, target, &fields).await
    };
    for client in [
        "192.0.2.66",
        "::ffff:192.0.2.66",
        "198.51.100.7",
        "2001:db8:66::1",
        "2001:db9::1",
        "127.0.0.1",
        "garbage",
        "192.0.2.7, 198.51.100.7",
    ] {
        // A bad token changes nothing: it is not looked at.
        for token in [good.as_str(), "Bearer x", "Basic YTpi"] {
            from("/office", client, token)
                .await
                .refused(403, "address_denied");
        }
    }
    from("/open/x", "192.0.2.7", &good)
        .await
        .refused(403, "address_denied");
    upstream.saw_nothing();
    // The address opens no door: the token is needed all the same, and an unknown path is unknown.
    from("/office", "192.0.2.7", "Bearer x")
        .await
        .refused(401, "token_invalid");
    get(&gateway, "/office", &[("X-Forwarded-For", "192.0.2.7")])
        .await
        .refused(401, "credentials_missing");
    from("/officex", "198.51.100.7", &good)
        .await
        .refused(404, "route_not_found");
    upstream.saw_nothing();
    for (target, client) in [
        ("/office", "192.0.2.7"),
        ("/office/x", "2001:db8::1"),
        ("/office", "::ffff:192.0.2.7"),
        ("/open", "198.51.100.7"),
        ("/private", "192.0.2.66"),
    ] {
        from(target, client, &good).await.is(200);
    }
}

#[tokio::test]
async fn hdr_4_a_stranger_cannot_claim_an_allowed_address() {
    let upstream = Upstream::start().await;
    let gateway = Site::new(upstream.address)
        .route("office", "/office", "public")
        .on_route("allow_ips", r#"["192.0.2.0/24"]"#)
        .route("local", "/local", "public")
        .on_route("allow_ips", r#"["127.0.0.0/8"]"#)
        .start()
        .await;
    let claims = [
        ("X-Forwarded-For", "192.0.2.7"),
        ("X-Real-IP", "192.0.2.7"),
        ("Forwarded", "for=192.0.2.7"),
        ("True-Client-IP", "192.0.2.7"),
    ];
    get(&gateway, "/office", &claims)
        .await
        .refused(403, "address_denied");
    upstream.saw_nothing();
    get(&gateway, "/local", &claims).await.is(200);
    assert_eq!(upstream.last().header("x-real-ip"), Some("127.0.0.1"));
}

#[tokio::test]
async fn hdr_3_what_a_route_sets_and_removes_is_what_the_upstream_sees() {
    let upstream = Upstream::start().await;
    let gateway = Site::new(upstream.address)
        .route("edited", "/edited", "optional")
        .on_route(
            "request_headers",
            r#"{ set = { "X-Env" = "prod {user}", "User-Agent" = "gate" }, remove = ["X-Debug", "Accept-Language"] }"#,
        )
        .start()
        .await;
    let token = bearer(&Token::good().sign());
    for name in ["X-Env", "x.env", "X_Env", "x-eNv"] {
        let fields = [
            (name, "forged"),
            ("X-Env", "again"),
            ("Connection", "X-Env, X-Forwarded-User"),
            ("X-Debug", "1"),
            ("x.debug", "1"),
            ("Accept-Language", "de"),
            ("X-Kept", "kept"),
            ("X-Forwarded-User", "root"),
            ("Authorization", &token),
        ];
        get(&gateway, "/edited", &fields).await.is(200);
        let seen = upstream.last();
        assert_eq!(seen.head.values("x-env"), ["prod {user}"], "{name}");
        assert_eq!(seen.head.values("user-agent"), ["gate"]);
        assert_eq!(seen.head.values("x-forwarded-user"), ["alice"]);
        assert_eq!(seen.header("x-kept"), Some("kept"));
        for gone in ["x.env", "x_env", "x-debug", "x.debug", "accept-language"] {
            assert_eq!(seen.head.values(gone), Vec::<&str>::new(), "{gone}");
        }
    }
    // Another route is not touched.
    get(&gateway, "/public", &[("X-Debug", "1")]).await.is(200);
    assert_eq!(upstream.last().header("x-debug"), Some("1"));
    assert_eq!(upstream.last().header("x-env"), None);
    upstream.saw_no_fault();
}

#[tokio::test]
async fn hdr_9_what_a_route_sets_and_removes_is_what_the_client_sees() {
    let upstream = Upstream::scripted(|_| {
        let fields = [
            ("Server", "old/1.0"),
            ("X-Powered-By", "cgi"),
            ("X-Frame-Options", "ALLOWALL"),
            ("Connection", "X-Frame-Options"),
            ("X-Kept", "kept"),
        ];
        Reply::with(200, &fields, "hello")
    })
    .await;
    let gateway = Site::new(upstream.address)
        .route("edited", "/edited", "public")
        .on_route(
            "response_headers",
            r#"{ set = { "X-Frame-Options" = "DENY", "Referrer-Policy" = "no-referrer", "Strict-Transport-Security" = "max-age=5" }, remove = ["Server", "X-Powered-By"] }"#,
        )
        .start()
        .await;
    let over_h1 = get(&gateway, "/edited", &[]).await;
    let over_h2 = H2::connect(&gateway).await.get("/edited", &[]).await;
    for answer in [over_h1, over_h2] {
        assert_eq!((answer.status, answer.text().as_str()), (200, "hello"));
        for (name, want) in [
            ("x-frame-options", "DENY"),
            ("referrer-policy", "no-referrer"),
            ("strict-transport-security", "max-age=5"),
            ("x-content-type-options", "nosniff"),
            ("x-kept", "kept"),
        ] {
            assert_eq!(answer.head.values(name), [want], "{name}");
        }
        for gone in ["server", "x-powered-by"] {
            assert_eq!(answer.head.values(gone), Vec::<&str>::new(), "{gone}");
        }
    }
    let other = get(&gateway, "/public", &[]).await;
    assert_eq!(other.header("server"), Some("old/1.0"));
}

const SPA: &str = "https://spa.example.com";

fn with_cors(upstream: &Upstream) -> Site {
    Site::new(upstream.address)
        .route("api", "/api", "authenticated")
        .on_route("methods", r#"["GET", "PUT", "DELETE"]"#)
        .on_route("cors", r#"{ origins = ["https://spa.example.com"], credentials = true, methods = ["GET", "PUT"], headers = ["Authorization", "Content-Type"], max_age = "1m" }"#)
        .route("any", "/any", "public")
        .on_route("cors", r#"{ origins = ["*"] }"#)
}

async fn preflight(
    gateway: &Gateway,
    target: &str,
    origin: &str,
    method: &str,
) -> crate::harness::Answer {
    let fields = [
        ("Origin", origin),
        ("Access-Control-Request-Method", method),
    ];
    let mut raw = Raw::connect(gateway).await;
    raw.exchange(request("OPTIONS", target, &fields, "")).await
}

#[tokio::test]
async fn uri_3_a_preflight_is_answered_by_the_gateway_alone() {
    let upstream = Upstream::start().await;
    let gateway = with_cors(&upstream).start().await;
    for (origin, method) in [
        ("https://spa.example.com.evil.com", "GET"),
        ("https://evil.com", "GET"),
        ("http://spa.example.com", "GET"),
        ("https://spa.example.com:8443", "GET"),
        ("https://SPA.example.com", "GET"),
        ("null", "GET"),
        ("*", "GET"),
        (SPA, "DELETE"),
    ] {
        let answer = preflight(&gateway, "/api/x", origin, method).await;
        answer.refused(403, "origin_denied");
        assert_eq!(answer.header("access-control-allow-origin"), None);
    }
    // What no route with `cors` takes is a request like any other.
    preflight(&gateway, "/private", SPA, "GET")
        .await
        .refused(401, "credentials_missing");
    preflight(&gateway, "/api/x", SPA, "POST")
        .await
        .refused(405, "method_not_allowed");
    for fields in [
        &[("Origin", SPA)][..],
        &[("Access-Control-Request-Method", "GET")],
        &[],
    ] {
        let mut raw = Raw::connect(&gateway).await;
        raw.exchange(request("OPTIONS", "/api/x", fields, ""))
            .await
            .refused(405, "method_not_allowed");
    }
    for method in ["GET", "PUT"] {
        let answer = preflight(&gateway, "/api/x", SPA, method).await;
        assert_eq!((answer.status, answer.body.len()), (204, 0));
        for (name, want) in [
            ("access-control-allow-origin", SPA),
            ("access-control-allow-credentials", "true"),
            ("access-control-allow-methods", "GET, PUT"),
            ("access-control-max-age", "60"),
            ("vary", "Origin"),
        ] {
            assert_eq!(answer.head.values(name), [want], "{name}");
        }
        let headers = answer
            .head
            .values("access-control-allow-headers")
            .join(", ");
        assert_eq!(headers, "authorization, content-type");
    }
    let any = preflight(&gateway, "/any", "https://x.example", "GET").await;
    assert_eq!(any.header("access-control-allow-origin"), Some("*"));
    assert_eq!(any.header("access-control-allow-credentials"), None);
    upstream.saw_nothing();
}

#[tokio::test]
async fn sess_6_only_a_listed_origin_may_read_an_answer() {
    let upstream = Upstream::scripted(|_| {
        let fields = [
            ("Access-Control-Allow-Origin", "*"),
            ("Access-Control-Allow-Credentials", "true"),
            ("Access-Control-Expose-Headers", "X-Secret"),
            ("Vary", "Accept"),
        ];
        Reply::with(200, &fields, "hello")
    })
    .await;
    let gateway = with_cors(&upstream).start().await;
    let token = bearer(&Token::good().sign());
    for (origin, granted) in [(SPA, Some(SPA)), ("https://evil.com", None), ("null", None)] {
        let fields = [("Origin", origin), ("Authorization", token.as_str())];
        let answer = get(&gateway, "/api/x", &fields).await;
        answer.is(200);
        assert_eq!(answer.header("access-control-allow-origin"), granted);
        let credentials = granted.map(|_| "true");
        assert_eq!(
            answer.header("access-control-allow-credentials"),
            credentials
        );
        assert_eq!(answer.header("access-control-expose-headers"), None);
        assert_eq!(answer.head.values("vary").join(", "), "Accept, Origin");
    }
    // A granted origin is no credential; its page may read why it was refused.
    let count = upstream.count();
    for (origin, granted) in [(SPA, Some(SPA)), ("https://evil.com", None), ("null", None)] {
        let answer = get(&gateway, "/api/x", &[("Origin", origin)]).await;
        answer.refused(401, "credentials_missing");
        assert_eq!(answer.header("access-control-allow-origin"), granted);
        let credentials = granted.map(|_| "true");
        assert_eq!(
            answer.header("access-control-allow-credentials"),
            credentials
        );
        let exposed = granted.map(|_| "Retry-After, WWW-Authenticate");
        assert_eq!(answer.header("access-control-expose-headers"), exposed);
    }
    let elsewhere = get(&gateway, "/private", &[("Origin", SPA)]).await;
    elsewhere.refused(401, "credentials_missing");
    assert_eq!(elsewhere.header("access-control-allow-origin"), None);
    assert_eq!(upstream.count(), count);
    // A route without `cors` leaves the upstream's word as it is.
    let other = get(&gateway, "/public", &[("Origin", SPA)]).await;
    assert_eq!(other.header("access-control-allow-origin"), Some("*"));
}

#[tokio::test]
async fn sess_6_a_listed_origin_may_read_a_refusal_for_want_of_an_upstream() {
    let upstream = Upstream::scripted(|_| Reply(vec![Step::Close])).await;
    let gateway = with_cors(&upstream).start().await;
    let token = bearer(&Token::good().sign());
    for (origin, granted) in [(SPA, Some(SPA)), ("https://evil.com", None)] {
        let fields = [("Origin", origin), ("Authorization", token.as_str())];
        let answer = get(&gateway, "/api/x", &fields).await;
        assert_eq!(answer.status, 502);
        assert_eq!(answer.header("access-control-allow-origin"), granted);
    }
}

#[tokio::test]
async fn a_route_not_enforced_lets_pass_and_tells() {
    let upstream = Upstream::start().await;
    let gateway = Site::new(upstream.address)
        .route("trial", "/trial", "authenticated")
        .on_route("require", r#"{ roles = ["admin"] }"#)
        .on_route("enforce", "false")
        .route("elsewhere", "/elsewhere", "authenticated")
        .on_route("deny_ips", r#"["127.0.0.0/8"]"#)
        .on_route("enforce", "false")
        .start()
        .await;
    let clerk = bearer(&Token::good().sign());
    let admin = bearer(&Token::good().claim("roles", vec!["admin"]).sign());
    for (target, token, told, user) in [
        ("/trial/1", None, Some("credentials_missing"), None),
        (
            "/trial/2",
            Some("Bearer a.b.c"),
            Some("token_invalid"),
            None,
        ),
        ("/trial/3", Some("Basic eDp5"), Some("token_invalid"), None),
        (
            "/trial/4",
            Some(&*clerk),
            Some("role_missing"),
            Some("alice"),
        ),
        ("/trial/5", Some(&*admin), None, Some("alice")),
        (
            "/elsewhere/6",
            Some(&*admin),
            Some("address_denied"),
            Some("alice"),
        ),
    ] {
        let mut fields = vec![("X-Forwarded-User", "root")];
        fields.extend(token.map(|token| ("Authorization", token)));
        get(&gateway, target, &fields).await.is(200);
        let seen = upstream.last();
        assert_eq!(seen.header("x-forwarded-user"), user, "{target}");
        // What was not taken may be a credential of the upstream's own.
        let passed = if user.is_some() { None } else { token };
        assert_eq!(seen.header("authorization"), passed, "{target}");
        let line = gateway.access_line(|line| line["path"] == target).await;
        assert_eq!(line["unenforced"].as_str(), told, "{line}");
        assert_eq!(line["code"].as_str(), None, "{line}");
    }
    let series = r#"portcullis_unenforced_total{route="trial",code="role_missing"}"#;
    assert_eq!(gateway.metric(series).await, Some(1.0));
    // Nothing else is let pass.
    ask(&gateway, "/trial/../private", Some(&clerk))
        .await
        .refused(400, "ambiguous_path");
    ask(&gateway, "/private", None)
        .await
        .refused(401, "credentials_missing");
}
