//! Files that a configuration names: lost, broken, changed; and changes that are noticed by themselves.

use std::{fs, os::unix::fs::symlink};

use super::{count, load, post, refused};
use crate::harness::{
    Authority, Gateway, Kind, Raw, Site, Token, Upstream, Wire, certs, eventually, get,
    keys::{bearer, keys},
    request,
};

/// A site that names a file of every kind.
async fn gateway(upstream: &Upstream, authority: &Authority) -> Gateway {
    let mut site = Site::new(upstream.address)
        .issuer(Kind::Rs)
        .on_issuer("name", "\"set\"")
        .on_issuer("issuer", "\"https://set.issuer.test\"")
        .off_issuer("public_key_file")
        .on_issuer("jwks_file", "\"keys/set.json\"")
        .set("tls", "client_auth", "\"optional\"")
        .set("tls", "client_ca", "\"certs/clients.pem\"")
        .upstream("secure", "https://localhost:1")
        .on_upstream(
            "tls",
            r#"{ ca = "certs/up.pem", client_cert = "certs/us.crt", client_key = "certs/us.key" }"#,
        )
        .accounts()
        .route("secure", "/secure", "public")
        .on_route("upstream", "\"secure\"");
    site.extra =
        "[[accounts.client]]\nid = \"svc\"\naudience = [\"orders\"]\nsecret_file = \"keys/svc\"\n"
            .to_owned();
    let pair = authority.sign(&["gateway"]);
    site.secret_file("keys/set.json", r#"{"keys":[{"kty":"RSA","n":"w7Zdfmece8iaB0kiTY8pCtiBtzbptJmP28nSWwtdjRu0f2GFpajvWE4VhfJAjEsOcwYzay7XGN0b-X84BfC8hmCTOj2b2eHT7NsZegFPKRUQzJ9wW8ipn_aDJWMGDuB1XyqT1E7DYqjUCEOD1b4FLpy_xPn6oV_TYOfQ9fZdbE5HGxJUzekuGcOKqOQ8M7wfYHhHHLxGpQVgL0apWuP2gDDOdTtpuld4D2LK1MZK99s9gaSjRHE8JDb1Z4IGhEcEyzkxswVdPndUWzfvWBBWXWxtSUvQGBRkuy1BHOa4sP6FKjWEeeF7gm7UMs2Nm2QUgNZw6xvEDGaLk4KASdIxRQ","e":"AQAB"}]}"#);
    site.secret_file("certs/clients.pem", &certs::Authority::new().pem());
    site.secret_file("certs/up.pem", &authority.pem);
    site.secret_file("certs/us.crt", &pair.cert_pem);
    site.secret_file("certs/us.key", &pair.key_pem);
    site.secret_file("keys/svc", &keys().secret);
    site.start().await
}

#[tokio::test]
async fn net_7_a_file_that_is_lost_or_broken_changes_nothing_and_is_counted() {
    let upstream = Upstream::start().await;
    let authority = Authority::new();
    let gateway = gateway(&upstream, &authority).await;
    let token = bearer(&Token::good().sign());
    let fields = [("Authorization", token.as_str())];
    let ask = request("GET", "/private", &fields, "");
    let mut raw = Raw::connect(&gateway).await;
    raw.exchange(&ask).await.is(200);
    for name in [
        "config/gateway.toml",
        "certs/site.crt",
        "certs/site.key",
        "certs/clients.pem",
        "certs/up.pem",
        "certs/us.crt",
        "certs/us.key",
        "keys/hs.secret",
        "keys/rs.pub",
        "keys/set.json",
        "keys/svc",
    ] {
        let path = gateway.path().join(name);
        let good = fs::read_to_string(&path).unwrap();
        for broken in [None, Some(""), Some("-----BEGIN NOTHING-----\nx = \n")] {
            let before = count(&gateway, "refused").await;
            let _ = fs::remove_file(&path);
            if let Some(broken) = broken {
                gateway.site.secret_file(name, broken);
            }
            let told = refused(&gateway, 422, "config_invalid").await;
            let problems = told["problems"].as_array().unwrap();
            assert!(!problems.is_empty(), "{name} {broken:?}");
            let file = name.rsplit('/').next().unwrap();
            let named =
                told.to_string().contains(file) || name == "keys/hs.secret" || name == "keys/svc";
            assert!(named, "{name} {broken:?}: {told}");
            assert!(
                count(&gateway, "refused").await > before,
                "{name} {broken:?}"
            );
            raw.exchange(&ask).await.is(200);
            get(&gateway, "/public", &[]).await.is(200);
        }
        gateway.site.put(name, &good);
        assert_eq!(post(&gateway).await.status, 200, "{name} is back");
    }
    // A secret that others may read is none.
    for name in ["keys/hs.secret", "certs/site.key", "certs/us.key"] {
        gateway.site.mode(name, 0o644);
        refused(&gateway, 422, "config_invalid").await;
        raw.exchange(&ask).await.is(200);
        gateway.site.mode(name, 0o600);
        assert_eq!(post(&gateway).await.status, 200);
    }
}

#[tokio::test]
async fn cfg_2_a_file_that_is_swapped_is_noticed_without_being_asked() {
    let upstream = Upstream::start().await;
    let site = Site::new(upstream.address);
    // As a mounted volume swaps: the path is a link, and the link is what changes.
    let folder = site.path().join("config");
    fs::write(folder.join("first.toml"), "").unwrap();
    symlink("first.toml", folder.join("gateway.toml")).unwrap();
    let gateway = site.start().await;
    let toml = gateway.site.toml();
    let moved = |name: &str| toml.replace("\"/public\"", &format!("\"/{name}\""));
    fs::write(folder.join("second.toml"), moved("second")).unwrap();
    symlink("second.toml", folder.join("link.new")).unwrap();
    fs::rename(folder.join("link.new"), folder.join("gateway.toml")).unwrap();
    let reached = async |target: &str| {
        eventually(target, async || {
            (get(&gateway, target, &[]).await.status == 200).then_some(())
        })
        .await;
    };
    reached("/second").await;
    // As editors write: a new file takes the name.
    fs::write(folder.join("third.toml"), moved("third")).unwrap();
    fs::rename(folder.join("third.toml"), folder.join("gateway.toml")).unwrap();
    reached("/third").await;
    // As a shell writes: into the same file.
    fs::write(folder.join("gateway.toml"), moved("fourth")).unwrap();
    reached("/fourth").await;
    // A broken one is said once, and the next good one is taken.
    fs::write(folder.join("gateway.toml"), "[[route]\n").unwrap();
    eventually("a refusal", async || {
        (count(&gateway, "refused").await > 0.5).then_some(())
    })
    .await;
    get(&gateway, "/fourth", &[]).await.is(200);
    fs::write(folder.join("gateway.toml"), moved("fifth")).unwrap();
    reached("/fifth").await;
    let told = |what: &str| gateway.err.text().matches(what).count();
    eventually("the last event", async || {
        (told("\"configuration reloaded\"") == 4).then_some(())
    })
    .await;
    assert_eq!(told("configuration not reloaded"), 1);
}

#[tokio::test]
async fn key_5_a_secret_that_is_replaced_is_noticed_and_its_predecessor_is_worth_nothing() {
    let upstream = Upstream::start().await;
    let gateway = Site::new(upstream.address).start().await;
    let old = Token::good();
    let secret = keys().secret.chars().rev().collect::<String>();
    let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
    let (old, new) = (
        bearer(&old.sign()),
        bearer(&old.sign_by(&key, jsonwebtoken::Algorithm::HS256)),
    );
    let mut raw = Raw::connect(&gateway).await;
    let mut status = async |token: &str| {
        let fields = [("Authorization", token)];
        raw.exchange(request("GET", "/private", &fields, ""))
            .await
            .status
    };
    assert_eq!((status(&old).await, status(&new).await), (200, 401));
    gateway.site.put("keys/hs.secret", &secret);
    eventually("the new secret", async || {
        (status(&new).await == 200).then_some(())
    })
    .await;
    assert_eq!(status(&old).await, 401, "cached or not");
}

#[tokio::test]
async fn cfg_2_another_authority_of_an_upstream_makes_another_upstream() {
    let (first, second) = (Authority::new(), Authority::new());
    let upstream = Upstream::on(
        Wire::tls(&first.sign(&["localhost"]), &[b"http/1.1"]),
        |_| crate::harness::Reply::ok("hello"),
    )
    .await;
    let site = Site::bare()
        .upstream(
            "legacy",
            &format!("https://localhost:{}", upstream.address.port()),
        )
        .on_upstream("tls", r#"{ ca = "certs/up.pem" }"#)
        .route("public", "/public", "public");
    site.secret_file("certs/up.pem", &first.pem);
    let gateway = site.start().await;
    let toml = gateway.site.toml();
    get(&gateway, "/public", &[]).await.is(200);
    // Kept connections were made under the old one: they must not serve.
    gateway.site.put("certs/up.pem", &second.pem);
    load(&gateway, &toml).await;
    get(&gateway, "/public", &[])
        .await
        .refused(502, "upstream_tls");
    gateway.site.put("certs/up.pem", &first.pem);
    load(&gateway, &toml).await;
    get(&gateway, "/public", &[]).await.is(200);
}
