//! One gateway takes the place of another that runs, by the sockets that it is handed; and a second one that was not asked to does
//! not start.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering},
    },
};

use serde_json::Value;
use tokio::{net::TcpStream, task::JoinHandle};

use crate::{
    harness::{
        Gateway, H2, Raw, Site, Upstream,
        client::{over, tls},
        eventually, get, request,
    },
    lifecycle::waiting,
    service::clients,
};

const PASSWORD: &str = "a long enough password";

/// Addresses that stay the same over a restart, and that nobody else on this machine uses: a loopback address of this test's own.
fn addresses<const COUNT: usize>() -> [SocketAddr; COUNT] {
    static TESTS: AtomicU8 = AtomicU8::new(1);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let ours = Ipv4Addr::new(127, 100 + TESTS.fetch_add(1, Ordering::Relaxed), high, low);
    let free = [(); COUNT].map(|()| TcpListener::bind((IpAddr::from(ours), 0)).unwrap());
    free.map(|socket| socket.local_addr().unwrap())
}

fn list(addresses: &[SocketAddr]) -> String {
    let quoted: Vec<_> = addresses.iter().map(|one| format!("\"{one}\"")).collect();
    format!("[{}]", quoted.join(", "))
}

/// A site whose gateway another one may take the place of.
fn site(upstream: &Upstream, listen: &[SocketAddr], admin: SocketAddr) -> Site {
    Site::new(upstream.address)
        .set("server", "listen", &list(listen))
        .set("server", "admin_listen", &format!("\"{admin}\""))
        .set("server", "takeover_socket", r#""data/takeover.sock""#)
        .set("server", "drain_timeout", r#""60s""#)
}

async fn refused(site: &Site, arguments: &[&str], words: &[&str]) {
    let exit = site.run(arguments, "").await;
    assert_eq!(exit.code, Some(1), "{exit:?}");
    for word in words {
        assert!(exit.stderr.contains(word), "{word}: {}", exit.stderr);
    }
}

#[tokio::test]
async fn cfg_3_a_second_gateway_that_nobody_asked_to_take_over_is_told_what_to_do() {
    let upstream = Upstream::start().await;
    let [listen, admin] = addresses();
    let gateway = site(&upstream, &[listen], admin).start().await;
    let told = ["server.admin_listen", "stop it first", "--takeover"];
    refused(&gateway.site, &["run"], &told).await;
    // With an admin listener of its own, it would get a part of the connections.
    let [other] = addresses();
    let second = site(&upstream, &[listen], other);
    second.write();
    let told = ["server.listen", "stop it first", "--takeover"];
    refused(&second, &["run"], &told).await;
    // With listeners of its own, it would take the other's place at the socket.
    let [listen, admin] = addresses();
    let path = gateway.path().join("data/takeover.sock");
    let third =
        site(&upstream, &[listen], admin).set("server", "takeover_socket", &format!("{path:?}"));
    third.write();
    refused(
        &third,
        &["run"],
        &["server.takeover_socket", "another gateway"],
    )
    .await;
    get(&gateway, "/public", &[]).await.is(200);
}

#[tokio::test]
async fn cfg_3_takeover_needs_the_socket_in_the_configuration() {
    let upstream = Upstream::start().await;
    let site = Site::new(upstream.address);
    site.write();
    refused(&site, &["run", "--takeover"], &["takeover_socket = "]).await;
}

#[tokio::test]
async fn cfg_3_takeover_excludes_sockets_of_a_service_manager() {
    let upstream = Upstream::start().await;
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let [admin] = addresses();
    let site = site(&upstream, &[socket.local_addr().unwrap()], admin).hand(socket);
    site.write();
    refused(&site, &["run", "--takeover"], &["LISTEN_FDS"]).await;
}

#[tokio::test]
async fn cfg_3_one_that_cannot_start_takes_nothing_over() {
    let upstream = Upstream::start().await;
    let [listen, admin] = addresses();
    let mut gateway = site(&upstream, &[listen], admin).start().await;
    let good = gateway.site.toml();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().map(|address| (taken, address)).unwrap();
    for (text, word) in [
        ("nonsense".to_owned(), "nonsense"),
        // Found out when it has the sockets already.
        (
            good.replace(&list(&[listen]), &list(&[listen, taken.1])),
            "server.listen",
        ),
    ] {
        std::fs::write(gateway.site.config(), text).unwrap();
        refused(&gateway.site, &["run", "--takeover"], &[word]).await;
        get(&gateway, "/public", &[]).await.is(200);
        assert_eq!(gateway.admin("/readyz").await.status, 200);
    }
    gateway.site.write();
    let next = gateway.successor().await;
    assert_eq!(gateway.exit().await.code(), Some(0));
    get(&next, "/public", &[]).await.is(200);
}

#[tokio::test]
async fn cfg_3_with_nobody_to_take_over_from_it_starts() {
    let upstream = Upstream::start().await;
    let [listen, admin] = addresses();
    let site = site(&upstream, &[listen], admin);
    site.write();
    let mut gateway = Gateway::launch(site, &["run", "--takeover"]).await;
    get(&gateway, "/public", &[]).await.is(200);
    // Killed, it leaves its socket behind.
    gateway.signal("KILL");
    gateway.exit().await;
    let gateway = gateway.again().await;
    get(&gateway, "/public", &[]).await.is(200);
}

/// Clients that keep their connection, and send what may not be sent twice; until they are told to stop.
fn kept(
    address: SocketAddr,
    stop: &Arc<AtomicBool>,
    answered: &Arc<AtomicUsize>,
) -> [JoinHandle<()>; 2] {
    [(); 2].map(|()| {
        let (stop, answered) = (Arc::clone(stop), Arc::clone(answered));
        tokio::spawn(async move {
            let connect = async || {
                over(
                    tls(address, "localhost", &[b"http/1.1"])
                        .await
                        .expect("a connection"),
                )
            };
            let mut connection = connect().await;
            while !stop.load(Ordering::Relaxed) {
                let answer = connection
                    .exchange(request("POST", "/public", &[], "once"))
                    .await;
                answered.fetch_add(1, Ordering::Relaxed);
                if answer.is(200).header("connection") == Some("close") {
                    connection = connect().await;
                }
            }
        })
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cfg_3_gateways_that_take_over_refuse_and_lose_nobody() {
    let upstream = Upstream::start().await;
    let [listen, admin] = addresses();
    let mut gateway = site(&upstream, &[listen], admin).start().await;
    let (stop, answered) = (Arc::default(), Arc::<AtomicUsize>::default());
    let fresh = clients(listen, &stop, &answered);
    let kept = kept(listen, &stop, &answered);
    for _ in 0..3 {
        let before = answered.load(Ordering::Relaxed);
        eventually("answers", async || {
            (answered.load(Ordering::Relaxed) > before + 20).then_some(())
        })
        .await;
        let next = gateway.successor().await;
        assert_eq!(gateway.exit().await.code(), Some(0));
        gateway = next;
    }
    stop.store(true, Ordering::Relaxed);
    for client in fresh.into_iter().chain(kept) {
        client.await.expect("every request of it answered");
    }
    // What the upstream saw is what was answered: nothing was sent twice either.
    let answered = answered.load(Ordering::Relaxed);
    assert_eq!(upstream.seen().len(), answered);
}

#[tokio::test]
async fn cfg_3_kept_connections_are_left_their_time_and_asked_to_go() {
    let (upstream, waits) = waiting().await;
    let [listen, admin] = addresses();
    let mut old = site(&upstream, &[listen], admin).start().await;
    let mut silent = Raw::connect(&old).await;
    let new = Raw::connect(&old).await;
    let mut busy = Raw::connect(&old).await;
    let mut h2 = H2::connect(&old).await;
    let again = request("POST", "/public", &[], "body");
    silent.exchange(&again).await.is(200);
    h2.get("/public", &[]).await.is(200);
    busy.send(request("POST", "/public/slow", &[], "")).await;
    upstream.request(3).await;

    let next = old.successor().await;
    // The one before is told by name, and drains: HTTP/2 is asked to go at once.
    let named = old
        .err
        .find("the successor", |line| {
            let event: Value = serde_json::from_str(line).ok()?;
            event["fields"]["process"].as_u64()
        })
        .await;
    assert_eq!(named, u64::from(next.pid()));
    h2.ended().await;
    get(&next, "/public", &[]).await.is(200);
    for mut connection in [silent, new] {
        let last = connection.exchange(&again).await;
        assert_eq!(last.is(200).header("connection"), Some("close"));
        assert!(connection.rest().await.is_empty());
    }
    waits.notify_one();
    assert_eq!(busy.answer().await.is(200).text(), "slow");
    assert_eq!(old.exit().await.code(), Some(0));
    drop(old);
    get(&next, "/public", &[]).await.is(200);
}

#[tokio::test]
async fn cfg_3_connections_that_stay_silent_do_not_keep_the_one_before() {
    let upstream = Upstream::start().await;
    let [listen, admin] = addresses();
    let mut old = site(&upstream, &[listen], admin)
        .set("server", "drain_timeout", r#""3s""#)
        .start()
        .await;
    let mut silent = Raw::connect(&old).await;
    silent
        .exchange(request("GET", "/public", &[], ""))
        .await
        .is(200);
    let next = old.successor().await;
    assert!(silent.rest().await.is_empty());
    assert_eq!(old.exit().await.code(), Some(0));
    get(&next, "/public", &[]).await.is(200);
}

#[tokio::test]
async fn cfg_3_an_address_that_the_new_one_does_not_serve_is_closed() {
    let upstream = Upstream::start().await;
    let [listen, other, admin] = addresses();
    let mut old = site(&upstream, &[listen, other], admin).start().await;
    drop(TcpStream::connect(other).await.unwrap());
    let text = old.site.toml();
    let text = text.replace(&list(&[listen, other]), &list(&[listen]));
    std::fs::write(old.site.config(), text).unwrap();
    // Its files are not written anew: it is another configuration.
    let next = old.successor().await;
    assert_eq!(old.exit().await.code(), Some(0));
    TcpStream::connect(other).await.unwrap_err();
    get(&next, "/public", &[]).await.is(200);
}

#[tokio::test]
async fn cfg_3_what_is_offered_does_not_stay_open_when_the_gateway_leaves() {
    let upstream = Upstream::start().await;
    let [listen, admin] = addresses();
    let gateway = site(&upstream, &[listen], admin).start().await;
    // Holds the process, not its listeners.
    let _open = TcpStream::connect(listen).await.unwrap();
    gateway.signal("TERM");
    eventually("new connections to be refused", async || {
        TcpStream::connect(listen).await.is_err().then_some(())
    })
    .await;
}

#[tokio::test]
async fn cfg_3_sessions_go_on_over_a_takeover() {
    let upstream = Upstream::start().await;
    let [listen, admin] = addresses();
    let site = site(&upstream, &[listen], admin).accounts();
    site.write();
    site.user("alice", PASSWORD, &[]).await;
    let mut old = site.start().await;
    let login = format!(r#"{{"username":"alice","password":"{PASSWORD}","delivery":"body"}}"#);
    let json = [("content-type", "application/json")];
    let post = async |gateway: &Gateway, target: &str, body: &str| {
        let mut raw = Raw::connect(gateway).await;
        let answer = raw.exchange(request("POST", target, &json, body)).await;
        serde_json::from_str::<Value>(&answer.is(200).text()).unwrap()
    };
    let tokens = post(&old, "/auth/login", &login).await;
    let next = old.successor().await;
    let bearer = format!("Bearer {}", tokens["access_token"].as_str().unwrap());
    get(&next, "/private", &[("authorization", &bearer)])
        .await
        .is(200);
    let refresh = serde_json::json!({ "refresh_token": tokens["refresh_token"] });
    let tokens = post(&next, "/auth/refresh", &refresh.to_string()).await;
    assert!(tokens["access_token"].is_string(), "{tokens}");
    assert_eq!(old.exit().await.code(), Some(0));
}
