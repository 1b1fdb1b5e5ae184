//! SESS-6 and MSG-11: whose page may change something, and what is a page at all.

use std::sync::Arc;

use http::Request;

use super::*;
use crate::policy::{Cors, route::tests::route};

const OWN: &str = "https://auth.example";
const HOST: &str = "app.example:8443";

fn parts(method: &str, fields: &[(&str, &str)]) -> Parts {
    let mut builder = Request::builder().method(method).uri("/");
    for (name, value) in fields {
        builder = builder.header(*name, *value);
    }
    builder.body(()).unwrap().into_parts().0
}

#[track_caller]
fn check(fields: &[(&str, &str)], route: &Route, want: bool) {
    for method in ["POST", "PUT", "PATCH", "DELETE", "PROPFIND"] {
        let checked = check_change(&parts(method, fields), HOST, OWN, route);
        assert_eq!(checked.is_ok(), want, "{method} {fields:?}");
    }
    for method in ["GET", "HEAD", "OPTIONS"] {
        let checked = check_change(&parts(method, fields), HOST, OWN, route);
        assert_eq!(checked, Ok(()), "{method} {fields:?}");
    }
}

#[test]
fn sess_6_changes_of_other_pages_are_denied() {
    let route = route("r");
    let site = "sec-fetch-site";
    for foreign in [
        &[][..],
        &[("origin", "null")],
        &[("origin", "")],
        &[("origin", "https://evil.example")],
        &[("origin", "http://app.example:8443")],
        &[("origin", "https://app.example")],
        &[("origin", "https://app.example:8443.evil.example")],
        &[("origin", "https://auth.example.evil")],
        &[("origin", "https://auth.example:8443")],
        &[("origin", "https://auth.example/")],
        &[
            ("origin", "https://app.example:8443"),
            ("origin", "https://app.example:8443"),
        ],
        &[(site, "cross-site")],
        &[(site, "same-site")],
        &[(site, "none")],
        &[(site, "Same-Origin")],
        &[(site, "same-origin"), (site, "same-origin")],
        &[(site, "cross-site"), ("origin", "https://evil.example")],
        &[(site, "none"), ("origin", "null")],
    ] {
        check(foreign, &route, false);
    }
    for own in [
        &[("origin", "https://app.example:8443")][..],
        &[("origin", "https://APP.example:8443")],
        &[("origin", OWN)],
        &[(site, "same-origin")],
        &[(site, "same-origin"), ("origin", "null")],
        &[(site, "same-site"), ("origin", OWN)],
    ] {
        check(own, &route, true);
    }
}

#[test]
fn sess_6_listed_origins_may_only_with_credentials() {
    let with = |origins, credentials| Route {
        cors: Some(Arc::new(Cors {
            origins,
            credentials,
            methods: Vec::new(),
            methods_line: HeaderValue::from_static("GET"),
            headers: Vec::new(),
            max_age: 0,
        })),
        ..route("r")
    };
    let listed = || Origins::Listed(vec![HeaderValue::from_static("https://spa.example")]);
    let spa = [("origin", "https://spa.example")];
    check(&spa, &with(Origins::Any, false), false);
    check(&spa, &with(Origins::Any, true), false);
    check(&spa, &with(listed(), false), false);
    check(
        &[("origin", "https://other.example")],
        &with(listed(), true),
        false,
    );
    check(&spa, &with(listed(), true), true);
}

#[test]
fn msg_11_programs_are_no_navigations() {
    let check = |method: &str, fields: &[(&str, &str)], page, sent_on| {
        let request = parts(method, fields);
        assert_eq!(
            is_navigation(&request.method, &request.headers),
            page,
            "{method} {fields:?}"
        );
        assert_eq!(
            may_be_sent_on(&request.method, &request.headers),
            sent_on,
            "{method} {fields:?}"
        );
    };
    let html = (
        "accept",
        "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    );
    let mode = "sec-fetch-mode";
    for program in [
        &[][..],
        &[("accept", "*/*")],
        &[("accept", "application/json")],
        &[("accept", "application/json, text/plain, */*")],
        &[("accept", "text/*")],
        &[("accept", "text/htmlx")],
        &[("accept", "x/text/html")],
        &[("accept", "*/*"), (mode, "navigate")],
        &[html, (mode, "cors")],
        &[html, (mode, "no-cors")],
        &[html, (mode, "same-origin")],
        &[html, (mode, "websocket")],
        &[html, (mode, "")],
    ] {
        check("GET", program, false, false);
    }
    for method in ["GET", "HEAD"] {
        check(method, &[html], true, true);
        check(method, &[html, (mode, "navigate")], true, true);
        check(method, &[("accept", "TEXT/HTML ;q=0.1")], true, true);
        check(
            method,
            &[("accept", "image/png"), ("accept", "text/html")],
            true,
            true,
        );
        check(method, &[html, ("authorization", "Bearer x")], true, false);
    }
    check("POST", &[html], false, false);
    check("POST", &[html, (mode, "navigate")], true, false);
}

#[test]
fn sess_6_only_the_browsers_own_word_makes_a_navigation_our_own() {
    let check = |site: &[&str], mode: &[&str]| {
        let sites = site.iter().map(|value| ("sec-fetch-site", *value));
        let fields: Vec<_> = sites
            .chain(mode.iter().map(|value| ("sec-fetch-mode", *value)))
            .collect();
        is_own_navigation(&parts("GET", &fields).headers)
    };
    for site in [
        &[][..],
        &["none"],
        &["same-site"],
        &["cross-site"],
        &["same-origin", "same-origin"],
    ] {
        assert!(!check(site, &["navigate"]), "{site:?}");
    }
    for mode in [&[][..], &["cors"], &["no-cors"], &["navigate", "navigate"]] {
        assert!(!check(&["same-origin"], mode), "{mode:?}");
    }
    assert!(check(&["same-origin"], &["navigate"]));
}
