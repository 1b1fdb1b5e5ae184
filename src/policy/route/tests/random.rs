//! Tables, paths and hosts made by chance: the table decides as the plain rule does, and however a path is spelt.

use proptest::prelude::*;

use super::*;

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
