//! The account routes over HTTP, with the gateway's part done as the gateway does it.

mod administration;
mod bodies;
mod clients;
mod cookies;
mod table;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header::AUTHORIZATION};
use serde_json::{Value, json};
use tokio::runtime::Handle;

use super::{Pages, PortalCall, PortalHandle, routes};
use crate::{
    accounts::tests::{PASSWORD, Site},
    limit::{
        BadTokens,
        settings::{IpLimitSettings, Quota},
    },
    policy::{ClientIp, PeerIp, Rejection, Routes, Unlimited, authorize},
    respond,
    telemetry::RequestId,
};

pub(super) const ORIGIN: &str = "https://localhost:8443";
const JSON: (&str, &str) = ("content-type", "application/json");

/// A site with the user `ann`, role `clerk`, and its portal.
struct Portal {
    site: Site,
    handle: PortalHandle,
    routes: Routes,
    bad_tokens: Arc<BadTokens>,
    pages: Option<Arc<Pages>>,
}

/// Limits with so many bad tokens at once.
fn limits(burst: u32) -> IpLimitSettings {
    let quota = |burst| Quota {
        count: 1,
        window: Duration::from_secs(60),
        burst,
    };
    IpLimitSettings {
        per_ip: quota(1000),
        bad_tokens: quota(burst),
        bad_tokens_wait: Duration::ZERO,
        exempt: Vec::new(),
        ipv6_prefix: 64,
        max_keys: 1000,
    }
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Portal {
    async fn new() -> Self {
        Self::over(Site::new()).await
    }

    async fn over(site: Site) -> Self {
        site.add("ann", &["clerk"]).await;
        Self {
            handle: super::start(site.accounts.clone(), &Handle::current()),
            routes: Routes::new(routes(&site.settings)).unwrap(),
            bad_tokens: Arc::new(BadTokens::new(&limits(1000))),
            pages: site.settings.pages.as_ref().map(|pages| {
                let url = ORIGIN.parse().unwrap();
                Arc::new(Pages::new(&site.settings, pages, &url, &[]))
            }),
            site,
        }
    }

    /// Route, authenticate, authorize, call: the gateway's order.
    async fn send(&self, request: Request<Bytes>) -> Answer {
        let request_id = RequestId::accept("test").unwrap();
        let response = match self.admit(request, request_id) {
            Ok(call) => self.handle.call(call).await,
            Err(rejection) => respond::refusal(&rejection, &request_id),
        };
        Answer::new(response)
    }

    fn admit(
        &self,
        request: Request<Bytes>,
        request_id: RequestId,
    ) -> Result<PortalCall, Rejection> {
        let client = ClientIp::from(PeerIp::new(crate::accounts::tests::CLIENT));
        let path = request.uri().path();
        let route = self.routes.find("localhost", path, request.method())?;
        let headers = request.headers();
        let authn = &self.site.authn;
        let caller = authn.authenticate(headers, route, self.site.time(), &Unlimited)?;
        let permit = authorize(route, client, Ok(caller))?;
        Ok(PortalCall {
            caller: permit.caller().clone(),
            client,
            request_id,
            authn: authn.clone(),
            bad_tokens: Arc::clone(&self.bad_tokens),
            pages: self.pages.clone(),
            request,
        })
    }

    async fn post(&self, path: &str, headers: &[(&str, &str)], body: impl ToString) -> Answer {
        self.send(request(Method::POST, path, headers, body)).await
    }

    async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send(request(Method::GET, path, headers, "")).await
    }

    /// Signs in with the refresh token in the body.
    async fn login(&self) -> Value {
        let body = json!({"username": "ann", "password": PASSWORD, "delivery": "body"});
        let answer = self.post("/auth/login", &[JSON], body).await;
        assert_eq!(answer.status, 200);
        answer.json()
    }
}

impl Answer {
    fn new(response: Response<Bytes>) -> Self {
        let (parts, body) = response.into_parts();
        Self {
            status: parts.status,
            headers: parts.headers,
            body,
        }
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    #[track_caller]
    fn refused(&self, status: u16, code: &str) {
        assert_eq!(
            (self.status.as_u16(), &self.json()["code"]),
            (status, &json!(code))
        );
        assert!(!self.headers.contains_key("set-cookie"));
    }
}

fn request(
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: impl ToString,
) -> Request<Bytes> {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Bytes::from(body.to_string())).unwrap()
}

fn bearer(login: &Value) -> String {
    format!("Bearer {}", login["access_token"].as_str().unwrap())
}

#[tokio::test]
async fn auth_1_unknown_and_known_accounts_get_the_same_answer() {
    let portal = Portal::new().await;
    let mut answers = Vec::new();
    for name in ["ann", "bob", "ann@example.com", "not a name"] {
        let body = json!({"username": name, "password": "wrong horse battery staple"});
        let answer = portal.post("/auth/login", &[JSON], body).await;
        answer.refused(401, "invalid_credentials");
        assert!(answer.headers.contains_key("www-authenticate"));
        answers.push((answer.body, format!("{:?}", answer.headers)));
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]));
}

#[tokio::test]
async fn auth_10_access_tokens_are_needed_where_the_table_says() {
    let portal = Portal::new().await;
    let refresh = portal.login().await["refresh_token"]
        .as_str()
        .unwrap()
        .to_owned();
    let wrong = [
        None,
        Some("Bearer x".to_owned()),
        Some(format!("Bearer {refresh}")),
        Some("Basic YW5uOng=".to_owned()),
    ];
    for (method, path) in [
        (Method::GET, "/auth/me"),
        (Method::GET, "/auth/sessions"),
        (Method::DELETE, "/auth/sessions/x"),
        (Method::POST, "/auth/logout-all"),
    ] {
        for credential in &wrong {
            let mut request = request(method.clone(), path, &[], "");
            if let Some(value) = credential {
                let value = value.parse().unwrap();
                request.headers_mut().insert(AUTHORIZATION, value);
            }
            assert_eq!(portal.send(request).await.status, 401, "{path}");
        }
    }
}

#[tokio::test]
async fn login_answers_as_the_contract_says() {
    let portal = Portal::new().await;
    let login = portal.login().await;
    let mut names: Vec<_> = login.as_object().unwrap().keys().collect();
    names.sort();
    assert_eq!(
        names,
        [
            "access_token",
            "expires_in",
            "refresh_token",
            "token_type",
            "user"
        ]
    );
    assert_eq!(login["token_type"], "Bearer");
    assert_eq!(login["expires_in"], 900);
    assert_eq!(login["user"]["username"], "ann");
    assert_eq!(login["user"]["email"], "ann@example.com");
    assert_eq!(login["user"]["roles"], json!(["clerk"]));
    assert!(login["user"].get("password").is_none());
}

#[tokio::test]
async fn auth_7_a_body_that_is_no_object_is_refused() {
    let portal = Portal::new().await;
    for body in [
        json!(["ann", PASSWORD]),
        json!(["ann", PASSWORD, "body"]),
        json!([]),
        json!(null),
        json!("ann"),
        json!(1),
    ] {
        for path in ["/auth/login", "/auth/refresh", "/auth/password/reset"] {
            let answer = portal.post(path, &[JSON], &body).await;
            answer.refused(400, "bad_request");
        }
    }
    let spaced = format!(
        "\r\n\t {}",
        json!({"username": "ann", "password": PASSWORD})
    );
    assert_eq!(
        portal.post("/auth/login", &[JSON], spaced).await.status,
        200
    );
}

#[tokio::test]
async fn me_and_sessions_tell_the_caller_of_himself_alone() {
    let portal = Portal::new().await;
    portal.site.add("bob", &[]).await;
    let bob = portal.site.login("bob").await;
    let first = portal.login().await;
    let second = portal.login().await;
    let token = bearer(&second);
    let auth = [("authorization", token.as_str())];
    let me = portal.get("/auth/me", &auth).await.json();
    assert_eq!(me["user"], second["user"]);
    assert_eq!(me["roles"], json!(["clerk"]));
    assert_eq!(me["scopes"], json!([]));
    assert_eq!(me["expires_in"], 900);
    let list = portal.get("/auth/sessions", &auth).await.json();
    let list = list["sessions"].as_array().unwrap();
    assert_eq!(list.len(), 2);
    assert_eq!(
        (&list[0]["id"], &list[0]["current"]),
        (&me["session"], &json!(true))
    );
    assert_eq!(list[1]["current"], false);
    assert_eq!(list[0]["ip"], "192.0.2.7");
    let end = |id: &str| {
        let path = format!("/auth/sessions/{id}");
        portal.send(request(Method::DELETE, &path, &auth, ""))
    };
    for id in [&bob.session, "nothing", "' OR 1=1", &"x".repeat(65)] {
        let id = id.replace(' ', "%20");
        end(&id).await.refused(404, "route_not_found");
    }
    assert!(portal.site.is_live(&bob));
    let other = list[1]["id"].as_str().unwrap();
    assert_eq!(end(other).await.status, 204);
    end(other).await.refused(404, "route_not_found");
    let old = bearer(&first);
    let answer = portal.get("/auth/me", &[("authorization", &old)]).await;
    assert_eq!(answer.status, 401);
    assert_eq!(portal.get("/auth/me", &auth).await.status, 200);
}

#[tokio::test]
async fn sess_5_logout_by_each_credential_is_204_and_final() {
    let portal = Portal::new().await;
    for how in ["body", "bearer"] {
        let login = portal.login().await;
        let token = bearer(&login);
        let refresh = json!({"refresh_token": login["refresh_token"]});
        for _ in 0..2 {
            let answer = if how == "body" {
                portal.post("/auth/logout", &[JSON], &refresh).await
            } else {
                let auth = [("authorization", token.as_str())];
                portal.post("/auth/logout", &auth, "").await
            };
            assert_eq!(answer.status, 204, "{how}");
            assert!(answer.body.is_empty());
        }
        let answer = portal.get("/auth/me", &[("authorization", &token)]).await;
        assert_eq!(answer.status, 401, "{how}");
        let answer = portal.post("/auth/refresh", &[JSON], &refresh).await;
        answer.refused(401, "invalid_grant");
    }
}

#[tokio::test]
async fn sess_5_logout_of_nothing_and_of_rubbish_is_204() {
    let portal = Portal::new().await;
    let rubbish = json!({"refresh_token": "rubbish"});
    assert_eq!(portal.post("/auth/logout", &[], "").await.status, 204);
    assert_eq!(portal.post("/auth/logout", &[JSON], "{}").await.status, 204);
    assert_eq!(
        portal.post("/auth/logout", &[JSON], rubbish).await.status,
        204
    );
    let auth = [("authorization", "Bearer rubbish")];
    assert_eq!(portal.post("/auth/logout", &auth, "").await.status, 204);
    let auth = [("authorization", "Basic YTpi")];
    assert_eq!(portal.post("/auth/logout", &auth, "").await.status, 204);
}

#[tokio::test]
async fn sess_5_logout_all_ends_the_other_sessions_too() {
    let portal = Portal::new().await;
    let first = portal.login().await;
    let second = portal.login().await;
    let token = bearer(&second);
    let answer = portal
        .post("/auth/logout-all", &[("authorization", &token)], "")
        .await;
    assert_eq!(answer.status, 204);
    for login in [&first, &second] {
        let token = bearer(login);
        let answer = portal.get("/auth/me", &[("authorization", &token)]).await;
        assert_eq!(answer.status, 401);
    }
}

#[tokio::test]
async fn sess_2_a_client_that_leaves_does_not_stop_its_refresh() {
    let portal = Portal::new().await;
    let login = portal.login().await;
    let body = json!({"refresh_token": login["refresh_token"]});
    let call = request(Method::POST, "/auth/refresh", &[JSON], &body);
    let mut leaving = Box::pin(portal.send(call));
    assert!(futures_util::poll!(&mut leaving).is_pending());
    drop(leaving);
    let again = portal.post("/auth/refresh", &[JSON], &body).await;
    assert_eq!(again.status, 200);
    portal.site.advance(3600);
    let body = json!({"refresh_token": again.json()["refresh_token"]});
    assert_eq!(
        portal.post("/auth/refresh", &[JSON], &body).await.status,
        200
    );
}

#[tokio::test]
async fn store_1_a_locked_store_is_503_and_no_token_is_issued() {
    let portal = Portal::new().await;
    let login = portal.login().await;
    let holder = rusqlite::Connection::open(&portal.site.settings.database).unwrap();
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    let body = json!({"refresh_token": login["refresh_token"]});
    let answer = portal.post("/auth/refresh", &[JSON], &body).await;
    answer.refused(503, "store_unavailable");
    assert!(answer.headers.contains_key("retry-after"));
    // What needs no store goes on.
    let token = bearer(&login);
    let answer = portal.get("/auth/me", &[("authorization", &token)]).await;
    assert_eq!(answer.status, 200);
    holder.execute_batch("ROLLBACK").unwrap();
    let answer = portal.post("/auth/refresh", &[JSON], &body).await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn too_many_calls_in_work_are_refused_as_overloaded() {
    let portal = Portal::new().await;
    let all = portal.handle.calls.clone().acquire_many_owned(1024).await;
    let answer = portal.get("/.well-known/jwks.json", &[]).await;
    answer.refused(503, "overloaded");
    drop(all);
    assert_eq!(portal.get("/.well-known/jwks.json", &[]).await.status, 200);
}
