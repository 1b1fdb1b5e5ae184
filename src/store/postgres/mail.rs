//! The statements over mail. Every value is bound, none is written into SQL (STORE-4).
//!
//! Whoever adds a mail holds the queue, so that nodes share its limits.

use deadpool_postgres::Transaction;
use tokio_postgres::Row;

use super::{
    super::{
        Answer, Beyond, Claim, Digest, MailStatus, MailToken, NewMail, NewRegistration,
        PasswordChange, PasswordReset, Queued, QueuedMail, RecoveryStore, RegistrationKey,
        ResetDone, Times, User,
        mail::{PER_RECIPIENT_DAY, PER_RECIPIENT_HOUR, QUEUE_MAX, QUEUE_RESERVE},
    },
    Fault, Postgres, column, count, hold, names_nothing, ready, recovery, registrations,
};

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

/// How much later a mail is sent for which there is no room among those to all recipients.
const CROWDED_DELAY: u64 = 15 * 60;

/// Mails to nobody that one transaction erases.
const BATCH: i64 = 500;

const COLUMNS: &str = "mail.id, mail.message_id, mail.purpose, mail.recipient, mail.username, mail.client, \
     mail.created_at, mail.first_due_at, mail.attempts";

impl RecoveryStore for Postgres {
    fn change_password(
        &self,
        change: PasswordChange,
        times: Times,
    ) -> Answer<Option<Vec<Box<str>>>> {
        if names_nothing(&change.user_id) || names_nothing(&change.session_id) {
            return ready(None);
        }
        self.call((change, times), |transaction, (change, times)| {
            Box::pin(recovery::change_password(transaction, change, times))
        })
    }

    fn reset_password(&self, reset: PasswordReset, times: Times) -> Answer<Option<ResetDone>> {
        self.call((reset, times), |transaction, (reset, times)| {
            Box::pin(recovery::reset_password(transaction, reset, times))
        })
    }

    fn find_mail_token(
        &self,
        digest: Digest,
        purpose: &'static str,
        now: u64,
    ) -> Answer<Option<User>> {
        self.call(
            (digest, purpose, now),
            |transaction, (digest, purpose, now)| {
                Box::pin(recovery::find_token(transaction, digest, purpose, *now))
            },
        )
    }

    fn add_mail_token(&self, token: MailToken) -> Answer<bool> {
        if names_nothing(&token.user_id) {
            return ready(false);
        }
        self.call(token, |transaction, token| {
            Box::pin(recovery::add_token(transaction, token))
        })
    }

    fn queue_mail(&self, mail: NewMail, now: u64) -> Answer<Queued> {
        self.call((mail, now), |transaction, (mail, now)| {
            Box::pin(queue(transaction, mail, *now))
        })
    }

    fn mail_status(&self, now: u64) -> Answer<MailStatus> {
        self.call(now, |transaction, now| Box::pin(status(transaction, *now)))
    }

    fn drop_mail_to_nobody(&self, purpose: &'static str) -> Answer<usize> {
        self.call(purpose, |transaction, purpose| {
            Box::pin(drop_to_nobody(transaction, purpose))
        })
    }

    fn claim_mail(&self, claim: Claim) -> Answer<Vec<QueuedMail>> {
        self.call(claim, |transaction, claim| {
            Box::pin(take(transaction, claim))
        })
    }

    fn settle_mail(&self, id: i64, again_at: Option<u64>) -> Answer<()> {
        self.call((id, again_at), |transaction, (id, again_at)| {
            Box::pin(settle(transaction, *id, *again_at))
        })
    }

    fn add_registration(&self, new: NewRegistration, mail: NewMail, now: u64) -> Answer<Queued> {
        self.call((new, mail, now), |transaction, (new, mail, now)| {
            Box::pin(registrations::add(transaction, new, mail, *now))
        })
    }

    fn find_registration(&self, key: RegistrationKey, now: u64) -> Answer<Option<NewRegistration>> {
        self.call((key, now), |transaction, (key, now)| {
            Box::pin(registrations::find(transaction, key, *now))
        })
    }

    fn add_registration_token(
        &self,
        id: Box<str>,
        digest: Digest,
        expires_at: u64,
    ) -> Answer<bool> {
        self.call(
            (id, digest, expires_at),
            |transaction, (id, digest, expires_at)| {
                Box::pin(registrations::add_token(
                    transaction,
                    id,
                    digest,
                    *expires_at,
                ))
            },
        )
    }

    fn complete_registration(&self, digest: Digest, user: User, now: u64) -> Answer<Option<User>> {
        self.call((digest, user, now), |transaction, (digest, user, now)| {
            Box::pin(registrations::complete(transaction, digest, user, *now))
        })
    }
}

/// Queues a mail where the limits have room, at the time at which they have it.
pub(super) async fn queue(
    transaction: &Transaction<'_>,
    mail: &NewMail,
    now: u64,
) -> Result<Queued, Fault> {
    // Whoever counts and adds does it alone, or two nodes would take the last place.
    hold(transaction, "portcullis.mail").await?;
    let most = match mail.beyond {
        Beyond::Delay => QUEUE_MAX + QUEUE_RESERVE,
        Beyond::Drop => QUEUE_MAX,
    };
    let statement = transaction
        .prepare_cached("SELECT count(*) FROM mail")
        .await?;
    let waiting = count(&transaction.query_one(&statement, &[]).await?, 0)?;
    if waiting >= u64::from(most) {
        return Ok(Queued::Full);
    }
    let due = room_at(transaction, mail, now).await?;
    if due > now {
        if mail.beyond == Beyond::Drop {
            return Ok(Queued::OverBudget);
        }
        if waits_already(transaction, mail, now).await? {
            return Ok(Queued::Waits);
        }
    }
    let statement = transaction
        .prepare_cached(
            "WITH added AS (
                 INSERT INTO mail (message_id, purpose, recipient, username, client, created_at, first_due_at, due_at)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $7) RETURNING id, recipient, due_at)
             INSERT INTO mail_budget (mail_id, recipient, at) SELECT id, recipient, due_at FROM added",
        )
        .await?;
    transaction
        .execute(
            &statement,
            &[
                &mail.message_id,
                &mail.purpose,
                &mail.recipient,
                &mail.username,
                &mail.client,
                &column(now),
                &column(due),
            ],
        )
        .await?;
    Ok(Queued::Yes)
}

/// The first moment from now at which the limits take this mail. One placed an hour after the third-last leaves no hour with
/// more than three in it, wherever the last two are; likewise for the day.
async fn room_at(transaction: &Transaction<'_>, mail: &NewMail, now: u64) -> Result<u64, Fault> {
    let nth_last = transaction
        .prepare_cached(
            "SELECT at FROM mail_budget WHERE recipient = $1 ORDER BY at DESC LIMIT 1 OFFSET $2",
        )
        .await?;
    let mut due = now;
    for (limit, window) in [(PER_RECIPIENT_HOUR, HOUR), (PER_RECIPIENT_DAY, DAY)] {
        let skipped = i64::from(limit.saturating_sub(1));
        let row = transaction
            .query_opt(&nth_last, &[&mail.recipient, &skipped])
            .await?;
        if let Some(row) = row {
            due = due.max(count(&row, 0)?.saturating_add(window));
        }
    }
    let (total, window) = mail.total;
    let statement = transaction
        .prepare_cached("SELECT count(*) FROM mail_budget WHERE counted AND at > $1 AND at <= $2")
        .await?;
    let from = column(now.saturating_sub(window.as_secs()));
    let row = transaction
        .query_one(&statement, &[&from, &column(now)])
        .await?;
    let sent = count(&row, 0)?;
    if sent >= u64::from(total) {
        due = due.max(now.saturating_add(CROWDED_DELAY));
    }
    Ok(due)
}

async fn waits_already(
    transaction: &Transaction<'_>,
    mail: &NewMail,
    now: u64,
) -> Result<bool, Fault> {
    let statement = transaction
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM mail WHERE recipient = $1 AND purpose = $2 AND due_at > $3
             AND attempts = 0)",
        )
        .await?;
    let row = transaction
        .query_one(&statement, &[&mail.recipient, &mail.purpose, &column(now)])
        .await?;
    Ok(row.try_get(0)?)
}

async fn status(transaction: &Transaction<'_>, now: u64) -> Result<MailStatus, Fault> {
    let statement = transaction
        .prepare_cached(
            "SELECT count(*), count(*) FILTER (WHERE due_at <= $1 AND claimed_until <= $1) FROM mail",
        )
        .await?;
    let row = transaction.query_one(&statement, &[&column(now)]).await?;
    Ok(MailStatus {
        queued: count(&row, 0)?,
        due: count(&row, 1)?,
    })
}

async fn drop_to_nobody(transaction: &Transaction<'_>, purpose: &str) -> Result<usize, Fault> {
    // A known and an unknown address must be asked for equally often: the entry stays, and the total is given back.
    let statement = transaction
        .prepare_cached(
            "WITH nobodys AS MATERIALIZED (
                 SELECT id FROM mail WHERE purpose = $1 AND attempts = 0 AND NOT EXISTS (
                     SELECT 1 FROM users WHERE users.email = mail.recipient AND NOT users.disabled)
                 LIMIT $2 FOR UPDATE OF mail SKIP LOCKED),
             gone AS (DELETE FROM mail USING nobodys WHERE mail.id = nobodys.id RETURNING mail.id),
             given_back AS (UPDATE mail_budget SET counted = FALSE FROM gone WHERE mail_id = gone.id)
             SELECT count(*) FROM gone",
        )
        .await?;
    let row = transaction
        .query_one(&statement, &[&purpose, &BATCH])
        .await?;
    Ok(usize::try_from(count(&row, 0)?).unwrap_or(usize::MAX))
}

/// Mails that another node is taking at this moment are passed over, not waited for.
async fn take(transaction: &Transaction<'_>, claim: &Claim) -> Result<Vec<QueuedMail>, Fault> {
    let statement = transaction
        .prepare_cached(&format!(
            "WITH due AS MATERIALIZED (
                 SELECT id FROM mail WHERE due_at <= $1 AND claimed_until <= $1
                 ORDER BY due_at, id LIMIT $2 FOR UPDATE SKIP LOCKED),
             mail AS (
                 UPDATE mail SET claimed_until = $3, attempts = attempts + 1 FROM due WHERE mail.id = due.id
                 RETURNING mail.*)
             SELECT {COLUMNS} FROM mail ORDER BY due_at, id"
        ))
        .await?;
    let rows = transaction
        .query(
            &statement,
            &[
                &column(claim.now),
                &i64::from(claim.count),
                &column(claim.until),
            ],
        )
        .await?;
    rows.iter().map(read).collect()
}

async fn settle(
    transaction: &Transaction<'_>,
    id: i64,
    again_at: Option<u64>,
) -> Result<(), Fault> {
    match again_at {
        None => {
            let sql = "DELETE FROM mail WHERE id = $1";
            let statement = transaction.prepare_cached(sql).await?;
            transaction.execute(&statement, &[&id]).await?;
        }
        Some(at) => {
            let sql = "UPDATE mail SET due_at = $2, claimed_until = 0 WHERE id = $1";
            let statement = transaction.prepare_cached(sql).await?;
            transaction.execute(&statement, &[&id, &column(at)]).await?;
        }
    }
    Ok(())
}

fn read(row: &Row) -> Result<QueuedMail, Fault> {
    Ok(QueuedMail {
        id: row.try_get(0)?,
        message_id: row.try_get(1)?,
        purpose: row.try_get(2)?,
        recipient: row.try_get(3)?,
        username: row.try_get(4)?,
        client: row.try_get(5)?,
        created_at: count(row, 6)?,
        first_due_at: count(row, 7)?,
        attempts: count(row, 8)?,
    })
}
