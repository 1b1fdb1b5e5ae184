//! The statements over signing keys. Every value is bound, none is written into SQL (STORE-4).

use rusqlite::{Connection, Row, Transaction, params};

use super::{
    super::{
        Answer,
        keys::{KEYS_MAX, PURPOSE, RingRead, SealedKey, SealedRing, SigningKeyStore},
    },
    Sqlite, column, count,
};

impl SigningKeyStore for Sqlite {
    fn signing_keys(&self, known: Option<Box<str>>) -> Answer<RingRead> {
        self.read(move |connection| read(connection, known.as_deref()))
    }

    fn replace_signing_keys(&self, expected: Option<Box<str>>, ring: SealedRing) -> Answer<bool> {
        self.write(move |transaction| replace(transaction, expected.as_deref(), &ring))
    }
}

/// One statement, so that revision and keys are of one moment.
fn read(connection: &Connection, known: Option<&str>) -> rusqlite::Result<RingRead> {
    let mut statement = connection.prepare_cached(
        "SELECT ring.revision, key.kid, key.algorithm, key.from_at, key.until_at, key.encryption, key.sealed
         FROM signing_ring AS ring LEFT JOIN signing_keys AS key
             ON key.purpose = ring.purpose AND ring.revision IS NOT ?2
         WHERE ring.purpose = ?1 ORDER BY key.from_at, key.kid LIMIT ?3",
    )?;
    let most = i64::try_from(KEYS_MAX + 1).unwrap_or(i64::MAX);
    let mut rows = statement.query(params![PURPOSE, known, most])?;
    let mut found: Option<SealedRing> = None;
    while let Some(row) = rows.next()? {
        let revision: Box<str> = row.get(0)?;
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
fn key(row: &Row<'_>) -> rusqlite::Result<Option<SealedKey>> {
    let Some(kid) = row.get::<_, Option<Box<str>>>(1)? else {
        return Ok(None);
    };
    let until: Option<i64> = row.get(4)?;
    Ok(Some(SealedKey {
        kid,
        algorithm: row.get(2)?,
        from: count(row, 3)?,
        until: until.map(|until| u64::try_from(until).unwrap_or(0)),
        encryption: row.get(5)?,
        sealed: row.get::<_, Vec<u8>>(6)?.into(),
    }))
}

fn replace(
    transaction: &Transaction<'_>,
    expected: Option<&str>,
    ring: &SealedRing,
) -> rusqlite::Result<bool> {
    let changed = match expected {
        None => transaction
            .prepare_cached(
                "INSERT OR IGNORE INTO signing_ring (purpose, revision) VALUES (?1, ?2)",
            )?
            .execute(params![PURPOSE, ring.revision])?,
        Some(expected) => transaction
            .prepare_cached(
                "UPDATE signing_ring SET revision = ?2 WHERE purpose = ?1 AND revision = ?3",
            )?
            .execute(params![PURPOSE, ring.revision, expected])?,
    };
    if changed == 0 {
        return Ok(false);
    }
    transaction
        .prepare_cached("DELETE FROM signing_keys WHERE purpose = ?1")?
        .execute(params![PURPOSE])?;
    let mut insert = transaction.prepare_cached(
        "INSERT INTO signing_keys (purpose, kid, algorithm, from_at, until_at, encryption, sealed)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    for key in &ring.keys {
        insert.execute(params![
            PURPOSE,
            key.kid,
            key.algorithm,
            column(key.from),
            key.until.map(column),
            key.encryption,
            &*key.sealed,
        ])?;
    }
    Ok(true)
}
