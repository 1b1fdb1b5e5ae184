//! The gateway's own keys, changed by command while it serves.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use jsonwebtoken::{DecodingKey, Validation, jwk::JwkSet};
use serde_json::{Value, json};

use crate::harness::{Gateway, Raw, Site, Upstream, eventually, get, keys::bearer, request};

const PASSWORD: &str = "correct horse battery staple";

async fn gateway(upstream: &Upstream) -> Gateway {
    let site = Site::new(upstream.address).accounts();
    site.write();
    for name in ["alice", "bob"] {
        site.user(name, PASSWORD, &[]).await;
    }
    site.start().await
}

async fn login(gateway: &Gateway) -> String {
    login_as(gateway, "alice").await
}

async fn login_as(gateway: &Gateway, name: &str) -> String {
    let body = json!({"username": name, "password": PASSWORD, "delivery": "body"}).to_string();
    let mut raw = Raw::connect(gateway).await;
    let fields = [("Content-Type", "application/json")];
    let answer = raw
        .exchange(request("POST", "/auth/login", &fields, &body))
        .await;
    let answer = answer.is(200).json();
    answer["access_token"].as_str().unwrap().to_owned()
}

async fn status(gateway: &Gateway, token: &str) -> u16 {
    get(gateway, "/private", &[("Authorization", &bearer(token))])
        .await
        .status
}

fn kid(token: &str) -> String {
    jsonwebtoken::decode_header(token).unwrap().kid.unwrap()
}

async fn keys(gateway: &Gateway, arguments: &[&str]) -> Vec<Value> {
    let arguments = [arguments, &["--format", "json"]].concat();
    let exit = gateway.site.run(&arguments, "").await;
    assert_eq!(exit.code, Some(0), "{exit:?}");
    let listed: Value = serde_json::from_str(&exit.stdout).unwrap();
    listed["keys"].as_array().unwrap().clone()
}

/// Verifies with what the gateway publishes and with nothing else, as a service elsewhere would.
async fn verified_elsewhere(gateway: &Gateway, token: &str) -> bool {
    let document = get(gateway, "/.well-known/openid-configuration", &[])
        .await
        .is(200)
        .json();
    let issuer = document["issuer"].as_str().unwrap();
    let path = document["jwks_uri"].as_str().unwrap().strip_prefix(issuer);
    let published = get(gateway, path.unwrap(), &[]).await;
    assert_eq!(
        published.header("cache-control"),
        Some("public, max-age=300")
    );
    let set: JwkSet = serde_json::from_slice(&published.is(200).body).unwrap();
    let header = jsonwebtoken::decode_header(token).unwrap();
    let name = json!(format!("{:?}", header.alg));
    let algorithms = document["id_token_signing_alg_values_supported"].as_array();
    assert!(algorithms.unwrap().contains(&name), "{document}");
    let Some(jwk) = set.find(&header.kid.unwrap()) else {
        return false;
    };
    let mut validation = Validation::new(header.alg);
    validation.set_audience(&["portcullis"]);
    validation.set_issuer(&[issuer]);
    let key = DecodingKey::from_jwk(jwk).unwrap();
    jsonwebtoken::decode::<Value>(token, &key, &validation).is_ok()
}

#[tokio::test]
async fn key_4_a_rotation_under_load_refuses_no_valid_token() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let old = login(&gateway).await;
    assert!(verified_elsewhere(&gateway, &old).await);
    let done = AtomicBool::new(false);
    let load = async {
        let mut served = 0;
        while !done.load(Ordering::SeqCst) {
            assert_eq!(status(&gateway, &old).await, 200);
            served += 1;
        }
        served
    };
    let rotation = async {
        let listed = keys(&gateway, &["key", "rotate", "--after", "2s"]).await;
        let states: Vec<_> = listed
            .iter()
            .map(|key| key["state"].as_str().unwrap())
            .collect();
        assert_eq!(states, ["signing", "waiting"]);
        assert_eq!(listed[0]["kid"], *kid(&old));
        let new = eventually("the new key", async || {
            // Another account: beyond so many sessions the oldest ends, and its token with it (SESS-9).
            let token = login_as(&gateway, "bob").await;
            (kid(&token) != kid(&old)).then_some(token)
        })
        .await;
        assert_eq!(status(&gateway, &new).await, 200);
        for token in [&old, &new] {
            assert!(verified_elsewhere(&gateway, token).await);
        }
        done.store(true, Ordering::SeqCst);
        new
    };
    let (served, new) = tokio::join!(load, rotation);
    assert!(served > 0);
    let states = keys(&gateway, &["key", "list"]).await;
    assert_eq!(states[0]["kid"], *kid(&new));
    assert_eq!(states[1]["state"], "retiring");
}

#[tokio::test]
async fn key_4_a_revoked_key_is_refused_by_the_running_gateway_within_five_seconds() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let old = login(&gateway).await;
    assert_eq!(status(&gateway, &old).await, 200);
    let exit = gateway.site.run(&["key", "revoke", &kid(&old)], "").await;
    assert_eq!(exit.code, Some(0), "{exit:?}");
    let begun = Instant::now();
    eventually("the end of the old key", async || {
        (status(&gateway, &old).await == 401).then_some(())
    })
    .await;
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(20), "{took:?} on a busy machine");
    let count = upstream.count();
    get(&gateway, "/private", &[("Authorization", &bearer(&old))])
        .await
        .refused(401, "token_invalid");
    assert_eq!(upstream.count(), count);
    let new = login(&gateway).await;
    assert_eq!(status(&gateway, &new).await, 200);
    assert!(verified_elsewhere(&gateway, &new).await);
    assert!(!verified_elsewhere(&gateway, &old).await);
}

#[tokio::test]
async fn key_4_commands_over_keys_refuse_what_is_none() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    for kid in ["nobody", "../portcullis.db", "-x"] {
        let exit = gateway.site.run(&["key", "revoke", kid], "").await;
        assert_eq!(exit.code, Some(1), "{exit:?}");
        assert!(exit.stderr.contains("key list"), "{exit:?}");
    }
    let exit = gateway
        .site
        .run(&["key", "rotate", "--after", "soon"], "")
        .await;
    assert_eq!(exit.code, Some(2), "{exit:?}");
    let exit = gateway.site.run(&["key", "list"], "").await;
    assert!(exit.stdout.starts_with("KID "), "{exit:?}");
    assert_eq!(exit.stdout.lines().count(), 2, "{exit:?}");
}

#[tokio::test]
async fn key_4_every_algorithm_serves() {
    let upstream = Upstream::start().await;
    for algorithm in ["EdDSA", "RS256", "HS256"] {
        let site = Site::new(upstream.address).accounts().set(
            "accounts",
            "signing",
            &format!("{algorithm:?}"),
        );
        site.write();
        site.user("alice", PASSWORD, &[]).await;
        let gateway = site.start().await;
        let token = login(&gateway).await;
        let header = jsonwebtoken::decode_header(&token).unwrap();
        assert_eq!(format!("{:?}", header.alg), algorithm);
        assert_eq!(status(&gateway, &token).await, 200);
        assert_eq!(upstream.last().header("x-forwarded-user"), Some("alice"));
        if algorithm != "HS256" {
            assert!(verified_elsewhere(&gateway, &token).await, "{algorithm}");
        }
    }
}
