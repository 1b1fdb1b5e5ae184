//! Accounts over HTTP: login, refresh and its rotation, logout, and what floods of them do to others.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{
    Answer, Gateway, H2, Kind, Raw, Site, Token, Upstream,
    client::full,
    get,
    keys::{base64, bearer, unbase64},
    request,
};

const PASSWORD: &str = "correct horse battery staple";
const ORIGIN: &str = "https://localhost:8443";
const COOKIE: &str = "__Secure-portcullis-refresh";

/// A site with accounts and two users: `alice`, a clerk, and `bob`, without roles.
async fn prepared(upstream: &Upstream) -> Site {
    let site = Site::new(upstream.address)
        .accounts()
        .route("clerks", "/clerks", "authenticated")
        .on_route(
            "require",
            r#"{ roles = ["clerk"], issuers = ["portcullis"] }"#,
        );
    site.write();
    site.user("alice", PASSWORD, &["clerk"]).await;
    site.user("bob", PASSWORD, &[]).await;
    site
}

async fn gateway(upstream: &Upstream) -> Gateway {
    prepared(upstream).await.start().await
}

async fn post(gateway: &Gateway, target: &str, fields: &[(&str, &str)], body: &str) -> Answer {
    let mut all = fields.to_vec();
    if !fields
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("content-type"))
    {
        all.push(("Content-Type", "application/json"));
    }
    Raw::connect(gateway)
        .await
        .exchange(request("POST", target, &all, body))
        .await
}

async fn login(gateway: &Gateway, name: &str, password: &str) -> Answer {
    let body = json!({ "username": name, "password": password, "delivery": "body" });
    post(gateway, "/auth/login", &[], &body.to_string()).await
}

/// What a login or a refresh gives: the access token and the refresh token.
fn pair(answer: &Answer) -> (String, String) {
    answer.is(200);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let grant = answer.json();
    assert_eq!(grant["token_type"], "Bearer", "{grant}");
    assert!(
        grant["expires_in"]
            .as_u64()
            .is_some_and(|time| (1..=900).contains(&time)),
        "{grant}"
    );
    let text = |name: &str| {
        grant[name]
            .as_str()
            .unwrap_or_else(|| panic!("no {name}: {grant}"))
            .to_owned()
    };
    (text("access_token"), text("refresh_token"))
}

/// The `Set-Cookie` of the refresh cookie, which is there once.
fn refresh_line(answer: &Answer) -> String {
    let lines = answer.head.values("set-cookie");
    let mut lines = lines.iter().filter(|line| line.starts_with(COOKIE));
    let line = lines.next().unwrap_or_else(|| panic!("no {COOKIE}"));
    assert_eq!(lines.next(), None);
    (*line).to_owned()
}

async fn refresh(gateway: &Gateway, token: &str) -> Answer {
    post(
        gateway,
        "/auth/refresh",
        &[],
        &json!({ "refresh_token": token }).to_string(),
    )
    .await
}

async fn works(gateway: &Gateway, access: &str) -> u16 {
    get(gateway, "/private", &[("Authorization", &bearer(access))])
        .await
        .status
}

fn claims(token: &str) -> Value {
    serde_json::from_slice(&unbase64(token.split('.').nth(1).unwrap())).unwrap()
}

#[tokio::test]
async fn a_login_opens_the_routes_that_its_roles_allow() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let (access, _) = pair(&login(&gateway, "alice", PASSWORD).await);
    get(&gateway, "/clerks", &[("Authorization", &bearer(&access))])
        .await
        .is(200);
    let seen = upstream.last();
    assert_eq!(seen.header("x-forwarded-user"), Some("alice"));
    assert_eq!(seen.header("x-forwarded-groups"), Some("clerk"));
    assert_eq!(seen.header("x-forwarded-email"), Some("alice@example.com"));
    let (bob, _) = pair(&login(&gateway, "bob@example.com", PASSWORD).await);
    get(&gateway, "/clerks", &[("Authorization", &bearer(&bob))])
        .await
        .refused(403, "role_missing");
    let me = get(&gateway, "/auth/me", &[("Authorization", &bearer(&access))]).await;
    assert_eq!(me.is(200).json()["roles"], json!(["clerk"]));
    assert_eq!(upstream.count(), 1);
}

#[tokio::test]
async fn auth_1_a_failed_login_does_not_tell_why() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let mut answers = Vec::new();
    for (name, password) in [
        ("alice", "wrong password, long enough"),
        ("nobody", PASSWORD),
        ("alice ", PASSWORD),
        ("", PASSWORD),
        ("nobody@example.com", "x"),
        ("alice", ""),
    ] {
        let answer = login(&gateway, name, password).await;
        answer.refused(401, "invalid_credentials");
        let mut problem = answer.json();
        problem["request_id"].take();
        answers.push(problem);
    }
    assert!(
        answers.iter().all(|answer| *answer == answers[0]),
        "{answers:#?}"
    );
}

#[tokio::test]
async fn auth_7_and_msg_8_bodies_of_the_account_routes_are_closed_and_small() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let good = json!({ "username": "alice", "password": PASSWORD });
    for (name, value) in [
        ("role", json!("admin")),
        ("roles", json!(["admin"])),
        ("is_admin", json!(true)),
        ("verified", json!(true)),
        ("x", json!(1)),
    ] {
        let mut body = good.clone();
        body[name] = value;
        post(&gateway, "/auth/login", &[], &body.to_string())
            .await
            .refused(400, "bad_request");
    }
    for body in [
        "",
        "{",
        "[]",
        "null",
        "{}",
        "{\"username\":\"alice\"}",
        "{\"username\":1,\"password\":2}",
        "\u{feff}{}",
    ] {
        post(&gateway, "/auth/login", &[], body)
            .await
            .refused(400, "bad_request");
    }
    let text = good.to_string();
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "application/jsonx",
        "",
        "application/json, text/plain",
    ] {
        let answer = post(&gateway, "/auth/login", &[("Content-Type", kind)], &text).await;
        assert!(
            [400, 403, 415].contains(&answer.status),
            "{kind}: {}",
            answer.status
        );
    }
    let twice = [
        ("Content-Type", "application/json"),
        ("Content-Type", "application/json"),
    ];
    post(&gateway, "/auth/login", &twice, &text)
        .await
        .refused(400, "bad_request");
    let large = json!({ "username": "alice", "password": "p".repeat(16 << 10) }).to_string();
    post(&gateway, "/auth/login", &[], &large)
        .await
        .refused(413, "body_too_large");
    let mut h2 = H2::connect(&gateway).await;
    let over_h2 = http::Request::post("https://localhost/auth/login")
        .header("content-type", "application/json");
    h2.send(over_h2.body(full(large)).unwrap())
        .await
        .unwrap()
        .refused(413, "body_too_large");
    let mut raw = Raw::connect(&gateway).await;
    raw.exchange(request("PUT", "/auth/login", &[], ""))
        .await
        .refused(405, "method_not_allowed");
    upstream.saw_nothing();
}

#[tokio::test]
async fn key_5_published_keys_are_public() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let (access, _) = pair(&login(&gateway, "alice", PASSWORD).await);
    let set = get(&gateway, "/.well-known/jwks.json", &[])
        .await
        .is(200)
        .json();
    let keys = set["keys"].as_array().unwrap();
    assert!(!keys.is_empty());
    for key in keys {
        for secret in ["d", "p", "q", "dp", "dq", "qi", "k", "oth"] {
            assert!(key.get(secret).is_none(), "{secret} is published");
        }
        assert_ne!(key["kty"], "oct");
    }
    let header: Value =
        serde_json::from_slice(&unbase64(access.split('.').next().unwrap())).unwrap();
    assert_eq!(
        (&header["typ"], &header["alg"]),
        (&json!("at+jwt"), &json!("ES256"))
    );
    assert!(
        keys.iter().any(|key| key["kid"] == header["kid"]),
        "{header} is not in {set}"
    );
    for name in ["iss", "aud", "sub", "exp", "iat", "jti", "sid"] {
        assert!(!claims(&access)[name].is_null(), "no {name}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn key_5_and_store_5_keys_and_store_are_the_owner_s_alone() {
    use std::os::unix::fs::PermissionsExt;
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    pair(&login(&gateway, "alice", PASSWORD).await);
    let (mut folders, mut files) = (vec![gateway.path().join("data")], 0);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files += 1;
                let mode = std::fs::metadata(&path).unwrap().permissions().mode();
                assert_eq!(mode & 0o077, 0, "{}: {mode:o}", path.display());
            }
        }
    }
    assert!(files >= 2, "neither store nor key in data");
}

#[tokio::test]
async fn sess_1_a_replayed_refresh_token_ends_the_family() {
    let upstream = Upstream::start().await;
    let gateway = prepared(&upstream)
        .await
        .set("accounts", "refresh_grace", "\"1s\"")
        .start()
        .await;
    let (_, first) = pair(&login(&gateway, "alice", PASSWORD).await);
    let (_, others) = pair(&login(&gateway, "alice", PASSWORD).await);
    let (access, second) = pair(&refresh(&gateway, &first).await);
    assert_ne!(first, second, "not rotated");
    assert_eq!(works(&gateway, &access).await, 200);
    let rotated = Instant::now();
    // Within the grace window the old one may come again; after it, it is a theft.
    crate::harness::eventually("the end of the grace window", async || {
        (rotated.elapsed() > Duration::from_millis(2200)).then_some(())
    })
    .await;
    refresh(&gateway, &first)
        .await
        .refused(401, "invalid_grant");
    refresh(&gateway, &second)
        .await
        .refused(401, "invalid_grant");
    let count = upstream.count();
    get(&gateway, "/private", &[("Authorization", &bearer(&access))])
        .await
        .refused(401, "token_invalid");
    assert_eq!(upstream.count(), count);
    // Another session of the same user goes on.
    pair(&refresh(&gateway, &others).await);
}

#[tokio::test]
async fn sess_1_what_is_no_refresh_token_is_refused_alike() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let (access, good) = pair(&login(&gateway, "alice", PASSWORD).await);
    let long = "a".repeat(10_000);
    let random = base64([9; 32]);
    let longer = format!("{good}A");
    for token in [
        "",
        "x",
        &random,
        &access,
        &good[..good.len() - 1],
        &longer,
        &long,
        &format!(" {good}"),
        &good.to_ascii_lowercase(),
    ] {
        let answer = refresh(&gateway, token).await;
        answer.refused(401, "invalid_grant");
    }
    assert_eq!(
        works(&gateway, &good).await,
        401,
        "a refresh token is no access token"
    );
    post(&gateway, "/auth/refresh", &[], "")
        .await
        .refused(401, "invalid_grant");
    let both = [("Cookie", &*format!("{COOKIE}={good}")), ("Origin", ORIGIN)];
    let body = json!({ "refresh_token": good }).to_string();
    post(&gateway, "/auth/refresh", &both, &body).await.is(400);
    pair(&refresh(&gateway, &good).await);
}

#[tokio::test]
async fn sess_2_fifty_refreshes_at_once_leave_a_working_session() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let (_, token) = pair(&login(&gateway, "alice", PASSWORD).await);
    let answers = futures_util::future::join_all((0..50).map(|_| refresh(&gateway, &token))).await;
    let mut granted = Vec::new();
    for answer in &answers {
        match answer.status {
            200 => granted.push(pair(answer)),
            // Beyond the number of siblings a token is refused, but nothing is revoked.
            401 | 429 | 503 => {}
            other => panic!("{other} {}", answer.text()),
        }
    }
    assert!(!granted.is_empty(), "nobody got a token");
    for (access, _) in &granted {
        assert_eq!(
            works(&gateway, access).await,
            200,
            "a granted token does not work"
        );
    }
    let (_, next) = granted.pop().unwrap();
    pair(&refresh(&gateway, &next).await);
}

#[tokio::test]
async fn sess_3_and_sess_2_sessions_outlive_the_gateway() {
    let upstream = Upstream::start().await;
    let mut gateway = gateway(&upstream).await;
    let (_, first) = pair(&login(&gateway, "alice", PASSWORD).await);
    let (_, second) = pair(&refresh(&gateway, &first).await);
    // No farewell: what was acknowledged must be on the disk.
    gateway.signal("KILL");
    gateway.exit().await;
    let gateway = gateway.again().await;
    let (access, _) = pair(&refresh(&gateway, &second).await);
    assert_eq!(works(&gateway, &access).await, 200);
    // The answer to a refresh was lost: the same token again, within the grace window.
    pair(&refresh(&gateway, &second).await);
}

#[tokio::test]
async fn sess_3_and_sess_5_a_logout_outlives_the_gateway() {
    let upstream = Upstream::start().await;
    let mut gateway = gateway(&upstream).await;
    let (access, token) = pair(&login(&gateway, "alice", PASSWORD).await);
    post(
        &gateway,
        "/auth/logout",
        &[],
        &json!({ "refresh_token": token }).to_string(),
    )
    .await
    .is(204);
    gateway.signal("KILL");
    gateway.exit().await;
    let gateway = gateway.again().await;
    refresh(&gateway, &token)
        .await
        .refused(401, "invalid_grant");
    get(&gateway, "/private", &[("Authorization", &bearer(&access))])
        .await
        .refused(401, "token_invalid");
    upstream.saw_nothing();
}

#[tokio::test]
async fn cache_4_and_sess_5_logout_ends_access_at_once() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    for by in ["refresh token", "access token"] {
        let (access, token) = pair(&login(&gateway, "alice", PASSWORD).await);
        let (other, _) = pair(&login(&gateway, "alice", PASSWORD).await);
        // Twice, so that it is served from the cache.
        assert_eq!(
            (
                works(&gateway, &access).await,
                works(&gateway, &access).await
            ),
            (200, 200)
        );
        assert_eq!(works(&gateway, &other).await, 200);
        let answer = match by {
            "refresh token" => {
                post(
                    &gateway,
                    "/auth/logout",
                    &[],
                    &json!({ "refresh_token": token }).to_string(),
                )
                .await
            }
            _ => {
                post(
                    &gateway,
                    "/auth/logout",
                    &[("Authorization", &bearer(&access))],
                    "",
                )
                .await
            }
        };
        answer.is(204);
        let count = upstream.count();
        for _ in 0..3 {
            get(&gateway, "/private", &[("Authorization", &bearer(&access))])
                .await
                .refused(401, "token_invalid");
        }
        assert_eq!(upstream.count(), count);
        refresh(&gateway, &token)
            .await
            .refused(401, "invalid_grant");
        assert_eq!(
            works(&gateway, &other).await,
            200,
            "another session ended with it"
        );
        // Once more, and with nonsense: the same answer.
        post(
            &gateway,
            "/auth/logout",
            &[],
            &json!({ "refresh_token": token }).to_string(),
        )
        .await
        .is(204);
        post(
            &gateway,
            "/auth/logout",
            &[],
            &json!({ "refresh_token": "nonsense" }).to_string(),
        )
        .await
        .is(204);
        post(
            &gateway,
            "/auth/logout",
            &[("Authorization", "Bearer nonsense")],
            "",
        )
        .await
        .is(204);
    }
    // The page asks, and ends nothing: a link elsewhere must not.
    let (access, _) = pair(&login(&gateway, "alice", PASSWORD).await);
    let own = bearer(&access);
    let asked = get(&gateway, "/auth/logout", &[("Authorization", &own)]).await;
    assert_eq!(asked.is(200).header("set-cookie"), None);
    assert_eq!(works(&gateway, &access).await, 200);
}

#[tokio::test]
async fn cache_4_a_connection_that_repeats_a_token_learns_of_its_end_at_once() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let mut one = Raw::connect(&gateway).await;
    let mut two = H2::connect(&gateway).await;
    for by_cookie in [false, true] {
        let (access, _) = pair(&login(&gateway, "alice", PASSWORD).await);
        let bearer = bearer(&access);
        let field = match by_cookie {
            false => ("Authorization", bearer.clone()),
            true => ("Cookie", format!("__Host-portcullis-session={access}")),
        };
        let field = (field.0, &*field.1);
        let ask_two = || {
            let request = http::Request::get("https://localhost/private");
            request.header(field.0, field.1).body(full("")).unwrap()
        };
        for _ in 0..5 {
            let answer = one.exchange(request("GET", "/private", &[field], ""));
            answer.await.is(200);
            two.send(ask_two()).await.unwrap().is(200);
        }
        let own = [("Authorization", &*bearer)];
        post(&gateway, "/auth/logout", &own, "").await.is(204);
        let count = upstream.count();
        for _ in 0..3 {
            let answer = one.exchange(request("GET", "/private", &[field], "")).await;
            answer.refused(401, "token_invalid");
            let answer = two.send(ask_two()).await.unwrap();
            answer.refused(401, "token_invalid");
        }
        assert_eq!(upstream.count(), count);
    }
}

#[tokio::test]
async fn cache_4_logout_all_ends_every_session_at_once() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let mut sessions = Vec::new();
    for _ in 0..3 {
        sessions.push(pair(&login(&gateway, "alice", PASSWORD).await));
    }
    let (bob, _) = pair(&login(&gateway, "bob", PASSWORD).await);
    for (access, _) in &sessions {
        assert_eq!(works(&gateway, access).await, 200);
    }
    post(&gateway, "/auth/logout-all", &[], "")
        .await
        .refused(401, "credentials_missing");
    post(
        &gateway,
        "/auth/logout-all",
        &[("Authorization", &bearer(&sessions[0].0))],
        "",
    )
    .await
    .is(204);
    for (access, token) in &sessions {
        assert_eq!(works(&gateway, access).await, 401);
        refresh(&gateway, token).await.refused(401, "invalid_grant");
    }
    assert_eq!(works(&gateway, &bob).await, 200);
}

#[tokio::test]
async fn cache_4_and_auth_11_a_disabled_user_is_out_within_five_seconds() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let (access, token) = pair(&login(&gateway, "alice", PASSWORD).await);
    assert_eq!(works(&gateway, &access).await, 200);
    // By another process, which shares nothing with the gateway but the store.
    let exit = gateway.site.run(&["user", "disable", "alice"], "").await;
    assert_eq!(exit.code, Some(0), "{exit:?}");
    let disabled = Instant::now();
    crate::harness::eventually("the token to be refused", async || {
        (works(&gateway, &access).await == 401).then_some(())
    })
    .await;
    assert!(
        disabled.elapsed() < Duration::from_secs(6),
        "{:?}",
        disabled.elapsed()
    );
    refresh(&gateway, &token)
        .await
        .refused(401, "invalid_grant");
    login(&gateway, "alice", PASSWORD)
        .await
        .refused(401, "invalid_credentials");
}

#[tokio::test]
async fn sess_6_the_refresh_cookie_has_every_guard() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let body = json!({ "username": "alice", "password": PASSWORD }).to_string();
    let answer = post(&gateway, "/auth/login", &[], &body).await;
    assert!(
        answer.is(200).json().get("refresh_token").is_none(),
        "the token is in the body too"
    );
    let cookie = refresh_line(&answer);
    let mut parts = cookie.split("; ");
    let (name, token) = parts.next().unwrap().split_once('=').unwrap();
    assert_eq!(name, COOKIE);
    let attributes: Vec<String> = parts.map(str::to_ascii_lowercase).collect();
    for want in ["httponly", "secure", "samesite=strict", "path=/auth"] {
        assert!(
            attributes.iter().any(|attribute| attribute == want),
            "no {want}: {cookie}"
        );
    }
    assert!(
        !attributes
            .iter()
            .any(|attribute| attribute.starts_with("domain")),
        "{cookie}"
    );

    let held = format!("{COOKIE}={token}");
    let cookie = ("Cookie", held.as_str());
    for origin in [
        vec![],
        vec![("Origin", "https://evil.example.com")],
        vec![("Origin", "https://sibling.localhost:8443")],
        vec![("Origin", "http://localhost:8443")],
        vec![("Origin", "https://localhost")],
        vec![("Origin", "null")],
        vec![("Origin", "")],
        vec![("Sec-Fetch-Site", "cross-site")],
        vec![("Sec-Fetch-Site", "same-site")],
        vec![("Sec-Fetch-Site", "none")],
        vec![("Sec-Fetch-Site", "cross-site"), ("Origin", ORIGIN)],
    ] {
        for target in ["/auth/refresh", "/auth/logout"] {
            let mut fields = origin.clone();
            fields.push(cookie);
            let answer = post(&gateway, target, &fields, "").await;
            assert_eq!(
                (answer.status, &*answer.code()),
                (403, "origin_denied"),
                "{target} {origin:?}"
            );
        }
    }
    let own = ("Origin", ORIGIN);
    let simple = post(
        &gateway,
        "/auth/refresh",
        &[cookie, own, ("Content-Type", "text/plain")],
        "",
    )
    .await;
    assert!([403, 415].contains(&simple.status), "{}", simple.status);
    let twice = format!("{held}; {held}");
    post(&gateway, "/auth/refresh", &[("Cookie", &twice), own], "")
        .await
        .refused(400, "bad_request");
    let planted = format!("{COOKIE}=planted; {held}");
    post(&gateway, "/auth/refresh", &[("Cookie", &planted), own], "")
        .await
        .refused(400, "bad_request");

    let answer = post(&gateway, "/auth/refresh", &[cookie, own], "").await;
    let rotated = refresh_line(answer.is(200));
    let same: Vec<String> = rotated
        .split("; ")
        .skip(1)
        .filter(|part| !part.starts_with("Max-Age"))
        .map(str::to_ascii_lowercase)
        .collect();
    assert!(
        same.iter().all(|attribute| attributes.contains(attribute)),
        "{rotated}"
    );
    let token = rotated.split(';').next().unwrap();
    let fetched = ("Sec-Fetch-Site", "same-origin");
    let answer = post(&gateway, "/auth/logout", &[("Cookie", token), fetched], "").await;
    let cleared = refresh_line(answer.is(204)).to_ascii_lowercase();
    assert!(
        cleared.starts_with(&format!("{}=;", COOKIE.to_ascii_lowercase()))
            && cleared.contains("max-age=0")
            && cleared.contains("path=/auth"),
        "{cleared}"
    );
}

#[tokio::test]
async fn auth_8_a_foreign_page_cannot_log_its_visitor_in() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let body = json!({ "username": "alice", "password": PASSWORD }).to_string();
    for field in [
        ("Origin", "https://evil.example.com"),
        ("Origin", "null"),
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Site", "same-site"),
    ] {
        post(&gateway, "/auth/login", &[field], &body)
            .await
            .refused(403, "origin_denied");
    }
    post(&gateway, "/auth/login", &[("Origin", ORIGIN)], &body)
        .await
        .is(200);
}

#[tokio::test]
async fn jwt_4_tokens_of_other_issuers_open_no_account() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    for kind in Kind::ALL {
        let token = bearer(
            &Token::new(kind)
                .claim("preferred_username", "alice")
                .claim("sid", "s")
                .sign(),
        );
        let me = get(&gateway, "/auth/me", &[("Authorization", &token)]).await;
        assert!([401, 403].contains(&me.status), "{kind:?}: {}", me.status);
        let out = post(
            &gateway,
            "/auth/logout-all",
            &[("Authorization", &token)],
            "",
        )
        .await;
        assert!([401, 403].contains(&out.status), "{kind:?}: {}", out.status);
    }
    // And another's key under our name opens nothing at all.
    let forged = Token::new(Kind::Es)
        .claim("iss", ORIGIN)
        .claim("aud", "portcullis")
        .claim("sid", "s")
        .sign();
    get(&gateway, "/auth/me", &[("Authorization", &bearer(&forged))])
        .await
        .refused(401, "token_invalid");
    get(&gateway, "/private", &[("Authorization", &bearer(&forged))])
        .await
        .refused(401, "token_invalid");
}

#[tokio::test]
async fn auth_2_a_login_flood_does_not_touch_the_proxied_path() {
    let upstream = Upstream::start().await;
    let gateway = prepared(&upstream)
        .await
        .set(
            "accounts",
            "argon2",
            r#"{ memory = "64MiB", iterations = 4, parallelism = 1, concurrent = 1 }"#,
        )
        .start()
        .await;
    let flood = futures_util::future::join_all((0..200).map(|n| {
        let gateway = &gateway;
        async move { login(gateway, &format!("nobody{n}"), PASSWORD).await }
    }));
    let proxied = async {
        let token = bearer(&Token::good().sign());
        let mut raw = Raw::connect(&gateway).await;
        let mut slowest = Duration::ZERO;
        for _ in 0..100 {
            let begun = Instant::now();
            raw.exchange(request("GET", "/private", &[("Authorization", &token)], ""))
                .await
                .is(200);
            slowest = slowest.max(begun.elapsed());
        }
        slowest
    };
    let (answers, slowest) = tokio::join!(flood, proxied);
    let busy = answers.iter().filter(|answer| answer.status == 503).count();
    for answer in &answers {
        match answer.status {
            401 => answer.refused(401, "invalid_credentials"),
            503 => {
                answer.refused(503, "overloaded");
                assert!(answer.header("retry-after").is_some());
            }
            other => panic!("{other} {}", answer.text()),
        }
    }
    assert!(busy > 0, "200 logins at once, and every one was hashed");
    // A hash takes over 100 ms here; a request that waited for the queue of them would take seconds.
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    // One hash at a time: 64 MiB, whatever the number of logins.
    assert!(gateway.memory() < 400 << 10, "{} KiB", gateway.memory());
}

#[tokio::test]
async fn rate_4_logins_are_limited_by_account_however_it_is_spelt() {
    let upstream = Upstream::start().await;
    let gateway = prepared(&upstream)
        .await
        .set(
            "accounts",
            "login_limit",
            r#"{ per_ip = "10000/1s", per_account = "5/15m" }"#,
        )
        .start()
        .await;
    let mut limited = 0;
    for name in [
        "bob",
        "BOB",
        "Bob",
        "bob@example.com",
        "BOB@EXAMPLE.COM",
        "bOb",
        "bob",
    ] {
        let answer = login(&gateway, name, "not the password at all").await;
        match answer.status {
            401 => {}
            429 => limited += 1,
            other => panic!("{other}"),
        }
    }
    assert_eq!(limited, 2);
    let mut unknown = 0;
    for _ in 0..7 {
        unknown += usize::from(login(&gateway, "nobody", PASSWORD).await.status == 429);
    }
    assert_eq!(
        unknown, 2,
        "an unknown account is limited otherwise than a known one"
    );
    login(&gateway, "alice", PASSWORD).await.is(200);
}

#[tokio::test]
async fn rate_4_a_session_is_renewed_only_so_often_and_loses_nothing_by_a_refusal() {
    let upstream = Upstream::start().await;
    let limit = r#"{ per_session = "10/1h" }"#;
    let site = prepared(&upstream).await;
    let gateway = site.set("accounts", "refresh_limit", limit).start().await;
    let (_, other) = pair(&login(&gateway, "alice", PASSWORD).await);
    let (mut access, mut token) = pair(&login(&gateway, "alice", PASSWORD).await);
    let mut before = token.clone();
    for _ in 0..10 {
        before = token.clone();
        (access, token) = pair(&refresh(&gateway, &token).await);
    }
    for _ in 0..3 {
        let answer = refresh(&gateway, &token).await;
        answer.refused(429, "rate_limited");
        let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=360).contains(&wait), "{wait}");
        let policy = answer.header("ratelimit-policy");
        assert_eq!(policy, Some(r#""refresh_per_session";q=10;w=3600"#));
        let left = answer.header("ratelimit").unwrap();
        assert!(left.starts_with(r#""refresh_per_session";r=0;"#), "{left}");
    }
    let cookie = format!("{COOKIE}={token}");
    let fields = [("Cookie", &*cookie), ("Origin", ORIGIN)];
    let answer = post(&gateway, "/auth/refresh", &fields, "").await;
    answer.refused(429, "rate_limited");
    assert_eq!(answer.header("set-cookie"), None);
    let limited = r#"portcullis_rate_limited_total{limit="refresh_per_session"}"#;
    assert_eq!(gateway.metric(limited).await, Some(4.0));
    let result = r#"portcullis_refreshes_total{result="rate_limited"}"#;
    assert_eq!(gateway.metric(result).await, Some(4.0));
    // The session lives, what was used a moment ago leads to the same token still, and other sessions have budgets of their own.
    assert_eq!(works(&gateway, &access).await, 200);
    assert_eq!(upstream.last().header("x-forwarded-user"), Some("alice"));
    assert_eq!(pair(&refresh(&gateway, &before).await).1, token);
    pair(&refresh(&gateway, &other).await);
    refresh(&gateway, &token).await.refused(429, "rate_limited");
    refresh(&gateway, &base64([7; 32]))
        .await
        .refused(401, "invalid_grant");
}

#[tokio::test]
async fn rate_4_logins_are_limited_by_address() {
    let upstream = Upstream::start().await;
    let gateway = prepared(&upstream)
        .await
        .set(
            "accounts",
            "login_limit",
            r#"{ per_ip = "5/15m", per_account = "100/15m" }"#,
        )
        .start()
        .await;
    let mut limited = 0;
    for number in 0..10 {
        let body =
            json!({ "username": format!("nobody{number}"), "password": PASSWORD }).to_string();
        let from = format!("203.0.113.{number}");
        limited += usize::from(
            post(
                &gateway,
                "/auth/login",
                &[("X-Forwarded-For", &from)],
                &body,
            )
            .await
            .status
                == 429,
        );
    }
    assert_eq!(limited, 5);
    let answer = login(&gateway, "alice", PASSWORD).await;
    answer.refused(429, "rate_limited");
    assert!(answer.header("retry-after").is_some());
}
