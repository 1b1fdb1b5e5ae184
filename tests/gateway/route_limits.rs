//! Limits of routes: by user, by client address, and for all together.

use crate::harness::{Answer, Gateway, H2, Raw, Site, Token, Upstream, get, keys::bearer, request};

/// A gateway behind a proxy that names the clients, with the route `/limited`. So slow a rate that nothing is given back while a
/// test runs.
async fn gateway(upstream: &Upstream, access: &str, limits: &[(&str, usize)]) -> Gateway {
    let limits: Vec<String> = limits
        .iter()
        .map(|(key, burst)| format!("{{ key = \"{key}\", rate = \"1/1h\", burst = {burst} }}"))
        .collect();
    Site::new(upstream.address)
        .set("server", "trusted_proxies", r#"["127.0.0.1/32"]"#)
        .set("rate_limit", "exempt", r#"["10.0.0.0/8"]"#)
        .route("limited", "/limited", access)
        .on_route("rate_limit", &format!("[{}]", limits.join(", ")))
        .start()
        .await
}

fn token_of(user: &str) -> String {
    bearer(&Token::good().claim("sub", user).sign())
}

async fn send(raw: &mut Raw, from: &str, credential: Option<&str>) -> Answer {
    let mut fields = vec![("X-Forwarded-For", from)];
    fields.extend(credential.map(|bearer| ("Authorization", bearer)));
    raw.exchange(request("GET", "/limited", &fields, "")).await
}

/// How many of these pass; all others are refused as they should be.
async fn passing(raw: &mut Raw, count: usize, from: &str, credential: Option<&str>) -> usize {
    let mut passed = 0;
    for _ in 0..count {
        let answer = send(raw, from, credential).await;
        if answer.status == 200 {
            passed += 1;
        } else {
            answer.refused(429, "rate_limited");
        }
    }
    passed
}

#[tokio::test]
async fn rate_7_a_user_s_limit_follows_him_and_is_told() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream, "authenticated", &[("user", 3)]).await;
    let mut raw = Raw::connect(&gateway).await;
    let (ann, bob) = (token_of("ann"), token_of("bob"));
    // Whoever may not use the route takes nothing from anybody.
    for _ in 0..5 {
        let forged = bearer(&Token::good().sign_by(
            &jsonwebtoken::EncodingKey::from_secret(b"another secret of enough bytes, surely"),
            jsonwebtoken::Algorithm::HS256,
        ));
        let answer = send(&mut raw, "192.0.2.1", Some(&forged)).await;
        answer.refused(401, "token_invalid");
        let answer = send(&mut raw, "192.0.2.1", None).await;
        answer.refused(401, "credentials_missing");
    }
    assert_eq!(passing(&mut raw, 5, "192.0.2.1", Some(&ann)).await, 3);
    assert_eq!(passing(&mut raw, 5, "192.0.2.2", Some(&ann)).await, 0);
    // Another token of the same user is the same user.
    let again = bearer(&Token::good().claim("sub", "ann").claim("n", 2).sign());
    assert_eq!(passing(&mut raw, 5, "192.0.2.1", Some(&again)).await, 0);
    assert_eq!(passing(&mut raw, 5, "192.0.2.1", Some(&bob)).await, 3);
    assert_eq!(upstream.count(), 6, "what was refused has reached nobody");

    let answer = send(&mut raw, "192.0.2.1", Some(&ann)).await;
    answer.refused(429, "rate_limited");
    let policy = answer.header("ratelimit-policy");
    assert_eq!(policy, Some("\"route_user\";q=1;w=3600"));
    let told = answer.header("ratelimit").unwrap();
    assert!(told.starts_with("\"route_user\";r=0;t="), "{told}");
    let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((3000..=3600).contains(&wait), "{wait}");
    let metric = "portcullis_rate_limited_total{limit=\"route_user\"}";
    assert_eq!(gateway.metric(metric).await, Some(15.0));
    // Other routes go on.
    get(&gateway, "/private", &[("Authorization", &ann)])
        .await
        .is(200);
}

#[tokio::test]
async fn rate_2_anonymous_callers_are_counted_by_their_network() {
    let upstream = Upstream::start().await;
    for (access, key) in [("optional", "user"), ("public", "ip")] {
        let gateway = gateway(&upstream, access, &[(key, 3)]).await;
        let mut raw = Raw::connect(&gateway).await;
        let mut passed = 0;
        for number in 0..20 {
            let from = format!("2001:db8:0:1::{number:x}");
            passed += passing(&mut raw, 1, &from, None).await;
        }
        assert_eq!(passed, 3, "{key}");
        assert_eq!(passing(&mut raw, 5, "2001:db8:0:2::1", None).await, 3);
        assert_eq!(passing(&mut raw, 5, "192.0.2.1", None).await, 3);
        assert_eq!(passing(&mut raw, 9, "10.0.0.1", None).await, 9, "exempt");
    }
}

#[tokio::test]
async fn rate_6_a_thousand_at_once_get_ten_by_each_key() {
    let upstream = Upstream::start().await;
    for key in ["user", "ip", "route"] {
        let gateway = gateway(&upstream, "authenticated", &[(key, 10)]).await;
        let before = upstream.count();
        let (gateway, ann) = (&gateway, token_of("ann"));
        let connections = (0..20).map(|_| {
            let ann = ann.clone();
            async move {
                let mut raw = Raw::connect(gateway).await;
                passing(&mut raw, 50, "192.0.2.1", Some(&ann)).await
            }
        });
        let passed = futures_util::future::join_all(connections).await;
        assert_eq!(passed.iter().sum::<usize>(), 10, "{key}");
        assert_eq!(upstream.count() - before, 10, "{key}");
    }
}

#[tokio::test]
async fn rate_6_of_several_limits_the_narrowest_decides_and_the_others_lose_nothing() {
    let upstream = Upstream::start().await;
    let limits = [("route", 8), ("ip", 4), ("user", 3)];
    let gateway = gateway(&upstream, "authenticated", &limits).await;
    let mut raw = Raw::connect(&gateway).await;
    let (ann, bob, eve) = (token_of("ann"), token_of("bob"), token_of("eve"));
    assert_eq!(passing(&mut raw, 9, "192.0.2.1", Some(&ann)).await, 3);
    // By address one is left, and of the route five: what was refused took none of them.
    assert_eq!(passing(&mut raw, 9, "192.0.2.1", Some(&bob)).await, 1);
    assert_eq!(passing(&mut raw, 9, "192.0.2.2", Some(&bob)).await, 2);
    assert_eq!(passing(&mut raw, 9, "192.0.2.3", Some(&eve)).await, 2);
    let answer = send(&mut raw, "192.0.2.3", Some(&eve)).await;
    let policy = answer.header("ratelimit-policy");
    assert_eq!(policy, Some("\"route\";q=1;w=3600"));
    let mut h2 = H2::connect(&gateway).await;
    h2.get("/limited", &[("authorization", &token_of("joe"))])
        .await
        .refused(429, "rate_limited");
    assert_eq!(upstream.count(), 8);
}

#[tokio::test]
async fn limits_hold_where_rules_are_only_told() {
    let upstream = Upstream::start().await;
    let gateway = Site::new(upstream.address)
        .route("trial", "/trial", "authenticated")
        .on_route("enforce", "false")
        .on_route(
            "rate_limit",
            r#"[{ key = "user", rate = "1/1h", burst = 2 }]"#,
        )
        .start()
        .await;
    for status in [200, 200, 429, 429] {
        get(&gateway, "/trial", &[]).await.is(status);
    }
    assert_eq!(upstream.count(), 2);
}

#[tokio::test]
async fn rate_3_a_flood_of_users_neither_grows_the_table_nor_frees_the_blocked() {
    let upstream = Upstream::start().await;
    let gateway = Site::new(upstream.address)
        .set("rate_limit", "max_keys", "1000")
        .route("limited", "/limited", "authenticated")
        .on_route(
            "rate_limit",
            r#"[{ key = "user", rate = "1/1h", burst = 3 }]"#,
        )
        .start()
        .await;
    let mut raw = Raw::connect(&gateway).await;
    let ann = token_of("ann");
    assert_eq!(passing(&mut raw, 4, "192.0.2.1", Some(&ann)).await, 3);
    let mut passed = 0;
    for number in 0..1500 {
        let user = token_of(&format!("user-{number}"));
        passed += passing(&mut raw, 1, "192.0.2.1", Some(&user)).await;
    }
    assert_eq!(passed, 999 + 3, "those kept, and one shared budget");
    assert_eq!(passing(&mut raw, 4, "192.0.2.1", Some(&ann)).await, 0);
}
