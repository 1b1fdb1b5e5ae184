//! Interim answers of upstreams: what goes on to whom, and that none is ever inside another answer (MSG-14).

use std::sync::Arc;

use tokio::sync::Notify;

use crate::harness::{
    Gateway, H2, Raw, Reply, Site, Step, Upstream, client::full, frames::Frames, get, request,
};

const HINTS: &str = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nConnection: x-hop\r\n\
    X-Hop: 1\r\nSet-Cookie: __Host-portcullis-session=stolen\r\nX-Secret: inner\r\n\
    Link: </b.js>; rel=preload\r\n\r\n";
const FINAL: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfinal";

fn send(text: &str) -> Step {
    Step::Send(text.as_bytes().to_vec())
}

async fn hinting(upstream: &Upstream) -> Gateway {
    Site::bare()
        .set("server", "workers", "1")
        .upstream("legacy", &format!("http://{}", upstream.address))
        .on_upstream("early_hints", "true")
        .route("public", "/public", "public")
        .start()
        .await
}

/// An upstream that gives hints, and its answer when it is told to.
async fn hesitant() -> (Upstream, Arc<Notify>) {
    let go_on = Arc::new(Notify::new());
    let until = Arc::clone(&go_on);
    let upstream = Upstream::scripted(move |_| {
        Reply(vec![
            send(HINTS),
            Step::Until(Arc::clone(&until)),
            send(FINAL),
        ])
    })
    .await;
    (upstream, go_on)
}

#[tokio::test]
async fn msg_14_hints_reach_the_client_before_the_answer_is_there() {
    let (upstream, go_on) = hesitant().await;
    let gateway = hinting(&upstream).await;
    let mut raw = Raw::connect(&gateway).await;
    let expecting = [("Expect", "100-continue"), ("Content-Length", "4")];
    for fields in [&[][..], &expecting, &[("Content-Length", "4")]] {
        let method = if fields.is_empty() { "GET" } else { "POST" };
        raw.send(request(method, "/public", fields, "")).await;
        if !fields.is_empty() {
            raw.send("body").await;
        }
        let mut head = raw.head().await;
        if fields.len() == 2 {
            assert_eq!(head.start, "HTTP/1.1 100 Continue");
            head = raw.head().await;
        }
        assert_eq!(head.start, "HTTP/1.1 103 Early Hints");
        let links = ["</a.css>; rel=preload", "</b.js>; rel=preload"];
        assert_eq!(head.values("link"), links);
        assert_eq!(head.names(), ["link", "link"]);
        go_on.notify_one();
        let answer = raw.answer().await;
        assert_eq!(answer.is(200).text(), "final");
        assert!(answer.interim.is_empty(), "{:?}", answer.interim);
    }
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn msg_14_hints_are_for_clients_that_know_them_and_routes_that_want_them() {
    let upstream = Upstream::scripted(|_| Reply(vec![send(HINTS), send(FINAL)])).await;
    let gateway = hinting(&upstream).await;
    assert_eq!(get(&gateway, "/public", &[]).await.interim, [103]);
    let mut old = Raw::connect(&gateway).await;
    let answer = old
        .exchange("GET /public HTTP/1.0\r\nHost: localhost\r\n\r\n")
        .await;
    assert_eq!(
        (answer.is(200).text(), answer.interim.len()),
        ("final".into(), 0)
    );
    let mut h2 = H2::connect(&gateway).await;
    assert_eq!(h2.get("/public", &[]).await.text(), "final");
    let post = http::Request::post("https://localhost/public").body(full("abc"));
    assert_eq!(h2.send(post.unwrap()).await.unwrap().status, 200);
    let silent = Site::new(upstream.address).start().await;
    let answer = get(&silent, "/public", &[]).await;
    assert_eq!(
        (answer.is(200).text(), answer.interim.len()),
        ("final".into(), 0)
    );
}

#[tokio::test]
async fn msg_14_hints_are_few_and_short() {
    let upstream = Upstream::scripted(|seen| {
        let first = match &*seen.target {
            "/public/many" => Step::Repeat(HINTS.as_bytes().to_vec(), 500),
            "/public/odd" => send("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 199 Odd\r\n\r\n"),
            _ => {
                let long = "x".repeat(5000);
                send(&format!(
                    "HTTP/1.1 103 Early Hints\r\nLink: <{long}>\r\n\r\n"
                ))
            }
        };
        Reply(vec![first, send(FINAL)])
    })
    .await;
    let gateway = hinting(&upstream).await;
    let mut raw = Raw::connect(&gateway).await;
    for (target, interim) in [
        ("/public/many", vec![103; 4]),
        ("/public/long", vec![]),
        ("/public/odd", vec![199]),
    ] {
        let answer = raw.exchange(request("GET", target, &[], "")).await;
        assert_eq!(answer.is(200).text(), "final", "{target}");
        assert_eq!(answer.interim, interim, "{target}");
    }
}

#[tokio::test]
async fn msg_14_hints_are_never_inside_another_answer() {
    const LONG: usize = 6 << 20;
    let upstream = Upstream::scripted(|seen| {
        let body = match &*seen.target {
            "/public/long" => "x".repeat(LONG),
            _ => "short".to_owned(),
        };
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
        Reply(vec![send(HINTS), send(&head), send(&body)])
    })
    .await;
    let gateway = hinting(&upstream).await;
    let mut raw = Raw::connect(&gateway).await;
    let long = request("GET", "/public/long", &[], "");
    let upload = request("POST", "/public/long", &[], "some body");
    let short = request("GET", "/public/short", &[], "");
    // All at once: the client reads nothing before the last one is sent.
    raw.send([&*long, &short, &upload, &short, &short, &long].concat())
        .await;
    for is_long in [true, false, true, false, false, true] {
        let answer = raw.answer().await;
        assert_eq!(answer.status, 200);
        assert!(answer.interim.len() <= 1, "{:?}", answer.interim);
        if is_long {
            assert_eq!(answer.body.len(), LONG);
            assert!(answer.body.iter().all(|byte| *byte == b'x'));
        } else {
            assert_eq!(answer.text(), "short");
        }
    }
    assert_eq!(upstream.count(), 6);
}

#[tokio::test]
async fn msg_14_over_http_2_hints_are_dropped_whole_and_the_answer_is_as_without_them() {
    let upstream =
        Upstream::scripted(|_| Reply(vec![Step::Repeat(HINTS.into(), 3), send(FINAL)])).await;
    let gateway = hinting(&upstream).await;
    let fields: [(&[u8], &[u8]); 4] = [
        (b":method", b"GET"),
        (b":scheme", b"https"),
        (b":authority", b"localhost"),
        (b":path", b"/public"),
    ];
    let mut frames = Frames::connect(&gateway).await;
    for id in [1, 3, 5] {
        frames.request(id, &fields, None).await;
        // One head, and its body.
        assert_eq!(frames.whole(id).await, (1, b"final".to_vec()));
    }
    assert_eq!(upstream.count(), 3);
    // The same upstream to a client that is told of them.
    let told = get(&gateway, "/public", &[]).await;
    assert_eq!(told.interim, [103, 103, 103]);
}
