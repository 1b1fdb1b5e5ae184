//! What a route may say beyond who: what is cut off its path, from where it is reached, what becomes of its headers.

use crate::harness::{Gateway, H2, Raw, Site, Token, Upstream, get, keys::bearer, request};

/// Asks by raw bytes, so that nothing normalises the target on the way.
async fn ask(gateway: &Gateway, target: &str, token: Option<&str>) -> crate::harness::Answer {
    let fields: Vec<(&str, &str)> = token.iter().map(|t| ("Authorization", *t)).collect();
    let mut raw = Raw::connect(gateway).await;
    raw.exchange(request("GET", target, &fields, "")).await
}

fn stripping(upstream: &Upstream) -> Site {
    Site::new(upstream.address)
        .route("orders", "/orders", "authenticated")
        .on_route("strip_prefix", "\"/orders\"")
}

#[tokio::test]
async fn uri_5_a_stripped_prefix_leaves_no_way_out() {
    let upstream = Upstream::start().await;
    let gateway = stripping(&upstream).start().await;
    let token = bearer(&Token::good().sign());
    for target in [
        "/orders/..",
        "/orders/../private",
        "/orders/%2e%2e/private",
        "/orders/.%2e/private",
        "/orders/./private",
        "/orders/..%2fprivate",
        "/orders/%2fprivate",
        "/orders%2fprivate",
        "/orders/..%5cprivate",
        "/orders/..;/private",
        "/orders/%252e%252e/private",
        "/orders;/private",
        "/orders%00/private",
    ] {
        ask(&gateway, target, Some(&token))
            .await
            .refused(400, "ambiguous_path");
    }
    for target in [
        "/ordersx",
        "/orders.x",
        "/order",
        "/Orders/1",
        "/orders-1/x",
    ] {
        ask(&gateway, target, Some(&token))
            .await
            .refused(404, "route_not_found");
    }
    // What is decided on is the path before the cut: `/orders/public` is not `/public`.
    for target in [
        "/orders",
        "/orders/",
        "/orders/public",
        "/%6frders/public",
        "//orders//public",
    ] {
        ask(&gateway, target, None)
            .await
            .refused(401, "credentials_missing");
    }
    upstream.saw_nothing();
}

#[tokio::test]
async fn uri_5_the_upstream_is_told_the_path_below_the_prefix() {
    let upstream = Upstream::start().await;
    let gateway = stripping(&upstream).start().await;
    let token = bearer(&Token::good().sign());
    for (target, want) in [
        ("/orders", "/"),
        ("/orders/", "/"),
        ("/orders?a=1", "/?a=1"),
        ("/orders/?a=/orders", "/?a=/orders"),
        ("/orders/7", "/7"),
        ("/orders/7/", "/7/"),
        ("/orders/orders/7", "/orders/7"),
        ("/%6frders/7", "/7"),
        ("/orders/%37?x=%2e%2e", "/7?x=%2e%2e"),
        ("//orders//7", "/7"),
        ("/orders//evil.example.com/x", "/evil.example.com/x"),
        ("/orders/caf%c3%a9", "/caf%C3%A9"),
    ] {
        ask(&gateway, target, Some(&token)).await.is(200);
        assert_eq!(upstream.last().target, want, "{target}");
    }
    let mut h2 = H2::connect(&gateway).await;
    let fields = [("authorization", token.as_str())];
    h2.get("/orders/7?a=1", &fields).await.is(200);
    assert_eq!(upstream.last().target, "/7?a=1");
    // Another route of the same upstream is told the whole path.
    get(&gateway, "/public/orders/7", &[]).await.is(200);
    assert_eq!(upstream.last().target, "/public/orders/7");
    upstream.saw_no_fault();
}

#[tokio::test]
async fn uri_5_a_stripped_path_stays_under_the_upstreams_base() {
    let upstream = Upstream::start().await;
    let gateway = stripping(&upstream)
        .upstream("based", &format!("http://{}/app/v1", upstream.address))
        .route("shop", "/shop/api", "public")
        .on_route("upstream", "\"based\"")
        .on_route("strip_prefix", "\"/shop\"")
        .start()
        .await;
    for (target, want) in [
        ("/shop/api", "/app/v1/api"),
        ("/shop/api/x?y", "/app/v1/api/x?y"),
        ("/shop/api//x", "/app/v1/api/x"),
    ] {
        ask(&gateway, target, None).await.is(200);
        assert_eq!(upstream.last().target, want, "{target}");
    }
    let count = upstream.count();
    for target in ["/shop/api/../..", "/shop/api/%2e%2e/%2e%2e/x"] {
        ask(&gateway, target, None)
            .await
            .refused(400, "ambiguous_path");
    }
    assert_eq!(upstream.count(), count);
}
