//! Memory that comes to its end: what is given up, in which order, and that all comes back (FAULT-1).

use std::time::Duration;

use tokio::time::sleep;

use crate::harness::{Gateway, H2, Raw, Site, Upstream, client::full, eventually, request};

const STAGE: &str = "portcullis_memory_stage";
const USED: &str = "portcullis_memory_bytes";

/// Lets a gateway grow to what it needs in any case, and has it configured anew once.
async fn warm_up(gateway: &Gateway) {
    leave(gateway, 1_000_000).await;
    let mut held = Vec::new();
    for _ in 0..60 {
        ask(gateway).await.unwrap();
        held.extend(slow(gateway).await);
    }
    drop(held);
    eventually("all are gone", async || is_alone(gateway).await).await;
}

/// `Some` where nobody has a connection.
async fn is_alone(gateway: &Gateway) -> Option<()> {
    let series = "portcullis_connections{listener=\"tls\"}";
    (gateway.metric(series).await == Some(0.0)).then_some(())
}

/// Limits the memory to what is used and this many thousandths of it.
async fn leave(gateway: &Gateway, thousandths: u32) {
    let used = eventually("a look at the memory", async || {
        gateway.metric(USED).await.filter(|used| *used > 0.0)
    })
    .await;
    let kib = (used * f64::from(1000 + thousandths) / 1000.0 / 1024.0).max(16_384.0);
    let toml = gateway.site.toml();
    let line = format!("[server]\nmemory_limit = \"{kib:.0}KiB\"");
    gateway
        .site
        .put("config/gateway.toml", &toml.replacen("[server]", &line, 1));
    let mut raw = Raw::plain(gateway.admin).await;
    let post = request("POST", "/reload", &[("connection", "close")], "");
    raw.exchange(post).await.is(200);
}

/// [`leave`]s so much of what is used when there is work. What the allocator has given back comes again then, two MiB for the first byte
/// of each piece, so a limit by what was used just before may be reached at once.
async fn leave_at_work(gateway: &Gateway, thousandths: u32) {
    eventually("a use of memory that stays", async || {
        leave(gateway, thousandths).await;
        // The gateway looks four times a second.
        for _ in 0..6 {
            ask(gateway).await;
            sleep(Duration::from_millis(100)).await;
        }
        (stage(gateway).await == 0).then_some(())
    })
    .await;
}

async fn stage(gateway: &Gateway) -> u32 {
    let stage = gateway.metric(STAGE).await.unwrap();
    (0..=4).find(|n| f64::from(*n) == stage).unwrap()
}

/// What a client with a connection of its own gets: status and `Connection`; `None` where the connection is refused.
async fn ask(gateway: &Gateway) -> Option<(u16, Option<String>)> {
    let mut raw = Raw::after(b"", gateway).await.ok()?;
    raw.send(request("GET", "/public", &[], "")).await;
    let answer = raw.try_answer().await.ok()?;
    if answer.status == 503 {
        answer.refused(503, "overloaded");
        assert!(answer.header("retry-after").is_some());
    }
    let ends = answer.header("connection").map(str::to_owned);
    Some((answer.status, ends))
}

/// Opens a connection whose request stops in the middle of its body; `None` where it is refused.
async fn slow(gateway: &Gateway) -> Option<Raw> {
    let mut raw = Raw::after(b"", gateway).await.ok()?;
    let head = format!(
        "POST /public HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n{}",
        "x".repeat(20_000)
    );
    raw.try_send(head).await.ok()?;
    Some(raw)
}

#[tokio::test]
async fn fault_1_slow_uploads_are_shed_by_stages_and_others_are_served_after() {
    let upstream = Upstream::start().await;
    // Of connections that are not read any more it is this that ends those whose clients have gone.
    let gateway = Site::new(upstream.address)
        .set("server", "workers", "1")
        .set("server.timeouts", "body_idle", "\"5s\"")
        .start()
        .await;
    warm_up(&gateway).await;
    leave_at_work(&gateway, 400).await;
    let mut seen = [false; 5];
    let mut held = Vec::new();
    for _ in 0..900 {
        let before = stage(&gateway).await;
        let got = ask(&gateway).await;
        // Health and metrics are never shed.
        gateway.admin("/healthz").await.is(200);
        if stage(&gateway).await == before {
            seen[usize::try_from(before).unwrap()] = true;
            let close = Some("close".to_owned());
            match before {
                0 => assert_eq!(got, Some((200, None))),
                1 => assert_eq!(got, Some((200, close))),
                2 => assert_eq!(got, Some((503, close))),
                _ => assert_eq!(got, None),
            }
        }
        // From then on nothing is taken that could make it scarcer.
        if seen[2] || seen[3] || seen[4] {
            break;
        }
        // Slowly where each one may be the last of a stage.
        for _ in 0..if before == 0 { 5 } else { 1 } {
            held.extend(slow(&gateway).await);
        }
    }
    assert!(seen[0], "{seen:?}");
    assert!(seen[2] || seen[3] || seen[4], "never so scarce: {seen:?}");
    let ready = gateway.admin("/readyz").await;
    ready.is(200);
    let degraded = ready.json()["degraded"].to_string();
    assert!(degraded.contains("MiB are in use"), "{degraded}");
    assert!(gateway.err.text().contains("memory is scarce"));
    drop(held);
    // Whoever comes next is served, whether or not the allocator has given back what the others had.
    eventually("a served request", async || {
        let answer = ask(&gateway).await?;
        (answer.0 == 200).then_some(())
    })
    .await;
    assert!(stage(&gateway).await <= 1);
    upstream.saw_no_fault();
}

#[tokio::test]
async fn fault_1_when_memory_is_scarce_kept_connections_end_gently() {
    let upstream = Upstream::start().await;
    let gateway = Site::new(upstream.address)
        .set("server", "workers", "1")
        .start()
        .await;
    warm_up(&gateway).await;
    let mut one = Raw::connect(&gateway).await;
    one.exchange(request("GET", "/public", &[], ""))
        .await
        .is(200);
    let mut two = H2::connect(&gateway).await;
    let ask_two = || {
        http::Request::get("https://localhost/public")
            .body(full(""))
            .unwrap()
    };
    two.send(ask_two()).await.unwrap().is(200);
    // 93 to 94 % are in use at once.
    leave(&gateway, 68).await;
    eventually("scarcity", async || {
        (stage(&gateway).await >= 1).then_some(())
    })
    .await;
    // Silent ones are ended without a word lost: in HTTP/2 by a GOAWAY.
    assert_eq!(one.end().await, Some(Vec::new()));
    two.ended().await;
    eventually("all are gone", async || is_alone(&gateway).await).await;
}
