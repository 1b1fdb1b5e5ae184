//! HDR-9: what of an upstream's answer goes on, and what is added to every answer.

use super::*;

fn map(fields: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        let name: HeaderName = name.parse().unwrap();
        let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
        headers.append(name, value);
    }
    headers
}

/// What is left of an upstream's fields, without the defaults that were added.
#[track_caller]
fn check(fields: &[(&str, &str)], want: &[(&str, &str)]) {
    let mut headers = map(fields);
    finish_upstream(&mut headers, false);
    let mut want = map(want);
    insert_missing(&mut want, REFERRER_OF_UPSTREAM, false);
    assert_eq!(headers, want);
}

#[test]
fn hdr_9_reserved_cookies_of_an_upstream_are_removed() {
    for cookie in [
        "__Host-portcullis-session=forged; Path=/; Secure",
        "__Secure-portcullis-refresh=forged",
        "__secure-PORTCULLIS-refresh=forged",
        "  __Host-portcullis-session =forged",
        "\t__Host-portcullis-session\t= forged",
        "=__Host-portcullis-session=nameless",
        "= =__Host-portcullis-session=nameless",
        "__Host-portcullis-session",
        "__Host-portcullis-session; Path=/",
        "__Host-portcullis-session=\u{e9}",
    ] {
        check(&[("set-cookie", cookie)], &[]);
    }
}

#[test]
fn hdr_9_other_cookies_stay_in_their_order() {
    let others = [
        "a=__Host-portcullis-session=x",
        "x__Host-portcullis-session=1",
        "__Host-portcullis-session2=1",
        "\u{e9}=1",
        "",
    ];
    let mut fields: Vec<_> = others
        .iter()
        .map(|cookie| ("set-cookie", *cookie))
        .collect();
    let want = fields.clone();
    check(&fields, &want);
    fields.insert(2, ("set-cookie", "__Host-portcullis-session=forged"));
    fields.push(("set-cookie", "__Secure-portcullis-refresh=forged"));
    check(&fields, &want);
}

#[test]
fn hdr_9_connection_fields_of_an_upstream_are_removed() {
    check(
        &[
            ("connection", "keep-alive, X-Private"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("transfer-encoding", "chunked"),
            ("trailer", "x-sum"),
            ("upgrade", "h2c"),
            ("x-private", "1"),
            ("x-public", "1"),
        ],
        &[("x-public", "1")],
    );
    check(&[("keep-alive", "timeout=5"), ("te", "trailers")], &[]);
}

#[test]
fn hdr_9_connection_cannot_take_security_fields_away() {
    let guarded = [
        ("x-frame-options", "DENY"),
        ("content-security-policy", "default-src 'self'"),
        ("content-security-policy", "frame-ancestors 'none'"),
        ("cache-control", "no-store"),
        ("set-cookie", "a=1"),
        ("set-cookie", "b=2"),
        ("vary", "cookie"),
        ("x-content-type-options", "nosniff"),
        ("strict-transport-security", "max-age=1"),
    ];
    let options = guarded.map(|(name, _)| name).join(", ");
    let mut fields = vec![("connection", options.as_str())];
    fields.extend(guarded);
    fields.push(("set-cookie", "__Host-portcullis-session=forged"));
    check(&fields, &guarded);
}

#[test]
fn hdr_9_framing_is_said_once() {
    check(
        &[("transfer-encoding", "chunked"), ("content-length", "5")],
        &[],
    );
    check(
        &[("content-length", "5"), ("content-length", "5")],
        &[("content-length", "5")],
    );
    check(&[("content-length", "5")], &[("content-length", "5")]);
}

#[test]
fn hdr_9_security_fields_are_added_where_absent_and_never_doubled() {
    let mut headers = HeaderMap::new();
    finish_upstream(&mut headers, true);
    let want = [
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "strict-origin-when-cross-origin"),
        ("strict-transport-security", "max-age=31536000"),
    ];
    assert_eq!(headers, map(&want));
    let theirs = [
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "origin"),
        ("strict-transport-security", "max-age=60; includeSubDomains"),
    ];
    let mut headers = map(&theirs);
    finish_upstream(&mut headers, true);
    assert_eq!(headers, map(&theirs));
}

#[test]
fn own_answers_keep_their_cookies_and_send_no_referrer() {
    let mut headers = map(&[("set-cookie", "__Host-portcullis-session=ours")]);
    finish_own(&mut headers, false);
    let want = [
        ("set-cookie", "__Host-portcullis-session=ours"),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
    ];
    assert_eq!(headers, map(&want));
}

#[test]
fn hdr_9_an_answer_to_a_caller_who_is_known_is_in_no_shared_cache_unawares() {
    let kept = |fields: &[(&str, &str)]| {
        let mut headers = map(fields);
        keep_private(&mut headers);
        let lines = headers.get_all("cache-control").iter();
        let lines: Vec<String> = lines
            .map(|line| String::from_utf8_lossy(line.as_bytes()).into_owned())
            .collect();
        lines.join(", ")
    };
    for (said, want) in [
        ("", "private"),
        ("max-age=3600", "max-age=3600, private"),
        (
            "immutable, max-age=3600",
            "immutable, max-age=3600, private",
        ),
        ("publicity", "publicity, private"),
        ("x=public", "x=public, private"),
    ] {
        let fields = [("cache-control", said)];
        let fields = if said.is_empty() { &[][..] } else { &fields };
        assert_eq!(kept(fields), want);
    }
    for said in [
        "public, max-age=60",
        "PUBLIC",
        "max-age=60 , s-maxage=1",
        "max-age=0, must-revalidate",
        "no-store",
        "no-cache",
        "private=\"x\", max-age=1",
    ] {
        assert_eq!(kept(&[("cache-control", said)]), said);
    }
    let two = [("cache-control", "max-age=1"), ("cache-control", "public")];
    assert_eq!(kept(&two), "max-age=1, public");
    assert_eq!(
        kept(&[("expires", "Thu, 01 Jan 2099 00:00:00 GMT")]),
        "private"
    );
}

#[test]
fn detached_values_keep_no_buffer() {
    let mut buffer = vec![b' '; 64 << 10];
    buffer[..5].copy_from_slice(b"nginx");
    buffer[5..7].copy_from_slice(b"\xe9t");
    let buffer = bytes::Bytes::from(buffer);
    let piece = |range| HeaderValue::from_maybe_shared(buffer.slice(range)).unwrap();
    let mut secret = piece(5..7);
    secret.set_sensitive(true);
    let mut headers = HeaderMap::new();
    headers.insert(header::SERVER, piece(0..5));
    headers.append(header::SERVER, piece(0..3));
    headers.insert(header::SET_COOKIE, secret);
    let before = headers.clone();
    assert!(!buffer.is_unique());
    detach(&mut headers);
    assert_eq!(headers, before);
    assert!(headers[header::SET_COOKIE].is_sensitive());
    assert!(!headers[header::SERVER].is_sensitive());
    drop(before);
    assert!(buffer.is_unique());
}
