//! Canaries: whatever passes through the gateway, none of it is ever written down.

use std::collections::BTreeMap;

use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use crate::harness::{
    Answer, Broken, Gateway, H2, Raw, Reply, Site, Token, Upstream, get,
    keys::{bearer, keys},
    request,
};

const PASSWORD: &str = "canary-password-of-alice";

/// Secrets by their names.
type Canaries = BTreeMap<&'static str, String>;

/// Sends tokens, good and bad, where they are looked at and where they are not.
async fn tokens(gateway: &Gateway, canaries: &mut Canaries) {
    let good = Token::good().sign();
    let attacker = EncodingKey::from_secret(&[7; 48]);
    canaries.insert("signature", good.rsplit('.').next().unwrap().to_owned());
    canaries.insert("expired token", Token::good().claim("exp", 5).sign());
    canaries.insert(
        "forged token",
        Token::good()
            .claim("sub", "root")
            .sign_by(&attacker, Algorithm::HS256),
    );
    canaries.insert("good token", good);
    for name in ["good token", "expired token", "forged token"] {
        let value = bearer(&canaries[name]);
        get(gateway, "/private", &[("Authorization", &value)]).await;
        get(gateway, "/public", &[("Authorization", &value)]).await;
        H2::connect(gateway)
            .await
            .get("/private", &[("authorization", &value)])
            .await;
    }
}

/// Sends secrets in every other place that a request and its answer have.
async fn requests(gateway: &Gateway, canaries: &mut Canaries) {
    for (name, canary, field) in [
        ("basic", "Y2FuYXJ5LWJhc2lj", "Authorization"),
        ("cookie", "canary-cookie", "Cookie"),
        (
            "proxy credential",
            "canary-proxy-credential",
            "Proxy-Authorization",
        ),
        ("api key", "canary-api-key", "X-Api-Key"),
    ] {
        canaries.insert(name, canary.into());
        get(gateway, "/public", &[(field, &format!("Basic {canary}"))]).await;
        get(
            gateway,
            "/private",
            &[(field, &format!("session={canary}"))],
        )
        .await;
    }
    canaries.insert("query", "canary-query".into());
    get(gateway, "/public?token=canary-query", &[])
        .await
        .is(200);
    get(gateway, "/auth/login?password=canary-query", &[]).await;
    let referer = [("Referer", "https://a.example/?canary-query")];
    get(gateway, "/private?access_token=canary-query", &referer).await;

    canaries.insert("request body", "canary-request-body".into());
    let post = request("POST", "/public", &[], "canary-request-body");
    Raw::connect(gateway).await.exchange(post).await.is(200);
    canaries.insert("answer", "canary-body".into());
    canaries.insert("set-cookie", "canary-set-cookie".into());

    // Heads that the parser refuses, with a secret in them.
    canaries.insert("unparsable", "canary-unparsable".into());
    for bytes in [
        "GET /public HTTP/1.1\r\nHost: localhost\r\nAuthorization : Bearer canary-unparsable\r\n\r\n",
        "canary-unparsable\r\n\r\n",
    ] {
        let mut raw = Raw::connect(gateway).await;
        raw.send(bytes).await;
        assert!(!matches!(raw.try_answer().await, Err(Broken::Malformed(_))));
    }
}

async fn post(gateway: &Gateway, target: &str, body: Value) -> Answer {
    let fields = [("Content-Type", "application/json")];
    let bytes = request("POST", target, &fields, &body.to_string());
    Raw::connect(gateway).await.exchange(bytes).await
}

/// Signs in, rightly and wrongly, refreshes and signs out.
async fn accounts(gateway: &Gateway, canaries: &mut Canaries) {
    let wrong = "canary-wrong-password";
    let misplaced = "canary-password-as-name";
    canaries.insert("password", PASSWORD.into());
    canaries.insert("wrong password", wrong.into());
    canaries.insert("password typed as name", misplaced.into());
    let login = json!({ "username": "alice", "password": PASSWORD, "delivery": "body" });
    let grant = post(gateway, "/auth/login", login).await.is(200).json();
    for (name, password) in [("alice", wrong), ("nobody", wrong), (misplaced, "x")] {
        post(
            gateway,
            "/auth/login",
            json!({ "username": name, "password": password }),
        )
        .await
        .is(401);
    }
    let extra = json!({ "username": "alice", "password": wrong, "extra": 1 });
    post(gateway, "/auth/login", extra).await.is(400);

    let text = |grant: &Value, name: &str| grant[name].as_str().unwrap().to_owned();
    let (access, refresh) = (text(&grant, "access_token"), text(&grant, "refresh_token"));
    get(gateway, "/private", &[("Authorization", &bearer(&access))])
        .await
        .is(200);
    let next = post(
        gateway,
        "/auth/refresh",
        json!({ "refresh_token": refresh }),
    )
    .await
    .is(200)
    .json();
    canaries.insert("access token", access);
    canaries.insert("refresh token", refresh);
    canaries.insert("next access token", text(&next, "access_token"));
    canaries.insert("next refresh token", text(&next, "refresh_token"));
    let last = &canaries["next refresh token"];
    post(gateway, "/auth/logout", json!({ "refresh_token": last }))
        .await
        .is(204);
}

/// Sends what else opens an account, good or not, to where it belongs and to where it does not.
async fn other_secrets(gateway: &Gateway, canaries: &mut Canaries) {
    for (name, route, field) in [
        ("bootstrap secret", "/auth/bootstrap", "secret"),
        ("invitation", "/auth/register", "invite"),
        ("reset token", "/auth/password/reset", "token"),
    ] {
        let canary = format!("canary-{}", name.replace(' ', "-"));
        let mut body =
            json!({ "username": "eve", "email": "eve@example.com", "password": PASSWORD });
        if field == "token" {
            body = json!({ "new_password": PASSWORD });
        }
        body[field] = canary.clone().into();
        let answer = post(gateway, route, body).await;
        assert!([401, 404].contains(&answer.status), "{}", answer.status);
        get(gateway, &format!("{route}?{field}={canary}"), &[]).await;
        canaries.insert(name, canary);
    }
    for (name, cookie) in [
        ("session cookie", "__Host-portcullis-session"),
        ("refresh cookie", "__Secure-portcullis-refresh"),
    ] {
        let canary = format!("canary-{}", name.replace(' ', "-"));
        let field = format!("{cookie}={canary}");
        for path in ["/private", "/auth/account", "/auth/renew"] {
            get(gateway, path, &[("Cookie", &field)]).await;
        }
        let fields = [("Cookie", &*field), ("Content-Type", "application/json")];
        let refresh = request("POST", "/auth/refresh", &fields, "");
        Raw::connect(gateway).await.exchange(refresh).await;
        canaries.insert(name, canary);
    }
    let secret = "canary-client-secret";
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    let body = format!("token=canary-opaque-token&client_id=x&client_secret={secret}");
    let asked = request("POST", "/auth/introspect", &form, &body);
    Raw::connect(gateway).await.exchange(asked).await.is(401);
    canaries.insert("client secret", secret.into());
    canaries.insert("opaque token", "canary-opaque-token".into());
}

/// An event names the exchange that brought it about.
fn log_4_events_have_the_id_of_their_request(gateway: &Gateway) {
    for event in ["login", "login_refused", "refresh", "registration_refused"] {
        let wanted = format!("\"event\":\"{event}\"");
        let text = gateway.err.text();
        let line = text.lines().find(|line| line.contains(&wanted));
        let line: Value = serde_json::from_str(line.expect(event)).unwrap();
        assert_eq!(line["target"], "audit", "{line}");
        assert!(line["span"]["request_id"].is_string(), "{line}");
        assert_eq!(line["span"]["client"], line["fields"]["client"], "{line}");
        assert!(line.get("spans").is_none(), "{line}");
    }
}

#[tokio::test]
async fn log_1_no_secret_is_written_at_any_level() {
    let cookie = [("Set-Cookie", "app=canary-set-cookie; Path=/")];
    let upstream = Upstream::scripted(move |_| Reply::with(200, &cookie, "canary-body")).await;
    let site = Site::new(upstream.address)
        .accounts()
        .set("log", "level", "\"trace\"");
    site.write();
    site.user("alice", PASSWORD, &["clerk"]).await;
    let gateway = site.start().await;
    let mut canaries = Canaries::from([
        ("shared secret", keys().secret.clone()),
        ("private key", "PRIVATE KEY".to_owned()),
    ]);
    tokens(&gateway, &mut canaries).await;
    requests(&gateway, &mut canaries).await;
    accounts(&gateway, &mut canaries).await;
    other_secrets(&gateway, &mut canaries).await;

    gateway
        .access_line(|line| line["path"] == "/auth/logout")
        .await;
    log_4_events_have_the_id_of_their_request(&gateway);
    let metrics = gateway.admin("/metrics").await.text();
    let written = [gateway.out.text(), gateway.err.text(), metrics];
    assert!(!written[0].is_empty() && written[1].contains("listening"));
    for (name, secret) in &canaries {
        assert!(secret.len() > 10, "{name} proves nothing");
        for text in &written {
            if let Some(line) = text.lines().find(|line| line.contains(secret.as_str())) {
                panic!("the {name} is written: {line}");
            }
        }
    }
}
