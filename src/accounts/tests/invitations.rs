//! Invitations that are sent by mail: AUTH-7, RST-1, RST-2, RST-4.

use std::time::Duration;

use super::{
    PASSWORD, Registration, Site,
    mailbox::{database, mails, queued, sent},
    registration::{LINK, apply_by, new_mail, rows, site, verify},
};
use crate::{
    accounts::{AccountError, Actor, Invited, NewInvitation, Registered},
    policy::Rejection,
};

const INVITATION: &str = "https://localhost:8443/auth/register?invite=";
const BOB: &str = "bob@example.com";

async fn invite(site: &Site, email: Option<&str>) -> Result<Invited, AccountError> {
    let new = NewInvitation {
        roles: &["clerk".into()],
        email,
        ttl: Duration::from_secs(3 * 86_400),
        send: true,
    };
    site.accounts.invite(Actor::Operator, new).await
}

/// The secret in the link of a mail.
fn secret(mail: &str) -> String {
    let line = mail.lines().find_map(|line| line.strip_prefix(INVITATION));
    line.unwrap_or_else(|| panic!("no link: {mail}")).to_owned()
}

async fn apply(site: &Site, secret: &str, email: &str) -> Result<(), Rejection> {
    apply_by(site, Registered::Invite(secret), ("bob", email, PASSWORD)).await
}

#[tokio::test]
async fn auth_7_an_invitation_by_mail_makes_one_account_for_its_address() {
    let site = site(Registration::Invite).await;
    let made = invite(&site, Some("Bob@Example.com")).await.unwrap();
    assert!(made.secret.is_none(), "told by mail alone");
    let mail = new_mail(&site, &[]).await;
    for words in ["To: bob@example.com\r\n", "You are invited", "3 days"] {
        assert!(mail.contains(words), "{words}: {mail}");
    }
    let secret = secret(&mail);
    let other = apply(&site, &secret, "eve@example.com").await;
    assert_eq!(other.unwrap_err(), Rejection::LinkInvalid);
    apply(&site, &secret, BOB).await.unwrap();
    let confirm = new_mail(&site, &[mail]).await;
    let token = confirm.lines().find_map(|line| line.strip_prefix(LINK));
    let user = verify(&site, token.unwrap(), PASSWORD).await.unwrap();
    assert_eq!(user.roles, ["clerk".into()]);
    assert_eq!(rows(&site, "invites"), 0);
    let again = apply(&site, &secret, BOB).await;
    assert_eq!(again.unwrap_err(), Rejection::LinkInvalid);
}

#[tokio::test]
async fn rst_2_neither_the_queue_nor_the_database_holds_an_invitation_that_works() {
    let site = site(Registration::Invite).await;
    invite(&site, Some(BOB)).await.unwrap();
    let dump = || {
        let file = &site.settings.database;
        let checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)";
        database(&site).execute_batch(checkpoint).unwrap();
        std::fs::read(file).unwrap()
    };
    let waiting = dump();
    let secret = secret(&new_mail(&site, &[]).await);
    let raw =
        base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, &secret).unwrap();
    for dump in [waiting, dump()] {
        for held in [secret.as_bytes(), &raw] {
            assert!(!dump.windows(held.len()).any(|window| window == held));
        }
    }
    apply(&site, &secret, BOB).await.unwrap();
}

#[tokio::test]
async fn rst_2_of_an_invitation_that_is_sent_twice_the_later_link_works() {
    let site = site(Registration::Invite).await;
    invite(&site, Some(BOB)).await.unwrap();
    let queue = database(&site);
    queue
        .execute_batch("CREATE TABLE kept AS SELECT * FROM mail")
        .unwrap();
    let first = secret(&new_mail(&site, &[]).await);
    // As if its sender had died before it could note that the mail was taken.
    queue
        .execute_batch("INSERT INTO mail SELECT * FROM kept")
        .unwrap();
    sent(&site).await;
    let mails = mails(&site);
    assert_eq!(mails.len(), 1, "one file: {mails:?}");
    let second = secret(&mails[0]);
    let refused = apply(&site, &first, BOB).await;
    assert_eq!(refused.unwrap_err(), Rejection::LinkInvalid);
    apply(&site, &second, BOB).await.unwrap();
}

#[tokio::test]
async fn an_invitation_that_is_over_or_taken_back_is_not_sent() {
    let site = site(Registration::Invite).await;
    let made = invite(&site, Some(BOB)).await.unwrap();
    let actor = Actor::Operator;
    site.accounts
        .revoke_invite(actor, &made.invite.id)
        .await
        .unwrap();
    sent(&site).await;
    assert!(mails(&site).is_empty());
    invite(&site, Some("carl@example.com")).await.unwrap();
    site.advance(3 * 86_400);
    sent(&site).await;
    assert!(mails(&site).is_empty());
}

#[tokio::test]
async fn rst_4_invitations_are_in_the_budget_of_all_mails_and_refused_beyond_it() {
    let site = site(Registration::Invite).await;
    for address in [BOB, "BOB@example.com", BOB] {
        invite(&site, Some(address)).await.unwrap();
    }
    let fourth = invite(&site, Some(BOB)).await;
    assert_eq!(fourth.unwrap_err(), AccountError::TooMuchMail);
    let refusal = Rejection::from(AccountError::TooMuchMail);
    assert_eq!(
        (refusal.code(), refusal.retry_after()),
        ("rate_limited", Some(Duration::from_secs(3600)))
    );
    // What was refused is not kept, and other recipients get theirs.
    assert_eq!((rows(&site, "invites"), queued(&site)), (3, 3));
    invite(&site, Some("carl@example.com")).await.unwrap();
    // Nor does a registration of the same address get a fourth mail.
    sent(&site).await;
    let last = mails(&site);
    let last = last.iter().find(|mail| mail.contains("To: bob@")).unwrap();
    apply(&site, &secret(last), BOB).await.unwrap();
    sent(&site).await;
    assert_eq!(mails(&site).len(), 4);
    site.advance(3600);
    invite(&site, Some(BOB)).await.unwrap();
}

#[tokio::test]
async fn an_invitation_goes_to_an_address_without_account_and_only_where_there_is_mail() {
    let site = site(Registration::Invite).await;
    for (email, want) in [
        (None, AccountError::EmailInvalid),
        (Some("bob"), AccountError::EmailInvalid),
        (
            Some("bob@example.com\r\nBcc: eve@example.com"),
            AccountError::EmailInvalid,
        ),
        (Some("ann@example.com"), AccountError::Exists),
    ] {
        let refused = invite(&site, email).await.unwrap_err();
        assert_eq!(refused, want, "{email:?}");
    }
    assert_eq!((rows(&site, "invites"), queued(&site)), (0, 0));
    let without = Site::with(|settings| settings.registration = Registration::Invite);
    let refused = invite(&without, Some(BOB)).await;
    assert_eq!(refused.unwrap_err(), AccountError::MailOff);
    assert_eq!(rows(&without, "invites"), 0);
}
