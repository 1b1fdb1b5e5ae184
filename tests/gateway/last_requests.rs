//! The end of a connection whose client has said that it sends nothing more: nobody waits for it, and nothing of the answer is lost.

use std::time::Duration;

use crate::harness::{Raw, Reply, Site, Step, Upstream, request};

const CLOSE: (&str, &str) = ("Connection", "close");

#[tokio::test]
async fn a_last_answer_comes_whole_before_its_connection_ends() {
    // More than the sockets on the way hold.
    let long = "x".repeat(4 << 20);
    let body = long.clone();
    let upstream = Upstream::scripted(move |seen| {
        let body = if seen.target.ends_with("long") {
            &body
        } else {
            "short"
        };
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
        Reply(vec![
            Step::Send(head.into()),
            Step::Send(body.as_bytes().to_vec()),
        ])
    })
    .await;
    let gateway = Site::new(upstream.address).start().await;
    for (target, expected) in [("/public/short", "short"), ("/public/long", &long)] {
        let mut raw = Raw::connect(&gateway).await;
        raw.send(request("GET", target, &[CLOSE], "")).await;
        let answer = raw.answer().await;
        assert_eq!(answer.is(200).text().len(), expected.len(), "{target}");
        assert_eq!(raw.end().await.as_deref(), Some(&b""[..]), "{target}");
    }
}

#[tokio::test]
async fn up_3_a_last_answer_that_is_cut_never_ends_well() {
    let upstream = Upstream::scripted(|_| {
        let cut = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n01234";
        Reply(vec![Step::Send(cut.into()), Step::Close])
    })
    .await;
    let gateway = Site::new(upstream.address).start().await;
    let mut raw = Raw::connect(&gateway).await;
    raw.send(request("GET", "/public", &[CLOSE], "")).await;
    assert!(raw.try_answer().await.is_err());
}

#[tokio::test]
async fn a_client_that_sends_on_after_its_last_request_still_reads_the_answer() {
    let upstream = Upstream::scripted(|_| Reply::ok("answered")).await;
    let gateway = Site::new(upstream.address).start().await;
    let mut raw = Raw::connect(&gateway).await;
    let both = [
        request("GET", "/public/first", &[CLOSE], ""),
        request("GET", "/public/second", &[], ""),
    ];
    raw.send(both.concat()).await;
    assert_eq!(raw.answer().await.is(200).text(), "answered");
    assert_eq!(raw.end().await.as_deref(), Some(&b""[..]));
    assert_eq!(upstream.request(1).await.target, "/public/first");
}

#[tokio::test]
async fn a_client_that_speaks_while_a_long_last_answer_is_on_its_way_reads_all_of_it() {
    let body = "x".repeat(600 << 10);
    let expected = body.len();
    let upstream = Upstream::scripted(move |_| Reply::ok(&body)).await;
    let gateway = Site::new(upstream.address).start().await;
    let mut raw = Raw::connect(&gateway).await;
    raw.send(request("GET", "/public", &[CLOSE], "")).await;
    upstream.request(1).await;
    // By then the gateway has written what the sockets take, and the client has read nothing.
    tokio::time::sleep(Duration::from_millis(200)).await;
    raw.send("against its word").await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(raw.answer().await.is(200).text().len(), expected);
}
