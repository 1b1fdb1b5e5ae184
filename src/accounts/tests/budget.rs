//! How much mail is sent to one recipient and to all, whoever asks for it: RST-4.

use std::time::Duration;

use super::{
    CLIENT, PASSWORD,
    mailbox::{NEW, change, database, deliver, mails, queued, quota, sent, site, site_with},
};
use crate::{accounts::LastAdmin, policy::Rejection};

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
    site.accounts
        .disable_user("bob", LastAdmin::Stays)
        .await
        .unwrap();
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
