//! One path for deciding and forwarding: no spelling of a protected path reaches the upstream as if it were another.

use crate::{
    bypasses::is_private,
    harness::{Gateway, H2, Raw, Site, Token, Upstream, get, keys::bearer, request},
};

/// A site where all is public but `/private`, and, below it again, one public corner.
pub(crate) async fn gateway(upstream: &Upstream) -> Gateway {
    Site::new(upstream.address)
        .set("server", "workers", "1")
        .without_routes()
        .route("everything", "/", "public")
        .route("private", "/private", "authenticated")
        .route("corner", "/private/open", "public")
        .start()
        .await
}

#[tokio::test]
async fn uri_1_what_is_forwarded_is_what_was_decided_on() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let token = bearer(&Token::good().sign());
    for (target, want) in [
        ("/private/secret", "/private/secret"),
        ("//private///secret", "/private/secret"),
        ("/%70rivate/%73ecret", "/private/secret"),
        ("/private/a%20b", "/private/a%20b"),
        ("/private/caf%c3%a9", "/private/caf%C3%A9"),
        ("/private/secret?a=%2e%2e/%2f&b=;#", ""),
        (
            "/private/secret?a=%2e%2e/%2f&b=;c",
            "/private/secret?a=%2e%2e/%2f&b=;c",
        ),
        ("/private/secret?", "/private/secret?"),
        ("https://localhost/private/x?y", "/private/x?y"),
    ] {
        let answer = get(&gateway, target, &[("Authorization", &token)]).await;
        if want.is_empty() {
            assert_eq!(answer.status, 400, "{target}");
            continue;
        }
        answer.is(200);
        let seen = upstream.last().target;
        assert_eq!(
            seen.trim_end_matches('?'),
            want.trim_end_matches('?'),
            "{target}"
        );
    }
}

#[tokio::test]
async fn uri_1_the_access_log_tells_the_same_path() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    get(&gateway, "//private///%73ecret", &[]).await.is(401);
    let line = gateway.access_line(|line| line["status"] == 401).await;
    assert!(line.to_string().contains("/private/secret\""), "{line}");
}

#[tokio::test]
async fn uri_2_only_the_path_decides_what_is_public() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    for target in [
        "/private?x=/private/open",
        "/private?/private/open",
        "/private/?path=/public",
        "/private/secret?access=public",
        "/private/openx",
        "/private/open.",
        "/private/ope",
        "/private/xopen",
        "/private/x/private/open",
    ] {
        get(&gateway, target, &[])
            .await
            .refused(401, "credentials_missing");
    }
    // However the line arrives: in pieces, or behind another request.
    let line = "GET /private/open#/x HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let elsewhere = [("Host", "nowhere.example.com")];
    let mut raw = Raw::connect(&gateway).await;
    for piece in line.as_bytes().chunks(7) {
        raw.send(piece).await;
        // An exchange of its only worker's: after it, the piece has been read alone.
        get(&gateway, "/nowhere", &elsewhere).await.is(200);
    }
    raw.answer().await.is(400);
    let mut raw = Raw::connect(&gateway).await;
    let first = request("GET", "/nowhere", &elsewhere, "");
    raw.send(format!("{first}{line}")).await;
    raw.answer().await;
    // Behind another request it may be dropped unseen; then the upstream does not get it either.
    if raw.answer().await.status == 200 {
        assert_eq!(upstream.last().target, "/private/open");
    }
    for target in [
        "/private#/private/open",
        "/private/#open",
        "/private%23/open",
    ] {
        get(&gateway, target, &[]).await.is(400);
    }
    for field in [
        ("X-Forwarded-Uri", "/private/open"),
        ("X-Original-URL", "/private/open"),
        ("X-Original-URI", "/private/open"),
        ("X-Rewrite-URL", "/private/open"),
        ("X-Forwarded-Prefix", "/private/open"),
        ("X-Forwarded-Path", "/private/open"),
        ("X-HTTP-Method-Override", "OPTIONS"),
        ("X-Forwarded-Method", "OPTIONS"),
        ("X-Forwarded-Host", "public.example.com"),
        ("Forwarded", "for=127.0.0.1;host=localhost;proto=https"),
        ("Referer", "https://localhost/private/open"),
        ("User-Agent", "kube-probe/1.30"),
        ("User-Agent", "ELB-HealthChecker/2.0"),
        ("User-Agent", "GoogleHC/1.0"),
    ] {
        get(&gateway, "/private/secret", &[field])
            .await
            .refused(401, "credentials_missing");
        let mut h2 = H2::connect(&gateway).await;
        h2.get("/private/secret", &[field])
            .await
            .refused(401, "credentials_missing");
    }
    let private =
        |seen: &&crate::harness::Seen| is_private(&seen.target) && seen.target != "/private/open";
    assert_eq!(
        upstream
            .seen()
            .iter()
            .find(private)
            .map(|seen| &seen.target),
        None
    );
    get(&gateway, "/private/open", &[]).await.is(200);
    get(&gateway, "/private/open/below", &[]).await.is(200);
}

#[tokio::test]
async fn uri_3_every_cell_of_the_matrix_is_as_the_table_says() {
    let upstream = Upstream::start().await;
    let gateway = Site::new(upstream.address)
        .without_routes()
        .route("any", "/any", "public")
        .route("read", "/read", "public")
        .on_route("methods", r#"["GET", "HEAD"]"#)
        .route("private", "/private", "authenticated")
        .route("write", "/private/write", "authenticated")
        .on_route("methods", r#"["POST"]"#)
        .start()
        .await;
    let methods = [
        "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "TRACE",
    ];
    // In the order of the methods: what the path answers without a token.
    let table: [(&str, [u16; 9]); 7] = [
        ("/nowhere", [404, 404, 404, 404, 404, 404, 404, 404, 405]),
        ("/anyx", [404, 404, 404, 404, 404, 404, 404, 404, 405]),
        ("/", [404, 404, 404, 404, 404, 404, 404, 404, 405]),
        ("/any", [200, 200, 200, 200, 200, 200, 200, 200, 405]),
        ("/read/x", [200, 200, 405, 405, 405, 405, 405, 405, 405]),
        ("/private", [401, 401, 401, 401, 401, 401, 401, 401, 405]),
        (
            "/private/write",
            [401, 401, 401, 401, 401, 401, 401, 401, 405],
        ),
    ];
    let mut h2 = H2::connect(&gateway).await;
    let preflight = [
        ("origin", "https://evil.example.com"),
        ("access-control-request-method", "POST"),
    ];
    for (path, row) in table {
        for (method, want) in methods.into_iter().zip(row) {
            let fields: &[(&str, &str)] = if method == "OPTIONS" { &preflight } else { &[] };
            let before = upstream.count();
            let mut raw = Raw::connect(&gateway).await;
            raw.send(request(method, path, fields, "")).await;
            let first = if method == "HEAD" {
                raw.answer_to_head().await
            } else {
                raw.answer().await
            };
            let second = h2.request(method, path, fields).await;
            let third = upgrading(&gateway, method, path, fields, "foo").await;
            let statuses = [first.status, second.status, third];
            assert_eq!(statuses, [want; 3], "{method} {path}");
            let forwarded = upstream.count() - before;
            assert_eq!(
                forwarded,
                if want == 200 { 3 } else { 0 },
                "{method} {path}"
            );
            // No route here allows WebSocket: asked for, it opens nothing that is closed.
            let status = upgrading(&gateway, method, path, fields, "websocket").await;
            if want == 200 {
                assert!([200, 400, 403, 405, 426, 501].contains(&status), "{status}");
            } else {
                assert_eq!(status, want, "{method} {path}");
                assert_eq!(upstream.count(), before, "{method} {path}");
            }
        }
    }
    let answer = h2.request("DELETE", "/read", &[]).await;
    let allow = answer.header("allow").unwrap_or_default();
    assert!(allow.contains("GET") && allow.contains("HEAD"), "{allow:?}");
    upstream.saw_no_fault();
}

/// The status of a request that asks for another protocol.
async fn upgrading(
    gateway: &Gateway,
    method: &str,
    path: &str,
    fields: &[(&str, &str)],
    protocol: &str,
) -> u16 {
    let mut fields = fields.to_vec();
    fields.extend([
        ("Connection", "Upgrade"),
        ("Upgrade", protocol),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ]);
    let mut raw = Raw::connect(gateway).await;
    raw.send(request(method, path, &fields, "")).await;
    if method == "HEAD" {
        raw.answer_to_head().await.status
    } else {
        raw.answer().await.status
    }
}

#[tokio::test]
async fn uri_4_ten_hosts_and_ten_thousand_give_the_same_answers() {
    let mut tables = Vec::new();
    for count in [10, 10_000] {
        let upstream = Upstream::start().await;
        let mut site = Site::new(upstream.address)
            .without_routes()
            .route("wild", "/w", "public")
            .on_route("hosts", r#"["*.wild.example.com"]"#)
            .route("any", "/any", "authenticated");
        for n in 0..count {
            let access = ["public", "optional", "authenticated"][n % 3];
            site = site
                .route(&format!("host-{n}"), "/app", access)
                .on_route("hosts", &format!(r#"["h{n}.example.com"]"#))
                .on_route("methods", r#"["GET"]"#);
        }
        let gateway = site.start().await;
        tables.push(answers_by_host(&gateway, &upstream).await);
    }
    let (few, many) = (&tables[0], &tables[1]);
    assert!(few.len() > 100, "{}", few.len());
    assert_eq!(few, many);
    let statuses: std::collections::BTreeSet<u16> = few.iter().map(|line| line.1).collect();
    assert_eq!(Vec::from_iter(statuses), [200, 401, 404, 405]);
}

/// What hosts, paths and methods are answered, and whether the upstream saw it: known hosts in every spelling, and unknown ones.
async fn answers_by_host(gateway: &Gateway, upstream: &Upstream) -> Vec<(String, u16, bool)> {
    let mut hosts: Vec<String> = (0..10)
        .flat_map(|n| {
            [
                format!("h{n}.example.com"),
                format!("H{n}.EXAMPLE.com.:8443"),
            ]
        })
        .collect();
    hosts.extend(
        [
            "localhost",
            "h0.example.com.evil.com",
            "xh0.example.com",
            "h00.example.com",
            "example.com",
            "a.wild.example.com",
            "a.b.wild.example.com",
            "wild.example.com",
            "[::1]",
        ]
        .map(ToOwned::to_owned),
    );
    let mut answers = Vec::new();
    let mut raw = Raw::connect(gateway).await;
    for host in &hosts {
        for (method, path) in [
            ("GET", "/app"),
            ("POST", "/app/x"),
            ("GET", "/appx"),
            ("GET", "/any"),
            ("GET", "/w"),
        ] {
            let before = upstream.count();
            let request = request(method, path, &[("Host", host)], "");
            let status = raw.exchange(request).await.status;
            let name = format!("{method} {host}{path}");
            answers.push((name, status, upstream.count() > before));
        }
    }
    answers
}

#[tokio::test]
async fn uri_5_prefixes_match_on_segment_boundaries() {
    let upstream = Upstream::start().await;
    let gateway = Site::new(upstream.address).start().await;
    for target in [
        "/publicx",
        "/public.html",
        "/publi",
        "/public-not",
        "/publicpublic",
        "/xpublic",
        "/public%20x",
    ] {
        get(&gateway, target, &[])
            .await
            .refused(404, "route_not_found");
    }
    upstream.saw_nothing();
    for target in [
        "/public",
        "/public/",
        "/public/x",
        "/public?x",
        "//public//x",
    ] {
        get(&gateway, target, &[]).await.is(200);
    }
}

#[tokio::test]
async fn uri_1_the_account_routes_read_the_path_that_was_decided_on() {
    let upstream = Upstream::start().await;
    let gateway = Site::new(upstream.address).accounts().start().await;
    for target in [
        "/auth/login",
        "/auth//login",
        "//auth/%6cogin",
        "/auth/login?a=//",
    ] {
        let answer = get(&gateway, target, &[]).await;
        answer.is(200);
        assert!(answer.text().contains("<form"), "{target}");
    }
    for target in ["/auth/me", "/auth//me", "/auth/%6de"] {
        get(&gateway, target, &[]).await.is(401);
    }
    get(&gateway, "/auth/login/", &[]).await.is(404);
}
