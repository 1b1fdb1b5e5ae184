//! The body of an export, as a collector reads it.

use std::time::{Duration, UNIX_EPOCH};

use http::{HeaderMap, Method, Request, StatusCode};
use serde_json::{Value, json};

use super::{encode::Resource, settings::TracingSettings};
use crate::telemetry::{
    Ending, Record, RequestId, RequestIds, Telemetry, Traced, Tracer, settings::LogSettings,
};

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn telemetry() -> std::sync::Arc<Telemetry> {
    let settings = LogSettings {
        access: false,
        ..LogSettings::default()
    };
    Telemetry::with_sink(&settings, Box::new(std::io::sink()))
}

/// A traced request that ended a second after its beginning, changed a little.
fn traced(change: impl FnOnce(&Telemetry, &mut Record)) -> Box<Traced> {
    let telemetry = telemetry();
    let (tracer, _queue) = Tracer::new(0, 1, telemetry.spans());
    let headers: HeaderMap = [("traceparent".parse().unwrap(), PARENT.parse().unwrap())]
        .into_iter()
        .collect();
    let id = RequestId::accept("r-1").unwrap();
    let (parts, ()) = Request::new(()).into_parts();
    let mut record = Record::begin(&parts, "10.0.0.2".parse().unwrap(), id);
    record.trace = tracer.begin(&headers, true, (id, &RequestIds::new()));
    record.time = UNIX_EPOCH + Duration::from_nanos(1_767_323_045_678_000_001);
    record.status = StatusCode::OK;
    record.ending = Ending::Complete;
    change(&telemetry, &mut record);
    let took = Duration::from_secs(1);
    Box::new(Traced { record, took })
}

fn export(traced: Box<Traced>) -> Value {
    let settings = TracingSettings {
        endpoint: "http://127.0.0.1/v1/traces".parse().unwrap(),
        headers: HeaderMap::new(),
        ca: None,
        thousandths: 1000,
        queue: 1,
        interval: Duration::ZERO,
        timeout: Duration::ZERO,
        service_name: "edge".into(),
        user: false,
    };
    let body = Resource::new(&settings).export(&[traced]);
    serde_json::from_slice(&body).unwrap()
}

fn spans(traced: Box<Traced>) -> Value {
    export(traced)["resourceSpans"][0]["scopeSpans"][0]["spans"].take()
}

fn attribute<'a>(span: &'a Value, key: &str) -> &'a Value {
    let attributes = span["attributes"].as_array().unwrap();
    let found = attributes.iter().find(|one| one["key"] == key);
    found.map_or(&Value::Null, |one| &one["value"])
}

#[test]
fn an_export_is_what_the_protocols_json_says() {
    let body = export(traced(|telemetry, record| {
        record.route = Some(telemetry.route("orders"));
        record.upstream = Some(telemetry.upstream("legacy", "127.0.0.1:9000"));
        record.upstream_asked = Some(Duration::from_nanos(7));
        record.upstream_time = Some(Duration::from_nanos(20));
        let second = telemetry.upstream("legacy", "127.0.0.1:9001");
        record.trace.as_mut().unwrap().asked = Some(second);
    }));
    let resource = &body["resourceSpans"][0]["resource"];
    let name = attribute(resource, "service.name");
    assert_eq!(name, &json!({ "stringValue": "edge" }));
    let spans = &body["resourceSpans"][0]["scopeSpans"][0]["spans"];
    let (server, client) = (&spans[0], &spans[1]);
    for (span, key, want) in [
        (server, "traceId", json!("4bf92f3577b34da6a3ce929d0e0e4736")),
        (client, "traceId", json!("4bf92f3577b34da6a3ce929d0e0e4736")),
        (server, "parentSpanId", json!("00f067aa0ba902b7")),
        (client, "parentSpanId", server["spanId"].clone()),
        (server, "kind", json!(2)),
        (client, "kind", json!(3)),
        (server, "name", json!("GET orders")),
        (client, "name", json!("GET legacy")),
        (server, "startTimeUnixNano", json!("1767323045678000001")),
        (server, "endTimeUnixNano", json!("1767323046678000001")),
        (client, "startTimeUnixNano", json!("1767323045678000008")),
        (client, "endTimeUnixNano", json!("1767323045678000028")),
        (server, "status", Value::Null),
    ] {
        assert_eq!(span[key], want, "{key}");
    }
    let id = server["spanId"].as_str().unwrap();
    assert_eq!((id.len(), spans[2].is_null()), (16, true));
    let status = attribute(server, "http.response.status_code");
    assert_eq!(status, &json!({ "intValue": "200" }));
    let port = attribute(client, "server.port");
    assert_eq!(port, &json!({ "intValue": "9001" }));
}

#[test]
fn the_server_that_was_asked_is_told_by_host_and_port() {
    for (server, host, port) in [
        ("10.0.0.1:9000", "10.0.0.1", Some("9000")),
        ("backend.example", "backend.example", Some("80")),
        ("https://backend.example", "backend.example", Some("443")),
        ("https://[2001:db8::1]:8443", "2001:db8::1", Some("8443")),
        ("[2001:db8::1]", "2001:db8::1", Some("80")),
        ("unix:/run/app:1.sock", "/run/app:1.sock", None),
    ] {
        let spans = spans(traced(|telemetry, record| {
            record.upstream_asked = Some(Duration::ZERO);
            record.upstream_time = Some(Duration::ZERO);
            let asked = telemetry.upstream("legacy", server);
            record.trace.as_mut().unwrap().asked = Some(asked);
        }));
        let told = |key| &attribute(&spans[1], key)["stringValue"];
        assert_eq!(told("server.address"), host);
        let told = attribute(&spans[1], "server.port")["intValue"].as_str();
        assert_eq!(told, port, "{server}");
    }
    // Where no server could be asked there is none to tell.
    let spans = spans(traced(|telemetry, record| {
        record.upstream = Some(telemetry.upstream("legacy", "10.0.0.1:9000"));
        record.upstream_asked = Some(Duration::ZERO);
        record.upstream_time = Some(Duration::ZERO);
        record.code = Some("no_healthy_upstream");
    }));
    assert_eq!(attribute(&spans[1], "server.address"), &Value::Null);
}

#[test]
fn log_1_a_query_and_user_information_are_left_out_though_the_record_had_them() {
    let spans = spans(traced(|_, record| {
        record.host = Some("ann:s3cr3t@app.example.com".into());
        record.path = Some("/reset?token=s3cr3t".into());
    }));
    assert!(!spans.to_string().contains("s3cr3t"), "{spans}");
    let path = attribute(&spans[0], "url.path");
    assert_eq!(path["stringValue"], "/reset");
}

#[test]
fn a_method_that_a_client_makes_up_makes_no_name() {
    let spans = spans(traced(|_, record| {
        record.method = Method::from_bytes(b"BREW").unwrap();
    }));
    assert_eq!(spans[0]["name"], "HTTP");
    let method = attribute(&spans[0], "http.request.method");
    assert_eq!(method["stringValue"], "_OTHER");
    let method = attribute(&spans[0], "http.request.method_original");
    assert_eq!(method["stringValue"], "BREW");
}

#[test]
fn errors_are_those_of_the_conventions() {
    let asked = |record: &mut Record| {
        record.upstream_asked = Some(Duration::ZERO);
        record.upstream_time = Some(Duration::ZERO);
    };
    // Status, code, ending; error.type and whether it is one, of the upper span and of the lower one.
    let cases = [
        (
            404,
            None,
            Ending::Complete,
            (None, false),
            (Some("404"), true),
        ),
        (
            500,
            None,
            Ending::Complete,
            (Some("500"), true),
            (Some("500"), true),
        ),
        (
            504,
            Some("upstream_timeout"),
            Ending::Complete,
            (Some("upstream_timeout"), true),
            (Some("upstream_timeout"), true),
        ),
        (
            200,
            None,
            Ending::UpstreamAborted,
            (Some("upstream_aborted"), true),
            (None, false),
        ),
        (200, None, Ending::ClientGone, (None, false), (None, false)),
    ];
    for (status, code, ending, server, client) in cases {
        let spans = spans(traced(|_, record| {
            asked(record);
            record.status = StatusCode::from_u16(status).unwrap();
            record.code = code;
            record.ending = ending;
        }));
        for (span, (error, is_error)) in [(&spans[0], server), (&spans[1], client)] {
            let told = attribute(span, "error.type")["stringValue"].as_str();
            assert_eq!(told, error, "{status} {ending:?}");
            let code = span["status"]["code"].as_u64();
            assert_eq!(code, is_error.then_some(2), "{status} {ending:?}");
        }
        let told = attribute(&spans[0], "portcullis.ending")["stringValue"].as_str();
        let want = (ending != Ending::Complete).then(|| ending.name());
        assert_eq!(told, want);
    }
}
