//! What handles count, and that nothing stays of those that are gone.

use super::*;
use crate::telemetry::{
    Record, RetryResult, RouteHandles, RouteMetrics,
    tests::{check_series, record, silent},
};

#[test]
fn buckets_reach_from_half_a_millisecond_to_30_s() {
    let telemetry = silent();
    let upstream = telemetry.upstream("legacy", "a");
    let micros = [0, 500, 501, 2_500, 30_000_000, 30_000_001, 100_000_000];
    for micros in micros {
        telemetry.record(Record {
            upstream: Some(Arc::clone(&upstream)),
            upstream_time: Some(Duration::from_micros(micros)),
            ..record()
        });
    }
    for (bound, count) in [
        ("0.0005", "2"),
        ("0.001", "3"),
        ("0.0025", "4"),
        ("10.0", "4"),
        ("30.0", "5"),
        ("+Inf", "7"),
    ] {
        let series = format!(
            "portcullis_upstream_duration_seconds_bucket{{le=\"{bound}\",upstream=\"legacy\"}}"
        );
        check_series(&telemetry, &series, Some(count));
    }
    let sum = "portcullis_upstream_duration_seconds_sum{upstream=\"legacy\"}";
    check_series(&telemetry, sum, Some("160.003502"));
}

#[test]
fn kept_handles_count_under_their_own_labels() {
    let telemetry = silent();
    let methods = [Method::GET, Method::POST, Method::PUT];
    let statuses = [200, 204, 304, 401, 403, 404, 429, 302, 502];
    let codes = [
        None,
        Some("token_invalid"),
        Some("rate_limited"),
        Some("credentials_missing"),
        Some("token_expired"),
        Some("role_missing"),
    ];
    // Twice, through two handles: the second finds the counters of the first.
    let routes = [telemetry.route("orders"), telemetry.route("orders")];
    for route in &routes {
        for method in &methods {
            for status in statuses {
                route.count_request(method, StatusCode::from_u16(status).unwrap());
            }
        }
        for code in codes {
            route.count_decision(code);
        }
    }
    for method in &methods {
        for status in statuses {
            let series = format!(
                r#"portcullis_requests_total{{route="orders",method="{method}",status="{status}"}}"#
            );
            check_series(&telemetry, &series, Some("2"));
        }
    }
    for code in codes.map(|code| code.unwrap_or("admitted")) {
        let series = format!(r#"portcullis_decisions_total{{route="orders",code="{code}"}}"#);
        check_series(&telemetry, &series, Some("2"));
    }
}

#[test]
fn log_5_unknown_methods_and_statuses_share_a_series() {
    let telemetry = silent();
    for (method, status) in [("BREW", 499), ("get", 498), ("PROPFIND", 419)] {
        telemetry.record(Record {
            method: method.parse().unwrap(),
            status: StatusCode::from_u16(status).unwrap(),
            ..record()
        });
    }
    let series = r#"portcullis_requests_total{route="none",method="other",status="4xx"}"#;
    check_series(&telemetry, series, Some("3"));
}

#[test]
fn routes_without_traffic_have_no_series() {
    let telemetry = silent();
    let route = telemetry.route("idle");
    assert_eq!(route.name(), "idle");
    assert!(!telemetry.encode().contains("idle"));
}

#[test]
fn servers_leave_with_their_last_handle() {
    let telemetry = silent();
    let series = r#"portcullis_upstream_healthy{upstream="legacy",server="a"}"#;
    check_series(&telemetry, series, None);
    let old = telemetry.upstream("legacy", "a");
    old.set_healthy(false);
    // A reload: the new configuration has it before the old one goes, and knows how it was.
    let new = telemetry.upstream("legacy", "a");
    check_series(&telemetry, series, Some("0"));
    drop(old);
    check_series(&telemetry, series, Some("0"));
    drop(new);
    check_series(&telemetry, series, None);
    let again = telemetry.upstream("legacy", "a");
    check_series(&telemetry, series, Some("1"));
    assert_eq!(again.name(), "legacy");
}

#[test]
fn cfg_2_routes_leave_with_their_last_handle_and_keep_their_counts_over_a_reload() {
    let telemetry = silent();
    let count = |route: &Arc<RouteMetrics>, method: &str, status| {
        telemetry.record(Record {
            route: Some(Arc::clone(route)),
            method: method.parse().unwrap(),
            status: StatusCode::from_u16(status).unwrap(),
            code: (status == 403).then_some("role_missing"),
            unenforced: (status == 201).then_some("role_missing"),
            ..record()
        });
    };
    let old = telemetry.route("gone");
    for (method, status) in [("GET", 200), ("PUT", 201), ("GET", 403)] {
        count(&old, method, status);
    }
    // A reload: the new configuration has it before the old one goes.
    let new = telemetry.route("gone");
    drop(old);
    count(&new, "GET", 200);
    let series = r#"portcullis_requests_total{route="gone",method="GET",status="200"}"#;
    check_series(&telemetry, series, Some("2"));
    drop(new);
    assert!(
        !telemetry.encode().contains("gone"),
        "{}",
        telemetry.encode()
    );
    let again = telemetry.route("gone");
    count(&again, "GET", 200);
    check_series(&telemetry, series, Some("1"));
}

#[test]
fn cfg_2_a_later_configuration_goes_on_with_what_an_earlier_one_counted() {
    let telemetry = silent();
    let ask = |handles: &RouteHandles, place, name| {
        telemetry.record(Record {
            route: handles.of(place, name),
            ..record()
        });
    };
    let count = |route: &str, want| {
        let series =
            format!(r#"portcullis_requests_total{{route="{route}",method="GET",status="200"}}"#);
        check_series(&telemetry, &series, want);
    };
    let old = telemetry.routes(3);
    ask(&old, 0, "kept");
    ask(&old, 1, "gone");
    assert!(old.of(3, "beyond").is_none());
    // The routes changed places, and one has not been asked for yet; `kept` is counted again while both are in use.
    let new = telemetry.routes(2);
    ask(&old, 0, "kept");
    new.keep(["idle", "kept"]);
    drop(old);
    count("kept", Some("2"));
    count("gone", None);
    ask(&new, 1, "kept");
    ask(&new, 0, "idle");
    count("kept", Some("3"));
    count("idle", Some("1"));
    drop(new);
    count("kept", None);
}

#[test]
fn cfg_2_a_route_that_is_called_as_those_without_one_does_not_take_their_series_with_it() {
    let telemetry = silent();
    telemetry.record(Record {
        route: None,
        ..record()
    });
    let before = telemetry.encode();
    drop(telemetry.route("none"));
    assert_eq!(telemetry.encode(), before);
    assert!(before.contains(r#"portcullis_requests_total{route="none""#));
}

#[test]
fn upstreams_that_are_gone_have_no_series() {
    let telemetry = silent();
    let servers = [
        telemetry.upstream("left", "a"),
        telemetry.upstream("left", "b"),
    ];
    servers[0].retried(RetryResult::Answered);
    let [one, other] = servers;
    drop(one);
    let series = r#"portcullis_upstream_retries_total{upstream="left",result="answered"}"#;
    check_series(&telemetry, series, Some("1"));
    drop(other);
    assert!(
        !telemetry.encode().contains("left"),
        "{}",
        telemetry.encode()
    );
}

#[test]
fn open_connections_are_counted_until_dropped() {
    let telemetry = silent();
    let series = "portcullis_connections{listener=\"tls\"}";
    let connections = telemetry.connections("tls");
    let first = connections.open();
    connections.inc();
    check_series(&telemetry, series, Some("2"));
    drop(first);
    connections.dec();
    check_series(&telemetry, series, Some("0"));
}
