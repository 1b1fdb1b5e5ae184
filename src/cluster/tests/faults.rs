//! Servers that die, stop answering, lie, or cannot prove who they are (RATE-5, FAULT-5, UP-5).

use super::*;

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
