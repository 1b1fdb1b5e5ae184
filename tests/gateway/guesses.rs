//! Guesses in a row at one account, from everywhere and by every name of it: RATE-4.

use serde_json::json;

use crate::harness::{Answer, Gateway, Raw, Site, Upstream, request};

const PASSWORD: &str = "correct horse battery staple";
const DEVICE: &str = "__Host-portcullis-device";
const JSON: (&str, &str) = ("Content-Type", "application/json");

async fn gateway(upstream: &Upstream) -> Gateway {
    let limit = r#"{ per_ip = "1000/1s", per_account = "1000/1s", failures = "10/2h" }"#;
    let site = Site::new(upstream.address)
        .accounts()
        .set("server", "trusted_proxies", r#"["127.0.0.1/32"]"#)
        .set("accounts", "login_limit", limit);
    site.write();
    site.user("alice", PASSWORD, &[]).await;
    site.start().await
}

/// Signs in from an address, in a browser that has this device cookie, if any.
async fn login(
    gateway: &Gateway,
    (number, device): (usize, Option<&str>),
    name: &str,
    password: &str,
) -> Answer {
    let body = json!({ "username": name, "password": password }).to_string();
    let ip = format!("203.0.113.{number}");
    let cookie = device.map(|device| format!("{DEVICE}={device}"));
    let mut fields = vec![JSON, ("X-Forwarded-For", &ip)];
    fields.extend(cookie.as_deref().map(|cookie| ("Cookie", cookie)));
    let mut raw = Raw::connect(gateway).await;
    raw.exchange(request("POST", "/auth/login", &fields, &body))
        .await
}

fn device(answer: &Answer) -> String {
    let fields = &answer.head.fields;
    let line = fields
        .iter()
        .find(|(name, value)| name.eq_ignore_ascii_case("set-cookie") && value.starts_with(DEVICE));
    let (_, line) = line.unwrap();
    let pair = line.split(';').next().unwrap();
    pair.split_once('=').unwrap().1.to_owned()
}

/// Guesses ten times; what the eleventh gets, though its password is right.
async fn stop(gateway: &Gateway, names: [&str; 3]) -> Answer {
    for number in 0..10 {
        login(gateway, (number, None), names[number % 3], "a guess")
            .await
            .refused(401, "invalid_credentials");
    }
    for (number, name) in names.into_iter().enumerate() {
        let answer = login(gateway, (number + 10, None), name, "a guess").await;
        answer.refused(429, "rate_limited");
    }
    let answer = login(gateway, (99, None), names[0], PASSWORD).await;
    answer.refused(429, "rate_limited");
    answer
}

/// What a client sees of a refusal, without what is of its own moment.
fn seen(answer: &Answer) -> (Vec<String>, Vec<String>) {
    let fields = answer.head.fields.iter();
    let names = fields.map(|(name, _)| name.to_ascii_lowercase()).collect();
    let body = answer.json();
    let of_all = body.as_object().unwrap().iter();
    let parts = of_all
        .filter(|(key, _)| *key != "request_id")
        .map(|(key, value)| format!("{key} {value}"));
    (names, parts.collect())
}

#[tokio::test]
async fn rate_4_and_auth_1_guesses_in_a_row_lead_to_a_stop_that_a_known_browser_and_unlock_pass() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let home = login(&gateway, (200, None), "alice", PASSWORD).await;
    let home = device(home.is(200));
    let known = stop(&gateway, ["alice", "ALICE@example.com", "Alice"]).await;
    let unknown = stop(&gateway, ["nobody", "NOBODY", "Nobody"]).await;
    assert_eq!(seen(&known), seen(&unknown), "it tells who is there");
    for answer in [&known, &unknown] {
        let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((6000..=7200).contains(&wait), "{wait}");
        let policy = answer.header("ratelimit-policy");
        assert_eq!(policy, Some("\"login_failures\";q=10;w=7200"));
    }
    let limited = r#"portcullis_rate_limited_total{limit="login_failures"}"#;
    assert_eq!(gateway.metric(limited).await, Some(8.0));
    // Its owner gets in at home, which ends nothing for others.
    let answer = login(&gateway, (200, Some(&home)), "alice", PASSWORD).await;
    let home = device(answer.is(200));
    login(&gateway, (201, None), "alice", PASSWORD)
        .await
        .refused(429, "rate_limited");
    login(&gateway, (200, Some(&home)), "alice", "a guess")
        .await
        .refused(401, "invalid_credentials");
    let exit = gateway.site.run(&["user", "unlock", "alice"], "").await;
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    login(&gateway, (201, None), "alice", PASSWORD)
        .await
        .is(200);
}
