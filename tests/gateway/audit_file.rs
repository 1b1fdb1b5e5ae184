//! The audit log in a file of its own: over rotations, and nobody's obstacle (LOG-4).

use std::{fs, path::Path};

use serde_json::Value;

use crate::harness::{Gateway, Raw, Site, eventually, request};

fn site() -> Site {
    Site::new("127.0.0.1:9".parse().unwrap())
        .accounts()
        .set(
            "accounts",
            "login_limit",
            r#"{ per_ip = "100/1m", per_account = "100/15m" }"#,
        )
        .set("log", "audit_file", "\"audit.log\"")
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn count(path: &Path, event: &str) -> usize {
    let lines = lines(path);
    lines
        .iter()
        .filter(|line| line["fields"]["event"] == event)
        .count()
}

/// Waits until the file has one refused login.
async fn refused_once(path: &Path) {
    let has_it = async || (count(path, "login_refused") == 1).then_some(());
    eventually("the event", has_it).await;
}

/// Tries a wrong password, which is an event.
async fn fail_to_log_in(gateway: &Gateway) {
    let mut raw = Raw::connect(gateway).await;
    let body = r#"{"username":"ann","password":"not the one of ann"}"#;
    let fields = [("content-type", "application/json")];
    let answer = raw
        .exchange(request("POST", "/auth/login", &fields, body))
        .await;
    assert_eq!(answer.status, 401, "{}", answer.text());
}

#[tokio::test]
async fn log_4_a_file_that_others_may_change_is_refused() {
    let site = site();
    site.write();
    fs::write(site.path().join("audit.log"), "").unwrap();
    for mode in [0o666, 0o604, 0o620] {
        site.mode("audit.log", mode);
        for command in [&["check"][..], &["run"], &["user", "list"]] {
            let exit = site.run(command, "").await;
            assert_eq!(exit.code, Some(1), "{mode:o} {command:?}: {exit:?}");
            assert!(exit.stderr.contains("log.audit_file"), "{exit:?}");
        }
    }
    site.mode("audit.log", 0o640);
    assert_eq!(site.run(&["check"], "").await.code, Some(0));
}

#[tokio::test]
async fn log_4_audit_events_are_kept_in_a_file_over_rotations() {
    let site = site();
    site.write();
    site.user("ann", "the password of ann", &["clerk"]).await;
    let path = site.path().join("audit.log");
    assert_eq!(count(&path, "user_added"), 1, "the command's own event");
    let gateway = site.start().await;
    fail_to_log_in(&gateway).await;
    refused_once(&path).await;
    let refused = lines(&path);
    let refused = refused.last().unwrap();
    assert_eq!(refused["target"], "audit");
    assert!(refused["span"]["request_id"].is_string(), "{refused}");
    // It is moved away: the next event begins another, and a signal is heard as well.
    let old = gateway.path().join("audit.log.1");
    for times in 1..=2 {
        fs::rename(&path, &old).unwrap();
        if times == 2 {
            gateway.signal("HUP");
        }
        fail_to_log_in(&gateway).await;
        refused_once(&path).await;
    }
    // In the way of the file is a folder: nobody waits, it is told once, counted, and over when the folder is gone.
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    for _ in 0..3 {
        fail_to_log_in(&gateway).await;
    }
    let told = |line: &str| {
        line.contains("the audit file cannot be written")
            .then_some(())
    };
    gateway.err.find("the fault", told).await;
    let dropped = async || {
        let dropped = gateway.metric("portcullis_log_dropped_total").await;
        dropped.filter(|dropped| *dropped >= 3.0)
    };
    eventually("the lost lines in the metric", dropped).await;
    fs::remove_dir(&path).unwrap();
    fail_to_log_in(&gateway).await;
    refused_once(&path).await;
    let text = gateway.err.text();
    assert_eq!(text.matches("the audit file cannot be written").count(), 1);
    let kept = fs::read_to_string(&path).unwrap();
    assert!(
        !kept.contains("not the one of ann") && !kept.contains("ann"),
        "{kept}"
    );
}
