//! Key files that go into the store, what is seen of a key there, and another key-encryption key.

use super::*;

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
