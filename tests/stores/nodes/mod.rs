//! Three gateways on one PostgreSQL and one Redis, as a cluster is run: what holds over all of them, and what is left when one
//! of the five dies.

use std::{
    net::SocketAddr,
    os::unix::fs::symlink,
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    harness::{Answer, Gateway, RedisServer, Site, Upstream, eventually, keys::bearer, request},
    server::Server,
};

mod balancer;
mod caller;
mod chaos;
mod costs;
mod flapping;
mod keys;
mod limits;
mod load;
mod outages;
mod partition;
mod refreshes;
mod rolling;
mod sessions;
mod writers;

use self::caller::Caller;

pub(crate) const PASSWORD: &str = "correct horse battery staple";

/// How soon every node must refuse what one of them has ended (CACHE-4).
pub(crate) const BOUND: Duration = Duration::from_secs(5);

/// Where a node finds the engines.
#[derive(Clone)]
pub(crate) struct Way {
    pub(crate) store: String,
    pub(crate) redis: Option<u16>,
}

/// The nodes, and what is behind them all.
pub(crate) struct Trio {
    pub(crate) upstream: Upstream,
    pub(crate) nodes: Vec<Gateway>,
}

/// What login and refresh give.
#[derive(Debug, Clone)]
pub(crate) struct Grant {
    pub(crate) access: String,
    pub(crate) renewal: String,
}

impl Grant {
    #[track_caller]
    pub(crate) fn of(answer: &Answer) -> Self {
        let grant = answer.is(200).json();
        let text = |name: &str| grant[name].as_str().unwrap().to_owned();
        Self {
            access: text("access_token"),
            renewal: text("refresh_token"),
        }
    }
}

impl Trio {
    /// Starts three nodes that reach the engines alike, each after `change` to its site.
    pub(crate) async fn start(way: &Way, users: &[&str], change: impl Fn(Site) -> Site) -> Self {
        let ways = [way.clone(), way.clone(), way.clone()];
        Self::by_ways(&ways, Upstream::start().await, users, change).await
    }

    /// Starts three nodes, each of which has its own way to the engines.
    pub(crate) async fn by_ways(
        ways: &[Way; 3],
        upstream: Upstream,
        users: &[&str],
        change: impl Fn(Site) -> Site,
    ) -> Self {
        let sites: Vec<Site> = ways
            .iter()
            .map(|way| change(site(upstream.address, way)))
            .collect();
        for site in &sites {
            site.write();
        }
        for user in users {
            sites[0].user(user, PASSWORD, &[]).await;
        }
        for other in &sites[1..] {
            share_keys(&sites[0], other);
        }
        let mut nodes = Vec::new();
        for site in sites {
            nodes.push(site.start().await);
        }
        for node in &nodes {
            is_healthy(node).await;
        }
        Self { upstream, nodes }
    }

    /// Where the nodes listen.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.tls).collect()
    }

    /// Kills a node as a crash would, and waits until it is gone.
    pub(crate) async fn kill(&mut self, index: usize) {
        self.nodes[index].signal("KILL");
        assert!(!self.nodes[index].exit().await.success());
    }

    /// Starts a node again that has ended, at its old addresses, after `change` to its site.
    pub(crate) async fn start_again(&mut self, index: usize, change: impl FnOnce(Site) -> Site) {
        let mut old = self.nodes.remove(index);
        let site = std::mem::replace(&mut old.site, Site::bare());
        let site = change(site)
            .set("server", "listen", &format!("[\"{}\"]", old.tls))
            .set("server", "admin_listen", &format!("\"{}\"", old.admin));
        drop(old);
        self.nodes.insert(index, site.start().await);
    }
}

/// A site of a node. Each has an address of the loopback network for itself, so that nobody takes its ports while it is away.
fn site(upstream: SocketAddr, way: &Way) -> Site {
    static COUNT: AtomicU32 = AtomicU32::new(1);
    let number = COUNT.fetch_add(1, Ordering::Relaxed) + (std::process::id() << 8);
    let [_, a, b, c] = number.to_be_bytes();
    let host = format!("127.{}.{b}.{}", 1 + a % 254, 1 + c % 254);
    let site = Site::new(upstream)
        .accounts()
        .set("server", "listen", &format!("[\"{host}:0\"]"))
        .set("server", "admin_listen", &format!("\"{host}:0\""))
        .set("accounts", "store", &format!("{:?}", way.store))
        // A machine may be slow; what is stolen is a matter of its own test.
        .set("accounts", "refresh_grace", "\"60s\"");
    match way.redis {
        None => site,
        Some(port) => site.set("cluster", "redis", &format!("\"redis://127.0.0.1:{port}\"")),
    }
}

/// Has a site keep its signing keys in the store, as nodes without a folder in common do.
pub(crate) fn sealed(site: Site) -> Site {
    site.secret_file("kek", "y+yCLrBd6PJCoECT3dBjHGoWuBLTYkYbmYFtkgEnwK0=");
    site.set("accounts", "key_encryption_file", "\"kek\"")
}

/// Has a site use the folder of signing keys of another, as nodes do that mount one; where keys lie elsewhere, nothing.
fn share_keys(from: &Site, to: &Site) {
    let folder = |site: &Site| site.path().join("data/keys");
    if Path::exists(&folder(from)) {
        symlink(folder(from), folder(to)).unwrap();
    }
}

/// The engines of one test, that it may kill.
pub(crate) async fn engines() -> Option<(Server, RedisServer, Way)> {
    let (server, redis) = (Server::start(|_| ())?, RedisServer::start(None)?);
    let way = Way {
        store: server.database().await,
        redis: Some(redis.port),
    };
    Some((server, redis, way))
}

/// A database of the server that tests share, and a Redis.
pub(crate) async fn shared_engines() -> Option<(RedisServer, Way)> {
    let redis = RedisServer::start(None)?;
    let way = Way {
        store: Server::shared()?.database().await,
        redis: Some(redis.port),
    };
    Some((redis, way))
}

/// Waits until a node misses nothing.
pub(crate) async fn is_healthy(node: &Gateway) {
    eventually("a node that misses nothing", async || {
        let answer = node.admin("/readyz").await;
        let whole = answer.status == 200 && !answer.text().contains("\"what\"");
        whole.then_some(())
    })
    .await;
}

/// Waits until a node says that it misses this, and is ready all the same; or that it does not.
pub(crate) async fn misses(node: &Gateway, what: &str, want: bool) {
    let what = format!("\"what\":\"{what}\"");
    eventually(&what, async || {
        let answer = node.admin("/readyz").await;
        answer.is(200);
        (answer.text().contains(&what) == want).then_some(())
    })
    .await;
}

/// One exchange on a connection of its own, which must give an answer.
#[track_caller]
pub(crate) fn exchange(address: SocketAddr, bytes: String) -> impl Future<Output = Answer> {
    let place = std::panic::Location::caller();
    async move {
        match Caller::new(address).ask(&bytes).await {
            Ok(answer) => answer,
            Err(lost) => panic!("{place}: {lost:?}"),
        }
    }
}

/// A request with a body of JSON, and this token where it is not empty.
pub(crate) fn call(method: &str, target: &str, token: &str, body: &Value) -> String {
    let bearer = bearer(token);
    let mut fields = vec![("Content-Type", "application/json")];
    if !token.is_empty() {
        fields.push(("Authorization", &*bearer));
    }
    request(method, target, &fields, &body.to_string())
}

pub(crate) fn login_request(name: &str, password: &str) -> String {
    let body = json!({ "username": name, "password": password, "delivery": "body" });
    call("POST", "/auth/login", "", &body)
}

pub(crate) fn refresh_request(renewal: &str) -> String {
    let body = json!({ "refresh_token": renewal });
    call("POST", "/auth/refresh", "", &body)
}

pub(crate) fn logout_request(renewal: &str) -> String {
    let body = json!({ "refresh_token": renewal });
    call("POST", "/auth/logout", "", &body)
}

pub(crate) fn private_request(target: &str, token: &str) -> String {
    request("GET", target, &[("Authorization", &bearer(token))], "")
}

/// As [`exchange`], again and again while a node has no time, as clients do that read `Retry-After`.
#[track_caller]
fn patiently(address: SocketAddr, bytes: String) -> impl Future<Output = Answer> {
    let place = std::panic::Location::caller();
    eventually("time for a request", async move || {
        match Caller::new(address).ask(&bytes).await {
            Ok(answer) => (answer.status != 503).then_some(answer),
            Err(lost) => panic!("{place}: {lost:?}"),
        }
    })
}

#[track_caller]
pub(crate) fn login(address: SocketAddr, name: &str) -> impl Future<Output = Grant> + use<> {
    let answer = patiently(address, login_request(name, PASSWORD));
    async { Grant::of(&answer.await) }
}

#[track_caller]
pub(crate) fn refresh(address: SocketAddr, renewal: &str) -> impl Future<Output = Answer> + use<> {
    patiently(address, refresh_request(renewal))
}

/// What becomes of a token at a node.
pub(crate) async fn status(address: SocketAddr, token: &str) -> u16 {
    let request = private_request("/private", token);
    exchange(address, request).await.status
}
