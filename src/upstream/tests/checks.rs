//! Active health checks, and what they mean for requests.

use tokio::runtime::Handle;

use super::*;

fn checked(mut settings: UpstreamSettings) -> UpstreamSettings {
    settings.health = Some(HealthSettings {
        path: "/healthz".into(),
        interval: Duration::from_millis(20),
        timeout: Duration::from_secs(5),
        healthy: 2,
        unhealthy: 3,
    });
    settings
}

pub(super) async fn until(what: &str, holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let patience = Duration::from_secs(30);
    tokio::time::timeout(patience, wait).await.expect(what);
}

#[tokio::test]
async fn a_server_whose_checks_fail_is_out_until_they_pass() {
    for bad in [
        &b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n"[..],
        b"HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n",
        b"garbage\r\n\r\n",
        b"",
    ] {
        local(async {
            let moved: &[u8] = b"HTTP/1.1 302 Found\r\nlocation: /\r\ncontent-length: 0\r\n\r\n";
            let scripts = vec![vec![bad], vec![bad], vec![bad], vec![moved], vec![OK; 9]];
            let (settings, connections) = upstream(scripts).await;
            let (pools, upstream) = (Pools::new(1), make(checked(settings)));
            upstream.start_checks(&Handle::current());
            let health = upstream.servers[0].health();
            until("the server to be out", || health.is_down()).await;
            assert_eq!(connections.get(), 3, "out after the third");
            let refusal = get(&pools, &upstream).await.unwrap_err();
            assert_eq!(refusal, Rejection::NoHealthyUpstream);
            until("the server to be in", || !health.is_down()).await;
            assert!(connections.get() >= 5 && health.is_well());
            let response = get(&pools, &upstream).await.unwrap();
            assert_eq!(text(response).await.unwrap(), "ok");
        })
        .await;
    }
}

#[tokio::test]
async fn checks_end_with_the_configuration() {
    local(async {
        let (settings, connections) = upstream(vec![vec![OK]]).await;
        let upstream = make(checked(settings));
        let server = Arc::clone(&upstream.servers[0]);
        upstream.start_checks(&Handle::current());
        until("a check", || connections.get() > 1).await;
        assert!(Arc::strong_count(&server) > 2);
        drop(upstream);
        until("the checks to end", || Arc::strong_count(&server) == 1).await;
    })
    .await;
}
