//! `Expect: 100-continue`, which ends at the gateway, and interim answers that nobody asked for (MSG-12).

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use crate::harness::{
    Gateway, H2, Raw, Reply, Site, Step, Upstream,
    client::full,
    frames::{Frames, Outcome},
    get, request,
};

async fn gateway(upstream: &Upstream) -> Gateway {
    Site::new(upstream.address)
        .set("server", "workers", "1")
        .start()
        .await
}

const EXPECT: (&str, &str) = ("Expect", "100-continue");

#[tokio::test]
async fn msg_12_expectations_end_at_the_gateway() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let mut raw = Raw::connect(&gateway).await;
    let head = request(
        "POST",
        "/public",
        &[("Expect", "100-continue"), ("Content-Length", "5")],
        "",
    );
    raw.send(head).await;
    assert_eq!(raw.head().await.start, "HTTP/1.1 100 Continue");
    raw.send("abcde").await;
    raw.answer().await.is(200);
    assert_eq!(&*upstream.last().body, b"abcde");
    assert_eq!(upstream.last().header("expect"), None);
    let count = upstream.count();
    for value in ["100-continued", "200-ok", "x"] {
        let mut raw = Raw::connect(&gateway).await;
        raw.exchange(request("POST", "/public", &[("Expect", value)], "abcde"))
            .await
            .refused(417, "expectation_failed");
    }
    assert_eq!(upstream.count(), count);
}

#[tokio::test]
async fn msg_12_a_refused_request_is_not_asked_for_its_body() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let mut raw = Raw::connect(&gateway).await;
    let head = request(
        "POST",
        "/private",
        &[("Expect", "100-continue"), ("Content-Length", "5")],
        "",
    );
    let answer = raw.exchange(head).await;
    assert_eq!(answer.status, 401);
    assert!(answer.interim.is_empty(), "{:?}", answer.interim);
    upstream.saw_nothing();
}

/// What the upstream says before it has read the body, and after it.
fn upstream_that_says(early: &'static str, late: &'static str) -> impl Future<Output = Upstream> {
    Upstream::scripted(move |seen| match &*seen.target {
        "/public/odd" => {
            let mut steps = Vec::new();
            if !early.is_empty() {
                steps.push(Step::Early);
                steps.push(Step::Send(early.as_bytes().to_vec()));
            }
            if !late.is_empty() {
                steps.push(Step::ReadBody);
                steps.push(Step::Send(late.as_bytes().to_vec()));
            }
            Reply(steps)
        }
        _ => Reply::ok("mine"),
    })
}

const FINAL: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfinal";
const REFUSAL: &str = "HTTP/1.1 401 No\r\ncontent-length: 2\r\n\r\nno";
const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";
const TWICE: &str = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n";
const TWICE_AND_FINAL: &str = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n\
    HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfinal";
const PROCESSING: &str = "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n";

#[tokio::test]
async fn msg_12_whatever_the_upstream_says_the_client_gets_one_final_answer() {
    for (early, late, status) in [
        (REFUSAL, "", 401),
        (FINAL, "", 200),
        ("", FINAL, 200),
        (CONTINUE, FINAL, 200),
        (TWICE, FINAL, 200),
        (PROCESSING, FINAL, 200),
    ] {
        let what = format!("{early:?} {late:?}");
        let upstream = upstream_that_says(early, late).await;
        let gateway = gateway(&upstream).await;
        let mut raw = Raw::connect(&gateway).await;
        let fields = [EXPECT, ("Content-Length", "5")];
        raw.send(request("POST", "/public/odd", &fields, "")).await;
        upstream.request(1).await;
        // A client need not wait for ever: it sends its body all the same (RFC 9110 §10.1.1).
        raw.send("abcde").await;
        let answer = raw.answer().await;
        assert_eq!(answer.status, status, "{what}");
        assert!(answer.interim.iter().all(|status| *status == 100), "{what}");
        assert!(answer.interim.len() <= 1, "{what}: {:?}", answer.interim);
        assert_eq!(upstream.seen()[0].header("expect"), None, "{what}");
        // The next one on the pool, and the next one on the client's connection if it is kept.
        assert_eq!(
            get(&gateway, "/public/next", &[]).await.text(),
            "mine",
            "{what}"
        );
        raw.send(request("GET", "/public/next", &[], "")).await;
        if let Ok(answer) = raw.try_answer().await {
            assert_eq!(answer.text(), "mine", "{what}");
        }
        let mut h2 = H2::connect(&gateway).await;
        let post = http::Request::post("https://localhost/public/odd")
            .header(EXPECT.0, EXPECT.1)
            .body(full("abcde"))
            .unwrap();
        assert_eq!(h2.send(post).await.unwrap().status, status, "{what}");
        assert_eq!(h2.get("/public/next", &[]).await.text(), "mine", "{what}");
    }
}

#[tokio::test]
async fn msg_12_a_connection_whose_promised_body_was_not_sent_is_not_used_again() {
    let upstream = upstream_that_says(REFUSAL, "").await;
    let gateway = gateway(&upstream).await;
    let mut raw = Raw::connect(&gateway).await;
    let fields = [EXPECT, ("Content-Length", "1000000")];
    raw.send(request("POST", "/public/odd", &fields, "")).await;
    assert_eq!(raw.answer().await.status, 401);
    // The client saw the refusal and sends nothing of its body.
    assert_eq!(get(&gateway, "/public/next", &[]).await.text(), "mine");
    let seen = upstream.seen();
    assert_ne!(seen[0].connection, seen[1].connection);
    assert!(!seen[0].complete);
    upstream
        .until("the unfinished request to end", |upstream| {
            upstream.open() <= 1
        })
        .await;
}

#[tokio::test]
async fn msg_12_an_interim_answer_for_ever_is_no_answer() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let upstream = Upstream::scripted(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        Reply(vec![
            Step::Repeat(CONTINUE.as_bytes().to_vec(), 1000),
            Step::Hang,
        ])
    })
    .await;
    let gateway = Site::bare()
        .upstream("legacy", &format!("http://{}", upstream.address))
        .on_upstream("response_timeout", "\"500ms\"")
        .route("public", "/public", "public")
        .start()
        .await;
    get(&gateway, "/public", &[])
        .await
        .refused(504, "upstream_timeout");
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

/// The fields of a POST over HTTP/2 that promises five bytes and expects something.
fn expecting(path: &'static [u8], what: &'static [u8]) -> [(&'static [u8], &'static [u8]); 6] {
    [
        (b":method", b"POST"),
        (b":scheme", b"https"),
        (b":authority", b"localhost"),
        (b":path", path),
        (b"content-length", b"5"),
        (b"expect", what),
    ]
}

/// The library under the server can send no interim answer over HTTP/2. A proxy may begin to forward instead of sending a
/// `100 Continue` (RFC 9110 §10.1.1), so a client that waits for one keeps nobody from deciding.
#[tokio::test]
async fn msg_12_over_http_2_a_request_goes_on_before_its_body_and_gets_one_head() {
    let upstream = upstream_that_says("", TWICE_AND_FINAL).await;
    let gateway = gateway(&upstream).await;
    let mut frames = Frames::connect(&gateway).await;
    frames
        .begin(1, &expecting(b"/public/odd", b"100-continue"))
        .await;
    let seen = upstream.request(1).await;
    assert_eq!(seen.header("expect"), None);
    assert!(!seen.complete);
    frames.last_data(1, b"abcde").await;
    assert_eq!(frames.whole(1).await, (1, b"final".to_vec()));
    assert_eq!(&*upstream.last().body, b"abcde");
    // The connection is as good as before.
    frames
        .begin(3, &expecting(b"/public/odd", b"100-continue"))
        .await;
    frames.last_data(3, b"fghij").await;
    assert_eq!(frames.whole(3).await, (1, b"final".to_vec()));
    assert_eq!(&*upstream.last().body, b"fghij");
}

#[tokio::test]
async fn msg_12_over_http_2_a_refused_request_is_told_so_and_not_asked_for_its_body() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    for (path, what, status) in [
        (&b"/private"[..], &b"100-continue"[..], 401),
        (b"/public", b"100-continued", 417),
        (b"/public", b"200-ok", 417),
    ] {
        let mut frames = Frames::connect(&gateway).await;
        frames.begin(1, &expecting(path, what)).await;
        assert_eq!(frames.outcome(1).await, Outcome::Status(status));
    }
    upstream.saw_nothing();
}
