//! Changed and forgotten passwords: AUTH-9, AUTH-11, RST-1 to RST-5, by a folder that mails are written into.

use std::{fs, path::Path, time::Duration};

use rusqlite::Connection;
use tokio::runtime::Handle;

use super::{CLIENT, Grant, Log, PASSWORD, Site, password};
use crate::{
    accounts::{ChangePassword, Delivery},
    limit::settings::Quota,
    mail::{MailSettings, settings::TransportSettings},
    policy::{PasswordFault, Rejection},
    telemetry::{Telemetry, settings::LogSettings},
};

const NEW: &str = "another horse battery staple";

fn quota(count: u32) -> Quota {
    Quota {
        count,
        window: Duration::from_secs(3600),
        burst: count,
    }
}

/// A site with the users `ann` and `bob` that writes its mails into a folder.
async fn site() -> Site {
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

async fn site_with(change: impl FnOnce(&mut MailSettings)) -> Site {
    let site = Site::with(|settings| {
        let mut mail = mail_settings(&settings.database);
        change(&mut mail);
        settings.mail = Some(mail);
    });
    site.add("ann", &[]).await;
    site.add("bob", &[]).await;
    site
}

fn deliver(site: &Site) -> Delivery {
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
fn token(mail: &str) -> String {
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
        ip: CLIENT,
    };
    site.accounts.change_password(change).await
}

#[tokio::test]
async fn auth_9_a_change_needs_the_current_password_and_one_that_is_taken() {
    let site = site().await;
    let grant = site.login("ann").await;
    let other = site.login("ann").await;
    for (current, new, want) in [
        (
            "wrong horse battery staple",
            NEW,
            Rejection::InvalidCredentials,
        ),
        ("", NEW, Rejection::InvalidCredentials),
        (
            PASSWORD,
            "too short",
            Rejection::PasswordRefused(PasswordFault::TooShort),
        ),
        (
            PASSWORD,
            "passwordpassword",
            Rejection::PasswordRefused(PasswordFault::Common),
        ),
        (
            PASSWORD,
            "ann@example.com",
            Rejection::PasswordRefused(PasswordFault::Common),
        ),
        (
            "wrong horse battery staple",
            "x",
            Rejection::PasswordRefused(PasswordFault::TooShort),
        ),
    ] {
        assert_eq!(
            change(&site, &grant, current, new).await,
            Err(want),
            "{new}"
        );
    }
    assert!(site.is_live(&grant) && site.is_live(&other));
    assert!(site.try_login("ann", PASSWORD).await.is_ok());
    assert_eq!(queued(&site), 0);
}

#[tokio::test]
async fn auth_9_a_change_ends_every_other_session_here_and_elsewhere_and_tells_the_owner() {
    let site = site().await;
    let beside = site.beside();
    let caller = site.login("ann").await;
    let other = site.login("ann").await;
    let bob = site.login("bob").await;
    change(&site, &caller, PASSWORD, NEW).await.unwrap();
    assert!(site.is_live(&caller), "the caller goes on");
    assert!(!site.is_live(&other), "at once");
    assert!(site.is_live(&bob));
    beside.accounts.poll().await.unwrap();
    assert!(beside.is_live(&caller) && !beside.is_live(&other));
    let refused = site.refresh(other.token()).await.unwrap_err();
    assert_eq!(refused, Rejection::InvalidGrant);
    site.refresh(caller.token()).await.unwrap();
    assert!(site.try_login("ann", PASSWORD).await.is_err());
    assert!(site.try_login("ann", NEW).await.is_ok());
    sent(&site).await;
    let mails = mails(&site);
    assert_eq!(mails.len(), 1);
    assert!(mails[0].contains("To: ann@example.com\r\n"), "{}", mails[0]);
    assert!(mails[0].contains("was changed") && mails[0].contains("192.0.2.7"));
}

#[tokio::test]
async fn auth_9_a_session_that_is_over_or_anothers_changes_nothing() {
    let site = site().await;
    let caller = site.login("ann").await;
    let bob = site.login("bob").await;
    let mut mixed = site.login("ann").await;
    mixed.session = bob.session.clone();
    let refused = change(&site, &mixed, PASSWORD, NEW).await;
    assert_eq!(refused, Err(Rejection::InvalidCredentials));
    site.accounts.logout(caller.token()).await.unwrap();
    let refused = change(&site, &caller, PASSWORD, NEW).await;
    assert_eq!(refused, Err(Rejection::InvalidCredentials));
    assert!(site.try_login("ann", PASSWORD).await.is_ok());
    assert!(site.is_live(&bob));
}

#[tokio::test]
async fn auth_9_guesses_at_the_current_password_meet_the_limits_of_logins() {
    let few = Quota {
        count: 5,
        window: Duration::from_secs(900),
        burst: 5,
    };
    for per_account in [true, false] {
        let site = Site::with(|settings| {
            if per_account {
                settings.login_per_account = few;
            } else {
                settings.login_per_ip = few;
            }
        });
        site.add("ann", &[]).await;
        let grant = site.login("ann").await;
        for _ in 0..4 {
            let refused = change(&site, &grant, "wrong horse battery staple", NEW).await;
            assert_eq!(refused, Err(Rejection::InvalidCredentials));
        }
        let refused = change(&site, &grant, PASSWORD, NEW).await;
        assert!(matches!(refused, Err(Rejection::RateLimited(_))));
    }
}

#[tokio::test]
async fn auth_9_of_two_changes_at_once_one_succeeds() {
    let site = site().await;
    let grant = site.login("ann").await;
    let (one, two) = tokio::join!(
        change(&site, &grant, PASSWORD, NEW),
        change(&site, &grant, PASSWORD, "yet another horse battery"),
    );
    assert!(one.is_ok() != two.is_ok(), "{one:?} {two:?}");
}

#[tokio::test]
async fn rst_2_a_link_works_once_and_for_its_time() {
    let site = site().await;
    let token = link(&site, "ann@example.com").await;
    assert_eq!(token.len(), 43, "256 bits");
    reset(&site, &token, NEW).await.unwrap();
    let again = reset(&site, &token, PASSWORD).await;
    assert_eq!(again, Err(Rejection::LinkInvalid));
    assert!(site.try_login("ann", NEW).await.is_ok());
    let token = link(&site, "ann@example.com").await;
    site.advance(600);
    let late = reset(&site, &token, PASSWORD).await;
    assert_eq!(late, Err(Rejection::LinkInvalid));
    for rubbish in [
        "",
        "x",
        &token.chars().skip(1).collect::<String>(),
        &format!("{token}A"),
        &"A".repeat(43),
        "' OR 1=1 --",
    ] {
        let refused = reset(&site, rubbish, PASSWORD).await;
        assert_eq!(refused, Err(Rejection::LinkInvalid), "{rubbish}");
    }
}

#[tokio::test]
async fn rst_2_of_parallel_uses_of_a_link_exactly_one_succeeds() {
    let site = site().await;
    let beside = site.beside();
    let token = link(&site, "ann@example.com").await;
    let mut uses = tokio::task::JoinSet::new();
    for turn in 0..12 {
        let accounts = if turn % 2 == 0 { &site } else { &beside };
        let accounts = accounts.accounts.clone();
        let token = token.clone();
        uses.spawn(async move {
            let new = format!("horse number {turn} battery staple");
            accounts
                .reset_password(&token, password(&new), CLIENT)
                .await
        });
    }
    let results = uses.join_all().await;
    let fine = results.iter().filter(|result| result.is_ok()).count();
    assert_eq!(fine, 1, "{results:?}");
    let rest = results.iter().filter_map(|result| result.as_ref().err());
    assert!(
        rest.clone()
            .all(|refused| *refused == Rejection::LinkInvalid)
    );
    sent(&site).await;
    let changed = mails(&site);
    let changed = changed.iter().filter(|mail| mail.contains("was changed"));
    assert_eq!(changed.count(), 1, "told once");
}

#[tokio::test]
async fn rst_2_a_link_dies_by_a_newer_one_and_by_any_change_of_the_account() {
    let site = site().await;
    let old = link(&site, "ann@example.com").await;
    let new = link(&site, "ann@example.com").await;
    assert_eq!(reset(&site, &old, NEW).await, Err(Rejection::LinkInvalid));
    let grant = site.login("ann").await;
    change(&site, &grant, PASSWORD, NEW).await.unwrap();
    assert_eq!(
        reset(&site, &new, PASSWORD).await,
        Err(Rejection::LinkInvalid)
    );
    sent(&site).await;
    for kind in ["password", "roles", "disabled", "deleted"] {
        let site = self::site().await;
        let token = link(&site, "bob@example.com").await;
        let accounts = &site.accounts;
        match kind {
            "password" => accounts.set_password("bob", password(NEW)).await.unwrap(),
            "roles" => accounts.set_roles("bob", &["x".into()]).await.unwrap(),
            "disabled" => {
                accounts.set_disabled("bob", true).await.unwrap();
                assert_eq!(reset(&site, &token, NEW).await, Err(Rejection::LinkInvalid));
                accounts.set_disabled("bob", false).await.unwrap();
            }
            _ => accounts.delete_user("bob").await.unwrap(),
        }
        let refused = reset(&site, &token, NEW).await;
        assert_eq!(refused, Err(Rejection::LinkInvalid), "{kind}");
    }
}

#[tokio::test]
async fn rst_2_a_link_is_for_one_purpose() {
    let site = site().await;
    let token = link(&site, "ann@example.com").await;
    database(&site)
        .execute("UPDATE mail_tokens SET purpose = 'other'", [])
        .unwrap();
    assert_eq!(reset(&site, &token, NEW).await, Err(Rejection::LinkInvalid));
    // Nor is a refresh token a link, or a link a refresh token.
    let grant = site.login("ann").await;
    let refresh = grant.token().reveal();
    assert_eq!(
        reset(&site, &refresh, NEW).await,
        Err(Rejection::LinkInvalid)
    );
    assert!(site.is_live(&grant));
}

#[tokio::test]
async fn rst_2_the_database_holds_no_usable_link_at_any_time() {
    let site = site().await;
    site.accounts
        .forgot_password("ann@example.com", CLIENT)
        .await
        .unwrap();
    let dump = |site: &Site| {
        database(site)
            .execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")
            .unwrap();
        fs::read(&site.settings.database).unwrap()
    };
    let waiting = dump(&site);
    sent(&site).await;
    let token = token(&mails(&site)[0]);
    let raw =
        base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, &token).unwrap();
    for dump in [waiting, dump(&site)] {
        for secret in [token.as_bytes(), &raw] {
            assert!(!dump.windows(secret.len()).any(|window| window == secret));
        }
    }
    reset(&site, &token, NEW).await.unwrap();
}

#[tokio::test]
async fn rst_2_a_password_that_is_not_taken_does_not_use_the_link_up() {
    let site = site().await;
    let token = link(&site, "ann@example.com").await;
    for (new, fault) in [
        ("short", PasswordFault::TooShort),
        ("passwordpassword", PasswordFault::Common),
        ("ann@example.com", PasswordFault::Common),
    ] {
        let refused = reset(&site, &token, new).await;
        assert_eq!(refused, Err(Rejection::PasswordRefused(fault)));
    }
    reset(&site, &token, NEW).await.unwrap();
}

#[tokio::test]
async fn rst_3_a_reset_ends_every_session_signs_nobody_in_and_tells_the_owner() {
    let site = site().await;
    let beside = site.beside();
    let grants = [site.login("ann").await, site.login("ann").await];
    let bob = site.login("bob").await;
    let token = link(&site, "ann@example.com").await;
    reset(&site, &token, NEW).await.unwrap();
    beside.accounts.poll().await.unwrap();
    for grant in &grants {
        assert!(!site.is_live(grant) && !beside.is_live(grant));
        let refused = site.refresh(grant.token()).await.unwrap_err();
        assert_eq!(refused, Rejection::InvalidGrant);
    }
    assert!(site.is_live(&bob));
    let user = site.accounts.user("ann").await.unwrap();
    assert!(site.accounts.sessions(&user.id).await.unwrap().is_empty());
    sent(&site).await;
    assert!(mails(&site).iter().any(|mail| mail.contains("was changed")));
}

#[tokio::test]
async fn rst_4_three_mails_an_hour_and_ten_a_day_by_any_mix_of_spellings_and_paths() {
    let site = site().await;
    let spellings = ["ann@example.com", "Ann@Example.com", "ANN@EXAMPLE.COM"];
    let ask = async |times: usize| {
        for spelling in spellings.iter().cycle().take(times) {
            site.accounts
                .forgot_password(spelling, CLIENT)
                .await
                .unwrap();
        }
        sent(&site).await;
        mails(&site).len()
    };
    assert_eq!(ask(100).await, 3);
    site.advance(3599);
    assert_eq!(ask(20).await, 3);
    site.advance(1);
    assert_eq!(ask(20).await, 6);
    // Another process, and one that starts anew, counts on.
    let beside = site.beside();
    beside
        .accounts
        .forgot_password("ann@example.com", CLIENT)
        .await
        .unwrap();
    assert_eq!(queued(&site), 0);
    for hours in [9, 10, 10, 10] {
        site.advance(3600);
        assert_eq!(ask(20).await, hours);
    }
    site.advance(86_400);
    assert_eq!(ask(20).await, 13);
    assert!(
        site.accounts
            .forgot_password("bob@example.com", CLIENT)
            .await
            .is_ok()
    );
    sent(&site).await;
    assert_eq!(mails(&site).len(), 14, "another's budget is his own");
}

#[tokio::test]
async fn rst_4_a_notice_beyond_the_budget_comes_later_and_once() {
    let site = site().await;
    for _ in 0..5 {
        site.accounts
            .forgot_password("ann@example.com", CLIENT)
            .await
            .unwrap();
    }
    sent(&site).await;
    assert_eq!(mails(&site).len(), 3);
    let grant = site.login("ann").await;
    change(&site, &grant, PASSWORD, NEW).await.unwrap();
    change(&site, &grant, NEW, PASSWORD).await.unwrap();
    assert_eq!(queued(&site), 1, "one that waits says it all");
    let delivery = deliver(&site);
    tokio::time::sleep(Duration::from_millis(300)).await;
    delivery.stop().await;
    assert_eq!(mails(&site).len(), 3);
    site.advance(3600);
    sent(&site).await;
    let mails = mails(&site);
    assert_eq!(mails.len(), 4);
    assert_eq!(
        mails
            .iter()
            .filter(|mail| mail.contains("was changed"))
            .count(),
        1
    );
}

#[tokio::test]
async fn rst_4_an_unknown_address_costs_the_same_write_and_sends_nothing() {
    let site = site().await;
    site.accounts.set_disabled("bob", true).await.unwrap();
    let mut rows = Vec::new();
    for address in ["ann@example.com", "nobody@example.com", "bob@example.com"] {
        site.accounts
            .forgot_password(address, CLIENT)
            .await
            .unwrap();
        let row = |sql: &str| -> (String, i64, i64, i64) {
            let read =
                |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
            database(&site).query_row(sql, [address], read).unwrap()
        };
        rows.push((
            row("SELECT purpose, created_at, due_at, attempts FROM mail WHERE recipient = ?1"),
            row("SELECT 'x', at, counted, 0 FROM mail_budget WHERE recipient = ?1"),
        ));
    }
    assert!(rows.iter().all(|row| *row == rows[0]), "{rows:?}");
    sent(&site).await;
    let mails = mails(&site);
    assert_eq!(mails.len(), 1);
    assert!(mails[0].contains("To: ann@example.com\r\n"));
    // The same of the budget, too: the fourth is as over as that of a known address.
    let budget = |address: &str| -> u32 {
        let sql = "SELECT count(*) FROM mail_budget WHERE recipient = ?1";
        database(&site)
            .query_row(sql, [address], |row| row.get(0))
            .unwrap()
    };
    for _ in 0..5 {
        for address in ["ann@example.com", "nobody@example.com"] {
            site.accounts
                .forgot_password(address, CLIENT)
                .await
                .unwrap();
        }
    }
    assert_eq!(
        (budget("ann@example.com"), budget("nobody@example.com")),
        (3, 3)
    );
}

#[tokio::test]
async fn rst_4_the_total_holds_for_all_recipients_and_strangers_do_not_use_it_up() {
    let site = site_with(|mail| mail.total = quota(4)).await;
    for index in 0..20 {
        let address = format!("nobody{index}@example.com");
        site.accounts
            .forgot_password(&address, CLIENT)
            .await
            .unwrap();
        sent(&site).await;
    }
    for address in ["ann@example.com", "bob@example.com"] {
        for _ in 0..3 {
            site.accounts
                .forgot_password(address, CLIENT)
                .await
                .unwrap();
        }
    }
    sent(&site).await;
    assert_eq!(mails(&site).len(), 4);
    // What strangers leave in the store has an end, too.
    let mut refused = 0;
    for index in 0..40 {
        let address = format!("other{index}@example.com");
        let asked = site.accounts.forgot_password(&address, CLIENT).await;
        refused += usize::from(matches!(asked, Err(Rejection::RateLimited(_))));
    }
    assert!(refused >= 20, "{refused}");
}

#[tokio::test]
async fn rst_4_a_client_is_limited_by_its_network_whatever_the_address() {
    let site = site_with(|mail| mail.per_ip = quota(3)).await;
    for (index, address) in ["ann@example.com", "x@example.com", "y@example.com"]
        .iter()
        .enumerate()
    {
        let ip = format!("2001:db8::{index}").parse().unwrap();
        site.accounts.forgot_password(address, ip).await.unwrap();
    }
    for address in ["ann@example.com", "z@example.com"] {
        let ip = "2001:db8::ffff".parse().unwrap();
        let refused = site.accounts.forgot_password(address, ip).await;
        assert!(
            matches!(refused, Err(Rejection::RateLimited(_))),
            "{address}"
        );
    }
    let other = "2001:db8:1::1".parse().unwrap();
    site.accounts
        .forgot_password("ann@example.com", other)
        .await
        .unwrap();
}

#[tokio::test]
async fn rst_5_and_auth_6_what_is_no_mailbox_or_another_gets_nothing() {
    let site = site().await;
    for address in [
        "",
        "ann",
        "ann@example.com\r\nBcc: eve@example.com",
        "ann@example.com,eve@example.com",
        "ann@example.com ",
        "<ann@example.com>",
        "\"ann\"@example.com",
        "\u{430}nn@example.com",
    ] {
        let refused = site.accounts.forgot_password(address, CLIENT).await;
        assert!(
            matches!(refused, Err(Rejection::BadRequest(_))),
            "{address:?}"
        );
    }
    for look_alike in [
        "ann@examp1e.com",
        "ann@example.com.evil.example",
        "arn@example.com",
    ] {
        site.accounts
            .forgot_password(look_alike, CLIENT)
            .await
            .unwrap();
    }
    sent(&site).await;
    assert!(mails(&site).is_empty());
}

#[tokio::test]
async fn auth_11_a_shut_account_gets_no_link_and_one_without_password_gets_none() {
    let site = site().await;
    site.accounts.set_disabled("ann", true).await.unwrap();
    database(&site)
        .execute(
            "UPDATE users SET password = NULL WHERE username = 'bob'",
            [],
        )
        .unwrap();
    for address in ["ann@example.com", "bob@example.com"] {
        site.accounts
            .forgot_password(address, CLIENT)
            .await
            .unwrap();
    }
    sent(&site).await;
    assert!(mails(&site).is_empty());
}

#[tokio::test]
async fn rst_5_a_link_that_comes_too_late_is_not_sent_and_word_of_a_change_is() {
    let site = site().await;
    let grant = site.login("ann").await;
    site.accounts
        .forgot_password("ann@example.com", CLIENT)
        .await
        .unwrap();
    site.advance(1);
    change(&site, &grant, PASSWORD, NEW).await.unwrap();
    site.advance(3600);
    sent(&site).await;
    let late = mails(&site);
    assert_eq!(late.len(), 1, "{late:?}");
    assert!(late[0].contains("was changed"));
    change(&site, &grant, NEW, PASSWORD).await.unwrap();
    site.advance(7 * 86_400);
    sent(&site).await;
    assert_eq!(mails(&site).len(), 2);
}

#[tokio::test]
async fn without_mail_nothing_can_be_asked_for_and_changes_go_on() {
    let site = Site::new();
    site.add("ann", &[]).await;
    let refused = site
        .accounts
        .forgot_password("ann@example.com", CLIENT)
        .await;
    assert_eq!(refused, Err(Rejection::RouteNotFound));
    assert_eq!(
        reset(&site, &"A".repeat(43), NEW).await,
        Err(Rejection::RouteNotFound)
    );
    let grant = site.login("ann").await;
    change(&site, &grant, PASSWORD, NEW).await.unwrap();
    assert_eq!(queued(&site), 0);
}

#[tokio::test]
async fn log_1_and_log_4_events_tell_what_happened_and_no_secret() {
    let site = site().await;
    let log = Log::default();
    let _guard = log.listen();
    let grant = site.login("ann").await;
    let _ = change(&site, &grant, "wrong horse battery staple", NEW).await;
    change(&site, &grant, PASSWORD, NEW).await.unwrap();
    let token = link_with_notice(&site).await;
    let _ = reset(&site, &"A".repeat(43), PASSWORD).await;
    reset(&site, &token, PASSWORD).await.unwrap();
    let text = log.text();
    for event in [
        "password_change_refused",
        "password_changed",
        "password_reset_asked",
        "mail_sent",
        "password_reset_refused",
        "password_reset",
    ] {
        assert!(
            text.contains(&format!("\"event\":\"{event}\"")),
            "{event}: {text}"
        );
    }
    let _ = super::audit::told(&log);
    for secret in [PASSWORD, NEW, &token, "reset?token", "ann@example.com"] {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
}

async fn link_with_notice(site: &Site) -> String {
    site.accounts
        .forgot_password("ann@example.com", CLIENT)
        .await
        .unwrap();
    sent(site).await;
    let mails = mails(site);
    token(
        mails
            .iter()
            .find(|mail| mail.contains("reset?token"))
            .unwrap(),
    )
}
