//! What each method promises, with another node beside it.

use std::{collections::BTreeSet, sync::Arc};

use futures_util::future::join_all;
use portcullis::store::{
    Ending, PasswordHash, RevocationKind, Rotated, StoreError, UserChange, UserKey,
};

use crate::place::{NOW, Place, TIMES, at, rotation, session, user};

crate::on_both!(
    a_change_ends_the_sessions_and_shuts_out_a_login_that_began_before_it,
    a_deleted_account_keeps_its_name_and_nothing_else,
    a_hash_is_upgraded_only_if_it_is_still_the_old_one,
    a_taken_name_is_a_conflict_and_the_store_goes_on,
    accounts_are_listed_in_the_order_of_their_bytes,
    rate_4_an_unlocking_is_counted_and_changes_nothing_else,
    sess_2_a_token_beyond_its_grace_window_ends_the_session_and_its_whole_family,
    sess_2_a_token_within_its_grace_window_leads_to_the_live_end,
    sess_3_a_token_that_many_present_on_two_nodes_is_consumed_once,
    rate_4_only_the_live_end_of_a_live_session_is_one,
    sess_4_an_account_that_is_disabled_refreshes_nothing,
    sess_9_logins_at_once_on_two_nodes_keep_the_cap,
    sess_9_a_purge_erases_what_is_over_in_bounded_batches_and_nothing_else,
    sess_9_sessions_end_at_their_limits,
    sessions_end_once_and_are_told_once,
    store_4_hostile_values_are_values,
    store_6_a_reader_of_the_feed_misses_nothing_that_many_write,
    store_6_erased_entries_do_not_give_their_numbers_to_new_ones,
);

async fn a_taken_name_is_a_conflict_and_the_store_goes_on(place: Place) {
    let store = place.node();
    store.add_user(user("ann")).await.unwrap();
    let mut twin = user("bob");
    twin.email = Some("ann@example.com".into());
    assert_eq!(store.add_user(twin).await, Err(StoreError::Conflict));
    assert_eq!(store.add_user(user("ann")).await, Err(StoreError::Conflict));
    store.add_user(user("bob")).await.unwrap();
    let found = store.find_user(UserKey::Email("bob@example.com".into()));
    let found = found.await.unwrap().unwrap();
    assert_eq!(format!("{found:?}"), format!("{:?}", user("bob")));
    let nobody = store.find_user(UserKey::Id("bob".into())).await;
    assert!(nobody.unwrap().is_none());
}

async fn accounts_are_listed_in_the_order_of_their_bytes(place: Place) {
    let store = place.node();
    for name in ["a_b", "ab", "a.b", "a-b", "a", "b", "a0"] {
        store.add_user(user(name)).await.unwrap();
    }
    let mut after: Box<str> = "".into();
    let mut names = Vec::new();
    loop {
        let page = store.users(after.clone(), 3).await.unwrap();
        assert!(page.len() <= 3);
        let Some(last) = page.last() else { break };
        after = last.username.clone();
        names.extend(page.iter().map(|user| user.username.to_string()));
    }
    assert_eq!(names, ["a", "a-b", "a.b", "a0", "a_b", "ab", "b"]);
}

async fn rate_4_an_unlocking_is_counted_and_changes_nothing_else(place: Place) {
    let store = place.node();
    store.add_user(user("ann")).await.unwrap();
    for (id, want) in [("id-ann", true), ("id-nobody", false), ("", false)] {
        assert_eq!(store.unlock_user(id.into()).await.unwrap(), want, "{id}");
    }
    assert!(store.unlock_user("id-ann".into()).await.unwrap());
    let ann = store.find_user(UserKey::Id("id-ann".into())).await.unwrap();
    let ann = ann.unwrap();
    assert_eq!((ann.unlocks, ann.epoch, ann.disabled), (2, 1, false));
    let delete = UserChange::Delete;
    store
        .change_user(ann.id.clone(), delete, TIMES)
        .await
        .unwrap();
    assert!(!store.unlock_user(ann.id).await.unwrap());
}

async fn a_hash_is_upgraded_only_if_it_is_still_the_old_one(place: Place) {
    let store = place.node();
    store.add_user(user("ann")).await.unwrap();
    let hash = |text: &str| PasswordHash(text.into());
    for (old, new, want) in [("other", "bad", "hash"), ("hash", "new", "new")] {
        store
            .upgrade_password("id-ann".into(), hash(old), hash(new))
            .await
            .unwrap();
        let ann = store.find_user(UserKey::Id("id-ann".into())).await.unwrap();
        let ann = ann.unwrap();
        assert_eq!((&*ann.password.unwrap().0, ann.epoch), (want, 1));
    }
}

async fn a_change_ends_the_sessions_and_shuts_out_a_login_that_began_before_it(place: Place) {
    let store = place.node();
    let ann = user("ann");
    store.add_user(ann.clone()).await.unwrap();
    for change in [
        UserChange::Roles(vec!["chief".into()]),
        UserChange::Password(PasswordHash("new".into())),
        UserChange::Disabled(true),
    ] {
        let before = store.find_user(UserKey::Id(ann.id.clone())).await.unwrap();
        let before = before.unwrap();
        store
            .add_session(session(&before, "s", 1))
            .await
            .unwrap()
            .unwrap();
        let ended = store.change_user(ann.id.clone(), change, TIMES).await;
        assert_eq!(*ended.unwrap().unwrap(), ["s".into()]);
        let late = store.add_session(session(&before, "late", 2)).await;
        assert!(late.unwrap().is_none());
        assert!(matches!(
            store.rotate(rotation(1, 9)).await.unwrap(),
            Rotated::Ended
        ));
        place.execute("DELETE FROM sessions").await;
    }
    let shut = store.find_user(UserKey::Id(ann.id.clone())).await.unwrap();
    let shut = shut.unwrap();
    assert!(shut.disabled && shut.epoch == 4);
    assert_eq!(*shut.roles, ["chief".into()]);
    let none = store.add_session(session(&shut, "none", 3)).await;
    assert!(none.unwrap().is_none(), "a disabled account");
    let nobody = store.change_user("nobody".into(), UserChange::Delete, TIMES);
    assert!(nobody.await.unwrap().is_none());
}

async fn a_deleted_account_keeps_its_name_and_nothing_else(place: Place) {
    let store = place.node();
    store.add_user(user("ann")).await.unwrap();
    let delete = || store.change_user("id-ann".into(), UserChange::Delete, TIMES);
    assert!(delete().await.unwrap().is_some());
    assert!(delete().await.unwrap().is_none(), "twice");
    let gone = store.find_user(UserKey::Username("ann".into())).await;
    let gone = gone.unwrap().unwrap();
    assert!(gone.disabled && gone.email.is_none() && gone.password.is_none());
    assert!(gone.roles.is_empty());
    assert_eq!(store.add_user(user("ann")).await, Err(StoreError::Conflict));
    let mut heir = user("heir");
    heir.email = Some("ann@example.com".into());
    store.add_user(heir).await.unwrap();
}

fn salts(rotated: Rotated) -> Vec<u8> {
    match rotated {
        Rotated::Live { salts, .. } => salts.iter().map(|salt| salt[0]).collect(),
        Rotated::Ended | Rotated::Reused { .. } => panic!("{rotated:?}"),
    }
}

async fn sess_3_a_token_that_many_present_on_two_nodes_is_consumed_once(place: Place) {
    let nodes = [place.node(), place.node()];
    let ann = user("ann");
    nodes[0].add_user(ann.clone()).await.unwrap();
    nodes[0].add_session(session(&ann, "s", 1)).await.unwrap();
    for round in 0..4 {
        let presented = if round == 0 { 1 } else { round * 20 };
        let calls = (0..20).map(|index| {
            let node = Arc::clone(&nodes[usize::from(index % 2)]);
            // Each would put its own successor in place.
            tokio::spawn(node.rotate(rotation(presented, (round + 1) * 20 + index)))
        });
        let mut found: BTreeSet<Vec<u8>> = BTreeSet::new();
        for call in join_all(calls).await {
            found.insert(salts(call.unwrap().unwrap()));
        }
        assert_eq!(found.len(), 1, "{found:?}");
        let live = "SELECT count(*) FROM refresh_tokens WHERE rotated_at IS NULL";
        assert_eq!(place.number(live).await, 1);
        let winner = found.pop_first().unwrap();
        assert_eq!(winner.len(), 1);
        // The next round presents a known token: that of the winner.
        let next = (round + 1) * 20;
        if winner[0] != next {
            let rotated = nodes[0].rotate(rotation(winner[0], next)).await;
            assert_eq!(salts(rotated.unwrap()), [next]);
        }
    }
    assert_eq!(place.number("SELECT count(*) FROM revocations").await, 0);
}

async fn sess_2_a_token_within_its_grace_window_leads_to_the_live_end(place: Place) {
    let (store, other) = (place.node(), place.node());
    let ann = user("ann");
    store.add_user(ann.clone()).await.unwrap();
    store.add_session(session(&ann, "s", 1)).await.unwrap();
    for token in 1..9 {
        let rotated = store.rotate(rotation(token, token + 1)).await.unwrap();
        assert_eq!(salts(rotated), [token + 1]);
    }
    let again = other.rotate(rotation(5, 99)).await.unwrap();
    assert_eq!(salts(again), [6, 7, 8, 9]);
    let far = other.rotate(rotation(1, 99)).await.unwrap();
    assert!(matches!(far, Rotated::Ended), "too many steps: {far:?}");
    assert!(store.revocations_after(0).await.unwrap().is_empty());
    let unknown = store.rotate(rotation(200, 201)).await.unwrap();
    assert!(matches!(unknown, Rotated::Ended));
}

async fn sess_2_a_token_beyond_its_grace_window_ends_the_session_and_its_whole_family(
    place: Place,
) {
    let (store, other) = (place.node(), place.node());
    let ann = user("ann");
    store.add_user(ann.clone()).await.unwrap();
    store.add_session(session(&ann, "s", 1)).await.unwrap();
    store.rotate(rotation(1, 2)).await.unwrap();
    let mut late = rotation(1, 99);
    late.times = at(NOW + 11);
    let calls = [store.rotate(late), other.rotate(late)];
    let mut reused = 0;
    for call in join_all(calls).await {
        match call.unwrap() {
            Rotated::Reused {
                user_id,
                session_id,
            } => {
                assert_eq!((&*user_id, &*session_id), ("id-ann", "s"));
                reused += 1;
            }
            Rotated::Ended => {}
            Rotated::Live { .. } => panic!("alive"),
        }
    }
    assert_eq!(reused, 1, "one of them finds it, the other finds it over");
    let live = store.rotate(rotation(2, 3)).await.unwrap();
    assert!(matches!(live, Rotated::Ended), "the live end is over too");
    let feed = other.revocations_after(0).await.unwrap();
    assert_eq!((feed.len(), &*feed[0].key), (1, "s"));
    assert_eq!(feed[0].kind, RevocationKind::Session);
    assert_eq!(feed[0].until, NOW + 11 + 1000);
}

async fn rate_4_only_the_live_end_of_a_live_session_is_one(place: Place) {
    let store = place.node();
    let ann = user("ann");
    store.add_user(ann.clone()).await.unwrap();
    store.add_session(session(&ann, "s", 1)).await.unwrap();
    let end = async |token: u8, times| {
        let end = store.live_end(rotation(token, 99).presented, times).await;
        let end = end.unwrap()?;
        assert_eq!((&*end.user_id, &*end.session_id), ("id-ann", "s"));
        Some(token)
    };
    assert_eq!(end(1, TIMES).await, Some(1));
    assert_eq!(end(1, TIMES).await, Some(1), "it was only looked at");
    assert_eq!(end(2, TIMES).await, None);
    store.rotate(rotation(1, 2)).await.unwrap();
    assert_eq!(end(1, TIMES).await, None);
    assert_eq!(end(2, TIMES).await, Some(2));
    let far = at(NOW + 100 * 365 * 86_400);
    assert_eq!(end(2, far).await, None, "its session is over");
    let ending = Ending::OfToken(rotation(2, 99).presented);
    store.end_sessions(ending, TIMES).await.unwrap();
    assert_eq!(end(2, TIMES).await, None);
}

async fn sess_4_an_account_that_is_disabled_refreshes_nothing(place: Place) {
    let store = place.node();
    let ann = user("ann");
    store.add_user(ann.clone()).await.unwrap();
    store.add_session(session(&ann, "s", 1)).await.unwrap();
    place
        .execute("UPDATE users SET disabled = NOT disabled")
        .await;
    let rotated = store.rotate(rotation(1, 2)).await.unwrap();
    assert!(matches!(rotated, Rotated::Ended));
    place
        .execute("UPDATE users SET disabled = NOT disabled")
        .await;
    assert_eq!(salts(store.rotate(rotation(1, 2)).await.unwrap()), [2]);
}

async fn sess_9_logins_at_once_on_two_nodes_keep_the_cap(place: Place) {
    let nodes = [place.node(), place.node()];
    let ann = user("ann");
    nodes[0].add_user(ann.clone()).await.unwrap();
    let calls = (0..30_u8).map(|index| {
        let mut new = session(&ann, &format!("s{index}"), index + 1);
        new.cap = 5;
        tokio::spawn(nodes[usize::from(index % 2)].add_session(new))
    });
    let mut ended = BTreeSet::new();
    for call in join_all(calls).await {
        for id in call.unwrap().unwrap().unwrap() {
            assert!(ended.insert(id), "told twice");
        }
    }
    let live = nodes[0].sessions(ann.id, TIMES).await.unwrap();
    assert_eq!((live.len(), ended.len()), (5, 25));
    let feed = nodes[1].revocations_after(0).await.unwrap();
    let told: BTreeSet<Box<str>> = feed.into_iter().map(|entry| entry.key).collect();
    assert_eq!(told, ended);
}

async fn sess_9_sessions_end_at_their_limits(place: Place) {
    let store = place.node();
    let ann = user("ann");
    store.add_user(ann.clone()).await.unwrap();
    store.add_session(session(&ann, "a", 1)).await.unwrap();
    store.add_session(session(&ann, "b", 2)).await.unwrap();
    let mut renewed = rotation(1, 3);
    renewed.times = at(NOW + 999);
    assert_eq!(salts(store.rotate(renewed).await.unwrap()), [3]);
    let live = |now| store.sessions(ann.id.clone(), at(now));
    let ids = |sessions: Vec<portcullis::store::Session>| -> Vec<String> {
        sessions.iter().map(|one| one.id.to_string()).collect()
    };
    assert_eq!(ids(live(NOW + 999).await.unwrap()), ["a", "b"]);
    assert_eq!(ids(live(NOW + 1000).await.unwrap()), ["a"], "idle");
    let count = |now, most| store.count_sessions(at(now), most);
    assert_eq!(count(NOW + 999, 100).await.unwrap(), 2);
    assert_eq!(count(NOW + 999, 1).await.unwrap(), 1, "no more than asked");
    assert_eq!(count(NOW + 1000, 100).await.unwrap(), 1, "idle");
    let mut idle = rotation(2, 4);
    idle.times = at(NOW + 1000);
    assert!(matches!(store.rotate(idle).await.unwrap(), Rotated::Ended));
    place
        .execute("UPDATE sessions SET last_used_at = ends_at")
        .await;
    assert!(live(NOW + 10_000).await.unwrap().is_empty(), "the end");
    assert_eq!(count(NOW + 10_000, 100).await.unwrap(), 0, "the end");
}

async fn sessions_end_once_and_are_told_once(place: Place) {
    let (store, other) = (place.node(), place.node());
    let ann = user("ann");
    store.add_user(ann.clone()).await.unwrap();
    for (id, token) in [("a", 1), ("b", 2), ("c", 3)] {
        store.add_session(session(&ann, id, token)).await.unwrap();
    }
    let one = |user_id: &str, session_id: &str| Ending::One {
        user_id: user_id.into(),
        session_id: session_id.into(),
    };
    let end = |ending| store.end_sessions(ending, TIMES);
    assert!(end(one("id-bob", "a")).await.unwrap().is_empty());
    assert_eq!(*end(one("id-ann", "a")).await.unwrap(), ["a".into()]);
    assert!(end(one("id-ann", "a")).await.unwrap().is_empty());
    assert_eq!(*end(Ending::OfToken([2; 32])).await.unwrap(), ["b".into()]);
    assert!(end(Ending::OfToken([2; 32])).await.unwrap().is_empty());
    assert!(end(Ending::OfToken([77; 32])).await.unwrap().is_empty());
    let all = || Ending::AllOf {
        user_id: "id-ann".into(),
    };
    let calls = [
        store.end_sessions(all(), TIMES),
        other.end_sessions(all(), TIMES),
    ];
    let told: usize = join_all(calls)
        .await
        .into_iter()
        .map(|ended| ended.unwrap().len())
        .sum();
    assert_eq!(told, 1);
    let feed = store.revocations_after(0).await.unwrap();
    let keys: Vec<&str> = feed.iter().map(|entry| &*entry.key).collect();
    assert_eq!(keys, ["a", "b", "c"]);
}

async fn store_4_hostile_values_are_values(place: Place) {
    let store = place.node();
    store.add_user(user("ann")).await.unwrap();
    for hostile in [
        "' OR '1'='1",
        "'; DROP TABLE users; --",
        "\" OR \"\"=\"",
        "ann' --",
        "ann\0",
        "\\",
        "%",
        "_nn",
        "$1",
        "{a,b}",
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
        let sessions = store.sessions(text.clone(), TIMES).await;
        assert!(sessions.unwrap().is_empty());
        let change = UserChange::Roles(vec![text.clone()]);
        let changed = store.change_user(text.clone(), change, TIMES).await;
        assert!(changed.unwrap().is_none());
        if !hostile.contains('\0') {
            store.revoke_token(text.clone(), TIMES).await.unwrap();
            let feed = store.revocations_after(0).await.unwrap();
            assert_eq!(*feed.last().unwrap().key, *hostile);
        }
    }
    assert_eq!(store.users("".into(), 100).await.unwrap().len(), 1);
    let ann = user("ann");
    let mut odd = session(&ann, "s1", 1);
    odd.session.device = "'); DELETE FROM users; --".into();
    store.add_session(odd).await.unwrap();
    let kept = store.sessions(ann.id.clone(), TIMES).await.unwrap();
    assert_eq!(&*kept[0].device, "'); DELETE FROM users; --");
    let roles: Vec<Box<str>> = ["a,b", "\"", "{}", "NULL", "[\"x\"]"]
        .map(Into::into)
        .into();
    let change = UserChange::Roles(roles.clone());
    store
        .change_user(ann.id.clone(), change, TIMES)
        .await
        .unwrap();
    let found = store.find_user(UserKey::Id(ann.id)).await.unwrap();
    assert_eq!(found.unwrap().roles, roles);
}

async fn store_6_a_reader_of_the_feed_misses_nothing_that_many_write(place: Place) {
    let nodes = [place.node(), place.node(), place.node()];
    const WRITERS: usize = 8;
    const EACH: usize = 25;
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let node = Arc::clone(&nodes[writer % 2]);
            tokio::spawn(async move {
                for index in 0..EACH {
                    let key = || format!("t{writer}-{index}").into();
                    // On a machine with much to do one may have to wait too long for the others.
                    let mut done = Err(StoreError::Busy);
                    while done == Err(StoreError::Busy) {
                        done = node.revoke_token(key(), TIMES).await;
                    }
                    done.unwrap();
                }
            })
        })
        .collect();
    let (mut seen, mut last) = (BTreeSet::new(), 0);
    let mut writers = Some(join_all(writers));
    loop {
        let done = writers.as_mut().is_none_or(|_| false);
        for entry in nodes[2].revocations_after(last).await.unwrap() {
            last = last.max(entry.id);
            seen.insert(entry.key);
        }
        if done {
            break;
        }
        if let Some(waiting) = &mut writers
            && let std::task::Poll::Ready(ended) = futures_util::poll!(waiting)
        {
            ended.into_iter().for_each(|writer| writer.unwrap());
            writers = None;
        }
    }
    assert_eq!(seen.len(), WRITERS * EACH);
}

async fn store_6_erased_entries_do_not_give_their_numbers_to_new_ones(place: Place) {
    let store = place.node();
    for index in 0..3 {
        let key = format!("t{index}");
        store.revoke_token(key.into(), TIMES).await.unwrap();
    }
    while store.purge(at(NOW + 2000)).await.unwrap() > 0 {}
    assert!(store.revocations_after(0).await.unwrap().is_empty());
    store.revoke_token("new".into(), TIMES).await.unwrap();
    let page = store.revocations_after(3).await.unwrap();
    assert_eq!((page.len(), page[0].id), (1, 4));
}

async fn sess_9_a_purge_erases_what_is_over_in_bounded_batches_and_nothing_else(place: Place) {
    let store = place.node();
    let ann = user("ann");
    store.add_user(ann.clone()).await.unwrap();
    store.add_session(session(&ann, "over", 1)).await.unwrap();
    store.add_session(session(&ann, "live", 2)).await.unwrap();
    place
        .execute("UPDATE sessions SET ends_at = 5 WHERE id = 'over'")
        .await;
    let (digest, series) = match &place {
        Place::Postgres(_) => (
            "sha256(i::text::bytea)",
            "WITH n (i) AS (SELECT generate_series(1, 3000))",
        ),
        Place::Sqlite(_) => (
            "randomblob(32)",
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)",
        ),
    };
    place
        .execute(&format!(
            "{series} INSERT INTO refresh_tokens (digest, session_id, issued_at, rotated_at, successor)
             SELECT {digest}, 'over', i, i, {digest} FROM n;"
        ))
        .await;
    store.rotate(rotation(2, 3)).await.unwrap();
    let salts = "SELECT count(*) FROM refresh_tokens WHERE salt IS NOT NULL";
    assert_eq!(place.number(salts).await, 1);
    let mut batches = 0;
    loop {
        let rows = store.purge(at(NOW + 11)).await.unwrap();
        assert!(rows <= 502, "{rows}");
        if rows == 0 {
            break;
        }
        batches += 1;
    }
    assert_eq!(batches, 7);
    assert_eq!(place.number("SELECT count(*) FROM sessions").await, 1);
    assert_eq!(place.number("SELECT count(*) FROM refresh_tokens").await, 2);
    assert_eq!(place.number(salts).await, 0);
    let mut next = rotation(3, 4);
    next.times = at(NOW + 11);
    assert_eq!(self::salts(store.rotate(next).await.unwrap()), [4]);
}
