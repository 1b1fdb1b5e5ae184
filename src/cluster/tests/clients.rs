//! Budgets of clients and of the networks around them, over several nodes: RATE-2, RATE-5, RATE-6.

use super::*;

const NAMES: [&str; 2] = ["login_per_ip", "login_per_network"];

impl Node {
    fn clients(&self, quota: Quota) -> ClientLimiter {
        let cluster = Some(Arc::clone(&self.cluster));
        ClientLimiter::new(NAMES, quota, 4, 10_000, cluster)
    }
}

/// As many networks of 64 bits, each in a /56 of its own and all in one /48.
fn networks(count: u16) -> Vec<std::net::IpAddr> {
    let network = |number| [0x2001, 0xdb8, 1, number << 8, 0, 0, 0, 1];
    (0..count).map(|number| network(number).into()).collect()
}

async fn ask(limiter: &ClientLimiter, clients: &[std::net::IpAddr]) -> Vec<Result<(), Exceeded>> {
    join_all(clients.iter().map(|client| limiter.check(*client))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn rate_2_and_rate_6_a_site_spread_over_three_nodes_gets_what_one_node_would_give() {
    let Some(server) = RedisServer::start(Some(PASSWORD)) else {
        return;
    };
    let nodes = [(); 3].map(|()| Node::new(&settings(server.port), AMPLE));
    let limiters = nodes.each_ref().map(|node| node.clients(quota(10)));
    for node in &nodes {
        node.up().await;
    }
    let site = networks(250);
    let asked = site.iter().flat_map(|client| {
        let each = limiters.iter().map(|limiter| limiter.check(*client));
        each.collect::<Vec<_>>()
    });
    let results = join_all(asked).await;
    assert_eq!(passed(&results), 40);
    let refused = results.iter().find_map(|result| result.err()).unwrap();
    assert_eq!((refused.limit, refused.quota), ("login_per_network", 40));
    // One of forty in an hour is back after a minute and a half.
    assert!(refused.retry_after <= Duration::from_secs(90));
    assert!(refused.retry_after > Duration::from_secs(60));
    for node in &nodes {
        assert!(node.has("portcullis_cluster_fallbacks_total 0"));
    }
    let clients = networks(250);
    let others = [
        clients.first().copied().unwrap(),
        "192.0.2.1".parse().unwrap(),
        "2001:db8:2::1".parse().unwrap(),
    ];
    let results = ask(&limiters[0], &others).await;
    assert_eq!(passed(&results), 2, "IPv4 and another site");
}

#[tokio::test]
async fn rate_2_what_one_budget_refuses_is_taken_from_no_other_in_redis_either() {
    let Some(server) = RedisServer::start(Some(PASSWORD)) else {
        return;
    };
    let node = Node::new(&settings(server.port), AMPLE);
    node.up().await;
    let limiter = node.clients(quota(4));
    let site = networks(100);
    // Ten times too often from one client: its own budget refuses.
    let one = vec![site[0]; 40];
    let results = ask(&limiter, &one).await;
    assert_eq!(passed(&results), 4);
    let names = results.iter().filter_map(|result| result.err());
    assert!(names.into_iter().all(|refused| refused.limit == NAMES[0]));
    assert_eq!(passed(&ask(&limiter, &site[1..]).await), 12);
    // Refused by the site, a client keeps what it has: otherwise its own budget would refuse from the fifth time on.
    let results = ask(&limiter, &vec![site[99]; 40]).await;
    assert!(
        results
            .iter()
            .all(|result| result.is_err_and(|refused| refused.limit == NAMES[1]))
    );
    // A refusal leaves no key: those of 4 or 12 clients, as many homes, and one site.
    let keys = server.ask("DBSIZE");
    let keys: usize = keys.trim().trim_start_matches(':').parse().unwrap();
    assert!((3..=13 + 13 + 1).contains(&keys), "{keys}");
}

#[tokio::test]
async fn rate_2_and_rate_5_without_redis_a_site_has_a_warm_half() {
    let Some(mut server) = RedisServer::start(Some(PASSWORD)) else {
        return;
    };
    let node = Node::new(&settings(server.port), AMPLE);
    let limiter = node.clients(quota(10));
    node.up().await;
    let site = networks(200);
    assert_eq!(passed(&ask(&limiter, &site[..15]).await), 15);
    server.kill();
    node.down().await;
    // Half of 40, of which 15 are used up.
    assert_eq!(passed(&ask(&limiter, &site[15..]).await), 5);
    let results = ask(&limiter, &["192.0.2.1".parse().unwrap(); 9]).await;
    assert_eq!(passed(&results), 5, "half of a client's");
}

#[tokio::test]
async fn rate_5_answers_that_name_no_budget_are_not_believed() {
    let asked = ["a", "b"].map(|limit| Asked {
        limit,
        key: "key",
        quota: quota(1),
        in_a_row: false,
    });
    let parts = |parts: &[i64]| Reply::Parts(parts.iter().copied().map(Reply::Integer).collect());
    for wrong in [
        Reply::Integer(1),
        Reply::Integer(-1),
        Reply::Bytes(Some(b"0".to_vec())),
        Reply::Error("ERR".into()),
        parts(&[]),
        parts(&[1]),
        parts(&[0, 5]),
        parts(&[3, 5]),
        parts(&[-1, 5]),
        parts(&[1, -5]),
        parts(&[1, 5, 5]),
        Reply::Parts(vec![Reply::Integer(1), Reply::Bytes(None)]),
    ] {
        assert!(verdict_of(&wrong, &asked).is_none(), "{wrong:?}");
    }
    let Some(Verdict::Refused { place, exceeded }) = verdict_of(&parts(&[2, 7]), &asked) else {
        panic!("a refusal is none");
    };
    assert_eq!((place, exceeded.limit), (1, "b"));
    assert_eq!(exceeded.retry_after, Duration::from_micros(7));
}
