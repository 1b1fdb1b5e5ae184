//! Signing keys that one node's operator changes are those of all nodes (KEY-4, CACHE-4).

use serde_json::Value;

use super::{BOUND, Grant, Trio, login, refresh, sealed, shared_engines, status};
use crate::harness::{Gateway, Site, eventually, get};

async fn keys(node: &Gateway, arguments: &[&str]) -> Vec<Value> {
    let arguments = [arguments, &["--format", "json"]].concat();
    let exit = node.site.run(&arguments, "").await;
    assert_eq!(exit.code, Some(0), "{exit:?}");
    let listed: Value = serde_json::from_str(&exit.stdout).unwrap();
    listed["keys"].as_array().unwrap().clone()
}

fn kid(token: &str) -> String {
    jsonwebtoken::decode_header(token).unwrap().kid.unwrap()
}

/// Whether a node publishes a key.
async fn publishes(node: &Gateway, kid: &str) -> bool {
    let set = get(node, "/.well-known/jwks.json", &[])
        .await
        .is(200)
        .json();
    let keys = set["keys"].as_array().unwrap();
    keys.iter().any(|key| key["kid"] == kid)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn key_4_a_rotation_at_one_of_three_nodes_is_obeyed_by_all_and_refuses_no_token() {
    rotate(sealed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn key_4_a_rotation_is_obeyed_by_three_nodes_on_one_folder_too() {
    rotate(|site| site).await;
}

async fn rotate(change: impl Fn(Site) -> Site) {
    let Some((_redis, way)) = shared_engines().await else {
        return;
    };
    let trio = Trio::start(&way, &["alice", "bob"], change).await;
    let addresses = trio.addresses();
    let old = login(addresses[0], "alice").await;
    let old_kid = kid(&old.access);
    for (index, node) in trio.nodes.iter().enumerate() {
        assert_eq!(status(node.tls, &old.access).await, 200);
        let listed = keys(node, &["key", "list"]).await;
        assert_eq!(listed.len(), 1, "node {index} has other keys: {listed:?}");
    }
    let listed = keys(&trio.nodes[1], &["key", "rotate", "--after", "6s"]).await;
    let waiting = listed.iter().find(|key| key["state"] == "waiting").unwrap();
    let new_kid = waiting["kid"].as_str().unwrap();
    // All publish it; then all sign with it, and every node believes each token of every other, old and new.
    for node in &trio.nodes {
        eventually("the new key among the published", async || {
            publishes(node, new_kid).await.then_some(())
        })
        .await;
    }
    for node in &trio.nodes {
        let renewal = Grant::of(&refresh(node.tls, &login(node.tls, "bob").await.renewal).await);
        let new = eventually("tokens of the new key", async || {
            let grant = Grant::of(&refresh(node.tls, &renewal.renewal).await);
            for address in &addresses {
                assert_eq!(status(*address, &grant.access).await, 200);
                assert_eq!(status(*address, &old.access).await, 200);
            }
            (kid(&grant.access) == new_kid).then_some(grant)
        })
        .await;
        for address in &addresses {
            assert_eq!(status(*address, &new.access).await, 200);
        }
    }
    // Revoked at the third node: its tokens end at all, the sessions do not.
    let exit = trio.nodes[2]
        .site
        .run(&["key", "revoke", &old_kid], "")
        .await;
    assert_eq!(exit.code, Some(0), "{exit:?}");
    for node in &trio.nodes {
        eventually("the end of the old key", async || {
            (status(node.tls, &old.access).await == 401).then_some(())
        })
        .await;
        assert!(!publishes(node, &old_kid).await);
    }
    let renewed = Grant::of(&refresh(addresses[1], &old.renewal).await);
    assert_eq!(kid(&renewed.access), new_kid);
    for address in &addresses {
        assert_eq!(status(*address, &renewed.access).await, 200);
    }
    assert!(BOUND.as_secs() < 6, "all know a key before it signs");
}
