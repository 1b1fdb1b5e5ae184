//! URLs of PostgreSQL, and what is none.

use std::path::Path;

use super::{Host, PostgresSettings, StoreTls};

#[track_caller]
fn refuse(url: &str, words: &str) {
    let fault = PostgresSettings::parse(url).unwrap_err();
    assert!(fault.message.contains(words), "{url}: {fault:?}");
    assert!(!fault.hint.is_empty());
}

#[test]
fn a_url_that_could_be_read_in_two_ways_or_is_unsafe_is_refused() {
    for (url, words) in [
        ("postgres:u@h/d", "no URL"),
        ("Postgres://u@h/d", "no URL"),
        ("postgres://h/d", "no user"),
        ("postgres://@h/d", "no user"),
        ("postgres://u@h", "no database"),
        ("postgres://u@h/", "no database"),
        ("postgres://u:@h/d", "password"),
        ("postgres://u:hunter2@h/d", "password"),
        ("postgres://u@h/d?password=hunter2", "password"),
        ("postgres://u@/d", "host"),
        ("postgres://u@h,/d", "host"),
        ("postgres://u@[::1/d", "host"),
        ("postgres://u@[::1]x/d", "host"),
        ("postgres://u@h:0/d", "port"),
        ("postgres://u@h:65536/d", "port"),
        ("postgres://u@h:/d", "port"),
        ("postgres://u@::1/d", "host"),
        ("postgres://u@a,b,c,d,e,f,g,h,i/d", "more than 8"),
        ("postgres://u%4@h/d", "percent"),
        ("postgres://u%zz@h/d", "percent"),
        ("postgres://u%ff@h/d", "percent"),
        ("postgres://u@h%00/d", "percent"),
        ("postgres://u@h/d?sslmode=require", "anybody"),
        ("postgres://u@h/d?sslmode=prefer", "anybody"),
        ("postgres://u@h/d?sslmode=verify-ca", "anybody"),
        ("postgres://u@h/d?sslmode=", "anybody"),
        (
            "postgres://u@h/d?sslmode=disable&sslmode=verify-full",
            "twice",
        ),
        (
            "postgres://u@h/d?sslmode=disable&sslrootcert=x",
            "sslrootcert",
        ),
        ("postgres://u@h/d?options=-cfsync%3Doff", "`options`"),
        ("postgres://u@h/d?target_session_attrs=any", "not known"),
        ("postgres://u@h/d?host=/run", "two hosts"),
        ("postgres://u@/d?host=h", "no folder"),
        ("postgres://u@%2Frun/d?sslmode=verify-full", "Unix socket"),
        ("postgres://u@%2Frun,h/d", "Unix socket"),
    ] {
        refuse(url, words);
    }
}

#[test]
fn key_5_a_fault_tells_no_password() {
    for url in [
        "postgres://u:hunter2@h/d",
        "postgres://u:hunter2@h:0/",
        "postgres://u@h/d?password=hunter2",
        "postgres://u@h/d?sslmode=disable&password=hunter2",
    ] {
        let fault = PostgresSettings::parse(url).unwrap_err();
        assert!(!format!("{fault:?}").contains("hunter2"), "{fault:?}");
    }
}

#[test]
fn hosts_ports_and_sockets() {
    let check = |url: &str, shown: &str, exposed: bool| {
        let settings = PostgresSettings::parse(url).unwrap();
        assert_eq!(settings.to_string(), shown, "{url}");
        assert_eq!(settings.is_exposed(), exposed, "{url}");
        settings
    };
    let one = check("postgres://u@h/d", "postgres://u@h:5432/d", false);
    assert_eq!(one.tls, StoreTls::VerifyFull(None));
    check(
        "postgresql://a%40b@[2001:db8::1]:5433,h2/d%2Fe?sslmode=disable",
        "postgres://a@b@[2001:db8::1]:5433,h2:5432/d/e",
        true,
    );
    for local in ["localhost", "127.0.0.1", "127.9.9.9", "[::1]"] {
        let url = format!("postgres://u@{local}/d?sslmode=disable");
        let shown = format!("postgres://u@{local}:5432/d");
        check(&url, &shown, false);
    }
    let url = "postgres://u@localhost,h/d?sslmode=disable";
    check(url, "postgres://u@localhost:5432,h:5432/d", true);
    for url in [
        "postgres://u@/d?host=/run/postgresql",
        "postgres://u@%2Frun%2Fpostgresql/d",
    ] {
        let socket = check(url, "postgres://u@/run/postgresql:5432/d", false);
        assert_eq!(socket.tls, StoreTls::Disable);
        let Host::Socket(folder) = &socket.servers[0].host else {
            panic!("{socket:?}");
        };
        assert_eq!(folder, Path::new("/run/postgresql"));
    }
    let port = PostgresSettings::parse("postgres://u@:5433/d?host=/run").unwrap();
    assert_eq!(port.servers[0].port, 5433);
}

mod random {
    use proptest::prelude::*;

    use super::PostgresSettings;

    proptest! {
        #[test]
        fn nothing_panics_and_what_is_taken_names_user_host_and_database(
            url in "postgres://[a-z%0-9:@,/?=&\\[\\].]{0,60}",
        ) {
            if let Ok(settings) = PostgresSettings::parse(&url) {
                prop_assert!(!settings.user.is_empty() && !settings.database.is_empty());
                prop_assert!(!settings.servers.is_empty() && settings.password.is_none());
            }
        }
    }
}
