//! Opaque tokens: an issuer that answers well, badly or not at all, and what the upstream saw of it (RFC 7662).

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Value, json};

use crate::harness::{
    Gateway, H2, Kind, Reply, Seen, Site, Step, Upstream, eventually, get,
    keys::{AUDIENCE, bearer, now},
};

const TOKEN: &str = "oat_q2w3-e4r5~t6z7/u8i9+o0==";

/// An issuer that is asked, and answers as the test last said.
struct Issuer {
    server: Upstream,
    reply: Arc<Mutex<Reply>>,
}

impl Issuer {
    async fn start(reply: Reply) -> Self {
        let reply = Arc::new(Mutex::new(reply));
        let shared = Arc::clone(&reply);
        let server = Upstream::scripted(move |_| shared.lock().unwrap().clone()).await;
        Self { server, reply }
    }

    fn says(&self, reply: Reply) {
        *self.reply.lock().unwrap() = reply;
    }
}

/// What it says of a token in which nothing is wrong.
fn active() -> Value {
    json!({
        "active": true, "iss": Kind::Es.issuer(), "aud": AUDIENCE, "sub": "u-17", "exp": now() + 600,
        "preferred_username": "bob", "roles": ["clerk"], "scope": "orders:read", "token_type": "Bearer",
    })
}

fn active_but(name: &str, value: Value) -> Reply {
    let mut answer = active();
    answer[name] = value;
    Reply::ok(&answer.to_string())
}

fn good() -> Reply {
    Reply::ok(&active().to_string())
}

fn site(upstream: &Upstream, issuer: &Issuer) -> Site {
    let site = Site::bare()
        .upstream("legacy", &format!("http://{}", upstream.address))
        .issuer(Kind::Es)
        .off_issuer("public_key_file")
        .off_issuer("algorithms")
        .on_issuer(
            "introspection_url",
            &format!("\"http://{}/introspect\"", issuer.server.address),
        )
        .on_issuer("client_id", "\"portcullis\"")
        .on_issuer("client_secret_file", "\"keys/introspection.secret\"")
        .on_issuer(
            "fetch",
            r#"{ timeout = "1s", wait = "10s", cooldown = "1s" }"#,
        )
        .route("private", "/private", "authenticated")
        .route("optional", "/optional", "optional")
        .route("public", "/public", "public")
        .route("admin", "/admin", "authenticated")
        .on_route("require", r#"{ roles = ["admin"] }"#)
        .route("observed", "/observed", "authenticated")
        .on_route("enforce", "false");
    site.secret_file("keys/introspection.secret", "p4ss:word\n");
    site
}

async fn ask(gateway: &Gateway, path: &str, token: &str) -> crate::harness::Answer {
    get(gateway, path, &[("Authorization", &bearer(token))]).await
}

fn body(seen: &Seen) -> String {
    String::from_utf8(seen.body.clone()).unwrap()
}

#[tokio::test]
async fn jwt_12_and_hdr_1_the_upstream_learns_of_an_opaque_token_what_its_issuer_says() {
    let upstream = Upstream::start().await;
    let issuer = Issuer::start(good()).await;
    let gateway = site(&upstream, &issuer).start().await;
    for path in ["/private", "/optional", "/private"] {
        ask(&gateway, path, TOKEN).await.is(200);
        let seen = upstream.last();
        assert_eq!(seen.header("x-forwarded-user"), Some("u-17"));
        assert_eq!(seen.header("authorization"), None);
    }
    assert_eq!(issuer.server.count(), 1, "asked once, cached since");
    ask(&gateway, "/admin", TOKEN)
        .await
        .refused(403, "role_missing");
    let asked = issuer.server.last();
    assert_eq!((&*asked.method, &*asked.target), ("POST", "/introspect"));
    // base64("portcullis:p4ss%3Aword"); the line end of the file is no part of the secret.
    let basic = "Basic cG9ydGN1bGxpczpwNHNzJTNBd29yZA==";
    assert_eq!(asked.header("authorization"), Some(basic));
    assert_eq!(
        body(&asked),
        "token=oat_q2w3-e4r5%7Et6z7%2Fu8i9%2Bo0%3D%3D&token_type_hint=access_token"
    );
    let series = r#"portcullis_introspections_total{issuer="es",result="active"}"#;
    assert_eq!(gateway.metric(series).await, Some(1.0));
    gateway
        .access_line(|line| line["user"]["subject"] == "u-17")
        .await;
    for text in [gateway.out.text(), gateway.err.text()] {
        for secret in ["q2w3-e4r5", "p4ss", "cG9ydGN1"] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}

#[tokio::test]
async fn jwt_12_whatever_else_the_issuer_does_nothing_reaches_the_upstream() {
    let upstream = Upstream::start().await;
    let issuer = Issuer::start(good()).await;
    let text = active().to_string();
    let twice = text.replacen('{', "{\"active\":false,", 1);
    let endless = b"HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n".to_vec();
    let slow = text.bytes().flat_map(|byte| {
        [
            Step::Send(vec![byte]),
            Step::Pause(Duration::from_millis(50)),
        ]
    });
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", text.len());
    let slow: Vec<_> = [Step::Send(head.into())].into_iter().chain(slow).collect();
    let elsewhere = format!("http://{}/introspect", issuer.server.address);
    let invalid = (401, "token_invalid");
    let unavailable = (503, "keys_unavailable");
    let cases = [
        (Reply(vec![Step::Close]), unavailable),
        (Reply(vec![Step::Reset]), unavailable),
        (Reply(vec![Step::Hang]), unavailable),
        (Reply(slow), unavailable),
        (
            Reply(vec![
                Step::Send(endless),
                Step::Repeat(vec![b' '; 1 << 20], 1024),
            ]),
            unavailable,
        ),
        (
            Reply::with(302, &[("location", &elsewhere)], &text),
            unavailable,
        ),
        (Reply::with(401, &[], &text), unavailable),
        (Reply::with(500, &[], &text), unavailable),
        (Reply::ok("<!doctype html>"), unavailable),
        (Reply::raw_and_close("\0\0\0garbage\r\n\r\n"), unavailable),
        (Reply::ok(&twice), unavailable),
        (active_but("active", json!("true")), unavailable),
        (Reply::ok(r#"{"active":false}"#), invalid),
        (active_but("active", json!(false)), invalid),
        (
            active_but("iss", json!("https://evil.example.com")),
            invalid,
        ),
        (active_but("aud", json!("billing")), invalid),
        (active_but("aud", json!(null)), invalid),
        (active_but("sub", json!("")), invalid),
        (active_but("exp", json!("never")), invalid),
        (active_but("nbf", json!(now() + 3600)), invalid),
        (active_but("token_type", json!("mac")), invalid),
        (active_but("exp", json!(now() - 5)), (401, "token_expired")),
    ];
    // One gateway for each, so that none finds the issuer left alone for the failures of another.
    let checks = cases.into_iter().enumerate().map(|(n, (reply, want))| {
        let upstream = &upstream;
        async move {
            let issuer = Issuer::start(reply).await;
            let gateway = site(upstream, &issuer).start().await;
            for path in ["/private", "/optional"] {
                let answer = ask(&gateway, path, &format!("oat_{n}")).await;
                answer.refused(want.0, want.1);
                let waits = answer.header("retry-after").is_some();
                assert_eq!(waits, want.0 == 503, "{n}");
            }
            assert!(gateway.memory() < 200 << 20);
        }
    });
    for check in checks {
        check.await;
    }
    upstream.saw_nothing();
}

#[tokio::test]
async fn cache_7_many_requests_with_one_new_token_ask_once_even_if_the_first_leaves() {
    let upstream = Upstream::start().await;
    let issuer = Issuer::start(good()).await;
    let go_on = Arc::new(tokio::sync::Notify::new());
    let mut held = vec![Step::Until(Arc::clone(&go_on))];
    held.extend(good().0);
    issuer.says(Reply(held));
    let site = site(&upstream, &issuer).on_issuer("fetch", r#"{ timeout = "30s", wait = "10s" }"#);
    let gateway = site.start().await;
    {
        let first = ask(&gateway, "/private", TOKEN);
        let asked = issuer.server.request(1);
        tokio::select! {
            _ = first => panic!("nobody has answered yet"),
            _ = asked => {}
        }
    }
    let others = (0..20).map(|_| ask(&gateway, "/private", TOKEN));
    let release = async {
        // Others go on meanwhile.
        get(&gateway, "/public", &[]).await.is(200);
        go_on.notify_one();
    };
    let (answers, ()) = tokio::join!(futures_util::future::join_all(others), release);
    for answer in answers {
        answer.is(200);
    }
    assert_eq!(issuer.server.count(), 1);
}

#[tokio::test]
async fn rate_8_made_up_opaque_tokens_reach_the_issuer_within_the_budget_alone() {
    let upstream = Upstream::start().await;
    let issuer = Issuer::start(Reply::ok(r#"{"active":false}"#)).await;
    let site = site(&upstream, &issuer).set(
        "rate_limit",
        "bad_tokens",
        r#"{ rate = "1/1m", burst = 3 }"#,
    );
    let gateway = site.start().await;
    for n in 0..30 {
        let answer = ask(&gateway, "/private", &format!("made-up-{n}")).await;
        if n < 3 {
            answer.refused(401, "token_invalid");
        } else {
            answer.refused(429, "rate_limited");
        }
    }
    assert_eq!(issuer.server.count(), 3);
    upstream.saw_nothing();
    let line = gateway
        .access_line(|line| line["reason"] == "inactive")
        .await;
    assert_eq!(line["code"], "token_invalid");
}

#[tokio::test]
async fn fault_5_an_issuer_that_fails_is_seen_in_readiness_and_recovers() {
    let upstream = Upstream::start().await;
    let issuer = Issuer::start(Reply::with(503, &[], "")).await;
    let gateway = site(&upstream, &issuer).start().await;
    for n in 0..20 {
        ask(&gateway, "/private", &format!("oat_{n}"))
            .await
            .refused(503, "keys_unavailable");
    }
    assert!(issuer.server.count() < 15, "{}", issuer.server.count());
    let readiness = gateway.admin("/readyz").await;
    let ready = readiness.is(200).json();
    assert_eq!(ready["degraded"][0]["what"], "keys of es");
    let detail = ready["degraded"][0]["detail"].as_str().unwrap();
    assert!(detail.contains("503"), "{detail}");
    upstream.saw_nothing();
    issuer.says(good());
    eventually("an answer", async || {
        (ask(&gateway, "/private", TOKEN).await.status == 200).then_some(())
    })
    .await;
    let ready = gateway.admin("/readyz").await.json();
    assert_eq!(ready["degraded"], json!(null));
}

#[tokio::test]
async fn jwt_12_routes_that_do_not_look_or_do_not_enforce_are_served() {
    let upstream = Upstream::start().await;
    let issuer = Issuer::start(good()).await;
    let gateway = site(&upstream, &issuer).start().await;
    ask(&gateway, "/public", TOKEN).await.is(200);
    assert_eq!(upstream.last().header("x-forwarded-user"), None);
    assert_eq!(issuer.server.count(), 0, "nobody looks at tokens there");
    ask(&gateway, "/observed", TOKEN).await.is(200);
    assert_eq!(upstream.last().header("x-forwarded-user"), Some("u-17"));
    issuer.says(Reply::ok(r#"{"active":false}"#));
    ask(&gateway, "/observed", "oat_other").await.is(200);
    assert_eq!(upstream.last().header("x-forwarded-user"), None);
}

#[tokio::test]
async fn up_7_a_stream_ends_with_its_opaque_token() {
    let upstream = Upstream::scripted(|_| {
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n";
        Reply(vec![Step::Send(head.into()), Step::Hang])
    })
    .await;
    let issuer = Issuer::start(active_but("exp", json!(now() + 3))).await;
    let gateway = site(&upstream, &issuer).start().await;
    let mut client = H2::connect(&gateway).await;
    let request = http::Request::get("https://localhost/private")
        .header("authorization", bearer(TOKEN))
        .body(crate::harness::client::full(""))
        .unwrap();
    // It would never end by itself.
    let answer = crate::harness::within("the end", client.send(request)).await;
    assert!(answer.is_err(), "{answer:?}");
    assert_eq!(upstream.last().header("x-forwarded-user"), Some("u-17"));
}

#[tokio::test]
async fn hdr_4_another_proxy_may_ask_about_an_opaque_token() {
    let upstream = Upstream::start().await;
    let issuer = Issuer::start(good()).await;
    let site = site(&upstream, &issuer)
        .set("server", "trusted_proxies", r#"["127.0.0.1/32"]"#)
        .set("forward_auth", "path", "\"/auth/verify\"");
    let gateway = site.start().await;
    let question = async |path: &str, token: &str| {
        let fields = [
            ("Authorization", &*bearer(token)),
            ("X-Forwarded-Method", "GET"),
            ("X-Forwarded-Host", "localhost"),
            ("X-Forwarded-Uri", path),
            ("X-Forwarded-For", "192.0.2.7"),
        ];
        get(&gateway, "/auth/verify", &fields).await
    };
    let answer = question("/private", TOKEN).await;
    assert_eq!(answer.is(200).header("x-forwarded-user"), Some("u-17"));
    question("/admin", TOKEN).await.refused(403, "role_missing");
    assert_eq!(issuer.server.count(), 1);
    issuer.says(Reply::ok(r#"{"active":false}"#));
    question("/private", "oat_other")
        .await
        .refused(401, "token_invalid");
    upstream.saw_nothing();
}

#[tokio::test]
async fn explain_and_check_know_issuers_that_are_asked() {
    let upstream = Upstream::start().await;
    let issuer = Issuer::start(good()).await;
    let site = site(&upstream, &issuer);
    site.write();
    let exit = site.run(&["check"], "").await;
    assert_eq!(exit.code, Some(0), "{exit:?}");
    assert_eq!(issuer.server.count(), 0, "check asks nobody");
    let url = "https://localhost/private";
    let arguments = ["explain", "GET", url, "--token", "-"];
    let exit = site.run(&arguments, &format!("{TOKEN}\n")).await;
    assert!(exit.stdout.contains("admitted: to legacy"), "{exit:?}");
    assert!(exit.stdout.contains("subject u-17"), "{exit:?}");
    assert_eq!(issuer.server.count(), 1, "explain asks as a request would");
    issuer.says(Reply::ok(r#"{"active":false}"#));
    let exit = site.run(&arguments, &format!("{TOKEN}\n")).await;
    assert!(exit.stdout.contains("token_invalid (inactive)"), "{exit:?}");
    assert!(!exit.stdout.contains("q2w3"), "{exit:?}");
    upstream.saw_nothing();
}
