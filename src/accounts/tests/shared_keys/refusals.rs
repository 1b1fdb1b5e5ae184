//! What cannot be read, or was changed by somebody else: a start refuses it, a running node goes on without it.

use super::*;
use crate::accounts::tests::CLIENT;

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
        let refused = site.accounts.refresh(&token, CLIENT).await;
        assert!(matches!(refused, Err(Rejection::StoreUnavailable)));
        site.advance(60);
    }
    site.revoke_stored(None).await.unwrap();
    site.look().await;
    site.accounts.refresh(&token, CLIENT).await.unwrap();
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
