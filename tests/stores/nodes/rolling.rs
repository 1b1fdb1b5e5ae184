//! Nodes that leave in order take no request with them, and one that is killed those alone that it had (CFG-3, FAULT-7).

use super::{
    Trio, Way,
    balancer::Balancer,
    exchange,
    load::{Client, Load, telling},
    login, private_request, sealed, shared_engines,
};
use crate::harness::Token;

/// Clients of several users: of both versions of HTTP, with kept connections and with new ones, with bodies and without.
async fn clients(trio: &Trio) -> Vec<Client> {
    let mut clients = Vec::new();
    for (number, user) in ["alice", "bob", "carol"].iter().enumerate() {
        let token = match number {
            // Of another issuer: nobody's store is asked.
            2 => Token::good().claim("sub", *user).sign(),
            _ => login(trio.nodes[number].tls, user).await.access,
        };
        let client = |fresh, posts, http2| Client {
            user: (*user).to_owned(),
            token: token.clone(),
            fresh,
            posts,
            http2,
        };
        clients.extend([
            client(false, false, true),
            client(false, false, false),
            client(false, true, false),
            client(true, false, false),
            client(true, true, false),
        ]);
    }
    clients
}

async fn trio(way: &Way) -> Trio {
    let ways = [way.clone(), way.clone(), way.clone()];
    let change = |site: crate::harness::Site| {
        sealed(site).set("server", "drain_delay", "\"3s\"").set(
            "server",
            "drain_timeout",
            "\"20s\"",
        )
    };
    Trio::by_ways(&ways, telling().await, &["alice", "bob"], change).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cfg_3_a_rolling_restart_with_another_configuration_fails_no_request() {
    let Some((_redis, way)) = shared_engines().await else {
        return;
    };
    let mut trio = trio(&way).await;
    let balancer = Balancer::before(&trio).await;
    let load = Load::begin(balancer.address, &clients(&trio).await);
    load.goes_on(100).await;
    for index in 0..3 {
        trio.nodes[index].signal("TERM");
        balancer.sees(index, false).await;
        load.goes_on(20).await;
        assert!(trio.nodes[index].exit().await.success());
        load.goes_on(20).await;
        let new = |site: crate::harness::Site| site.route("new", "/new", "authenticated");
        trio.start_again(index, new).await;
        balancer.sees(index, true).await;
        load.goes_on(20).await;
    }
    let sum = load.end().await;
    println!(
        "{} served, {} of them asked for again",
        sum.served, sum.repeated
    );
    assert!(sum.failures.is_empty(), "{sum:?}");
    let token = Token::good().claim("sub", "carol").sign();
    for address in trio.addresses() {
        let answer = exchange(address, private_request("/new", &token)).await;
        assert_eq!(answer.is(200).text(), "carol /new");
    }
    trio.upstream.saw_no_fault();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_7_a_node_that_is_killed_fails_only_what_was_under_way_on_it() {
    let Some((_redis, way)) = shared_engines().await else {
        return;
    };
    let mut trio = trio(&way).await;
    let balancer = Balancer::before(&trio).await;
    let clients = clients(&trio).await;
    let load = Load::begin(balancer.address, &clients);
    load.goes_on(100).await;
    for index in [1, 2] {
        trio.kill(index).await;
        balancer.doom(index);
        load.goes_on(100).await;
        trio.start_again(index, |site| site).await;
        balancer.sees(index, true).await;
        load.goes_on(20).await;
    }
    let sum = load.end().await;
    println!("{sum:?}");
    // One for each client and kill at most.
    assert!(sum.failures.len() <= 2 * clients.len(), "{sum:?}");
    for failure in &sum.failures {
        let local = failure.local.unwrap();
        assert!(balancer.is_doomed(local), "{failure:?}");
    }
}
