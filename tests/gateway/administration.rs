//! Accounts come into being and are administered, over HTTP and by command.

use serde_json::{Value, json};

use crate::harness::{Answer, Gateway, Raw, Site, Upstream, get, keys::bearer, request};

const PASSWORD: &str = "correct horse battery staple";

async fn send(gateway: &Gateway, method: &str, target: &str, token: &str, body: &Value) -> Answer {
    let bearer = bearer(token);
    let mut fields = vec![("Content-Type", "application/json")];
    if !token.is_empty() {
        fields.push(("Authorization", &*bearer));
    }
    let request = request(method, target, &fields, &body.to_string());
    Raw::connect(gateway).await.exchange(request).await
}

async fn login(gateway: &Gateway, name: &str) -> String {
    let body = json!({ "username": name, "password": PASSWORD, "delivery": "body" });
    let answer = send(gateway, "POST", "/auth/login", "", &body).await;
    answer.is(200);
    answer.json()["access_token"].as_str().unwrap().to_owned()
}

fn account(name: &str) -> Value {
    json!({ "username": name, "email": format!("{name}@example.com"), "password": PASSWORD })
}

/// The line of a command's output that is a secret: 32 bytes in base64url.
fn secret(output: &str) -> String {
    let line = output.lines().map(str::trim).find(|line| {
        line.len() == 43
            && line
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    });
    line.unwrap_or_else(|| panic!("no secret: {output}"))
        .to_owned()
}

#[tokio::test]
async fn auth_7_the_first_administrator_comes_by_a_secret_that_works_once() {
    let upstream = Upstream::start().await;
    let site = Site::new(upstream.address).accounts();
    site.write();
    let made = site.run(&["user", "bootstrap"], "").await;
    assert_eq!(made.code, Some(0), "{made:?}");
    let secret = secret(&made.stdout);
    let gateway = site.start().await;
    let mut body = account("ann");
    body["secret"] = json!("x".repeat(43));
    let wrong = send(&gateway, "POST", "/auth/bootstrap", "", &body).await;
    wrong.is(401);
    body["secret"] = json!(secret);
    send(&gateway, "POST", "/auth/bootstrap", "", &body)
        .await
        .is(201);
    let mut second = account("eve");
    second["secret"] = json!(secret);
    send(&gateway, "POST", "/auth/bootstrap", "", &second)
        .await
        .is(401);
    // The role opens a route before an upstream too, and registration stays closed.
    let token = login(&gateway, "ann").await;
    send(&gateway, "GET", "/auth/users", &token, &json!({}))
        .await
        .is(200);
    send(&gateway, "POST", "/auth/register", "", &account("eve"))
        .await
        .is(404);
}

#[tokio::test]
async fn auth_10_a_role_that_is_taken_away_is_gone_on_the_next_request() {
    let upstream = Upstream::start().await;
    let site = Site::new(upstream.address).accounts();
    site.write();
    site.user("root", PASSWORD, &["admin"]).await;
    site.user("bob", PASSWORD, &["admin"]).await;
    let gateway = site.start().await;
    let root = login(&gateway, "root").await;
    let bob = login(&gateway, "bob").await;
    let fields = bearer(&bob);
    let proxied = async || get(&gateway, "/private", &[("Authorization", &*fields)]).await;
    proxied().await.is(200);
    let users = send(&gateway, "GET", "/auth/users", &root, &json!({})).await;
    let users = users.json();
    let id = users["users"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(users["users"][0]["username"], "bob");
    let path = format!("/auth/users/{id}");
    send(&gateway, "PATCH", &path, &root, &json!({ "roles": [] }))
        .await
        .is(200);
    proxied().await.is(401);
    send(&gateway, "GET", "/auth/users", &bob, &json!({}))
        .await
        .is(401);
    let again = login(&gateway, "bob").await;
    send(&gateway, "GET", "/auth/users", &again, &json!({}))
        .await
        .is(403);
}

#[tokio::test]
async fn auth_7_an_invitation_by_command_makes_one_account() {
    let upstream = Upstream::start().await;
    let closed = Site::new(upstream.address).accounts();
    closed.write();
    let refused = closed.run(&["user", "invite"], "").await;
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("registration"), "{refused:?}");
    let site = Site::new(upstream.address)
        .accounts()
        .set("accounts", "registration", "\"invite\"");
    site.write();
    let made = site.run(&["user", "invite", "--role", "clerk"], "").await;
    let secret = secret(&made.stdout);
    let gateway = site.start().await;
    let mut body = account("ann");
    send(&gateway, "POST", "/auth/register", "", &body)
        .await
        .is(401);
    body["invite"] = json!(secret);
    let answer = send(&gateway, "POST", "/auth/register", "", &body).await;
    answer.is(201);
    assert_eq!(answer.json()["user"]["roles"], json!(["clerk"]));
    let mut second = account("eve");
    second["invite"] = json!(secret);
    send(&gateway, "POST", "/auth/register", "", &second)
        .await
        .is(401);
}
