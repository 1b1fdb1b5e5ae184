//! Traces: which requests are recorded, what the collector and the upstream learn of them, and what a collector that fails costs.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use serde_json::Value;

use crate::harness::{
    Authority, Gateway, Kind, Raw, Reply, Site, Step, Token, Upstream, Wire, eventually, get,
    keys::bearer, request,
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";
/// OTLP's SPAN_KIND_SERVER and SPAN_KIND_CLIENT.
const SERVER: u64 = 2;
const CLIENT: u64 = 3;

/// A collector that keeps what it is sent, and answers as the test last said.
struct Collector {
    server: Upstream,
    reply: Arc<Mutex<Reply>>,
}

impl Collector {
    async fn start() -> Self {
        Self::on(Wire::Plain).await
    }

    async fn on(wire: Wire) -> Self {
        let reply = Arc::new(Mutex::new(Reply::ok("{}")));
        let shared = Arc::clone(&reply);
        let server = Upstream::on(wire, move |_| shared.lock().unwrap().clone()).await;
        Self { server, reply }
    }

    fn says(&self, reply: Reply) {
        *self.reply.lock().unwrap() = reply;
    }

    fn endpoint(&self) -> String {
        format!("\"{}/v1/traces\"", self.server.url)
    }

    /// Every span so far, of exports that came whole.
    fn spans(&self) -> Vec<Value> {
        let whole = self.server.seen().into_iter().filter(|seen| seen.complete);
        let exports = whole.map(|seen| serde_json::from_slice::<Value>(&seen.body).unwrap());
        let spans = exports.flat_map(|export| {
            let spans = &export["resourceSpans"][0]["scopeSpans"][0]["spans"];
            spans.as_array().unwrap().clone()
        });
        spans.collect()
    }

    /// Waits until this many spans have come.
    async fn has(&self, count: usize) -> Vec<Value> {
        eventually("spans", async || {
            let spans = self.spans();
            (spans.len() >= count).then_some(spans)
        })
        .await
    }
}

fn traced(upstream: &Upstream, collector: &Collector) -> Site {
    Site::new(upstream.address)
        .set("tracing", "endpoint", &collector.endpoint())
        .set("tracing", "interval", "\"100ms\"")
}

fn attribute<'a>(span: &'a Value, key: &str) -> &'a Value {
    let attributes = span["attributes"].as_array().unwrap();
    let found = attributes.iter().find(|one| one["key"] == key);
    let value = found.and_then(|one| one["value"].as_object()?.values().next());
    value.unwrap_or(&Value::Null)
}

fn of_kind(spans: &[Value], kind: u64) -> Vec<&Value> {
    spans.iter().filter(|span| span["kind"] == kind).collect()
}

fn nanos(span: &Value, key: &str) -> u128 {
    span[key].as_str().unwrap().parse().unwrap()
}

async fn counted(gateway: &Gateway, result: &str) -> Option<f64> {
    let series = format!("portcullis_spans_total{{result=\"{result}\"}}");
    gateway.metric(&series).await
}

/// Waits until the metric says so.
async fn counts(gateway: &Gateway, result: &str, want: f64) {
    eventually(result, async || {
        (counted(gateway, result).await == Some(want)).then_some(())
    })
    .await;
}

/// Waits for the log to say that the collector fails.
async fn is_told(gateway: &Gateway) {
    let word = |line: &str| line.contains("spans are not exported").then_some(());
    gateway.err.find("word of it", word).await;
}

/// Has another configuration loaded.
async fn reload(gateway: &Gateway, toml: &str) {
    gateway.site.put("config/gateway.toml", toml);
    let mut raw = Raw::plain(gateway.admin).await;
    let asked = request("POST", "/reload", &[("connection", "close")], "");
    raw.exchange(asked).await.is(200);
}

fn without_tracing(toml: &str) -> String {
    let of_traces = |line: &&str| {
        ["endpoint", "interval", "[tracing]"]
            .iter()
            .any(|key| line.starts_with(key))
    };
    let rest: Vec<_> = toml.lines().filter(|line| !of_traces(line)).collect();
    rest.join("\n")
}

fn parent(flags: &str) -> String {
    format!("00-{TRACE}-{PARENT}-{flags}")
}

#[tokio::test]
async fn without_the_section_nothing_is_recorded_and_the_parent_goes_on_as_it_came() {
    let upstream = Upstream::start().await;
    let gateway = Site::new(upstream.address).start().await;
    let parent = parent("01");
    get(&gateway, "/public", &[("traceparent", &parent)])
        .await
        .is(200);
    assert_eq!(upstream.last().header("traceparent"), Some(&*parent));
    let line = gateway.access_line(|line| line["path"] == "/public").await;
    assert_eq!(line["trace_id"], Value::Null);
    assert_eq!(counted(&gateway, "exported").await, None);
}

#[tokio::test]
async fn a_request_has_a_span_and_its_upstream_is_told_of_the_one_below() {
    let (upstream, collector) = (Upstream::start().await, Collector::start().await);
    let gateway = traced(&upstream, &collector).start().await;
    let token = bearer(&Token::new(Kind::Es).claim("sub", "u-17").sign());
    let fields = [("Authorization", &*token), ("tracestate", "a=1")];
    let answer = get(&gateway, "/private/a%20b?page=2", &fields).await;
    let spans = collector.has(2).await;
    assert_eq!(spans.len(), 2);
    let (server, client) = (of_kind(&spans, SERVER)[0], of_kind(&spans, CLIENT)[0]);
    let id = answer.is(200).header("x-request-id").unwrap().to_owned();
    for span in [server, client] {
        assert_eq!(span["traceId"], *id);
        assert_eq!(span["status"], Value::Null);
        assert_eq!(attribute(span, "http.request.method"), "GET");
        assert_eq!(attribute(span, "http.response.status_code"), "200");
        assert_eq!(attribute(span, "error.type"), &Value::Null);
    }
    assert_eq!(server["parentSpanId"], Value::Null);
    assert_eq!(client["parentSpanId"], server["spanId"]);
    let told = upstream.last().header("traceparent").unwrap().to_owned();
    let want = format!("00-{id}-{}-01", client["spanId"].as_str().unwrap());
    assert_eq!(told, want);
    assert_eq!(upstream.last().header("tracestate"), None);
    assert_eq!(
        (&server["name"], &client["name"]),
        (&"GET private".into(), &"GET legacy".into())
    );
    for (key, want) in [
        ("url.path", "/private/a%20b"),
        ("url.scheme", "https"),
        ("http.route", "private"),
        ("network.protocol.version", "1.1"),
        ("client.address", "127.0.0.1"),
        ("portcullis.request_id", &id),
        ("portcullis.upstream", "legacy"),
    ] {
        assert_eq!(attribute(server, key), want, "{key}");
    }
    assert_eq!(attribute(client, "peer.service"), "legacy");
    assert_eq!(attribute(server, "user.id"), &Value::Null);
    let (start, end) = ("startTimeUnixNano", "endTimeUnixNano");
    assert!(nanos(server, start) <= nanos(client, start));
    assert!(nanos(client, start) <= nanos(client, end));
    assert!(nanos(client, end) <= nanos(server, end));
    let line = gateway.access_line(|line| line["route"] == "private").await;
    assert_eq!(line["trace_id"], *id);
    counts(&gateway, "exported", 2.0).await;
    let export = collector.server.last();
    assert_eq!((&*export.method, &*export.target), ("POST", "/v1/traces"));
    assert_eq!(export.header("content-type"), Some("application/json"));
    let body: Value = serde_json::from_slice(&export.body).unwrap();
    let resource = &body["resourceSpans"][0]["resource"];
    assert_eq!(attribute(resource, "service.name"), "portcullis");
}

#[tokio::test]
async fn log_1_no_export_has_a_token_a_cookie_or_a_query_in_it() {
    let (upstream, collector) = (Upstream::start().await, Collector::start().await);
    let site = traced(&upstream, &collector).set("tracing", "user", "true");
    let gateway = site.start().await;
    let good = Token::new(Kind::Es).claim("sub", "u-17").sign();
    let bad = format!("{good}c4n4ry");
    let (good, bad) = (bearer(&good), bearer(&bad));
    for (target, token, status) in [
        ("/private?code=c4n4ry", &good, 200),
        ("/private?code=c4n4ry", &bad, 401),
        ("/nowhere?c4n4ry", &good, 404),
        ("/private/%2e%2e%2fc4n4ry?c4n4ry", &good, 400),
    ] {
        let fields = [
            ("Authorization", &**token),
            ("Cookie", "session=c4n4ry"),
            ("X-Api-Key", "c4n4ry"),
            ("Referer", "https://localhost/?c4n4ry"),
            ("baggage", "key=c4n4ry"),
        ];
        get(&gateway, target, &fields).await.is(status);
    }
    let spans = collector.has(5).await;
    let users = of_kind(&spans, SERVER);
    let users = users.iter().map(|span| attribute(span, "user.id"));
    let users: Vec<_> = users.filter_map(Value::as_str).collect();
    assert_eq!(users, ["u-17"]);
    for seen in collector.server.seen() {
        let text = String::from_utf8_lossy(&seen.head.raw).into_owned()
            + &String::from_utf8_lossy(&seen.body);
        let payload = good.split('.').nth(1).unwrap();
        assert!(
            !text.contains("c4n4ry") && !text.contains(payload),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_refusals_span_has_its_code_and_no_upstream_below() {
    let (upstream, collector) = (Upstream::start().await, Collector::start().await);
    let gateway = traced(&upstream, &collector).start().await;
    let token = bearer(&Token::new(Kind::Es).sign());
    let cases = [
        ("/private", "", 401, "credentials_missing", "GET private"),
        ("/private", "Bearer x", 401, "token_invalid", "GET private"),
        ("/admin", &token, 403, "role_missing", "GET admin"),
        ("/nowhere", &token, 404, "route_not_found", "GET"),
    ];
    for (target, token, status, code, _) in cases {
        let token = [("Authorization", token)];
        let fields = if token[0].1.is_empty() {
            &[]
        } else {
            &token[..]
        };
        get(&gateway, target, fields).await.refused(status, code);
    }
    let spans = collector.has(cases.len()).await;
    assert_eq!(of_kind(&spans, CLIENT).len(), 0);
    for (_, _, status, code, name) in cases {
        let mut servers = of_kind(&spans, SERVER).into_iter();
        let span = servers.find(|span| attribute(span, "error.type") == code);
        let span = span.unwrap_or_else(|| panic!("{code}: {spans:?}"));
        assert_eq!(span["name"], name);
        let told = attribute(span, "http.response.status_code");
        assert_eq!(told, &Value::from(status.to_string()));
        // A client's mistake is no error of the server's.
        assert_eq!(span["status"], Value::Null);
    }
    upstream.saw_nothing();
}

#[tokio::test]
async fn the_lower_span_names_the_server_that_was_asked_and_not_the_first_one() {
    let (one, two) = (Upstream::start().await, Upstream::start().await);
    let collector = Collector::start().await;
    let servers = format!("[\"{}\", \"{}\"]", one.url, two.url);
    let site = traced(&one, &collector)
        .on_upstream("servers", &servers)
        .on_upstream("balance", "\"round_robin\"");
    let gateway = site.start().await;
    for _ in 0..4 {
        get(&gateway, "/public", &[]).await.is(200);
    }
    let spans = collector.has(8).await;
    for upstream in [&one, &two] {
        let port = upstream.address.port().to_string();
        let asked = of_kind(&spans, CLIENT);
        let asked = asked.iter().filter(|span| {
            attribute(span, "server.address") == "127.0.0.1"
                && attribute(span, "server.port") == &*port
        });
        let seen = upstream.seen().len();
        assert_eq!((asked.count(), seen > 0), (seen, true), "{port}");
    }
}

#[tokio::test]
async fn an_upstream_that_fails_is_an_error_of_both_spans() {
    let upstream = Upstream::scripted(|seen| match &*seen.target {
        "/public/own" => Reply::with(503, &[], "busy"),
        _ => Reply(vec![Step::Close]),
    })
    .await;
    let collector = Collector::start().await;
    let site = traced(&upstream, &collector).on_upstream("retry", "{ attempts = 0 }");
    let gateway = site.start().await;
    get(&gateway, "/public/own", &[]).await.is(503);
    get(&gateway, "/public/gone", &[]).await.is(502);
    let spans = collector.has(4).await;
    for kind in [SERVER, CLIENT] {
        let found = of_kind(&spans, kind);
        let errors: BTreeSet<_> = found
            .iter()
            .map(|span| attribute(span, "error.type").as_str().unwrap())
            .collect();
        assert!(errors.contains("503"), "{errors:?}");
        assert_eq!(errors.len(), 2, "{errors:?}");
        assert!(found.iter().all(|span| span["status"]["code"] == 2));
    }
}

#[tokio::test]
async fn a_strangers_sampled_flag_is_not_believed_nor_handed_on() {
    let (upstream, collector) = (Upstream::start().await, Collector::start().await);
    let site = traced(&upstream, &collector).set("tracing", "sample", "0.0");
    let gateway = site.start().await;
    let (claimed, modest) = (parent("01"), parent("00"));
    let fields = [("traceparent", &*claimed), ("tracestate", "a=1")];
    let answer = get(&gateway, "/public", &fields).await;
    let id = answer.is(200).header("x-request-id").unwrap().to_owned();
    let seen = upstream.last();
    let want = format!("00-{TRACE}-{}-00", &id[16..]);
    assert_eq!(seen.header("traceparent"), Some(&*want));
    assert_eq!(seen.header("tracestate"), Some("a=1"));
    get(&gateway, "/public", &[("traceparent", &modest)])
        .await
        .is(200);
    assert_eq!(upstream.last().header("traceparent"), Some(&*modest));
    // Whatever was recorded would have to leave now.
    let mut gateway = gateway;
    assert_eq!(counted(&gateway, "exported").await, Some(0.0));
    gateway.signal("TERM");
    gateway.exit().await;
    collector.server.saw_nothing();
}

#[tokio::test]
async fn a_trusted_proxys_sampled_flag_is_believed_and_its_trace_goes_on() {
    let (upstream, collector) = (Upstream::start().await, Collector::start().await);
    let site = traced(&upstream, &collector)
        .set("tracing", "sample", "0")
        .set("server", "trusted_proxies", r#"["127.0.0.1"]"#);
    let gateway = site.start().await;
    let (sampled, modest) = (parent("01"), parent("00"));
    for fields in [
        &[][..],
        &[("traceparent", &*modest)],
        &[("traceparent", "00-0-0-01")],
    ] {
        get(&gateway, "/public", fields).await.is(200);
    }
    let fields = [
        ("traceparent", &*sampled),
        ("tracestate", "a=1"),
        ("tracestate", "b=2"),
        ("x-request-id", "order-7"),
        ("x-forwarded-for", "192.0.2.7"),
    ];
    get(&gateway, "/public", &fields).await.is(200);
    let spans = collector.has(2).await;
    assert_eq!(spans.len(), 2);
    let (server, client) = (of_kind(&spans, SERVER)[0], of_kind(&spans, CLIENT)[0]);
    assert_eq!(server["traceId"], TRACE);
    assert_eq!(server["parentSpanId"], PARENT);
    assert_eq!(client["parentSpanId"], server["spanId"]);
    assert_eq!(attribute(server, "client.address"), "192.0.2.7");
    assert_eq!(attribute(server, "network.peer.address"), "127.0.0.1");
    let seen = upstream.last();
    let want = format!("00-{TRACE}-{}-01", client["spanId"].as_str().unwrap());
    assert_eq!(seen.header("traceparent"), Some(&*want));
    assert_eq!(seen.head.values("tracestate"), ["a=1", "b=2"]);
}

#[tokio::test]
async fn fault_5_a_collector_that_refuses_costs_spans_and_no_request() {
    let (upstream, collector) = (Upstream::start().await, Collector::start().await);
    let gateway = traced(&upstream, &collector).start().await;
    for (status, failed) in [(400, 2.0), (401, 4.0), (302, 6.0)] {
        let elsewhere = [("location", "/elsewhere")];
        collector.says(Reply::with(status, &elsewhere, "no"));
        get(&gateway, "/public", &[]).await.is(200);
        counts(&gateway, "failed", failed).await;
    }
    // None was tried again or sent elsewhere.
    assert_eq!(collector.server.count(), 3);
    assert_eq!(collector.server.last().target, "/v1/traces");
    let ready = gateway.admin("/readyz").await;
    assert_eq!(ready.status, 200);
    assert_eq!(ready.json()["degraded"][0]["what"], "traces");
    collector.says(Reply::ok("{}"));
    get(&gateway, "/public", &[]).await.is(200);
    counts(&gateway, "exported", 2.0).await;
    let ready = gateway.admin("/readyz").await;
    assert_eq!(ready.json()["degraded"], Value::Null);
    let events = gateway.err.text();
    assert_eq!(events.matches("spans are not exported").count(), 1);
    assert_eq!(events.matches("spans are exported again").count(), 1);
    // Of an export that is taken in part, the rest is counted too.
    let part = r#"{"partialSuccess":{"rejectedSpans":"1","errorMessage":"too old"}}"#;
    collector.says(Reply::ok(part));
    get(&gateway, "/public", &[]).await.is(200);
    counts(&gateway, "exported", 3.0).await;
    assert_eq!(counted(&gateway, "failed").await, Some(7.0));
}

#[tokio::test]
async fn an_export_that_may_be_sent_again_is() {
    let (upstream, collector) = (Upstream::start().await, Collector::start().await);
    let gateway = traced(&upstream, &collector).start().await;
    collector.says(Reply::with(503, &[("retry-after", "0")], "busy"));
    get(&gateway, "/public", &[]).await.is(200);
    collector.server.request(1).await;
    collector.says(Reply::ok("{}"));
    counts(&gateway, "exported", 2.0).await;
    let bodies: BTreeSet<_> = collector
        .server
        .seen()
        .into_iter()
        .map(|seen| seen.body)
        .collect();
    assert_eq!(bodies.len(), 1);
    assert_eq!(counted(&gateway, "failed").await, Some(0.0));
}

#[tokio::test]
async fn fault_5_a_collector_that_is_gone_costs_no_request() {
    let upstream = Upstream::start().await;
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("\"http://{}/v1/traces\"", gone.local_addr().unwrap());
    drop(gone);
    let site = Site::new(upstream.address)
        .set("tracing", "endpoint", &endpoint)
        .set("tracing", "interval", "\"100ms\"");
    let mut gateway = site.start().await;
    get(&gateway, "/public", &[]).await.is(200);
    is_told(&gateway).await;
    get(&gateway, "/public", &[]).await.is(200);
    // Nor does it keep the gateway from leaving.
    gateway.signal("TERM");
    assert!(gateway.exit().await.success());
}

#[tokio::test]
async fn fault_5_a_collector_that_says_nothing_or_too_much_costs_no_request_and_the_queue_has_an_end()
 {
    let (upstream, collector) = (Upstream::start().await, Collector::start().await);
    let site = traced(&upstream, &collector)
        .set("tracing", "queue", "16")
        .set("tracing", "timeout", "\"30s\"");
    let gateway = site.start().await;
    let endless = b"HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n".to_vec();
    let megabytes = Step::Repeat(vec![b' '; 1 << 16], 1 << 14);
    collector.says(Reply(vec![Step::Send(endless), megabytes]));
    get(&gateway, "/public", &[]).await.is(200);
    // A collector that answers 200 has taken them, and the rest of what it says is not read.
    counts(&gateway, "exported", 2.0).await;
    collector.says(Reply(vec![Step::Hang]));
    get(&gateway, "/public", &[]).await.is(200);
    collector.server.request(2).await;
    for _ in 0..40 {
        get(&gateway, "/public", &[]).await.is(200);
    }
    counts(&gateway, "dropped", 2.0 * (40.0 - 16.0)).await;
    assert_eq!(upstream.count(), 42);
}

#[tokio::test]
async fn what_waits_is_sent_when_the_gateway_leaves() {
    let (upstream, collector) = (Upstream::start().await, Collector::start().await);
    let site = traced(&upstream, &collector).set("tracing", "interval", "\"60s\"");
    let mut gateway = site.start().await;
    for _ in 0..3 {
        get(&gateway, "/public", &[]).await.is(200);
    }
    collector.server.saw_nothing();
    gateway.signal("TERM");
    assert!(gateway.exit().await.success());
    assert_eq!(collector.spans().len(), 6);
    assert_eq!(collector.server.count(), 1);
}

#[tokio::test]
async fn cfg_2_a_reload_takes_another_collector_and_leaves_nothing_behind() {
    let (upstream, first) = (Upstream::start().await, Collector::start().await);
    let second = Collector::start().await;
    let site = traced(&upstream, &first).set("tracing", "interval", "\"60s\"");
    let gateway = site.start().await;
    get(&gateway, "/public/1", &[]).await.is(200);
    let toml = gateway.site.toml();
    let elsewhere = toml.replace(&first.endpoint(), &second.endpoint());
    reload(&gateway, &elsewhere).await;
    // The old one's queue is sent to its end, at once.
    first.has(2).await;
    get(&gateway, "/public/2", &[]).await.is(200);
    reload(&gateway, &without_tracing(&toml)).await;
    let spans = second.has(2).await;
    assert_eq!(
        attribute(of_kind(&spans, SERVER)[0], "url.path"),
        "/public/2"
    );
    let parent = parent("01");
    get(&gateway, "/public/3", &[("traceparent", &parent)])
        .await
        .is(200);
    assert_eq!(upstream.last().header("traceparent"), Some(&*parent));
    assert_eq!((first.spans().len(), second.spans().len()), (2, 2));
}

#[tokio::test]
async fn cfg_2_a_collector_that_is_gone_is_given_up_with_its_configuration() {
    let (upstream, collector) = (Upstream::start().await, Collector::start().await);
    collector.says(Reply(vec![Step::Close]));
    let site = traced(&upstream, &collector).set("tracing", "interval", "\"60s\"");
    let gateway = site.start().await;
    for _ in 0..2 {
        get(&gateway, "/public", &[]).await.is(200);
    }
    let toml = without_tracing(&gateway.site.toml());
    reload(&gateway, &toml).await;
    counts(&gateway, "failed", 4.0).await;
    // Whom nobody asks for any more is not tried again.
    assert_eq!(collector.server.count(), 1);
}

#[tokio::test]
async fn a_collector_is_reached_by_verified_tls_with_its_token_alone() {
    let authority = Authority::new();
    let pair = authority.sign(&["localhost"]);
    let (upstream, collector) = (
        Upstream::start().await,
        Collector::on(Wire::tls(&pair, &[b"http/1.1"])).await,
    );
    let port = collector.server.address.port();
    let mut site = traced(&upstream, &collector)
        .set(
            "tracing",
            "endpoint",
            &format!("\"https://localhost:{port}/v1/traces\""),
        )
        .set("tracing", "ca", "\"certs/ca.pem\"")
        .set("tracing", "headers_env", "\"OTEL_EXPORTER_OTLP_HEADERS\"");
    site.variable(
        "OTEL_EXPORTER_OTLP_HEADERS",
        "authorization=Bearer%20s3cr3t==,x-tenant=a",
    );
    site.secret_file("certs/ca.pem", &authority.pem);
    let gateway = site.start().await;
    get(&gateway, "/public", &[]).await.is(200);
    collector.has(2).await;
    let export = collector.server.last();
    assert_eq!(export.header("authorization"), Some("Bearer s3cr3t=="));
    assert_eq!(export.header("x-tenant"), Some("a"));
    // One that proves nothing is sent nothing.
    let stranger = Authority::new();
    gateway.site.secret_file("certs/ca.pem", &stranger.pem);
    let mut gateway = gateway;
    gateway.signal("TERM");
    gateway.exit().await;
    let gateway = gateway.again().await;
    get(&gateway, "/public", &[]).await.is(200);
    is_told(&gateway).await;
    assert_eq!(collector.spans().len(), 2);
    for text in [gateway.out.text(), gateway.err.text()] {
        assert!(!text.contains("s3cr3t"), "{text}");
    }
}
