//! User administration and registration over HTTP: AUTH-7, AUTH-10.

use http::Method;
use serde_json::{Value, json};

use super::{JSON, ORIGIN, PASSWORD, Portal, request};
use crate::{
    accounts::{
        settings::Registration,
        tests::{Site, mail_settings},
    },
    policy::{Access, PathPattern},
    portal::routes,
};

async fn portal() -> Portal {
    let site = Site::with(|settings| settings.registration = Registration::Invite);
    site.add("root", &["admin"]).await;
    Portal::over(site).await
}

async fn token(portal: &Portal, name: &str) -> String {
    let grant = portal.site.login(name).await;
    format!("Bearer {}", *grant.access_token)
}

async fn send(
    portal: &Portal,
    token: &str,
    method: Method,
    path: &str,
    body: impl ToString,
) -> super::Answer {
    let headers = [("authorization", token), JSON];
    portal.send(request(method, path, &headers, body)).await
}

async fn id(portal: &Portal, name: &str) -> String {
    portal.site.accounts.user(name).await.unwrap().id.into()
}

/// Every row of the table that needs the role, as each kind of caller, about himself and about another.
#[tokio::test]
async fn auth_10_no_row_of_administration_opens_to_another_role_or_without_a_bearer_token() {
    let portal = portal().await;
    portal.site.add("bob", &[]).await;
    portal.site.add("eve", &["Admin", "admins"]).await;
    let mut rows = 0;
    for route in routes(&portal.site.settings) {
        if route.access != Access::Authenticated || route.rule.roles.is_empty() {
            continue;
        }
        rows += 1;
        for caller in ["ann", "bob", "eve"] {
            let token = token(&portal, caller).await;
            for object in [caller, "root"] {
                let object = id(&portal, object).await;
                let path = match &route.path {
                    PathPattern::Exact(path) => path.to_string(),
                    PathPattern::Prefix(path) if route.methods[0] == Method::POST => {
                        format!("{path}/{object}/logout")
                    }
                    PathPattern::Prefix(path) => format!("{path}/{object}"),
                };
                let body = json!({"roles": ["admin"]});
                let method = route.methods[0].clone();
                let answer = send(&portal, &token, method.clone(), &path, &body).await;
                answer.refused(403, "role_missing");
                let bare = portal.send(request(method, &path, &[JSON], &body)).await;
                bare.refused(401, "credentials_missing");
            }
        }
    }
    assert_eq!(rows, 9);
    let ann = portal.site.accounts.user("ann").await.unwrap();
    assert_eq!(ann.roles, ["clerk".into()]);
}

#[tokio::test]
async fn auth_10_a_page_elsewhere_does_nothing_even_with_a_token() {
    let portal = portal().await;
    let token = token(&portal, "root").await;
    let ann = id(&portal, "ann").await;
    let path = format!("/auth/users/{ann}");
    for foreign in [
        ("origin", "https://evil.example"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
    ] {
        let headers = [("authorization", token.as_str()), foreign];
        let request = request(Method::DELETE, &path, &headers, "");
        portal.send(request).await.refused(403, "origin_denied");
    }
    let headers = [("authorization", token.as_str()), ("origin", ORIGIN)];
    let request = request(Method::DELETE, &path, &headers, "");
    assert_eq!(portal.send(request).await.status, 204);
}

#[tokio::test]
async fn auth_7_unknown_fields_and_wrong_types_are_refused() {
    let portal = portal().await;
    let token = token(&portal, "root").await;
    let ann = id(&portal, "ann").await;
    let one = format!("/auth/users/{ann}");
    for (method, path, body) in [
        (Method::PATCH, one.as_str(), json!({"is_admin": true})),
        (Method::PATCH, &one, json!({"username": "bob"})),
        (Method::PATCH, &one, json!({"roles": "admin"})),
        (Method::PATCH, &one, json!({"roles": ["two words"]})),
        (Method::PATCH, &one, json!({"disabled": 1})),
        (Method::PATCH, &one, json!({"pending": false})),
        (Method::PATCH, &one, json!({"email": "no address"})),
        (Method::PATCH, &one, json!({"name": ""})),
        (Method::PATCH, &one, json!([])),
        (Method::POST, "/auth/users", json!({"username": "x"})),
        (
            Method::POST,
            "/auth/users",
            json!({"username": "x", "email": "x@example.com", "id": "x"}),
        ),
        (
            Method::POST,
            "/auth/users",
            json!({"username": "x", "email": "x@example.com", "password": "short"}),
        ),
        (
            Method::POST,
            "/auth/users/invites",
            json!({"bootstrap": true}),
        ),
        (Method::POST, "/auth/users/invites", json!({"email": "x"})),
    ] {
        let answer = send(&portal, &token, method, path, &body).await;
        answer.refused(400, "bad_request");
    }
    for query in ["limit=0", "limit=201", "limit=x", "limit=1&limit=1", "x=1"] {
        let path = format!("/auth/users?{query}");
        let answer = send(&portal, &token, Method::GET, &path, "").await;
        answer.refused(400, "bad_request");
    }
    let long = format!("/auth/users?after={}", "x".repeat(65));
    let answer = send(&portal, &token, Method::GET, &long, "").await;
    answer.refused(400, "bad_request");
}

#[tokio::test]
async fn what_is_not_there_is_404_and_what_is_taken_409() {
    let portal = portal().await;
    let token = token(&portal, "root").await;
    for (method, path) in [
        (Method::GET, "/auth/users/x"),
        (Method::PATCH, "/auth/users/x"),
        (Method::DELETE, "/auth/users/x"),
        (Method::POST, "/auth/users/x/logout"),
        (Method::DELETE, "/auth/users/invites/x"),
        (Method::GET, "/auth/users/x/y"),
    ] {
        let answer = send(&portal, &token, method, path, "{}").await;
        answer.refused(404, "route_not_found");
    }
    let body = json!({"username": "Ann", "email": "new@example.com"});
    let answer = send(&portal, &token, Method::POST, "/auth/users", &body).await;
    answer.refused(409, "account_exists");
    let own = format!("/auth/users/{}", id(&portal, "root").await);
    let answer = send(&portal, &token, Method::DELETE, &own, "").await;
    answer.refused(409, "last_admin");
}

#[tokio::test]
async fn an_administrator_makes_lists_changes_and_erases() {
    let portal = portal().await;
    let token = token(&portal, "root").await;
    let body = json!({"username": "Bob", "email": "Bob@example.com", "roles": ["clerk"]});
    let made = send(&portal, &token, Method::POST, "/auth/users", &body).await;
    assert_eq!(made.status, 201);
    let bob = made.json();
    assert_eq!(bob["username"], "bob");
    assert_eq!(bob["password"], false);
    let first = send(&portal, &token, Method::GET, "/auth/users?limit=2", "").await;
    let first = first.json();
    assert_eq!(first["users"][1]["username"], "bob");
    assert_eq!(first["next"], "bob");
    let rest = send(&portal, &token, Method::GET, "/auth/users?after=bob", "").await;
    assert_eq!(rest.json()["users"][0]["username"], "root");
    assert_eq!(rest.json().get("next"), None);
    let path = format!("/auth/users/{}", bob["id"].as_str().unwrap());
    let body = json!({"password": PASSWORD, "roles": [], "name": "Bob"});
    let changed = send(&portal, &token, Method::PATCH, &path, &body).await;
    assert_eq!(changed.status, 200);
    assert_eq!(changed.json()["roles"], json!([]));
    assert_eq!(changed.json()["password"], true);
    assert!(!String::from_utf8_lossy(&changed.body).contains("argon2"));
    let grant = portal.site.login("bob").await;
    let out = format!("{path}/logout");
    let answer = send(&portal, &token, Method::POST, &out, "").await;
    assert_eq!(answer.status, 204);
    assert!(!portal.site.is_live(&grant));
    let answer = send(&portal, &token, Method::DELETE, &path, "").await;
    assert_eq!(answer.status, 204);
    let shown = send(&portal, &token, Method::GET, &path, "").await.json();
    assert_eq!(
        (&shown["deleted"], &shown["email"]),
        (&json!(true), &Value::Null)
    );
}

#[tokio::test]
async fn auth_7_no_field_of_a_registration_is_a_right() {
    let site = Site::with(|settings| settings.registration = Registration::Open);
    let portal = Portal::over(site).await;
    for (field, value) in [
        ("role", json!("admin")),
        ("roles", json!(["admin"])),
        ("is_admin", json!(true)),
        ("verified", json!(true)),
        ("email_verified", json!(true)),
        ("pending", json!(false)),
        ("id", json!("x")),
    ] {
        let mut body = json!({"username": "eve", "email": "eve@example.com", "password": PASSWORD});
        body[field] = value;
        for path in ["/auth/register", "/auth/bootstrap"] {
            portal
                .post(path, &[JSON], &body)
                .await
                .refused(400, "bad_request");
        }
    }
    assert!(portal.site.accounts.user("eve").await.is_err());
    let body = json!({"username": "eve", "email": "eve@example.com", "password": PASSWORD});
    let answer = portal.post("/auth/register", &[JSON], &body).await;
    assert_eq!(answer.status, 201);
    assert_eq!(answer.json()["user"]["roles"], json!([]));
    let again = portal.post("/auth/register", &[JSON], &body).await;
    again.refused(409, "account_exists");
}

#[tokio::test]
async fn an_invitation_made_over_http_makes_one_account() {
    let portal = portal().await;
    let token = token(&portal, "root").await;
    let path = "/auth/users/invites";
    let body = json!({"roles": ["clerk"], "email": "bob@example.com", "expires_in": 60});
    let made = send(&portal, &token, Method::POST, path, &body).await;
    assert_eq!(made.status, 201);
    let made = made.json();
    let listed = send(&portal, &token, Method::GET, path, "").await;
    assert_eq!(listed.json()["invites"][0]["id"], made["id"]);
    assert_eq!(listed.json()["invites"][0].get("invite"), None);
    let body = json!({
        "username": "bob", "email": "bob@example.com", "password": PASSWORD, "invite": made["invite"]
    });
    let answer = portal.post("/auth/register", &[JSON], &body).await;
    assert_eq!(answer.status, 201);
    assert_eq!(answer.json()["user"]["roles"], json!(["clerk"]));
    let again = portal.post("/auth/register", &[JSON], &body).await;
    again.refused(401, "invalid_grant");
}

#[tokio::test]
async fn rst_4_an_invitation_by_mail_is_told_in_no_answer_and_has_the_budget_of_mails() {
    let site = Site::with(|settings| {
        settings.registration = Registration::Invite;
        settings.mail = Some(mail_settings(&settings.database));
    });
    site.add("root", &["admin"]).await;
    let portal = Portal::over(site).await;
    let token = token(&portal, "root").await;
    let path = "/auth/users/invites";
    let invite =
        async |body: &serde_json::Value| send(&portal, &token, Method::POST, path, body).await;
    for body in [
        json!({"send": true}),
        json!({"send": "yes", "email": "bob@example.com"}),
        json!({"send": true, "email": "no address"}),
    ] {
        invite(&body).await.refused(400, "bad_request");
    }
    let taken = json!({"send": true, "email": "ann@example.com"});
    invite(&taken).await.refused(409, "account_exists");
    let body = json!({"send": true, "email": "bob@example.com"});
    for _ in 0..3 {
        let made = invite(&body).await;
        assert_eq!(made.status, 201);
        let made = made.json();
        assert_eq!(made["email"], "bob@example.com");
        assert_eq!(made.get("invite"), None);
    }
    let over = invite(&body).await;
    over.refused(429, "rate_limited");
    assert_eq!(over.headers["retry-after"], "3600");
    let listed = send(&portal, &token, Method::GET, path, "").await;
    let listed = listed.json();
    assert_eq!(listed["invites"].as_array().unwrap().len(), 3);
    assert!(listed["invites"][0].get("invite").is_none());
}

#[tokio::test]
async fn an_invitation_cannot_be_sent_without_mail() {
    let portal = portal().await;
    let token = token(&portal, "root").await;
    let body = json!({"send": true, "email": "bob@example.com"});
    let refused = send(&portal, &token, Method::POST, "/auth/users/invites", &body).await;
    refused.refused(404, "route_not_found");
}

#[tokio::test]
async fn closed_registration_has_no_routes() {
    let site = Site::new();
    site.add("root", &["admin"]).await;
    let portal = Portal::over(site).await;
    let token = token(&portal, "root").await;
    portal
        .post("/auth/register", &[JSON], "{}")
        .await
        .refused(404, "route_not_found");
    for method in [Method::GET, Method::POST] {
        let answer = send(&portal, &token, method, "/auth/users/invites", "{}").await;
        assert!(answer.status == 404 || answer.status == 405);
    }
}
