//! A known device gets in while strangers guess at its account: RATE-4.

use std::time::Duration;

use super::{
    CLIENT, PASSWORD, Site,
    mailbox::{change, link, mail_settings},
    password,
};
use crate::{
    accounts::{
        ChangePassword, DEVICE_LIFE, DeviceToken, Grant, LastAdmin, settings::AccountSettings,
    },
    limit::settings::Quota,
    policy::Rejection,
};

pub(super) const NEW: &str = "another horse battery staple";

/// Few attempts at an account, and `ann` and `bob`.
async fn site() -> Site {
    limited(|settings| {
        settings.login_per_account = Quota {
            count: 3,
            window: Duration::from_secs(900),
            burst: 3,
        };
    })
    .await
}

/// Mail, these limits, and `ann` and `bob`.
pub(super) async fn limited(limit: impl FnOnce(&mut AccountSettings)) -> Site {
    let site = Site::with(|settings| {
        limit(settings);
        settings.mail = Some(mail_settings(&settings.database));
    });
    for name in ["ann", "bob"] {
        site.add(name, &[]).await;
    }
    site
}

pub(super) fn device(grant: &Grant) -> &DeviceToken {
    grant.device.as_ref().unwrap()
}

/// Guesses at an account until it has no attempt left.
async fn flood(site: &Site, name: &str) {
    for _ in 0..4 {
        site.try_login(name, "wrong").await.unwrap_err();
    }
    let refusal = site.try_login(name, PASSWORD).await.unwrap_err();
    assert_eq!(refusal.reason(), Some("login_per_account"));
}

#[tokio::test]
async fn rate_4_what_proves_no_device_of_the_account_gives_no_attempt() {
    let site = site().await;
    let (ann, bob) = (site.login("ann").await, site.login("bob").await);
    let good = device(&ann).reveal();
    let mut presented = vec![device(&bob).clone()];
    // One letter changed: in the random part, the time and the digest. The last letter has two bits that must be zero.
    for at in [0, 21, 25, 31, 33, 74] {
        let mut text = good.as_bytes().to_vec();
        text[at] = if text[at] == b'A' { b'Q' } else { b'A' };
        let text = String::from_utf8(text).unwrap();
        presented.extend(DeviceToken::parse(&text));
    }
    assert!(presented.len() > 5, "{}", presented.len());
    flood(&site, "ann").await;
    for token in &presented {
        let refusal = site.login_on(Some(token), "ann", PASSWORD).await;
        assert_eq!(refusal.unwrap_err().reason(), Some("login_per_account"));
    }
    // Nor does it for an account that is not there.
    flood(&site, "nobody").await;
    let refusal = site.login_on(Some(device(&ann)), "nobody", PASSWORD).await;
    assert_eq!(refusal.unwrap_err().reason(), Some("login_per_account"));
    site.login_on(Some(device(&ann)), "ann", PASSWORD)
        .await
        .unwrap();
}

#[test]
fn rate_4_what_has_not_the_form_of_a_device_token_is_none() {
    for text in [
        "",
        "A",
        &"A".repeat(74),
        &"A".repeat(76),
        &"A".repeat(4096),
        &format!("{}=", "A".repeat(75)),
        &format!("{}B", "A".repeat(74)),
        &format!("{}+", "A".repeat(74)),
    ] {
        assert!(DeviceToken::parse(text).is_none(), "{text}");
    }
    let token = DeviceToken::parse(&"A".repeat(75)).unwrap();
    assert_eq!(format!("{token:?}"), "[redacted]");
}

#[tokio::test]
async fn rate_4_a_device_has_as_many_attempts_as_the_account_and_no_more() {
    let site = site().await;
    let ann = site.login("ann").await;
    for _ in 0..3 {
        let refusal = site.login_on(Some(device(&ann)), "ann", "wrong").await;
        assert_eq!(refusal.unwrap_err(), Rejection::InvalidCredentials);
    }
    for name in ["ann", "ANN", "ann@example.com"] {
        let refusal = site.login_on(Some(device(&ann)), name, PASSWORD).await;
        assert_eq!(refusal.unwrap_err().reason(), Some("login_per_device"));
    }
    // Those of the account are as they were: one was used above.
    site.login("ann").await;
    site.login("ann").await;
    flood(&site, "ann").await;
}

#[tokio::test]
async fn rate_4_a_device_ends_with_the_password_and_with_a_year() {
    let site = site().await;
    let old = site.login("ann").await;
    flood(&site, "ann").await;
    // The account's attempts are used up, the device's own change the password all the same.
    let refused = change(&site, &old, PASSWORD, NEW).await;
    assert!(matches!(refused, Err(Rejection::RateLimited(_))));
    let new = site
        .accounts
        .change_password(ChangePassword {
            user_id: &old.user.id,
            session_id: &old.session,
            current: password(PASSWORD),
            new: password(NEW),
            device: Some(device(&old)),
            ip: CLIENT,
        })
        .await
        .unwrap();
    let refusal = site.login_on(Some(device(&old)), "ann", NEW).await;
    assert_eq!(refusal.unwrap_err().reason(), Some("login_per_account"));
    site.login_on(Some(&new), "ann", NEW).await.unwrap();
    site.advance(DEVICE_LIFE.as_secs() - 1);
    site.login_on(Some(&new), "ann", NEW).await.unwrap();
    site.advance(1);
    let refusal = site.login_on(Some(&new), "ann", NEW).await;
    assert_eq!(refusal.unwrap_err().reason(), Some("login_per_account"));
}

#[tokio::test]
async fn rate_4_a_link_to_a_new_password_leads_past_a_flood() {
    let site = site().await;
    let old = site.login("ann").await;
    flood(&site, "ann").await;
    let token = link(&site, "ann@example.com").await;
    let reset = site.accounts.reset_password(&token, password(NEW), CLIENT);
    let new = reset.await.unwrap();
    for stranger in [None, Some(device(&old))] {
        let refusal = site.login_on(stranger, "ann", NEW).await.unwrap_err();
        assert_eq!(refusal.reason(), Some("login_per_account"));
    }
    site.login_on(Some(&new), "ann", NEW).await.unwrap();
}

#[tokio::test]
async fn rate_4_every_node_knows_the_devices_of_another() {
    let one = site().await;
    let two = one.beside();
    let ann = one.login("ann").await;
    flood(&two, "ann").await;
    let text = device(&ann).reveal();
    let token = DeviceToken::parse(&text).unwrap();
    let again = two.login_on(Some(&token), "ann", PASSWORD).await.unwrap();
    assert_ne!(device(&again).reveal(), text);
    // A refresh proves no password.
    let renewed = two.refresh(again.token()).await.unwrap();
    assert!(renewed.device.is_none());
}

#[tokio::test]
async fn rate_4_an_unlocked_account_has_its_attempts_anew_on_every_node_and_nothing_else_changes() {
    let one = site().await;
    let two = one.beside();
    let ann = one.login("ann").await;
    flood(&one, "ann").await;
    flood(&two, "ann").await;
    flood(&one, "bob").await;
    assert!(one.accounts.unlock("nobody").await.is_err());
    one.accounts.unlock("ann@example.com").await.unwrap();
    for site in [&one, &two] {
        site.login("ann").await;
        // As many as before, and no more.
        flood(site, "ann").await;
    }
    let refusal = one.login_on(None, "bob", PASSWORD).await.unwrap_err();
    assert_eq!(refusal.reason(), Some("login_per_account"), "another one");
    two.refresh(ann.token()).await.unwrap();
    one.accounts
        .disable_user("ann", LastAdmin::Stays)
        .await
        .unwrap();
    one.accounts.unlock("ann").await.unwrap();
    let refusal = one.login_on(None, "ann", PASSWORD).await.unwrap_err();
    assert_eq!(refusal, Rejection::InvalidCredentials, "it stays shut");
}

#[tokio::test]
async fn rate_4_a_device_lets_nobody_in_without_the_password() {
    let site = site().await;
    let ann = site.login("ann").await;
    site.accounts
        .disable_user("ann", LastAdmin::Stays)
        .await
        .unwrap();
    for secret in ["", PASSWORD] {
        let refused = site.login_on(Some(device(&ann)), "ann", secret).await;
        assert_eq!(refused.unwrap_err(), Rejection::InvalidCredentials);
    }
}
