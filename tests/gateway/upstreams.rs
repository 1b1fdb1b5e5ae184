//! Upstreams that are down, silent, confused or treacherous, and bodies of every size.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::Notify,
};

use crate::harness::{
    Broken, Gateway, H2, Raw, Reply, Site, Step, Upstream, client::full, get, request,
};

/// A site with one worker, so that connections are shared where they may be.
fn site(upstream: &Upstream) -> Site {
    Site::new(upstream.address).set("server", "workers", "1")
}

async fn gateway(upstream: &Upstream) -> Gateway {
    site(upstream).start().await
}

#[tokio::test]
async fn up_4_an_upstream_that_is_down_is_502_at_once() {
    // A port that was free a moment ago, and that nobody listens on.
    let closed = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let gateway = Site::new(closed).start().await;
    let begun = Instant::now();
    get(&gateway, "/public", &[])
        .await
        .refused(502, "upstream_unreachable");
    let mut raw = Raw::connect(&gateway).await;
    raw.exchange(request("POST", "/public", &[], "body"))
        .await
        .refused(502, "upstream_unreachable");
    H2::connect(&gateway)
        .await
        .get("/public", &[])
        .await
        .refused(502, "upstream_unreachable");
    assert!(begun.elapsed() < Duration::from_secs(9));
}

#[tokio::test]
async fn up_4_an_upstream_that_never_accepts_is_502_within_the_connect_timeout() {
    // A full queue of connections: no more are answered.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket
        .bind(
            &"127.0.0.1:0"
                .parse::<std::net::SocketAddr>()
                .unwrap()
                .into(),
        )
        .unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let mut held = Vec::new();
    for _ in 0..4 {
        let connection = tokio::net::TcpStream::connect(address);
        held.push(tokio::time::timeout(Duration::from_millis(200), connection).await);
    }
    let gateway = Site::bare()
        .upstream("legacy", &format!("http://{address}"))
        .on_upstream("connect_timeout", "\"300ms\"")
        .route("public", "/public", "public")
        .start()
        .await;
    let begun = Instant::now();
    get(&gateway, "/public", &[])
        .await
        .refused(502, "upstream_unreachable");
    let took = begun.elapsed();
    assert!(
        took >= Duration::from_millis(300) && took < Duration::from_secs(8),
        "{took:?}"
    );
    drop(held);
}

#[tokio::test]
async fn up_3_an_upstream_that_never_answers_is_504() {
    let upstream = Upstream::scripted(|_| Reply(vec![Step::Hang])).await;
    let gateway = Site::bare()
        .upstream("legacy", &format!("http://{}", upstream.address))
        .on_upstream("response_timeout", "\"300ms\"")
        .route("public", "/public", "public")
        .start()
        .await;
    let begun = Instant::now();
    get(&gateway, "/public", &[])
        .await
        .refused(504, "upstream_timeout");
    H2::connect(&gateway)
        .await
        .get("/public", &[])
        .await
        .refused(504, "upstream_timeout");
    assert!(begun.elapsed() >= Duration::from_millis(600));
    // What timed out is not used again (UP-1).
    upstream
        .until("the connections to end", |upstream| upstream.open() == 0)
        .await;
}

#[tokio::test]
async fn up_3_an_upstream_that_closes_without_an_answer_is_502() {
    for steps in [
        vec![Step::Close],
        vec![Step::Reset],
        vec![Step::Send(b"HTTP/1.1 200".to_vec()), Step::Close],
        vec![
            Step::Send(b"HTTP/1.1 200 OK\r\nx: y\r\n".to_vec()),
            Step::Close,
        ],
    ] {
        let shown = format!("{steps:?}");
        let upstream = Upstream::scripted(move |_| Reply(steps.clone())).await;
        let gateway = gateway(&upstream).await;
        let mut raw = Raw::connect(&gateway).await;
        let answer = raw.exchange(request("POST", "/public", &[], "once")).await;
        assert_eq!(answer.status, 502, "{shown}");
        answer.code();
        // Not sent again: the upstream may have acted on it (UP-2).
        assert_eq!(upstream.count(), 1, "{shown}");
    }
}

#[tokio::test]
async fn up_3_an_answer_cut_short_is_an_error_at_the_client() {
    let whole = [
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
    ];
    let bodies = ["", "abc", "abcdefghi"];
    let chunked = ["", "3\r\nab", "3\r\nabc\r\n", "3\r\nabc\r\n0\r\n"];
    let cases = bodies
        .iter()
        .map(|body| format!("{}{body}", whole[0]))
        .chain(chunked.iter().map(|body| format!("{}{body}", whole[1])));
    for bytes in cases {
        for end in [Step::Close, Step::Reset] {
            let (script, last) = (bytes.clone(), end.clone());
            // The pause lets the head leave before the end comes.
            let upstream = Upstream::scripted(move |_| {
                Reply(vec![
                    Step::Send(script.clone().into_bytes()),
                    Step::Pause(Duration::from_millis(50)),
                    last.clone(),
                ])
            })
            .await;
            let gateway = gateway(&upstream).await;
            let mut raw = Raw::connect(&gateway).await;
            raw.send(request("GET", "/public", &[], "")).await;
            let outcome = raw.try_answer().await;
            assert!(
                matches!(&outcome, Err(Broken::Cut(_) | Broken::Closed))
                    || matches!(&outcome, Ok(answer) if answer.status == 502),
                "{bytes:?} {end:?}: {outcome:?}"
            );
            let mut h2 = H2::connect(&gateway).await;
            let outcome = h2
                .send(
                    http::Request::get("https://localhost/public")
                        .body(full(""))
                        .unwrap(),
                )
                .await;
            assert!(
                matches!(&outcome, Err(Broken::Cut(_)))
                    || matches!(&outcome, Ok(answer) if answer.status == 502),
                "{bytes:?} {end:?} over HTTP/2: {outcome:?}"
            );
        }
    }
}

#[tokio::test]
async fn up_3_a_cut_answer_is_logged_as_such() {
    let upstream = Upstream::scripted(|_| {
        Reply::raw_and_close("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc")
    })
    .await;
    let gateway = gateway(&upstream).await;
    let mut raw = Raw::connect(&gateway).await;
    raw.send(request("GET", "/public/cut", &[], "")).await;
    let _ = raw.try_answer().await;
    let line = gateway
        .access_line(|line| line["path"] == "/public/cut")
        .await;
    assert_eq!(line["ending"], "upstream_aborted", "{line}");
}

#[tokio::test]
async fn up_1_a_connection_with_unread_bytes_is_not_used_again() {
    let extra = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nstolen";
    for first in [
        format!("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc{extra}"),
        format!("HTTP/1.1 204 No Content\r\n\r\n{extra}"),
        format!("HTTP/1.1 304 Not Modified\r\n\r\n{extra}"),
        format!(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n{extra}"
        ),
        "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabcdefghij".to_owned(),
    ] {
        let script = first.clone();
        let upstream = Upstream::scripted(move |seen| match &*seen.target {
            "/public/first" => Reply::raw(script.clone()),
            target => Reply::ok(&format!("mine {target}")),
        })
        .await;
        let gateway = gateway(&upstream).await;
        let mut raw = Raw::connect(&gateway).await;
        raw.exchange(request("GET", "/public/first", &[], "")).await;
        for number in 0..5 {
            let target = format!("/public/{number}");
            let answer = get(&gateway, &target, &[]).await;
            let own = answer.status == 502 || answer.text() == format!("mine {target}");
            assert!(own, "{first:?}: {} {:?}", answer.status, answer.text());
        }
    }
}

#[tokio::test]
async fn up_1_an_answer_before_the_body_was_sent_ends_the_connection() {
    let upstream = Upstream::scripted(|seen| match &*seen.target {
        "/public/early" => Reply(vec![
            Step::Early,
            Step::Send(b"HTTP/1.1 403 No\r\ncontent-length: 2\r\n\r\nno".to_vec()),
            Step::Hang,
        ]),
        _ => Reply::ok("mine"),
    })
    .await;
    let gateway = gateway(&upstream).await;
    let mut raw = Raw::connect(&gateway).await;
    raw.send(
        "POST /public/early HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\nabc",
    )
    .await;
    assert_eq!(raw.answer().await.status, 403);
    drop(raw);
    assert_eq!(get(&gateway, "/public/next", &[]).await.text(), "mine");
    let seen = upstream.seen();
    assert_ne!(seen[0].connection, seen.last().unwrap().connection);
}

#[tokio::test]
async fn up_1_crossed_answers_never_reach_another_client() {
    let counter = Arc::new(AtomicUsize::new(0));
    let upstream = Upstream::scripted(move |seen| {
        let body = format!("for {}", seen.target);
        let good = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        match counter.fetch_add(1, Ordering::Relaxed) % 7 {
            0 => Reply::raw(format!("{good}{good}")),
            1 => Reply::raw(format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
                body.len() - 2
            )),
            2 => Reply::raw_and_close(format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
                body.len() + 5
            )),
            3 => Reply::raw_and_close(format!("HTTP/1.1 200 OK\r\n\r\n{body}")),
            _ => Reply::raw(good),
        }
    })
    .await;
    let gateway = gateway(&upstream).await;
    let clients = (0..20).map(|client| {
        let gateway = &gateway;
        async move {
            for number in 0..10 {
                let target = format!("/public/{client}/{number}");
                let mut raw = Raw::connect(gateway).await;
                raw.send(request("GET", &target, &[], "")).await;
                match raw.try_answer().await {
                    Ok(answer) if answer.status == 502 => {}
                    Ok(answer) => {
                        let whole = format!("for {target}");
                        // A length that lies low cuts the client's own answer and nobody else's.
                        assert!(
                            whole.starts_with(&answer.text())
                                && answer.text().len() >= whole.len() - 2,
                            "{target}: {:?}",
                            answer.text()
                        );
                    }
                    Err(Broken::Malformed(fault)) => panic!("{target}: {fault}"),
                    Err(_) => {}
                }
            }
        }
    });
    futures_util::future::join_all(clients).await;
}

#[tokio::test]
async fn up_2_a_kept_connection_that_has_died_is_replaced_unseen() {
    // Closes every connection after its first answer, without saying so.
    let upstream = Upstream::scripted(|_| {
        Reply(vec![
            Step::Send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_vec()),
            Step::Close,
        ])
    })
    .await;
    let gateway = gateway(&upstream).await;
    let mut raw = Raw::connect(&gateway).await;
    for number in 0..30 {
        let bytes = match number % 3 {
            0 => request("GET", "/public", &[], ""),
            1 => request("POST", "/public", &[], "a body"),
            _ => request(
                "POST",
                "/public",
                &[("Transfer-Encoding", "chunked")],
                "6\r\na body\r\n0\r\n\r\n",
            ),
        };
        let answer = raw.exchange(bytes).await;
        assert_eq!(
            (answer.status, &*answer.text()),
            (200, "ok"),
            "request {number}"
        );
    }
    assert_eq!(upstream.count(), 30, "a request was executed twice");
    assert!(upstream.seen().iter().all(|seen| seen.complete));
}

#[tokio::test]
async fn up_2_a_request_that_was_seen_is_not_sent_again() {
    let upstream = Upstream::scripted(|seen| match seen.connection {
        1 if seen.target == "/public/second" => Reply(vec![Step::Reset]),
        _ => Reply::ok("ok"),
    })
    .await;
    let gateway = gateway(&upstream).await;
    get(&gateway, "/public/first", &[]).await.is(200);
    let mut raw = Raw::connect(&gateway).await;
    let answer = raw
        .exchange(request("POST", "/public/second", &[], "pay once"))
        .await;
    assert_eq!(answer.status, 502);
    assert_eq!(upstream.count(), 2);
}

#[tokio::test]
async fn connections_are_used_again() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    for _ in 0..20 {
        get(&gateway, "/public", &[]).await.is(200);
    }
    assert!(
        upstream.connections() <= 2,
        "{} connections for 20 requests",
        upstream.connections()
    );
}

#[tokio::test]
async fn up_8_bodies_stream_both_ways_as_they_come() {
    let upstream = Upstream::scripted(|_| Reply(vec![Step::Echo])).await;
    let gateway = gateway(&upstream).await;
    let mut raw = Raw::connect(&gateway).await;
    raw.send("POST /public HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    // The head comes before the first byte of the body is sent, each byte before the next.
    let head = raw.head().await;
    assert_eq!(head.start, "HTTP/1.1 200 OK");
    for word in ["alpha", "bravo", "charlie"] {
        raw.send(format!("{:x}\r\n{word}\r\n", word.len())).await;
        let mut heard = String::new();
        while !heard.contains(word) {
            let some = raw.some().await;
            assert!(!some.is_empty(), "the answer ended");
            heard.push_str(&String::from_utf8_lossy(&some));
        }
    }
    raw.send("0\r\n\r\n").await;
    assert!(String::from_utf8_lossy(&raw.some().await).ends_with("0\r\n\r\n"));
    upstream.saw_no_fault();
}

#[tokio::test]
async fn up_8_large_bodies_pass_in_flat_memory() {
    const SIZE: usize = 100 << 20;
    const PIECE: usize = 1 << 16;
    let upstream = Upstream::scripted(|seen| match &*seen.method {
        "GET" => Reply(vec![
            Step::Send(format!("HTTP/1.1 200 OK\r\ncontent-length: {SIZE}\r\n\r\n").into_bytes()),
            Step::Repeat(vec![b'd'; PIECE], SIZE / PIECE),
        ]),
        _ => Reply::ok("thanks"),
    })
    .await;
    let gateway = site(&upstream)
        .route("big", "/big", "public")
        .on_route("max_body", "\"200MiB\"")
        .start()
        .await;
    get(&gateway, "/public", &[]).await;
    let before = gateway.memory();
    let mut h2 = H2::connect(&gateway).await;
    let pieces = futures_util::stream::iter(
        (0..SIZE / PIECE).map(|_| Ok(Frame::data(Bytes::from(vec![b'u'; PIECE])))),
    );
    let upload = http::Request::post("https://localhost/big")
        .body(StreamBody::new(pieces).boxed())
        .unwrap();
    assert_eq!(h2.send(upload).await.unwrap().text(), "thanks");
    assert_eq!(upstream.last().body_length, u64::try_from(SIZE).unwrap());
    let answer = get(&gateway, "/big", &[]).await;
    assert_eq!(answer.body.len(), SIZE);
    let grown = gateway.memory().saturating_sub(before);
    assert!(grown < 24 << 10, "{grown} KiB more");
}

#[tokio::test]
async fn up_8_a_client_that_does_not_read_holds_the_upstream_back() {
    let upstream = Upstream::scripted(|_| {
        Reply(vec![
            Step::Send(b"HTTP/1.1 200 OK\r\ncontent-length: 209715200\r\n\r\n".to_vec()),
            Step::Repeat(vec![b'd'; 1 << 16], 3200),
        ])
    })
    .await;
    let gateway = gateway(&upstream).await;
    let before = gateway.memory();
    let mut raw = Raw::connect(&gateway).await;
    raw.send(request("GET", "/public", &[], "")).await;
    raw.head().await;
    // Other clients are served while this one sleeps over its answer.
    for _ in 0..20 {
        gateway.admin("/healthz").await;
    }
    let grown = gateway.memory().saturating_sub(before);
    assert!(grown < 24 << 10, "{grown} KiB more");
    drop(raw);
    upstream
        .until("the upstream to be let go", |upstream| upstream.open() == 0)
        .await;
}

/// More than the buffers of two connections hold.
const MUCH: usize = 24 << 20;

#[tokio::test]
async fn an_upload_goes_on_while_its_client_takes_nothing_of_the_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let upstream = tokio::spawn(async move {
        let (mut requests, mut answers) = listener.accept().await.unwrap().0.into_split();
        // An answer that comes before its request is none: the gateway closes the connection.
        let mut first = [0];
        requests.read_exact(&mut first).await.unwrap();
        tokio::spawn(async move {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {MUCH}\r\n\r\n");
            let _ = answers.write_all(head.as_bytes()).await;
            let _ = answers.write_all(&vec![b'd'; MUCH]).await;
        });
        let mut seen = 0;
        let mut piece = vec![0; 1 << 16];
        while seen < MUCH {
            let count = requests.read(&mut piece).await.unwrap();
            assert!(count > 0, "it ended after {seen} bytes");
            seen += piece[..count].iter().filter(|byte| **byte == b'U').count();
        }
    });
    let gateway = Site::new(address)
        .set("server", "workers", "1")
        .route("big", "/big", "public")
        .on_route("max_body", "\"200MiB\"")
        .start()
        .await;
    let mut raw = Raw::connect(&gateway).await;
    let head = format!("POST /big HTTP/1.1\r\nHost: localhost\r\nContent-Length: {MUCH}\r\n\r\n");
    raw.send(head).await;
    raw.head().await;
    raw.send(vec![b'U'; MUCH]).await;
    upstream.await.unwrap();
}

#[tokio::test]
async fn up_9_a_client_that_leaves_cancels_its_request() {
    let upstream = Upstream::scripted(|_| Reply(vec![Step::Hang])).await;
    let gateway = gateway(&upstream).await;
    let mut raw = Raw::connect(&gateway).await;
    raw.send(request("GET", "/public", &[], "")).await;
    upstream.request(1).await;
    drop(raw);
    upstream
        .until("the request to be cancelled", |upstream| {
            upstream.open() == 0
        })
        .await;
    let mut h2 = H2::connect(&gateway).await;
    let pending = h2.get("/public", &[]);
    tokio::select! {
        _ = pending => panic!("an answer from nowhere"),
        _ = upstream.request(2) => {}
    }
    drop(h2);
    upstream
        .until("the request to be cancelled", |upstream| {
            upstream.open() == 0
        })
        .await;
}

#[tokio::test]
async fn answers_without_a_body_have_none() {
    let upstream = Upstream::scripted(|seen| match (&*seen.method, &*seen.target) {
        ("HEAD", _) => Reply::raw("HTTP/1.1 200 OK\r\ncontent-length: 1234\r\nx-own: yes\r\n\r\n"),
        (_, "/public/204") => Reply::raw("HTTP/1.1 204 No Content\r\nx-own: yes\r\n\r\n"),
        (_, "/public/304") => Reply::raw("HTTP/1.1 304 Not Modified\r\netag: \"a\"\r\ncontent-length: 1234\r\nx-own: yes\r\n\r\n"),
        _ => Reply::ok("body"),
    })
    .await;
    let gateway = gateway(&upstream).await;
    let mut raw = Raw::connect(&gateway).await;
    raw.send(request("HEAD", "/public", &[], "")).await;
    let answer = raw.answer_to_head().await;
    assert_eq!(
        (answer.status, answer.header("content-length")),
        (200, Some("1234"))
    );
    for status in [204, 304] {
        let answer = raw
            .exchange(request("GET", &format!("/public/{status}"), &[], ""))
            .await;
        assert_eq!(
            (answer.status, answer.header("x-own"), answer.body.len()),
            (status, Some("yes"), 0)
        );
    }
    // The connection is still in step.
    assert_eq!(
        raw.exchange(request("GET", "/public", &[], ""))
            .await
            .text(),
        "body"
    );
    let mut h2 = H2::connect(&gateway).await;
    assert_eq!(h2.request("HEAD", "/public", &[]).await.body.len(), 0);
    assert_eq!(h2.get("/public/204", &[]).await.status, 204);
    assert_eq!(h2.get("/public/304", &[]).await.status, 304);
    assert_eq!(h2.get("/public", &[]).await.text(), "body");
}

#[tokio::test]
async fn answers_until_the_close_and_interim_answers_are_understood() {
    let upstream = Upstream::scripted(|seen| match &*seen.target {
        "/public/close" => Reply::raw_and_close("HTTP/1.1 200 OK\r\n\r\nuntil the close"),
        "/public/old" => Reply::raw_and_close("HTTP/1.0 200 OK\r\n\r\nof old"),
        _ => Reply::raw("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfinal"),
    })
    .await;
    let gateway = gateway(&upstream).await;
    assert_eq!(
        get(&gateway, "/public/close", &[]).await.text(),
        "until the close"
    );
    assert_eq!(get(&gateway, "/public/old", &[]).await.text(), "of old");
    assert_eq!(get(&gateway, "/public/hints", &[]).await.text(), "final");
    assert_eq!(
        H2::connect(&gateway)
            .await
            .get("/public/close", &[])
            .await
            .text(),
        "until the close"
    );
}

#[tokio::test]
async fn the_upstreams_host_and_base_path_are_as_configured() {
    let upstream = Upstream::start().await;
    let url = format!("http://{}/app", upstream.address);
    let gateway = Site::bare()
        .upstream("legacy", &url)
        .on_upstream("host", "\"upstream\"")
        .route("public", "/public", "public")
        .start()
        .await;
    get(&gateway, "/public/x?q=1", &[]).await.is(200);
    let seen = upstream.last();
    assert_eq!(seen.target, "/app/public/x?q=1");
    assert_eq!(
        seen.header("host").map(ToOwned::to_owned),
        Some(upstream.address.to_string())
    );
    assert_eq!(seen.header("x-forwarded-host"), Some("localhost"));
}

#[tokio::test]
async fn one_upstream_s_trouble_is_not_another_s() {
    let stop = Arc::new(Notify::new());
    let waiting = Arc::clone(&stop);
    let stuck =
        Upstream::scripted(move |_| Reply(vec![Step::Until(Arc::clone(&waiting)), Step::Close]))
            .await;
    let good = Upstream::start().await;
    let gateway = Site::bare()
        .set("server", "workers", "1")
        .upstream("legacy", &format!("http://{}", good.address))
        .upstream("stuck", &format!("http://{}", stuck.address))
        .on_upstream("max_connections", "4")
        .on_upstream("max_pending", "4")
        .on_upstream("response_timeout", "\"60s\"")
        .route("good", "/good", "public")
        .route("stuck", "/stuck", "public")
        .on_route("upstream", "\"stuck\"")
        .start()
        .await;
    let mut held = Vec::new();
    for _ in 0..8 {
        let mut raw = Raw::connect(&gateway).await;
        raw.send(request("GET", "/stuck", &[], "")).await;
        held.push(raw);
    }
    stuck
        .until("the upstream to be full", |stuck| stuck.open() == 4)
        .await;
    // Those beyond connections and queue are refused at once (UP-4).
    crate::harness::eventually("a refusal", async || {
        let mut raw = Raw::connect(&gateway).await;
        raw.send(request("GET", "/stuck", &[], "")).await;
        let answer = tokio::time::timeout(Duration::from_millis(500), raw.try_answer()).await;
        match answer {
            Ok(Ok(answer)) if answer.status == 503 => {
                assert_eq!(answer.code(), "overloaded");
                assert!(answer.header("retry-after").is_some());
                Some(())
            }
            _ => None,
        }
    })
    .await;
    for _ in 0..10 {
        get(&gateway, "/good", &[]).await.is(200);
    }
    assert!(
        stuck.connections() <= 4,
        "{} connections",
        stuck.connections()
    );
    stop.notify_waiters();
}
