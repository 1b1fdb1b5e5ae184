//! A million users and five million sessions: no statement on the way of a sign-in or a refresh reads a whole table.

use portcullis::store::Store;

use crate::{
    place::{Place, TIMES, rotation, session, user},
    server::connect,
};

/// Does each thing once.
async fn use_all(store: &dyn Store) {
    use portcullis::store::{Ending, PasswordHash, UserChange, UserKey};
    let ann = user("ann");
    store.add_user(ann.clone()).await.unwrap();
    for key in [
        UserKey::Email("ann@example.com".into()),
        UserKey::Id("id-ann".into()),
        UserKey::Username("ann".into()),
    ] {
        store.find_user(key).await.unwrap().unwrap();
    }
    store.users("".into(), 10).await.unwrap();
    let hash = || PasswordHash("hash".into());
    let id = || ann.id.clone();
    store.upgrade_password(id(), hash(), hash()).await.unwrap();
    store.add_session(session(&ann, "s", 1)).await.unwrap();
    store.add_session(session(&ann, "t", 7)).await.unwrap();
    store.rotate(rotation(1, 2)).await.unwrap();
    store.rotate(rotation(1, 2)).await.unwrap();
    store.sessions(id(), TIMES).await.unwrap();
    store
        .end_sessions(Ending::OfToken([2; 32]), TIMES)
        .await
        .unwrap();
    let one = Ending::One {
        user_id: id(),
        session_id: "t".into(),
    };
    store.end_sessions(one, TIMES).await.unwrap();
    store
        .change_user(id(), UserChange::Roles(Vec::new()), TIMES)
        .await
        .unwrap();
    store.revoke_token("jti".into(), TIMES).await.unwrap();
    store.revocations_after(0).await.unwrap();
    use_administration(store).await;
    store.purge(TIMES).await.unwrap();
}

async fn use_administration(store: &dyn Store) {
    use portcullis::store::{Act, UserEdit};
    assert!(!store.has_admin().await.unwrap());
    for name in ["root", "other"] {
        let mut user = user(name);
        user.roles = vec!["admin".into()];
        store.add_user(user).await.unwrap();
    }
    let edit = UserEdit {
        roles: Some(Vec::new()),
        ..UserEdit::default()
    };
    for act in [
        Act::EndSessions("id-ann".into()),
        Act::EditUser("id-other".into(), Box::new(edit)),
        Act::DeleteUser("id-ann".into()),
    ] {
        let done = store.administer(Some("id-root".into()), act, TIMES).await;
        assert!(matches!(done.unwrap(), portcullis::store::Acted::Done(_)));
    }
    store.drop_mail_to_nobody("test").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_statement_of_postgresql_reads_a_whole_table_of_users_sessions_or_tokens() {
    let Some(place) = Place::postgres().await else {
        return;
    };
    let Place::Postgres(url) = &place else { return };
    drop(place.node());
    let admin = connect(url).await;
    // Enough rows that an index is the cheaper way where there is one.
    admin
        .batch_execute(
            "INSERT INTO users (id, username, email, roles, created_at, updated_at)
             SELECT 'i' || n, 'u' || n, 'u' || n || '@example.com', '{}', 1, 1 FROM generate_series(1, 20000) n;
             INSERT INTO sessions (id, user_id, created_at, last_used_at, ends_at, device, ip)
             SELECT 's' || n, 'i' || (n % 20000 + 1), 1, 1, 4000000000, 'd', 'i' FROM generate_series(1, 40000) n;
             INSERT INTO refresh_tokens (digest, session_id, issued_at)
             SELECT sha256(n::text::bytea), 's' || n, 1 FROM generate_series(1, 40000) n;
             INSERT INTO revocations (id, kind, key, until)
             SELECT n, 'token', n::text, 4000000000 FROM generate_series(1, 20000) n;
             UPDATE feed SET last = 20000;
             ANALYZE",
        )
        .await
        .unwrap();
    let scans = "SELECT sum(seq_scan)::bigint FROM pg_stat_user_tables
                 WHERE relname IN ('users', 'sessions', 'refresh_tokens', 'revocations')";
    let before = settled(&place, scans).await;
    let looked_up = "SELECT sum(idx_scan)::bigint FROM pg_stat_user_tables";
    let looked_up_before = place.number(looked_up).await;
    let store = place.node();
    use_all(&*store).await;
    drop(store);
    let after = settled(&place, scans).await;
    assert!(place.number(looked_up).await > looked_up_before + 20);
    assert_eq!(after, before, "a table was read as a whole");
}

/// The statistics of a connection are seen a moment after it has ended.
async fn settled(place: &Place, sql: &str) -> i64 {
    let mut last = -1;
    for _ in 0..20 {
        tokio::time::sleep(std::time::Duration::from_millis(250)).await;
        let now = place.number(sql).await;
        if now == last {
            return now;
        }
        last = now;
    }
    last
}
