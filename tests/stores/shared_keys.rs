//! Gateways that share their signing keys through PostgreSQL: one first key, one rotation, one revocation. KEY-4, KEY-5, CACHE-4.

use std::fs;

use jsonwebtoken::jwk::JwkSet;
use serde_json::{Value, json};

use crate::{
    harness::{Answer, Gateway, Raw, Site, Upstream, eventually, get, keys::bearer, request},
    server::{self, Server},
};

const PASSWORD: &str = "correct horse battery staple";
const KEY: &str = "64Wp4zAt5TQAZYbHSXMCVuaWQIIuz6DNOAt9TQ+Lczw=";
const OTHER: &str = "2b1f5d7e9c4a60838e0d55aa7193f4c2d6b87f10e3a95c6427bd08f1c43e9a7d";

/// A node of its own folder, which has no key files.
fn site(upstream: &Upstream, url: &str) -> Site {
    let site = unkeyed(upstream, url).set("accounts", "key_encryption_file", "\"kek\"");
    site.secret_file("kek", KEY);
    site.write();
    site
}

fn unkeyed(upstream: &Upstream, url: &str) -> Site {
    let site = Site::new(upstream.address).accounts();
    site.set("accounts", "store", &format!("{url:?}"))
}

async fn post(gateway: &Gateway, target: &str, body: &Value) -> Answer {
    let fields = [("Content-Type", "application/json")];
    let request = request("POST", target, &fields, &body.to_string());
    Raw::connect(gateway).await.exchange(request).await
}

/// The access token and the refresh token of an answer.
fn pair(answer: &Answer) -> (String, String) {
    let grant = answer.is(200).json();
    let text = |name: &str| grant[name].as_str().unwrap().to_owned();
    (text("access_token"), text("refresh_token"))
}

async fn login(gateway: &Gateway) -> (String, String) {
    let body = json!({ "username": "alice", "password": PASSWORD, "delivery": "body" });
    pair(&post(gateway, "/auth/login", &body).await)
}

async fn refresh(gateway: &Gateway, token: &str) -> (String, String) {
    let body = json!({ "refresh_token": token });
    pair(&post(gateway, "/auth/refresh", &body).await)
}

async fn status(gateway: &Gateway, token: &str) -> u16 {
    let field = bearer(token);
    let answer = get(gateway, "/private", &[("Authorization", &field)]).await;
    answer.status
}

/// Waits until a gateway refuses a token.
async fn refuses(gateway: &Gateway, token: &str) {
    eventually("the end of a key", async || {
        (status(gateway, token).await == 401).then_some(())
    })
    .await;
}

fn kid(token: &str) -> String {
    jsonwebtoken::decode_header(token).unwrap().kid.unwrap()
}

async fn published(gateway: &Gateway) -> Vec<String> {
    let answer = get(gateway, "/.well-known/jwks.json", &[]).await;
    let set: JwkSet = serde_json::from_slice(&answer.is(200).body).unwrap();
    let kids = set.keys.into_iter().map(|key| key.common.key_id.unwrap());
    kids.collect()
}

async fn keys(site: &Site, arguments: &[&str]) -> Vec<Value> {
    let arguments = [&["key"], arguments, &["--format", "json"]].concat();
    let exit = site.run(&arguments, "").await;
    assert_eq!(exit.code, Some(0), "{exit:?}");
    let listed: Value = serde_json::from_str(&exit.stdout).unwrap();
    listed["keys"].as_array().unwrap().clone()
}

fn is_refused(exit: &crate::harness::site::Exit, words: &str) {
    assert_eq!(exit.code, Some(1), "{exit:?}");
    assert!(exit.stderr.contains(words), "{exit:?}");
    assert!(
        !exit.stderr.contains(KEY) && !exit.stderr.contains(OTHER),
        "{exit:?}"
    );
}

/// Every value of every column of the tables of keys, as a backup has them.
async fn dump(url: &str) -> String {
    let client = server::connect(url).await;
    let rows = client
        .query("SELECT signing_keys::text FROM signing_keys UNION ALL SELECT signing_ring::text FROM signing_ring", &[])
        .await
        .unwrap();
    rows.iter()
        .map(|row| row.get::<_, String>(0) + "\n")
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn key_5_a_gateway_with_another_key_encryption_key_or_none_does_not_start() {
    let Some(server) = Server::shared() else {
        return;
    };
    let url = server.database().await;
    let upstream = Upstream::start().await;
    let good = site(&upstream, &url);
    good.user("alice", PASSWORD, &[]).await;
    let before = dump(&url).await;
    let exit = good.run(&["check"], "").await;
    assert!(
        exit.stdout.contains("encrypted in the account store\n"),
        "{exit:?}"
    );
    assert!(!exit.stderr.contains("files of each gateway"), "{exit:?}");
    let wrong = site(&upstream, &url);
    wrong.secret_file("kek", OTHER);
    is_refused(
        &wrong.run(&["run"], "").await,
        "accounts.key_encryption_file",
    );
    for arguments in [&["key", "rotate"][..], &["key", "rewrap"]] {
        is_refused(&wrong.run(arguments, "").await, "key revoke --all");
    }
    wrong.mode("kek", 0o644);
    is_refused(&wrong.run(&["run"], "").await, "chmod 600");
    wrong.mode("kek", 0o600);
    wrong.secret_file("kek", "correct horse");
    is_refused(&wrong.run(&["run"], "").await, "openssl rand -base64 32");
    let none = unkeyed(&upstream, &url);
    none.write();
    for arguments in [&["run"][..], &["key", "rotate"], &["key", "revoke", "x"]] {
        is_refused(&none.run(arguments, "").await, "key_encryption_file");
    }
    let exit = none.run(&["check"], "").await;
    assert_eq!(exit.code, Some(0), "{exit:?}");
    assert!(exit.stderr.contains("files of each gateway"), "{exit:?}");
    assert_eq!(dump(&url).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn key_4_three_gateways_that_start_at_once_have_one_key_and_follow_one_rotation_and_revocation()
 {
    let Some(server) = Server::shared() else {
        return;
    };
    let url = server.database().await;
    let upstream = Upstream::start().await;
    let sites = [(); 3].map(|()| site(&upstream, &url));
    let [one, two, three] = sites;
    let (one, two, three) = tokio::join!(one.start(), two.start(), three.start());
    let nodes = [&one, &two, &three];
    let first = published(&one).await;
    assert_eq!(first.len(), 1);
    for node in nodes {
        assert_eq!(published(node).await, first);
        assert!(!node.path().join("data/keys").exists(), "no key is a file");
    }
    one.site.user("alice", PASSWORD, &[]).await;
    let (old, _) = login(&one).await;
    for node in nodes {
        assert_eq!(status(node, &old).await, 200);
    }
    // At one; all publish it before any signs with it.
    let listed = keys(&two.site, &["rotate", "--after", "10s"]).await;
    let new = listed[1]["kid"].as_str().unwrap().to_owned();
    assert_eq!(listed[1]["key_encryption_key"], "current");
    for node in nodes {
        eventually("the new key at a node", async || {
            published(node).await.contains(&new).then_some(())
        })
        .await;
    }
    eventually("the new key's turn", async || {
        // The one that signs is published first.
        (published(&three).await[0] == new).then_some(())
    })
    .await;
    let (token, _) = login(&three).await;
    assert_eq!(kid(&token), new);
    for node in nodes {
        assert_eq!(status(node, &token).await, 200);
        assert_eq!(status(node, &old).await, 200, "the old one is believed on");
    }
    // Stolen: by command at one, without word to the others.
    keys(&three.site, &["revoke", &new]).await;
    for node in nodes {
        refuses(node, &token).await;
        let count = upstream.count();
        assert_eq!(status(node, &token).await, 401);
        assert_eq!(upstream.count(), count);
    }
    let (last, _) = login(&two).await;
    assert_ne!(kid(&last), new);
    for node in nodes {
        assert_eq!(status(node, &last).await, 200);
    }
    for node in nodes {
        let told = node.err.text();
        assert!(told.contains(&new), "each tells of the change");
        assert!(!told.contains(KEY) && !told.contains("PRIVATE"), "{told}");
    }
    let text = dump(&url).await;
    assert!(
        text.contains(&kid(&last)) && !text.contains("PRIVATE"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn key_4_key_files_move_into_the_store_and_no_session_is_lost() {
    let Some(server) = Server::shared() else {
        return;
    };
    let url = server.database().await;
    let upstream = Upstream::start().await;
    let before = unkeyed(&upstream, &url);
    before.write();
    before.user("alice", PASSWORD, &[]).await;
    let gateway = before.start().await;
    let (access, renewal) = login(&gateway).await;
    let folder = gateway.path().join("data/keys");
    let pem = fs::read_to_string(folder.join(format!("{}.pem", kid(&access)))).unwrap();
    // The same node with a key-encryption key, by a changed configuration.
    let mut gateway = gateway;
    gateway.signal("TERM");
    assert!(gateway.exit().await.success());
    gateway.site.secret_file("kek", KEY);
    let text = fs::read_to_string(gateway.site.config()).unwrap();
    let text = text.replace("[accounts]", "[accounts]\nkey_encryption_file = \"kek\"");
    fs::write(gateway.site.config(), text).unwrap();
    let exit = gateway.site.run(&["check"], "").await;
    for words in ["encrypted in the account store", "taken over", "data/keys"] {
        assert!(exit.stdout.contains(words), "{exit:?}");
    }
    let gateway = gateway.again().await;
    assert_eq!(status(&gateway, &access).await, 200);
    gateway
        .err
        .find("the folder that is not used", |line| {
            line.contains("not used any more").then_some(())
        })
        .await;
    // A second one, which has no files and needs none.
    let second = site(&upstream, &url).start().await;
    assert_eq!(status(&second, &access).await, 200);
    let (access, _) = refresh(&second, &renewal).await;
    assert_eq!(status(&gateway, &access).await, 200);
    let text = dump(&url).await;
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    use base64::Engine;
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(&body)
        .unwrap();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(text.contains("\\\\x") || text.contains("\\x"), "{text}");
    for at in (0..hex.len() - 32).step_by(2) {
        // The public half follows the private one, and is no secret; it is not here either.
        assert!(!text.contains(&hex[at..at + 32]));
    }
    assert!(!text.contains(&body[40..60]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_5_gateways_go_on_with_the_keys_that_they_have_while_the_store_is_away() {
    let Some(mut server) = Server::start(|_| ()) else {
        return;
    };
    let url = server.database().await;
    let upstream = Upstream::start().await;
    let (first, second) = (site(&upstream, &url), site(&upstream, &url));
    first.user("alice", PASSWORD, &[]).await;
    let (first, second) = (first.start().await, second.start().await);
    let (access, renewal) = login(&first).await;
    assert_eq!(status(&second, &access).await, 200);
    let keys = published(&first).await;
    server.kill();
    for gateway in [&first, &second] {
        eventually("word of the lost store", async || {
            let answer = gateway.admin("/readyz").await;
            answer.text().contains("account store").then_some(())
        })
        .await;
        assert_eq!(status(gateway, &access).await, 200);
        assert_eq!(published(gateway).await, keys);
    }
    // One that is begun meanwhile knows no key, and says so instead of publishing none.
    let mut second = second;
    second.signal("TERM");
    assert!(second.exit().await.success());
    let second = second.again().await;
    assert_eq!(status(&second, &access).await, 503);
    for path in [
        "/.well-known/jwks.json",
        "/.well-known/openid-configuration",
    ] {
        get(&second, path, &[])
            .await
            .refused(503, "store_unavailable");
    }
    server.resume();
    eventually("the keys", async || {
        (status(&second, &access).await == 200).then_some(())
    })
    .await;
    assert_eq!(published(&second).await, keys);
    let (access, _) = refresh(&second, &renewal).await;
    assert_eq!(status(&first, &access).await, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn key_5_a_gateway_that_finds_another_key_encryption_key_when_the_store_is_back_does_nothing()
{
    let Some(mut server) = Server::start(|_| ()) else {
        return;
    };
    let url = server.database().await;
    let upstream = Upstream::start().await;
    let good = site(&upstream, &url);
    good.user("alice", PASSWORD, &[]).await;
    let good = good.start().await;
    let (access, renewal) = login(&good).await;
    let before = dump(&url).await;
    server.kill();
    // It cannot know yet that it has the wrong one.
    let wrong = site(&upstream, &url);
    wrong.secret_file("kek", OTHER);
    let wrong = wrong.start().await;
    server.resume();
    eventually("word of the other key-encryption key", async || {
        let answer = wrong.admin("/readyz").await;
        answer.text().contains("key_encryption_file").then_some(())
    })
    .await;
    assert_eq!(status(&wrong, &access).await, 503);
    get(&wrong, "/.well-known/jwks.json", &[])
        .await
        .refused(503, "store_unavailable");
    let body = json!({ "username": "alice", "password": PASSWORD });
    let refused = post(&wrong, "/auth/login", &body).await;
    refused.refused(503, "store_unavailable");
    // No refresh token is consumed for nothing, which would end its session as stolen.
    for _ in 0..2 {
        let body = json!({ "refresh_token": renewal });
        let refused = post(&wrong, "/auth/refresh", &body).await;
        refused.refused(503, "store_unavailable");
    }
    eventually("the store at the good one", async || {
        let answer = good.admin("/readyz").await;
        (!answer.text().contains("account store")).then_some(())
    })
    .await;
    refresh(&good, &renewal).await;
    assert_eq!(dump(&url).await, before);
}
