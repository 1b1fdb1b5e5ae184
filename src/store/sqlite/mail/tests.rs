//! The queue, its limits, and the transactions that change passwords: STORE-2, RST-2, RST-4, RST-5.

use std::{path::PathBuf, time::Duration};

use tempfile::TempDir;

use super::*;
use crate::store::{NewSession, PasswordHash, Session, Store, StoreError};

const NOW: u64 = 1_800_000_000;

const TIMES: Times = Times {
    now: NOW,
    idle: 1000,
    grace: 10,
    tokens_dead_at: NOW + 1000,
};

fn path(folder: &TempDir) -> PathBuf {
    folder.path().join("accounts.db")
}

fn open(folder: &TempDir) -> Sqlite {
    Sqlite::open(&path(folder)).unwrap()
}

fn mail(id: &str, recipient: &str, beyond: Beyond) -> NewMail {
    NewMail {
        message_id: id.into(),
        purpose: "test",
        recipient: recipient.into(),
        username: Some("ann".into()),
        client: None,
        beyond,
        total: (1_000_000, Duration::from_secs(3600)),
    }
}

fn claim(now: u64) -> Claim {
    Claim {
        count: 10,
        until: now + 90,
        now,
    }
}

fn ids(mails: &[QueuedMail]) -> Vec<&str> {
    mails.iter().map(|mail| &*mail.message_id).collect()
}

/// The account `ann` at epoch 1 with one session and a good link.
async fn with_link(folder: &TempDir) -> Sqlite {
    let store = open(folder);
    let user = User {
        id: "id-ann".into(),
        username: "ann".into(),
        email: Some("ann@example.com".into()),
        name: None,
        password: Some(PasswordHash("old".into())),
        roles: Vec::new(),
        disabled: false,
        pending: false,
        epoch: 1,
        created_at: NOW,
        updated_at: NOW,
    };
    store.add_user(user).await.unwrap();
    let session = NewSession {
        session: Session {
            id: "s".into(),
            user_id: "id-ann".into(),
            created_at: NOW,
            last_used_at: NOW,
            ends_at: NOW + 10_000,
            device: "test".into(),
            ip: "192.0.2.7".into(),
        },
        token: Some([7; 32]),
        user_epoch: 1,
        cap: 20,
        times: TIMES,
    };
    store.add_session(session).await.unwrap().unwrap();
    let token = MailToken {
        digest: [1; 32],
        user_id: "id-ann".into(),
        purpose: "test",
        user_epoch: 1,
        expires_at: NOW + 600,
    };
    assert!(store.add_mail_token(token).await.unwrap());
    store
}

fn reset(notice: Option<NewMail>) -> PasswordReset {
    PasswordReset {
        digest: [1; 32],
        purpose: "test",
        password: PasswordHash("new".into()),
        notice,
    }
}

#[tokio::test]
async fn rst_5_a_mail_is_in_one_hand_at_a_time_and_not_lost_by_it() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (open(&folder), open(&folder));
    for id in ["a", "b", "c"] {
        let mail = mail(id, &format!("{id}@example.com"), Beyond::Drop);
        assert_eq!(one.queue_mail(mail, NOW).await, Ok(Queued::Yes));
    }
    let (first, second) = tokio::join!(one.claim_mail(claim(NOW)), two.claim_mail(claim(NOW)));
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!(first.len() + second.len(), 3, "each once");
    assert_eq!(
        one.mail_status(NOW).await.unwrap(),
        MailStatus { queued: 3, due: 0 }
    );
    // The process that had them is gone: who comes after its time has them again, as the second attempt.
    assert!(two.claim_mail(claim(NOW + 89)).await.unwrap().is_empty());
    let again = two.claim_mail(claim(NOW + 90)).await.unwrap();
    assert_eq!(ids(&again), ["a", "b", "c"]);
    assert!(again.iter().all(|mail| mail.attempts == 2));
    two.settle_mail(again[0].id, None).await.unwrap();
    two.settle_mail(again[1].id, Some(NOW + 500)).await.unwrap();
    drop((one, two));
    let three = open(&folder);
    assert_eq!(
        ids(&three.claim_mail(claim(NOW + 499)).await.unwrap()),
        ["c"]
    );
    assert_eq!(
        ids(&three.claim_mail(claim(NOW + 500)).await.unwrap()),
        ["b"]
    );
}

#[tokio::test]
async fn rst_5_the_queue_has_an_end_and_a_reserve_for_what_must_not_be_lost() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let fill = |from: u32, to: u32| {
        let sql = format!(
            "WITH RECURSIVE n (n) AS (SELECT {from} UNION ALL SELECT n + 1 FROM n WHERE n < {to} - 1)
             INSERT INTO mail (message_id, purpose, recipient, created_at, first_due_at, due_at)
             SELECT 'm' || n, 'test', 'r' || n, 0, 0, 0 FROM n"
        );
        Connection::open(path(&folder))
            .unwrap()
            .execute_batch(&sql)
            .unwrap();
    };
    fill(0, QUEUE_MAX);
    let put = |id, beyond| store.queue_mail(mail(id, "ann@example.com", beyond), NOW);
    assert_eq!(put("x", Beyond::Drop).await, Ok(Queued::Full));
    assert_eq!(put("y", Beyond::Delay).await, Ok(Queued::Yes));
    fill(QUEUE_MAX, QUEUE_MAX + QUEUE_RESERVE - 1);
    assert_eq!(put("z", Beyond::Delay).await, Ok(Queued::Full));
}

#[tokio::test]
async fn rst_4_no_hour_has_more_than_three_and_no_day_more_than_ten_whatever_is_asked_when() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder);
    let mut now = NOW;
    let mut state = 1_u64;
    let mut random = move |below: u64| {
        // xorshift64 (Marsaglia 2003): the same each time.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    for turn in 0..400 {
        now += random(2000);
        let beyond = if random(2) == 0 {
            Beyond::Delay
        } else {
            Beyond::Drop
        };
        let mut mail = mail(&turn.to_string(), "ann@example.com", beyond);
        mail.purpose = ["one", "two"][usize::try_from(random(2)).unwrap()];
        store.queue_mail(mail, now).await.unwrap();
    }
    let connection = Connection::open(path(&folder)).unwrap();
    let mut times = connection
        .prepare("SELECT at FROM mail_budget ORDER BY at")
        .unwrap();
    let times: Vec<u64> = times
        .query_map([], |row| count(row, 0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert!(times.len() > 30, "{}", times.len());
    assert!(
        times.windows(4).all(|four| four[3] - four[0] >= HOUR),
        "{times:?}"
    );
    assert!(
        times
            .windows(11)
            .all(|eleven| eleven[10] - eleven[0] >= DAY),
        "{times:?}"
    );
}

#[tokio::test]
async fn store_2_a_reset_happens_as_a_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let store = with_link(&folder).await;
    let taken = mail("taken", "bob@example.com", Beyond::Drop);
    store.queue_mail(taken, NOW).await.unwrap();
    // The last step fails: neither the link is used up nor the password changed nor the session ended.
    let notice = mail("taken", "ann@example.com", Beyond::Delay);
    let failed = store.reset_password(reset(Some(notice)), TIMES).await;
    assert_eq!(failed, Err(StoreError::Conflict));
    let user = store
        .find_mail_token([1; 32], "test", NOW)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (user.password, user.epoch),
        (Some(PasswordHash("old".into())), 1)
    );
    assert_eq!(
        store.sessions("id-ann".into(), TIMES).await.unwrap().len(),
        1
    );
    let notice = mail("free", "ann@example.com", Beyond::Delay);
    let done = store
        .reset_password(reset(Some(notice)), TIMES)
        .await
        .unwrap();
    assert_eq!(
        done,
        Some(ResetDone {
            user_id: "id-ann".into(),
            ended: vec!["s".into()]
        })
    );
    assert!(
        store
            .sessions("id-ann".into(), TIMES)
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(store.mail_status(NOW).await.unwrap().queued, 2);
    let again = store.reset_password(reset(None), TIMES).await.unwrap();
    assert_eq!(again, None);
}

#[tokio::test]
async fn rst_2_a_link_of_another_time_purpose_or_epoch_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let store = with_link(&folder).await;
    let late = Times {
        now: NOW + 600,
        ..TIMES
    };
    let other = |purpose| PasswordReset {
        purpose,
        ..reset(None)
    };
    assert_eq!(
        store.reset_password(other("other"), TIMES).await.unwrap(),
        None
    );
    assert_eq!(
        store.reset_password(other("test"), late).await.unwrap(),
        None
    );
    let stale = MailToken {
        digest: [2; 32],
        user_id: "id-ann".into(),
        purpose: "test",
        user_epoch: 2,
        expires_at: NOW + 600,
    };
    assert!(
        !store.add_mail_token(stale).await.unwrap(),
        "the account has another epoch"
    );
    let gone = store.find_mail_token([1; 32], "test", NOW).await.unwrap();
    assert!(gone.is_none(), "and the last one is dead in any case");
}

#[tokio::test]
async fn what_is_over_is_erased() {
    let folder = tempfile::tempdir().unwrap();
    let store = with_link(&folder).await;
    let mail = mail("a", "ann@example.com", Beyond::Drop);
    store.queue_mail(mail, NOW).await.unwrap();
    let rows = || {
        let sql = "SELECT (SELECT count(*) FROM mail_tokens) + (SELECT count(*) FROM mail_budget)";
        let connection = Connection::open(path(&folder)).unwrap();
        connection.query_row(sql, [], |row| count(row, 0)).unwrap()
    };
    store.purge(TIMES).await.unwrap();
    assert_eq!(rows(), 2);
    let later = Times {
        now: NOW + DAY,
        ..TIMES
    };
    while store.purge(later).await.unwrap() > 0 {}
    assert_eq!(rows(), 0);
    assert_eq!(
        store.mail_status(NOW).await.unwrap().queued,
        1,
        "but no mail is"
    );
}
