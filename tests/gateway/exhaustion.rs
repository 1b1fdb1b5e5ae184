//! No descriptors left: the gateway waits for better times, and those whom it serves already do not notice.

use std::{
    fs,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tokio::net::TcpStream;

use crate::harness::{Gateway, Raw, Site, Upstream, eventually, get, request};

/// Time of a processor that a process has used.
fn processor_time(gateway: &Gateway) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{}/stat", gateway.pid())).unwrap();
    // After the name in brackets: user and system time are the 12th and 13th field, in hundredths of a second.
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

fn limit_descriptors(gateway: &Gateway, limit: u64) {
    let pid = Pid::from_raw(i32::try_from(gateway.pid()).unwrap()).unwrap();
    let limit = Rlimit {
        current: Some(limit),
        maximum: Some(4096),
    };
    prlimit(Some(pid), Resource::Nofile, limit).unwrap();
}

fn open_descriptors(gateway: &Gateway) -> u64 {
    let open = fs::read_dir(format!("/proc/{}/fd", gateway.pid())).unwrap();
    u64::try_from(open.count()).unwrap()
}

/// Opens connections that say nothing.
async fn hold(gateway: &Gateway, count: usize) -> Vec<TcpStream> {
    let mut held = Vec::new();
    for _ in 0..count {
        held.push(TcpStream::connect(gateway.tls).await.unwrap());
    }
    held
}

/// While others are held: little work, and answers on what is open.
async fn endures(gateway: &Gateway, open: &mut Raw) {
    let (before, begun) = (processor_time(gateway), Instant::now());
    while begun.elapsed() < Duration::from_secs(3) {
        open.exchange(request("GET", "/public", &[], ""))
            .await
            .is(200);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let (used, took) = (processor_time(gateway) - before, begun.elapsed());
    assert!(used < took / 5, "{used:?} of a processor in {took:?}");
}

/// After they have left: new ones are served soon.
async fn recovers(gateway: &Gateway) {
    let begun = Instant::now();
    eventually("a new connection", async || {
        let mut raw = Raw::after(b"", gateway).await.ok()?;
        raw.send(request("GET", "/public", &[], "")).await;
        (raw.try_answer().await.ok()?.status == 200).then_some(())
    })
    .await;
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(12), "accepted after {took:?}");
}

#[tokio::test]
async fn net_1_without_descriptors_the_listener_backs_off_and_resumes() {
    let upstream = Upstream::start().await;
    let gateway = Site::new(upstream.address)
        .set("server", "workers", "1")
        .start()
        .await;
    let mut open = Raw::connect(&gateway).await;
    open.exchange(request("GET", "/public", &[], ""))
        .await
        .is(200);
    // Two more may be accepted; for the others there is no descriptor.
    limit_descriptors(&gateway, open_descriptors(&gateway) + 2);
    let held = hold(&gateway, 200).await;
    gateway
        .err
        .find("the first failure", |line| {
            line.contains("cannot accept connections").then_some(())
        })
        .await;
    endures(&gateway, &mut open).await;
    let failures = gateway.err.text().matches("cannot accept").count();
    assert!(failures < 100, "{failures} failures in a few seconds");
    drop(held);
    limit_descriptors(&gateway, 1024);
    recovers(&gateway).await;
    open.exchange(request("GET", "/public", &[], ""))
        .await
        .is(200);
    let counted = gateway.metric("portcullis_accept_errors_total").await;
    assert!(counted.unwrap() >= 1.0, "{counted:?}");
    assert!(upstream.count() > 5);
}

#[tokio::test]
async fn net_1_and_net_2_a_low_limit_of_descriptors_lowers_the_caps() {
    let upstream = Upstream::start().await;
    let gateway = Site::new(upstream.address)
        .set("server", "workers", "1")
        .descriptors(128)
        .start()
        .await;
    let mut open = Raw::connect(&gateway).await;
    open.exchange(request("GET", "/public", &[], ""))
        .await
        .is(200);
    let held = hold(&gateway, 200).await;
    // What is left of 128 beside the reserve, by two: one for the client, one for its upstream.
    eventually("as many as may", async || {
        let open = "portcullis_connections{listener=\"tls\"}";
        (gateway.metric(open).await == Some(32.0)).then_some(())
    })
    .await;
    endures(&gateway, &mut open).await;
    assert_eq!(gateway.admin("/readyz").await.status, 200);
    drop(held);
    recovers(&gateway).await;
    let failed = gateway.metric("portcullis_accept_errors_total").await;
    assert_eq!(failed, Some(0.0), "the caps keep the reserve");
    get(&gateway, "/public", &[]).await.is(200);
}
