//! The section `[mail]`: one way, encrypted, its password in a private place (RST-5, UP-5, KEY-5).

use super::*;
use crate::mail::settings::{Encryption, MailSettings, SmtpSettings, TransportSettings};

/// [`BASE`] with a mail server in the place of the folder, and further lines of the section.
fn smtp(url: &str, lines: &[&str]) -> String {
    let text = with("[mail]", "spool");
    let server = with_in(&text, "[mail]", &format!("smtp = {url:?}"));
    lines
        .iter()
        .fold(server, |text, line| with_in(&text, "[mail]", line))
}

fn project() -> Project {
    let mut project = Project::new();
    project.write("password", "a password\n", 0o600);
    project.write("open", "a password\n", 0o644);
    project.write("two-lines", "a\nb\n", 0o600);
    project.variables = vec![
        ("MAIL_PASSWORD", "from the environment".into()),
        ("EMPTY", String::new()),
    ];
    project
}

#[track_caller]
fn mail(text: &str) -> MailSettings {
    project().accepts(text).accounts.unwrap().mail.unwrap()
}

#[track_caller]
fn server(text: &str) -> SmtpSettings {
    let TransportSettings::Smtp(server) = mail(text).transport else {
        panic!("no server")
    };
    server
}

#[test]
fn rst_5_what_is_no_mail_server_or_two_ways_is_refused() {
    for (url, words) in [
        ("mail.example.com", "not the URL"),
        ("https://mail.example.com", "neither smtps:// nor smtp://"),
        ("smtps://user:pw@mail.example.com", "holds a password"),
        (
            "smtps://mail.example.com/inbox",
            "more than user, host and port",
        ),
        (
            "smtps://mail.example.com?tls=none",
            "more than user, host and port",
        ),
        (
            "smtps://mail.example.com#x",
            "more than user, host and port",
        ),
        ("smtps://a%0d%0ab@mail.example.com", "control character"),
        ("smtps://mail_.example.com.:99999", "not the URL"),
        ("smtps://user@mail.example.com", "without a password"),
    ] {
        project().refuses(&smtp(url, &[]), "mail.smtp", words);
    }
    let both = with("[mail]", "smtp = \"smtps://mail.example.com\"");
    project().refuses(&both, "mail.spool", "one way too many");
    let url = "smtps://mail.example.com";
    let password = "password_file = \"password\"";
    project().refuses(&smtp(url, &[password]), "mail.smtp", "names no user");
    for line in [
        password,
        "password_env = \"MAIL_PASSWORD\"",
        "ca = \"certs/site.crt\"",
        "starttls = true",
        "danger_plaintext = true",
    ] {
        let key = format!("mail.{}", line.split(' ').next().unwrap());
        project().refuses(&with("[mail]", line), &key, "for a mail server");
    }
}

#[test]
fn key_5_a_password_is_one_line_in_a_private_place() {
    let url = "smtps://user@mail.example.com";
    for (line, words) in [
        ("password_file = \"open\"", "others"),
        ("password_file = \"two-lines\"", "not one line"),
        ("password_file = \"missing\"", "missing"),
        ("password_env = \"EMPTY\"", "empty"),
        ("password_env = \"NOBODY\"", "not set"),
    ] {
        let key = format!("mail.{}", line.split(' ').next().unwrap());
        let report = project().read(&smtp(url, &[line])).unwrap_err();
        let found = report
            .problems()
            .iter()
            .any(|problem| problem.key == key && problem.message.contains(words));
        assert!(found, "{line}: {report}");
    }
    let two = [
        "password_file = \"password\"",
        "password_env = \"MAIL_PASSWORD\"",
    ];
    project().refuses(
        &smtp(url, &two),
        "mail.password_env",
        "one password too many",
    );
}

#[test]
fn up_5_mail_without_encryption_stays_on_this_host_or_is_asked_for_by_name() {
    let off = "starttls = false";
    for host in [
        "mail.example.com",
        "192.0.2.7",
        "localhost.example.com",
        "[2001:db8::1]",
    ] {
        project().refuses(
            &smtp(&format!("smtp://{host}"), &[off]),
            "mail.starttls",
            "without encryption",
        );
    }
    for host in ["localhost", "127.0.0.1", "127.9.9.9", "[::1]"] {
        let server = server(&smtp(&format!("smtp://{host}"), &[off]));
        assert_eq!(
            (server.encryption, server.port),
            (Encryption::None, 25),
            "{host}"
        );
    }
    let danger = smtp("smtp://mail.example.com", &[off, "danger_plaintext = true"]);
    assert_eq!(server(&danger).encryption, Encryption::None);
    project().warns(&danger, "mail.danger_plaintext", "without encryption");
    let both = smtp("smtps://mail.example.com", &[off]);
    project().refuses(&both, "mail.starttls", "is for smtp://");
}

#[test]
fn urls_and_defaults_mean_what_the_documentation_says() {
    for (url, host, port, encryption) in [
        (
            "smtps://mail.example.com",
            "mail.example.com",
            465,
            Encryption::Implicit,
        ),
        (
            "smtp://mail.example.com",
            "mail.example.com",
            587,
            Encryption::StartTls,
        ),
        (
            "smtp://mail.example.com:2525/",
            "mail.example.com",
            2525,
            Encryption::StartTls,
        ),
        ("smtps://[::1]:1465", "::1", 1465, Encryption::Implicit),
    ] {
        let server = server(&smtp(url, &[]));
        assert_eq!(
            (&*server.host, server.port, server.encryption),
            (host, port, encryption),
            "{url}"
        );
        assert!(server.login.is_none() && server.ca.is_none());
    }
    let with_login = |url: &str, line: &str| server(&smtp(url, &[line])).login.unwrap();
    let (user, password) = with_login(
        "smtps://a+b%40example.com@mail.example.com",
        "password_file = \"password\"",
    );
    assert_eq!((&*user, &**password), ("a+b@example.com", "a password"));
    let (_, password) = with_login(
        "smtps://user@mail.example.com",
        "password_env = \"MAIL_PASSWORD\"",
    );
    assert_eq!(&**password, "from the environment");
    let mail = mail(BASE);
    let seconds = [mail.reset_ttl, mail.verify_ttl, mail.give_up].map(|time| time.as_secs());
    assert_eq!(seconds, [600, 3600, 2 * 86_400]);
    assert_eq!(
        (
            mail.per_ip.count,
            mail.total.count,
            mail.total.window.as_secs()
        ),
        (20, 1000, 3600)
    );
    let TransportSettings::Spool(folder) = mail.transport else {
        panic!("no folder")
    };
    assert!(folder.ends_with("data/mail") && folder.is_absolute());
}

#[test]
fn rst_2_a_link_lives_an_hour_at_most() {
    for ttl in ["0s", "59s", "61m", "1d"] {
        let text = with("[mail]", &format!("reset_ttl = {ttl:?}"));
        project().refuses(&text, "mail.reset_ttl", "allowed");
    }
    for ttl in ["0s", "299s", "25h"] {
        let text = with("[mail]", &format!("verify_ttl = {ttl:?}"));
        project().refuses(&text, "mail.verify_ttl", "allowed");
    }
    let text = with("[mail]", "limit = { total = \"10/7d\" }");
    project().refuses(&text, "mail.limit.total", "above the most allowed, 1d");
}

#[test]
fn rst_5_the_sender_is_one_mailbox() {
    for from in [
        "",
        "x",
        "a@example.com, b@example.com",
        "a@example.com\\nBcc: b@example.com",
        "<>",
    ] {
        let text = with("[mail]", &format!("from = \"{from}\""));
        assert!(project().read(&text).is_err(), "{from}");
    }
    project().refuses(&with("[mail]", "from"), "mail.from", "missing");
}

#[test]
fn accounts_without_mail_and_mail_without_accounts_are_pointed_at() {
    let (before, after) = BASE.split_once("[mail]").unwrap();
    let (_, log) = after.split_once("[log]").unwrap();
    let without = format!("{before}[log]{log}");
    project().warns(&without, "accounts", "cannot be reset");
    let off = with("[accounts]", "enabled = false");
    project().warns(&off, "mail", "nobody is written to");
}
