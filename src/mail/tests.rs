//! Mails as they are written, and folders that they are written into.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, UNIX_EPOCH},
};

use super::*;
use crate::limit::settings::Quota;

const LINK: &str = "https://gate.example/auth/password/reset?token=AAAA_BBBB-CCCC";

fn quota() -> Quota {
    Quota {
        count: 1,
        window: Duration::from_secs(1),
        burst: 1,
    }
}

fn mailer(folder: &Path) -> Mailer {
    let settings = MailSettings {
        from: "Portcullis <no-reply@example.com>".parse().unwrap(),
        transport: TransportSettings::Spool(folder.to_owned()),
        reset_ttl: Duration::from_secs(600),
        verify_ttl: Duration::from_secs(3600),
        give_up: Duration::from_secs(600),
        per_ip: quota(),
        total: quota(),
    };
    Mailer::new(&settings, "gate.example").unwrap()
}

fn facts<'a>(username: &'a str, client: &'a str) -> Facts<'a> {
    Facts {
        site: "gate.example",
        username,
        client: Some(client),
        at: "2027-01-15 08:00 UTC",
        link: Some((LINK, Duration::from_secs(600))),
    }
}

async fn send(mailer: &Mailer, recipient: &str, text: Text) -> Result<(), SendError> {
    let letter = Letter {
        id: "0a1b",
        recipient,
        text,
    };
    let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    mailer.send(&letter, now).await
}

#[tokio::test]
async fn rst_5_texts_take_no_line_from_outside() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("mail");
    for evil in [
        "eve\r\nBcc: all@example.com",
        "eve\nBcc: all@example.com",
        "eve\rBcc: all@example.com",
        "eve\u{2028}Bcc: all@example.com",
        "eve\u{0}\u{1b}[2JBcc: all@example.com",
        "eve\u{202e}Bcc: all@example.com",
    ] {
        for purpose in Purpose::ALL {
            let text = purpose.text(&facts(evil, evil));
            assert!(!text.subject.contains(['\r', '\n']));
            send(&mailer(&folder), "ann@example.com", text)
                .await
                .unwrap();
            let mail = fs::read_to_string(folder.join("0a1b.eml")).unwrap();
            assert!(
                mail.lines().all(|line| !line.starts_with("Bcc:")),
                "{evil:?}: {mail}"
            );
            assert!(!mail.contains('\u{1b}') && !mail.contains('\u{202e}'));
        }
    }
}

#[tokio::test]
async fn rst_5_a_recipient_is_one_mailbox() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("mail");
    let mailer = mailer(&folder);
    for recipient in [
        "",
        "ann",
        "ann@example.com, bob@example.com",
        "ann@example.com\r\nBcc: bob@example.com",
        "ann@example.com\n",
        "Ann <ann@example.com>",
        "ann@example.com>\r\nRCPT TO:<bob@example.com",
    ] {
        let text = Purpose::PasswordChanged.text(&facts("ann", "192.0.2.7"));
        let refused = send(&mailer, recipient, text).await;
        assert!(
            matches!(refused, Err(SendError::Refused(_))),
            "{recipient:?}: {refused:?}"
        );
    }
    assert!(!folder.exists());
}

#[tokio::test]
async fn a_mail_is_what_rfc_5322_asks_for_and_says_when_from_where_and_for_how_long() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("mail");
    let text = Purpose::PasswordReset.text(&facts("ann", "192.0.2.7"));
    send(&mailer(&folder), "ann@example.com", text)
        .await
        .unwrap();
    let path = folder.join("0a1b.eml");
    let mail = fs::read_to_string(&path).unwrap();
    for line in [
        "From: Portcullis <no-reply@example.com>",
        "To: ann@example.com",
        "Subject: A new password for gate.example",
        "Date: Fri, 15 Jan 2027 08:00:00 +0000",
        "Message-ID: <0a1b@gate.example>",
        "Auto-Submitted: auto-generated",
        LINK,
    ] {
        assert!(mail.lines().any(|found| found == line), "{line}: {mail}");
    }
    for piece in [
        "Hello ann",
        "192.0.2.7",
        "10 minutes",
        "2027-01-15 08:00 UTC",
    ] {
        assert!(mail.contains(piece), "{piece}: {mail}");
    }
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&folder), mode(&path)), (0o700, 0o600));
}

#[tokio::test]
async fn a_folder_that_others_may_use_gets_no_mail() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let text = Purpose::PasswordChanged.text(&facts("ann", "192.0.2.7"));
    let refused = send(&mailer(folder.path()), "ann@example.com", text).await;
    assert!(matches!(refused, Err(SendError::Down(_))), "{refused:?}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn log_1_links_and_passwords_do_not_print() {
    let text = Purpose::PasswordReset.text(&facts("ann", "192.0.2.7"));
    let letter = Letter {
        id: "x",
        recipient: "ann@example.com",
        text,
    };
    assert!(!format!("{letter:?}").contains("AAAA_BBBB"));
    let smtp = settings::SmtpSettings {
        host: "mail.example.com".into(),
        port: 465,
        encryption: settings::Encryption::Implicit,
        login: Some(("user".into(), "hunter2hunter2".to_owned().into())),
        ca: None,
    };
    assert!(!format!("{smtp:?}").contains("hunter2"));
}
