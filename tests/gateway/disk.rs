//! A disk that takes nothing more: who has a token goes on, nobody gets one that is not recorded, and all is well when there is
//! space again (STORE-3).

use std::process::Command;

use serde_json::json;

use crate::harness::{
    Answer, Gateway, Raw, Site, Upstream, eventually, get, keys::bearer, request,
};

const PASSWORD: &str = "correct horse battery staple";

async fn post(gateway: &Gateway, target: &str, body: &serde_json::Value) -> Answer {
    let fields = [("Content-Type", "application/json")];
    let request = request("POST", target, &fields, &body.to_string());
    Raw::connect(gateway).await.exchange(request).await
}

async fn login(gateway: &Gateway) -> Answer {
    let body = json!({ "username": "alice", "password": PASSWORD, "delivery": "body" });
    post(gateway, "/auth/login", &body).await
}

/// The largest file that the gateway may write from now on: to it, a disk that is full.
fn limit_files(gateway: &Gateway, bytes: &str) {
    let done = Command::new("prlimit")
        .arg(format!("--pid={}", gateway.pid()))
        .arg(format!("--fsize={bytes}:"))
        .status()
        .unwrap();
    assert!(done.success());
}

#[tokio::test]
async fn store_3_a_full_disk_stops_sign_in_alone_and_leaves_no_partial_row() {
    let upstream = Upstream::start().await;
    let site = Site::new(upstream.address).accounts().descriptors(4096);
    site.write();
    site.user("alice", PASSWORD, &[]).await;
    let gateway = site.start().await;
    let grant = login(&gateway).await.is(200).json();
    let (access, renewal) = (&grant["access_token"], &grant["refresh_token"]);
    let renew = json!({ "refresh_token": renewal });
    let private = [("Authorization", &*bearer(access.as_str().unwrap()))];
    let rows = || {
        let file = gateway.path().join("data/portcullis.db");
        let count =
            "SELECT (SELECT count(*) FROM sessions) || ' ' || (SELECT count(*) FROM refresh_tokens)
                     || ' ' || (SELECT count(*) FROM revocations)";
        rusqlite::Connection::open(file)
            .unwrap()
            .query_row(count, [], |row| row.get::<_, String>(0))
            .unwrap()
    };
    assert_eq!(rows(), "1 1 0");
    limit_files(&gateway, "0");
    for _ in 0..3 {
        for answer in [
            login(&gateway).await,
            post(&gateway, "/auth/refresh", &renew).await,
            post(&gateway, "/auth/logout", &renew).await,
        ] {
            answer.refused(503, "store_unavailable");
            assert!(answer.header("retry-after").is_some());
        }
        get(&gateway, "/private", &private).await.is(200);
    }
    // Ready, for the routes are served; what is not is told.
    eventually("the store is told of", async || {
        let ready = gateway.admin("/readyz").await;
        ready.is(200);
        ready.text().contains("account store").then_some(())
    })
    .await;
    assert_eq!(rows(), "1 1 0");
    limit_files(&gateway, "unlimited");
    login(&gateway).await.is(200);
    eventually("the store is well", async || {
        let ready = gateway.admin("/readyz").await;
        ready.is(200);
        (!ready.text().contains("account store")).then_some(())
    })
    .await;
    post(&gateway, "/auth/refresh", &renew).await.is(200);
    assert_eq!(rows(), "2 3 0");
}
