//! A site that writes its mails into a folder, and what is done at it with passwords and links.

use std::{fs, path::Path, time::Duration};

use rusqlite::Connection;
use tokio::runtime::Handle;

use super::{CLIENT, Grant, Site, password};
use crate::{
    accounts::{ChangePassword, Delivery},
    limit::settings::Quota,
    mail::{MailSettings, settings::TransportSettings},
    policy::Rejection,
    telemetry::{Telemetry, settings::LogSettings},
};

pub(super) const NEW: &str = "another horse battery staple";

pub(super) fn quota(count: u32) -> Quota {
    Quota {
        count,
        window: Duration::from_secs(3600),
        burst: count,
    }
}

/// A site with the users `ann` and `bob` that writes its mails into a folder.
pub(super) async fn site() -> Site {
    site_with(|_| ()).await
}

/// Mails go into a folder beside the database.
pub(crate) fn mail_settings(database: &Path) -> MailSettings {
    MailSettings {
        from: "Gate <no-reply@example.com>".parse().unwrap(),
        transport: TransportSettings::Spool(database.with_file_name("mail")),
        reset_ttl: Duration::from_secs(600),
        verify_ttl: Duration::from_secs(3600),
        give_up: Duration::from_secs(86_400),
        per_ip: quota(10_000),
        total: quota(10_000),
    }
}

pub(super) async fn site_with(change: impl FnOnce(&mut MailSettings)) -> Site {
    let site = Site::with(|settings| {
        let mut mail = mail_settings(&settings.database);
        change(&mut mail);
        settings.mail = Some(mail);
    });
    site.add("ann", &[]).await;
    site.add("bob", &[]).await;
    site
}

pub(super) fn deliver(site: &Site) -> Delivery {
    let settings = LogSettings {
        access: false,
        ..LogSettings::default()
    };
    let telemetry = Telemetry::with_sink(&settings, Box::new(std::io::sink()));
    site.accounts
        .deliver(&Handle::current(), telemetry)
        .unwrap()
}

/// The mails in the folder, as text.
pub(super) fn mails(site: &Site) -> Vec<String> {
    let folder = site.settings.database.with_file_name("mail");
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "eml"))
        .map(|path| fs::read_to_string(path).unwrap())
        .collect()
}

pub(super) fn database(site: &Site) -> Connection {
    Connection::open(&site.settings.database).unwrap()
}

pub(super) fn queued(site: &Site) -> u32 {
    let sql = "SELECT count(*) FROM mail";
    database(site).query_row(sql, [], |row| row.get(0)).unwrap()
}

/// Lets what is queued be sent, and waits until it was.
pub(super) async fn sent(site: &Site) {
    let delivery = deliver(site);
    for _ in 0..3000 {
        if queued(site) == 0 {
            delivery.stop().await;
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{} mails are not sent", queued(site));
}

/// The token in the link of the one mail that has one.
pub(super) fn token(mail: &str) -> String {
    let link = "https://localhost:8443/auth/password/reset?token=";
    let line = mail.lines().find_map(|line| line.strip_prefix(link));
    line.unwrap().to_owned()
}

/// Asks for a link and reads it out of the mail.
pub(super) async fn link(site: &Site, address: &str) -> String {
    let before = mails(site);
    site.accounts
        .forgot_password(address, CLIENT)
        .await
        .unwrap();
    sent(site).await;
    let new = mails(site);
    let new: Vec<_> = new
        .iter()
        .filter(|mail| !before.contains(mail) && mail.contains("reset?token"))
        .collect();
    assert_eq!(new.len(), 1, "{new:?}");
    token(new[0])
}

pub(super) async fn reset(site: &Site, token: &str, new: &str) -> Result<(), Rejection> {
    site.accounts
        .reset_password(token, password(new), CLIENT)
        .await
        .map(|_| ())
}

pub(super) async fn change(
    site: &Site,
    grant: &Grant,
    current: &str,
    new: &str,
) -> Result<(), Rejection> {
    let change = ChangePassword {
        user_id: &grant.user.id,
        session_id: &grant.session,
        current: password(current),
        new: password(new),
        device: None,
        ip: CLIENT,
    };
    site.accounts.change_password(change).await.map(|_| ())
}
