//! One limit over three nodes (RATE-6).

use futures_util::future::join_all;

use super::{Trio, exchange, login_request, shared_engines};
use crate::harness::Gateway;

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

/// Tries this many wrong passwords at once, of as many accounts, and counts those that were looked at.
pub(super) async fn attack(trio: &Trio, times: usize) -> usize {
    let addresses = trio.addresses();
    let tried = (0..times).map(|number| {
        let request = login_request(&format!("user{number}"), "a wrong password");
        exchange(addresses[number % 3], request)
    });
    let answers = join_all(tried).await;
    let looked_at = answers.iter().filter(|answer| answer.status == 401).count();
    for answer in answers.iter().filter(|answer| answer.status != 401) {
        answer.refused(429, "rate_limited");
        assert!(answer.header("retry-after").is_some());
    }
    looked_at
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rate_6_three_nodes_give_one_budget() {
    let Some((redis, way)) = shared_engines().await else {
        return;
    };
    let trio = Trio::start(&way, &[], |site| site.set("accounts", "login_limit", TEN)).await;
    let mut all_looked_at = 0;
    let mut before = fallbacks(&trio.nodes).await;
    // On a machine that is too busy for 50 ms a node decides by its half: then it is tried again, with a new budget in Redis.
    for attempt in 1..=5 {
        let looked_at = attack(&trio, 150).await;
        let after = fallbacks(&trio.nodes).await;
        if after.total_cmp(&before).is_eq() {
            assert_eq!(looked_at, 10);
            return;
        }
        println!(
            "attempt {attempt}: {looked_at} with {} fallbacks",
            after - before
        );
        all_looked_at += looked_at;
        // Ten of each budget that Redis gave, and each node's half of ten at most over all attempts.
        assert!(all_looked_at <= attempt * 10 + 15, "{all_looked_at}");
        before = after;
        redis.ask("FLUSHALL");
    }
}
