//! What one decision costs, in nanoseconds on one core: `cargo bench --bench admit`.
//!
//! Shapes: one issuer with one key; tokens of ten claims, 450 to 800 bytes; the cache at its default size and, for hits,
//! one token or 10 000 in turn; limiter tables with 1, 100 000 and 10 million keys, and full ones; a request of eight header fields. Nothing here
//! waits or allocates sockets; figures are of the calls alone.

#![expect(
    clippy::unwrap_used,
    reason = "a bench that cannot be set up must stop"
)]

use std::{
    net::IpAddr,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use divan::{Bencher, black_box};
use http::{HeaderMap, HeaderValue, Method, Version, uri::PathAndQuery};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, EncodingKey, Header};
use portcullis::{
    assertion::{Assertions, Recent, Statement, settings::AssertionSettings},
    authn::{
        Authenticator, LastToken, Revocations,
        settings::{CacheSettings, ClaimNames, IssuerSettings, KeySource},
    },
    limit::{
        IpLimiter, KeyedLimiter, Share,
        settings::{IpLimitSettings, Quota},
    },
    policy::{
        Access, Addresses, Browsers, Caller, Forwarding, HeaderEdits, HeaderPolicy,
        IdentityHeaders, PathPattern, PeerIp, Route, Rule, Streams, Target, TraceField, Unlimited,
        UpstreamId, authorize,
        headers::{MultiValue, Preset},
    },
};
use serde_json::{Value, json};
use zeroize::Zeroizing;

const NOW: u64 = 1_800_000_000;
const ISSUER: &str = "https://idp.example.com/realms/corp";
const ALGORITHMS: [Algorithm; 5] = [
    Algorithm::HS256,
    Algorithm::RS256,
    Algorithm::PS256,
    Algorithm::ES256,
    Algorithm::EdDSA,
];

fn main() {
    divan::main();
}

struct Pair {
    signing: EncodingKey,
    source: KeySource,
}

fn pair(algorithm: Algorithm) -> &'static Pair {
    static SECRET: LazyLock<Pair> = LazyLock::new(|| {
        let mut secret = [0; 32];
        aws_lc_rs::rand::fill(&mut secret).unwrap();
        Pair {
            signing: EncodingKey::from_secret(&secret),
            source: KeySource::Secret(Zeroizing::new(secret.to_vec())),
        }
    });
    static RSA: LazyLock<Pair> = LazyLock::new(|| {
        make(&rcgen::PKCS_RSA_SHA256, |pem| {
            EncodingKey::from_rsa_pem(pem).unwrap()
        })
    });
    static EC: LazyLock<Pair> = LazyLock::new(|| {
        make(&rcgen::PKCS_ECDSA_P256_SHA256, |pem| {
            EncodingKey::from_ec_pem(pem).unwrap()
        })
    });
    static ED: LazyLock<Pair> = LazyLock::new(|| {
        make(&rcgen::PKCS_ED25519, |pem| {
            EncodingKey::from_ed_pem(pem).unwrap()
        })
    });
    match algorithm.family() {
        AlgorithmFamily::Hmac => &SECRET,
        AlgorithmFamily::Rsa => &RSA,
        AlgorithmFamily::Ec => &EC,
        AlgorithmFamily::Ed => &ED,
    }
}

fn make(kind: &'static rcgen::SignatureAlgorithm, read: fn(&[u8]) -> EncodingKey) -> Pair {
    let key = rcgen::KeyPair::generate_for(kind).unwrap();
    Pair {
        signing: read(key.serialize_pem().as_bytes()),
        source: KeySource::PublicKey(key.public_key_pem().into_bytes()),
    }
}

fn templates() -> Arc<IdentityHeaders> {
    Arc::new(IdentityHeaders::new(
        Preset::Portcullis,
        Vec::new(),
        MultiValue::Comma,
    ))
}

/// `max_ttl` zero keeps nothing: every call verifies.
fn authenticator(algorithm: Algorithm, max_ttl: Duration) -> Authenticator {
    let issuer = IssuerSettings {
        name: "corp".into(),
        issuer: ISSUER.into(),
        audience: vec!["orders".into()],
        algorithms: vec![algorithm],
        keys: pair(algorithm).source.clone(),
        leeway: Duration::from_secs(30),
        token_types: vec!["at+jwt".into()],
        claims: ClaimNames::default(),
    };
    let cache = CacheSettings {
        max_ttl,
        ..CacheSettings::default()
    };
    Authenticator::new(&[issuer], &cache, Arc::new(Revocations::new()), templates()).unwrap()
}

fn claims(user: usize, expires: u64) -> Value {
    json!({
        "iss": ISSUER, "aud": ["orders", "billing"], "sub": format!("0b7e8f5c-{user:08}"), "iat": NOW - 10,
        "exp": expires, "jti": "9d1f6a34-6f0e-4f8e-9c0e-2f1f5b1d7a11", "sid": "7c2a4be1-53c1-4a3b-8a43-5a9e2d8f5b10",
        "scope": "orders:read orders:write", "email": "ada@example.com", "preferred_username": "ada",
        "roles": ["clerk", "admin"],
    })
}

fn token(algorithm: Algorithm, user: usize, expires: u64) -> String {
    let mut header = Header::new(algorithm);
    header.typ = Some("at+jwt".into());
    jsonwebtoken::encode(&header, &claims(user, expires), &pair(algorithm).signing).unwrap()
}

fn good(algorithm: Algorithm) -> String {
    token(algorithm, 0, NOW + 300)
}

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW)
}

fn bearer(token: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
    headers
}

#[divan::bench]
fn cached_one_token(bencher: Bencher<'_, '_>) {
    let authenticator = authenticator(Algorithm::ES256, Duration::from_secs(60));
    let headers = bearer(&good(Algorithm::ES256));
    bencher.bench_local(|| {
        authenticator
            .authenticate(
                black_box(&headers),
                Access::Authenticated,
                now(),
                &Unlimited,
            )
            .unwrap()
    });
}

/// What a connection remembers of its last token.
#[divan::bench]
fn cached_repeated_on_a_connection(bencher: Bencher<'_, '_>) {
    let authenticator = authenticator(Algorithm::ES256, Duration::from_secs(60));
    let headers = bearer(&good(Algorithm::ES256));
    let last = LastToken::default();
    bencher.bench_local(|| {
        let access = Access::Authenticated.into();
        authenticator
            .authenticate_on(&last, black_box(&headers), access, (now(), &Unlimited))
            .unwrap()
    });
}

#[divan::bench]
fn cached_10_000_tokens_in_turn(bencher: Bencher<'_, '_>) {
    let authenticator = authenticator(Algorithm::HS256, Duration::from_secs(60));
    let all: Vec<HeaderMap> = (0..10_000)
        .map(|user| bearer(&token(Algorithm::HS256, user, NOW + 300)))
        .collect();
    for headers in &all {
        authenticator
            .authenticate(headers, Access::Authenticated, now(), &Unlimited)
            .unwrap();
    }
    let next = AtomicUsize::new(0);
    bencher.bench_local(|| {
        let headers = all
            .get(next.fetch_add(1, Ordering::Relaxed) % all.len())
            .unwrap();
        authenticator
            .authenticate(black_box(headers), Access::Authenticated, now(), &Unlimited)
            .unwrap()
    });
}

#[divan::bench(args = ALGORITHMS)]
fn uncached(bencher: Bencher<'_, '_>, algorithm: Algorithm) {
    let authenticator = authenticator(algorithm, Duration::ZERO);
    let token = good(algorithm);
    bencher.bench_local(|| {
        authenticator
            .verify(black_box(&token), now(), &Unlimited)
            .unwrap()
    });
}

/// What jsonwebtoken's own `decode` costs for the same token, with its own checks: for comparison.
#[divan::bench(args = ALGORITHMS)]
fn uncached_by_jsonwebtoken_decode(bencher: Bencher<'_, '_>, algorithm: Algorithm) {
    let key = match &pair(algorithm).source {
        KeySource::Secret(secret) => DecodingKey::from_secret(secret),
        KeySource::PublicKey(pem) if algorithm == Algorithm::ES256 => {
            DecodingKey::from_ec_pem(pem).unwrap()
        }
        KeySource::PublicKey(pem) if algorithm == Algorithm::EdDSA => {
            DecodingKey::from_ed_pem(pem).unwrap()
        }
        KeySource::PublicKey(pem) | KeySource::Jwks(pem) => DecodingKey::from_rsa_pem(pem).unwrap(),
        KeySource::Introspected(_)
        | KeySource::Introspection(_)
        | KeySource::Live(_)
        | KeySource::Remote(_) => unreachable!("no pair here is fetched"),
    };
    let mut validation = jsonwebtoken::Validation::new(algorithm);
    validation.set_audience(&["orders"]);
    validation.set_issuer(&[ISSUER]);
    validation.validate_exp = false;
    let token = good(algorithm);
    bencher.bench_local(|| {
        jsonwebtoken::decode::<Value>(black_box(&token), &key, &validation).unwrap()
    });
}

/// The signature alone, with a key that the back-end has parsed beforehand: what is left to gain.
#[divan::bench(args = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA])]
fn signature_by_parsed_key(bencher: Bencher<'_, '_>, algorithm: Algorithm) {
    use aws_lc_rs::signature::{self, ParsedPublicKey, VerificationAlgorithm};
    let kind: &'static dyn VerificationAlgorithm = match algorithm.family() {
        AlgorithmFamily::Ec => &signature::ECDSA_P256_SHA256_FIXED,
        AlgorithmFamily::Ed => &signature::ED25519,
        AlgorithmFamily::Rsa | AlgorithmFamily::Hmac => &signature::RSA_PKCS1_2048_8192_SHA256,
    };
    let KeySource::PublicKey(pem) = &pair(algorithm).source else {
        return;
    };
    let body: String = str::from_utf8(pem)
        .unwrap()
        .lines()
        .filter(|line| !line.starts_with('-'))
        .collect();
    let der = base64::engine::general_purpose::STANDARD
        .decode(body)
        .unwrap();
    let key = ParsedPublicKey::new(kind, der).unwrap();
    let token = good(algorithm);
    let (signed, signature) = token.rsplit_once('.').unwrap();
    bencher.bench_local(|| {
        let signature = URL_SAFE_NO_PAD.decode(black_box(signature)).unwrap();
        key.verify_sig(signed.as_bytes(), &signature).unwrap();
    });
}

/// Refusals, each of another token kind than the cache could hold.
#[divan::bench(args = ALGORITHMS)]
fn refused_bad_signature(bencher: Bencher<'_, '_>, algorithm: Algorithm) {
    let authenticator = authenticator(algorithm, Duration::from_secs(60));
    let good = good(algorithm);
    let other = token(algorithm, 1, NOW + 300);
    let (signed, _) = good.rsplit_once('.').unwrap();
    let (_, signature) = other.rsplit_once('.').unwrap();
    let forged = format!("{signed}.{signature}");
    bencher.bench_local(|| {
        authenticator
            .verify(black_box(&forged), now(), &Unlimited)
            .unwrap_err()
    });
}

#[divan::bench(args = [Algorithm::HS256, Algorithm::RS256])]
fn refused_expired(bencher: Bencher<'_, '_>, algorithm: Algorithm) {
    let authenticator = authenticator(algorithm, Duration::from_secs(60));
    let expired = token(algorithm, 0, NOW - 3600);
    bencher.bench_local(|| {
        authenticator
            .verify(black_box(&expired), now(), &Unlimited)
            .unwrap_err()
    });
}

#[divan::bench(args = ["no dots", "unknown alg", "crit", "unknown issuer", "1 MiB of dots"])]
fn refused_malformed(bencher: Bencher<'_, '_>, kind: &str) {
    let authenticator = authenticator(Algorithm::ES256, Duration::from_secs(60));
    let segment = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let with =
        |header: Value, claims: Value| format!("{}.{}.AAAA", segment(header), segment(claims));
    let good = claims(0, NOW + 300);
    let token = match kind {
        "no dots" => "a".repeat(600),
        "unknown alg" => with(json!({"alg": "none"}), good),
        "crit" => with(json!({"alg": "ES256", "crit": ["x"]}), good),
        "unknown issuer" => with(
            json!({"alg": "ES256", "typ": "at+jwt"}),
            json!({"iss": "x", "pad": "p".repeat(400)}),
        ),
        _ => ".".repeat(1 << 20),
    };
    bencher.bench_local(|| {
        authenticator
            .verify(black_box(&token), now(), &Unlimited)
            .unwrap_err()
    });
}

/// A signed statement to an upstream: for targets that never come again, or for the same one.
#[divan::bench(args = ["new targets", "the same target"])]
fn assertion(bencher: Bencher<'_, '_>, targets: &str) {
    let folder = tempfile::tempdir().unwrap();
    let settings = AssertionSettings {
        issuer: "https://gate.example.com".into(),
        keys: folder.path().join("keys"),
    };
    let assertions = Assertions::open(&settings, now()).unwrap();
    let authenticator = authenticator(Algorithm::ES256, Duration::from_secs(60));
    let headers = bearer(&good(Algorithm::ES256));
    let caller = authenticator.authenticate(&headers, Access::Authenticated, now(), &Unlimited);
    let Ok(Caller::Verified(identity)) = caller else {
        return;
    };
    let (recent, upstream) = (Recent::default(), "orders".into());
    let mut number = 0_u64;
    bencher.bench_local(|| {
        number += u64::from(targets == "new targets");
        let target = format!("/orders/{number}/lines?full=1");
        let target = PathAndQuery::try_from(target).unwrap();
        let statement = Statement {
            identity: &identity,
            upstream: &upstream,
            method: &Method::GET,
            base_path: "",
            target: &target,
        };
        let made = assertions.state(&recent, black_box(&statement), now());
        made.unwrap()
    });
}

/// A burst beyond what is asked for, of which one request is given back in six minutes: what is asked about stays in the table,
/// also while ten million others are put into it.
const LASTING: Quota = Quota {
    count: 10,
    window: Duration::from_secs(3600),
    burst: u32::MAX,
};

fn per_ip(max_keys: usize) -> IpLimitSettings {
    IpLimitSettings {
        per_ip: LASTING,
        bad_tokens: LASTING,
        bad_tokens_wait: Duration::ZERO,
        exempt: Vec::new(),
        ipv6_prefix: 64,
        max_keys,
    }
}

/// Asks for addresses by chance, of so many that are all in the table.
fn check_known(bencher: Bencher<'_, '_>, limiter: &IpLimiter, keys: u32) {
    let address = |n: u32| PeerIp::new(IpAddr::from(n.to_be_bytes())).into();
    for n in 0..keys {
        limiter.check(address(n)).unwrap();
    }
    let mut n = 0_u32;
    bencher.bench_local(move || {
        n = n.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        limiter.check(address(n % keys))
    });
}

#[divan::bench(args = [1, 100_000, 10_000_000])]
fn limiter_check(bencher: Bencher<'_, '_>, keys: u32) {
    let limiter = IpLimiter::new(&per_ip(20_000_000));
    check_known(bencher, &limiter, keys);
}

/// The same where three nodes share the budgets.
#[divan::bench(args = [1, 100_000, 10_000_000])]
fn limiter_check_shared(bencher: Bencher<'_, '_>, keys: u32) {
    let (share, settlements) = Share::new();
    settlements.set_nodes(3);
    let limiter = IpLimiter::shared(&per_ip(20_000_000), Some(&share));
    check_known(bencher, &limiter, keys);
}

/// A table with no room, and the first key that was not asked about.
fn full_table(max_keys: usize) -> (KeyedLimiter<u64>, u64) {
    let limiter: KeyedLimiter<u64> = KeyedLimiter::new("bench", LASTING, max_keys);
    let mut n = 0_u64;
    // Shards fill one after the other.
    while limiter.len() < max_keys / 64 * 64 {
        for _ in 0..10_000 {
            let _ = limiter.check(n);
            n += 1;
        }
    }
    (limiter, n)
}

/// A flood of keys never seen before, on a table that is full of so many.
#[divan::bench(args = [100_000, 10_000_000])]
fn limiter_new_keys_on_a_full_table(bencher: Bencher<'_, '_>, max_keys: usize) {
    let (limiter, mut n) = full_table(max_keys);
    bencher.bench_local(move || {
        n += 1;
        limiter.check(n)
    });
}

/// One that is known, on the same table.
#[divan::bench(args = [100_000, 10_000_000])]
fn limiter_known_key_on_a_full_table(bencher: Bencher<'_, '_>, max_keys: usize) {
    let (limiter, _) = full_table(max_keys);
    let known = u64::try_from(max_keys / 2).unwrap();
    let mut n = 0_u64;
    bencher.bench_local(move || {
        n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        limiter.check((n >> 33) % known)
    });
}

/// Eight fields of a browser rewritten for the upstream: identity, forwarding, hop-by-hop. The copy of the map is counted.
#[divan::bench]
fn prepare_headers(bencher: Bencher<'_, '_>) {
    let authenticator = authenticator(Algorithm::ES256, Duration::from_secs(60));
    let templates = templates();
    let token = good(Algorithm::ES256);
    // One template value for both: what the verifier rendered is what the policy injects.
    let policy = HeaderPolicy::new(templates, "gate-1", false).unwrap();
    let identity = authenticator.verify(&token, now(), &Unlimited).unwrap();
    let route = Route {
        name: "orders".into(),
        index: 0,
        hosts: Vec::new(),
        path: PathPattern::Prefix("/".into()),
        methods: vec![Method::GET],
        target: Target::Upstream(UpstreamId(0)),
        strip_prefix: None,
        addresses: Addresses::default(),
        request_headers: HeaderEdits::default(),
        response_headers: HeaderEdits::default(),
        cors: None,
        access: Access::Authenticated,
        rule: Rule::default(),
        enforce: true,
        strict: false,
        max_body: 0,
        timeout: Duration::from_secs(30),
        streams: Streams::default(),
        browsers: Browsers::default(),
    };
    let client = PeerIp::new(IpAddr::from([192, 0, 2, 1])).into();
    let permit = authorize(&route, client, Ok(Caller::Verified(identity))).unwrap();
    let mut headers = bearer(&token);
    for (name, value) in [
        ("host", "app.example.com"),
        ("user-agent", "Mozilla/5.0 (X11; Linux x86_64)"),
        ("accept", "*/*"),
        ("accept-encoding", "gzip, br"),
        ("accept-language", "en"),
        ("cookie", "theme=dark"),
        ("connection", "keep-alive"),
    ] {
        headers.insert(name, value.parse().unwrap());
    }
    let from = Forwarding {
        peer: &HeaderValue::from_static("192.0.2.1"),
        believed: None,
        host: &HeaderValue::from_static("app.example.com"),
        version: Version::HTTP_11,
        request_id: &HeaderValue::from_static("0123456789abcdef0123456789abcdef"),
        trace: TraceField::AsItCame,
    };
    bencher.bench_local(|| {
        let mut headers = headers.clone();
        policy.prepare(&mut headers, &permit, &from).unwrap();
        headers
    });
}
