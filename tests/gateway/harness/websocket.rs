//! WebSocket handshakes and frames (RFC 6455), as bytes.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::{Engine, engine::general_purpose::STANDARD};

use super::{Raw, Reply, Seen, Step, request};

/// The key of every handshake here.
pub(crate) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// The answer to a key.
pub(crate) fn accept(key: &str) -> String {
    let joined = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, joined.as_bytes()))
}

/// A handshake with these fields besides.
pub(crate) fn handshake(target: &str, fields: &[(&str, &str)]) -> String {
    let usual = [
        ("Connection", "keep-alive, Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", KEY),
    ];
    request("GET", target, &[&usual, fields].concat(), "")
}

/// An upstream's answer `101` to a request.
pub(crate) fn switching(seen: &Seen) -> Vec<u8> {
    let accept = accept(seen.header("sec-websocket-key").unwrap_or_default());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    )
    .into_bytes()
}

/// An upstream that takes every handshake and sends every byte back.
pub(crate) fn mirror(seen: &Seen) -> Reply {
    Reply(vec![Step::Send(switching(seen)), Step::Mirror])
}

/// A frame of less than 126 bytes as a server writes it.
pub(crate) fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x80 | opcode, u8::try_from(payload.len()).unwrap()];
    assert!(bytes[1] < 126);
    bytes.extend_from_slice(payload);
    bytes
}

/// Opens a WebSocket and fails where it is refused.
pub(crate) async fn open(raw: &mut Raw, target: &str, fields: &[(&str, &str)]) {
    raw.send(handshake(target, fields)).await;
    let head = raw.head().await;
    assert_eq!(head.start, "HTTP/1.1 101 Switching Protocols");
    assert_eq!(head.value("upgrade"), Some("websocket"));
    assert_eq!(head.value("connection"), Some("upgrade"));
    assert_eq!(
        head.value("sec-websocket-accept"),
        Some(accept(KEY).as_str())
    );
}

/// Reads until these bytes have come.
#[track_caller]
pub(crate) fn expect(raw: &mut Raw, want: &[u8]) -> impl Future<Output = ()> {
    let place = std::panic::Location::caller();
    async move {
        let mut got = Vec::new();
        while got.len() < want.len() {
            let some = raw.some().await;
            assert!(!some.is_empty(), "{place}: the end after {got:?}");
            got.extend(some);
        }
        assert_eq!(got, want, "{place}");
    }
}

/// The status of the close frame that is the next and the last thing to come.
pub(crate) async fn closed(raw: &mut Raw) -> u16 {
    let rest = raw.rest().await;
    assert!(rest.len() >= 4, "no close frame: {rest:?}");
    assert_eq!(rest[0], 0x88, "not a close frame: {rest:?}");
    assert_eq!(
        usize::from(rest[1]),
        rest.len() - 2,
        "not the last: {rest:?}"
    );
    u16::from_be_bytes([rest[2], rest[3]])
}
