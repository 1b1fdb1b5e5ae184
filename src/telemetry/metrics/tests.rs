use http::{Method, StatusCode};

use super::*;
use crate::telemetry::{
    MailResult, Record, RetryResult, RouteHandles, RouteMetrics, Telemetry,
    tests::{check_series, record, silent},
};

/// Everything that can be counted, once.
fn exercised() -> Arc<Telemetry> {
    let telemetry = silent();
    let upstream = telemetry.upstream("legacy", "127.0.0.1:9000");
    let route = telemetry.route("orders");
    telemetry.record(Record {
        route: Some(Arc::clone(&route)),
        upstream: Some(Arc::clone(&upstream)),
        upstream_time: Some(Duration::from_millis(3)),
        ..record()
    });
    telemetry.record(Record {
        status: StatusCode::TOO_MANY_REQUESTS,
        code: Some("rate_limited"),
        reason: Some("per_ip"),
        ..record()
    });
    telemetry.on_scrape(
        "authn",
        // The closure keeps the route and the upstream in use as well.
        Box::new(move |scrape| {
            assert_eq!(route.name(), "orders");
            upstream.set_healthy(true);
            scrape.token_cache_bytes(4096);
            scrape.token_cache_lookups([1, 0, 1]);
            scrape.jwks_age("corp", Duration::from_millis(1500));
            scrape.certificate_expiry("a.test", UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        }),
    );
    telemetry.connections("tls").inc();
    telemetry.handshake(HandshakeResult::Completed);
    telemetry.certificate_reload(CertificateReload::Taken);
    telemetry.panicked();
    telemetry.accept_failed();
    telemetry.mail(MailResult::Sent, 1);
    telemetry
}

#[test]
fn names_and_kinds_are_those_of_the_contract() {
    let text = exercised().encode();
    let mut kinds: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .collect();
    kinds.sort_unstable();
    let want = [
        "portcullis_accept_errors counter",
        "portcullis_build info",
        "portcullis_certificate_expiry_timestamp_seconds gauge",
        "portcullis_certificate_reloads counter",
        "portcullis_cluster_fallbacks counter",
        "portcullis_cluster_messages counter",
        "portcullis_cluster_nodes gauge",
        "portcullis_cluster_settle_lag_seconds gauge",
        "portcullis_cluster_settled_keys counter",
        "portcullis_cluster_unsettled_keys counter",
        "portcullis_config_last_reload_success gauge",
        "portcullis_config_last_reload_success_timestamp_seconds gauge",
        "portcullis_config_reloads counter",
        "portcullis_connections gauge",
        "portcullis_connections_shed counter",
        "portcullis_decisions counter",
        "portcullis_http2_floods counter",
        "portcullis_jwks_age_seconds gauge",
        "portcullis_log_dropped counter",
        "portcullis_logins counter",
        "portcullis_mail_queue gauge",
        "portcullis_mails counter",
        "portcullis_malformed_heads counter",
        "portcullis_memory_bytes gauge",
        "portcullis_memory_limit_bytes gauge",
        "portcullis_memory_stage gauge",
        "portcullis_panics counter",
        "portcullis_password_queue gauge",
        "portcullis_rate_limited counter",
        "portcullis_refreshes counter",
        "portcullis_request_duration_seconds histogram",
        "portcullis_requests counter",
        "portcullis_revocation_lag_seconds gauge",
        "portcullis_tls_handshakes counter",
        "portcullis_token_cache counter",
        "portcullis_token_cache_bytes gauge",
        "portcullis_tunnels gauge",
        "portcullis_upstream_duration_seconds histogram",
        "portcullis_upstream_healthy gauge",
        "portcullis_upstream_tls_failures counter",
        "portcullis_worker_stalls counter",
    ];
    assert_eq!(kinds, want, "{text}");
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn series_and_labels_are_those_of_the_contract() {
    let telemetry = exercised();
    let build = format!(
        "portcullis_build_info{{version=\"{}\"}}",
        env!("CARGO_PKG_VERSION")
    );
    for (series, value) in [
        (
            r#"portcullis_requests_total{route="orders",method="GET",status="200"}"#,
            "1",
        ),
        (
            r#"portcullis_requests_total{route="none",method="GET",status="429"}"#,
            "1",
        ),
        (
            r#"portcullis_decisions_total{route="orders",code="admitted"}"#,
            "1",
        ),
        (
            r#"portcullis_decisions_total{route="none",code="rate_limited"}"#,
            "1",
        ),
        (
            r#"portcullis_request_duration_seconds_count{route="orders"}"#,
            "1",
        ),
        (
            r#"portcullis_upstream_duration_seconds_count{upstream="legacy"}"#,
            "1",
        ),
        (
            r#"portcullis_upstream_duration_seconds_sum{upstream="legacy"}"#,
            "0.003",
        ),
        (
            r#"portcullis_upstream_healthy{upstream="legacy",server="127.0.0.1:9000"}"#,
            "1",
        ),
        (r#"portcullis_token_cache_total{result="hit"}"#, "1"),
        (r#"portcullis_token_cache_total{result="miss"}"#, "1"),
        ("portcullis_token_cache_bytes", "4096"),
        (r#"portcullis_jwks_age_seconds{issuer="corp"}"#, "1.5"),
        (r#"portcullis_connections{listener="tls"}"#, "1"),
        (
            r#"portcullis_tls_handshakes_total{result="completed"}"#,
            "1",
        ),
        (r#"portcullis_tls_handshakes_total{result="failed"}"#, "0"),
        (
            r#"portcullis_tls_handshakes_total{result="timed_out"}"#,
            "0",
        ),
        (r#"portcullis_rate_limited_total{limit="per_ip"}"#, "1"),
        (&build, "1"),
        ("portcullis_panics_total", "1"),
        ("portcullis_accept_errors_total", "1"),
        ("portcullis_http2_floods_total", "0"),
        ("portcullis_log_dropped_total", "0"),
    ] {
        check_series(&telemetry, series, Some(value));
    }
}

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
fn cfg_2_reloads_are_counted_and_the_last_one_decides() {
    let telemetry = silent();
    let success = "portcullis_config_last_reload_success";
    check_series(&telemetry, success, Some("1"));
    for (result, name, want) in [
        (ConfigReload::Refused, "refused", "0"),
        (ConfigReload::Unchanged, "unchanged", "1"),
        (ConfigReload::RestartRequired, "restart_required", "0"),
        (ConfigReload::Taken, "taken", "1"),
    ] {
        let series = format!("portcullis_config_reloads_total{{result=\"{name}\"}}");
        check_series(&telemetry, &series, Some("0"));
        telemetry.config_reload(result);
        check_series(&telemetry, &series, Some("1"));
        check_series(&telemetry, success, Some(want));
    }
    let at = "portcullis_config_last_reload_success_timestamp_seconds ";
    assert!(telemetry.encode().contains(at));
}

#[test]
fn issuers_that_are_gone_have_no_age() {
    let telemetry = silent();
    let sampler = |issuer: &'static str| -> Box<dyn Fn(&mut Scrape<'_>) + Send + Sync> {
        Box::new(move |scrape| scrape.jwks_age(issuer, Duration::from_secs(2)))
    };
    telemetry.on_scrape("authn", sampler("old"));
    check_series(
        &telemetry,
        r#"portcullis_jwks_age_seconds{issuer="old"}"#,
        Some("2.0"),
    );
    telemetry.on_scrape("authn", sampler("new"));
    check_series(
        &telemetry,
        r#"portcullis_jwks_age_seconds{issuer="old"}"#,
        None,
    );
    check_series(
        &telemetry,
        r#"portcullis_jwks_age_seconds{issuer="new"}"#,
        Some("2.0"),
    );
}

#[test]
fn net_9_refused_certificates_are_counted_from_0() {
    let telemetry = exercised();
    for (result, count) in [("taken", "1"), ("refused", "0")] {
        let series = format!("portcullis_certificate_reloads_total{{result=\"{result}\"}}");
        check_series(&telemetry, &series, Some(count));
    }
}

#[test]
fn net_9_of_two_certificates_by_one_name_the_first_to_end_counts() {
    let telemetry = silent();
    let series = r#"portcullis_certificate_expiry_timestamp_seconds{name="a.test"}"#;
    let ends = |seconds: &'static [u64]| {
        let sampler: Box<dyn Fn(&mut Scrape<'_>) + Send + Sync> = Box::new(move |scrape| {
            for seconds in seconds {
                let ends = UNIX_EPOCH + Duration::from_secs(*seconds);
                scrape.certificate_expiry("a.test", ends);
            }
        });
        telemetry.on_scrape("tls", sampler);
    };
    for (seconds, want) in [
        (&[1_800_000_000][..], Some("1800000000")),
        (
            &[1_900_000_000, 1_700_000_000, 1_800_000_000],
            Some("1700000000"),
        ),
        // A new one takes the place of one that ended earlier.
        (&[1_900_000_000], Some("1900000000")),
        (&[], None),
    ] {
        ends(seconds);
        check_series(&telemetry, series, want);
    }
}

#[test]
fn a_new_token_cache_goes_on_where_the_old_one_was() {
    let telemetry = silent();
    let sample = |hits, misses| {
        telemetry.on_scrape(
            "authn",
            Box::new(move |scrape| scrape.token_cache_lookups([hits, 0, misses])),
        );
    };
    let check = |hits, misses| {
        // Each check is a scrape; the first one takes the sample, the second finds nothing new.
        let hit = r#"portcullis_token_cache_total{result="hit"}"#;
        let miss = r#"portcullis_token_cache_total{result="miss"}"#;
        check_series(&telemetry, hit, Some(hits));
        check_series(&telemetry, miss, Some(misses));
    };
    sample(10, 2);
    check("10", "2");
    sample(15, 2);
    check("15", "2");
    sample(3, 1);
    check("18", "3");
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
