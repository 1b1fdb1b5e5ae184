//! Client certificates: asked for by some hosts and not by others, and no way round them (NET-6).

use std::sync::Arc;

use rcgen::date_time_ymd;
use rustls::{
    ClientConfig, HandshakeKind, NamedGroup, SupportedProtocolVersion,
    client::{
        ClientSessionMemoryCache, ClientSessionStore, Resumption, Tls12ClientSessionValue,
        Tls13ClientSessionValue,
    },
    pki_types::ServerName,
    version::{TLS12, TLS13},
};

use crate::{
    harness::{
        Answer, Gateway, H2, Site, Upstream,
        certs::{ANY, Authority, Signed, handshake},
        client::{full, over},
        eventually,
        hello::{Hello, Reply},
        request,
    },
    headers::{FORGED, IDENTITY, RESERVED, nothing_forged},
};

/// A host that asks clients for nothing, and one that needs their certificate.
const OPEN: &str = "open.example.com";
const SECURE: &str = "secure.example.com";
const ADDRESS: &str = "127.0.0.1";
const H1: &[&[u8]] = &[b"http/1.1"];
const VERSIONS: [&[&SupportedProtocolVersion]; 2] = [&[&TLS13], &[&TLS12]];

/// A gateway with both hosts.
struct Hosts {
    upstream: Upstream,
    gateway: Gateway,
    server: Authority,
    clients: Authority,
    alice: Signed,
}

impl Hosts {
    async fn start(auth: &str) -> Self {
        let upstream = Upstream::start().await;
        let (server, clients) = (Authority::new(), Authority::new());
        let secure = format!(
            "cert = \"certs/secure.crt\", key = \"certs/secure.key\", client_auth = {auth:?}"
        );
        let certificates =
            format!("[{{ cert = \"certs/open.crt\", key = \"certs/open.key\" }}, {{ {secure} }}]");
        let site = Site::new(upstream.address)
            .set("tls", "certificates", &certificates)
            .set("tls", "client_ca", "\"certs/clients.pem\"")
            .route("cors", "/cors", "public")
            .on_route(
                "cors",
                "{ origins = [\"https://a.test\"], methods = [\"GET\"] }",
            );
        site.put_pair("open", &server.sign(&[OPEN, "*.open.example.com", ADDRESS]));
        site.put_pair("secure", &server.sign(&[SECURE, ADDRESS]));
        site.put("certs/clients.pem", &clients.pem());
        Self {
            alice: clients.sign(&["alice"]),
            gateway: site.start().await,
            upstream,
            server,
            clients,
        }
    }

    fn client(&self, alpn: &[&[u8]], own: Option<&Signed>) -> Arc<ClientConfig> {
        self.server.client(ANY, alpn, own)
    }

    /// One GET for `host` over a connection for `sni`; `None` where there is no connection.
    async fn get(&self, client: &Arc<ClientConfig>, sni: &str, host: &str) -> Option<Answer> {
        let stream = handshake(&self.gateway, client, sni).await.ok()?;
        let mut raw = over(stream);
        // With TLS 1.3 the client learns of a refusal when it reads.
        raw.send(request("GET", "/public", &[("host", host)], ""))
            .await;
        raw.try_answer().await.ok()
    }

    /// The same over HTTP/2.
    async fn get_h2(&self, own: Option<&Signed>, sni: &str, hosts: &[&str]) -> Option<Vec<Answer>> {
        let client = self.client(&[b"h2"], own);
        let stream = handshake(&self.gateway, &client, sni).await.ok()?;
        let mut h2 = H2::over(stream).await;
        let mut answers = Vec::new();
        for host in hosts {
            let request = http::Request::get(format!("https://{host}/public"));
            answers.push(h2.send(request.body(full("")).unwrap()).await.ok()?);
        }
        Some(answers)
    }

    /// No request has come through to the upstream.
    #[track_caller]
    fn nothing_came(&self, what: &str) {
        assert_eq!(self.upstream.count(), 0, "{what}");
    }
}

#[tokio::test]
async fn net_6_no_other_connection_reaches_a_host_with_client_certificates() {
    let hosts = Hosts::start("required").await;
    let client = hosts.client(H1, None);
    for host in [
        SECURE,
        "SECURE.example.com",
        "secure.example.com.",
        "secure.example.com:8443",
    ] {
        let answer = hosts.get(&client, OPEN, host).await.unwrap();
        answer.refused(421, "misdirected_request");
    }
    // An absolute-form target replaces Host.
    let mut raw = over(handshake(&hosts.gateway, &client, OPEN).await.unwrap());
    let target = format!("https://{SECURE}/public");
    raw.exchange(request("GET", &target, &[("host", OPEN)], ""))
        .await
        .refused(421, "misdirected_request");
    // Nor does a host that no certificate names: it has the strictest rule.
    for host in ["unknown.test", ADDRESS, "a.b.open.example.com"] {
        let answer = hosts.get(&client, OPEN, host).await.unwrap();
        answer.refused(421, "misdirected_request");
    }
    // With a certificate in hand, but on a connection that did not ask for it.
    let with_alice = hosts.client(H1, Some(&hosts.alice));
    let answer = hosts.get(&with_alice, OPEN, SECURE).await.unwrap();
    answer.refused(421, "misdirected_request");
    hosts.nothing_came("wrong SNI, right Host");
    let answer = hosts.get(&client, OPEN, OPEN).await.unwrap();
    answer.is(200);
    let answer = hosts
        .get(&client, "a.open.example.com", OPEN)
        .await
        .unwrap();
    answer.is(200);
}

#[tokio::test]
async fn net_6_requests_of_one_http2_connection_are_checked_one_by_one() {
    let hosts = Hosts::start("required").await;
    let answers = hosts
        .get_h2(None, OPEN, &[SECURE, OPEN, SECURE])
        .await
        .unwrap();
    answers[0].refused(421, "misdirected_request");
    answers[1].is(200);
    answers[2].refused(421, "misdirected_request");
    assert_eq!(hosts.upstream.count(), 1);
    let alice = Some(&hosts.alice);
    let answers = hosts.get_h2(alice, SECURE, &[SECURE, OPEN]).await.unwrap();
    answers[0].is(200);
    answers[1].refused(421, "misdirected_request");
    assert_eq!(hosts.upstream.count(), 2);
}

#[tokio::test]
async fn net_6_without_a_good_certificate_there_is_no_connection() {
    let hosts = Hosts::start("required").await;
    let foreign = Authority::new().sign(&["alice"]);
    let expired = hosts.clients.sign_with(&["alice"], |params| {
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2002, 1, 1);
    });
    for versions in VERSIONS {
        for (what, own) in [
            ("none", None),
            ("another authority's", Some(&foreign)),
            ("expired", Some(&expired)),
        ] {
            let client = hosts.server.client(versions, H1, own);
            // By its name, and by none: an address is never sent as SNI.
            for sni in [SECURE, ADDRESS] {
                let answer = hosts.get(&client, sni, SECURE).await;
                assert!(answer.is_none(), "{what}: {answer:?}");
            }
        }
        hosts.nothing_came("no good certificate");
    }
    for versions in VERSIONS {
        let client = hosts.server.client(versions, H1, Some(&hosts.alice));
        for sni in [SECURE, ADDRESS] {
            hosts.get(&client, sni, SECURE).await.unwrap().is(200);
            let other = hosts.get(&client, sni, OPEN).await.unwrap();
            other.refused(421, "misdirected_request");
        }
    }
}

#[tokio::test]
async fn net_6_names_in_any_case_and_in_pieces_choose_who_is_asked() {
    let hosts = Hosts::start("required").await;
    for (sni, asks) in [
        (Some(SECURE), true),
        (Some("SECURE.eXample.COM"), true),
        (Some("unknown.test"), true),
        (None, true),
        (Some(OPEN), false),
        (Some("A.OPEN.example.com"), false),
    ] {
        for (record, write) in [(1 << 14, usize::MAX), (1 << 14, 1), (1, usize::MAX), (1, 1)] {
            let hello = Hello {
                sni,
                record,
                write,
                ..Hello::new()
            };
            match hello.send(&hosts.gateway).await {
                Reply::Accepted(flight) => assert_eq!(flight.asks_client, asks, "{sni:?}"),
                Reply::Refused(alert) => panic!("{sni:?}: {alert:?}"),
            }
        }
    }
}

/// Offers whatever session it has to whichever host.
#[derive(Debug)]
struct Indiscriminate(ClientSessionMemoryCache);

fn same() -> ServerName<'static> {
    std::net::IpAddr::from([127, 0, 0, 1]).into()
}

impl ClientSessionStore for Indiscriminate {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.0.set_kx_hint(same(), group);
    }
    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.0.kx_hint(&same())
    }
    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.0.set_tls12_session(same(), value);
    }
    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.0.tls12_session(&same())
    }
    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.0.remove_tls12_session(&same());
    }
    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.0.insert_tls13_ticket(same(), value);
    }
    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.0.take_tls13_ticket(&same())
    }
}

#[tokio::test]
async fn net_6_a_session_of_another_host_is_not_resumed() {
    let hosts = Hosts::start("required").await;
    for versions in VERSIONS {
        let mut client = ClientConfig::clone(&hosts.server.client(versions, H1, None));
        let store = Indiscriminate(ClientSessionMemoryCache::new(8));
        client.resumption = Resumption::store(Arc::new(store));
        let client = Arc::new(client);
        let before = hosts.upstream.count();
        // A session is there after an exchange, and good for its own host.
        hosts.get(&client, OPEN, OPEN).await.unwrap().is(200);
        let mut stream = handshake(&hosts.gateway, &client, OPEN).await.unwrap();
        let kind = stream.get_mut().1.handshake_kind();
        assert_eq!(kind, Some(HandshakeKind::Resumed));
        let mut raw = over(stream);
        let get = request("GET", "/public", &[("host", SECURE)], "");
        raw.exchange(get).await.refused(421, "misdirected_request");
        hosts.get(&client, OPEN, OPEN).await.unwrap().is(200);
        for sni in [SECURE, ADDRESS] {
            let answer = hosts.get(&client, sni, SECURE).await;
            assert!(answer.is_none(), "{answer:?}");
        }
        assert_eq!(hosts.upstream.count(), before + 2);
    }
    // Sessions under a client certificate are never resumed: each handshake shows the certificate.
    let client = hosts.client(H1, Some(&hosts.alice));
    for _ in 0..2 {
        hosts.get(&client, SECURE, SECURE).await.unwrap().is(200);
        let mut stream = handshake(&hosts.gateway, &client, SECURE).await.unwrap();
        let kind = stream.get_mut().1.handshake_kind();
        assert_ne!(kind, Some(HandshakeKind::Resumed));
    }
}

#[tokio::test]
async fn hdr_7_a_good_certificate_vouches_for_no_header() {
    let hosts = Hosts::start("required").await;
    let client = hosts.client(H1, Some(&hosts.alice));
    let mut raw = over(handshake(&hosts.gateway, &client, SECURE).await.unwrap());
    let client = hosts.client(&[b"h2"], Some(&hosts.alice));
    let stream = handshake(&hosts.gateway, &client, SECURE).await.unwrap();
    let mut h2 = H2::over(stream).await;
    for name in IDENTITY.into_iter().chain(RESERVED) {
        let fields = [("host", SECURE), (name, FORGED), (name, "forged again")];
        raw.exchange(request("GET", "/public", &fields, ""))
            .await
            .is(200);
        nothing_forged(&hosts.upstream.last(), name);
        let request = http::Request::get(format!("https://{SECURE}/public"));
        let request = request.header(name, FORGED).body(full("")).unwrap();
        h2.send(request).await.unwrap().is(200);
        nothing_forged(&hosts.upstream.last(), &format!("{name} over HTTP/2"));
    }
    assert_eq!(
        hosts.upstream.count(),
        2 * (IDENTITY.len() + RESERVED.len())
    );
}

#[tokio::test]
async fn net_6_preflights_are_no_way_round() {
    let hosts = Hosts::start("required").await;
    let ask = |host| {
        let fields = [
            ("host", host),
            ("origin", "https://a.test"),
            ("access-control-request-method", "GET"),
        ];
        request("OPTIONS", "/cors", &fields, "")
    };
    let client = hosts.client(H1, None);
    let mut raw = over(handshake(&hosts.gateway, &client, OPEN).await.unwrap());
    raw.exchange(ask(SECURE))
        .await
        .refused(421, "misdirected_request");
    let mut raw = over(handshake(&hosts.gateway, &client, OPEN).await.unwrap());
    raw.exchange(ask(OPEN)).await.is(204);
    hosts.nothing_came("preflights");
}

#[tokio::test]
async fn an_optional_certificate_may_be_absent_and_not_bad() {
    let hosts = Hosts::start("optional").await;
    let foreign = Authority::new().sign(&["alice"]);
    let client = hosts.client(H1, Some(&foreign));
    assert!(hosts.get(&client, SECURE, SECURE).await.is_none());
    hosts.nothing_came("a bad certificate");
    for own in [None, Some(&hosts.alice)] {
        let client = hosts.client(H1, own);
        hosts.get(&client, SECURE, SECURE).await.unwrap().is(200);
        // It is still another rule than that of the other host.
        let other = hosts.get(&client, OPEN, SECURE).await.unwrap();
        other.refused(421, "misdirected_request");
    }
}

#[tokio::test]
async fn net_7_authorities_are_reloaded_and_never_lost() {
    let hosts = Hosts::start("required").await;
    let series = |result| format!("portcullis_certificate_reloads_total{{result=\"{result}\"}}");
    let counted = async |result, count: f64| {
        eventually(result, async || {
            (hosts.gateway.metric(&series(result)).await? >= count).then_some(())
        })
        .await;
    };
    let alice = hosts.client(H1, Some(&hosts.alice));
    let nobody = hosts.client(H1, None);
    let still = async |what: &str| {
        hosts.get(&alice, SECURE, SECURE).await.unwrap().is(200);
        let answer = hosts.get(&nobody, SECURE, SECURE).await;
        assert!(answer.is_none(), "{what}");
    };
    let ca = "certs/clients.pem";
    let site = &hosts.gateway.site;
    site.put(ca, "garbage");
    counted("refused", 1.0).await;
    still("garbage").await;
    site.put(ca, "");
    counted("refused", 2.0).await;
    still("empty").await;
    std::fs::remove_file(site.path().join(ca)).unwrap();
    counted("refused", 3.0).await;
    still("missing").await;
    // Another authority: its clients are believed at once, those of the old one no more.
    let next = Authority::new();
    site.put(ca, &next.pem());
    counted("taken", 1.0).await;
    assert!(hosts.get(&alice, SECURE, SECURE).await.is_none());
    let bob = hosts.client(H1, Some(&next.sign(&["bob"])));
    hosts.get(&bob, SECURE, SECURE).await.unwrap().is(200);
}
