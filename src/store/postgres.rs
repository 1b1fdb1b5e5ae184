//! The shared store: accounts and sessions of all nodes in one PostgreSQL database.
//!
//! It keeps the promises of [`Store`] as the embedded one does, with other means. Each method is one transaction. Whoever
//! decides on a row holds it, so that of two nodes that rotate one token, one waits for the other (SESS-2, SESS-3). A commit is
//! on the disk before it is answered (STORE-2), and reads go to the server that takes writes (STORE-6).
//!
//! Everything runs on one thread with a runtime of its own: commands have none, and connections outlive whoever asked. A call
//! waits two seconds for a connection and for a lock at most, and five seconds in all.

mod administration;
mod feed;
mod keys;
mod link;
mod mail;
mod purge;
mod recovery;
mod registrations;
mod schema;
mod sessions;
mod users;
mod work;

use std::{fmt, io, path::PathBuf, sync::Arc, thread, time::Duration};

use deadpool_postgres::Transaction;
use rustls_pki_types::pem;
use tokio::{
    runtime::{Builder, Handle},
    sync::{Semaphore, oneshot},
    time::timeout,
};
use tokio_postgres::Row;

use self::{
    link::{Link, NoLink},
    schema::Schema,
    work::Job,
};
use super::{
    Answer, Digest, Ending, LiveEnd, NewSession, PasswordHash, Revocation, RevocationKind, Rotated,
    Rotation, Session, Store, StoreError, Times, User, UserChange, UserKey,
    settings::PostgresSettings,
};

/// What a start waits for the server, and for another node that brings the schema up to date.
const OPEN_PATIENCE: Duration = Duration::from_secs(40);

/// Calls at once, waiting or in work.
const CALLS_MAX: usize = 256;

/// The shared store.
pub struct Postgres {
    link: Arc<Link>,
    calls: Arc<Semaphore>,
    runtime: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

/// Why the shared store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The schema was made by a newer program. Going on could destroy what it keeps.
    #[error(
        "{place}: schema version {found} is newer than {known}, the newest that this program knows; use a newer portcullis"
    )]
    NewerSchema {
        /// Which database.
        place: String,
        /// Its version.
        found: i64,
        /// Ours.
        known: usize,
    },
    /// The settings of the pool of connections.
    #[error("accounts.store_connections: out of range")]
    Pool,
    /// The server answered, and refused: role, password, database or permissions are not as they must be.
    #[error("{place}: the server refuses")]
    Refused {
        /// Which database.
        place: String,
        /// Its words.
        source: tokio_postgres::Error,
    },
    /// Root certificates; an empty path means those of the system.
    #[error("root certificates for the account store ({}) cannot be used", path.display())]
    Roots {
        /// The file.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// The thread or its runtime.
    #[error("cannot start a thread of the account store")]
    Thread(#[source] io::Error),
    /// A TLS library that refuses the policy or a root certificate.
    #[error("TLS to the account store cannot be set up")]
    Tls(#[from] rustls::Error),
}

/// Why a transaction did not happen.
#[derive(Debug, thiserror::Error)]
enum Fault {
    /// A row was changed that was held, which cannot be.
    #[error("a row was changed by another transaction meanwhile")]
    Race,
    /// The server or the way to it.
    #[error("the server")]
    Server(#[from] tokio_postgres::Error),
}

impl Postgres {
    /// Connects, and brings the schema up to date. A server that cannot be reached is no error here: every call then says
    /// [`StoreError::Unavailable`], and tries again after a while. Blocks.
    ///
    /// # Errors
    /// [`OpenError`] by variant, for what waiting does not mend.
    pub fn open(settings: &PostgresSettings) -> Result<Self, OpenError> {
        let link = Arc::new(Link::new(settings)?);
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(OpenError::Thread)?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let (opened, result) = std::sync::mpsc::channel();
        let first = Arc::clone(&link);
        let thread = thread::Builder::new()
            .name("store".into())
            .spawn(move || {
                runtime.block_on(async {
                    // Whoever opens waits for the result as long as this thread lives.
                    let _ = opened.send(timeout(OPEN_PATIENCE, first.client()).await);
                    // Dropped without a word, it ends the wait as well.
                    let _ = stopped.await;
                });
                runtime.shutdown_background();
            })
            .map_err(OpenError::Thread)?;
        let store = Self {
            link,
            calls: Arc::new(Semaphore::new(CALLS_MAX)),
            runtime: handle,
            stop: Some(stop),
            thread: Some(thread),
        };
        match result.recv() {
            Ok(Ok(Err(fault))) => store.refuse(fault).map(|()| store),
            Ok(Ok(Ok(_)) | Err(_)) => Ok(store),
            Err(_) => Err(OpenError::Thread(io::ErrorKind::Other.into())),
        }
    }

    /// Tells what waiting does not mend from what it may.
    fn refuse(&self, fault: NoLink) -> Result<(), OpenError> {
        let place = self.link.place().to_owned();
        if let NoLink::Newer(Schema::Newer { found, known }) = fault {
            return Err(OpenError::NewerSchema {
                place,
                found,
                known,
            });
        }
        if !fault.server().is_some_and(is_refusal) {
            return Ok(());
        }
        match fault.into_server() {
            Some(source) => Err(OpenError::Refused { place, source }),
            None => Ok(()),
        }
    }

    fn call<A: Send + Sync + 'static, T: Send + 'static>(
        &self,
        arguments: A,
        job: Job<A, T>,
    ) -> Answer<T> {
        let (calls, link) = (Arc::clone(&self.calls), Arc::clone(&self.link));
        let runtime = self.runtime.clone();
        Box::pin(async move {
            let place = calls.try_acquire_owned().map_err(|_| StoreError::Busy)?;
            // In a task, so that a caller who leaves does not leave a transaction half way.
            let task = runtime.spawn(async move {
                let _place = place;
                work::perform(&link, &arguments, job).await
            });
            task.await.unwrap_or(Err(StoreError::Unavailable))
        })
    }
}

/// Whether the server, or the driver before it could ask, refuses for what somebody must set right: role or password (28),
/// database (3D), permissions or the schema (42).
fn is_refusal(error: &tokio_postgres::Error) -> bool {
    match error.code() {
        Some(code) => ["28", "3D", "42"]
            .iter()
            .any(|class| code.code().starts_with(class)),
        None => {
            let text = error.to_string();
            text.starts_with("invalid configuration") || text.starts_with("authentication error")
        }
    }
}

/// Waits until nobody else holds this name, and holds it until the transaction ends.
async fn hold(transaction: &Transaction<'_>, name: &str) -> Result<(), Fault> {
    let statement = transaction
        .prepare_cached("SELECT pg_advisory_xact_lock(hashtext($1))")
        .await?;
    transaction.execute(&statement, &[&name]).await?;
    Ok(())
}

/// Keys that PostgreSQL cannot hold name nothing.
fn names_nothing(text: &str) -> bool {
    text.contains('\0')
}

fn ready<T: Send + 'static>(value: T) -> Answer<T> {
    Box::pin(std::future::ready(Ok(value)))
}

impl Store for Postgres {
    fn add_user(&self, user: User) -> Answer<()> {
        self.call(user, |transaction, user| {
            Box::pin(users::add(transaction, user))
        })
    }

    fn find_user(&self, key: UserKey) -> Answer<Option<User>> {
        let (UserKey::Email(text) | UserKey::Id(text) | UserKey::Username(text)) = &key;
        if names_nothing(text) {
            return ready(None);
        }
        self.call(key, |transaction, key| {
            Box::pin(users::find(transaction, key))
        })
    }

    fn users(&self, after: Box<str>, limit: u32) -> Answer<Vec<User>> {
        if names_nothing(&after) {
            return ready(Vec::new());
        }
        self.call((after, limit), |transaction, (after, limit)| {
            Box::pin(users::list(transaction, after, *limit))
        })
    }

    fn change_user(
        &self,
        id: Box<str>,
        change: UserChange,
        times: Times,
    ) -> Answer<Option<Vec<Box<str>>>> {
        if names_nothing(&id) {
            return ready(None);
        }
        let ending = Ending::AllOf {
            user_id: id.clone(),
        };
        self.call((id, change, ending, times), |transaction, arguments| {
            Box::pin(async move {
                let (id, change, ending, times) = arguments;
                administration::hold_admins(transaction).await?;
                if !users::change(transaction, id, change, times.now).await? {
                    return Ok(None);
                }
                sessions::end(transaction, ending, times).await.map(Some)
            })
        })
    }

    fn unlock_user(&self, id: Box<str>) -> Answer<bool> {
        if names_nothing(&id) {
            return ready(false);
        }
        self.call(id, |transaction, id| {
            Box::pin(users::unlock(transaction, id))
        })
    }

    fn upgrade_password(&self, id: Box<str>, old: PasswordHash, new: PasswordHash) -> Answer<()> {
        self.call((id, old, new), |transaction, (id, old, new)| {
            Box::pin(users::upgrade_password(transaction, id, old, new))
        })
    }

    fn add_session(&self, new: NewSession) -> Answer<Option<Vec<Box<str>>>> {
        self.call(new, |transaction, new| {
            Box::pin(sessions::add(transaction, new))
        })
    }

    fn live_end(&self, presented: Digest, times: Times) -> Answer<Option<LiveEnd>> {
        self.call((presented, times), |transaction, (presented, times)| {
            Box::pin(sessions::live_end(transaction, presented, times))
        })
    }

    fn rotate(&self, rotation: Rotation) -> Answer<Rotated> {
        self.call(rotation, |transaction, rotation| {
            Box::pin(sessions::rotate(transaction, rotation))
        })
    }

    fn end_sessions(&self, ending: Ending, times: Times) -> Answer<Vec<Box<str>>> {
        let nothing = match &ending {
            Ending::AllOf { user_id } => names_nothing(user_id),
            Ending::One {
                user_id,
                session_id,
            } => names_nothing(user_id) || names_nothing(session_id),
            Ending::OfToken(_) => false,
        };
        if nothing {
            return ready(Vec::new());
        }
        self.call((ending, times), |transaction, (ending, times)| {
            Box::pin(sessions::end(transaction, ending, times))
        })
    }

    fn sessions(&self, user_id: Box<str>, times: Times) -> Answer<Vec<Session>> {
        if names_nothing(&user_id) {
            return ready(Vec::new());
        }
        self.call((user_id, times), |transaction, (user_id, times)| {
            Box::pin(sessions::list(transaction, user_id, times))
        })
    }

    fn count_sessions(&self, times: Times, most: u32) -> Answer<u64> {
        self.call((times, most), |transaction, (times, most)| {
            Box::pin(sessions::count_alive(transaction, times, *most))
        })
    }

    fn revoke_token(&self, token_id: Box<str>, times: Times) -> Answer<()> {
        self.call(([token_id], times), |transaction, (token_id, times)| {
            Box::pin(feed::publish(
                transaction,
                RevocationKind::Token,
                token_id,
                times,
            ))
        })
    }

    fn revocations_after(&self, id: u64) -> Answer<Vec<Revocation>> {
        let link = Arc::clone(&self.link);
        let read = |from| {
            self.call(from, |transaction, from| {
                Box::pin(feed::after(transaction, *from))
            })
        };
        let from = link.feed_from(id);
        let (page, next) = (read(from), read(id));
        Box::pin(async move {
            if from == id {
                return page.await;
            }
            let page = page.await.inspect_err(|_| link.feed_again_from(from))?;
            match page.last() {
                Some(last) if last.id < id => link.feed_again_from(last.id),
                Some(_) => {}
                // What was to be read again is gone. Whether numbers were is seen from `id`.
                None => return next.await,
            }
            Ok(page)
        })
    }

    fn purge(&self, times: Times) -> Answer<usize> {
        self.call(times, |transaction, times| {
            Box::pin(purge::run(transaction, times))
        })
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A panic in the thread has been reported by the panic hook; there is nothing to add here.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Postgres")
    }
}

/// Seconds as the store keeps them. Times beyond its range are as good as never.
fn column(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

/// Seconds, or another count, as the store kept them; a negative one is none of ours and reads as 0.
fn count(row: &Row, index: usize) -> Result<u64, Fault> {
    Ok(u64::try_from(row.try_get::<_, i64>(index)?).unwrap_or(0))
}

/// 32 bytes, or none; others are none of ours and read as none.
fn bytes(row: &Row, index: usize) -> Result<Option<[u8; 32]>, Fault> {
    let found: Option<&[u8]> = row.try_get(index)?;
    Ok(found.and_then(|bytes| bytes.try_into().ok()))
}
