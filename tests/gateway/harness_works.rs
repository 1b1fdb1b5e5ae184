//! The harness itself: an upstream that misses a fault, or a token that is not what it says, would make every other test
//! worthless.

use jsonwebtoken::{DecodingKey, Validation};
use serde_json::Value;

use crate::harness::{
    Broken, Kind, Raw, Reply, Step, Token, Upstream,
    http1::Framing,
    keys::{AUDIENCE, keys},
    request,
};

async fn received(bytes: &str) -> Upstream {
    let upstream = Upstream::start().await;
    let mut raw = Raw::plain(upstream.address).await;
    raw.send(bytes).await;
    let _ = raw.try_answer().await;
    upstream
}

#[tokio::test]
async fn ambiguous_requests_are_faults_at_the_upstream() {
    for bytes in [
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\nx",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +1\r\n\r\nx",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\nhost: a\n\n",
        "GET / HTTP/1.1\r\nhost : a\r\n\r\n",
        "GET / HTTP/1.1\r\n folded: a\r\n\r\n",
        "GET /a b HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.0\r\nhost: a\r\n\r\n",
        "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1;x=y\r\nx\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n01\r\nx\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\nx\r\n0\r\n\r\n",
    ] {
        let upstream = received(bytes).await;
        let result =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| upstream.saw_no_fault()));
        assert!(result.is_err(), "no fault seen in {bytes:?}");
    }
}

#[tokio::test]
async fn bodies_are_recorded_whatever_their_framing() {
    let upstream = received("POST /a HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc").await;
    let seen = upstream.last();
    assert_eq!(
        (&*seen.body, seen.framing, seen.complete),
        (&b"abc"[..], Framing::Length(3), true)
    );

    let upstream = received("POST /a HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\nX-T: v\r\n\r\n").await;
    let seen = upstream.last();
    assert_eq!(
        (&*seen.body, seen.framing, seen.complete),
        (&b"abc"[..], Framing::Chunked, true)
    );
    assert_eq!(seen.trailers, [("x-t".to_owned(), "v".to_owned())]);
    upstream.saw_no_fault();
}

#[tokio::test]
async fn a_body_cut_short_is_not_complete() {
    let upstream = Upstream::start().await;
    let mut raw = Raw::plain(upstream.address).await;
    raw.send("POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\nabc")
        .await;
    upstream
        .until("three bytes", |upstream| {
            upstream.count() == 1 && upstream.last().body_length == 3
        })
        .await;
    drop(raw);
    upstream
        .until("the end", |upstream| upstream.open() == 0)
        .await;
    assert!(!upstream.last().complete);
}

#[tokio::test]
async fn answers_cut_short_are_errors_at_the_client() {
    for bytes in [
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabc",
    ] {
        let upstream = Upstream::scripted(move |_| Reply::raw_and_close(bytes)).await;
        let mut raw = Raw::plain(upstream.address).await;
        raw.send(request("GET", "/", &[], "")).await;
        let answer = raw.try_answer().await;
        assert!(
            matches!(answer, Err(Broken::Cut(_))),
            "{bytes:?}: {answer:?}"
        );
    }
    let upstream = Upstream::scripted(|_| Reply(vec![Step::Close])).await;
    let mut raw = Raw::plain(upstream.address).await;
    raw.send(request("GET", "/", &[], "")).await;
    assert!(matches!(raw.try_answer().await, Err(Broken::Closed)));
}

#[tokio::test]
async fn an_echo_streams() {
    let upstream = Upstream::scripted(|_| Reply(vec![Step::Echo])).await;
    let mut raw = Raw::plain(upstream.address).await;
    raw.send("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n")
        .await;
    raw.head().await;
    assert!(String::from_utf8_lossy(&raw.some().await).contains("abc"));
}

#[test]
fn tokens_are_what_they_say() {
    for kind in Kind::ALL {
        let key = match kind {
            Kind::Ed => DecodingKey::from_ed_pem(kind.public_key().unwrap().as_bytes()).unwrap(),
            Kind::Es => DecodingKey::from_ec_pem(kind.public_key().unwrap().as_bytes()).unwrap(),
            Kind::Hs => DecodingKey::from_secret(keys().secret.as_bytes()),
            Kind::Ps | Kind::Rs => {
                DecodingKey::from_rsa_pem(kind.public_key().unwrap().as_bytes()).unwrap()
            }
        };
        let mut validation = Validation::new(kind.algorithm().parse().unwrap());
        validation.set_audience(&[AUDIENCE]);
        validation.set_issuer(&[kind.issuer()]);
        let token = Token::new(kind).claim("roles", vec!["admin"]).sign();
        let data = jsonwebtoken::decode::<Value>(&token, &key, &validation).unwrap();
        assert_eq!(data.claims["roles"][0], "admin");
    }
}
