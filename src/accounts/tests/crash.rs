//! `kill -9` at any moment: SESS-2, SESS-3, STORE-2.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, atomic::AtomicU64},
};

use super::{START, Site, settings};
use crate::accounts::RefreshToken;

const FOLDER: &str = "PORTCULLIS_TEST_CRASH_FOLDER";
const NAME: &str = "accounts::tests::crash::sess_3_after_kill_9_every_acknowledged_step_holds_and_the_user_goes_on";

/// The process that is killed: sessions begin, go on and end, and each step is told once it is acknowledged.
async fn work(folder: &Path) {
    let mut settings = settings(&tempfile::tempdir().unwrap());
    settings.database = folder.join("portcullis.db");
    let site = Site::open(
        Arc::new(tempfile::tempdir().unwrap()),
        settings,
        Arc::new(AtomicU64::new(START)),
    );
    let mut out = std::io::stdout();
    loop {
        let mut grant = site.login("ann").await;
        for _ in 0..7 {
            writeln!(out, "live {}", *grant.token().reveal()).unwrap();
            grant = site.refresh(grant.token()).await.unwrap();
        }
        site.accounts.logout(grant.token()).await.unwrap();
        writeln!(out, "over {}", *grant.token().reveal()).unwrap();
    }
}

fn start(folder: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([NAME, "--exact", "--nocapture"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn sess_3_after_kill_9_every_acknowledged_step_holds_and_the_user_goes_on() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        return work(Path::new(&folder)).await;
    }
    let site = Site::new();
    site.add("ann", &[]).await;
    let token = |text: &str| RefreshToken::parse(text).unwrap();
    for round in 0..12 {
        let mut child = start(site.settings.database.parent().unwrap());
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (mut live, mut over) = (None, Vec::new());
        let mut steps = 0;
        // The last line is followed by another step at once, in the midst of which the process dies.
        while steps < 3 + round * 5 {
            let line = lines.next().expect("the child lives").unwrap();
            if let Some(text) = line.strip_prefix("live ") {
                live = Some(token(text));
            } else if let Some(text) = line.strip_prefix("over ") {
                live = None;
                over.push(token(text));
            } else {
                continue;
            }
            steps += 1;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What was acknowledged until the pipe broke.
        for line in lines.map_while(Result::ok) {
            if let Some(text) = line.strip_prefix("live ").filter(|text| text.len() == 43) {
                live = Some(token(text));
            } else if let Some(text) = line.strip_prefix("over ").filter(|text| text.len() == 43) {
                live = None;
                over.push(token(text));
            }
        }
        let after = site.beside();
        for token in &over {
            after.refresh(token).await.unwrap_err();
        }
        check_invariants(&site);
        let Some(live) = live else { continue };
        // The step after the last acknowledged one may have been a logout that was not acknowledged.
        if let Ok(grant) = after.refresh(&live).await {
            after.refresh(grant.token()).await.unwrap();
            after.accounts.logout(grant.token()).await.unwrap();
        } else {
            assert!(ended_by_its_seventh_step(&site), "round {round}");
        }
    }
}

/// One live end in every session, and every revoked session in the feed.
fn check_invariants(site: &Site) {
    let connection = rusqlite::Connection::open(&site.settings.database).unwrap();
    let check = |sql: &str| -> i64 { connection.query_row(sql, [], |row| row.get(0)).unwrap() };
    let without_end = check(
        "SELECT count(*) FROM sessions WHERE 1 <> (SELECT count(*) FROM refresh_tokens
         WHERE session_id = sessions.id AND rotated_at IS NULL)",
    );
    assert_eq!(without_end, 0);
    let untold = check(
        "SELECT count(*) FROM sessions WHERE revoked_at IS NOT NULL
         AND id NOT IN (SELECT key FROM revocations)",
    );
    assert_eq!(untold, 0);
    assert_eq!(
        check("SELECT count(*) FROM pragma_integrity_check WHERE integrity_check <> 'ok'"),
        0
    );
}

/// Whether the newest session was ended by its own logout, which comes after seven refreshes.
fn ended_by_its_seventh_step(site: &Site) -> bool {
    rusqlite::Connection::open(&site.settings.database)
        .unwrap()
        .query_row(
            "SELECT revoked_at IS NOT NULL AND 8 = (SELECT count(*) FROM refresh_tokens
             WHERE session_id = sessions.id) FROM sessions ORDER BY rowid DESC LIMIT 1",
            [],
            |row| row.get(0),
        )
        .unwrap()
}
