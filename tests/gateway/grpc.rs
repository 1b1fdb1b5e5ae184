//! gRPC: refusals that its clients can read.

use http::Method;

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use h2::Reason;
use http::HeaderMap;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use crate::harness::{
    Gateway, H2, Kind, Raw, Site, Token, Upstream, Wire,
    client::{Body, full},
    http1::Answer,
    keys::bearer,
    request,
    streams::{Deed, Streams},
    within,
};

async fn call(h2: &mut H2, target: &str, fields: &[(&str, &str)]) -> Answer {
    let mut builder = http::Request::builder()
        .method(Method::POST)
        .uri(format!("https://localhost{target}"))
        .header("content-type", "application/grpc+proto")
        .header("te", "trailers");
    for (name, value) in fields {
        builder = builder.header(*name, *value);
    }
    let request = builder.body(full(&b"\0\0\0\0\0"[..])).unwrap();
    h2.send(request).await.unwrap()
}

#[tokio::test]
async fn a_refused_call_has_a_status_of_grpc() {
    let upstream = Upstream::start().await;
    let gateway = Site::new(upstream.address).start().await;
    let mut h2 = H2::connect(&gateway).await;
    let plain = bearer(&Token::good().without("roles").sign());
    let bad = bearer(&format!("{}x", Token::good().sign()));
    for (target, authorization, status, code) in [
        ("/private/a.B/C", None, "16", "credentials_missing"),
        ("/private/a.B/C", Some(&*bad), "16", "token_invalid"),
        ("/admin/a.B/C", Some(&*plain), "7", "role_missing"),
        ("/nowhere", None, "12", "route_not_found"),
        ("/private/%2e%2e", None, "13", "ambiguous_path"),
    ] {
        let fields: Vec<_> = authorization
            .iter()
            .map(|text| ("authorization", *text))
            .collect();
        let answer = call(&mut h2, target, &fields).await;
        assert_eq!(answer.status, 200, "{target}");
        assert_eq!(answer.header("content-type"), Some("application/grpc"));
        assert_eq!(answer.header("grpc-status"), Some(status), "{code}");
        assert!(!answer.header("grpc-message").unwrap().is_empty());
        assert_eq!(answer.header("content-length"), None);
        assert!(answer.body.is_empty());
        assert_eq!(answer.header("www-authenticate").is_some(), status == "16");
        let id = answer.header("x-request-id").unwrap().to_owned();
        let line = gateway.access_line(|line| line["request_id"] == *id).await;
        assert_eq!(
            (&line["code"], &line["status"]),
            (&code.into(), &200.into())
        );
    }
    upstream.saw_nothing();
    let good = bearer(&Token::good().sign());
    let answer = call(&mut h2, "/private/a.B/C", &[("authorization", &good)]).await;
    assert_eq!(answer.is(200).text(), "hello");
    assert_eq!(upstream.last().body, b"\0\0\0\0\0");
}

#[tokio::test]
async fn what_is_no_grpc_call_has_an_ordinary_refusal() {
    let upstream = Upstream::start().await;
    let gateway = Site::new(upstream.address).start().await;
    for (method, kind) in [
        ("POST", "application/grpcs"),
        ("POST", "application/json"),
        ("GET", "application/grpc"),
    ] {
        let mut raw = Raw::connect(&gateway).await;
        raw.exchange(request(method, "/private", &[("Content-Type", kind)], ""))
            .await
            .refused(401, "credentials_missing");
    }
    let mut raw = Raw::connect(&gateway).await;
    let fields = [("Content-Type", "application/grpc-web+proto")];
    let answer = raw.exchange(request("POST", "/private", &fields, "")).await;
    assert_eq!(answer.is(200).header("grpc-status"), Some("16"));
    let kind = answer.header("content-type");
    assert_eq!(kind, Some("application/grpc-web+proto"));
}

const HEAD: [(&str, &str); 2] = [("content-type", "application/grpc"), ("x-begin", "first")];
const END: [(&str, &str); 3] = [
    ("grpc-status", "0"),
    ("x-end-bin", "/gE"),
    ("grpc-message", "fine"),
];

/// A site with an upstream of HTTP/2 and a route for calls.
fn site(url: &str) -> Site {
    Site::bare()
        .set("server", "workers", "1")
        .upstream("legacy", url)
        .on_upstream("protocol", "\"h2\"")
        .issuer(Kind::Es)
        .route("calls", "/test.Calls", "authenticated")
        .on_route("trailers", "true")
}

/// Every method of the service by its name.
async fn server() -> Streams {
    Streams::on(Wire::Plain, 100, |seen| {
        let of = |fields: &[(&'static str, &'static str)]| fields.to_vec();
        match seen.uri.rsplit('/').next().unwrap() {
            "Talk" => Deed::Echo(of(&HEAD), of(&END)),
            "Refuse" => {
                let fields = of(&HEAD)
                    .into_iter()
                    .map(|(name, value)| (name, value.to_owned()));
                let status = [
                    ("grpc-status", "5".to_owned()),
                    ("grpc-message", "none".to_owned()),
                ];
                Deed::Fields(fields.chain(status).collect(), "")
            }
            "FailLate" => Deed::Trailers(of(&HEAD), "one", vec![("grpc-status", "15")]),
            "Wait" => Deed::Hang,
            _ => Deed::Trailers(of(&HEAD), "\0\0\0\0\x02ok", of(&END)),
        }
    })
    .await
}

fn call_to(method: &str, body: Body) -> http::Request<Body> {
    http::Request::post(format!("https://localhost/test.Calls/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", "10S")
        .header("authorization", bearer(&Token::new(Kind::Es).sign()))
        .body(body)
        .unwrap()
}

/// A body of messages that the test sends when it likes.
fn fed() -> (UnboundedSender<&'static str>, Body) {
    let (feed, messages) = unbounded_channel::<&'static str>();
    let stream = futures_util::stream::unfold(messages, |mut messages| async move {
        let message = messages.recv().await?;
        Some((
            Ok::<_, Infallible>(Frame::data(Bytes::from(message))),
            messages,
        ))
    });
    (feed, StreamBody::new(stream).boxed())
}

async fn message(body: &mut Incoming) -> String {
    let frame = within("a message", body.frame()).await.unwrap().unwrap();
    String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap()
}

async fn trailers(body: &mut Incoming) -> HeaderMap {
    let frame = within("trailers", body.frame()).await.unwrap().unwrap();
    frame.into_trailers().unwrap()
}

async fn begin(gateway: &Gateway, method: &str, body: Body) -> (H2, http::Response<Incoming>) {
    let mut h2 = H2::connect(gateway).await;
    let answer = h2.begin(call_to(method, body));
    let answer = within("the head of an answer", answer).await.unwrap();
    (h2, answer)
}

#[tokio::test]
async fn hdr_1_and_msg_13_a_unary_call_has_its_metadata_at_both_ends() {
    let upstream = server().await;
    let gateway = site(&upstream.url).start().await;
    let mut h2 = H2::connect(&gateway).await;
    let mut request = call_to("Unary", full(&b"\0\0\0\0\0"[..]));
    let forged = "root".parse().unwrap();
    request.headers_mut().insert("x-forwarded-user", forged);
    let answer = h2.send(request).await.unwrap();
    assert_eq!(answer.is(200).body, b"\0\0\0\0\x02ok");
    assert_eq!(answer.header("x-begin"), Some("first"));
    assert_eq!(answer.header("grpc-status"), None, "merged");
    let end = END.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(answer.trailers, end);
    let seen = upstream.last();
    assert_eq!((&*seen.body, seen.complete), (&b"\0\0\0\0\0"[..], true));
    assert_eq!(seen.header("te"), Some("trailers"));
    assert_eq!(seen.header("grpc-timeout"), Some("10S"));
    assert_eq!(seen.header("x-forwarded-user"), Some("alice"));
    assert_eq!(seen.header("authorization"), None);
    let line = gateway.access_line(|line| line["route"] == "calls").await;
    assert_eq!(
        (&line["status"], &line["ending"]),
        (&200.into(), &"complete".into())
    );
}

#[tokio::test]
async fn errors_are_told_in_trailers_or_in_a_head_alone() {
    let upstream = server().await;
    let gateway = site(&upstream.url).start().await;
    let mut h2 = H2::connect(&gateway).await;
    let answer = h2.send(call_to("FailLate", full(""))).await.unwrap();
    assert_eq!((&*answer.is(200).text(), answer.trailers.len()), ("one", 1));
    assert_eq!(answer.trailers[0].1, "15");
    let (_h2, answer) = begin(&gateway, "Refuse", full("")).await;
    assert_eq!(answer.headers()["grpc-status"], "5");
    // The client takes it for trailers because nothing follows, not even an empty frame.
    assert!(hyper::body::Body::is_end_stream(answer.body()));
}

#[tokio::test]
async fn up_1_both_sides_of_a_call_go_on_together() {
    let upstream = server().await;
    let gateway = site(&upstream.url)
        .set("server.timeouts", "body_idle", "\"1s\"")
        .on_route("timeout", "\"2s\"")
        .start()
        .await;
    let (feed, body) = fed();
    // The head is there before a byte was sent, and the first answer before the second question.
    let (_h2, answer) = begin(&gateway, "Talk", body).await;
    let mut answer = answer.into_body();
    for text in ["one", "two", "three"] {
        feed.send(text).unwrap();
        assert_eq!(message(&mut answer).await, text);
        // Longer than a body may pause elsewhere; at last longer than an exchange may take elsewhere.
        tokio::time::sleep(Duration::from_millis(1300)).await;
    }
    drop(feed);
    assert_eq!(trailers(&mut answer).await["grpc-status"], "0");
    let seen = upstream.until(1, |seen| seen.complete).await;
    assert_eq!((&*seen.body, seen.reset), (&b"onetwothree"[..], None));
}

#[tokio::test]
async fn up_9_a_call_that_its_caller_gives_up_is_reset_at_the_server() {
    let upstream = server().await;
    let gateway = site(&upstream.url).start().await;
    let mut h2 = H2::connect(&gateway).await;
    let call = h2.begin(call_to("Wait", full("")));
    let call = tokio::spawn(call);
    upstream.until(1, |_| true).await;
    call.abort();
    let seen = upstream.until(1, |seen| seen.reset.is_some()).await;
    assert_eq!(seen.reset, Some(Reason::CANCEL));
    // In the middle of a conversation.
    let (feed, body) = fed();
    let mut answer = within("a head", h2.begin(call_to("Talk", body)))
        .await
        .unwrap();
    feed.send("one").unwrap();
    assert_eq!(message(answer.body_mut()).await, "one");
    drop((answer, feed, h2));
    let seen = upstream
        .until(2, |seen| seen.reset.is_some() || seen.complete)
        .await;
    assert!(!seen.complete, "{seen:?}");
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn msg_8_silence_on_both_sides_ends_a_call() {
    let upstream = server().await;
    let gateway = site(&upstream.url)
        .on_route("idle_timeout", "\"1s\"")
        .start()
        .await;
    let (feed, body) = fed();
    let (_h2, answer) = begin(&gateway, "Talk", body).await;
    let mut answer = answer.into_body();
    feed.send("one").unwrap();
    assert_eq!(message(&mut answer).await, "one");
    assert!(within("the end", answer.frame()).await.unwrap().is_err());
    let seen = upstream
        .until(1, |seen| seen.reset.is_some() || seen.complete)
        .await;
    assert!(!seen.complete, "{seen:?}");
    drop(feed);
}
