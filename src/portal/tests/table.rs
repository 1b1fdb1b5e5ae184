//! The table of endpoints and the two documents: AUTH-10, KEY-5.

use http::Method;
use serde_json::json;

use super::Portal;
use crate::{
    accounts::{
        settings::Registration,
        tests::{Site, mail_settings},
    },
    policy::{Access, PathPattern, Target},
    portal::routes,
};

#[test]
fn auth_10_the_table_is_this() {
    let site = Site::with(|settings| {
        settings.registration = Registration::Invite;
        settings.mail = Some(mail_settings(&settings.database));
    });
    let rows: Vec<_> = routes(&site.settings)
        .iter()
        .map(|route| {
            assert_eq!(route.target, Target::Accounts);
            assert_eq!(route.max_body, 16 << 10);
            let (kind, path) = match &route.path {
                PathPattern::Exact(path) => ("exact", path.to_string()),
                PathPattern::Prefix(path) => ("below", path.to_string()),
            };
            // Where somebody must be known, it must be one of ours.
            let ours = route.rule.issuers == ["portcullis".into()];
            assert_eq!(route.access == Access::Authenticated, ours);
            let roles = route.rule.roles.join(",");
            format!(
                "{} {kind} {path} {:?} {roles}",
                route.methods[0], route.access
            )
            .trim_end()
            .to_owned()
        })
        .collect();
    assert_eq!(
        rows,
        [
            "POST exact /auth/login Public",
            "POST exact /auth/refresh Public",
            "POST exact /auth/logout Public",
            "POST exact /auth/logout-all Authenticated",
            "GET exact /auth/me Authenticated",
            "GET exact /auth/sessions Authenticated",
            "DELETE below /auth/sessions Authenticated",
            "POST exact /auth/password Authenticated",
            "POST exact /auth/password/forgot Public",
            "POST exact /auth/password/reset Public",
            "POST exact /auth/introspect Public",
            "POST exact /auth/revoke Public",
            "POST exact /auth/register Public",
            "POST exact /auth/register/verify Public",
            "POST exact /auth/bootstrap Public",
            "GET exact /auth/users Authenticated admin",
            "POST exact /auth/users Authenticated admin",
            "GET below /auth/users Authenticated admin",
            "PATCH below /auth/users Authenticated admin",
            "DELETE below /auth/users Authenticated admin",
            "POST below /auth/users Authenticated admin",
            "GET exact /auth/users/invites Authenticated admin",
            "POST exact /auth/users/invites Authenticated admin",
            "DELETE below /auth/users/invites Authenticated admin",
            "GET exact /.well-known/jwks.json Public",
            "GET exact /.well-known/openid-configuration Public",
            "GET exact /auth/openapi.json Public",
            "GET exact /auth/login Public",
            "GET exact /auth/logout Public",
            "GET exact /auth/account Authenticated",
            "POST exact /auth/account Authenticated",
            "GET exact /auth/renew Public",
            "GET exact /auth/handover Public",
            "GET exact /auth/arrive Public",
            "GET exact /auth/password/forgot Public",
            "GET exact /auth/password/reset Public",
            "GET exact /auth/register Public",
            "GET exact /auth/register/verify Public",
        ]
    );
}

#[test]
fn auth_10_only_pages_know_a_session_cookie() {
    let site = Site::with(|settings| {
        settings.registration = Registration::Open;
        settings.mail = Some(mail_settings(&settings.database));
    });
    for route in routes(&site.settings) {
        let pages = ["account", "arrive", "handover", "_page", "renew"];
        let is_page = pages.iter().any(|page| route.name.ends_with(page));
        assert_eq!(route.browsers.cookie, is_page, "{}", route.name);
    }
    let site = Site::with(|settings| settings.pages = None);
    let left = routes(&site.settings);
    assert!(left.iter().any(|route| &*route.name == "auth.login"));
    assert!(left.iter().all(|route| !route.name.ends_with("_page")));
    // Without mail nothing that needs it is there.
    let site = Site::with(|settings| settings.registration = Registration::Open);
    let names: Vec<_> = routes(&site.settings)
        .into_iter()
        .map(|route| route.name)
        .collect();
    for name in ["forgot_page", "reset_page", "verify_page", "verify"] {
        assert!(!names.contains(&format!("auth.{name}").into()), "{name}");
    }
    assert!(names.contains(&"auth.register_page".into()));
    assert!(
        left.iter()
            .all(|route| !route.browsers.cookie && !route.browsers.sign_in)
    );
}

#[tokio::test]
async fn auth_10_every_row_has_its_operation() {
    let portal = Portal::new().await;
    for route in routes(&portal.site.settings) {
        let (PathPattern::Exact(path) | PathPattern::Prefix(path)) = &route.path;
        let path = match &route.path {
            PathPattern::Exact(_) => path.to_string(),
            PathPattern::Prefix(_) => format!("{path}/x"),
        };
        let request = super::request(route.methods[0].clone(), &path, &[], "");
        let status = portal.send(request).await.status;
        assert!(
            status != 404 && status != 405 && status != 500,
            "{path}: {status}"
        );
    }
}

#[tokio::test]
async fn other_methods_and_paths_below_the_prefix_are_not_served() {
    let portal = Portal::new().await;
    for (method, path, status) in [
        (Method::PUT, "/auth/login", 405),
        (Method::DELETE, "/auth/account", 405),
        (Method::POST, "/auth/renew", 405),
        (Method::POST, "/auth/me", 405),
        (Method::POST, "/auth/sessions", 405),
        (Method::POST, "/auth/register", 404),
        (Method::GET, "/auth/invites", 404),
        (Method::PUT, "/auth/users", 405),
        (Method::GET, "/auth", 404),
        (Method::POST, "/auth/login/", 404),
        (Method::POST, "/auth/Login", 404),
        (Method::GET, "/.well-known/", 404),
    ] {
        let request = super::request(method.clone(), path, &[], "");
        assert_eq!(portal.send(request).await.status, status, "{method} {path}");
    }
}

#[tokio::test]
async fn another_prefix_moves_every_route_but_the_documents() {
    let site = Site::with(|settings| settings.path = "/konto/a".into());
    let portal = Portal::over(site).await;
    let body = json!({"username": "ann", "password": super::PASSWORD});
    let answer = portal.post("/konto/a/login", &[super::JSON], &body).await;
    assert_eq!(answer.status, 200);
    let cookie = answer.headers["set-cookie"].to_str().unwrap();
    assert!(cookie.contains("; Path=/konto/a; "), "{cookie}");
    assert_eq!(
        portal
            .post("/auth/login", &[super::JSON], &body)
            .await
            .status,
        404
    );
    assert_eq!(portal.get("/.well-known/jwks.json", &[]).await.status, 200);
}

#[tokio::test]
async fn key_5_the_documents_are_public_and_hold_no_secret() {
    let portal = Portal::new().await;
    let answer = portal.get("/.well-known/jwks.json", &[]).await;
    assert_eq!(answer.headers["content-type"], "application/json");
    let jwks = answer.json();
    for key in jwks["keys"].as_array().unwrap() {
        for private in ["d", "p", "q", "dp", "dq", "qi", "k"] {
            assert!(key.get(private).is_none(), "{private}");
        }
    }
    let answer = portal.get("/.well-known/openid-configuration", &[]).await;
    let document = answer.json();
    assert_eq!(document["issuer"], "https://localhost:8443");
    assert_eq!(
        document["jwks_uri"],
        "https://localhost:8443/.well-known/jwks.json"
    );
    let request = super::request(Method::HEAD, "/.well-known/jwks.json", &[], "");
    let head = portal.send(request).await;
    assert_eq!(head.status, 200);
    assert!(head.body.is_empty());
}
