//! Who gets in: AUTH-1, AUTH-3, AUTH-4, AUTH-8, AUTH-11, LOG-1.

use std::time::Duration;

use zeroize::Zeroizing;

use super::{Log, PASSWORD, Site, password};
use crate::{
    accounts::{AccountError, Client, LastAdmin, Login, NewUser, Password},
    limit::settings::Quota,
    policy::Rejection,
};

fn overwrite_hash(site: &Site, hash: Option<&str>) {
    let connection = rusqlite::Connection::open(&site.settings.database).unwrap();
    let changed = connection.execute("UPDATE users SET password = ?1", [hash]);
    assert_eq!(changed.unwrap(), 1);
}

fn stored_hash(site: &Site) -> String {
    rusqlite::Connection::open(&site.settings.database)
        .unwrap()
        .query_row("SELECT password FROM users", [], |row| row.get(0))
        .unwrap()
}

#[tokio::test]
async fn auth_1_every_failed_login_is_refused_alike() {
    let site = Site::new();
    site.add("ann", &[]).await;
    site.add("dan", &[]).await;
    site.accounts
        .disable_user("dan", LastAdmin::Stays)
        .await
        .unwrap();
    for (name, secret) in [
        ("ann", "wrong horse battery staple"),
        ("ann", ""),
        ("ann@example.com", "wrong horse battery staple"),
        ("bob", PASSWORD),
        ("bob@example.com", PASSWORD),
        ("dan", PASSWORD),
        ("no such name", PASSWORD),
        ("", PASSWORD),
        ("' OR 1=1 --", PASSWORD),
    ] {
        let refusal = site.try_login(name, secret).await.unwrap_err();
        assert_eq!(refusal, Rejection::InvalidCredentials, "{name:?}");
    }
    site.login("ann").await;
}

#[tokio::test]
async fn auth_1_an_account_without_password_cannot_be_entered() {
    let site = Site::new();
    site.add("ann", &[]).await;
    overwrite_hash(&site, None);
    for secret in ["", PASSWORD] {
        let refusal = site.try_login("ann", secret).await.unwrap_err();
        assert_eq!(refusal, Rejection::InvalidCredentials);
    }
}

#[tokio::test]
async fn auth_1_login_limit_counts_unknown_accounts_too() {
    let few = Quota {
        count: 5,
        window: Duration::from_secs(900),
        burst: 5,
    };
    let site = Site::with(|settings| settings.login_per_account = few);
    site.add("ann", &[]).await;
    for name in ["ann", "bob"] {
        for _ in 0..5 {
            let refusal = site.try_login(name, "wrong").await.unwrap_err();
            assert_eq!(refusal, Rejection::InvalidCredentials, "{name}");
        }
        let refusal = site.try_login(name, PASSWORD).await.unwrap_err();
        assert_eq!(refusal.code(), "rate_limited", "{name}");
    }
    // The same account by its other name and in other letters.
    for name in ["ann@example.com", "ANN", "BOB"] {
        let refusal = site.try_login(name, PASSWORD).await.unwrap_err();
        assert_eq!(refusal.reason(), Some("login_per_account"), "{name}");
    }
}

#[tokio::test]
async fn auth_1_login_limit_holds_per_client_over_all_accounts() {
    let few = Quota {
        count: 3,
        window: Duration::from_secs(60),
        burst: 3,
    };
    let site = Site::with(|settings| settings.login_per_ip = few);
    for name in ["a", "b", "c"] {
        let refusal = site.try_login(name, "wrong").await.unwrap_err();
        assert_eq!(refusal, Rejection::InvalidCredentials);
    }
    let refusal = site.try_login("d", "wrong").await.unwrap_err();
    assert_eq!(refusal.reason(), Some("login_per_ip"));
}

#[tokio::test]
async fn auth_3_stored_hashes_that_are_malformed_or_too_dear_fail_generically_with_an_alert() {
    let site = Site::new();
    site.add("ann", &[]).await;
    let good = stored_hash(&site);
    for (name, stored) in [
        ("empty", String::new()),
        ("not PHC", "hunter2".into()),
        (
            "bcrypt",
            "$2b$12$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ01234".into(),
        ),
        ("4 GiB", good.replace("m=64", "m=4194304")),
        ("just above the ceiling", good.replace("m=64", "m=262145")),
        ("passes", good.replace("t=2", "t=4000000000")),
        ("lanes", good.replace("p=1", "p=16777215")),
        ("no parameters", good.replace("m=64,t=2,p=1$", "")),
        (
            "number too long",
            good.replace("m=64", "m=99999999999999999999"),
        ),
        ("non-ASCII", good.replace("m=64", "m=６４")),
        ("no output", good.rsplit_once('$').unwrap().0.into()),
        (
            "short output",
            format!("{}$AAAAAAAAAAAAAA", good.rsplit_once('$').unwrap().0),
        ),
        ("other algorithm", good.replace("argon2id", "scrypt")),
        ("unknown version", good.replace("v=19", "v=99")),
    ] {
        overwrite_hash(&site, Some(&stored));
        let refusal = site.try_login("ann", PASSWORD).await.unwrap_err();
        assert_eq!(refusal, Rejection::InvalidCredentials, "{name}");
    }
    overwrite_hash(&site, Some(&good));
    site.login("ann").await;
}

#[tokio::test]
async fn auth_3_a_good_login_upgrades_an_old_hash_and_keeps_sessions() {
    let site = Site::new();
    site.add("ann", &[]).await;
    let before = site.login("ann").await;
    let old = stored_hash(&site);
    let mut stronger = site.settings.clone();
    stronger.argon2.memory_kib = 128;
    let upgraded = Site::open(site.folder.clone(), stronger, site.now.clone());
    upgraded
        .try_login("ann", "wrong horse battery staple")
        .await
        .unwrap_err();
    assert_eq!(stored_hash(&site), old);
    upgraded.login("ann").await;
    let new = stored_hash(&site);
    assert!(new.contains("m=128,t=2,p=1"), "{new}");
    upgraded.login("ann").await;
    assert_eq!(stored_hash(&site), new, "upgraded once");
    upgraded.refresh(before.token()).await.unwrap();
}

#[tokio::test]
async fn auth_4_length_bounds_hold_in_characters_and_bytes() {
    let text = |text: String| Password::new(Zeroizing::new(text));
    assert!(text("x".repeat(256)).is_ok());
    assert!(text("\u{1f512}".repeat(256)).is_ok(), "1024 bytes");
    assert_eq!(
        text("x".repeat(257)).unwrap_err(),
        AccountError::PasswordTooLong
    );
    assert!(text("e\u{301}".repeat(129)).is_err(), "258 characters");
    let site = Site::new();
    let various = |chars: usize| -> String {
        "pq vz ÿ"
            .chars()
            .cycle()
            .enumerate()
            .map(|(at, char)| {
                if at % 3 == 0 {
                    char::from_u32(0x430 + u32::try_from(at % 31).unwrap()).unwrap()
                } else {
                    char
                }
            })
            .take(chars)
            .collect()
    };
    let locks = |chars: u32| -> String {
        (0..chars)
            .map(|at| char::from_u32(0x1f512 + at).unwrap())
            .collect()
    };
    for (name, secret, fine) in [
        ("short", various(14), false),
        ("emoji", locks(14), false),
        ("least", various(15), true),
        ("emoji-least", locks(15), true),
        ("long", various(256), true),
    ] {
        let email = format!("{name}@example.com");
        let new = NewUser {
            username: name,
            email: &email,
            name: None,
            password: password(&secret),
            roles: &[],
        };
        let added = site.accounts.add_user(new).await;
        assert_eq!(added.is_ok(), fine, "{name}");
        assert_eq!(site.try_login(name, &secret).await.is_ok(), fine, "{name}");
    }
}

#[tokio::test]
async fn auth_4_passwords_are_compared_exactly() {
    let site = Site::new();
    let at_73 = "x".repeat(72);
    for (index, (right, wrong)) in [
        (format!("{at_73}a"), format!("{at_73}b")),
        ("nul\0after and more".into(), "nul\0after and mOre".into()),
        ("nul\0after and more".into(), "nul".to_owned()),
        (
            " leading and trailing ".into(),
            "leading and trailing".into(),
        ),
        ("Capitals matter here".into(), "capitals matter here".into()),
        (
            "caf\u{e9} au lait, please".into(),
            "cafe\u{301} au lait, please".into(),
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("user{index}");
        let email = format!("{name}@example.com");
        let new = NewUser {
            username: &name,
            email: &email,
            name: None,
            password: password(&right),
            roles: &[],
        };
        site.accounts.add_user(new).await.unwrap();
        assert!(site.try_login(&name, &wrong).await.is_err(), "{wrong:?}");
        assert!(site.try_login(&name, &right).await.is_ok(), "{right:?}");
    }
}

#[tokio::test]
async fn auth_8_each_login_is_a_session_of_its_own() {
    let site = Site::new();
    site.add("ann", &["clerk"]).await;
    let first = site.login("ann").await;
    let second = site.try_login("ANN@Example.com", PASSWORD).await.unwrap();
    assert_ne!(first.session, second.session);
    assert_ne!(*first.token().reveal(), *second.token().reveal());
    let claims = site.claims(&first.access_token).unwrap();
    assert_eq!(*claims.issuer_name, *"portcullis");
    assert_eq!(claims.user.as_deref(), Some("ann"));
    assert_eq!(claims.email.as_deref(), Some("ann@example.com"));
    assert_eq!(claims.subject, first.user.id);
    assert_eq!(claims.session.as_deref(), Some(&*first.session));
    assert_eq!(claims.roles, ["clerk".into()]);
    for name in [
        "iss", "aud", "sub", "exp", "iat", "nbf", "jti", "sid", "roles", "scope",
    ] {
        assert!(claims.all.contains_key(name), "{name}");
    }
}

#[tokio::test]
async fn log_1_a_login_leaves_no_secret_in_the_log() {
    let site = Site::new();
    let log = Log::default();
    let guard = log.listen();
    site.add("ann", &[]).await;
    let hash = stored_hash(&site);
    let grant = site.login("ann").await;
    let next = site.refresh(grant.token()).await.unwrap();
    site.try_login("ann", "canary horse battery staple")
        .await
        .unwrap_err();
    site.try_login("typed-password-as-name", "x")
        .await
        .unwrap_err();
    site.accounts.logout(next.token()).await.unwrap();
    tracing::debug!(?grant, accounts = ?site.accounts, password = ?password(PASSWORD));
    drop(guard);
    let text = log.text();
    assert!(text.contains("login_refused") && text.contains("session_ended"));
    let revealed = [grant.token().reveal(), next.token().reveal()];
    for secret in [
        PASSWORD,
        "canary",
        "typed-password-as-name",
        &hash,
        &revealed[0],
        &revealed[1],
    ] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    let signature = grant.access_token.rsplit('.').next().unwrap();
    assert!(!text.contains(signature), "{text}");
}

#[tokio::test]
async fn auth_1_login_limit_counts_an_ipv6_network_as_one_client() {
    let few = Quota {
        count: 3,
        window: Duration::from_secs(60),
        burst: 3,
    };
    let site = Site::with(|settings| settings.login_per_ip = few);
    let attempt = async |ip: &str| {
        let login = Login {
            device: None,
            name: "ann",
            password: password("wrong"),
            client: Client {
                ip: ip.parse().unwrap(),
                device: None,
            },
        };
        site.accounts.login(login).await.unwrap_err().code()
    };
    for last in 1..=3 {
        let code = attempt(&format!("2001:db8:0:1:{last}::{last}")).await;
        assert_eq!(code, "invalid_credentials");
    }
    assert_eq!(attempt("2001:db8:0:1:ffff::9").await, "rate_limited");
    assert_eq!(attempt("2001:db8:0:2::9").await, "invalid_credentials");
}
