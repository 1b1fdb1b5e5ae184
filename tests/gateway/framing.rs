//! Requests that two servers could read in two ways. Each is refused, the connection closed, and the upstream sees nothing.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;

use crate::harness::{
    Answer, Broken, Gateway, H2, Raw, Reply, Site, Upstream, client::full, get, request,
};

async fn gateway(upstream: &Upstream) -> Gateway {
    Site::new(upstream.address).start().await
}

/// Sends bytes that must be refused, with a request behind them that must never be executed.
async fn refused(
    gateway: &Gateway,
    upstream: &Upstream,
    bytes: &[u8],
    statuses: &[u16],
) -> Option<String> {
    let before = upstream.count();
    let mut raw = Raw::connect(gateway).await;
    let mut all = bytes.to_vec();
    all.extend_from_slice(request("GET", "/public/smuggled", &[], "").as_bytes());
    raw.send(&all).await;
    let shown = String::from_utf8_lossy(bytes).into_owned();
    match raw.try_answer().await {
        Ok(answer) if statuses.contains(&answer.status) => {}
        Ok(answer) => return Some(format!("{shown:?}: answered {}", answer.status)),
        Err(broken) => return Some(format!("{shown:?}: {broken:?}")),
    }
    if upstream.count() != before {
        return Some(format!(
            "{shown:?}: the upstream saw {}",
            upstream.last().head.start
        ));
    }
    let after = tokio::time::timeout(Duration::from_secs(2), raw.some()).await;
    match after {
        Ok(bytes) if bytes.is_empty() => None,
        Ok(bytes) => Some(format!(
            "{shown:?}: after the refusal came {:?}",
            String::from_utf8_lossy(&bytes)
        )),
        Err(_) => Some(format!("{shown:?}: the connection went on")),
    }
}

async fn all_refused(cases: impl IntoIterator<Item = Vec<u8>>, statuses: &[u16]) -> usize {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let (mut faults, mut count) = (Vec::new(), 0);
    for case in cases {
        count += 1;
        faults.extend(refused(&gateway, &upstream, &case, statuses).await);
    }
    assert!(
        faults.is_empty(),
        "{} of {count}:\n{}",
        faults.len(),
        faults.join("\n")
    );
    upstream.saw_nothing();
    count
}

/// Field lines that give a body of five bytes an ambiguous or malformed length.
const LENGTHS: [&str; 34] = [
    "Content-Length: +5",
    "Content-Length: -5",
    "Content-Length: -0",
    "Content-Length: 0x5",
    "Content-Length: 5x",
    "Content-Length: 5h",
    "Content-Length: 5,5",
    "Content-Length: 5, 5",
    "Content-Length: 5, 6",
    "Content-Length: 5,",
    "Content-Length: ,5",
    "Content-Length: 5;",
    "Content-Length: 5 5",
    "Content-Length: 5\t6",
    "Content-Length:",
    "Content-Length: ",
    "Content-Length: five",
    "Content-Length: 5.0",
    "Content-Length: 5e0",
    "Content-Length: 0b101",
    "Content-Length: \u{0665}",
    "Content-Length: \"5\"",
    "Content-Length: 5\u{0}",
    "Content-Length: \u{b}5",
    "Content-Length: 99999999999999999999",
    "Content-Length: 18446744073709551616",
    "Content-Length: 18446744073709551621",
    "Content-Length: 5\r\nContent-Length: 6",
    "Content-Length: 6\r\nContent-Length: 5",
    "Content-Length: 5\r\nContent-Length: 0",
    "Content-Length: 0\r\nContent-Length: 5",
    "Content-Length: 5\r\ncontent-length: 6",
    "Content-Length: 5\r\nX: y\r\nCONTENT-LENGTH: 05\r\nContent-Length: 4",
    "Content-Length: 5\r\n Content-Length: 5",
];

/// Field lines that say something other than exactly `chunked`, or say it where it has no place.
const CODINGS: [&str; 32] = [
    "Transfer-Encoding: chunked, chunked",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding: chunked, gzip",
    "Transfer-Encoding: chunked, identity",
    "Transfer-Encoding: identity, chunked",
    "Transfer-Encoding: identity",
    "Transfer-Encoding: gzip",
    "Transfer-Encoding: xchunked",
    "Transfer-Encoding: chunkedx",
    "Transfer-Encoding: chunk",
    "Transfer-Encoding: cow",
    "Transfer-Encoding: chunked;q=1",
    "Transfer-Encoding: chunked;",
    "Transfer-Encoding: chunked,",
    "Transfer-Encoding: ,chunked",
    "Transfer-Encoding: \"chunked\"",
    "Transfer-Encoding: 'chunked'",
    "Transfer-Encoding: chunked identity",
    "Transfer-Encoding:",
    "Transfer-Encoding: chun\u{0}ked",
    "Transfer-Encoding: \u{b}chunked",
    "Transfer-Encoding: chunked\u{b}",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked\r\ntransfer-encoding: x",
    "Transfer-Encoding : chunked",
    "Transfer-Encoding\t: chunked",
    "X: y\r\n Transfer-Encoding: chunked",
    "Transfer-Encoding:\r\n chunked",
    "X: y\rTransfer-Encoding: chunked",
];

/// Request lines that are not one.
const LINES: [&str; 17] = [
    "POST /public HTTP/1.2",
    "POST /public HTTP/2.0",
    "POST /public HTTP/0.9",
    "POST /public HTTP/1.1x",
    "POST /public HTTP/1.10",
    "POST /public HTTP/01.1",
    "POST /public http/1.1",
    "POST /public HTTP1.1",
    "POST /public HTTPS/1.1",
    "POST /public",
    "POST  /public HTTP/1.1",
    "POST /public  HTTP/1.1",
    "POST /public HTTP/1.1 ",
    "POST\t/public\tHTTP/1.1",
    " POST /public HTTP/1.1",
    "P<ST /public HTTP/1.1",
    "POST /pub\u{0}lic HTTP/1.1",
];

#[tokio::test]
async fn msg_1_malformed_and_differing_lengths_are_refused() {
    let cases = LENGTHS.iter().map(|fields| {
        format!("POST /public/case HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n\r\nabcde")
            .into_bytes()
    });
    assert_eq!(all_refused(cases, &[400]).await, LENGTHS.len());
}

#[tokio::test]
async fn msg_1_any_coding_but_chunked_is_refused() {
    let cases = CODINGS.iter().map(|fields| {
        format!("POST /public/case HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n\r\n5\r\nabcde\r\n0\r\n\r\n").into_bytes()
    });
    assert_eq!(all_refused(cases, &[400, 501]).await, CODINGS.len());
}

#[tokio::test]
async fn msg_1_coding_in_http_1_0_is_refused() {
    let fields = [
        "Transfer-Encoding: chunked",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Connection: keep-alive\r\nTransfer-Encoding: chunked",
        "Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked",
    ];
    let cases = fields.map(|fields| {
        format!("POST /public/case HTTP/1.0\r\nHost: localhost\r\n{fields}\r\n\r\n5\r\nabcde\r\n0\r\n\r\n").into_bytes()
    });
    all_refused(cases, &[400]).await;
}

#[tokio::test]
async fn msg_1_request_lines_that_are_not_one_are_refused() {
    let cases = LINES.map(|line| {
        format!("{line}\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nabcde").into_bytes()
    });
    all_refused(cases, &[400, 501, 505]).await;
}

#[tokio::test]
async fn msg_1_length_beside_coding_is_refused_or_read_as_chunks_and_closed() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let fields = [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Content-Length: 0\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 0",
        "Content-Length: 4\r\nX: y\r\nTransfer-Encoding: chunked",
        "content-length: 5\r\nTRANSFER-ENCODING: CHUNKED",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\nContent-Length: 5",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\nContent-Length: 6",
        "Transfer-Encoding: chunked\r\nContent-Length: abc",
    ];
    for fields in fields {
        let before = upstream.count();
        let mut raw = Raw::connect(&gateway).await;
        raw.send(format!(
            "POST /public/case HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n\r\n5\r\nabcde\r\n0\r\n\r\n{}",
            request("GET", "/public/smuggled", &[], "")
        ))
        .await;
        let status = raw.answer().await.status;
        assert!(
            raw.rest().await.is_empty(),
            "{fields:?}: the connection went on"
        );
        match upstream.seen().get(before..) {
            Some([]) => assert_eq!(status, 400, "{fields:?}"),
            Some([seen]) => {
                assert_eq!((status, &*seen.body), (200, &b"abcde"[..]), "{fields:?}");
            }
            other => panic!("{fields:?}: the upstream saw {other:?}"),
        }
    }
    upstream.saw_no_fault();
}

#[tokio::test]
async fn msg_1_what_is_forwarded_has_exactly_one_framing() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let cases = [
        ("Content-Length: 5", "abcde", "abcde"),
        ("content-length: 5", "abcde", "abcde"),
        ("Content-Length:5", "abcde", "abcde"),
        ("Content-Length: 5 \t", "abcde", "abcde"),
        ("Content-Length: 0", "", ""),
        ("Content-Length: 005", "abcde", "abcde"),
        (
            "Transfer-Encoding: chunked",
            "5\r\nabcde\r\n0\r\n\r\n",
            "abcde",
        ),
        (
            "transfer-encoding: Chunked",
            "2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n",
            "abcde",
        ),
        ("Transfer-Encoding: chunked", "0\r\n\r\n", ""),
        (
            "Transfer-Encoding: chunked",
            "0005\r\nabcde\r\n000\r\n\r\n",
            "abcde",
        ),
        (
            "Transfer_Encoding: chunked\r\nContent-Length: 5",
            "0\r\n\r\n",
            "0\r\n\r\n",
        ),
        ("X-Content-Length: 9", "", ""),
        (
            "Connection: content-length\r\nContent-Length: 5",
            "abcde",
            "abcde",
        ),
        (
            "Connection: transfer-encoding\r\nTransfer-Encoding: chunked",
            "5\r\nabcde\r\n0\r\n\r\n",
            "abcde",
        ),
    ];
    let mut raw = Raw::connect(&gateway).await;
    for (number, (fields, body, want)) in cases.into_iter().enumerate() {
        let head = format!("POST /public/{number} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n\r\n");
        raw.exchange(format!("{head}{body}")).await.is(200);
        let seen = upstream.last();
        assert_eq!(seen.target, format!("/public/{number}"), "{fields:?}");
        assert_eq!(String::from_utf8_lossy(&seen.body), want, "{fields:?}");
    }
    assert_eq!(upstream.count(), cases.len());
    upstream.saw_no_fault();
}

#[tokio::test]
async fn msg_2_malformed_chunks_never_end_a_body() {
    let bodies = [
        "5 \r\nabcde\r\n0\r\n\r\n",
        " 5\r\nabcde\r\n0\r\n\r\n",
        "+5\r\nabcde\r\n0\r\n\r\n",
        "-5\r\nabcde\r\n0\r\n\r\n",
        "0x5\r\nabcde\r\n0\r\n\r\n",
        "5h\r\nabcde\r\n0\r\n\r\n",
        "\r\nabcde\r\n0\r\n\r\n",
        "5\r\nabcdef\r\n0\r\n\r\n",
        "5\r\nabcde0\r\n\r\n",
        "5\rabcde\r\n0\r\n\r\n",
        "fffffffffffffffff\r\nabcde\r\n0\r\n\r\n",
        "10000000000000005\r\nabcde\r\n0\r\n\r\n",
        "5\r\nabcde\r\ng\r\n\r\n",
    ];
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    for body in bodies {
        let mut raw = Raw::connect(&gateway).await;
        raw.send(format!(
            "POST /public/case HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n{body}{}",
            request("GET", "/public/smuggled", &[], "")
        ))
        .await;
        let answer = raw.try_answer().await;
        let refused = matches!(
            &answer,
            Ok(Answer { status: 400, .. }) | Err(Broken::Closed)
        );
        // A space is the start of a bad extension; who drops it has read one clear size.
        let dropped =
            body.starts_with("5 ") && matches!(&answer, Ok(answer) if answer.status == 200);
        assert!(refused || dropped, "{body:?}: {answer:?}");
        if refused {
            assert!(
                raw.rest().await.is_empty(),
                "{body:?}: the connection went on"
            );
        }
    }
    let whole = upstream
        .seen()
        .iter()
        .filter(|seen| seen.complete && seen.target == "/public/case")
        .count();
    assert!(whole <= 1, "{:?}", upstream.seen());
    upstream.saw_no_fault();
}

#[tokio::test]
async fn msg_2_extensions_and_trailers_are_dropped() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let mut raw = Raw::connect(&gateway).await;
    let head = "POST /public HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nTrailer: x-forwarded-user\r\n\r\n";
    let body = "5;name=value;\"quoted\"\r\nabcde\r\n0;last\r\nX-Forwarded-User: root\r\nContent-Length: 3\r\nAuthorization: x\r\n\r\n";
    raw.exchange(format!("{head}{body}")).await.is(200);
    let seen = upstream.last();
    assert_eq!((&*seen.body, seen.complete), (&b"abcde"[..], true));
    assert!(seen.trailers.is_empty(), "{:?}", seen.trailers);
    upstream.saw_no_fault();
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
async fn msg_10_fields_that_are_not_fields_are_refused() {
    let fields: [&[u8]; 20] = [
        b": empty",
        b"X : y",
        b"X\t: y",
        b" X: y",
        b"\tX: y",
        b"X: y\r\n folded",
        b"X: y\r\n\tfolded",
        b"X: a\0b",
        b"X: a\x01b",
        b"X: a\x0bb",
        b"X: a\x1bb",
        b"X: a\x7fb",
        b"X: a\rb",
        b"X\0: y",
        b"X(y): z",
        b"X@y: z",
        b"no colon",
        b"\xff: y",
        b"X y: z",
        b"\"X\": y",
    ];
    let cases = fields.iter().flat_map(|field| {
        // As the first field, where a leading space would fold into the request line, and as the last.
        let first = [
            b"GET /public HTTP/1.1\r\n",
            *field,
            b"\r\nHost: localhost\r\n\r\n",
        ]
        .concat();
        let last = [
            b"GET /public HTTP/1.1\r\nHost: localhost\r\n",
            *field,
            b"\r\n\r\n",
        ]
        .concat();
        [first, last]
    });
    all_refused(cases, &[400]).await;
}

#[tokio::test]
async fn msg_10_answers_that_are_not_http_are_502_and_drop_the_connection() {
    let answers: [&[u8]; 14] = [
        b"HTTP/1.1 200 OK\r\n: empty\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX : y\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n X: y\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: y\r\n folded\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\0b\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\x01b\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\ncontent-length: +1\r\n\r\na",
        b"HTTP/1.1 2000 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/9.9 200 OK\r\ncontent-length: 0\r\n\r\n",
        b"hello, this is no web server\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x15\x03\x01\x00\x02\x02\x46",
    ];
    for bytes in answers {
        let upstream = Upstream::scripted(move |seen| {
            if seen.target == "/public/bad" {
                Reply::raw(bytes)
            } else {
                Reply::ok("good")
            }
        })
        .await;
        let gateway = Site::new(upstream.address)
            .on_upstream("response_timeout", "\"2s\"")
            .set("server", "workers", "1")
            .start()
            .await;
        let shown = String::from_utf8_lossy(bytes).into_owned();
        let answer = get(&gateway, "/public/bad", &[]).await;
        assert_eq!(
            (answer.status, &*answer.code()),
            (502, "upstream_invalid"),
            "{shown:?}"
        );
        get(&gateway, "/public/good", &[]).await.is(200);
        let (bad, good) = (upstream.seen().remove(0), upstream.last());
        assert_ne!(
            bad.connection, good.connection,
            "{shown:?}: the connection was used again"
        );
    }
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
