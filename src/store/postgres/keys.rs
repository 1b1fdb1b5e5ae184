//! The statements over signing keys. Every value is bound, none is written into SQL (STORE-4).

use deadpool_postgres::Transaction;
use tokio_postgres::Row;

use super::{
    super::{
        Answer,
        keys::{KEYS_MAX, PURPOSE, RingRead, SealedKey, SealedRing, SigningKeyStore},
    },
    Fault, Postgres, column, count,
};

impl SigningKeyStore for Postgres {
    fn signing_keys(&self, known: Option<Box<str>>) -> Answer<RingRead> {
        self.call(known, |transaction, known| {
            Box::pin(read(transaction, known.as_deref()))
        })
    }

    fn replace_signing_keys(&self, expected: Option<Box<str>>, ring: SealedRing) -> Answer<bool> {
        self.call((expected, ring), |transaction, (expected, ring)| {
            Box::pin(replace(transaction, expected.as_deref(), ring))
        })
    }
}

/// One statement, so that revision and keys are of one moment.
async fn read(transaction: &Transaction<'_>, known: Option<&str>) -> Result<RingRead, Fault> {
    let statement = transaction
        .prepare_cached(
            "SELECT ring.revision, key.kid, key.algorithm, key.from_at, key.until_at, key.encryption, key.sealed
             FROM signing_ring AS ring LEFT JOIN signing_keys AS key
                 ON key.purpose = ring.purpose AND ring.revision IS DISTINCT FROM $2::text
             WHERE ring.purpose = $1 ORDER BY key.from_at, key.kid LIMIT $3",
        )
        .await?;
    let most = i64::try_from(KEYS_MAX + 1).unwrap_or(i64::MAX);
    let rows = transaction
        .query(&statement, &[&PURPOSE, &known, &most])
        .await?;
    let mut found: Option<SealedRing> = None;
    for row in &rows {
        let revision: Box<str> = row.try_get(0)?;
        if Some(&*revision) == known {
            return Ok(RingRead::Same);
        }
        let ring = found.get_or_insert_with(|| SealedRing {
            revision,
            keys: Vec::new(),
        });
        ring.keys.extend(key(row)?);
    }
    Ok(found.map_or(RingRead::Absent, RingRead::Changed))
}

/// A key, unless the ring has none.
fn key(row: &Row) -> Result<Option<SealedKey>, Fault> {
    let Some(kid) = row.try_get::<_, Option<Box<str>>>(1)? else {
        return Ok(None);
    };
    let until: Option<i64> = row.try_get(4)?;
    Ok(Some(SealedKey {
        kid,
        algorithm: row.try_get(2)?,
        from: count(row, 3)?,
        until: until.map(|until| u64::try_from(until).unwrap_or(0)),
        encryption: row.try_get(5)?,
        sealed: row.try_get::<_, Vec<u8>>(6)?.into(),
    }))
}

/// Whoever changes the row of the ring holds it until the end: of two nodes, the second finds the revision of the first.
async fn replace(
    transaction: &Transaction<'_>,
    expected: Option<&str>,
    ring: &SealedRing,
) -> Result<bool, Fault> {
    let changed = match expected {
        None => {
            let statement = transaction
                .prepare_cached(
                    "INSERT INTO signing_ring (purpose, revision) VALUES ($1, $2) ON CONFLICT DO NOTHING",
                )
                .await?;
            transaction
                .execute(&statement, &[&PURPOSE, &ring.revision])
                .await?
        }
        Some(expected) => {
            let statement = transaction
                .prepare_cached(
                    "UPDATE signing_ring SET revision = $2 WHERE purpose = $1 AND revision = $3",
                )
                .await?;
            transaction
                .execute(&statement, &[&PURPOSE, &ring.revision, &expected])
                .await?
        }
    };
    if changed == 0 {
        return Ok(false);
    }
    let statement = transaction
        .prepare_cached("DELETE FROM signing_keys WHERE purpose = $1")
        .await?;
    transaction.execute(&statement, &[&PURPOSE]).await?;
    let statement = transaction
        .prepare_cached(
            "INSERT INTO signing_keys (purpose, kid, algorithm, from_at, until_at, encryption, sealed)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .await?;
    for key in &ring.keys {
        let (from, until) = (column(key.from), key.until.map(column));
        transaction
            .execute(
                &statement,
                &[
                    &PURPOSE,
                    &key.kid,
                    &key.algorithm,
                    &from,
                    &until,
                    &key.encryption,
                    &&*key.sealed,
                ],
            )
            .await?;
    }
    Ok(true)
}
