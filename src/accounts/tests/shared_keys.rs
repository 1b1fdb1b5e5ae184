//! KEY-4, KEY-5, STORE-6: signing keys in the store, encrypted, the same for all nodes. Here: their life on all of them.

mod encryption;
mod refusals;

use super::{Site, settings};
use crate::{
    accounts::{
        AccountError, Accounts, Clock, EncryptionKey, KeyEncryption, KeyError, KeyFolder, KeyInfo,
        KeyState, KeyWrapping, OpenError, StoredKeys, settings::AccountSettings, start::open_store,
    },
    policy::{Rejection, TokenFault, Unlimited},
    store::{RingRead, SealedRing},
};
use jsonwebtoken::{Algorithm, jwk::JwkSet};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use zeroize::Zeroizing;

const AHEAD: Duration = Duration::from_secs(600);

/// An access token and the most that clocks may differ.
const LIFE: u64 = 17 * 60;

pub(super) fn encryption(first: u8, old: Option<u8>) -> Option<KeyEncryption> {
    let key = |first: u8| EncryptionKey::new(Zeroizing::new([first; 32]));
    Some(KeyEncryption {
        current: key(first),
        old: old.map(key),
    })
}

fn shared() -> Site {
    Site::with(|settings| settings.key_encryption = encryption(1, None))
}

/// The settings of a node with other key-encryption keys over the same store.
fn rekeyed(site: &Site, encryption: Option<KeyEncryption>) -> AccountSettings {
    AccountSettings {
        key_encryption: encryption,
        ..site.settings.clone()
    }
}

/// A start that is refused, and why.
fn refused(settings: &AccountSettings) -> KeyError {
    let clock = Clock::system();
    let error = Accounts::open_at(settings, Arc::default(), clock).unwrap_err();
    let OpenError::Key(error) = error else {
        panic!("{error}");
    };
    error
}

impl Site {
    fn node(&self, settings: AccountSettings) -> Self {
        Self::open(Arc::clone(&self.folder), settings, Arc::clone(&self.now))
    }

    fn stored(&self) -> StoredKeys {
        let settings = &self.settings;
        let encryption = settings.key_encryption.as_ref().unwrap();
        let store = open_store(settings).unwrap();
        StoredKeys::new(store, encryption, settings.signing, settings.key_folder()).unwrap()
    }

    async fn infos(&self) -> Vec<KeyInfo> {
        self.stored().list(self.accounts.clock.now()).await.unwrap()
    }

    async fn rotate_stored(&self, after: Duration) -> Box<str> {
        let now = self.accounts.clock.now();
        self.stored().rotate(after, now).await.unwrap()
    }

    async fn revoke_stored(&self, kid: Option<&str>) -> Result<(), KeyError> {
        let now = self.accounts.clock.now();
        self.stored().revoke(kid, now).await
    }

    /// What the watch does each second.
    async fn look(&self) {
        self.accounts.follow_keys().unwrap();
        self.accounts.poll().await.unwrap();
    }

    async fn access(&self) -> String {
        self.login("ann").await.access_token.to_string()
    }

    #[track_caller]
    fn takes(&self, token: &str) -> bool {
        match self.authn.verify(token, self.time(), &Unlimited) {
            Ok(_) => true,
            Err(Rejection::TokenInvalid(TokenFault::KeyUnknown)) => false,
            Err(other) => panic!("{other:?}"),
        }
    }

    fn execute(&self, sql: &str) {
        let connection = rusqlite::Connection::open(&self.settings.database).unwrap();
        connection.execute_batch(sql).unwrap();
    }

    /// As if somebody had written into the database: the running nodes look again.
    fn execute_unseen(&self, sql: &str) {
        self.execute(&format!(
            "{sql}; UPDATE signing_ring SET revision = hex(randomblob(8))"
        ));
    }

    async fn ring(&self) -> SealedRing {
        let read = self.accounts.store.signing_keys(None).await.unwrap();
        let RingRead::Changed(ring) = read else {
            panic!("{read:?}");
        };
        ring
    }
}

fn kid(token: &str) -> String {
    jsonwebtoken::decode_header(token).unwrap().kid.unwrap()
}

fn published(site: &Site) -> Vec<String> {
    let set: JwkSet = serde_json::from_slice(&site.accounts.jwks()).unwrap();
    let kids = set.keys.into_iter().map(|key| key.common.key_id.unwrap());
    kids.collect()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

#[test]
fn key_4_nodes_that_start_together_make_one_key() {
    for _ in 0..8 {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let settings = AccountSettings {
            key_encryption: encryption(1, None),
            ..settings(&folder)
        };
        let sites: Vec<Site> = std::thread::scope(|scope| {
            let open = || {
                Site::open(
                    Arc::clone(&folder),
                    settings.clone(),
                    Arc::new(super::START.into()),
                )
            };
            let starts: Vec<_> = (0..3).map(|_| scope.spawn(open)).collect();
            starts
                .into_iter()
                .map(|start| start.join().unwrap())
                .collect()
        });
        let kids = published(&sites[0]);
        assert_eq!(kids.len(), 1);
        assert!(sites.iter().all(|site| published(site) == kids));
        assert!(files(&settings.key_folder()).is_empty(), "no key is a file");
    }
}

#[tokio::test]
async fn key_4_a_rotation_at_one_node_is_followed_by_all_at_the_same_moment() {
    let site = shared();
    site.add("ann", &[]).await;
    let nodes = [site.beside(), site.beside()];
    let old = site.access().await;
    let new = site.rotate_stored(AHEAD).await;
    for node in &nodes {
        assert_eq!(published(node), [kid(&old)]);
        node.look().await;
        // Published everywhere before it signs anywhere.
        assert_eq!(published(node), [kid(&old), new.to_string()]);
        assert_eq!(kid(&node.access().await), kid(&old));
    }
    site.advance(AHEAD.as_secs() - 1);
    assert_eq!(kid(&nodes[0].access().await), kid(&old));
    let last = nodes[0].access().await;
    site.advance(1);
    let tokens = [nodes[0].access().await, nodes[1].access().await];
    for (token, node) in tokens.iter().zip(nodes.iter().rev()) {
        assert_eq!(kid(token), *new);
        assert!(node.takes(token) && node.takes(&last));
    }
    // Until the last token of the old one is dead, without anybody's doing.
    site.advance(LIFE - 1);
    nodes[0].look().await;
    assert_eq!(published(&nodes[0]).len(), 2);
    site.advance(1);
    nodes[0].look().await;
    assert_eq!(published(&nodes[0]), [new.to_string()]);
    let states: Vec<_> = site.infos().await.iter().map(|key| key.state).collect();
    assert_eq!(states, [KeyState::Signing]);
    // The row goes with the next change.
    site.rotate_stored(AHEAD).await;
    assert_eq!(site.ring().await.keys.len(), 2);
}

#[tokio::test]
async fn key_4_a_revoked_key_ends_its_tokens_at_every_node_and_never_comes_back() {
    let site = shared();
    site.add("ann", &[]).await;
    let node = site.beside();
    let old = site.access().await;
    assert!(node.takes(&old));
    for unknown in ["", "x", "../portcullis.db"] {
        let refused = site.revoke_stored(Some(unknown)).await.unwrap_err();
        assert!(refused.to_string().contains("key list"), "{refused}");
    }
    site.revoke_stored(Some(&kid(&old))).await.unwrap();
    node.look().await;
    assert!(!node.takes(&old));
    let new = node.access().await;
    site.look().await;
    assert!(site.takes(&new) && !site.takes(&old));
    let again = site.beside();
    assert!(again.takes(&new) && !again.takes(&old));
    // With one that waits, that one begins.
    let next = site.rotate_stored(AHEAD).await;
    site.revoke_stored(Some(&kid(&new))).await.unwrap();
    node.look().await;
    assert_eq!(kid(&node.access().await), *next);
    // All at once.
    site.rotate_stored(AHEAD).await;
    site.revoke_stored(None).await.unwrap();
    node.look().await;
    assert_eq!(published(&node).len(), 1);
    assert_ne!(published(&node), [next.to_string()]);
}

#[tokio::test]
async fn key_4_nodes_that_rotate_at_once_lose_no_rotation() {
    let site = shared();
    let (one, two) = tokio::join!(site.rotate_stored(AHEAD), site.rotate_stored(AHEAD));
    assert_ne!(one, two);
    let infos = site.infos().await;
    assert_eq!(infos.len(), 3);
    let waiting = infos.iter().filter(|key| key.state == KeyState::Waiting);
    assert_eq!(waiting.count(), 2);
}

#[tokio::test]
async fn key_4_there_are_so_many_keys_and_no_more() {
    let site = shared();
    for _ in 1..64 {
        site.rotate_stored(AHEAD).await;
    }
    let now = site.accounts.clock.now();
    let refused = site.stored().rotate(AHEAD, now).await.unwrap_err();
    assert!(matches!(refused, KeyError::TooMany), "{refused}");
    assert_eq!(site.ring().await.keys.len(), 64);
    let first = site.infos().await[0].kid.clone();
    site.revoke_stored(Some(&first)).await.unwrap();
    // More than that was put in by somebody else.
    site.execute_unseen(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9)
         INSERT INTO signing_keys SELECT purpose, kid || i, algorithm, from_at, until_at, encryption, sealed
             FROM signing_keys, n WHERE until_at IS NULL",
    );
    let before = published(&site);
    site.accounts.poll().await.unwrap_err();
    assert_eq!(published(&site), before);
}

#[tokio::test]
async fn key_4_another_algorithm_takes_over_as_a_rotation_does_at_every_node() {
    for (before, after) in [
        (Algorithm::ES256, Algorithm::EdDSA),
        (Algorithm::HS256, Algorithm::ES256),
        (Algorithm::ES256, Algorithm::HS256),
    ] {
        let site = Site::with(|settings| {
            settings.key_encryption = encryption(1, None);
            settings.signing = before;
        });
        site.add("ann", &[]).await;
        let old = site.access().await;
        let changed = AccountSettings {
            signing: after,
            ..site.settings.clone()
        };
        let other = site.node(changed.clone());
        let third = site.node(changed);
        assert_eq!(other.infos().await.len(), 2, "one rotation for both");
        assert_eq!(kid(&third.access().await), kid(&old));
        // The first node was not begun anew, and signs with what the others do all the same.
        site.look().await;
        site.advance(AHEAD.as_secs());
        let new = site.access().await;
        assert_eq!(jsonwebtoken::decode_header(&new).unwrap().alg, after);
        for node in [&site, &other, &third] {
            assert!(node.takes(&new) && node.takes(&old), "{before:?} {after:?}");
        }
        let status = site.authn.key_status();
        assert_eq!(status.len(), 1);
        assert_eq!(status[0].1.unwrap().usable, 2);
    }
}
