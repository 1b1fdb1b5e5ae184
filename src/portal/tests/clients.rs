//! SESS-8: introspection and revocation, for those alone who prove who they are.

use aws_lc_rs::digest;
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;

use super::{Answer, Portal, bearer};
use crate::{
    accounts::{LastAdmin, settings::ClientSettings, tests::Site},
    policy::Unlimited,
};

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
/// With what a form would encode.
const SECRET: &str = "q7+Zr0/Vd2sHc9uLbA3eFiToKxMhY8PTmCwWq1XyJ4n=";

fn client(id: &str, audience: &str) -> ClientSettings {
    ClientSettings {
        id: id.into(),
        secret_digest: digest::digest(&digest::SHA256, SECRET.as_bytes())
            .as_ref()
            .into(),
        audience: vec![audience.into()],
    }
}

async fn portal() -> Portal {
    let clients = vec![client("orders", "portcullis"), client("other", "billing")];
    Portal::over(Site::with(move |settings| settings.clients = clients)).await
}

fn basic(id: &str, secret: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")))
}

fn encoded(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

async fn ask(portal: &Portal, path: &str, client: &str, token: &str) -> Answer {
    let authorization = basic(client, SECRET);
    let headers = [FORM, ("authorization", &*authorization)];
    portal.post(path, &headers, format!("token={token}")).await
}

/// What introspection says, which is nothing but `active` for whoever is not.
async fn is_active(portal: &Portal, client: &str, token: &str) -> bool {
    let answer = ask(portal, "/auth/introspect", client, token).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["cache-control"], "no-store");
    let said = answer.json();
    if said["active"] == true {
        return true;
    }
    assert_eq!(said, json!({"active": false}));
    false
}

#[tokio::test]
async fn sess_8_whoever_does_not_prove_who_he_is_learns_and_changes_nothing() {
    let portal = portal().await;
    let login = portal.login().await;
    let token = login["access_token"].as_str().unwrap();
    let form = |rest: &str| format!("token={token}{rest}");
    let secret = encoded(SECRET);
    let wrong = basic("orders", &SECRET.replace('q', "r"));
    let nobody = basic("nobody", SECRET);
    for path in ["/auth/introspect", "/auth/revoke"] {
        for (authorization, body) in [
            ("", form("")),
            (&*wrong, form("")),
            (&*nobody, form("")),
            ("Basic", form("")),
            ("Basic !!!", form("")),
            ("Basic b3JkZXJz", form("")),
            (&*bearer(&login), form("")),
            ("", form("&client_id=orders")),
            ("", form(&format!("&client_secret={secret}"))),
            (
                "",
                form(&format!("&client_id=other2&client_secret={secret}")),
            ),
            ("", form("&client_id=orders&client_secret=")),
        ] {
            let mut headers = vec![FORM];
            headers.extend((!authorization.is_empty()).then_some(("authorization", authorization)));
            let answer = portal.post(path, &headers, &body).await;
            answer.refused(401, "invalid_client");
            assert_eq!(answer.json()["error"], "invalid_client");
            assert_eq!(
                answer.headers["www-authenticate"],
                "Basic realm=\"portcullis\""
            );
        }
    }
    assert!(is_active(&portal, "orders", token).await);
}

#[tokio::test]
async fn sess_8_requests_that_can_be_read_in_two_ways_are_refused() {
    let portal = portal().await;
    let authorization = basic("orders", SECRET);
    let authorized = [FORM, ("authorization", &*authorization)];
    let secret = encoded(SECRET);
    for body in [
        String::new(),
        "token_type_hint=access_token".to_owned(),
        "token=a&token=b".to_owned(),
        format!("token=a&client_id=orders&client_secret={secret}"),
        "token=a&client_id=x&client_id=y".to_owned(),
    ] {
        let answer = portal.post("/auth/introspect", &authorized, &body).await;
        answer.refused(400, "bad_request");
    }
    let twice = [
        FORM,
        ("authorization", &*authorization),
        ("authorization", &*authorization),
    ];
    let answer = portal.post("/auth/revoke", &twice, "token=a").await;
    answer.refused(400, "bad_request");
    for content_type in ["application/json", "text/plain", ""] {
        let headers = [("content-type", content_type), authorized[1]];
        let answer = portal.post("/auth/introspect", &headers, "token=a").await;
        answer.refused(415, "unsupported_media_type");
    }
}

#[tokio::test]
async fn sess_8_tokens_of_others_and_of_nobody_are_inactive_and_nothing_more() {
    let portal = portal().await;
    let login = portal.login().await;
    let token = login["access_token"].as_str().unwrap();
    let refresh = login["refresh_token"].as_str().unwrap();
    let foreign = Portal::new().await.login().await;
    let foreign = foreign["access_token"].as_str().unwrap();
    assert!(!is_active(&portal, "other", token).await);
    for token in [
        "",
        "x",
        "a.b.c",
        foreign,
        refresh,
        token.split_at(token.len() - 2).0,
    ] {
        assert!(!is_active(&portal, "orders", token).await, "{token}");
    }
    // Nor can another client take it back.
    for taken in [token, refresh] {
        assert_eq!(
            ask(&portal, "/auth/revoke", "other", taken).await.status,
            200
        );
    }
    assert!(is_active(&portal, "orders", token).await);
}

#[tokio::test]
async fn sess_8_a_good_token_is_told_to_the_client_that_it_is_for() {
    let portal = portal().await;
    let login = portal.login().await;
    let token = login["access_token"].as_str().unwrap();
    let said = ask(&portal, "/auth/introspect", "orders", token)
        .await
        .json();
    assert_eq!(said["active"], true);
    assert_eq!(said["iss"], "https://localhost:8443");
    assert_eq!(said["aud"], json!(["portcullis"]));
    assert_eq!(said["username"], "ann");
    assert_eq!(said["roles"], json!(["clerk"]));
    assert_eq!(said["sub"], login["user"]["id"]);
    assert_eq!(
        said["exp"].as_u64().unwrap() - said["iat"].as_u64().unwrap(),
        900
    );
    // By every way of authentication.
    let secret = encoded(SECRET);
    let post = format!("token={token}&client_id=orders&client_secret={secret}&more=1");
    let answer = portal.post("/auth/introspect", &[FORM], &post).await;
    assert_eq!(answer.json()["active"], true);
    let authorization = basic("orders", &secret);
    let headers = [FORM, ("authorization", &*authorization)];
    let answer = portal
        .post("/auth/introspect", &headers, format!("token={token}"))
        .await;
    assert_eq!(answer.json()["active"], true);
    // Until it has expired.
    portal.site.advance(906);
    assert!(!is_active(&portal, "orders", token).await);
}

#[tokio::test]
async fn sess_8_and_auth_11_the_token_of_a_shut_account_is_inactive() {
    let portal = portal().await;
    let login = portal.login().await;
    let token = login["access_token"].as_str().unwrap();
    // Another process shuts it; this one has not read the feed.
    let beside = portal.site.beside();
    beside
        .accounts
        .disable_user("ann", LastAdmin::Stays)
        .await
        .unwrap();
    assert!(!is_active(&portal, "orders", token).await);
}

#[tokio::test]
async fn cache_4_a_revoked_access_token_is_dead_here_at_once_and_elsewhere_by_the_feed() {
    let portal = portal().await;
    let beside = portal.site.beside();
    let login = portal.login().await;
    let token = login["access_token"].as_str().unwrap();
    let now = portal.site.time();
    beside.authn.verify(token, now, &Unlimited).unwrap();
    portal.site.authn.verify(token, now, &Unlimited).unwrap();
    let answer = ask(&portal, "/auth/revoke", "orders", token).await;
    assert_eq!((answer.status.as_u16(), answer.body.len()), (200, 0));
    portal
        .site
        .authn
        .verify(token, now, &Unlimited)
        .unwrap_err();
    assert!(!is_active(&portal, "orders", token).await);
    beside.accounts.poll().await.unwrap();
    beside.authn.verify(token, now, &Unlimited).unwrap_err();
    // The session goes on, and so does a start.
    let body = json!({"refresh_token": login["refresh_token"]});
    let answer = portal.post("/auth/refresh", &[super::JSON], body).await;
    assert_eq!(answer.status, 200);
    portal
        .site
        .beside()
        .authn
        .verify(token, now, &Unlimited)
        .unwrap_err();
    // Once more is as good.
    assert_eq!(
        ask(&portal, "/auth/revoke", "orders", token).await.status,
        200
    );
}

#[tokio::test]
async fn sess_5_a_revoked_refresh_token_ends_its_session() {
    let portal = portal().await;
    let login = portal.login().await;
    let refresh = login["refresh_token"].as_str().unwrap();
    assert_eq!(
        ask(&portal, "/auth/revoke", "orders", refresh).await.status,
        200
    );
    let token = login["access_token"].as_str().unwrap();
    assert!(!is_active(&portal, "orders", token).await);
    let body = json!({"refresh_token": refresh});
    let answer = portal.post("/auth/refresh", &[super::JSON], body).await;
    answer.refused(401, "invalid_grant");
}
