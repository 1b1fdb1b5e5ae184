//! Statements as an upstream judges them, and what is given again.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use jsonwebtoken::{Algorithm, DecodingKey, Validation, jwk::JwkSet};
use serde_json::{Value, json};

use super::*;
use crate::{
    accounts::{ASSERTION_ALGORITHM, KeyFolder},
    policy::{Caller, Claims, IdentityHeaders, authorize::tests::identity},
};

const NOW: u64 = 1_800_000_000;
const ISSUER: &str = "https://gate.example.com";

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).unwrap();
    folder
}

fn settings(folder: &Path) -> AssertionSettings {
    AssertionSettings {
        issuer: ISSUER.into(),
        keys: folder.into(),
    }
}

fn open(folder: &Path) -> Arc<Assertions> {
    Assertions::open(&settings(folder), at(NOW)).unwrap()
}

fn claims(subject: &str) -> Claims {
    Claims {
        issuer_name: "corp".into(),
        issuer: "https://idp.example.com".into(),
        subject: subject.into(),
        email: Some("ada@example.com".into()),
        name: Some("Ada \"é\"\r\n".into()),
        roles: vec!["clerk".into(), "a,b".into()],
        session: Some("s1".into()),
        ..Claims::default()
    }
}

fn somebody(claims: Claims) -> Arc<Identity> {
    match identity(claims, &IdentityHeaders::default()) {
        Caller::Verified(identity) => identity,
        Caller::Anonymous => panic!("nobody"),
    }
}

/// What is varied from test to test.
#[derive(Clone)]
struct Case {
    identity: Arc<Identity>,
    upstream: Arc<str>,
    method: Method,
    base_path: &'static str,
    target: PathAndQuery,
}

impl Case {
    fn new() -> Self {
        Self {
            identity: somebody(claims("u1")),
            upstream: "orders".into(),
            method: Method::GET,
            base_path: "",
            target: PathAndQuery::from_static("/orders/7?full=1"),
        }
    }

    fn about(&self) -> Statement<'_> {
        Statement {
            identity: &self.identity,
            upstream: &self.upstream,
            method: &self.method,
            base_path: self.base_path,
            target: &self.target,
        }
    }

    #[track_caller]
    fn state(&self, assertions: &Assertions, recent: &Recent, now: u64) -> String {
        let value = assertions.state(recent, &self.about(), at(now)).unwrap();
        assert!(value.is_sensitive());
        value.to_str().unwrap().to_owned()
    }
}

/// Verifies with the published keys alone.
fn read(token: &str, jwks: &[u8]) -> Option<Value> {
    let header = jsonwebtoken::decode_header(token).unwrap();
    assert_eq!(
        (header.alg, header.typ.as_deref()),
        (Algorithm::ES256, Some(TYPE))
    );
    let set: JwkSet = serde_json::from_slice(jwks).unwrap();
    let jwk = set.find(&header.kid.unwrap())?;
    let mut validation = Validation::new(Algorithm::ES256);
    (validation.validate_exp, validation.validate_aud) = (false, false);
    let key = DecodingKey::from_jwk(jwk).unwrap();
    let read = jsonwebtoken::decode::<Value>(token, &key, &validation);
    read.ok().map(|read| read.claims)
}

#[test]
fn hdr_10_a_statement_says_who_to_whom_about_what_and_for_a_minute() {
    let folder = folder();
    let assertions = open(folder.path());
    let token = Case::new().state(&assertions, &Recent::default(), NOW);
    let hash = BASE64URL.encode(digest::digest(&digest::SHA256, b"/orders/7?full=1"));
    let want = json!({
        "iss": ISSUER, "aud": "orders", "iat": NOW, "exp": NOW + 60, "htm": "GET", "target_hash": hash,
        "sub": "u1", "idp": "https://idp.example.com", "email": "ada@example.com", "name": "Ada \"é\"\r\n",
        "roles": ["clerk", "a,b"], "scopes": [], "sid": "s1",
    });
    assert_eq!(read(&token, &assertions.jwks()), Some(want));
}

#[test]
fn hdr_10_the_hash_is_over_what_the_upstream_receives() {
    let folder = folder();
    let assertions = open(folder.path());
    let based = Case {
        base_path: "/base",
        ..Case::new()
    };
    let token = based.state(&assertions, &Recent::default(), NOW);
    let claims = read(&token, &assertions.jwks()).unwrap();
    let hash = digest::digest(&digest::SHA256, b"/base/orders/7?full=1");
    assert_eq!(claims["target_hash"], BASE64URL.encode(hash));
}

#[test]
fn hdr_10_only_the_very_same_is_given_again() {
    let folder = folder();
    let assertions = open(folder.path());
    let recent = Recent::default();
    let case = Case::new();
    let first = case.state(&assertions, &recent, NOW);
    assert_eq!(case.state(&assertions, &recent, NOW + 29), first);
    // The same claims, but another token's: who was verified is what counts.
    let others = [
        Case {
            identity: somebody(claims("u1")),
            ..case.clone()
        },
        Case {
            identity: somebody(claims("u2")),
            ..case.clone()
        },
        Case {
            upstream: "billing".into(),
            ..case.clone()
        },
        Case {
            method: Method::POST,
            ..case.clone()
        },
        Case {
            method: Method::HEAD,
            ..case.clone()
        },
        Case {
            base_path: "/base",
            ..case.clone()
        },
        Case {
            target: PathAndQuery::from_static("/orders/8?full=1"),
            ..case.clone()
        },
        Case {
            target: PathAndQuery::from_static("/orders/7"),
            ..case.clone()
        },
        Case {
            target: PathAndQuery::from_static("/orders/7?full=1&"),
            ..case.clone()
        },
    ];
    for other in &others {
        let token = other.state(&assertions, &recent, NOW + 1);
        assert_ne!(token, first);
        let claims = read(&token, &assertions.jwks()).unwrap();
        assert_eq!(claims["sub"], *other.identity.claims().subject);
        assert_eq!(
            (&claims["aud"], &claims["htm"]),
            (&json!(*other.upstream), &json!(other.method.as_str()))
        );
        assert_eq!(
            claims["target_hash"],
            target_hash(other.base_path, other.target.as_str())
        );
        assert_eq!(other.state(&assertions, &recent, NOW + 2), token);
    }
    assert_eq!(case.state(&assertions, &recent, NOW + 3), first);
}

#[test]
fn hdr_10_nothing_is_given_again_in_the_second_half_of_its_life_nor_before_its_time() {
    let folder = folder();
    let assertions = open(folder.path());
    for (later, again) in [(29, true), (30, false), (60, false), (3600, false)] {
        let recent = Recent::default();
        let case = Case::new();
        let first = case.state(&assertions, &recent, NOW);
        assert_eq!(
            case.state(&assertions, &recent, NOW + later) == first,
            again,
            "{later}"
        );
    }
    let recent = Recent::default();
    let case = Case::new();
    let first = case.state(&assertions, &recent, NOW);
    // The clock was set back: a verifier with the right time would take the first for one of the future.
    let earlier = case.state(&assertions, &recent, NOW - 10);
    assert_ne!(earlier, first);
    assert_eq!(read(&earlier, &assertions.jwks()).unwrap()["exp"], NOW + 50);
}

#[test]
fn hdr_10_the_identity_of_a_place_that_was_freed_is_not_taken_for_the_next_one() {
    let folder = folder();
    let assertions = open(folder.path());
    let recent = Recent::default();
    for user in 0..200 {
        let subject = format!("u{user}");
        let case = Case {
            identity: somebody(claims(&subject)),
            ..Case::new()
        };
        let token = case.state(&assertions, &recent, NOW);
        assert_eq!(read(&token, &assertions.jwks()).unwrap()["sub"], subject);
    }
}

#[test]
fn hdr_10_recent_statements_are_bounded_in_bytes() {
    let folder = folder();
    let assertions = open(folder.path());
    let recent = Recent::default();
    let case = Case::new();
    let mut most = 0;
    for number in 0..6000 {
        let target = format!("/{}/{number}", "x".repeat(1000));
        let case = Case {
            target: target.parse().unwrap(),
            ..case.clone()
        };
        case.state(&assertions, &recent, NOW);
        let (bytes, entries) = recent.held();
        assert!(bytes <= 2 << 20, "{bytes}");
        most = most.max(entries);
    }
    assert!((1000..3000).contains(&most), "{most}");
    // What is new displaces what is old, and not the other way round.
    let last = Case {
        target: PathAndQuery::from_static("/last"),
        ..case
    };
    let token = last.state(&assertions, &recent, NOW);
    assert_eq!(last.state(&assertions, &recent, NOW + 1), token);
}

#[test]
fn hdr_10_claims_that_fit_no_header_are_refused() {
    let folder = folder();
    let assertions = open(folder.path());
    let roles = |count: usize| Claims {
        roles: (0..count)
            .map(|number| format!("role-{number:05}").into())
            .collect(),
        ..claims("u1")
    };
    let state = |count| {
        let case = Case {
            identity: somebody(roles(count)),
            ..Case::new()
        };
        assertions.state(&Recent::default(), &case.about(), at(NOW))
    };
    assert!(state(200).is_ok());
    let refused = state(400).unwrap_err();
    assert!(
        matches!(refused, Rejection::ClaimMismatch(_)),
        "{refused:?}"
    );
}

#[test]
fn key_4_a_rotation_has_no_statement_that_the_published_keys_do_not_verify() {
    let folder = folder();
    let assertions = open(folder.path());
    let keys = KeyFolder::open(folder.path(), ASSERTION_ALGORITHM, NOW).unwrap();
    let (recent, case) = (Recent::default(), Case::new());
    let old = case.state(&assertions, &recent, NOW);
    // An upstream that fetched the keys just before the rotation keeps them for five minutes.
    let mut kept = (NOW, assertions.jwks());
    let next = keys.rotate(Duration::from_secs(600), NOW).unwrap();
    let mut signers = Vec::new();
    for now in NOW..NOW + 1300 {
        assertions.keys.as_ref().unwrap().follow(now).unwrap();
        if now - kept.0 >= 300 {
            kept = (now, assertions.jwks());
        }
        let token = case.state(&assertions, &recent, now);
        assert!(read(&token, &kept.1).is_some(), "{}", now - NOW);
        let kid = jsonwebtoken::decode_header(&token).unwrap().kid.unwrap();
        if signers.last() != Some(&kid) {
            signers.push(kid);
        }
        // Whoever has the keys of now verifies what was signed a minute ago, too.
        if now == NOW + 660 {
            assert!(read(&old, &assertions.jwks()).is_some());
        }
    }
    assert_eq!(signers.len(), 2);
    assert_eq!(signers[1], *next);
}

#[test]
fn key_4_what_a_revoked_key_signed_is_not_given_again() {
    let folder = folder();
    let assertions = open(folder.path());
    let keys = KeyFolder::open(folder.path(), ASSERTION_ALGORITHM, NOW).unwrap();
    let (recent, case) = (Recent::default(), Case::new());
    let old = case.state(&assertions, &recent, NOW);
    let kid = jsonwebtoken::decode_header(&old).unwrap().kid.unwrap();
    keys.revoke(&kid, NOW + 1).unwrap();
    assertions.keys.as_ref().unwrap().follow(NOW + 1).unwrap();
    assert_eq!(read(&old, &assertions.jwks()), None);
    let new = case.state(&assertions, &recent, NOW + 2);
    assert_ne!(new, old);
    assert!(read(&new, &assertions.jwks()).is_some());
}

#[test]
fn key_5_the_published_set_has_public_parameters_alone_and_nothing_prints_a_key() {
    let folder = folder();
    let assertions = open(folder.path());
    let set: Value = serde_json::from_slice(&assertions.jwks()).unwrap();
    let mut names: Vec<_> = set["keys"][0].as_object().unwrap().keys().collect();
    names.sort();
    assert_eq!(names, ["alg", "crv", "kid", "kty", "use", "x", "y"]);
    let path = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let path = path
        .into_iter()
        .find(|path| path.extension().is_some_and(|found| found == "pem"));
    let pem = fs::read_to_string(path.unwrap()).unwrap();
    let body = pem.lines().nth(1).unwrap();
    assert!(!format!("{assertions:?}").contains(body));
}

#[test]
fn key_5_keys_that_others_may_read_and_keys_of_another_kind_are_refused() {
    let open_to_others = folder();
    drop(open(open_to_others.path()));
    for entry in fs::read_dir(open_to_others.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|found| found == "pem") {
            fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        }
    }
    let settings_of = |folder: &tempfile::TempDir| settings(folder.path());
    let fault = Assertions::open(&settings_of(&open_to_others), at(NOW)).unwrap_err();
    assert!(fault.to_string().contains("chmod 600"), "{fault}");
    let fault = AssertionKeys::inspect(open_to_others.path()).unwrap_err();
    assert!(fault.to_string().contains("chmod 600"), "{fault}");

    for other in [Algorithm::EdDSA, Algorithm::HS256, Algorithm::RS256] {
        let wrong = folder();
        KeyFolder::open(wrong.path(), other, NOW).unwrap();
        let fault = AssertionKeys::inspect(wrong.path()).unwrap_err();
        assert!(fault.to_string().contains("ES256 alone"), "{fault}");
        let fault = Assertions::open(&settings_of(&wrong), at(NOW)).unwrap_err();
        assert!(fault.to_string().contains("ES256 alone"), "{fault}");
    }

    let missing = folder();
    let path = missing.path().join("none");
    AssertionKeys::inspect(&path).unwrap();
    assert!(!path.exists());
}

#[test]
fn nothing_is_signed_without_keys() {
    let folder = folder();
    let told = Assertions::without_keys(&settings(folder.path()));
    let refused = told.state(&Recent::default(), &Case::new().about(), at(NOW));
    assert!(matches!(refused, Err(Rejection::Internal)));
    assert_eq!(&*told.jwks(), b"{\"keys\":[]}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
