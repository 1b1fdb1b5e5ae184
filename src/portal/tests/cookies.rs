//! The refresh cookie: SESS-6, SESS-7.

use http::{
    HeaderValue,
    header::{CACHE_CONTROL, REFERRER_POLICY, SET_COOKIE},
};
use serde_json::json;

use super::{Answer, JSON, ORIGIN, PASSWORD, Portal};

const NAME: &str = "__Secure-portcullis-refresh";
const OWN: (&str, &str) = ("origin", ORIGIN);

/// Signs in as a browser does; the `Cookie` field that it would send afterwards.
async fn sign_in(portal: &Portal) -> String {
    let body = json!({"username": "ann", "password": PASSWORD});
    let answer = portal.post("/auth/login", &[JSON, OWN], body).await;
    assert_eq!(answer.status, 200);
    assert!(answer.json().get("refresh_token").is_none());
    cookie(&answer)
}

fn cookie(answer: &Answer) -> String {
    let line = answer.headers[SET_COOKIE].to_str().unwrap();
    line.split(';').next().unwrap().to_owned()
}

#[tokio::test]
async fn sess_6_the_cookie_has_every_attribute() {
    let portal = Portal::new().await;
    let body = json!({"username": "ann", "password": PASSWORD, "delivery": "cookie"});
    let answer = portal.post("/auth/login", &[JSON], body).await;
    let lines: Vec<&HeaderValue> = answer.headers.get_all(SET_COOKIE).iter().collect();
    assert_eq!(lines.len(), 4);
    assert!(lines.iter().all(|line| line.is_sensitive()));
    let (pair, attributes) = lines[0].to_str().unwrap().split_once(';').unwrap();
    let value = pair.strip_prefix(&format!("{NAME}=")).unwrap();
    assert_eq!(value.len(), 43);
    assert_eq!(
        attributes,
        " Path=/auth; Max-Age=604800; HttpOnly; Secure; SameSite=Strict"
    );
    let token = answer.json()["access_token"].as_str().unwrap().to_owned();
    let host = "Path=/; Max-Age";
    let rest = "HttpOnly; Secure; SameSite=Lax";
    assert_eq!(
        lines[1],
        &format!("__Host-portcullis-session={token}; {host}=900; {rest}")
    );
    assert_eq!(
        lines[2],
        &format!("__Host-portcullis-renewable=1; {host}=604800; {rest}")
    );
    let device = lines[3].to_str().unwrap();
    assert!(device.starts_with("__Host-portcullis-device="), "{device}");
    assert!(device.ends_with(&format!("; {host}=31536000; {rest}")));
}

#[tokio::test]
async fn sess_6_where_browsers_may_not_sign_in_there_is_no_session_cookie() {
    let site = crate::accounts::tests::Site::with(|settings| settings.pages = None);
    let portal = Portal::over(site).await;
    let body = json!({"username": "ann", "password": PASSWORD});
    let answer = portal.post("/auth/login", &[JSON], body).await;
    let set: Vec<_> = answer.headers.get_all(SET_COOKIE).iter().collect();
    assert_eq!(set.len(), 2);
    assert!(
        set[1]
            .to_str()
            .unwrap()
            .starts_with("__Host-portcullis-device=")
    );
    assert_eq!(portal.get("/auth/login", &[]).await.status, 405);
    assert_eq!(portal.get("/auth/account", &[]).await.status, 404);
    let form = ("content-type", "application/x-www-form-urlencoded");
    let answer = portal
        .post("/auth/login", &[form, OWN], "username=ann")
        .await;
    answer.refused(415, "unsupported_media_type");
}

#[tokio::test]
async fn sess_6_logout_clears_the_cookie_with_the_same_attributes() {
    let portal = Portal::new().await;
    let cookie = sign_in(&portal).await;
    let headers = [JSON, OWN, ("cookie", cookie.as_str())];
    for _ in 0..2 {
        let answer = portal.post("/auth/logout", &headers, "").await;
        assert_eq!(answer.status, 204);
        let mut lines = answer.headers.get_all(SET_COOKIE).iter();
        let refresh = format!("{NAME}=; Path=/auth; Max-Age=0; HttpOnly; Secure; SameSite=Strict");
        assert_eq!(lines.next().unwrap(), &refresh);
        for name in ["session", "renewable", "renewals"] {
            let attributes = "Path=/; Max-Age=0; HttpOnly; Secure; SameSite=Lax";
            let cookie = format!("__Host-portcullis-{name}=; {attributes}");
            assert_eq!(lines.next().unwrap(), &cookie);
        }
        assert_eq!(lines.next(), None);
    }
    let answer = portal.post("/auth/refresh", &headers, "").await;
    answer.refused(401, "invalid_grant");
}

#[tokio::test]
async fn sess_6_a_cookie_from_another_origin_is_403_and_changes_nothing() {
    let portal = Portal::new().await;
    let cookie = sign_in(&portal).await;
    for path in ["/auth/refresh", "/auth/logout"] {
        for foreign in [
            &[][..],
            &[("origin", "https://evil.example")],
            &[("origin", "https://sibling.localhost:8443")],
            &[("origin", "null")],
            &[("origin", "")],
            &[("origin", "https://localhost:8443.evil.example")],
            &[("origin", "https://LOCALHOST:8443")],
            &[OWN, OWN],
            &[OWN, ("origin", "https://evil.example")],
            &[OWN, ("sec-fetch-site", "same-site")],
            &[OWN, ("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "none")],
            &[("sec-fetch-site", "same-origin, cross-site")],
            &[
                ("sec-fetch-site", "same-origin"),
                ("sec-fetch-site", "cross-site"),
            ],
        ] {
            let mut headers = vec![JSON, ("cookie", cookie.as_str())];
            headers.extend(foreign);
            let answer = portal.post(path, &headers, "").await;
            answer.refused(403, "origin_denied");
        }
    }
    let headers = [JSON, OWN, ("cookie", cookie.as_str())];
    assert_eq!(portal.post("/auth/refresh", &headers, "").await.status, 200);
}

#[tokio::test]
async fn sess_6_a_cookie_alone_needs_a_media_type_that_no_form_has() {
    let portal = Portal::new().await;
    let cookie = sign_in(&portal).await;
    for media_type in [
        None,
        Some("text/plain"),
        Some("application/x-www-form-urlencoded"),
    ] {
        let mut headers = vec![OWN, ("cookie", cookie.as_str())];
        headers.extend(media_type.map(|value| ("content-type", value)));
        let answer = portal.post("/auth/refresh", &headers, "").await;
        answer.refused(415, "unsupported_media_type");
    }
}

#[tokio::test]
async fn sess_6_two_cookies_of_the_name_are_400() {
    let portal = Portal::new().await;
    let cookie = sign_in(&portal).await;
    let twice = format!("{cookie}; {NAME}=x");
    let spread = format!("a=b; {NAME}=; c=d");
    for path in ["/auth/refresh", "/auth/logout"] {
        for cookies in [
            &[twice.as_str()][..],
            &[cookie.as_str(), cookie.as_str()],
            &[spread.as_str(), cookie.as_str()],
        ] {
            let mut headers = vec![JSON, OWN];
            headers.extend(cookies.iter().map(|value| ("cookie", *value)));
            let answer = portal.post(path, &headers, "").await;
            answer.refused(400, "bad_request");
        }
    }
}

#[tokio::test]
async fn sess_6_names_that_resemble_the_cookie_are_not_it() {
    let portal = Portal::new().await;
    let cookie = sign_in(&portal).await;
    let value = cookie.split_once('=').unwrap().1;
    for name in [
        "portcullis-refresh",
        "__secure-portcullis-refresh",
        "__Host-portcullis-refresh",
        "x__Secure-portcullis-refresh",
        "__Secure-portcullis-refresh2",
    ] {
        let other = format!("{name}={value}");
        let headers = [JSON, OWN, ("cookie", other.as_str())];
        let answer = portal.post("/auth/refresh", &headers, "").await;
        answer.refused(401, "invalid_grant");
    }
}

#[tokio::test]
async fn refresh_by_cookie_answers_by_cookie_and_by_body_in_the_body() {
    let portal = Portal::new().await;
    let cookie = sign_in(&portal).await;
    let pair = format!("theme=dark; {cookie} ; x=y");
    for own in [OWN, ("sec-fetch-site", "same-origin")] {
        let headers = [JSON, own, ("cookie", pair.as_str())];
        let answer = portal.post("/auth/refresh", &headers, "{}").await;
        assert_eq!(answer.status, 200);
        assert!(answer.json().get("refresh_token").is_none());
        assert_ne!(self::cookie(&answer), cookie);
    }
    let login = portal.login().await;
    let body = json!({"refresh_token": login["refresh_token"]});
    let answer = portal.post("/auth/refresh", &[JSON], &body).await;
    assert_eq!(answer.status, 200);
    assert!(!answer.headers.contains_key(SET_COOKIE));
    assert_ne!(answer.json()["refresh_token"], login["refresh_token"]);
}

#[tokio::test]
async fn refresh_with_two_tokens_or_none_is_refused() {
    let portal = Portal::new().await;
    let cookie = sign_in(&portal).await;
    let login = portal.login().await;
    let body = json!({"refresh_token": login["refresh_token"]});
    let headers = [JSON, OWN, ("cookie", cookie.as_str())];
    let answer = portal.post("/auth/refresh", &headers, body).await;
    answer.refused(400, "ambiguous_credentials");
    let answer = portal.post("/auth/refresh", &[JSON], "{}").await;
    answer.refused(401, "invalid_grant");
    let answer = portal.post("/auth/refresh", &[], "").await;
    answer.refused(401, "invalid_grant");
}

#[tokio::test]
async fn sess_2_a_refused_refresh_does_not_clear_the_cookie() {
    let portal = Portal::new().await;
    let cookie = sign_in(&portal).await;
    let headers = [JSON, OWN, ("cookie", cookie.as_str())];
    assert_eq!(portal.post("/auth/refresh", &headers, "").await.status, 200);
    portal.site.advance(11);
    let answer = portal.post("/auth/refresh", &headers, "").await;
    answer.refused(401, "invalid_grant"); // and sets no cookie
}

#[tokio::test]
async fn sess_7_token_answers_are_kept_out_of_caches_and_referrers() {
    let portal = Portal::new().await;
    let login = portal.login().await;
    let token = super::bearer(&login);
    let auth = ("authorization", token.as_str());
    let body = json!({"refresh_token": login["refresh_token"]});
    let wrong = json!({"username": "ann", "password": "x"});
    for answer in [
        portal.post("/auth/login", &[JSON], wrong).await,
        portal.post("/auth/refresh", &[JSON], &body).await,
        portal.post("/auth/refresh", &[], "").await,
        portal.get("/auth/me", &[auth]).await,
        portal.get("/auth/sessions", &[auth]).await,
        portal.post("/auth/logout", &[JSON], &body).await,
    ] {
        assert_eq!(answer.headers[CACHE_CONTROL], "no-store");
        assert_eq!(answer.headers[REFERRER_POLICY], "no-referrer");
        assert!(!answer.headers.contains_key("location"));
    }
}

#[tokio::test]
async fn sess_7_tokens_in_the_query_are_not_looked_at() {
    let portal = Portal::new().await;
    let login = portal.login().await;
    let refresh = login["refresh_token"].as_str().unwrap();
    let access = login["access_token"].as_str().unwrap();
    let path = format!("/auth/refresh?refresh_token={refresh}");
    let answer = portal.post(&path, &[JSON], "{}").await;
    answer.refused(401, "invalid_grant");
    let path = format!("/auth/me?access_token={access}");
    assert_eq!(portal.get(&path, &[]).await.status, 401);
}

#[tokio::test]
async fn auth_8_a_cookie_that_was_there_before_a_login_is_dead_after_it() {
    let portal = Portal::new().await;
    let preset = sign_in(&portal).await;
    let old = ("cookie", preset.as_str());
    let wrong = json!({"username": "ann", "password": "wrong"});
    let answer = portal.post("/auth/login", &[JSON, OWN, old], wrong).await;
    answer.refused(401, "invalid_credentials");
    let refreshed = portal.post("/auth/refresh", &[JSON, OWN, old], "").await;
    assert_eq!(refreshed.status, 200, "a failed login ends nothing");
    let right = json!({"username": "ann", "password": PASSWORD});
    let answer = portal.post("/auth/login", &[JSON, OWN, old], right).await;
    assert_eq!(answer.status, 200);
    let new = cookie(&answer);
    assert_ne!(new, preset);
    let old = portal.post("/auth/refresh", &[JSON, OWN, old], "").await;
    old.refused(401, "invalid_grant");
    let new = [JSON, OWN, ("cookie", new.as_str())];
    assert_eq!(portal.post("/auth/refresh", &new, "").await.status, 200);
}
