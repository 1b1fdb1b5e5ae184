//! Three gateways with one Redis: limits of clients and routes, with it and without (RATE-5, RATE-6).

use futures_util::future::join_all;

use crate::{
    cluster::is_up,
    harness::{
        Gateway, Raw, RedisServer, Site, Token, Upstream, eventually, keys::bearer, request,
    },
};

const REDIS_PASSWORD: &str = "a-password-of-the-test";

/// Three gateways without accounts, behind a proxy that names the clients, with the route `/limited`; when they know of each other.
/// So slow a rate that nothing is given back while a test runs.
async fn three(upstream: &Upstream, port: u16) -> Vec<Gateway> {
    let mut gateways = Vec::new();
    for _ in 0..3 {
        let site = Site::new(upstream.address)
            .set("server", "trusted_proxies", r#"["127.0.0.1/32"]"#)
            .set("rate_limit", "per_ip", r#"{ rate = "1/1h", burst = 120 }"#)
            .set("cluster", "redis", &format!("\"redis://127.0.0.1:{port}\""))
            .set("cluster", "redis_password_file", "\"keys/redis.password\"")
            .route("limited", "/limited", "authenticated")
            .on_route(
                "rate_limit",
                r#"[{ key = "user", rate = "1/1h", burst = 60 }]"#,
            );
        site.secret_file("keys/redis.password", REDIS_PASSWORD);
        gateways.push(site.start().await);
    }
    share(&gateways, 3.0).await;
    gateways
}

async fn share(gateways: &[Gateway], nodes: f64) {
    for gateway in gateways {
        eventually("the number of gateways", async || {
            let known = gateway.metric("portcullis_cluster_nodes").await;
            (known == Some(nodes)).then_some(())
        })
        .await;
    }
}

/// Asks so often and counts what passes; all else is refused as it should be.
async fn passing(gateway: &Gateway, times: usize, target: &str, fields: &[(&str, &str)]) -> usize {
    let mut raw = Raw::connect(gateway).await;
    let mut passed = 0;
    for _ in 0..times {
        let answer = raw.exchange(request("GET", target, fields, "")).await;
        if answer.status == 200 {
            passed += 1;
        } else {
            answer.refused(429, "rate_limited");
        }
    }
    passed
}

/// Uses a lease at each gateway in turn, with time to settle it, until nothing passes.
async fn in_turn(
    gateways: &[Gateway],
    lease: usize,
    target: &str,
    fields: &[(&str, &str)],
) -> usize {
    let mut passed = 0;
    loop {
        let mut round = 0;
        for gateway in gateways {
            let settled = || async {
                let settled = gateway.metric("portcullis_cluster_settled_keys_total");
                settled.await.unwrap()
            };
            let before = settled().await;
            let got = passing(gateway, lease, target, fields).await;
            round += got;
            if got == lease {
                eventually("the settlement", async || {
                    (settled().await > before).then_some(())
                })
                .await;
            }
        }
        passed += round;
        if round == 0 {
            return passed;
        }
    }
}

fn of<'f>(bearer: &'f str, from: &'f str) -> [(&'static str, &'f str); 2] {
    [("Authorization", bearer), ("X-Forwarded-For", from)]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rate_6_three_gateways_give_one_limit_to_a_client_and_one_to_a_user() {
    let Some(redis) = RedisServer::start(Some(REDIS_PASSWORD)) else {
        return;
    };
    let upstream = Upstream::start().await;
    let gateways = three(&upstream, redis.port).await;
    // All at once: the burst of each at the very most.
    let from = [("X-Forwarded-For", "192.0.2.1")];
    let asked = gateways
        .iter()
        .map(|gateway| passing(gateway, 300, "/public", &from));
    let passed: usize = join_all(asked).await.into_iter().sum();
    assert!((120..=360).contains(&passed), "{passed}");
    assert_eq!(upstream.count(), passed);
    // One after the other: the limit, and what is left of each lease.
    let from = [("X-Forwarded-For", "192.0.2.2")];
    let passed = in_turn(&gateways, 10, "/public", &from).await;
    assert!((120..=150).contains(&passed), "{passed}");
    // A user is the same from everywhere, and somebody else is not.
    let (ann, bob) = (
        bearer(&Token::good().claim("sub", "ann").sign()),
        bearer(&Token::good().claim("sub", "bob").sign()),
    );
    let passed = in_turn(&gateways, 5, "/limited", &of(&ann, "192.0.2.3")).await;
    assert!((60..=75).contains(&passed), "{passed}");
    for (number, gateway) in gateways.iter().enumerate() {
        let from = format!("198.51.100.{number}");
        assert_eq!(passing(gateway, 5, "/limited", &of(&ann, &from)).await, 0);
        assert_eq!(passing(gateway, 10, "/limited", &of(&bob, &from)).await, 10);
    }
    let keys = redis.ask("KEYS *");
    assert!(keys.contains("portcullis:"), "{keys}");
    for name in ["192.0.2", "ann", "limited", "per_ip"] {
        assert!(!keys.contains(name), "{name} in {keys}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rate_5_without_redis_each_gateway_keeps_its_own_limits_and_shares_again_when_it_is_back() {
    let Some(mut redis) = RedisServer::start(Some(REDIS_PASSWORD)) else {
        return;
    };
    let upstream = Upstream::start().await;
    let gateways = three(&upstream, redis.port).await;
    redis.kill();
    share(&gateways, 0.0).await;
    let from = [("X-Forwarded-For", "192.0.2.1")];
    for gateway in &gateways {
        is_up(gateway, false).await;
        assert_eq!(passing(gateway, 150, "/public", &from).await, 120);
        let lost = gateway.err.all();
        let lost = lost.iter().filter(|line| line.contains("cluster_lost"));
        assert_eq!(lost.count(), 1);
    }
    redis.again();
    share(&gateways, 3.0).await;
    let from = [("X-Forwarded-For", "192.0.2.2")];
    let passed = in_turn(&gateways, 10, "/public", &from).await;
    assert!((120..=150).contains(&passed), "{passed}");
}
