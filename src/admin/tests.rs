//! The admin listener over HTTP: who is refused, what it tells, and how a reload is asked for.

use std::net::SocketAddr;

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinHandle,
};

use super::{
    reload::{Asked, Diagnostic, Outcome},
    *,
};
use crate::telemetry::settings::LogSettings;

/// What is there for whoever may ask.
const PATHS: [&str; 8] = [
    "/healthz",
    "/readyz",
    "/metrics",
    "/status",
    "/status.json",
    "/status/events",
    "/status/script.js",
    "/status/style.css",
];

pub(super) struct Node {
    pub(super) address: SocketAddr,
    pub(super) state: AdminState,
    asked: Asked,
    pub(super) shutdown: CancellationToken,
    pub(super) served: JoinHandle<()>,
}

impl Node {
    pub(super) async fn start() -> Self {
        let settings = LogSettings {
            access: false,
            ..LogSettings::default()
        };
        let (reloads, asked) = Reloads::channel();
        let telemetry = Telemetry::with_sink(&settings, Box::new(std::io::sink()));
        let readiness = Arc::new(Readiness::new());
        let observed = Arc::new(status::tests::Quiet);
        let state = AdminState {
            status: Board::new(Arc::clone(&telemetry), Arc::clone(&readiness), observed),
            telemetry,
            readiness,
            reloads,
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let served = tokio::spawn(serve(listener, state.clone(), shutdown.clone()));
        Self {
            address,
            state,
            asked,
            shutdown,
            served,
        }
    }

    /// Sends raw bytes and returns all that comes back.
    pub(super) async fn send(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    pub(super) async fn get(&self, path: &str) -> String {
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
pub(super) fn check(answer: &str, status: u16, body: &str) {
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
    for path in PATHS.into_iter().chain(["/other"]) {
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
    for path in ["/", "/metrics/", "/healthz/x", "/reload/", "//metrics"] {
        check(&node.get(path).await, 404, "route_not_found");
    }
    for path in PATHS {
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

fn post(node: &Node, origin: Option<&str>) -> String {
    let origin = origin.map_or_else(String::new, |origin| format!("origin: {origin}\r\n"));
    format!(
        "POST /reload HTTP/1.1\r\nhost: {}\r\n{origin}content-length: 0\r\n\r\n",
        node.address
    )
}

#[tokio::test]
async fn log_3_a_reload_is_asked_for_by_post_and_by_nobody_elses_page() {
    let mut node = Node::start().await;
    let answer = node.get("/reload").await;
    check(&answer, 405, "method_not_allowed");
    assert!(answer.contains("allow: POST\r\n"), "{answer}");
    let cross = node.send(&post(&node, Some("https://evil.example"))).await;
    check(&cross, 403, "origin_denied");
    let rebound = "POST /reload HTTP/1.1\r\nhost: evil.example\r\ncontent-length: 0\r\n\r\n";
    check(&node.send(rebound).await, 403, "origin_denied");
    // Nobody was asked for anything: the first answer is that of the first who may.
    let own = format!("http://{}", node.address);
    let request = post(&node, Some(&own));
    let outcome = Arc::new(Outcome::Taken {
        changes: vec!["route \"a\" added".to_owned()],
        warnings: vec![],
    });
    let mut asked = std::mem::replace(&mut node.asked, Reloads::channel().1);
    let (answer, ()) = tokio::join!(node.send(&request), async {
        asked.next().await.tell(&outcome);
    });
    check(
        &answer,
        200,
        r#"{"result":"taken","changes":["route \"a\" added"],"warnings":[]}"#,
    );
    assert!(answer.contains("cache-control: no-store\r\n"), "{answer}");
}

#[tokio::test]
async fn cfg_2_a_reload_that_is_refused_says_why() {
    let mut node = Node::start().await;
    let request = post(&node, None);
    let mut asked = std::mem::replace(&mut node.asked, Reloads::channel().1);
    let problem = Diagnostic {
        key: "route[0].access".to_owned(),
        message: "is missing".to_owned(),
        hint: Some("say who may".to_owned()),
        file: "gateway.toml".to_owned(),
        line: 3,
        column: 1,
    };
    let refused = Outcome::Refused {
        problems: vec![problem],
    };
    let restart = Outcome::RestartRequired {
        keys: vec!["server.listen".to_owned()],
    };
    let problem = r#""problems":[{"key":"route[0].access","message":"is missing","hint":"say who may","file":"gateway.toml","line":3,"column":1}]"#;
    for (outcome, status, code, body) in [
        (refused, 422, "config_invalid", problem),
        (
            restart,
            409,
            "restart_required",
            r#""keys":["server.listen"]"#,
        ),
    ] {
        let outcome = Arc::new(outcome);
        let (answer, ()) = tokio::join!(node.send(&request), async {
            asked.next().await.tell(&outcome);
        });
        check(&answer, status, body);
        check(&answer, status, &format!("\"code\":\"{code}\""));
        check(&answer, status, &format!("urn:portcullis:problem:{code}"));
        let kind = "content-type: application/problem+json\r\n";
        assert!(answer.contains(kind), "{answer}");
    }
    drop(asked);
    check(&node.send(&request).await, 503, "overloaded");
}

#[tokio::test]
async fn cfg_2_one_reload_answers_all_who_wait_and_no_more_wait_than_may() {
    let mut node = Node::start().await;
    let request = post(&node, None);
    let mut asked = std::mem::replace(&mut node.asked, Reloads::channel().1);
    let outcome = Arc::new(Outcome::Unchanged { warnings: vec![] });
    let all = (0..40).map(|_| node.send(&request));
    let mut all: FuturesUnordered<_> = all.collect();
    // Those beyond the bound have their answer before anybody reloads.
    let mut answers = Vec::new();
    while answers.len() < 8 {
        answers.extend(all.next().await);
    }
    asked.waiting().tell(&outcome);
    answers.extend(all.collect::<Vec<_>>().await);
    let count = |status: &str| answers.iter().filter(|one| one.starts_with(status)).count();
    assert_eq!((count("HTTP/1.1 200"), count("HTTP/1.1 503")), (32, 8));
}
