//! What ends at one node ends at all three: at once by Redis, and within five seconds without it (CACHE-4).

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::task::JoinHandle;

use super::{
    BOUND, Grant, PASSWORD, Trio, Way, call, exchange, login, logout_request, patiently, refresh,
    sealed, shared_engines, status,
};
use crate::harness::{Gateway, RedisServer, eventually, keys::unbase64};

const NEW: &str = "another horse battery staple";

/// How long this process did not get its turn: a machine that is so busy may not be held to seconds.
struct Stalls {
    lost: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Stalls {
    fn watch() -> Self {
        const TICK: Duration = Duration::from_millis(10);
        let lost = Arc::new(AtomicU64::new(0));
        let sum = Arc::clone(&lost);
        let task = tokio::spawn(async move {
            loop {
                let begun = Instant::now();
                tokio::time::sleep(TICK).await;
                let late = begun.elapsed().saturating_sub(TICK);
                if late > TICK {
                    let late = u64::try_from(late.as_millis()).unwrap();
                    sum.fetch_add(late, Ordering::SeqCst);
                }
            }
        });
        Self { lost, task }
    }

    fn lost(&self) -> Duration {
        Duration::from_millis(self.lost.load(Ordering::SeqCst))
    }
}

impl Drop for Stalls {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Waits until these nodes refuse a token that was ended just now, and says how long the last of them took.
async fn ends(addresses: &[SocketAddr], token: &str) -> Duration {
    let (begun, stalls) = (Instant::now(), Stalls::watch());
    for address in addresses {
        eventually("the end of a session", async || {
            (status(*address, token).await == 401).then_some(())
        })
        .await;
    }
    let took = begun.elapsed();
    assert!(took < BOUND + stalls.lost(), "{took:?}");
    took
}

async fn messages(node: &Gateway) -> f64 {
    let metric = node.metric("portcullis_cluster_messages_total").await;
    metric.unwrap()
}

/// Signs in at the first node, has all know the token, signs out there, and says how long the others took.
async fn logout(trio: &Trio) -> Duration {
    let addresses = trio.addresses();
    let grant = login(addresses[0], "alice").await;
    for address in &addresses {
        assert_eq!(status(*address, &grant.access).await, 200);
    }
    let left = exchange(addresses[0], logout_request(&grant.renewal)).await;
    left.is(204);
    assert_eq!(status(addresses[0], &grant.access).await, 401, "at once");
    let took = ends(&addresses[1..], &grant.access).await;
    for address in &addresses {
        let over = refresh(*address, &grant.renewal).await;
        over.refused(401, "invalid_grant");
    }
    took
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cache_4_a_logout_at_one_of_three_nodes_is_known_to_all_with_redis_and_without() {
    let Some((mut redis, way)) = shared_engines().await else {
        return;
    };
    let trio = Trio::start(&way, &["alice"], sealed).await;
    for _ in 0..3 {
        let mut before = Vec::new();
        for node in &trio.nodes[1..] {
            before.push(messages(node).await);
        }
        println!("with Redis: {:?}", logout(&trio).await);
        for (node, before) in trio.nodes[1..].iter().zip(before) {
            eventually("the message", async || {
                (messages(node).await > before).then_some(())
            })
            .await;
        }
    }
    lost_messages(&trio, &redis).await;
    redis.kill();
    for node in &trio.nodes {
        super::misses(node, "redis", true).await;
    }
    for _ in 0..2 {
        println!("without Redis: {:?}", logout(&trio).await);
    }
}

/// Messages that nobody hears cost the time until the next look at the store.
async fn lost_messages(trio: &Trio, redis: &RedisServer) {
    for _ in 0..2 {
        redis.ask("CLIENT KILL TYPE pubsub");
        println!("with lost messages: {:?}", logout(trio).await);
    }
}

/// The claim `sub` of a token.
fn subject(token: &str) -> String {
    let claims = unbase64(token.split('.').nth(1).unwrap());
    let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
    claims["sub"].as_str().unwrap().to_owned()
}

/// A node, and a session of somebody that all nodes have seen.
async fn seen_by_all(trio: &Trio, name: &str) -> Grant {
    let addresses = trio.addresses();
    let grant = login(addresses[0], name).await;
    for address in &addresses {
        assert_eq!(status(*address, &grant.access).await, 200);
    }
    grant
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cache_4_whatever_ends_a_session_at_one_of_three_nodes_ends_it_at_all() {
    let Some((_redis, way)) = shared_engines().await else {
        return;
    };
    let users = ["alice", "bob", "carol", "dave", "erin"];
    let trio = Trio::start(&way, &users, sealed).await;
    let all = trio.addresses();
    let site = &trio.nodes[2].site;
    let exit = site.run(&["user", "set-role", "erin", "admin"], "").await;
    assert_eq!(exit.code, Some(0), "{exit:?}");
    let root = seen_by_all(&trio, "erin").await.access;

    let grant = seen_by_all(&trio, "alice").await;
    let out = call("POST", "/auth/logout-all", &grant.access, &json!({}));
    exchange(all[1], out).await.is(204);
    ends(&all, &grant.access).await;

    // The session that changes the password stays, another one of the same user does not.
    let (grant, kept) = (
        seen_by_all(&trio, "alice").await,
        seen_by_all(&trio, "alice").await,
    );
    let change = json!({ "current_password": PASSWORD, "new_password": NEW });
    let change = call("POST", "/auth/password", &kept.access, &change);
    patiently(all[2], change).await.is(204);
    ends(&all, &grant.access).await;

    let grant = seen_by_all(&trio, "bob").await;
    let exit = site.run(&["user", "disable", "bob"], "").await;
    assert_eq!(exit.code, Some(0), "{exit:?}");
    ends(&all, &grant.access).await;
    refresh(all[1], &grant.renewal)
        .await
        .refused(401, "invalid_grant");

    let grant = seen_by_all(&trio, "carol").await;
    let path = format!("/auth/users/{}", subject(&grant.access));
    let change = call("PATCH", &path, &root, &json!({ "roles": ["clerk"] }));
    exchange(all[1], change).await.is(200);
    ends(&all, &grant.access).await;

    let grant = seen_by_all(&trio, "dave").await;
    let path = format!("/auth/users/{}", subject(&grant.access));
    let delete = call("DELETE", &path, &root, &json!({}));
    exchange(all[0], delete).await.is(204);
    ends(&all, &grant.access).await;

    // Nobody else was signed out.
    for address in &all {
        assert_eq!(status(*address, &root).await, 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cache_4_three_nodes_without_redis_share_revocations_by_the_store_alone() {
    let Some(server) = crate::server::Server::shared() else {
        return;
    };
    let way = Way {
        store: server.database().await,
        redis: None,
    };
    let trio = Trio::start(&way, &["alice"], sealed).await;
    println!("without [cluster]: {:?}", logout(&trio).await);
}
