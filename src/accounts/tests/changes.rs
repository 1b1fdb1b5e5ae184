//! Passwords that their owners change: AUTH-9.

use std::time::Duration;

use super::{
    PASSWORD, Site,
    mailbox::{NEW, change, mails, queued, sent, site},
};
use crate::{
    limit::settings::Quota,
    policy::{PasswordFault, Rejection},
};

#[tokio::test]
async fn auth_9_a_change_needs_the_current_password_and_one_that_is_taken() {
    let site = site().await;
    let grant = site.login("ann").await;
    let other = site.login("ann").await;
    for (current, new, want) in [
        (
            "wrong horse battery staple",
            NEW,
            Rejection::InvalidCredentials,
        ),
        ("", NEW, Rejection::InvalidCredentials),
        (
            PASSWORD,
            "too short",
            Rejection::PasswordRefused(PasswordFault::TooShort),
        ),
        (
            PASSWORD,
            "passwordpassword",
            Rejection::PasswordRefused(PasswordFault::Common),
        ),
        (
            PASSWORD,
            "ann@example.com",
            Rejection::PasswordRefused(PasswordFault::Common),
        ),
        (
            "wrong horse battery staple",
            "x",
            Rejection::PasswordRefused(PasswordFault::TooShort),
        ),
    ] {
        assert_eq!(
            change(&site, &grant, current, new).await,
            Err(want),
            "{new}"
        );
    }
    assert!(site.is_live(&grant) && site.is_live(&other));
    assert!(site.try_login("ann", PASSWORD).await.is_ok());
    assert_eq!(queued(&site), 0);
}

#[tokio::test]
async fn auth_9_a_change_ends_every_other_session_here_and_elsewhere_and_tells_the_owner() {
    let site = site().await;
    let beside = site.beside();
    let caller = site.login("ann").await;
    let other = site.login("ann").await;
    let bob = site.login("bob").await;
    change(&site, &caller, PASSWORD, NEW).await.unwrap();
    assert!(site.is_live(&caller), "the caller goes on");
    assert!(!site.is_live(&other), "at once");
    assert!(site.is_live(&bob));
    beside.accounts.poll().await.unwrap();
    assert!(beside.is_live(&caller) && !beside.is_live(&other));
    let refused = site.refresh(other.token()).await.unwrap_err();
    assert_eq!(refused, Rejection::InvalidGrant);
    site.refresh(caller.token()).await.unwrap();
    assert!(site.try_login("ann", PASSWORD).await.is_err());
    assert!(site.try_login("ann", NEW).await.is_ok());
    sent(&site).await;
    let mails = mails(&site);
    assert_eq!(mails.len(), 1);
    assert!(mails[0].contains("To: ann@example.com\r\n"), "{}", mails[0]);
    assert!(mails[0].contains("was changed") && mails[0].contains("192.0.2.7"));
}

#[tokio::test]
async fn auth_9_a_session_that_is_over_or_anothers_changes_nothing() {
    let site = site().await;
    let caller = site.login("ann").await;
    let bob = site.login("bob").await;
    let mut mixed = site.login("ann").await;
    mixed.session = bob.session.clone();
    let refused = change(&site, &mixed, PASSWORD, NEW).await;
    assert_eq!(refused, Err(Rejection::InvalidCredentials));
    site.accounts.logout(caller.token()).await.unwrap();
    let refused = change(&site, &caller, PASSWORD, NEW).await;
    assert_eq!(refused, Err(Rejection::InvalidCredentials));
    assert!(site.try_login("ann", PASSWORD).await.is_ok());
    assert!(site.is_live(&bob));
}

#[tokio::test]
async fn auth_9_guesses_at_the_current_password_meet_the_limits_of_logins() {
    let few = Quota {
        count: 5,
        window: Duration::from_secs(900),
        burst: 5,
    };
    for per_account in [true, false] {
        let site = Site::with(|settings| {
            if per_account {
                settings.login_per_account = few;
            } else {
                settings.login_per_ip = few;
            }
        });
        site.add("ann", &[]).await;
        let grant = site.login("ann").await;
        for _ in 0..4 {
            let refused = change(&site, &grant, "wrong horse battery staple", NEW).await;
            assert_eq!(refused, Err(Rejection::InvalidCredentials));
        }
        let refused = change(&site, &grant, PASSWORD, NEW).await;
        assert!(matches!(refused, Err(Rejection::RateLimited(_))));
    }
}

#[tokio::test]
async fn auth_9_of_two_changes_at_once_one_succeeds() {
    let site = site().await;
    let grant = site.login("ann").await;
    let (one, two) = tokio::join!(
        change(&site, &grant, PASSWORD, NEW),
        change(&site, &grant, PASSWORD, "yet another horse battery"),
    );
    assert!(one.is_ok() != two.is_ok(), "{one:?} {two:?}");
}
