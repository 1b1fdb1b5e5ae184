//! What the tests stand on: a site with a gateway, an upstream that records, clients that may write any bytes, tokens of
//! any kind.

use std::{future::Future, time::Duration};

pub(crate) mod certs;
pub(crate) mod client;
pub(crate) mod frames;
pub(crate) mod gate;
pub(crate) mod gateway;
pub(crate) mod hello;
pub(crate) mod http1;
pub(crate) mod keys;
#[path = "../../../src/cluster/tests/server.rs"]
pub(crate) mod redis;
pub(crate) mod site;
pub(crate) mod smtp;
pub(crate) mod streams;
pub(crate) mod upstream;
pub(crate) mod websocket;
pub(crate) mod wire;

pub(crate) use client::{H2, Raw, get, request};
pub(crate) use gateway::Gateway;
pub(crate) use http1::{Answer, Broken};
pub(crate) use keys::{Kind, Token};
pub(crate) use redis::RedisServer;
pub(crate) use site::Site;
pub(crate) use upstream::{Reply, Seen, Step, Upstream};
pub(crate) use wire::{Authority, Pair, Wire};

/// How long anything may take before the test fails. Far above what a loaded machine needs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for something that must happen.
#[track_caller]
pub(crate) fn within<F: Future>(what: &str, future: F) -> impl Future<Output = F::Output> {
    let place = std::panic::Location::caller();
    async move {
        match tokio::time::timeout(PATIENCE, future).await {
            Ok(output) => output,
            Err(_) => panic!("{place}: {what}: nothing within {PATIENCE:?}"),
        }
    }
}

/// Asks again and again until there is an answer. For things that become true in another process.
#[track_caller]
pub(crate) fn eventually<T>(
    what: &str,
    mut ask: impl AsyncFnMut() -> Option<T>,
) -> impl Future<Output = T> {
    within(what, async move {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
}
