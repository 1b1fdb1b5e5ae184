//! Stolen passwords at every door by which a new one comes: AUTH-5.

use std::fs;

use super::{
    CLIENT, PASSWORD, Registration, Site, mail_settings,
    mailbox::{change, database, link, reset},
    password,
};
use crate::{
    accounts::{AccountError, Accounts, Actor, Edit, NewAccount, NewUser, OpenError, Registered},
    authn::Revocations,
    policy::{PasswordFault, Rejection},
};

/// Not made of common pieces, and yet known.
const STOLEN: &str = "correct horse in the wrong hands";
const GOOD: &str = "another horse battery staple";

/// A site whose list has [`STOLEN`]; with `ann`.
async fn site(registration: Registration, mail: bool) -> Site {
    let site = Site::with(|settings| {
        let list = settings.database.with_file_name("stolen.txt");
        fs::create_dir(list.parent().unwrap()).unwrap();
        fs::write(&list, format!("{STOLEN}\n")).unwrap();
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        fs::set_permissions(list.parent().unwrap(), private).unwrap();
        settings.breached_passwords = Some(list);
        settings.registration = registration;
        settings.mail = mail.then(|| mail_settings(&settings.database));
    });
    site.add("ann", &[]).await;
    site
}

fn account(secret: &str) -> NewAccount<'_> {
    NewAccount {
        username: "bob",
        email: "bob@example.com",
        name: None,
        password: Some(password(secret)),
        roles: &[],
    }
}

const REFUSED: Rejection = Rejection::PasswordRefused(PasswordFault::Breached);

#[tokio::test]
async fn auth_5_a_stolen_password_is_taken_nowhere() {
    let site = site(Registration::Open, false).await;
    let accounts = &site.accounts;
    let secret = accounts.bootstrap().await.unwrap().secret.reveal();
    for by in [Registered::Oneself, Registered::Bootstrap(&secret)] {
        let refused = accounts.register(by, account(STOLEN), CLIENT).await;
        assert_eq!(refused.unwrap_err(), REFUSED, "{by:?}");
    }
    let grant = site.login("ann").await;
    assert_eq!(change(&site, &grant, PASSWORD, STOLEN).await, Err(REFUSED));
    assert!(site.is_live(&grant));
    let new = NewUser {
        username: "bob",
        email: "bob@example.com",
        name: None,
        password: password(STOLEN),
        roles: &[],
    };
    let edit = Edit {
        password: Some(password(STOLEN)),
        ..Edit::default()
    };
    for refused in [
        accounts.add_user(new).await.err(),
        accounts.set_password("ann", password(STOLEN)).await.err(),
        accounts
            .create_user(Actor::Operator, account(STOLEN))
            .await
            .err(),
        accounts
            .edit_user(Actor::Operator, &grant.user.id, edit)
            .await
            .err(),
    ] {
        assert_eq!(refused, Some(AccountError::PasswordBreached));
    }
    let users = "SELECT count(*) FROM users";
    let users: u32 = database(&site)
        .query_row(users, [], |row| row.get(0))
        .unwrap();
    assert_eq!(users, 1);
    site.login("ann").await;
    accounts
        .register(Registered::Oneself, account(GOOD), CLIENT)
        .await
        .unwrap();
}

#[tokio::test]
async fn auth_5_a_stolen_password_uses_no_link_up_and_applies_for_nothing() {
    let site = site(Registration::Open, true).await;
    let token = link(&site, "ann@example.com").await;
    assert_eq!(reset(&site, &token, STOLEN).await, Err(REFUSED));
    reset(&site, &token, GOOD).await.unwrap();
    let applied = site
        .accounts
        .register(Registered::Oneself, account(STOLEN), CLIENT)
        .await;
    assert_eq!(applied.unwrap_err(), REFUSED);
    let waiting = "SELECT count(*) FROM registrations";
    let waiting: u32 = database(&site)
        .query_row(waiting, [], |row| row.get(0))
        .unwrap();
    assert_eq!(waiting, 0);
}

#[tokio::test]
async fn auth_5_a_password_that_was_stolen_since_still_opens_its_account() {
    let site = Site::new();
    site.add("ann", &[]).await;
    let mut settings = site.settings.clone();
    let list = settings.database.with_file_name("stolen.txt");
    fs::write(&list, PASSWORD).unwrap();
    settings.breached_passwords = Some(list);
    let after = Site::open(site.folder.clone(), settings, site.now.clone());
    after.login("ann").await;
}

#[test]
fn auth_5_without_its_list_nothing_starts() {
    let site = Site::new();
    let mut settings = site.settings.clone();
    settings.breached_passwords = Some(settings.database.with_file_name("none"));
    let refused = Accounts::open(&settings, std::sync::Arc::new(Revocations::new()));
    assert!(matches!(refused, Err(OpenError::Breached(_))));
}
