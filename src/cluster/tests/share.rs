//! Limits of clients and routes over several nodes and one real Redis. RATE-5, RATE-6, FAULT-5.

use std::{net::IpAddr, thread};

use super::*;
use crate::{
    limit::{BadTokens, IpLimiter, settings::IpLimitSettings},
    policy::{Allowance, ClientIp, PeerIp},
};

fn limits(per_ip: Quota, bad_tokens: Quota) -> IpLimitSettings {
    IpLimitSettings {
        per_ip,
        bad_tokens,
        bad_tokens_wait: Duration::ZERO,
        exempt: Vec::new(),
        ipv6_prefix: 64,
        max_keys: 100_000,
    }
}

/// So many at once, which are back only after an hour: time plays no part.
fn budget(burst: u32) -> Quota {
    Quota {
        count: burst,
        window: Duration::from_secs(3600),
        burst,
    }
}

fn client(address: &str) -> ClientIp {
    let address: IpAddr = address.parse().unwrap();
    PeerIp::new(address).into()
}

impl Node {
    fn per_ip(&self, quota: Quota) -> IpLimiter {
        IpLimiter::shared(&limits(quota, quota), Some(self.cluster.share()))
    }

    fn metric(&self, name: &str) -> f64 {
        let text = self.telemetry.encode();
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().trim().parse().unwrap()
    }

    /// Until it knows of so many nodes.
    async fn knows(&self, nodes: u32) {
        let line = format!("portcullis_cluster_nodes {nodes}");
        until(|| self.has(&line)).await;
    }
}

/// Nodes that know of each other.
async fn nodes(port: u16) -> [Node; 3] {
    let nodes = [(); 3].map(|()| Node::new(&settings(port), AMPLE));
    for node in &nodes {
        node.up().await;
    }
    // The first that counts may find itself alone, and counts again after five seconds.
    for node in &nodes {
        node.knows(3).await;
    }
    nodes
}

fn redis_key(limit: &str, client: &str) -> String {
    let key = name(
        &super::super::keys(&settings(1)),
        &["share", limit, "", client],
    );
    String::from_utf8(key).unwrap()
}

/// For how many milliseconds Redis keeps a key; below zero without an end.
fn left(server: &RedisServer, key: &str) -> i64 {
    let answer = server.ask(&format!("PTTL {key}"));
    answer.trim_start_matches(':').trim().parse().unwrap()
}

fn passing(limiter: &IpLimiter, client: ClientIp, times: u32) -> u32 {
    let passed = (0..times).filter(|_| limiter.check(client).is_ok());
    u32::try_from(passed.count()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn rate_6_a_client_of_three_nodes_gets_one_limit_and_the_overshoot_and_others_notice_nothing()
{
    let Some(server) = RedisServer::start(Some(PASSWORD)) else {
        return;
    };
    let nodes = nodes(server.port).await;
    let limiters = nodes.each_ref().map(|node| node.per_ip(budget(200)));
    let (attacker, other) = (client("192.0.2.1"), client("192.0.2.2"));
    // Threads that ask as fast as they can, each at a node of its own, until none gets anything any more.
    let passed: u32 = thread::scope(|scope| {
        let asking = limiters
            .each_ref()
            .map(|limiter| scope.spawn(|| passing(limiter, attacker, 20_000)));
        asking.map(|asked| asked.join().unwrap()).iter().sum()
    });
    // The worst that can be: everything before anything is known.
    assert!((200..=600).contains(&passed), "{passed}");
    // All of it is on the bill, but for what is left of each lease: an hour gives 200 back.
    let title = "per_ip 200/3600000000000 200";
    let key = redis_key(title, "192.0.2.1");
    let owed = i64::from(passed - 3 * 17) * 18_000;
    until(|| left(&server, &key) >= owed).await;
    for limiter in &limiters {
        assert_eq!(passing(limiter, attacker, 100), 0);
    }
    // Somebody else has a whole budget, at any node.
    assert_eq!(passing(&limiters[0], other, 60), 60);
    assert_eq!(passing(&limiters[1], other, 40), 40);
    let keys = server.ask("KEYS *");
    assert!(
        !keys.contains("192.0.2") && !keys.contains("per_ip"),
        "{keys}"
    );
    for node in &nodes {
        assert_eq!(node.metric("portcullis_cluster_unsettled_keys_total"), 0.0);
        assert!(node.metric("portcullis_cluster_settled_keys_total") >= 1.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rate_6_who_is_spread_over_three_nodes_gets_what_one_node_would_give() {
    let Some(server) = RedisServer::start(Some(PASSWORD)) else {
        return;
    };
    let nodes = nodes(server.port).await;
    let limiters = nodes.each_ref().map(|node| node.per_ip(budget(300)));
    let client = client("2001:db8::1");
    let leases = 25 * 3;
    let mut passed = 0;
    // A lease at each node in turn, and time enough to settle it.
    for _ in 0..10 {
        for (node, limiter) in nodes.iter().zip(&limiters) {
            let settled = || node.metric("portcullis_cluster_settled_keys_total");
            let before = settled();
            let got = passing(limiter, client, 25);
            passed += got;
            if got == 25 {
                until(|| settled() > before).await;
            }
        }
    }
    assert!((300..=300 + leases).contains(&passed), "{passed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rate_8_bad_tokens_at_one_node_count_at_the_others_and_good_ones_do_not() {
    let Some(server) = RedisServer::start(Some(PASSWORD)) else {
        return;
    };
    let nodes = nodes(server.port).await;
    let quota = Quota {
        count: 20,
        window: Duration::from_secs(60),
        burst: 50,
    };
    let budgets = nodes
        .each_ref()
        .map(|node| BadTokens::shared(&limits(budget(1), quota), Some(node.cluster.share())));
    let settled = |node: &Node| node.metric("portcullis_cluster_settled_keys_total");
    // A thousand good tokens at two nodes cost nothing at the third.
    let good = client("192.0.2.1");
    for budget in &budgets[..2] {
        for _ in 0..1000 {
            budget.of(good).take().unwrap();
            budget.of(good).give_back();
        }
    }
    let bad = client("192.0.2.2");
    let take = |place: usize, client| {
        let of = budgets[place].of(client);
        (0..1000).filter(|_| of.take().is_ok()).count()
    };
    let passed = take(0, bad);
    assert!((50..=51).contains(&passed), "{passed}");
    until(|| settled(&nodes[0]) >= 1.0).await;
    // The second learns it at the end of its first lease, of five, if it is given the time.
    for _ in 0..5 {
        budgets[1].of(bad).take().unwrap();
    }
    until(|| budgets[1].of(bad).take().is_err()).await;
    // Beyond the budget nobody waits for more than a minute, whatever was overdrawn.
    take(2, bad);
    until(|| {
        let waits = budgets.each_ref().map(|budget| budget.of(bad).take());
        waits
            .iter()
            .all(|wait| wait.is_err_and(|refused| refused.retry_after <= Duration::from_secs(60)))
    })
    .await;
    assert!(take(2, good) >= 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn rate_5_without_redis_each_node_has_its_own_limit_and_afterwards_they_share_again() {
    let Some(mut server) = RedisServer::start(Some(PASSWORD)) else {
        return;
    };
    let nodes = nodes(server.port).await;
    let limiters = nodes.each_ref().map(|node| node.per_ip(budget(40)));
    server.kill();
    for node in &nodes {
        node.down().await;
        node.knows(0).await;
    }
    let one = client("192.0.2.1");
    for limiter in &limiters {
        // Neither more nor less than without a cluster, and nobody waits.
        assert_eq!(passing(limiter, one, 1000), 40);
    }
    server.again();
    for node in &nodes {
        node.up().await;
        node.knows(3).await;
    }
    assert_eq!(server.ask("DBSIZE"), ":0\r\n", "nothing is told of later");
    let two = client("192.0.2.2");
    assert_eq!(passing(&limiters[0], two, 1000), 40);
    until(|| !server.ask("DBSIZE").starts_with(":0")).await;
    // The others have a lease left, and whatever passes before the answer comes.
    until(|| limiters[1].check(two).is_err()).await;
    let wait = limiters[1].check(two).unwrap_err().retry_after;
    assert!(
        wait > Duration::from_secs(90),
        "one is back each 90 s: {wait:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn rate_5_a_slow_redis_and_one_that_says_anything_delay_nobody() {
    let Some(server) = RedisServer::start(Some(PASSWORD)) else {
        return;
    };
    let nodes = nodes(server.port).await;
    let limiters = nodes.each_ref().map(|node| node.per_ip(budget(400)));
    let one = client("192.0.2.1");
    // It stops while leases are being used up: a whole budget is decided before it is given up.
    server.signal("STOP");
    let passed = passing(&limiters[0], one, 1000);
    let still_up = nodes[0].cluster.link.is_up();
    assert_eq!(passed, 400);
    assert!(still_up, "it was not waited for");
    for node in &nodes {
        node.down().await;
    }
    server.signal("CONT");
    for node in &nodes {
        node.up().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rate_3_what_reaches_redis_does_not_grow_with_a_flood() {
    let Some(server) = RedisServer::start(Some(PASSWORD)) else {
        return;
    };
    let nodes = nodes(server.port).await;
    let limiter = nodes[0].per_ip(budget(200));
    let calls = || {
        let stats = server.ask("INFO commandstats");
        let line = stats
            .lines()
            .find(|line| line.starts_with("cmdstat_evalsha:"));
        let count = line.and_then(|line| line.split("calls=").nth(1)?.split(',').next());
        count.map_or(0, |count| count.parse::<u64>().unwrap())
    };
    let settled = || nodes[0].metric("portcullis_cluster_settled_keys_total");
    // Addresses that ask once, and one that asks for ever.
    for number in 0..50_000_u32 {
        let address = IpAddr::from(number.to_be_bytes());
        let _ = limiter.check(PeerIp::new(address).into());
    }
    let loud = client("192.0.2.1");
    assert_eq!(passing(&limiter, loud, 100_000), 200);
    until(|| settled() >= 1.0).await;
    assert!(settled() <= 200.0 / 17.0, "{}", settled());
    // Addresses that all use up a lease: rounds are full, and few.
    for number in 0..20_000_u32 {
        let address = IpAddr::from((number | 1 << 31).to_be_bytes());
        passing(&limiter, PeerIp::new(address).into(), 17);
    }
    let waiting = 4096.0;
    until(|| settled() >= waiting).await;
    let (calls, settled) = (calls(), settled());
    let full = f64::from(u32::try_from(calls).unwrap()) * 128.0;
    assert!(full <= settled * 2.0 + 128.0 * 12.0, "{calls} {settled}");
    assert!(settled < 20_000.0, "{settled}");
    assert!(nodes[0].metric("portcullis_cluster_unsettled_keys_total") > 0.0);
}

#[tokio::test]
async fn fault_5_an_overdrawn_budget_of_a_stranger_or_of_another_time_locks_nobody_out_for_ever() {
    let Some(server) = RedisServer::start(Some(PASSWORD)) else {
        return;
    };
    let nodes = nodes(server.port).await;
    let quota = Quota {
        count: 10,
        window: Duration::from_secs(1),
        burst: 10,
    };
    let limiter = nodes[0].per_ip(quota);
    let one = client("192.0.2.1");
    let key = redis_key("per_ip 10/1000000000 10", "192.0.2.1");
    // A hundred years from now, and what is no number.
    for nonsense in ["4900000000000000", "nonsense"] {
        server.ask(&format!("SET {key} {nonsense}"));
        assert!(limiter.check(one).is_ok() && limiter.check(one).is_ok());
        until(|| left(&server, &key) >= 0).await;
        let left = left(&server, &key);
        // Three bursts of a second each, and what three nodes let through while they do not know.
        assert!(left <= 3 * (1000 + 3100), "{left}");
        server.ask("FLUSHALL");
        until(|| limiter.check(one).is_ok()).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}
