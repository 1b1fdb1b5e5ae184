//! Browsers: the session cookie on proxied routes, the way to the login page, the pages, and several hosts.

use std::collections::BTreeMap;

use crate::harness::{
    Answer, Gateway, Kind, Raw, Site, Token, Upstream, get, keys::bearer, request,
};

const PASSWORD: &str = "correct horse battery staple";
const ORIGIN: &str = "https://localhost:8443";
const SESSION: &str = "__Host-portcullis-session";
const DEVICE: &str = "__Host-portcullis-device";
const FORM: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded");
const SAME: (&str, &str) = ("Sec-Fetch-Site", "same-origin");
const HTML: (&str, &str) = ("Accept", "text/html,application/xhtml+xml,*/*;q=0.8");
const NAVIGATE: (&str, &str) = ("Sec-Fetch-Mode", "navigate");

/// The user `alice`, a clerk, beside the routes of every site; `/spa` lets an origin in, `/quiet` sends nobody to a page.
async fn prepared(upstream: &Upstream) -> Site {
    let site = Site::new(upstream.address)
        .accounts()
        .set("log", "level", "\"trace\"")
        .route("quiet", "/quiet", "authenticated")
        .on_route("sign_in", "\"never\"")
        .route("foreign", "/foreign", "authenticated")
        .on_route("require", r#"{ issuers = ["hs"] }"#)
        .route("spa", "/spa", "authenticated")
        .on_route(
            "cors",
            r#"{ origins = ["https://spa.example"], credentials = true, methods = ["POST"] }"#,
        )
        .route("app", "/", "authenticated")
        .on_route("hosts", r#"["app.example"]"#)
        .route("wild", "/", "authenticated")
        .on_route("hosts", r#"["*.wild.example"]"#)
        .route("socket", "/socket", "authenticated")
        .on_route("websocket", "true");
    site.write();
    site.user("alice", PASSWORD, &["clerk"]).await;
    site
}

async fn gateway(upstream: &Upstream) -> Gateway {
    prepared(upstream).await.start().await
}

/// What a browser keeps, for one host.
#[derive(Default, Clone)]
struct Jar(BTreeMap<String, String>);

impl Jar {
    /// Of a browser that has been at the application, which gave it a cookie.
    fn of_visitor() -> Self {
        Self([("theme".to_owned(), "dark".to_owned())].into())
    }

    fn take(&mut self, answer: &Answer) {
        for (name, line) in &answer.head.fields {
            if name.eq_ignore_ascii_case("set-cookie") {
                let (pair, attributes) = line.split_once(';').unwrap();
                let (name, value) = pair.split_once('=').unwrap();
                if attributes.contains("Max-Age=0;") {
                    self.0.remove(name);
                } else {
                    self.0.insert(name.to_owned(), value.to_owned());
                }
            }
        }
    }

    fn line(&self) -> String {
        let pairs = self.0.iter().map(|(name, value)| format!("{name}={value}"));
        pairs.collect::<Vec<_>>().join("; ")
    }

    /// Without the cookie that browsers keep back from what another site began.
    fn lax(&self) -> Self {
        let mut jar = self.clone();
        jar.0.remove("__Secure-portcullis-refresh");
        jar
    }
}

async fn send(
    gateway: &Gateway,
    (method, target): (&str, &str),
    jar: &Jar,
    fields: &[(&str, &str)],
    body: &str,
) -> Answer {
    let line = jar.line();
    let mut all = fields.to_vec();
    if !line.is_empty() {
        all.push(("Cookie", &line));
    }
    let mut raw = Raw::connect(gateway).await;
    raw.exchange(request(method, target, &all, body)).await
}

/// Opens a page, as the address bar does.
async fn open(gateway: &Gateway, target: &str, jar: &Jar, more: &[(&str, &str)]) -> Answer {
    let mut fields = vec![HTML, NAVIGATE];
    fields.extend(more);
    send(gateway, ("GET", target), jar, &fields, "").await
}

/// Fills in a form of one of our pages.
async fn submit(gateway: &Gateway, target: &str, jar: &Jar, body: &str) -> Answer {
    let fields = [FORM, SAME, HTML, NAVIGATE, ("Origin", "null")];
    send(gateway, ("POST", target), jar, &fields, body).await
}

async fn signed_in(gateway: &Gateway) -> Jar {
    let mut jar = Jar::default();
    let body = format!("username=alice&password={}", PASSWORD.replace(' ', "+"));
    let answer = submit(gateway, "/auth/login", &jar, &body).await;
    assert_eq!(
        answer.is(303).header("location"),
        Some("https://localhost:8443/auth/login?done=login")
    );
    jar.take(&answer);
    assert_eq!(jar.0.len(), 4, "{:?}", jar.0.keys());
    let answer = open(gateway, "/auth/login?done=login", &jar, &[SAME]).await;
    assert_eq!(
        answer.is(303).header("location"),
        Some("https://localhost:8443/auth/account")
    );
    jar
}

#[track_caller]
fn is_page(answer: &Answer, status: u16, code: Option<&str>) {
    answer.is(status);
    assert_eq!(
        answer.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let policy = answer.header("content-security-policy").unwrap();
    assert!(
        policy.starts_with("default-src 'none'; style-src 'sha256-"),
        "{policy}"
    );
    let text = std::str::from_utf8(&answer.body).unwrap();
    assert!(!text.contains("<script"), "{text}");
    if let Some(code) = code {
        assert!(text.contains(&format!("<code>{code}</code>")), "{text}");
    }
}

/// The line of the access log about an answer.
async fn record(gateway: &Gateway, answer: &Answer) -> serde_json::Value {
    let id = answer.header("x-request-id").unwrap().to_owned();
    gateway
        .access_line(|line| line["request_id"] == id.as_str())
        .await
}

fn text(answer: &Answer) -> String {
    String::from_utf8(answer.body.clone()).unwrap()
}

#[tokio::test]
async fn jwt_9_the_session_cookie_is_a_credential_of_proxied_routes_alone() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let jar = signed_in(&gateway).await;
    let program: &[(&str, &str)] = &[];
    for path in ["/auth/me", "/auth/sessions"] {
        let answer = send(&gateway, ("GET", path), &jar, program, "").await;
        answer.refused(401, "credentials_missing");
    }
    send(&gateway, ("POST", "/auth/logout-all"), &jar, &[SAME], "")
        .await
        .refused(401, "credentials_missing");
    upstream.saw_nothing();
    send(&gateway, ("GET", "/private"), &jar, program, "")
        .await
        .is(200);
    assert_eq!(upstream.last().header("x-forwarded-user"), Some("alice"));
    send(&gateway, ("GET", "/optional"), &jar, program, "")
        .await
        .is(200);
    assert_eq!(upstream.last().header("x-forwarded-user"), Some("alice"));
    send(&gateway, ("GET", "/public"), &jar, program, "")
        .await
        .is(200);
    assert_eq!(upstream.last().header("x-forwarded-user"), None);
    send(&gateway, ("GET", "/admin"), &jar, program, "")
        .await
        .refused(403, "role_missing");
}

#[tokio::test]
async fn hdr_8_cookies_of_the_gateway_never_reach_an_upstream() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let mut jar = signed_in(&gateway).await;
    for name in ["renewals", "handover"] {
        jar.0
            .insert(format!("__Host-portcullis-{name}"), "1".to_owned());
    }
    for path in ["/private", "/optional", "/public"] {
        send(&gateway, ("GET", path), &jar, &[], "").await.is(200);
        assert_eq!(upstream.last().header("cookie"), None, "{path}");
        jar.0.insert("theme".to_owned(), "dark".to_owned());
        send(&gateway, ("GET", path), &jar, &[], "").await.is(200);
        assert_eq!(
            upstream.last().header("cookie"),
            Some("theme=dark"),
            "{path}"
        );
        jar.0.remove("theme");
    }
}

#[tokio::test]
async fn hdr_9_no_shared_cache_keeps_what_a_known_caller_was_answered() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let jar = signed_in(&gateway).await;
    for (path, want) in [
        ("/private", Some("private")),
        ("/optional", Some("private")),
        ("/public", None),
    ] {
        let answer = send(&gateway, ("GET", path), &jar, &[], "").await;
        assert_eq!(answer.is(200).header("cache-control"), want, "{path}");
    }
    let anonymous = get(&gateway, "/optional", &[]).await;
    assert_eq!(anonymous.is(200).header("cache-control"), None);
}

#[tokio::test]
async fn jwt_9_two_credentials_are_400_and_nothing_is_forwarded() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let jar = signed_in(&gateway).await;
    let line = jar.line();
    let own = bearer(&jar.0[SESSION]);
    let other = bearer(&Token::good().sign());
    let forged = format!("{SESSION}=x.y.z");
    for path in ["/private", "/optional"] {
        for fields in [
            &[("Authorization", &*own), ("Cookie", &*line)][..],
            &[("Authorization", &*other), ("Cookie", &*line)],
            &[("Authorization", &*other), ("Cookie", &*forged)],
            &[("Authorization", "Basic eDp5"), ("Cookie", &*line)],
            &[("Cookie", &*line), ("Cookie", &*line)],
            &[("Cookie", &*line), ("Cookie", &*forged)],
        ] {
            let answer = get(&gateway, path, fields).await;
            answer.refused(400, "ambiguous_credentials");
        }
    }
    upstream.saw_nothing();
    let fields = [("Authorization", &*other), ("Cookie", &*line)];
    get(&gateway, "/public", &fields).await.is(200);
    assert_eq!(upstream.last().header("authorization"), Some(&*other));
}

#[tokio::test]
async fn jwt_9_a_dead_cookie_is_refused_or_anonymous_and_only_our_tokens_are_taken() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let jar = signed_in(&gateway).await;
    let mut bad = vec!["".to_owned(), "x".to_owned(), "a.b.c".to_owned()];
    bad.extend(Kind::ALL.iter().map(|kind| Token::new(*kind).sign()));
    bad.push(format!("{}x", jar.0[SESSION]));
    for token in &bad {
        let cookie = format!("{SESSION}={token}");
        let fields = [("Cookie", &*cookie)];
        get(&gateway, "/private", &fields)
            .await
            .refused(401, "token_invalid");
        get(&gateway, "/optional", &fields).await.is(200);
        let seen = upstream.last();
        assert_eq!(seen.header("x-forwarded-user"), None);
        assert_eq!(seen.header("cookie"), None);
    }
    // A route of another issuer alone does not look at it.
    send(&gateway, ("GET", "/foreign"), &jar, &[], "")
        .await
        .refused(401, "credentials_missing");
    assert_eq!(upstream.count(), bad.len());
}

#[tokio::test]
async fn sess_6_a_change_by_cookie_needs_a_page_of_our_own() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let jar = signed_in(&gateway).await;
    let foreign: &[&[(&str, &str)]] = &[
        &[],
        &[("Origin", "https://evil.example")],
        &[("Origin", "null")],
        &[("Sec-Fetch-Site", "cross-site")],
        &[("Sec-Fetch-Site", "same-site")],
        &[("Sec-Fetch-Site", "none")],
        &[
            ("Sec-Fetch-Site", "cross-site"),
            ("Origin", "https://spa.example"),
        ],
    ];
    for method in ["POST", "PUT", "PATCH", "DELETE"] {
        for fields in foreign {
            let answer = send(&gateway, (method, "/private"), &jar, fields, "x=1").await;
            answer.refused(403, "origin_denied");
            let answer = send(&gateway, (method, "/optional"), &jar, fields, "x=1").await;
            answer.refused(403, "origin_denied");
        }
    }
    upstream.saw_nothing();
    let own: &[&[(&str, &str)]] = &[
        &[SAME],
        &[SAME, ("Origin", "null")],
        &[("Origin", ORIGIN)],
        &[("Origin", "https://localhost")],
    ];
    for fields in own {
        send(&gateway, ("POST", "/private"), &jar, fields, "x=1")
            .await
            .is(200);
    }
    send(
        &gateway,
        ("POST", "/spa"),
        &jar,
        &[("Origin", "https://spa.example")],
        "x=1",
    )
    .await
    .is(200);
    // A token in Authorization is put there by a program, and the public look at nothing.
    let bearer = bearer(&jar.0[SESSION]);
    let fields = [
        ("Authorization", &*bearer),
        ("Origin", "https://evil.example"),
    ];
    send(&gateway, ("POST", "/private"), &Jar::default(), &fields, "")
        .await
        .is(200);
    let evil = [("Origin", "https://evil.example")];
    send(&gateway, ("POST", "/public"), &jar, &evil, "")
        .await
        .is(200);
}

#[tokio::test]
async fn up_7_a_websocket_by_cookie_names_its_origin() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let jar = signed_in(&gateway).await;
    let upgrade = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    for origin in [None, Some("https://evil.example"), Some("null")] {
        let mut fields = upgrade.to_vec();
        fields.extend(origin.map(|origin| ("Origin", origin)));
        send(&gateway, ("GET", "/socket"), &jar, &fields, "")
            .await
            .refused(403, "origin_denied");
    }
    upstream.saw_nothing();
}

#[tokio::test]
async fn msg_11_only_pages_are_sent_to_the_login_page() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let nobody = Jar::default();
    let programs: &[&[(&str, &str)]] = &[
        &[],
        &[("Accept", "*/*")],
        &[("Accept", "application/json")],
        &[HTML, ("Sec-Fetch-Mode", "cors")],
        &[HTML, ("Sec-Fetch-Mode", "no-cors")],
    ];
    for fields in programs {
        let answer = get(&gateway, "/private", fields).await;
        answer.refused(401, "credentials_missing");
        assert_eq!(answer.header("location"), None);
        assert_eq!(
            answer.header("content-type"),
            Some("application/problem+json")
        );
    }
    let answer = open(&gateway, "/private/a?b=c&d=%20", &nobody, &[]).await;
    let location = "https://localhost:8443/auth/login?next=%2Fprivate%2Fa%3Fb%3Dc%26d%3D%2520";
    assert_eq!(answer.is(302).header("location"), Some(location));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("vary"), Some("Accept, Sec-Fetch-Mode"));
    let record = record(&gateway, &answer).await;
    assert_eq!(
        (&record["status"], &record["code"]),
        (&302.into(), &"credentials_missing".into())
    );
    // An old browser that says only what it takes.
    assert_eq!(get(&gateway, "/private", &[HTML]).await.status, 302);
    // No page, or none that signing in would open.
    for path in ["/quiet", "/foreign"] {
        is_page(
            &open(&gateway, path, &nobody, &[]).await,
            401,
            Some("credentials_missing"),
        );
    }
    let bad = open(
        &gateway,
        "/private",
        &nobody,
        &[("Authorization", "Bearer x")],
    )
    .await;
    is_page(&bad, 401, Some("token_invalid"));
    is_page(
        &open(&gateway, "/nowhere", &nobody, &[]).await,
        404,
        Some("route_not_found"),
    );
    let jar = signed_in(&gateway).await;
    is_page(
        &open(&gateway, "/admin", &jar, &[]).await,
        403,
        Some("role_missing"),
    );
    // A form that was sent too late: nothing is lost that its page does not have, and it says what to do.
    let form = [HTML, NAVIGATE, FORM, SAME];
    let dead = Jar([(SESSION.to_owned(), "x.y.z".to_owned())].into());
    for (jar, code) in [(&nobody, "credentials_missing"), (&dead, "token_invalid")] {
        let answer = send(&gateway, ("POST", "/private"), jar, &form, "a=b").await;
        is_page(&answer, 401, Some(code));
        let login = format!("<a href=\"{ORIGIN}/auth/login\">");
        assert!(text(&answer).contains(&login), "{}", text(&answer));
        assert!(!text(&answer).contains("bearer"), "{}", text(&answer));
    }
    let post = [HTML, NAVIGATE, FORM, ("Origin", "https://evil.example")];
    let answer = send(&gateway, ("POST", "/private"), &jar, &post, "a=b").await;
    is_page(&answer, 403, Some("origin_denied"));
    let mut raw = Raw::connect(&gateway).await;
    raw.send(request("HEAD", "/private", &[HTML, NAVIGATE], ""))
        .await;
    raw.answer_to_head().await.is(302);
    // A body that nobody waits for: refused, and the connection ends.
    let mut raw = Raw::connect(&gateway).await;
    let answer = raw
        .exchange(request("GET", "/private", &[HTML, NAVIGATE], "x"))
        .await;
    is_page(&answer, 401, Some("credentials_missing"));
    assert_eq!(answer.header("connection"), Some("close"));
    upstream.saw_nothing();
}

#[tokio::test]
async fn auth_8_a_form_of_another_site_signs_nobody_in() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let nobody = Jar::default();
    let body = format!("username=alice&password={}", PASSWORD.replace(' ', "+"));
    for from in [
        &[][..],
        &[("Origin", "null")],
        &[("Origin", "https://evil.example")],
        &[("Origin", "https://app.example")],
        &[("Sec-Fetch-Site", "cross-site"), ("Origin", ORIGIN)],
        &[("Sec-Fetch-Site", "same-site")],
        &[("Sec-Fetch-Site", "none")],
    ] {
        for path in ["/auth/login", "/auth/logout"] {
            let mut fields = vec![FORM, HTML, NAVIGATE];
            fields.extend(from);
            let answer = send(&gateway, ("POST", path), &nobody, &fields, &body).await;
            is_page(&answer, 403, Some("origin_denied"));
            assert_eq!(answer.header("set-cookie"), None);
        }
    }
    let own = [FORM, ("Origin", ORIGIN)];
    send(&gateway, ("POST", "/auth/login"), &nobody, &own, &body)
        .await
        .is(303);
}

#[tokio::test]
async fn auth_1_and_rate_4_the_form_tells_what_went_wrong_and_no_more() {
    let upstream = Upstream::start().await;
    let site = prepared(&upstream).await;
    let limit = r#"{ per_ip = "10000/1s", per_account = "3/15m" }"#;
    let gateway = site.set("accounts", "login_limit", limit).start().await;
    let nobody = Jar::default();
    let mut shown = Vec::new();
    for name in ["alice", "nobody"] {
        let body = format!("username={name}&password=wrong+password+long&next=%2Fprivate");
        let answer = submit(&gateway, "/auth/login", &nobody, &body).await;
        is_page(&answer, 401, None);
        assert_eq!(answer.header("set-cookie"), None);
        let page = text(&answer);
        assert!(page.contains("User name or password is wrong."), "{page}");
        assert!(
            page.contains("value=\"https://localhost:8443/private\""),
            "{page}"
        );
        assert!(!page.contains("wrong password long"));
        shown.push(page.replace(name, "*"));
    }
    assert_eq!(shown[0], shown[1]);
    for bad in [
        "",
        "username=alice",
        "username=&password=x",
        "username=alice&password=x&role=admin",
        "username=alice&username=bob&password=x",
        &format!("username={}&password=x", "a".repeat(255)),
        &format!("username=alice&password={}", "a".repeat(300)),
    ] {
        let answer = submit(&gateway, "/auth/login", &nobody, bad).await;
        assert!(
            [400, 401].contains(&answer.status),
            "{bad}: {}",
            answer.status
        );
        assert_eq!(answer.header("set-cookie"), None);
    }
    for _ in 0..4 {
        submit(
            &gateway,
            "/auth/login",
            &nobody,
            "username=alice&password=x",
        )
        .await;
    }
    let body = format!("username=alice&password={}", PASSWORD.replace(' ', "+"));
    let answer = submit(&gateway, "/auth/login", &nobody, &body).await;
    is_page(&answer, 429, None);
    let wait = answer.header("retry-after").unwrap();
    assert!(text(&answer).contains(&format!("Try again in {wait} seconds.")));
    let answer = submit(
        &gateway,
        "/auth/login",
        &nobody,
        "username=%3Cscript%3E&password=x",
    )
    .await;
    is_page(&answer, 401, None);
}

#[tokio::test]
async fn uri_6_a_login_leads_to_our_own_pages_alone() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let payloads = include_str!("../../src/policy/redirect/payloads.txt");
    let account = "https://localhost:8443/auth/account";
    let mut count = 0;
    for payload in payloads
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with("# "))
    {
        let payload = payload
            .replace("\\t", "\t")
            .replace("\\n", "\n")
            .replace("\\r", "\r");
        let payload = payload.replace("\\0", "\0").replace("\\\\", "\\");
        let next: String = payload.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let body = format!(
            "username=alice&password={}&next={next}",
            PASSWORD.replace(' ', "+")
        );
        let answer = submit(&gateway, "/auth/login", &Jar::of_visitor(), &body).await;
        let location = answer.is(303).header("location").unwrap();
        let own = location.starts_with("https://localhost:8443/")
            || location.starts_with("https://app.example:8443/");
        assert!(own, "{payload}: {location}");
        count += 1;
    }
    assert!(count >= 120, "{count}");
    for (next, want) in [
        ("%2Fprivate%3Fa%3Db", "https://localhost:8443/private?a=b"),
        (
            "https%3A%2F%2Fapp.example%3A8443%2Fx",
            "https://app.example:8443/x",
        ),
        ("https%3A%2F%2Fother.wild.example%3A8443%2Fx", account),
        ("https%3A%2F%2Fapp.example%2Fx", account),
        ("%2F%2Fevil.example", account),
    ] {
        let body = format!(
            "username=alice&password={}&next={next}",
            PASSWORD.replace(' ', "+")
        );
        let answer = submit(&gateway, "/auth/login", &Jar::of_visitor(), &body).await;
        assert_eq!(answer.is(303).header("location"), Some(want), "{next}");
        let mut jar = Jar::default();
        let answer = submit(&gateway, "/auth/login", &jar, &body).await;
        jar.take(&answer);
        let between = target(answer.is(303).header("location").unwrap());
        assert!(between.starts_with("/auth/login?done=login"), "{between}");
        let answer = open(&gateway, &between, &jar, &[SAME]).await;
        assert_eq!(answer.is(303).header("location"), Some(want), "{next}");
    }
}

#[tokio::test]
async fn a_browser_that_keeps_no_cookies_is_told_so_after_the_right_password_alone() {
    const TOLD: &str = "this browser keeps no cookies of this site";
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let nobody = Jar::default();
    let answer = open(&gateway, "/private", &nobody, &[]).await;
    let login = target(answer.is(302).header("location").unwrap());
    let answer = open(&gateway, &login, &nobody, &[]).await;
    is_page(&answer, 200, None);
    assert!(!text(&answer).contains(TOLD));
    let answer = submit(
        &gateway,
        "/auth/login",
        &nobody,
        "username=alice&password=wrong+password+long&next=%2Fprivate",
    )
    .await;
    is_page(&answer, 401, None);
    assert!(!text(&answer).contains(TOLD));
    let body = format!(
        "username=alice&password={}&next=%2Fprivate%3Fa%3Db",
        PASSWORD.replace(' ', "+")
    );
    let answer = submit(&gateway, "/auth/login", &nobody, &body).await;
    let between = target(answer.is(303).header("location").unwrap());
    let answer = open(&gateway, &between, &nobody, &[SAME]).await;
    is_page(&answer, 400, None);
    let page = text(&answer);
    assert!(
        page.contains(TOLD) && page.contains("role=\"alert\""),
        "{page}"
    );
    assert_eq!(answer.header("set-cookie"), None);
    // Once they are allowed, the same form leads where he was going.
    assert!(page.contains("value=\"https://localhost:8443/private?a=b\""));
    // Cookies that are kept and open nothing are another matter.
    let answer = open(&gateway, &between, &Jar::of_visitor(), &[SAME]).await;
    is_page(&answer, 200, None);
    assert!(!text(&answer).contains(TOLD));
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn auth_8_a_login_by_form_replaces_the_session_that_was_there() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let before = signed_in(&gateway).await;
    let mut jar = before.clone();
    // With the space that the keyboards of phones add.
    let body = format!(
        "username=alice+&password={}&next=%2Fprivate",
        PASSWORD.replace(' ', "+")
    );
    let answer = submit(&gateway, "/auth/login", &before, &body).await;
    assert_eq!(
        answer.is(303).header("location"),
        Some("https://localhost:8443/private")
    );
    jar.take(&answer);
    send(&gateway, ("GET", "/private"), &before, &[], "")
        .await
        .refused(401, "token_invalid");
    send(&gateway, ("GET", "/private"), &jar, &[], "")
        .await
        .is(200);
}

#[tokio::test]
async fn sess_5_the_logout_page_asks_and_its_form_ends_the_session() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let mut jar = signed_in(&gateway).await;
    let before = jar.clone();
    is_page(&open(&gateway, "/auth/logout", &jar, &[]).await, 200, None);
    send(&gateway, ("GET", "/private"), &jar, &[], "")
        .await
        .is(200);
    let answer = submit(&gateway, "/auth/logout", &jar, "").await;
    is_page(&answer, 200, None);
    jar.take(&answer);
    assert_eq!(jar.0.keys().collect::<Vec<_>>(), [DEVICE]);
    send(&gateway, ("GET", "/private"), &before, &[], "")
        .await
        .refused(401, "token_invalid");
    is_page(&submit(&gateway, "/auth/logout", &jar, "").await, 200, None);
    // The session cookie alone is enough to end it.
    let mut jar = signed_in(&gateway).await;
    jar.0.retain(|name, _| name == SESSION);
    submit(&gateway, "/auth/logout", &jar, "").await.is(200);
    send(&gateway, ("GET", "/private"), &jar, &[], "")
        .await
        .refused(401, "token_invalid");
}

#[tokio::test]
async fn auth_10_the_account_page_shows_and_ends_ones_own_sessions() {
    let upstream = Upstream::start().await;
    let site = prepared(&upstream).await;
    site.user("bob", PASSWORD, &[]).await;
    let gateway = site.start().await;
    let nobody = Jar::default();
    let answer = open(&gateway, "/auth/account", &nobody, &[]).await;
    let login = "https://localhost:8443/auth/login?next=%2Fauth%2Faccount";
    assert_eq!(answer.is(302).header("location"), Some(login));
    let (first, second) = (signed_in(&gateway).await, signed_in(&gateway).await);
    let answer = open(&gateway, "/auth/account", &first, &[]).await;
    is_page(&answer, 200, None);
    let page = text(&answer);
    for part in ["alice@example.com", "clerk", "this browser", "127.0.0.1"] {
        assert!(page.contains(part), "{part}: {page}");
    }
    let ids: Vec<&str> = page
        .split("name=\"end\" value=\"")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap())
        .collect();
    assert_eq!(ids.len(), 3, "{ids:?}");
    // A page of another site, and another's session.
    let fields = [FORM, HTML, NAVIGATE, ("Origin", "https://evil.example")];
    let answer = send(
        &gateway,
        ("POST", "/auth/account"),
        &first,
        &fields,
        "end=all",
    )
    .await;
    is_page(&answer, 403, Some("origin_denied"));
    let body = format!("username=bob&password={}", PASSWORD.replace(' ', "+"));
    let mut bob = Jar::default();
    bob.take(&submit(&gateway, "/auth/login", &nobody, &body).await);
    for id in &ids[..2] {
        submit(&gateway, "/auth/account", &bob, &format!("end={id}"))
            .await
            .is(303);
    }
    for jar in [&first, &second] {
        send(&gateway, ("GET", "/private"), jar, &[], "")
            .await
            .is(200);
    }
    for bad in [
        "",
        "end=",
        "x=1",
        "end=a&end=b",
        &format!("end={}", "a".repeat(65)),
    ] {
        let answer = submit(&gateway, "/auth/account", &first, bad).await;
        assert!(
            [303, 400].contains(&answer.status),
            "{bad}: {}",
            answer.status
        );
    }
    // Of two, the one that is not this browser's.
    let current = page.split("this browser").nth(1).unwrap();
    let current = current
        .split("value=\"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    let other = ids[..2].iter().find(|id| **id != current).unwrap();
    submit(&gateway, "/auth/account", &first, &format!("end={other}"))
        .await
        .is(303);
    send(&gateway, ("GET", "/private"), &second, &[], "")
        .await
        .refused(401, "token_invalid");
    send(&gateway, ("GET", "/private"), &first, &[], "")
        .await
        .is(200);
    let answer = submit(&gateway, "/auth/account", &first, "end=all").await;
    is_page(&answer, 200, None);
    send(&gateway, ("GET", "/private"), &first, &[], "")
        .await
        .refused(401, "token_invalid");
}

#[tokio::test]
async fn sess_6_a_renewal_is_begun_by_our_own_page_alone() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let mut jar = signed_in(&gateway).await;
    jar.0.remove(SESSION);
    // From another site: the strict cookie stays back, and the page between asks for it.
    let answer = open(
        &gateway,
        "/auth/login?next=%2Fprivate",
        &jar.lax(),
        &[("Sec-Fetch-Site", "cross-site")],
    )
    .await;
    is_page(&answer, 200, None);
    let step = "content=\"0; url=/auth/renew?next=https%3A%2F%2Flocalhost%3A8443%2Fprivate\"";
    assert!(text(&answer).contains(step), "{}", text(&answer));
    let target = "/auth/renew?next=https%3A%2F%2Flocalhost%3A8443%2Fprivate";
    for foreign in [
        &[("Sec-Fetch-Site", "cross-site")][..],
        &[("Sec-Fetch-Site", "same-site")],
        &[("Sec-Fetch-Site", "none")],
        &[],
    ] {
        let answer = open(&gateway, target, &jar, foreign).await;
        let login =
            "https://localhost:8443/auth/login?next=https%3A%2F%2Flocalhost%3A8443%2Fprivate";
        assert_eq!(answer.is(303).header("location"), Some(login));
        assert!(!format!("{:?}", answer.head.fields).contains("portcullis-session"));
    }
    let image = [SAME, ("Sec-Fetch-Mode", "no-cors"), ("Accept", "image/*")];
    let answer = send(&gateway, ("GET", target), &jar, &image, "").await;
    assert!(!format!("{:?}", answer.head.fields).contains("portcullis-session"));
    let refresh = jar.0["__Secure-portcullis-refresh"].clone();
    let answer = open(&gateway, target, &jar, &[SAME]).await;
    assert_eq!(
        answer.is(303).header("location"),
        Some("https://localhost:8443/private")
    );
    jar.take(&answer);
    assert_ne!(jar.0["__Secure-portcullis-refresh"], refresh);
    send(&gateway, ("GET", "/private"), &jar, &[], "")
        .await
        .is(200);
    // Nothing to renew any more: the form, and no second step.
    submit(&gateway, "/auth/logout", &jar, "").await.is(200);
    let answer = open(&gateway, target, &jar, &[SAME]).await;
    answer.is(303);
    jar.take(&answer);
    jar.0.remove("__Host-portcullis-renewals");
    assert_eq!(jar.0.keys().collect::<Vec<_>>(), [DEVICE]);
    let answer = open(&gateway, "/auth/login", &jar, &[]).await;
    assert!(text(&answer).contains("name=\"password\""));
}

#[tokio::test]
async fn renewals_that_lead_nowhere_end_with_a_reason() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let mut jar = signed_in(&gateway).await;
    for _ in 0..3 {
        let answer = open(&gateway, "/auth/renew?next=%2Fprivate", &jar, &[SAME]).await;
        jar.take(answer.is(303));
    }
    let answer = open(&gateway, "/auth/renew?next=%2Fprivate", &jar, &[SAME]).await;
    is_page(&answer, 400, None);
    assert!(text(&answer).contains("goes round in circles"));
    jar.take(&answer);
    assert!(!jar.0.contains_key("__Host-portcullis-renewable"));
}

#[tokio::test]
async fn rate_4_a_browser_that_is_renewed_too_often_is_told_to_wait_and_keeps_its_cookies() {
    let upstream = Upstream::start().await;
    let site = prepared(&upstream).await;
    let limit = r#"{ per_session = "10/1h" }"#;
    let gateway = site.set("accounts", "refresh_limit", limit).start().await;
    let mut jar = signed_in(&gateway).await;
    let target = "/auth/renew?next=%2Fprivate";
    for _ in 0..10 {
        // Each time long after the last one.
        jar.0.remove("__Host-portcullis-renewals");
        let answer = open(&gateway, target, &jar, &[SAME]).await;
        jar.take(answer.is(303));
    }
    jar.0.remove("__Host-portcullis-renewals");
    let answer = open(&gateway, target, &jar, &[SAME]).await;
    is_page(&answer, 429, None);
    assert!(answer.header("retry-after").is_some());
    assert_eq!(
        answer.header("set-cookie"),
        None,
        "it is as signed in as before"
    );
    let page = text(&answer);
    assert!(page.contains("Too many attempts. Try again in "), "{page}");
    assert!(
        page.contains("href=\"https://localhost:8443/private\""),
        "{page}"
    );
    assert!(!page.contains("http-equiv=\"refresh\""), "{page}");
    let line = record(&gateway, &answer).await;
    assert_eq!(
        (&line["code"], &line["reason"]),
        (&"rate_limited".into(), &"refresh_per_session".into())
    );
    send(&gateway, ("GET", "/private"), &jar, &[], "")
        .await
        .is(200);
}

/// The query of a location, decoded.
fn query(location: &str) -> BTreeMap<String, String> {
    let url: url::Url = location.parse().unwrap();
    url.query_pairs().into_owned().collect()
}

/// A location as a target of this gateway.
fn target(location: &str) -> String {
    let url: url::Url = location.parse().unwrap();
    format!("{}?{}", url.path(), url.query().unwrap_or_default())
}

#[tokio::test]
async fn signing_in_once_opens_another_host_in_the_same_browser_alone() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let app = ("Host", "app.example:8443");
    let own = signed_in(&gateway).await;
    let mut there = Jar::default();
    let answer = open(&gateway, "/a?b=c", &there, &[app]).await;
    there.take(answer.is(302));
    let location = answer.header("location").unwrap();
    assert!(location.starts_with("https://localhost:8443/auth/handover?to=https%3A%2F%2Fapp.example%3A8443%2Fa%3Fb%3Dc&bind="), "{location}");
    let word = there.0["__Host-portcullis-handover"].clone();
    assert!(!location.contains(&word));
    // Not signed in: first that, and then here again.
    let answer = open(&gateway, &target(location), &Jar::default(), &[]).await;
    let login = answer.is(302).header("location").unwrap().to_owned();
    let answer = open(&gateway, &target(&login), &Jar::default(), &[]).await;
    let policy = answer.header("content-security-policy").unwrap();
    assert!(
        policy.contains("form-action 'self' https://app.example:8443;"),
        "{policy}"
    );
    let next = &query(&login)["next"];
    let next: String = next.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let body = format!(
        "username=alice&password={}&next={next}",
        PASSWORD.replace(' ', "+")
    );
    let answer = submit(&gateway, "/auth/login", &Jar::of_visitor(), &body).await;
    assert_eq!(answer.is(303).header("location"), Some(location));
    // Signed in: a code, good once.
    let arrive = || async {
        let answer = open(&gateway, &target(location), &own, &[]).await;
        answer.is(302).header("location").unwrap().to_owned()
    };
    let arrival = arrive().await;
    assert!(
        arrival.starts_with("https://app.example:8443/auth/arrive?code="),
        "{arrival}"
    );
    assert!(!arrival.contains(&own.0[SESSION]));
    // Another browser, another host, no word: nobody is signed in, and the code is spent.
    let stranger = Jar([(
        "__Host-portcullis-handover".to_owned(),
        word.chars().rev().collect(),
    )]
    .into());
    for (jar, host) in [
        (&stranger, "app.example:8443"),
        (&Jar::default(), "app.example:8443"),
        (&there, "localhost:8443"),
        (&there, "app.example"),
    ] {
        let arrival = arrive().await;
        let answer = open(&gateway, &target(&arrival), jar, &[("Host", host)]).await;
        is_page(&answer, 400, None);
        let answer = open(&gateway, &target(&arrival), &there, &[app]).await;
        is_page(&answer, 400, None);
    }
    let answer = open(&gateway, &target(&arrival), &there, &[app]).await;
    assert_eq!(
        answer.is(303).header("location"),
        Some("https://app.example:8443/a?b=c")
    );
    there.take(&answer);
    assert_eq!(there.0.keys().collect::<Vec<_>>(), [SESSION]);
    is_page(
        &open(&gateway, &target(&arrival), &there, &[app]).await,
        400,
        None,
    );
    send(&gateway, ("GET", "/a"), &there, &[app], "")
        .await
        .is(200);
    assert_eq!(upstream.last().header("x-forwarded-user"), Some("alice"));
    // One session: its end is everywhere.
    submit(&gateway, "/auth/logout", &own, "").await.is(200);
    send(&gateway, ("GET", "/a"), &there, &[app], "")
        .await
        .refused(401, "token_invalid");
}

#[tokio::test]
async fn uri_6_a_handover_goes_to_hosts_that_routes_name_alone() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let own = signed_in(&gateway).await;
    let bind = "A".repeat(43);
    for (to, bind) in [
        ("https://evil.example/", &*bind),
        ("https://app.example/", &bind),
        ("https://app.example:8443.evil.example/", &bind),
        ("https://x.wild.example:8443/", &bind),
        ("http://app.example:8443/", &bind),
        ("https://u@app.example:8443/", &bind),
        ("https://localhost:8443/", &bind),
        ("/private", &bind),
        ("", &bind),
        ("https://app.example:8443/", "x"),
        ("https://app.example:8443/", ""),
    ] {
        let to: String = to.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let answer = open(
            &gateway,
            &format!("/auth/handover?to={to}&bind={bind}"),
            &own,
            &[],
        )
        .await;
        is_page(&answer, 400, Some("bad_request"));
    }
    // A host that only a wildcard names is nobody's to send back to.
    let wild = [("Host", "x.wild.example:8443")];
    is_page(
        &open(&gateway, "/", &Jar::default(), &wild).await,
        401,
        Some("credentials_missing"),
    );
    // Pages of other hosts are at public_url.
    let app = [("Host", "app.example:8443")];
    let answer = open(&gateway, "/auth/login?next=%2Fx", &Jar::default(), &app).await;
    assert_eq!(
        answer.is(302).header("location"),
        Some("https://localhost:8443/auth/login?next=%2Fx")
    );
    upstream.saw_nothing();
}

#[tokio::test]
async fn other_proxies_send_browsers_to_the_login_page_too() {
    let upstream = Upstream::start().await;
    let site = prepared(&upstream).await;
    let gateway = site
        .set("server", "trusted_proxies", r#"["127.0.0.1/32"]"#)
        .set("forward_auth", "path", "\"/auth/verify\"")
        .start()
        .await;
    let ask = |path: &'static str, jar: Jar, more: Vec<(&'static str, &'static str)>| {
        let gateway = &gateway;
        async move { send(gateway, ("GET", path), &jar, &more, "").await }
    };
    let traefik = vec![
        ("X-Forwarded-Method", "GET"),
        ("X-Forwarded-Host", "localhost"),
        ("X-Forwarded-Uri", "/private?a=b"),
    ];
    let nginx = vec![
        ("X-Original-Method", "GET"),
        ("X-Original-URL", "https://localhost/private?a=b"),
    ];
    let page = |fields: &Vec<(&'static str, &'static str)>| {
        [fields.clone(), vec![HTML, NAVIGATE]].concat()
    };
    let login = Some("https://localhost:8443/auth/login?next=%2Fprivate%3Fa%3Db");
    let answer = ask("/auth/verify", Jar::default(), traefik.clone()).await;
    answer.refused(401, "credentials_missing");
    assert_eq!(answer.header("location"), None);
    let answer = ask("/auth/verify", Jar::default(), page(&traefik)).await;
    assert_eq!(answer.is(302).header("location"), login);
    for (path, fields) in [("/auth/verify", &nginx), ("/oauth2/auth", &traefik)] {
        let answer = ask(path, Jar::default(), page(fields)).await;
        assert_eq!(answer.is(401).header("location"), login);
    }
    let jar = signed_in(&gateway).await;
    let answer = ask("/auth/verify", jar.clone(), traefik).await;
    assert_eq!(answer.is(200).header("x-forwarded-user"), Some("alice"));
    let post = vec![
        ("X-Forwarded-Method", "POST"),
        ("X-Forwarded-Host", "localhost"),
        ("X-Forwarded-Uri", "/private"),
        ("Origin", "https://evil.example"),
    ];
    ask("/auth/verify", jar, post)
        .await
        .refused(403, "origin_denied");
    upstream.saw_nothing();
}

#[tokio::test]
async fn log_1_no_line_has_a_cookie_a_password_or_a_code() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let jar = signed_in(&gateway).await;
    open(&gateway, "/private?secret=canary-in-query", &jar, &[])
        .await
        .is(200);
    open(
        &gateway,
        "/auth/login?next=%2Fcanary-in-next",
        &Jar::default(),
        &[],
    )
    .await
    .is(200);
    open(&gateway, "/auth/renew?next=%2Fprivate", &jar, &[SAME])
        .await
        .is(303);
    let app = [("Host", "app.example:8443")];
    let mut there = Jar::default();
    let answer = open(&gateway, "/", &there, &app).await;
    there.take(&answer);
    let location = target(answer.header("location").unwrap());
    let arrival = open(&gateway, &location, &jar, &[]).await;
    let arrival = arrival.is(302).header("location").unwrap().to_owned();
    open(&gateway, &target(&arrival), &there, &app)
        .await
        .is(303);
    let answer = get(&gateway, "/public", &[]).await;
    record(&gateway, &answer).await;
    let written = gateway.out.text() + &gateway.err.text();
    let code = query(&arrival)["code"].clone();
    for secret in jar
        .0
        .values()
        .chain(there.0.values())
        .filter(|value| value.len() > 2)
    {
        assert!(!written.contains(&**secret));
    }
    for secret in [PASSWORD, "canary-in-next", "canary-in-query", "eyJ", &code] {
        assert!(!written.contains(secret), "{secret}");
    }
}

#[tokio::test]
async fn auth_9_the_account_page_changes_the_password_and_spares_this_browser_alone() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let jar = signed_in(&gateway).await;
    let other = signed_in(&gateway).await;
    let page = text(&open(&gateway, "/auth/account", &jar, &[]).await);
    assert!(page.contains("name=\"current_password\""), "{page}");
    let right = PASSWORD.replace(' ', "+");
    let body = |current: &str, new: &str| format!("current_password={current}&new_password={new}");
    for (body, status, words) in [
        (
            body("wrong+and+long+enough", "another+horse+battery"),
            401,
            "The current password is wrong.",
        ),
        (body(&right, "short"), 400, "too short"),
        (
            body(&right, "passwordpassword"),
            400,
            "first that are tried",
        ),
        (body(&right, ""), 400, "too short"),
    ] {
        let answer = submit(&gateway, "/auth/account", &jar, &body).await;
        is_page(&answer, status, None);
        assert!(text(&answer).contains(words), "{words}: {}", text(&answer));
    }
    for body in [
        format!("{}&end=all", body(&right, "another+horse+battery")),
        format!("current_password={right}"),
        "new_password=another+horse+battery".to_owned(),
    ] {
        submit(&gateway, "/auth/account", &jar, &body).await.is(400);
    }
    // No other page may send the form, and the route for programs takes no cookie.
    let good = body(&right, "another+horse+battery");
    let foreign = [FORM, ("Sec-Fetch-Site", "same-site")];
    send(&gateway, ("POST", "/auth/account"), &jar, &foreign, &good)
        .await
        .refused(403, "origin_denied");
    submit(&gateway, "/auth/password", &jar, &good)
        .await
        .is(401);
    let done = submit(&gateway, "/auth/account", &jar, &good).await;
    let account = "https://localhost:8443/auth/account?done=password";
    assert_eq!(done.is(303).header("location"), Some(account));
    let page = open(&gateway, "/auth/account?done=password", &jar, &[]).await;
    is_page(&page, 200, None);
    assert!(text(&page).contains("Your password was changed."));
    send(&gateway, ("GET", "/private"), &other, &[], "")
        .await
        .is(401);
    let old = format!("username=alice&password={right}");
    submit(&gateway, "/auth/login", &Jar::default(), &old)
        .await
        .is(401);
}
