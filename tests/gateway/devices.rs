//! An account that strangers guess at, and the browser in which its owner was signed in before: RATE-4.

use serde_json::json;

use crate::harness::{Answer, Gateway, Raw, Site, Upstream, get, request};

const PASSWORD: &str = "correct horse battery staple";
const NEW: &str = "another horse battery staple";
const DEVICE: &str = "__Host-portcullis-device";
const JSON: (&str, &str) = ("Content-Type", "application/json");
const FORM: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded");
const SAME: (&str, &str) = ("Sec-Fetch-Site", "same-origin");

/// `alice` and `bob` behind a proxy that names the clients, and few attempts at an account.
async fn gateway(upstream: &Upstream) -> Gateway {
    let limit = r#"{ per_ip = "1000/1s", per_account = "4/1h" }"#;
    let site = Site::new(upstream.address)
        .accounts()
        .set("server", "trusted_proxies", r#"["127.0.0.1/32"]"#)
        .set("accounts", "login_limit", limit);
    site.write();
    for name in ["alice", "bob"] {
        site.user(name, PASSWORD, &[]).await;
    }
    site.start().await
}

async fn post(gateway: &Gateway, target: &str, fields: &[(&str, &str)], body: &str) -> Answer {
    let mut raw = Raw::connect(gateway).await;
    raw.exchange(request("POST", target, fields, body)).await
}

/// Signs in from an address, in a browser that sends this device cookie, if any.
async fn login(
    gateway: &Gateway,
    (ip, device): (&str, Option<&str>),
    name: &str,
    password: &str,
) -> Answer {
    let body = json!({ "username": name, "password": password }).to_string();
    let cookie = device.map(|device| format!("{DEVICE}={device}"));
    let mut fields = vec![JSON, ("X-Forwarded-For", ip)];
    fields.extend(cookie.as_deref().map(|cookie| ("Cookie", cookie)));
    post(gateway, "/auth/login", &fields, &body).await
}

/// The line that sets the device cookie.
fn line(answer: &Answer) -> Option<String> {
    let fields = &answer.head.fields;
    let lines = fields
        .iter()
        .filter(|(name, value)| name.eq_ignore_ascii_case("set-cookie") && value.contains(DEVICE));
    let mut lines = lines.map(|(_, value)| value.clone());
    let line = lines.next();
    assert_eq!(lines.next(), None);
    line
}

fn device(answer: &Answer) -> String {
    let line = line(answer).unwrap();
    let pair = line.split(';').next().unwrap();
    pair.split_once('=').unwrap().1.to_owned()
}

/// Guesses at an account by each of its names, from one address after the other, until there is no attempt left.
async fn flood(gateway: &Gateway, names: [&str; 3]) {
    let mut limited = 0;
    for number in 0..9_usize {
        let ip = format!("203.0.113.{number}");
        let guess = login(gateway, (&ip, None), names[number % 3], "a guess").await;
        match guess.status {
            401 => assert_eq!(limited, 0, "one name has attempts that another has not"),
            429 => limited += 1,
            other => panic!("{other}"),
        }
        assert_eq!(line(&guess), None);
    }
    assert!(limited >= 5, "{limited}");
}

const ALICE: [&str; 3] = ["alice", "ALICE@example.com", "Alice"];

#[tokio::test]
async fn rate_4_who_floods_an_account_does_not_keep_its_owner_out_of_a_known_browser() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let home = "198.51.100.1";
    let known = login(&gateway, (home, None), "alice", PASSWORD).await;
    let known = device(known.is(200));
    let other = login(&gateway, (home, None), "bob", PASSWORD).await;
    let other = device(other.is(200));
    flood(&gateway, ALICE).await;
    flood(&gateway, ["nobody", "NOBODY", "Nobody"]).await;
    let forged = "A".repeat(known.len());
    let cut = &known[..known.len() - 1];
    for useless in [None, Some(&*other), Some(&forged), Some(cut), Some("")] {
        let answer = login(&gateway, (home, useless), "alice", PASSWORD).await;
        answer.refused(429, "rate_limited");
    }
    // Known it is only for its own account, and it opens nothing by itself.
    login(&gateway, (home, Some(&known)), "nobody", PASSWORD)
        .await
        .refused(429, "rate_limited");
    login(&gateway, (home, Some(&known)), "alice", "a guess")
        .await
        .refused(401, "invalid_credentials");
    let cookie = format!("{DEVICE}={known}");
    let private = get(&gateway, "/private", &[("Cookie", &cookie)]).await;
    assert_eq!(private.status, 401);
    let answer = login(
        &gateway,
        (home, Some(&known)),
        "alice@example.com",
        PASSWORD,
    )
    .await;
    let renewed = device(answer.is(200));
    assert_ne!(renewed, known);
    // By the form too.
    let cookie = format!("{DEVICE}={renewed}");
    let fields = [FORM, SAME, ("Cookie", &*cookie)];
    let body = format!("username=alice&password={}", PASSWORD.replace(' ', "+"));
    let answer = post(&gateway, "/auth/login", &fields, &body).await;
    assert!(line(answer.is(303)).is_some());
    post(&gateway, "/auth/login", &[FORM, SAME], &body)
        .await
        .is(429);
}

#[tokio::test]
async fn rate_4_a_browser_stays_known_when_its_page_changes_the_password_as_json() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let home = "198.51.100.1";
    let body = json!({ "current_password": PASSWORD, "new_password": NEW }).to_string();
    let mut renewed = None;
    for (name, is_browser) in [("bob", false), ("alice", true)] {
        let answer = login(&gateway, (home, None), name, PASSWORD).await;
        let cookie = format!("{DEVICE}={}", device(answer.is(200)));
        let bearer = format!("Bearer {}", answer.json()["access_token"].as_str().unwrap());
        let mut fields = vec![JSON, ("Authorization", &*bearer)];
        fields.extend(is_browser.then_some(("Cookie", &*cookie)));
        let answer = post(&gateway, "/auth/password", &fields, &body).await;
        renewed = line(answer.is(204));
        assert_eq!(renewed.is_some(), is_browser, "{name}");
    }
    let renewed = renewed.unwrap();
    let renewed = renewed.split([';', '=']).nth(1);
    flood(&gateway, ALICE).await;
    login(&gateway, (home, renewed), "alice", NEW).await.is(200);
}

#[tokio::test]
async fn rate_4_a_known_browser_has_no_more_attempts_than_a_stranger() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let home = "198.51.100.1";
    let answer = login(&gateway, (home, None), "alice", PASSWORD).await;
    let known = device(answer.is(200));
    for name in ["alice", "ALICE", "alice@example.com", "Alice"] {
        login(&gateway, (home, Some(&known)), name, "a guess")
            .await
            .refused(401, "invalid_credentials");
    }
    let answer = login(&gateway, (home, Some(&known)), "alice", PASSWORD).await;
    answer.refused(429, "rate_limited");
    let limited = r#"portcullis_rate_limited_total{limit="login_per_device"}"#;
    assert_eq!(gateway.metric(limited).await, Some(1.0));
    login(&gateway, (home, None), "alice", PASSWORD)
        .await
        .is(200);
}

#[tokio::test]
async fn rate_4_a_new_password_makes_every_browser_a_stranger_again() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let home = "198.51.100.1";
    let answer = login(&gateway, (home, None), "alice", PASSWORD).await;
    let old = device(answer.is(200));
    // The page changes it, and makes its own browser known at once.
    let pairs = answer.head.fields.iter().filter_map(|(name, value)| {
        let is_cookie = name.eq_ignore_ascii_case("set-cookie");
        is_cookie.then(|| value.split(';').next().unwrap())
    });
    let jar = pairs.collect::<Vec<_>>().join("; ");
    let [current, new] = [PASSWORD, NEW].map(|text| text.replace(' ', "+"));
    let body = format!("current_password={current}&new_password={new}");
    let fields = [FORM, SAME, ("Cookie", &*jar)];
    let changed = post(&gateway, "/auth/account", &fields, &body).await;
    let new = device(changed.is(303));
    flood(&gateway, ALICE).await;
    login(&gateway, (home, Some(&old)), "alice", NEW)
        .await
        .refused(429, "rate_limited");
    login(&gateway, (home, Some(&new)), "alice", NEW)
        .await
        .is(200);
}

#[tokio::test]
async fn rate_4_and_hdr_8_the_device_cookie_has_every_guard_and_reaches_no_upstream() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let answer = login(&gateway, ("198.51.100.1", None), "alice", PASSWORD).await;
    let set = line(answer.is(200)).unwrap();
    let (pair, attributes) = set.split_once(';').unwrap();
    assert_eq!(
        attributes,
        " Path=/; Max-Age=31536000; HttpOnly; Secure; SameSite=Lax"
    );
    assert!(!set.contains("alice"));
    let cookie = format!("theme=dark; {pair}");
    get(&gateway, "/public", &[("Cookie", &cookie)])
        .await
        .is(200);
    assert_eq!(upstream.last().header("cookie"), Some("theme=dark"));
    get(&gateway, "/public", &[("Cookie", pair)]).await.is(200);
    assert_eq!(upstream.last().header("cookie"), None);
    // Two of them: one was put there by somebody else.
    let twice = format!("{pair}; {pair}");
    let body = json!({ "username": "alice", "password": PASSWORD }).to_string();
    post(&gateway, "/auth/login", &[JSON, ("Cookie", &twice)], &body)
        .await
        .refused(400, "bad_request");
    // A program without cookies gets none.
    let body = json!({ "username": "alice", "password": PASSWORD, "delivery": "body" });
    let answer = post(&gateway, "/auth/login", &[JSON], &body.to_string()).await;
    assert_eq!(answer.is(200).header("set-cookie"), None);
    // What ends the session leaves the browser known.
    let out = post(
        &gateway,
        "/auth/logout",
        &[
            JSON,
            SAME,
            ("Origin", "https://localhost:8443"),
            ("Cookie", pair),
        ],
        "",
    )
    .await;
    assert_eq!(line(out.is(204)), None);
}
