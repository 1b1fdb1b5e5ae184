//! PostgreSQL that is slow, gone, wrongly set up or behind: no call waits for ever, and all goes on by itself afterwards.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use portcullis::store::{
    Postgres, Rotated, Store, StoreError, UserKey,
    postgres::OpenError,
    settings::{PostgresSettings, Secret},
};
use zeroize::Zeroizing;

use crate::{
    place::{Place, TIMES, rotation, session, user},
    server::{Server, connect},
};

fn open(url: &str) -> Result<Postgres, OpenError> {
    Postgres::open(&PostgresSettings::parse(url).unwrap())
}

fn key(name: &str) -> UserKey {
    UserKey::Username(name.into())
}

/// Asks until the store answers, for ten seconds at most.
async fn recovered(store: &Postgres) {
    let until = Instant::now() + Duration::from_secs(10);
    while store.find_user(key("ann")).await.is_err() {
        assert!(Instant::now() < until, "does not recover");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Reads the feed as the gateway does: until there is nothing more, and never back. Gives the keys.
async fn read_on(store: &Postgres, seen: &mut u64) -> BTreeSet<Box<str>> {
    let mut keys = BTreeSet::new();
    loop {
        let page = store.revocations_after(*seen).await.unwrap();
        let Some(last) = page.last() else {
            return keys;
        };
        *seen = last.id.max(*seen);
        keys.extend(page.into_iter().map(|entry| entry.key));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn store_1_a_held_lock_makes_writes_busy_within_the_deadline_and_reads_go_on() {
    let Some(Place::Postgres(url)) = Place::postgres().await else {
        return;
    };
    let store = open(&url).unwrap();
    store.add_user(user("ann")).await.unwrap();
    let holder = connect(&url).await;
    holder
        .batch_execute("BEGIN; LOCK TABLE users IN SHARE ROW EXCLUSIVE MODE")
        .await
        .unwrap();
    let begun = Instant::now();
    let writes = (0..5).map(|index| store.add_user(user(&format!("u{index}"))));
    let mut writes = join_all(writes);
    assert!(futures_util::poll!(&mut writes).is_pending());
    assert!(store.find_user(key("ann")).await.unwrap().is_some());
    for result in writes.await {
        assert_eq!(result, Err(StoreError::Busy));
    }
    assert!(begun.elapsed() < Duration::from_secs(6));
    holder.batch_execute("ROLLBACK").await.unwrap();
    store.add_user(user("bob")).await.unwrap();
    let users = store.users("".into(), 100).await.unwrap();
    assert_eq!(users.len(), 2, "what was answered busy never happened");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn store_1_more_calls_than_there_are_places_for_are_busy_at_once() {
    let Some(Place::Postgres(url)) = Place::postgres().await else {
        return;
    };
    let store = open(&url).unwrap();
    let calls = (0..300).map(|_| store.find_user(key("ann")));
    let results = join_all(calls).await;
    let busy = results
        .iter()
        .filter(|one| one.as_ref().err() == Some(&StoreError::Busy));
    // Fewer than 44 where a call had ended before the last one came.
    let busy = busy.count();
    assert!((1..=44).contains(&busy), "{busy}");
    assert!(store.find_user(key("ann")).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn store_2_commits_are_on_the_disk_although_the_role_says_otherwise() {
    let Some(Place::Postgres(url)) = Place::postgres().await else {
        return;
    };
    let admin = connect(&url).await;
    admin
        .batch_execute(
            "CREATE ROLE hasty LOGIN SUPERUSER; ALTER ROLE hasty SET synchronous_commit = off;
             CREATE TABLE seen (what TEXT);
             CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN INSERT INTO seen VALUES (current_setting('synchronous_commit')); RETURN NEW; END $$",
        )
        .await
        .unwrap();
    let store = open(&url.replace("postgres@", "hasty@")).unwrap();
    admin
        .batch_execute(
            "CREATE TRIGGER look AFTER INSERT ON users FOR EACH ROW EXECUTE FUNCTION look()",
        )
        .await
        .unwrap();
    store.add_user(user("ann")).await.unwrap();
    let seen: String = admin
        .query_one("SELECT what FROM seen", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(seen, "on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn store_6_a_server_that_takes_no_writes_is_not_read_either() {
    let Some(Place::Postgres(url)) = Place::postgres().await else {
        return;
    };
    open(&url).unwrap().add_user(user("ann")).await.unwrap();
    let admin = connect(&url).await;
    let name = url.rsplit('/').next().unwrap().split('?').next().unwrap();
    let set =
        |value: &str| format!("ALTER DATABASE {name} SET default_transaction_read_only = {value}");
    admin.batch_execute(&set("on")).await.unwrap();
    let store = open(&url).unwrap();
    let found = store.find_user(key("ann")).await;
    assert_eq!(found.err(), Some(StoreError::Unavailable));
    assert_eq!(
        store.add_user(user("bob")).await,
        Err(StoreError::Unavailable)
    );
    admin
        .batch_execute(&format!(
            "SET default_transaction_read_only = off; {}",
            set("off")
        ))
        .await
        .unwrap();
    recovered(&store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn store_6_entries_given_twice_by_a_server_that_lost_some_are_all_read() {
    let Some(Place::Postgres(url)) = Place::postgres().await else {
        return;
    };
    let store = open(&url).unwrap();
    for index in 0..10 {
        let token = format!("t{index}");
        store.revoke_token(token.into(), TIMES).await.unwrap();
    }
    assert_eq!(store.revocations_after(0).await.unwrap().len(), 10);
    // The last three are gone with the server that had them; two others came since.
    let admin = connect(&url).await;
    admin
        .batch_execute("DELETE FROM revocations WHERE id > 7; UPDATE feed SET last = 7")
        .await
        .unwrap();
    for token in ["new1", "new2"] {
        store.revoke_token(token.into(), TIMES).await.unwrap();
    }
    let other = open(&url).unwrap();
    let (mut first, mut second) = (10, 10);
    let (a, b) = tokio::join!(read_on(&store, &mut first), read_on(&other, &mut second));
    for keys in [a, b] {
        for key in ["t0", "t6", "new1", "new2"] {
            assert!(keys.contains(key), "{keys:?}");
        }
        assert!(!keys.contains("t7"));
    }
    assert!(first > 10 && first == second, "{first} {second}");
    store.revoke_token("next".into(), TIMES).await.unwrap();
    let next = read_on(&other, &mut second).await;
    assert_eq!(next, BTreeSet::from(["next".into()]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn store_6_numbers_given_anew_before_a_reader_came_back_are_not_missed() {
    let Some(Place::Postgres(url)) = Place::postgres().await else {
        return;
    };
    let (store, other) = (open(&url).unwrap(), open(&url).unwrap());
    for index in 0..10 {
        let token = format!("t{index}");
        store.revoke_token(token.into(), TIMES).await.unwrap();
    }
    let mut seen = 0;
    assert_eq!(read_on(&store, &mut seen).await.len(), 10);
    assert_eq!(seen, 10);
    let admin = connect(&url).await;
    admin
        .batch_execute(
            "DELETE FROM revocations WHERE id > 7; UPDATE feed SET last = 7;
             SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        .await
        .unwrap();
    recovered(&other).await;
    for index in 0..5 {
        let token = format!("new{index}");
        other.revoke_token(token.into(), TIMES).await.unwrap();
    }
    recovered(&store).await;
    let keys = read_on(&store, &mut seen).await;
    for index in 0..5 {
        assert!(keys.contains(&*format!("new{index}")), "{keys:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sess_3_transactions_that_the_server_ends_in_favour_of_others_are_done_again() {
    let Some(Place::Postgres(url)) = Place::postgres().await else {
        return;
    };
    let store = Arc::new(open(&url).unwrap());
    let ann = user("ann");
    store.add_user(ann.clone()).await.unwrap();
    store.add_session(session(&ann, "s", 1)).await.unwrap();
    let admin = connect(&url).await;
    // The first two attempts meet a serialization failure at their last step.
    admin
        .batch_execute(
            "CREATE SEQUENCE attempts;
             CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF nextval('attempts') <= 2 THEN RAISE EXCEPTION 'again' USING ERRCODE = '40001'; END IF;
             RETURN NEW; END $$;
             CREATE TRIGGER fail AFTER UPDATE ON sessions FOR EACH ROW EXECUTE FUNCTION fail()",
        )
        .await
        .unwrap();
    let rotated = store.rotate(rotation(1, 2)).await.unwrap();
    assert!(matches!(rotated, Rotated::Live { salts, .. } if salts == [[2; 32]]));
    let attempts = admin
        .query_one("SELECT last_value FROM attempts", &[])
        .await
        .unwrap();
    assert_eq!(attempts.get::<_, i64>(0), 3);
    // For ever is too long.
    admin
        .batch_execute(
            "CREATE OR REPLACE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             PERFORM nextval('attempts'); RAISE EXCEPTION 'again' USING ERRCODE = '40P01'; END $$",
        )
        .await
        .unwrap();
    let rotated = store.rotate(rotation(2, 3)).await;
    assert_eq!(rotated.err(), Some(StoreError::Busy));
    let live = admin.query("SELECT 1 FROM refresh_tokens", &[]).await;
    assert_eq!(live.unwrap().len(), 2, "nothing of it remains");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_5_a_server_that_dies_is_unavailable_at_once_and_used_again_when_it_is_back() {
    let Some(mut server) = Server::start(|_| ()) else {
        return;
    };
    let url = server.database().await;
    let store = open(&url).unwrap();
    let ann = user("ann");
    store.add_user(ann.clone()).await.unwrap();
    store.add_session(session(&ann, "s", 1)).await.unwrap();
    server.kill();
    for _ in 0..3 {
        let begun = Instant::now();
        let calls = (0..50).map(|_| store.rotate(rotation(1, 2)));
        for result in join_all(calls).await {
            assert_eq!(result.err(), Some(StoreError::Unavailable));
        }
        assert!(begun.elapsed() < Duration::from_secs(3));
    }
    // A node that starts meanwhile does so without it.
    let late = open(&url).unwrap();
    let found = late.find_user(key("ann")).await;
    assert_eq!(found.err(), Some(StoreError::Unavailable));
    server.resume();
    recovered(&store).await;
    recovered(&late).await;
    let rotated = late.rotate(rotation(1, 2)).await.unwrap();
    assert!(matches!(rotated, Rotated::Live { .. }), "{rotated:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn store_2_what_was_answered_is_there_after_the_server_was_killed_under_load() {
    let Some(mut server) = Server::start(|_| ()) else {
        return;
    };
    let url = server.database().await;
    let store = Arc::new(open(&url).unwrap());
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let mut answered = Vec::new();
                for index in 0.. {
                    let name = format!("u{writer}-{index}");
                    if store.add_user(user(&name)).await.is_err() {
                        break;
                    }
                    answered.push(name);
                }
                answered
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    server.kill();
    let answered = join_all(writers).await;
    server.resume();
    recovered(&store).await;
    let mut count = 0;
    for name in answered.into_iter().flat_map(Result::unwrap) {
        count += 1;
        let found = store.find_user(key(&name)).await.unwrap();
        assert!(found.is_some(), "{name} was answered and is gone");
    }
    assert!(count > 10, "{count} accounts are no load");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_is_asked_for_and_a_wrong_one_is_refused_without_being_told() {
    let hba = "host all locked 127.0.0.1/32 scram-sha-256\n\
               host all all 127.0.0.1/32 trust\nlocal all all trust\n";
    let Some(server) = Server::start(|data| std::fs::write(data.join("pg_hba.conf"), hba).unwrap())
    else {
        return;
    };
    let url = server.database().await;
    let admin = connect(&url).await;
    admin
        .batch_execute("CREATE ROLE locked LOGIN SUPERUSER PASSWORD 'open sesame'")
        .await
        .unwrap();
    let mut settings = PostgresSettings::parse(&url.replace("postgres@", "locked@")).unwrap();
    let missing = Postgres::open(&settings).unwrap_err();
    assert!(matches!(missing, OpenError::Refused { .. }), "{missing:?}");
    for (password, good) in [("wrong horse", false), ("open sesame", true)] {
        settings.password = Some(Secret::new(Zeroizing::new(password.into())));
        assert!(!format!("{settings:?} {settings}").contains(password));
        match Postgres::open(&settings) {
            Ok(store) => {
                assert!(good);
                store.add_user(user("ann")).await.unwrap();
            }
            Err(error) => {
                assert!(!good && !format!("{error:?} {error}").contains(password));
                assert!(matches!(error, OpenError::Refused { .. }), "{error:?}");
            }
        }
    }
    // No such database: that is for the operator too.
    let nowhere = open(&server.url("postgres", "nowhere")).unwrap_err();
    assert!(matches!(nowhere, OpenError::Refused { .. }), "{nowhere:?}");
}
