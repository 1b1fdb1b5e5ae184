//! The statements over changes of passwords and the links to them. Every value is bound, none is written into SQL (STORE-4).
//!
//! Rows are held in one order: the account, its link, its sessions, the queue of mail, the feed.

use deadpool_postgres::Transaction;

use super::{
    super::{
        Digest, MailToken, PasswordChange, PasswordReset, ResetDone, RevocationKind, Times, User,
    },
    Fault, column, count, feed, mail, sessions, users,
};

pub(super) async fn change_password(
    transaction: &Transaction<'_>,
    change: &PasswordChange,
    times: &Times,
) -> Result<Option<Vec<Box<str>>>, Fault> {
    let PasswordChange {
        user_id,
        session_id,
        ..
    } = change;
    // The account before its sessions: no login begins until the end.
    hold_account(transaction, user_id).await?;
    let statement = transaction
        .prepare_cached(
            "SELECT 1 FROM sessions WHERE id = $1 AND user_id = $2 AND revoked_at IS NULL AND ends_at > $3
             FOR NO KEY UPDATE",
        )
        .await?;
    let alive = transaction
        .query_opt(&statement, &[session_id, user_id, &column(times.now)])
        .await?;
    let epoch = change.user_epoch;
    let password = &change.password.0;
    if alive.is_none() || !set_password(transaction, user_id, epoch, password, times).await? {
        return Ok(None);
    }
    let ended = sessions::revoke_all_but(transaction, user_id, session_id, times).await?;
    if let Some(notice) = &change.notice {
        mail::queue(transaction, notice, times.now).await?;
    }
    feed::publish(transaction, RevocationKind::Session, &ended, times).await?;
    Ok(Some(ended))
}

pub(super) async fn reset_password(
    transaction: &Transaction<'_>,
    reset: &PasswordReset,
    times: &Times,
) -> Result<Option<ResetDone>, Fault> {
    // Whose, before the account is held; a link never changes its account.
    let statement = transaction
        .prepare_cached("SELECT user_id FROM mail_tokens WHERE digest = $1")
        .await?;
    let digest = reset.digest.as_slice();
    let Some(row) = transaction.query_opt(&statement, &[&digest]).await? else {
        return Ok(None);
    };
    let user_id: Box<str> = row.try_get(0)?;
    hold_account(transaction, &user_id).await?;
    let statement = transaction
        .prepare_cached(
            "DELETE FROM mail_tokens WHERE digest = $1 AND purpose = $2 AND expires_at > $3
             RETURNING user_epoch",
        )
        .await?;
    let consumed = transaction
        .query_opt(&statement, &[&digest, &reset.purpose, &column(times.now)])
        .await?;
    let Some(row) = consumed else {
        return Ok(None);
    };
    let epoch = count(&row, 0)?;
    // With a changed or shut account the link was dead already, and is gone now.
    if !set_password(transaction, &user_id, epoch, &reset.password.0, times).await? {
        return Ok(None);
    }
    let ended = sessions::revoke_all_but(transaction, &user_id, "", times).await?;
    if let Some(notice) = &reset.notice {
        mail::queue(transaction, notice, times.now).await?;
    }
    feed::publish(transaction, RevocationKind::Session, &ended, times).await?;
    Ok(Some(ResetDone { user_id, ended }))
}

async fn hold_account(transaction: &Transaction<'_>, user_id: &str) -> Result<(), Fault> {
    let statement = transaction
        .prepare_cached("SELECT 1 FROM users WHERE id = $1 FOR NO KEY UPDATE")
        .await?;
    transaction.query_opt(&statement, &[&user_id]).await?;
    Ok(())
}

/// Says whether the account was open and as it was at that epoch. With the epoch every link of before dies.
async fn set_password(
    transaction: &Transaction<'_>,
    user_id: &str,
    epoch: u64,
    password: &str,
    times: &Times,
) -> Result<bool, Fault> {
    let statement = transaction
        .prepare_cached(
            "UPDATE users SET password = $3, epoch = epoch + 1, updated_at = $4
             WHERE id = $1 AND epoch = $2 AND NOT disabled AND email IS NOT NULL",
        )
        .await?;
    let changed = transaction
        .execute(
            &statement,
            &[&user_id, &column(epoch), &password, &column(times.now)],
        )
        .await?;
    Ok(changed == 1)
}

pub(super) async fn find_token(
    transaction: &Transaction<'_>,
    digest: &Digest,
    purpose: &str,
    now: u64,
) -> Result<Option<User>, Fault> {
    let statement = transaction
        .prepare_cached(&format!(
            "SELECT {} FROM mail_tokens JOIN users ON users.id = mail_tokens.user_id
             WHERE mail_tokens.digest = $1 AND mail_tokens.purpose = $2 AND mail_tokens.expires_at > $3
             AND users.epoch = mail_tokens.user_epoch AND NOT users.disabled",
            users::COLUMNS
        ))
        .await?;
    let row = transaction
        .query_opt(&statement, &[&digest.as_slice(), &purpose, &column(now)])
        .await?;
    row.map(|row| users::read(&row, 0)).transpose()
}

pub(super) async fn add_token(
    transaction: &Transaction<'_>,
    token: &MailToken,
) -> Result<bool, Fault> {
    // Of two nodes that make one at once, the later waits here and takes the place of the earlier.
    hold_account(transaction, &token.user_id).await?;
    let statement = transaction
        .prepare_cached("DELETE FROM mail_tokens WHERE user_id = $1 AND purpose = $2")
        .await?;
    transaction
        .execute(&statement, &[&token.user_id, &token.purpose])
        .await?;
    let statement = transaction
        .prepare_cached(
            "INSERT INTO mail_tokens (digest, user_id, purpose, user_epoch, expires_at)
             SELECT $1, id, $3, epoch, $5 FROM users WHERE id = $2 AND epoch = $4 AND NOT disabled",
        )
        .await?;
    let added = transaction
        .execute(
            &statement,
            &[
                &token.digest.as_slice(),
                &token.user_id,
                &token.purpose,
                &column(token.user_epoch),
                &column(token.expires_at),
            ],
        )
        .await?;
    Ok(added == 1)
}
