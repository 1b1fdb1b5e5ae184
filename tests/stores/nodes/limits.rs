//! One limit over three nodes (RATE-6).

use futures_util::future::join_all;

use super::{
    Grant, PASSWORD, Trio, exchange, login, login_request, refresh, shared_engines, status,
};
use crate::harness::{Gateway, RedisServer, Site};

pub(super) const TEN: &str = r#"{ per_ip = "10/1h", per_account = "1000/1h" }"#;

pub(super) async fn fallbacks(nodes: &[Gateway]) -> f64 {
    let mut sum = 0.0;
    for node in nodes {
        sum += node
            .metric("portcullis_cluster_fallbacks_total")
            .await
            .unwrap();
    }
    sum
}

/// What became of many attempts.
pub(super) struct Tried {
    /// Passwords that were looked at.
    pub(super) looked_at: usize,
    /// Attempts that a node had no time for, whether or not a budget was charged.
    pub(super) shed: usize,
}

/// Tries this many wrong passwords at once, of as many accounts.
pub(super) async fn attack(trio: &Trio, times: usize) -> Tried {
    attack_by(trio, times, |number| guess(&format!("user{number}"))).await
}

fn guess(name: &str) -> String {
    login_request(name, "a wrong password")
}

/// As [`attack`], each time with the request that is given.
async fn attack_by(trio: &Trio, times: usize, request: impl Fn(usize) -> String) -> Tried {
    let addresses = trio.addresses();
    let tried = (0..times).map(|number| exchange(addresses[number % 3], request(number)));
    let answers = join_all(tried).await;
    let mut tried = Tried {
        looked_at: 0,
        shed: 0,
    };
    for answer in answers {
        match answer.status {
            401 => tried.looked_at += 1,
            503 => {
                answer.refused(503, "overloaded");
                tried.shed += 1;
            }
            _ => {
                answer.refused(429, "rate_limited");
                assert!(answer.header("retry-after").is_some());
            }
        }
    }
    tried
}

/// Tries again, with new budgets in Redis, until the machine was not too busy: no node had to decide by its half for want of an
/// answer of Redis, or had no time for an attempt. Then exactly the budget was looked at. In any case it is used up afterwards.
async fn exactly(
    trio: &Trio,
    redis: &RedisServer,
    budget: usize,
    request: impl Fn(usize) -> String,
) {
    let mut all = 0;
    let mut before = fallbacks(&trio.nodes).await;
    for attempt in 1..=5 {
        if attempt > 1 {
            redis.ask("FLUSHALL");
        }
        let times = budget * (3 + 12 / attempt);
        let Tried { looked_at, shed } = attack_by(trio, times, &request).await;
        let after = fallbacks(&trio.nodes).await;
        if after.total_cmp(&before).is_eq() && shed == 0 {
            assert_eq!(looked_at, budget);
            return;
        }
        let alone = after - before;
        println!("attempt {attempt}: {looked_at}, {shed} shed, {alone} decided alone");
        all += looked_at;
        // What Redis gave each time, and each node's half once: it is not given anew.
        assert!(all <= attempt * budget + 3 * budget.div_ceil(2), "{all}");
        before = after;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rate_6_three_nodes_give_one_budget() {
    let Some((redis, way)) = shared_engines().await else {
        return;
    };
    let trio = Trio::start(&way, &[], |site| site.set("accounts", "login_limit", TEN)).await;
    exactly(&trio, &redis, 10, |number| guess(&format!("user{number}"))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rate_4_and_rate_6_an_account_has_one_budget_at_three_nodes_whatever_it_is_called() {
    let Some((redis, way)) = shared_engines().await else {
        return;
    };
    let limit = r#"{ per_ip = "10000/1s", per_account = "6/1h" }"#;
    let change = |site: Site| site.set("accounts", "login_limit", limit);
    let trio = Trio::start(&way, &["alice", "bob"], change).await;
    let names = ["alice", "alice@example.com", "ALICE", "Alice@Example.COM"];
    exactly(&trio, &redis, 6, |number| guess(names[number % 4])).await;
    // Nobody else pays for it.
    login(trio.nodes[0].tls, "bob").await;
    let nobody = ["nobody", "Nobody", "NOBODY"];
    exactly(&trio, &redis, 6, |number| guess(nobody[number % 3])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rate_2_and_rate_6_a_whole_48_has_one_budget_at_three_nodes() {
    let Some((redis, way)) = shared_engines().await else {
        return;
    };
    let trusted = r#"["127.0.0.0/8"]"#;
    let limit = r#"{ per_ip = "3/1h", per_account = "1000/1h" }"#;
    let trio = Trio::start(&way, &["alice"], |site| {
        site.set("server", "trusted_proxies", trusted)
            .set("accounts", "login_limit", limit)
    })
    .await;
    let from = |request: String, address: &str| {
        let field = format!("\r\nX-Forwarded-For: {address}\r\n");
        request.replacen("\r\n", &field, 1)
    };
    exactly(&trio, &redis, 12, |number| {
        let network = format!("2001:db8:1:{:x}::1", number * 256);
        from(guess(&format!("user{number}")), &network)
    })
    .await;
    let neighbour = from(login_request("alice", PASSWORD), "2001:db8:2::1");
    exchange(trio.nodes[1].tls, neighbour).await.is(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rate_4_and_rate_6_guesses_in_a_row_are_stopped_at_three_nodes_together() {
    let Some((redis, way)) = shared_engines().await else {
        return;
    };
    let limit = r#"{ per_ip = "10000/1s", per_account = "10000/1s", failures = "10/1d" }"#;
    let change = |site: Site| site.set("accounts", "login_limit", limit);
    let trio = Trio::start(&way, &["alice", "bob"], change).await;
    let names = ["alice", "alice@example.com", "ALICE", "Alice@Example.COM"];
    exactly(&trio, &redis, 10, |number| guess(names[number % 4])).await;
    // One after the other, so that Redis counts ten of them on the busiest machine.
    for number in 0..30 {
        let guessed = exchange(trio.nodes[number % 3].tls, guess(names[number % 4])).await;
        assert!(matches!(guessed.status, 401 | 429), "{}", guessed.status);
    }
    for node in &trio.nodes {
        let right = exchange(node.tls, login_request("alice", PASSWORD)).await;
        right.refused(429, "rate_limited");
        login(node.tls, "bob").await;
    }
    let nobody = ["nobody", "Nobody", "NOBODY"];
    exactly(&trio, &redis, 10, |number| guess(nobody[number % 3])).await;
    // Away for all nodes at once, and for this account alone.
    trio.nodes[2]
        .site
        .run(&["user", "unlock", "alice"], "")
        .await;
    login(trio.nodes[0].tls, "alice").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rate_4_and_rate_6_a_session_has_one_budget_of_refreshes_at_three_nodes() {
    let Some((_redis, way)) = shared_engines().await else {
        return;
    };
    let limit = r#"{ per_session = "12/1h" }"#;
    let change = |site: Site| site.set("accounts", "refresh_limit", limit);
    let trio = Trio::start(&way, &["alice"], change).await;
    let addresses = trio.addresses();
    for _ in 0..5 {
        let before = fallbacks(&trio.nodes).await;
        let mut grant = login(addresses[0], "alice").await;
        let mut renewed = 0;
        for number in 0..36 {
            let answer = refresh(addresses[number % 3], &grant.renewal).await;
            if answer.status == 200 {
                renewed += 1;
                grant = Grant::of(&answer);
            } else {
                answer.refused(429, "rate_limited");
            }
        }
        // No node takes the session for one that has ended.
        for address in &addresses {
            assert_eq!(status(*address, &grant.access).await, 200);
        }
        assert!(renewed <= 12 + 3 * 6, "{renewed}");
        if fallbacks(&trio.nodes).await.total_cmp(&before).is_eq() {
            assert_eq!(renewed, 12);
            return;
        }
    }
    panic!("Redis answered too late each time");
}
