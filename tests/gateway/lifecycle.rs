//! From readiness to the drain, and what an operator sees meanwhile.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{net::TcpStream, sync::Notify};

use crate::harness::{
    Gateway, H2, Kind, Raw, Reply, Site, Step, Token, Upstream, eventually, get, keys::bearer,
    request, within,
};

/// An upstream that answers when the test says so.
pub(crate) async fn waiting() -> (Upstream, Arc<Notify>) {
    let signal = Arc::new(Notify::new());
    let shared = Arc::clone(&signal);
    let upstream = Upstream::scripted(move |seen| match &*seen.target {
        "/public/slow" => Reply(vec![
            Step::Until(Arc::clone(&shared)),
            Step::Send(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nslow".to_vec()),
        ]),
        _ => Reply::ok("quick"),
    })
    .await;
    (upstream, signal)
}

async fn refuses_connections(gateway: &Gateway) {
    eventually("new connections to be refused", async || {
        TcpStream::connect(gateway.tls).await.is_err().then_some(())
    })
    .await;
}

#[tokio::test]
async fn cfg_3_what_is_in_flight_ends_before_the_gateway_does() {
    for signal in ["TERM", "INT"] {
        let (upstream, answer) = waiting().await;
        let mut gateway = Site::new(upstream.address)
            .set("server", "drain_timeout", "\"20s\"")
            .start()
            .await;
        let mut idle = Raw::connect(&gateway).await;
        idle.exchange(request("GET", "/public", &[], ""))
            .await
            .is(200);
        let mut h1 = Raw::connect(&gateway).await;
        h1.send(request("GET", "/public/slow", &[], "")).await;
        let mut h2 = H2::connect(&gateway).await;
        let second = h2.get("/public/slow", &[]);
        let drain = async {
            upstream.request(3).await;
            gateway.signal(signal);
            // An idle connection is closed, a new one refused; the two that wait go on.
            assert!(idle.rest().await.is_empty());
            refuses_connections(&gateway).await;
            answer.notify_waiters();
            answer.notify_one();
            answer.notify_one();
            h1.answer().await
        };
        let (second, first) = within("the answers", async { tokio::join!(second, drain) }).await;
        assert_eq!((first.status, &*first.text()), (200, "slow"));
        assert_eq!((second.status, &*second.text()), (200, "slow"));
        drop((h1, h2));
        assert_eq!(gateway.exit().await.code(), Some(0), "{signal}");
        let served = gateway
            .out
            .all()
            .iter()
            .filter(|line| line.contains("/public/slow"))
            .count();
        assert_eq!(
            served,
            2,
            "the access log lost lines:\n{}",
            gateway.out.text()
        );
    }
}

#[tokio::test]
async fn cfg_3_what_does_not_end_is_ended_at_the_deadline() {
    let (upstream, _answer) = waiting().await;
    let mut gateway = Site::new(upstream.address)
        .set("server", "drain_timeout", "\"1s\"")
        .start()
        .await;
    let mut raw = Raw::connect(&gateway).await;
    raw.send(request("GET", "/public/slow", &[], "")).await;
    upstream.request(1).await;
    let begun = Instant::now();
    gateway.signal("TERM");
    let status = gateway.exit().await;
    let took = begun.elapsed();
    assert!(
        took >= Duration::from_secs(1) && took < Duration::from_secs(10),
        "{took:?}"
    );
    assert_eq!(status.code(), Some(0));
    // Events are written by a thread of their own: the last ones must not be lost with it.
    for word in ["drain timeout: closing", "\"stopped\""] {
        gateway
            .err
            .find(word, |line| line.contains(word).then_some(()))
            .await;
    }
}

#[tokio::test]
async fn cfg_3_un_readiness_comes_before_the_listeners_close() {
    let (upstream, _answer) = waiting().await;
    let mut gateway = Site::new(upstream.address)
        .set("server", "drain_delay", "\"4s\"")
        .start()
        .await;
    let mut kept = Raw::connect(&gateway).await;
    let again = request("POST", "/public", &[], "body");
    let before = kept.exchange(&again).await;
    assert_eq!(before.is(200).header("connection"), None);
    gateway.signal("TERM");
    eventually("un-readiness", async || {
        (gateway.admin("/readyz").await.status == 503).then_some(())
    })
    .await;
    assert_eq!(gateway.admin("/healthz").await.status, 200);
    // Kept connections are asked to leave before they are closed under a request that may not be sent twice.
    let last = kept.exchange(&again).await;
    assert_eq!(last.is(200).header("connection"), Some("close"));
    assert!(kept.rest().await.is_empty());
    get(&gateway, "/public", &[]).await.is(200);
    assert_eq!(gateway.exit().await.code(), Some(0));
}

#[tokio::test]
async fn cfg_3_the_command_ready_says_whether_it_serves() {
    let (upstream, _answer) = waiting().await;
    let site = Site::new(upstream.address).set("server", "drain_delay", "\"2s\"");
    site.write();
    let exit = site.run(&["ready"], "").await;
    assert_eq!(exit.code, Some(1), "nobody is asked at port 0: {exit:?}");
    assert!(exit.stderr.contains("server.admin_listen"), "{exit:?}");

    let gateway = site.start().await;
    // The configuration says 0; it is written over with the port that this became.
    let (zero, port) = ("admin_listen = \"127.0.0.1:0\"", gateway.admin);
    let text = gateway.site.toml();
    assert!(text.contains(zero), "{text}");
    let text = text.replace(zero, &format!("admin_listen = \"{port}\""));
    std::fs::write(gateway.site.config(), text).unwrap();
    let exit = gateway.site.run(&["ready"], "").await;
    assert_eq!(exit.code, Some(0), "{exit:?}");
    assert!(exit.stdout.contains(r#""ready":true"#), "{exit:?}");
    gateway.signal("TERM");
    eventually("un-readiness", async || {
        (gateway.site.run(&["ready"], "").await.code == Some(1)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn log_3_health_and_metrics_are_on_the_admin_listener_alone() {
    let upstream = Upstream::start().await;
    let gateway = Site::new(upstream.address).start().await;
    for path in ["/healthz", "/readyz", "/metrics", "/status", "/status.json"] {
        gateway.admin(path).await.is(200);
        for fields in [
            &[][..],
            &[("Host", "127.0.0.1")],
            &[("User-Agent", "kube-probe/1.30")],
        ] {
            get(&gateway, path, fields).await.is(404);
        }
        let foreign = request("GET", path, &[("Host", "evil.example.com")], "");
        let mut raw = Raw::plain(gateway.admin).await;
        assert!(
            [400, 403, 421].contains(&raw.exchange(foreign).await.status),
            "{path}"
        );
    }
    let mut raw = Raw::plain(gateway.admin).await;
    raw.exchange(request("GET", "/public", &[], ""))
        .await
        .is(404);
    upstream.saw_nothing();
}

#[tokio::test]
async fn metrics_bear_the_names_of_the_contract() {
    let upstream = Upstream::start().await;
    let gateway = Site::new(upstream.address).start().await;
    let token = bearer(&Token::new(Kind::Es).sign());
    get(&gateway, "/private", &[("Authorization", &token)])
        .await
        .is(200);
    get(&gateway, "/private", &[("Authorization", &token)])
        .await
        .is(200);
    get(&gateway, "/private", &[]).await.is(401);
    eventually("the third exchange", async || {
        gateway
            .metric("portcullis_decisions_total{route=\"private\",code=\"credentials_missing\"}")
            .await
    })
    .await;
    let text = gateway.admin("/metrics").await.text();
    for name in [
        "portcullis_requests_total{route=\"private\",method=\"GET\",status=\"200\"} 2",
        "portcullis_requests_total{route=\"private\",method=\"GET\",status=\"401\"} 1",
        "portcullis_request_duration_seconds_count{route=\"private\"} 3",
        "portcullis_upstream_duration_seconds_count{upstream=\"legacy\"} 2",
        "portcullis_upstream_healthy{upstream=\"legacy\",",
        "portcullis_token_cache_total{result=\"hit\"} 1",
        "portcullis_token_cache_total{result=\"miss\"} 1",
        "portcullis_token_cache_bytes ",
        "portcullis_build_info{version=\"",
    ] {
        assert!(text.contains(name), "no {name} in\n{text}");
    }
}

#[tokio::test]
async fn log_5_no_label_comes_from_a_client() {
    let upstream = Upstream::start().await;
    let gateway = Site::new(upstream.address).start().await;
    for number in 0..20 {
        let mut raw = Raw::connect(&gateway).await;
        raw.exchange(request(
            &format!("LABEL{number}"),
            &format!("/label/{number}"),
            &[],
            "",
        ))
        .await;
    }
    eventually("the exchanges", async || {
        let line = gateway
            .metric("portcullis_requests_total{route=\"none\",method=\"other\",status=\"404\"}")
            .await;
        line.filter(|count| *count >= 20.0)
    })
    .await;
    assert!(!gateway.admin("/metrics").await.text().contains("abel"));
}

#[tokio::test]
async fn log_4_the_access_log_says_who_asked_for_what_and_how_it_ended() {
    let upstream = Upstream::start().await;
    let gateway = Site::new(upstream.address).start().await;
    let token = bearer(&Token::good().claim("sid", "session-1").sign());
    let mut raw = Raw::connect(&gateway).await;
    let answer = raw
        .exchange(request(
            "POST",
            "/private/x?secret=query",
            &[("Authorization", &token)],
            "12345",
        ))
        .await;
    let line = gateway
        .access_line(|line| line["path"] == "/private/x")
        .await;
    for (name, want) in [
        ("peer", "127.0.0.1".into()),
        ("client", "127.0.0.1".into()),
        ("method", "POST".into()),
        ("host", "localhost".into()),
        ("route", "private".into()),
        ("upstream", "legacy".into()),
        ("status", serde_json::json!(200)),
        ("bytes_in", serde_json::json!(5)),
        ("bytes_out", serde_json::json!(5)),
        ("ending", "complete".into()),
    ] {
        assert_eq!(line[name], want, "{name} in {line}");
    }
    assert_eq!(line["user"]["subject"], "alice", "{line}");
    assert_eq!(line["user"]["issuer"], Kind::Hs.issuer(), "{line}");
    assert_eq!(line["request_id"].as_str(), answer.header("x-request-id"));
    assert_eq!(
        upstream.last().header("x-request-id"),
        answer.header("x-request-id")
    );
    assert!(
        line["time"].is_string()
            && line["duration_ms"].is_number()
            && line["upstream_ms"].is_number(),
        "{line}"
    );

    let refused = H2::connect(&gateway)
        .await
        .get("/admin", &[("authorization", &token)])
        .await;
    refused.refused(403, "role_missing");
    let line = gateway.access_line(|line| line["status"] == 403).await;
    assert_eq!(
        (&line["code"], &line["route"]),
        (&"role_missing".into(), &"admin".into()),
        "{line}"
    );
    assert_eq!(line["request_id"], refused.json()["request_id"]);
}

#[tokio::test]
async fn log_2_whatever_is_asked_for_is_one_line_of_json() {
    let upstream = Upstream::start().await;
    let gateway = Site::new(upstream.address).start().await;
    let targets = [
        "/public/%22%7d",
        "/public/caf%c3%a9",
        "/public/%1b%5b31m",
        "/public/a%20b",
        "/public/\"}{\"",
        "/public/'<script>",
    ];
    for target in targets {
        let mut raw = Raw::connect(&gateway).await;
        raw.exchange(request(
            "GET",
            target,
            &[("User-Agent", "\u{1f600} \"}"), ("Referer", "\\\"\t")],
            "",
        ))
        .await;
    }
    get(&gateway, "/public/last", &[]).await;
    gateway
        .access_line(|line| line["path"] == "/public/last")
        .await;
    for line in gateway.out.all() {
        assert!(
            serde_json::from_str::<serde_json::Value>(&line).is_ok(),
            "{line}"
        );
        assert!(!line.contains('\u{1b}'), "{line:?}");
    }
    for line in gateway.err.all() {
        assert!(
            serde_json::from_str::<serde_json::Value>(&line).is_ok(),
            "{line}"
        );
    }
}
