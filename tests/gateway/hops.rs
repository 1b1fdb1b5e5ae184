//! What an intermediary owes to those on both sides of it: no loops, hops that are counted, fields in their order (MSG-14).

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

use crate::harness::{Gateway, H2, Raw, Reply, Site, Token, Upstream, get, keys::bearer, request};

async fn gateway(upstream: &Upstream) -> Gateway {
    Site::new(upstream.address).start().await
}

#[tokio::test]
async fn msg_14_a_gateway_that_is_its_own_upstream_turns_once() {
    // The gateway's port is known when it runs; the one of whoever leads to it, before.
    let leads = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", leads.local_addr().unwrap());
    let (found, mut to) = watch::channel(None);
    let (turned, turns) = watch::channel(0);
    let _leader = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut from, _)) = leads.accept().await {
            turned.send_modify(|turns| *turns += 1);
            let address = to.wait_for(Option::is_some).await.unwrap().unwrap();
            connections.spawn(async move {
                let mut to = TcpStream::connect::<std::net::SocketAddr>(address)
                    .await
                    .unwrap();
                let _ = copy_bidirectional(&mut from, &mut to).await;
            });
        }
    });
    for protocol in ["http1", "h2"] {
        let gateway = Site::bare()
            .set("server", "workers", "1")
            .upstream("itself", &url)
            .on_upstream("protocol", &format!("\"{protocol}\""))
            .on_upstream(
                "tls",
                r#"{ ca = "certs/site.crt", server_name = "localhost" }"#,
            )
            .route("public", "/public", "public")
            .on_route("upstream", "\"itself\"")
            .start()
            .await;
        let before = *turns.borrow();
        found.send_replace(Some(gateway.tls));
        get(&gateway, "/public", &[])
            .await
            .refused(508, "loop_detected");
        let over_h2 = H2::connect(&gateway).await.get("/public", &[]).await;
        over_h2.refused(508, "loop_detected");
        // Two requests came from outside, and each was sent round once, on the one connection that is kept for it.
        assert_eq!(*turns.borrow() - before, 1, "{protocol}");
        let series = "portcullis_requests_total{route=\"public\",method=\"GET\",status=\"508\"}";
        assert_eq!(gateway.metric(series).await, Some(4.0), "{protocol}");
    }
}

#[tokio::test]
async fn msg_14_repeated_fields_keep_their_order() {
    let upstream = Upstream::scripted(|_| {
        let fields = [
            ("X-Many", "1"),
            ("Set-Cookie", "a=1"),
            ("X-Many", "3, 2"),
            ("Link", "</a>; rel=preload"),
            ("Set-Cookie", "b=2"),
            ("X-Many", "0"),
            ("Link", "</b>; rel=preload"),
            ("Set-Cookie", "a=3"),
        ];
        Reply::with(200, &fields, "ok")
    })
    .await;
    let gateway = gateway(&upstream).await;
    let fields = [
        ("X-Several", "9"),
        ("Accept", "text/html"),
        ("X-Other", "x"),
        ("X-Several", "1, 5"),
        ("Accept", "*/*"),
        ("X-Several", "7"),
    ];
    let mut h2 = H2::connect(&gateway).await;
    for answer in [
        get(&gateway, "/public", &fields).await,
        h2.get("/public", &fields).await,
    ] {
        assert_eq!(answer.status, 200);
        assert_eq!(answer.head.values("x-many"), ["1", "3, 2", "0"]);
        assert_eq!(answer.head.values("set-cookie"), ["a=1", "b=2", "a=3"]);
        let links = ["</a>; rel=preload", "</b>; rel=preload"];
        assert_eq!(answer.head.values("link"), links);
        // A gateway tells its name inwards; outwards it may be silent (RFC 9110 §7.6.3).
        assert_eq!(answer.head.values("via"), Vec::<&str>::new());
        let seen = upstream.last();
        assert_eq!(seen.head.values("x-several"), ["9", "1, 5", "7"]);
        assert_eq!(seen.head.values("accept"), ["text/html", "*/*"]);
    }
    assert_eq!(upstream.count(), 2);
}

#[tokio::test]
async fn msg_14_max_forwards_of_options_is_honoured() {
    let upstream = Upstream::start().await;
    let gateway = gateway(&upstream).await;
    let token = bearer(&Token::good().sign());
    let mut h2 = H2::connect(&gateway).await;
    let mut options = async |target: &str, fields: &[(&str, &str)]| {
        let mut raw = Raw::connect(&gateway).await;
        let first = raw.exchange(request("OPTIONS", target, fields, "")).await;
        let second = h2.request("OPTIONS", target, fields).await;
        assert_eq!(first.status, second.status, "{target} {fields:?}");
        assert_eq!(first.header("allow"), second.header("allow"));
        first
    };
    // Whoever may not call the route learns nothing of it, and bad numbers end here.
    options("/private", &[("Max-Forwards", "0")])
        .await
        .refused(401, "credentials_missing");
    for bad in ["-1", "1.5", "x", "1, 1", ""] {
        options("/public", &[("Max-Forwards", bad)])
            .await
            .refused(400, "bad_request");
    }
    options("/public", &[("Max-Forwards", "3"), ("Max-Forwards", "3")])
        .await
        .refused(400, "bad_request");
    let authorized = [("Max-Forwards", "0"), ("Authorization", &*token)];
    let last = options("/private", &authorized).await;
    assert_eq!(last.status, 204);
    assert!(last.header("allow").unwrap().contains("GET"), "{last:?}");
    upstream.saw_nothing();
    for (sent, told) in [("1", "0"), ("12", "11"), ("00", "")] {
        let answer = options("/public", &[("Max-Forwards", sent)]).await;
        match told {
            "" => assert_eq!(answer.status, 204),
            told => {
                answer.is(200);
                assert_eq!(upstream.last().header("max-forwards"), Some(told));
            }
        }
    }
    assert_eq!(upstream.count(), 4);
    // Other methods may ignore it, and so does the gateway.
    get(&gateway, "/public", &[("Max-Forwards", "0")])
        .await
        .is(200);
    assert_eq!(upstream.last().header("max-forwards"), Some("0"));
}
