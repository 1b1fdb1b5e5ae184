//! The store under other processes, bad files and hostile values: STORE-1, 2, 4, 5.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rusqlite::Connection;
use tempfile::TempDir;

use super::{DEADLINE, OpenError, Sqlite};
use crate::store::{
    Ending, NewSession, PasswordHash, Rotated, Rotation, Session, Store, StoreError, Times, User,
    UserChange, UserKey,
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
async fn store_4_hostile_values_are_values() {
    let folder = tempfile::tempdir().unwrap();
    let store = Sqlite::open(&path(&folder)).unwrap();
    store.add_user(user("ann")).await.unwrap();
    for hostile in [
        "' OR '1'='1",
        "'; DROP TABLE users; --",
        "\" OR \"\"=\"",
        "ann' --",
        "ann\0",
        "%",
        "_nn",
        "1 UNION SELECT * FROM users",
        ":id",
        "?1",
        "\u{ff07} OR 1=1",
    ] {
        let text: Box<str> = hostile.into();
        for key in [
            UserKey::Email(text.clone()),
            UserKey::Id(text.clone()),
            UserKey::Username(text.clone()),
        ] {
            assert!(store.find_user(key).await.unwrap().is_none(), "{hostile}");
        }
        let ending = Ending::One {
            user_id: text.clone(),
            session_id: text.clone(),
        };
        assert!(store.end_sessions(ending, TIMES).await.unwrap().is_empty());
        let change = UserChange::Roles(vec![text.clone()]);
        let changed = store.change_user(text.clone(), change, TIMES).await;
        assert!(changed.unwrap().is_none());
        store.revoke_token(text.clone(), TIMES).await.unwrap();
        let feed = store.revocations_after(0).await.unwrap();
        assert_eq!(*feed.last().unwrap().key, *hostile);
    }
    assert_eq!(store.users("".into(), 100).await.unwrap().len(), 1);
    let ann = user("ann");
    let mut odd = session(&ann, "s1");
    odd.session.device = "'); DELETE FROM users; --".into();
    store.add_session(odd).await.unwrap();
    let kept = store.sessions(ann.id, TIMES).await.unwrap();
    assert_eq!(&*kept[0].device, "'); DELETE FROM users; --");
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
        let all = store.users("".into(), 1000).await.unwrap();
        assert!(
            all.len() < 50,
            "reads go on, and what was refused is not there"
        );
        set(good).await.unwrap();
        store
            .add_user(user(&format!("{name}-after")))
            .await
            .unwrap();
    }
    let rotated = store.rotate(rotation(7, 8)).await.unwrap();
    assert!(matches!(rotated, Rotated::Live { .. }));
}

#[test]
fn store_5_a_newer_schema_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    drop(Sqlite::open(&path(&folder)).unwrap());
    let future = Connection::open(path(&folder)).unwrap();
    future
        .execute_batch("UPDATE schema_version SET version = 99")
        .unwrap();
    let error = Sqlite::open(&path(&folder)).unwrap_err();
    assert!(
        matches!(
            error,
            OpenError::NewerSchema {
                found: 99,
                known: 1,
                ..
            }
        ),
        "{error}"
    );
    let version: i64 = future
        .query_row("SELECT version FROM schema_version", [], |row| row.get(0))
        .unwrap();
    assert_eq!(version, 99);
}

#[test]
fn store_5_a_negative_or_absurd_schema_version_is_refused() {
    for version in ["-1", "9223372036854775807"] {
        let folder = tempfile::tempdir().unwrap();
        drop(Sqlite::open(&path(&folder)).unwrap());
        Connection::open(path(&folder))
            .unwrap()
            .execute_batch(&format!("UPDATE schema_version SET version = {version}"))
            .unwrap();
        let error = Sqlite::open(&path(&folder)).unwrap_err();
        assert!(matches!(error, OpenError::NewerSchema { .. }), "{error}");
    }
}

#[test]
fn store_5_a_migration_that_fails_half_way_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let blocker = Connection::open(path(&folder)).unwrap();
    // The last table of the first step is there already, so the step fails near its end.
    blocker
        .execute_batch("CREATE TABLE revocations (x INTEGER)")
        .unwrap();
    let error = Sqlite::open(&path(&folder)).unwrap_err();
    assert!(matches!(error, OpenError::Sqlite { .. }), "{error}");
    let tables: i64 = blocker
        .query_row(
            "SELECT count(*) FROM sqlite_schema WHERE type = 'table'",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(tables, 1);
    blocker.execute_batch("DROP TABLE revocations").unwrap();
    Sqlite::open(&path(&folder)).unwrap();
}

#[test]
fn store_5_processes_that_start_together_migrate_once() {
    for _ in 0..5 {
        let folder = tempfile::tempdir().unwrap();
        let path = &path(&folder);
        std::thread::scope(|scope| {
            let starts: Vec<_> = (0..5)
                .map(|_| scope.spawn(move || Sqlite::open(path).map(drop)))
                .collect();
            for start in starts {
                start.join().unwrap().unwrap();
            }
        });
    }
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
async fn a_taken_name_is_a_conflict_and_the_store_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let store = Sqlite::open(&path(&folder)).unwrap();
    store.add_user(user("ann")).await.unwrap();
    let mut twin = user("bob");
    twin.email = Some("ann@example.com".into());
    assert_eq!(store.add_user(twin).await, Err(StoreError::Conflict));
    assert_eq!(store.add_user(user("ann")).await, Err(StoreError::Conflict));
    store.add_user(user("bob")).await.unwrap();
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
async fn sess_9_a_purge_touches_a_bounded_number_of_rows() {
    let folder = tempfile::tempdir().unwrap();
    let store = Sqlite::open(&path(&folder)).unwrap();
    let ann = user("ann");
    store.add_user(ann.clone()).await.unwrap();
    store.add_session(session(&ann, "s1")).await.unwrap();
    let connection = Connection::open(path(&folder)).unwrap();
    connection
        .execute_batch(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
             INSERT INTO refresh_tokens (digest, session_id, issued_at, rotated_at, successor)
             SELECT randomblob(32), 's1', i, i, randomblob(32) FROM n;
             UPDATE sessions SET ends_at = 5;",
        )
        .unwrap();
    let mut batches = 0;
    loop {
        let rows = store.purge(TIMES).await.unwrap();
        assert!(rows <= 501, "{rows}");
        if rows == 0 {
            break;
        }
        batches += 1;
    }
    assert_eq!(batches, 7);
    let left: i64 = connection
        .query_row("SELECT count(*) FROM sessions", [], |row| row.get(0))
        .unwrap();
    assert_eq!(left, 0);
}
