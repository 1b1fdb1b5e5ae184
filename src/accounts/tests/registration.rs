//! Registration with mail: AUTH-1, AUTH-6, AUTH-7, RST-1 to RST-4.

use std::time::Duration;

use super::{
    CLIENT, PASSWORD, Registration, Site, mail_settings,
    mailbox::{database, mails, queued, sent},
    password,
};
use crate::{
    accounts::{Actor, Edit, Enrolled, NewAccount, NewInvitation, Registered},
    policy::{PasswordFault, Rejection},
    store::User,
};

const OTHER: &str = "another horse battery staple";
pub(super) const LINK: &str = "https://localhost:8443/auth/register/verify?token=";

/// A site where anybody may register; `ann` has an account.
pub(super) async fn site(registration: Registration) -> Site {
    let site = Site::with(|settings| {
        settings.registration = registration;
        settings.mail = Some(mail_settings(&settings.database));
    });
    site.add("ann", &[]).await;
    site
}

async fn apply(site: &Site, name: &str, email: &str, secret: &str) -> Result<(), Rejection> {
    apply_by(site, Registered::Oneself, (name, email, secret)).await
}

pub(super) async fn apply_by(
    site: &Site,
    by: Registered<'_>,
    (name, email, secret): (&str, &str, &str),
) -> Result<(), Rejection> {
    let new = NewAccount {
        username: name,
        email,
        name: None,
        password: Some(password(secret)),
        roles: &["admin".into()], // not looked at
    };
    match site.accounts.register(by, new, CLIENT).await? {
        Enrolled::Pending => Ok(()),
        Enrolled::Made(user) => panic!("{user:?}"),
    }
}

pub(super) async fn verify(site: &Site, token: &str, secret: &str) -> Result<User, Rejection> {
    let done = site
        .accounts
        .verify_registration(token, password(secret), CLIENT);
    done.await
}

/// Lets the mails be sent, and gives the one that is new.
pub(super) async fn new_mail(site: &Site, before: &[String]) -> String {
    sent(site).await;
    let mut new = mails(site);
    new.retain(|mail| !before.contains(mail));
    assert_eq!(new.len(), 1, "{new:?}");
    new.remove(0)
}

async fn link(site: &Site, name: &str, email: &str, secret: &str) -> String {
    let before = mails(site);
    apply(site, name, email, secret).await.unwrap();
    let mail = new_mail(site, &before).await;
    let line = mail.lines().find_map(|line| line.strip_prefix(LINK));
    line.unwrap_or_else(|| panic!("no link: {mail}")).to_owned()
}

pub(super) fn rows(site: &Site, table: &str) -> u32 {
    let sql = format!("SELECT count(*) FROM {table}");
    database(site)
        .query_row(&sql, [], |row| row.get(0))
        .unwrap()
}

#[tokio::test]
async fn auth_6_nobody_signs_in_or_resets_before_the_address_is_proved() {
    let site = site(Registration::Open).await;
    let token = link(&site, "bob", "bob@example.com", PASSWORD).await;
    assert_eq!(rows(&site, "users"), 1);
    for name in ["bob", "bob@example.com"] {
        let refused = site.try_login(name, PASSWORD).await.unwrap_err();
        assert_eq!(refused, Rejection::InvalidCredentials);
    }
    let before = mails(&site).len();
    site.accounts
        .forgot_password("bob@example.com", CLIENT)
        .await
        .unwrap();
    sent(&site).await;
    assert_eq!(mails(&site).len(), before);
    assert!(verify(&site, &token, OTHER).await.is_err());
    assert_eq!(rows(&site, "users"), 1);
    let user = verify(&site, &token, PASSWORD).await.unwrap();
    assert!(user.roles.is_empty());
    site.login("bob").await;
    assert_eq!(
        verify(&site, &token, PASSWORD).await.unwrap_err(),
        Rejection::LinkInvalid
    );
}

#[tokio::test]
async fn auth_1_a_taken_name_or_address_is_told_by_mail_alone() {
    let site = site(Registration::Open).await;
    for (name, email, words, not) in [
        ("new", "new@example.com", "Confirm your account", "already"),
        ("other", "ann@example.com", "You have an account", "other"),
        (
            "ann",
            "eve@example.com",
            "That name is taken",
            "ann@example.com",
        ),
        // Both at once: the owner's address, and the owner hears of it.
        ("ann", "ANN@example.com", "You have an account", "taken"),
    ] {
        let before = mails(&site);
        apply(&site, name, email, OTHER).await.unwrap();
        assert_eq!((rows(&site, "users"), queued(&site)), (1, 1), "{name}");
        let mail = new_mail(&site, &before).await;
        let to = format!("To: {}", email.to_lowercase());
        assert!(mail.contains(words) && mail.contains(&to), "{mail}");
        assert!(!mail.contains(not), "{mail}");
        assert_eq!(mail.contains(LINK), name == "new");
    }
    // Whoever wants it, the account that is there stays as it is.
    site.login("ann").await;
}

#[tokio::test]
async fn auth_6_anothers_registration_of_my_address_opens_with_his_password_alone() {
    let site = site(Registration::Open).await;
    let token = link(&site, "mine", "me@example.com", OTHER).await;
    let refused = verify(&site, &token, PASSWORD).await.unwrap_err();
    assert_eq!(refused, Rejection::InvalidCredentials);
    // My own takes its place, and its link is dead.
    let own = link(&site, "mine", "me@example.com", PASSWORD).await;
    assert_eq!(
        verify(&site, &token, OTHER).await.unwrap_err(),
        Rejection::LinkInvalid
    );
    verify(&site, &own, PASSWORD).await.unwrap();
}

#[tokio::test]
async fn auth_6_a_registration_takes_no_name_and_the_first_to_come_back_has_it() {
    let site = site(Registration::Open).await;
    let one = link(&site, "bob", "one@example.com", PASSWORD).await;
    let two = link(&site, "Bob", "two@example.com", PASSWORD).await;
    verify(&site, &two, PASSWORD).await.unwrap();
    let late = verify(&site, &one, PASSWORD).await.unwrap_err();
    assert_eq!(late, Rejection::AccountExists);
    assert_eq!(rows(&site, "users"), 2);
}

#[tokio::test]
async fn rst_2_a_link_of_a_registration_is_for_that_alone_for_a_time_once() {
    let site = site(Registration::Open).await;
    let token = link(&site, "bob", "bob@example.com", PASSWORD).await;
    // For no other purpose.
    let reset = site
        .accounts
        .reset_password(&token, password(OTHER), CLIENT)
        .await;
    assert_eq!(reset.unwrap_err(), Rejection::LinkInvalid);
    for bad in [
        "",
        "x",
        token.get(1..).unwrap(),
        &format!("{token}A"),
        &"A".repeat(43),
    ] {
        assert_eq!(
            verify(&site, bad, PASSWORD).await.unwrap_err(),
            Rejection::LinkInvalid
        );
    }
    // No copy of the database has it.
    let bytes = std::fs::read(&site.settings.database).unwrap();
    assert!(
        !bytes
            .windows(token.len())
            .any(|window| window == token.as_bytes())
    );
    let beside = site.beside();
    let (one, two) = tokio::join!(
        verify(&site, &token, PASSWORD),
        verify(&beside, &token, PASSWORD)
    );
    assert_eq!(u8::from(one.is_ok()) + u8::from(two.is_ok()), 1);
    let token = link(&site, "eve", "eve@example.com", PASSWORD).await;
    site.advance(3600);
    assert_eq!(
        verify(&site, &token, PASSWORD).await.unwrap_err(),
        Rejection::LinkInvalid
    );
}

#[tokio::test]
async fn auth_6_what_is_never_verified_is_erased() {
    let site = site(Registration::Open).await;
    apply(&site, "bob", "bob@example.com", PASSWORD)
        .await
        .unwrap();
    assert_eq!(rows(&site, "registrations"), 1);
    site.advance(2 * 3600);
    // The mail of one that is over is for nobody.
    let before = mails(&site).len();
    sent(&site).await;
    assert_eq!(mails(&site).len(), before);
    apply(&site, "eve", "eve@example.com", PASSWORD)
        .await
        .unwrap();
    assert_eq!(rows(&site, "registrations"), 1);
}

#[tokio::test]
async fn rst_4_registrations_share_the_budget_of_their_address_and_keep_the_link_that_works() {
    let site = site(Registration::Open).await;
    let mut token = String::new();
    for _ in 0..3 {
        token = link(&site, "bob", "bob@example.com", PASSWORD).await;
    }
    for email in ["bob@example.com", "BOB@EXAMPLE.COM"] {
        apply(&site, "bob", email, OTHER).await.unwrap();
    }
    assert_eq!(queued(&site), 0);
    verify(&site, &token, PASSWORD).await.unwrap();
    // And so does what is asked for by another way.
    site.accounts
        .forgot_password("bob@example.com", CLIENT)
        .await
        .unwrap();
    assert_eq!(queued(&site), 0);
}

#[tokio::test]
async fn auth_7_an_invitation_is_used_up_by_the_account_and_not_before() {
    let site = site(Registration::Invite).await;
    let new = NewInvitation {
        roles: &["clerk".into()],
        email: Some("bob@example.com"),
        ttl: Duration::from_secs(7200),
        send: false,
    };
    let made = site.accounts.invite(Actor::Operator, new).await.unwrap();
    let secret = made.secret.unwrap().reveal().to_string();
    let by = Registered::Invite(&secret);
    for (by, email) in [
        (Registered::Oneself, "bob@example.com"),
        (Registered::Invite("x"), "bob@example.com"),
        (by, "eve@example.com"),
    ] {
        let refused = apply_by(&site, by, ("bob", email, PASSWORD)).await;
        assert_eq!(refused.unwrap_err(), Rejection::LinkInvalid);
    }
    assert_eq!(queued(&site), 0);
    let mut tokens = Vec::new();
    for name in ["ann", "bob"] {
        let before = mails(&site);
        apply_by(&site, by, (name, "bob@example.com", PASSWORD))
            .await
            .unwrap();
        let mail = new_mail(&site, &before).await;
        tokens.extend(
            mail.lines()
                .find_map(|line| line.strip_prefix(LINK))
                .map(String::from),
        );
    }
    assert_eq!(tokens.len(), 1, "the name `ann` is taken");
    let user = verify(&site, &tokens[0], PASSWORD).await.unwrap();
    assert_eq!(user.roles, ["clerk".into()]);
    assert_eq!(rows(&site, "invites"), 0);
}

#[tokio::test]
async fn what_is_wrong_with_the_input_is_said_and_no_mail_is_sent() {
    let site = site(Registration::Open).await;
    for (name, email, secret, want) in [
        ("b b", "bob@example.com", PASSWORD, None),
        (
            "bob",
            "bob@example.com\r\nBcc: eve@example.com",
            PASSWORD,
            None,
        ),
        (
            "bob",
            "bob@example.com",
            "short",
            Some(PasswordFault::TooShort),
        ),
        (
            "bob",
            "bob@example.com",
            "passwordpassword",
            Some(PasswordFault::Common),
        ),
    ] {
        let refused = apply(&site, name, email, secret).await.unwrap_err();
        match want {
            Some(fault) => assert_eq!(refused, Rejection::PasswordRefused(fault)),
            None => assert!(matches!(refused, Rejection::BadRequest(_)), "{refused:?}"),
        }
    }
    assert_eq!((queued(&site), rows(&site, "registrations")), (0, 0));
}

#[tokio::test]
async fn auth_9_the_old_address_hears_of_a_new_one_and_of_nothing_else() {
    let site = site(Registration::Closed).await;
    let ann = site.accounts.user("ann").await.unwrap();
    for email in ["ann@example.com", "ann@example.net"] {
        let edit = Edit {
            email: Some(email),
            ..Edit::default()
        };
        site.accounts
            .edit_user(Actor::Operator, &ann.id, edit)
            .await
            .unwrap();
    }
    let mail = new_mail(&site, &[]).await;
    assert!(mail.contains("To: ann@example.com"), "{mail}");
    assert!(!mail.contains("example.net"), "{mail}");
}
