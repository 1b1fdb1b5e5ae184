//! Behind a load balancer for TCP: the PROXY header names the client, and nobody else may.

use std::time::{Duration, Instant};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    harness::{Gateway, H2, Raw, Site, Upstream, client::tls_after, get, request, within},
    headers::{FORGED, IDENTITY, RESERVED, nothing_forged},
};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A version 1 header for a client.
fn v1(client: &str) -> Vec<u8> {
    format!("PROXY TCP4 {client} 198.51.100.1 56324 443\r\n").into_bytes()
}

/// A version 2 header: command and family, addresses and TLVs.
fn v2(command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    [SIGNATURE, &[command, family], &length, payload].concat()
}

/// 203.0.113.7 to 198.51.100.1, and a TLV.
const IPV4: [u8; 16] = [203, 0, 113, 7, 198, 51, 100, 1, 220, 4, 1, 187, 4, 0, 1, 0];

fn site(upstream: &Upstream) -> Site {
    Site::new(upstream.address)
        .set("server", "proxy_protocol", "true")
        .set("server", "trusted_proxies", r#"["127.0.0.0/8"]"#)
}

/// Opens a connection with this header, and asks for a public path with a forged field besides.
async fn ask(gateway: &Gateway, header: &[u8]) -> Raw {
    let mut raw = Raw::after(header, gateway).await.unwrap();
    let forged = [("X-Forwarded-For", "192.0.2.66")];
    raw.exchange(request("GET", "/public", &forged, ""))
        .await
        .is(200);
    raw
}

#[tokio::test]
async fn net_10_a_stranger_s_header_is_not_read() {
    let upstream = Upstream::start().await;
    let gateway = site(&upstream)
        .set("server", "trusted_proxies", r#"["192.0.2.0/24"]"#)
        .start()
        .await;
    for header in [v1("203.0.113.7"), v2(0x21, 0x11, &IPV4), Vec::new()] {
        let closed = Raw::after(&header, &gateway).await;
        assert!(closed.is_err(), "{}", header.escape_ascii());
    }
    // One who says nothing is closed all the same, long before any deadline.
    let mut socket = TcpStream::connect(gateway.tls).await.unwrap();
    let begun = Instant::now();
    let mut said = Vec::new();
    let _ = within("the end", socket.read_to_end(&mut said)).await;
    assert!(said.is_empty() && begun.elapsed() < Duration::from_secs(9));
    upstream.saw_nothing();
    let series = "portcullis_tls_handshakes_total{result=\"not_relayed\"}";
    assert_eq!(gateway.metric(series).await, Some(4.0));
}

#[tokio::test]
async fn hdr_7_a_proxy_header_vouches_for_no_other() {
    let upstream = Upstream::start().await;
    let gateway = site(&upstream).start().await;
    let client = v1("203.0.113.7");
    let mut raw = Raw::after(&client, &gateway).await.unwrap();
    let stream = tls_after(&client, gateway.tls, "localhost", &[b"h2"]).await;
    let mut h2 = H2::over(stream.unwrap()).await;
    for name in IDENTITY.into_iter().chain(RESERVED) {
        let fields = [(name, FORGED), (name, "forged again")];
        raw.exchange(request("GET", "/public", &fields, ""))
            .await
            .is(200);
        nothing_forged(&upstream.last(), name);
        h2.get("/public", &fields).await.is(200);
        let seen = upstream.last();
        nothing_forged(&seen, &format!("{name} over HTTP/2"));
        assert_eq!(seen.header("x-forwarded-for"), Some("203.0.113.7"));
        assert_eq!(seen.header("x-real-ip"), Some("203.0.113.7"));
    }
}

#[tokio::test]
async fn net_10_without_a_good_header_the_connection_is_closed() {
    let upstream = Upstream::start().await;
    let gateway = site(&upstream).start().await;
    let overrun = [&IPV4[..], &[4, 0, 9]].concat();
    for header in [
        Vec::new(),
        b"PROXY \r\n".to_vec(),
        b"PROXY TCP4 203.0.113.7\r\n".to_vec(),
        b"PROXY TCP4 203.0.113.700 198.51.100.1 56324 443\r\n".to_vec(),
        b"PROXY TCP4 203.0.113.7 198.51.100.1 56324 443\n".to_vec(),
        [v1("203.0.113.7"), v1("203.0.113.8")].concat(),
        [v2(0x21, 0x11, &IPV4), v2(0x21, 0x11, &IPV4)].concat(),
        v2(0x11, 0x11, &IPV4),
        v2(0x21, 0x12, &IPV4),
        v2(0x21, 0x21, &IPV4),
        v2(0x21, 0x11, &IPV4[..11]),
        v2(0x21, 0x11, &overrun),
        v2(0x21, 0x11, &[0; 5000]),
        v2(0x20, 0x00, &[0; 65_535]),
        request("GET", "/public", &[], "").into_bytes(),
    ] {
        let closed = Raw::after(&header, &gateway).await;
        assert!(closed.is_err(), "{}", header.escape_ascii());
    }
    upstream.saw_nothing();
    // Nothing of it is left behind for others.
    ask(&gateway, &v1("203.0.113.7")).await;
}

#[tokio::test]
async fn net_10_where_it_is_off_its_bytes_are_no_tls() {
    let upstream = Upstream::start().await;
    let gateway = Site::new(upstream.address)
        .set("server", "trusted_proxies", r#"["127.0.0.0/8"]"#)
        .start()
        .await;
    for header in [v1("203.0.113.7"), v2(0x21, 0x11, &IPV4)] {
        assert!(Raw::after(&header, &gateway).await.is_err());
    }
    upstream.saw_nothing();
    get(&gateway, "/public", &[]).await.is(200);
}

#[tokio::test]
async fn net_10_and_hdr_4_the_client_that_is_named_is_the_peer() {
    let upstream = Upstream::start().await;
    let gateway = site(&upstream).start().await;
    let mut ipv6 = [0; 36];
    ipv6[..4].copy_from_slice(&[0x20, 1, 0x0d, 0xb8]);
    ipv6[15] = 7;
    for (header, client) in [
        (v1("203.0.113.7"), "203.0.113.7"),
        (v2(0x21, 0x11, &IPV4), "203.0.113.7"),
        (v2(0x21, 0x21, &ipv6), "2001:db8::7"),
        (
            b"PROXY TCP6 ::ffff:203.0.113.9 ::1 1 2\r\n".to_vec(),
            "203.0.113.9",
        ),
    ] {
        ask(&gateway, &header).await;
        // The client itself is no proxy, so what it forwards is not believed.
        let seen = upstream.last();
        assert_eq!(seen.head.value("x-forwarded-for"), Some(client));
        assert_eq!(seen.head.value("x-real-ip"), Some(client));
        gateway
            .access_line(|line| line["client"] == client && line["peer"] == client)
            .await;
    }
}

#[tokio::test]
async fn net_10_local_and_unspecified_keep_the_socket_s_peer() {
    let upstream = Upstream::start().await;
    let gateway = site(&upstream).start().await;
    for header in [
        v2(0x20, 0x00, &[]),
        v2(0x20, 0x11, &IPV4),
        v2(0x21, 0x00, &[]),
        b"PROXY UNKNOWN\r\n".to_vec(),
    ] {
        let mut raw = Raw::after(&header, &gateway).await.unwrap();
        raw.exchange(request("GET", "/public", &[], ""))
            .await
            .is(200);
        let seen = upstream.last();
        assert_eq!(seen.head.value("x-forwarded-for"), Some("127.0.0.1"));
    }
}

#[tokio::test]
async fn net_10_and_rate_1_each_client_behind_the_balancer_has_its_budget() {
    let upstream = Upstream::start().await;
    let gateway = site(&upstream)
        .set("rate_limit", "per_ip", r#"{ rate = "1/1h", burst = 2 }"#)
        .start()
        .await;
    for client in ["203.0.113.1", "203.0.113.2"] {
        ask(&gateway, &v1(client)).await;
        let mut raw = ask(&gateway, &v1(client)).await;
        raw.exchange(request("GET", "/public", &[], ""))
            .await
            .refused(429, "rate_limited");
    }
}

#[tokio::test]
async fn net_10_and_net_2_the_cap_of_an_address_is_the_named_client_s() {
    let upstream = Upstream::start().await;
    let gateway = site(&upstream)
        .set("server", "max_connections_per_ip", "2")
        .start()
        .await;
    let held = [
        ask(&gateway, &v1("203.0.113.1")).await,
        ask(&gateway, &v1("203.0.113.1")).await,
    ];
    assert!(Raw::after(&v1("203.0.113.1"), &gateway).await.is_err());
    ask(&gateway, &v1("203.0.113.2")).await;
    drop(held);
    crate::harness::eventually("a free place", async || {
        Raw::after(&v1("203.0.113.1"), &gateway).await.ok()
    })
    .await;
}

#[tokio::test]
async fn net_3_and_net_10_one_deadline_covers_header_and_handshake() {
    let upstream = Upstream::start().await;
    let gateway = site(&upstream)
        .set("server.timeouts", "handshake", "\"1500ms\"")
        .start()
        .await;
    // A header byte by byte: as a whole it would take longer than the deadline.
    for header in [v1("203.0.113.7"), v2(0x21, 0x11, &IPV4)] {
        let mut socket = TcpStream::connect(gateway.tls).await.unwrap();
        let begun = Instant::now();
        let (mut reading, mut writing) = socket.split();
        let drip = async {
            for byte in header {
                if writing.write_all(&[byte]).await.is_err() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(80)).await;
            }
            std::future::pending::<()>().await;
        };
        let mut said = Vec::new();
        within("the end of the connection", async {
            tokio::select! {
                _ = reading.read_to_end(&mut said) => {}
                () = drip => {}
            }
        })
        .await;
        let took = begun.elapsed();
        assert!(took >= Duration::from_millis(1500), "closed after {took:?}");
        assert!(took < Duration::from_secs(10), "closed after {took:?}");
    }
    // The header late and then silence: the time that it took is not given again.
    let mut socket = TcpStream::connect(gateway.tls).await.unwrap();
    let begun = Instant::now();
    tokio::time::sleep(Duration::from_millis(900)).await;
    socket.write_all(&v1("203.0.113.7")).await.unwrap();
    let mut said = Vec::new();
    let _ = within("the end", socket.read_to_end(&mut said)).await;
    assert!(begun.elapsed() >= Duration::from_millis(1500));
    crate::harness::eventually("nobody is left", async || {
        let open = "portcullis_connections{listener=\"tls\"}";
        (gateway.metric(open).await == Some(0.0)).then_some(())
    })
    .await;
    upstream.saw_nothing();
}

#[tokio::test]
async fn net_10_http_2_is_relayed_too() {
    let upstream = Upstream::start().await;
    let gateway = site(&upstream).start().await;
    let stream = within(
        "a TLS connection",
        tls_after(&v1("203.0.113.7"), gateway.tls, "localhost", &[b"h2"]),
    )
    .await
    .unwrap();
    let mut h2 = crate::harness::H2::over(stream).await;
    h2.get("/public", &[]).await.is(200);
    let seen = upstream.last();
    assert_eq!(seen.head.value("x-forwarded-for"), Some("203.0.113.7"));
}
