use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinHandle,
};

use super::*;
use crate::telemetry::settings::LogSettings;

struct Node {
    address: SocketAddr,
    state: AdminState,
    shutdown: CancellationToken,
    served: JoinHandle<()>,
}

impl Node {
    async fn start() -> Self {
        let settings = LogSettings {
            access: false,
            ..LogSettings::default()
        };
        let state = AdminState {
            telemetry: Telemetry::with_sink(&settings, Box::new(std::io::sink())),
            readiness: Arc::new(Readiness::new()),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let served = tokio::spawn(serve(listener, state.clone(), shutdown.clone()));
        Self {
            address,
            state,
            shutdown,
            served,
        }
    }

    /// Sends raw bytes and returns all that comes back.
    async fn send(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn get(&self, path: &str) -> String {
        let address = self.address;
        self.send(&format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n\r\n"))
            .await
    }

    /// Scrapes until the line is there: a connection whose answer has arrived is counted as closed a moment later.
    async fn wait_for(&self, line: &str) {
        for _ in 0..1000 {
            if self.get("/metrics").await.lines().any(|got| got == line) {
                return;
            }
        }
        panic!("no {line} in {}", self.get("/metrics").await);
    }
}

#[track_caller]
fn check(answer: &str, status: u16, body: &str) {
    assert!(
        answer.starts_with(&format!("HTTP/1.1 {status} ")),
        "{answer}"
    );
    let (_, got) = answer.split_once("\r\n\r\n").unwrap();
    assert!(got.contains(body), "{answer}");
}

#[tokio::test]
async fn log_3_foreign_host_or_origin_is_refused() {
    let node = Node::start().await;
    for path in ["/healthz", "/readyz", "/metrics", "/other"] {
        let rebound = format!("GET {path} HTTP/1.1\r\nhost: evil.example\r\n\r\n");
        check(&node.send(&rebound).await, 403, "origin_denied");
        let cross = format!(
            "POST {path} HTTP/1.1\r\nhost: {}\r\norigin: https://evil.example\r\ncontent-length: 0\r\n\r\n",
            node.address
        );
        check(&node.send(&cross).await, 403, "origin_denied");
        let without = format!("GET {path} HTTP/1.1\r\n\r\n");
        check(&node.send(&without).await, 400, "bad_request");
    }
}

#[tokio::test]
async fn anything_else_is_404_and_other_methods_are_405() {
    let node = Node::start().await;
    for path in ["/", "/metrics/", "/healthz/x", "/reload", "//metrics"] {
        check(&node.get(path).await, 404, "route_not_found");
    }
    for path in ["/healthz", "/readyz", "/metrics"] {
        let answer = node
            .send(&format!(
                "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n"
            ))
            .await;
        check(&answer, 405, "method_not_allowed");
        assert!(answer.contains("allow: GET, HEAD\r\n"), "{answer}");
    }
}

#[tokio::test]
async fn readyz_tells_what_is_missing() {
    let node = Node::start().await;
    let start =
        r#"{"ready":false,"problems":[{"what":"start","detail":"nothing has been reported yet"}]}"#;
    check(&node.get("/readyz").await, 503, start);
    let readiness = &node.state.readiness;
    readiness.set("listeners", Ok(()));
    readiness.set("store", Err("no \"disk\"".into()));
    let store = r#"{"ready":false,"problems":[{"what":"store","detail":"no \"disk\""}]}"#;
    check(&node.get("/readyz").await, 503, store);
    readiness.set("store", Ok(()));
    check(
        &node.get("/readyz").await,
        200,
        r#"{"ready":true,"problems":[]}"#,
    );
    readiness.set_degraded("keys of corp", Err("down".into()));
    let degraded =
        r#"{"ready":true,"problems":[],"degraded":[{"what":"keys of corp","detail":"down"}]}"#;
    check(&node.get("/readyz").await, 200, degraded);
    readiness.set_degraded("keys of corp", Ok(()));
    readiness.set("old", Err("gone".into()));
    readiness.clear("old");
    check(
        &node.get("/readyz").await,
        200,
        r#"{"ready":true,"problems":[]}"#,
    );
    readiness.drain();
    readiness.set("drain", Ok(()));
    let drain =
        r#"{"ready":false,"problems":[{"what":"drain","detail":"the node is shutting down"}]}"#;
    check(&node.get("/readyz").await, 503, drain);
}

#[tokio::test]
async fn healthz_is_ok_whether_ready_or_not() {
    let node = Node::start().await;
    check(&node.get("/healthz").await, 200, "ok");
    node.state.readiness.drain();
    check(&node.get("/healthz").await, 200, "ok");
    // A probe of the old kind, which has no host.
    check(
        &node
            .send("GET /healthz HTTP/1.0\r\n\r\n")
            .await
            .replace("HTTP/1.0", "HTTP/1.1"),
        200,
        "ok",
    );
}

#[tokio::test]
async fn metrics_are_openmetrics_and_nothing_is_kept_by_caches() {
    let node = Node::start().await;
    let answer = node.get("/metrics").await;
    check(&answer, 200, "\n# EOF\n");
    for field in [
        "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n",
        "cache-control: no-store\r\n",
        "x-content-type-options: nosniff\r\n",
        "connection: close\r\n",
    ] {
        assert!(answer.contains(field), "{field:?} in {answer}");
    }
    node.wait_for("portcullis_connections{listener=\"admin\"} 1")
        .await;
}

#[tokio::test]
async fn stop_lets_open_exchanges_end_and_takes_no_more() {
    let node = Node::start().await;
    let mut open = TcpStream::connect(node.address).await.unwrap();
    // The gauge shows that the open connection and this one were accepted.
    open.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n")
        .await
        .unwrap();
    node.wait_for("portcullis_connections{listener=\"admin\"} 2")
        .await;
    node.shutdown.cancel();
    open.write_all(b"\r\n").await.unwrap();
    let mut answer = String::new();
    open.read_to_string(&mut answer).await.unwrap();
    check(&answer, 200, "ok");
    node.served.await.unwrap();
    assert!(TcpStream::connect(node.address).await.is_err());
}
