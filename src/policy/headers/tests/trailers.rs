//! MSG-13: what may follow a message.

use proptest::prelude::*;

use super::*;
use crate::policy::Streams;

const LIMITS: HeadLimits = HeadLimits {
    header_bytes: 8 << 10,
    header_count: 64,
    uri_bytes: 8 << 10,
};

fn filter(policy: &HeaderPolicy, direction: Direction, headers: &HeaderMap) -> Box<Trailers> {
    let edits = HeaderEdits {
        set: vec![("x-env".parse().unwrap(), HeaderValue::from_static("prod"))],
        remove: vec!["x-debug".parse().unwrap()],
    };
    let route = Route {
        request_headers: edits.clone(),
        response_headers: edits,
        streams: Streams {
            trailers: true,
            ..Streams::default()
        },
        ..route("orders")
    };
    policy
        .trailers(direction, headers, &route, &LIMITS)
        .unwrap()
}

/// All spellings of a name: each hyphen as it is, as a dot, as an underscore.
fn spellings(name: &str) -> [String; 3] {
    [
        name.to_owned(),
        name.replace('-', "."),
        name.replace('-', "_"),
    ]
}

const DIRECTIONS: [Direction; 2] = [Direction::Request, Direction::Answer];

#[test]
fn msg_13_a_route_without_trailers_has_none() {
    let policy = policy(&templates(Preset::Portcullis, MultiValue::Comma));
    for direction in DIRECTIONS {
        let none = policy.trailers(direction, &HeaderMap::new(), &route("orders"), &LIMITS);
        assert!(none.is_none());
    }
}

#[test]
fn msg_13_no_name_with_a_meaning_passes_in_any_spelling() {
    let templates = templates(Preset::Portcullis, MultiValue::Comma);
    let policy = policy(&templates);
    let headers = map(&[("connection", "close, X-Hop"), ("connection", "x-other")]);
    let mut names = reserved(&templates);
    for name in [
        "content-length",
        "transfer-encoding",
        "host",
        "content-type",
        "content-encoding",
        "authorization",
        "cookie",
        "set-cookie",
        "www-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "connection",
        "upgrade",
        "if-match",
        "cache-control",
        "vary",
        "via",
        "access-control-allow-origin",
        "sec-websocket-accept",
        "x-hop",
        "x-other",
        "x-env",
        "x-debug",
    ] {
        names.push(name.to_owned());
    }
    for direction in DIRECTIONS {
        let trailers = filter(&policy, direction, &headers);
        for name in names.iter().flat_map(|name| spellings(name)) {
            let left = trailers.filter(map(&[(&name, "forged"), ("x-sum", "1")]));
            let left = left.unwrap();
            assert_eq!(left.keys().collect::<Vec<_>>(), ["x-sum"], "{name}");
        }
    }
}

#[test]
fn msg_13_statuses_and_checksums_pass_and_underscores_as_in_header_sections() {
    let policy = policy(&templates(Preset::Portcullis, MultiValue::Comma));
    let good = map(&[
        ("grpc-status", "0"),
        ("grpc-message", "a"),
        ("grpc-status-details-bin", "a"),
        ("content-digest", "a"),
        ("etag", "a"),
        ("x-twice", "1"),
        ("x-twice", "2"),
        ("x_own", "1"),
    ]);
    for (direction, count) in [(Direction::Request, 7), (Direction::Answer, 8)] {
        let trailers = filter(&policy, direction, &HeaderMap::new());
        let left = trailers.filter(good.clone()).unwrap();
        assert_eq!(left.len(), count);
        assert_eq!(all(&left, "x-twice"), ["1", "2"]);
    }
}

#[test]
fn msg_13_more_than_a_header_section_is_too_much() {
    let policy = policy(&templates(Preset::Portcullis, MultiValue::Comma));
    let long = "y".repeat(8 << 10);
    for direction in DIRECTIONS {
        let trailers = filter(&policy, direction, &HeaderMap::new());
        for bad in [map(&[("x-one", &long)]), map(&[("x-one", "1"); 65])] {
            assert_eq!(trailers.filter(bad), Err(TrailersTooLarge));
        }
        assert!(trailers.filter(map(&[("x-one", "1"); 64])).is_ok());
    }
}

#[test]
fn msg_13_what_is_announced_is_what_passes() {
    let policy = policy(&templates(Preset::Portcullis, MultiValue::Comma));
    let headers = map(&[
        ("trailer", "X-Sum, X-Forwarded-User,, é, Content-Length"),
        ("trailer", "x-hop, X-Other"),
        ("connection", "x-hop"),
        ("te", "deflate, Trailers"),
    ]);
    for (direction, te) in [
        (Direction::Request, Some("trailers")),
        (Direction::Answer, None),
    ] {
        let mut told = HeaderMap::new();
        filter(&policy, direction, &headers).tell(&mut told);
        assert_eq!(told["trailer"], "x-sum, x-other");
        assert_eq!(told.get("te").map(|te| te.to_str().unwrap()), te);
    }
    for te in ["trailer", "deflate", "trailersx", "x trailers"] {
        let mut told = HeaderMap::new();
        filter(&policy, Direction::Request, &map(&[("te", te)])).tell(&mut told);
        assert!(told.is_empty(), "{te}");
    }
}

proptest! {
    /// Whatever is sent, nothing new appears, and no name that passes means one that does not.
    #[test]
    fn msg_13_what_passes_was_sent_and_means_nothing_reserved(
        names in proptest::collection::vec("(x[-_.])?(forwarded|auth|real|content|te|grpc)([-_.](user|ip|type|status))?", 1..20),
        hop in "[a-z]{1,3}([-_.][a-z]{1,3})?",
    ) {
        let templates = templates(Preset::Portcullis, MultiValue::Comma);
        let policy = policy(&templates);
        let sent: Vec<(&str, &str)> = names.iter().map(|name| (&**name, "v")).collect();
        let sent = map(&sent);
        for direction in DIRECTIONS {
            let trailers = filter(&policy, direction, &map(&[("connection", &hop)]));
            let left = trailers.filter(sent.clone()).unwrap();
            for name in left.keys() {
                let folded = name.as_str().replace(['_', '.'], "-");
                prop_assert!(sent.contains_key(name));
                prop_assert!(!is_reserved_name(name.as_str()), "{}", name);
                prop_assert!(!["content-type", "te"].contains(&&*folded));
                prop_assert!(folded != hop.replace(['_', '.'], "-"));
                prop_assert_eq!(all(&left, name.as_str()), all(&sent, name.as_str()));
            }
            prop_assert_eq!(trailers.filter(left.clone()).unwrap(), left);
        }
    }
}
