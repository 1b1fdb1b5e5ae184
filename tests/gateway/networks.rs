//! Who has a whole network of IPv6 and uses another address each time, at the routes where each try may be a guess: RATE-2.

use serde_json::json;

use crate::harness::{Answer, Gateway, Raw, Site, Upstream, request};

const JSON: (&str, &str) = ("Content-Type", "application/json");

/// Behind a proxy that names the clients; few attempts for each.
async fn gateway(upstream: &Upstream, change: impl FnOnce(Site) -> Site) -> Gateway {
    let site = Site::new(upstream.address)
        .accounts()
        .set("server", "trusted_proxies", r#"["127.0.0.1/32"]"#)
        .set("accounts", "registration", r#""invite""#)
        .set(
            "accounts",
            "login_limit",
            r#"{ per_ip = "2/1h", per_account = "1000/1s" }"#,
        )
        .set("accounts", "register_limit", r#"{ per_ip = "2/1h" }"#)
        .set("mail", "from", "\"Gate <no-reply@example.com>\"")
        .set("mail", "spool", "\"data/mail\"")
        .set("mail", "limit", r#"{ per_ip = "2/1h" }"#);
    change(site).start().await
}

/// One request to each route, none of which has anything to do for it.
const ROUTES: [(&str, &str, u16); 4] = [
    ("/auth/login", "login_per_network", 401),
    ("/auth/password/reset", "login_per_network", 401),
    ("/auth/register", "register_per_network", 401),
    ("/auth/password/forgot", "mail_per_network", 202),
];

async fn ask(gateway: &Gateway, target: &str, from: &str) -> Answer {
    let password = "not anybody's password";
    let body = match target {
        "/auth/login" => json!({ "username": "nobody", "password": password }),
        "/auth/password/forgot" => json!({ "email": "nobody@example.com" }),
        "/auth/password/reset" => json!({ "token": "A".repeat(43), "new_password": password }),
        _ => {
            json!({ "invite": "A".repeat(43), "username": "nobody", "email": "nobody@example.com", "password": password })
        }
    };
    let fields = [JSON, ("X-Forwarded-For", from)];
    let mut raw = Raw::connect(gateway).await;
    raw.exchange(request("POST", target, &fields, &body.to_string()))
        .await
}

/// How many of these were not limited.
async fn passed(
    gateway: &Gateway,
    (target, status): (&str, u16),
    from: impl Iterator<Item = String>,
) -> usize {
    let mut passed = 0;
    for from in from {
        let answer = ask(gateway, target, &from).await;
        if answer.status == status {
            passed += 1;
        } else {
            answer.refused(429, "rate_limited");
        }
    }
    passed
}

#[tokio::test]
async fn rate_2_a_whole_48_has_four_budgets_at_every_account_route_and_a_56_two() {
    let upstream = Upstream::start().await;
    for (target, limit, status) in ROUTES {
        let gateway = gateway(&upstream, |site| site).await;
        let route = (target, status);
        let one = (0..6).map(|host| format!("2001:db8:1::{host:x}"));
        assert_eq!(passed(&gateway, route, one).await, 2, "{target}: a /64");
        let home = (0..40).map(|network| format!("2001:db8:1:{network:x}::1"));
        assert_eq!(passed(&gateway, route, home).await, 2, "{target}: a /56");
        let site = (0..120).map(|network| format!("2001:db8:1:{:x}::1", network * 512));
        assert_eq!(passed(&gateway, route, site).await, 4, "{target}: a /48");
        let refused = ask(&gateway, target, "2001:db8:1:ffff::1").await;
        refused.refused(429, "rate_limited");
        let policy = refused.header("ratelimit-policy");
        assert!(policy.unwrap().contains(limit), "{policy:?}");
        assert!(refused.header("retry-after").is_some());
        let limited = format!("portcullis_rate_limited_total{{limit=\"{limit}\"}}");
        assert!(gateway.metric(&limited).await.unwrap() > 100.0);
        // Nobody else pays for it: the network beside it, and IPv4 in whatever spelling.
        for (other, times) in [
            ("2001:db8:2::1", 2),
            ("192.0.2.1", 1),
            ("::ffff:192.0.2.1", 1),
        ] {
            let other = std::iter::repeat_n(other.to_owned(), times);
            assert_eq!(passed(&gateway, route, other).await, times, "{target}");
        }
    }
}

#[tokio::test]
async fn rate_2_the_wider_budget_is_as_wide_as_the_configuration_says() {
    let upstream = Upstream::start().await;
    let route = ("/auth/register", 401);
    let networks = || (0..60).map(|network| format!("2001:db8:1:{:x}::1", network * 512));
    for (factor, want) in [("1", 2), ("10", 20), ("65536", 60)] {
        let gateway = gateway(&upstream, |site| {
            site.set("rate_limit", "ipv6_site_factor", factor)
        })
        .await;
        assert_eq!(passed(&gateway, route, networks()).await, want, "{factor}");
    }
}

#[tokio::test]
async fn rate_2_a_client_that_is_refused_uses_up_nothing_of_its_neighbours() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream, |site| site).await;
    let route = ("/auth/register", 401);
    let flood = (0..100).map(|host| format!("2001:db8:1::{host:x}"));
    assert_eq!(passed(&gateway, route, flood).await, 2);
    for neighbour in [
        "2001:db8:1:100::1",
        "2001:db8:1:200::1",
        "2001:db8:1:300::1",
    ] {
        let twice = std::iter::repeat_n(neighbour.to_owned(), 2);
        assert_eq!(passed(&gateway, route, twice).await, 2, "{neighbour}");
    }
}
