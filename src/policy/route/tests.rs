//! Tests of the route table: URI-3, URI-4, URI-5, MSG-4, CFG-1.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use http::Method;
use proptest::prelude::*;

use super::{super::Rejection, *};

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
fn uri_3_longest_prefix_wins_and_exact_wins_over_it() {
    let table = table(&[
        ("*", "/*", ""),
        ("*", "/a*", ""),
        ("*", "/a/b*", ""),
        ("*", "/a/b", ""),
        ("*", "/", ""),
    ]);
    for (path, want) in [
        ("/", "* / "),
        ("/x", "* /* "),
        ("/x/a/b", "* /* "),
        ("/a", "* /a* "),
        ("/a/", "* /a* "),
        ("/a/bc", "* /a* "),
        ("/a/b", "* /a/b "),
        ("/a/b/", "* /a/b* "),
        ("/a/b/c", "* /a/b* "),
        ("/ab", "* /* "),
    ] {
        check(&table, "h", path, Method::GET, want);
    }
}

#[test]
fn uri_3_a_more_specific_host_wins_over_a_more_specific_path() {
    let table = table(&[
        ("a.example.com", "/*", ""),
        ("*.example.com", "/x/y*", ""),
        ("*", "/x/y/z", ""),
        ("*", "/only*", ""),
    ]);
    check(
        &table,
        "a.example.com",
        "/x/y/z",
        Method::GET,
        "a.example.com /* ",
    );
    check(
        &table,
        "b.example.com",
        "/x/y/z",
        Method::GET,
        "*.example.com /x/y* ",
    );
    check(&table, "example.com", "/x/y/z", Method::GET, "* /x/y/z ");
    check(&table, "b.example.com", "/only", Method::GET, "* /only* ");
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
fn uri_3_named_methods_win_over_any_at_the_same_path() {
    for lines in [
        [("*", "/a", ""), ("*", "/a", "GET")],
        [("*", "/a", "GET"), ("*", "/a", "")],
    ] {
        let table = table(&lines);
        check(&table, "h", "/a", Method::GET, "* /a GET");
        check(&table, "h", "/a", Method::POST, "* /a ");
    }
}

#[test]
fn cfg_1_routes_that_tie_are_refused() {
    let ties = |lines: &[(&str, &str, &str)]| {
        let routes = lines
            .iter()
            .map(|(host, path, methods)| line(host, path, methods))
            .collect();
        Routes::new(routes)
            .map(|_| ())
            .err()
            .unwrap_or_default()
            .len()
    };
    for (lines, want) in [
        ([("*", "/a", ""), ("*", "/a", "")], 1),
        ([("*", "/a*", ""), ("*", "/a/*", "")], 1),
        ([("h", "/a", "GET POST"), ("h", "/a", "POST PUT")], 1),
        ([("*.h", "/*", ""), ("*.h", "/*", "")], 1),
        ([("h", "/a", "GET"), ("h", "/a", "POST")], 0),
        ([("h", "/a", ""), ("*", "/a", "")], 0),
        ([("h", "/a", ""), ("h", "/a*", "")], 0),
        ([("h", "/a", ""), ("*.h", "/a", "")], 0),
        ([("h", "/a", ""), ("h", "/A", "")], 0),
    ] {
        assert_eq!(ties(&lines), want, "{lines:?}");
    }
    // Named, so that the message can say which two; every pair, so that all are repaired at once.
    assert_eq!(
        ties(&[("*", "/a", ""), ("*", "/a", ""), ("*", "/a", "")]),
        3
    );
    let two = Route {
        hosts: vec![
            HostPattern::Exact("a".into()),
            HostPattern::Exact("b".into()),
        ],
        ..route("two")
    };
    let conflicts = Routes::new(vec![
        two.clone(),
        Route {
            name: "again".into(),
            ..two
        },
    ])
    .unwrap_err();
    assert_eq!(conflicts.len(), 2);
    assert_eq!(
        (&*conflicts[0].first, &*conflicts[0].second),
        ("two", "again")
    );
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

proptest! {
    /// The table against the rule told in one sentence: of the prefixes that cover the path the longest.
    #[test]
    fn uri_5_any_table_agrees_with_the_plain_rule(
        prefixes in prop::collection::hash_set("(/[ab]{1,2}){0,3}", 1..8),
        path in "(/[ab]{0,2}){1,4}",
    ) {
        let routes = prefixes.iter().map(|prefix| Route { path: PathPattern::Prefix(prefix.as_str().into()), ..route(prefix) }).collect();
        let table = Routes::new(routes).unwrap();
        let covers = |prefix: &&String| path == **prefix || path.strip_prefix(prefix.as_str()).is_some_and(|rest| rest.starts_with('/'));
        let want = prefixes.iter().filter(covers).max_by_key(|prefix| prefix.len());
        let found = table.find("h", &path, &Method::GET).ok().map(|route| route.name.to_string());
        prop_assert_eq!(found.as_ref(), want);
    }
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

/// A table with protected paths of every kind of letter, and an open one around them.
static PROTECTED: LazyLock<Routes> = LazyLock::new(|| {
    table(&[
        ("*", "/*", ""),
        ("*", "/private*", ""),
        ("*", "/private/open", ""),
        ("*", "/a:b/caf%C3%A9*", ""),
        ("*", "/x%20y*", ""),
    ])
});

/// The name of the route that a request target of these bytes takes, and the path that is forwarded; `None` where it is refused.
fn taken(target: &[u8]) -> Option<(String, String)> {
    let uri = http::Uri::try_from(target).ok()?;
    let path = crate::policy::NormalPath::parse(uri.path()).ok()?;
    let route = PROTECTED.find("any", path.as_str(), &Method::GET).ok()?;
    Some((route.name.to_string(), path.as_str().to_owned()))
}

/// Bytes as they appear in targets, dense in what has a meaning there.
fn targets() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => "(/|//|private|open|a|:|b|caf\u{e9}|x|\\.|\\.\\.|%2e|;|\\\\|#|\\?)".prop_map(String::into_bytes),
        2 => "%(2[0-9a-f]|3[0-9a-f]|[4-7][0-9a-fA-F]|c3|a9|25)".prop_map(String::into_bytes),
        1 => any::<u8>().prop_map(|byte| vec![byte]),
    ];
    proptest::collection::vec(piece, 0..16)
        .prop_map(|pieces| [b"/".to_vec(), pieces.concat()].concat())
}

proptest! {
    #[test]
    fn uri_1_the_path_forwarded_is_decided_as_the_one_received(target in targets()) {
        if let Some((route, forwarded)) = taken(&target) {
            prop_assert_eq!(taken(forwarded.as_bytes()), Some((route, forwarded)));
        }
    }

    #[test]
    fn uri_1_any_bytes_at_all_are_decided_once(target in proptest::collection::vec(any::<u8>(), 0..48)) {
        let target = [b"/".to_vec(), target].concat();
        if let Some((route, forwarded)) = taken(&target) {
            prop_assert_eq!(taken(forwarded.as_bytes()), Some((route, forwarded)));
        }
    }

    #[test]
    fn uri_1_what_is_escaped_needlessly_is_the_same_path(
        path in "/(private|private/open|a:b/caf\u{e9}|private/x|other)(/[a-z:=@~.!,+$&()*'-]{1,6})?",
        escaped in proptest::collection::vec(any::<bool>(), 64),
    ) {
        let spelt: String = path
            .bytes()
            .zip(escaped.into_iter().cycle())
            .map(|(byte, escape)| match byte {
                b'/' => "/".to_owned(),
                _ if escape || !byte.is_ascii() => format!("%{byte:02x}"),
                _ => char::from(byte).to_string(),
            })
            .collect();
        let route = |target: &str| taken(target.as_bytes()).map(|(route, _)| route);
        prop_assert_eq!(route(&spelt), route(&path), "{}", spelt);
    }
}

#[test]
fn cfg_1_built_in_routes_tie_with_those_of_any_host() {
    let conflicts = |host: &str, path: &str, methods: &str| {
        let built_in = vec![line("*", "/auth/login", "GET"), line("*", "/auth/*", "")];
        let found = Routes::new(vec![line(host, path, methods)]).unwrap();
        found.with_built_in(built_in).map_or_else(
            |conflicts| conflicts.iter().map(|pair| pair.places).collect(),
            |_| Vec::new(),
        )
    };
    for host in ["*", "h", "*.h"] {
        assert_eq!(conflicts(host, "/auth/login", "GET POST"), [[0, 1]]);
        assert_eq!(conflicts(host, "/auth*", ""), [[0, 2]]);
        for (path, methods) in [
            ("/auth/login", "POST"),
            ("/auth/login", ""),
            ("/auth/login*", "GET"),
            ("/auth", ""),
            ("/*", ""),
        ] {
            assert!(conflicts(host, path, methods).is_empty(), "{host} {path}");
        }
    }
}

/// Hosts, paths and methods that lie close enough together for routes to meet.
fn near_routes(hosts: &'static str, count: usize) -> impl Strategy<Value = Vec<Route>> {
    let one = (hosts, "(/[ab]){0,2}[*]?", "(GET |POST |PUT ){0,2}");
    let one = one.prop_map(|(host, path, methods)| {
        let path = if path.is_empty() { "/" } else { &*path };
        line(&host, path, &methods)
    });
    prop::collection::vec(one, 0..count)
}

/// The plain way to have routes on every host: each is there for each host that another route names, and for any.
fn on_every_host(configured: &[Route], built_in: &[Route]) -> Vec<Route> {
    let hosts: Vec<HostPattern> = configured
        .iter()
        .flat_map(|route| route.hosts.clone())
        .fold(Vec::new(), |mut all, host| {
            if !all.contains(&host) {
                all.push(host);
            }
            all
        });
    let mut routes = configured.to_vec();
    if !hosts.is_empty() {
        routes.extend(built_in.iter().map(|route| Route {
            hosts: hosts.clone(),
            ..route.clone()
        }));
    }
    routes.extend(built_in.iter().cloned());
    routes
}

proptest! {
    /// One trie of built-in routes beside those of the hosts decides as if it were part of each.
    #[test]
    fn uri_3_built_in_routes_are_found_as_if_each_host_named_them(
        configured in near_routes("([*]|[*][.]h|h|x[.]h|g)", 7),
        built_in in near_routes("[*]", 5),
    ) {
        let plain = Routes::new(on_every_host(&configured, &built_in));
        let shared = Routes::new(configured).and_then(|table| table.with_built_in(built_in));
        prop_assert_eq!(plain.is_err(), shared.is_err());
        let (Ok(plain), Ok(shared)) = (plain, shared) else {
            return Ok(());
        };
        for host in ["h", "x.h", "y.h", "g", "other"] {
            for path in ["/", "/a", "/b", "/a/b", "/a/a", "/b/a/b", "/c"] {
                for method in [Method::GET, Method::POST, Method::DELETE, Method::TRACE] {
                    let decide = |table: &Routes| match table.find(host, path, &method) {
                        Ok(route) => Ok(Arc::clone(&route.name)),
                        Err(Rejection::MethodNotAllowed(methods)) => {
                            let names = methods.iter().map(ToString::to_string);
                            Err(names.collect::<std::collections::BTreeSet<_>>())
                        }
                        Err(_) => Err(Default::default()),
                    };
                    prop_assert_eq!(decide(&plain), decide(&shared), "{} {} {}", method, host, path);
                }
            }
        }
    }
}
