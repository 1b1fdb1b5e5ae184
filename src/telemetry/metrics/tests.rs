//! The whole of what is told, as the contract has it.

use std::time::{Duration, UNIX_EPOCH};

use http::StatusCode;

use super::*;
use crate::telemetry::{
    CertificateReload, MailResult, Record, Telemetry,
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
