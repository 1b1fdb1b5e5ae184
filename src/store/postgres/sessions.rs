//! The statements over sessions and refresh tokens. Every value is bound, none is written into SQL (STORE-4).
//!
//! Statements see what others committed before them, so whoever decides on a row holds it first. Rows are held in one order:
//! the account, its sessions by id, their tokens, the feed. Two transactions that meet nevertheless are told apart by the
//! server, and the one that it ends is begun anew.

use deadpool_postgres::Transaction;
use tokio_postgres::{Row, types::ToSql};

use super::{
    super::{
        Digest, Ending, LiveEnd, NewSession, RevocationKind, Rotated, Rotation, Salt, Session,
        Times, User,
    },
    Fault, bytes, column, count, feed, users,
};

const COLUMNS: &str = "sessions.id, sessions.user_id, sessions.created_at, sessions.last_used_at, \
     sessions.ends_at, sessions.device, sessions.ip";

/// A session is alive while this holds, at `$2` with the idle limit `$3`.
const ALIVE: &str =
    "sessions.revoked_at IS NULL AND sessions.ends_at > $2 AND sessions.last_used_at > $2 - $3";

/// How many tokens lie between one presented within its grace window and the live end, at most. Further is no accident.
const GRACE_STEPS_MAX: usize = 5;

pub(super) async fn add(
    transaction: &Transaction<'_>,
    new: &NewSession,
) -> Result<Option<Vec<Box<str>>>, Fault> {
    let session = &new.session;
    // Password or state may have changed while the password was being verified. The account's row is held from here on, so that
    // neither can change now, and logins of the same account count each other's sessions.
    let statement = transaction
        .prepare_cached(
            "SELECT 1 FROM users WHERE id = $1 AND epoch = $2 AND NOT disabled AND NOT pending
             FOR NO KEY UPDATE",
        )
        .await?;
    let unchanged = transaction
        .query_opt(&statement, &[&session.user_id, &column(new.user_epoch)])
        .await?;
    if unchanged.is_none() {
        return Ok(None);
    }
    let surplus = surplus(transaction, new).await?;
    let ended = revoke(transaction, &surplus, &new.times).await?;
    let statement = transaction
        .prepare_cached(
            "INSERT INTO sessions (id, user_id, created_at, last_used_at, ends_at, device, ip)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .await?;
    transaction
        .execute(
            &statement,
            &[
                &session.id,
                &session.user_id,
                &column(session.created_at),
                &column(session.last_used_at),
                &column(session.ends_at),
                &session.device,
                &session.ip,
            ],
        )
        .await?;
    if let Some(digest) = &new.token {
        insert_token(transaction, digest, &session.id, new.times.now).await?;
    }
    feed::publish(transaction, RevocationKind::Session, &ended, &new.times).await?;
    Ok(Some(ended))
}

/// The sessions that must end so that one more is within the cap: those idle for longest.
async fn surplus(transaction: &Transaction<'_>, new: &NewSession) -> Result<Vec<Box<str>>, Fault> {
    let statement = transaction
        .prepare_cached(&format!(
            "SELECT sessions.id FROM sessions WHERE sessions.user_id = $1 AND {ALIVE}
             ORDER BY sessions.last_used_at DESC, sessions.created_at DESC, sessions.number DESC
             OFFSET $4"
        ))
        .await?;
    let rows = transaction
        .query(
            &statement,
            &[
                &new.session.user_id,
                &column(new.times.now),
                &column(new.times.idle),
                &i64::from(new.cap.saturating_sub(1)),
            ],
        )
        .await?;
    ids(&rows)
}

/// A refresh token as it is kept.
struct Token {
    session_id: Box<str>,
    rotated_at: Option<u64>,
    successor: Option<Digest>,
    salt: Option<Salt>,
}

/// `ALIVE` has the second and the third parameter.
pub(super) async fn live_end(
    transaction: &Transaction<'_>,
    presented: &Digest,
    times: &Times,
) -> Result<Option<LiveEnd>, Fault> {
    let statement = transaction
        .prepare_cached(&format!(
            "SELECT sessions.user_id, sessions.id FROM refresh_tokens JOIN sessions ON sessions.id = refresh_tokens.session_id
             WHERE refresh_tokens.digest = $1 AND refresh_tokens.rotated_at IS NULL AND {ALIVE}"
        ))
        .await?;
    let values: [&(dyn ToSql + Sync); 3] = [
        &presented.as_slice(),
        &column(times.now),
        &column(times.idle),
    ];
    let row = transaction.query_opt(&statement, &values).await?;
    let read = |row: Row| {
        Ok(LiveEnd {
            user_id: row.try_get(0)?,
            session_id: row.try_get(1)?,
        })
    };
    row.map(read).transpose()
}

pub(super) async fn rotate(
    transaction: &Transaction<'_>,
    rotation: &Rotation,
) -> Result<Rotated, Fault> {
    let times = &rotation.times;
    // Which session, before it is held; a token never changes its session.
    let Some(token) = find_token(transaction, &rotation.presented).await? else {
        return Ok(Rotated::Ended);
    };
    let Some((session, user)) = hold_alive(transaction, &token.session_id, times).await? else {
        return Ok(Rotated::Ended);
    };
    // Anew: it may have been rotated while its session was waited for.
    let Some(token) = find_token(transaction, &rotation.presented).await? else {
        return Ok(Rotated::Ended);
    };
    let salts = match token.rotated_at {
        None => {
            replace(transaction, rotation, &token.session_id).await?;
            vec![rotation.salt]
        }
        Some(at) => {
            if times.grace == 0 || times.now > at.saturating_add(times.grace) {
                let ended = revoke(transaction, std::slice::from_ref(&session.id), times).await?;
                feed::publish(transaction, RevocationKind::Session, &ended, times).await?;
                return Ok(Rotated::Reused {
                    user_id: session.user_id,
                    session_id: session.id,
                });
            }
            let Some(salts) = path_to_live_end(transaction, token).await? else {
                return Ok(Rotated::Ended); // refused, but within the grace window nothing is ever revoked (SESS-2)
            };
            salts
        }
    };
    let statement = transaction
        .prepare_cached("UPDATE sessions SET last_used_at = $2 WHERE id = $1")
        .await?;
    transaction
        .execute(&statement, &[&session.id, &column(times.now)])
        .await?;
    Ok(Rotated::Live {
        session: Session {
            last_used_at: times.now,
            ..session
        },
        user: Box::new(user),
        salts,
    })
}

async fn find_token(
    transaction: &Transaction<'_>,
    digest: &Digest,
) -> Result<Option<Token>, Fault> {
    let statement = transaction
        .prepare_cached(
            "SELECT session_id, rotated_at, successor, salt FROM refresh_tokens WHERE digest = $1",
        )
        .await?;
    let row = transaction
        .query_opt(&statement, &[&digest.as_slice()])
        .await?;
    let read = |row: Row| {
        Ok(Token {
            session_id: row.try_get(0)?,
            rotated_at: row
                .try_get::<_, Option<i64>>(1)?
                .map(|at| u64::try_from(at).unwrap_or(0)),
            successor: bytes(&row, 2)?,
            salt: bytes(&row, 3)?,
        })
    };
    row.map(read).transpose()
}

/// The session with its account, both as they are now, if both may go on. Of those who present tokens of one session, on
/// whatever node, each waits here for the one before. An account that is being changed is not waited for: the change ends
/// this session next.
async fn hold_alive(
    transaction: &Transaction<'_>,
    session_id: &str,
    times: &Times,
) -> Result<Option<(Session, User)>, Fault> {
    let statement = transaction
        .prepare_cached(&format!(
            "SELECT {}, {COLUMNS} FROM sessions JOIN users ON users.id = sessions.user_id
             WHERE sessions.id = $1 AND NOT users.disabled AND {ALIVE} FOR NO KEY UPDATE OF sessions",
            users::COLUMNS
        ))
        .await?;
    let row = transaction
        .query_opt(
            &statement,
            &[&session_id, &column(times.now), &column(times.idle)],
        )
        .await?;
    row.map(|row| Ok((read(&row, users::COLUMN_COUNT)?, users::read(&row, 0)?)))
        .transpose()
}

/// Consumes the presented token and issues its successor. The condition makes a second consumption impossible even if the
/// session were not held.
async fn replace(
    transaction: &Transaction<'_>,
    rotation: &Rotation,
    session_id: &str,
) -> Result<(), Fault> {
    let statement = transaction
        .prepare_cached(
            "UPDATE refresh_tokens SET rotated_at = $2, successor = $3, salt = $4
             WHERE digest = $1 AND rotated_at IS NULL",
        )
        .await?;
    let consumed = transaction
        .execute(
            &statement,
            &[
                &rotation.presented.as_slice(),
                &column(rotation.times.now),
                &rotation.successor.as_slice(),
                &rotation.salt.as_slice(),
            ],
        )
        .await?;
    if consumed != 1 {
        return Err(Fault::Race);
    }
    insert_token(
        transaction,
        &rotation.successor,
        session_id,
        rotation.times.now,
    )
    .await
}

async fn insert_token(
    transaction: &Transaction<'_>,
    digest: &Digest,
    session_id: &str,
    now: u64,
) -> Result<(), Fault> {
    let statement = transaction
        .prepare_cached(
            "INSERT INTO refresh_tokens (digest, session_id, issued_at) VALUES ($1, $2, $3)",
        )
        .await?;
    transaction
        .execute(&statement, &[&digest.as_slice(), &session_id, &column(now)])
        .await?;
    Ok(())
}

/// The salts from a rotated token to the live end of its family; `None` where one was erased or the way is too long.
async fn path_to_live_end(
    transaction: &Transaction<'_>,
    mut token: Token,
) -> Result<Option<Vec<Salt>>, Fault> {
    let mut salts = Vec::new();
    while token.rotated_at.is_some() {
        let (Some(salt), Some(successor)) = (token.salt, token.successor) else {
            return Ok(None);
        };
        salts.push(salt);
        let Some(next) = find_token(transaction, &successor).await? else {
            return Ok(None);
        };
        if salts.len() > GRACE_STEPS_MAX {
            return Ok(None);
        }
        token = next;
    }
    Ok(Some(salts))
}

/// Ends sessions, the idle ones too: their access tokens may live a little longer.
pub(super) async fn end(
    transaction: &Transaction<'_>,
    ending: &Ending,
    times: &Times,
) -> Result<Vec<Box<str>>, Fault> {
    let rows = match ending {
        Ending::AllOf { user_id } => {
            let sql = "SELECT id FROM sessions WHERE user_id = $1 AND revoked_at IS NULL";
            let statement = transaction.prepare_cached(sql).await?;
            transaction.query(&statement, &[user_id]).await?
        }
        Ending::One {
            user_id,
            session_id,
        } => {
            let sql =
                "SELECT id FROM sessions WHERE user_id = $1 AND id = $2 AND revoked_at IS NULL";
            let statement = transaction.prepare_cached(sql).await?;
            transaction
                .query(&statement, &[user_id, session_id])
                .await?
        }
        Ending::OfToken(digest) => {
            let sql = "SELECT session_id FROM refresh_tokens WHERE digest = $1";
            let statement = transaction.prepare_cached(sql).await?;
            transaction.query(&statement, &[&digest.as_slice()]).await?
        }
    };
    let ended = revoke(transaction, &ids(&rows)?, times).await?;
    feed::publish(transaction, RevocationKind::Session, &ended, times).await?;
    Ok(ended)
}

/// Revokes every session of an account but one, and says which; the caller publishes them, last of all.
pub(super) async fn revoke_all_but(
    transaction: &Transaction<'_>,
    user_id: &str,
    spared: &str,
    times: &Times,
) -> Result<Vec<Box<str>>, Fault> {
    let statement = transaction
        .prepare_cached(
            "SELECT id FROM sessions WHERE user_id = $1 AND id <> $2 AND revoked_at IS NULL",
        )
        .await?;
    let rows = transaction.query(&statement, &[&user_id, &spared]).await?;
    revoke(transaction, &ids(&rows)?, times).await
}

/// Marks those sessions as revoked that are not yet, and says which; the caller publishes them, last of all. Their rows are
/// kept only until their access tokens are dead.
async fn revoke(
    transaction: &Transaction<'_>,
    session_ids: &[Box<str>],
    times: &Times,
) -> Result<Vec<Box<str>>, Fault> {
    if session_ids.is_empty() {
        return Ok(Vec::new());
    }
    let statement = transaction
        .prepare_cached(
            "SELECT id FROM sessions WHERE id = ANY($1::text[]) AND revoked_at IS NULL
             ORDER BY id FOR NO KEY UPDATE",
        )
        .await?;
    let held = ids(&transaction.query(&statement, &[&session_ids]).await?)?;
    let statement = transaction
        .prepare_cached(
            "UPDATE sessions SET revoked_at = $2, ends_at = least(ends_at, $3) WHERE id = ANY($1::text[])",
        )
        .await?;
    transaction
        .execute(
            &statement,
            &[&held, &column(times.now), &column(times.tokens_dead_at)],
        )
        .await?;
    Ok(held)
}

pub(super) async fn list(
    transaction: &Transaction<'_>,
    user_id: &str,
    times: &Times,
) -> Result<Vec<Session>, Fault> {
    let statement = transaction
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM sessions WHERE sessions.user_id = $1 AND {ALIVE}
             ORDER BY sessions.last_used_at DESC, sessions.number DESC LIMIT 100"
        ))
        .await?;
    let rows = transaction
        .query(
            &statement,
            &[&user_id, &column(times.now), &column(times.idle)],
        )
        .await?;
    rows.iter().map(|row| read(row, 0)).collect()
}

/// `ALIVE` has the second and the third parameter.
pub(super) async fn count_alive(
    transaction: &Transaction<'_>,
    times: &Times,
    most: u32,
) -> Result<u64, Fault> {
    let statement = transaction
        .prepare_cached(&format!(
            "SELECT count(*) FROM (SELECT 1 FROM sessions WHERE {ALIVE} LIMIT $1) AS alive"
        ))
        .await?;
    let row = transaction
        .query_one(
            &statement,
            &[&i64::from(most), &column(times.now), &column(times.idle)],
        )
        .await?;
    let alive: i64 = row.try_get(0)?;
    Ok(u64::try_from(alive).unwrap_or_default())
}

fn ids(rows: &[Row]) -> Result<Vec<Box<str>>, Fault> {
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

fn read(row: &Row, first: usize) -> Result<Session, Fault> {
    Ok(Session {
        id: row.try_get(first)?,
        user_id: row.try_get(first + 1)?,
        created_at: count(row, first + 2)?,
        last_used_at: count(row, first + 3)?,
        ends_at: count(row, first + 4)?,
        device: row.try_get(first + 5)?,
        ip: row.try_get(first + 6)?,
    })
}
