//! A node that cannot learn what others revoke: strict routes refuse, and nothing that ended meanwhile comes back (STORE-6).

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::harness::{
    Answer, Gateway, Kind, Raw, Site, Token, Upstream, eventually, get,
    keys::{bearer, unbase64},
    request,
};

const PASSWORD: &str = "correct horse battery staple";
const LAG: &str = "portcullis_revocation_lag_seconds";

async fn login(gateway: &Gateway, name: &str) -> String {
    let body = json!({ "username": name, "password": PASSWORD, "delivery": "body" });
    let fields = [("Content-Type", "application/json")];
    let login = request("POST", "/auth/login", &fields, &body.to_string());
    let answer = Raw::connect(gateway).await.exchange(login).await;
    answer.is(200);
    let token = answer.json()["access_token"].as_str().unwrap().to_owned();
    bearer(&token)
}

async fn ask(gateway: &Gateway, target: &str, caller: &str) -> Answer {
    get(gateway, target, &[("Authorization", caller)]).await
}

fn session(caller: &str) -> String {
    let payload = caller.split('.').nth(1).unwrap();
    let claims: Value = serde_json::from_slice(&unbase64(payload)).unwrap();
    claims["sid"].as_str().unwrap().to_owned()
}

async fn gateway(upstream: &Upstream) -> Gateway {
    let site = Site::new(upstream.address)
        .accounts()
        .set("accounts", "max_lag", "\"3s\"")
        .route("strict", "/strict", "authenticated")
        .on_route("strict", "true")
        .route("either", "/either", "optional")
        .on_route("strict", "true");
    site.write();
    for name in ["alice", "bob"] {
        site.user(name, PASSWORD, &[]).await;
    }
    site.start().await
}

#[tokio::test]
async fn store_6_strict_routes_refuse_beyond_the_bound_and_nothing_revoked_comes_back() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let (alice, bob) = (login(&gateway, "alice").await, login(&gateway, "bob").await);
    let other = bearer(&Token::new(Kind::Hs).sign());
    for (target, caller) in [
        ("/strict", &alice),
        ("/strict", &bob),
        ("/strict", &other),
        ("/either", &bob),
        ("/private", &bob),
    ] {
        ask(&gateway, target, caller).await.is(200);
    }

    // The partition: this node cannot read the feed, others write to it.
    let store = Connection::open(gateway.path().join("data/portcullis.db")).unwrap();
    store
        .execute_batch("ALTER TABLE revocations RENAME TO elsewhere")
        .unwrap();
    eventually("a refusal", async || {
        let lag = gateway.metric(LAG).await.unwrap();
        let answer = ask(&gateway, "/strict", &alice).await;
        assert!(lag <= 3.0 || answer.status == 503, "{lag} {answer:?}");
        (answer.status == 503).then_some(())
    })
    .await;
    let served = upstream.count();
    for target in ["/strict", "/either"] {
        let answer = ask(&gateway, target, &bob).await;
        answer.refused(503, "store_unavailable");
        assert!(answer.header("retry-after").is_some());
    }
    assert_eq!(upstream.count(), served, "a refused request was forwarded");
    // What does not depend on the feed goes on.
    ask(&gateway, "/strict", &other).await.is(200);
    ask(&gateway, "/private", &alice).await.is(200);
    get(&gateway, "/either", &[]).await.is(200);
    get(&gateway, "/public", &[]).await.is(200);
    get(&gateway, "/strict", &[])
        .await
        .refused(401, "credentials_missing");
    eventually("an alarm", async || {
        let ready = gateway.admin("/readyz").await;
        ready.is(200);
        let degraded = ready.json()["degraded"].to_string();
        degraded.contains("strict routes refuse").then_some(())
    })
    .await;
    assert!(gateway.err.text().contains("revocations are not known"));

    // Bob's session ends on another node; then the partition heals.
    let insert = "INSERT INTO elsewhere (kind, key, until) VALUES ('session', ?1, 99999999999)";
    store.execute(insert, [session(&bob)]).unwrap();
    let served = upstream.count();
    store
        .execute_batch("ALTER TABLE elsewhere RENAME TO revocations")
        .unwrap();
    eventually("the route opens", async || {
        let answer = ask(&gateway, "/strict", &bob).await;
        assert!(matches!(answer.status, 401 | 503), "{answer:?}");
        (answer.status == 401).then_some(())
    })
    .await;
    assert_eq!(upstream.count(), served, "an ended session was served");
    ask(&gateway, "/strict", &alice).await.is(200);
    ask(&gateway, "/private", &bob)
        .await
        .refused(401, "token_invalid");
    eventually("all is well", async || {
        let ready = gateway.admin("/readyz").await.json();
        ready["degraded"].is_null().then_some(())
    })
    .await;
    assert!(gateway.metric(LAG).await.unwrap() < 3.0);
}
