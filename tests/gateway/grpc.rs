//! gRPC: refusals that its clients can read.

use http::Method;

use crate::harness::{
    H2, Raw, Site, Token, Upstream, client::full, http1::Answer, keys::bearer, request,
};

async fn call(h2: &mut H2, target: &str, fields: &[(&str, &str)]) -> Answer {
    let mut builder = http::Request::builder()
        .method(Method::POST)
        .uri(format!("https://localhost{target}"))
        .header("content-type", "application/grpc+proto")
        .header("te", "trailers");
    for (name, value) in fields {
        builder = builder.header(*name, *value);
    }
    let request = builder.body(full(&b"\0\0\0\0\0"[..])).unwrap();
    h2.send(request).await.unwrap()
}

#[tokio::test]
async fn a_refused_call_has_a_status_of_grpc() {
    let upstream = Upstream::start().await;
    let gateway = Site::new(upstream.address).start().await;
    let mut h2 = H2::connect(&gateway).await;
    let plain = bearer(&Token::good().without("roles").sign());
    let bad = bearer(&format!("{}x", Token::good().sign()));
    for (target, authorization, status, code) in [
        ("/private/a.B/C", None, "16", "credentials_missing"),
        ("/private/a.B/C", Some(&*bad), "16", "token_invalid"),
        ("/admin/a.B/C", Some(&*plain), "7", "role_missing"),
        ("/nowhere", None, "12", "route_not_found"),
        ("/private/%2e%2e", None, "13", "ambiguous_path"),
    ] {
        let fields: Vec<_> = authorization
            .iter()
            .map(|text| ("authorization", *text))
            .collect();
        let answer = call(&mut h2, target, &fields).await;
        assert_eq!(answer.status, 200, "{target}");
        assert_eq!(answer.header("content-type"), Some("application/grpc"));
        assert_eq!(answer.header("grpc-status"), Some(status), "{code}");
        assert!(!answer.header("grpc-message").unwrap().is_empty());
        assert_eq!(answer.header("content-length"), None);
        assert!(answer.body.is_empty());
        assert_eq!(answer.header("www-authenticate").is_some(), status == "16");
        let id = answer.header("x-request-id").unwrap().to_owned();
        let line = gateway.access_line(|line| line["request_id"] == *id).await;
        assert_eq!(
            (&line["code"], &line["status"]),
            (&code.into(), &200.into())
        );
    }
    upstream.saw_nothing();
    let good = bearer(&Token::good().sign());
    let answer = call(&mut h2, "/private/a.B/C", &[("authorization", &good)]).await;
    assert_eq!(answer.is(200).text(), "hello");
    assert_eq!(upstream.last().body, b"\0\0\0\0\0");
}

#[tokio::test]
async fn what_is_no_grpc_call_has_an_ordinary_refusal() {
    let upstream = Upstream::start().await;
    let gateway = Site::new(upstream.address).start().await;
    for (method, kind) in [
        ("POST", "application/grpcs"),
        ("POST", "application/json"),
        ("GET", "application/grpc"),
    ] {
        let mut raw = Raw::connect(&gateway).await;
        raw.exchange(request(method, "/private", &[("Content-Type", kind)], ""))
            .await
            .refused(401, "credentials_missing");
    }
    let mut raw = Raw::connect(&gateway).await;
    let fields = [("Content-Type", "application/grpc-web+proto")];
    let answer = raw.exchange(request("POST", "/private", &fields, "")).await;
    assert_eq!(answer.is(200).header("grpc-status"), Some("16"));
    let kind = answer.header("content-type");
    assert_eq!(kind, Some("application/grpc-web+proto"));
}
