//! Framing beyond single messages, which are in the corpus: what lies behind a request, and bodies that nobody reads.

use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;

use crate::harness::{
    Broken, Gateway, H2, Raw, Site, Upstream, client::full, eventually, get, request,
};

async fn gateway(upstream: &Upstream) -> Gateway {
    Site::new(upstream.address).start().await
}

#[tokio::test]
async fn msg_13_http_2_trailers_are_dropped() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let mut h2 = H2::connect(&gateway).await;
    let mut trailers = http::HeaderMap::new();
    trailers.insert("x-forwarded-user", "root".parse().unwrap());
    let frames = [
        Ok(Frame::data(Bytes::from_static(b"abcde"))),
        Ok(Frame::trailers(trailers)),
    ];
    let body = StreamBody::new(futures_util::stream::iter(frames)).boxed();
    let request = http::Request::post("https://localhost/public")
        .body(body)
        .unwrap();
    h2.send(request).await.unwrap().is(200);
    let seen = upstream.last();
    assert_eq!((&*seen.body, seen.complete), (&b"abcde"[..], true));
    assert!(seen.trailers.is_empty(), "{:?}", seen.trailers);
    upstream.saw_no_fault();
}

#[tokio::test]
async fn msg_4_connect_and_trace_are_refused() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    get(&gateway, "/public/mine", &[]).await.is(200);
    let (connections, requests) = (upstream.connections(), upstream.count());
    let inner = request("GET", "/public/smuggled", &[], "");
    for bytes in [
        "CONNECT localhost:443 HTTP/1.1\r\nHost: localhost:443\r\n\r\n".to_owned(),
        "CONNECT localhost:443 HTTP/1.0\r\n\r\n".to_owned(),
        format!(
            "CONNECT localhost:443 HTTP/1.1\r\nHost: localhost:443\r\nContent-Length: {}\r\n\r\n{inner}",
            inner.len()
        ),
        request("CONNECT", "/public", &[], ""),
        request("CONNECT", "/public", &[], &inner),
        request("TRACE", "/public", &[], ""),
        request("TRACE", "/public", &[("Max-Forwards", "0")], ""),
        request("TRACE", "/public", &[], &inner),
    ] {
        let mut raw = Raw::connect(&gateway).await;
        let status = raw.exchange(&bytes).await.status;
        assert!([400, 405, 501].contains(&status), "{bytes:?}: {status}");
        raw.send(request("GET", "/nowhere", &[("Connection", "close")], ""))
            .await;
        let rest = String::from_utf8_lossy(&raw.rest().await).into_owned();
        assert!(
            rest.is_empty() || rest.starts_with("HTTP/1.1 404"),
            "{bytes:?}: {rest}"
        );
    }
    let mut h2 = H2::connect(&gateway).await;
    for (method, uri) in [
        ("CONNECT", "localhost:443"),
        ("TRACE", "https://localhost/public"),
    ] {
        let request = http::Request::builder()
            .method(method)
            .uri(uri)
            .body(full(""))
            .unwrap();
        match h2.send(request).await {
            Ok(answer) => assert!(
                [405, 501].contains(&answer.status),
                "{method}: {}",
                answer.status
            ),
            Err(broken) => assert!(matches!(broken, Broken::Cut(_))),
        }
    }
    assert_eq!(
        (upstream.connections(), upstream.count()),
        (connections, requests)
    );
    get(&gateway, "/public/next", &[]).await.is(200);
    assert_eq!(upstream.last().target, "/public/next");
    upstream.saw_no_fault();
}

#[tokio::test]
async fn msg_1_what_follows_a_request_does_not_delay_its_answer() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    // Old clients send an empty line after a body; others the start of what comes next.
    for after in ["\r\n", "GET", "GET /public HTTP/1.1\r\nHost: local"] {
        for body in ["", "abcde"] {
            let mut raw = Raw::connect(&gateway).await;
            raw.exchange(format!("{}{after}", request("POST", "/public", &[], body)))
                .await
                .is(200);
        }
    }
    // Many at once are answered in their order.
    let mut raw = Raw::connect(&gateway).await;
    let all: String = (0..20)
        .map(|n| request("GET", &format!("/public/{n}"), &[], ""))
        .collect();
    raw.send(all).await;
    for _ in 0..20 {
        raw.answer().await.is(200);
    }
    upstream.saw_no_fault();
}

#[tokio::test]
async fn msg_11_a_refused_body_is_never_read_as_a_request() {
    let upstream = Upstream::start().await;
    let gateway = Site::new(upstream.address)
        .route("small", "/small", "public")
        .on_route("max_body", "\"16B\"")
        .start()
        .await;
    let inner = request("GET", "/public/smuggled", &[], "");
    let wide = format!("{inner}{}{inner}", "x".repeat(200 << 10));
    let token = crate::harness::keys::bearer(&crate::harness::Token::good().sign());
    for (target, fields, status) in [
        ("/private", vec![], 401),
        ("/admin", vec![("Authorization", token.as_str())], 403),
        ("/small", vec![], 413),
        ("/nowhere", vec![], 404),
    ] {
        for body in [inner.as_str(), wide.as_str()] {
            let mut raw = Raw::connect(&gateway).await;
            raw.send(request("POST", target, &fields, body)).await;
            raw.answer().await.is(status);
            // Whether the connection goes on is the gateway's choice; what comes on it is not.
            raw.send(request(
                "GET",
                "/nowhere/else",
                &[("Connection", "close")],
                "",
            ))
            .await;
            match raw.try_answer().await {
                Ok(answer) => assert_eq!(answer.status, 404),
                Err(broken) => assert!(matches!(broken, Broken::Closed), "{broken:?}"),
            }
            assert!(raw.rest().await.is_empty());
        }
    }
    upstream.saw_nothing();
    assert!(
        !gateway.out.text().contains("smuggled"),
        "{}",
        gateway.out.text()
    );
}

#[tokio::test]
async fn msg_10_heads_that_nobody_could_read_are_counted() {
    let upstream = Upstream::start().await;
    let gateway = Site::new(upstream.address).start().await;
    let count = async || gateway.metric("portcullis_malformed_heads_total").await;
    get(&gateway, "/public", &[]).await.is(200);
    get(&gateway, "/nowhere", &[]).await.is(404);
    assert_eq!(count().await, Some(0.0));
    for (number, bytes) in [
        "no HTTP at all\r\n\r\n".to_owned(),
        "GET /public HTTP/1.1\r\nHost: localhost\r\nbad field\r\n\r\n".to_owned(),
        request("GET", "/public", &[("X-Long", &"b".repeat(200_000))], ""),
    ]
    .into_iter()
    .enumerate()
    {
        let mut raw = Raw::connect(&gateway).await;
        raw.send(bytes).await;
        raw.rest().await;
        let want = f64::from(u32::try_from(number + 1).unwrap());
        eventually("the count", async || {
            (count().await == Some(want)).then_some(())
        })
        .await;
    }
    assert_eq!(upstream.count(), 1);
}
