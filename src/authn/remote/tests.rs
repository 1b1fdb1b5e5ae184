//! KEY-1, KEY-2, KEY-3, KEY-6 against a provider that fails in every way that one can.

mod cooldown;
mod introspection;
mod provider;
mod source;

use self::provider::{Provider, Reply};
use super::{Around, RemoteKeys};
use crate::{
    authn::{
        Authenticator, Revocations,
        settings::{FetchSettings, IssuerSettings, KeyPlace, KeySource, RemoteSettings},
        tests::fixtures::{
            ED25519, ISSUER, P256, P256_OTHER, RSA, payload, settings as issuer, token, verify,
            with_revocations,
        },
    },
    policy::{Rejection, TokenFault, Unlimited},
    telemetry::{
        Telemetry,
        settings::{LogFormat, LogSettings},
    },
};
use http::Uri;
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use tempfile::TempDir;

/// How long anything may take that must happen.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn settings(uri: Uri) -> RemoteSettings {
    RemoteSettings {
        place: KeyPlace::Jwks(uri),
        fetch: FetchSettings {
            roots: Vec::new(),
            networks: Vec::new(),
            timeout: PATIENCE,
        },
        hosts: Vec::new(),
        refresh_min: Duration::from_secs(300),
        refresh_max: Duration::from_secs(3600),
        cooldown: Duration::ZERO,
        max_stale: Duration::from_secs(86_400),
        wait: PATIENCE,
    }
}

/// A gateway's side: what fetches, what verifies, what is counted.
struct Node {
    folder: TempDir,
    telemetry: Arc<Telemetry>,
    revocations: Arc<Revocations>,
    remote: RemoteKeys,
}

impl Node {
    fn new() -> Self {
        Self::with_folder(tempfile::tempdir().unwrap())
    }

    fn with_folder(folder: TempDir) -> Self {
        let log = LogSettings {
            format: LogFormat::Json,
            access: false,
            ..LogSettings::default()
        };
        let telemetry = Telemetry::with_sink(&log, Box::new(std::io::sink()));
        let revocations = Arc::new(Revocations::new());
        let remote = RemoteKeys::new(Around {
            runtime: tokio::runtime::Handle::current(),
            folder: folder.path().join("issuers"),
            revocations: Arc::clone(&revocations),
            telemetry: Arc::clone(&telemetry),
            report: Arc::new(|_, _| {}),
        });
        Self {
            folder,
            telemetry,
            revocations,
            remote,
        }
    }

    fn authenticator(&self, settings: RemoteSettings) -> Authenticator {
        let issuer = IssuerSettings {
            keys: KeySource::Remote(Arc::new(settings)),
            algorithms: vec![Algorithm::ES256, Algorithm::RS256, Algorithm::EdDSA],
            ..issuer(Algorithm::ES256)
        };
        with_revocations(&[self.remote.live(issuer)], Arc::clone(&self.revocations))
    }

    fn fetches(&self, result: &str) -> u64 {
        let text = self.telemetry.encode();
        let series =
            format!("portcullis_jwks_fetches_total{{issuer=\"corp\",result=\"{result}\"}} ");
        let value = text.lines().find_map(|line| line.strip_prefix(&*series));
        value.map_or(0, |value| value.parse().unwrap())
    }
}

fn set(keys: &[Value]) -> Reply {
    Reply::ok(&json!({"keys": keys}).to_string())
}

fn named(kid: &str) -> String {
    token(&json!({"alg": "ES256", "kid": kid}), &payload())
}

/// Verifies as a request is: once, and once more after what it may wait for.
async fn patiently(authenticator: &Authenticator, token: &str) -> Result<(), Rejection> {
    let first = verify(authenticator, token);
    let Err(rejection) = first else {
        return Ok(());
    };
    let mut headers = http::HeaderMap::new();
    let field = format!("Bearer {token}").parse().unwrap();
    headers.insert(http::header::AUTHORIZATION, field);
    let Ok(Some(arrival)) = authenticator.arrival(&rejection, &headers, &Unlimited) else {
        return Err(rejection);
    };
    tokio::time::timeout(PATIENCE * 2, arrival.wait())
        .await
        .unwrap();
    verify(authenticator, token).map(drop)
}

async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let outcome = tokio::time::timeout(PATIENCE, wait).await;
    assert!(outcome.is_ok(), "{what}: not within {PATIENCE:?}");
}

const UNKNOWN: Result<(), Rejection> = Err(Rejection::TokenInvalid(TokenFault::KeyUnknown));

/// What a provider may answer instead of a set, and how that is counted.
fn faults() -> Vec<(&'static str, Reply)> {
    let good = json!({"keys": [P256.named("a"), P256.named("new")]}).to_string();
    let many: Vec<Value> = (0..101)
        .map(|index| P256.named(&index.to_string()))
        .collect();
    let mut private = P256.named("new");
    private["d"] = "AAAA".into();
    let oct = json!({"kty": "oct", "kid": "new", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"});
    vec![
        ("unreachable", Reply::Close),
        ("unreachable", Reply::raw("SSH-2.0-OpenSSH\r\n\r\n")),
        (
            "unreachable",
            Reply::raw("HTTP/1.1 200 OK\r\ncontent-length: 9000\r\n\r\n{\"keys\":["),
        ),
        ("timeout", Reply::Hang),
        ("timeout", Reply::Drip(good.clone())),
        ("too_large", Reply::Endless),
        ("too_large", Reply::ok(&" ".repeat((256 << 10) + 1))),
        ("status", Reply::with(500, &good)),
        ("status", Reply::with(204, "")),
        (
            "status",
            Reply::raw(
                "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
            ),
        ),
        ("keys", Reply::ok(good.get(..good.len() - 3).unwrap())),
        ("keys", Reply::ok("<html>sign in</html>")),
        ("keys", Reply::ok("")),
        ("keys", Reply::ok("{\"keys\":[],\"keys\":[]}")),
        ("keys", set(&[])),
        ("keys", set(&many)),
        ("keys", set(&[P256.named("a"), P256_OTHER.named("a")])),
        ("keys", set(&[oct])),
        ("keys", set(&[private])),
        ("keys", set(&[json!({"kty": "EC", "use": "enc"}), json!(7)])),
    ]
}

#[tokio::test]
async fn key_2_whatever_the_provider_does_the_last_good_keys_stay() {
    let good = set(&[P256.named("a")]);
    let provider = Provider::start(good.clone()).await;
    let node = Node::new();
    let mut remote = settings(provider.uri());
    remote.fetch.timeout = Duration::from_millis(500);
    let authenticator = node.authenticator(remote);
    patiently(&authenticator, &named("a")).await.unwrap();
    for (result, fault) in faults() {
        let before = node.fetches(result);
        let what = format!("{result} for {fault:?}");
        provider.answer(fault);
        assert_eq!(
            patiently(&authenticator, &named("new")).await,
            UNKNOWN,
            "{what}"
        );
        assert!(node.fetches(result) > before, "{what}");
        // Another token than any in the cache.
        let mut fresh = payload();
        fresh["jti"] = what.clone().into();
        let fresh = token(&json!({"alg": "ES256", "kid": "a"}), &fresh);
        verify(&authenticator, &fresh).unwrap_or_else(|_| panic!("{what}"));
    }
    provider.answer(set(&[P256.named("a"), P256.named("new")]));
    patiently(&authenticator, &named("new")).await.unwrap();
}

#[tokio::test]
async fn key_2_keys_that_are_too_old_are_taken_away_from_cached_tokens_too() {
    let provider = Provider::start(set(&[P256.named("a")])).await;
    let node = Node::new();
    let authenticator = node.authenticator(RemoteSettings {
        max_stale: Duration::from_millis(200),
        wait: Duration::ZERO,
        ..settings(provider.uri())
    });
    let token = named("a");
    eventually("the first keys", async || {
        patiently(&authenticator, &token).await.is_ok()
    })
    .await;
    provider.answer(Reply::with(500, ""));
    eventually("the end of the keys", async || {
        verify(&authenticator, &token).map(drop) == Err(Rejection::KeysUnavailable)
    })
    .await;
    assert_eq!(authenticator.key_status(), [("corp".into(), None)]);
    provider.answer(set(&[P256.named("a")]));
    eventually("the keys again", async || {
        patiently(&authenticator, &token).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn key_2_a_start_needs_no_provider_once_keys_were_kept() {
    let provider = Provider::start(set(&[P256.named("a")])).await;
    let node = Node::new();
    let remote = settings(provider.uri());
    let authenticator = node.authenticator(remote.clone());
    patiently(&authenticator, &named("a")).await.unwrap();
    let folder = node.folder.path().join("issuers");
    eventually("the copy", async || {
        let kept = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        kept.filter(|entry| entry.path().extension().is_some_and(|end| end == "json"))
            .count()
            == 1
    })
    .await;
    drop(authenticator);
    provider.answer(Reply::Close);

    let node = Node::with_folder(node.folder);
    let authenticator = node.authenticator(remote.clone());
    verify(&authenticator, &named("a")).unwrap();
    drop(authenticator);
    // Another address is another source, and a key set that is too old is none.
    let elsewhere = format!("{}other", provider.uri()).parse().unwrap();
    for other in [
        settings(elsewhere),
        RemoteSettings {
            max_stale: Duration::ZERO,
            ..remote.clone()
        },
    ] {
        let authenticator = node.authenticator(other);
        assert!(verify(&authenticator, &named("a")).is_err());
    }
    // What others can write to could hold their keys.
    let mode = |mode| {
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(&folder, permissions).unwrap();
    };
    mode(0o770);
    let authenticator = node.authenticator(remote.clone());
    assert_eq!(
        verify(&authenticator, &named("a")).map(drop),
        Err(Rejection::KeysUnavailable)
    );
    drop(authenticator);
    mode(0o700);
    verify(&node.authenticator(remote), &named("a")).unwrap();
}

#[tokio::test]
async fn cache_4_a_key_that_is_gone_ends_its_cached_tokens_and_no_others() {
    let provider = Provider::start(set(&[P256.named("a"), ED25519.named("e")])).await;
    let node = Node::new();
    let authenticator = node.authenticator(settings(provider.uri()));
    let (dead, alive) = (
        named("a"),
        token(&json!({"alg": "EdDSA", "kid": "e"}), &payload()),
    );
    patiently(&authenticator, &dead).await.unwrap();
    verify(&authenticator, &alive).unwrap();
    provider.answer(set(&[ED25519.named("e"), RSA.named("b")]));
    assert_eq!(patiently(&authenticator, &named("x")).await, UNKNOWN);
    let misses = authenticator.cache_stats().misses;
    verify(&authenticator, &alive).unwrap();
    assert_eq!(
        authenticator.cache_stats().misses,
        misses,
        "it was verified anew"
    );
    assert_eq!(verify(&authenticator, &dead).map(drop), UNKNOWN);
    // The same name for another key is another key.
    provider.answer(set(&[RSA.named("e")]));
    assert_eq!(patiently(&authenticator, &named("x")).await, UNKNOWN);
    assert_eq!(verify(&authenticator, &alive).map(drop), UNKNOWN);
}

#[tokio::test]
async fn key_6_one_bad_key_takes_no_good_one_away() {
    let mut private = P256.named("private");
    private["d"] = "AAAA".into();
    let mut encrypting = P256.named("enc");
    encrypting["use"] = "enc".into();
    let bad = [
        private,
        encrypting,
        json!({"kty": "oct", "kid": "oct", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"}),
        json!({"kty": "RSA", "kid": "weak", "n": "AQAB", "e": "AQAB"}),
        json!({"kty": "EC", "kid": "off", "crv": "P-256", "x": "AAAA", "y": "AAAA"}),
        json!({"kid": "untyped"}),
        json!("text"),
    ];
    let mut all = bad.to_vec();
    all.extend([P256.named("a"), RSA.named("b")]);
    let provider = Provider::start(set(&all)).await;
    let node = Node::new();
    let authenticator = node.authenticator(RemoteSettings {
        cooldown: PATIENCE * 100,
        ..settings(provider.uri())
    });
    patiently(&authenticator, &named("a")).await.unwrap();
    let status = authenticator.key_status();
    let keys = status[0].1.unwrap();
    assert_eq!((keys.usable, keys.skipped), (2, bad.len()));
    for kid in ["private", "enc", "oct", "off"] {
        assert_eq!(
            patiently(&authenticator, &named(kid)).await,
            UNKNOWN,
            "{kid}"
        );
    }
}

#[tokio::test]
async fn key_2_a_reload_that_changes_nothing_goes_on_with_the_keys() {
    let provider = Provider::start(set(&[P256.named("a")])).await;
    let node = Node::new();
    let first = node.authenticator(settings(provider.uri()));
    patiently(&first, &named("a")).await.unwrap();
    let second = node.authenticator(settings(provider.uri()));
    drop(first);
    verify(&second, &named("a")).unwrap();
    assert_eq!(provider.asked(), 1);
}

#[tokio::test]
async fn cfg_2_keys_of_issuers_that_did_not_change_go_on_and_those_of_others_end() {
    let provider = Provider::start(set(&[P256.named("a")])).await;
    let node = Node::new();
    let kept = IssuerSettings {
        keys: KeySource::Remote(Arc::new(settings(provider.uri()))),
        ..issuer(Algorithm::ES256)
    };
    let remote = |settings: &IssuerSettings| node.remote.live(settings.clone());
    let (first, again) = (remote(&kept), remote(&kept));
    assert!(first.keys == again.keys, "one value for one issuer");
    let KeySource::Live(keys) = first.keys else {
        panic!("not live");
    };
    let mut changed = kept.clone();
    changed.algorithms = vec![Algorithm::ES384];
    let other = remote(&changed);
    assert!(
        other.keys != again.keys,
        "another issuer has keys of its own"
    );
    // The one that changed took its place.
    node.remote.settle(std::slice::from_ref(&changed));
    assert!(remote(&changed).keys == other.keys, "it goes on");
    assert!(remote(&kept).keys != again.keys, "it was given up");
    drop(keys);
}
