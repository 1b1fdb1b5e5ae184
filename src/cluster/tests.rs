//! Against a real server; and against servers that are none.

use std::{
    io::Read,
    net::TcpListener,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use futures_util::future::join_all;
use tokio::net::TcpStream;
use zeroize::Zeroizing;

use self::server::RedisServer;
use super::*;
use crate::{policy::rejection::Exceeded, telemetry::settings::LogSettings};

mod attempts;
mod clients;
mod faults;
pub(crate) mod server;
mod share;

const PASSWORD: &str = "a-password-of-the-test";

/// Long enough for any machine: that 50 ms are kept is tested where the server does not answer.
const AMPLE: Duration = Duration::from_secs(20);

fn settings(port: u16) -> ClusterSettings {
    ClusterSettings {
        host: "127.0.0.1".into(),
        port,
        tls: false,
        database: 0,
        login: Some((None, Zeroizing::new(PASSWORD.to_owned()))),
        ca: None,
        site: "https://gate.example.com/".into(),
    }
}

fn quota(count: u32) -> Quota {
    Quota {
        count,
        window: Duration::from_secs(3600),
        burst: count,
    }
}

/// One node.
struct Node {
    cluster: Arc<Cluster>,
    telemetry: Arc<Telemetry>,
    condition: Arc<Mutex<Result<(), String>>>,
}

impl Node {
    fn new(settings: &ClusterSettings, budget: Duration) -> Self {
        let telemetry = Telemetry::with_sink(&LogSettings::default(), Box::new(std::io::sink()));
        let condition = Arc::new(Mutex::new(Ok(())));
        let reported = Arc::clone(&condition);
        let report: Report = Arc::new(move |told| {
            *reported.lock().unwrap_or_else(PoisonError::into_inner) = told;
        });
        let around = (Arc::clone(&telemetry), report);
        let cluster = Cluster::within(budget, settings, &Handle::current(), around).unwrap();
        Self {
            cluster,
            telemetry,
            condition,
        }
    }

    fn limiter(&self, quota: Quota) -> SharedLimiter {
        let cluster = Some(Arc::clone(&self.cluster));
        SharedLimiter::new("login_per_ip", quota, 1000, cluster)
    }

    async fn up(&self) {
        until(|| self.cluster.link.is_up()).await;
    }

    async fn down(&self) {
        until(|| !self.cluster.link.is_up()).await;
    }

    fn condition(&self) -> Result<(), String> {
        self.condition.lock().unwrap().clone()
    }

    fn has(&self, line: &str) -> bool {
        self.telemetry.encode().lines().any(|one| one == line)
    }
}

async fn until(mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "it never holds");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn passed(results: &[Result<(), Exceeded>]) -> usize {
    results.iter().filter(|result| result.is_ok()).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn rate_6_a_thousand_at_once_on_three_nodes_get_what_one_would() {
    let Some(server) = RedisServer::start(Some(PASSWORD)) else {
        return;
    };
    let nodes = [(); 3].map(|()| Node::new(&settings(server.port), AMPLE));
    let limiters = nodes.each_ref().map(|node| node.limiter(quota(10)));
    for node in &nodes {
        node.up().await;
    }
    let asked = (0..1000).zip(limiters.iter().cycle());
    let results = join_all(asked.map(|(_, limiter)| limiter.check("192.0.2.1"))).await;
    assert_eq!(passed(&results), 10);
    for node in &nodes {
        assert!(node.has("portcullis_cluster_fallbacks_total 0"));
        assert!(node.has("portcullis_cluster_up{store=\"redis\"} 1"));
        assert_eq!(node.condition(), Ok(()));
    }
    // One of ten in an hour is back after six minutes.
    let refused = results.iter().find_map(|result| result.err()).unwrap();
    assert_eq!((refused.limit, refused.quota), ("login_per_ip", 10));
    assert!(refused.retry_after <= Duration::from_secs(360));
    assert!(refused.retry_after > Duration::from_secs(300));
    // Another key has a budget of its own, and so has another limit.
    assert_eq!(limiters[0].check("192.0.2.2").await, Ok(()));
    let other = SharedLimiter::new(
        "register_per_ip",
        quota(1),
        1000,
        Some(Arc::clone(&nodes[1].cluster)),
    );
    assert_eq!(other.check("192.0.2.1").await, Ok(()));
    assert!(other.check("192.0.2.1").await.is_err());
}

#[tokio::test]
async fn a_budget_fills_again_and_is_forgotten_when_it_is_full() {
    let Some(server) = RedisServer::start(Some(PASSWORD)) else {
        return;
    };
    let node = Node::new(&settings(server.port), AMPLE);
    node.up().await;
    let quick = Quota {
        count: 2,
        window: Duration::from_millis(400),
        burst: 1,
    };
    let limiter = node.limiter(quick);
    assert_eq!(limiter.check("a").await, Ok(()));
    let refused = limiter.check("a").await.unwrap_err();
    assert!(refused.retry_after <= Duration::from_millis(200));
    tokio::time::sleep(refused.retry_after + Duration::from_millis(2)).await;
    assert_eq!(limiter.check("a").await, Ok(()));
    until(|| server.ask("DBSIZE").starts_with(":0")).await;
}

#[tokio::test]
async fn store_4_redis_holds_digests_that_other_secrets_do_not_give() {
    let Some(server) = RedisServer::start(Some(PASSWORD)) else {
        return;
    };
    let node = Node::new(&settings(server.port), AMPLE);
    node.up().await;
    let limiter = node.limiter(quota(1));
    let nasty = "alice\r\nFLUSHALL\r\n$1";
    for key in ["alice@example.com", nasty] {
        assert_eq!(limiter.check(key).await, Ok(()));
        assert!(limiter.check(key).await.is_err());
    }
    let keys = server.ask("KEYS *");
    assert!(keys.starts_with("*2\r\n$35\r\nportcullis:"), "{keys}");
    assert!(!keys.contains("alice") && !keys.contains("login"), "{keys}");
    let other_site = ClusterSettings {
        site: "https://other.example.com/".into(),
        ..settings(server.port)
    };
    let other_password = ClusterSettings {
        login: None,
        ..settings(server.port)
    };
    let one = name(&super::keys(&settings(1)), &["limit", "a"]);
    for other in [&other_site, &other_password] {
        assert_ne!(name(&super::keys(other), &["limit", "a"]), one);
    }
    assert_ne!(
        name(&super::keys(&settings(1)), &["limit:a", ""]),
        name(&super::keys(&settings(1)), &["limit", "a"])
    );
}

#[tokio::test]
async fn a_user_with_the_rights_of_the_documentation_is_enough() {
    let Some(server) = RedisServer::start(Some(PASSWORD)) else {
        return;
    };
    let page = include_str!("../../docs/cluster.md");
    let (_, rights) = page.split_once("a user with `").unwrap();
    let (commands, _) = rights.split_once('`').unwrap();
    let commands = commands.split_whitespace().collect::<Vec<_>>().join(" ");
    let made = server.ask(&format!(
        "ACL SETUSER gate on >{PASSWORD} ~portcullis:* &portcullis:* {commands}"
    ));
    assert!(made.starts_with("+OK"), "{made}");
    let settings = ClusterSettings {
        login: Some((Some("gate".into()), Zeroizing::new(PASSWORD.to_owned()))),
        database: 1,
        ..settings(server.port)
    };
    let node = Node::new(&settings, AMPLE);
    node.up().await;
    node.cluster.heard().await;
    let limiter = node.limiter(quota(2));
    assert_eq!(limiter.check("a").await, Ok(()));
    assert_eq!(limiter.check("a").await, Ok(()), "its half is one");
    // More than ten in a row, if it may not empty a count.
    let attempts = node.attempts(quota(1000));
    for _ in 0..25 {
        let good = attempts.check("ann", "ann".into()).await;
        good.unwrap().succeeded();
    }
    node.cluster.revoked();
    node.cluster.heard().await;
    assert!(node.has("portcullis_cluster_fallbacks_total 0"));
}

#[tokio::test]
async fn cache_4_word_of_a_revocation_reaches_the_other_nodes_and_only_those_of_the_site() {
    let Some(mut server) = RedisServer::start(Some(PASSWORD)) else {
        return;
    };
    let one = Node::new(&settings(server.port), AMPLE);
    let two = Node::new(&settings(server.port), AMPLE);
    let other = ClusterSettings {
        site: "https://other.example.com/".into(),
        ..settings(server.port)
    };
    let other = Node::new(&other, AMPLE);
    for node in [&one, &two, &other] {
        node.up().await;
        // A new connection is one too: something may have been missed.
        node.cluster.heard().await;
    }
    one.cluster.revoked();
    two.cluster.heard().await;
    // What is no message of ours is not heard.
    server.ask("PUBLISH portcullis:other 1");
    assert!(two.has("portcullis_cluster_messages_total 1"));
    assert!(other.has("portcullis_cluster_messages_total 0"));
    // After an outage it listens again.
    server.kill();
    two.down().await;
    one.down().await;
    server.again();
    two.cluster.heard().await;
    one.up().await;
    one.cluster.revoked();
    two.cluster.heard().await;
}

#[test]
fn terms_stay_within_what_lua_counts_exactly() {
    let terms = |count, window, burst| {
        super::terms(Quota {
            count,
            window,
            burst,
        })
    };
    assert_eq!(terms(10, Duration::from_secs(60), 20), (6_000_000, 20));
    assert_eq!(terms(u32::MAX, Duration::from_secs(1), 1), (1, 1));
    for quota in [
        terms(1, Duration::MAX, u32::MAX),
        terms(1, Duration::from_secs(86_400), u32::MAX),
    ] {
        let (interval, burst) = quota;
        assert!(interval * burst <= 1 << 49 && burst >= 1, "{quota:?}");
    }
}
