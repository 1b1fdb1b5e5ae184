//! Upstreams that are spoken to over HTTP/2: many requests on one connection, and none that feels what becomes of another.

use std::{sync::Arc, time::Duration};

use h2::Reason;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::sync::Notify;

use crate::harness::{
    Authority, Gateway, H2, Kind, Raw, Reply, Site, Token, Upstream, Wire, eventually, get,
    keys::bearer,
    request,
    streams::{Deed, Stream, Streams},
};

const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// A site with one upstream and one worker.
fn site(url: &str, protocol: &str) -> Site {
    Site::bare()
        .set("server", "workers", "1")
        .upstream("legacy", url)
        .on_upstream("protocol", &format!("\"{protocol}\""))
        .issuer(Kind::Es)
        .route("public", "/public", "public")
        .route("private", "/private", "authenticated")
}

/// A site that believes this authority.
fn secure(url: &str, protocol: &str, authority: &Authority) -> Site {
    let site = site(url, protocol).on_upstream("tls", "{ ca = \"ca.pem\" }");
    site.secret_file("ca.pem", &authority.pem);
    site
}

async fn answering(wire: Wire) -> Streams {
    Streams::on(wire, 100, |_| Deed::Answer("hello")).await
}

fn path(seen: &Stream) -> &str {
    let (_, rest) = seen.uri.split_once("://").unwrap();
    &rest[rest.find('/').unwrap()..]
}

#[tokio::test]
async fn requests_of_every_version_share_one_connection() {
    let upstream = answering(Wire::Plain).await;
    let gateway = site(&upstream.url, "h2").start().await;
    for _ in 0..3 {
        let answer = get(&gateway, "/public/a?b=c", &[]).await;
        assert_eq!(answer.is(200).text(), "hello");
    }
    let mut raw = Raw::connect(&gateway).await;
    let answer = raw.exchange(request("POST", "/public", &[], "body")).await;
    assert_eq!(answer.is(200).text(), "hello");
    let last = upstream.last();
    assert_eq!((&*last.body, last.complete), (&b"body"[..], true));
    assert_eq!(last.header("content-length"), Some("4"));
    let mut h2 = H2::connect(&gateway).await;
    assert_eq!(h2.get("/public", &[]).await.is(200).text(), "hello");
    assert_eq!(upstream.connections(), 1);
    let first = &upstream.seen()[0];
    assert_eq!(first.uri, "http://localhost/public/a?b=c");
    assert_eq!(first.header("host"), None);
    assert_eq!(first.header("te"), None);
    let mut large = "x".repeat(500_000);
    large.push('y');
    raw.exchange(request("POST", "/public", &[], &large))
        .await
        .is(200);
    assert_eq!(upstream.last().body.len(), 500_001);
}

#[tokio::test]
async fn the_protocol_is_what_tls_agrees_on_or_what_is_demanded() {
    let authority = Authority::new();
    let pair = authority.sign(&["127.0.0.1"]);
    let both = answering(Wire::tls(&pair, &ALPN)).await;
    for protocol in ["auto", "h2"] {
        let gateway = secure(&both.url, protocol, &authority).start().await;
        let answer = get(&gateway, "/public", &[("host", "app.example.com")]).await;
        assert_eq!(answer.is(200).text(), "hello");
        assert_eq!(both.last().uri, "https://app.example.com/public");
    }
    let old = Upstream::on(Wire::tls(&pair, &ALPN[1..]), |_| Reply::ok("old")).await;
    let gateway = secure(&old.url, "auto", &authority).start().await;
    for _ in 0..3 {
        assert_eq!(get(&gateway, "/public", &[]).await.is(200).text(), "old");
    }
    assert_eq!(old.connections(), 1);
    let silent = Upstream::on(Wire::tls(&pair, &[]), |_| Reply::ok("silent")).await;
    let gateway = secure(&silent.url, "auto", &authority).start().await;
    assert_eq!(get(&gateway, "/public", &[]).await.is(200).text(), "silent");
    for url in [&old.url, &silent.url] {
        let gateway = secure(url, "h2", &authority).start().await;
        get(&gateway, "/public", &[])
            .await
            .refused(502, "upstream_tls");
        let failures = "portcullis_upstream_tls_failures_total{upstream=\"legacy\"}";
        assert_eq!(gateway.metric(failures).await, Some(1.0));
    }
    let plain = Upstream::on(Wire::Plain, |_| Reply::ok("plain")).await;
    let gateway = site(&plain.url, "auto").start().await;
    assert_eq!(get(&gateway, "/public", &[]).await.is(200).text(), "plain");
}

#[tokio::test]
async fn up_3_a_server_that_speaks_http1_where_http2_is_demanded_is_invalid() {
    let plain = Upstream::on(Wire::Plain, |_| Reply::ok("plain")).await;
    let gateway = site(&plain.url, "h2").start().await;
    // The upstream's answer to what it takes for a request is no frame.
    assert_eq!(get(&gateway, "/public", &[]).await.status, 502);
    assert!(plain.seen().is_empty());
    let health = r#"{ path = "/healthz", interval = "100ms", healthy = 1, unhealthy = 1 }"#;
    let gateway = site(&plain.url, "h2")
        .on_upstream("health", health)
        .start()
        .await;
    eventually("the server to be out", async || {
        (get(&gateway, "/public", &[]).await.status == 503).then_some(())
    })
    .await;
}

#[tokio::test]
async fn hdr_3_injected_fields_arrive_whatever_the_versions_are() {
    let h2 = answering(Wire::Plain).await;
    let h1 = Upstream::start().await;
    let token = bearer(&Token::new(Kind::Es).sign());
    let forged = [
        ("Authorization", &*token),
        ("X-Forwarded-User", "mallory"),
        ("x-real-ip", "6.6.6.6"),
    ];
    let named = "close, X-Forwarded-User, x-forwarded-for, X-Request-Id, via, keep-alive, x-mine";
    let mut from_h1 = forged.to_vec();
    from_h1.extend([
        ("Connection", named),
        ("X-Mine", "1"),
        ("TE", "trailers"),
        ("Keep-Alive", "1"),
    ]);
    // h1 to h2.
    let gateway = site(&h2.url, "h2").start().await;
    get(&gateway, "/private", &from_h1).await.is(200);
    let seen = h2.last();
    for name in [
        "x-forwarded-for",
        "x-request-id",
        "via",
        "x-forwarded-proto",
    ] {
        assert!(seen.header(name).is_some(), "{name}: {:?}", seen.headers);
    }
    assert_eq!(seen.header("x-forwarded-user"), Some("alice"));
    assert_eq!(seen.header("x-real-ip"), Some("127.0.0.1"));
    for name in [
        "connection",
        "keep-alive",
        "x-mine",
        "authorization",
        "host",
    ] {
        assert_eq!(seen.header(name), None, "{name}");
    }
    // h2 to h2.
    H2::connect(&gateway)
        .await
        .get("/private", &forged)
        .await
        .is(200);
    assert_eq!(h2.last().header("x-forwarded-user"), Some("alice"));
    assert!(h2.last().header("x-forwarded-for").is_some());
    // h2 to h1.
    let gateway = site(&h1.url, "http1").start().await;
    H2::connect(&gateway)
        .await
        .get("/private", &forged)
        .await
        .is(200);
    let seen = h1.last();
    assert_eq!(seen.header("x-forwarded-user"), Some("alice"));
    assert_eq!(seen.header("host"), Some("localhost"));
    assert!(seen.header("x-forwarded-for").is_some());
    assert_eq!(seen.header("x-real-ip"), Some("127.0.0.1"));
}

#[tokio::test]
async fn up_1_an_exchange_that_ends_badly_resets_its_own_stream_alone() {
    let go = Arc::new(Notify::new());
    let until = Arc::clone(&go);
    let upstream = Streams::on(Wire::Plain, 100, move |seen| match path(seen) {
        "/public/wait" => Deed::Until(Arc::clone(&until)),
        "/public/hang" => Deed::Hang,
        "/public/reset" => Deed::Reset(Reason::INTERNAL_ERROR),
        "/public/cut" => Deed::Cut("abc", Reason::INTERNAL_ERROR),
        _ => Deed::Answer("hello"),
    })
    .await;
    let gateway = site(&upstream.url, "h2")
        .on_upstream("response_timeout", "\"1s\"")
        .on_upstream("retry", "{ attempts = 0 }")
        .start()
        .await;
    let mut waits = Raw::connect(&gateway).await;
    waits.send(request("GET", "/public/wait", &[], "")).await;
    upstream.until(1, |_| true).await;
    // A client that goes away (UP-9).
    let mut gone = Raw::connect(&gateway).await;
    gone.send(request("GET", "/public/hang", &[], "")).await;
    upstream.until(2, |_| true).await;
    drop(gone);
    let hung = upstream.until(2, |seen| seen.reset.is_some()).await;
    assert_eq!(hung.reset, Some(Reason::CANCEL));
    get(&gateway, "/public/reset", &[])
        .await
        .refused(502, "upstream_unreachable");
    let mut raw = Raw::connect(&gateway).await;
    raw.send(request("GET", "/public/cut", &[], "")).await;
    assert!(raw.try_answer().await.is_err());
    assert_eq!(get(&gateway, "/public", &[]).await.is(200).text(), "hello");
    go.notify_one();
    assert_eq!(waits.answer().await.is(200).text(), "at last");
    // Too slow: its stream is reset, and the connection goes on.
    get(&gateway, "/public/hang", &[])
        .await
        .refused(504, "upstream_timeout");
    let slow = upstream.until(6, |seen| seen.reset.is_some()).await;
    assert_eq!(slow.reset, Some(Reason::CANCEL));
    assert_eq!(get(&gateway, "/public", &[]).await.is(200).text(), "hello");
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn up_3_an_answer_cut_short_is_never_a_whole_one() {
    let deeds = [
        Deed::Cut("abc", Reason::INTERNAL_ERROR),
        Deed::Cut("abc", Reason::CANCEL),
        // hyper takes this one for the end of the body.
        Deed::Cut("abc", Reason::NO_ERROR),
        Deed::Short,
        Deed::Drop,
    ];
    for (number, deed) in deeds.into_iter().enumerate() {
        let upstream = Streams::on(Wire::Plain, 100, move |_| deed.clone()).await;
        let gateway = site(&upstream.url, "h2").start().await;
        let mut raw = Raw::connect(&gateway).await;
        raw.send(request("GET", "/public", &[], "")).await;
        let answer = raw.try_answer().await;
        assert!(
            answer.as_ref().map_or(true, |answer| answer.status == 502),
            "{number}: {answer:?}"
        );
        let mut h2 = H2::connect(&gateway).await;
        let request = http::Request::get("https://localhost/public");
        let answer = h2.send(request.body(crate::harness::client::full("")).unwrap());
        let answer = answer.await;
        assert!(
            answer.as_ref().map_or(true, |answer| answer.status == 502),
            "{number}: {answer:?}"
        );
    }
}

#[tokio::test]
async fn up_1_a_connection_that_goes_away_takes_no_request_with_it() {
    let upstream = Streams::on(Wire::Plain, 100, |_| Deed::GoAway("bye")).await;
    let gateway = site(&upstream.url, "h2").start().await;
    let mut raw = Raw::connect(&gateway).await;
    for number in 0..10 {
        let answer = match number % 2 {
            0 => raw.exchange(request("GET", "/public", &[], "")).await,
            _ => raw.exchange(request("POST", "/public", &[], "body")).await,
        };
        assert_eq!(answer.is(200).text(), "bye");
    }
    assert_eq!(upstream.count(), 10);
    assert!(upstream.connections() > 1);
    eventually("the old connections to close", async || {
        (upstream.open() <= 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn up_2_what_the_server_refused_unseen_is_sent_again_where_that_is_allowed() {
    let refuse = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let again = Arc::clone(&refuse);
    let upstream = Streams::on(Wire::Plain, 100, move |_| {
        if again.swap(false, std::sync::atomic::Ordering::SeqCst) {
            Deed::Reset(Reason::REFUSED_STREAM)
        } else {
            Deed::Answer("hello")
        }
    })
    .await;
    let gateway = site(&upstream.url, "h2").start().await;
    assert_eq!(get(&gateway, "/public", &[]).await.is(200).text(), "hello");
    assert_eq!(upstream.count(), 2);
    refuse.store(true, std::sync::atomic::Ordering::SeqCst);
    let mut raw = Raw::connect(&gateway).await;
    raw.exchange(request("POST", "/public", &[], "once"))
        .await
        .refused(502, "upstream_unreachable");
    assert_eq!(upstream.count(), 3);
}

#[tokio::test]
async fn up_4_streams_connections_and_waits_are_capped() {
    let go = Arc::new(Notify::new());
    let until = Arc::clone(&go);
    let upstream = Streams::on(Wire::Plain, 3, move |_| Deed::Until(Arc::clone(&until))).await;
    let gateway = site(&upstream.url, "h2")
        .on_upstream("max_connections", "2")
        .on_upstream("max_pending", "2")
        .on_upstream("connect_timeout", "\"20s\"")
        .start()
        .await;
    let mut waiting = Vec::new();
    // Three streams, as many as the peer takes; then another connection with three more.
    for number in 1..=6 {
        let mut raw = Raw::connect(&gateway).await;
        raw.send(request("GET", "/public", &[], "")).await;
        waiting.push(raw);
        upstream.until(number, |_| true).await;
    }
    assert_eq!(upstream.connections(), 2);
    for _ in 0..2 {
        let mut raw = Raw::connect(&gateway).await;
        raw.send(request("GET", "/public", &[], "")).await;
        waiting.push(raw);
    }
    let refused = eventually("the queue to be full", async || {
        let mut raw = Raw::connect(&gateway).await;
        raw.send(request("GET", "/public", &[], "")).await;
        let answer = tokio::time::timeout(Duration::from_secs(2), raw.try_answer()).await;
        answer.ok()?.ok()
    })
    .await;
    refused.refused(503, "overloaded");
    assert_eq!(upstream.count(), 6);
    while upstream.count() < 8 {
        go.notify_one();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for _ in 0..100 {
        go.notify_one();
        go.notify_waiters();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for mut raw in waiting {
        assert_eq!(raw.answer().await.is(200).text(), "at last");
    }
    assert_eq!(upstream.connections(), 2);
}

#[tokio::test]
async fn up_4_requests_at_once_share_one_dial() {
    let upstream = answering(Wire::Plain).await;
    let gateway = site(&upstream.url, "h2").start().await;
    let mut h2 = H2::connect(&gateway).await;
    h2.get("/public", &[]).await.is(200);
    drop(h2);
    let gateway = site(&upstream.url, "h2").start().await;
    let before = upstream.connections();
    let mut tasks = tokio::task::JoinSet::new();
    let address = Arc::new(gateway);
    for _ in 0..20 {
        let gateway: Arc<Gateway> = Arc::clone(&address);
        tasks.spawn(async move { get(&gateway, "/public", &[]).await.is(200).text() });
    }
    while let Some(text) = tasks.join_next().await {
        assert_eq!(text.unwrap(), "hello");
    }
    assert_eq!(upstream.connections() - before, 1);
}

#[tokio::test]
async fn msg_5_no_partial_request_is_whole_for_the_upstream() {
    let upstream = answering(Wire::Plain).await;
    let gateway = site(&upstream.url, "h2").start().await;
    // HTTP/1.1: a chunked body without its end, and less than was announced.
    for (fields, part) in [
        (vec![("Transfer-Encoding", "chunked")], "3\r\nabc\r\n"),
        (vec![("Content-Length", "10")], "abc"),
    ] {
        let before = upstream.count();
        let mut raw = Raw::connect(&gateway).await;
        raw.send(request("POST", "/public/part", &fields, "")).await;
        raw.send(part).await;
        upstream.until(before + 1, |seen| seen.body == b"abc").await;
        drop(raw);
        let seen = upstream
            .until(before + 1, |seen| seen.reset.is_some() || seen.complete)
            .await;
        assert!(!seen.complete, "{seen:?}");
        get(&gateway, "/public/next", &[]).await.is(200);
    }
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn msg_5_a_stream_that_its_client_resets_without_error_is_no_whole_request() {
    let h2_upstream = answering(Wire::Plain).await;
    let h1_upstream = Upstream::start().await;
    for (url, protocol) in [(&h2_upstream.url, "h2"), (&h1_upstream.url, "http1")] {
        let gateway = site(url, protocol).start().await;
        for _ in 0..10 {
            let stream = crate::harness::client::tls(gateway.tls, "localhost", &[b"h2"]);
            let (client, connection) = h2::client::handshake(stream.await.unwrap()).await.unwrap();
            let driver = tokio::spawn(connection);
            let mut client = client.ready().await.unwrap();
            let request = http::Request::post("https://localhost/public/part").body(());
            let (_answer, mut body) = client.send_request(request.unwrap(), false).unwrap();
            body.send_data(bytes::Bytes::from("abc"), false).unwrap();
            eventually("a part of the body", async || {
                let parts = match protocol {
                    "h2" => h2_upstream.last_body(),
                    _ => h1_upstream.seen().last().map(|seen| seen.body.clone()),
                };
                (parts? == b"abc").then_some(())
            })
            .await;
            body.send_reset(Reason::NO_ERROR);
            eventually("the end of the request", async || match protocol {
                "h2" => h2_upstream.seen().last()?.reset.map(drop),
                _ => (h1_upstream.open() == 0).then_some(()),
            })
            .await;
            driver.abort();
        }
    }
    assert!(h2_upstream.seen().iter().all(|seen| !seen.complete));
    assert!(h1_upstream.seen().iter().all(|seen| !seen.complete));
}

#[tokio::test]
async fn up_1_a_body_that_goes_on_after_its_answer_is_cut_off() {
    let upstream = Streams::on(Wire::Plain, 100, |_| Deed::Early("early")).await;
    let gateway = site(&upstream.url, "h2").start().await;
    let mut h2 = H2::connect(&gateway).await;
    let (feed, body) = tokio::sync::mpsc::unbounded_channel::<Frame<bytes::Bytes>>();
    let body = futures_util::stream::unfold(body, |mut body| async move {
        body.recv()
            .await
            .map(|frame| (Ok::<_, std::convert::Infallible>(frame), body))
    });
    feed.send(Frame::data("abc".into())).unwrap();
    let request =
        http::Request::post("https://localhost/public").body(StreamBody::new(body).boxed());
    let answer = h2.send(request.unwrap()).await;
    assert_eq!(answer.unwrap().text(), "early");
    // Not a word more is taken from the client, and the upstream knows.
    let seen = upstream
        .until(1, |seen| seen.reset.is_some() || seen.complete)
        .await;
    assert!(!seen.complete, "{seen:?}");
    get(&gateway, "/public", &[]).await.is(200);
    assert_eq!(upstream.connections(), 1);
    drop(feed);
}

#[tokio::test]
async fn up_8_a_header_section_that_is_too_large_is_502() {
    let upstream = Streams::on(Wire::Plain, 100, |seen| match path(seen) {
        "/public/large" => Deed::Fields(
            (0..80).map(|_| ("x-large", "y".repeat(1000))).collect(),
            "hello",
        ),
        _ => Deed::Fields(vec![("x-some", "z".repeat(30_000))], "hello"),
    })
    .await;
    let gateway = site(&upstream.url, "h2")
        .on_upstream("retry", "{ attempts = 0 }")
        .start()
        .await;
    get(&gateway, "/public", &[]).await.is(200);
    let answer = get(&gateway, "/public/large", &[]).await;
    assert_eq!(answer.status, 502);
    get(&gateway, "/public", &[]).await.is(200);
}

#[tokio::test]
async fn an_idle_connection_closes_and_the_next_request_opens_another() {
    let upstream = answering(Wire::Plain).await;
    let gateway = site(&upstream.url, "h2")
        .on_upstream("idle_timeout", "\"300ms\"")
        .start()
        .await;
    get(&gateway, "/public", &[]).await.is(200);
    eventually("the connection to close", async || {
        (upstream.open() == 0).then_some(())
    })
    .await;
    get(&gateway, "/public", &[]).await.is(200);
    assert_eq!(upstream.connections(), 2);
}

#[tokio::test]
async fn health_checks_speak_http2() {
    let authority = Authority::new();
    let pair = authority.sign(&["127.0.0.1"]);
    let folder = tempfile::tempdir().unwrap();
    let health = r#"{ path = "/healthz", interval = "100ms", healthy = 1, unhealthy = 1 }"#;
    for (wire, scheme) in [
        (Wire::Plain, "http"),
        (Wire::tls(&pair, &ALPN), "https"),
        (Wire::Unix(folder.path().join("h2.sock")), "http"),
    ] {
        let upstream = answering(wire).await;
        let site = match scheme {
            "https" => secure(&upstream.url, "auto", &authority),
            _ => site(&upstream.url, "h2"),
        };
        let gateway = site.on_upstream("health", health).start().await;
        let seen = upstream.until(3, |_| true).await;
        assert!(
            seen.uri.starts_with(&format!("{scheme}://")),
            "{}",
            seen.uri
        );
        assert_eq!(path(&seen), "/healthz");
        get(&gateway, "/public", &[]).await.is(200);
        eventually("connections of checks to close", async || {
            (upstream.open() <= 2).then_some(())
        })
        .await;
    }
}
