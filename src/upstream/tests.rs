//! The pool and the forwarder against an upstream that misbehaves byte by byte.

use std::{collections::VecDeque, net::IpAddr, rc::Rc, sync::Arc, time::Duration};

use http::uri::PathAndQuery;
use http_body_util::BodyExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::LocalSet,
};

use super::{settings::*, *};
use crate::{
    policy::{
        Access, Addresses, Browsers, Caller, ClientIp, HeaderEdits, PathPattern, PeerIp, Rejection,
        Route, Rule, Streams, Target, UpstreamId, authorize,
    },
    telemetry::{Telemetry, settings::LogSettings},
};

mod checks;
mod ejection;
mod resolve;
mod servers;

/// What a scripted upstream does on one connection: a list of answers to requests, then it closes.
type Script = Vec<&'static [u8]>;

const DIAL: Duration = Duration::from_secs(3);
const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// Serves each connection by the next script; the last one serves all further connections. Returns how many connections
/// there were, by a counter.
async fn upstream(scripts: Vec<Script>) -> (UpstreamSettings, Rc<std::cell::Cell<usize>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let connections = Rc::new(std::cell::Cell::new(0));
    let count = Rc::clone(&connections);
    tokio::task::spawn_local(async move {
        let mut scripts = VecDeque::from(scripts);
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            count.set(count.get() + 1);
            let script = if scripts.len() > 1 {
                scripts.pop_front().unwrap()
            } else {
                scripts[0].clone()
            };
            tokio::task::spawn_local(play(stream, script));
        }
    });
    (settings(port), connections)
}

async fn play(mut stream: TcpStream, script: Script) {
    for answer in script {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            if stream.read(&mut byte).await.unwrap_or(0) == 0 {
                return;
            }
            head.push(byte[0]);
        }
        if stream.write_all(answer).await.is_err() {
            return;
        }
    }
}

fn server(port: u16) -> ServerAddress {
    ServerAddress {
        endpoint: Endpoint::Tcp {
            host: "127.0.0.1".into(),
            port,
            tls: false,
        },
        base_path: "".into(),
    }
}

fn settings(port: u16) -> UpstreamSettings {
    UpstreamSettings {
        name: "test".into(),
        servers: vec![server(port)],
        balance: Balance::LeastRequests,
        eject: None,
        health: None,
        retry: None,
        protocol: Protocol::Http1,
        h2_streams: 100,
        early_hints: false,
        tls: TlsSettings::default(),
        resolve_every: Duration::from_secs(30),
        connect_timeout: Duration::from_secs(3),
        response_timeout: Duration::from_secs(30),
        idle_timeout: Duration::from_secs(60),
        max_connections: 2,
        max_pending: 1,
        host: HostPolicy::Client,
    }
}

fn make(settings: UpstreamSettings) -> Arc<Upstream> {
    let telemetry = Telemetry::with_sink(&LogSettings::default(), Box::new(std::io::sink()));
    let name = Arc::clone(&settings.name);
    let metrics = |server: &ServerAddress| telemetry.upstream(&name, &server.to_string());
    Upstream::new(settings, &SystemRoots::default(), metrics).unwrap()
}

fn route() -> Route {
    Route {
        name: "test".into(),
        index: 0,
        hosts: vec![],
        path: PathPattern::Prefix("/".into()),
        methods: vec![],
        target: Target::Upstream(UpstreamId(0)),
        strip_prefix: None,
        addresses: Addresses::default(),
        request_headers: HeaderEdits::default(),
        response_headers: HeaderEdits::default(),
        cors: None,
        access: Access::Public,
        rule: Rule::default(),
        enforce: true,
        strict: false,
        max_body: 1 << 20,
        timeout: Duration::from_secs(60),
        streams: Streams::default(),
        browsers: Browsers::default(),
    }
}

async fn get(pools: &Pools, upstream: &Arc<Upstream>) -> Result<Response, Rejection> {
    get_from(pools, upstream, IpAddr::from([127, 0, 0, 1])).await
}

async fn get_from(
    pools: &Pools,
    upstream: &Arc<Upstream>,
    client: IpAddr,
) -> Result<Response, Rejection> {
    let request = http::Request::builder().header(http::header::HOST, "test");
    let mut outbound = Outbound {
        request: Some(request.body(RequestBody::Empty).unwrap()),
        target: PathAndQuery::from_static("/"),
        progress: UploadProgress::finished_now(),
        deadline: tokio::time::Instant::now() + Duration::from_secs(60),
        handshake: None,
        hints: None,
        pins: None,
    };
    let route = route();
    let client = ClientIp::from(PeerIp::new(client));
    let permit = authorize(&route, client, Ok(Caller::Anonymous)).unwrap();
    forward(pools, upstream, &permit, &mut outbound).await
}

type Response = http::Response<Box<AnswerStream>>;

async fn text(response: Response) -> Result<String, AnswerFault> {
    let bytes = response.into_body().collect().await?.to_bytes();
    Ok(String::from_utf8(bytes.to_vec()).unwrap())
}

async fn local(test: impl Future<Output = ()>) {
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn up_an_upstream_that_is_down_is_unreachable() {
    local(async {
        let gone = TcpListener::bind("127.0.0.1:0")
            .await
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let upstream = make(settings(gone));
        assert_eq!(
            get(&Pools::new(1), &upstream).await.unwrap_err(),
            Rejection::UpstreamUnreachable
        );
    })
    .await;
}

#[tokio::test]
async fn up_3_an_upstream_that_closes_without_an_answer_is_unreachable() {
    local(async {
        let (settings, _) = upstream(vec![vec![b""]]).await;
        let upstream = make(settings);
        assert_eq!(
            get(&Pools::new(1), &upstream).await.unwrap_err(),
            Rejection::UpstreamUnreachable
        );
    })
    .await;
}

#[tokio::test]
async fn up_3_what_is_not_http_is_invalid() {
    for garbage in [
        &b"hello\r\n\r\n"[..],
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nbad name: x\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
    ] {
        local(async {
            let (settings, _) = upstream(vec![vec![garbage]]).await;
            let upstream = make(settings);
            assert_eq!(
                get(&Pools::new(1), &upstream).await.unwrap_err(),
                Rejection::UpstreamInvalid
            );
        })
        .await;
    }
}

#[tokio::test]
async fn up_3_an_answer_cut_short_is_an_error_and_its_connection_is_not_used_again() {
    for cut in [
        &b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok"[..],
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nok",
    ] {
        local(async {
            let (settings, connections) = upstream(vec![vec![cut], vec![OK]]).await;
            let (pools, upstream) = (Pools::new(1), make(settings));
            let response = get(&pools, &upstream).await.unwrap();
            assert!(matches!(
                text(response).await,
                Err(AnswerFault::Upstream(_))
            ));
            assert_eq!(
                text(get(&pools, &upstream).await.unwrap()).await.unwrap(),
                "ok"
            );
            assert_eq!(connections.get(), 2);
        })
        .await;
    }
}

#[tokio::test]
async fn a_kept_connection_serves_the_next_request() {
    local(async {
        let (settings, connections) = upstream(vec![vec![OK; 5]]).await;
        let (pools, upstream) = (Pools::new(1), make(settings));
        for _ in 0..5 {
            assert_eq!(
                text(get(&pools, &upstream).await.unwrap()).await.unwrap(),
                "ok"
            );
        }
        assert_eq!(connections.get(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_request_whose_kept_connection_died_goes_out_on_a_fresh_one() {
    local(async {
        let (settings, connections) = upstream(vec![vec![OK]]).await;
        let (pools, upstream) = (Pools::new(1), make(settings));
        for _ in 0..20 {
            assert_eq!(
                text(get(&pools, &upstream).await.unwrap()).await.unwrap(),
                "ok"
            );
            // The upstream closes after each answer; let the news arrive.
            tokio::task::yield_now().await;
        }
        assert_eq!(connections.get(), 20);
    })
    .await;
}

#[tokio::test]
async fn up_1_extra_bytes_on_an_idle_connection_close_it() {
    local(async {
        let two: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged";
        let (settings, _) = upstream(vec![vec![two, OK, OK], vec![OK]]).await;
        let (pools, upstream) = (Pools::new(1), make(settings));
        assert_eq!(text(get(&pools, &upstream).await.unwrap()).await.unwrap(), "ok");
        for _ in 0..3 {
            match get(&pools, &upstream).await {
                Ok(response) => assert_eq!(text(response).await.unwrap(), "ok"),
                Err(rejection) => assert_eq!(rejection.status(), http::StatusCode::BAD_GATEWAY),
            }
        }
    })
    .await;
}

#[tokio::test]
async fn up_1_a_dropped_answer_closes_its_connection() {
    local(async {
        let (settings, connections) = upstream(vec![
            vec![b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok"],
            vec![OK],
        ])
        .await;
        let (pools, upstream) = (Pools::new(1), make(settings));
        drop(get(&pools, &upstream).await.unwrap());
        assert_eq!(
            text(get(&pools, &upstream).await.unwrap()).await.unwrap(),
            "ok"
        );
        assert_eq!(connections.get(), 2);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_silent_upstream_times_out() {
    local(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = make(settings(listener.local_addr().unwrap().port()));
        let (pools, started) = (Pools::new(1), tokio::time::Instant::now());
        let sweep = async {
            let mut ticks = tokio::time::interval(Duration::from_secs(1));
            loop {
                ticks.tick().await;
                pools.sweep(std::time::Instant::now());
            }
        };
        let outcome = tokio::select! {
            outcome = get(&pools, &upstream) => outcome,
            () = sweep => unreachable!("it goes on for ever"),
        };
        assert_eq!(outcome.unwrap_err(), Rejection::UpstreamTimeout);
        assert_eq!(started.elapsed().as_secs(), 30);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn up_4_connections_and_waits_are_capped() {
    local(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = make(settings(listener.local_addr().unwrap().port()));
        let pools = Pools::new(1);
        let pool = pools.of(&upstream.servers[0]);
        let held = (
            pool.lease(false, DIAL).await.unwrap(),
            pool.lease(false, DIAL).await.unwrap(),
        );
        let waiting = pool.lease(false, DIAL);
        let mut waiting = std::pin::pin!(waiting);
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        assert_eq!(
            pool.lease(false, DIAL).await.unwrap_err(),
            Rejection::Overloaded,
            "the queue is full"
        );
        drop(held.0);
        assert!(
            waiting.await.is_ok(),
            "a place that is free goes to who waits"
        );
        let late = pool.lease(false, DIAL).await;
        assert!(late.is_ok() || late.unwrap_err() == Rejection::Overloaded);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn up_4_a_turn_that_comes_to_who_has_gone_is_the_next_one_s() {
    local(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut settings = settings(listener.local_addr().unwrap().port());
        (settings.max_connections, settings.max_pending) = (1, 2);
        let upstream = make(settings);
        let pools = Pools::new(1);
        let pool = pools.of(&upstream.servers[0]);
        let held = pool.lease(false, DIAL).await.unwrap();
        let mut first = Box::pin(pool.lease(false, DIAL));
        let mut second = Box::pin(pool.lease(false, DIAL));
        assert!(futures_util::poll!(first.as_mut()).is_pending());
        assert!(futures_util::poll!(second.as_mut()).is_pending());
        drop(held);
        // Its turn has come, but it is never told.
        drop(first);
        let started = tokio::time::Instant::now();
        assert!(second.await.is_ok());
        assert_eq!(
            started.elapsed(),
            Duration::ZERO,
            "without waiting for the timeout"
        );
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_a_connection_is_a_part_of_the_exchange() {
    local(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut settings = settings(listener.local_addr().unwrap().port());
        (settings.max_connections, settings.connect_timeout) = (1, Duration::from_secs(600));
        let upstream = make(settings);
        let pools = Pools::new(1);
        let pool = pools.of(&upstream.servers[0]);
        let _held = pool.lease(false, DIAL).await.unwrap();
        let started = tokio::time::Instant::now();
        assert_eq!(
            get(&pools, &upstream).await.unwrap_err(),
            Rejection::UpstreamTimeout
        );
        assert_eq!(started.elapsed().as_secs(), 60);
    })
    .await;
}

#[tokio::test]
async fn idle_connections_are_swept() {
    local(async {
        let (settings, _) = upstream(vec![vec![OK; 5]]).await;
        let (pools, upstream) = (Pools::new(1), make(settings));
        text(get(&pools, &upstream).await.unwrap()).await.unwrap();
        pools.sweep(std::time::Instant::now() + Duration::from_secs(59));
        assert!(!pools.of(&upstream.servers[0]).is_empty());
        pools.sweep(std::time::Instant::now() + Duration::from_secs(61));
        assert!(pools.of(&upstream.servers[0]).is_empty());
    })
    .await;
}

#[tokio::test]
async fn what_its_server_has_closed_is_swept() {
    local(async {
        // It closes after the one answer.
        let (settings, _) = upstream(vec![vec![OK]]).await;
        let (pools, upstream) = (Pools::new(1), make(settings));
        text(get(&pools, &upstream).await.unwrap()).await.unwrap();
        let pool = pools.of(&upstream.servers[0]);
        for _ in 0..1000 {
            if pool.is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
            pools.sweep(std::time::Instant::now());
        }
        assert!(pool.is_empty());
    })
    .await;
}
