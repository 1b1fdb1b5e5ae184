//! Which certificate a client is shown, and that a change of files disturbs nobody (NET-9).

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use rcgen::date_time_ymd;
use rustls::pki_types::CertificateDer;

use crate::harness::{
    Gateway, Site, Upstream,
    certs::{ANY, Authority, Signed, handshake, secure, shown},
    client::over,
    eventually,
    hello::{Hello, Reply},
    request,
};

const HOST: &str = "app.example.com";

/// A gateway with this pair in `certs/site.crt`.
async fn gateway(upstream: &Upstream, pair: &Signed) -> Gateway {
    let site = Site::new(upstream.address).set("server.timeouts", "keep_alive", "\"10m\"");
    site.put_pair("site", pair);
    site.start().await
}

/// Shakes hands again and again until it is dropped, and keeps every failure.
struct Loop {
    stop: Arc<AtomicBool>,
    failures: Arc<Mutex<Vec<String>>>,
    count: Arc<AtomicUsize>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Loop {
    fn start(gateway: &Gateway, authority: &Authority) -> Self {
        let client = authority.client(ANY, &[b"http/1.1"], None);
        let this = Self {
            stop: Arc::default(),
            failures: Arc::default(),
            count: Arc::default(),
            tasks: Vec::new(),
        };
        let tasks = (0..2).map(|_| {
            let (stop, failures) = (Arc::clone(&this.stop), Arc::clone(&this.failures));
            let (count, client) = (Arc::clone(&this.count), Arc::clone(&client));
            let address = gateway.tls;
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let socket = tokio::net::TcpStream::connect(address).await;
                    let done = match socket {
                        Ok(socket) => secure(socket, Arc::clone(&client), HOST).await.map(drop),
                        Err(error) => Err(error),
                    };
                    if let Err(error) = done {
                        failures.lock().unwrap().push(error.to_string());
                    }
                    count.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        Self {
            tasks: tasks.collect(),
            ..this
        }
    }

    /// How many handshakes there were; none may have failed.
    async fn end(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
        let failures = self.failures.lock().unwrap().clone();
        assert!(failures.is_empty(), "{failures:?}");
        self.count.load(Ordering::Relaxed)
    }
}

async fn shown_now(gateway: &Gateway, authority: &Authority) -> CertificateDer<'static> {
    let client = authority.client(ANY, &[b"http/1.1"], None);
    shown(&handshake(gateway, &client, HOST).await.unwrap())
}

async fn reloads(gateway: &Gateway, result: &str) -> f64 {
    let series = format!("portcullis_certificate_reloads_total{{result=\"{result}\"}}");
    gateway.metric(&series).await.unwrap_or(0.0)
}

/// Does `change`, and waits until one more reload has had this result.
async fn changed(gateway: &Gateway, result: &str, change: impl FnOnce(&Site)) {
    let before = reloads(gateway, result).await;
    change(&gateway.site);
    eventually(result, async || {
        (reloads(gateway, result).await > before).then_some(())
    })
    .await;
}

#[tokio::test]
async fn net_9_no_handshake_fails_while_certificates_change() {
    let upstream = Upstream::start().await;
    let authority = Authority::new();
    let [first, second, third] = [(); 3].map(|()| authority.sign(&[HOST]));
    let gateway = gateway(&upstream, &first).await;
    let client = authority.client(ANY, &[b"http/1.1"], None);
    let stream = handshake(&gateway, &client, HOST).await.unwrap();
    let mut open = over(stream);
    let handshakes = Loop::start(&gateway, &authority);

    changed(&gateway, "taken", |site| site.put_pair("site", &second)).await;
    assert_eq!(shown_now(&gateway, &authority).await, second.der);

    type Spoil<'s> = &'s dyn Fn(&Site);
    let spoil: [(&str, Spoil<'_>); 4] = [
        ("garbage", &|site| site.put("certs/site.crt", "garbage")),
        ("wrong key", &|site| {
            site.put("certs/site.crt", &second.cert);
            site.put("certs/site.key", &first.key);
        }),
        ("expired", &|site| {
            let expired = authority.sign_with(&[HOST], |params| {
                params.not_before = date_time_ymd(2001, 1, 1);
                params.not_after = date_time_ymd(2002, 1, 1);
            });
            site.put_pair("site", &expired);
        }),
        ("deleted", &|site| {
            std::fs::remove_file(site.path().join("certs/site.key")).unwrap();
        }),
    ];
    for (what, spoil) in spoil {
        println!("{what}");
        changed(&gateway, "refused", spoil).await;
        assert_eq!(shown_now(&gateway, &authority).await, second.der, "{what}");
    }

    changed(&gateway, "taken", |site| site.put_pair("site", &third)).await;
    assert_eq!(shown_now(&gateway, &authority).await, third.der);
    // A connection that was made under the first certificate.
    let get = request("GET", "/public", &[("host", HOST)], "");
    assert_eq!(open.exchange(get).await.status, 200);
    let count = handshakes.end().await;
    assert!(count > 10, "{count}");
    let told = |words: &str| {
        gateway
            .err
            .all()
            .iter()
            .filter(|line| line.contains(words))
            .count()
    };
    eventually("the events", async || {
        let all = told("\"certificate reloaded\"") >= 2 && told("certificate not reloaded") >= 4;
        all.then_some(())
    })
    .await;
    assert_eq!(told("\"certificate reloaded\""), 2);
}

#[tokio::test]
async fn net_9_an_expired_certificate_is_served_warned_of_and_measured() {
    let upstream = Upstream::start().await;
    let authority = Authority::new();
    let expired = authority.sign_with(&[HOST], |params| {
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2002, 1, 1);
    });
    let gateway = gateway(&upstream, &expired).await;
    let warned = |line: &str| line.contains("certificate has expired").then_some(());
    gateway.err.find("a warning", warned).await;
    let series = format!("portcullis_certificate_expiry_timestamp_seconds{{name=\"{HOST}\"}}");
    assert_eq!(gateway.metric(&series).await, Some(1_009_843_200.0));
    let client = authority.client(ANY, &[b"http/1.1"], None);
    let error = handshake(&gateway, &client, HOST).await.unwrap_err();
    assert!(error.to_string().contains("expired"), "{error}");
    // The process goes on, and takes what is good.
    let good = authority.sign(&[HOST]);
    changed(&gateway, "taken", |site| site.put_pair("site", &good)).await;
    assert_eq!(shown_now(&gateway, &authority).await, good.der);
}

/// A gateway with a certificate for each list of names, in this order.
async fn with_pairs(upstream: &Upstream, pairs: &[Signed]) -> Gateway {
    let entries: Vec<String> = (0..pairs.len())
        .map(|index| format!("{{ cert = \"certs/{index}.crt\", key = \"certs/{index}.key\" }}"))
        .collect();
    let site = Site::new(upstream.address).set(
        "tls",
        "certificates",
        &format!("[{}]", entries.join(", ")),
    );
    for (index, pair) in pairs.iter().enumerate() {
        site.put_pair(&index.to_string(), pair);
    }
    site.start().await
}

#[tokio::test]
async fn net_6_the_name_asked_for_chooses_the_certificate() {
    let upstream = Upstream::start().await;
    let authority = Authority::new();
    let pairs = [
        &["first.test"][..],
        &["*.example.com"],
        &[HOST, "localhost"],
    ];
    let pairs = pairs.map(|names| authority.sign(names));
    let gateway = with_pairs(&upstream, &pairs).await;
    for (sni, want) in [
        (Some(HOST), 2),
        (Some("aPP.Example.COM"), 2),
        (Some("other.example.com"), 1),
        (Some("OTHER.EXAMPLE.com"), 1),
        (Some("a.b.example.com"), 0),
        (Some("unknown.test"), 0),
        (None, 0),
    ] {
        // Whole, byte by byte, and in records of one byte.
        for (record, write) in [(1 << 14, usize::MAX), (1 << 14, 1), (1, usize::MAX), (1, 1)] {
            let hello = Hello {
                sni,
                record,
                write,
                ..Hello::new()
            };
            match hello.send(&gateway).await {
                Reply::Accepted(flight) => {
                    assert_eq!(flight.leaf, pairs[want].der.as_ref(), "{sni:?}");
                }
                Reply::Refused(alert) => panic!("{sni:?}: {record} {write} {alert:?}"),
            }
        }
    }
}

#[tokio::test]
async fn each_client_gets_the_kind_of_key_that_it_knows() {
    let upstream = Upstream::start().await;
    let authority = Authority::new();
    let ecdsa = authority.sign(&["localhost"]);
    let rsa = authority.sign_rsa(&["localhost"]);
    let gateway = with_pairs(&upstream, &[rsa.clone(), ecdsa.clone()]).await;
    // ECDHE-RSA and ECDHE-ECDSA with AES128-GCM.
    for (suite, want) in [(0xc02f, &rsa), (0xc02b, &ecdsa)] {
        let hello = Hello {
            suites: vec![suite],
            ..Hello::new()
        };
        match hello.send(&gateway).await {
            Reply::Accepted(flight) => {
                assert_eq!((flight.suite, &flight.leaf[..]), (suite, want.der.as_ref()));
            }
            Reply::Refused(alert) => panic!("{suite:#x}: {alert:?}"),
        }
    }
}
