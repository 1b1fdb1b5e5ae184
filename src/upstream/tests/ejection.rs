//! Servers with faults: out for a while, tried once, back.

use super::{servers::closed_port, *};

const FOR: Duration = Duration::from_secs(5);

/// An upstream of two servers that take turns; two faults put one out. The first has these scripts, the other is good.
async fn faulty(scripts: Vec<Script>) -> (Arc<Upstream>, [Rc<std::cell::Cell<usize>>; 2]) {
    let (first, one) = upstream(scripts).await;
    let (second, other) = upstream(vec![vec![OK; 1000]]).await;
    let servers = vec![first.servers[0].clone(), second.servers[0].clone()];
    (make(of(servers)), [one, other])
}

fn of(servers: Vec<ServerAddress>) -> UpstreamSettings {
    UpstreamSettings {
        servers,
        balance: Balance::RoundRobin,
        eject: Some(EjectSettings {
            failures: 2,
            window: Duration::from_secs(60),
            duration: FOR,
        }),
        ..settings(1)
    }
}

async fn advance(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

/// Sends so many requests and says how many were answered.
async fn answered(pools: &Pools, upstream: &Arc<Upstream>, count: usize) -> usize {
    let mut good = 0;
    for _ in 0..count {
        if let Ok(response) = get(pools, upstream).await {
            good += usize::from(text(response).await.is_ok());
        }
    }
    good
}

#[tokio::test]
async fn up_4_a_server_with_faults_gets_no_requests_for_a_while() {
    for fault in [&b""[..], b"garbage\r\n\r\n"] {
        local(async {
            let (upstream, [one, _]) = faulty(vec![vec![fault]]).await;
            let pools = Pools::new(1);
            assert_eq!(answered(&pools, &upstream, 4).await, 2);
            assert_eq!(answered(&pools, &upstream, 20).await, 20);
            assert_eq!(one.get(), 2, "{fault:?}");
            // All workers know.
            assert_eq!(answered(&Pools::new(1), &upstream, 20).await, 20);
            assert_eq!(one.get(), 2);
        })
        .await;
    }
}

#[tokio::test]
async fn up_4_a_probe_that_fails_keeps_the_server_out() {
    local(async {
        let (upstream, [one, _]) = faulty(vec![vec![b""]]).await;
        let pools = Pools::new(1);
        answered(&pools, &upstream, 4).await;
        for round in 1..4 {
            advance(FOR).await;
            assert_eq!(answered(&pools, &upstream, 20).await, 19, "one probe");
            assert_eq!(one.get(), 2 + round);
        }
    })
    .await;
}

#[tokio::test]
async fn up_4_a_probe_that_is_answered_brings_the_server_back() {
    local(async {
        let scripts = vec![vec![&b""[..]], vec![b""], vec![OK; 100]];
        let (upstream, [one, _]) = faulty(scripts).await;
        let pools = Pools::new(1);
        answered(&pools, &upstream, 4).await;
        advance(FOR).await;
        assert_eq!(answered(&pools, &upstream, 20).await, 20);
        assert_eq!(one.get(), 3);
        assert!(upstream.servers[0].health().is_well());
    })
    .await;
}

#[tokio::test]
async fn a_server_that_cannot_be_connected_to_is_ejected_too() {
    local(async {
        let (good, _) = upstream(vec![vec![OK; 1000]]).await;
        let servers = vec![server(closed_port().await), good.servers[0].clone()];
        let (pools, upstream) = (Pools::new(1), make(of(servers)));
        assert_eq!(answered(&pools, &upstream, 10).await, 10);
        let now = tokio::time::Instant::now();
        assert!(upstream.servers[0].health().is_ejected(now));
        assert!(!upstream.servers[1].health().is_ejected(now));
    })
    .await;
}

#[tokio::test]
async fn up_4_with_more_than_half_out_all_are_used() {
    local(async {
        let (bad, connections) = upstream(vec![vec![b""]]).await;
        let (good, _) = upstream(vec![vec![OK; 1000]]).await;
        let (worse, others) = upstream(vec![vec![b""]]).await;
        let servers = [bad, good, worse].map(|settings| settings.servers[0].clone());
        let (pools, upstream) = (Pools::new(1), make(of(servers.into())));
        assert_eq!(answered(&pools, &upstream, 6).await, 2);
        assert_eq!(answered(&pools, &upstream, 30).await, 10);
        assert_eq!((connections.get(), others.get()), (12, 12));
    })
    .await;
}

#[tokio::test]
async fn up_4_an_only_server_is_never_out() {
    local(async {
        let (bad, connections) = upstream(vec![vec![b""]]).await;
        let (pools, upstream) = (Pools::new(1), make(of(bad.servers)));
        for _ in 0..10 {
            let refusal = get(&pools, &upstream).await.unwrap_err();
            assert_eq!(refusal, Rejection::UpstreamUnreachable);
        }
        assert_eq!(connections.get(), 10);
    })
    .await;
}

#[tokio::test]
async fn an_answer_of_any_status_is_no_fault() {
    local(async {
        let error: &[u8] = b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n";
        let (upstream, _) = faulty(vec![vec![error; 100]]).await;
        assert_eq!(answered(&Pools::new(1), &upstream, 20).await, 20);
        assert!(upstream.servers[0].health().is_well());
    })
    .await;
}
