//! The embedded store: one SQLite file, one thread that writes, two that read.
//!
//! SQLite blocks, so nothing of it runs on a thread of the runtime. Jobs wait in a bounded queue under a deadline; one that
//! could not begin in time is never begun, so [`StoreError::Busy`] means that nothing was changed (STORE-1). The file is in
//! WAL mode with `synchronous = FULL`: what was answered is on the disk (STORE-2).

mod administration;
mod keys;
mod mail;
mod open;
mod registrations;
mod sessions;
#[cfg(test)]
mod tests;
mod users;

use std::{
    fmt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

pub use open::OpenError;

use super::{
    Answer, Digest, Ending, LiveEnd, NewSession, PasswordHash, Revocation, Rotated, Rotation,
    Session, Store, StoreError, Times, User, UserChange, UserKey,
};

/// From the call to the answer. A job that waits longer, in the queue or for another process's lock, is given up.
const DEADLINE: Duration = Duration::from_secs(2);

/// What the caller waits beyond that for a job that began in time: the disk may take its while.
const DISK_PATIENCE: Duration = Duration::from_secs(3);

/// Jobs that wait for one thread.
const QUEUE_MAX: usize = 256;

const READERS: usize = 2;

/// The embedded store. Dropping it waits until queued jobs are done.
pub struct Sqlite {
    writer: Worker,
    readers: [Worker; READERS],
    turn: AtomicUsize,
    /// Whether the last write failed, for want of the disk and not of the lock.
    is_shut: Arc<AtomicBool>,
}

impl Sqlite {
    /// Opens or makes the file and brings its schema up to date.
    ///
    /// The file, its `-wal` and its `-shm` get the mode 0600; a missing folder is made with 0700. Blocks.
    ///
    /// # Errors
    /// [`OpenError`] by variant; above all a schema newer than this program (STORE-5).
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let writer = open::writer(path)?;
        let mut readers = Vec::with_capacity(READERS);
        for _ in 0..READERS {
            readers.push(Worker::start("store-read", open::reader(path)?)?);
        }
        let readers = readers
            .try_into()
            .map_err(|_| OpenError::Thread(std::io::ErrorKind::Other.into()))?;
        Ok(Self {
            writer: Worker::start("store-write", writer)?,
            readers,
            turn: AtomicUsize::new(0),
            is_shut: Arc::default(),
        })
    }

    fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Answer<T> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % READERS;
        let [first, second] = &self.readers;
        let reader = if turn == 0 { first } else { second };
        reader.run(move |connection| query(connection))
    }

    /// Runs a job in one transaction that takes the write lock at its begin, so that it can never fail half way for want of
    /// that lock; an error rolls back.
    fn write<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Answer<T> {
        let is_shut = Arc::clone(&self.is_shut);
        self.writer.run(move |connection| {
            let before = connection.total_changes();
            let written = commit(connection, job);
            match &written {
                Err(error) if kind(error) == StoreError::Unavailable => {
                    is_shut.store(true, Ordering::Relaxed);
                }
                // What changed nothing says nothing of the disk.
                Ok(_) if connection.total_changes() != before => {
                    is_shut.store(false, Ordering::Relaxed);
                }
                Ok(_) | Err(_) => {}
            }
            written
        })
    }
}

impl Store for Sqlite {
    fn add_user(&self, user: User) -> Answer<()> {
        self.write(move |transaction| users::add(transaction, &user))
    }

    fn find_user(&self, key: UserKey) -> Answer<Option<User>> {
        self.read(move |connection| users::find(connection, &key))
    }

    fn users(&self, after: Box<str>, limit: u32) -> Answer<Vec<User>> {
        self.read(move |connection| users::list(connection, &after, limit))
    }

    fn change_user(
        &self,
        id: Box<str>,
        change: UserChange,
        times: Times,
    ) -> Answer<Option<Vec<Box<str>>>> {
        self.write(move |transaction| {
            if !users::change(transaction, &id, &change, times.now)? {
                return Ok(None);
            }
            sessions::end(transaction, &Ending::AllOf { user_id: id }, &times).map(Some)
        })
    }

    fn unlock_user(&self, id: Box<str>) -> Answer<bool> {
        self.write(move |transaction| users::unlock(transaction, &id))
    }

    fn upgrade_password(&self, id: Box<str>, old: PasswordHash, new: PasswordHash) -> Answer<()> {
        self.write(move |transaction| users::upgrade_password(transaction, &id, &old, &new))
    }

    fn add_session(&self, new: NewSession) -> Answer<Option<Vec<Box<str>>>> {
        self.write(move |transaction| sessions::add(transaction, &new))
    }

    fn live_end(&self, presented: Digest, times: Times) -> Answer<Option<LiveEnd>> {
        self.read(move |connection| sessions::live_end(connection, &presented, &times))
    }

    fn rotate(&self, rotation: Rotation) -> Answer<Rotated> {
        self.write(move |transaction| sessions::rotate(transaction, &rotation))
    }

    fn end_sessions(&self, ending: Ending, times: Times) -> Answer<Vec<Box<str>>> {
        self.write(move |transaction| sessions::end(transaction, &ending, &times))
    }

    fn sessions(&self, user_id: Box<str>, times: Times) -> Answer<Vec<Session>> {
        self.read(move |connection| sessions::list(connection, &user_id, &times))
    }

    fn count_sessions(&self, times: Times, most: u32) -> Answer<u64> {
        self.read(move |connection| sessions::count_alive(connection, &times, most))
    }

    fn revoke_token(&self, token_id: Box<str>, times: Times) -> Answer<()> {
        self.write(move |transaction| sessions::revoke_token(transaction, &token_id, &times))
    }

    fn revocations_after(&self, id: u64) -> Answer<Vec<Revocation>> {
        self.read(move |connection| sessions::revocations_after(connection, id))
    }

    fn purge(&self, times: Times) -> Answer<usize> {
        self.write(move |transaction| {
            Ok(sessions::purge(transaction, &times)?
                + administration::purge_invites(transaction, times.now)?
                + registrations::purge(transaction, times.now)?
                + mail::purge(transaction, &times)?)
        })
    }

    fn takes_writes(&self, try_one: bool) -> Answer<()> {
        if !self.is_shut.load(Ordering::Relaxed) {
            return Box::pin(async { Ok(()) });
        }
        if !try_one {
            return Box::pin(async { Err(StoreError::Unavailable) });
        }
        let is_shut = Arc::clone(&self.is_shut);
        self.writer.run(move |connection| {
            commit(connection, |transaction| {
                // The same number once more: a page is written for it, and nothing is changed.
                let version: i64 =
                    transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
                transaction.pragma_update(None, "user_version", version)
            })?;
            is_shut.store(false, Ordering::Relaxed);
            Ok(())
        })
    }
}

fn commit<T>(
    connection: &mut Connection,
    job: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let value = job(&transaction)?;
    transaction.commit()?;
    Ok(value)
}

impl fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sqlite")
    }
}

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// A thread with a connection of its own.
struct Worker {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Worker {
    fn start(name: &str, mut connection: Connection) -> Result<Self, OpenError> {
        let (jobs, mut queue) = mpsc::channel::<Job>(QUEUE_MAX);
        let thread = thread::Builder::new()
            .name(name.into())
            .spawn(move || {
                while let Some(job) = queue.blocking_recv() {
                    job(&mut connection);
                }
            })
            .map_err(OpenError::Thread)?;
        Ok(Self {
            jobs: Some(jobs),
            thread: Some(thread),
        })
    }

    fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Answer<T> {
        let Some(jobs) = self.jobs.clone() else {
            return Box::pin(async { Err(StoreError::Unavailable) });
        };
        Box::pin(async move {
            let deadline = Instant::now() + DEADLINE;
            let (reply, answer) = oneshot::channel();
            let job: Job = Box::new(move |connection| {
                if reply.is_closed() {
                    return; // the caller has gone; nothing was begun
                }
                // The receiver may leave while the job runs: then the answer is of no use to anybody.
                let _ = reply.send(begin(connection, deadline, job));
            });
            jobs.try_send(job).map_err(|_| StoreError::Busy)?;
            match tokio::time::timeout(DEADLINE + DISK_PATIENCE, answer).await {
                Ok(Ok(result)) => result,
                Ok(Err(_)) => Err(StoreError::Unavailable),
                Err(_) => Err(StoreError::Busy),
            }
        })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic in the thread has been reported by the panic hook; there is nothing to add here.
            let _ = thread.join();
        }
    }
}

/// Runs a job if its deadline allows, waiting for other processes' locks until then.
fn begin<T>(
    connection: &mut Connection,
    deadline: Instant,
    job: impl FnOnce(&mut Connection) -> rusqlite::Result<T>,
) -> Result<T, StoreError> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(StoreError::Busy);
    }
    connection
        .busy_timeout(left)
        .and_then(|()| job(connection))
        .map_err(|error| classify(&error))
}

fn classify(error: &rusqlite::Error) -> StoreError {
    let kind = kind(error);
    if kind == StoreError::Unavailable {
        tracing::error!(error = %error, "the account store failed");
    }
    kind
}

fn kind(error: &rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::Busy,
        Some(ErrorCode::ConstraintViolation) => StoreError::Conflict,
        _ => StoreError::Unavailable,
    }
}

/// Seconds as SQLite keeps them. Times beyond its range are as good as never.
fn column(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

/// Seconds, or another count, as SQLite kept them; a negative one is none of ours and reads as 0.
fn count(row: &rusqlite::Row<'_>, index: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(index)
        .map(|value| u64::try_from(value).unwrap_or(0))
}
