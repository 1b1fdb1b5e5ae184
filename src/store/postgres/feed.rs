//! The feed of revocations, read by every node in the order of its numbers.
//!
//! Numbers come from one row that is held until the transaction ends: whoever is given a later number has waited for the one
//! before to be visible. It is the last lock of any transaction, so nobody who holds it waits for anything but the disk.

use deadpool_postgres::Transaction;

use super::{
    super::{Revocation, RevocationKind, Times},
    Fault, column, count,
};

/// Adds an entry for each key.
pub(super) async fn publish(
    transaction: &Transaction<'_>,
    kind: RevocationKind,
    keys: &[Box<str>],
    times: &Times,
) -> Result<(), Fault> {
    if keys.is_empty() {
        return Ok(());
    }
    let statement = transaction
        .prepare_cached(
            "WITH place AS (UPDATE feed SET last = last + cardinality($2::text[]) RETURNING last)
             INSERT INTO revocations (id, kind, key, until)
             SELECT place.last - cardinality($2::text[]) + entry.number, $1, entry.key, $3
             FROM place, unnest($2::text[]) WITH ORDINALITY AS entry (key, number)",
        )
        .await?;
    transaction
        .execute(
            &statement,
            &[&kind.as_str(), &keys, &column(times.tokens_dead_at)],
        )
        .await?;
    Ok(())
}

pub(super) async fn after(
    transaction: &Transaction<'_>,
    id: u64,
) -> Result<Vec<Revocation>, Fault> {
    let id = column(id);
    let statement = transaction
        .prepare_cached(
            "SELECT id, kind, key, until FROM revocations WHERE id > $1 ORDER BY id LIMIT 1000",
        )
        .await?;
    let mut rows = transaction.query(&statement, &[&id]).await?;
    if rows.is_empty() && go_on_after(transaction, id).await? {
        rows = transaction.query(&statement, &[&id]).await?;
    }
    let entry = |row: &tokio_postgres::Row| {
        Ok(Revocation {
            id: count(row, 0)?,
            kind: match row.try_get(1)? {
                "token" => RevocationKind::Token,
                _ => RevocationKind::Session,
            },
            key: row.try_get(2)?,
            until: count(row, 3)?,
        })
    };
    rows.iter().map(entry).collect()
}

/// A server that took over without the last transactions of the one before, or an older backup, has given fewer numbers than
/// this node has read, and would give some of them twice: then every entry is moved behind what any node has read, and all
/// read them again.
async fn go_on_after(transaction: &Transaction<'_>, id: i64) -> Result<bool, Fault> {
    let statement = transaction
        .prepare_cached("SELECT last < $1 FROM feed")
        .await?;
    if !transaction
        .query_one(&statement, &[&id])
        .await?
        .try_get(0)?
    {
        return Ok(false);
    }
    let statement = transaction
        .prepare_cached("UPDATE feed SET last = last + $1 WHERE last < $1")
        .await?;
    if transaction.execute(&statement, &[&id]).await? == 0 {
        return Ok(true); // another node was faster
    }
    let statement = transaction
        .prepare_cached("UPDATE revocations SET id = id + $1")
        .await?;
    let moved = transaction.execute(&statement, &[&id]).await?;
    tracing::warn!(
        entries = moved,
        "the account store has lost transactions that it had answered; the revocations that it has are read again"
    );
    Ok(true)
}
