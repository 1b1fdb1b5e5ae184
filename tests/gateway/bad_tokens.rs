//! RATE-8: whoever sends bad tokens soon has none of them looked at, and nobody else notices.

use std::time::{Duration, Instant};

use jsonwebtoken::Algorithm;

use crate::harness::{
    Answer, Gateway, H2, Kind, Raw, Site, Token, Upstream,
    client::full,
    keys::{bearer, keys, now, rsa_key},
    request,
};

const BURST: usize = 10;

/// A gateway behind a proxy that names the clients. So slow a rate that nothing is given back while a test runs.
async fn gateway(upstream: &Upstream) -> Gateway {
    Site::new(upstream.address)
        .set("server", "trusted_proxies", r#"["127.0.0.1/32"]"#)
        .set("rate_limit", "exempt", r#"["203.0.113.0/24"]"#)
        .set(
            "rate_limit",
            "bad_tokens",
            &format!("{{ rate = \"1/1m\", burst = {BURST} }}"),
        )
        .start()
        .await
}

/// Well-formed, and signed by nobody.
fn badly_signed(number: usize) -> String {
    Token::new(Kind::Rs)
        .claim("n", number)
        .sign_by(&rsa_key(&keys().foreign_rsa), Algorithm::RS256)
}

async fn send(raw: &mut Raw, from: &str, target: &str, token: &str) -> Answer {
    let bearer = bearer(token);
    let fields = [("X-Forwarded-For", from), ("Authorization", &*bearer)];
    raw.exchange(request("GET", target, &fields, "")).await
}

/// Uses up the budget of an address.
async fn use_up(raw: &mut Raw, from: &str) {
    for number in 0..BURST {
        send(raw, from, "/private", &badly_signed(number))
            .await
            .refused(401, "token_invalid");
    }
}

#[tokio::test]
async fn rate_8_beyond_the_budget_nothing_new_is_looked_at_and_good_callers_go_on() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let mut raw = Raw::connect(&gateway).await;
    let (attacker, other) = ("203.0.113.1", "203.0.113.2");
    let cached = Token::new(Kind::Rs).sign();
    send(&mut raw, attacker, "/private", &cached).await.is(200);
    use_up(&mut raw, attacker).await;
    assert_eq!(upstream.count(), 1, "a bad token reached the upstream");

    let new = Token::new(Kind::Rs).claim("sub", "bob").sign();
    for target in ["/private", "/optional", "/admin", "/scoped"] {
        for token in [&badly_signed(100), &new] {
            let refused = send(&mut raw, attacker, target, token).await;
            refused.refused(429, "rate_limited");
            let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
            assert!((1..=60).contains(&wait), "{wait}");
            let policy = refused.header("ratelimit-policy").unwrap();
            assert_eq!(policy, "\"bad_tokens\";q=1;w=60");
        }
    }
    assert_eq!(upstream.count(), 1);
    let metric = "portcullis_rate_limited_total{limit=\"bad_tokens\"}";
    assert_eq!(gateway.metric(metric).await, Some(8.0));

    // The same address with a token that was verified before, without one, and any other address with a new one.
    send(&mut raw, attacker, "/private", &cached).await.is(200);
    let none = request("GET", "/public", &[("X-Forwarded-For", attacker)], "");
    raw.exchange(none).await.is(200);
    send(&mut raw, other, "/private", &new).await.is(200);
    send(&mut raw, attacker, "/private", &new).await.is(200);
    assert_eq!(upstream.count(), 5);
}

#[tokio::test]
async fn rate_8_good_and_expired_tokens_cost_nothing() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let mut raw = Raw::connect(&gateway).await;
    let from = "203.0.113.1";
    let expired = |number: usize| {
        let token = Token::new(Kind::Rs).claim("n", number);
        token.claim("exp", now() - 60).sign()
    };
    let first = expired(0);
    for number in 0..3 * BURST {
        let answer = send(&mut raw, from, "/private", &expired(number)).await;
        answer.refused(401, "token_expired");
        let answer = send(&mut raw, from, "/private", &first).await;
        answer.refused(401, "token_expired");
        let good = Token::new(Kind::Rs).claim("n", number).sign();
        send(&mut raw, from, "/private", &good).await.is(200);
        let answer = send(&mut raw, from, "/private", "not.a.token").await;
        answer.refused(401, "token_invalid");
    }
    assert_eq!(upstream.count(), 3 * BURST);
    use_up(&mut raw, from).await;
    // What is known to have expired is told so without a look at its signature, and what is not known is not told.
    send(&mut raw, from, "/private", &first)
        .await
        .refused(401, "token_expired");
    send(&mut raw, from, "/private", &expired(1000))
        .await
        .refused(429, "rate_limited");
}

#[tokio::test]
async fn rate_2_and_rate_8_one_network_of_ipv6_has_one_budget() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let mut raw = Raw::connect(&gateway).await;
    let mut looked_at = 0;
    for number in 0..3 * BURST {
        let from = format!("2001:db8:0:1::{number:x}");
        let answer = send(&mut raw, &from, "/private", &badly_signed(number)).await;
        looked_at += usize::from(answer.status == 401);
    }
    assert_eq!(looked_at, BURST);
    let answer = send(&mut raw, "2001:db8:0:2::1", "/private", &badly_signed(0)).await;
    answer.refused(401, "token_invalid");
    assert_eq!(upstream.count(), 0);
}

#[tokio::test]
async fn rate_6_and_rate_8_many_connections_get_no_more_than_one() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let gateway = &gateway;
    let connections = (0..16).map(|connection| async move {
        let mut raw = Raw::connect(gateway).await;
        let mut looked_at = 0;
        for number in 0..10 {
            let token = badly_signed(connection * 100 + number);
            let answer = send(&mut raw, "203.0.113.1", "/private", &token).await;
            looked_at += usize::from(answer.status == 401);
        }
        looked_at
    });
    let looked_at = futures_util::future::join_all(connections).await;
    assert_eq!(looked_at.iter().sum::<usize>(), BURST);
    assert_eq!(upstream.count(), 0);
}

/// The longest wait there is: far longer than anything takes that must not wait for it.
const WAIT: Duration = Duration::from_secs(5);

/// A gateway that lets whoever is beyond the budget wait, and believes these networks to be proxies.
async fn slow_to_refuse(upstream: &Upstream, proxies: &str) -> Gateway {
    let budget = format!("{{ rate = \"1/1m\", burst = {BURST} }}");
    Site::new(upstream.address)
        .set("server", "trusted_proxies", proxies)
        .set("rate_limit", "bad_tokens", &budget)
        .set("rate_limit", "bad_tokens_wait", "\"5s\"")
        .start()
        .await
}

#[tokio::test]
async fn rate_8_whoever_goes_on_beyond_the_budget_waits_and_nobody_else_does() {
    let upstream = Upstream::start().await;
    let gateway = slow_to_refuse(&upstream, "[]").await;
    let mut raw = Raw::connect(&gateway).await;
    let good = bearer(&Token::new(Kind::Rs).sign());
    let bad = [0, 1].map(|number| bearer(&badly_signed(1000 + number)));
    let get = |field: &str| request("GET", "/private", &[("Authorization", field)], "");
    raw.exchange(get(&good)).await.is(200);
    use_up(&mut raw, "203.0.113.1").await;

    let begun = Instant::now();
    raw.send(get(&bad[0])).await;
    let mut h2 = H2::connect(&gateway).await;
    let waiting = http::Request::get("https://localhost/private").header("authorization", &bad[1]);
    let waiting = tokio::spawn(h2.begin(waiting.body(full("")).unwrap()));
    // Another stream of the same connection, and another connection of the same address.
    h2.get("/private", &[("authorization", &good)])
        .await
        .is(200);
    let mut other = Raw::connect(&gateway).await;
    other.exchange(get(&good)).await.is(200);
    other
        .exchange(request("GET", "/public", &[], ""))
        .await
        .is(200);
    assert!(!waiting.is_finished(), "others were served only afterwards");

    raw.answer().await.refused(429, "rate_limited");
    assert!(begun.elapsed() >= WAIT);
    assert_eq!(waiting.await.unwrap().unwrap().status(), 429);
    assert_eq!(upstream.count(), 4);
}

#[tokio::test]
async fn rate_8_behind_a_proxy_nobody_waits_for_the_refusal_of_another() {
    let upstream = Upstream::start().await;
    let gateway = slow_to_refuse(&upstream, r#"["127.0.0.1/32"]"#).await;
    let mut raw = Raw::connect(&gateway).await;
    use_up(&mut raw, "203.0.113.1").await;
    let begun = Instant::now();
    for number in 0..20 {
        let answer = send(&mut raw, "203.0.113.1", "/private", &badly_signed(number)).await;
        answer.refused(429, "rate_limited");
    }
    assert!(begun.elapsed() < 20 * WAIT);
    assert_eq!(upstream.count(), 0);
}
