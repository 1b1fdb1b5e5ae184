//! Services that ask about tokens, from outside.

use serde_json::{Value, json};

use crate::harness::{
    Gateway, Raw, Site, Upstream, get,
    keys::{bearer, keys},
    request,
};

const PASSWORD: &str = "correct horse battery staple";

async fn post(
    gateway: &Gateway,
    path: &str,
    fields: &[(&str, &str)],
    body: &str,
) -> crate::harness::Answer {
    let mut raw = Raw::connect(gateway).await;
    raw.exchange(request("POST", path, fields, body)).await
}

#[tokio::test]
async fn sess_8_a_service_asks_about_a_token_and_takes_it_back() {
    let upstream = Upstream::start().await;
    let mut site = Site::new(upstream.address).accounts();
    site.secret_file("keys/orders.secret", &keys().secret);
    site.extra = "[[accounts.client]]\nid = \"orders\"\nsecret_file = \"keys/orders.secret\"\naudience = [\"portcullis\"]\n".into();
    site.write();
    site.user("alice", PASSWORD, &["clerk"]).await;
    let gateway = site.start().await;
    let login = json!({"username": "alice", "password": PASSWORD}).to_string();
    let answer = post(
        &gateway,
        "/auth/login",
        &[("Content-Type", "application/json")],
        &login,
    )
    .await;
    let login: Value = answer.is(200).json();
    let token = login["access_token"].as_str().unwrap();

    let form = ("Content-Type", "application/x-www-form-urlencoded");
    let stranger = post(
        &gateway,
        "/auth/introspect",
        &[form],
        &format!("token={token}"),
    )
    .await;
    stranger.refused(401, "invalid_client");
    let secret = &keys().secret;
    let body = format!("token={token}&client_id=orders&client_secret={secret}");
    let said = post(&gateway, "/auth/introspect", &[form], &body).await;
    assert_eq!(said.header("cache-control"), Some("no-store"));
    let said = said.is(200).json();
    assert_eq!(
        (&said["active"], &said["username"]),
        (&json!(true), &json!("alice"))
    );
    let authorized = [("Authorization", &*bearer(token))];
    get(&gateway, "/private", &authorized).await.is(200);
    let seen = upstream.count();

    post(&gateway, "/auth/revoke", &[form], &body).await.is(200);
    get(&gateway, "/private", &authorized)
        .await
        .refused(401, "token_invalid");
    assert_eq!(upstream.count(), seen);
    let said = post(&gateway, "/auth/introspect", &[form], &body).await;
    assert_eq!(said.is(200).json(), json!({"active": false}));
    let document = get(&gateway, "/.well-known/openid-configuration", &[])
        .await
        .is(200)
        .json();
    assert_eq!(
        document["introspection_endpoint"],
        "https://localhost:8443/auth/introspect"
    );
    let (out, err) = (gateway.out.text(), gateway.err.text());
    assert!(!out.contains(&**secret) && !err.contains(&**secret));
}
