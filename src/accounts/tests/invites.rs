//! Registration and invitations: AUTH-6, AUTH-7.

use std::time::Duration;

use super::{CLIENT, PASSWORD, Registration, Site, password};
use crate::{
    accounts::{AccountError, Actor, Enrolled, NewAccount, NewInvitation, Registered},
    policy::{HeadFault, Rejection},
    store::User,
};

fn site(registration: Registration) -> Site {
    Site::with(|settings| settings.registration = registration)
}

async fn register(site: &Site, by: Registered<'_>, name: &str) -> Result<User, Rejection> {
    let email = format!("{name}@example.com");
    register_as(site, by, name, &email).await
}

async fn register_as(
    site: &Site,
    by: Registered<'_>,
    name: &str,
    email: &str,
) -> Result<User, Rejection> {
    let new = NewAccount {
        username: name,
        email,
        name: None,
        password: Some(password(PASSWORD)),
        roles: &["admin".into()], // not looked at
    };
    match site.accounts.register(by, new, CLIENT).await? {
        Enrolled::Made(user) => Ok(user),
        Enrolled::Pending => panic!("there is no mail"),
    }
}

async fn invitation(site: &Site, roles: &[&str], email: Option<&str>) -> String {
    let roles: Vec<String> = roles.iter().map(|role| (*role).into()).collect();
    let new = NewInvitation {
        roles: &roles,
        email,
        ttl: Duration::from_secs(3600),
        send: false,
    };
    let made = site.accounts.invite(Actor::Operator, new).await;
    made.unwrap().secret.unwrap().reveal().to_string()
}

async fn bootstrap(site: &Site) -> String {
    let made = site.accounts.bootstrap().await.unwrap();
    made.secret.reveal().to_string()
}

#[tokio::test]
async fn auth_7_the_first_who_comes_is_no_administrator() {
    let site = site(Registration::Open);
    let user = register(&site, Registered::Oneself, "ann").await.unwrap();
    assert!(user.roles.is_empty());
    assert!(!site.accounts.has_admin().await.unwrap());
}

#[tokio::test]
async fn auth_7_whoever_registers_himself_gets_no_name_that_backends_give_rights_to() {
    let site = site(Registration::Open);
    let invitation = invitation(&site, &[], None).await;
    let refused = Rejection::BadRequest(HeadFault::Body);
    for name in ["admin", "Root", "www-data"] {
        for by in [Registered::Oneself, Registered::Invite(&invitation)] {
            assert_eq!(register(&site, by, name).await.unwrap_err(), refused);
        }
    }
    let by = Registered::Invite(&invitation);
    register(&site, by, "admins").await.unwrap();
    let secret = bootstrap(&site).await;
    let first = register(&site, Registered::Bootstrap(&secret), "admin").await;
    assert_eq!(&*first.unwrap().username, "admin");
    site.add("support", &[]).await;
}

#[tokio::test]
async fn auth_7_the_bootstrap_secret_works_once() {
    let site = site(Registration::Closed);
    let secret = bootstrap(&site).await;
    let by = Registered::Bootstrap(&secret);
    let first = register(&site, by, "ann").await.unwrap();
    assert_eq!(first.roles, ["admin".into()]);
    assert_eq!(
        register(&site, by, "bob").await.unwrap_err(),
        Rejection::LinkInvalid
    );
    assert!(matches!(
        site.accounts.bootstrap().await,
        Err(AccountError::AdminExists)
    ));
}

#[tokio::test]
async fn auth_7_of_many_who_have_the_bootstrap_secret_one_gets_it() {
    let site = site(Registration::Closed);
    let secret = bootstrap(&site).await;
    let by = Registered::Bootstrap(&secret);
    let names: Vec<_> = (0..8).map(|i| format!("user{i}")).collect();
    let tries = names.iter().map(|name| register(&site, by, name));
    let done = futures_util::future::join_all(tries).await;
    assert_eq!(done.iter().filter(|done| done.is_ok()).count(), 1);
    assert_eq!(site.accounts.users("", 100).await.unwrap().len(), 1);
}

#[tokio::test]
async fn auth_7_a_bootstrap_secret_is_worth_nothing_when_over_replaced_or_beside_an_administrator()
{
    let site = site(Registration::Invite);
    let old = bootstrap(&site).await;
    let new = bootstrap(&site).await;
    let refused = async |secret: &str| {
        let done = register(&site, Registered::Bootstrap(secret), "eve").await;
        assert_eq!(done.unwrap_err(), Rejection::LinkInvalid);
    };
    refused(&old).await;
    refused("x").await;
    refused("").await;
    // Neither kind is good for the other.
    let invitation = invitation(&site, &["admin"], None).await;
    refused(&invitation).await;
    let done = register(&site, Registered::Invite(&new), "eve").await;
    assert_eq!(done.unwrap_err(), Rejection::LinkInvalid);
    site.advance(24 * 3600);
    refused(&new).await;
    let newest = bootstrap(&site).await;
    site.add("ann", &["admin"]).await;
    refused(&newest).await;
    assert_eq!(site.accounts.users("", 100).await.unwrap().len(), 1);
}

#[tokio::test]
async fn auth_7_an_invitation_is_good_once_in_time_and_for_its_address() {
    let site = site(Registration::Invite);
    let bound = invitation(&site, &["clerk"], Some("Bob@Example.com")).await;
    let by = Registered::Invite(&bound);
    let refused = async |by, name| {
        let done = register(&site, by, name).await;
        assert_eq!(done.unwrap_err(), Rejection::LinkInvalid, "{name}");
    };
    refused(Registered::Oneself, "eve").await;
    refused(Registered::Invite("made up"), "eve").await;
    refused(by, "eve").await;
    let bob = register(&site, by, "bob").await.unwrap();
    assert_eq!(bob.roles, ["clerk".into()]);
    refused(by, "bob").await;
    let late = invitation(&site, &[], None).await;
    site.advance(3600);
    refused(Registered::Invite(&late), "eve").await;
    let back = invitation(&site, &[], None).await;
    let waiting = site.accounts.invites().await.unwrap();
    assert_eq!(waiting.len(), 1);
    let id = &waiting[0].id;
    site.accounts
        .revoke_invite(Actor::Operator, id)
        .await
        .unwrap();
    refused(Registered::Invite(&back), "eve").await;
    let again = site.accounts.revoke_invite(Actor::Operator, id).await;
    assert!(matches!(again, Err(AccountError::NotFound)));
}

#[tokio::test]
async fn an_invitation_survives_a_taken_name_and_a_bad_password() {
    let site = site(Registration::Invite);
    site.add("ann", &[]).await;
    let invitation = invitation(&site, &[], None).await;
    let by = Registered::Invite(&invitation);
    let taken = register(&site, by, "ann").await;
    assert_eq!(taken.unwrap_err(), Rejection::AccountExists);
    let new = NewAccount {
        username: "bob",
        email: "bob@example.com",
        name: None,
        password: Some(password("short")),
        roles: &[],
    };
    site.accounts.register(by, new, CLIENT).await.unwrap_err();
    register(&site, by, "bob").await.unwrap();
}

#[tokio::test]
async fn closed_registration_takes_nobody() {
    let site = site(Registration::Closed);
    let invitation = invitation(&site, &[], None).await;
    for by in [Registered::Oneself, Registered::Invite(&invitation)] {
        let done = register(&site, by, "eve").await;
        assert_eq!(done.unwrap_err(), Rejection::RouteNotFound);
    }
}

#[tokio::test]
async fn auth_6_of_variants_of_one_name_or_address_that_register_at_once_one_wins() {
    let site = site(Registration::Open);
    let variants = [
        ("ann", "a1@example.com"),
        ("ANN", "a2@example.com"),
        ("Ann", "a3@example.com"),
        ("bob", "same@example.com"),
        ("carl", "SAME@example.com"),
        ("dora", "Same@Example.COM"),
    ];
    let tries = variants.map(|(name, email)| register_as(&site, Registered::Oneself, name, email));
    let done = futures_util::future::join_all(tries).await;
    let (names, addresses) = done.split_at(3);
    for done in [names, addresses] {
        assert_eq!(done.iter().filter(|done| done.is_ok()).count(), 1);
        let lost = done.iter().filter_map(|done| done.as_ref().err());
        assert!(
            lost.into_iter()
                .all(|lost| *lost == Rejection::AccountExists)
        );
    }
    // Letters that look or fold alike are in no name at all.
    for name in ["ａｎｎ2", "аnn2", "ann\u{200b}2", "K\u{212a}", "ſam"] {
        let done = register_as(&site, Registered::Oneself, name, "x@example.com").await;
        assert!(matches!(done, Err(Rejection::BadRequest(_))), "{name}");
    }
}

#[tokio::test]
async fn rate_4_registrations_of_one_address_are_limited() {
    let site = Site::with(|settings| {
        settings.registration = Registration::Open;
        settings.register_per_ip.burst = 2;
        settings.register_per_ip.count = 2;
        settings.register_per_ip.window = Duration::from_secs(3600);
    });
    register(&site, Registered::Oneself, "ann").await.unwrap();
    register(&site, Registered::Oneself, "ann")
        .await
        .unwrap_err();
    let third = register(&site, Registered::Oneself, "bob").await;
    assert!(matches!(third, Err(Rejection::RateLimited(_))));
}

#[tokio::test]
async fn key_2_secrets_of_invitations_are_neither_in_the_log_nor_in_the_store() {
    let log = super::Log::default();
    let _listening = log.listen();
    let site = site(Registration::Invite);
    let secret = invitation(&site, &["clerk"], None).await;
    register(&site, Registered::Invite(&secret), "ann")
        .await
        .unwrap();
    let left = invitation(&site, &[], None).await;
    assert!(log.text().contains("invite_made"));
    assert!(log.text().contains("user_registered"));
    assert!(!log.text().contains(&secret));
    let folder = site.settings.database.parent().unwrap();
    for suffix in ["", "-wal"] {
        let bytes = std::fs::read(folder.join(format!("portcullis.db{suffix}"))).unwrap();
        let held = bytes
            .windows(left.len())
            .any(|window| window == left.as_bytes());
        assert!(!held);
    }
}
