//! Which versions, suites and protocols a client may speak, and that nothing of a client with others goes further (NET-5, NET-8).

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::Arc,
};

use rustls::{
    CipherSuite, ClientConfig, ClientConnection, HandshakeKind, NamedGroup, ProtocolVersion,
    client::{
        ClientSessionMemoryCache, ClientSessionStore, Resumption, Tls12ClientSessionValue,
        Tls13ClientSessionValue,
    },
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::ServerName,
    version::{TLS12, TLS13},
};
use serde_json::Value;

use crate::harness::{
    Gateway, Site, Upstream,
    certs::{ANY, Authority, handshake},
    client::over,
    eventually,
    hello::{ECDHE_ECDSA_AES128_GCM, Hello, Reply, send},
    request,
};

const TLS_1_2: u16 = 0x0303;
const PROTOCOL_VERSION: Option<u8> = Some(70);
const ILLEGAL_PARAMETER: Option<u8> = Some(47);
const HANDSHAKE_FAILURE: Option<u8> = Some(40);

/// A gateway with a certificate of each kind of key, so that no suite is refused for want of one.
struct Matrix {
    upstream: Upstream,
    gateway: Gateway,
    authority: Authority,
}

impl Matrix {
    async fn start() -> Self {
        Self::with(|site| site).await
    }

    async fn with(change: impl FnOnce(Site) -> Site) -> Self {
        let upstream = Upstream::start().await;
        let authority = Authority::new();
        let site = Site::new(upstream.address).set(
            "tls",
            "certificates",
            r#"[{ cert = "certs/ec.crt", key = "certs/ec.key" }, { cert = "certs/rsa.crt", key = "certs/rsa.key" }]"#,
        );
        site.put_pair("ec", &authority.sign(&["localhost"]));
        site.put_pair("rsa", &authority.sign_rsa(&["localhost"]));
        Self {
            gateway: change(site).start().await,
            upstream,
            authority,
        }
    }

    /// The same where the name that a client asks for chooses who is asked for a certificate: handshakes begin otherwise there.
    async fn with_client_certificates() -> Self {
        Self::with(|site| {
            let clients = Authority::new();
            let secure = Authority::new().sign(&["secure.test"]);
            site.put_pair("secure", &secure);
            site.put("certs/clients.pem", &clients.pem());
            site.set("tls", "client_ca", "\"certs/clients.pem\"").set(
                "tls",
                "certificates",
                r#"[{ cert = "certs/ec.crt", key = "certs/ec.key" }, { cert = "certs/rsa.crt", key = "certs/rsa.key" },
                    { cert = "certs/secure.crt", key = "certs/secure.key", client_auth = "required" }]"#,
            )
        })
        .await
    }

    async fn failed(&self) -> f64 {
        let series = "portcullis_tls_handshakes_total{result=\"failed\"}";
        self.gateway.metric(series).await.unwrap()
    }

    /// Each of these breaks off without a ServerHello, is counted, and is no request of an upstream.
    async fn refuses(&self, hellos: &[(&str, Hello, Option<u8>)]) {
        let before = self.failed().await;
        for (what, hello, alert) in hellos {
            let reply = hello.send(&self.gateway).await;
            assert_eq!(reply, Reply::Refused(*alert), "{what}: {hello:?}");
        }
        // Counted when the connection has gone, which the client may know sooner.
        eventually("every refusal in the metrics", async || {
            let failed = self.failed().await - before;
            (failed == f64::from(u32::try_from(hellos.len()).unwrap())).then_some(())
        })
        .await;
        self.upstream.saw_nothing();
    }

    /// One GET with a client.
    async fn get(&self, client: ClientConfig) -> Option<(ProtocolVersion, CipherSuite)> {
        let client = Arc::new(client);
        let stream = handshake(&self.gateway, &client, "localhost").await.ok()?;
        let session = stream.get_ref().1;
        let agreed = (
            session.protocol_version()?,
            session.negotiated_cipher_suite()?.suite(),
        );
        let mut raw = over(stream);
        raw.exchange(request("GET", "/public", &[], ""))
            .await
            .is(200);
        Some(agreed)
    }
}

fn offering(suites: &[u16]) -> Hello {
    Hello {
        suites: suites.to_vec(),
        ..Hello::new()
    }
}

/// Suites that are broken, not forward secret, or without authenticated encryption; all that servers once spoke.
const WEAK: &[(&str, u16)] = &[
    ("NULL with SHA", 0x0002),
    ("NULL with SHA256", 0x003b),
    ("NULL, ECDHE", 0xc010),
    ("export RC4", 0x0003),
    ("export RC2", 0x0006),
    ("export DES", 0x0008),
    ("export DES, DHE", 0x0014),
    ("RC4 with MD5", 0x0004),
    ("RC4 with SHA", 0x0005),
    ("RC4, ECDHE-RSA", 0xc011),
    ("RC4, ECDHE-ECDSA", 0xc007),
    ("DES", 0x0009),
    ("3DES", 0x000a),
    ("3DES, DHE", 0x0016),
    ("3DES, ECDHE-RSA", 0xc012),
    ("3DES, ECDHE-ECDSA", 0xc008),
    ("anonymous RC4", 0x0018),
    ("anonymous 3DES", 0x001b),
    ("anonymous AES-GCM", 0x00a6),
    ("anonymous ECDHE", 0xc018),
    ("static RSA, AES128-CBC", 0x002f),
    ("static RSA, AES256-CBC", 0x0035),
    ("static RSA, AES128-CBC-SHA256", 0x003c),
    ("static RSA, AES128-GCM", 0x009c),
    ("static RSA, AES256-GCM", 0x009d),
    ("static RSA, Camellia", 0x0041),
    ("static RSA, SEED", 0x0096),
    ("static RSA, IDEA", 0x0007),
    ("static ECDH-ECDSA, AES128-GCM", 0xc02d),
    ("static ECDH-RSA, AES128-GCM", 0xc031),
    ("static DH, AES128-GCM", 0x00a0),
    ("DHE, AES128-CBC", 0x0033),
    ("DHE, AES128-GCM", 0x009e),
    ("DHE, ChaCha20", 0xccaa),
    ("ECDHE-ECDSA, AES128-CBC", 0xc009),
    ("ECDHE-ECDSA, AES256-CBC", 0xc00a),
    ("ECDHE-ECDSA, AES128-CBC-SHA256", 0xc023),
    ("ECDHE-RSA, AES128-CBC", 0xc013),
    ("ECDHE-RSA, AES256-CBC", 0xc014),
    ("ECDHE-RSA, AES128-CBC-SHA256", 0xc027),
    ("ECDHE-RSA, AES256-CBC-SHA384", 0xc028),
    ("PSK, AES128-GCM", 0x00a8),
    ("ECDHE-PSK, ChaCha20", 0xccac),
    ("AES128-CCM-8", 0xc0ae),
    ("SRP", 0xc01d),
    ("Kerberos RC4", 0x0020),
    ("no suite but renegotiation", 0x00ff),
    ("no suite but fallback", 0x5600),
];

#[tokio::test]
async fn net_5_and_ver_2_versions_before_tls_1_2_are_refused() {
    let old = [
        ("SSL 3.0", 0x0300),
        ("TLS 1.0", 0x0301),
        ("TLS 1.1", 0x0302),
    ];
    let mut hellos = Vec::new();
    for (what, version) in old {
        // With good suites, and with those of its time.
        for suites in [
            vec![ECDHE_ECDSA_AES128_GCM],
            vec![0x0035, 0x002f, 0x000a, 0x0005],
        ] {
            for extensions in [true, false] {
                let hello = Hello {
                    version,
                    extensions,
                    suites: suites.clone(),
                    ..Hello::new()
                };
                // Without extensions the kinds of signatures are missing, too.
                let alert = if extensions {
                    PROTOCOL_VERSION
                } else {
                    HANDSHAKE_FAILURE
                };
                hellos.push((what, hello, alert));
            }
        }
        // Told by the extension, which then counts alone; and with drafts of TLS 1.3 beside it.
        for versions in [vec![version], vec![0x7f1c, 0x7f17, version]] {
            let hello = Hello {
                versions,
                ..Hello::new()
            };
            hellos.push((what, hello, PROTOCOL_VERSION));
        }
    }
    for matrix in [
        Matrix::start().await,
        Matrix::with_client_certificates().await,
    ] {
        matrix.refuses(&hellos).await;
        // SSL 2.0 has another form: its length, its version, three suites, a challenge.
        let mut ssl2 = vec![0x80, 0x22, 1, 0, 2, 0, 9, 0, 0, 0, 16];
        ssl2.extend([1, 0, 0x80, 2, 0, 0x80, 7, 0, 0xc0]);
        ssl2.extend([7; 16]);
        let reply = send(&matrix.gateway, ssl2, usize::MAX).await;
        assert!(matches!(reply, Reply::Refused(_)), "{reply:?}");
        matrix.upstream.saw_nothing();
        assert!(matrix.get(client(&matrix, ANY)).await.is_some());
    }
}

/// A client of these versions.
fn client(matrix: &Matrix, versions: &[&'static rustls::SupportedProtocolVersion]) -> ClientConfig {
    let config = matrix.authority.client(versions, &[b"http/1.1"], None);
    ClientConfig::clone(&config)
}

#[tokio::test]
async fn net_5_and_ver_2_weak_suites_are_refused_and_never_preferred() {
    let all: Vec<u16> = WEAK.iter().map(|(_, suite)| *suite).collect();
    let mut hellos: Vec<_> = WEAK
        .iter()
        .map(|(what, suite)| (*what, offering(&[*suite]), HANDSHAKE_FAILURE))
        .collect();
    hellos.push(("all of them", offering(&all), HANDSHAKE_FAILURE));
    for matrix in [
        Matrix::start().await,
        Matrix::with_client_certificates().await,
    ] {
        matrix.refuses(&hellos).await;
        // Before a good one they are passed over.
        let mut suites = all.clone();
        suites.push(ECDHE_ECDSA_AES128_GCM);
        match offering(&suites).send(&matrix.gateway).await {
            Reply::Accepted(flight) => {
                assert_eq!(
                    (flight.version, flight.suite),
                    (TLS_1_2, ECDHE_ECDSA_AES128_GCM)
                );
            }
            Reply::Refused(alert) => panic!("{alert:?}"),
        }
    }
}

#[tokio::test]
async fn net_5_and_ver_2_the_rest_of_a_hello_must_be_sound_too() {
    let matrix = Matrix::start().await;
    let hello = Hello::new();
    let refused = [
        (
            "RSA and ECDSA with SHA-1, RSA with MD5",
            Hello {
                schemes: vec![0x0201, 0x0203, 0x0101],
                ..hello.clone()
            },
            HANDSHAKE_FAILURE,
        ),
        (
            "secp160r1, sect163k1, secp192r1",
            Hello {
                groups: vec![0x0010, 0x0001, 0x0013],
                ..hello.clone()
            },
            HANDSHAKE_FAILURE,
        ),
        (
            "compression alone (CRIME)",
            Hello {
                compression: vec![1],
                ..hello.clone()
            },
            ILLEGAL_PARAMETER,
        ),
        (
            "TLS 1.3 with short tags, and with integrity alone (RFC 9150)",
            Hello {
                versions: vec![0x0304],
                suites: vec![0x1305, 0xc0b4, 0xc0b5],
                ..hello.clone()
            },
            HANDSHAKE_FAILURE,
        ),
    ];
    matrix.refuses(&refused).await;
}

#[tokio::test]
async fn net_5_no_compression_heartbeats_or_hidden_downgrade() {
    let matrix = Matrix::start().await;
    let hello = Hello {
        compression: vec![1, 0],
        ..Hello::new()
    };
    let Reply::Accepted(flight) = hello.send(&matrix.gateway).await else {
        panic!("refused");
    };
    assert_eq!((flight.version, flight.compression), (TLS_1_2, 0));
    // That the name was understood; extended master secret; points; that renegotiation is understood, which is how it is refused (RFC 5746).
    for kind in flight.extensions {
        assert!([0, 11, 23, 0xff01].contains(&kind), "{kind}");
    }
    // A client that could speak TLS 1.3 sees that somebody took that away.
    assert_eq!(&flight.downgrade, b"DOWNGRD\x01");
}

#[tokio::test]
async fn net_5_and_ver_2_every_forward_secret_aead_suite_is_accepted() {
    let matrix = Matrix::start().await;
    let suites = aws_lc_rs::ALL_CIPHER_SUITES;
    assert_eq!(suites.len(), 9);
    for suite in suites {
        let provider = CryptoProvider {
            cipher_suites: vec![*suite],
            ..aws_lc_rs::default_provider()
        };
        let versions = [&TLS12, &TLS13];
        let version = versions
            .into_iter()
            .find(|version| version.version == suite.version().version)
            .unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(matrix.authority.roots())
            .with_no_client_auth();
        let agreed = matrix.get(config).await;
        assert_eq!(agreed, Some((version.version, suite.suite())), "{suite:?}");
    }
    assert_eq!(matrix.upstream.count(), suites.len());
    // `check` tells the same.
    let exit = matrix.gateway.site.run(&["check", "--format", "json"], "");
    let told: Value = serde_json::from_str(&exit.await.stdout).unwrap();
    let versions = told["tls"]["versions"].as_array().unwrap();
    let told = versions.iter().flat_map(|version| {
        let suites = version["suites"].as_array().unwrap();
        suites.iter().map(|suite| suite.as_str().unwrap())
    });
    let spoken = suites.iter().map(|suite| {
        let name = suite.suite().as_str().unwrap();
        name.replace("TLS13_", "TLS_")
    });
    assert_eq!(told.collect::<Vec<_>>(), spoken.collect::<Vec<_>>());
}

#[tokio::test]
async fn net_5_a_lowest_version_of_1_3_refuses_tls_1_2() {
    let matrix = Matrix::with(|site| site.set("tls", "min_version", "\"1.3\"")).await;
    let old = Hello::new();
    let told = Hello {
        versions: vec![TLS_1_2],
        ..Hello::new()
    };
    matrix
        .refuses(&[
            ("1.2", old, PROTOCOL_VERSION),
            ("1.2 by extension", told, PROTOCOL_VERSION),
        ])
        .await;
    assert_eq!(matrix.get(client(&matrix, &[&TLS12])).await, None);
    matrix.upstream.saw_nothing();
    let (version, _) = matrix.get(client(&matrix, ANY)).await.unwrap();
    assert_eq!(version, ProtocolVersion::TLSv1_3);
}

#[tokio::test]
async fn alpn_chooses_http_2_or_http_1_1_and_refuses_what_it_does_not_know() {
    let matrix = Matrix::start().await;
    for versions in [&[&TLS13][..], &[&TLS12]] {
        let agreed = async |names: &[&[u8]]| {
            let client = matrix.authority.client(versions, names, None);
            let stream = handshake(&matrix.gateway, &client, "localhost").await?;
            let alpn = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
            Ok::<_, std::io::Error>((alpn, stream))
        };
        for (names, want) in [
            (&[&b"h2"[..]][..], &b"h2"[..]),
            (&[b"http/1.1"], b"http/1.1"),
            (&[b"http/1.1", b"h2"], b"h2"),
            (&[b"spdy/3.1", b"h3", b"http/1.1"], b"http/1.1"),
        ] {
            let (alpn, _) = agreed(names).await.unwrap();
            assert_eq!(alpn.as_deref(), Some(want), "{names:?}");
        }
        for name in [
            &b"h3"[..],
            b"H2",
            b"h2c",
            b"h2\0",
            b"http/1.0",
            b"HTTP/1.1",
            b"spdy/3.1",
            b"acme-tls/1",
        ] {
            let error = agreed(&[name]).await.unwrap_err().to_string();
            assert!(error.contains("NoApplicationProtocol"), "{error}");
        }
        matrix.upstream.saw_nothing();
    }
    // A client that knows nothing of ALPN speaks HTTP/1.1.
    let plain = matrix.authority.client(ANY, &[], None);
    let stream = handshake(&matrix.gateway, &plain, "localhost")
        .await
        .unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), None);
    let mut raw = over(stream);
    raw.exchange(request("GET", "/public", &[], ""))
        .await
        .is(200);
    // And the preface of HTTP/2 begins nothing there.
    let stream = handshake(&matrix.gateway, &plain, "localhost")
        .await
        .unwrap();
    let mut raw = over(stream);
    raw.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    let answer = String::from_utf8(raw.rest().await).unwrap();
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
        "{answer}"
    );
    assert_eq!(matrix.upstream.count(), 1);
}

/// Keeps sessions as if each had allowed early data.
#[derive(Debug)]
struct Hasty(ClientSessionMemoryCache);

impl ClientSessionStore for Hasty {
    fn set_kx_hint(&self, name: ServerName<'static>, group: NamedGroup) {
        self.0.set_kx_hint(name, group);
    }
    fn kx_hint(&self, name: &ServerName<'_>) -> Option<NamedGroup> {
        self.0.kx_hint(name)
    }
    fn set_tls12_session(&self, name: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.0.set_tls12_session(name, value);
    }
    fn tls12_session(&self, name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.0.tls12_session(name)
    }
    fn remove_tls12_session(&self, name: &ServerName<'static>) {
        self.0.remove_tls12_session(name);
    }
    fn insert_tls13_ticket(&self, name: ServerName<'static>, mut value: Tls13ClientSessionValue) {
        assert_eq!(value.max_early_data_size(), 0, "the gateway allows none");
        value._private_set_max_early_data_size(1 << 14);
        self.0.insert_tls13_ticket(name, value);
    }
    fn take_tls13_ticket(&self, name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.0.take_tls13_ticket(name)
    }
}

/// What became of an exchange whose first bytes were offered as early data.
#[derive(Debug)]
struct Haste {
    offered: bool,
    accepted: bool,
    kind: Option<HandshakeKind>,
    answer: String,
}

/// Sends `early` as early data, where the session at hand lets it, then `late`, and reads to the end.
fn exchange(gateway: &Gateway, client: &Arc<ClientConfig>, early: &str, late: &str) -> Haste {
    let name = ServerName::try_from("localhost").unwrap();
    let mut session = ClientConnection::new(Arc::clone(client), name).unwrap();
    let mut socket = TcpStream::connect(gateway.tls).unwrap();
    socket
        .set_read_timeout(Some(crate::harness::PATIENCE))
        .unwrap();
    let offered = match session.early_data() {
        Some(mut data) => data.write(early.as_bytes()).unwrap() == early.len(),
        None => false,
    };
    let mut stream = rustls::Stream::new(&mut session, &mut socket);
    let mut answer = Vec::new();
    if stream.write_all(late.as_bytes()).is_ok() {
        let _ = stream.read_to_end(&mut answer);
    }
    Haste {
        offered,
        accepted: session.is_early_data_accepted(),
        kind: session.handshake_kind(),
        answer: String::from_utf8(answer).unwrap(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn net_8_early_data_is_not_accepted_and_goes_nowhere() {
    let matrix = Matrix::start().await;
    let mut config = client(&matrix, &[&TLS13]);
    config.enable_early_data = true;
    config.resumption = Resumption::store(Arc::new(Hasty(ClientSessionMemoryCache::new(8))));
    let client = Arc::new(config);
    let post = |path| {
        let fields = [("connection", "close")];
        request("POST", path, &fields, "body")
    };
    let run = |early: &str, late: &str| {
        tokio::task::block_in_place(|| exchange(&matrix.gateway, &client, early, late))
    };
    // A first handshake has nothing to resume.
    let first = run("", &post("/public/first"));
    assert!(
        !first.offered && first.answer.starts_with("HTTP/1.1 200"),
        "{first:?}"
    );
    // Offered with a session that is resumed, and nothing sent by it: the exchange goes on without.
    let offered = run("", &post("/public/late"));
    assert!(offered.offered && !offered.accepted, "{offered:?}");
    assert_eq!(offered.kind, Some(HandshakeKind::Resumed));
    assert!(offered.answer.starts_with("HTTP/1.1 200"), "{offered:?}");
    // A whole request as early data is dropped, whatever becomes of the connection.
    let early = run(&post("/public/early"), &post("/public/after"));
    assert!(early.offered && !early.accepted, "{early:?}");
    let targets = |upstream: &Upstream| -> Vec<String> {
        let seen = upstream.seen();
        seen.into_iter().map(|request| request.target).collect()
    };
    // What was sent last has come by the time that a later exchange has ended.
    let last = run("", &post("/public/last"));
    assert!(last.answer.starts_with("HTTP/1.1 200"), "{last:?}");
    let seen = targets(&matrix.upstream);
    assert_eq!(seen[..2], ["/public/first", "/public/late"]);
    assert_eq!(seen.last().unwrap(), "/public/last");
    assert!(!seen.contains(&"/public/early".to_owned()), "{seen:?}");
}
