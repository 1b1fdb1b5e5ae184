//! `[accounts]`: who may have one, and what sessions and attempts are bounded by.

use super::*;
use crate::accounts::settings::Registration;

#[test]
fn accounts() {
    refused_each(
        "[accounts]",
        r#"
        enabled = 1                            | accounts.enabled            | expected true or false
        path = ""                              | accounts.path               | is empty
        path = "/"                             | accounts.path               | cannot hold
        path = "/auth/"                        | accounts.path               | cannot hold
        path = "auth"                          | accounts.path               | cannot hold
        path = "/a/../b"                       | accounts.path               | cannot hold
        store = ""                             | accounts.store              | is empty
        store = "sqlite:"                      | accounts.store              | names no file
        store = "sqlite::memory:"              | accounts.store              | not the path of a file
        store = "sqlite:x.db?mode=memory"      | accounts.store              | not the path of a file
        store = "data/x.db"                    | accounts.store              | not a store
        store = "postgres://h/db"              | accounts.store              | names no user
        store = "mysql://u@h/db"               | accounts.store              | not a store
        audience = []                          | accounts.audience           | empty list
        access_ttl = "16m"                     | accounts.access_ttl         | above the most
        access_ttl = "0s"                      | accounts.access_ttl         | below the least
        refresh_idle = "31d"                   | accounts.refresh_idle       | longer than refresh_max
        refresh_max = "1d"                     | accounts.refresh_max        | longer than refresh_max
        refresh_grace = "61s"                  | accounts.refresh_grace      | above the most
        register_limit = { per_ip = "0/1h" }   | accounts.register_limit.per_ip | not a rate
        refresh_limit = { per_session = "0/1h" }  | accounts.refresh_limit.per_session | not a rate
        refresh_limit = { per_session = "9/1h" }  | accounts.refresh_limit.per_session | 10 or more
        refresh_limit = { per_session = "100/1d" } | accounts.refresh_limit.per_session | two or more in each access_ttl
        refresh_limit = { per_session = "999/2d" } | accounts.refresh_limit.per_session | above the most
        refresh_limit = { per_ip = "120/1h" }  | accounts.refresh_limit.per_ip | unknown key
        refresh_limit = "120/1h"               | accounts.refresh_limit      | expected a table
        registration = "opne"                  | accounts.registration       | none of the values
        signing = "ES384"                      | accounts.signing            | none of the values
        signing = "none"                       | accounts.signing            | none of the values
        password_min = 7                       | accounts.password_min       | below the least
        pages = { logo = "no/such/file" }      | accounts.pages.logo         | cannot be read
        pages = { logo = "certs/site.crt" }    | accounts.pages.logo         | is neither SVG
        breached_passwords = "no/such/file"    | accounts.breached_passwords | cannot be read
        breached_passwords = "certs"           | accounts.breached_passwords | cannot be read
        argon2 = { memory = "18MiB" }          | accounts.argon2.memory      | below the least
        argon2 = { iterations = 1 }            | accounts.argon2.iterations  | below the least
        argon2 = { parallelism = 0 }           | accounts.argon2.parallelism | below the least
        login_limit = { per_ip = "0/1m" }      | accounts.login_limit.per_ip | not a rate
        login_limit = { per_account = "" }     | accounts.login_limit.per_account | is empty
        login_limit = "5/1m"                   | accounts.login_limit        | expected a table
        login_limit = { failures = "101/1d" }  | accounts.login_limit.failures | 10 to 100 failures
        login_limit = { failures = "9/1d" }    | accounts.login_limit.failures | 10 to 100 failures
        login_limit = { failures = "100/59m" } | accounts.login_limit.failures | an hour to a day
        login_limit = { failures = "100/2d" }  | accounts.login_limit.failures | above the most
        login_limit = { failures = 100 }       | accounts.login_limit.failures | expected
        "#,
    );
    assert!(accepted("[accounts]", "enabled = false").accounts.is_none());
    let none = Project::new().accepts(&BASE.replace("[accounts]", ""));
    assert!(none.accounts.is_none(), "no section, no accounts");
    let argon2 = accepted("[accounts]", "argon2 = {}")
        .accounts
        .unwrap()
        .argon2;
    assert_eq!((argon2.memory_kib, argon2.iterations), (19 << 10, 2));
    assert!(argon2.concurrent >= 1);
}

#[test]
fn auth_6_registration_open_to_anybody_without_mail_is_warned_of_and_closed_is_the_default() {
    let open = with("[accounts]", "registration = \"open\"");
    let (before, after) = open.split_once("[mail]").unwrap();
    let after = after.split_once("\n[").map_or("", |(_, after)| after);
    let bracket = if after.is_empty() { "" } else { "[" };
    let bare = format!("{before}{bracket}{after}");
    Project::new().warns(&bare, "accounts.registration", "under any address");
    let invite = with("[accounts]", "registration = \"invite\"");
    let closed = with("[accounts]", "registration = \"closed\"");
    for text in [open, invite, closed] {
        let read = Project::new().read(&text).unwrap();
        let key = "accounts.registration";
        let warnings = read.warnings.problems();
        assert!(warnings.iter().all(|problem| problem.key != key));
    }
    let default = accepted("[accounts]", "registration").accounts.unwrap();
    assert_eq!(default.registration, Registration::Closed);
    assert_eq!(default.register_per_ip.count, 10);
}

#[test]
fn rate_4_a_session_may_be_renewed_twice_in_each_life_of_its_access_token_at_least() {
    let limit = |text: &str| {
        let read = accepted("[accounts]", text).accounts.unwrap();
        let quota = read.refresh_per_session;
        assert_eq!(quota.burst, quota.count);
        (quota.count, quota.window.as_secs())
    };
    assert_eq!(limit("enabled = true"), (120, 3600));
    assert_eq!(limit("access_ttl = \"1m\""), (120, 3600));
    assert_eq!(limit("access_ttl = \"10s\""), (720, 3600));
    let least = "refresh_limit = { per_session = \"10/1h\" }";
    assert_eq!(limit(least), (10, 3600));
    let text = format!("access_ttl = \"10s\"\n{}", least.replace("10/1h", "719/1h"));
    let text = with("[accounts]", &text);
    Project::new().refuses(
        &text,
        "accounts.refresh_limit.per_session",
        "each access_ttl",
    );
}
