//! What the upstream is told, and that nobody but the gateway can tell it.

use std::collections::BTreeSet;

use serde_json::json;

use crate::harness::{
    Gateway, H2, Kind, Raw, Seen, Site, Token, Upstream, get, keys::bearer, request,
};

/// Names that say who is calling, of every preset.
pub(crate) const IDENTITY: [&str; 10] = [
    "x-forwarded-user",
    "x-forwarded-email",
    "x-forwarded-preferred-username",
    "x-forwarded-groups",
    "x-auth-issuer",
    "x-auth-scopes",
    "remote-user",
    "remote-email",
    "remote-name",
    "remote-groups",
];

/// Names that say where a request came from, or that upstreams believe for other reasons.
pub(crate) const RESERVED: [&str; 25] = [
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-uri",
    "x-forwarded-server",
    "x-forwarded-anything",
    "x-real-ip",
    "x-original-url",
    "x-original-uri",
    "x-original-host",
    "x-rewrite-url",
    "x-portcullis-assertion",
    "x-ssl-client-cert",
    "ssl-client-verify",
    "x-client-cert",
    "x-forwarded-client-cert",
    "x-forwarded-tls-client-cert",
    "ssl-client-s-dn",
    "x-remote-user",
    "true-client-ip",
    "x-client-ip",
    "forwarded",
    "proxy",
];

/// The mark of a forged value.
pub(crate) const FORGED: &str = "forged";

async fn gateway(upstream: &Upstream) -> Gateway {
    Site::new(upstream.address).start().await
}

#[track_caller]
pub(crate) fn nothing_forged(seen: &Seen, context: &str) {
    let found: Vec<_> = seen
        .head
        .fields
        .iter()
        .filter(|(_, value)| value.contains(FORGED))
        .collect();
    assert!(found.is_empty(), "{context}: the upstream saw {found:?}");
}

/// Every spelling of a name whose hyphens may be hyphens, underscores or dots.
fn spellings(name: &str) -> Vec<String> {
    let mut all = vec![String::new()];
    for character in name.chars() {
        let choices = if character == '-' {
            "-_."
        } else {
            &character.to_string()
        };
        all = all
            .iter()
            .flat_map(|start| {
                choices
                    .chars()
                    .map(move |choice| format!("{start}{choice}"))
            })
            .collect();
    }
    all
}

fn fold(name: &str) -> String {
    name.to_ascii_lowercase().replace(['_', '.'], "-")
}

#[tokio::test]
async fn hdr_1_and_hdr_7_forged_names_never_pass_on_any_route() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    // Without e-mail, roles and scopes: the headers for them must be absent, not the client's.
    let token = bearer(&Token::good().sign());
    let authorised = Some(("authorization", token.as_str()));
    let mut h2 = H2::connect(&gateway).await;
    for (target, credential) in [
        ("/public", None),
        ("/public", authorised),
        ("/optional", None),
        ("/optional", authorised),
        ("/private", authorised),
    ] {
        for name in IDENTITY.into_iter().chain(RESERVED) {
            let mut fields: Vec<_> = credential.into_iter().collect();
            fields.extend([(name, FORGED), (name, "forged again")]);
            get(&gateway, target, &fields).await.is(200);
            nothing_forged(&upstream.last(), &format!("{target} {name}"));
            h2.get(target, &fields).await.is(200);
            nothing_forged(&upstream.last(), &format!("{target} {name} over HTTP/2"));
        }
        let seen = upstream.last();
        let verified = credential.is_some() && target != "/public";
        for name in IDENTITY {
            let want = match name {
                "x-forwarded-user" if verified => Some("alice".to_owned()),
                "x-auth-issuer" if verified => Some(Kind::Hs.issuer()),
                _ => None,
            };
            assert_eq!(
                seen.header(name).map(ToOwned::to_owned),
                want,
                "{target} {name}"
            );
        }
    }
}

#[tokio::test]
async fn uri_2_no_field_names_another_method_where_routes_go_by_it() {
    let upstream = Upstream::start().await;
    let site = || {
        Site::new(upstream.address)
            .without_routes()
            .route("all", "/", "public")
    };
    let by_method = site()
        .route("remove", "/items", "authenticated")
        .on_route("methods", r#"["DELETE"]"#);
    let (by_method, by_path) = (by_method.start().await, site().start().await);
    for name in [
        "X-HTTP-Method-Override",
        "x-http-method-override",
        "X-HTTP-Method",
        "X-Method-Override",
        "X.Method.Override",
    ] {
        let fields = [(name, "DELETE")];
        let ask = || request("POST", "/items", &fields, "x");
        let answer = Raw::connect(&by_method).await.exchange(ask()).await;
        answer.is(200);
        assert_eq!(upstream.last().header(name), None, "{name}");
        // Where the method decides nothing, it is the backend's business.
        Raw::connect(&by_path).await.exchange(ask()).await.is(200);
        assert_eq!(upstream.last().header(name), Some("DELETE"), "{name}");
    }
}

#[tokio::test]
async fn hdr_1_the_upstream_is_told_what_the_token_says() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let token = Token::good()
        .claim("email", "alice@example.com")
        .claim("preferred_username", "Alice")
        .claim("roles", json!(["clerk", "admin"]))
        .claim("scope", "orders:read orders:write")
        .sign();
    get(&gateway, "/private", &[("Authorization", &bearer(&token))])
        .await
        .is(200);
    let seen = upstream.last();
    for (name, want) in [
        ("x-forwarded-user", "alice"),
        ("x-forwarded-email", "alice@example.com"),
        ("x-forwarded-preferred-username", "Alice"),
        ("x-forwarded-groups", "clerk,admin"),
        ("x-auth-issuer", "https://hs.issuer.test"),
        ("x-auth-scopes", "orders:read,orders:write"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-real-ip", "127.0.0.1"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "localhost"),
        ("host", "localhost"),
    ] {
        assert_eq!(seen.header(name), Some(want), "{name}");
    }
    let id = seen.header("x-request-id").unwrap();
    assert!(
        id.len() <= 64
            && id
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'),
        "{id}"
    );
    assert!(seen.header("via").unwrap().starts_with("1.1 "));
    assert!(seen.header("traceparent").unwrap().starts_with("00-"));
}

#[tokio::test]
async fn hdr_2_every_spelling_of_a_name_is_removed() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let token = bearer(&Token::good().sign());
    let mut tried = 0;
    for name in IDENTITY.into_iter().chain(RESERVED) {
        let all = spellings(name);
        let upper: Vec<String> = all.iter().map(|name| name.to_ascii_uppercase()).collect();
        let cased: Vec<&str> = all.iter().chain(&upper).map(String::as_str).collect();
        // No more at once than a head may have fields.
        for portion in cased.chunks(80) {
            let mut fields: Vec<(&str, &str)> =
                portion.iter().map(|name| (*name, FORGED)).collect();
            fields.push(("Authorization", &token));
            tried += fields.len();
            get(&gateway, "/private", &fields).await.is(200);
            let seen = upstream.last();
            nothing_forged(&seen, name);
            let spelt: BTreeSet<&str> = seen
                .head
                .names()
                .into_iter()
                .filter(|field| fold(field) == name)
                .collect();
            assert!(spelt.iter().all(|field| *field == name), "{spelt:?}");
        }
        for portion in all.chunks(80) {
            let fields: Vec<_> = portion.iter().map(|name| (name.as_str(), FORGED)).collect();
            let mut client = H2::connect(&gateway).await;
            client.get("/public", &fields).await.is(200);
            nothing_forged(&upstream.last(), name);
        }
    }
    assert!(tried > 200, "{tried}");
    // Any underscore is gone, for a CGI server reads it as a hyphen.
    get(
        &gateway,
        "/public",
        &[("X_Anything", "v"), ("X-Anything", "kept")],
    )
    .await
    .is(200);
    assert_eq!(upstream.last().header("x-anything"), Some("kept"));
    assert!(
        upstream
            .last()
            .head
            .names()
            .iter()
            .all(|name| !name.contains('_'))
    );
}

#[tokio::test]
async fn hdr_2_configured_names_are_removed_in_every_spelling() {
    let upstream = Upstream::start().await;
    let gateway = Site::new(upstream.address)
        .set(
            "identity",
            "headers",
            r#"{ "X-User-Id" = "{subject}", "X-Tenant" = "{claims.tenant}" }"#,
        )
        .start()
        .await;
    for name in spellings("x-user-id")
        .into_iter()
        .chain(spellings("x-tenant"))
    {
        for target in ["/public", "/optional"] {
            get(&gateway, target, &[(&name, FORGED)]).await.is(200);
            nothing_forged(&upstream.last(), &name);
        }
        let token = bearer(&Token::good().sign());
        get(
            &gateway,
            "/private",
            &[(&name, FORGED), ("Authorization", &token)],
        )
        .await
        .is(200);
        nothing_forged(&upstream.last(), &name);
        assert_eq!(upstream.last().header("x-user-id"), Some("alice"));
        assert_eq!(upstream.last().header("x-tenant"), None);
    }
}

#[tokio::test]
async fn hdr_3_connection_option_cannot_strip_what_the_gateway_sets() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let token = Token::good()
        .claim("email", "alice@example.com")
        .claim("roles", json!(["clerk"]))
        .sign();
    let token = bearer(&token);
    for options in [
        "close, X-Forwarded-User, X-Forwarded-Email, X-Forwarded-Groups, X-Auth-Issuer",
        "keep-alive, x-forwarded-user, x-real-ip, x-forwarded-for, x-forwarded-proto",
        "X-FORWARDED-USER,X-REAL-IP,X-FORWARDED-FOR,VIA,X-REQUEST-ID,X-FORWARDED-HOST",
        "x_forwarded_user, x.real.ip, authorization, host, cookie, content-length",
        ",,x-forwarded-user,,",
        "keep-alive\r\nConnection: x-forwarded-user\r\nConnection: x-real-ip",
    ] {
        get(
            &gateway,
            "/private",
            &[("Connection", options), ("Authorization", &token)],
        )
        .await
        .is(200);
        let seen = upstream.last();
        for name in [
            "x-forwarded-user",
            "x-forwarded-email",
            "x-forwarded-groups",
            "x-auth-issuer",
        ] {
            assert!(seen.header(name).is_some(), "{options}: no {name}");
        }
        for name in [
            "x-forwarded-for",
            "x-real-ip",
            "x-forwarded-proto",
            "x-forwarded-host",
            "x-request-id",
            "via",
            "host",
        ] {
            assert!(seen.header(name).is_some(), "{options}: no {name}");
        }
        assert_eq!(seen.header("authorization"), None, "{options}");
        let connection = seen
            .head
            .values("connection")
            .join(",")
            .to_ascii_lowercase();
        assert!(
            !connection.contains('x') && !connection.contains("host"),
            "{connection}"
        );
    }
    upstream.saw_no_fault();
}

#[tokio::test]
async fn hdr_3_fields_of_one_connection_stay_on_it() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let hop = [
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Connection", "keep-alive"),
        ("Proxy-Authorization", "Basic YTpi"),
        ("TE", "trailers, deflate"),
        ("Trailer", "X-T"),
        ("Upgrade", "h2c, websocket"),
        ("HTTP2-Settings", "AAMAAABkAAQAAP__"),
        ("X-Mine", "one hop"),
        (
            "Connection",
            "Upgrade, HTTP2-Settings, TE, X-Mine, Keep-Alive",
        ),
        ("X-Kept", "kept"),
    ];
    get(&gateway, "/public", &hop).await.is(200);
    let seen = upstream.last();
    for (name, _) in hop.iter().take(8) {
        assert_eq!(seen.head.values(name), Vec::<&str>::new(), "{name}");
    }
    assert_eq!(seen.header("x-kept"), Some("kept"));
    upstream.saw_no_fault();
}

#[tokio::test]
async fn hdr_4_a_stranger_cannot_say_where_a_request_comes_from() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    for value in [
        "203.0.113.9",
        "203.0.113.9, 127.0.0.1",
        "a",
        "",
        "::1",
        "127.0.0.1, 127.0.0.1",
    ] {
        let fields = [
            ("X-Forwarded-For", value),
            ("X-Real-IP", value),
            (
                "Forwarded",
                "for=203.0.113.9;proto=http;host=evil.example.com",
            ),
            ("X-Forwarded-Proto", "http"),
            ("X-Forwarded-Host", "evil.example.com"),
            ("X-Forwarded-Port", "80"),
            ("X-Forwarded-Prefix", "/evil"),
            ("X-Request-Id", "chosen-by-a-stranger"),
        ];
        get(&gateway, "/public", &fields).await.is(200);
        let seen = upstream.last();
        for (name, want) in [
            ("x-forwarded-for", Some("127.0.0.1")),
            ("x-real-ip", Some("127.0.0.1")),
            ("x-forwarded-proto", Some("https")),
            ("x-forwarded-host", Some("localhost")),
            ("x-forwarded-port", None),
            ("x-forwarded-prefix", None),
            ("forwarded", None),
        ] {
            assert_eq!(seen.header(name), want, "{value:?}: {name}");
        }
        assert_ne!(seen.header("x-request-id"), Some("chosen-by-a-stranger"));
    }
}

#[tokio::test]
async fn hdr_4_a_trusted_proxy_names_the_right_most_stranger() {
    let upstream = Upstream::start().await;
    let gateway = Site::new(upstream.address)
        .set(
            "server",
            "trusted_proxies",
            r#"["127.0.0.0/8", "10.0.0.0/8"]"#,
        )
        .start()
        .await;
    let long = (0..50)
        .map(|n| format!("10.0.1.{n}"))
        .collect::<Vec<_>>()
        .join(", ");
    let long = format!("192.0.2.1, 203.0.113.9, {long}");
    for (given, client) in [
        ("203.0.113.9", "203.0.113.9"),
        ("192.0.2.1, 203.0.113.9", "203.0.113.9"),
        ("192.0.2.1, 203.0.113.9, 10.0.0.7", "203.0.113.9"),
        (&long, "203.0.113.9"),
        ("203.0.113.9:4711", "203.0.113.9"),
        ("[2001:db8::1]:4711", "2001:db8::1"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("a", "127.0.0.1"),
        ("203.0.113.9, a", "127.0.0.1"),
        ("203.0.113.9, a, 10.0.0.7", "10.0.0.7"),
        ("203.0.113.9,", "127.0.0.1"),
        ("fe80::1%eth0", "127.0.0.1"),
    ] {
        get(&gateway, "/public", &[("X-Forwarded-For", given)])
            .await
            .is(200);
        assert_eq!(upstream.last().header("x-real-ip"), Some(client), "{given}");
    }
    let told = [
        ("X-Forwarded-Proto", "http"),
        ("X-Forwarded-Host", "shop.example.com"),
        ("X-Request-Id", "from-the-proxy-1"),
    ];
    get(&gateway, "/public", &told).await.is(200);
    let seen = upstream.last();
    assert_eq!(seen.header("x-forwarded-proto"), Some("http"));
    assert_eq!(seen.header("x-forwarded-host"), Some("shop.example.com"));
    assert_eq!(seen.header("x-request-id"), Some("from-the-proxy-1"));
    for (name, value) in [
        ("X-Forwarded-Proto", "gopher"),
        ("X-Forwarded-Host", "a b"),
        ("X-Request-Id", "a/b"),
    ] {
        get(&gateway, "/public", &[(name, value)]).await.is(200);
        assert_ne!(upstream.last().header(name), Some(value));
    }
}

#[tokio::test]
async fn hdr_5_one_role_cannot_become_two() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let with = |roles: serde_json::Value| bearer(&Token::good().claim("roles", roles).sign());
    let comma = with(json!(["clerk,admin"]));
    get(&gateway, "/admin", &[("Authorization", &comma)])
        .await
        .refused(403, "role_missing");
    upstream.saw_nothing();
    get(&gateway, "/private", &[("Authorization", &comma)])
        .await
        .is(200);
    assert_eq!(
        upstream.last().header("x-forwarded-groups"),
        Some("clerk%2Cadmin")
    );
    for role in [
        "a\r\nX-Forwarded-User: root",
        "a\nb",
        "a\u{0}b",
        "a\u{7f}b",
        "a\u{85}b",
    ] {
        let count = upstream.count();
        get(
            &gateway,
            "/private",
            &[("Authorization", &with(json!([role])))],
        )
        .await
        .refused(403, "claim_mismatch");
        assert_eq!(upstream.count(), count, "{role:?}");
    }
    get(
        &gateway,
        "/private",
        &[("Authorization", &with(json!(["caf\u{e9}", "100%"])))],
    )
    .await
    .is(200);
    assert_eq!(
        upstream.last().header("x-forwarded-groups"),
        Some("caf%C3%A9,100%25")
    );
    let huge = "r".repeat(200);
    let many: Vec<&str> = (0..30).map(|_| huge.as_str()).collect();
    let answer = get(
        &gateway,
        "/private",
        &[("Authorization", &with(json!(many)))],
    )
    .await;
    assert!(
        [200, 401, 403].contains(&answer.status),
        "{}",
        answer.status
    );
}

#[tokio::test]
async fn hdr_8_tokens_and_gateway_cookies_are_not_forwarded() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let token = Token::good().sign();
    let authorization = bearer(&token);
    let cookies = "a=1; __Secure-portcullis-refresh=secret-refresh; b=2";
    for target in ["/private", "/optional"] {
        let fields = [
            ("authorization", authorization.as_str()),
            ("cookie", cookies),
        ];
        get(&gateway, target, &fields).await.is(200);
        let first = upstream.last();
        H2::connect(&gateway)
            .await
            .get(target, &fields)
            .await
            .is(200);
        for seen in [first, upstream.last()] {
            assert_eq!(seen.header("authorization"), None, "{target}");
            assert_eq!(seen.header("cookie"), Some("a=1; b=2"), "{target}");
            let raw = String::from_utf8_lossy(&seen.head.raw).into_owned();
            assert!(
                !raw.contains(&token) && !raw.contains("secret-refresh"),
                "{raw}"
            );
        }
    }
    // A public route does not look at credentials: what is not the gateway's passes, its cookies do not.
    let fields = [("authorization", "Basic YTpi"), ("cookie", cookies)];
    get(&gateway, "/public", &fields).await.is(200);
    assert_eq!(upstream.last().header("authorization"), Some("Basic YTpi"));
    assert_eq!(upstream.last().header("cookie"), Some("a=1; b=2"));
    get(
        &gateway,
        "/public",
        &[("cookie", "__Secure-portcullis-refresh=x")],
    )
    .await
    .is(200);
    assert_eq!(upstream.last().header("cookie"), None);
}

#[tokio::test]
async fn hdr_8_pass_token_passes_the_token_and_nothing_else() {
    let upstream = Upstream::start().await;
    let gateway = Site::new(upstream.address)
        .set("identity", "pass_token", "true")
        .start()
        .await;
    let authorization = bearer(&Token::good().sign());
    let fields = [
        ("Authorization", authorization.as_str()),
        ("Cookie", "__Secure-portcullis-refresh=x; a=1"),
    ];
    get(&gateway, "/private", &fields).await.is(200);
    assert_eq!(
        upstream.last().header("authorization"),
        Some(&*authorization)
    );
    assert_eq!(upstream.last().header("cookie"), Some("a=1"));
}

#[tokio::test]
async fn hdr_9_fields_of_the_upstreams_connection_stay_there() {
    let upstream = Upstream::scripted(|_| {
        crate::harness::Reply::with(
            200,
            &[
                ("Connection", "X-Frame-Options, X-Hop"),
                ("X-Hop", "1"),
                ("Keep-Alive", "timeout=5"),
                ("Upgrade", "h2c"),
                ("Proxy-Authenticate", "Basic"),
                ("Set-Cookie", "theirs=1; Path=/"),
                ("Set-Cookie", "theirs2=2; Path=/"),
            ],
            "ok",
        )
    })
    .await;
    let gateway = gateway(&upstream).await;
    let answer = get(&gateway, "/public", &[]).await;
    for name in ["x-hop", "keep-alive", "upgrade"] {
        assert_eq!(answer.head.values(name), Vec::<&str>::new(), "{name}");
    }
    assert_eq!(
        answer.head.values("set-cookie"),
        ["theirs=1; Path=/", "theirs2=2; Path=/"]
    );
    let over_h2 = H2::connect(&gateway).await.get("/public", &[]).await;
    assert_eq!(over_h2.text(), "ok");
    assert_eq!(over_h2.head.values("x-hop"), Vec::<&str>::new());
}

#[tokio::test]
async fn msg_14_a_request_that_has_passed_before_is_a_loop() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    get(
        &gateway,
        "/public",
        &[("Via", "1.1 another, 1.0 third (comment)")],
    )
    .await
    .is(200);
    let via = upstream.last().head.values("via").join(", ");
    let count = upstream.count();
    let mut raw = Raw::connect(&gateway).await;
    raw.exchange(request("GET", "/public", &[("Via", &via)], ""))
        .await
        .refused(508, "loop_detected");
    assert_eq!(upstream.count(), count);
}
