//! Connections to the server: a bounded number, checked when they are made, and not asked for faster than it can bear.

use std::{
    borrow::Cow,
    fmt,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use deadpool_postgres::{
    ClientWrapper, Hook, HookError, Manager, ManagerConfig, Object, Pool, PoolError,
    RecyclingMethod, Runtime, TimeoutType,
};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, pem, pem::PemObject};
use tokio::sync::OnceCell;
use tokio_postgres::{Config, NoTls, config::SslMode, config::TargetSessionAttrs};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{
    Fault, OpenError,
    schema::{self, Schema},
};
use crate::store::{
    StoreError,
    settings::{Host, PostgresSettings, StoreTls},
};

/// How long a call waits for a free connection, or for a new one.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);

/// A peer that is gone without a word is given up after this long.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// The first pause after a connection could not be made; each further one is twice as long, up to the longest.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// The oldest server whose behaviour this relies on: 13.
const VERSION_MIN: i32 = 130_000;

/// Limits that the server keeps, in its own words: a statement, a lock that is waited for, a transaction that somebody left
/// open. They end before a caller gives up, so that what is answered `Busy` did not happen.
const OPTIONS: &str =
    "-c lock_timeout=2000 -c statement_timeout=3000 -c idle_in_transaction_session_timeout=10000";

/// The way to the server.
pub(super) struct Link {
    pool: Pool,
    /// For messages.
    place: String,
    outage: Mutex<Option<Outage>>,
    schema: OnceCell<()>,
    again: Arc<AtomicU64>,
}

/// There is nothing of the feed to be read again.
const NOTHING: u64 = u64::MAX;

/// The server cannot be reached: nobody asks for a connection before `until`.
struct Outage {
    until: Instant,
    pause: Duration,
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum NoLink {
    /// All are in use.
    Busy,
    /// The schema is newer than this program.
    Newer(Schema),
    /// The pause after a failed attempt is not over.
    Resting,
    /// The attempt failed.
    Failed(PoolError),
    /// The schema could not be read or brought up to date.
    Schema(Fault),
}

impl Link {
    pub(super) fn new(settings: &PostgresSettings) -> Result<Self, OpenError> {
        let config = config(settings);
        let how = ManagerConfig {
            recycling_method: RecyclingMethod::Fast,
        };
        let manager = match &settings.tls {
            StoreTls::Disable => Manager::from_config(config, NoTls, how),
            StoreTls::VerifyFull(roots) => {
                let tls = MakeRustlsConnect::new(client_config(roots.as_ref())?);
                Manager::from_config(config, tls, how)
            }
        };
        let again = Arc::new(AtomicU64::new(NOTHING));
        let new = Arc::clone(&again);
        let pool = Pool::builder(manager)
            .max_size(settings.connections)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(CONNECT_PATIENCE))
            .create_timeout(Some(CONNECT_PATIENCE))
            .recycle_timeout(Some(CONNECT_PATIENCE))
            .post_create(Hook::async_fn(move |client, _| {
                let new = Arc::clone(&new);
                Box::pin(async move {
                    check(client).await?;
                    new.store(0, Ordering::Release);
                    Ok(())
                })
            }))
            .build()
            .map_err(|_| OpenError::Pool)?;
        Ok(Self {
            pool,
            place: settings.to_string(),
            outage: Mutex::new(None),
            schema: OnceCell::new(),
            again,
        })
    }

    /// A connection to a server that takes writes, with the schema as it must be.
    pub(super) async fn client(&self) -> Result<Object, NoLink> {
        let resting = |outage: &Outage| Instant::now() < outage.until;
        if self.outage().as_ref().is_some_and(resting) && self.pool.status().available == 0 {
            return Err(NoLink::Resting);
        }
        let mut client = match self.pool.get().await {
            Ok(client) => client,
            Err(PoolError::Timeout(TimeoutType::Wait)) => return Err(NoLink::Busy),
            Err(error) => {
                self.failed(&error);
                return Err(NoLink::Failed(error));
            }
        };
        if self.outage().take().is_some() {
            tracing::info!(event = "store_back", store = %self.place, "the account store is reached again");
        }
        let current = self.schema.get_or_try_init(|| async {
            match schema::migrate(&mut client).await {
                Ok(Schema::Current) => Ok(()),
                Ok(newer) => Err(NoLink::Newer(newer)),
                Err(fault) => Err(NoLink::Schema(fault)),
            }
        });
        current.await?;
        Ok(client)
    }

    /// Lengthens the pause, once for all who failed together. Its length is random by half, so that the nodes of a cluster do
    /// not come back as one.
    fn failed(&self, error: &PoolError) {
        let mut outage = self.outage();
        let pause = match &*outage {
            None => {
                tracing::error!(
                    event = "store_lost",
                    store = %self.place,
                    error = %Chain(error),
                    "the account store cannot be reached; it is tried again"
                );
                PAUSE_MIN
            }
            Some(outage) if Instant::now() < outage.until => return,
            Some(outage) => PAUSE_MAX.min(outage.pause * 2),
        };
        let part = f64::from(random()) / f64::from(u32::MAX);
        *outage = Some(Outage {
            until: Instant::now() + pause.mul_f64(0.5 + part / 2.0),
            pause,
        });
    }

    /// Where to go on reading the feed: after `id`, or before that. A new connection may lead to a server that took over without
    /// the last transactions of the one before and has given their numbers anew, so all is read again after each.
    pub(super) fn feed_from(&self, id: u64) -> u64 {
        self.again.swap(NOTHING, Ordering::AcqRel).min(id)
    }

    /// Says that the feed is still to be read again after this entry.
    pub(super) fn feed_again_from(&self, id: u64) {
        self.again.fetch_min(id, Ordering::AcqRel);
    }

    pub(super) fn place(&self) -> &str {
        &self.place
    }

    // Nothing panics while it holds the lock, and an outage is whole at any time.
    fn outage(&self) -> MutexGuard<'_, Option<Outage>> {
        self.outage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn random() -> u32 {
    let mut bytes = [0; 4];
    // Without randomness all nodes wait alike, which is no reason to fail.
    let _ = ::aws_lc_rs::rand::fill(&mut bytes);
    u32::from_le_bytes(bytes)
}

fn config(settings: &PostgresSettings) -> Config {
    let mut config = Config::new();
    config
        .user(&*settings.user)
        .dbname(&*settings.database)
        .application_name("portcullis")
        .options(OPTIONS)
        .connect_timeout(CONNECT_PATIENCE)
        .tcp_user_timeout(SILENCE_MAX)
        .keepalives_idle(SILENCE_MAX)
        .keepalives_interval(SILENCE_MAX / 3)
        .keepalives_retries(3)
        // A standby shows what was true a while ago, and takes no revocation (STORE-6).
        .target_session_attrs(TargetSessionAttrs::ReadWrite)
        .ssl_mode(match settings.tls {
            StoreTls::Disable => SslMode::Disable,
            StoreTls::VerifyFull(_) => SslMode::Require,
        });
    if let Some(password) = &settings.password {
        config.password(password.reveal());
    }
    for server in &settings.servers {
        match &server.host {
            Host::Name(name) => config.host(&**name),
            Host::Socket(folder) => config.host_path(folder),
        };
        config.port(server.port);
    }
    config
}

/// Looks at a new connection, and makes sure that a commit is on the disk before it is answered (STORE-2).
async fn check(client: &mut ClientWrapper) -> Result<(), HookError> {
    let row = client
        .query_one(
            "SELECT pg_is_in_recovery(), current_setting('server_version_num')::int,
                    current_setting('synchronous_commit') IN ('off', 'local'), current_setting('fsync') = 'off'",
            &[],
        )
        .await
        .map_err(HookError::Backend)?;
    let read = |index: usize| row.try_get::<_, bool>(index).map_err(HookError::Backend);
    let refuse = |why: &'static str| Err(HookError::Message(Cow::Borrowed(why)));
    if read(0)? {
        return refuse("the server is a standby: it shows the past and takes no revocation");
    }
    if row.try_get::<_, i32>(1).map_err(HookError::Backend)? < VERSION_MIN {
        return refuse("the server is older than PostgreSQL 13");
    }
    // Somebody set it for speed, for the server, the database or the role. What is stronger is left alone.
    if read(2)? {
        client
            .batch_execute("SET synchronous_commit = on")
            .await
            .map_err(HookError::Backend)?;
    }
    if read(3)? {
        tracing::warn!(
            "the account store runs with fsync = off: a crash of its machine may destroy it"
        );
    }
    Ok(())
}

fn client_config(file: Option<&PathBuf>) -> Result<ClientConfig, OpenError> {
    let mut roots = RootCertStore::empty();
    match file {
        Some(path) => {
            let unreadable = |source| OpenError::Roots {
                path: path.clone(),
                source,
            };
            for certificate in CertificateDer::pem_file_iter(path).map_err(unreadable)? {
                roots.add(certificate.map_err(unreadable)?)?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        let path = file.cloned().unwrap_or_default();
        return Err(OpenError::Roots {
            path,
            source: pem::Error::NoItemsFound,
        });
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

impl From<&NoLink> for StoreError {
    fn from(fault: &NoLink) -> Self {
        match fault {
            NoLink::Busy => Self::Busy,
            NoLink::Newer(_) | NoLink::Resting | NoLink::Failed(_) | NoLink::Schema(_) => {
                Self::Unavailable
            }
        }
    }
}

impl NoLink {
    /// The server's own error, where it or its driver gave one.
    pub(super) fn server(&self) -> Option<&tokio_postgres::Error> {
        match self {
            Self::Failed(
                PoolError::Backend(error) | PoolError::PostCreateHook(HookError::Backend(error)),
            )
            | Self::Schema(Fault::Server(error)) => Some(error),
            Self::Busy | Self::Newer(_) | Self::Resting | Self::Failed(_) | Self::Schema(_) => None,
        }
    }
}

impl NoLink {
    /// As [`NoLink::server`], to keep.
    pub(super) fn into_server(self) -> Option<tokio_postgres::Error> {
        match self {
            Self::Failed(
                PoolError::Backend(error) | PoolError::PostCreateHook(HookError::Backend(error)),
            )
            | Self::Schema(Fault::Server(error)) => Some(error),
            Self::Busy | Self::Newer(_) | Self::Resting | Self::Failed(_) | Self::Schema(_) => None,
        }
    }
}

/// An error with what caused it.
pub(super) struct Chain<'a>(pub(super) &'a dyn std::error::Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut told = self.0.to_string();
        let mut next = self.0.source();
        while let Some(error) = next {
            let text = error.to_string();
            // Some tell of what they come from themselves.
            if !told.ends_with(&text) {
                told = format!("{told}: {text}");
            }
            next = error.source();
        }
        f.write_str(&told)
    }
}
