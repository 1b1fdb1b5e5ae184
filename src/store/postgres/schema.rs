//! The schema, step by step, and who brings it up to date.

use tokio_postgres::Client;

use super::Fault;

/// A step never changes once released. The version is the number of steps. A step must leave the program of the version before
/// able to work: while nodes are replaced one by one, both run.
const MIGRATIONS: [&str; 6] = [
    include_str!("../migrations/postgres/0001_accounts.sql"),
    include_str!("../migrations/postgres/0002_mail.sql"),
    include_str!("../migrations/postgres/0003_registration.sql"),
    include_str!("../migrations/postgres/0004_registrations.sql"),
    include_str!("../migrations/postgres/0005_signing_keys.sql"),
    include_str!("../migrations/postgres/0006_unlocks.sql"),
];

/// What became of the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Schema {
    /// It is as this program knows it.
    Current,
    /// It was made by a newer program, and was left alone.
    Newer {
        /// Its version.
        found: i64,
        /// Ours.
        known: usize,
    },
}

/// Brings the schema up to date in one transaction: a failure half way leaves the old one. Of several nodes that start together
/// one does it while the others wait for the lock (STORE-5).
pub(super) async fn migrate(client: &mut Client) -> Result<Schema, Fault> {
    let transaction = client.transaction().await?;
    transaction
        .batch_execute(
            "SET LOCAL lock_timeout = '30s'; SET LOCAL statement_timeout = '60s';
             SELECT pg_advisory_xact_lock(hashtext('portcullis.schema'));
             CREATE TABLE IF NOT EXISTS schema_version (
                 single BOOLEAN PRIMARY KEY DEFAULT TRUE CHECK (single),
                 version BIGINT NOT NULL
             );
             INSERT INTO schema_version (version) VALUES (0) ON CONFLICT DO NOTHING;",
        )
        .await?;
    let row = transaction
        .query_one("SELECT version FROM schema_version", &[])
        .await?;
    let found: i64 = row.try_get(0)?;
    let known = MIGRATIONS.len();
    let newer = Schema::Newer { found, known };
    let Ok(done) = usize::try_from(found) else {
        return Ok(newer);
    };
    if done > known {
        return Ok(newer); // not ours to touch: the transaction is rolled back
    }
    for step in MIGRATIONS.iter().skip(done) {
        transaction.batch_execute(step).await?;
    }
    if done < known {
        let version = i64::try_from(known).unwrap_or(i64::MAX);
        transaction
            .execute("UPDATE schema_version SET version = $1", &[&version])
            .await?;
        tracing::info!(
            from = done,
            to = known,
            "the schema of the account store was brought up to date"
        );
    }
    transaction.commit().await?;
    Ok(Schema::Current)
}
