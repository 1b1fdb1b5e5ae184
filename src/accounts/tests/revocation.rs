//! What ends, ends everywhere: SESS-5, SESS-9, AUTH-11, the feed.

use std::{sync::atomic::Ordering, time::Duration};

use super::{CLIENT, PASSWORD, Site, password};
use crate::{
    accounts::{Client, LastAdmin, Login},
    policy::Rejection,
};

#[tokio::test]
async fn sess_5_logout_ends_access_and_refresh_tokens_and_can_be_repeated() {
    let site = Site::new();
    site.add("ann", &[]).await;
    let other = site.login("ann").await;
    let first = site.login("ann").await;
    let second = site.refresh(first.token()).await.unwrap();
    // A token that was rotated names its session as well.
    site.accounts.logout(first.token()).await.unwrap();
    for grant in [&first, &second] {
        assert!(!site.is_live(grant));
        let refused = site.refresh(grant.token()).await.unwrap_err();
        assert_eq!(refused, Rejection::InvalidGrant);
    }
    site.accounts.logout(first.token()).await.unwrap();
    assert!(site.is_live(&other));
}

#[tokio::test]
async fn sess_5_logout_all_ends_every_session_of_that_user_alone() {
    let site = Site::new();
    site.add("ann", &[]).await;
    site.add("bob", &[]).await;
    let bob = site.login("bob").await;
    let ann = [site.login("ann").await, site.login("ann").await];
    site.accounts.logout_all(&ann[0].user.id).await.unwrap();
    for grant in &ann {
        assert!(!site.is_live(grant));
        site.refresh(grant.token()).await.unwrap_err();
    }
    assert!(site.is_live(&bob));
    site.refresh(bob.token()).await.unwrap();
}

#[tokio::test]
async fn sess_5_another_users_session_cannot_be_ended() {
    let site = Site::new();
    site.add("ann", &[]).await;
    site.add("bob", &[]).await;
    let ann = site.login("ann").await;
    let bob = site.login("bob").await;
    let ended = site.accounts.end_session(&bob.user.id, &ann.session).await;
    assert!(!ended.unwrap());
    assert!(site.is_live(&ann));
    let own = site.accounts.end_session(&ann.user.id, &ann.session).await;
    assert!(own.unwrap());
    assert!(!site.is_live(&ann));
}

#[tokio::test]
async fn auth_11_a_shut_account_is_shut_at_every_door() {
    let site = Site::new();
    site.add("ann", &[]).await;
    let grant = site.login("ann").await;
    site.accounts
        .disable_user("ann", LastAdmin::Stays)
        .await
        .unwrap();
    assert!(!site.is_live(&grant));
    let refused = site.refresh(grant.token()).await.unwrap_err();
    assert_eq!(refused, Rejection::InvalidGrant);
    let refused = site.try_login("ann", PASSWORD).await.unwrap_err();
    assert_eq!(refused, Rejection::InvalidCredentials);
    let issued = site.accounts.issue("ann", Duration::from_secs(60)).await;
    issued.unwrap_err();
    site.accounts.enable_user("ann").await.unwrap();
    site.refresh(grant.token()).await.unwrap_err();
    site.login("ann").await;
}

#[tokio::test]
async fn auth_9_a_new_password_and_new_roles_end_every_session() {
    let site = Site::new();
    site.add("ann", &["admin"]).await;
    let before = site.login("ann").await;
    let new = "another horse battery staple";
    site.accounts
        .set_password("ann", password(new))
        .await
        .unwrap();
    assert!(!site.is_live(&before));
    site.refresh(before.token()).await.unwrap_err();
    site.try_login("ann", PASSWORD).await.unwrap_err();
    let admin = site.try_login("ann", new).await.unwrap();
    site.accounts
        .set_roles("ann", &[], LastAdmin::MayGo)
        .await
        .unwrap();
    assert!(!site.is_live(&admin), "a demoted admin is none at once");
    let demoted = site.try_login("ann", new).await.unwrap();
    let claims = site.claims(&demoted.access_token).unwrap();
    assert!(claims.roles.is_empty());
}

#[tokio::test]
async fn auth_11_an_account_that_changes_during_a_login_is_not_entered() {
    let site = Site::new();
    site.add("ann", &[]).await;
    let user = site.accounts.user("ann").await.unwrap();
    let session = site.accounts.new_session(
        &user,
        Client {
            ip: CLIENT,
            device: None,
        },
    );
    site.accounts
        .set_password("ann", password("another horse battery staple"))
        .await
        .unwrap();
    site.accounts.begin(user, session, None).await.unwrap_err();
}

#[tokio::test]
async fn sess_5_what_another_process_ends_is_refused_here_after_one_poll() {
    let node = Site::new();
    node.add("ann", &[]).await;
    let grants = [
        node.login("ann").await,
        node.login("ann").await,
        node.login("ann").await,
    ];
    let command = node.beside();
    command.accounts.logout(grants[0].token()).await.unwrap();
    assert!(node.is_live(&grants[0]), "not told yet");
    assert_eq!(node.accounts.poll().await.unwrap(), 1);
    assert!(!node.is_live(&grants[0]));
    assert!(node.is_live(&grants[1]));
    command
        .accounts
        .disable_user("ann", LastAdmin::Stays)
        .await
        .unwrap();
    assert_eq!(node.accounts.poll().await.unwrap(), 2);
    assert!(!node.is_live(&grants[1]));
    assert!(!node.is_live(&grants[2]));
    assert_eq!(node.accounts.poll().await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sess_5_a_watching_process_obeys_within_five_seconds_and_stops_when_told() {
    let node = Site::new();
    node.add("ann", &[]).await;
    let grant = node.login("ann").await;
    let watch = node
        .accounts
        .watch(&tokio::runtime::Handle::current(), Box::new(|_| ()));
    node.beside().accounts.logout(grant.token()).await.unwrap();
    let mut looks = tokio::time::interval(Duration::from_millis(20));
    tokio::time::timeout(Duration::from_secs(5), async {
        while node.is_live(&grant) {
            looks.tick().await;
        }
    })
    .await
    .unwrap();
    drop(watch);
}

#[tokio::test]
async fn sess_9_the_session_idle_for_longest_ends_beyond_twenty() {
    let site = Site::new();
    site.add("ann", &[]).await;
    let mut grants = Vec::new();
    for _ in 0..20 {
        grants.push(site.login("ann").await);
        site.advance(1);
    }
    // The first is used, so the second is the one idle for longest.
    let used = site.refresh(grants[0].token()).await.unwrap();
    site.advance(1);
    let last = site.login("ann").await;
    assert!(!site.is_live(&grants[1]));
    site.refresh(grants[1].token()).await.unwrap_err();
    for grant in [&used, &grants[2], &last] {
        assert!(site.is_live(grant));
    }
    let live = site.accounts.sessions(&last.user.id).await.unwrap();
    assert_eq!(live.len(), 20);
    assert_eq!(live[0].id, last.session, "the last used comes first");
}

#[tokio::test]
async fn sess_9_what_is_over_is_erased_and_nothing_else() {
    let site = Site::new();
    site.add("ann", &[]).await;
    let gone = site.login("ann").await;
    site.accounts.logout(gone.token()).await.unwrap();
    let count = |table: &str| -> i64 {
        rusqlite::Connection::open(&site.settings.database)
            .unwrap()
            .query_row(&format!("SELECT count(*) FROM {table}"), [], |row| {
                row.get(0)
            })
            .unwrap()
    };
    let kept = site.login("ann").await;
    site.accounts.purge().await.unwrap();
    assert_eq!(count("sessions"), 2, "its access tokens may still be alive");
    assert_eq!(count("revocations"), 1);
    site.advance(3600);
    site.accounts.purge().await.unwrap();
    assert_eq!(
        (
            count("sessions"),
            count("refresh_tokens"),
            count("revocations")
        ),
        (1, 1, 0)
    );
    assert!(!site.is_live(&gone));
    let kept = site.refresh(kept.token()).await.unwrap();
    site.advance(31 * 86_400);
    site.accounts.purge().await.unwrap();
    assert_eq!(
        (count("sessions"), count("refresh_tokens"), count("users")),
        (0, 0, 1)
    );
    site.refresh(kept.token()).await.unwrap_err();
}

#[tokio::test]
async fn sess_9_the_user_agent_is_cut_and_cleaned() {
    let site = Site::new();
    site.add("ann", &[]).await;
    let device = format!("Mozilla\u{7}/5.0 {}", "\u{1f512}".repeat(300));
    let login = Login {
        device: None,
        name: "ann",
        password: password(PASSWORD),
        client: Client {
            ip: CLIENT,
            device: Some(&device),
        },
    };
    let grant = site.accounts.login(login).await.unwrap();
    let sessions = site.accounts.sessions(&grant.user.id).await.unwrap();
    assert_eq!(sessions[0].device.chars().count(), 200);
    assert!(sessions[0].device.starts_with("Mozilla/5.0 "));
    assert_eq!(&*sessions[0].ip, "192.0.2.7");
}

#[tokio::test]
async fn issued_test_tokens_end_with_the_account_and_cannot_live_long() {
    let site = Site::new();
    site.add("ann", &["clerk"]).await;
    let day = Duration::from_secs(86_400);
    let grant = site.accounts.issue("ann", day).await.unwrap();
    assert_eq!(grant.expires_in, 900);
    assert!(grant.refresh_token.is_none());
    assert!(site.is_live(&grant));
    assert_eq!(site.accounts.end_sessions_of("ann").await.unwrap(), 1);
    assert!(!site.is_live(&grant));
}

#[tokio::test]
async fn fault_4_a_jump_ahead_that_is_corrected_ends_no_session_and_forgets_no_revocation() {
    let site = Site::doubting();
    site.add("ann", &[]).await;
    let ended = site.login("ann").await;
    site.accounts.logout(ended.token()).await.unwrap();
    let live = site.login("ann").await;
    assert!(site.is_live(&live) && !site.is_live(&ended));

    const YEARS: u64 = 10 * 365 * 86_400;
    site.advance(YEARS);
    site.accounts.poll().await.unwrap();
    assert_eq!(site.accounts.purge().await.unwrap(), 0);
    // Whoever renews while the clock is wrong is not told that his session is over, and a token that comes twice is no theft.
    let renewed = site.refresh(live.token()).await.unwrap();
    site.refresh(live.token()).await.unwrap();

    site.now.fetch_sub(YEARS, Ordering::SeqCst);
    site.accounts.poll().await.unwrap();
    assert_eq!(site.accounts.purge().await.unwrap(), 0);
    assert!(site.is_live(&live) && !site.is_live(&ended));
    site.refresh(renewed.token()).await.unwrap();
    // Another process over the same store knows of the revocation yet.
    let beside = site.beside();
    assert!(!beside.is_live(&ended) && beside.is_live(&live));
}
