//! STORE-5: the schema is brought up to date once, as a whole, and a newer one is left alone.

use portcullis::store::{Postgres, postgres::OpenError, settings::PostgresSettings};

use crate::place::{Place, user};

crate::on_both!(
    store_5_a_newer_schema_is_refused_and_left_alone,
    store_5_a_migration_that_fails_half_way_leaves_nothing_behind,
    store_5_five_nodes_that_start_together_migrate_once,
);

async fn store_5_a_newer_schema_is_refused_and_left_alone(place: Place) {
    place.node().add_user(user("ann")).await.unwrap();
    for version in ["99", "-1", "9223372036854775807"] {
        place
            .execute(&format!("UPDATE schema_version SET version = {version}"))
            .await;
        let error = place.open().unwrap_err();
        assert!(error.contains("newer than 6"), "{error}");
        let found = place.number("SELECT version FROM schema_version").await;
        assert_eq!(found.to_string(), version);
        assert_eq!(place.number("SELECT count(*) FROM users").await, 1);
    }
}

async fn store_5_a_migration_that_fails_half_way_leaves_nothing_behind(place: Place) {
    // One of the last tables of the first step is there already.
    place.execute("CREATE TABLE revocations (x INTEGER)").await;
    place.open().unwrap_err();
    let tables = match &place {
        Place::Postgres(_) => {
            "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'"
        }
        Place::Sqlite(_) => "SELECT count(*) FROM sqlite_schema WHERE type = 'table'",
    };
    assert_eq!(place.number(tables).await, 1);
    place.execute("DROP TABLE revocations").await;
    place.node().add_user(user("ann")).await.unwrap();
}

async fn store_5_five_nodes_that_start_together_migrate_once(place: Place) {
    let nodes: Vec<_> = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..5).map(|_| scope.spawn(|| place.open())).collect();
        let ends = starts.into_iter().map(|start| start.join().unwrap());
        ends.map(Result::unwrap).collect()
    });
    assert_eq!(place.number("SELECT version FROM schema_version").await, 6);
    for (index, node) in nodes.iter().enumerate() {
        node.add_user(user(&format!("u{index}"))).await.unwrap();
    }
    assert_eq!(nodes[0].users("".into(), 100).await.unwrap().len(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn store_5_a_role_that_may_not_make_tables_is_refused_by_name() {
    let Some(Place::Postgres(url)) = Place::postgres().await else {
        return;
    };
    let place = Place::Postgres(url.clone());
    place
        .execute("CREATE ROLE guest LOGIN; REVOKE CREATE ON SCHEMA public FROM PUBLIC")
        .await;
    let settings = PostgresSettings::parse(&url.replace("postgres@", "guest@")).unwrap();
    let error = Postgres::open(&settings).unwrap_err();
    let OpenError::Refused { place, source } = &error else {
        panic!("{error}");
    };
    assert!(place.contains("guest@127.0.0.1"), "{place}");
    assert_eq!(source.code().unwrap().code(), "42501");
}
