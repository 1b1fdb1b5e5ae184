//! A store of either kind, and the same data seen from beside it.

use std::{path::PathBuf, sync::Arc};

use portcullis::store::{
    NewSession, PasswordHash, Postgres, Rotation, Session, Sqlite, Store, Times, User,
    settings::PostgresSettings,
};
use tempfile::TempDir;

use crate::server::{self, Server};

pub(crate) const NOW: u64 = 1_800_000_000;

pub(crate) const TIMES: Times = Times {
    now: NOW,
    idle: 1000,
    grace: 10,
    tokens_dead_at: NOW + 1000,
};

/// Where a store keeps its data.
pub(crate) enum Place {
    Postgres(String),
    Sqlite(TempDir),
}

impl Place {
    pub(crate) fn sqlite() -> Self {
        Self::Sqlite(tempfile::tempdir().unwrap())
    }

    pub(crate) async fn postgres() -> Option<Self> {
        Some(Self::Postgres(Server::shared()?.database().await))
    }

    /// Another node.
    pub(crate) fn open(&self) -> Result<Arc<dyn Store>, String> {
        let told = |error: &dyn std::error::Error| format!("{error}: {:?}", error.source());
        match self {
            Self::Postgres(url) => {
                let settings = PostgresSettings::parse(url).unwrap();
                let store = Postgres::open(&settings).map_err(|error| told(&error))?;
                Ok(Arc::new(store))
            }
            Self::Sqlite(_) => {
                let store = Sqlite::open(&self.file()).map_err(|error| told(&error))?;
                Ok(Arc::new(store))
            }
        }
    }

    pub(crate) fn node(&self) -> Arc<dyn Store> {
        self.open().unwrap()
    }

    fn file(&self) -> PathBuf {
        let Self::Sqlite(folder) = self else {
            panic!("no file");
        };
        folder.path().join("accounts.db")
    }

    /// `accounts.store` of a gateway over it.
    pub(crate) fn url(&self) -> String {
        match self {
            Self::Postgres(url) => url.clone(),
            Self::Sqlite(_) => format!("sqlite:{}", self.file().display()),
        }
    }

    /// Whether somebody has the writers' lock of SQLite at this moment.
    pub(crate) fn is_written_to(&self) -> bool {
        let connection = rusqlite::Connection::open(self.file()).unwrap();
        connection.busy_timeout(std::time::Duration::ZERO).unwrap();
        let begun = connection.execute_batch("BEGIN IMMEDIATE; ROLLBACK");
        let code = begun.err().and_then(|error| error.sqlite_error_code());
        code == Some(rusqlite::ErrorCode::DatabaseBusy)
    }

    /// Runs statements that both kinds know, past the store.
    pub(crate) async fn execute(&self, sql: &str) {
        match self {
            Self::Postgres(url) => {
                server::connect(url).await.batch_execute(sql).await.unwrap();
            }
            Self::Sqlite(_) => rusqlite::Connection::open(self.file())
                .unwrap()
                .execute_batch(sql)
                .unwrap(),
        }
    }

    /// The first column of what a query gives.
    pub(crate) async fn numbers(&self, sql: &str) -> Vec<i64> {
        match self {
            Self::Postgres(url) => {
                let rows = server::connect(url).await.query(sql, &[]).await.unwrap();
                rows.iter().map(|row| row.get(0)).collect()
            }
            Self::Sqlite(_) => {
                let connection = rusqlite::Connection::open(self.file()).unwrap();
                let mut statement = connection.prepare(sql).unwrap();
                let rows = statement.query_map([], |row| row.get(0)).unwrap();
                rows.map(Result::unwrap).collect()
            }
        }
    }

    /// The one number that a query gives.
    pub(crate) async fn number(&self, sql: &str) -> i64 {
        match self {
            Self::Postgres(url) => {
                let client = server::connect(url).await;
                client.query_one(sql, &[]).await.unwrap().get(0)
            }
            Self::Sqlite(_) => rusqlite::Connection::open(self.file())
                .unwrap()
                .query_row(sql, [], |row| row.get(0))
                .unwrap(),
        }
    }
}

pub(crate) fn user(name: &str) -> User {
    User {
        id: format!("id-{name}").into(),
        username: name.into(),
        email: Some(format!("{name}@example.com").into()),
        name: None,
        password: Some(PasswordHash("hash".into())),
        roles: vec!["clerk".into(), "a:b/c".into()],
        disabled: false,
        pending: false,
        unlocks: 0,
        epoch: 1,
        created_at: NOW,
        updated_at: NOW,
    }
}

/// A session of an account, whose token is `[token; 32]`.
pub(crate) fn session(user: &User, id: &str, token: u8) -> NewSession {
    NewSession {
        session: Session {
            id: id.into(),
            user_id: user.id.clone(),
            created_at: NOW,
            last_used_at: NOW,
            ends_at: NOW + 10_000,
            device: "test".into(),
            ip: "192.0.2.7".into(),
        },
        token: Some([token; 32]),
        user_epoch: user.epoch,
        cap: 20,
        times: TIMES,
    }
}

pub(crate) fn rotation(presented: u8, successor: u8) -> Rotation {
    Rotation {
        presented: [presented; 32],
        successor: [successor; 32],
        salt: [successor; 32],
        times: TIMES,
    }
}

pub(crate) fn at(now: u64) -> Times {
    Times {
        now,
        tokens_dead_at: now + 1000,
        ..TIMES
    }
}
