//! Engines that come and go between five times a second and once in five seconds: the nodes neither hammer them nor fail what
//! needs none, and all is well when they stay (FAULT-5).

use std::time::{Duration, Instant};

use super::{
    PASSWORD, Trio, Way, exchange, is_healthy,
    load::{Client, Load, telling},
    login, login_request, shared_engines,
};
use crate::{
    harness::{
        Token,
        gate::{Gate, State},
    },
    server::Server,
};

/// How long a whole turn lasts, and how many there are: 0.2 to 5 in a second.
const TURNS: [(Duration, u32); 3] = [
    (Duration::from_secs(5), 1),
    (Duration::from_secs(1), 3),
    (Duration::from_millis(200), 10),
];

/// Opens and shuts; at each turn somebody signs in. Gives what came of it, and the time that all took.
async fn flap(gate: &Gate, trio: &Trio) -> (Vec<String>, Duration) {
    let begun = Instant::now();
    let mut results = Vec::new();
    for (turn, count) in TURNS {
        for number in 0..count {
            for state in [State::Shut, State::Open] {
                gate.set(state);
                let until = tokio::time::Instant::now() + turn / 2;
                let node = usize::try_from(number).unwrap() % 3;
                let request = login_request("bob", PASSWORD);
                let answer = exchange(trio.nodes[node].tls, request).await;
                results.push(match answer.status {
                    200 => "signed in".to_owned(),
                    _ => answer.code(),
                });
                tokio::time::sleep_until(until).await;
            }
        }
    }
    (results, begun.elapsed())
}

/// What this many peers of a server may try at most in a time, who wait longer after each failure, up to five seconds, of which
/// half is left to chance.
fn tries(peers: usize, time: Duration) -> usize {
    let pauses = time.as_millis().div_ceil(2500);
    peers * (10 + usize::try_from(pauses).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_5_engines_that_flap_are_not_hammered_and_cost_no_proxied_request() {
    let (Some((redis, way)), Some(server)) = (shared_engines().await, Server::shared()) else {
        return;
    };
    let (store_gate, redis_gate) = (
        Gate::before(server.port).await,
        Gate::before(redis.port).await,
    );
    let (from, to) = (server.port, store_gate.port);
    let way = Way {
        store: way.store.replace(&format!(":{from}/"), &format!(":{to}/")),
        redis: Some(redis_gate.port),
    };
    let ways = [way.clone(), way.clone(), way];
    let trio = Trio::by_ways(&ways, telling().await, &["alice", "bob"], |site| {
        site.set("accounts", "store_connections", "4")
    })
    .await;
    let grant = login(trio.nodes[0].tls, "alice").await;
    let foreign = Token::good().claim("sub", "zoe").sign();
    let clients = [("alice", &grant.access), ("zoe", &foreign)].map(|(user, token)| Client {
        user: user.to_owned(),
        token: token.clone(),
        fresh: user == "zoe",
        posts: user == "zoe",
        http2: user == "alice",
    });
    let loads: Vec<Load> = trio
        .addresses()
        .into_iter()
        .map(|address| Load::begin(address, &clients))
        .collect();

    // Redis: logins never fail for it. Each node has two connections.
    let before = redis_gate.connections();
    let (results, took) = flap(&redis_gate, &trio).await;
    let known = |result: &String| ["signed in", "overloaded"].contains(&&**result);
    assert!(results.iter().all(known), "{results:?}");
    let tried = redis_gate.connections() - before;
    println!("Redis: {tried} connections in {took:?}");
    assert!(tried <= tries(6, took), "{tried} in {took:?}");
    for node in &trio.nodes {
        is_healthy(node).await;
        let lines = node.err.all();
        let lost = lines.iter().filter(|line| line.contains("cluster_lost"));
        assert!(lost.count() <= 2 + usize::try_from(took.as_secs()).unwrap() / 5);
    }

    // PostgreSQL: a login is served or says that the store is away. A node may make all of its connections anew at each turn.
    let before = store_gate.connections();
    let (results, took) = flap(&store_gate, &trio).await;
    let known =
        |result: &String| ["signed in", "overloaded", "store_unavailable"].contains(&&**result);
    assert!(results.iter().all(known), "{results:?}");
    let turns: u32 = TURNS.iter().map(|(_, count)| *count).sum();
    let tried = store_gate.connections() - before;
    println!("PostgreSQL: {tried} connections in {took:?}, logins {results:?}");
    let pools = 3 * 4 * usize::try_from(turns).unwrap();
    assert!(tried <= pools + tries(3, took), "{tried} in {took:?}");
    for node in &trio.nodes {
        is_healthy(node).await;
        login(node.tls, "bob").await;
    }
    for load in loads {
        let sum = load.end().await;
        assert!(sum.served > 0 && sum.failures.is_empty(), "{sum:?}");
    }
}
