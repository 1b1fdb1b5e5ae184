//! Tries in a row, counted over several nodes: RATE-4, RATE-5, RATE-6.

use super::*;

const NAMES: [&str; 2] = ["login_per_account", "login_failures"];

impl Node {
    /// Ten in a row, and then none for two hours.
    pub(super) fn attempts(&self, rate: Quota) -> AttemptLimiter {
        let streak = Quota {
            window: Duration::from_secs(7200),
            ..quota(10)
        };
        let cluster = Some(Arc::clone(&self.cluster));
        AttemptLimiter::new(NAMES, rate, streak, 1000, cluster)
    }
}

async fn try_once(limiter: &AttemptLimiter) -> Result<(), Exceeded> {
    limiter.check("ann", "ann".into()).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn rate_4_and_rate_6_three_nodes_allow_ten_in_a_row_and_success_at_one_counts_at_all() {
    let Some(server) = RedisServer::start(Some(PASSWORD)) else {
        return;
    };
    let nodes = [(); 3].map(|()| Node::new(&settings(server.port), AMPLE));
    let limiters = nodes.each_ref().map(|node| node.attempts(quota(100_000)));
    for node in &nodes {
        node.up().await;
    }
    let asked = (0..600).zip(limiters.iter().cycle());
    let results = join_all(asked.map(|(_, limiter)| try_once(limiter))).await;
    assert_eq!(passed(&results), 10);
    let refused = results.iter().find_map(|result| result.err()).unwrap();
    assert_eq!((refused.limit, refused.quota), (NAMES[1], 10));
    assert!(refused.retry_after > Duration::from_secs(7000));
    assert!(refused.retry_after <= Duration::from_secs(7200));
    // Another account is untouched, and its success at one node is known at the others.
    for round in 0..6 {
        for limiter in limiters.iter().cycle().take(9) {
            let tried = limiter.check("bob", "bob".into()).await;
            assert!(tried.is_ok(), "{round}");
        }
        let good = limiters[round % 3].check("bob", "bob".into()).await;
        good.unwrap().succeeded();
        // It is not waited for; the same connection answers in turn.
        limiters[round % 3]
            .check("x", "x".into())
            .await
            .unwrap()
            .succeeded();
    }
    for node in &nodes {
        assert!(node.has("portcullis_cluster_fallbacks_total 0"));
    }
}

#[tokio::test]
async fn rate_4_and_rate_5_without_redis_a_node_stops_at_half_and_knows_what_was_tried_before() {
    let Some(mut server) = RedisServer::start(Some(PASSWORD)) else {
        return;
    };
    let node = Node::new(&settings(server.port), AMPLE);
    let limiter = node.attempts(quota(1000));
    node.up().await;
    for _ in 0..3 {
        try_once(&limiter).await.unwrap();
    }
    server.kill();
    node.down().await;
    let mut results = Vec::new();
    for _ in 0..50 {
        results.push(try_once(&limiter).await);
    }
    assert_eq!(passed(&results), 2);
    let refused = results.iter().find_map(|result| result.err()).unwrap();
    assert_eq!((refused.limit, refused.quota), (NAMES[1], 5));
}

#[tokio::test]
async fn rate_4_a_stop_in_redis_ends_and_what_is_no_count_stops_nobody() {
    let Some(server) = RedisServer::start(Some(PASSWORD)) else {
        return;
    };
    let node = Node::new(&settings(server.port), AMPLE);
    node.up().await;
    let streak = Quota {
        window: Duration::from_millis(400),
        ..quota(4)
    };
    let cluster = Some(Arc::clone(&node.cluster));
    let limiter = AttemptLimiter::new(NAMES, quota(1000), streak, 1000, cluster);
    let key = name(
        &super::super::keys(&settings(1)),
        &["limit", NAMES[1], "ann"],
    );
    let key = String::from_utf8(key).unwrap();
    let far = "9007199254740991";
    for nonsense in ["", "x", "7", "-1 5", "99 0", "1e9 1e9", &format!("3 {far}")] {
        server.ask("FLUSHALL");
        server.ask(&format!("SET {key} \"{nonsense}\""));
        assert_eq!(try_once(&limiter).await, Ok(()), "{nonsense}");
    }
    // A stop of another time is no longer than a whole one.
    server.ask(&format!("SET {key} \"99 {far}\""));
    let refused = try_once(&limiter).await.unwrap_err();
    assert!(refused.retry_after <= streak.window, "{refused:?}");
    server.ask("FLUSHALL");
    for _ in 0..4 {
        try_once(&limiter).await.unwrap();
    }
    let refused = try_once(&limiter).await.unwrap_err();
    tokio::time::sleep(refused.retry_after + Duration::from_millis(2)).await;
    try_once(&limiter).await.unwrap();
}

#[tokio::test]
async fn fault_4_a_budget_of_another_time_is_full_or_makes_nobody_wait_for_more_than_one_try() {
    let Some(server) = RedisServer::start(Some(PASSWORD)) else {
        return;
    };
    let node = Node::new(&settings(server.port), AMPLE);
    node.up().await;
    let limiter = node.attempts(quota(4));
    let key = name(
        &super::super::keys(&settings(1)),
        &["limit", NAMES[0], "ann"],
    );
    let key = String::from_utf8(key).unwrap();
    // The clock of Redis was set ahead since: as if nothing had been used.
    server.ask(&format!("SET {key} 1"));
    for _ in 0..4 {
        assert_eq!(try_once(&limiter).await, Ok(()));
    }
    // It was set back since, by ten years: as if all had been used just now.
    server.ask(&format!("SET {key} 9007199254740991"));
    let refused = try_once(&limiter).await.unwrap_err();
    assert_eq!(refused.limit, NAMES[0]);
    let one = Duration::from_secs(3600 / 4);
    assert!(refused.retry_after <= one, "{refused:?}");
    assert!(node.has("portcullis_cluster_fallbacks_total 0"));
}
