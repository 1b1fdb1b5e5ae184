//! Two gateways with one Redis: what they share, and what is left when it is gone (RATE-5, RATE-6, CACHE-4, FAULT-5).

use std::net::TcpListener;

use futures_util::future::join_all;
use serde_json::json;

use crate::harness::{
    Answer, Gateway, Raw, RedisServer, Site, Upstream, eventually, get, keys::bearer, request,
};

const PASSWORD: &str = "correct horse battery staple";
const REDIS_PASSWORD: &str = "a-password-of-the-test";

/// A site with accounts that uses the Redis on this port.
fn site(upstream: &Upstream, port: u16, limit: &str) -> Site {
    let site = Site::new(upstream.address)
        .accounts()
        .set("accounts", "login_limit", limit)
        .set("cluster", "redis", &format!("\"redis://127.0.0.1:{port}\""))
        .set("cluster", "redis_password_file", "\"keys/redis.password\"");
    site.secret_file("keys/redis.password", REDIS_PASSWORD);
    site
}

/// Two gateways of one store, with the user `alice`.
async fn pair(upstream: &Upstream, port: u16, limit: &str) -> [Gateway; 2] {
    let first = site(upstream, port, limit);
    first.write();
    first.user("alice", PASSWORD, &[]).await;
    let store = first.path().join("data/portcullis.db");
    let store = format!("\"sqlite:{}\"", store.display());
    let second = site(upstream, port, limit).set("accounts", "store", &store);
    let gateways = [first.start().await, second.start().await];
    for gateway in &gateways {
        is_up(gateway, true).await;
    }
    gateways
}

pub(crate) async fn is_up(gateway: &Gateway, up: bool) {
    let wanted = if up { 1.0 } else { 0.0 };
    eventually("the state of Redis in the metrics", async || {
        let up = gateway.metric("portcullis_cluster_up{store=\"redis\"}");
        (up.await == Some(wanted)).then_some(())
    })
    .await;
    let ready = gateway.admin("/readyz").await;
    ready.is(200);
    assert_eq!(
        ready.text().contains("\"what\":\"redis\""),
        !up,
        "{}",
        ready.text()
    );
}

async fn fallbacks(gateways: &[Gateway]) -> f64 {
    let mut sum = 0.0;
    for gateway in gateways {
        let metric = gateway.metric("portcullis_cluster_fallbacks_total").await;
        sum += metric.unwrap();
    }
    sum
}

async fn login(gateway: &Gateway, name: &str, password: &str) -> Answer {
    let body = json!({ "username": name, "password": password, "delivery": "body" });
    let fields = [("Content-Type", "application/json")];
    Raw::connect(gateway)
        .await
        .exchange(request("POST", "/auth/login", &fields, &body.to_string()))
        .await
}

/// Tries this many wrong passwords at once, of as many accounts, and counts those that were looked at.
async fn attack(gateways: &[Gateway], times: usize) -> usize {
    let asked = (0..times).zip(gateways.iter().cycle());
    let tried = asked.map(|(number, gateway)| async move {
        let answer = login(gateway, &format!("user{number}"), "a wrong password").await;
        match answer.status {
            401 => 1,
            429 => {
                assert_eq!(answer.code(), "rate_limited");
                assert!(answer.header("retry-after").is_some());
                0
            }
            // The limit let it pass, and on a busy machine its turn to be hashed did not come in time.
            503 if answer.code() == "overloaded" => 1,
            status => panic!("{status}: {}", answer.text()),
        }
    });
    join_all(tried).await.into_iter().sum()
}

const TEN: &str = r#"{ per_ip = "10/1h", per_account = "1000/1h" }"#;

#[tokio::test]
async fn rate_6_two_gateways_give_one_budget() {
    let Some(redis) = RedisServer::start(Some(REDIS_PASSWORD)) else {
        return;
    };
    let upstream = Upstream::start().await;
    let gateways = pair(&upstream, redis.port, TEN).await;
    let looked_at = attack(&gateways, 60).await;
    // On a machine that is too busy for 50 ms, a node may have decided by its half.
    if fallbacks(&gateways).await == 0.0 {
        assert_eq!(looked_at, 10);
    } else {
        assert!((5..=20).contains(&looked_at), "{looked_at}");
    }
    let keys = redis.ask("KEYS *");
    assert!(keys.contains("portcullis:"), "{keys}");
    assert!(
        !keys.contains("user") && !keys.contains("127.0.0.1"),
        "{keys}"
    );
}

#[tokio::test]
async fn rate_5_redis_that_dies_in_an_attack_leaves_logins_bounded_and_returns() {
    let Some(mut redis) = RedisServer::start(Some(REDIS_PASSWORD)) else {
        return;
    };
    let upstream = Upstream::start().await;
    let gateways = pair(&upstream, redis.port, TEN).await;
    let mut looked_at = attack(&gateways, 30).await;
    redis.kill();
    looked_at += attack(&gateways, 60).await;
    for gateway in &gateways {
        is_up(gateway, false).await;
        let lost = gateway.err.all();
        let lost = lost.iter().filter(|line| line.contains("cluster_lost"));
        assert_eq!(lost.count(), 1);
    }
    looked_at += attack(&gateways, 60).await;
    // Ten of all together, and half of ten of each; what each had counted before is gone from its half.
    assert!((10..=20).contains(&looked_at), "{looked_at}");
    // Nothing that is proxied notices.
    get(&gateways[0], "/public", &[]).await.is(200);
    assert!(fallbacks(&gateways).await >= 60.0);
    // It comes back empty: the budget of all is whole again, and is one.
    redis.again();
    for gateway in &gateways {
        is_up(gateway, true).await;
    }
    let before = fallbacks(&gateways).await;
    let again = attack(&gateways, 60).await;
    assert!((1..=10).contains(&again), "{again}");
    if fallbacks(&gateways).await == before {
        assert_eq!(again, 10);
    }
    for gateway in &gateways {
        let err = gateway.err.text();
        assert!(!err.contains(REDIS_PASSWORD) && !err.contains("wrong password"));
    }
}

#[tokio::test]
async fn rate_5_redis_that_accepts_and_never_answers_is_not_waited_for() {
    let Some(redis) = RedisServer::start(Some(REDIS_PASSWORD)) else {
        return;
    };
    let upstream = Upstream::start().await;
    let gateways = pair(&upstream, redis.port, TEN).await;
    redis.signal("STOP");
    login(&gateways[0], "alice", PASSWORD).await.is(200);
    for gateway in &gateways {
        is_up(gateway, false).await;
    }
    let looked_at = attack(&gateways, 60).await;
    // Half of ten of each, of which the one has used one.
    assert_eq!(looked_at, 9);
    redis.signal("CONT");
    for gateway in &gateways {
        is_up(gateway, true).await;
    }
}

const PLENTY: &str = r#"{ per_ip = "10000/1s", per_account = "10000/1s" }"#;

#[tokio::test]
async fn cache_4_a_logout_is_known_to_the_other_gateway_with_redis_and_without() {
    let Some(mut redis) = RedisServer::start(Some(REDIS_PASSWORD)) else {
        return;
    };
    let upstream = Upstream::start().await;
    let gateways = pair(&upstream, redis.port, PLENTY).await;
    let [one, two] = &gateways;
    for with_redis in [true, false] {
        if !with_redis {
            redis.kill();
            is_up(one, false).await;
            is_up(two, false).await;
        }
        let grant = login(one, "alice", PASSWORD).await;
        grant.is(200);
        let token = grant.json()["access_token"].as_str().unwrap().to_owned();
        let field = ("Authorization", &*bearer(&token));
        for gateway in [one, two] {
            get(gateway, "/private", &[field]).await.is(200);
        }
        let heard = || async {
            two.metric("portcullis_cluster_messages_total")
                .await
                .unwrap()
        };
        let before = heard().await;
        let fields = [field, ("Content-Type", "application/json")];
        Raw::connect(one)
            .await
            .exchange(request("POST", "/auth/logout-all", &fields, ""))
            .await
            .is(204);
        get(one, "/private", &[field]).await.is(401);
        eventually("the other gateway to know", async || {
            (get(two, "/private", &[field]).await.status == 401).then_some(())
        })
        .await;
        if with_redis {
            eventually("the message", async || {
                (heard().await > before).then_some(())
            })
            .await;
        } else {
            assert_eq!(heard().await, before);
        }
    }
}

#[tokio::test]
async fn fault_5_a_start_without_redis_serves_everything() {
    let upstream = Upstream::start().await;
    // Nothing listens on the one port any more; on the other the kernel accepts, and nobody answers.
    let deaf = TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = TcpListener::bind("127.0.0.1:0").unwrap();
    let gone_port = gone.local_addr().unwrap().port();
    drop(gone);
    for port in [gone_port, deaf.local_addr().unwrap().port()] {
        let site = site(&upstream, port, TEN);
        site.write();
        site.user("alice", PASSWORD, &[]).await;
        let gateway = site.start().await;
        is_up(&gateway, false).await;
        get(&gateway, "/public", &[]).await.is(200);
        login(&gateway, "alice", PASSWORD).await.is(200);
        // Half of ten, of which one is used.
        assert_eq!(attack(std::slice::from_ref(&gateway), 30).await, 4);
    }
}

#[tokio::test]
async fn up_5_redis_with_a_certificate_of_a_stranger_is_not_used() {
    let upstream = Upstream::start().await;
    let good = Site::new(upstream.address).accounts().start().await;
    // Another gateway is as good a TLS server with a certificate that leads to no root of the system.
    let url = format!("\"rediss://localhost:{}\"", good.tls.port());
    let site = site(&upstream, 1, TEN).set("cluster", "redis", &url);
    let gateway = site.start().await;
    let lost = |line: &str| line.contains("cluster_lost").then(|| line.to_owned());
    let lost = gateway.err.find("the loss", lost).await;
    assert!(lost.contains("certificate"), "{lost}");
    is_up(&gateway, false).await;
}

#[tokio::test]
async fn check_says_what_is_shared_and_what_is_not() {
    let upstream = Upstream::start().await;
    let site = site(&upstream, 1, TEN);
    site.write();
    let checked = site.run(&["check"], "").await;
    assert_eq!(checked.code, Some(0), "{}", checked.stderr);
    let stdout = &checked.stdout;
    assert!(stdout.contains("limits are those of all nodes"), "{stdout}");
    assert!(
        stdout.contains("logins, refreshes, registrations and mail exactly"),
        "{stdout}"
    );
    assert!(checked.stderr.contains("a file of one machine"));
}
