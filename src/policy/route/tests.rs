//! Tests of the route table: URI-3, URI-4, URI-5, MSG-4, CFG-1.

mod precedence;
mod random;

use super::{super::Rejection, *};
use http::Method;
use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

/// A route to every path of every host, for tests to change.
pub(crate) fn route(name: &str) -> Route {
    Route {
        name: name.into(),
        index: 0,
        hosts: Vec::new(),
        path: PathPattern::Prefix("/".into()),
        methods: Vec::new(),
        target: Target::Upstream(UpstreamId(0)),
        strip_prefix: None,
        addresses: Addresses::default(),
        request_headers: HeaderEdits::default(),
        response_headers: HeaderEdits::default(),
        cors: None,
        access: Access::Authenticated,
        rule: Rule::default(),
        enforce: true,
        strict: false,
        max_body: 1 << 20,
        timeout: Duration::from_secs(30),
        streams: Streams::default(),
        browsers: Browsers::default(),
    }
}

/// A route by host (`*` for any, `*.x` for a wildcard), path (ending in `*` for a prefix) and methods, named by all three.
fn line(host: &str, path: &str, methods: &str) -> Route {
    let hosts = match (host, host.strip_prefix("*.")) {
        ("*", _) => Vec::new(),
        (_, Some(parent)) => vec![HostPattern::Wildcard(parent.into())],
        (_, None) => vec![HostPattern::Exact(host.into())],
    };
    Route {
        hosts,
        path: match path.strip_suffix('*') {
            Some(prefix) => PathPattern::Prefix(prefix.into()),
            None => PathPattern::Exact(path.into()),
        },
        methods: methods
            .split_whitespace()
            .map(|m| m.parse().unwrap())
            .collect(),
        ..route(&format!("{host} {path} {methods}"))
    }
}

fn table(lines: &[(&str, &str, &str)]) -> Routes {
    Routes::new(
        lines
            .iter()
            .map(|(host, path, methods)| line(host, path, methods))
            .collect(),
    )
    .unwrap()
}

#[track_caller]
fn check(table: &Routes, host: &str, path: &str, method: Method, want: &str) {
    let found = table.find(host, path, &method);
    assert_eq!(
        found.map(|route| &*route.name),
        Ok(want),
        "{method} {host} {path}"
    );
}

#[track_caller]
fn not_found(table: &Routes, host: &str, path: &str) {
    let found = table
        .find(host, path, &Method::GET)
        .map(|route| route.name.clone());
    assert_eq!(found, Err(Rejection::RouteNotFound), "{host} {path}");
}

#[test]
fn uri_3_what_no_route_names_is_not_found() {
    let empty = Routes::default();
    for path in ["/", "/a", ""] {
        not_found(&empty, "app.example.com", path);
    }
    let table = table(&[
        ("app.example.com", "/api*", ""),
        ("*.tenant.example.com", "/x", ""),
    ]);
    for (host, path) in [
        ("app.example.com", "/"),
        ("app.example.com", "/ap"),
        ("app.example.com", "/API"),
        ("other.example.com", "/api"),
        ("example.com", "/api"),
        ("xapp.example.com", "/api"),
        ("app.example.com.evil", "/api"),
        ("", "/api"),
        ("a.tenant.example.com", "/"),
        ("a.tenant.example.com", "/x/"),
        ("a.tenant.example.com", "/x/y"),
        ("tenant.example.com", "/x"),
    ] {
        not_found(&table, host, path);
    }
}

#[test]
fn uri_3_methods_that_are_not_listed_are_405_with_those_that_are() {
    let table = table(&[
        ("*", "/a", "GET HEAD"),
        ("*", "/a*", "POST"),
        ("*", "/b", ""),
    ]);
    assert_eq!(
        table
            .find("h", "/a", &Method::DELETE)
            .map(|r| r.name.clone()),
        Err(Rejection::MethodNotAllowed(vec![
            Method::POST,
            Method::GET,
            Method::HEAD
        ]))
    );
    // Each once, however many routes of the way list it.
    let twice = self::table(&[("*", "/c*", "GET HEAD"), ("*", "/c", "GET POST")]);
    let refused = twice.find("h", "/c", &Method::DELETE).err();
    assert_eq!(
        refused,
        Some(Rejection::MethodNotAllowed(vec![
            Method::GET,
            Method::HEAD,
            Method::POST
        ]))
    );
    // Below the exact path only the prefix answers.
    assert_eq!(
        table
            .find("h", "/a/x", &Method::GET)
            .map(|r| r.name.clone()),
        Err(Rejection::MethodNotAllowed(vec![Method::POST]))
    );
    check(&table, "h", "/a", Method::GET, "* /a GET HEAD");
    check(&table, "h", "/a", Method::POST, "* /a* POST");
    check(
        &table,
        "h",
        "/b",
        Method::from_bytes(b"PROPFIND").unwrap(),
        "* /b ",
    );
}

#[test]
fn msg_4_connect_and_trace_match_no_route_that_takes_any_method() {
    let table = table(&[("*", "/*", "")]);
    for method in [Method::CONNECT, Method::TRACE] {
        assert!(table.find("h", "/", &method).is_err());
    }
}

#[test]
fn uri_3_matrix_of_route_and_method_equals_the_table() {
    let methods = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::DELETE,
        Method::PATCH,
        Method::OPTIONS,
        Method::CONNECT,
        Method::TRACE,
    ];
    let lines = [
        ("a.example.com", "/x", "GET"),
        ("a.example.com", "/x*", "GET POST"),
        ("*.example.com", "/x", ""),
        ("*", "/x*", "DELETE"),
        ("*", "/y*", ""),
    ];
    let table = table(&lines);
    // By hand, most specific first: for each host and path the lines that could answer, in order.
    let cells: [(&str, &str, &[usize]); 8] = [
        ("a.example.com", "/x", &[0, 1, 2, 3]),
        ("a.example.com", "/x/1", &[1, 3]),
        ("b.example.com", "/x", &[2, 3]),
        ("b.example.com", "/x/1", &[3]),
        ("other", "/x", &[3]),
        ("other", "/y/z", &[4]),
        ("a.example.com", "/y", &[4]),
        ("a.example.com", "/z", &[]),
    ];
    for (host, path, candidates) in cells {
        for method in &methods {
            let takes = |index: &&usize| {
                let listed = lines[**index].2;
                if listed.is_empty() {
                    !matches!(*method, Method::CONNECT | Method::TRACE)
                } else {
                    listed.split(' ').any(|m| m == method.as_str())
                }
            };
            let want = candidates.iter().find(takes);
            let found = table.find(host, path, method).map(|route| route.index);
            match (found, want) {
                (Ok(found), Some(want)) => assert_eq!(found, *want, "{method} {host} {path}"),
                (Err(Rejection::RouteNotFound), None) => assert!(
                    candidates.is_empty() || matches!(*method, Method::CONNECT | Method::TRACE)
                ),
                (Err(Rejection::MethodNotAllowed(_)), None) => assert!(!candidates.is_empty()),
                (found, want) => panic!("{method} {host} {path}: {found:?}, not {want:?}"),
            }
        }
    }
}

#[test]
fn uri_5_prefixes_match_on_segment_boundaries() {
    for prefix in ["/api*", "/api/*"] {
        let table = table(&[("*", prefix, "")]);
        for path in ["/api", "/api/", "/api/x", "/api/x/y/"] {
            check(&table, "h", path, Method::GET, &format!("* {prefix} "));
        }
        for path in [
            "/apix",
            "/apix/y",
            "/ap",
            "/",
            "/a/api",
            "/api.html",
            "/api-v2",
            "/api%2e",
            "/Api",
            "/api~",
        ] {
            not_found(&table, "h", path);
        }
    }
    let exact = table(&[("*", "/api", "")]);
    for path in ["/api/", "/api/x", "/ap", "/apix"] {
        not_found(&exact, "h", path);
    }
}

#[test]
fn uri_4_a_wildcard_stands_for_exactly_one_label() {
    let table = table(&[("*.example.com", "/*", "")]);
    for host in [
        "a.example.com",
        "xn--bcher-kva.example.com",
        "a-b.example.com",
        "_dmarc.example.com",
    ] {
        check(&table, host, "/", Method::GET, "*.example.com /* ");
    }
    for host in [
        "example.com",
        ".com",
        "a.b.example.com",
        "aexample.com",
        "a.example.com.",
        "a.example.org",
        "*",
        "com",
    ] {
        not_found(&table, host, "/");
    }
}

#[test]
fn uri_4_ten_and_ten_thousand_hosts_decide_alike() {
    let with = |hosts: usize| {
        let mut routes: Vec<Route> = (0..hosts)
            .map(|n| line(&format!("h{n}.example.com"), "/api*", "GET"))
            .collect();
        routes.push(line("*.example.com", "/api/v1*", ""));
        routes.push(line("*", "/public", ""));
        Routes::new(routes).unwrap()
    };
    let [few, many] = [10, 10_000].map(with);
    for host in [
        "h0.example.com",
        "h9.example.com",
        "example.com",
        "x.h1.example.com",
        "h1.example.com.",
        "H1.example.com",
        "other",
    ] {
        for path in ["/", "/api", "/api/v1", "/apix", "/public", "/public/"] {
            for method in [Method::GET, Method::POST, Method::TRACE] {
                let decide = |table: &Routes| {
                    table
                        .find(host, path, &method)
                        .map(|route| Arc::clone(&route.name))
                };
                assert_eq!(decide(&few), decide(&many), "{method} {host} {path}");
            }
        }
    }
    check(
        &many,
        "h9999.example.com",
        "/api/v1",
        Method::GET,
        "h9999.example.com /api* GET",
    );
    check(
        &many,
        "h9999.example.com",
        "/api/v1",
        Method::POST,
        "*.example.com /api/v1* ",
    );
}

#[test]
fn uri_3_index_is_the_place_in_the_table() {
    let table = table(&[("*", "/a", ""), ("*", "/b", ""), ("*", "/c", "")]);
    for (place, route) in table.all().iter().enumerate() {
        assert_eq!(route.index, place);
    }
    assert_eq!(table.find("h", "/c", &Method::GET).unwrap().index, 2);
}

#[test]
fn uri_1_spellings_that_a_server_reads_alike_take_one_route() {
    let table = table(&[
        ("*", "/*", ""),
        ("*", "/things:delete*", ""),
        ("*", "/caf%C3%A9", ""),
        ("*", "/a%3Db/(c)", ""),
        ("*", "/100%25*", ""),
    ]);
    let named = |path: &str| {
        let path = crate::policy::NormalPath::parse(path).unwrap();
        let route = table.find("any", path.as_str(), &Method::GET).unwrap();
        route.name.to_string()
    };
    for path in [
        "/things:delete",
        "/things%3Adelete",
        "/things%3adelete/x",
        "/%74hings%3A%64elete",
    ] {
        assert_eq!(named(path), "* /things:delete* ", "{path}");
    }
    for path in ["/caf\u{e9}", "/caf%c3%a9", "/%63af%C3%A9"] {
        assert_eq!(named(path), "* /caf%C3%A9 ", "{path}");
    }
    for path in ["/a=b/(c)", "/a%3db/%28c%29", "/a=b/%28c)"] {
        assert_eq!(named(path), "* /a%3Db/(c) ", "{path}");
    }
    assert_eq!(named("/100%25/x"), "* /100%25* ");
    assert_eq!(named("/things:deletes"), "* /* ");
}
