//! What `/metrics` says: every name of the contract, in valid form, and what accounts count.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use crate::harness::{
    Answer, Gateway, Kind, Raw, Site, Token, Upstream, eventually, get, keys::bearer, request,
};

const PASSWORD: &str = "correct horse battery staple";

/// The names that other people's boards and alerts are made of: fixed for good, with the labels of their series.
const CONTRACT: [(&str, &[&str]); 19] = [
    ("portcullis_requests_total", &["method", "route", "status"]),
    ("portcullis_request_duration_seconds", &["route"]),
    ("portcullis_upstream_duration_seconds", &["upstream"]),
    ("portcullis_upstream_healthy", &["server", "upstream"]),
    ("portcullis_decisions_total", &["code", "route"]),
    ("portcullis_token_cache_total", &["result"]),
    ("portcullis_token_cache_bytes", &[]),
    ("portcullis_jwks_age_seconds", &["issuer"]),
    ("portcullis_jwks_fetches_total", &["issuer", "result"]),
    ("portcullis_rate_limited_total", &["limit"]),
    ("portcullis_logins_total", &["result"]),
    ("portcullis_refreshes_total", &["result"]),
    ("portcullis_password_queue", &[]),
    ("portcullis_connections", &["listener"]),
    ("portcullis_tls_handshakes_total", &["result"]),
    ("portcullis_certificate_expiry_timestamp_seconds", &["name"]),
    ("portcullis_config_reloads_total", &["result"]),
    ("portcullis_config_last_reload_success", &[]),
    ("portcullis_build_info", &["version"]),
];

/// A metric of the exposition: its type, and the labels of each of its series.
#[derive(Debug, Default)]
struct Family {
    kind: String,
    help: bool,
    series: BTreeSet<String>,
}

/// Reads an exposition (OpenMetrics 1.0) and panics where it is none: a family that is described twice or not at all, a sample
/// that is not below its family, a series that is there twice, a label or a number that cannot be read, a missing end.
fn read(text: &str) -> BTreeMap<String, Family> {
    let text = text.strip_suffix("# EOF\n").expect("no end");
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut open = String::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# ") {
            let words: Vec<&str> = rest.splitn(3, ' ').collect();
            let [word, name, value] = words[..] else {
                panic!("{line}");
            };
            if word == "HELP" {
                assert!(!families.contains_key(name), "twice: {line}");
                assert!(!value.is_empty(), "{line}");
                families.entry(name.to_owned()).or_default().help = true;
                open = name.to_owned();
                continue;
            }
            assert_eq!(name, open, "{line}");
            let family = families.get_mut(name).unwrap();
            match word {
                "TYPE" => family.kind = value.to_owned(),
                "UNIT" => assert!(name.ends_with(&format!("_{value}")), "{line}"),
                _ => panic!("{line}"),
            }
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        assert!(value.parse::<f64>().is_ok(), "{line}");
        let name = series.split('{').next().unwrap();
        let family = families.get_mut(&open).unwrap();
        let suffix = name.strip_prefix(&open).unwrap_or_else(|| panic!("{line}"));
        let suffixes: &[&str] = match family.kind.as_str() {
            "counter" => &["_total"],
            "gauge" => &[""],
            "histogram" => &["_bucket", "_count", "_sum"],
            "info" => &["_info"],
            _ => panic!("{line}"),
        };
        assert!(suffixes.contains(&suffix), "{line}");
        let _ = labels(series);
        assert!(family.series.insert(series.to_owned()), "twice: {line}");
    }
    families
}

/// The names of a series' labels, in order.
fn labels(series: &str) -> Vec<&str> {
    let Some((_, inner)) = series.split_once('{') else {
        return Vec::new();
    };
    let inner = inner.strip_suffix('}').unwrap();
    let mut names: Vec<&str> = inner
        .split(',')
        .map(|label| {
            let (name, value) = label.split_once('=').unwrap();
            assert!(value.starts_with('"') && value.ends_with('"'), "{series}");
            name
        })
        .filter(|name| *name != "le")
        .collect();
    names.sort_unstable();
    names
}

async fn post(gateway: &Gateway, target: &str, body: &serde_json::Value) -> Answer {
    let fields = [("Content-Type", "application/json")];
    let mut raw = Raw::connect(gateway).await;
    raw.exchange(request("POST", target, &fields, &body.to_string()))
        .await
}

async fn login(gateway: &Gateway, password: &str) -> Answer {
    let body = json!({ "username": "alice", "password": password, "delivery": "body" });
    post(gateway, "/auth/login", &body).await
}

async fn refresh(gateway: &Gateway, token: &str) -> Answer {
    post(gateway, "/auth/refresh", &json!({ "refresh_token": token })).await
}

/// A site with accounts, `alice` among them, a grace window of none, and an issuer whose keys cannot be fetched.
async fn start(upstream: &Upstream) -> Gateway {
    let site = Site::new(upstream.address)
        .accounts()
        .set("accounts", "refresh_grace", "\"0s\"")
        .set(
            "accounts",
            "login_limit",
            r#"{ per_ip = "1000/1s", per_account = "3/15m" }"#,
        );
    let mut site = site;
    site.extra = "[[issuer]]\nname = \"away\"\nissuer = \"https://away.example\"\naudience = [\"x\"]\nalgorithms = [\"RS256\"]\n\
                  jwks_url = \"http://127.0.0.1:1/keys\"\n"
        .to_owned();
    site.write();
    site.user("alice", PASSWORD, &[]).await;
    site.start().await
}

#[tokio::test]
async fn log_5_logins_and_refreshes_are_counted_by_their_outcome() {
    let upstream = Upstream::start().await;
    let gateway = start(&upstream).await;
    let count = async |series: &str| gateway.metric(series).await;
    let logins = |result: &str| format!("portcullis_logins_total{{result=\"{result}\"}}");
    let refreshes = |result: &str| format!("portcullis_refreshes_total{{result=\"{result}\"}}");
    // There before anything happened: an alert sees the first one.
    for result in ["ok", "invalid_credentials", "rate_limited"] {
        assert_eq!(count(&logins(result)).await, Some(0.0), "{result}");
    }
    login(&gateway, "wrong, and long enough").await.is(401);
    let answer = login(&gateway, PASSWORD).await;
    answer.is(200);
    let first = answer.json()["refresh_token"].as_str().unwrap().to_owned();
    login(&gateway, PASSWORD).await.is(200);
    login(&gateway, PASSWORD).await.is(429);
    assert_eq!(count(&logins("ok")).await, Some(2.0));
    assert_eq!(count(&logins("invalid_credentials")).await, Some(1.0));
    assert_eq!(count(&logins("rate_limited")).await, Some(1.0));
    assert_eq!(count("portcullis_password_queue").await, Some(0.0));

    let answer = refresh(&gateway, &first).await;
    answer.is(200);
    let second = answer.json()["refresh_token"].as_str().unwrap().to_owned();
    // The client is told the same of both; the operator is not.
    refresh(&gateway, &first).await.is(401);
    refresh(&gateway, &second).await.is(401);
    assert_eq!(count(&refreshes("ok")).await, Some(1.0));
    assert_eq!(count(&refreshes("reused")).await, Some(1.0));
    assert_eq!(count(&refreshes("invalid_grant")).await, Some(1.0));
}

#[tokio::test]
async fn the_exposition_is_valid_and_bears_every_name_of_the_contract() {
    let upstream = Upstream::start().await;
    let gateway = start(&upstream).await;
    exercise(&gateway).await;
    let families = read(&gateway.admin("/metrics").await.text());
    for (name, expected) in CONTRACT {
        let family = name.trim_end_matches("_total").trim_end_matches("_info");
        let found = families.get(family).unwrap_or_else(|| panic!("no {name}"));
        assert!(found.help, "{name}");
        let mut series = found.series.iter().peekable();
        assert!(series.peek().is_some(), "{name} has no series");
        for series in series {
            assert!(series.starts_with(name), "{series}");
            assert_eq!(labels(series), expected, "{series}");
        }
    }
}

/// Gives every metric of the contract a series.
async fn exercise(gateway: &Gateway) {
    let token = bearer(&Token::new(Kind::Es).sign());
    get(gateway, "/private", &[("Authorization", &token)])
        .await
        .is(200);
    for _ in 0..4 {
        login(gateway, "wrong, and long enough").await;
    }
    eventually("a limit, and a fetch", async || {
        let text = gateway.admin("/metrics").await.text();
        let all = [
            "portcullis_rate_limited_total{",
            "portcullis_jwks_fetches_total{",
        ];
        all.iter().all(|name| text.contains(name)).then_some(())
    })
    .await;
}

/// The metrics that a page of the documentation names in its tables.
fn documented() -> BTreeSet<String> {
    let text = std::fs::read_to_string("docs/operations.md").unwrap();
    let rows = text
        .lines()
        .filter(|line| line.starts_with("| `portcullis_"));
    let cells = rows.map(|row| row.split('|').nth(1).unwrap().to_owned());
    let names = cells.flat_map(|cell| {
        let names = cell
            .split('`')
            .filter(|name| name.starts_with("portcullis_"));
        names.map(ToOwned::to_owned).collect::<Vec<_>>()
    });
    names.collect()
}

/// Metrics that have no series before something happens that does not happen here.
const SELDOM: [&str; 6] = [
    "portcullis_cluster_up",
    "portcullis_introspections_total",
    "portcullis_mails_total",
    "portcullis_spans_total",
    "portcullis_unenforced_total",
    "portcullis_upstream_retries_total",
];

/// Every name of a metric that is told by `families`.
fn names(families: &BTreeMap<String, Family>) -> BTreeSet<String> {
    let name = |(name, family): (&String, &Family)| match family.kind.as_str() {
        "counter" => format!("{name}_total"),
        "info" => format!("{name}_info"),
        _ => name.clone(),
    };
    families.iter().map(name).collect()
}

#[tokio::test]
async fn every_metric_is_documented_and_nothing_else_is() {
    let upstream = Upstream::start().await;
    let gateway = start(&upstream).await;
    exercise(&gateway).await;
    let mut exposed = names(&read(&gateway.admin("/metrics").await.text()));
    exposed.extend(SELDOM.map(ToOwned::to_owned));
    assert_eq!(exposed, documented());
}

/// Every metric that a text names.
fn named(text: &str) -> BTreeSet<String> {
    let is_part = |character: char| character.is_ascii_alphanumeric() || character == '_';
    let words = text.split(|character| !is_part(character));
    let names = words.filter(|word| word.starts_with("portcullis_"));
    names.map(ToOwned::to_owned).collect()
}

#[tokio::test]
async fn the_board_and_the_alerts_ask_for_metrics_that_there_are() {
    let upstream = Upstream::start().await;
    let gateway = start(&upstream).await;
    exercise(&gateway).await;
    let families = read(&gateway.admin("/metrics").await.text());
    let mut there = names(&families);
    there.extend(SELDOM.map(ToOwned::to_owned));
    for (name, family) in &families {
        if family.kind == "histogram" {
            there.insert(format!("{name}_bucket"));
        }
    }
    let board = std::fs::read_to_string("docs/grafana.json").unwrap();
    let parsed: serde_json::Value = serde_json::from_str(&board).unwrap();
    let mut asked = 0;
    for panel in parsed["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let unknown = &named(target["expr"].as_str().unwrap()) - &there;
            assert!(unknown.is_empty(), "{}: {unknown:?}", panel["title"]);
            asked += 1;
        }
    }
    assert!(asked > 20, "{asked}");
    let alerts = std::fs::read_to_string("docs/alerts.yml").unwrap();
    let expressions = alerts
        .lines()
        .filter(|line| line.trim_start().starts_with("expr:"));
    let expressions: Vec<&str> = expressions.collect();
    assert!(expressions.len() > 20);
    for expression in expressions {
        let names = named(expression);
        let unknown = &names - &there;
        let about_us = !names.is_empty() || expression.contains("up{job=");
        assert!(about_us && unknown.is_empty(), "{expression}: {unknown:?}");
    }
    // What is worth an alert by the documentation has one.
    for name in [
        "panics_total",
        "accept_errors_total",
        "log_dropped_total",
        "memory_stage",
        "revocation_lag_seconds",
        "jwks_age_seconds",
        "upstream_healthy",
        "cluster_up",
        "mails_total",
        "mail_queue",
        "spans_total",
        "config_last_reload_success",
        "certificate_reloads_total",
        "certificate_expiry_timestamp_seconds",
        "refreshes_total",
        "logins_total",
        "password_queue",
    ] {
        assert!(
            named(&alerts).contains(&format!("portcullis_{name}")),
            "{name}"
        );
    }
}
