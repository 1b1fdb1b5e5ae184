//! The statements over mail, links and changes of passwords. Every value is bound, none is written into SQL (STORE-4).

use rusqlite::{Connection, OptionalExtension, Row, Transaction, named_params};

use super::{
    super::{
        Answer, Beyond, Claim, Digest, MailStatus, MailToken, NewMail, NewRegistration,
        PasswordChange, PasswordReset, QueuedMail, RecoveryStore, RegistrationKey, ResetDone,
        Times, User,
        mail::{PER_RECIPIENT_DAY, PER_RECIPIENT_HOUR, QUEUE_MAX, QUEUE_RESERVE, Queued},
    },
    Sqlite, column, count, registrations, sessions, users,
};

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

/// How much later a mail is sent for which there is no room among those to all recipients.
const CROWDED_DELAY: u64 = 15 * 60;

/// Rows of one kind that one statement of housekeeping touches.
const BATCH: u32 = 500;

impl RecoveryStore for Sqlite {
    fn change_password(
        &self,
        change: PasswordChange,
        times: Times,
    ) -> Answer<Option<Vec<Box<str>>>> {
        self.write(move |transaction| change_password(transaction, &change, &times))
    }

    fn reset_password(&self, reset: PasswordReset, times: Times) -> Answer<Option<ResetDone>> {
        self.write(move |transaction| reset_password(transaction, &reset, &times))
    }

    fn find_mail_token(
        &self,
        digest: Digest,
        purpose: &'static str,
        now: u64,
    ) -> Answer<Option<User>> {
        self.read(move |connection| find_token(connection, &digest, purpose, now))
    }

    fn add_mail_token(&self, token: MailToken) -> Answer<bool> {
        self.write(move |transaction| add_token(transaction, &token))
    }

    fn queue_mail(&self, mail: NewMail, now: u64) -> Answer<Queued> {
        self.write(move |transaction| queue(transaction, &mail, now))
    }

    fn mail_status(&self, now: u64) -> Answer<MailStatus> {
        self.read(move |connection| status(connection, now))
    }

    fn drop_mail_to_nobody(&self, purpose: &'static str) -> Answer<usize> {
        self.write(move |transaction| drop_to_nobody(transaction, purpose))
    }

    fn claim_mail(&self, claim: Claim) -> Answer<Vec<QueuedMail>> {
        self.write(move |transaction| take(transaction, &claim))
    }

    fn settle_mail(&self, id: i64, again_at: Option<u64>) -> Answer<()> {
        self.write(move |transaction| settle(transaction, id, again_at))
    }

    fn add_registration(&self, new: NewRegistration, mail: NewMail, now: u64) -> Answer<Queued> {
        self.write(move |transaction| registrations::add(transaction, &new, &mail, now))
    }

    fn find_registration(&self, key: RegistrationKey, now: u64) -> Answer<Option<NewRegistration>> {
        self.read(move |connection| registrations::find(connection, &key, now))
    }

    fn add_registration_token(
        &self,
        id: Box<str>,
        digest: Digest,
        expires_at: u64,
    ) -> Answer<bool> {
        self.write(move |transaction| {
            registrations::add_token(transaction, &id, &digest, expires_at)
        })
    }

    fn complete_registration(&self, digest: Digest, user: User, now: u64) -> Answer<Option<User>> {
        self.write(move |transaction| registrations::complete(transaction, &digest, user, now))
    }
}

fn change_password(
    transaction: &Transaction<'_>,
    change: &PasswordChange,
    times: &Times,
) -> rusqlite::Result<Option<Vec<Box<str>>>> {
    let alive: bool = transaction
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM sessions
             WHERE id = ?1 AND user_id = ?2 AND revoked_at IS NULL AND ends_at > ?3)",
        )?
        .query_row(
            (&change.session_id, &change.user_id, column(times.now)),
            |row| row.get(0),
        )?;
    let password = &change.password.0;
    if !alive
        || !set_password(
            transaction,
            &change.user_id,
            change.user_epoch,
            password,
            times,
        )?
    {
        return Ok(None);
    }
    let ended = sessions::end_others(transaction, &change.user_id, &change.session_id, times)?;
    if let Some(notice) = &change.notice {
        queue(transaction, notice, times.now)?;
    }
    Ok(Some(ended))
}

fn reset_password(
    transaction: &Transaction<'_>,
    reset: &PasswordReset,
    times: &Times,
) -> rusqlite::Result<Option<ResetDone>> {
    let consumed: Option<(Box<str>, u64)> = transaction
        .prepare_cached(
            "DELETE FROM mail_tokens WHERE digest = ?1 AND purpose = ?2 AND expires_at > ?3
             RETURNING user_id, user_epoch",
        )?
        .query_row((&reset.digest, reset.purpose, column(times.now)), |row| {
            Ok((row.get(0)?, count(row, 1)?))
        })
        .optional()?;
    let Some((user_id, epoch)) = consumed else {
        return Ok(None);
    };
    // With a changed or shut account the link was dead already, and is gone now.
    if !set_password(transaction, &user_id, epoch, &reset.password.0, times)? {
        return Ok(None);
    }
    let all = super::Ending::AllOf {
        user_id: user_id.clone(),
    };
    let ended = sessions::end(transaction, &all, times)?;
    if let Some(notice) = &reset.notice {
        queue(transaction, notice, times.now)?;
    }
    Ok(Some(ResetDone { user_id, ended }))
}

/// Says whether the account was open and as it was at that epoch. With the epoch every link of before dies.
fn set_password(
    transaction: &Transaction<'_>,
    user_id: &str,
    epoch: u64,
    password: &str,
    times: &Times,
) -> rusqlite::Result<bool> {
    let changed = transaction
        .prepare_cached(
            "UPDATE users SET password = ?3, epoch = epoch + 1, updated_at = ?4
             WHERE id = ?1 AND epoch = ?2 AND disabled = 0 AND email IS NOT NULL",
        )?
        .execute((user_id, column(epoch), password, column(times.now)))?;
    Ok(changed == 1)
}

fn find_token(
    connection: &Connection,
    digest: &Digest,
    purpose: &str,
    now: u64,
) -> rusqlite::Result<Option<User>> {
    connection
        .prepare_cached(&format!(
            "SELECT {} FROM mail_tokens JOIN users ON users.id = mail_tokens.user_id
             WHERE mail_tokens.digest = ?1 AND mail_tokens.purpose = ?2 AND mail_tokens.expires_at > ?3
             AND users.epoch = mail_tokens.user_epoch AND users.disabled = 0",
            users::COLUMNS
        ))?
        .query_row((digest, purpose, column(now)), |row| users::read(row, 0))
        .optional()
}

fn add_token(transaction: &Transaction<'_>, token: &MailToken) -> rusqlite::Result<bool> {
    transaction
        .prepare_cached("DELETE FROM mail_tokens WHERE user_id = ?1 AND purpose = ?2")?
        .execute((&token.user_id, token.purpose))?;
    let added = transaction
        .prepare_cached(
            "INSERT INTO mail_tokens (digest, user_id, purpose, user_epoch, expires_at)
             SELECT ?1, id, ?3, epoch, ?5 FROM users WHERE id = ?2 AND epoch = ?4 AND disabled = 0",
        )?
        .execute((
            &token.digest,
            &token.user_id,
            token.purpose,
            column(token.user_epoch),
            column(token.expires_at),
        ))?;
    Ok(added == 1)
}

/// Queues a mail where the limits have room, at the time at which they have it.
pub(super) fn queue(
    transaction: &Transaction<'_>,
    mail: &NewMail,
    now: u64,
) -> rusqlite::Result<Queued> {
    let waiting: u32 = transaction
        .prepare_cached("SELECT count(*) FROM mail")?
        .query_row([], |row| row.get(0))?;
    let most = match mail.beyond {
        Beyond::Delay => QUEUE_MAX + QUEUE_RESERVE,
        Beyond::Drop => QUEUE_MAX,
    };
    if waiting >= most {
        return Ok(Queued::Full);
    }
    let due = room_at(transaction, mail, now)?;
    if due > now {
        if mail.beyond == Beyond::Drop {
            return Ok(Queued::OverBudget);
        }
        if waits_already(transaction, mail, now)? {
            return Ok(Queued::Waits);
        }
    }
    transaction
        .prepare_cached(
            "INSERT INTO mail (message_id, purpose, recipient, username, client, created_at, first_due_at, due_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7)",
        )?
        .execute((
            &mail.message_id,
            mail.purpose,
            &mail.recipient,
            &mail.username,
            &mail.client,
            column(now),
            column(due),
        ))?;
    transaction
        .prepare_cached("INSERT INTO mail_budget (mail_id, recipient, at) VALUES (?1, ?2, ?3)")?
        .execute((
            transaction.last_insert_rowid(),
            &mail.recipient,
            column(due),
        ))?;
    Ok(Queued::Yes)
}

/// The first moment from now at which the limits take this mail. One placed an hour after the third-last leaves no hour with
/// more than three in it, wherever the last two are; likewise for the day.
fn room_at(transaction: &Transaction<'_>, mail: &NewMail, now: u64) -> rusqlite::Result<u64> {
    let mut nth_last = transaction.prepare_cached(
        "SELECT at FROM mail_budget WHERE recipient = ?1 ORDER BY at DESC LIMIT 1 OFFSET ?2",
    )?;
    let mut due = now;
    for (limit, window) in [(PER_RECIPIENT_HOUR, HOUR), (PER_RECIPIENT_DAY, DAY)] {
        let at = nth_last
            .query_row((&mail.recipient, limit - 1), |row| count(row, 0))
            .optional()?;
        if let Some(at) = at {
            due = due.max(at.saturating_add(window));
        }
    }
    let (total, window) = mail.total;
    let sent: u32 = transaction
        .prepare_cached(
            "SELECT count(*) FROM mail_budget WHERE counted = 1 AND at > ?1 AND at <= ?2",
        )?
        .query_row(
            (column(now.saturating_sub(window.as_secs())), column(now)),
            |row| row.get(0),
        )?;
    if sent >= total {
        due = due.max(now.saturating_add(CROWDED_DELAY));
    }
    Ok(due)
}

fn waits_already(
    transaction: &Transaction<'_>,
    mail: &NewMail,
    now: u64,
) -> rusqlite::Result<bool> {
    transaction
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM mail WHERE recipient = ?1 AND purpose = ?2 AND due_at > ?3
             AND attempts = 0)",
        )?
        .query_row((&mail.recipient, mail.purpose, column(now)), |row| {
            row.get(0)
        })
}

fn status(connection: &Connection, now: u64) -> rusqlite::Result<MailStatus> {
    connection
        .prepare_cached(
            "SELECT count(*), count(*) FILTER (WHERE due_at <= ?1 AND claimed_until <= ?1) FROM mail",
        )?
        .query_row([column(now)], |row| {
            Ok(MailStatus {
                queued: count(row, 0)?,
                due: count(row, 1)?,
            })
        })
}

fn drop_to_nobody(transaction: &Transaction<'_>, purpose: &str) -> rusqlite::Result<usize> {
    let ids: Vec<i64> = transaction
        .prepare_cached(
            "SELECT id FROM mail WHERE purpose = ?1 AND attempts = 0 AND NOT EXISTS (
                 SELECT 1 FROM users WHERE users.email = mail.recipient AND users.disabled = 0)
             LIMIT ?2",
        )?
        .query_map((purpose, BATCH), |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    for id in &ids {
        for sql in [
            "DELETE FROM mail WHERE id = ?1",
            // A known and an unknown address must be asked for equally often: that one stays, and the total is given back.
            "UPDATE mail_budget SET counted = 0 WHERE mail_id = ?1",
        ] {
            transaction.prepare_cached(sql)?.execute([id])?;
        }
    }
    Ok(ids.len())
}

fn take(transaction: &Transaction<'_>, claim: &Claim) -> rusqlite::Result<Vec<QueuedMail>> {
    transaction
        .prepare_cached(
            "UPDATE mail SET claimed_until = :until, attempts = attempts + 1 WHERE id IN (
                 SELECT id FROM mail WHERE due_at <= :now AND claimed_until <= :now
                 ORDER BY due_at, id LIMIT :count)
             RETURNING id, message_id, purpose, recipient, username, client, created_at, first_due_at, attempts",
        )?
        .query_map(
            named_params! {
                ":until": column(claim.until), ":now": column(claim.now), ":count": claim.count,
            },
            read,
        )?
        .collect()
}

fn settle(transaction: &Transaction<'_>, id: i64, again_at: Option<u64>) -> rusqlite::Result<()> {
    match again_at {
        None => transaction
            .prepare_cached("DELETE FROM mail WHERE id = ?1")?
            .execute([id])?,
        Some(at) => transaction
            .prepare_cached("UPDATE mail SET due_at = ?2, claimed_until = 0 WHERE id = ?1")?
            .execute((id, column(at)))?,
    };
    Ok(())
}

/// Erases links and entries of the limits that can have no effect any more.
pub(super) fn purge(transaction: &Transaction<'_>, times: &Times) -> rusqlite::Result<usize> {
    let tokens = transaction
        .prepare_cached(
            "DELETE FROM mail_tokens WHERE digest IN (
                 SELECT digest FROM mail_tokens WHERE expires_at <= ?1 LIMIT ?2)",
        )?
        .execute((column(times.now), BATCH))?;
    let entries = transaction
        .prepare_cached(
            "DELETE FROM mail_budget WHERE mail_id IN (
                 SELECT mail_id FROM mail_budget WHERE counted IN (0, 1) AND at <= ?1 LIMIT ?2)",
        )?
        .execute((column(times.now.saturating_sub(DAY)), BATCH))?;
    Ok(tokens + entries)
}

fn read(row: &Row<'_>) -> rusqlite::Result<QueuedMail> {
    Ok(QueuedMail {
        id: row.get(0)?,
        message_id: row.get(1)?,
        purpose: row.get(2)?,
        recipient: row.get(3)?,
        username: row.get(4)?,
        client: row.get(5)?,
        created_at: count(row, 6)?,
        first_due_at: count(row, 7)?,
        attempts: count(row, 8)?,
    })
}
