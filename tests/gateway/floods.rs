//! Frames of HTTP/2 that cost the sender nothing: each flood ends its connection, and nobody else notices.

use std::time::Duration;

use crate::harness::{
    Gateway, H2, Reply, Site, Step, Upstream, eventually, frames::Frames, get, within,
};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const UNKNOWN: u8 = 0xfa;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;

/// A frame: its kind, flags, stream and payload.
type Sent<'p> = (u8, u8, u32, &'p [u8]);

const GET: [(&[u8], &[u8]); 4] = [
    (b":method", b"GET"),
    (b":scheme", b"https"),
    (b":authority", b"localhost"),
    (b":path", b"/public/flood"),
];

const POST: [(&[u8], &[u8]); 4] = [
    (b":method", b"POST"),
    (b":scheme", b"https"),
    (b":authority", b"localhost"),
    (b":path", b"/public/flood"),
];

/// A site whose budget does not come back within a test.
async fn gateway(upstream: &Upstream) -> Gateway {
    Site::new(upstream.address)
        .set("server.limits", "h2_control_frames", "\"300/1h\"")
        .start()
        .await
}

/// Sends frames until the connection ends; says which error it was told.
async fn flood(frames: &mut Frames, frame: Sent<'_>) -> Option<u32> {
    let (kind, flags, stream, payload) = frame;
    for _ in 0..5000 {
        if frames
            .try_frame(kind, flags, stream, payload)
            .await
            .is_err()
        {
            break;
        }
    }
    frames.farewell().await
}

#[tokio::test]
async fn msg_6_floods_of_control_frames_end_with_enhance_your_calm() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let one = 1_u32.to_be_bytes();
    let floods: [(&str, Sent<'_>); 8] = [
        ("ping", (PING, 0, 0, b"12345678")),
        ("acknowledgements of pings", (PING, ACK, 0, b"12345678")),
        ("settings", (SETTINGS, 0, 0, &[])),
        (
            "settings with a value",
            (SETTINGS, 0, 0, &[0, 4, 0, 0, 255, 255]),
        ),
        ("priority", (PRIORITY, 0, 9, &[0, 0, 0, 0, 1])),
        ("window updates", (WINDOW_UPDATE, 0, 0, &one)),
        ("unknown frames", (UNKNOWN, 0, 0, b"x")),
        ("unknown frames of a stream", (UNKNOWN, 0, 1, b"x")),
    ];
    for (number, (what, frame)) in (1_u32..).zip(floods) {
        let mut frames = Frames::connect(&gateway).await;
        let told = flood(&mut frames, frame).await;
        assert_eq!(told, Some(ENHANCE_YOUR_CALM), "{what}");
        let counted = gateway.metric("portcullis_http2_floods_total").await;
        assert_eq!(counted, Some(f64::from(number)), "{what}");
    }
    upstream.saw_nothing();
    get(&gateway, "/public", &[]).await.is(200);
}

#[tokio::test]
async fn msg_6_bodies_with_nothing_in_them_end_with_enhance_your_calm() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    for (flags, payload) in [(0, &b""[..]), (PADDED, &[3, 0, 0, 0])] {
        let mut frames = Frames::connect(&gateway).await;
        frames.begin(1, &POST).await;
        let told = flood(&mut frames, (DATA, flags, 1, payload)).await;
        assert_eq!(told, Some(ENHANCE_YOUR_CALM));
    }
    upstream
        .until("the requests to be given up", |upstream| {
            upstream.open() == 0
        })
        .await;
    assert!(upstream.seen().iter().all(|seen| !seen.complete));
}

#[tokio::test]
async fn msg_6_a_flood_of_continuations_ends_the_connection() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let before = gateway.memory();
    // Each with a byte of a field whose value never ends, and with none.
    for payload in [&b"x"[..], b"", &[b'x'; 4000]] {
        let mut frames = Frames::connect(&gateway).await;
        let start = [0x00, 0x01, b'x', 0x7f, 0xff, 0xff, 0x7f];
        frames.try_frame(HEADERS, 0, 1, &start).await.unwrap();
        let told = flood(&mut frames, (CONTINUATION, 0, 1, payload)).await;
        assert!(matches!(told, None | Some(1 | 11)), "{told:?}");
    }
    upstream.saw_nothing();
    let grown = gateway.memory().saturating_sub(before);
    assert!(grown < 64 << 10, "{grown} KiB more");
    get(&gateway, "/public", &[]).await.is(200);
}

#[tokio::test]
async fn msg_6_and_up_9_rapid_reset_ends_the_connection_and_its_requests() {
    let upstream = Upstream::scripted(|_| Reply(vec![Step::Hang])).await;
    let gateway = gateway(&upstream).await;
    let mut frames = Frames::connect(&gateway).await;
    for number in 0..5000 {
        let stream = 2 * number + 1;
        frames.request(stream, &GET, None).await;
        let cancel = 8_u32.to_be_bytes();
        if frames
            .try_frame(RST_STREAM, 0, stream, &cancel)
            .await
            .is_err()
        {
            break;
        }
        // Some of them reach the upstream before they are taken back.
        tokio::task::yield_now().await;
    }
    assert_eq!(frames.farewell().await, Some(ENHANCE_YOUR_CALM));
    assert!(upstream.count() <= 40, "{} reached it", upstream.count());
    upstream
        .until("the work to end", |upstream| upstream.open() == 0)
        .await;
    eventually("the connection to be forgotten", async || {
        let open = "portcullis_connections{listener=\"tls\"}";
        (gateway.metric(open).await == Some(0.0)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn msg_6_requests_reset_after_they_began_are_counted_too() {
    let upstream = Upstream::scripted(|_| Reply(vec![Step::Hang])).await;
    let gateway = gateway(&upstream).await;
    let mut frames = Frames::connect(&gateway).await;
    for (sent, stream) in (1..200).zip((1..).step_by(2)) {
        frames.request(stream, &GET, None).await;
        let reached = tokio::time::timeout(
            Duration::from_secs(5),
            upstream.until("the request", |upstream| upstream.count() >= sent),
        );
        if reached.await.is_err() {
            break;
        }
        let cancel = 8_u32.to_be_bytes();
        let _ = frames.try_frame(RST_STREAM, 0, stream, &cancel).await;
    }
    assert_eq!(frames.farewell().await, Some(ENHANCE_YOUR_CALM));
    assert!(upstream.count() <= 40, "{} reached it", upstream.count());
    upstream
        .until("the work to end", |upstream| upstream.open() == 0)
        .await;
}

#[tokio::test]
async fn msg_7_a_bomb_of_references_is_refused_whatever_the_window() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let before = gateway.memory();
    let mut held = Vec::new();
    for _ in 0..20 {
        let mut frames = Frames::connect_taking_nothing(&gateway).await;
        // One long field goes into the table, and each byte after it is that field again (RFC 7541 §6.1, §6.2.1).
        let mut block = vec![0x82, 0x87, 0x41, 9];
        block.extend(b"localhost");
        block.push(0x84);
        block.extend([0x40, 1, b'x', 0x7f, 0xa1, 0x1e]);
        block.extend([b'v'; 4000]);
        block.extend([0xbe; 4000]);
        frames
            .try_frame(HEADERS, END_HEADERS | 1, 1, &block)
            .await
            .unwrap();
        for _ in 0..20 {
            let _ = frames
                .try_frame(WINDOW_UPDATE, 0, 1, &1_u32.to_be_bytes())
                .await;
        }
        held.push(frames);
    }
    get(&gateway, "/public", &[]).await.is(200);
    let seen = upstream.seen();
    assert!(seen.iter().all(|seen| seen.target == "/public"), "{seen:?}");
    let grown = gateway.memory().saturating_sub(before);
    assert!(grown < 64 << 10, "{grown} KiB more");
}

#[tokio::test]
async fn a_busy_client_stays_within_the_budget() {
    let body = "x".repeat(300 << 10);
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
    let reply = format!("{head}{body}").into_bytes();
    let upstream = Upstream::scripted(move |_| Reply(vec![Step::Send(reply.clone())])).await;
    let gateway = Site::new(upstream.address)
        .set("server.limits", "h2_control_frames", "\"100/1h\"")
        .start()
        .await;
    let mut h2 = H2::connect(&gateway).await;
    within("all answers", async {
        for _ in 0..60 {
            assert_eq!(h2.get("/public", &[]).await.is(200).body.len(), 300 << 10);
        }
    })
    .await;
    let counted = gateway.metric("portcullis_http2_floods_total").await;
    assert_eq!(counted, Some(0.0));
}
