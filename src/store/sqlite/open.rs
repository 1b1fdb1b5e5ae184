//! Makes and opens the file: modes, pragmas, migrations.

use std::{
    fs::{OpenOptions, Permissions},
    io,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use crate::files;

/// The schema, step by step; a step never changes once released. The version is the number of steps.
const MIGRATIONS: [&str; 6] = [
    include_str!("../migrations/0001_accounts.sql"),
    include_str!("../migrations/0002_mail.sql"),
    include_str!("../migrations/0003_registration.sql"),
    include_str!("../migrations/0004_registrations.sql"),
    include_str!("../migrations/0005_signing_keys.sql"),
    include_str!("../migrations/0006_unlocks.sql"),
];

/// How long other processes that open the file at the same moment are waited for.
const OPEN_PATIENCE: Duration = Duration::from_secs(10);

const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// Why the store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file or folder could not be made or read.
    #[error("{}: cannot be opened", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others may write into the folder, and so could put a file of theirs in our place.
    #[error("{}: others may write here; run: chmod 700 {}", path.display(), path.display())]
    FolderOpen {
        /// Which.
        path: PathBuf,
    },
    /// The schema was made by a newer program. Going on could destroy what it keeps.
    #[error(
        "{}: schema version {found} is newer than {known}, the newest that this program knows; use a newer portcullis", path.display()
    )]
    NewerSchema {
        /// Which file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// Ours.
        known: usize,
    },
    /// SQLite refused.
    #[error("{}: cannot be used as account database", path.display())]
    Sqlite {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// A thread could not be started.
    #[error("cannot start a thread of the account store")]
    Thread(#[source] io::Error),
}

/// Opens the connection that writes, after the file and its schema were made as they must be.
pub(super) fn writer(path: &Path) -> Result<Connection, OpenError> {
    make_folder(path)?;
    make_file(path)?;
    let mut connection = connect(path)?;
    migrate(&mut connection, path)?;
    for suffix in ["-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        restrict(Path::new(&name))?;
    }
    Ok(connection)
}

/// Opens a connection that cannot write.
pub(super) fn reader(path: &Path) -> Result<Connection, OpenError> {
    let connection = connect(path)?;
    connection
        .pragma_update(None, "query_only", true)
        .map_err(|source| fault(path, source))?;
    Ok(connection)
}

fn connect(path: &Path) -> Result<Connection, OpenError> {
    // Not thread-safe inside, as each connection stays with its thread; no URI, so that no part of a path is read as options.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let until = Instant::now() + OPEN_PATIENCE;
    loop {
        match Connection::open_with_flags(path, flags).and_then(prepare) {
            Ok(connection) => return Ok(connection),
            // The change to WAL does not wait for other processes by itself.
            Err(error)
                if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
                    && Instant::now() < until =>
            {
                thread::park_timeout(RETRY_PAUSE);
            }
            Err(source) => return Err(fault(path, source)),
        }
    }
}

fn prepare(connection: Connection) -> rusqlite::Result<Connection> {
    connection.busy_timeout(OPEN_PATIENCE)?;
    connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // A file from elsewhere must not bring its own functions to run.
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// Brings the schema up to date in one transaction: a crash half way leaves the old one, and of several processes that start
/// together one does it while the others wait (STORE-5).
fn migrate(connection: &mut Connection, path: &Path) -> Result<(), OpenError> {
    let steps = || -> rusqlite::Result<i64> {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(
            "CREATE TABLE IF NOT EXISTS schema_version (
                 only INTEGER PRIMARY KEY CHECK (only = 1),
                 version INTEGER NOT NULL
             ) STRICT;
             INSERT OR IGNORE INTO schema_version (only, version) VALUES (1, 0);",
        )?;
        let found: i64 =
            transaction.query_row("SELECT version FROM schema_version", [], |row| row.get(0))?;
        let Ok(done) = usize::try_from(found) else {
            return Ok(found);
        };
        if done >= MIGRATIONS.len() {
            return Ok(found); // nothing to do, or not ours to touch; either way nothing is written
        }
        for step in MIGRATIONS.iter().skip(done) {
            transaction.execute_batch(step)?;
        }
        let version = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
        transaction.execute("UPDATE schema_version SET version = ?1", [version])?;
        transaction.commit()?;
        Ok(version)
    };
    let mut steps = steps;
    let version = steps().map_err(|source| fault(path, source))?;
    if usize::try_from(version) == Ok(MIGRATIONS.len()) {
        return Ok(());
    }
    Err(OpenError::NewerSchema {
        path: path.into(),
        found: version,
        known: MIGRATIONS.len(),
    })
}

fn make_folder(path: &Path) -> Result<(), OpenError> {
    let Some(folder) = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    else {
        return Ok(());
    };
    let failed = |source| OpenError::File {
        path: folder.into(),
        source,
    };
    files::make_folder(folder).map_err(failed)?;
    if files::is_open_to_others(folder).map_err(failed)? {
        return Err(OpenError::FolderOpen {
            path: folder.into(),
        });
    }
    Ok(())
}

/// Makes the file before SQLite would, with the mode that its companions inherit.
fn make_file(path: &Path) -> Result<(), OpenError> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|source| OpenError::File {
            path: path.into(),
            source,
        })?;
    restrict(path)
}

/// Takes everybody else's rights from a file, if it is there.
fn restrict(path: &Path) -> Result<(), OpenError> {
    let failed = |source| OpenError::File {
        path: path.into(),
        source,
    };
    match path.metadata() {
        Ok(metadata) if metadata.permissions().mode() & 0o077 != 0 => {
            tracing::warn!(path = %path.display(), "file of the account store was open to others; now it is not");
            std::fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(failed)
        }
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

fn fault(path: &Path, source: rusqlite::Error) -> OpenError {
    OpenError::Sqlite {
        path: path.into(),
        source,
    }
}
