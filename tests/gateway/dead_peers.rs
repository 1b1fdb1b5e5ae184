//! Peers that are gone and never said so (FAULT-6): no deadline of what they do ends a WebSocket or a stream of events soon.

use std::time::Duration;

use crate::harness::{
    Gateway, H2, Reply, Site, Step, Upstream,
    client::full,
    frames::{Frames, Outcome},
};

const EVENTS: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n7\r\ndata:\n\n\r\n";

const GET: [(&[u8], &[u8]); 4] = [
    (b":method", b"GET"),
    (b":scheme", b"https"),
    (b":authority", b"localhost"),
    (b":path", b"/public"),
];

/// Events of which only the first comes.
async fn silent() -> Upstream {
    Upstream::scripted(|_| Reply(vec![Step::Send(EVENTS.into()), Step::Hang])).await
}

/// Asks clients soon whether they are there, and waits for the answer not much longer.
async fn asking(upstream: &Upstream) -> Gateway {
    Site::new(upstream.address)
        .set("server.timeouts", "header", "\"400ms\"")
        .set("server.timeouts", "keep_alive", "\"400ms\"")
        .start()
        .await
}

#[tokio::test]
async fn fault_6_a_client_that_answers_no_ping_is_let_go_in_the_middle_of_an_answer() {
    let upstream = silent().await;
    let gateway = asking(&upstream).await;
    let mut gone = Frames::connect(&gateway).await;
    gone.request(1, &GET, None).await;
    assert_eq!(gone.outcome(1).await, Outcome::Status(200));
    gone.farewell().await;
    upstream
        .until("the end at the upstream", |upstream| upstream.open() == 0)
        .await;
}

#[tokio::test]
async fn fault_6_a_client_that_answers_pings_keeps_its_silent_answer() {
    let upstream = silent().await;
    let gateway = asking(&upstream).await;
    let mut here = H2::connect(&gateway).await;
    let request = http::Request::get("https://localhost/public");
    let answer = here.begin(request.body(full("")).unwrap()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(upstream.open(), 1);
    drop(answer);
}

#[cfg(target_os = "linux")]
mod kernel {
    //! What the kernel says that it will do is in its list of sockets: nobody has to be dead for a minute here.

    use std::{fs, net::SocketAddr};

    use super::*;
    use crate::harness::{
        Raw,
        client::{over, tls},
        request,
    };

    /// The kernel's number for "asks a silent peer whether it is there" in the column `tr` of its list.
    const ASKS: &str = "02";

    /// The kernel counts its waits in hundredths of a second there.
    const SECOND: u64 = 100;

    /// What the kernel waits for on the only connection from one port, if it is known, to another, and how long yet.
    fn timer(ours: Option<u16>, theirs: u16) -> (String, u64) {
        let list = fs::read_to_string("/proc/net/tcp").unwrap();
        let ends_in = |address: Option<&str>, port: u16| {
            address.is_some_and(|address| address.ends_with(&format!(":{port:04X}")))
        };
        let line = list.lines().find(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let (local, remote) = (fields.next(), fields.next());
            ours.is_none_or(|port| ends_in(local, port)) && ends_in(remote, theirs)
        });
        let line = line.unwrap_or_else(|| panic!("{ours:?} to {theirs} is not in {list}"));
        let waits = line.split_whitespace().nth(5).unwrap();
        let (kind, wait) = waits.split_once(':').unwrap();
        (kind.to_owned(), u64::from_str_radix(wait, 16).unwrap())
    }

    #[track_caller]
    fn asks_soon(what: &str, (kind, wait): (String, u64)) {
        assert_eq!(kind, ASKS, "{what}");
        assert!(wait <= 21 * SECOND, "{what}: {wait}");
    }

    /// A connection without a word under way, of a client and of the gateway to its upstream.
    async fn begin(gateway: &Gateway, upstream: &Upstream) -> (Raw, SocketAddr) {
        let stream = tls(gateway.tls, "localhost", &[b"http/1.1"]).await.unwrap();
        let client = stream.get_ref().0.local_addr().unwrap();
        let mut raw = over(stream);
        raw.send(request("GET", "/public", &[], "")).await;
        assert!(raw.head().await.start.starts_with("HTTP/1.1 200"));
        upstream.request(1).await;
        (raw, client)
    }

    #[tokio::test]
    async fn fault_6_silent_clients_and_servers_are_asked_whether_they_are_there() {
        let upstream = silent().await;
        let gateway = Site::new(upstream.address).start().await;
        let (_open, client) = begin(&gateway, &upstream).await;
        // What was written last is acknowledged at once on the loopback interface; an acknowledgement that is put off takes 40 ms.
        tokio::time::sleep(Duration::from_millis(500)).await;
        asks_soon("the client", timer(Some(gateway.tls.port()), client.port()));
        asks_soon("the server", timer(None, upstream.address.port()));
    }
}
