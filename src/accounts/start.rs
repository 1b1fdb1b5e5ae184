//! How accounts are opened: the store, the keys, and what was revoked before.

use std::{
    io,
    sync::{Arc, atomic::AtomicU64},
};

use super::{
    Accounts, Clock, KeyError, KeyFolder, LIMIT_KEYS_MAX, PollError, StoredKeys,
    outbox::Outbox,
    passwords::{
        Passwords,
        breached::{Breached, BreachedError},
    },
    settings::AccountSettings,
    signing::SigningKeys,
};
use crate::{
    authn::Revocations,
    cluster::{AttemptLimiter, ClientLimiter, Cluster, SharedLimiter},
    store::{OpenError as StoreOpenError, Sqlite, Store, StoreError},
    telemetry::AccountMetrics,
};

/// Why accounts could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The list of breached passwords.
    #[error("accounts.breached_passwords")]
    Breached(#[from] BreachedError),
    /// A signing key.
    #[error("signing key")]
    Key(#[from] KeyError),
    /// A build that has only the embedded store.
    #[error("accounts.store: this program was built without PostgreSQL (feature `postgres`)")]
    NoPostgres,
    /// The password hash parameters.
    #[error("accounts.argon2: parameters out of range")]
    Passwords,
    /// The revocations could not be read.
    #[error("cannot read the revocations")]
    Revocations(#[source] StoreError),
    /// The runtime in which the store is read at start.
    #[error("cannot start a runtime")]
    Runtime(#[source] io::Error),
    /// The shared store.
    #[cfg(feature = "postgres")]
    #[error("account store")]
    Shared(#[from] crate::store::postgres::OpenError),
    /// The store.
    #[error("account store")]
    Store(#[from] StoreOpenError),
}

impl Accounts {
    /// Opens the store, the keys and the feed, and makes what is missing: database (0600), signing key (0600). Blocks.
    ///
    /// # Errors
    /// [`OpenError`] by variant.
    pub fn open(
        settings: &AccountSettings,
        revocations: Arc<Revocations>,
    ) -> Result<Arc<Self>, OpenError> {
        Self::open_at(settings, revocations, Clock::system())
    }

    /// As [`Accounts::open`], with a clock.
    ///
    /// # Errors
    /// [`OpenError`] by variant.
    pub fn open_at(
        settings: &AccountSettings,
        revocations: Arc<Revocations>,
        clock: Clock,
    ) -> Result<Arc<Self>, OpenError> {
        let metrics = AccountMetrics::default();
        let accounts = Self::assemble((None, metrics), settings, revocations, clock)?;
        // Before the first token is verified: what was revoked before this start.
        accounts.catch_up()?;
        Ok(Arc::new(accounts))
    }

    /// As [`Accounts::open`], for one node, of several where there is a cluster, that has other things to do: a store that cannot be reached now is awaited (FAULT-5).
    /// Until [`Accounts::watch`] has read the revocations in it, no token of these accounts is believed or made.
    /// What they do is counted in `metrics`.
    ///
    /// # Errors
    /// [`OpenError`] by variant, for what waiting does not mend.
    pub fn open_or_await(
        cluster: Option<Arc<Cluster>>,
        settings: &AccountSettings,
        revocations: Arc<Revocations>,
        metrics: AccountMetrics,
    ) -> Result<Arc<Self>, OpenError> {
        let accounts = Self::assemble((cluster, metrics), settings, revocations, Clock::system())?;
        match accounts.catch_up() {
            Ok(()) => {}
            Err(OpenError::Revocations(error)) => {
                tracing::error!(
                    error = %error,
                    "accounts begin without their store: sign-in and tokens of this issuer are refused until it can be read"
                );
            }
            Err(error) => return Err(error),
        }
        Ok(Arc::new(accounts))
    }

    fn assemble(
        (cluster, metrics): (Option<Arc<Cluster>>, AccountMetrics),
        settings: &AccountSettings,
        revocations: Arc<Revocations>,
        clock: Clock,
    ) -> Result<Self, OpenError> {
        let limiter =
            |name, quota| SharedLimiter::new(name, quota, LIMIT_KEYS_MAX, cluster.clone());
        let of_attempts = |name| {
            let (names, streak) = ([name, "login_failures"], settings.login_failures);
            let rate = settings.login_per_account;
            AttemptLimiter::new(names, rate, streak, LIMIT_KEYS_MAX, cluster.clone())
        };
        let factor = settings.ipv6_site_factor;
        let of_clients = |names, quota| {
            ClientLimiter::new(names, quota, factor, LIMIT_KEYS_MAX, cluster.clone())
        };
        revocations.feed().begin(settings.max_lag);
        let store = open_store(settings)?;
        let signing = signing_keys(&store, settings, &revocations, clock.now())?;
        let breached = settings.breached_passwords.as_deref();
        let breached = breached.map(Breached::open).transpose()?;
        let passwords = Passwords::new(&settings.argon2, settings.password_min, breached)
            .map_err(|_| OpenError::Passwords)?;
        Ok(Self {
            store,
            passwords: Arc::new(passwords),
            signing,
            revocations,
            clock,
            metrics,
            logins_per_ip: of_clients(["login_per_ip", "login_per_network"], settings.login_per_ip),
            logins_per_account: of_attempts("login_per_account"),
            logins_per_device: of_attempts("login_per_device"),
            registrations_per_id: limiter("login_per_account", settings.login_per_account),
            refreshes_per_session: limiter("refresh_per_session", settings.refresh_per_session),
            outbox: settings
                .mail
                .as_ref()
                .map(|mail| Outbox::new(mail, factor, cluster.as_ref())),
            registrations_per_ip: of_clients(
                ["register_per_ip", "register_per_network"],
                settings.register_per_ip,
            ),
            cluster,
            feed: AtomicU64::new(0),
            settings: settings.clone(),
        })
    }

    /// Reads the keys in the store and the whole feed, on a thread of its own as the caller may be part of a runtime.
    fn catch_up(&self) -> Result<(), OpenError> {
        let read = std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                tokio::runtime::Builder::new_current_thread()
                    .enable_time()
                    .build()
                    .map_err(OpenError::Runtime)?
                    .block_on(self.poll())
                    .map_err(|error| match error {
                        PollError::Keys(error) => OpenError::Key(error),
                        PollError::Store(error) => OpenError::Revocations(error),
                    })
            });
            reader.join()
        });
        match read {
            Ok(result) => result.map(|_| ()),
            Err(_) => Err(OpenError::Revocations(StoreError::Unavailable)),
        }
    }
}

/// The keys, where the configuration says that they are.
fn signing_keys(
    store: &Arc<dyn Store>,
    settings: &AccountSettings,
    revocations: &Arc<Revocations>,
    now: u64,
) -> Result<SigningKeys, KeyError> {
    let (folder, algorithm) = (settings.key_folder(), settings.signing);
    let revocations = Arc::clone(revocations);
    match &settings.key_encryption {
        Some(encryption) => {
            let keys = StoredKeys::new(Arc::clone(store), encryption, algorithm, folder)?;
            Ok(SigningKeys::of_store(keys, revocations))
        }
        None => {
            let folder = KeyFolder::open(&folder, algorithm, now)?;
            SigningKeys::open(folder, revocations, now)
        }
    }
}

/// Opens the store of accounts. Blocks.
///
/// # Errors
/// [`OpenError`] by variant.
pub fn open_store(settings: &AccountSettings) -> Result<Arc<dyn Store>, OpenError> {
    let Some(shared) = &settings.postgres else {
        return Ok(Arc::new(Sqlite::open(&settings.database)?));
    };
    #[cfg(feature = "postgres")]
    return Ok(Arc::new(crate::store::Postgres::open(shared)?));
    #[cfg(not(feature = "postgres"))]
    {
        let _ = shared;
        Err(OpenError::NoPostgres)
    }
}
