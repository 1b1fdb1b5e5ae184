//! Servers that are reached by TLS or a Unix socket: who is believed, and what happens with those who are not.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{
    Authority, Gateway, H2, Pair, Raw, Reply, Site, Step, Upstream, Wire, eventually, get, request,
};

const HTTP1: [&[u8]; 1] = [b"http/1.1"];

/// A site with one upstream and one worker, and the roots of this authority in `ca.pem`.
fn site(url: &str, authority: &Authority) -> Site {
    let site = Site::bare()
        .set("server", "workers", "1")
        .upstream("legacy", url)
        .route("public", "/public", "public");
    site.secret_file("ca.pem", &authority.pem);
    site
}

fn believing(url: &str, authority: &Authority) -> Site {
    site(url, authority).on_upstream("tls", "{ ca = \"ca.pem\" }")
}

async fn answering(wire: Wire) -> Upstream {
    Upstream::on(wire, |_| Reply::ok("hello")).await
}

async fn tls_failures(gateway: &Gateway) -> f64 {
    let series = "portcullis_upstream_tls_failures_total{upstream=\"legacy\"}";
    gateway.metric(series).await.unwrap_or(0.0)
}

#[tokio::test]
async fn up_5_a_server_that_proves_its_name_is_used_and_kept() {
    let authority = Authority::new();
    let wire = Wire::tls(&authority.sign(&["127.0.0.1"]), &HTTP1);
    let upstream = answering(wire).await;
    let gateway = believing(&upstream.url, &authority).start().await;
    for _ in 0..3 {
        let answer = get(&gateway, "/public/a?b", &[]).await;
        assert_eq!(answer.is(200).text(), "hello");
    }
    let mut raw = Raw::connect(&gateway).await;
    raw.exchange(request("POST", "/public", &[], "body"))
        .await
        .is(200);
    assert_eq!(upstream.connections(), 1);
    let last = upstream.last();
    assert_eq!(
        (&*last.body, last.header("host")),
        (&b"body"[..], Some("localhost"))
    );
    assert_eq!(upstream.seen()[0].target, "/public/a?b");
    assert_eq!(tls_failures(&gateway).await, 0.0);
    let body = "x".repeat(300_000);
    raw.exchange(request("POST", "/public", &[], &body))
        .await
        .is(200);
    assert_eq!(upstream.last().body_length, 300_000);
}

/// Asserts that nothing reaches a server of this wire: 502, a metric, and a log line with these words.
async fn not_believed(wire: Wire, authority: &Authority, words: &str) {
    let upstream = answering(wire).await;
    let url = upstream.url.replace("http:", "https:");
    let gateway = believing(&url, authority).start().await;
    get(&gateway, "/public", &[])
        .await
        .refused(502, "upstream_tls");
    let mut raw = Raw::connect(&gateway).await;
    raw.exchange(request("POST", "/public", &[], "body"))
        .await
        .refused(502, "upstream_tls");
    H2::connect(&gateway)
        .await
        .get("/public", &[])
        .await
        .refused(502, "upstream_tls");
    assert_eq!(tls_failures(&gateway).await, 3.0, "{words}");
    let server = url.clone();
    let healthy = format!("portcullis_upstream_healthy{{upstream=\"legacy\",server=\"{server}\"}}");
    assert_eq!(gateway.metric(&healthy).await, Some(0.0));
    gateway
        .err
        .find(words, |line| {
            (line.contains("cannot be reached") && line.contains(words)).then_some(())
        })
        .await;
    assert!(upstream.seen().is_empty(), "{words}");
}

#[tokio::test]
async fn up_5_self_signed_wrong_name_and_expired_are_502_and_counted() {
    let authority = Authority::new();
    let stranger = Authority::new();
    let tls = |pair: &Pair| Wire::tls(pair, &HTTP1);
    let ours = ["127.0.0.1"];
    let cases = [
        (tls(&Pair::self_signed(&ours)), "UnknownIssuer"),
        (tls(&stranger.sign(&ours)), "UnknownIssuer"),
        (tls(&authority.sign(&["127.0.0.2"])), "not valid for name"),
        (tls(&authority.sign(&["localhost"])), "not valid for name"),
        (tls(&authority.sign_expired(&ours)), "expired"),
    ];
    for (wire, words) in cases {
        not_believed(wire, &authority, words).await;
    }
}

#[tokio::test]
async fn up_5_a_server_that_speaks_plaintext_is_502_and_counted() {
    let authority = Authority::new();
    // It speaks first, and never what TLS would begin with.
    for said in [
        &b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"[..],
        b"220 mail ready\r\n",
        b"\0",
    ] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let received = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(said).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut received = Vec::new();
            let _ = stream.read_to_end(&mut received).await;
            received
        });
        let gateway = believing(&url, &authority).start().await;
        get(&gateway, "/public/secret", &[])
            .await
            .refused(502, "upstream_tls");
        assert_eq!(tls_failures(&gateway).await, 1.0);
        let received = received.await.unwrap();
        // A handshake record and no word of the request.
        assert_eq!(received.first(), Some(&22));
        let text = String::from_utf8_lossy(&received);
        assert!(!text.contains("secret"), "{text:?}");
    }
}

#[tokio::test]
async fn up_4_and_up_5_a_handshake_that_never_ends_is_502_within_the_connect_timeout() {
    let authority = Authority::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let gateway = believing(&url, &authority)
        .on_upstream("connect_timeout", "\"300ms\"")
        .start()
        .await;
    get(&gateway, "/public", &[])
        .await
        .refused(502, "upstream_tls");
    assert_eq!(tls_failures(&gateway).await, 1.0);
}

#[tokio::test]
async fn up_5_a_server_that_is_down_is_unreachable_and_no_tls_failure() {
    let authority = Authority::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    drop(listener);
    let gateway = believing(&url, &authority).start().await;
    get(&gateway, "/public", &[])
        .await
        .refused(502, "upstream_unreachable");
    assert_eq!(tls_failures(&gateway).await, 0.0);
}

#[tokio::test]
async fn up_5_without_ca_the_roots_of_the_system_are_believed_and_no_others() {
    let authority = Authority::new();
    let upstream = answering(Wire::tls(&authority.sign(&["127.0.0.1"]), &HTTP1)).await;
    let mut site = site(&upstream.url, &authority);
    let stranger = Authority::new();
    site.secret_file("system.pem", &stranger.pem);
    let system = site.path().join("system.pem");
    site.variable("SSL_CERT_FILE", &system.display().to_string());
    let gateway = site.start().await;
    get(&gateway, "/public", &[])
        .await
        .refused(502, "upstream_tls");
    assert!(upstream.seen().is_empty());
    drop(gateway);
    let mut site = self::site(&upstream.url, &authority);
    let system = site.path().join("ca.pem");
    site.variable("SSL_CERT_FILE", &system.display().to_string());
    let gateway = site.start().await;
    get(&gateway, "/public", &[]).await.is(200);
}

#[tokio::test]
async fn net_7_a_system_without_roots_needs_a_ca() {
    let authority = Authority::new();
    let mut site = site("https://127.0.0.1:1", &authority);
    site.secret_file("none.pem", "nothing\n");
    let none = site.path().join("none.pem");
    site.variable("SSL_CERT_FILE", &none.display().to_string());
    site.variable(
        "SSL_CERT_DIR",
        &site.path().join("keys").display().to_string(),
    );
    site.write();
    for command in ["check", "run"] {
        let exit = site.run(&[command], "").await;
        assert_eq!(exit.code, Some(1), "{exit:?}");
        assert!(exit.stderr.contains("no root certificates"), "{exit:?}");
        assert!(exit.stderr.contains("legacy"), "{exit:?}");
    }
}

#[tokio::test]
async fn up_5_server_name_is_what_sni_tells_and_the_certificate_must_bear() {
    let authority = Authority::new();
    let upstream = answering(Wire::tls(&authority.sign(&["app.internal"]), &HTTP1)).await;
    let named = |name: &str| {
        let policy = format!("{{ ca = \"ca.pem\", server_name = \"{name}\" }}");
        site(&upstream.url, &authority).on_upstream("tls", &policy)
    };
    let gateway = named("app.internal").start().await;
    get(&gateway, "/public", &[]).await.is(200);
    let gateway = named("other.internal").start().await;
    get(&gateway, "/public", &[])
        .await
        .refused(502, "upstream_tls");
    assert_eq!(upstream.count(), 1);
}

#[tokio::test]
async fn up_5_a_client_certificate_is_shown_where_one_is_configured() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let wire = Wire::tls_for(&authority.sign(&["127.0.0.1"]), &HTTP1, Some(&clients));
    let upstream = answering(wire).await;
    let gateway = believing(&upstream.url, &authority).start().await;
    let refused = get(&gateway, "/public", &[]).await;
    // With TLS 1.3 the server refuses when the client believes that it is done already.
    assert_eq!(refused.status, 502);
    assert!(upstream.seen().is_empty());
    drop(gateway);
    let site = site(&upstream.url, &authority).on_upstream(
        "tls",
        r#"{ ca = "ca.pem", client_cert = "client.crt", client_key = "client.key" }"#,
    );
    let pair = clients.sign(&["gateway"]);
    site.secret_file("client.crt", &pair.cert_pem);
    site.secret_file("client.key", &pair.key_pem);
    let gateway = site.start().await;
    get(&gateway, "/public", &[]).await.is(200);
}

#[tokio::test]
async fn up_5_any_certificate_passes_only_where_that_is_asked_for_and_warned_of() {
    let authority = Authority::new();
    let upstream = answering(Wire::tls(&Pair::self_signed(&["nobody"]), &HTTP1)).await;
    let site = site(&upstream.url, &authority)
        .on_upstream("tls", "{ danger_accept_any_certificate = true }");
    site.write();
    let checked = site.run(&["check"], "").await;
    assert_eq!(checked.code, Some(0));
    assert!(
        checked.stderr.contains("danger_accept_any_certificate"),
        "{checked:?}"
    );
    assert!(checked.stdout.contains("ANY CERTIFICATE"), "{checked:?}");
    let gateway = site.start().await;
    gateway
        .err
        .find("the warning", |line| {
            (line.contains("any certificate is accepted") && line.contains("legacy")).then_some(())
        })
        .await;
    get(&gateway, "/public", &[]).await.is(200);
}

#[tokio::test]
async fn up_4_and_up_5_another_server_is_tried_after_a_failed_handshake() {
    let authority = Authority::new();
    let bad = answering(Wire::tls(&Pair::self_signed(&["127.0.0.1"]), &HTTP1)).await;
    let good = answering(Wire::tls(&authority.sign(&["127.0.0.1"]), &HTTP1)).await;
    let servers = format!("[\"{}\", \"{}\"]", bad.url, good.url);
    let gateway = believing(&bad.url, &authority)
        .on_upstream("servers", &servers)
        .on_upstream("balance", "\"round_robin\"")
        .start()
        .await;
    let mut raw = Raw::connect(&gateway).await;
    for _ in 0..4 {
        raw.exchange(request("POST", "/public", &[], "body"))
            .await
            .is(200);
    }
    assert_eq!((bad.count(), good.count()), (0, 4));
    assert!(tls_failures(&gateway).await >= 1.0);
}

#[tokio::test]
async fn up_5_health_checks_verify_like_requests() {
    let authority = Authority::new();
    let ours = ["127.0.0.1"];
    let wires = [
        Wire::tls(&Pair::self_signed(&ours), &HTTP1),
        Wire::tls(&authority.sign(&["localhost"]), &HTTP1),
        Wire::tls(&authority.sign_expired(&ours), &HTTP1),
        Wire::Plain,
    ];
    let health = r#"{ path = "/healthz", interval = "100ms", healthy = 1, unhealthy = 1 }"#;
    for wire in wires {
        let upstream = answering(wire).await;
        let url = upstream.url.replace("http:", "https:");
        let gateway = believing(&url, &authority)
            .on_upstream("health", health)
            .start()
            .await;
        eventually("the server to be out", async || {
            let answer = get(&gateway, "/public", &[]).await;
            (answer.status == 503).then_some(())
        })
        .await;
        assert!(tls_failures(&gateway).await >= 1.0);
        assert!(upstream.seen().is_empty());
    }
    let upstream = answering(Wire::tls(&authority.sign(&ours), &HTTP1)).await;
    let gateway = believing(&upstream.url, &authority)
        .on_upstream("health", health)
        .start()
        .await;
    assert_eq!(upstream.request(2).await.target, "/healthz");
    get(&gateway, "/public", &[]).await.is(200);
}

#[tokio::test]
async fn a_unix_socket_serves_like_a_port() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let upstream = answering(Wire::Unix(path.clone())).await;
    let health = r#"{ path = "/healthz", interval = "100ms", healthy = 1, unhealthy = 1 }"#;
    let gateway = site(&upstream.url, &authority)
        .on_upstream("health", health)
        .start()
        .await;
    assert_eq!(upstream.request(2).await.header("host"), Some("localhost"));
    for _ in 0..3 {
        let answer = get(&gateway, "/public", &[("host", "app.example.com")]).await;
        assert_eq!(answer.is(200).text(), "hello");
    }
    let proxied = |seen: &crate::harness::Seen| seen.target == "/public";
    let seen = upstream.seen();
    let mut connections: Vec<usize> = seen
        .iter()
        .filter(|seen| proxied(seen))
        .map(|seen| seen.connection)
        .collect();
    assert_eq!(connections.len(), 3);
    connections.dedup();
    assert_eq!(connections.len(), 1, "kept");
    let last = seen.iter().rfind(|seen| proxied(seen)).unwrap();
    assert_eq!(last.header("host"), Some("app.example.com"));
    let healthy = format!(
        "portcullis_upstream_healthy{{upstream=\"legacy\",server=\"unix:{}\"}}",
        path.display()
    );
    assert_eq!(gateway.metric(&healthy).await, Some(1.0));
}

#[tokio::test]
async fn up_10_a_name_is_looked_up_and_a_name_in_a_request_is_not() {
    let authority = Authority::new();
    let upstream = answering(Wire::Plain).await;
    let url = upstream.url.replace("127.0.0.1", "localhost");
    let gateway = site(&url, &authority).start().await;
    for host in ["localhost", "elsewhere.example", "169.254.169.254"] {
        get(&gateway, "/public", &[("host", host)]).await.is(200);
        assert_eq!(upstream.last().header("host"), Some(host));
    }
    assert_eq!(upstream.connections(), 1);
    let gateway = site("http://no-such-name.invalid", &authority)
        .start()
        .await;
    get(&gateway, "/public", &[])
        .await
        .refused(502, "upstream_unreachable");
    get(&gateway, "/public", &[("host", "localhost")])
        .await
        .refused(502, "upstream_unreachable");
}

#[tokio::test]
async fn up_4_a_unix_socket_that_nobody_listens_on_is_502() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    let url = format!("unix:{}/gone.sock", folder.path().display());
    let gateway = site(&url, &authority).start().await;
    get(&gateway, "/public", &[])
        .await
        .refused(502, "upstream_unreachable");
}

#[tokio::test]
async fn up_3_an_answer_that_tls_cuts_short_is_no_whole_answer() {
    let authority = Authority::new();
    let wire = Wire::tls(&authority.sign(&["127.0.0.1"]), &HTTP1);
    let heads = [
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
        // To the end of the connection, which only close_notify may say.
        "HTTP/1.1 200 OK\r\n\r\nabc",
    ];
    for head in heads {
        let upstream = Upstream::on(wire.clone(), move |_| {
            Reply(vec![
                Step::Send(head.into()),
                Step::Pause(Duration::from_millis(10)),
                Step::Reset,
            ])
        })
        .await;
        let gateway = believing(&upstream.url, &authority).start().await;
        let mut raw = Raw::connect(&gateway).await;
        raw.send(request("GET", "/public", &[], "")).await;
        assert!(raw.try_answer().await.is_err(), "{head:?}");
    }
}
