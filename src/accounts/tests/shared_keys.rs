//! KEY-4, KEY-5, STORE-6: signing keys in the store, encrypted, the same for all nodes.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use jsonwebtoken::{Algorithm, jwk::JwkSet};
use zeroize::Zeroizing;

use super::{Site, settings};
use crate::{
    accounts::{
        AccountError, Accounts, Clock, EncryptionKey, KeyEncryption, KeyError, KeyFolder, KeyInfo,
        KeyState, KeyWrapping, OpenError, StoredKeys, settings::AccountSettings, start::open_store,
    },
    policy::{Rejection, TokenFault, Unlimited},
    store::{RingRead, SealedRing},
};

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

#[tokio::test]
async fn key_5_a_start_with_another_key_encryption_key_is_refused_and_says_what_to_do() {
    let site = shared();
    let before = site.ring().await;
    for other in [encryption(2, None), encryption(2, Some(3))] {
        let error = refused(&rekeyed(&site, other));
        assert!(matches!(error, KeyError::OtherEncryption { .. }), "{error}");
        assert!(
            error.to_string().contains("accounts.key_encryption_file"),
            "{error}"
        );
    }
    // Nor does a node without any make keys of its own beside those of the others.
    let error = refused(&rekeyed(&site, None));
    assert!(matches!(error, KeyError::EncryptionMissing), "{error}");
    assert!(
        error.to_string().contains("accounts.key_encryption_file"),
        "{error}"
    );
    assert_eq!(site.ring().await, before);
}

#[tokio::test]
async fn key_5_rows_that_were_swapped_changed_or_cut_stop_a_start_and_are_not_signed_with() {
    let other = shared();
    let foreign = other.ring().await;
    for sql in [
        "UPDATE signing_keys SET sealed = substr(sealed, 1, length(sealed) - 1)".to_owned(),
        "UPDATE signing_keys SET sealed = zeroblob(29)".to_owned(),
        "UPDATE signing_keys SET sealed = CAST(sealed || x'00' AS BLOB)".to_owned(),
        "UPDATE signing_keys SET algorithm = 'EdDSA'".to_owned(),
        "UPDATE signing_keys SET algorithm = 'none'".to_owned(),
        "UPDATE signing_keys SET algorithm = 'HS256'".to_owned(),
        "UPDATE signing_keys SET kid = 'mine' WHERE until_at IS NULL".to_owned(),
        // One of the two in the other one's place, under the same key-encryption key.
        format!(
            "UPDATE signing_keys SET sealed = x'{}'",
            foreign.keys[0]
                .sealed
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>()
        ),
        "UPDATE signing_keys SET sealed = (SELECT other.sealed FROM signing_keys AS other
             WHERE other.kid <> signing_keys.kid)"
            .to_owned(),
    ] {
        let site = shared();
        site.rotate_stored(AHEAD).await;
        site.execute_unseen(&sql);
        let error = refused(&site.settings);
        assert!(matches!(error, KeyError::Tampered { .. }), "{sql}: {error}");
        assert!(error.to_string().contains("key revoke"), "{error}");
    }
}

#[tokio::test]
async fn key_5_a_running_node_goes_on_with_what_it_has_and_takes_nothing_that_was_changed() {
    let site = shared();
    site.add("ann", &[]).await;
    let node = site.beside();
    let token = node.access().await;
    // A row that somebody put in, to be signed with and believed at once.
    site.execute_unseen(
        "INSERT INTO signing_keys SELECT purpose, 'forged', algorithm, from_at + 1, NULL, encryption, sealed
             FROM signing_keys",
    );
    node.look().await;
    assert_eq!(kid(&node.access().await), kid(&token));
    assert_eq!(published(&node), [kid(&token)]);
    assert!(node.takes(&token));
    assert!(node.accounts.signing.fault().unwrap().contains("forged"));
    // One that it knows is not read again; and what is gone is gone, whatever else cannot be read.
    site.execute_unseen("UPDATE signing_keys SET sealed = zeroblob(40)");
    node.look().await;
    assert!(node.takes(&token));
    site.execute_unseen(&format!(
        "DELETE FROM signing_keys WHERE kid = '{}'",
        kid(&token)
    ));
    node.look().await;
    assert!(!node.takes(&token));
    let refused = node.accounts.issue("ann", AHEAD).await.unwrap_err();
    assert!(matches!(refused, AccountError::Store(_)), "{refused}");
    site.revoke_stored(Some("forged")).await.unwrap();
    node.look().await;
    assert!(node.accounts.signing.fault().is_none());
    let new = node.access().await;
    assert!(node.takes(&new) && !node.takes(&token));
}

#[tokio::test]
async fn key_4_a_key_that_cannot_be_used_consumes_no_refresh_token() {
    let site = shared();
    site.add("ann", &[]).await;
    let grant = site.login("ann").await;
    let token = grant.refresh_token.unwrap();
    site.execute_unseen("UPDATE signing_keys SET kid = 'x'");
    site.look().await;
    for _ in 0..3 {
        let refused = site.accounts.refresh(&token, super::CLIENT).await;
        assert!(matches!(refused, Err(Rejection::StoreUnavailable)));
        site.advance(60);
    }
    site.revoke_stored(None).await.unwrap();
    site.look().await;
    site.accounts.refresh(&token, super::CLIENT).await.unwrap();
}

#[tokio::test]
async fn store_6_keys_that_cannot_be_read_are_a_lag_as_a_feed_that_cannot_be() {
    let site = shared();
    site.add("ann", &[]).await;
    let node = site.beside();
    let token = node.access().await;
    site.revoke_stored(Some(&kid(&token))).await.unwrap();
    site.execute("ALTER TABLE signing_keys RENAME TO elsewhere");
    let feed = node.authn.revocations().feed();
    let then = Instant::now() + Duration::from_secs(16);
    let before = feed.lag(then);
    node.accounts.poll().await.unwrap_err();
    assert_eq!(feed.lag(then), before, "nothing is known since");
    assert!(node.takes(&token) && feed.is_late(then));
    site.execute("ALTER TABLE elsewhere RENAME TO signing_keys");
    node.accounts.poll().await.unwrap();
    assert!(feed.lag(then) < before && !node.takes(&token));
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
async fn key_4_key_files_are_taken_over_with_their_times_and_nobody_signs_in_again() {
    let site = Site::new();
    site.add("ann", &[]).await;
    let old = site.access().await;
    let now = site.accounts.clock.now();
    let folder = KeyFolder::open(&site.settings.key_folder(), Algorithm::ES256, now).unwrap();
    let next = folder.rotate(AHEAD, now).unwrap();
    let listed = folder.list(now).unwrap();
    let moved = site.node(rekeyed(&site, encryption(1, None)));
    assert!(moved.takes(&old));
    let infos = moved.infos().await;
    let plain = |infos: &[KeyInfo]| -> Vec<_> {
        infos
            .iter()
            .map(|key| (key.kid.clone(), key.from, key.until))
            .collect()
    };
    assert_eq!(plain(&infos), plain(&listed));
    assert!(
        infos
            .iter()
            .all(|key| key.wrapping == Some(KeyWrapping::Current))
    );
    moved.advance(AHEAD.as_secs());
    let token = moved.access().await;
    assert_eq!(kid(&token), *next);
    // A node that still has the files believes it, until it is begun anew.
    site.accounts.follow_keys().unwrap();
    assert!(site.takes(&token));
    // The files are not looked at again: a key that is revoked stays so.
    moved.revoke_stored(Some(&kid(&old))).await.unwrap();
    let again = moved.beside();
    assert!(!again.takes(&old) && again.takes(&token));
    assert!(site.settings.key_folder().join("ring.json").exists());
}

#[tokio::test]
async fn key_5_key_files_that_others_may_read_are_not_taken_over() {
    let site = Site::new();
    let key = files(&site.settings.key_folder());
    let key = key
        .iter()
        .find(|path| path.extension().is_some_and(|end| end == "pem"));
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    fs::set_permissions(key.unwrap(), permissions).unwrap();
    let error = refused(&rekeyed(&site, encryption(1, None)));
    assert!(
        matches!(error, KeyError::ReadableByOthers { .. }),
        "{error}"
    );
    let read = site.accounts.store.signing_keys(None).await.unwrap();
    assert_eq!(read, RingRead::Absent);
}

#[tokio::test]
async fn key_5_nothing_in_the_database_is_a_key_and_nothing_prints_one() {
    for algorithm in [
        Algorithm::ES256,
        Algorithm::EdDSA,
        Algorithm::RS256,
        Algorithm::HS256,
    ] {
        let site = Site::with(|settings| settings.signing = algorithm);
        let found = files(&site.settings.key_folder());
        let is_key = |path: &&PathBuf| {
            path.extension()
                .is_some_and(|end| end == "pem" || end == "secret")
        };
        let text = fs::read_to_string(found.iter().find(is_key).unwrap()).unwrap();
        let body: String = text.lines().filter(|line| !line.starts_with('-')).collect();
        use base64::Engine;
        let bytes = [
            base64::engine::general_purpose::STANDARD.decode(&body),
            base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(&body),
        ];
        let bytes = bytes.into_iter().find_map(Result::ok).unwrap();
        let moved = site.node(rekeyed(&site, encryption(1, None)));
        let database = &moved.settings.database;
        let read = |suffix: &str| fs::read(format!("{}{suffix}", database.display())).unwrap();
        let content = [read(""), read("-wal")].concat();
        let has = |part: &[u8]| content.windows(part.len()).any(|window| window == part);
        assert!(
            has(&moved.ring().await.keys[0].sealed[..16]),
            "it is in there"
        );
        assert!(!has(b"PRIVATE KEY"), "{algorithm:?}");
        // A third into PKCS #8 is what is private.
        let private = |whole: &[u8]| whole[whole.len() / 3..][..16].to_vec();
        for part in [private(&bytes), private(body.as_bytes())] {
            assert!(!has(&part), "{algorithm:?}");
        }
        let printed = format!(
            "{:?} {:?} {:?}",
            moved.accounts,
            moved.stored(),
            moved.ring().await
        );
        assert!(
            printed.len() < 2000
                && !printed.contains(&String::from_utf8(private(body.as_bytes())).unwrap()),
            "{printed}"
        );
        assert!(
            moved
                .accounts
                .signing
                .check(moved.accounts.clock.now())
                .is_ok()
        );
    }
}

#[tokio::test]
async fn key_5_a_key_encryption_key_is_changed_node_by_node_and_the_old_one_is_worth_nothing_then()
{
    let site = shared();
    site.add("ann", &[]).await;
    let token = site.access().await;
    // The first node with the new one; the second has the old one alone.
    let first = site.node(rekeyed(&site, encryption(2, Some(1))));
    assert!(first.takes(&token));
    // What is made meanwhile can be read by both.
    first.rotate_stored(Duration::ZERO).await;
    first.revoke_stored(Some(&kid(&token))).await.unwrap();
    assert!(
        first
            .infos()
            .await
            .iter()
            .all(|key| key.wrapping == Some(KeyWrapping::Old))
    );
    site.look().await;
    site.advance(1);
    let token = site.access().await;
    first.look().await;
    assert!(first.takes(&token) && site.accounts.signing.fault().is_none());
    assert_eq!(first.stored().rewrap().await.unwrap(), 1);
    assert_eq!(first.stored().rewrap().await.unwrap(), 0);
    assert!(
        first
            .infos()
            .await
            .iter()
            .all(|key| key.wrapping == Some(KeyWrapping::Current))
    );
    // Nobody notices; only the old one alone starts nothing more.
    first.look().await;
    site.look().await;
    assert!(first.takes(&token) && site.takes(&token));
    let error = refused(&site.settings);
    assert!(matches!(error, KeyError::OtherEncryption { .. }), "{error}");
    let last = site.node(rekeyed(&site, encryption(2, None)));
    assert!(last.takes(&token));
    assert_eq!(kid(&last.access().await), kid(&token));
}

#[tokio::test]
async fn key_5_a_command_with_another_key_encryption_key_changes_nothing_but_can_take_all_away() {
    let site = shared();
    site.add("ann", &[]).await;
    let token = site.access().await;
    let before = site.ring().await;
    let lost = Site {
        settings: rekeyed(&site, encryption(9, None)),
        folder: Arc::clone(&site.folder),
        accounts: Arc::clone(&site.accounts),
        authn: Arc::clone(&site.authn),
        now: Arc::clone(&site.now),
    };
    let now = site.accounts.clock.now();
    let is_other = |error: KeyError| matches!(error, KeyError::OtherEncryption { .. });
    assert!(is_other(
        lost.stored().rotate(AHEAD, now).await.unwrap_err()
    ));
    assert!(is_other(lost.stored().rewrap().await.unwrap_err()));
    // The others could not read the key that would have to sign.
    let revoked = lost.revoke_stored(Some(&kid(&token))).await;
    assert!(is_other(revoked.unwrap_err()));
    assert_eq!(site.ring().await, before);
    let listed = lost.infos().await;
    assert_eq!(listed[0].wrapping, Some(KeyWrapping::Unknown));
    lost.revoke_stored(None).await.unwrap();
    let found = site.node(lost.settings.clone());
    assert!(!found.takes(&token));
    let new = found.access().await;
    assert!(found.takes(&new));
    // A node with the former one obeys as far as it can: it signs and believes nothing.
    site.look().await;
    assert!(!site.takes(&token) && !site.takes(&new));
    assert!(site.accounts.signing.fault().is_some());
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
