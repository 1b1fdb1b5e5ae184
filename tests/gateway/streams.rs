//! Exchanges that go on: how they pass, and that they end with the credential that began them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use crate::harness::{
    Broken, Gateway, H2, Raw, Reply, Site, Step, Token, Upstream,
    keys::{bearer, now},
    request,
    websocket::{closed, expect, frame, mirror, open},
    within,
};

const PASSWORD: &str = "correct horse battery";
const EVENTS: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n";

/// One event, as a chunk.
fn event(text: &str) -> Vec<u8> {
    let event = format!("data: {text}\n\n");
    format!("{:x}\r\n{event}\r\n", event.len()).into_bytes()
}

/// Events of which the second waits for the signal, and no end.
fn events(signal: &Arc<Notify>) -> Reply {
    Reply(vec![
        Step::Send(EVENTS.into()),
        Step::Send(event("first")),
        Step::Until(Arc::clone(signal)),
        Step::Send(event("second")),
        Step::Hang,
    ])
}

/// WebSockets below `/socket`, events elsewhere.
async fn upstream(signal: &Arc<Notify>) -> Upstream {
    let signal = Arc::clone(signal);
    Upstream::scripted(move |seen| match seen.header("upgrade") {
        Some(_) => mirror(seen),
        None => events(&signal),
    })
    .await
}

fn site(upstream: &Upstream) -> Site {
    Site::new(upstream.address)
        .set("server", "workers", "1")
        .route("guarded", "/guarded", "authenticated")
        .on_route("websocket", "true")
}

/// A token that ends in some seconds.
fn short(seconds: u64) -> String {
    bearer(&Token::good().claim("exp", now() + seconds).sign())
}

async fn begin_events(raw: &mut Raw, authorization: &str) {
    let fields = [("Authorization", authorization)];
    raw.send(request("GET", "/guarded/events", &fields, ""))
        .await;
    assert!(raw.head().await.start.starts_with("HTTP/1.1 200"));
    let text = String::from_utf8(raw.some().await).unwrap();
    assert!(text.contains("data: first"), "{text}");
}

/// Fails unless a stream of events ends now, and not as if it were complete.
async fn events_cut(raw: &mut Raw) {
    let rest = raw.rest().await;
    assert!(!rest.ends_with(b"0\r\n\r\n"), "a clean end: {rest:?}");
}

#[tokio::test]
async fn events_are_forwarded_one_by_one() {
    let signal = Arc::new(Notify::new());
    let upstream = upstream(&signal).await;
    let gateway = site(&upstream).start().await;
    let token = bearer(&Token::good().sign());
    let mut raw = Raw::connect(&gateway).await;
    begin_events(&mut raw, &token).await;
    // Only now, with the first one read, is there a second.
    signal.notify_one();
    let text = String::from_utf8(raw.some().await).unwrap();
    assert!(text.contains("data: second"), "{text}");
}

#[tokio::test]
async fn the_timeout_of_a_route_does_not_end_events_but_silence_does() {
    let signal = Arc::new(Notify::new());
    let upstream = upstream(&signal).await;
    let gateway = site(&upstream)
        .route("hasty", "/hasty", "public")
        .on_route("timeout", "\"1s\"")
        .on_route("idle_timeout", "\"3s\"")
        .start()
        .await;
    let mut raw = Raw::connect(&gateway).await;
    raw.send(request("GET", "/hasty", &[], "")).await;
    raw.head().await;
    raw.some().await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    signal.notify_one();
    let begun = Instant::now();
    let text = String::from_utf8(raw.some().await).unwrap();
    assert!(text.contains("data: second"), "{text}");
    events_cut(&mut raw).await;
    assert!(begun.elapsed() >= Duration::from_millis(2500));
}

#[tokio::test]
async fn up_7_events_end_with_the_token() {
    let signal = Arc::new(Notify::new());
    let upstream = upstream(&signal).await;
    let gateway = site(&upstream).start().await;
    let begun = Instant::now();
    let token = short(3);
    let mut raw = Raw::connect(&gateway).await;
    begin_events(&mut raw, &token).await;
    events_cut(&mut raw).await;
    assert!(begun.elapsed() >= Duration::from_millis(1900));
    let line = gateway.access_line(|line| line["status"] == 200).await;
    assert_eq!(line["ending"], "credential_ended");
    // It finds out when it writes.
    signal.notify_one();
    upstream
        .until("the end at the upstream", |upstream| upstream.open() == 0)
        .await;
    // The same over HTTP/2 is an error of the stream.
    let mut h2 = H2::connect(&gateway).await;
    let token = short(3);
    let request = http::Request::get("https://localhost/guarded/events")
        .header("authorization", &token)
        .body(crate::harness::client::full(""))
        .unwrap();
    assert!(matches!(h2.send(request).await, Err(Broken::Cut(_))));
}

#[tokio::test]
async fn up_7_an_answer_that_never_waits_ends_with_the_token() {
    let upstream = Upstream::scripted(|_| {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n";
        Reply(vec![
            Step::Send(head.into()),
            Step::Repeat(vec![b'x'; 1 << 16], 10_000_000),
        ])
    })
    .await;
    let gateway = site(&upstream).start().await;
    let token = short(3);
    let fields = [("Authorization", token.as_str())];
    let mut raw = Raw::connect(&gateway).await;
    raw.send(request("GET", "/guarded", &fields, "")).await;
    raw.head().await;
    within("the end", async { while !raw.some().await.is_empty() {} }).await;
    let line = gateway.access_line(|line| line["status"] == 200).await;
    assert_eq!(line["ending"], "credential_ended");
}

#[tokio::test]
async fn up_7_a_websocket_ends_with_the_token() {
    let signal = Arc::new(Notify::new());
    let upstream = upstream(&signal).await;
    let gateway = site(&upstream).start().await;
    let begun = Instant::now();
    let token = short(3);
    let mut raw = Raw::connect(&gateway).await;
    open(&mut raw, "/guarded", &[("Authorization", &token)]).await;
    raw.send(frame(1, b"a")).await;
    expect(&mut raw, &frame(1, b"a")).await;
    assert_eq!(closed(&mut raw).await, 1008);
    assert!(begun.elapsed() >= Duration::from_millis(1900));
    let line = gateway.access_line(|line| line["status"] == 101).await;
    assert_eq!(line["ending"], "credential_ended");
    // Within a frame there is no place for another.
    let token = short(3);
    let mut raw = Raw::connect(&gateway).await;
    open(&mut raw, "/guarded", &[("Authorization", &token)]).await;
    raw.send(&frame(1, b"abc")[..3]).await;
    expect(&mut raw, &frame(1, b"abc")[..3]).await;
    assert_eq!(raw.rest().await, b"");
    upstream
        .until("the end at the upstream", |upstream| upstream.open() == 0)
        .await;
}

async fn with_accounts(upstream: &Upstream) -> Gateway {
    let site = site(upstream).accounts();
    site.write();
    for name in ["alice", "bob"] {
        site.user(name, PASSWORD, &[]).await;
    }
    site.start().await
}

async fn log_in(gateway: &Gateway, name: &str) -> String {
    let body = format!(r#"{{"username":"{name}","password":"{PASSWORD}"}}"#);
    let fields = [("Content-Type", "application/json")];
    let mut raw = Raw::connect(gateway).await;
    let answer = raw
        .exchange(request("POST", "/auth/login", &fields, &body))
        .await;
    bearer(answer.is(200).json()["access_token"].as_str().unwrap())
}

/// A stream and a socket of one token.
async fn both(gateway: &Gateway, token: &str) -> (Raw, Raw) {
    let mut stream = Raw::connect(gateway).await;
    begin_events(&mut stream, token).await;
    let mut socket = Raw::connect(gateway).await;
    open(&mut socket, "/guarded", &[("Authorization", token)]).await;
    (stream, socket)
}

#[tokio::test]
async fn up_7_a_logout_and_a_disabled_account_end_what_goes_on() {
    let signal = Arc::new(Notify::new());
    let upstream = upstream(&signal).await;
    let gateway = with_accounts(&upstream).await;
    for how in ["logout", "logout-all", "disable"] {
        let token = log_in(&gateway, "alice").await;
        let other = log_in(&gateway, "bob").await;
        let (mut stream, mut socket) = both(&gateway, &token).await;
        let (_, mut others) = both(&gateway, &other).await;
        if how == "disable" {
            let exit = gateway.site.run(&["user", "disable", "alice"], "").await;
            assert_eq!(exit.code, Some(0), "{exit:?}");
        } else {
            let target = format!("/auth/{how}");
            let mut raw = Raw::connect(&gateway).await;
            raw.exchange(request("POST", &target, &[("Authorization", &token)], ""))
                .await
                .is(204);
        }
        assert_eq!(closed(&mut socket).await, 1008, "{how}");
        events_cut(&mut stream).await;
        // Nobody else's.
        others.send(frame(1, b"b")).await;
        expect(&mut others, &frame(1, b"b")).await;
    }
}
