//! Fields that follow a message: which pass, on which routes, between which versions of HTTP.

use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;

use crate::harness::{
    Gateway, H2, Raw, Reply, Site, Upstream, Wire,
    client::Body,
    eventually,
    http1::Answer,
    request,
    streams::{Deed, Streams},
};

/// What no trailer may be, and what passes.
const FORGED: [(&str, &str); 14] = [
    ("x-forwarded-user", "forged"),
    ("x.forwarded.user", "forged"),
    ("x-auth-issuer", "forged"),
    ("x-portcullis-assertion", "forged"),
    ("remote-user", "forged"),
    ("x-real-ip", "forged"),
    ("forwarded", "for=6.6.6.6"),
    ("authorization", "Bearer forged"),
    ("cookie", "forged=1"),
    ("set-cookie", "forged=1"),
    ("content-type", "text/forged"),
    ("cache-control", "forged"),
    ("via", "1.1 forged"),
    ("x-hop", "forged"),
];
const GOOD: (&str, &str) = ("x-checksum", "abc");
const NAMES: &str = "X-Checksum, X-Forwarded-User, Authorization, Content-Type, Cookie, X_Real_Ip";

fn site(url: &str, protocol: &str) -> Site {
    Site::bare()
        .set("server", "workers", "1")
        .upstream("legacy", url)
        .on_upstream("protocol", &format!("\"{protocol}\""))
        .route("closed", "/closed", "public")
        .route("open", "/open", "public")
        .on_route("trailers", "true")
}

fn lines(fields: &[(&str, &str)]) -> String {
    fields
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect()
}

/// A chunked request with forged trailers and a good one.
fn chunked(target: &str) -> String {
    let fields = [
        ("Transfer-Encoding", "chunked"),
        ("Trailer", NAMES),
        ("Connection", "TE, X-Hop"),
        ("TE", "trailers, deflate;q=0.5"),
    ];
    let trailers = lines(&FORGED) + &lines(&[("Content-Length", "99"), GOOD]);
    request(
        "POST",
        target,
        &fields,
        &format!("5\r\nabcde\r\n0\r\n{trailers}\r\n"),
    )
}

/// The same over HTTP/2.
fn streamed(target: &str) -> http::Request<Body> {
    let mut trailers = http::HeaderMap::new();
    for (name, value) in FORGED.into_iter().chain([GOOD]) {
        if name != "x-hop" {
            trailers.append(name, value.parse().unwrap());
        }
    }
    let frames = [
        Ok(Frame::data(Bytes::from_static(b"abcde"))),
        Ok(Frame::trailers(trailers)),
    ];
    http::Request::post(format!("https://localhost{target}"))
        .header("te", "trailers")
        .header("trailer", NAMES)
        .body(StreamBody::new(futures_util::stream::iter(frames)).boxed())
        .unwrap()
}

/// A request with trailers of either version, and its answer.
async fn send(gateway: &Gateway, version: &str, target: &str) -> Answer {
    match version {
        "h2" => {
            let mut h2 = H2::connect(gateway).await;
            h2.send(streamed(target)).await.unwrap()
        }
        _ => {
            let mut raw = Raw::connect(gateway).await;
            let answer = raw.exchange(chunked(target)).await;
            // The connection is still one of whole messages.
            raw.exchange(request("GET", "/nowhere", &[], ""))
                .await
                .is(404);
            answer
        }
    }
}

fn owned(fields: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = fields.iter();
    let owned = owned.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    owned.collect()
}

/// An answer in chunks with forged trailers and a good one.
fn answer_in_chunks() -> Reply {
    let trailers = lines(&FORGED) + &lines(&[GOOD]);
    Reply::raw(format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: {NAMES}\r\nConnection: X-Hop\r\n\r\n\
         5\r\nhello\r\n0\r\n{trailers}\r\n"
    ))
}

fn answer_in_frames() -> Deed {
    let trailers = FORGED.into_iter().filter(|(name, _)| *name != "x-hop");
    Deed::Trailers(
        vec![("trailer", NAMES)],
        "hello",
        trailers.chain([GOOD]).collect(),
    )
}

#[tokio::test]
async fn msg_13_trailers_are_dropped_where_no_route_enables_them() {
    let h1 = Upstream::on(Wire::Plain, |_| answer_in_chunks()).await;
    let h2 = Streams::on(Wire::Plain, 100, |_| answer_in_frames()).await;
    for version in ["h1", "h2"] {
        let gateway = site(&h1.url, "http1").start().await;
        let answer = send(&gateway, version, "/closed").await;
        assert_eq!(
            (&*answer.is(200).text(), &*answer.trailers),
            ("hello", &[][..])
        );
        assert_eq!(answer.header("trailer"), None);
        let seen = h1.last();
        assert_eq!((&*seen.body, &*seen.trailers), (&b"abcde"[..], &[][..]));
        assert_eq!((seen.header("te"), seen.header("trailer")), (None, None));
        let gateway = site(&h2.url, "h2").start().await;
        let answer = send(&gateway, version, "/closed").await;
        assert_eq!(
            (&*answer.is(200).text(), &*answer.trailers),
            ("hello", &[][..])
        );
        let seen = h2.last();
        assert_eq!((&*seen.body, seen.trailers.len()), (&b"abcde"[..], 0));
        assert_eq!((seen.header("te"), seen.header("trailer")), (None, None));
    }
    h1.saw_no_fault();
}

#[tokio::test]
async fn msg_13_forged_trailers_pass_nowhere_and_others_on_routes_that_enable_them() {
    let h1 = Upstream::on(Wire::Plain, |_| answer_in_chunks()).await;
    let h2 = Streams::on(Wire::Plain, 100, |_| answer_in_frames()).await;
    for version in ["h1", "h2"] {
        let gateway = site(&h1.url, "http1").start().await;
        let answer = send(&gateway, version, "/open").await;
        assert_eq!(
            (&*answer.is(200).text(), &*answer.trailers),
            ("hello", &*owned(&[GOOD]))
        );
        assert_eq!(answer.header("trailer"), Some("x-checksum"));
        assert_eq!(answer.header(GOOD.0), None, "merged");
        let seen = h1.last();
        assert_eq!(
            (&*seen.body, &*seen.trailers),
            (&b"abcde"[..], &*owned(&[GOOD]))
        );
        assert_eq!(seen.header("trailer"), Some("x-checksum"));
        assert_eq!(seen.header("te"), Some("trailers"));
        assert_eq!(seen.header("connection"), Some("te"));
        assert_eq!(seen.header(GOOD.0), None, "merged");
        let gateway = site(&h2.url, "h2").start().await;
        let answer = send(&gateway, version, "/open").await;
        assert_eq!(
            (&*answer.is(200).text(), &*answer.trailers),
            ("hello", &*owned(&[GOOD]))
        );
        let seen = h2
            .until(usize::from(version == "h2") + 1, |seen| seen.complete)
            .await;
        assert_eq!(&*seen.body, b"abcde");
        assert_eq!(seen.trailers.len(), 1);
        assert_eq!(seen.trailers["x-checksum"], "abc");
        assert_eq!(seen.header("te"), Some("trailers"));
        assert_eq!(seen.header("connection"), None);
        assert_eq!(seen.header(GOOD.0), None, "merged");
    }
    h1.saw_no_fault();
}

#[tokio::test]
async fn msg_13_a_connection_goes_on_after_trailers_and_te_is_only_what_the_client_said() {
    let upstream = Upstream::on(Wire::Plain, |_| answer_in_chunks()).await;
    let gateway = site(&upstream.url, "http1").start().await;
    let mut raw = Raw::connect(&gateway).await;
    for _ in 0..3 {
        let answer = raw.exchange(chunked("/open")).await;
        assert_eq!(answer.is(200).trailers, owned(&[GOOD]));
    }
    assert_eq!(upstream.connections(), 1);
    // A client that says nothing of trailers gets none in HTTP/1.1, and the upstream is not told otherwise.
    for fields in [&[][..], &[("TE", "deflate")]] {
        let answer = raw.exchange(request("GET", "/open", fields, "")).await;
        assert_eq!(
            (&*answer.is(200).text(), &*answer.trailers),
            ("hello", &[][..])
        );
        let seen = upstream.last();
        assert_eq!((seen.header("te"), seen.header("connection")), (None, None));
    }
    let line = gateway.access_line(|line| line["path"] == "/open").await;
    assert_eq!(line["ending"], "complete", "{line}");
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn msg_13_trailers_that_are_too_many_are_refused() {
    let h1 = Upstream::start().await;
    let h2 = Streams::on(Wire::Plain, 100, |seen| match seen.uri.contains("many") {
        true => Deed::Trailers(vec![], "hello", vec![("x-one", "1"); 120]),
        false => Deed::Answer("hello"),
    })
    .await;
    let gateway = site(&h1.url, "http1").start().await;
    let many = lines(&[("x-one", "1"); 120]);
    let fields = [("Transfer-Encoding", "chunked"), ("Trailer", "x-one")];
    let mut raw = Raw::connect(&gateway).await;
    let body = format!("5\r\nabcde\r\n0\r\n{many}\r\n");
    let answer = raw.exchange(request("POST", "/open", &fields, &body)).await;
    assert!([400, 431].contains(&answer.status), "{}", answer.status);
    eventually("the connection to close", async || {
        (h1.open() == 0).then_some(())
    })
    .await;
    assert!(h1.seen().iter().all(|seen| !seen.complete));
    // An answer with too many is not a whole one.
    let gateway = site(&h2.url, "h2").start().await;
    let mut client = H2::connect(&gateway).await;
    let request = |target| {
        let request = http::Request::get(format!("https://localhost{target}"));
        request.body(crate::harness::client::full("")).unwrap()
    };
    assert!(client.send(request("/open/many")).await.is_err());
    client.send(request("/open")).await.unwrap().is(200);
}
