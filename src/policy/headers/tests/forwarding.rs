//! HDR-3, HDR-4, MSG-14: hop-by-hop fields, forwarding fields, `Via`, `traceparent`.

use super::*;

#[test]
fn hdr_3_connection_options_take_away_nothing_that_is_injected() {
    let templates = templates(Preset::Portcullis, MultiValue::Comma);
    let policy = policy(&templates);
    let plain = Case::new(&policy, identity(claims(), &templates)).prepare(&[("host", "app")]);
    let names: Vec<String> = plain.keys().map(ToString::to_string).collect();
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let case = Case {
            version,
            ..Case::new(&policy, identity(claims(), &templates))
        };
        for name in &names {
            for option in [
                name.clone(),
                name.to_uppercase(),
                format!("close, {name}"),
                format!("keep-alive,{name} ,x"),
            ] {
                let headers =
                    case.prepare(&[("host", "app"), ("connection", &option), (name, "forged")]);
                assert!(!headers.contains_key("connection"));
                if name != "host" {
                    assert_no_forgery(&headers);
                }
                for name in &names {
                    assert!(headers.contains_key(name), "{option} took {name}");
                }
            }
        }
        let list = names.join(", ");
        let headers = case.prepare(&[
            ("host", "app"),
            ("connection", "close"),
            ("connection", &list),
        ]);
        assert!(names.iter().all(|name| headers.contains_key(name)));
    }
}

#[test]
fn hdr_3_fields_of_one_connection_are_removed() {
    let mut headers = map(&[
        ("connection", "x-hop, \u{e9}"),
        ("connection", "x-second,, X-Third"),
        ("x-hop", "1"),
        ("x-second", "1"),
        ("x-third", "1"),
        ("keep-alive", "1"),
        ("proxy-connection", "close"),
        ("te", "trailers"),
        ("trailer", "x"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("http2-settings", "AAAA"),
        ("proxy-authorization", "x"),
        ("expect", "100-continue"),
        ("x-kept", "1"),
    ]);
    strip_hop_by_hop(&mut headers);
    let left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
    assert_eq!(left, ["x-kept"]);

    let protected = [
        ("host", "app"),
        ("content-length", "3"),
        ("content-type", "a/b"),
        ("authorization", "x"),
        ("cookie", "a=b"),
    ];
    let mut headers = map(&protected);
    headers.insert(
        "connection",
        HeaderValue::from_static("host, content-length, Content-Type, authorization, cookie"),
    );
    strip_hop_by_hop(&mut headers);
    assert_eq!(headers.len(), protected.len());
}

fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let mut hops = HopByHop::default();
    headers.keys().for_each(|name| hops.look_at(name));
    hops.strip(headers, &[]);
}

const SPOOFED: [(&str, &str); 9] = [
    ("x-forwarded-for", "10.0.0.1"),
    ("x-forwarded-for", "10.0.0.2"),
    ("x-forwarded-host", "evil.example.com"),
    ("x-forwarded-proto", "http"),
    ("x-forwarded-port", "1"),
    ("x-forwarded-prefix", "/evil"),
    ("x-real-ip", "10.0.0.1"),
    ("forwarded", "for=10.0.0.1;host=evil"),
    ("x-original-url", "/evil"),
];

#[test]
fn hdr_4_forwarding_fields_of_an_untrusted_peer_are_replaced() {
    let policy = policy(&Arc::default());
    let headers = Case::new(&policy, Caller::Anonymous).prepare(&SPOOFED);
    for (name, value) in [
        ("x-forwarded-for", "198.51.100.7"),
        ("x-forwarded-host", "app.example.com:8443"),
        ("x-forwarded-proto", "https"),
        ("x-real-ip", "198.51.100.7"),
        ("x-request-id", REQUEST_ID),
    ] {
        assert_eq!(all(&headers, name), [value]);
    }
    for name in [
        "x-forwarded-port",
        "x-forwarded-prefix",
        "forwarded",
        "x-original-url",
    ] {
        assert!(!headers.contains_key(name), "{name}");
    }
}

#[test]
fn hdr_4_where_forwarded_is_believed_nothing_else_is() {
    let policy = policy(&Arc::default());
    let case = Case {
        trusted: true,
        fields: ForwardedHeaders::Forwarded,
        ..Case::new(&policy, Caller::Anonymous)
    };
    let own = ["app.example.com:8443", "https"];
    for (lines, hops, [host, proto]) in [
        (&[][..], "198.51.100.7", own),
        (
            &["for=_a;host=a.example.com;proto=http"],
            "198.51.100.7",
            ["a.example.com", "http"],
        ),
        (
            &[
                "for=192.0.2.66;host=far;proto=http",
                "for=\"[2001:db8::1]:1\", for=10.0.0.9;host=\"b:1\";proto=https",
            ],
            "192.0.2.66, 2001:db8::1, 10.0.0.9, 198.51.100.7",
            ["b:1", "https"],
        ),
        // Scheme and host are the peer's word alone, and one that cannot be read says nothing.
        (
            &["for=192.0.2.66;host=far;proto=http, for=10.0.0.9"],
            "192.0.2.66, 10.0.0.9, 198.51.100.7",
            own,
        ),
        (
            &["for=192.0.2.66;host=far;proto=http, for=a"],
            "198.51.100.7",
            own,
        ),
        (
            &["for=192.0.2.66, x, for=10.0.0.9"],
            "10.0.0.9, 198.51.100.7",
            own,
        ),
        (
            &["for=10.0.0.9;host=\"a b\";proto=ftp"],
            "10.0.0.9, 198.51.100.7",
            own,
        ),
        (&["for=10.0.0.9;host=a;host=b"], "198.51.100.7", own),
    ] {
        let mut fields: Vec<_> = SPOOFED
            .into_iter()
            .filter(|field| field.0 != "forwarded")
            .collect();
        fields.extend(lines.iter().map(|line| ("forwarded", *line)));
        let headers = case.prepare(&fields);
        assert_eq!(all(&headers, "x-forwarded-for"), [hops], "{lines:?}");
        assert_eq!(all(&headers, "x-forwarded-host"), [host], "{lines:?}");
        assert_eq!(all(&headers, "x-forwarded-proto"), [proto], "{lines:?}");
        assert_eq!(all(&headers, "x-real-ip"), ["198.51.100.7"]);
        assert!(!headers.contains_key("forwarded"));
        let stranger = Case::new(&policy, Caller::Anonymous);
        let headers = stranger.prepare(&fields);
        assert_eq!(all(&headers, "x-forwarded-for"), ["198.51.100.7"]);
        assert_eq!(all(&headers, "x-forwarded-host"), [own[0]]);
        assert!(!headers.contains_key("forwarded"));
    }
}

#[test]
fn hdr_4_forwarding_fields_of_a_trusted_peer_are_continued() {
    let policy = policy(&Arc::default());
    let case = Case {
        trusted: true,
        ..Case::new(&policy, Caller::Anonymous)
    };
    let headers = case.prepare(&SPOOFED);
    assert_eq!(
        all(&headers, "x-forwarded-for"),
        ["10.0.0.1, 10.0.0.2, 198.51.100.7"]
    );
    assert_eq!(all(&headers, "x-forwarded-host"), ["evil.example.com"]);
    assert_eq!(all(&headers, "x-forwarded-proto"), ["http"]);
    // What we decided, not what anybody says.
    assert_eq!(all(&headers, "x-real-ip"), ["198.51.100.7"]);
    for name in [
        "x-forwarded-port",
        "x-forwarded-prefix",
        "forwarded",
        "x-original-url",
    ] {
        assert!(!headers.contains_key(name), "{name}");
    }
    // Named as a connection option they are still the trusted peer's word.
    let headers = case.prepare(&[
        ("connection", "x-forwarded-for"),
        ("x-forwarded-for", "10.0.0.1"),
    ]);
    assert_eq!(all(&headers, "x-forwarded-for"), ["10.0.0.1, 198.51.100.7"]);
}

#[test]
fn hdr_4_unusable_words_of_a_trusted_peer_are_dropped() {
    let policy = policy(&Arc::default());
    let case = Case {
        trusted: true,
        ..Case::new(&policy, Caller::Anonymous)
    };
    for (name, value, want) in [
        ("x-forwarded-proto", "ftp", "https"),
        ("x-forwarded-proto", "", "https"),
        ("x-forwarded-proto", "http, https", "https"),
        ("x-forwarded-proto", "HTTP", "https"),
        ("x-forwarded-host", "a b", "app.example.com:8443"),
        ("x-forwarded-host", "a/b", "app.example.com:8443"),
        ("x-forwarded-host", "", "app.example.com:8443"),
        ("x-forwarded-host", "u@h", "app.example.com:8443"),
        ("x-forwarded-host", "é", "app.example.com:8443"),
    ] {
        assert_eq!(
            all(&case.prepare(&[(name, value)]), name),
            [want],
            "{value:?}"
        );
    }
    let twice = [
        ("x-forwarded-proto", "http"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "a"),
        ("x-forwarded-host", "a"),
    ];
    let headers = case.prepare(&twice);
    assert_eq!(all(&headers, "x-forwarded-proto"), ["https"]);
    assert_eq!(all(&headers, "x-forwarded-host"), ["app.example.com:8443"]);
}

#[test]
fn msg_14_a_request_that_passed_before_is_refused() {
    let policy = policy(&Arc::default());
    let case = Case::new(&policy, Caller::Anonymous);
    for lines in [
        &["1.1 gate-1"][..],
        &["2.0 gate-1"],
        &["1.0 a, 1.1 gate-1"],
        &["1.1 gate-1, 1.0 b"],
        &["1.0 a", "1.1 gate-1"],
        &["1.1 gate-1 (comment)"],
        &["  1.1   gate-1  "],
        &["HTTP/1.1 gate-1"],
        &["1.1 \u{e9}, 1.1 gate-1"],
    ] {
        let fields: Vec<_> = lines.iter().map(|line| ("via", *line)).collect();
        assert_eq!(
            case.try_prepare(&mut map(&fields)),
            Err(Rejection::LoopDetected),
            "{lines:?}"
        );
    }
    for line in [
        "1.1 gate-2",
        "1.1 gate-11",
        "1.1 agate-1",
        "gate-1",
        "1.1 x gate-1",
        "",
        "1.1",
        ",",
    ] {
        assert_eq!(
            case.try_prepare(&mut map(&[("via", line)])),
            Ok(()),
            "{line}"
        );
    }
    assert_eq!(
        all(&case.prepare(&[("via", "1.0 a")]), "via"),
        ["1.0 a", "1.1 gate-1"]
    );
    let h2 = Case {
        version: Version::HTTP_2,
        ..case
    };
    let headers = h2.prepare(&[]);
    assert_eq!(all(&headers, "via"), ["2.0 gate-1"]);
    // What leaves is refused when it comes back.
    assert_eq!(
        h2.try_prepare(&mut headers.clone()),
        Err(Rejection::LoopDetected)
    );
    assert!(HeaderPolicy::new(Arc::default(), "a\nb", false).is_err());
}

#[test]
fn msg_14_order_and_count_of_other_fields_are_kept() {
    let policy = policy(&Arc::default());
    let fields = [
        ("accept", "a"),
        ("x-list", "1"),
        ("accept", "b"),
        ("x-list", "2"),
        ("x-list", "1"),
    ];
    let headers = Case::new(&policy, Caller::Anonymous).prepare(&fields);
    assert_eq!(all(&headers, "accept"), ["a", "b"]);
    assert_eq!(all(&headers, "x-list"), ["1", "2", "1"]);
}

#[test]
fn traceparent_is_kept_when_well_formed_and_begun_otherwise() {
    let policy = policy(&Arc::default());
    let case = Case::new(&policy, Caller::Anonymous);
    let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    assert_eq!(
        all(&case.prepare(&[("traceparent", good)]), "traceparent"),
        [good]
    );
    let begun = format!("00-{REQUEST_ID}-{}-00", REQUEST_ID.split_at(16).1);
    for bad in [
        "",
        "x",
        "00-0-0-0",
        &good.to_uppercase(),
        &good.replacen("00", "ff", 1),
        &format!("{good}-x"),
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
    ] {
        assert_eq!(
            all(&case.prepare(&[("traceparent", bad)]), "traceparent"),
            [&*begun],
            "{bad}"
        );
    }
}
