//! One transaction, from the call to the answer: deadlines, repetition, and what a failure means.

use std::{
    pin::Pin,
    time::{Duration, Instant},
};

use deadpool_postgres::{Object, Transaction};
use tokio::time::{sleep, timeout};
use tokio_postgres::error::SqlState;

use super::{
    Fault, StoreError,
    link::{Chain, Link},
};

/// From the call to the answer.
const DEADLINE: Duration = Duration::from_secs(5);

/// How often a transaction is begun that the server ended in favour of another one.
const ATTEMPTS_MAX: u32 = 4;

/// What a transaction does, given its arguments. It may run more than once.
pub(super) type Job<A, T> = for<'a> fn(&'a Transaction<'a>, &'a A) -> Work<'a, T>;

pub(super) type Work<'a, T> = Pin<Box<dyn Future<Output = Result<T, Fault>> + Send + 'a>>;

/// Runs a job in one transaction, again where the server chose another one over it, and answers within the deadline.
pub(super) async fn perform<A, T>(
    link: &Link,
    arguments: &A,
    job: Job<A, T>,
) -> Result<T, StoreError> {
    let until = Instant::now() + DEADLINE;
    let left = || until.saturating_duration_since(Instant::now());
    let mut client = match timeout(left(), link.client()).await {
        Ok(Ok(client)) => client,
        Ok(Err(fault)) => return Err((&fault).into()),
        Err(_) => return Err(StoreError::Busy),
    };
    for attempt in 1..=ATTEMPTS_MAX {
        let fault = match timeout(left(), transact(&mut client, arguments, job)).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(fault)) => fault,
            Err(_) => {
                // Nobody knows in what state it is.
                drop(Object::take(client));
                tracing::error!(store = link.place(), "the account store does not answer");
                return Err(StoreError::Unavailable);
            }
        };
        match judge(&fault) {
            Verdict::Again if attempt < ATTEMPTS_MAX => {
                sleep(Duration::from_millis(u64::from(attempt * attempt) * 3)).await;
            }
            Verdict::Again => break,
            Verdict::Over(error) => {
                if error == StoreError::Unavailable {
                    tracing::error!(store = link.place(), error = %Chain(&fault), "the account store failed");
                }
                return Err(error);
            }
        }
    }
    Err(StoreError::Busy)
}

async fn transact<A, T>(client: &mut Object, arguments: &A, job: Job<A, T>) -> Result<T, Fault> {
    let transaction = client.transaction().await?;
    let value = job(&transaction, arguments).await?;
    transaction.commit().await?;
    Ok(value)
}

enum Verdict {
    /// The server chose another transaction over this one.
    Again,
    /// It will not get better by doing it again at once.
    Over(StoreError),
}

fn judge(fault: &Fault) -> Verdict {
    let Fault::Server(error) = fault else {
        return Verdict::Again;
    };
    let Some(code) = error.code() else {
        return Verdict::Over(StoreError::Unavailable);
    };
    match *code {
        SqlState::T_R_SERIALIZATION_FAILURE | SqlState::T_R_DEADLOCK_DETECTED => Verdict::Again,
        SqlState::LOCK_NOT_AVAILABLE | SqlState::QUERY_CANCELED => Verdict::Over(StoreError::Busy),
        SqlState::UNIQUE_VIOLATION => Verdict::Over(StoreError::Conflict),
        _ => Verdict::Over(StoreError::Unavailable),
    }
}
