//! Workers turn whatever else the process does: what waits or computes for long does so elsewhere.

use serde_json::json;

use crate::harness::{Gateway, Raw, Site, Token, Upstream, get, keys::bearer, request};

const STALLS: &str = "portcullis_worker_stalls_total";

/// Wrong logins, one after the other. A hash of each takes over 30 ms of a processor.
const LOGINS: usize = 20;

async fn wrong_login(gateway: &Gateway, number: usize) -> u16 {
    let body =
        json!({ "username": format!("nobody{number}"), "password": "wrong horse battery staple" });
    let headers = [("Content-Type", "application/json")];
    let login = request("POST", "/auth/login", &headers, &body.to_string());
    Raw::connect(gateway).await.exchange(login).await.status
}

#[tokio::test]
async fn fault_3_workers_turn_while_passwords_are_hashed() {
    let upstream = Upstream::start().await;
    let site = Site::new(upstream.address).accounts();
    let gateway = site
        .set(
            "accounts",
            "login_limit",
            r#"{ per_ip = "100/1m", per_account = "100/1m" }"#,
        )
        .start()
        .await;
    let logins = async {
        for number in 0..LOGINS {
            assert_eq!(wrong_login(&gateway, number).await, 401);
        }
    };
    let proxied = async {
        let token = bearer(&Token::good().sign());
        for _ in 0..50 {
            get(&gateway, "/private", &[("Authorization", &token)])
                .await
                .is(200);
        }
    };
    tokio::join!(logins, proxied);
    // Each hash would be one, were it done there. A few may be those of a machine that stood still.
    let stalls = gateway.metric(STALLS).await.unwrap();
    assert!(stalls < 10.0, "{stalls} stalls of workers, {LOGINS} hashes");
}
