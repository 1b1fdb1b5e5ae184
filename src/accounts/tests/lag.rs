//! How old what is known of revocations is, when the store cannot be read: STORE-6.

use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::Site;

fn store(site: &Site) -> Connection {
    Connection::open(&site.settings.database).unwrap()
}

#[tokio::test]
async fn store_6_a_feed_that_cannot_be_read_is_late_until_all_of_it_was_obeyed() {
    let site = Site::new();
    site.add("ann", &[]).await;
    let other = site.beside();
    let grant = site.login("ann").await;
    assert!(other.is_live(&grant));
    let feed = other.authn.revocations().feed();
    let later = || Instant::now() + Duration::from_secs(16);
    assert!(!feed.is_late(Instant::now()), "it was read at the start");
    assert!(feed.is_late(later()), "nobody has read it since");

    let hide = "ALTER TABLE revocations RENAME TO elsewhere";
    store(&site).execute_batch(hide).unwrap();
    let before = Instant::now();
    other.accounts.poll().await.unwrap_err();
    assert!(feed.lag(Instant::now()) >= Some(before.elapsed()));
    // More than one reading gives.
    let mut all = String::from("BEGIN;");
    for n in 0..1500 {
        let key = if n == 1400 {
            grant.session.clone()
        } else {
            format!("s{n}").into()
        };
        all += &format!(
            "INSERT INTO elsewhere (kind, key, until) VALUES ('session', '{key}', 99999999999);"
        );
    }
    all += "COMMIT; ALTER TABLE elsewhere RENAME TO revocations;";
    store(&site).execute_batch(&all).unwrap();
    assert!(other.is_live(&grant), "nothing was read yet");
    assert_eq!(other.accounts.poll().await.unwrap(), 1500);
    assert!(!other.is_live(&grant));
    assert!(!feed.is_late(Instant::now()));
}
