//! Erases what is over, a bounded number of rows at a time.

use deadpool_postgres::Transaction;

use super::{super::Times, Fault, column};

/// How long a mail counts against a limit.
const DAY: u64 = 24 * 3600;

/// Rows of one kind that one purge touches.
const BATCH: i64 = 500;

/// Erases salts that nobody may use any more, then sessions that are over together with their tokens, then entries of the
/// feed, links, entries of the limits of mail, invitations and registrations that can have no effect. No access token outlives its session's end, so nothing alive loses its session here.
///
/// Of the nodes of a cluster one does it at a time; the others find nothing to do. Rows that somebody holds are left for the
/// next round.
pub(super) async fn run(transaction: &Transaction<'_>, times: &Times) -> Result<usize, Fault> {
    let statement = transaction
        .prepare_cached("SELECT pg_try_advisory_xact_lock(hashtext('portcullis.purge'))")
        .await?;
    if !transaction.query_one(&statement, &[]).await?.try_get(0)? {
        return Ok(0);
    }
    let now = column(times.now);
    let day_ago = column(times.now.saturating_sub(DAY));
    let grace_over = column(times.now.saturating_sub(times.grace));
    // Tokens before sessions, by themselves: one session may have thousands, and a cascade knows no limit.
    let steps = [
        (
            "UPDATE refresh_tokens SET salt = NULL WHERE digest IN (
                 SELECT digest FROM refresh_tokens WHERE salt IS NOT NULL AND rotated_at < $1
                 LIMIT $2 FOR UPDATE SKIP LOCKED)",
            grace_over,
        ),
        (
            "DELETE FROM refresh_tokens WHERE digest IN (
                 SELECT digest FROM refresh_tokens
                 WHERE session_id IN (SELECT id FROM sessions WHERE ends_at <= $1)
                 LIMIT $2 FOR UPDATE SKIP LOCKED)",
            now,
        ),
        (
            "DELETE FROM sessions WHERE id IN (
                 SELECT id FROM sessions WHERE ends_at <= $1
                 AND NOT EXISTS (SELECT 1 FROM refresh_tokens WHERE session_id = sessions.id)
                 LIMIT $2 FOR UPDATE SKIP LOCKED)",
            now,
        ),
        (
            "DELETE FROM revocations WHERE id IN (
                 SELECT id FROM revocations WHERE until < $1 LIMIT $2 FOR UPDATE SKIP LOCKED)",
            now,
        ),
        (
            "DELETE FROM mail_tokens WHERE digest IN (
                 SELECT digest FROM mail_tokens WHERE expires_at <= $1 LIMIT $2 FOR UPDATE SKIP LOCKED)",
            now,
        ),
        (
            "DELETE FROM mail_budget WHERE mail_id IN (
                 SELECT mail_id FROM mail_budget WHERE at <= $1 LIMIT $2 FOR UPDATE SKIP LOCKED)",
            day_ago,
        ),
        (
            "DELETE FROM invites WHERE id IN (
                 SELECT id FROM invites WHERE expires_at <= $1 LIMIT $2 FOR UPDATE SKIP LOCKED)",
            now,
        ),
        (
            "DELETE FROM registrations WHERE id IN (
                 SELECT id FROM registrations WHERE expires_at <= $1 LIMIT $2 FOR UPDATE SKIP LOCKED)",
            now,
        ),
    ];
    let mut rows = 0;
    for (sql, before) in steps {
        let statement = transaction.prepare_cached(sql).await?;
        rows += transaction.execute(&statement, &[&before, &BATCH]).await?;
    }
    Ok(usize::try_from(rows).unwrap_or(usize::MAX))
}
