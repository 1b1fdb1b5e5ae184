//! The status page: what strangers wrote is text in it, and what it tells is what was counted.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::atomic::AtomicU64,
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;
use http::{Method, StatusCode, Version};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::*;
use crate::{
    admin::tests::{Node, check},
    policy::{Claims, Identity, IdentityHeaders},
    telemetry::{Ending, Record, RequestId, settings::LogSettings},
    upstream::Condition,
};

/// What a stranger writes who wants to be more than text.
const HOSTILE: &str = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>&\r\n\u{202e}";

/// A node of which nothing is known.
#[derive(Debug)]
pub(in crate::admin) struct Quiet;

impl Observed for Quiet {
    fn cache(&self) -> [u64; 3] {
        [0; 3]
    }

    fn facts(&self) -> Facts {
        Facts::default()
    }

    fn sessions(&self) -> BoxFuture<'_, Option<u64>> {
        Box::pin(async { None })
    }
}

/// A node all of whose names are hostile.
#[derive(Debug, Default)]
struct Hostile {
    asked: AtomicU64,
}

impl Observed for Hostile {
    fn cache(&self) -> [u64; 3] {
        [1, 0, 1]
    }

    fn facts(&self) -> Facts {
        Facts {
            upstreams: vec![UpstreamFacts {
                name: HOSTILE.into(),
                servers: vec![(HOSTILE.to_owned(), Condition::Ejected)],
            }],
            issuers: vec![IssuerFacts {
                name: HOSTILE.into(),
                keys: (0, 1),
                age: None,
            }],
            certificates: vec![(HOSTILE.to_owned(), SystemTime::UNIX_EPOCH)],
            accounts: Some(AccountFacts {
                store: "SQLite",
                lag: None,
                password_queue: 3,
            }),
            redis: true,
            ..Facts::default()
        }
    }

    fn sessions(&self) -> BoxFuture<'_, Option<u64>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        Box::pin(async { Some(1234) })
    }
}

fn telemetry() -> Arc<Telemetry> {
    let settings = LogSettings {
        access: false,
        ..LogSettings::default()
    };
    Telemetry::with_sink(&settings, Box::new(std::io::sink()))
}

fn refused(code: &'static str) -> Record {
    Record {
        started: Instant::now(),
        time: SystemTime::now(),
        request_id: RequestId::accept("r-1").unwrap(),
        peer: IpAddr::from([10, 0, 0, 2]),
        client: None,
        method: Method::GET,
        version: Version::HTTP_2,
        trace: None,
        host: Some(HOSTILE.into()),
        path: Some(format!("/{HOSTILE}?token=secret").into()),
        route: None,
        upstream: None,
        caller: None,
        status: StatusCode::FORBIDDEN,
        code: Some(code),
        reason: Some("signature"),
        unenforced: None,
        upstream_asked: None,
        upstream_time: None,
        bytes_in: 0,
        bytes_out: 0,
        ending: Ending::Complete,
    }
}

fn hostile_caller() -> Arc<Identity> {
    let claims = Claims {
        issuer: HOSTILE.into(),
        subject: HOSTILE.into(),
        ..Claims::default()
    };
    Arc::new(Identity::assert_verified(claims, &IdentityHeaders::default()).unwrap())
}

fn hostile_board() -> (Arc<Board>, Arc<Hostile>) {
    let (telemetry, readiness) = (telemetry(), Arc::new(Readiness::new()));
    readiness.set(HOSTILE, Err(HOSTILE.to_owned()));
    readiness.set_degraded("redis", Err(HOSTILE.to_owned()));
    telemetry.record(Record {
        caller: Some(hostile_caller()),
        ..refused("role_missing")
    });
    let observed = Arc::new(Hostile::default());
    let board = Board::new(telemetry, readiness, observed.clone());
    (board, observed)
}

/// Every tag of a document, as it is written.
fn tags(html: &str) -> BTreeSet<&str> {
    let pieces = html.split('<').skip(1);
    pieces
        .map(|piece| piece.split('>').next().unwrap())
        .collect()
}

#[test]
fn log_2_what_strangers_wrote_makes_no_tag() {
    let (hostile, _) = hostile_board();
    hostile.look(Instant::now());
    let quiet = Board::new(telemetry(), Arc::default(), Arc::new(Quiet));
    let whole = |board: &Board| {
        let (status, plots) = board.status(Some(5));
        page::whole(&status, &plots).unwrap()
    };
    let html = whole(&hostile);
    assert!(html.contains("&#60;script&#62;alert(1)"), "{html}");
    assert!(!html.contains("<script>"), "{html}");
    assert!(!html.contains("<img"), "{html}");
    // No tag, and no attribute of one, that is not the page's own: what differs by values are classes and times.
    let known = ["class=", "datetime=", "aria-label=", "scope="];
    for tag in tags(&html).difference(&tags(&whole(&quiet))) {
        let own = known.iter().any(|name| tag.contains(name)) || !tag.contains('=');
        assert!(
            own && !tag.contains("alert") && !tag.contains(" on"),
            "{tag}"
        );
    }
    for (id, part) in {
        let (status, plots) = hostile.status(None);
        page::parts(&status, &plots)
    } {
        let part = String::from_utf8(part.to_vec()).unwrap();
        assert!(
            !part.contains("<script") && !part.contains("<img"),
            "{id}: {part}"
        );
    }
    assert!(!html.contains("secret"), "a query is shown");
    let refusals = html.split("id=\"refusals\"").nth(1).unwrap();
    let refusals = refusals.split("</section>").next().unwrap();
    assert!(refusals.contains("&#60;img"), "{refusals}");
    assert!(!refusals.contains(['\u{202e}', '\r']), "{refusals}");
}

#[test]
fn log_1_the_document_for_programs_has_no_query_and_all_that_the_page_has() {
    let (board, _) = hostile_board();
    board.look(Instant::now());
    board.look(Instant::now());
    let (status, _) = board.status(Some(1234));
    let text = serde_json::to_string(&status).unwrap();
    assert!(!text.contains("secret"));
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["state"], "not_ready");
    assert_eq!(json["node"]["sessions"], 1234);
    assert_eq!(json["node"]["redis"], false);
    assert_eq!(json["node"]["password_queue"], 3);
    assert_eq!(json["upstreams"][0]["servers"][0]["state"], "ejected");
    assert_eq!(json["issuers"][0]["age"], serde_json::Value::Null);
    assert_eq!(json["certificates"][0]["well"], false);
    assert_eq!(json["decisions"][0]["name"], "role_missing");
    assert_eq!(json["decisions"][0]["total"], 1);
    let refusal = &json["refusals"][0];
    assert_eq!(refusal["code"], "role_missing");
    assert_eq!(refusal["reason"], "signature");
    assert_eq!(refusal["client"], "10.0.0.2");
}

#[test]
fn every_part_is_in_the_page_once_as_it_is_sent() {
    let (board, _) = hostile_board();
    let (status, plots) = board.status(None);
    let html = page::whole(&status, &plots).unwrap();
    for (id, part) in page::parts(&status, &plots) {
        let part = String::from_utf8(part.to_vec()).unwrap();
        let mark = format!(" id=\"{id}\"");
        assert_eq!(html.matches(&*mark).count(), 1, "{id}");
        let (_, inside) = html.split_once(&*mark).unwrap();
        let (_, inside) = inside.split_once('>').unwrap();
        assert!(inside.starts_with(&*part), "{id}");
    }
}

#[tokio::test]
async fn the_page_and_its_files_keep_to_their_own_origin() {
    let node = Node::start().await;
    for (path, kind) in [
        ("/status", "text/html; charset=utf-8"),
        ("/status.json", "application/json"),
        ("/status/style.css", "text/css; charset=utf-8"),
        ("/status/script.js", "text/javascript; charset=utf-8"),
    ] {
        let answer = node.get(path).await;
        check(&answer, 200, "");
        for field in [
            format!("content-type: {kind}\r\n"),
            "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; \
             form-action 'none'; frame-ancestors 'none'\r\n"
                .to_owned(),
            "x-frame-options: DENY\r\n".to_owned(),
            "cross-origin-resource-policy: same-origin\r\n".to_owned(),
            "x-content-type-options: nosniff\r\n".to_owned(),
            "cache-control: no-store\r\n".to_owned(),
        ] {
            assert!(answer.contains(&field), "{path}: {field} in {answer}");
        }
    }
    // What the policy forbids is not there: no script or style within the page, nothing from elsewhere.
    let page = node.get("/status").await;
    for unwanted in [
        "<style",
        "style=",
        "onclick",
        "javascript:",
        "http://",
        "https://",
        "src=\"/",
    ] {
        let (_, body) = page.split_once("\r\n\r\n").unwrap();
        assert!(!body.contains(unwanted), "{unwanted}");
    }
}

/// Opens the events; gives the stream once the answer's head has come.
async fn open(node: &Node, fields: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(node.address).await.unwrap();
    let address = node.address;
    let request = format!("GET /status/events HTTP/1.1\r\nhost: {address}\r\n{fields}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = String::new();
    while !head.contains("\r\n\r\n") {
        let byte = stream.read_u8().await.unwrap();
        head.push(char::from(byte));
    }
    (stream, head)
}

#[tokio::test]
async fn events_are_for_our_own_pages_and_for_no_more_than_may_listen() {
    let node = Node::start().await;
    for site in ["cross-site", "same-site", "none"] {
        let (_, head) = open(&node, &format!("sec-fetch-site: {site}\r\n")).await;
        assert!(head.starts_with("HTTP/1.1 403 "), "{site}: {head}");
    }
    let mut listeners = Vec::new();
    for _ in 0..LISTENERS_MAX {
        let (stream, head) = open(&node, "sec-fetch-site: same-origin\r\n").await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert!(
            head.contains("content-type: text/event-stream\r\n"),
            "{head}"
        );
        listeners.push(stream);
    }
    let (_, head) = open(&node, "").await;
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    // The page itself is there for everybody, and one who leaves makes room.
    check(&node.get("/status").await, 200, "<h1>");
    listeners.pop();
    for _ in 0..1000 {
        let (stream, head) = open(&node, "").await;
        if head.starts_with("HTTP/1.1 200 ") {
            drop(stream);
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("no room was made");
}

#[tokio::test]
async fn cfg_3_events_arrive_and_end_when_the_node_stops() {
    let node = Node::start().await;
    let (mut stream, _) = open(&node, "").await;
    let mut text = String::new();
    while !text.contains("event: part\ndata: node\n") {
        let mut piece = [0; 4096];
        let read = stream.read(&mut piece).await.unwrap();
        assert!(read > 0, "{text}");
        text.push_str(&String::from_utf8_lossy(&piece[..read]));
    }
    assert!(text.contains("event: part\ndata: now\n"), "{text}");
    node.shutdown.cancel();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    node.served.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_store_is_asked_for_sessions_once_a_minute_whoever_looks() {
    let (board, observed) = hostile_board();
    for _ in 0..50 {
        assert_eq!(board.sessions().await, Some(1234));
    }
    assert_eq!(observed.asked.load(Ordering::Relaxed), 1);
}

/// A node whose store hangs.
#[derive(Debug)]
struct Hung;

impl Observed for Hung {
    fn cache(&self) -> [u64; 3] {
        [0; 3]
    }

    fn facts(&self) -> Facts {
        Facts::default()
    }

    fn sessions(&self) -> BoxFuture<'_, Option<u64>> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_keeps_no_page_back() {
    let board = Board::new(telemetry(), Arc::default(), Arc::new(Hung));
    assert_eq!(board.sessions().await, None);
    // Whoever stopped to wait let the next one ask.
    assert!(!board.asking.load(Ordering::Relaxed));
    let (status, plots) = board.status(None);
    assert!(page::whole(&status, &plots).is_some());
}
