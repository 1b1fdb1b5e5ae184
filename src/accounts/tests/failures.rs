//! A hundred guesses in a row at one account, and then a stop that ends: RATE-4.

use std::time::Duration;

use super::{
    CLIENT, PASSWORD, Site,
    devices::{NEW, device, limited},
    mailbox::{change, link},
    password,
};
use crate::{
    accounts::{DeviceToken, LastAdmin},
    limit::settings::Quota,
    policy::Rejection,
};

/// Ten guesses in a row, and no other limit; `ann` and `bob`.
async fn site() -> Site {
    limited(|settings| {
        settings.login_failures = Quota {
            count: 10,
            window: Duration::from_secs(7200),
            burst: 10,
        };
    })
    .await
}

#[track_caller]
fn stopped(refusal: &Rejection) {
    let Rejection::RateLimited(exceeded) = refusal else {
        panic!("{refusal:?}");
    };
    assert_eq!((exceeded.limit, exceeded.quota), ("login_failures", 10));
    assert!(exceeded.retry_after > Duration::from_secs(7000));
    assert!(exceeded.retry_after <= Duration::from_secs(7200));
}

/// Guesses ten times, by one spelling of the name after the other, and is stopped then.
async fn guess(site: &Site, device: Option<&DeviceToken>, names: [&str; 2]) {
    for number in 0..10 {
        let refusal = site.login_on(device, names[number % 2], "a guess").await;
        assert_eq!(refusal.unwrap_err(), Rejection::InvalidCredentials);
    }
    for name in names {
        for secret in ["a guess", PASSWORD, NEW] {
            stopped(&site.login_on(device, name, secret).await.unwrap_err());
        }
    }
}

const ANN: [&str; 2] = ["ann", "ANN@example.com"];

#[tokio::test]
async fn rate_4_and_auth_1_after_ten_guesses_in_a_row_nobody_may_guess_known_or_not() {
    let site = site().await;
    guess(&site, None, ANN).await;
    guess(&site, None, ["nobody", "NoBody"]).await;
    guess(&site, None, ["not a name!", "NOT a name!"]).await;
    site.accounts
        .disable_user("bob", LastAdmin::Stays)
        .await
        .unwrap();
    guess(&site, None, ["bob", "bob@example.com"]).await;
}

#[tokio::test]
async fn rate_4_a_right_password_begins_a_new_count_and_a_known_browser_counts_for_itself() {
    let site = site().await;
    let home = site.login("ann").await;
    for _ in 0..3 {
        for _ in 0..9 {
            site.try_login("ann", "a guess").await.unwrap_err();
        }
        site.login("ann").await;
    }
    // Whoever signs in at home ends nobody's count elsewhere, and nobody's stop.
    for _ in 0..9 {
        site.try_login("ann", "a guess").await.unwrap_err();
    }
    let home = site.login_on(Some(device(&home)), "ann", PASSWORD).await;
    let home = home.unwrap();
    site.try_login("ann", "a guess").await.unwrap_err();
    stopped(&site.try_login("ann", PASSWORD).await.unwrap_err());
    let again = site.login_on(Some(device(&home)), "ann", PASSWORD).await;
    stopped(&site.try_login("ann", PASSWORD).await.unwrap_err());
    // Nor has a known browser more guesses than ten in a row.
    let again = again.unwrap();
    guess(&site, Some(device(&again)), ANN).await;
}

#[tokio::test]
async fn rate_4_a_changed_password_counts_too_and_ends_the_stop() {
    let site = site().await;
    let ann = site.login("ann").await;
    for _ in 0..10 {
        let refused = change(&site, &ann, "a guess", NEW).await;
        assert_eq!(refused.unwrap_err(), Rejection::InvalidCredentials);
    }
    stopped(&change(&site, &ann, PASSWORD, NEW).await.unwrap_err());
    stopped(&site.try_login("ann", PASSWORD).await.unwrap_err());
    let token = link(&site, "ann@example.com").await;
    let reset = site.accounts.reset_password(&token, password(NEW), CLIENT);
    reset.await.unwrap();
    // Not only in the browser that opened the link.
    site.try_login("ann", NEW).await.unwrap();
    guess(&site, None, ANN).await;
}

#[tokio::test]
async fn rate_4_unlocking_ends_the_stop_of_one_account_and_of_its_browsers() {
    let site = site().await;
    let home = site.login("ann").await;
    guess(&site, None, ANN).await;
    guess(&site, Some(device(&home)), ANN).await;
    guess(&site, None, ["bob", "BOB"]).await;
    site.accounts.unlock("ann").await.unwrap();
    site.login("ann").await;
    let again = site.login_on(Some(device(&home)), "ann", PASSWORD).await;
    again.unwrap();
    guess(&site, None, ANN).await;
    stopped(&site.try_login("bob", PASSWORD).await.unwrap_err());
}

#[tokio::test]
async fn rate_4_a_rate_that_refuses_counts_nobody_s_guesses() {
    let site = Site::with(|settings| {
        settings.login_per_account = Quota {
            count: 3,
            window: Duration::from_secs(86_400),
            burst: 3,
        };
        settings.login_failures.count = 10;
    });
    site.add("ann", &[]).await;
    for _ in 0..3 {
        site.try_login("ann", "a guess").await.unwrap_err();
    }
    for _ in 0..50 {
        let refusal = site.try_login("ann", "a guess").await.unwrap_err();
        assert_eq!(refusal.reason(), Some("login_per_account"));
    }
}
