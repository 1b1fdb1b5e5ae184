//! Clients that are slow, or say nothing: each is let go at its deadline, and nobody else notices.

use std::time::{Duration, Instant};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::harness::{
    Broken, Gateway, H2, Raw, Reply, Site, Step, Upstream,
    frames::{Frames, Outcome},
    get, keys, request, within,
};

/// The deadline under test.
const SHORT: Duration = Duration::from_millis(400);

/// How much later than its deadline a connection may end on a loaded machine.
const SLACK: Duration = Duration::from_secs(8);

/// A site in which one deadline is short and the others are far away.
async fn gateway(upstream: &Upstream, short: &str) -> Gateway {
    let mut site = Site::new(upstream.address);
    for name in ["handshake", "header", "body_idle", "keep_alive", "max_age"] {
        let time = if name == short {
            "\"400ms\""
        } else {
            "\"60s\""
        };
        site = site.set("server.timeouts", name, time);
    }
    site.start().await
}

#[track_caller]
fn on_time(since: Instant) {
    let took = since.elapsed();
    assert!(took >= SHORT, "let go after {took:?}, before the deadline");
    assert!(took < SHORT + SLACK, "let go after {took:?}");
}

/// The first bytes that a TLS client sends.
fn client_hello() -> Vec<u8> {
    let mut connection = rustls::ClientConnection::new(
        keys::tls_client(&[b"http/1.1"]),
        "localhost".try_into().unwrap(),
    )
    .unwrap();
    let mut bytes = Vec::new();
    connection.write_tls(&mut bytes).unwrap();
    bytes
}

/// Waits until the peer closes, and returns what it said.
async fn end_of(socket: &mut TcpStream) -> Vec<u8> {
    let mut said = Vec::new();
    let _ = within("the end of the connection", socket.read_to_end(&mut said)).await;
    said
}

#[tokio::test]
async fn net_3_a_handshake_byte_by_byte_ends_at_the_deadline() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream, "handshake").await;
    let mut socket = TcpStream::connect(gateway.tls).await.unwrap();
    let begun = Instant::now();
    let (mut reading, mut writing) = socket.split();
    let drip = async {
        for byte in client_hello() {
            if writing.write_all(&[byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let mut said = Vec::new();
    let end = reading.read_to_end(&mut said);
    within("the end of the connection", async {
        tokio::select! {
            _ = end => {}
            () = drip => panic!("the whole hello was taken"),
        }
    })
    .await;
    on_time(begun);
}

#[tokio::test]
async fn net_3_a_peer_that_says_nothing_ends_at_the_deadline() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream, "handshake").await;
    let mut socket = TcpStream::connect(gateway.tls).await.unwrap();
    let begun = Instant::now();
    end_of(&mut socket).await;
    on_time(begun);
    // A hello in full, and then nothing.
    let mut socket = TcpStream::connect(gateway.tls).await.unwrap();
    let begun = Instant::now();
    socket.write_all(&client_hello()).await.unwrap();
    end_of(&mut socket).await;
    on_time(begun);
}

#[tokio::test]
async fn net_3_stalled_handshakes_do_not_hold_up_others() {
    let upstream = Upstream::start().await;
    let gateway = Site::new(upstream.address)
        .set("server", "workers", "1")
        .start()
        .await;
    let mut stalled = Vec::new();
    for _ in 0..50 {
        let mut socket = TcpStream::connect(gateway.tls).await.unwrap();
        socket.write_all(&client_hello()[..20]).await.unwrap();
        stalled.push(socket);
    }
    get(&gateway, "/public", &[]).await.is(200);
    drop(stalled);
}

#[tokio::test]
async fn plain_http_on_the_tls_listener_is_not_served() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream, "handshake").await;
    let mut socket = TcpStream::connect(gateway.tls).await.unwrap();
    socket
        .write_all(request("GET", "/public", &[], "").as_bytes())
        .await
        .unwrap();
    let said = end_of(&mut socket).await;
    assert!(!String::from_utf8_lossy(&said).contains("200"), "{said:?}");
    upstream.saw_nothing();
}

#[tokio::test]
async fn net_4_a_slow_head_ends_at_the_deadline() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream, "header").await;
    let mut raw = Raw::connect(&gateway).await;
    let begun = Instant::now();
    raw.send("GET /public HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
        .await;
    match raw.try_answer().await {
        Ok(answer) => assert_eq!(answer.status, 408),
        Err(broken) => assert!(matches!(broken, Broken::Closed), "{broken:?}"),
    }
    assert!(raw.rest().await.is_empty());
    on_time(begun);
    upstream.saw_nothing();
}

#[tokio::test]
async fn net_4_a_head_byte_by_byte_ends_at_the_deadline() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream, "header").await;
    let mut raw = Raw::connect(&gateway).await;
    raw.exchange(request("GET", "/public", &[], ""))
        .await
        .is(200);
    let begun = Instant::now();
    let head = request("GET", "/public/slow", &[("X", &"x".repeat(2000))], "");
    for byte in head.bytes() {
        if raw.try_send([byte]).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        if begun.elapsed() > SHORT + SLACK {
            panic!("still reading after {:?}", begun.elapsed());
        }
    }
    assert!(
        upstream
            .seen()
            .iter()
            .all(|seen| seen.target != "/public/slow")
    );
}

#[tokio::test]
async fn net_4_a_body_that_stops_ends_at_the_deadline() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream, "body_idle").await;
    for framing in [("Content-Length", "10"), ("Transfer-Encoding", "chunked")] {
        let before = upstream.count();
        let mut raw = Raw::connect(&gateway).await;
        let begun = Instant::now();
        let start = if framing.0 == "Content-Length" {
            "abc"
        } else {
            "3\r\nabc\r\n"
        };
        raw.send(format!(
            "{}{start}",
            request("POST", "/public", &[framing], "")
        ))
        .await;
        match raw.try_answer().await {
            Ok(answer) => assert_eq!(answer.status, 408),
            Err(broken) => assert!(
                matches!(broken, Broken::Closed | Broken::Cut(_)),
                "{broken:?}"
            ),
        }
        assert!(raw.rest().await.is_empty());
        on_time(begun);
        upstream
            .until("the connection to be given up", |upstream| {
                upstream.open() == 0
            })
            .await;
        assert!(
            upstream.seen()[before..].iter().all(|seen| !seen.complete),
            "{framing:?}"
        );
    }
}

#[tokio::test]
async fn net_4_an_idle_connection_ends_at_the_deadline() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream, "keep_alive").await;
    let mut raw = Raw::connect(&gateway).await;
    let begun = Instant::now();
    raw.exchange(request("GET", "/public", &[], ""))
        .await
        .is(200);
    assert!(raw.rest().await.is_empty());
    on_time(begun);
}

/// So long a connection is silent that it has given its buffers back.
const NAP: Duration = Duration::from_millis(1600);

#[tokio::test]
async fn net_4_a_connection_that_has_rested_goes_on() {
    let upstream = Upstream::start().await;
    let gateway = Site::new(upstream.address).start().await;
    let mut raw = Raw::connect(&gateway).await;
    for nap in [NAP, NAP, Duration::ZERO] {
        raw.exchange(request("GET", "/public", &[], ""))
            .await
            .is(200);
        tokio::time::sleep(nap).await;
    }
    assert_eq!(upstream.seen().len(), 3);
}

#[tokio::test]
async fn msg_1_what_was_read_of_a_head_outlives_a_rest() {
    let upstream = Upstream::start().await;
    let gateway = Site::new(upstream.address).start().await;
    let mut raw = Raw::connect(&gateway).await;
    let whole = request("GET", "/public/second", &[], "");
    let (begun, rest) = whole.split_at(20);
    raw.send(request("GET", "/public/first", &[], "") + begun)
        .await;
    raw.answer().await.is(200);
    tokio::time::sleep(NAP).await;
    raw.send(rest).await;
    raw.answer().await.is(200);
    let seen = upstream.seen();
    let targets: Vec<_> = seen.iter().map(|seen| &*seen.target).collect();
    assert_eq!(targets, ["/public/first", "/public/second"]);
}

#[tokio::test]
async fn net_4_a_slow_head_after_a_rest_ends_at_the_deadline() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream, "header").await;
    let mut raw = Raw::connect(&gateway).await;
    raw.exchange(request("GET", "/public", &[], ""))
        .await
        .is(200);
    tokio::time::sleep(NAP).await;
    let begun = Instant::now();
    raw.send("GET /pub").await;
    match raw.try_answer().await {
        Ok(answer) => assert_eq!(answer.status, 408),
        Err(broken) => assert!(matches!(broken, Broken::Closed), "{broken:?}"),
    }
    on_time(begun);
}

#[tokio::test]
async fn net_4_a_connection_without_a_request_ends_at_a_deadline() {
    let upstream = Upstream::start().await;
    let gateway = Site::new(upstream.address)
        .set("server.timeouts", "header", "\"400ms\"")
        .set("server.timeouts", "keep_alive", "\"400ms\"")
        .start()
        .await;
    for protocol in [&b"http/1.1"[..], b"h2"] {
        // The gateway's clock begins with its end of the handshake, which may come before ours.
        let begun = Instant::now();
        let mut stream = crate::harness::client::tls(gateway.tls, "localhost", &[protocol])
            .await
            .unwrap();
        let mut said = Vec::new();
        let _ = within("the end of the connection", stream.read_to_end(&mut said)).await;
        on_time(begun);
    }
}

#[tokio::test]
async fn net_4_an_idle_http_2_connection_ends_at_the_deadline() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream, "keep_alive").await;
    let mut h2 = H2::connect(&gateway).await;
    let begun = Instant::now();
    h2.get("/public", &[]).await.is(200);
    within("the end of the connection", h2.ended()).await;
    on_time(begun);
}

/// An upstream that falls silent in the middle of each answer, for longer than any deadline here.
async fn hesitant() -> Upstream {
    Upstream::scripted(|_| {
        Reply(vec![
            Step::Send(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nab".to_vec()),
            Step::Pause(SHORT * 3),
            Step::Send(b"cd".to_vec()),
        ])
    })
    .await
}

#[tokio::test]
async fn net_4_a_slow_answer_is_no_idle_connection() {
    let upstream = hesitant().await;
    let gateway = gateway(&upstream, "keep_alive").await;
    assert_eq!(get(&gateway, "/public", &[]).await.text(), "abcd");
    assert_eq!(
        H2::connect(&gateway).await.get("/public", &[]).await.text(),
        "abcd"
    );
}

#[tokio::test]
async fn net_4_an_old_connection_is_told_to_end_and_nothing_is_cut() {
    let upstream = hesitant().await;
    let gateway = gateway(&upstream, "max_age").await;
    let mut raw = Raw::connect(&gateway).await;
    let answer = raw.exchange(request("GET", "/public", &[], "")).await;
    assert_eq!(answer.text(), "abcd", "it was older before the end");
    assert!(raw.rest().await.is_empty());
    let mut h2 = H2::connect(&gateway).await;
    assert_eq!(h2.get("/public", &[]).await.text(), "abcd");
    within("the end of the connection", h2.ended()).await;
}

#[tokio::test]
async fn net_4_a_busy_connection_ends_with_its_age_too() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream, "max_age").await;
    let begun = Instant::now();
    let mut raw = Raw::connect(&gateway).await;
    let mut answered = 0;
    // Asked to go, the gateway says so in an answer, or closes between two.
    loop {
        raw.send(request("GET", "/public", &[], "")).await;
        match raw.try_answer().await {
            Ok(answer) => {
                answered += 1;
                if answer.is(200).header("connection") == Some("close") {
                    break;
                }
            }
            Err(broken) => {
                assert!(matches!(broken, Broken::Closed), "{broken:?}");
                break;
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    on_time(begun);
    assert!(answered > 1);
}

/// A site in which bodies must come at 1 KiB a second, when they were waited for long enough.
async fn paced(upstream: &Upstream) -> Gateway {
    Site::new(upstream.address)
        .set("server.timeouts", "body_idle", "\"1s\"")
        .set("server.limits", "min_body_rate", "\"1KiB/s\"")
        .start()
        .await
}

#[tokio::test]
async fn net_4_a_body_that_drips_is_refused() {
    let upstream = Upstream::start().await;
    let gateway = paced(&upstream).await;
    let mut raw = Raw::connect(&gateway).await;
    let begun = Instant::now();
    let declared = [("Content-Length", "100000")];
    raw.send(request("POST", "/public", &declared, "")).await;
    while raw.try_send("x").await.is_ok() && begun.elapsed() < SLACK {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    match raw.try_answer().await {
        Ok(answer) => answer.refused(408, "request_timeout"),
        Err(broken) => assert!(
            matches!(broken, Broken::Closed | Broken::Cut(_)),
            "{broken:?}"
        ),
    }
    assert!(raw.end().await.is_some(), "still open");
    upstream
        .until("the connection to be given up", |upstream| {
            upstream.open() == 0
        })
        .await;
    assert!(upstream.seen().iter().all(|seen| !seen.complete));
}

#[tokio::test]
async fn net_4_an_http_2_body_that_drips_is_refused() {
    let upstream = Upstream::start().await;
    let gateway = paced(&upstream).await;
    let mut frames = Frames::connect(&gateway).await;
    let post: [(&[u8], &[u8]); 4] = [
        (b":method", b"POST"),
        (b":scheme", b"https"),
        (b":authority", b"localhost"),
        (b":path", b"/public"),
    ];
    frames.begin(1, &post).await;
    // A byte each 100 ms is never a second of silence.
    for _ in 0..40 {
        let _ = frames.data(1, b"x").await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let outcome = frames.outcome(1).await;
    assert!(
        matches!(outcome, Outcome::Status(408) | Outcome::Reset),
        "{outcome:?}"
    );
    assert!(upstream.seen().iter().all(|seen| !seen.complete));
}

#[tokio::test]
async fn a_body_that_came_fast_may_rest() {
    let upstream = Upstream::start().await;
    let gateway = paced(&upstream).await;
    let mut raw = Raw::connect(&gateway).await;
    let declared = [("Content-Length", "100030")];
    raw.send(request("POST", "/public", &declared, "")).await;
    raw.send("x".repeat(100_000)).await;
    for _ in 0..30 {
        raw.send("x").await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    raw.answer().await.is(200);
    assert_eq!(upstream.last().body_length, 100_030);
}

#[tokio::test]
async fn net_2_connections_over_the_cap_of_an_address_are_closed() {
    let upstream = Upstream::start().await;
    let gateway = Site::new(upstream.address)
        .set("server", "max_connections_per_ip", "4")
        .set("server", "workers", "1")
        .start()
        .await;
    let mut held = Vec::new();
    for _ in 0..4 {
        let mut raw = Raw::connect(&gateway).await;
        raw.exchange(request("GET", "/public", &[], ""))
            .await
            .is(200);
        held.push(raw);
    }
    for _ in 0..4 {
        let over = crate::harness::client::tls(gateway.tls, "localhost", &[b"http/1.1"]);
        assert!(
            within("a refused connection", over).await.is_err(),
            "one connection too many"
        );
    }
    // The admin listener is another matter, and a place that is given up is free again.
    assert_eq!(gateway.admin("/healthz").await.status, 200);
    drop(held);
    crate::harness::eventually("a free place", async || {
        crate::harness::client::tls(gateway.tls, "localhost", &[b"http/1.1"])
            .await
            .ok()
    })
    .await;
}

/// The windows of HTTP/2 let a client hold an answer, and with it an upstream's connection, without a full socket.
#[tokio::test]
async fn msg_7_streams_whose_window_stays_shut_end_with_their_connection() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream, "body_idle").await;
    let mut frames = Frames::connect_taking_nothing(&gateway).await;
    let begun = Instant::now();
    let get: [(&[u8], &[u8]); 4] = [
        (b":method", b"GET"),
        (b":scheme", b"https"),
        (b":authority", b"localhost"),
        (b":path", b"/public/held"),
    ];
    frames.request(1, &get, None).await;
    assert_eq!(frames.outcome(1).await, Outcome::Status(200));
    assert_eq!(frames.outcome(1).await, Outcome::Closed);
    on_time(begun);
    gateway_forgets(&gateway).await;
}

/// Waits until no client connection is counted any more.
async fn gateway_forgets(gateway: &Gateway) {
    within("no open connection", async {
        while gateway
            .metric("portcullis_connections{listener=\"tls\"}")
            .await
            != Some(0.0)
        {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
