//! Several hundred spellings of a protected path: each is refused, or decided as that path, in both versions of HTTP.

use std::{collections::BTreeSet, fs, path::Path};

use crate::{
    corpus::unescape,
    harness::{
        Broken, Raw, Upstream,
        frames::{Frames, Outcome},
    },
    paths::gateway,
};

/// The fewest spellings that the list must hold (URI-1).
const FEWEST: usize = 300;

/// The list of `corpus/paths.txt`, as bytes.
fn bypasses() -> Vec<Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gateway/corpus/paths.txt");
    let text = fs::read_to_string(path).unwrap();
    let is_case = |line: &&str| !line.is_empty() && !line.starts_with('#');
    text.lines().filter(is_case).map(unescape).collect()
}

/// Reads a path as the most forgiving server might: decodes until nothing is left to decode, takes backslashes for
/// slashes, drops parameters, merges slashes, resolves dots.
fn forgiving(target: &str) -> String {
    let mut path = target
        .split(['?', '#'])
        .next()
        .unwrap_or_default()
        .as_bytes()
        .to_vec();
    for _ in 0..5 {
        let mut decoded = Vec::new();
        let mut at = 0;
        while at < path.len() {
            let hex = path
                .get(at + 1..at + 3)
                .and_then(|pair| std::str::from_utf8(pair).ok());
            match hex
                .filter(|_| path[at] == b'%')
                .and_then(|pair| u8::from_str_radix(pair, 16).ok())
            {
                Some(byte) => {
                    decoded.push(byte);
                    at += 3;
                }
                None => {
                    decoded.push(path[at]);
                    at += 1;
                }
            }
        }
        path = decoded;
    }
    let text = String::from_utf8_lossy(&path)
        .replace('\\', "/")
        .replace(['\0', '\t', '\n', '\r'], "");
    let mut segments: Vec<&str> = Vec::new();
    for segment in text.split('/') {
        let segment = segment.split(';').next().unwrap_or_default();
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            other => segments.push(other),
        }
    }
    format!("/{}", segments.join("/"))
}

/// Whether the most forgiving reading of a target is the protected path.
pub(crate) fn is_private(target: &str) -> bool {
    let path = forgiving(target);
    path == "/private" || path.starts_with("/private/")
}

/// Says what is wrong with an outcome; 0 is an end without an answer.
fn fault(target: &[u8], status: u16, seen: &[crate::harness::Seen]) -> Option<String> {
    let forwarded = seen.iter().any(|seen| is_private(&seen.target));
    let refused = [0, 400, 401].contains(&status) && seen.is_empty();
    let elsewhere = status == 200 && seen.len() == 1;
    (forwarded || !(refused || elsewhere)).then(|| {
        let targets: Vec<&str> = seen.iter().map(|seen| seen.target.as_str()).collect();
        let target = String::from_utf8_lossy(target);
        format!("{target:?}: {status}, the upstream saw {targets:?}")
    })
}

#[test]
fn uri_1_the_list_of_bypasses_is_long_and_read_forgivingly() {
    let all = bypasses();
    assert!(all.len() >= FEWEST, "{}", all.len());
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
    for target in [
        "/public/..%252fprivate/secret",
        "\\private\\secret",
        "/public/..;a=b/private/secret",
        "//./private",
    ] {
        assert!(is_private(target), "{target}");
    }
    assert!(!is_private("/public/private"));
}

#[tokio::test]
async fn uri_1_no_spelling_of_a_protected_path_reaches_the_upstream() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let mut faults = Vec::new();
    for target in bypasses() {
        let before = upstream.count();
        let mut raw = Raw::connect(&gateway).await;
        let rest = b" HTTP/1.1\r\nHost: localhost\r\n\r\n";
        raw.send([b"GET ", &*target, rest].concat()).await;
        let status = match raw.try_answer().await {
            Ok(answer) => answer.status,
            Err(Broken::Closed) => 0,
            Err(broken) => panic!("{target:?}: {broken:?}"),
        };
        let seen = upstream.seen().split_off(before);
        faults.extend(fault(&target, status, &seen));
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
    upstream.saw_no_fault();
}

#[tokio::test]
async fn uri_1_no_spelling_of_a_protected_path_passes_over_http_2() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let mut faults = Vec::new();
    for target in bypasses() {
        let before = upstream.count();
        let mut frames = Frames::connect(&gateway).await;
        let fields: [(&[u8], &[u8]); 4] = [
            (b":method", b"GET"),
            (b":scheme", b"https"),
            (b":authority", b"localhost"),
            (b":path", &target),
        ];
        frames.request(1, &fields, None).await;
        let status = match frames.outcome(1).await {
            Outcome::Status(status) => status,
            Outcome::Reset | Outcome::Closed => 0,
        };
        let seen = upstream.seen().split_off(before);
        faults.extend(fault(&target, status, &seen));
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
    upstream.saw_no_fault();
}
