//! Under a service manager: sockets that it hands over, and what it is told.

use std::{
    net::{SocketAddr, TcpListener},
    os::unix::net::UnixDatagram,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::task::JoinHandle;

use crate::harness::{
    Gateway, H2, Raw, Site, Upstream,
    client::{over, tls},
    eventually, get, request,
};

fn socket() -> (TcpListener, SocketAddr) {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// A site that is handed the socket of its listener.
fn handed(upstream: &Upstream) -> (Site, SocketAddr) {
    let (socket, address) = socket();
    let site = Site::new(upstream.address)
        .set("server", "listen", &format!("[\"{address}\"]"))
        .hand(socket);
    (site, address)
}

async fn refused(site: Site, words: &[&str]) {
    site.write();
    let exit = site.run(&["run"], "").await;
    assert_eq!(exit.code, Some(1), "{exit:?}");
    for word in words {
        assert!(exit.stderr.contains(word), "{word}: {}", exit.stderr);
    }
}

#[tokio::test]
async fn cfg_3_a_socket_that_no_listener_is_for_ends_the_start() {
    let upstream = Upstream::start().await;
    let (stray, address) = socket();
    let site = Site::new(upstream.address).hand(stray);
    refused(
        site,
        &[&address.to_string(), "server.listen", "handed over"],
    )
    .await;
}

#[tokio::test]
async fn cfg_3_a_descriptor_that_does_not_listen_ends_the_start() {
    let upstream = Upstream::start().await;
    let (listener, address) = socket();
    let stream = std::net::TcpStream::connect(address).unwrap();
    let here = stream.local_addr().unwrap();
    drop(listener);
    let connected = TcpListener::from(std::os::fd::OwnedFd::from(stream));
    let site = Site::new(upstream.address)
        .set("server", "listen", &format!("[\"{here}\"]"))
        .hand(connected);
    refused(site, &["does not listen", "Accept=no"]).await;
}

#[tokio::test]
async fn cfg_3_what_was_meant_for_another_process_is_left_alone() {
    let upstream = Upstream::start().await;
    let mut site = Site::new(upstream.address);
    // As inherited by a child of the process that it was meant for.
    site.variable("LISTEN_FDS", "1");
    site.variable("LISTEN_PID", "1");
    let gateway = site.start().await;
    get(&gateway, "/public", &[]).await.is(200);
}

/// Clients that open a connection for each request, until they are told to stop; how many were answered.
pub(crate) fn clients(
    address: SocketAddr,
    stop: &Arc<AtomicBool>,
    answered: &Arc<AtomicUsize>,
) -> [JoinHandle<()>; 4] {
    [false, false, true, true].map(|h2| {
        let (stop, answered) = (Arc::clone(stop), Arc::clone(answered));
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let protocols: &[&[u8]] = if h2 { &[b"h2"] } else { &[b"http/1.1"] };
                let stream = tls(address, "localhost", protocols)
                    .await
                    .expect("a connection");
                let answer = if h2 {
                    H2::over(stream).await.get("/public", &[]).await
                } else {
                    over(stream)
                        .exchange(request("GET", "/public", &[], ""))
                        .await
                };
                answer.is(200);
                answered.fetch_add(1, Ordering::Relaxed);
            }
        })
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cfg_3_restarts_with_a_handed_socket_refuse_and_lose_nobody() {
    let upstream = Upstream::start().await;
    let (site, address) = handed(&upstream);
    let mut gateway = site.start().await;
    let (stop, answered) = (Arc::default(), Arc::<AtomicUsize>::default());
    let clients = clients(address, &stop, &answered);
    for _ in 0..3 {
        let before = answered.load(Ordering::Relaxed);
        eventually("answers", async || {
            (answered.load(Ordering::Relaxed) > before + 20).then_some(())
        })
        .await;
        gateway.signal("TERM");
        assert_eq!(gateway.exit().await.code(), Some(0));
        gateway = gateway.again().await;
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.expect("every request of it answered");
    }
}

#[tokio::test]
async fn cfg_4_it_runs_without_privileges_and_writes_to_its_data_folder_alone() {
    let upstream = Upstream::start().await;
    let site = Site::new(upstream.address).accounts().unprivileged();
    site.user("alice", "a long enough password", &[]).await;
    let gateway = site.start().await;
    get(&gateway, "/public", &[]).await.is(200);
    let login = r#"{"username":"alice","password":"a long enough password"}"#;
    let json = [("content-type", "application/json")];
    let mut raw = Raw::connect(&gateway).await;
    let answer = raw
        .exchange(request("POST", "/auth/login", &json, login))
        .await;
    answer.is(200);
    let of_process = |name: &str| {
        let path = format!("/proc/{}/{name}", gateway.pid());
        std::fs::read_to_string(path).unwrap()
    };
    let status = of_process("status");
    if status.lines().any(|line| line.starts_with("Uid:\t0")) {
        panic!("it runs as root: {status}");
    }
    let capabilities = status.lines().find(|line| line.starts_with("CapEff:"));
    assert_eq!(capabilities, Some("CapEff:\t0000000000000000"));
    let limits = of_process("limits");
    let dump = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"));
    assert_eq!(dump.unwrap().split_whitespace().nth(4), Some("0"));
}

/// A service manager that listens.
struct ServiceManager(tokio::net::UnixDatagram);

impl ServiceManager {
    fn listen(folder: &Path) -> Self {
        let socket = UnixDatagram::bind(folder.join("notify")).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self(tokio::net::UnixDatagram::from_std(socket).unwrap())
    }

    /// The next message that says this.
    async fn told(&self, what: &str) -> Vec<String> {
        eventually(what, async || {
            let mut bytes = [0; 1024];
            let len = self.0.recv(&mut bytes).await.unwrap();
            let text = std::str::from_utf8(&bytes[..len]).unwrap();
            let states: Vec<String> = text.lines().map(ToOwned::to_owned).collect();
            states.iter().any(|state| state == what).then_some(states)
        })
        .await
    }
}

async fn supervised(watchdog: Option<Duration>) -> (Gateway, ServiceManager, Upstream) {
    let upstream = Upstream::start().await;
    let mut site = Site::new(upstream.address)
        .set("server", "drain_delay", r#""1s""#)
        .set("server", "drain_timeout", r#""100s""#);
    let manager = ServiceManager::listen(site.path());
    let path = site.path().join("notify").display().to_string();
    site.variable("NOTIFY_SOCKET", &path);
    if let Some(limit) = watchdog {
        site.variable("WATCHDOG_USEC", &limit.as_micros().to_string());
    }
    (site.start().await, manager, upstream)
}

#[tokio::test]
async fn cfg_3_the_service_manager_is_told_of_the_start_and_of_the_drain() {
    let (mut gateway, manager, _upstream) = supervised(None).await;
    manager.told("READY=1").await;
    gateway.signal("TERM");
    let states = manager.told("STOPPING=1").await;
    // A drain may take longer than the manager's own limit.
    let limit = "EXTEND_TIMEOUT_USEC=111000000";
    assert!(states.iter().any(|state| state == limit), "{states:?}");
    assert_eq!(gateway.exit().await.code(), Some(0));
}

#[tokio::test]
async fn cfg_2_the_service_manager_is_told_of_reloads_and_what_came_of_them() {
    let (gateway, manager, _upstream) = supervised(None).await;
    manager.told("READY=1").await;
    for (text, result) in [
        (gateway.site.toml() + "\n# nothing\n", "unchanged"),
        ("nonsense".to_owned(), "refused"),
    ] {
        std::fs::write(gateway.site.config(), text).unwrap();
        gateway.signal("HUP");
        let states = manager.told("RELOADING=1").await;
        let time = |state: &String| state.starts_with("MONOTONIC_USEC=");
        assert!(states.iter().any(time), "{states:?}");
        let states = manager.told("READY=1").await;
        let said = |state: &String| state.starts_with("STATUS=") && state.contains(result);
        assert!(states.iter().any(said), "{result}: {states:?}");
    }
}

#[tokio::test]
async fn fault_2_the_service_manager_hears_that_the_workers_turn() {
    let (_gateway, manager, _upstream) = supervised(Some(Duration::from_millis(200))).await;
    for _ in 0..3 {
        manager.told("WATCHDOG=1").await;
    }
}
