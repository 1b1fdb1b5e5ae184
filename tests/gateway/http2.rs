//! HTTP/2 requests that are malformed by their frames and fields: no part of one reaches an upstream as a request.

use std::time::{Duration, Instant};

use crate::harness::{
    Gateway, Site, Upstream,
    frames::{Frames, Outcome},
    get,
};

type Field = (&'static [u8], &'static [u8]);

const METHOD: Field = (b":method", b"POST");
const SCHEME: Field = (b":scheme", b"https");
const AUTHORITY: Field = (b":authority", b"localhost");
const PATH: Field = (b":path", b"/public/case");
const GOOD: [Field; 4] = [METHOD, SCHEME, AUTHORITY, PATH];

/// Sends a request on a connection of its own.
async fn outcome(gateway: &Gateway, fields: &[Field], body: Option<&[u8]>) -> Outcome {
    let mut frames = Frames::connect(gateway).await;
    frames.request(1, fields, body).await;
    frames.outcome(1).await
}

fn with(field: Field) -> Vec<Field> {
    let mut fields = GOOD.to_vec();
    fields.push(field);
    fields
}

fn shown(fields: &[Field]) -> Vec<String> {
    fields
        .iter()
        .map(|(name, value)| {
            format!(
                "{}: {}",
                String::from_utf8_lossy(name),
                String::from_utf8_lossy(value)
            )
        })
        .collect()
}

/// Each must be a stream error, the end of the connection, or a 400; the upstream sees no whole request.
async fn all_refused(cases: &[(Vec<Field>, Option<&[u8]>)]) {
    let upstream = Upstream::start().await;
    let gateway = Site::new(upstream.address).start().await;
    let mut faults = Vec::new();
    for (fields, body) in cases {
        let before = upstream.count();
        let outcome = outcome(&gateway, fields, *body).await;
        if !matches!(
            outcome,
            Outcome::Reset | Outcome::Closed | Outcome::Status(400)
        ) {
            faults.push(format!("{:?}: {outcome:?}", shown(fields)));
        }
        if upstream.seen()[before..].iter().any(|seen| seen.complete) {
            faults.push(format!("{:?}: the upstream saw it", shown(fields)));
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
    upstream.saw_no_fault();
    // Nothing of them is left on a connection that is used again.
    get(&gateway, "/public/next", &[]).await.is(200);
    assert_eq!(upstream.last().target, "/public/next");
    assert_eq!(upstream.last().body_length, 0);
}

#[tokio::test]
async fn the_frames_of_a_good_request_are_answered() {
    let upstream = Upstream::start().await;
    let gateway = Site::new(upstream.address).start().await;
    assert_eq!(outcome(&gateway, &GOOD, None).await, Outcome::Status(200));
    assert_eq!(
        outcome(&gateway, &with((b"content-length", b"5")), Some(b"abcde")).await,
        Outcome::Status(200)
    );
    assert_eq!(&*upstream.last().body, b"abcde");
    assert_eq!(
        outcome(&gateway, &with((b"te", b"trailers")), None).await,
        Outcome::Status(200)
    );
    let mut private = GOOD;
    private[3] = (b":path", b"/private");
    assert_eq!(
        outcome(&gateway, &private, None).await,
        Outcome::Status(401)
    );
    upstream.saw_no_fault();
}

#[tokio::test]
async fn msg_11_refused_upload_over_http2_is_reset_only_when_its_client_could_read_why() {
    let upstream = Upstream::start().await;
    let gateway = Site::new(upstream.address).start().await;
    let mut private = GOOD;
    private[3] = (b":path", b"/private");
    let mut frames = Frames::connect(&gateway).await;
    let begun = Instant::now();
    frames.begin(1, &private).await;
    assert_eq!(frames.outcome(1).await, Outcome::Status(401));
    // Clients that are told so at once, while they still send, lose the answer. It is not left open for ever either.
    assert_eq!(frames.outcome(1).await, Outcome::Reset);
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert_eq!(upstream.count(), 0);
}

#[tokio::test]
async fn msg_5_fields_of_one_connection_are_refused() {
    let fields: [Field; 9] = [
        (b"connection", b"close"),
        (b"connection", b"x-forwarded-user"),
        (b"keep-alive", b"timeout=5"),
        (b"proxy-connection", b"keep-alive"),
        (b"transfer-encoding", b"chunked"),
        (b"transfer-encoding", b"identity"),
        (b"upgrade", b"h2c"),
        (b"te", b"gzip"),
        (b"te", b"trailers, deflate"),
    ];
    all_refused(&fields.map(|field| (with(field), None))).await;
}

#[tokio::test]
async fn msg_5_names_and_values_that_are_not_fields_are_refused() {
    let fields: [Field; 16] = [
        (b"X-Upper", b"a"),
        (b"x-uppeR", b"a"),
        (b"", b"a"),
        (b"x y", b"a"),
        (b"x:y", b"a"),
        (b"x\r\ny", b"a"),
        (b"x\0y", b"a"),
        (b"\xff", b"a"),
        (b"x", b"a\0b"),
        (b"x", b"a\rb"),
        (b"x", b"a\nb"),
        (b"x", b"a\r\nx-forwarded-user: root"),
        (b"x", b"a\x7fb"),
        (b"x", b"a\x01b"),
        (b":unknown", b"a"),
        (b":status", b"200"),
    ];
    all_refused(&fields.map(|field| (with(field), None))).await;
}

#[tokio::test]
async fn msg_5_pseudo_fields_missing_twice_or_late_are_refused() {
    let x: Field = (b"x", b"y");
    let cases = [
        vec![SCHEME, AUTHORITY, PATH],
        vec![METHOD, AUTHORITY, PATH],
        vec![METHOD, SCHEME, AUTHORITY],
        vec![METHOD, SCHEME, PATH],
        vec![METHOD, METHOD, SCHEME, AUTHORITY, PATH],
        vec![METHOD, SCHEME, SCHEME, AUTHORITY, PATH],
        vec![METHOD, SCHEME, AUTHORITY, AUTHORITY, PATH],
        vec![METHOD, SCHEME, AUTHORITY, PATH, PATH],
        vec![
            METHOD,
            SCHEME,
            AUTHORITY,
            PATH,
            (b":path", b"/public/other"),
        ],
        vec![x, METHOD, SCHEME, AUTHORITY, PATH],
        vec![METHOD, SCHEME, AUTHORITY, x, PATH],
        vec![METHOD, SCHEME, x, AUTHORITY, PATH],
        vec![METHOD, SCHEME, AUTHORITY, (b":path", b"")],
        vec![(b":method", b""), SCHEME, AUTHORITY, PATH],
        vec![(b":method", b"PO ST"), SCHEME, AUTHORITY, PATH],
        vec![METHOD, SCHEME, (b":authority", b""), PATH],
        vec![METHOD, SCHEME, (b":authority", b"user@localhost"), PATH],
        vec![METHOD, SCHEME, (b":authority", b"local host"), PATH],
        vec![METHOD, SCHEME, (b":authority", b"localhost/x"), PATH],
        vec![METHOD, SCHEME, AUTHORITY, (b":path", b"public/case")],
        vec![METHOD, SCHEME, AUTHORITY, (b":path", b"*")],
        vec![METHOD, SCHEME, AUTHORITY, (b":path", b"/public case")],
        vec![METHOD, SCHEME, AUTHORITY, (b":path", b"/public\r\nx: y")],
        vec![METHOD, SCHEME, AUTHORITY, (b":path", b"/public\0")],
        vec![
            METHOD,
            SCHEME,
            AUTHORITY,
            (b":path", b"https://localhost/public"),
        ],
    ];
    all_refused(&cases.map(|fields| (fields, None))).await;
}

#[tokio::test]
async fn uri_2_a_fragment_takes_no_part() {
    // The library that reads the frames drops a fragment before anybody can see it: then neither decision nor upstream has it.
    let upstream = Upstream::start().await;
    let gateway = Site::new(upstream.address).start().await;
    let mut fields = GOOD;
    let protected: [&[u8]; 3] = [
        b"/private#/public",
        b"/private/#/../public",
        b"/private?a#/public",
    ];
    for path in protected {
        fields[3] = (b":path", path);
        let outcome = outcome(&gateway, &fields, None).await;
        assert!(
            !matches!(outcome, Outcome::Status(200)),
            "{:?}: {outcome:?}",
            shown(&fields)
        );
        upstream.saw_nothing();
    }
    fields[3] = (b":path", b"/public/a#/private");
    if outcome(&gateway, &fields, None).await == Outcome::Status(200) {
        assert_eq!(upstream.last().target, "/public/a");
    }
}

#[tokio::test]
async fn msg_5_data_behind_a_length_of_0_goes_nowhere() {
    // Whether the answer or the reset comes first is a matter of chance.
    let upstream = Upstream::start().await;
    let gateway = Site::new(upstream.address).start().await;
    let fields = with((b"content-length", b"0"));
    for _ in 0..20 {
        let outcome = outcome(&gateway, &fields, Some(b"abcde")).await;
        assert!(
            matches!(
                outcome,
                Outcome::Reset | Outcome::Closed | Outcome::Status(200 | 400)
            ),
            "{outcome:?}"
        );
        assert!(upstream.seen().iter().all(|seen| seen.body_length == 0));
        upstream.saw_no_fault();
    }
    get(&gateway, "/public/next", &[]).await.is(200);
    assert_eq!(upstream.last().target, "/public/next");
}

#[tokio::test]
async fn msg_5_lengths_that_are_not_the_body_s_are_refused() {
    // A length of 0 has a test of its own: it is a whole request before its DATA comes.
    let lengths: [(&[u8], Option<&[u8]>); 11] = [
        (b"10", None),
        (b"1", None),
        (b"10", Some(b"")),
        (b"10", Some(b"abcde")),
        (b"3", Some(b"abcde")),
        (b"+5", Some(b"abcde")),
        (b"-5", Some(b"abcde")),
        (b"0x5", Some(b"abcde")),
        (b"5, 5", Some(b"abcde")),
        (b"", Some(b"abcde")),
        (b"99999999999999999999", Some(b"abcde")),
    ];
    let cases: Vec<(Vec<Field>, Option<&[u8]>)> = lengths
        .map(|(length, body)| (with((b"content-length", length)), body))
        .into();
    all_refused(&cases).await;
    let mut twice = with((b"content-length", b"5"));
    twice.push((b"content-length", b"6"));
    all_refused(&[(twice, Some(b"abcde"))]).await;
}
