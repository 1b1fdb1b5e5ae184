//! Registration with mail and the pages that links in mails lead to: AUTH-1, AUTH-6, AUTH-8, RST-1 to RST-3, SESS-7.

use std::fs;

use serde_json::json;

use crate::harness::{Answer, Gateway, Raw, Site, Upstream, eventually, request};

const PASSWORD: &str = "correct horse battery staple";
const NEW: &str = "another horse battery staple";
const VERIFY: &str = "https://localhost:8443/auth/register/verify?token=";
const INVITATION: &str = "https://localhost:8443/auth/register?invite=";
const RESET: &str = "https://localhost:8443/auth/password/reset?token=";
const JSON: (&str, &str) = ("Content-Type", "application/json");
const FORM: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded");
const SAME: (&str, &str) = ("Sec-Fetch-Site", "same-origin");
const PAGES: [&str; 4] = [
    "/auth/password/forgot",
    "/auth/password/reset",
    "/auth/register",
    "/auth/register/verify",
];

async fn gateway(upstream: &Upstream, registration: &str) -> Gateway {
    let site = Site::new(upstream.address)
        .accounts()
        .set("accounts", "registration", registration)
        .set("mail", "from", "\"Gate <no-reply@example.com>\"")
        .set("mail", "spool", "\"data/mail\"")
        .set("log", "level", "\"trace\"");
    site.write();
    site.user("alice", PASSWORD, &[]).await;
    site.start().await
}

async fn send(
    gateway: &Gateway,
    line: (&str, &str),
    fields: &[(&str, &str)],
    body: &str,
) -> Answer {
    let (method, target) = line;
    let mut raw = Raw::connect(gateway).await;
    raw.exchange(request(method, target, fields, body)).await
}

async fn register(gateway: &Gateway, name: &str, email: &str) -> Answer {
    let body = json!({ "username": name, "email": email, "password": PASSWORD }).to_string();
    send(gateway, ("POST", "/auth/register"), &[JSON], &body).await
}

async fn login(gateway: &Gateway, name: &str, password: &str) -> Answer {
    let body = json!({ "username": name, "password": password, "delivery": "body" }).to_string();
    send(gateway, ("POST", "/auth/login"), &[JSON], &body).await
}

/// Fills in a form of one of our pages.
async fn submit(gateway: &Gateway, target: &str, body: &str) -> Answer {
    send(
        gateway,
        ("POST", target),
        &[FORM, SAME, ("Origin", "null")],
        body,
    )
    .await
}

async fn open(gateway: &Gateway, target: &str) -> Answer {
    let fields = [("Accept", "text/html"), ("Sec-Fetch-Mode", "navigate")];
    send(gateway, ("GET", target), &fields, "").await
}

/// Waits for a mail to this address with these words.
async fn mail(gateway: &Gateway, to: &str, words: &str) -> String {
    let to = format!("\r\nTo: {to}\r\n");
    eventually("a mail", async || {
        let folder = fs::read_dir(gateway.path().join("data/mail")).ok()?;
        folder
            .filter_map(|entry| fs::read_to_string(entry.unwrap().path()).ok())
            .find(|mail| mail.contains(&to) && mail.contains(words))
    })
    .await
}

fn token(mail: &str, link: &str) -> String {
    let line = mail.lines().find_map(|line| line.strip_prefix(link));
    line.unwrap_or_else(|| panic!("no link: {mail}")).to_owned()
}

fn text(answer: &Answer) -> String {
    String::from_utf8(answer.body.clone()).unwrap()
}

/// Status, fields and body, without what differs between any two answers.
fn told(answer: &Answer) -> (u16, Vec<(String, String)>, Vec<u8>) {
    let mut fields = answer.head.fields.clone();
    fields.retain(|(name, _)| !["x-request-id", "date"].contains(&&*name.to_lowercase()));
    (answer.status, fields, answer.body.clone())
}

#[track_caller]
fn is_page(answer: &Answer, status: u16, words: &str) {
    answer.is(status);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("referrer-policy"), Some("no-referrer"));
    let policy = answer.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'"), "{policy}");
    let text = text(answer);
    assert!(text.contains(words) && !text.contains("<script"), "{text}");
}

#[tokio::test]
async fn auth_1_a_taken_name_or_address_gets_the_answer_of_a_new_one() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream, "\"open\"").await;
    let new = register(&gateway, "bob", "bob@example.com").await;
    assert_eq!(new.is(202).json(), json!({ "status": "pending" }));
    for (name, email) in [
        ("alice", "eve@example.com"),
        ("eve", "Alice@Example.com"),
        ("alice", "alice@example.com"),
        ("bob", "bob@example.com"),
    ] {
        let other = register(&gateway, name, email).await;
        assert_eq!(told(&other), told(&new), "{name} {email}");
    }
    let page = |name, email: &str| {
        let email = email.replace('@', "%40");
        format!(
            "username={name}&email={email}&password={}",
            PASSWORD.replace(' ', "+")
        )
    };
    let new = submit(&gateway, "/auth/register", &page("dan", "dan@example.com")).await;
    is_page(&new, 202, "Look into your mail");
    let taken = submit(
        &gateway,
        "/auth/register",
        &page("alice", "alice@example.com"),
    )
    .await;
    assert_eq!(told(&taken), told(&new));
    let notice = mail(&gateway, "alice@example.com", "You have one already").await;
    assert!(!notice.contains("token="), "{notice}");
    mail(&gateway, "eve@example.com", "That name is taken").await;
}

#[tokio::test]
async fn auth_6_an_account_is_there_once_link_and_password_were_given_and_not_before() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream, "\"open\"").await;
    register(&gateway, "bob", "bob@example.com").await.is(202);
    let mail = mail(&gateway, "bob@example.com", "Confirm").await;
    let token = token(&mail, VERIFY);
    login(&gateway, "bob", PASSWORD)
        .await
        .refused(401, "invalid_credentials");
    // A program that opens links does nothing by it.
    for _ in 0..2 {
        let page = open(&gateway, &format!("/auth/register/verify?token={token}")).await;
        is_page(&page, 200, "Confirm your account");
    }
    login(&gateway, "bob", PASSWORD)
        .await
        .refused(401, "invalid_credentials");
    let with =
        |token: &str, password: &str| json!({ "token": token, "password": password }).to_string();
    let verify = ("POST", "/auth/register/verify");
    for (body, status, code) in [
        (with(&token, NEW), 401, "invalid_credentials"),
        (with(&"A".repeat(43), PASSWORD), 401, "invalid_grant"),
        (with("", PASSWORD), 401, "invalid_grant"),
        (json!({ "token": token }).to_string(), 400, "bad_request"),
        (
            json!({ "token": token, "password": PASSWORD, "roles": ["admin"] }).to_string(),
            400,
            "bad_request",
        ),
    ] {
        send(&gateway, verify, &[JSON], &body)
            .await
            .refused(status, code);
    }
    let foreign = [JSON, ("Origin", "https://evil.example")];
    let body = with(&token, PASSWORD);
    send(&gateway, verify, &foreign, &body)
        .await
        .refused(403, "origin_denied");
    login(&gateway, "bob", PASSWORD)
        .await
        .refused(401, "invalid_credentials");
    let made = send(&gateway, verify, &[JSON], &body).await;
    assert_eq!(made.is(201).json()["user"]["username"], "bob");
    assert_eq!(made.header("set-cookie"), None);
    login(&gateway, "bob", PASSWORD).await.is(200);
    send(&gateway, verify, &[JSON], &body)
        .await
        .refused(401, "invalid_grant");
}

#[tokio::test]
async fn auth_8_forms_are_taken_from_our_own_pages_alone() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream, "\"open\"").await;
    for target in PAGES {
        for fields in [
            &[FORM][..],
            &[FORM, ("Origin", "null")],
            &[FORM, ("Origin", "https://evil.example")],
            &[
                FORM,
                ("Sec-Fetch-Site", "cross-site"),
                ("Origin", "https://localhost:8443"),
            ],
            &[FORM, ("Sec-Fetch-Site", "same-site")],
        ] {
            let answer = send(
                &gateway,
                ("POST", target),
                fields,
                "email=alice%40example.com",
            )
            .await;
            answer.refused(403, "origin_denied");
        }
        let unknown = submit(&gateway, target, "email=a%40example.com&roles=admin").await;
        assert_eq!(unknown.status, 400, "{target}");
    }
    assert!(!gateway.path().join("data/mail").exists());
}

#[tokio::test]
async fn rst_3_the_page_of_a_link_sets_a_password_and_signs_nobody_in() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream, "\"closed\"").await;
    is_page(
        &open(&gateway, "/auth/login").await,
        200,
        "/auth/password/forgot",
    );
    let bad = submit(&gateway, "/auth/password/forgot", "email=x").await;
    is_page(&bad, 400, "Enter one e-mail address");
    let known = submit(
        &gateway,
        "/auth/password/forgot",
        "email=alice%40example.com",
    )
    .await;
    is_page(&known, 202, "Look into your mail");
    let unknown = submit(&gateway, "/auth/password/forgot", "email=eve%40example.com").await;
    assert_eq!(told(&known), told(&unknown));
    let token = token(&mail(&gateway, "alice@example.com", RESET).await, RESET);
    for dead in ["", "?token=x", "?token=x&token=y"] {
        let page = open(&gateway, &format!("/auth/password/reset{dead}")).await;
        is_page(&page, 401, "does not work any more");
    }
    let page = open(&gateway, &format!("/auth/password/reset?token={token}")).await;
    is_page(&page, 200, &format!("value=\"{token}\""));
    let reset = async |password: &str| {
        let body = format!("token={token}&new_password={password}");
        submit(&gateway, "/auth/password/reset", &body).await
    };
    is_page(&reset("short").await, 400, "too short");
    is_page(
        &reset("passwordpassword").await,
        400,
        "first that are tried",
    );
    is_page(&reset(&"x".repeat(257)).await, 400, "too long");
    login(&gateway, "alice", PASSWORD).await.is(200);
    let done = reset(&NEW.replace(' ', "+")).await;
    let login_page = "https://localhost:8443/auth/login?done=password";
    assert_eq!(done.is(303).header("location"), Some(login_page));
    // Nobody is signed in, and the browser is one that the account knows (RATE-4).
    let set = done.head.values("set-cookie");
    assert_eq!(set.len(), 1, "{set:?}");
    assert!(set[0].starts_with("__Host-portcullis-device="), "{set:?}");
    is_page(
        &open(&gateway, "/auth/login?done=password").await,
        200,
        "Your password was changed",
    );
    is_page(
        &reset(&NEW.replace(' ', "+")).await,
        401,
        "does not work any more",
    );
    login(&gateway, "alice", PASSWORD)
        .await
        .refused(401, "invalid_credentials");
    login(&gateway, "alice", NEW).await.is(200);
}

#[tokio::test]
async fn sess_7_a_token_is_in_no_redirect_and_no_log() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream, "\"open\"").await;
    let secret = "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0MTI";
    for target in [
        "/auth/password/reset?token=",
        "/auth/register/verify?token=",
        "/auth/register?invite=",
    ] {
        let target = format!("{target}{secret}");
        for host in ["localhost:8443", "other.example:8443"] {
            let fields = [
                ("Accept", "text/html"),
                ("Sec-Fetch-Mode", "navigate"),
                ("Host", host),
            ];
            let answer = send(&gateway, ("GET", &target), &fields, "").await;
            let location = answer.header("location").unwrap_or_default();
            assert!(!location.contains(secret), "{location}");
            let id = answer.header("x-request-id").unwrap().to_owned();
            gateway
                .access_line(|line| line["request_id"] == id.as_str())
                .await;
        }
    }
    let body = format!("token={secret}&new_password=x");
    submit(&gateway, "/auth/password/reset", &body)
        .await
        .is(401);
    for written in [gateway.err.text(), gateway.out.text()] {
        assert!(!written.contains(secret), "{written}");
    }
}

#[tokio::test]
async fn pages_that_the_configuration_leaves_out_are_not_there() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream, "\"closed\"").await;
    for target in ["/auth/register", "/auth/register/verify"] {
        open(&gateway, target).await.is(404);
        submit(&gateway, target, "username=x").await.is(404);
    }
    let page = text(&open(&gateway, "/auth/login").await);
    assert!(!page.contains("/auth/register"), "{page}");
    let site = Site::new(upstream.address).accounts();
    site.write();
    let bare = site.start().await;
    for target in ["/auth/password/forgot", "/auth/password/reset"] {
        assert_ne!(open(&bare, target).await.status, 200, "{target}");
    }
    let page = text(&open(&bare, "/auth/login").await);
    assert!(!page.contains("/auth/password"), "{page}");
}

#[tokio::test]
async fn auth_7_the_page_asks_for_an_invitation_where_one_is_needed() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream, "\"invite\"").await;
    let page = open(&gateway, "/auth/register").await;
    is_page(&page, 200, "name=\"invite\" type=\"text\"");
    let page = open(&gateway, "/auth/register?invite=abc%22%3E").await;
    is_page(
        &page,
        200,
        "type=\"hidden\" name=\"invite\" value=\"abc&#34;&#62;\"",
    );
    let body = format!(
        "username=bob&email=bob%40example.com&password={}",
        PASSWORD.replace(' ', "+")
    );
    for more in [
        "",
        "&invite=",
        "&invite=x",
        &format!("&invite={}", "A".repeat(43)),
    ] {
        let answer = submit(&gateway, "/auth/register", &format!("{body}{more}")).await;
        is_page(&answer, 401, "This invitation is not good");
    }
    let bad = body.replace("=bob&", "=b+b&");
    let answer = submit(&gateway, "/auth/register", &format!("{bad}&invite=x")).await;
    is_page(&answer, 400, "A user name has");
    assert!(!gateway.path().join("data/mail").exists());
}

#[tokio::test]
async fn auth_7_an_invitation_by_mail_leads_to_a_page_that_makes_the_account() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream, "\"invite\"").await;
    let invite = [
        "user",
        "invite",
        "--role",
        "clerk",
        "--email",
        "bob@example.com",
        "--send",
    ];
    let without = gateway.site.run(&["user", "invite", "--send"], "").await;
    assert_eq!(without.code, Some(2), "{without:?}");
    let made = gateway.site.run(&invite, "").await;
    assert_eq!(made.code, Some(0), "{made:?}");
    assert!(made.stdout.starts_with("queued for mail: "), "{made:?}");
    let invitation = mail(&gateway, "bob@example.com", "You are invited").await;
    let secret = token(&invitation, INVITATION);
    let page = open(&gateway, &format!("/auth/register?invite={secret}")).await;
    is_page(&page, 200, &format!("name=\"invite\" value=\"{secret}\""));
    let form = format!(
        "username=bob&email=bob%40example.com&password={}&invite={secret}",
        PASSWORD.replace(' ', "+")
    );
    let asked = submit(&gateway, "/auth/register", &form).await;
    is_page(&asked, 202, "");
    let confirm = mail(&gateway, "bob@example.com", "Confirm").await;
    let body = json!({ "token": token(&confirm, VERIFY), "password": PASSWORD }).to_string();
    let made = send(&gateway, ("POST", "/auth/register/verify"), &[JSON], &body).await;
    assert_eq!(made.is(201).json()["user"]["roles"], json!(["clerk"]));
    login(&gateway, "bob", PASSWORD).await.is(200);
    let waiting = gateway.site.run(&["user", "invites"], "").await;
    assert_eq!(waiting.stdout, "");
    let log = gateway.err.text() + &gateway.out.text();
    assert!(!log.contains(&secret));
}
