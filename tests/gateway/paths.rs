//! One path for deciding and forwarding: no spelling of a protected path reaches the upstream as if it were another.

use std::collections::BTreeSet;

use crate::harness::{
    Broken, Gateway, H2, Raw, Site, Token, Upstream, client::full, get, keys::bearer, request,
};

/// Spellings with which somebody may hope to reach `/private/secret` as something else.
const BYPASSES: [&str; 122] = [
    "/private/secret",
    "//private/secret",
    "///private/secret",
    "/private//secret",
    "//private//secret//",
    "/./private/secret",
    "/././private/secret",
    "/.//private/secret",
    "//./private/secret",
    "/private/./secret",
    "/private/.",
    "/public/../private/secret",
    "/public/./../private/secret",
    "/public//../private/secret",
    "/public/a/../../private/secret",
    "/public/..//private/secret",
    "/a/b/c/../../../private/secret",
    "/../private/secret",
    "/../../private/secret",
    "/public/..",
    "/public/../private",
    "/private/x/../secret",
    "/%2e/private/secret",
    "/%2E/private/secret",
    "/%2e%2e/private/secret",
    "/public/%2e%2e/private/secret",
    "/public/%2E%2E/private/secret",
    "/public/.%2e/private/secret",
    "/public/%2e./private/secret",
    "/public/.%2E/private/secret",
    "/public/%2e%2e%2fprivate/secret",
    "/public/..%2fprivate/secret",
    "/public/..%2Fprivate/secret",
    "/public%2f..%2fprivate%2fsecret",
    "/public/..%5cprivate/secret",
    "/public/..%5Cprivate/secret",
    "/public/..\\private/secret",
    "/public\\..\\private\\secret",
    "\\private\\secret",
    "/\\private/secret",
    "/%5cprivate/secret",
    "/%2fprivate/secret",
    "/%2Fprivate/secret",
    "/%2f%2fprivate/secret",
    "%2fprivate/secret",
    "/private%2fsecret",
    "/private%2Fsecret",
    "/private%5csecret",
    "/private\\secret",
    "/%70rivate/secret",
    "/%70%72%69%76%61%74%65/secret",
    "/p%72ivate/secret",
    "/privat%65/secret",
    "/privat%65%2fsecret",
    "/%50rivate/secret",
    "/%2570rivate/secret",
    "/%25%37%30rivate/secret",
    "/%%37%30rivate/secret",
    "/%252570rivate/secret",
    "/privat%2565/secret",
    "/%252e%252e/private/secret",
    "/public/%252e%252e/private/secret",
    "/public/%252e%252e%252fprivate/secret",
    "/public/..%252fprivate/secret",
    "/public/%25252e%25252e/private/secret",
    "/public/%c0%ae%c0%ae/private/secret",
    "/public/%c0%ae%c0%ae%c0%afprivate/secret",
    "/public/..%c0%afprivate/secret",
    "/public/..%c1%9cprivate/secret",
    "/public/%e0%80%ae%e0%80%ae/private/secret",
    "/public/%u002e%u002e/private/secret",
    "/public/..%u2215private/secret",
    "/public/%uff0e%uff0e/private/secret",
    "/public/..;/private/secret",
    "/public/..;a=b/private/secret",
    "/public/..;/..;/private/secret",
    "/public/;/../private/secret",
    "/;/private/secret",
    "/;a=b/private/secret",
    "/private;/secret",
    "/private;a=b/secret",
    "/private;.css/secret",
    "/private/secret;.css",
    "/private/;/secret",
    "/private%3b/secret",
    "/private%3B/secret",
    "/public/..%3b/private/secret",
    "/private/secret%00",
    "/private%00/secret",
    "/%00private/secret",
    "/private/secret%00.css",
    "/public%00/../private/secret",
    "/private/secret%0a",
    "/private/secret%0d%0a",
    "/private%09/secret",
    "/%09private/secret",
    "/%20private/secret",
    "/private%20/secret",
    "/private/secret%20",
    "/private%7f/secret",
    "/private/secret#",
    "/public#/../private/secret",
    "/public/#/../../private/secret",
    "/private%23/secret",
    "/public%23/../private/secret",
    "/public?/../private/secret",
    "/public?x=/private/secret",
    "/private/secret?",
    "/private/secret?x=/public",
    "/private/secret?/public",
    "/private?",
    "/private/",
    "/private",
    "/private/secret/..",
    "/private/secret/%2e%2e",
    "/private..;/secret",
    "/public/%",
    "/public/%2",
    "/public/%zz/../private/secret",
    "/public/..%ef%bc%8fprivate/secret",
    "/public/%ef%bc%8e%ef%bc%8e/private/secret",
    "/public/.%00./private/secret",
];

/// Reads a path as the most forgiving server might: decodes until nothing is left to decode, takes backslashes for
/// slashes, drops parameters, merges slashes, resolves dots.
fn forgiving(target: &str) -> String {
    let mut path = target
        .split(['?', '#'])
        .next()
        .unwrap_or_default()
        .as_bytes()
        .to_vec();
    for _ in 0..5 {
        let mut decoded = Vec::new();
        let mut at = 0;
        while at < path.len() {
            let hex = path
                .get(at + 1..at + 3)
                .and_then(|pair| std::str::from_utf8(pair).ok());
            match hex
                .filter(|_| path[at] == b'%')
                .and_then(|pair| u8::from_str_radix(pair, 16).ok())
            {
                Some(byte) => {
                    decoded.push(byte);
                    at += 3;
                }
                None => {
                    decoded.push(path[at]);
                    at += 1;
                }
            }
        }
        path = decoded;
    }
    let text = String::from_utf8_lossy(&path)
        .replace('\\', "/")
        .replace(['\0', '\t', '\n', '\r'], "");
    let mut segments: Vec<&str> = Vec::new();
    for segment in text.split('/') {
        let segment = segment.split(';').next().unwrap_or_default();
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            other => segments.push(other),
        }
    }
    format!("/{}", segments.join("/"))
}

fn is_private(target: &str) -> bool {
    let path = forgiving(target);
    path == "/private" || path.starts_with("/private/")
}

/// A site where all is public but `/private`, and, below it again, one public corner.
async fn gateway(upstream: &Upstream) -> Gateway {
    Site::new(upstream.address)
        .set("server", "workers", "1")
        .without_routes()
        .route("everything", "/", "public")
        .route("private", "/private", "authenticated")
        .route("corner", "/private/open", "public")
        .start()
        .await
}

#[test]
fn the_forgiving_reading_is_forgiving() {
    for target in [
        "/public/..%252fprivate/secret",
        "\\private\\secret",
        "/public/..;a=b/private/secret",
        "//./private",
    ] {
        assert!(is_private(target), "{target}");
    }
    assert!(!is_private("/public/private"));
    assert_eq!(
        BYPASSES.iter().collect::<BTreeSet<_>>().len(),
        BYPASSES.len()
    );
}

#[tokio::test]
async fn uri_1_no_spelling_of_a_protected_path_reaches_the_upstream() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let mut faults = Vec::new();
    for target in BYPASSES {
        let before = upstream.count();
        let mut raw = Raw::connect(&gateway).await;
        raw.send(request("GET", target, &[], "")).await;
        let status = match raw.try_answer().await {
            Ok(answer) => answer.status,
            Err(Broken::Closed) => 0,
            Err(broken) => panic!("{target}: {broken:?}"),
        };
        let seen = upstream.seen().split_off(before);
        let forwarded = seen.iter().any(|seen| is_private(&seen.target));
        let refused = [400, 401].contains(&status) && seen.is_empty();
        if forwarded || !(refused || status == 200) {
            faults.push(format!(
                "{target}: {status}, the upstream saw {:?}",
                seen.first().map(|seen| &seen.target)
            ));
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
    upstream.saw_no_fault();
}

#[tokio::test]
async fn uri_1_no_spelling_of_a_protected_path_passes_over_http_2() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let mut h2 = H2::connect(&gateway).await;
    let mut tried = 0;
    for target in BYPASSES {
        let before = upstream.count();
        // What the client library itself refuses to write is tried by the test over HTTP/1.1.
        let Ok(uri) = http::Uri::builder()
            .scheme("https")
            .authority("localhost")
            .path_and_query(target)
            .build()
        else {
            continue;
        };
        let Ok(request) = http::Request::get(uri).body(full("")) else {
            continue;
        };
        tried += 1;
        let status = match h2.send(request).await {
            Ok(answer) => answer.status,
            Err(_) => {
                h2 = H2::connect(&gateway).await;
                400
            }
        };
        let seen = upstream.seen().split_off(before);
        assert!(
            seen.iter().all(|seen| !is_private(&seen.target)),
            "{target}: forwarded as {seen:?}"
        );
        assert!(status == 200 || seen.is_empty(), "{target}: {status}");
        assert!([200, 400, 401].contains(&status), "{target}: {status}");
    }
    assert!(tried > 80, "{tried}");
    upstream.saw_no_fault();
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
            assert_eq!(
                (first.status, second.status),
                (want, want),
                "{method} {path}"
            );
            let forwarded = upstream.count() - before;
            assert_eq!(
                forwarded,
                if want == 200 { 2 } else { 0 },
                "{method} {path}"
            );
        }
    }
    let answer = h2.request("DELETE", "/read", &[]).await;
    let allow = answer.header("allow").unwrap_or_default();
    assert!(allow.contains("GET") && allow.contains("HEAD"), "{allow:?}");
    upstream.saw_no_fault();
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
