//! Changed and forgotten passwords over HTTP, the mails read from a folder: AUTH-9, RST-1 to RST-4.

use std::fs;

use serde_json::json;

use crate::harness::{
    Answer, Gateway, Raw, Site, Upstream, eventually, get, keys::bearer, request,
};

const PASSWORD: &str = "correct horse battery staple";
const NEW: &str = "another horse battery staple";
/// SHA-1 of [`NEW`], as a list of stolen passwords has it.
const STOLEN_DIGEST: &str = "6971FE9418AEBE9647701E7DC53F8A76B36D5916:3";
const LINK: &str = "https://localhost:8443/auth/password/reset?token=";

async fn gateway(upstream: &Upstream) -> Gateway {
    let site = Site::new(upstream.address)
        .accounts()
        .set("mail", "from", "\"Gate <no-reply@example.com>\"")
        .set("mail", "spool", "\"data/mail\"");
    site.write();
    site.user("alice", PASSWORD, &[]).await;
    site.start().await
}

async fn post(gateway: &Gateway, target: &str, fields: &[(&str, &str)], body: &str) -> Answer {
    let mut all = vec![("Content-Type", "application/json")];
    all.extend_from_slice(fields);
    let mut raw = Raw::connect(gateway).await;
    raw.exchange(request("POST", target, &all, body)).await
}

async fn login(gateway: &Gateway, password: &str) -> Answer {
    let body = json!({ "username": "alice", "password": password, "delivery": "body" });
    post(gateway, "/auth/login", &[], &body.to_string()).await
}

/// The access and the refresh token of a new session.
async fn session(gateway: &Gateway) -> (String, String) {
    let answer = login(gateway, PASSWORD).await;
    let grant = answer.is(200).json();
    let text = |name: &str| grant[name].as_str().unwrap().to_owned();
    (text("access_token"), text("refresh_token"))
}

async fn works(gateway: &Gateway, access: &str) -> u16 {
    let field = bearer(access);
    get(gateway, "/private", &[("Authorization", &field)])
        .await
        .status
}

async fn change(gateway: &Gateway, access: &str, current: &str, new: &str) -> Answer {
    let body = json!({ "current_password": current, "new_password": new }).to_string();
    let field = bearer(access);
    post(
        gateway,
        "/auth/password",
        &[("Authorization", &field)],
        &body,
    )
    .await
}

async fn reset(gateway: &Gateway, token: &str, new: &str) -> Answer {
    let body = json!({ "token": token, "new_password": new }).to_string();
    post(gateway, "/auth/password/reset", &[], &body).await
}

fn mails(gateway: &Gateway) -> Vec<String> {
    let Ok(entries) = fs::read_dir(gateway.path().join("data/mail")) else {
        return Vec::new();
    };
    entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "eml"))
        .filter_map(|path| fs::read_to_string(path).ok())
        .collect()
}

/// Waits for a mail with these words.
async fn mail(gateway: &Gateway, words: &str) -> String {
    eventually("a mail", async || {
        mails(gateway).into_iter().find(|mail| mail.contains(words))
    })
    .await
}

fn token(mail: &str) -> String {
    let line = mail.lines().find_map(|line| line.strip_prefix(LINK));
    line.unwrap_or_else(|| panic!("no link: {mail}")).to_owned()
}

#[tokio::test]
async fn auth_9_a_change_spares_the_callers_session_alone() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let (caller, refresh) = session(&gateway).await;
    let (other, _) = session(&gateway).await;
    change(&gateway, &caller, "wrong horse battery staple", NEW)
        .await
        .refused(401, "invalid_credentials");
    for (new, words) in [
        ("short", "too short"),
        ("passwordpassword", "easy to guess"),
        (&*"x".repeat(257), "too long"),
    ] {
        let answer = change(&gateway, &caller, PASSWORD, new).await;
        answer.refused(400, "bad_request");
        let detail = answer.json()["detail"].to_string();
        assert!(detail.contains(words), "{detail}");
    }
    for credential in [None, Some("Bearer x".to_owned()), Some(bearer(&refresh))] {
        let fields: Vec<_> = credential
            .iter()
            .map(|text| ("Authorization", &**text))
            .collect();
        let body = json!({ "current_password": PASSWORD, "new_password": NEW }).to_string();
        let answer = post(&gateway, "/auth/password", &fields, &body).await;
        assert_eq!(answer.status, 401);
    }
    assert_eq!(
        (
            works(&gateway, &caller).await,
            works(&gateway, &other).await
        ),
        (200, 200)
    );
    change(&gateway, &caller, PASSWORD, NEW).await.is(204);
    assert_eq!(
        (
            works(&gateway, &caller).await,
            works(&gateway, &other).await
        ),
        (200, 401)
    );
    login(&gateway, PASSWORD)
        .await
        .refused(401, "invalid_credentials");
    login(&gateway, NEW).await.is(200);
    let notice = mail(&gateway, "was changed").await;
    assert!(notice.contains("To: alice@example.com"), "{notice}");
}

#[tokio::test]
async fn rst_1_no_field_of_a_request_gets_into_a_mail() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let body = json!({ "email": "alice@example.com" }).to_string();
    post(&gateway, "/auth/password/forgot", &[], &body)
        .await
        .is(202);
    let plain = mail(&gateway, LINK).await;
    for fields in [
        vec![
            ("X-Forwarded-Host", "evil.example"),
            ("X-Forwarded-Proto", "http"),
        ],
        vec![
            ("Forwarded", "host=evil.example;proto=http;for=198.51.100.9"),
            ("X-Original-URL", "https://evil.example/"),
            ("X-Forwarded-For", "198.51.100.9"),
            ("User-Agent", "evil.example"),
            ("Referer", "https://evil.example/"),
        ],
    ] {
        let before = mails(&gateway);
        post(&gateway, "/auth/password/forgot", &fields, &body)
            .await
            .is(202);
        let new = eventually("a mail", async || {
            mails(&gateway)
                .into_iter()
                .find(|mail| !before.contains(mail))
        })
        .await;
        let but_token = |mail: &str| {
            let body = mail.split_once("\r\n\r\n").unwrap().1.to_owned();
            let token = token(mail);
            let lines = body.replace(&token, "TOKEN");
            lines
                .lines()
                .filter(|line| !line.starts_with("on 2"))
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(but_token(&new), but_token(&plain));
        assert!(
            !new.contains("evil.example") && !new.contains("198.51.100.9"),
            "{new}"
        );
    }
    // Another host is another site, or the same text.
    let raw = format!(
        "POST /auth/password/forgot HTTP/1.1\r\nHost: evil.example\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut connection = Raw::connect(&gateway).await;
    let answer = connection.exchange(raw).await;
    assert!([202, 421].contains(&answer.status), "{}", answer.status);
    assert!(
        mails(&gateway)
            .iter()
            .all(|mail| !mail.contains("evil.example"))
    );
}

#[tokio::test]
async fn rst_2_and_rst_3_a_link_sets_one_password_once_ends_all_and_signs_nobody_in() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let (access, refresh) = session(&gateway).await;
    assert_eq!(works(&gateway, &access).await, 200);
    let body = json!({ "email": "Alice@Example.com" }).to_string();
    post(&gateway, "/auth/password/forgot", &[], &body)
        .await
        .is(202);
    let token = token(&mail(&gateway, LINK).await);
    reset(&gateway, &token, "short")
        .await
        .refused(400, "bad_request");
    reset(&gateway, &"A".repeat(43), NEW)
        .await
        .refused(401, "invalid_grant");
    let one = reset(&gateway, &token, NEW);
    let two = reset(&gateway, &token, "yet another horse battery");
    let (one, two) = tokio::join!(one, two);
    let mut statuses = [one.status, two.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [204, 401]);
    let done = if one.status == 204 { &one } else { &two };
    assert!(done.header("set-cookie").is_none() && done.text().is_empty());
    assert_eq!(works(&gateway, &access).await, 401, "at once");
    let body = json!({ "refresh_token": refresh }).to_string();
    post(&gateway, "/auth/refresh", &[], &body)
        .await
        .refused(401, "invalid_grant");
    login(&gateway, PASSWORD)
        .await
        .refused(401, "invalid_credentials");
    mail(&gateway, "was changed").await;
    // LOG-1: neither link nor password is in any log.
    let logs = format!("{}{}", gateway.out.text(), gateway.err.text());
    for secret in [&*token, PASSWORD, NEW] {
        assert!(!logs.contains(secret));
    }
}

#[tokio::test]
async fn rst_4_known_and_unknown_addresses_get_one_answer_and_a_client_has_its_limit() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let mut answers = Vec::new();
    for name in [
        "alice", "nobody", "alice", "someone", "alice", "alice", "nobody",
    ] {
        let body = json!({ "email": format!("{name}@example.com") }).to_string();
        let answer = post(&gateway, "/auth/password/forgot", &[], &body).await;
        answer.is(202);
        let kind = answer.header("content-type").map(str::to_owned);
        answers.push((answer.text(), kind));
    }
    assert!(
        answers.iter().all(|answer| *answer == answers[0]),
        "{answers:?}"
    );
    let mut last = 202;
    for _ in 0..20 {
        let body = json!({ "email": "alice@example.com" }).to_string();
        last = post(&gateway, "/auth/password/forgot", &[], &body)
            .await
            .status;
    }
    assert_eq!(last, 429);
    eventually("an empty queue", async || {
        let value = gateway.metric("portcullis_mail_queue").await;
        value.filter(|value| *value == 0.0)
    })
    .await;
    assert_eq!(mails(&gateway).len(), 3);
}

#[tokio::test]
async fn auth_8_other_sites_and_forms_cannot_ask_for_anything() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let (access, _) = session(&gateway).await;
    let bodies = [
        (
            "/auth/password",
            json!({ "current_password": PASSWORD, "new_password": NEW }),
        ),
        (
            "/auth/password/forgot",
            json!({ "email": "alice@example.com" }),
        ),
        (
            "/auth/password/reset",
            json!({ "token": "A".repeat(43), "new_password": NEW }),
        ),
    ];
    let field = bearer(&access);
    for (target, good) in &bodies {
        let text = good.to_string();
        let fields = [
            ("Authorization", &*field),
            ("Origin", "https://evil.example"),
        ];
        post(&gateway, target, &fields, &text)
            .await
            .refused(403, "origin_denied");
        let form = [("Authorization", &*field), ("Content-Type", "text/plain")];
        let mut raw = Raw::connect(&gateway).await;
        raw.exchange(request("POST", target, &form, &text))
            .await
            .refused(415, "unsupported_media_type");
        let mut more = good.clone();
        more["role"] = json!("admin");
        post(
            &gateway,
            target,
            &[("Authorization", &field)],
            &more.to_string(),
        )
        .await
        .refused(400, "bad_request");
    }
    assert!(mails(&gateway).is_empty());
    login(&gateway, PASSWORD).await.is(200);
}

#[tokio::test]
async fn without_mail_there_is_no_reset_and_a_change_works() {
    let upstream = Upstream::start().await;
    let site = Site::new(upstream.address).accounts();
    site.write();
    site.user("alice", PASSWORD, &[]).await;
    let gateway = site.start().await;
    let body = json!({ "email": "alice@example.com" }).to_string();
    post(&gateway, "/auth/password/forgot", &[], &body)
        .await
        .refused(404, "route_not_found");
    reset(&gateway, &"A".repeat(43), NEW)
        .await
        .refused(404, "route_not_found");
    let (access, _) = session(&gateway).await;
    change(&gateway, &access, PASSWORD, NEW).await.is(204);
}

#[tokio::test]
async fn auth_5_a_list_of_stolen_passwords_is_searched_on_the_disk_and_must_be_in_order() {
    let upstream = Upstream::start().await;
    let site = Site::new(upstream.address).accounts().set(
        "accounts",
        "breached_passwords",
        "\"data/stolen.txt\"",
    );
    site.write();
    let add = ["user", "add", "alice", "--email", "alice@example.com"];
    for (list, words) in [
        (None, "cannot be read: No such file"),
        (Some(String::new()), "is empty"),
        (
            Some(format!("{}:1\n{}:1\n", "B".repeat(40), "A".repeat(40))),
            "not in order",
        ),
        (Some("a".repeat(32)), "not SHA-1 digests"),
    ] {
        if let Some(list) = &list {
            fs::write(site.path().join("data/stolen.txt"), list).unwrap();
        }
        for command in [&["check"][..], &["run"], &add] {
            let exit = site.run(command, &format!("{PASSWORD}\n")).await;
            let said = format!("{}{}", exit.stdout, exit.stderr);
            assert_eq!(exit.code, Some(1), "{command:?}: {said}");
            assert!(said.contains("accounts.breached_passwords"), "{said}");
            assert!(said.contains(words), "{words}: {said}");
        }
    }
    let digests = [
        "0000000000000000000000000000000000000001:7",
        STOLEN_DIGEST,
        "FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF:2",
    ];
    let text = digests.join("\r\n") + "\r\n";
    fs::write(site.path().join("data/stolen.txt"), text).unwrap();
    let refused = site.run(&add, &format!("{NEW}\n")).await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("stolen"), "{refused:?}");
    site.user("alice", PASSWORD, &[]).await;
    let gateway = site.start().await;
    let (access, _) = session(&gateway).await;
    let answer = change(&gateway, &access, PASSWORD, NEW).await;
    answer.refused(400, "bad_request");
    let detail = answer.json()["detail"].to_string();
    assert!(detail.contains("stolen passwords"), "{detail}");
    login(&gateway, PASSWORD).await.is(200);
}
