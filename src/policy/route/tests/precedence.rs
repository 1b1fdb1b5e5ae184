//! Of several routes that fit: which one wins, and which two may not stand beside each other.

use super::*;

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
