//! What the fuzz targets do with a stranger's bytes, and what must hold of the outcome whatever they are.
//!
//! `cargo fuzz run NAME` plays them with coverage; `tests/fuzz_corpora.rs` includes this file and plays the committed corpora,
//! and changes of them, in every run of the tests.

use std::{
    convert::Infallible,
    net::IpAddr,
    path::Path,
    sync::{Arc, LazyLock},
    time::{Duration, SystemTime},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, Version};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use portcullis::{
    authn::{
        Authenticator, Revocations,
        settings::{CacheSettings, ClaimNames, IssuerSettings, KeySource},
    },
    config,
    policy::{
        Access, Caller, ForwardedHeaders, Forwarding, Head, HeaderPolicy, IdentityHeaders,
        NormalPath, PeerIp, Route, Routes, TraceField, TrustedProxies, Unlimited, authorize,
        head::HeadLimits,
        headers::{MultiValue, Preset},
    },
    portal,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A name, and what is done with an input.
pub type Target = (&'static str, fn(&[u8]));

/// Every target by its name, which is that of its corpus too.
pub const TARGETS: [Target; 9] = [
    ("chain", chain),
    ("config", config),
    ("conversation", conversation),
    ("cookies", cookies),
    ("frames", frames),
    ("headers", headers),
    ("jwks", jwks),
    ("path", path),
    ("token", token),
];

/// A configuration whose routes the targets use.
const CONFIG: &str = r#"
version = 1
[server]
public_url = "https://localhost:8443"
[tls]
certificates = [{ cert = "certs/dev.crt", key = "certs/dev.key" }]
development = true
[accounts]
enabled = true
[[upstream]]
name = "legacy"
servers = ["http://127.0.0.1:9"]
[[route]]
name = "everything"
path_prefix = "/"
upstream = "legacy"
access = "public"
[[route]]
name = "private"
path_prefix = "/private"
upstream = "legacy"
access = "authenticated"
[[route]]
name = "corner"
path = "/private/open:a/caf%C3%A9"
upstream = "legacy"
access = "optional"
"#;

static ROUTES: LazyLock<Routes> = LazyLock::new(|| {
    let config = config::parse(CONFIG, Path::new("fuzz.toml"), Path::new("/nonexistent"));
    Routes::new(config.unwrap().routes).unwrap()
});

static POLICY: LazyLock<HeaderPolicy> = LazyLock::new(|| {
    let templates = IdentityHeaders::new(Preset::Portcullis, Vec::new(), MultiValue::Comma);
    HeaderPolicy::new(Arc::new(templates), "fuzz-gate", false).unwrap()
});

/// Names that say who is calling.
const IDENTITY: [&str; 6] = [
    "remote-user",
    "remote-email",
    "remote-name",
    "remote-groups",
    "x-auth-issuer",
    "x-auth-scopes",
];

/// The secret that signed the tokens of the corpus.
const SECRET: &[u8] = b"a secret of the corpus, not of anybody";

fn authenticator(keys: KeySource, algorithms: &[&str]) -> Option<Authenticator> {
    let issuer = IssuerSettings {
        name: "corp".into(),
        issuer: "https://idp.example.com".into(),
        audience: vec!["orders".into()],
        algorithms: algorithms
            .iter()
            .map(|name| name.parse().unwrap())
            .collect(),
        keys,
        leeway: Duration::ZERO,
        token_types: vec!["at+jwt".into(), "JWT".into(), "".into()],
        claims: ClaimNames::default(),
    };
    // Nothing is kept: each input is verified.
    let cache = CacheSettings {
        max_ttl: Duration::ZERO,
        ..CacheSettings::default()
    };
    let templates = Arc::clone(POLICY.templates());
    Authenticator::new(&[issuer], &cache, Arc::new(Revocations::new()), templates).ok()
}

/// A field for each line `name: value`; what is no field is passed over.
fn fields(data: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n').take(200) {
        let mut halves = line.splitn(2, |byte| *byte == b':');
        let (name, value) = (halves.next().unwrap_or_default(), halves.next());
        let name = HeaderName::from_bytes(name.trim_ascii());
        let value = HeaderValue::from_bytes(value.unwrap_or_default().trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    headers
}

/// A chain of proxies, in either field: whoever is found is the peer, or was named; a peer that is not trusted is believed nothing,
/// and whatever a client wrote before it, the hop that the proxy adds is the one that counts.
pub fn chain(data: &[u8]) {
    for (name, fields, hop) in [
        ("x-forwarded-for", ForwardedHeaders::XForwarded, "192.0.2.7"),
        ("forwarded", ForwardedHeaders::Forwarded, "for=192.0.2.7"),
    ] {
        let proxies = TrustedProxies::new(vec!["10.0.0.0/8".parse().unwrap()]).by(fields);
        let mut headers = HeaderMap::new();
        for line in data.split(|byte| *byte == b'\n').take(100) {
            if let Ok(value) = HeaderValue::from_bytes(line) {
                headers.append(name, value);
            }
        }
        let stranger = PeerIp::new(IpAddr::from([192, 0, 2, 1]));
        let client = proxies.client_ip(stranger, &headers).ip();
        assert_eq!(client, stranger.ip(), "a stranger named another client");
        let proxy = PeerIp::new(IpAddr::from([10, 0, 0, 1]));
        let client = proxies.client_ip(proxy, &headers).ip();
        assert_eq!(client, proxies.client_ip(proxy, &headers).ip());
        let mut added = headers.clone();
        added.append(name, HeaderValue::from_static(hop));
        let lines = data.split(|byte| *byte == b'\n').take(1);
        let one = lines.flat_map(|line| [line, b",", hop.as_bytes()]);
        let one = HeaderValue::from_bytes(&one.collect::<Vec<_>>().concat());
        let mut joined = HeaderMap::new();
        joined.extend(one.ok().map(|line| (HeaderName::from_static(name), line)));
        for headers in [&added, &joined] {
            // A line with bytes that are no text is not read at all.
            let is_text = headers.values().all(|line| line.to_str().is_ok());
            let client = proxies.client_ip(proxy, headers).ip();
            let want = IpAddr::from([192, 0, 2, 7]);
            assert!(!is_text || headers.is_empty() || client == want);
        }
    }
}

/// A configuration: read, or refused with a report.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    // No file of this machine is to be read.
    if text.contains("\"/") && text.contains("file") {
        return;
    }
    let root = Path::new("/nonexistent");
    if let Err(report) = config::parse(text, Path::new("fuzz.toml"), root) {
        assert!(!report.to_string().is_empty());
    }
}

/// Cookies: the refresh token is found at most once, and none of ours is forwarded.
pub fn cookies(data: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n').take(100) {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append("cookie", value);
        }
    }
    let found = portal::refresh_cookie(&headers);
    prepare(&mut headers);
    let rest = portal::refresh_cookie(&headers);
    assert!(matches!(rest, Ok(None)), "{found:?} left {headers:?}");
}

/// Rewrites headers as for a request of nobody on a public route.
fn prepare(headers: &mut HeaderMap) -> bool {
    let route: &Route = ROUTES.find("localhost", "/", &Method::GET).unwrap();
    let client = PeerIp::new(IpAddr::from([192, 0, 2, 1])).into();
    let permit = authorize(route, client, Ok(Caller::Anonymous)).unwrap();
    let from = Forwarding {
        peer: &HeaderValue::from_static("192.0.2.1"),
        believed: None,
        host: &HeaderValue::from_static("localhost"),
        version: Version::HTTP_11,
        request_id: &HeaderValue::from_static("0123456789abcdef0123456789abcdef"),
        trace: TraceField::NotRecorded,
    };
    POLICY.prepare(headers, &permit, &from).is_ok()
}

/// Header fields: nothing that says who or whence comes from the client, in any spelling.
pub fn headers(data: &[u8]) {
    let mut headers = fields(data);
    if !prepare(&mut headers) {
        return;
    }
    for name in headers.keys().map(HeaderName::as_str) {
        assert!(!name.contains('_'), "{name} was forwarded");
        let folded = name.replace('.', "-");
        let is_ours = ["x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"].contains(&name);
        let is_identity = IDENTITY.contains(&&*folded)
            || ["x-forwarded-", "x-portcullis-", "x-original-"]
                .iter()
                .any(|start| folded.starts_with(start));
        assert!(is_ours || !is_identity, "{name} was forwarded");
    }
    for (name, want) in [
        ("x-forwarded-for", "192.0.2.1"),
        ("x-real-ip", "192.0.2.1"),
        ("x-forwarded-host", "localhost"),
    ] {
        let values: Vec<_> = headers.get_all(name).iter().collect();
        assert_eq!(values, [want], "{name}");
    }
    for name in [
        "connection",
        "transfer-encoding",
        "upgrade",
        "keep-alive",
        "te",
    ] {
        assert!(!headers.contains_key(name), "{name} was forwarded");
    }
}

/// A key set: loaded, or refused.
pub fn jwks(data: &[u8]) {
    let algorithms = ["RS256", "ES256", "EdDSA", "HS256"];
    for algorithm in algorithms {
        let _ = authenticator(KeySource::Jwks(data.to_vec()), &[algorithm]);
    }
}

/// A request target: the path forwarded takes the route of the path decided on, however often it is read.
pub fn path(data: &[u8]) {
    let decided = |target: &[u8]| -> Option<(String, String)> {
        let uri = Uri::try_from(target).ok()?;
        let path = NormalPath::parse(uri.path()).ok()?;
        let route = ROUTES.find("localhost", path.as_str(), &Method::GET).ok()?;
        Some((route.name.to_string(), path.as_str().to_owned()))
    };
    if let Some((name, forwarded)) = decided(data) {
        assert!(!forwarded.contains("//") && forwarded.is_ascii());
        let is_dots = |segment| segment == "." || segment == "..";
        assert!(!forwarded.split('/').any(is_dots), "{forwarded}");
        assert_eq!(decided(forwarded.as_bytes()), Some((name, forwarded)));
    }
}

/// A bearer token: believed only with the signature of the one key.
pub fn token(data: &[u8]) {
    static GATE: LazyLock<Authenticator> = LazyLock::new(|| {
        let keys = KeySource::Secret(zeroize::Zeroizing::new(SECRET.to_vec()));
        authenticator(keys, &["HS256"]).unwrap()
    });
    let Ok(value) = HeaderValue::from_bytes(&[b"Bearer ", data].concat()) else {
        return;
    };
    let mut headers = HeaderMap::new();
    headers.insert("authorization", value);
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let caller = GATE.authenticate(&headers, Access::Authenticated, now, &Unlimited);
    if let Ok(Caller::Verified(_)) = caller {
        assert!(is_signed(data), "believed without a signature");
    }
}

fn is_signed(token: &[u8]) -> bool {
    let Some((signed, signature)) = std::str::from_utf8(token)
        .ok()
        .and_then(|token| token.trim().rsplit_once('.'))
    else {
        return false;
    };
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, SECRET);
    URL_SAFE_NO_PAD
        .decode(signature)
        .is_ok_and(|tag| aws_lc_rs::hmac::verify(&key, signed.as_bytes(), &tag).is_ok())
}

/// A conversation in HTTP/1: of every request that is admitted, the length is said in one way.
pub fn conversation(data: &[u8]) {
    let data = data.to_vec();
    runtime().block_on(async move {
        let (client, server) = tokio::io::duplex(1 << 20);
        let connection = hyper::server::conn::http1::Builder::new()
            .max_header_size(40 << 10)
            .max_buf_size(40 << 10)
            .serve_connection(TokioIo::new(server), service_fn(serve));
        tokio::join!(
            async { drop(connection.await) },
            converse(client, b"", &data)
        );
    });
}

/// A conversation in HTTP/2, after the preface.
pub fn frames(data: &[u8]) {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let data = data.to_vec();
    runtime().block_on(async move {
        let (client, server) = tokio::io::duplex(1 << 20);
        let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .max_header_list_size(40 << 10)
            .max_concurrent_streams(100)
            .serve_connection(TokioIo::new(server), service_fn(serve));
        tokio::join!(
            async { drop(connection.await) },
            converse(client, PREFACE, &data)
        );
    });
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
}

/// Writes all there is and reads to the end.
async fn converse(client: tokio::io::DuplexStream, preface: &[u8], data: &[u8]) {
    let (mut read, mut write) = tokio::io::split(client);
    let mut answers = Vec::new();
    let _ = tokio::join!(
        async {
            let _ = write.write_all(preface).await;
            let _ = write.write_all(data).await;
            write.shutdown().await
        },
        read.read_to_end(&mut answers)
    );
}

async fn serve(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let limits = HeadLimits {
        header_bytes: 32 << 10,
        header_count: 100,
        uri_bytes: 8 << 10,
    };
    let (parts, body) = request.into_parts();
    let admitted = Head::read(&parts, &limits).is_ok();
    if admitted {
        let codings: Vec<_> = parts.headers.get_all("transfer-encoding").iter().collect();
        let lengths: Vec<_> = parts.headers.get_all("content-length").iter().collect();
        let is_one = match (&*codings, &*lengths) {
            ([], []) => true,
            ([coding], []) => coding.as_bytes().eq_ignore_ascii_case(b"chunked"),
            ([], [length]) => length.as_bytes().iter().all(u8::is_ascii_digit),
            _ => false,
        };
        assert!(is_one, "{codings:?} {lengths:?}");
        let length = lengths
            .first()
            .and_then(|length| length.to_str().ok()?.parse().ok());
        if let Ok(body) = body.collect().await {
            let read = u64::try_from(body.to_bytes().len()).unwrap();
            assert!(length.is_none_or(|length: u64| length == read));
        }
    }
    Ok(Response::new(Full::default()))
}
