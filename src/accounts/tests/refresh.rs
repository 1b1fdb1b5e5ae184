//! Families of refresh tokens: SESS-1 to SESS-4, AUTH-12.

use std::{collections::HashSet, sync::Arc, time::Duration};

use super::{CLIENT, Log, Site};
use crate::{accounts::RefreshToken, policy::Rejection};

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, Rejection>) {
    assert_eq!(result.unwrap_err(), Rejection::InvalidGrant);
}

#[tokio::test]
async fn sess_1_replay_after_grace_kills_the_family_and_its_access_tokens() {
    let site = Site::new();
    site.add("ann", &[]).await;
    let first = site.login("ann").await;
    let second = site.refresh(first.token()).await.unwrap();
    let third = site.refresh(second.token()).await.unwrap();
    assert!(site.is_live(&third));
    site.advance(11);

    let log = Log::default();
    {
        let _guard = log.listen();
        refused(site.refresh(first.token()).await);
    }
    refused(site.refresh(third.token()).await);
    for grant in [&first, &second, &third] {
        assert!(!site.is_live(grant), "an access token outlived its family");
    }
    let text = log.text();
    assert!(text.contains("refresh_token_reused"), "{text}");
    assert!(text.contains(&*first.session), "{text}");
    assert!(!text.contains(first.token().reveal().as_str()), "{text}");
}

#[tokio::test]
async fn sess_1_reuse_ends_only_its_own_family() {
    let site = Site::new();
    site.add("ann", &[]).await;
    let other = site.login("ann").await;
    let first = site.login("ann").await;
    site.refresh(first.token()).await.unwrap();
    site.advance(11);
    refused(site.refresh(first.token()).await);
    assert!(site.is_live(&other));
    site.refresh(other.token()).await.unwrap();
}

#[tokio::test]
async fn sess_1_a_restarted_process_still_refuses_what_was_revoked() {
    let site = Site::new();
    site.add("ann", &[]).await;
    let first = site.login("ann").await;
    let second = site.refresh(first.token()).await.unwrap();
    site.advance(11);
    refused(site.refresh(first.token()).await);
    let restarted = site.beside();
    assert!(!restarted.is_live(&second));
    refused(restarted.refresh(second.token()).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sess_2_fifty_parallel_refreshes_of_one_token_on_three_nodes_all_succeed() {
    let site = Site::new();
    let nodes = [
        Arc::new(site.beside()),
        Arc::new(site.beside()),
        Arc::new(site.beside()),
    ];
    site.add("ann", &[]).await;
    let first = site.login("ann").await;
    let mut tasks = Vec::new();
    for index in 0..50 {
        let node = Arc::clone(&nodes[index % 3]);
        let token = first.token().clone();
        tasks.push(tokio::spawn(async move {
            loop {
                // On a machine with much to do one may have to wait too long for the others, and comes again.
                match node.refresh(&token).await {
                    Err(Rejection::StoreUnavailable) => {}
                    answered => return answered,
                }
            }
        }));
    }
    let mut successors = HashSet::new();
    for task in tasks {
        let grant = task.await.unwrap().unwrap();
        assert!(site.is_live(&grant));
        successors.insert(grant.token().reveal().to_string());
    }
    assert_eq!(successors.len(), 1, "a family has one live end");
    let token = RefreshToken::parse(successors.iter().next().unwrap()).unwrap();
    site.advance(600);
    nodes[2].refresh(&token).await.unwrap();
}

#[tokio::test]
async fn sess_2_grace_ends_after_its_last_second() {
    for (later, fine) in [(0, true), (9, true), (10, true), (11, false)] {
        let site = Site::new();
        site.add("ann", &[]).await;
        let first = site.login("ann").await;
        let second = site.refresh(first.token()).await.unwrap();
        site.advance(later);
        let again = site.refresh(first.token()).await;
        assert_eq!(again.is_ok(), fine, "{later} s");
        assert_eq!(site.is_live(&second), fine, "{later} s");
        assert_eq!(
            site.refresh(second.token()).await.is_ok(),
            fine,
            "{later} s"
        );
    }
}

#[tokio::test]
async fn sess_2_without_grace_every_second_presentation_is_reuse() {
    let site = Site::with(|settings| settings.refresh_grace = Duration::ZERO);
    site.add("ann", &[]).await;
    let first = site.login("ann").await;
    let second = site.refresh(first.token()).await.unwrap();
    refused(site.refresh(first.token()).await);
    refused(site.refresh(second.token()).await);
}

#[tokio::test]
async fn sess_2_an_answer_lost_after_commit_is_given_again_even_after_a_restart() {
    let site = Site::new();
    site.add("ann", &[]).await;
    let first = site.login("ann").await;
    drop(site.refresh(first.token()).await.unwrap());
    let restarted = site.beside();
    let again = restarted.refresh(first.token()).await.unwrap();
    site.advance(3600);
    restarted.refresh(again.token()).await.unwrap();
}

#[tokio::test]
async fn sess_2_a_late_answer_gives_the_live_end_and_not_a_token_that_was_used_since() {
    let site = Site::new();
    site.add("ann", &[]).await;
    let first = site.login("ann").await;
    let second = site.refresh(first.token()).await.unwrap();
    site.advance(4);
    let third = site.refresh(second.token()).await.unwrap();
    site.advance(4);
    let late = site.refresh(first.token()).await.unwrap();
    assert_eq!(*late.token().reveal(), *third.token().reveal());
}

#[tokio::test]
async fn sess_2_more_than_five_steps_behind_is_refused_but_revokes_nothing() {
    let site = Site::new();
    site.add("ann", &[]).await;
    let mut tokens = vec![site.login("ann").await];
    for step in 0..6 {
        let next = site.refresh(tokens[step].token()).await.unwrap();
        tokens.push(next);
    }
    refused(site.refresh(tokens[0].token()).await);
    let fine = site.refresh(tokens[1].token()).await.unwrap();
    assert_eq!(*fine.token().reveal(), *tokens[6].token().reveal());
    site.refresh(tokens[6].token()).await.unwrap();
}

#[tokio::test]
async fn sess_2_after_the_purge_a_rotated_token_is_still_known_as_reused() {
    let site = Site::new();
    site.add("ann", &[]).await;
    let first = site.login("ann").await;
    let second = site.refresh(first.token()).await.unwrap();
    site.advance(11);
    assert_eq!(site.accounts.purge().await.unwrap(), 1, "one salt");
    refused(site.refresh(first.token()).await);
    refused(site.refresh(second.token()).await);
}

#[tokio::test]
async fn sess_3_a_failure_between_consume_and_issue_changes_nothing() {
    let site = Site::new();
    site.add("ann", &[]).await;
    let first = site.login("ann").await;
    let saboteur = rusqlite::Connection::open(&site.settings.database).unwrap();
    for step in [
        "BEFORE INSERT ON refresh_tokens",
        "AFTER INSERT ON refresh_tokens",
        "AFTER UPDATE ON refresh_tokens",
        "AFTER UPDATE ON sessions",
    ] {
        saboteur
            .execute_batch(&format!(
                "CREATE TRIGGER fault {step} BEGIN SELECT RAISE(ABORT, 'injected'); END"
            ))
            .unwrap();
        site.refresh(first.token()).await.unwrap_err();
        saboteur.execute_batch("DROP TRIGGER fault").unwrap();
        let rows: (i64, i64) = saboteur
            .query_row(
                "SELECT count(*), count(rotated_at) FROM refresh_tokens",
                [],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .unwrap();
        assert_eq!(rows, (1, 0), "{step}");
    }
    site.advance(3600); // far beyond any grace window: the token must never have been consumed
    site.refresh(first.token()).await.unwrap();
}

#[tokio::test]
async fn sess_3_two_live_ends_cannot_be_written() {
    let site = Site::new();
    site.add("ann", &[]).await;
    let first = site.login("ann").await;
    let connection = rusqlite::Connection::open(&site.settings.database).unwrap();
    connection
        .execute(
            "INSERT INTO refresh_tokens (digest, session_id, issued_at) VALUES (randomblob(32), ?1, 0)",
            [&first.session],
        )
        .unwrap_err();
}

#[tokio::test]
async fn sess_4_idle_limit_restarts_with_each_rotation_the_absolute_one_does_not() {
    let day = 86_400;
    let site = Site::new();
    site.add("ann", &[]).await;
    let idle = site.login("ann").await;
    let mut used = site.login("ann").await;
    let mut days = 0;
    while days + 6 < 30 {
        site.advance(6 * day);
        days += 6;
        used = site.refresh(used.token()).await.unwrap();
    }
    refused(site.refresh(idle.token()).await);
    site.advance((30 - days) * day - 1);
    let last = site.refresh(used.token()).await.unwrap();
    assert_eq!(last.expires_in, 1, "no access token outlives its session");
    site.advance(1);
    refused(site.refresh(last.token()).await);
}

#[tokio::test]
async fn sess_4_idle_limit_holds_to_the_second() {
    for (later, fine) in [(7 * 86_400 - 1, true), (7 * 86_400, false)] {
        let site = Site::new();
        site.add("ann", &[]).await;
        let first = site.login("ann").await;
        site.advance(later);
        assert_eq!(site.refresh(first.token()).await.is_ok(), fine, "{later}");
    }
}

#[tokio::test]
async fn sess_4_access_tokens_live_fifteen_minutes_at_most() {
    let site = Site::with(|settings| settings.access_ttl = Duration::from_secs(86_400));
    site.add("ann", &[]).await;
    let grant = site.login("ann").await;
    assert_eq!(grant.expires_in, 900);
    let claims = site.claims(&grant.access_token).unwrap();
    assert_eq!(claims.expires_at, super::START + 900);
}

#[tokio::test]
async fn sess_4_refresh_reads_the_account_as_it_is_now() {
    let site = Site::new();
    site.add("ann", &["admin"]).await;
    let first = site.login("ann").await;
    // Written behind the back of everything that would end the session.
    let connection = rusqlite::Connection::open(&site.settings.database).unwrap();
    let set = |sql: &str| connection.execute(sql, []).unwrap();
    set(r#"UPDATE users SET roles = '["clerk"]'"#);
    let second = site.refresh(first.token()).await.unwrap();
    let claims = site.claims(&second.access_token).unwrap();
    assert_eq!(claims.roles, ["clerk".into()]);
    set("UPDATE users SET disabled = 1");
    refused(site.refresh(second.token()).await);
}

#[tokio::test]
async fn auth_12_truncated_padded_and_extended_tokens_fail() {
    let site = Site::new();
    site.add("ann", &[]).await;
    let grant = site.login("ann").await;
    let good = grant.token().reveal();
    assert_eq!(good.len(), 43, "32 bytes");
    let variants = [
        String::new(),
        good.split_at(42).0.into(),
        format!("{}=", *good),
        format!("{}A", *good),
        format!("{}AA", *good),
        format!(" {}", *good),
        format!("{}\n", *good),
        format!("{}.{}", *good, *good),
        good.replace(['-', '_'], "+"),
    ];
    for variant in variants.iter().filter(|variant| **variant != **good) {
        assert!(RefreshToken::parse(variant).is_none(), "{variant:?}");
    }
    // The last of 43 characters carries four bits: another that would decode to the same bytes is not taken.
    let last = good.chars().last().unwrap();
    for other in ('A'..='Z').chain('a'..='z').chain('0'..='9') {
        if other == last {
            continue;
        }
        let forged = format!("{}{other}", good.split_at(42).0);
        if let Some(token) = RefreshToken::parse(&forged) {
            assert_ne!(*token.reveal(), *good);
            refused(site.accounts.refresh(&token, CLIENT).await);
        }
    }
    site.refresh(grant.token()).await.unwrap();
}

#[tokio::test]
async fn auth_12_tokens_are_kept_as_digests_only() {
    let site = Site::new();
    site.add("ann", &[]).await;
    let first = site.login("ann").await;
    let second = site.refresh(first.token()).await.unwrap();
    let connection = rusqlite::Connection::open(&site.settings.database).unwrap();
    connection
        .execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")
        .unwrap();
    let file = std::fs::read(&site.settings.database).unwrap();
    for grant in [&first, &second] {
        let text = grant.token().reveal();
        let bytes = grant.token().0.as_ref();
        assert!(!file.windows(43).any(|window| window == text.as_bytes()));
        assert!(!file.windows(32).any(|window| window == bytes));
    }
    assert_eq!(format!("{:?}", first.token()), "[redacted]");
    assert!(!format!("{first:?}").contains(first.token().reveal().as_str()));
}
