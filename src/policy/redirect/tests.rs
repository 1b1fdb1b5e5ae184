//! The corpus of payloads by which redirects were turned elsewhere, and what must still go through.

use proptest::prelude::*;

use super::*;

/// One payload a line, as Rust string literals have it. `evil.example` is where each tries to get.
const PAYLOADS: &str = include_str!("payloads.txt");

fn payloads() -> Vec<String> {
    let unescape = |line: &str| {
        let line = line.replace("\\t", "\t").replace("\\n", "\n");
        let line = line.replace("\\r", "\r").replace("\\0", "\0");
        line.replace("\\\\", "\\")
    };
    PAYLOADS
        .lines()
        .filter(|line| !line.starts_with("# "))
        .map(unescape)
        .collect()
}

fn targets() -> RedirectTargets {
    let own = Url::parse("https://app.example.com").unwrap();
    let listed = [
        Url::parse("https://other.example.com:8443/ignored?x").unwrap(),
        Url::parse("https://xn--bcher-kva.example").unwrap(),
    ];
    RedirectTargets::new(&own, &listed)
}

fn is_allowed(target: &RedirectTarget) -> bool {
    // Read as a browser does, from a page of our own.
    let page = Url::parse("https://app.example.com/auth/login").unwrap();
    let url = page.join(target.as_str()).unwrap();
    let origin = url.origin().ascii_serialization();
    let known = [
        "https://app.example.com",
        "https://other.example.com:8443",
        "https://xn--bcher-kva.example",
    ];
    known.contains(&&*origin) && url.username().is_empty() && url.as_str() == target.as_str()
}

#[test]
fn uri_6_no_payload_of_the_corpus_leads_elsewhere() {
    let payloads = payloads();
    assert!(payloads.len() >= 120, "{}", payloads.len());
    let targets = targets();
    let mut taken = Vec::new();
    for payload in &payloads {
        if let Some(target) = targets.read(payload) {
            assert!(is_allowed(&target), "{payload:?}: {target}");
            taken.push(payload);
        }
    }
    // None of them is a place that anybody has an honest reason to be sent to.
    assert!(taken.is_empty(), "{taken:#?}");
}

#[test]
fn uri_6_own_paths_and_listed_origins_are_taken() {
    let targets = targets();
    for (text, want) in [
        ("/", "https://app.example.com/"),
        ("/orders", "https://app.example.com/orders"),
        (
            "/orders/1?a=b&c=d",
            "https://app.example.com/orders/1?a=b&c=d",
        ),
        (
            "/?next=//evil.example/",
            "https://app.example.com/?next=//evil.example/",
        ),
        (
            "/a?u=https://evil.example/",
            "https://app.example.com/a?u=https://evil.example/",
        ),
        ("/caf%c3%a9", "https://app.example.com/caf%C3%A9"),
        // A slash of another alphabet is a letter like any other.
        (
            "/%ef%bc%8fevil.example",
            "https://app.example.com/%EF%BC%8Fevil.example",
        ),
        ("/%61", "https://app.example.com/a"),
        ("/a//b", "https://app.example.com/a/b"),
        ("/@evil.example", "https://app.example.com/@evil.example"),
        ("/a:b@c", "https://app.example.com/a:b@c"),
        ("/?", "https://app.example.com/?"),
        ("https://app.example.com", "https://app.example.com/"),
        ("https://app.example.com:443/a", "https://app.example.com/a"),
        ("https://APP.example.com/a", "https://app.example.com/a"),
        (
            "https://other.example.com:8443/a?b",
            "https://other.example.com:8443/a?b",
        ),
        (
            "https://xn--bcher-kva.example/",
            "https://xn--bcher-kva.example/",
        ),
    ] {
        let read = targets.read(text);
        assert_eq!(
            read.as_ref().map(RedirectTarget::as_str),
            Some(want),
            "{text}"
        );
        assert!(is_allowed(&read.unwrap()));
    }
    let long = format!("/{}", "a".repeat(TARGET_BYTES_MAX - 1));
    assert!(targets.read(&long).is_some());
    assert!(targets.read(&format!("{long}a")).is_none());
}

proptest! {
    #[test]
    fn uri_6_what_is_taken_stays_at_home(text in "(https:)?[/\\\\@?#:.%a-z0-9\t\r\n ]{0,4}(//|app\\.example\\.com|evil\\.example|%2f|%5c|%09|[\\PC]|[/@?:.])\
        {0,8}") {
        if let Some(target) = targets().read(&text) {
            prop_assert!(is_allowed(&target), "{text:?}: {target}");
        }
    }
}
