//! KEY-4: keys change without anybody noticing, and a stolen one is worth nothing within seconds.

use std::{sync::Arc, time::Duration};

use jsonwebtoken::{Algorithm, DecodingKey, Validation, jwk::JwkSet};
use serde_json::Value;

use super::{Site, settings};
use crate::{
    accounts::{KeyFolder, KeyInfo, KeyState, settings::AccountSettings},
    policy::{Rejection, TokenFault, Unlimited},
};

const AHEAD: Duration = Duration::from_secs(600);
/// An access token and the most that clocks may differ.
const LIFE: u64 = 17 * 60;

fn with(algorithm: Algorithm) -> Site {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let settings = AccountSettings {
        signing: algorithm,
        ..settings(&folder)
    };
    Site::open(folder, settings, Arc::new(1_800_000_000.into()))
}

impl Site {
    fn now(&self) -> u64 {
        self.accounts.clock.now()
    }

    fn keys(&self) -> KeyFolder {
        KeyFolder::open(
            &self.settings.key_folder(),
            self.settings.signing,
            self.now(),
        )
        .unwrap()
    }

    fn listed(&self) -> Vec<KeyInfo> {
        self.keys().list(self.now()).unwrap()
    }

    async fn token(&self) -> String {
        self.login("ann").await.access_token.to_string()
    }

    #[track_caller]
    fn believes(&self, token: &str) -> bool {
        match self.authn.verify(token, self.time(), &Unlimited) {
            Ok(_) => true,
            Err(Rejection::TokenInvalid(TokenFault::KeyUnknown)) => false,
            Err(other) => panic!("{other:?}"),
        }
    }
}

fn kid(token: &str) -> String {
    jsonwebtoken::decode_header(token).unwrap().kid.unwrap()
}

/// Verifies with the published set alone, as a service elsewhere would.
fn verified_elsewhere(site: &Site, token: &str) -> bool {
    let set: JwkSet = serde_json::from_slice(&site.accounts.jwks()).unwrap();
    let header = jsonwebtoken::decode_header(token).unwrap();
    let Some(jwk) = set.find(&header.kid.unwrap()) else {
        return false;
    };
    let mut validation = Validation::new(header.alg);
    validation.set_audience(&["portcullis"]);
    validation.set_issuer(&["https://localhost:8443"]);
    validation.validate_exp = false; // by the clock of the test
    let key = DecodingKey::from_jwk(jwk).unwrap();
    jsonwebtoken::decode::<Value>(token, &key, &validation).is_ok()
}

#[tokio::test]
async fn key_4_a_new_key_is_published_before_it_signs_and_the_old_one_believed_after() {
    let site = Site::new();
    let node = site.beside();
    site.add("ann", &[]).await;
    let old = node.token().await;
    site.keys().rotate(AHEAD, site.now()).unwrap();
    node.accounts.follow_keys().unwrap();
    // Published, and the old one signs.
    let set: JwkSet = serde_json::from_slice(&node.accounts.jwks()).unwrap();
    assert_eq!((set.keys.len(), kid(&node.token().await)), (2, kid(&old)));
    node.advance(AHEAD.as_secs() - 1);
    assert_eq!(kid(&node.token().await), kid(&old));
    let last = node.token().await;
    node.advance(1);
    let new = node.token().await;
    assert_ne!(kid(&new), kid(&old));
    for token in [&last, &new] {
        assert!(node.believes(token) && verified_elsewhere(&node, token));
    }
    // Until the last token of the old key is dead.
    node.advance(LIFE - 1);
    node.accounts.follow_keys().unwrap();
    assert_eq!(node.listed().len(), 2);
    node.advance(1);
    node.accounts.follow_keys().unwrap();
    let set: JwkSet = serde_json::from_slice(&node.accounts.jwks()).unwrap();
    assert_eq!(set.keys.len(), 1);
    assert!(set.find(&kid(&new)).is_some());
}

#[tokio::test]
async fn key_4_a_revoked_key_ends_its_cached_tokens_and_another_signs() {
    let site = Site::new();
    let node = site.beside();
    site.add("ann", &[]).await;
    let old = node.token().await;
    assert!(node.believes(&old));
    site.keys().revoke(&kid(&old), site.now()).unwrap();
    assert!(node.believes(&old), "the node does not know yet");
    node.accounts.follow_keys().unwrap();
    assert!(!node.believes(&old));
    assert!(!verified_elsewhere(&node, &old));
    let new = node.token().await;
    assert!(node.believes(&new) && verified_elsewhere(&node, &new));
    // Nor does it come back with another start.
    let again = site.beside();
    assert!(!again.believes(&old) && again.believes(&new));
    let file = site
        .settings
        .key_folder()
        .join(format!("{}.pem", kid(&old)));
    assert!(!file.exists());
}

#[tokio::test]
async fn key_4_only_tokens_of_the_revoked_key_die() {
    let site = Site::new();
    site.add("ann", &[]).await;
    let old = site.token().await;
    let new = site.keys().rotate(Duration::ZERO, site.now()).unwrap();
    site.advance(1);
    site.accounts.follow_keys().unwrap();
    let token = site.token().await;
    assert_eq!(kid(&token), *new);
    site.keys().revoke(&kid(&old), site.now()).unwrap();
    site.accounts.follow_keys().unwrap();
    assert!(!site.believes(&old));
    assert!(site.believes(&token));
    let states: Vec<_> = site.listed().iter().map(|key| key.state).collect();
    assert_eq!(states, [KeyState::Signing]);
}

#[test]
fn key_4_what_is_no_key_is_not_revoked_and_no_path() {
    let site = Site::new();
    for name in ["", "x", "../portcullis.db", "ring.json", "lock", "a/b", "."] {
        let refused = site.keys().revoke(name, site.now()).unwrap_err();
        assert!(refused.to_string().contains("key list"), "{refused}");
    }
    assert!(site.settings.database.exists());
    assert_eq!(site.listed().len(), 1);
}

#[tokio::test]
async fn key_4_each_algorithm_signs_what_it_verifies() {
    for algorithm in [
        Algorithm::ES256,
        Algorithm::EdDSA,
        Algorithm::RS256,
        Algorithm::HS256,
    ] {
        let site = with(algorithm);
        site.add("ann", &[]).await;
        let token = site.token().await;
        assert_eq!(jsonwebtoken::decode_header(&token).unwrap().alg, algorithm);
        assert!(
            site.believes(&token) && site.beside().believes(&token),
            "{algorithm:?}"
        );
        assert_eq!(site.listed()[0].algorithm, algorithm);
        // A secret is nobody else's.
        let public = algorithm != Algorithm::HS256;
        assert_eq!(verified_elsewhere(&site, &token), public, "{algorithm:?}");
        assert_eq!(site.accounts.algorithms().len(), usize::from(public));
        let other = with(algorithm);
        other.add("ann", &[]).await;
        assert!(!site.believes(&other.token().await), "{algorithm:?}");
    }
}

#[tokio::test]
async fn key_5_the_published_set_has_nothing_private_for_any_algorithm() {
    for algorithm in [
        Algorithm::ES256,
        Algorithm::EdDSA,
        Algorithm::RS256,
        Algorithm::HS256,
    ] {
        let site = with(algorithm);
        site.keys().rotate(AHEAD, site.now()).unwrap();
        site.accounts.follow_keys().unwrap();
        let set: Value = serde_json::from_slice(&site.accounts.jwks()).unwrap();
        for key in set["keys"].as_array().unwrap() {
            for name in ["d", "p", "q", "dp", "dq", "qi", "oth", "k"] {
                assert!(key.get(name).is_none(), "{name} of {algorithm:?}");
            }
        }
    }
}

#[tokio::test]
async fn key_4_another_algorithm_in_the_configuration_takes_over_as_a_rotation_does() {
    for (before, after) in [
        (Algorithm::ES256, Algorithm::EdDSA),
        (Algorithm::HS256, Algorithm::ES256),
        (Algorithm::RS256, Algorithm::HS256),
    ] {
        let site = with(before);
        site.add("ann", &[]).await;
        let old = site.token().await;
        let settings = AccountSettings {
            signing: after,
            ..site.settings.clone()
        };
        let changed = Site::open(Arc::clone(&site.folder), settings, Arc::clone(&site.now));
        assert!(changed.believes(&old), "{before:?} {after:?}");
        assert_eq!(kid(&changed.token().await), kid(&old));
        changed.advance(AHEAD.as_secs());
        let new = changed.token().await;
        assert_eq!(jsonwebtoken::decode_header(&new).unwrap().alg, after);
        assert!(changed.believes(&new));
        // A further start changes nothing.
        assert_eq!(changed.beside().listed().len(), 2);
    }
}

#[tokio::test]
async fn key_4_keys_that_cannot_be_read_leave_the_old_ones_at_work() {
    let site = Site::new();
    site.add("ann", &[]).await;
    let token = site.token().await;
    let ring = site.settings.key_folder().join("ring.json");
    let text = std::fs::read(&ring).unwrap();
    let mode = |mode| {
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(&ring, permissions).unwrap();
    };
    for broken in ["", "{}x", "{\"keys\":[{\"kid\":\"none\",\"from\":1}]}"] {
        std::fs::write(&ring, broken).unwrap();
        site.accounts.follow_keys().unwrap_err();
        assert!(site.believes(&token));
        site.token().await;
    }
    std::fs::write(&ring, &text).unwrap();
    mode(0o644);
    site.accounts.follow_keys().unwrap_err();
    mode(0o600);
    site.accounts.follow_keys().unwrap();
    assert!(site.believes(&token));
}

#[tokio::test]
async fn key_4_keys_of_an_earlier_version_go_on() {
    let site = Site::new();
    site.add("ann", &[]).await;
    let token = site.token().await;
    let folder = site.settings.key_folder();
    std::fs::remove_file(folder.join("ring.json")).unwrap();
    let active = folder.join("active");
    std::fs::write(&active, kid(&token)).unwrap();
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&active, permissions).unwrap();
    let later = site.beside();
    assert!(later.believes(&token));
    assert_eq!(kid(&later.token().await), kid(&token));
    assert!(!active.exists());
}
