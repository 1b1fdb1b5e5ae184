//! The queue of mail, its limits, and the transactions that change passwords: STORE-2, RST-2, RST-4, RST-5.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures_util::future::join_all;
use portcullis::store::{
    Beyond, Claim, MailStatus, MailToken, NewMail, PasswordChange, PasswordHash, PasswordReset,
    Queued, QueuedMail, ResetDone, Store, StoreError, Times,
    mail::{QUEUE_MAX, QUEUE_RESERVE},
};

use crate::place::{NOW, Place, TIMES, session, user};

crate::on_both!(
    auth_9_a_change_of_password_ends_the_other_sessions_once,
    rst_2_a_link_of_another_time_purpose_or_epoch_is_none,
    rst_2_of_links_made_at_once_on_two_nodes_one_is_kept,
    rst_2_of_resets_at_once_on_two_nodes_one_succeeds,
    rst_4_mail_to_nobody_gives_the_total_back_and_the_recipients_limit_not,
    rst_4_no_hour_has_more_than_three_and_no_day_more_than_ten_whatever_is_asked_when,
    rst_4_two_nodes_share_the_limits_of_one_recipient_and_the_total,
    rst_5_a_mail_is_in_one_hand_at_a_time_and_not_lost_by_it,
    rst_5_many_nodes_that_claim_at_once_get_each_mail_once,
    rst_5_the_queue_has_an_end_and_a_reserve_for_what_must_not_be_lost,
    store_2_a_reset_happens_as_a_whole_or_not_at_all,
    what_is_over_is_erased,
);

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

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

fn link(digest: u8) -> MailToken {
    MailToken {
        digest: [digest; 32],
        user_id: "id-ann".into(),
        purpose: "test",
        user_epoch: 1,
        expires_at: NOW + 600,
    }
}

/// The account `ann` at epoch 1 with one session and a good link.
async fn with_link(place: &Place) -> Arc<dyn Store> {
    let store = place.node();
    let mut ann = user("ann");
    ann.password = Some(PasswordHash("old".into()));
    store.add_user(ann.clone()).await.unwrap();
    let session = store.add_session(session(&ann, "s", 7)).await;
    session.unwrap().unwrap();
    assert!(store.add_mail_token(link(1)).await.unwrap());
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

async fn rst_5_a_mail_is_in_one_hand_at_a_time_and_not_lost_by_it(place: Place) {
    let (one, two) = (place.node(), place.node());
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
    let three = place.node();
    assert_eq!(
        ids(&three.claim_mail(claim(NOW + 499)).await.unwrap()),
        ["c"]
    );
    assert_eq!(
        ids(&three.claim_mail(claim(NOW + 500)).await.unwrap()),
        ["b"]
    );
}

async fn rst_5_the_queue_has_an_end_and_a_reserve_for_what_must_not_be_lost(place: Place) {
    let store = place.node();
    let fill = async |from: u32, to: u32| {
        let sql = format!(
            "WITH RECURSIVE n (n) AS (SELECT {from} UNION ALL SELECT n + 1 FROM n WHERE n < {to} - 1)
             INSERT INTO mail (message_id, purpose, recipient, created_at, first_due_at, due_at)
             SELECT 'm' || n, 'test', 'r' || n, 0, 0, 0 FROM n"
        );
        place.execute(&sql).await;
    };
    fill(0, QUEUE_MAX).await;
    let put = |id, beyond| store.queue_mail(mail(id, "ann@example.com", beyond), NOW);
    assert_eq!(put("x", Beyond::Drop).await, Ok(Queued::Full));
    assert_eq!(put("y", Beyond::Delay).await, Ok(Queued::Yes));
    fill(QUEUE_MAX, QUEUE_MAX + QUEUE_RESERVE - 1).await;
    assert_eq!(put("z", Beyond::Delay).await, Ok(Queued::Full));
}

async fn rst_4_no_hour_has_more_than_three_and_no_day_more_than_ten_whatever_is_asked_when(
    place: Place,
) {
    let store = place.node();
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
    let times = place
        .numbers("SELECT at FROM mail_budget ORDER BY at")
        .await;
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

async fn store_2_a_reset_happens_as_a_whole_or_not_at_all(place: Place) {
    let store = with_link(&place).await;
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

async fn rst_2_a_link_of_another_time_purpose_or_epoch_is_none(place: Place) {
    let store = with_link(&place).await;
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

async fn what_is_over_is_erased(place: Place) {
    let store = with_link(&place).await;
    let mail = mail("a", "ann@example.com", Beyond::Drop);
    store.queue_mail(mail, NOW).await.unwrap();
    let rows = "SELECT (SELECT count(*) FROM mail_tokens) + (SELECT count(*) FROM mail_budget)";
    store.purge(TIMES).await.unwrap();
    assert_eq!(place.number(rows).await, 2);
    let later = Times {
        now: NOW + 24 * 3600,
        ..TIMES
    };
    while store.purge(later).await.unwrap() > 0 {}
    assert_eq!(place.number(rows).await, 0);
    assert_eq!(
        store.mail_status(NOW).await.unwrap().queued,
        1,
        "but no mail is"
    );
}

async fn rst_2_of_links_made_at_once_on_two_nodes_one_is_kept(place: Place) {
    let (one, two) = (with_link(&place).await, place.node());
    let made = (10..30_u8).map(|digest| {
        let node = if digest % 2 == 0 { &one } else { &two };
        node.add_mail_token(link(digest))
    });
    for made in join_all(made).await {
        assert_eq!(made, Ok(true));
    }
    let kept = place.number("SELECT count(*) FROM mail_tokens").await;
    assert_eq!(kept, 1);
    let mut good = 0;
    for digest in 10..30 {
        let found = one.find_mail_token([digest; 32], "test", NOW).await;
        good += usize::from(found.unwrap().is_some());
    }
    assert_eq!(good, 1);
}

async fn rst_2_of_resets_at_once_on_two_nodes_one_succeeds(place: Place) {
    let (one, two) = (with_link(&place).await, place.node());
    let resets = (0..10).map(|index| {
        let node = if index % 2 == 0 { &one } else { &two };
        let id = format!("n{index}");
        node.reset_password(
            reset(Some(mail(&id, "ann@example.com", Beyond::Delay))),
            TIMES,
        )
    });
    let done = join_all(resets).await;
    let done: Vec<_> = done.into_iter().filter_map(Result::unwrap).collect();
    assert_eq!(done.len(), 1, "{done:?}");
    assert_eq!(*done[0].ended, ["s".into()]);
    assert_eq!(two.mail_status(NOW).await.unwrap().queued, 1);
    let feed = two.revocations_after(0).await.unwrap();
    assert_eq!(feed.len(), 1);
}

async fn auth_9_a_change_of_password_ends_the_other_sessions_once(place: Place) {
    let (one, two) = (with_link(&place).await, place.node());
    for (id, token) in [("t", 8), ("u", 9)] {
        let other = one.add_session(session(&user("ann"), id, token)).await;
        other.unwrap().unwrap();
    }
    let change = |session: &str, epoch| PasswordChange {
        user_id: "id-ann".into(),
        user_epoch: epoch,
        session_id: session.into(),
        password: PasswordHash("new".into()),
        notice: Some(mail(
            &format!("{session}{epoch}"),
            "ann@example.com",
            Beyond::Delay,
        )),
    };
    for (session, epoch) in [("s", 2), ("none", 1), ("s\0", 1)] {
        let none = one.change_password(change(session, epoch), TIMES).await;
        assert_eq!(none, Ok(None), "{session} {epoch}");
    }
    assert_eq!(one.mail_status(NOW).await.unwrap().queued, 0);
    let (first, second) = tokio::join!(
        one.change_password(change("s", 1), TIMES),
        two.change_password(change("t", 1), TIMES),
    );
    let done: Vec<_> = [first, second]
        .into_iter()
        .filter_map(Result::unwrap)
        .collect();
    assert_eq!(done.len(), 1, "{done:?}");
    assert_eq!(done[0].len(), 2);
    let alive = two.sessions("id-ann".into(), TIMES).await.unwrap();
    assert_eq!(alive.len(), 1, "the caller's own goes on");
    assert!(!done[0].contains(&alive[0].id));
    assert_eq!(two.mail_status(NOW).await.unwrap().queued, 1);
    assert!(
        two.find_mail_token([1; 32], "test", NOW)
            .await
            .unwrap()
            .is_none()
    );
}

async fn rst_4_two_nodes_share_the_limits_of_one_recipient_and_the_total(place: Place) {
    let nodes = [place.node(), place.node()];
    let queue = |index: usize, recipient: String, total| {
        let id = format!("{recipient}{index}");
        let mail = NewMail {
            total: (total, Duration::from_secs(3600)),
            ..mail(&id, &recipient, Beyond::Drop)
        };
        nodes[index % 2].queue_mail(mail, NOW)
    };
    let ann = (0..20).map(|index| queue(index, "ann@example.com".into(), 1000));
    let all = (0..20).map(|index| queue(index, format!("u{index}@example.com"), 10));
    let taken = |answers: Vec<Result<Queued, StoreError>>| {
        let answers = answers.into_iter().map(Result::unwrap);
        answers.filter(|answer| *answer == Queued::Yes).count()
    };
    assert_eq!(taken(join_all(ann).await), 3);
    assert_eq!(taken(join_all(all).await), 7);
    assert_eq!(place.number("SELECT count(*) FROM mail").await, 10);
}

async fn rst_4_mail_to_nobody_gives_the_total_back_and_the_recipients_limit_not(place: Place) {
    let store = with_link(&place).await;
    let put = |id: &str, recipient: &str| {
        let mail = NewMail {
            total: (4, Duration::from_secs(3600)),
            ..mail(id, recipient, Beyond::Drop)
        };
        store.queue_mail(mail, NOW)
    };
    for id in ["a", "b", "c"] {
        assert_eq!(put(id, "eve@example.com").await, Ok(Queued::Yes));
    }
    assert_eq!(put("d", "ann@example.com").await, Ok(Queued::Yes));
    assert_eq!(put("e", "ann@example.com").await, Ok(Queued::OverBudget));
    assert_eq!(store.drop_mail_to_nobody("other").await, Ok(0));
    assert_eq!(store.drop_mail_to_nobody("test").await, Ok(3));
    assert_eq!(store.drop_mail_to_nobody("test").await, Ok(0));
    assert_eq!(put("f", "ann@example.com").await, Ok(Queued::Yes));
    assert_eq!(put("g", "eve@example.com").await, Ok(Queued::OverBudget));
    let left = store.claim_mail(claim(NOW)).await.unwrap();
    assert_eq!(ids(&left), ["d", "f"]);
}

async fn rst_5_many_nodes_that_claim_at_once_get_each_mail_once(place: Place) {
    let nodes = [place.node(), place.node(), place.node()];
    for index in 0..60 {
        let id = format!("m{index}");
        let mail = mail(&id, &format!("{id}@example.com"), Beyond::Drop);
        assert_eq!(nodes[0].queue_mail(mail, NOW).await, Ok(Queued::Yes));
    }
    let mut all = Vec::new();
    while all.len() < 60 {
        let claims = nodes.iter().map(|node| node.claim_mail(claim(NOW)));
        let round: Vec<_> = join_all(claims)
            .await
            .into_iter()
            .flat_map(Result::unwrap)
            .collect();
        assert!(!round.is_empty(), "{}", all.len());
        all.extend(round.iter().map(|mail| mail.message_id.clone()));
    }
    assert_eq!(all.len(), 60);
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 60);
}
