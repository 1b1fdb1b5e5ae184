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
async fn rate_5_a_server_that_dies_leaves_a_warm_half_and_one_that_returns_is_used() {
    let Some(mut server) = RedisServer::start(Some(PASSWORD)) else {
        return;
    };
    let node = Node::new(&settings(server.port), AMPLE);
    let limiter = node.limiter(quota(10));
    node.up().await;
    for _ in 0..3 {
        assert_eq!(limiter.check("attacker").await, Ok(()));
    }
    server.kill();
    node.down().await;
    // Three of the half were used up already.
    let mut results = Vec::new();
    for _ in 0..100 {
        results.push(limiter.check("attacker").await);
    }
    assert_eq!(passed(&results), 2);
    assert!(node.has("portcullis_cluster_up{store=\"redis\"} 0"));
    assert!(node.has("portcullis_cluster_fallbacks_total 100"));
    assert!(node.condition().is_err());
    server.again();
    node.up().await;
    assert_eq!(limiter.check("attacker").await, Ok(()));
    assert_eq!(node.condition(), Ok(()));
}

#[tokio::test]
async fn rate_5_a_server_that_stops_answering_is_waited_for_once() {
    let Some(server) = RedisServer::start(Some(PASSWORD)) else {
        return;
    };
    let node = Node::new(&settings(server.port), BUDGET);
    let limiter = node.limiter(quota(1000));
    node.up().await;
    server.signal("STOP");
    let begun = Instant::now();
    assert_eq!(limiter.check("a").await, Ok(()));
    assert!(begun.elapsed() >= BUDGET, "{:?}", begun.elapsed());
    node.down().await;
    // Nobody waits any more: it connects, for the kernel does, and is not up.
    let mut quick = 0;
    for _ in 0..100 {
        let begun = Instant::now();
        assert_eq!(limiter.check("a").await, Ok(()));
        quick += usize::from(begun.elapsed() < BUDGET);
    }
    assert!(quick > 90, "{quick}");
    assert!(!node.cluster.link.is_up());
    server.signal("CONT");
    node.up().await;
}

#[tokio::test]
async fn fault_5_servers_that_are_none_of_ours_are_not_used() {
    let Some(server) = RedisServer::start(Some(PASSWORD)) else {
        return;
    };
    let wrong = |login| ClusterSettings {
        login,
        ..settings(server.port)
    };
    let user = Some(("nobody".into(), Zeroizing::new(PASSWORD.to_owned())));
    let user = user.map(|(name, password)| (Some(name), password));
    let password = Some((None, Zeroizing::new("wrong".to_owned())));
    let encrypted = ClusterSettings {
        tls: true,
        ca: Some(concat!(env!("CARGO_MANIFEST_DIR"), "/certs/none.pem").into()),
        ..settings(server.port)
    };
    let report: Report = Arc::new(|_| {});
    let around = (
        Telemetry::with_sink(&LogSettings::default(), Box::new(std::io::sink())),
        report,
    );
    let fault = Cluster::within(BUDGET, &encrypted, &Handle::current(), around);
    assert!(fault.is_err(), "roots that are not there");
    for (settings, words) in [
        (wrong(None), "it answered NOAUTH"),
        (wrong(password), "it answered WRONGPASS"),
        (wrong(user), "it answered WRONGPASS"),
        (
            ClusterSettings {
                database: 99,
                ..wrong(settings(1).login)
            },
            "it answered ERR",
        ),
    ] {
        let node = Node::new(&settings, AMPLE);
        until(|| node.condition() == Err(words.to_owned())).await;
        let limiter = node.limiter(quota(2));
        assert_eq!(limiter.check("a").await, Ok(()));
        assert!(limiter.check("a").await.is_err(), "its half is one");
    }
}

/// A server that says this to whoever connects, and then nothing.
fn saying(bytes: &'static [u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().take(4) {
            let mut stream = stream.unwrap();
            let _ = std::io::Write::write_all(&mut stream, bytes);
            let _ = stream.read_to_end(&mut Vec::new());
        }
    });
    port
}

#[tokio::test]
async fn rate_5_servers_that_say_anything_are_not_believed() {
    for bytes in [
        b"HTTP/1.1 400 Bad Request\r\n\r\n".as_slice(),
        b"+OK\r\n$999999999\r\n",
        b"+OK\r\n:1\r\n",
        // One answer too many: it would be taken for the first budget's.
        b"+OK\r\n$1\r\na\r\n:0\r\n",
    ] {
        let node = Node::new(&settings(saying(bytes)), AMPLE);
        until(|| {
            node.condition()
                .is_err_and(|error| error.starts_with("it "))
        })
        .await;
        let limiter = node.limiter(quota(2));
        assert_eq!(limiter.check("a").await, Ok(()));
        assert!(limiter.check("a").await.is_err());
    }
}

#[tokio::test]
async fn up_5_a_server_that_does_not_prove_its_name_gets_no_password() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let folder = tempfile::tempdir().unwrap();
    let key = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let path = folder.path().join("ca.pem");
    std::fs::write(&path, key.cert.pem()).unwrap();
    let settings = ClusterSettings {
        tls: true,
        ca: Some(path),
        ..settings(port)
    };
    let node = Node::new(&settings, AMPLE);
    // It speaks without encryption, as a server does that was not told of TLS.
    let (mut stream, _): (TcpStream, _) = listener.accept().await.unwrap();
    let mut first = vec![0; 4096];
    let length = tokio::io::AsyncReadExt::read(&mut stream, &mut first)
        .await
        .unwrap();
    let first = first.get(..length).unwrap();
    assert_eq!(first.first(), Some(&22), "a TLS handshake");
    assert!(
        !first
            .windows(PASSWORD.len())
            .any(|part| part == PASSWORD.as_bytes())
    );
    tokio::io::AsyncWriteExt::write_all(&mut stream, b"-ERR unknown\r\n")
        .await
        .unwrap();
    until(|| {
        node.condition()
            .is_err_and(|error| error.contains("corrupt"))
    })
    .await;
}

/// Speaks TLS with this certificate before a server on this port.
async fn encrypting(pair: &rcgen::CertifiedKey<rcgen::KeyPair>, port: u16) -> u16 {
    let key = rustls_pki_types::PrivateKeyDer::try_from(pair.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![pair.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let encrypted = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut client = acceptor.accept(stream).await?;
                let mut server = TcpStream::connect(("127.0.0.1", port)).await?;
                tokio::io::copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
    encrypted
}

#[tokio::test]
async fn up_5_chain_and_name_of_an_encrypted_server_are_verified() {
    let Some(server) = RedisServer::start(Some(PASSWORD)) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let make = |name: &str| {
        let pair = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, pair.cert.pem()).unwrap();
        (pair, path)
    };
    let (good, good_roots) = make("127.0.0.1");
    let (other, other_roots) = make("redis.example.com");
    for (pair, roots, works) in [
        (&good, &good_roots, true),
        (&good, &other_roots, false),
        (&other, &other_roots, false),
    ] {
        let settings = ClusterSettings {
            tls: true,
            ca: Some(roots.clone()),
            ..settings(encrypting(pair, server.port).await)
        };
        let node = Node::new(&settings, AMPLE);
        if works {
            node.up().await;
            let limiter = node.limiter(quota(2));
            assert_eq!(limiter.check("a").await, Ok(()));
            assert_eq!(limiter.check("a").await, Ok(()), "its half is one");
            assert!(limiter.check("a").await.is_err());
        } else {
            until(|| {
                node.condition()
                    .is_err_and(|error| error.contains("certificate"))
            })
            .await;
        }
    }
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
    node.cluster.revoked();
    node.cluster.heard().await;
    assert!(node.has("portcullis_cluster_fallbacks_total 0"));
}

#[tokio::test]
async fn rate_5_a_server_that_refuses_or_forgets_the_script_is_not_asked_until_it_is_well() {
    let Some(server) = RedisServer::start(Some(PASSWORD)) else {
        return;
    };
    let node = Node::new(&settings(server.port), AMPLE);
    node.up().await;
    let limiter = node.limiter(quota(4));
    // Its digest is unknown: the next connection brings the script again.
    server.ask("SCRIPT FLUSH");
    assert_eq!(limiter.check("a").await, Ok(()));
    node.down().await;
    assert!(node.has("portcullis_cluster_fallbacks_total 1"));
    node.up().await;
    assert_eq!(limiter.check("b").await, Ok(()));
    assert!(node.has("portcullis_cluster_fallbacks_total 1"));
    // No memory, as a replica that cannot write, is an answer without a decision.
    server.ask("CONFIG SET maxmemory 1");
    assert_eq!(limiter.check("c").await, Ok(()));
    assert!(node.has("portcullis_cluster_fallbacks_total 2"));
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
