//! Links to new passwords: AUTH-6, AUTH-11, RST-2, RST-3, RST-5.

use std::fs;

use super::{
    CLIENT, Log, PASSWORD, Site,
    mailbox::{NEW, change, database, link, mails, queued, reset, sent, site, token},
    password,
};
use crate::{
    accounts::LastAdmin,
    policy::{PasswordFault, Rejection},
};

#[tokio::test]
async fn rst_2_a_link_works_once_and_for_its_time() {
    let site = site().await;
    let token = link(&site, "ann@example.com").await;
    assert_eq!(token.len(), 43, "256 bits");
    reset(&site, &token, NEW).await.unwrap();
    let again = reset(&site, &token, PASSWORD).await;
    assert_eq!(again, Err(Rejection::LinkInvalid));
    assert!(site.try_login("ann", NEW).await.is_ok());
    let token = link(&site, "ann@example.com").await;
    site.advance(600);
    let late = reset(&site, &token, PASSWORD).await;
    assert_eq!(late, Err(Rejection::LinkInvalid));
    for rubbish in [
        "",
        "x",
        &token.chars().skip(1).collect::<String>(),
        &format!("{token}A"),
        &"A".repeat(43),
        "' OR 1=1 --",
    ] {
        let refused = reset(&site, rubbish, PASSWORD).await;
        assert_eq!(refused, Err(Rejection::LinkInvalid), "{rubbish}");
    }
}

#[tokio::test]
async fn rst_2_of_parallel_uses_of_a_link_exactly_one_succeeds() {
    let site = site().await;
    let beside = site.beside();
    let token = link(&site, "ann@example.com").await;
    let mut uses = tokio::task::JoinSet::new();
    for turn in 0..12 {
        let accounts = if turn % 2 == 0 { &site } else { &beside };
        let accounts = accounts.accounts.clone();
        let token = token.clone();
        uses.spawn(async move {
            let new = format!("horse number {turn} battery staple");
            accounts
                .reset_password(&token, password(&new), CLIENT)
                .await
        });
    }
    let results = uses.join_all().await;
    let fine = results.iter().filter(|result| result.is_ok()).count();
    assert_eq!(fine, 1, "{results:?}");
    let rest = results.iter().filter_map(|result| result.as_ref().err());
    assert!(
        rest.clone()
            .all(|refused| *refused == Rejection::LinkInvalid)
    );
    sent(&site).await;
    let changed = mails(&site);
    let changed = changed.iter().filter(|mail| mail.contains("was changed"));
    assert_eq!(changed.count(), 1, "told once");
}

#[tokio::test]
async fn rst_2_a_link_dies_by_a_newer_one_and_by_any_change_of_the_account() {
    let site = site().await;
    let old = link(&site, "ann@example.com").await;
    let new = link(&site, "ann@example.com").await;
    assert_eq!(reset(&site, &old, NEW).await, Err(Rejection::LinkInvalid));
    let grant = site.login("ann").await;
    change(&site, &grant, PASSWORD, NEW).await.unwrap();
    assert_eq!(
        reset(&site, &new, PASSWORD).await,
        Err(Rejection::LinkInvalid)
    );
    sent(&site).await;
    for kind in ["password", "roles", "disabled", "deleted"] {
        let site = super::mailbox::site().await;
        let token = link(&site, "bob@example.com").await;
        let accounts = &site.accounts;
        match kind {
            "password" => accounts.set_password("bob", password(NEW)).await.unwrap(),
            "roles" => accounts
                .set_roles("bob", &["x".into()], LastAdmin::Stays)
                .await
                .unwrap(),
            "disabled" => {
                accounts
                    .disable_user("bob", LastAdmin::Stays)
                    .await
                    .unwrap();
                assert_eq!(reset(&site, &token, NEW).await, Err(Rejection::LinkInvalid));
                accounts.enable_user("bob").await.unwrap();
            }
            _ => accounts.delete_user("bob", LastAdmin::Stays).await.unwrap(),
        }
        let refused = reset(&site, &token, NEW).await;
        assert_eq!(refused, Err(Rejection::LinkInvalid), "{kind}");
    }
}

#[tokio::test]
async fn rst_2_a_link_is_for_one_purpose() {
    let site = site().await;
    let token = link(&site, "ann@example.com").await;
    database(&site)
        .execute("UPDATE mail_tokens SET purpose = 'other'", [])
        .unwrap();
    assert_eq!(reset(&site, &token, NEW).await, Err(Rejection::LinkInvalid));
    // Nor is a refresh token a link, or a link a refresh token.
    let grant = site.login("ann").await;
    let refresh = grant.token().reveal();
    assert_eq!(
        reset(&site, &refresh, NEW).await,
        Err(Rejection::LinkInvalid)
    );
    assert!(site.is_live(&grant));
}

#[tokio::test]
async fn rst_2_the_database_holds_no_usable_link_at_any_time() {
    let site = site().await;
    site.accounts
        .forgot_password("ann@example.com", CLIENT)
        .await
        .unwrap();
    let dump = |site: &Site| {
        database(site)
            .execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")
            .unwrap();
        fs::read(&site.settings.database).unwrap()
    };
    let waiting = dump(&site);
    sent(&site).await;
    let token = token(&mails(&site)[0]);
    let raw =
        base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, &token).unwrap();
    for dump in [waiting, dump(&site)] {
        for secret in [token.as_bytes(), &raw] {
            assert!(!dump.windows(secret.len()).any(|window| window == secret));
        }
    }
    reset(&site, &token, NEW).await.unwrap();
}

#[tokio::test]
async fn rst_2_a_password_that_is_not_taken_does_not_use_the_link_up() {
    let site = site().await;
    let token = link(&site, "ann@example.com").await;
    for (new, fault) in [
        ("short", PasswordFault::TooShort),
        ("passwordpassword", PasswordFault::Common),
        ("ann@example.com", PasswordFault::Common),
    ] {
        let refused = reset(&site, &token, new).await;
        assert_eq!(refused, Err(Rejection::PasswordRefused(fault)));
    }
    reset(&site, &token, NEW).await.unwrap();
}

#[tokio::test]
async fn rst_3_a_reset_ends_every_session_signs_nobody_in_and_tells_the_owner() {
    let site = site().await;
    let beside = site.beside();
    let grants = [site.login("ann").await, site.login("ann").await];
    let bob = site.login("bob").await;
    let token = link(&site, "ann@example.com").await;
    reset(&site, &token, NEW).await.unwrap();
    beside.accounts.poll().await.unwrap();
    for grant in &grants {
        assert!(!site.is_live(grant) && !beside.is_live(grant));
        let refused = site.refresh(grant.token()).await.unwrap_err();
        assert_eq!(refused, Rejection::InvalidGrant);
    }
    assert!(site.is_live(&bob));
    let user = site.accounts.user("ann").await.unwrap();
    assert!(site.accounts.sessions(&user.id).await.unwrap().is_empty());
    sent(&site).await;
    assert!(mails(&site).iter().any(|mail| mail.contains("was changed")));
}

#[tokio::test]
async fn rst_5_and_auth_6_what_is_no_mailbox_or_another_gets_nothing() {
    let site = site().await;
    for address in [
        "",
        "ann",
        "ann@example.com\r\nBcc: eve@example.com",
        "ann@example.com,eve@example.com",
        "ann@example.com ",
        "<ann@example.com>",
        "\"ann\"@example.com",
        "\u{430}nn@example.com",
    ] {
        let refused = site.accounts.forgot_password(address, CLIENT).await;
        assert!(
            matches!(refused, Err(Rejection::BadRequest(_))),
            "{address:?}"
        );
    }
    for look_alike in [
        "ann@examp1e.com",
        "ann@example.com.evil.example",
        "arn@example.com",
    ] {
        site.accounts
            .forgot_password(look_alike, CLIENT)
            .await
            .unwrap();
    }
    sent(&site).await;
    assert!(mails(&site).is_empty());
}

#[tokio::test]
async fn auth_11_a_shut_account_gets_no_link_and_one_without_password_gets_none() {
    let site = site().await;
    site.accounts
        .disable_user("ann", LastAdmin::Stays)
        .await
        .unwrap();
    database(&site)
        .execute(
            "UPDATE users SET password = NULL WHERE username = 'bob'",
            [],
        )
        .unwrap();
    for address in ["ann@example.com", "bob@example.com"] {
        site.accounts
            .forgot_password(address, CLIENT)
            .await
            .unwrap();
    }
    sent(&site).await;
    assert!(mails(&site).is_empty());
}

#[tokio::test]
async fn rst_5_a_link_that_comes_too_late_is_not_sent_and_word_of_a_change_is() {
    let site = site().await;
    let grant = site.login("ann").await;
    site.accounts
        .forgot_password("ann@example.com", CLIENT)
        .await
        .unwrap();
    site.advance(1);
    change(&site, &grant, PASSWORD, NEW).await.unwrap();
    site.advance(3600);
    sent(&site).await;
    let late = mails(&site);
    assert_eq!(late.len(), 1, "{late:?}");
    assert!(late[0].contains("was changed"));
    change(&site, &grant, NEW, PASSWORD).await.unwrap();
    site.advance(7 * 86_400);
    sent(&site).await;
    assert_eq!(mails(&site).len(), 2);
}

#[tokio::test]
async fn without_mail_nothing_can_be_asked_for_and_changes_go_on() {
    let site = Site::new();
    site.add("ann", &[]).await;
    let refused = site
        .accounts
        .forgot_password("ann@example.com", CLIENT)
        .await;
    assert_eq!(refused, Err(Rejection::RouteNotFound));
    assert_eq!(
        reset(&site, &"A".repeat(43), NEW).await,
        Err(Rejection::RouteNotFound)
    );
    let grant = site.login("ann").await;
    change(&site, &grant, PASSWORD, NEW).await.unwrap();
    assert_eq!(queued(&site), 0);
}

#[tokio::test]
async fn log_1_and_log_4_events_tell_what_happened_and_no_secret() {
    let site = site().await;
    let log = Log::default();
    let _guard = log.listen();
    let grant = site.login("ann").await;
    let _ = change(&site, &grant, "wrong horse battery staple", NEW).await;
    change(&site, &grant, PASSWORD, NEW).await.unwrap();
    let token = link_with_notice(&site).await;
    let _ = reset(&site, &"A".repeat(43), PASSWORD).await;
    reset(&site, &token, PASSWORD).await.unwrap();
    let text = log.text();
    for event in [
        "password_change_refused",
        "password_changed",
        "password_reset_asked",
        "mail_sent",
        "password_reset_refused",
        "password_reset",
    ] {
        assert!(
            text.contains(&format!("\"event\":\"{event}\"")),
            "{event}: {text}"
        );
    }
    let _ = super::audit::told(&log);
    for secret in [PASSWORD, NEW, &token, "reset?token", "ann@example.com"] {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
}

async fn link_with_notice(site: &Site) -> String {
    site.accounts
        .forgot_password("ann@example.com", CLIENT)
        .await
        .unwrap();
    sent(site).await;
    let mails = mails(site);
    token(
        mails
            .iter()
            .find(|mail| mail.contains("reset?token"))
            .unwrap(),
    )
}
