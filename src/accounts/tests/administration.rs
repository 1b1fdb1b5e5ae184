//! What administrators may do: AUTH-10.

use super::{Site, password};
use crate::{
    accounts::{AccountError, Actor, Edit, LastAdmin, NewAccount, NewInvitation},
    policy::Rejection,
    store::User,
};

const NO_ROLES: Edit<'static> = Edit {
    email: None,
    name: None,
    password: None,
    roles: Some(&[]),
    disabled: None,
};

async fn with_admins(names: &[&str]) -> (Site, Vec<User>) {
    let site = Site::new();
    let mut users = Vec::new();
    for name in names {
        site.add(name, &["admin"]).await;
        users.push(site.accounts.user(name).await.unwrap());
    }
    (site, users)
}

fn by(user: &User) -> Actor<'_> {
    Actor::Administrator(&user.id)
}

#[tokio::test]
async fn auth_10_the_last_administrator_stays() {
    let (site, admins) = with_admins(&["ann"]).await;
    let ann = &admins[0];
    // Whoever cannot sign in does not count.
    site.add("shut", &["admin"]).await;
    site.accounts
        .disable_user("shut", LastAdmin::Stays)
        .await
        .unwrap();
    site.add("almost", &["administrator", "xadmin", "admin2"])
        .await;
    let grant = site.login("ann").await;
    let shut = Edit {
        disabled: Some(true),
        ..Edit::default()
    };
    for edit in [NO_ROLES, shut] {
        let done = site.accounts.edit_user(by(ann), &ann.id, edit).await;
        assert!(matches!(done, Err(AccountError::LastAdmin)));
    }
    let done = site.accounts.erase_user(by(ann), &ann.id).await;
    assert!(matches!(done, Err(AccountError::LastAdmin)));
    assert!(site.is_live(&grant), "nothing was changed");
    assert!(site.accounts.has_admin().await.unwrap());
}

#[tokio::test]
async fn auth_10_commands_remove_the_last_administrator_by_force_alone() {
    for how in ["delete", "disable", "demote"] {
        let (site, _) = with_admins(&["ann", "bob"]).await;
        let grant = site.login("ann").await;
        let remove = async |name: &str, last| match how {
            "delete" => site.accounts.delete_user(name, last).await,
            "disable" => site.accounts.disable_user(name, last).await,
            _ => {
                let roles = ["administrator".to_owned()];
                site.accounts.set_roles(name, &roles, last).await
            }
        };
        assert_eq!(remove("bob", LastAdmin::Stays).await, Ok(()), "{how}");
        let refused = remove("ann", LastAdmin::Stays).await;
        assert_eq!(refused, Err(AccountError::LastAdmin), "{how}");
        assert!(site.is_live(&grant), "{how}: nothing was changed");
        assert!(site.accounts.has_admin().await.unwrap());
        // Other roles may change as long as that one stays.
        let roles = ["clerk".to_owned(), "admin".to_owned()];
        let kept = site.accounts.set_roles("ann", &roles, LastAdmin::Stays);
        assert_eq!(kept.await, Ok(()), "{how}");
        assert_eq!(remove("ann", LastAdmin::MayGo).await, Ok(()), "{how}");
        assert!(!site.is_live(&grant), "{how}");
        assert!(!site.accounts.has_admin().await.unwrap());
        site.accounts.bootstrap().await.unwrap();
    }
}

#[tokio::test]
async fn auth_10_of_two_administrators_who_demote_each_other_at_once_one_stays() {
    for _ in 0..10 {
        let (site, admins) = with_admins(&["ann", "bob"]).await;
        let other = site.beside();
        let (ann, bob) = (&admins[0], &admins[1]);
        let (one, two) = tokio::join!(
            site.accounts.edit_user(by(ann), &bob.id, NO_ROLES),
            other.accounts.edit_user(by(bob), &ann.id, NO_ROLES),
        );
        assert!(one.is_ok() != two.is_ok());
        assert!(site.accounts.has_admin().await.unwrap());
    }
}

#[tokio::test]
async fn auth_10_whoever_is_no_administrator_any_more_does_nothing() {
    let (site, admins) = with_admins(&["ann", "bob", "carl"]).await;
    let [ann, bob, carl] = &admins[..] else {
        panic!()
    };
    site.accounts
        .edit_user(by(ann), &bob.id, NO_ROLES)
        .await
        .unwrap();
    site.accounts
        .disable_user("carl", LastAdmin::Stays)
        .await
        .unwrap();
    site.add("dora", &["clerk"]).await;
    let dora = site.accounts.user("dora").await.unwrap();
    for actor in [bob, carl, &dora] {
        let admin = Edit {
            roles: Some(&["admin".into()]),
            ..Edit::default()
        };
        let new = NewAccount {
            username: "eve",
            email: "eve@example.com",
            name: None,
            password: None,
            roles: &["admin".into()],
        };
        let accounts = &site.accounts;
        let invitation = NewInvitation {
            roles: &[],
            email: None,
            ttl: std::time::Duration::from_secs(60),
            send: false,
        };
        let tries = [
            accounts.edit_user(by(actor), &actor.id, admin).await.err(),
            accounts.create_user(by(actor), new).await.err(),
            accounts.erase_user(by(actor), &ann.id).await.err(),
            accounts.sign_out(by(actor), &ann.id).await.err(),
            accounts.invite(by(actor), invitation).await.err(),
            accounts.revoke_invite(by(actor), "x").await.err(),
        ];
        for done in tries {
            assert_eq!(done, Some(AccountError::Forbidden));
        }
    }
    let made_up = site.accounts.sign_out(Actor::Administrator(""), &ann.id);
    assert_eq!(made_up.await, Err(AccountError::Forbidden));
    assert_eq!(site.accounts.users("", 100).await.unwrap().len(), 4);
}

#[tokio::test]
async fn auth_10_what_is_changed_ends_sessions_and_a_display_name_does_not() {
    let (site, admins) = with_admins(&["ann"]).await;
    let ann = &admins[0];
    site.add("bob", &["clerk"]).await;
    let bob = site.accounts.user("bob").await.unwrap();
    let grant = site.login("bob").await;
    let named = Edit {
        name: Some(Some("Bob")),
        ..Edit::default()
    };
    let after = site.accounts.edit_user(by(ann), &bob.id, named).await;
    assert_eq!(after.unwrap().name.as_deref(), Some("Bob"));
    assert!(site.is_live(&grant));
    let edits = [
        Edit {
            roles: Some(&["clerk".into()]),
            ..Edit::default()
        },
        Edit {
            email: Some("Robert@example.com"),
            ..Edit::default()
        },
        Edit {
            disabled: Some(false),
            name: Some(None),
            ..Edit::default()
        },
    ];
    for edit in edits {
        let grant = site.login("bob").await;
        site.accounts
            .edit_user(by(ann), &bob.id, edit)
            .await
            .unwrap();
        assert!(!site.is_live(&grant));
        let refreshed = site.refresh(grant.token()).await;
        assert_eq!(refreshed.unwrap_err(), Rejection::InvalidGrant);
    }
    let bob = site.accounts.user("robert@example.com").await.unwrap();
    assert_eq!((&*bob.username, bob.name), ("bob", None));
}

#[tokio::test]
async fn auth_10_a_refused_edit_changes_no_part_of_the_account() {
    let (site, admins) = with_admins(&["ann"]).await;
    let ann = &admins[0];
    site.add("bob", &["clerk"]).await;
    let bob = site.accounts.user("bob").await.unwrap();
    let taken = Edit {
        email: Some("ann@example.com"),
        roles: Some(&["admin".into()]),
        ..Edit::default()
    };
    let short = Edit {
        password: Some(password("short")),
        roles: Some(&["admin".into()]),
        ..Edit::default()
    };
    for (edit, want) in [
        (taken, AccountError::Exists),
        (short, AccountError::PasswordTooShort { min: 15 }),
    ] {
        let done = site.accounts.edit_user(by(ann), &bob.id, edit).await;
        assert_eq!(done.unwrap_err(), want);
    }
    let after = site.accounts.user("bob").await.unwrap();
    assert_eq!((after.roles, after.epoch), (bob.roles, bob.epoch));
    let unknown = site.accounts.edit_user(by(ann), "x", NO_ROLES).await;
    assert!(matches!(unknown, Err(AccountError::NotFound)));
    site.accounts.erase_user(by(ann), &bob.id).await.unwrap();
    let gone = site.accounts.edit_user(by(ann), &bob.id, NO_ROLES).await;
    assert!(matches!(gone, Err(AccountError::NotFound)));
}

#[tokio::test]
async fn log_4_who_did_what_to_whom_is_written_down() {
    let log = super::Log::default();
    let _listening = log.listen();
    let (site, admins) = with_admins(&["ann"]).await;
    site.add("bob", &[]).await;
    let bob = site.accounts.user("bob").await.unwrap();
    let edit = Edit {
        roles: Some(&["clerk".into()]),
        password: Some(password("another horse battery staple")),
        ..Edit::default()
    };
    site.accounts
        .edit_user(by(&admins[0]), &bob.id, edit)
        .await
        .unwrap();
    let text = log.text();
    let line = text.lines().find(|line| line.contains("user_changed"));
    let line = line.unwrap();
    assert!(line.contains(&*admins[0].id) && line.contains(&*bob.id));
    assert!(line.contains("roles=clerk password"), "{line}");
    assert!(!text.contains("another horse"));
}
