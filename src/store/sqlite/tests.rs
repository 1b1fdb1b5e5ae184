//! What is SQLite's alone: its file, its locks, its modes (STORE-1, 2, 3, 5). What both stores promise is in `tests/stores.rs`.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rusqlite::Connection;
use tempfile::TempDir;

use super::{DEADLINE, OpenError, Sqlite};
use crate::store::{
    AdministrationStore, Ending, NewSession, PasswordHash, Rotated, Rotation, Session, Store,
    StoreError, Times, User, UserKey,
};

const NOW: u64 = 1_800_000_000;

const TIMES: Times = Times {
    now: NOW,
    idle: 1000,
    grace: 10,
    tokens_dead_at: NOW + 1000,
};

fn path(folder: &TempDir) -> PathBuf {
    folder.path().join("accounts.db")
}

fn user(name: &str) -> User {
    User {
        id: format!("id-{name}").into(),
        username: name.into(),
        email: Some(format!("{name}@example.com").into()),
        name: None,
        password: Some(PasswordHash("hash".into())),
        roles: vec!["clerk".into()],
        disabled: false,
        pending: false,
        unlocks: 0,
        epoch: 1,
        created_at: NOW,
        updated_at: NOW,
    }
}

fn session(user: &User, id: &str) -> NewSession {
    NewSession {
        session: Session {
            id: id.into(),
            user_id: user.id.clone(),
            created_at: NOW,
            last_used_at: NOW,
            ends_at: NOW + 10_000,
            device: "test".into(),
            ip: "192.0.2.7".into(),
        },
        token: Some([7; 32]),
        user_epoch: 1,
        cap: 20,
        times: TIMES,
    }
}

fn lock(path: &Path) -> Connection {
    let other = Connection::open(path).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    other
}

#[tokio::test]
async fn store_1_a_held_lock_makes_writes_busy_within_the_deadline_and_reads_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let store = Sqlite::open(&path(&folder)).unwrap();
    store.add_user(user("ann")).await.unwrap();
    let holder = lock(&path(&folder));
    let begun = Instant::now();
    let writes = (0..20).map(|index| store.add_user(user(&format!("u{index}"))));
    let results = futures_util::future::join_all(writes).await;
    assert!(begun.elapsed() < DEADLINE + Duration::from_secs(1));
    assert!(
        results
            .iter()
            .all(|result| *result == Err(StoreError::Busy))
    );
    let key = || UserKey::Username("ann".into());
    assert!(store.find_user(key()).await.unwrap().is_some());
    drop(holder);
    let begun = Instant::now();
    store.add_user(user("bob")).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1), "recovery");
    let names: Vec<_> = store.users("".into(), 100).await.unwrap();
    let names: Vec<_> = names.iter().map(|user| &*user.username).collect();
    assert_eq!(
        names,
        ["ann", "bob"],
        "what was answered busy never happened"
    );
}

#[tokio::test]
async fn store_1_more_than_the_queue_holds_is_busy_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let store = Sqlite::open(&path(&folder)).unwrap();
    let holder = lock(&path(&folder));
    let writes = (0..super::QUEUE_MAX + 50).map(|index| store.add_user(user(&format!("u{index}"))));
    let mut writes = futures_util::future::join_all(writes);
    let begun = Instant::now();
    // All are put into the queue by the first poll; the last fifty find it full.
    let pending = futures_util::poll!(&mut writes).is_pending();
    assert!(pending && begun.elapsed() < Duration::from_secs(1));
    let results = writes.await;
    assert!(
        results
            .iter()
            .all(|result| *result == Err(StoreError::Busy))
    );
    drop(holder);
    assert!(store.users("".into(), 100).await.unwrap().is_empty());
}

#[tokio::test]
async fn store_1_a_caller_who_left_the_queue_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = Sqlite::open(&path(&folder)).unwrap();
    let holder = lock(&path(&folder));
    let mut first = store.add_user(user("first"));
    let mut left = store.add_user(user("left"));
    assert!(futures_util::poll!(&mut first).is_pending());
    assert!(futures_util::poll!(&mut left).is_pending());
    drop(left);
    holder.execute_batch("ROLLBACK").unwrap();
    first.await.unwrap();
    store.add_user(user("last")).await.unwrap();
    let key = UserKey::Username("left".into());
    assert!(store.find_user(key).await.unwrap().is_none());
}

#[test]
fn store_2_every_connection_is_wal_full_with_foreign_keys() {
    let folder = tempfile::tempdir().unwrap();
    let _store = Sqlite::open(&path(&folder)).unwrap();
    let writer = super::open::writer(&path(&folder)).unwrap();
    let reader = super::open::reader(&path(&folder)).unwrap();
    for connection in [&writer, &reader] {
        let pragma = |name: &str| -> String {
            connection
                .pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0))
                .map(|value| format!("{value:?}"))
                .unwrap()
        };
        assert_eq!(pragma("journal_mode"), "Text(\"wal\")");
        assert_eq!(pragma("synchronous"), "Integer(2)");
        assert_eq!(pragma("foreign_keys"), "Integer(1)");
        assert_eq!(pragma("trusted_schema"), "Integer(0)");
    }
    reader.execute("DELETE FROM users", []).unwrap_err();
}

#[tokio::test]
async fn store_2_what_was_answered_is_there_for_a_process_that_opens_the_files_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let store = Sqlite::open(&path(&folder)).unwrap();
    let ann = user("ann");
    store.add_user(ann.clone()).await.unwrap();
    store.add_session(session(&ann, "s1")).await.unwrap();
    let ending = Ending::OfToken([7; 32]);
    store.end_sessions(ending, TIMES).await.unwrap();
    // The files as a crash would leave them at this moment: nothing closed, nothing checkpointed.
    let crashed = tempfile::tempdir().unwrap();
    for suffix in ["", "-wal"] {
        let name = format!("accounts.db{suffix}");
        std::fs::copy(folder.path().join(&name), crashed.path().join(&name)).unwrap();
    }
    let after = Sqlite::open(&path(&crashed)).unwrap();
    let feed = after.revocations_after(0).await.unwrap();
    assert_eq!(feed.len(), 1);
    assert_eq!(&*feed[0].key, "s1");
    let rotation = Rotation {
        presented: [7; 32],
        successor: [8; 32],
        salt: [9; 32],
        times: TIMES,
    };
    let rotated = after.rotate(rotation).await.unwrap();
    assert!(matches!(rotated, Rotated::Ended));
}

#[tokio::test]
async fn store_3_a_full_or_read_only_file_fails_writes_as_a_whole_and_recovers() {
    let folder = tempfile::tempdir().unwrap();
    let store = Sqlite::open(&path(&folder)).unwrap();
    let ann = user("ann");
    store.add_user(ann.clone()).await.unwrap();
    store.add_session(session(&ann, "s1")).await.unwrap();
    let rotation = |presented, successor| Rotation {
        presented: [presented; 32],
        successor: [successor; 32],
        salt: [9; 32],
        times: TIMES,
    };
    for (name, bad, good) in [
        ("max_page_count", 1, i64::from(u32::MAX - 1)),
        ("query_only", 1, 0),
    ] {
        // A file cannot be told to be smaller than it is: then no page can be added to it.
        let set = |value| {
            store.writer.run(move |connection| {
                connection
                    .pragma_update_and_check(None, name, value, |_| Ok(()))
                    .or(Ok(()))
            })
        };
        set(bad).await.unwrap();
        let mut refused = 0;
        for index in 0..200 {
            let mut long = user(&format!("{name}-{index}"));
            long.name = Some("x".repeat(8000).into());
            match store.add_user(long).await {
                Ok(()) => {}
                Err(StoreError::Unavailable) => refused += 1,
                other => panic!("{other:?}"),
            }
        }
        assert!(refused > 150, "{name}: {refused}");
        let shut = Err(StoreError::Unavailable);
        assert_eq!(store.takes_writes(false).await, shut, "{name}");
        if name == "query_only" {
            assert_eq!(store.takes_writes(true).await, shut);
        } else {
            // What writes nothing says nothing.
            store.purge(TIMES).await.unwrap();
        }
        assert_eq!(store.takes_writes(false).await, shut, "{name}");
        let all = store.users("".into(), 1000).await.unwrap();
        assert!(
            all.len() < 50,
            "reads go on, and what was refused is not there"
        );
        set(good).await.unwrap();
        assert_eq!(store.takes_writes(true).await, Ok(()), "{name}");
        assert_eq!(store.takes_writes(false).await, Ok(()), "{name}");
        store
            .add_user(user(&format!("{name}-after")))
            .await
            .unwrap();
    }
    let rotated = store.rotate(rotation(7, 8)).await.unwrap();
    assert!(matches!(rotated, Rotated::Live { .. }));
}

#[test]
fn store_5_a_file_that_is_no_database_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let text = "version = 1\n".repeat(100);
    std::fs::write(path(&folder), &text).unwrap();
    let error = Sqlite::open(&path(&folder)).unwrap_err();
    assert!(matches!(error, OpenError::Sqlite { .. }), "{error}");
    assert_eq!(std::fs::read_to_string(path(&folder)).unwrap(), text);
}

#[test]
fn store_5_a_folder_that_others_write_is_refused_and_an_open_file_is_closed_to_them() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let mode = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    drop(Sqlite::open(&path(&folder)).unwrap());
    mode(folder.path(), 0o777);
    let error = Sqlite::open(&path(&folder)).unwrap_err();
    assert!(error.to_string().contains("chmod 700"), "{error}");
    mode(folder.path(), 0o755);
    mode(&path(&folder), 0o644);
    drop(Sqlite::open(&path(&folder)).unwrap());
    let now = std::fs::metadata(path(&folder)).unwrap().permissions();
    assert_eq!(now.mode() & 0o777, 0o600);
}

#[tokio::test]
async fn the_feed_is_read_in_order_and_in_pages() {
    let folder = tempfile::tempdir().unwrap();
    let store = Sqlite::open(&path(&folder)).unwrap();
    let connection = Connection::open(path(&folder)).unwrap();
    connection
        .execute_batch(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2500)
             INSERT INTO revocations (kind, key, until) SELECT 'token', 't' || i, i FROM n",
        )
        .unwrap();
    let mut seen = 0;
    for want in [1000, 1000, 500, 0] {
        let page = store.revocations_after(seen).await.unwrap();
        assert_eq!(page.len(), want);
        for entry in &page {
            seen += 1;
            assert_eq!((entry.id, &*entry.key), (seen, format!("t{seen}").as_str()));
        }
    }
    // Erased entries do not give their numbers to new ones.
    while store.purge(TIMES).await.unwrap() > 0 {}
    store.revoke_token("new".into(), TIMES).await.unwrap();
    let page = store.revocations_after(seen).await.unwrap();
    assert_eq!((page.len(), page[0].id), (1, 2501));
}

#[tokio::test]
async fn store_5_accounts_of_the_first_schema_are_kept_and_none_of_them_is_pending() {
    let folder = tempfile::tempdir().unwrap();
    let old = Connection::open(path(&folder)).unwrap();
    old.execute_batch(include_str!("../migrations/0001_accounts.sql"))
        .unwrap();
    old.execute_batch(
        "CREATE TABLE schema_version (only INTEGER PRIMARY KEY CHECK (only = 1), version INTEGER NOT NULL) STRICT;
         INSERT INTO schema_version (only, version) VALUES (1, 1);
         INSERT INTO users (id, username, email, roles, created_at, updated_at)
         VALUES ('id-ann', 'ann', 'ann@example.com', '[\"admin\"]', 1, 1);",
    )
    .unwrap();
    drop(old);
    let store = Sqlite::open(&path(&folder)).unwrap();
    let ann = store.find_user(UserKey::Username("ann".into())).await;
    assert!(!ann.unwrap().unwrap().pending);
    assert!(store.has_admin().await.unwrap());
}
