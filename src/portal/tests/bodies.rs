//! What a body may be: AUTH-4, AUTH-7, AUTH-8, STORE-4.

use serde_json::json;

use super::{JSON, PASSWORD, Portal};

#[tokio::test]
async fn auth_7_bodies_that_are_not_exactly_the_type_are_400() {
    let portal = Portal::new().await;
    let login = json!({"username": "ann", "password": PASSWORD});
    for (field, value) in [
        ("role", json!("admin")),
        ("roles", json!(["admin"])),
        ("is_admin", json!(true)),
        ("verified", json!(true)),
        ("user_id", json!("x")),
        ("Username", json!("ann")),
    ] {
        let mut body = login.clone();
        body[field] = value;
        let answer = portal.post("/auth/login", &[JSON], body).await;
        answer.refused(400, "bad_request");
        let mut body = json!({"refresh_token": "x"});
        body[field] = json!("admin");
        for path in ["/auth/refresh", "/auth/logout"] {
            portal
                .post(path, &[JSON], &body)
                .await
                .refused(400, "bad_request");
        }
    }
    for body in [
        "",
        "{",
        "null",
        "[]",
        "\"ann\"",
        "{}",
        r#"{"username":"ann"}"#,
        r#"{"username":"ann","password":1}"#,
        r#"{"username":null,"password":"x"}"#,
        r#"{"username":["ann"],"password":"x"}"#,
        r#"{"username":"ann","username":"bob","password":"x"}"#,
        r#"{"username":"ann","password":"x"} x"#,
        r#"{"username":"ann","password":"x","delivery":"header"}"#,
        "username=ann&password=x",
    ] {
        let answer = portal.post("/auth/login", &[JSON], body).await;
        answer.refused(400, "bad_request");
    }
}

#[tokio::test]
async fn auth_8_anything_but_json_is_415() {
    let portal = Portal::new().await;
    let body = json!({"username": "ann", "password": PASSWORD});
    let form = ("content-type", "application/x-www-form-urlencoded");
    let answer = portal.post("/auth/login", &[form], &body).await;
    answer.refused(403, "origin_denied"); // no page of ours sent it
    for media_type in [
        "text/plain",
        "multipart/form-data; boundary=x",
        "application/json; charset=iso-8859-1",
        "application/json, text/plain",
        "application/jsonp",
        "text/json",
        "",
    ] {
        let answer = portal
            .post("/auth/login", &[("content-type", media_type)], &body)
            .await;
        answer.refused(415, "unsupported_media_type");
    }
    let answer = portal.post("/auth/login", &[], &body).await;
    answer.refused(415, "unsupported_media_type");
    for media_type in [
        "application/json;charset=utf-8",
        "Application/JSON ; charset=UTF-8",
    ] {
        let answer = portal
            .post("/auth/login", &[("content-type", media_type)], &body)
            .await;
        assert_eq!(answer.status, 200, "{media_type}");
    }
}

#[tokio::test]
async fn auth_8_a_login_that_another_site_sends_is_403() {
    let portal = Portal::new().await;
    let body = json!({"username": "ann", "password": PASSWORD});
    for header in [
        ("origin", "https://evil.example"),
        ("origin", "https://sub.localhost:8443"),
        ("origin", "http://localhost:8443"),
        ("origin", "https://localhost"),
        ("origin", "null"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
        ("sec-fetch-site", "none"),
    ] {
        let answer = portal.post("/auth/login", &[JSON, header], &body).await;
        answer.refused(403, "origin_denied");
        // A form's media type does not change the verdict.
        let form = [
            ("content-type", "application/x-www-form-urlencoded"),
            header,
        ];
        portal
            .post("/auth/login", &form, "username=ann")
            .await
            .refused(403, "origin_denied");
    }
}

#[tokio::test]
async fn auth_4_fields_beyond_their_bounds_are_400_before_any_hash() {
    let portal = Portal::new().await;
    for (name, secret) in [
        ("ann".to_owned(), "x".repeat(257)),
        ("ann".to_owned(), "\u{1f512}".repeat(257)),
        ("x".repeat(255), "x".to_owned()),
    ] {
        let body = json!({"username": name, "password": secret});
        let answer = portal.post("/auth/login", &[JSON], body).await;
        answer.refused(400, "bad_request");
    }
}

#[tokio::test]
async fn store_4_a_body_beyond_16_kib_is_413_even_if_the_gateway_let_it_through() {
    let portal = Portal::new().await;
    let body = json!({"username": "ann", "password": "x".repeat(17 << 10)});
    let answer = portal.post("/auth/login", &[JSON], body).await;
    answer.refused(413, "body_too_large");
}
