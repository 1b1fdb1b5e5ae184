//! An upstream that swallows requests, and clients that leave: the rest goes on, and nothing stays behind (UP-4, UP-9).

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use crate::harness::{
    Broken, Gateway, H2, Raw, Reply, Site, Step, Upstream, client::full, eventually, get, request,
};

/// A site whose route `/hole` leads to an upstream with four connections and four places to wait, and `/good` to another.
async fn gateway(hole: &Upstream, good: &Upstream) -> Gateway {
    Site::bare()
        .set("server", "workers", "1")
        .upstream("legacy", &format!("http://{}", good.address))
        .upstream("hole", &format!("http://{}", hole.address))
        .on_upstream("max_connections", "4")
        .on_upstream("max_pending", "4")
        .on_upstream("connect_timeout", "\"1s\"")
        .on_upstream("response_timeout", "\"2s\"")
        .route("good", "/good", "public")
        .route("hole", "/hole", "public")
        .on_route("upstream", "\"hole\"")
        .start()
        .await
}

/// Asks on and on until told to stop, and counts the answers by what they are.
#[derive(Default)]
struct Seen {
    overloaded: AtomicUsize,
    timed_out: AtomicUsize,
    good: AtomicUsize,
}

async fn ask(gateway: &Gateway, stop: &AtomicBool, seen: &Seen) {
    while !stop.load(Ordering::SeqCst) {
        let mut raw = Raw::connect(gateway).await;
        raw.send(request("GET", "/hole", &[], "")).await;
        let answer = raw.answer().await;
        match answer.status {
            200 => &seen.good,
            503 => {
                assert_eq!(answer.code(), "overloaded");
                assert!(answer.header("retry-after").is_some());
                &seen.overloaded
            }
            504 => &seen.timed_out,
            status => panic!("{status}: {}", answer.text()),
        }
        .fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn up_4_a_black_hole_sheds_its_load_and_recovers_and_others_do_not_notice() {
    let swallows = Arc::new(AtomicBool::new(true));
    let does = Arc::clone(&swallows);
    let hole = Upstream::scripted(move |_| match does.load(Ordering::SeqCst) {
        true => Reply(vec![Step::Hang]),
        false => Reply::ok("back"),
    })
    .await;
    let good = Upstream::start().await;
    let gateway = gateway(&hole, &good).await;
    get(&gateway, "/good", &[]).await.is(200);
    let before = gateway.memory();
    let (stop, seen) = (AtomicBool::new(false), Seen::default());
    let load = (0..24).map(|_| ask(&gateway, &stop, &seen));
    let watch = async {
        // Full: those beyond connections and queue are refused while the others still wait.
        eventually("refusals", async || {
            (seen.overloaded.load(Ordering::SeqCst) > 200).then_some(())
        })
        .await;
        eventually("timeouts", async || {
            (seen.timed_out.load(Ordering::SeqCst) >= 4).then_some(())
        })
        .await;
        let mut waits = Vec::new();
        for _ in 0..40 {
            let begun = Instant::now();
            get(&gateway, "/good", &[]).await.is(200);
            waits.push(begun.elapsed());
        }
        waits.sort_unstable();
        // Half of the time that the hole takes for one request; on a quiet machine it is a hundredth.
        assert!(waits[20] < Duration::from_secs(1), "{waits:?}");
        let grown = gateway.memory().saturating_sub(before);
        assert!(grown < 32 << 10, "{grown} KiB more");
        assert_eq!(seen.good.load(Ordering::SeqCst), 0);
        swallows.store(false, Ordering::SeqCst);
        let back = Instant::now();
        eventually("the upstream to be back", async || {
            (seen.good.load(Ordering::SeqCst) > 10).then_some(())
        })
        .await;
        // What hangs still takes its two seconds.
        assert!(
            back.elapsed() < Duration::from_secs(5 + 5),
            "{:?}",
            back.elapsed()
        );
        stop.store(true, Ordering::SeqCst);
    };
    tokio::join!(futures_util::future::join_all(load), watch);
    assert!(hole.open() <= 4, "{} connections", hole.open());
    let (overloaded, timed_out) = (&seen.overloaded, &seen.timed_out);
    // Few waited for long, most were sent away.
    assert!(overloaded.load(Ordering::SeqCst) > timed_out.load(Ordering::SeqCst));
}

#[tokio::test]
async fn up_4_a_refusal_for_want_of_room_is_quick() {
    let hole = Upstream::scripted(|_| Reply(vec![Step::Hang])).await;
    let good = Upstream::start().await;
    let gateway = Site::bare()
        .set("server", "workers", "1")
        .upstream("legacy", &format!("http://{}", hole.address))
        .on_upstream("max_connections", "1")
        .on_upstream("max_pending", "0")
        .on_upstream("response_timeout", "\"1h\"")
        .route("public", "/public", "public")
        .start()
        .await;
    let mut held = Raw::connect(&gateway).await;
    held.send(request("GET", "/public", &[], "")).await;
    hole.request(1).await;
    let mut raw = Raw::connect(&gateway).await;
    let mut waits = Vec::new();
    for _ in 0..50 {
        let begun = Instant::now();
        let answer = raw.exchange(request("GET", "/public", &[], "")).await;
        waits.push(begun.elapsed());
        answer.refused(503, "overloaded");
    }
    waits.sort_unstable();
    // Nobody waits for anything: on a quiet machine it is below a millisecond.
    assert!(waits[10] < Duration::from_millis(100), "{waits:?}");
    assert_eq!(hole.count(), 1);
    drop(good);
}

#[tokio::test]
async fn up_9_requests_that_are_cancelled_leave_nothing_behind() {
    const EACH: usize = 60;
    let hole = Upstream::scripted(|seen| match seen.target.starts_with("/public/hang") {
        true => Reply(vec![Step::Hang]),
        false => Reply::ok("served"),
    })
    .await;
    let gateway = Site::new(hole.address)
        .set("server", "workers", "1")
        .on_upstream("max_connections", "40")
        .on_upstream("max_pending", "1000")
        .on_upstream("connect_timeout", "\"1m\"")
        .on_upstream("response_timeout", "\"1h\"")
        .start()
        .await;
    let mut raws = Vec::new();
    for number in 0..EACH {
        let mut raw = Raw::connect(&gateway).await;
        let body = if number % 2 == 0 { "" } else { "a body" };
        raw.send(request("POST", "/public/hang", &[], body)).await;
        raws.push(raw);
    }
    let mut h2 = H2::connect(&gateway).await;
    let streams = (0..EACH).map(|_| {
        let url = "https://localhost/public/hang";
        h2.begin(http::Request::post(url).body(full("a body")).unwrap())
    });
    let streams: Vec<_> = streams.collect();
    // Some are at the upstream, the others wait for a connection.
    hole.until("all connections to be in use", |hole| hole.open() == 40)
        .await;
    drop(streams);
    drop(raws);
    hole.until("all requests to be cancelled", |hole| hole.open() == 0)
        .await;
    // Neither a connection nor a place in the queue is held: all forty can be had at once, and the same stream serves on.
    let served = (0..40).map(|number| {
        let gateway = &gateway;
        async move {
            let target = format!("/public/{number}");
            get(gateway, &target, &[]).await.is(200);
        }
    });
    futures_util::future::join_all(served).await;
    assert_eq!(h2.get("/public", &[]).await.text(), "served");
}

#[tokio::test]
async fn up_9_a_client_that_leaves_amid_its_upload_cancels_it() {
    let upstream = Upstream::scripted(|_| Reply::ok("thanks")).await;
    let gateway = Site::new(upstream.address)
        .set("server", "workers", "1")
        .start()
        .await;
    for number in 1..=10 {
        let mut raw = Raw::connect(&gateway).await;
        raw.send("POST /public HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\nabc")
            .await;
        upstream.request(number).await;
        drop(raw);
        upstream
            .until("the upload to end", |upstream| upstream.open() == 0)
            .await;
    }
    assert!(upstream.seen().iter().all(|seen| !seen.complete));
    let mut raw = Raw::connect(&gateway).await;
    raw.exchange(request("POST", "/public", &[], "whole"))
        .await
        .is(200);
}

#[tokio::test]
async fn up_8_a_slow_reader_over_http2_holds_the_upstream_back() {
    const SIZE: usize = 200 << 20;
    let upstream = Upstream::scripted(|seen| match &*seen.target {
        "/public/big" => Reply(vec![
            Step::Send(format!("HTTP/1.1 200 OK\r\ncontent-length: {SIZE}\r\n\r\n").into_bytes()),
            Step::Repeat(vec![b'd'; 1 << 16], SIZE >> 16),
        ]),
        _ => Reply::ok("small"),
    })
    .await;
    let gateway = Site::new(upstream.address)
        .set("server", "workers", "1")
        .start()
        .await;
    get(&gateway, "/public", &[]).await;
    let before = gateway.memory();
    let mut h2 = H2::connect(&gateway).await;
    let mut slow = Vec::new();
    for _ in 0..8 {
        let url = "https://localhost/public/big";
        let answer = h2
            .begin(http::Request::get(url).body(full("")).unwrap())
            .await;
        slow.push(answer.unwrap());
    }
    for _ in 0..20 {
        get(&gateway, "/public", &[]).await.is(200);
    }
    let grown = gateway.memory().saturating_sub(before);
    assert!(
        grown < 24 << 10,
        "{grown} KiB more for {} streams",
        slow.len()
    );
    drop(slow);
    upstream
        .until("the upstream to be let go", |upstream| upstream.open() <= 1)
        .await;
}

/// What a client sees of a request that never had an answer.
#[tokio::test]
async fn up_4_a_hole_that_closes_at_last_is_502() {
    let upstream =
        Upstream::scripted(|_| Reply(vec![Step::Pause(Duration::from_millis(200)), Step::Close]))
            .await;
    let gateway = Site::new(upstream.address).start().await;
    let mut h2 = H2::connect(&gateway).await;
    let post = http::Request::post("https://localhost/public")
        .body(full("x"))
        .unwrap();
    match h2.send(post).await {
        Ok(answer) => answer.refused(502, "upstream_unreachable"),
        Err(broken @ (Broken::Cut(_) | Broken::Closed | Broken::Malformed(_))) => {
            panic!("{broken:?}")
        }
    }
}
