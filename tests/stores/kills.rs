//! `kill -9` at every step of a reset, of its mail and of a rotation, on both stores: SESS-1, SESS-3, RST-2, RST-3, RST-5, STORE-2.
//!
//! The gateway is stopped in the midst of a transaction, right after one statement of it, and killed there. What it had
//! answered must be so when it runs again; what it had not must have happened as a whole or not at all.

use std::{fs, os::unix::fs::PermissionsExt};

use serde_json::json;

use crate::{
    halt::Step,
    harness::eventually,
    place::Place,
    story::{LINK, Story, forgot, pair, reset, token},
};

crate::on_both!(
    rst_2_and_rst_3_a_reset_that_dies_at_any_step_happened_as_a_whole_or_not_at_all,
    rst_5_a_mail_whose_sender_dies_at_any_step_is_sent_and_its_link_works_once,
    rst_5_a_request_for_a_link_that_dies_at_any_step_is_kept_once_it_was_answered,
    sess_1_and_sess_5_an_alarm_and_a_logout_that_die_at_any_step_are_raised_anew,
    sess_3_a_rotation_that_dies_at_any_step_leaves_one_live_end,
);

async fn rst_5_a_request_for_a_link_that_dies_at_any_step_is_kept_once_it_was_answered(
    place: Place,
) {
    let mut story = Story::begin(place).await;
    for step in [Step("INSERT", "mail"), Step("INSERT", "mail_budget")] {
        story
            .kill_at(step, "/auth/password/forgot", &forgot())
            .await;
        for table in ["mail", "mail_budget"] {
            assert_eq!(story.count(table).await, 0, "{step:?}: {table}");
        }
        story.resume().await;
    }
    // Answered, and killed before the mail was looked at: the answer holds.
    story.kill_sender_at(Step("UPDATE", "mail")).await;
    assert_eq!(story.count("mail").await, 1);
    assert!(story.mails().is_empty());
    story.resume().await;
    let mails = story.sent(LINK).await;
    assert_eq!(mails.len(), 1, "{mails:?}");
    story.works_once(&token(&mails[0])).await;
}

async fn rst_5_a_mail_whose_sender_dies_at_any_step_is_sent_and_its_link_works_once(place: Place) {
    let mut story = Story::begin(place).await;
    // It takes the mail in hand, makes the link, and notes that the mail was taken.
    for step in [
        Step("UPDATE", "mail"),
        Step("INSERT", "mail_tokens"),
        Step("DELETE", "mail"),
    ] {
        story.empty_spool();
        story.kill_sender_at(step).await;
        assert_eq!(story.count("mail").await, 1, "{step:?}: it is queued");
        let written = story.mails();
        assert_eq!(written.len(), usize::from(step.0 == "DELETE"), "{step:?}");
        story.resume().await;
        story.later().await;
        let mails = story.sent(LINK).await;
        // It has one name, so what was written twice is there once.
        assert_eq!(mails.len(), 1, "{step:?}: {mails:?}");
        let link = token(&mails[0]);
        if let Some(first) = written.first() {
            let first = token(first);
            assert_ne!(first, link);
            let dead = story.reset(&first, "yet another horse battery").await;
            dead.refused(401, "invalid_grant");
        }
        story.works_once(&link).await;
    }
    // Between the link and its mail: the folder takes none yet.
    let mode = |mode| fs::set_permissions(story.spool(), fs::Permissions::from_mode(mode)).unwrap();
    story.later().await;
    story.empty_spool();
    mode(0o755);
    story.forgot().await.is(202);
    eventually("a link", async || {
        let tried = "SELECT count(*) FROM mail WHERE attempts = 1 AND claimed_until = 0";
        (story.place.number(tried).await == 1).then_some(())
    })
    .await;
    mode(0o700);
    story.kill().await;
    assert_eq!(
        (story.count("mail_tokens").await, story.mails().len()),
        (1, 0)
    );
    story.resume().await;
    let mails = story.sent(LINK).await;
    assert_eq!(mails.len(), 1, "{mails:?}");
    let link = token(&mails[0]);
    story.works_once(&link).await;
}

async fn rst_2_and_rst_3_a_reset_that_dies_at_any_step_happened_as_a_whole_or_not_at_all(
    place: Place,
) {
    let mut story = Story::begin(place).await;
    for step in [
        Step("DELETE", "mail_tokens"),
        Step("UPDATE", "users"),
        Step("UPDATE", "sessions"),
        Step("INSERT", "mail"),
        Step("INSERT", "mail_budget"),
        Step("INSERT", "revocations"),
    ] {
        let before = [story.session().await, story.session().await];
        let link = story.link().await;
        let never = story.other_password();
        story
            .kill_at(step, "/auth/password/reset", &reset(&link, &never))
            .await;
        story.resume().await;
        // It did not happen: the old password, the sessions and the link are as they were, and nobody is told of anything.
        assert_eq!(story.login(&never).await.status, 401, "{step:?}");
        story.login(&story.password).await.is(200);
        for pair in &before {
            assert!(story.opens(&pair.access).await, "{step:?}");
        }
        let renewed = pair(&story.refresh(&before[0].refresh).await);
        assert_eq!(
            (story.count("mail").await, story.count("mail_budget").await),
            (0, 1)
        );
        story.works_once(&link).await;
        for access in [&before[0].access, &before[1].access, &renewed.access] {
            assert!(!story.opens(access).await, "{step:?}");
        }
        for token in [&before[1].refresh, &renewed.refresh] {
            story.refresh(token).await.refused(401, "invalid_grant");
        }
    }
    // Killed as soon as it has happened, whether that was answered or not.
    let before = story.session().await;
    let link = story.link().await;
    let new = story.other_password();
    let epoch = "SELECT epoch FROM users";
    let body = reset(&link, &new);
    story
        .kill_when_done("/auth/password/reset", &body, epoch)
        .await;
    story.resume().await;
    assert_eq!(story.login(&story.password).await.status, 401);
    story.login(&new).await.is(200);
    assert!(!story.opens(&before.access).await);
    story
        .refresh(&before.refresh)
        .await
        .refused(401, "invalid_grant");
    story
        .reset(&link, "yet another horse battery")
        .await
        .refused(401, "invalid_grant");
    story.later().await;
    assert_eq!(story.sent("was changed").await.len(), 1);
}

/// The live ends of all sessions that are not over.
const LIVE_ENDS: &str =
    "SELECT count(*) FROM refresh_tokens JOIN sessions ON sessions.id = session_id
                         WHERE rotated_at IS NULL AND revoked_at IS NULL";

async fn sess_3_a_rotation_that_dies_at_any_step_leaves_one_live_end(place: Place) {
    let mut story = Story::begin(place).await;
    let login = json!({ "username": "ann", "password": story.password });
    for step in [Step("INSERT", "sessions"), Step("INSERT", "refresh_tokens")] {
        story.kill_at(step, "/auth/login", &login).await;
        assert_eq!(story.count("sessions").await, 0, "{step:?}");
        story.resume().await;
    }
    let mut session = story.session().await;
    for step in [
        Step("UPDATE", "refresh_tokens"),
        Step("INSERT", "refresh_tokens"),
        Step("UPDATE", "sessions"),
    ] {
        let body = json!({ "refresh_token": session.refresh });
        story.kill_at(step, "/auth/refresh", &body).await;
        assert_eq!(story.place.number(LIVE_ENDS).await, 1, "{step:?}");
        story.resume().await;
        assert!(story.opens(&session.access).await, "{step:?}");
        session = pair(&story.refresh(&session.refresh).await);
    }
    // It has happened and its answer is lost: the same token leads to the live end.
    let rotated = "SELECT count(*) FROM refresh_tokens WHERE rotated_at IS NOT NULL";
    let body = json!({ "refresh_token": session.refresh });
    story.kill_when_done("/auth/refresh", &body, rotated).await;
    assert_eq!(story.place.number(LIVE_ENDS).await, 1);
    // However long the machine takes to come back: within the grace window.
    story
        .place
        .execute(
            "UPDATE refresh_tokens SET rotated_at = rotated_at + 60 WHERE rotated_at IS NOT NULL",
        )
        .await;
    story.resume().await;
    let next = pair(&story.refresh(&session.refresh).await);
    assert!(story.opens(&next.access).await);
}

async fn sess_1_and_sess_5_an_alarm_and_a_logout_that_die_at_any_step_are_raised_anew(
    place: Place,
) {
    let mut story = Story::begin(place).await;
    let session = story.session().await;
    let next = pair(&story.refresh(&session.refresh).await);
    // The alarm over a token that was used long ago, and a logout: either is raised anew where it was cut off.
    story
        .place
        .execute(
            "UPDATE refresh_tokens SET rotated_at = rotated_at - 600 WHERE rotated_at IS NOT NULL",
        )
        .await;
    for (target, token) in [
        ("/auth/refresh", &session.refresh),
        ("/auth/logout", &next.refresh),
    ] {
        for step in [Step("UPDATE", "sessions"), Step("INSERT", "revocations")] {
            let body = json!({ "refresh_token": token });
            story.kill_at(step, target, &body).await;
            assert_eq!(story.place.number(LIVE_ENDS).await, 1, "{target} {step:?}");
            story.resume().await;
            assert!(story.opens(&next.access).await, "{target} {step:?}");
        }
    }
    story
        .refresh(&session.refresh)
        .await
        .refused(401, "invalid_grant");
    assert!(!story.opens(&next.access).await);
    story
        .refresh(&next.refresh)
        .await
        .refused(401, "invalid_grant");
    assert_eq!(story.place.number(LIVE_ENDS).await, 0);
    assert_eq!(story.count("revocations").await, 1);
}
