//! Names and addresses have one form: AUTH-6.

use super::{PASSWORD, Site, password};
use crate::accounts::{AccountError, LastAdmin, NewUser, canonical_email, canonical_username};

#[track_caller]
fn name(typed: &str, want: Option<&str>) {
    assert_eq!(canonical_username(typed).as_deref(), want, "{typed:?}");
}

#[track_caller]
fn email(typed: &str, want: Option<&str>) {
    assert_eq!(canonical_email(typed).as_deref(), want, "{typed:?}");
}

#[test]
fn auth_6_names_outside_the_alphabet_are_none() {
    for typed in [
        "",
        " ",
        "ann ",
        " ann",
        "a nn",
        "a@b",
        "a/b",
        "a\\b",
        "a\0b",
        "a\nb",
        "a,b",
        "a:b",
        "a\"b",
        ".ann",
        "-ann",
        "_ann",
        "ann\u{e9}",
        "\u{430}nn",
        "\u{ff41}nn",
        "\u{212a}arl",
        "\u{131}vo",
        "an\u{200b}n",
        "<ann>",
        "a=b",
        "a;b",
        "a%b",
    ] {
        name(typed, None);
    }
    name(&"a".repeat(65), None);
    name(&"a".repeat(64), Some(&"a".repeat(64)));
    name("Ann.B_c-9", Some("ann.b_c-9"));
    name("0", Some("0"));
}

#[test]
fn auth_6_addresses_that_are_not_one_plain_mailbox_are_none() {
    for typed in [
        "",
        "@",
        "ann",
        "ann@",
        "@example.com",
        "ann@localhost",
        "ann@@example.com",
        "a@b@example.com",
        "ann@example..com",
        "ann@.example.com",
        "ann@example.com.",
        "ann@-example.com",
        "ann@example-.com",
        ".ann@example.com",
        "ann.@example.com",
        "a..b@example.com",
        "\"ann\"@example.com",
        "ann@[127.0.0.1]",
        "ann @example.com",
        "ann@example.com ",
        "Ann <ann@example.com>",
        "ann@example.com,bob@example.com",
        "ann@example.com\r\nBcc: x@example.com",
        "ann@ex\u{e4}mple.com",
        "\u{e4}nn@example.com",
        "ann(x)@example.com",
        "ann@exam_ple.com",
    ] {
        email(typed, None);
    }
    email(&format!("{}@example.com", "a".repeat(65)), None);
    email(&format!("a@{}.com", "a".repeat(64)), None);
    email(&format!("a@{}com", "abc.".repeat(63)), None);
    email("Ann.B+tag@Example.COM", Some("ann.b+tag@example.com"));
    email(
        "o'hara@xn--exmple-cua.com",
        Some("o'hara@xn--exmple-cua.com"),
    );
}

#[tokio::test]
async fn auth_6_of_concurrent_variants_of_a_name_one_wins() {
    let site = Site::new();
    let variants = ["ann", "Ann", "aNN", "ANN"];
    let adding = variants.iter().enumerate().map(|(index, name)| {
        let accounts = &site.accounts;
        async move {
            let email = format!("ann{index}@example.com");
            let new = NewUser {
                username: name,
                email: &email,
                name: None,
                password: password(PASSWORD),
                roles: &[],
            };
            accounts.add_user(new).await.map(|_| ())
        }
    });
    let results = futures_util::future::join_all(adding).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    let taken = Err(AccountError::Exists);
    assert_eq!(results.iter().filter(|result| **result == taken).count(), 3);
}

#[tokio::test]
async fn auth_6_an_address_belongs_to_one_account_and_a_deleted_name_to_nobody_else() {
    let site = Site::new();
    site.add("ann", &[]).await;
    let new = |username| NewUser {
        username,
        email: "ANN@example.com",
        name: None,
        password: password(PASSWORD),
        roles: &[],
    };
    let refused = site.accounts.add_user(new("bob")).await;
    assert_eq!(refused.unwrap_err(), AccountError::Exists);
    site.accounts
        .delete_user("ann", LastAdmin::Stays)
        .await
        .unwrap();
    assert!(site.try_login("ann", PASSWORD).await.is_err());
    assert!(site.accounts.enable_user("ann").await.is_err());
    let refused = site.accounts.add_user(new("ann")).await;
    assert_eq!(refused.unwrap_err(), AccountError::Exists);
    site.accounts.add_user(new("bob")).await.unwrap();
}

#[tokio::test]
async fn auth_7_roles_and_display_names_are_bounded_words() {
    let site = Site::new();
    for (role, fine) in [
        ("admin", true),
        ("orders:read", true),
        ("", false),
        ("two words", false),
        ("a,b", false),
        ("caf\u{e9}", false),
        ("x\r\ny", false),
    ] {
        let roles = [role.to_owned()];
        let email = format!("u{}@example.com", role.len());
        let new = NewUser {
            username: &format!("u{}", role.len()),
            email: &email,
            name: Some("A B"),
            password: password(PASSWORD),
            roles: &roles,
        };
        assert_eq!(site.accounts.add_user(new).await.is_ok(), fine, "{role:?}");
    }
    for name in [
        "",
        "  ",
        "a\nb",
        "a\u{0}b",
        "a\u{202e}b",
        "a\u{2066}b",
        "a\u{2028}b",
        &"x".repeat(129),
    ] {
        let new = NewUser {
            username: "zoe",
            email: "zoe@example.com",
            name: Some(name),
            password: password(PASSWORD),
            roles: &[],
        };
        let refused = site.accounts.add_user(new).await.unwrap_err();
        assert_eq!(refused, AccountError::DisplayNameInvalid, "{name:?}");
    }
}
