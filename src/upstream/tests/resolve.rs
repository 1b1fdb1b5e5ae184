//! Names whose addresses change, and what becomes of connections to the old ones.

use std::{
    net::SocketAddr,
    sync::{Mutex, atomic::Ordering},
};

use tokio::runtime::Handle;

use super::{
    super::{Lookup, Resolver},
    checks::until,
    servers::closed_port,
    *,
};

/// Answers by a script, and notes what it was asked for.
#[derive(Debug, Default)]
struct Names {
    found: Mutex<Vec<SocketAddr>>,
    asked: Mutex<Vec<String>>,
    fails: std::sync::atomic::AtomicBool,
}

impl Resolver for Names {
    fn resolve<'r>(&'r self, host: &'r str, _port: u16) -> Lookup<'r> {
        self.asked.lock().unwrap().push(host.to_owned());
        let found = if self.fails.load(Ordering::SeqCst) {
            Err(std::io::Error::other("SERVFAIL"))
        } else {
            Ok(self.found.lock().unwrap().clone())
        };
        Box::pin(async move { found })
    }
}

impl Names {
    fn lead_to(&self, ports: &[u16]) {
        let address = |port: &u16| SocketAddr::from(([127, 0, 0, 1], *port));
        *self.found.lock().unwrap() = ports.iter().map(address).collect();
    }

    fn count(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

/// An upstream behind the name `app.internal`, looked up every second or so.
fn named(names: &Arc<Names>) -> Arc<Upstream> {
    let mut settings = settings(1);
    settings.servers[0].endpoint = Endpoint::Tcp {
        host: "app.internal".into(),
        port: 1,
        tls: false,
    };
    settings.resolve_every = Duration::from_millis(20);
    let telemetry = Telemetry::with_sink(&LogSettings::default(), Box::new(std::io::sink()));
    let metrics = |server: &ServerAddress| telemetry.upstream("test", &server.to_string());
    let resolver: Arc<dyn Resolver> = names.clone();
    Upstream::resolving(settings, &SystemRoots::default(), metrics, &resolver).unwrap()
}

async fn ok(pools: &Pools, upstream: &Arc<Upstream>) {
    let response = get(pools, upstream).await.unwrap();
    assert_eq!(text(response).await.unwrap(), "ok");
}

fn port(settings: &UpstreamSettings) -> u16 {
    let Endpoint::Tcp { port, .. } = settings.servers[0].endpoint else {
        panic!("not a port")
    };
    port
}

#[tokio::test]
async fn up_10_a_changed_address_is_used_and_the_old_one_left() {
    local(async {
        let (old, old_connections) = upstream(vec![vec![OK; 1000]]).await;
        let (new, new_connections) = upstream(vec![vec![OK; 1000]]).await;
        let names = Arc::new(Names::default());
        names.lead_to(&[port(&old)]);
        let (pools, upstream) = (Pools::new(1), named(&names));
        upstream.start_checks(&Handle::current());
        for _ in 0..3 {
            ok(&pools, &upstream).await;
        }
        assert_eq!((old_connections.get(), new_connections.get()), (1, 0));
        names.lead_to(&[port(&new)]);
        let asked = names.count();
        until("the next look-up", || names.count() > asked + 1).await;
        // An idle connection to the old address is closed; under load, too, none is kept.
        pools.sweep(std::time::Instant::now());
        assert!(pools.of(&upstream.servers[0]).is_empty());
        for _ in 0..3 {
            ok(&pools, &upstream).await;
        }
        assert_eq!((old_connections.get(), new_connections.get()), (1, 1));
        names.lead_to(&[port(&old)]);
        let response = get(&pools, &upstream).await.unwrap();
        let asked = names.count();
        until("the next look-up", || names.count() > asked + 1).await;
        text(response).await.unwrap();
        ok(&pools, &upstream).await;
        assert_eq!(old_connections.get(), 2);
    })
    .await;
}

#[tokio::test]
async fn up_10_the_last_good_addresses_stay_while_look_ups_fail() {
    local(async {
        let (settings, _) = upstream(vec![vec![OK]]).await;
        let names = Arc::new(Names::default());
        names.lead_to(&[port(&settings)]);
        let (pools, upstream) = (Pools::new(1), named(&names));
        upstream.start_checks(&Handle::current());
        ok(&pools, &upstream).await;
        names.fails.store(true, Ordering::SeqCst);
        let asked = names.count();
        until("failures", || names.count() > asked + 3).await;
        ok(&pools, &upstream).await;
        // An empty answer is none.
        names.lead_to(&[]);
        names.fails.store(false, Ordering::SeqCst);
        let asked = names.count();
        until("empty answers", || names.count() > asked + 3).await;
        ok(&pools, &upstream).await;
    })
    .await;
}

#[tokio::test]
async fn up_10_the_first_request_looks_up_itself_and_only_the_configured_name() {
    local(async {
        let (settings, _) = upstream(vec![vec![OK]]).await;
        let names = Arc::new(Names::default());
        let (pools, upstream) = (Pools::new(1), named(&names));
        assert_eq!(
            get(&pools, &upstream).await.unwrap_err(),
            Rejection::UpstreamUnreachable
        );
        names.fails.store(true, Ordering::SeqCst);
        assert_eq!(
            get(&pools, &upstream).await.unwrap_err(),
            Rejection::UpstreamUnreachable
        );
        names.fails.store(false, Ordering::SeqCst);
        names.lead_to(&[port(&settings)]);
        // The request says that its host is `test`.
        ok(&pools, &upstream).await;
        ok(&pools, &upstream).await;
        assert_eq!(*names.asked.lock().unwrap(), ["app.internal"; 3]);
    })
    .await;
}

#[tokio::test]
async fn up_10_every_address_is_tried() {
    local(async {
        let (settings, connections) = upstream(vec![vec![OK]]).await;
        let names = Arc::new(Names::default());
        let good = port(&settings);
        names.lead_to(&[closed_port().await, closed_port().await, good]);
        let (pools, upstream) = (Pools::new(1), named(&names));
        ok(&pools, &upstream).await;
        // One that says nothing does not hold up the next.
        let (silent, _held) = servers::black_hole().await;
        names.lead_to(&[silent, good]);
        upstream.start_checks(&Handle::current());
        let asked = names.count();
        until("a look-up", || names.count() > asked + 1).await;
        let begun = std::time::Instant::now();
        ok(&pools, &upstream).await;
        assert!(
            begun.elapsed() < Duration::from_secs(3),
            "{:?}",
            begun.elapsed()
        );
        assert_eq!(connections.get(), 2);
        names.lead_to(&[closed_port().await, closed_port().await]);
        let asked = names.count();
        until("a look-up", || names.count() > asked + 1).await;
        pools.sweep(std::time::Instant::now());
        assert_eq!(
            get(&pools, &upstream).await.unwrap_err(),
            Rejection::UpstreamUnreachable
        );
    })
    .await;
}
