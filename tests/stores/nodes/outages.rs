//! Each engine is killed under load and returns: what needs it waits, what does not goes on, and nothing that was acknowledged
//! is lost (FAULT-5, STORE-2, STORE-3, RATE-5).

use super::{
    Grant, PASSWORD, Trio, engines, exchange, is_healthy,
    limits::{TEN, Tried, attack, fallbacks},
    load::{Client, Load, telling},
    login, login_request, logout_request, misses, refresh, refresh_request, sealed, shared_engines,
    status,
    writers::Writers,
};
use crate::harness::{Answer, Gateway, Site, Token};

/// Readers at each node, of an account of our own where there is one and of another issuer.
fn loads(trio: &Trio, own: Option<&Grant>) -> Vec<Load> {
    let client = |user: &str, token: &str, fresh| Client {
        user: user.to_owned(),
        token: token.to_owned(),
        fresh,
        posts: fresh,
        http2: !fresh,
    };
    let foreign = Token::good().claim("sub", "zoe").sign();
    let mut clients = vec![client("zoe", &foreign, false)];
    clients.extend(own.map(|own| client("alice", &own.access, true)));
    let begin = |address| Load::begin(address, &clients);
    trio.addresses().into_iter().map(begin).collect()
}

async fn go_on(loads: &[Load], more: usize) {
    for load in loads {
        load.goes_on(more).await;
    }
}

/// No proxied request noticed anything.
async fn end(loads: Vec<Load>) {
    for load in loads {
        let sum = load.end().await;
        assert!(sum.served > 0 && sum.failures.is_empty(), "{sum:?}");
    }
}

fn is_unavailable(answer: &Answer) {
    answer.refused(503, "store_unavailable");
    let wait = answer.header("retry-after").unwrap();
    assert!(wait.parse::<u32>().unwrap() > 0);
}

async fn lag(node: &Gateway) -> f64 {
    let metric = node.metric("portcullis_revocation_lag_seconds").await;
    metric.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_5_and_store_2_postgresql_that_dies_under_load_takes_no_acknowledged_write_and_no_request()
 {
    let Some((mut server, _redis, way)) = engines().await else {
        return;
    };
    let ways = [way.clone(), way.clone(), way];
    let users = ["alice", "bob", "carol"];
    let trio = Trio::by_ways(&ways, telling().await, &users, sealed).await;
    let addresses = trio.addresses();
    let (grant, unseen) = (
        login(addresses[0], "alice").await,
        login(addresses[1], "alice").await,
    );
    let loads = loads(&trio, Some(&grant));
    let writers = Writers::begin(&addresses, &["bob", "carol"]);
    for _ in 0..2 {
        writers.go_on(20).await;
        server.kill();
        for node in &trio.nodes {
            misses(node, "account store", true).await;
            let old = lag(node).await;
            is_unavailable(&exchange(node.tls, login_request("alice", PASSWORD)).await);
            is_unavailable(&exchange(node.tls, refresh_request(&grant.renewal)).await);
            is_unavailable(&exchange(node.tls, logout_request(&unseen.renewal)).await);
            // A token that nobody has seen yet needs no store either.
            assert_eq!(status(node.tls, &unseen.access).await, 200);
            assert!(lag(node).await > old);
        }
        go_on(&loads, 20).await;
        server.resume();
        for node in &trio.nodes {
            is_healthy(node).await;
        }
    }
    writers.go_on(20).await;
    end(loads).await;
    writers.end(&trio).await;
    // The logout that was refused did not happen in secret.
    Grant::of(&refresh(addresses[2], &unseen.renewal).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rate_5_and_fault_5_redis_that_dies_under_load_leaves_three_stricter_nodes_and_returns() {
    let Some((mut redis, way)) = shared_engines().await else {
        return;
    };
    let ways = [way.clone(), way.clone(), way];
    let change = |site: Site| site.set("accounts", "login_limit", TEN);
    let trio = Trio::by_ways(&ways, telling().await, &[], change).await;
    let loads = loads(&trio, None);
    go_on(&loads, 20).await;
    let before = attack(&trio, 60).await;
    redis.kill();
    let meanwhile = attack(&trio, 60).await;
    for node in &trio.nodes {
        misses(node, "redis", true).await;
        let up = node.metric("portcullis_cluster_up{store=\"redis\"}").await;
        assert_eq!(up, Some(0.0));
    }
    let after = attack(&trio, 60).await;
    // Ten of all together, and each node's half, of which what was used before is gone.
    let looked_at = before.looked_at + meanwhile.looked_at + after.looked_at;
    let shed = before.shed + meanwhile.shed + after.shed;
    assert!(
        looked_at <= 25 && looked_at + shed >= 10,
        "{looked_at} {shed}"
    );
    if shed == 0 {
        assert!(fallbacks(&trio.nodes).await >= 60.0);
    }
    go_on(&loads, 20).await;
    redis.again();
    for node in &trio.nodes {
        is_healthy(node).await;
        let lines = node.err.all();
        let lost = lines.iter().filter(|line| line.contains("cluster_lost"));
        assert_eq!(lost.count(), 1);
    }
    let before = fallbacks(&trio.nodes).await;
    let Tried { looked_at, shed } = attack(&trio, 60).await;
    assert!(looked_at <= 10, "{looked_at}");
    if shed == 0 && fallbacks(&trio.nodes).await.total_cmp(&before).is_eq() {
        assert_eq!(looked_at, 10, "it came back empty, and counts for all");
    }
    go_on(&loads, 20).await;
    end(loads).await;
}
