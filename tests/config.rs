//! The sample configuration under mutation: no key that is dropped, misspelt or emptied leads to a weaker policy (CFG-1).

#![expect(clippy::unwrap_used, reason = "the helpers of tests may stop a test")]

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use portcullis::config::{Config, Report, parse};
use tempfile::TempDir;
use toml::{Table, Value};

#[path = "config/weaker.rs"]
mod weaker;
use weaker::weaker;

const SAMPLE: &str = include_str!("../config/gateway.toml");

/// A folder with the files that the sample names and a development certificate does not replace.
fn project() -> TempDir {
    let root = tempfile::tempdir().unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(["app.internal".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap().pem();
    for folder in ["certs", "config"] {
        fs::create_dir(root.path().join(folder)).unwrap();
    }
    for name in ["backend-ca.pem", "clients.pem", "gateway.crt"] {
        fs::write(root.path().join("certs").join(name), &certificate).unwrap();
    }
    let path = root.path().join("certs/gateway.key");
    fs::write(&path, key.serialize_pem()).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    let secrets = [
        "certs/introspection.secret",
        "certs/key-encryption",
        "certs/orders.secret",
        "config/redis.password",
    ];
    for name in secrets {
        let secret = root.path().join(name);
        fs::write(&secret, "8PTmCwWq1XyJ4nqGk7Zr0Vd2sHc9uLbA3eFiToKxMhY").unwrap();
        fs::set_permissions(secret, fs::Permissions::from_mode(0o600)).unwrap();
    }
    root
}

fn read(text: &str, root: &TempDir) -> Result<Config, Report> {
    parse(text, Path::new("config/gateway.toml"), root.path())
}

/// The sample with its examples: lines that begin with `#` and neither a space nor a colon. Somebody must be trusted to ask `[forward_auth]`.
fn whole_sample() -> String {
    let uncomment = |line: &str| match line.strip_prefix('#') {
        Some(rest) if !rest.is_empty() && !rest.starts_with([' ', ':']) => rest.to_owned(),
        _ => line.to_owned(),
    };
    let whole = SAMPLE.lines().map(uncomment).collect::<Vec<_>>().join("\n");
    whole.replace(
        "trusted_proxies = []",
        "trusted_proxies = [\"192.0.2.1/32\"]",
    )
}

#[test]
fn the_sample_loads_with_and_without_its_examples() {
    let root = project();
    let sample = read(SAMPLE, &root).unwrap_or_else(|report| panic!("{report}"));
    assert_eq!((sample.issuers.len(), sample.routes.len()), (0, 1));
    let whole = read(&whole_sample(), &root).unwrap_or_else(|report| panic!("{report}"));
    assert_eq!((whole.issuers.len(), whole.routes.len()), (2, 3));
    assert_eq!(whole.routes[0].rule.roles.len(), 2);
}

#[test]
fn the_sample_says_what_the_defaults_are() {
    let root = project();
    let sample = read(SAMPLE, &root).unwrap();
    let short = r#"
        [tls]
        development = true
        [[upstream]]
        name = "legacy"
        servers = ["http://127.0.0.1:9000"]
        [[route]]
        name = "app"
        path_prefix = "/"
        upstream = "legacy"
        access = "authenticated"
        [accounts]
    "#;
    let short = read(short, &root).unwrap();
    assert_eq!(format!("{sample:#?}"), format!("{short:#?}"));
}

/// Where a value stands: keys, and places in lists of tables.
type Place = Vec<Step>;

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Key(String),
    Index(usize),
}

fn places(value: &Value, at: &Place, found: &mut Vec<Place>) {
    let mut visit = |step: Step, value: &Value| {
        let mut place = at.clone();
        place.push(step);
        if matches!(place.last(), Some(Step::Key(_))) {
            found.push(place.clone());
        }
        places(value, &place, found);
    };
    match value {
        Value::Table(table) => {
            for (key, value) in table {
                visit(Step::Key(key.clone()), value);
            }
        }
        Value::Array(list) => {
            for (index, value) in list.iter().enumerate() {
                visit(Step::Index(index), value);
            }
        }
        Value::String(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::Boolean(_)
        | Value::Datetime(_) => {}
    }
}

/// Changes the table that holds the key at a place, and writes the document again.
fn mutated(document: &Value, place: &Place, change: impl FnOnce(&mut Table, &str)) -> String {
    let mut document = document.clone();
    let (last, path) = place.split_last().unwrap();
    let mut value = &mut document;
    for step in path {
        value = match step {
            Step::Key(key) => value.get_mut(key).unwrap(),
            Step::Index(index) => value.get_mut(*index).unwrap(),
        };
    }
    let Step::Key(key) = last else { unreachable!() };
    change(value.as_table_mut().unwrap(), key);
    toml::to_string(&document).unwrap()
}

fn document(text: &str) -> (Value, Vec<Place>) {
    let document = Value::Table(text.parse().unwrap());
    let mut found = Vec::new();
    places(&document, &Vec::new(), &mut found);
    (document, found)
}

fn keys(place: &Place) -> Vec<&str> {
    let key = |step: &'_ Step| matches!(step, Step::Key(_));
    place
        .iter()
        .filter(|step| key(step))
        .map(|step| match step {
            Step::Key(key) => key.as_str(),
            Step::Index(_) => "",
        })
        .collect()
}

/// Asserts that a mutation is refused, or weakens nothing; says whether it was refused.
#[track_caller]
fn not_weaker(before: &Config, text: &str, root: &TempDir, what: &str) -> bool {
    match read(text, root) {
        Err(_) => true,
        Ok(after) => {
            let weaker = weaker(before, &after);
            assert!(weaker.is_empty(), "{what}: {weaker:?}\n{text}");
            false
        }
    }
}

#[test]
fn cfg_1_a_dropped_key_never_weakens_the_policy() {
    let root = project();
    let before = read(SAMPLE, &root).unwrap();
    let (document, places) = document(SAMPLE);
    assert!(places.len() > 70, "{}", places.len());
    for place in places {
        let text = mutated(&document, &place, |table, key| drop(table.remove(key)));
        not_weaker(&before, &text, &root, &format!("without {place:?}"));
    }
}

/// What an operator adds to restrict a route, or beside the limits of control groups, cannot be told from what was never there once it is gone. The sample has
/// these as examples alone; everything else in it may be lost without loss of safety.
fn is_added_restriction(place: &Place) -> bool {
    matches!(
        keys(place)[..],
        [
            "route",
            "allow_ips" | "deny_ips" | "hosts" | "methods" | "rate_limit" | "require" | "strict",
            ..
        ] | ["server", "memory_limit"]
    )
}

#[test]
fn cfg_1_a_dropped_key_of_the_examples_never_weakens_the_policy() {
    let root = project();
    let text = whole_sample();
    let before = read(&text, &root).unwrap();
    let (document, places) = document(&text);
    for place in places.iter().filter(|place| !is_added_restriction(place)) {
        let text = mutated(&document, place, |table, key| drop(table.remove(key)));
        not_weaker(&before, &text, &root, &format!("without {place:?}"));
    }
    let (_, active) = self::document(SAMPLE);
    assert!(!active.iter().any(is_added_restriction));
}

#[test]
fn cfg_1_a_misspelt_key_is_always_refused() {
    let root = project();
    let text = whole_sample();
    let before = read(&text, &root).unwrap();
    let (document, places) = document(&text);
    for place in places {
        for misspell in [
            |key: &str| format!("{key}s"),
            |key: &str| key.to_uppercase(),
            |key: &str| format!("x{key}"),
            |key: &str| key.replace('_', "-") + "-",
        ] {
            let text = mutated(&document, &place, |table, key| {
                let value = table.remove(key).unwrap();
                table.insert(misspell(key), value);
            });
            let refused = not_weaker(&before, &text, &root, &format!("misspelt {place:?}"));
            // The names of claims and headers are the operator's own.
            let own = matches!(
                keys(&place)[..],
                ["route", "require", "claims", _]
                    | ["route", "request_headers" | "response_headers", "set", _]
            );
            assert!(refused || own, "{place:?}\n{text}");
        }
    }
}

#[test]
fn cfg_1_an_emptied_value_never_weakens_the_policy() {
    let root = project();
    let text = whole_sample();
    let before = read(&text, &root).unwrap();
    let (document, places) = document(&text);
    let mut refused = 0;
    let mut taken = Vec::new();
    for place in places {
        let text = mutated(&document, &place, |table, key| {
            let value = table.get_mut(key).unwrap();
            *value = match value {
                Value::String(_) => Value::String(String::new()),
                Value::Integer(_) => Value::Integer(0),
                Value::Array(_) => Value::Array(Vec::new()),
                Value::Table(_) => Value::Table(Table::new()),
                Value::Boolean(flag) => Value::Boolean(*flag),
                Value::Float(_) => Value::Float(0.0),
                Value::Datetime(_) => panic!("{place:?}"),
            };
        });
        if not_weaker(&before, &text, &root, &format!("emptied {place:?}")) {
            refused += 1;
        } else {
            taken.push(keys(&place).join("."));
        }
    }
    assert!(refused > 60, "{refused} refused; taken: {taken:?}");
}

#[test]
fn the_comparison_sees_what_is_weaker() {
    let root = project();
    let text = whole_sample();
    let before = read(&text, &root).unwrap();
    assert_eq!(weaker(&before, &before), Vec::<String>::new());
    for (old, new) in [
        ("access = \"authenticated\"", "access = \"optional\""),
        ("roles = [\"clerk\", \"admin\"], ", ""),
        (
            "roles = [\"clerk\", \"admin\"]",
            "roles = [\"clerk\", \"admin\", \"guest\"]",
        ),
        ("scopes = [\"orders:read\"], ", ""),
        ("claims = { tenant = [\"a\", \"b\"] }, ", ""),
        ("issuers = [\"corp\"], ", ""),
        ("methods = [\"GET\", \"HEAD\"]\n", ""),
        ("[\"192.0.2.1/32\"]", "[\"10.0.0.0/8\"]"),
        ("exempt = []", "exempt = [\"10.0.0.0/8\"]"),
        ("burst = 200", "burst = 201"),
        ("burst = 50", "burst = 51"),
        ("burst = 40", "burst = 41"),
        (
            "key = \"user\", rate = \"20/s\"",
            "key = \"user\", rate = \"21/s\"",
        ),
        ("rate = \"100/s\"", "rate = \"101/s\""),
        ("\nbody = \"10MiB\"", "\nbody = \"11MiB\""),
        ("leeway = \"30s\"", "leeway = \"31s\""),
        ("audience = [\"orders\"]", "audience = [\"orders\", \"x\"]"),
        ("pass_token = false", "pass_token = true"),
        ("websocket = false", "websocket = true"),
        ("idle_timeout = \"5m\"", "idle_timeout = \"6m\""),
        ("password_min = 15", "password_min = 14"),
        ("per_account = \"5/15m\"", "per_account = \"6/15m\""),
        ("refresh_grace = \"10s\"", "refresh_grace = \"11s\""),
        ("access = true", "access = false"),
        ("attempts = 1", "attempts = 2"),
    ] {
        assert!(text.contains(old), "{old}");
        let after = read(&text.replacen(old, new, 1), &root).unwrap();
        assert!(!weaker(&before, &after).is_empty(), "{old}");
    }
    // With what it cuts off, that route would be a back door as soon as it is not enforced.
    let text = text.replace("strip_prefix = \"/orders\"", "");
    let before = read(&text, &root).unwrap();
    let after = read(&text.replace("enforce = true", "enforce = false"), &root).unwrap();
    assert!(!weaker(&before, &after).is_empty());
}
