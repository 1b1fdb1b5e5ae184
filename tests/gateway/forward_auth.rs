//! The endpoint that other proxies ask: the decision is that of the live path, and nothing is forwarded.

use crate::harness::{
    Answer, Gateway, Kind, Raw, Site, Token, Upstream, get, keys::bearer, request,
};

/// A site whose endpoint this machine may ask.
fn site(upstream: &Upstream) -> Site {
    Site::new(upstream.address)
        .set("server", "trusted_proxies", r#"["127.0.0.1/32"]"#)
        .set("forward_auth", "path", "\"/auth/verify\"")
        .route("elsewhere", "/elsewhere", "authenticated")
        .off_route("upstream")
        .route("reads", "/mixed", "public")
        .on_route("methods", r#"["GET"]"#)
        .route("writes", "/mixed", "authenticated")
        .on_route("methods", r#"["POST"]"#)
}

/// Asks as Traefik and Caddy do.
async fn ask(gateway: &Gateway, (method, target): (&str, &str), more: &[(&str, &str)]) -> Answer {
    let mut fields = vec![
        ("X-Forwarded-Method", method),
        ("X-Forwarded-Host", "app.example.com"),
        ("X-Forwarded-Uri", target),
        ("X-Forwarded-Proto", "https"),
    ];
    fields.extend(more);
    get(gateway, "/auth/verify", &fields).await
}

#[tokio::test]
async fn hdr_4_strangers_are_not_answered() {
    let upstream = Upstream::start().await;
    let site = site(&upstream).set("server", "trusted_proxies", r#"["192.0.2.0/24"]"#);
    let gateway = site.start().await;
    let token = bearer(&Token::good().sign());
    for path in ["/auth/verify", "/auth/verify/private", "/oauth2/auth"] {
        let fields = [
            ("Authorization", &*token),
            ("X-Forwarded-Method", "GET"),
            ("X-Forwarded-Host", "localhost"),
            ("X-Forwarded-Uri", "/private"),
        ];
        let answer = get(&gateway, path, &fields).await;
        answer.refused(404, "route_not_found");
        assert_eq!(answer.header("x-forwarded-user"), None);
    }
    upstream.saw_nothing();
}

#[tokio::test]
async fn cfg_1_an_endpoint_that_would_answer_nobody_is_refused() {
    let upstream = Upstream::start().await;
    let site = site(&upstream).set("server", "trusted_proxies", "[]");
    site.write();
    let exit = site.run(&["check"], "").await;
    assert_eq!(exit.code, Some(1), "{exit:?}");
    assert!(
        exit.stderr.contains("would answer nobody") || exit.stdout.contains("would answer nobody"),
        "{exit:?}"
    );
}

#[tokio::test]
async fn uri_3_the_decision_is_that_of_the_live_path() {
    let upstream = Upstream::start().await;
    let gateway = site(&upstream).start().await;
    let (clerk, admin) = (
        Token::good().sign(),
        Token::good().claim("roles", vec!["admin"]).sign(),
    );
    for (asked, token, want) in [
        (("GET", "/public"), None, Ok(())),
        (("GET", "/private"), None, Err((401, "credentials_missing"))),
        (
            ("GET", "/private?x=/public"),
            None,
            Err((401, "credentials_missing")),
        ),
        (
            ("GET", "/elsewhere"),
            None,
            Err((401, "credentials_missing")),
        ),
        (
            ("GET", "/private"),
            Some("a.b.c"),
            Err((401, "token_invalid")),
        ),
        (("GET", "/private"), Some(&*clerk), Ok(())),
        (("GET", "/elsewhere/x"), Some(&*clerk), Ok(())),
        (("GET", "/admin"), Some(&*clerk), Err((403, "role_missing"))),
        (("GET", "/admin"), Some(&*admin), Ok(())),
        (("GET", "/mixed"), None, Ok(())),
        (("POST", "/mixed"), None, Err((401, "credentials_missing"))),
        (
            ("PUT", "/mixed"),
            Some(&*admin),
            Err((403, "method_not_allowed")),
        ),
        (
            ("GET", "/nowhere"),
            Some(&*admin),
            Err((403, "route_not_found")),
        ),
        (
            ("GET", "/auth/verify"),
            Some(&*admin),
            Err((403, "route_not_found")),
        ),
        (
            ("GET", "/private/../public"),
            None,
            Err((403, "ambiguous_path")),
        ),
        (
            ("GET", "/private%2f..%2fpublic"),
            None,
            Err((403, "ambiguous_path")),
        ),
    ] {
        let token = token.map(bearer);
        let credential: Vec<_> = token
            .iter()
            .map(|token| ("Authorization", &**token))
            .collect();
        let answer = ask(&gateway, asked, &credential).await;
        match want {
            Ok(()) => {
                answer.is(200);
            }
            Err((status, code)) => answer.refused(status, code),
        }
    }
    upstream.saw_nothing();
}

#[tokio::test]
async fn uri_3_a_preflight_is_no_reason_to_let_anybody_through() {
    let upstream = Upstream::start().await;
    let cors =
        r#"{ origins = ["https://spa.example.com"], credentials = true, methods = ["PUT"] }"#;
    let site = site(&upstream)
        .route("spa", "/spa", "authenticated")
        .off_route("upstream")
        .on_route("methods", r#"["GET", "PUT", "OPTIONS"]"#)
        .on_route("cors", cors);
    let gateway = site.start().await;
    let fields = [
        ("Origin", "https://spa.example.com"),
        ("Access-Control-Request-Method", "PUT"),
    ];
    // To the other proxy a 2xx would say that it may forward, whatever the browser makes of it.
    for target in ["/spa", "/spa/x", "/elsewhere"] {
        let answer = ask(&gateway, ("OPTIONS", target), &fields).await;
        answer.refused(401, "credentials_missing");
    }
    // Envoy asks with the method and target of the request itself.
    let mut raw = Raw::connect(&gateway).await;
    let fields = [("Host", "app.example.com"), fields[0], fields[1]];
    let question = request("OPTIONS", "/auth/verify/spa/x", &fields, "");
    assert_eq!(raw.exchange(question).await.status, 401);
    upstream.saw_nothing();
}

#[tokio::test]
async fn hdr_1_the_answer_names_who_was_verified_and_nobody_else() {
    let upstream = Upstream::start().await;
    let gateway = site(&upstream).start().await;
    let forged = [("X-Forwarded-User", "root"), ("Remote-User", "root")];
    let answer = ask(&gateway, ("GET", "/public"), &forged).await;
    answer.is(200);
    for name in ["x-forwarded-user", "remote-user", "x-forwarded-groups"] {
        assert_eq!(answer.header(name), None, "{name}");
    }
    let token = bearer(&Token::good().claim("roles", vec!["clerk", "admin"]).sign());
    let mut fields = forged.to_vec();
    fields.push(("Authorization", &token));
    let answer = ask(&gateway, ("GET", "/admin"), &fields).await;
    answer.is(200);
    assert_eq!(answer.header("x-forwarded-user"), Some("alice"));
    assert_eq!(answer.header("x-forwarded-groups"), Some("clerk,admin"));
    assert_eq!(answer.header("x-auth-issuer"), Some(&*Kind::Hs.issuer()));
    assert_eq!(answer.header("remote-user"), None);
    upstream.saw_nothing();
}

#[tokio::test]
async fn uri_2_a_question_that_is_not_clear_is_forbidden() {
    let upstream = Upstream::start().await;
    let gateway = site(&upstream).start().await;
    let token = bearer(&Token::good().sign());
    let credential = ("Authorization", &*token);
    // As a proxy asks that sets the URL alone, while its client sends the rest.
    let url = ("X-Original-URL", "https://app.example.com/mixed");
    let answer = get(&gateway, "/auth/verify", &[url, credential]).await;
    answer.refused(403, "bad_request");
    let answer = ask(&gateway, ("GET", "/public"), &[url]).await;
    answer.refused(403, "bad_request");
    let answer = ask(
        &gateway,
        ("GET", "/mixed"),
        &[("X-Original-Method", "POST")],
    )
    .await;
    answer.refused(403, "bad_request");
    let answer = ask(&gateway, ("GET", "/public#"), &[]).await;
    answer.refused(403, "ambiguous_path");
    upstream.saw_nothing();
}

#[tokio::test]
async fn each_proxy_s_way_to_ask_is_answered() {
    let upstream = Upstream::start().await;
    let gateway = site(&upstream).start().await;
    let token = bearer(&Token::good().sign());
    let nginx = [
        ("X-Original-Method", "POST"),
        ("X-Original-URL", "https://app.example.com/mixed?a=1"),
    ];
    for path in ["/auth/verify", "/oauth2/auth"] {
        let answer = get(&gateway, path, &nginx).await;
        answer.refused(401, "credentials_missing");
        assert!(answer.header("www-authenticate").is_some());
        let mut fields = nginx.to_vec();
        fields.push(("Authorization", &token));
        get(&gateway, path, &fields).await.is(200);
    }
    // Envoy sends the request itself below the endpoint's path.
    for (method, want) in [("GET", 200), ("POST", 401)] {
        let mut raw = Raw::connect(&gateway).await;
        let question = request(method, "/auth/verify/mixed?a=1", &[], "");
        raw.exchange(question).await.is(want);
    }
    upstream.saw_nothing();
}

#[tokio::test]
async fn rate_1_the_limit_counts_the_client_and_not_the_proxy() {
    let upstream = Upstream::start().await;
    let site = site(&upstream).set("rate_limit", "per_ip", r#"{ rate = "1/1h", burst = 2 }"#);
    let gateway = site.start().await;
    let question = ("GET", "/public");
    for client in ["192.0.2.1", "192.0.2.2"] {
        let from = [("X-Forwarded-For", client)];
        ask(&gateway, question, &from).await.is(200);
        ask(&gateway, question, &from).await.is(200);
        let answer = ask(&gateway, question, &from).await;
        answer.refused(429, "rate_limited");
    }
}

#[tokio::test]
async fn what_another_proxy_forwards_is_not_served_here() {
    let upstream = Upstream::start().await;
    let gateway = site(&upstream).start().await;
    let token = bearer(&Token::good().sign());
    let answer = get(&gateway, "/elsewhere", &[("Authorization", &token)]).await;
    answer.refused(404, "route_not_found");
    upstream.saw_nothing();
    // Log and metrics are those of the route that was asked about.
    ask(&gateway, ("GET", "/private/7"), &[]).await;
    let line = gateway
        .access_line(|line| line["path"] == "/private/7")
        .await;
    assert_eq!(line["route"], "private");
    assert_eq!(line["code"], "credentials_missing");
}
