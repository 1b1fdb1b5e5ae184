//! What is sent again, and what never is (UP-2).

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{net::TcpListener, task::JoinHandle};

use crate::harness::{Gateway, H2, Raw, Reply, Site, Step, Upstream, get, request};

/// A site with one upstream of these servers in turn, and one worker.
fn site(servers: &[SocketAddr]) -> Site {
    let urls: Vec<String> = servers
        .iter()
        .map(|address| format!("\"http://{address}\""))
        .collect();
    Site::bare()
        .set("server", "workers", "1")
        .upstream("legacy", "http://replaced")
        .on_upstream("servers", &format!("[{}]", urls.join(", ")))
        .on_upstream("balance", "\"round_robin\"")
        .route("public", "/public", "public")
}

/// A server that does this with every request.
async fn always(steps: Vec<Step>) -> Upstream {
    Upstream::scripted(move |_| Reply(steps.clone())).await
}

/// A server that resets every connection as soon as it is there, and counts them.
struct Slammer {
    address: SocketAddr,
    count: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Slammer {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        let task = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                socket2::SockRef::from(&socket)
                    .set_linger(Some(Duration::ZERO))
                    .unwrap();
            }
        });
        Self {
            address,
            count,
            task,
        }
    }

    fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }
}

impl Drop for Slammer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn retries(gateway: &Gateway, result: &str) -> f64 {
    let series =
        format!("portcullis_upstream_retries_total{{upstream=\"legacy\",result=\"{result}\"}}");
    gateway.metric(&series).await.unwrap_or_default()
}

#[tokio::test]
async fn up_2_post_and_patch_are_never_sent_again() {
    for steps in [
        vec![Step::Early, Step::Reset],
        vec![Step::Early, Step::Close],
        vec![Step::Reset],
        vec![Step::Close],
    ] {
        let (one, other) = (always(steps.clone()).await, always(steps.clone()).await);
        let gateway = site(&[one.address, other.address])
            .on_upstream("retry", "{ attempts = 3 }")
            .start()
            .await;
        let mut sent = 0;
        for method in ["POST", "PATCH"] {
            for body in ["", "pay once"] {
                let mut raw = Raw::connect(&gateway).await;
                let answer = raw.exchange(request(method, "/public", &[], body)).await;
                answer.refused(502, "upstream_unreachable");
                sent += 1;
                let count = one.count() + other.count();
                assert_eq!(count, sent, "{method} {body:?} {steps:?}");
            }
        }
        let mut h2 = H2::connect(&gateway).await;
        h2.request("POST", "/public", &[])
            .await
            .refused(502, "upstream_unreachable");
        assert_eq!(one.count() + other.count(), sent + 1, "{steps:?}");
    }
}

#[tokio::test]
async fn up_2_a_post_that_is_reset_at_accept_is_not_tried_again() {
    let slammer = Slammer::start().await;
    let gateway = site(&[slammer.address]).start().await;
    for number in 1..=10 {
        let mut raw = Raw::connect(&gateway).await;
        let answer = raw.exchange(request("POST", "/public", &[], "once")).await;
        answer.refused(502, "upstream_unreachable");
        assert_eq!(slammer.count(), number);
    }
}

#[tokio::test]
async fn up_2_a_request_with_a_body_or_of_an_unknown_method_is_not_sent_again() {
    let upstream = always(vec![Step::Reset]).await;
    let gateway = site(&[upstream.address])
        .on_upstream("retry", "{ attempts = 3 }")
        .start()
        .await;
    let chunked = ("Transfer-Encoding", "chunked");
    let mut sent = 0;
    for bytes in [
        request("PUT", "/public", &[], "a body"),
        request("DELETE", "/public", &[], "a body"),
        request("GET", "/public", &[], "a body"),
        request("PUT", "/public", &[chunked], "0\r\n\r\n"),
        request("QUERY", "/public", &[], ""),
    ] {
        let mut raw = Raw::connect(&gateway).await;
        assert_eq!(raw.exchange(&bytes).await.status, 502, "{bytes}");
        sent += 1;
        assert_eq!(upstream.count(), sent, "{bytes}");
    }
}

#[tokio::test]
async fn up_2_nothing_is_sent_again_once_a_byte_of_an_answer_came() {
    for begun in [
        "H",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 103 Early Hints\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n",
    ] {
        for end in [Step::Close, Step::Reset] {
            let steps = vec![
                Step::Send(begun.as_bytes().to_vec()),
                // So that the bytes are read before the reset takes them away.
                Step::Pause(Duration::from_millis(100)),
                end,
            ];
            let shown = format!("{steps:?}");
            let upstream = always(steps).await;
            let gateway = site(&[upstream.address]).start().await;
            assert_eq!(get(&gateway, "/public", &[]).await.status, 502, "{shown}");
            assert_eq!(upstream.count(), 1, "{shown}");
        }
    }
}

#[tokio::test]
async fn up_2_what_took_too_long_is_not_sent_again() {
    let upstream = always(vec![Step::Hang]).await;
    let gateway = site(&[upstream.address])
        .on_upstream("response_timeout", "\"300ms\"")
        .start()
        .await;
    get(&gateway, "/public", &[])
        .await
        .refused(504, "upstream_timeout");
    assert_eq!(upstream.count(), 1);
}

#[tokio::test]
async fn up_2_an_answer_of_any_status_is_an_answer() {
    let upstream = Upstream::scripted(|_| Reply::with(503, &[], "busy")).await;
    let gateway = site(&[upstream.address]).start().await;
    get(&gateway, "/public", &[]).await.is(503);
    assert_eq!(upstream.count(), 1);
}

#[tokio::test]
async fn up_2_switched_off_nothing_is_sent_again() {
    let upstream = always(vec![Step::Reset]).await;
    let gateway = site(&[upstream.address])
        .on_upstream("retry", "{ attempts = 0 }")
        .start()
        .await;
    get(&gateway, "/public", &[])
        .await
        .refused(502, "upstream_unreachable");
    assert_eq!(upstream.count(), 1);
}

#[tokio::test]
async fn up_2_idempotent_requests_go_to_another_server() {
    let bad = always(vec![Step::Reset]).await;
    let good = Upstream::start().await;
    let gateway = site(&[bad.address, good.address])
        .on_upstream("host", "\"upstream\"")
        .start()
        .await;
    for method in ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"] {
        for target in ["/public/a?b=c", "/public/d"] {
            let mut raw = Raw::connect(&gateway).await;
            let fields = [("X-One", "1"), ("X-Two", "2"), ("X-One", "3")];
            raw.send(request(method, target, &fields, "")).await;
            let answer = if method == "HEAD" {
                raw.answer_to_head().await
            } else {
                raw.answer().await
            };
            assert_eq!(answer.status, 200, "{method}");
            let seen = good.last();
            assert_eq!((&*seen.method, &*seen.target), (method, target));
            assert_eq!(seen.head.values("x-one"), ["1", "3"]);
            assert_eq!(seen.header("host"), Some(&*good.address.to_string()));
        }
    }
    // Every second one began at the bad server, and came to the good one once.
    assert_eq!((bad.count(), good.count()), (5, 10));
    assert_eq!(retries(&gateway, "answered").await, 5.0);
    let (failed, first) = (bad.seen(), good.seen());
    let id = |seen: &crate::harness::Seen| seen.header("x-request-id").map(ToOwned::to_owned);
    assert!(
        failed
            .iter()
            .all(|one| first.iter().any(|other| id(one) == id(other)))
    );
}

#[tokio::test]
async fn up_2_an_only_server_is_tried_once_more() {
    let count = AtomicUsize::new(0);
    let upstream = Upstream::scripted(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::ok("first"),
        // On the kept connection: the server closed it just when the request came.
        1 => Reply(vec![Step::Close]),
        _ => Reply::ok("again"),
    })
    .await;
    let gateway = site(&[upstream.address]).start().await;
    assert_eq!(get(&gateway, "/public", &[]).await.text(), "first");
    assert_eq!(get(&gateway, "/public", &[]).await.text(), "again");
    let connections: Vec<usize> = upstream.seen().iter().map(|seen| seen.connection).collect();
    assert_eq!(connections, [1, 1, 2]);
}

#[tokio::test]
async fn up_2_attempts_are_counted() {
    for (retry, sent) in [("{ attempts = 1 }", 2), ("{ attempts = 3 }", 4)] {
        let upstream = always(vec![Step::Reset]).await;
        let gateway = site(&[upstream.address])
            .on_upstream("retry", retry)
            .start()
            .await;
        get(&gateway, "/public", &[])
            .await
            .refused(502, "upstream_unreachable");
        assert_eq!(upstream.count(), sent, "{retry}");
        assert_eq!(retries(&gateway, "failed").await, 1.0);
        let slammer = Slammer::start().await;
        let gateway = site(&[slammer.address])
            .on_upstream("retry", retry)
            .start()
            .await;
        get(&gateway, "/public", &[])
            .await
            .refused(502, "upstream_unreachable");
        // The reset may come so early that the connection does not count as opened; then there is nowhere else to go.
        assert!((1..=sent).contains(&slammer.count()), "{retry} at accept");
    }
}

#[tokio::test]
async fn up_2_a_retry_ends_with_the_request_s_deadline() {
    let slow = always(vec![Step::Pause(Duration::from_millis(300)), Step::Reset]).await;
    let silent = always(vec![Step::Hang]).await;
    let gateway = site(&[slow.address, silent.address])
        .on_upstream("response_timeout", "\"1h\"")
        .on_route("timeout", "\"600ms\"")
        .start()
        .await;
    get(&gateway, "/public", &[])
        .await
        .refused(504, "upstream_timeout");
    assert_eq!((slow.count(), silent.count()), (1, 1));
    // Over before the first attempt failed: no second one begins.
    let late = always(vec![Step::Pause(Duration::from_millis(900)), Step::Reset]).await;
    let gateway = site(&[late.address])
        .on_route("timeout", "\"300ms\"")
        .start()
        .await;
    get(&gateway, "/public", &[])
        .await
        .refused(504, "upstream_timeout");
    assert_eq!(late.count(), 1);
}

#[tokio::test]
async fn up_2_an_upstream_that_always_fails_gets_a_fifth_more_and_no_more() {
    const CLIENTS: usize = 8;
    const EACH: usize = 60;
    let upstream = always(vec![Step::Reset]).await;
    let gateway = site(&[upstream.address])
        .set("server", "workers", "2")
        .on_upstream("retry", "{ attempts = 3 }")
        .start()
        .await;
    let begun = Instant::now();
    let clients = (0..CLIENTS).map(|_| {
        let gateway = &gateway;
        async move {
            let mut raw = Raw::connect(gateway).await;
            for _ in 0..EACH {
                let answer = raw.exchange(request("GET", "/public", &[], "")).await;
                answer.refused(502, "upstream_unreachable");
            }
        }
    });
    futures_util::future::join_all(clients).await;
    let seconds = usize::try_from(begun.elapsed().as_secs()).unwrap() + 2;
    let (asked, seen) = (CLIENTS * EACH, upstream.count());
    let most = asked + asked / 5 + 10 * seconds;
    assert!(
        seen > asked && seen <= most,
        "{seen} of {asked} in {seconds} s"
    );
    assert!(retries(&gateway, "over_budget").await > 0.0);
    assert!(retries(&gateway, "failed").await > 0.0);
}
