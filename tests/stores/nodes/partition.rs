//! One node of three is cut off from an engine that the others reach: its bounds hold, and nothing that ended meanwhile comes
//! back when it heals (STORE-6, FAULT-5).

use super::{
    Grant, PASSWORD, Trio, Way, exchange, is_healthy, login, login_request, logout_request, misses,
    private_request, refresh, sealed, shared_engines, status,
};
use crate::{
    harness::{
        RedisServer, Site, Token, Upstream, eventually,
        gate::{Gate, State},
    },
    server::Server,
};

struct Cut {
    trio: Trio,
    store: Gate,
    redis: Gate,
    _redis: RedisServer,
}

/// Three nodes, the last of which reaches the engines by gates.
async fn cut() -> Option<Cut> {
    let (redis, way) = shared_engines().await?;
    let server = Server::shared()?;
    let (store_gate, redis_gate) = (
        Gate::before(server.port).await,
        Gate::before(redis.port).await,
    );
    let gated = Way {
        store: way.store.replace(
            &format!(":{}/", server.port),
            &format!(":{}/", store_gate.port),
        ),
        redis: Some(redis_gate.port),
    };
    assert_ne!(gated.store, way.store);
    let change = |site: Site| {
        sealed(site)
            .set("accounts", "max_lag", "\"3s\"")
            .route("strict", "/strict", "authenticated")
            .on_route("strict", "true")
    };
    let ways = [way.clone(), way, gated];
    let trio = Trio::by_ways(&ways, Upstream::start().await, &["alice", "bob"], change).await;
    Some(Cut {
        trio,
        store: store_gate,
        redis: redis_gate,
        _redis: redis,
    })
}

/// Signs somebody in whom all nodes know, and out at the first node, which the second hears of.
async fn end_a_session(trio: &Trio) -> Grant {
    let addresses = trio.addresses();
    let grant = login(addresses[0], "alice").await;
    assert_eq!(status(addresses[0], &grant.access).await, 200);
    assert_eq!(status(addresses[2], &grant.access).await, 200);
    exchange(addresses[0], logout_request(&grant.renewal))
        .await
        .is(204);
    eventually("the end at the second node", async || {
        (status(addresses[1], &grant.access).await == 401).then_some(())
    })
    .await;
    grant
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn store_6_a_node_cut_off_from_postgresql_refuses_on_strict_routes_and_brings_nothing_back() {
    let Some(cut) = cut().await else {
        return;
    };
    let trio = &cut.trio;
    let address = trio.nodes[2].tls;
    let strict = async |token: &str| exchange(address, private_request("/strict", token)).await;
    let bystander = login(trio.nodes[1].tls, "bob").await;
    strict(&bystander.access).await.is(200);
    for state in [State::Silent, State::Shut] {
        cut.store.set(state);
        let grant = end_a_session(trio).await;
        // Nobody can tell it; but it knows that it does not know.
        eventually("the strict route to refuse", async || {
            let answer = strict(&grant.access).await;
            (answer.status != 200).then(|| answer.refused(503, "store_unavailable"))
        })
        .await;
        let lag = trio.nodes[2].metric("portcullis_revocation_lag_seconds");
        assert!(lag.await.unwrap() >= 3.0);
        misses(&trio.nodes[2], "account store", true).await;
        let before = trio.upstream.count();
        for _ in 0..5 {
            let refused = strict(&grant.access).await;
            refused.refused(503, "store_unavailable");
        }
        assert_eq!(trio.upstream.count(), before);
        let foreign = Token::good().sign();
        strict(&foreign).await.is(200);
        cut.store.set(State::Open);
        is_healthy(&trio.nodes[2]).await;
        eventually("the end at the node that was away", async || {
            (status(address, &grant.access).await == 401).then_some(())
        })
        .await;
        let before = trio.upstream.count();
        for _ in 0..20 {
            strict(&grant.access).await.is(401);
            assert_eq!(status(address, &grant.access).await, 401);
        }
        let over = refresh(address, &grant.renewal).await;
        over.refused(401, "invalid_grant");
        assert_eq!(trio.upstream.count(), before);
        strict(&bystander.access).await.is(200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn store_6_and_cache_4_a_node_cut_off_from_redis_hears_of_revocations_by_the_store() {
    let Some(cut) = cut().await else {
        return;
    };
    let trio = &cut.trio;
    let address = trio.nodes[2].tls;
    for state in [State::Silent, State::Shut] {
        cut.redis.set(state);
        misses(&trio.nodes[2], "redis", true).await;
        for node in &trio.nodes[..2] {
            misses(node, "redis", false).await;
        }
        let grant = end_a_session(trio).await;
        eventually("the end at the node that is cut off", async || {
            (status(address, &grant.access).await == 401).then_some(())
        })
        .await;
        login(address, "bob").await;
        cut.redis.set(State::Open);
        is_healthy(&trio.nodes[2]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_5_a_node_that_starts_while_engines_are_away_serves_what_needs_none_and_joins() {
    let Some(mut cut) = cut().await else {
        return;
    };
    let grant = login(cut.trio.nodes[0].tls, "alice").await;
    let foreign = Token::good().sign();
    for (store, redis) in [(true, false), (false, true), (true, true)] {
        cut.trio.kill(2).await;
        let state = |away| if away { State::Shut } else { State::Open };
        cut.store.set(state(store));
        cut.redis.set(state(redis));
        cut.trio.start_again(2, |site| site).await;
        let node = &cut.trio.nodes[2];
        misses(node, "account store", store).await;
        misses(node, "redis", redis).await;
        assert_eq!(status(node.tls, &foreign).await, 200);
        if store {
            let refused = exchange(node.tls, login_request("bob", PASSWORD)).await;
            // It cannot know which of our tokens were revoked.
            assert_eq!(status(node.tls, &grant.access).await, 503);
            refused.refused(503, "store_unavailable");
        } else {
            assert_eq!(status(node.tls, &grant.access).await, 200);
            login(node.tls, "bob").await;
        }
        cut.store.set(State::Open);
        cut.redis.set(State::Open);
        is_healthy(node).await;
        assert_eq!(status(node.tls, &grant.access).await, 200);
        login(node.tls, "bob").await;
    }
}
