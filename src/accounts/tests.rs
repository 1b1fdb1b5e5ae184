//! A site of accounts in a folder of its own, with a clock that stands still, and what must hold of it.

mod administration;
mod audit;
mod breached;
mod budget;
mod changes;
mod crash;
mod devices;
mod failures;
mod invitations;
mod invites;
mod keys;
mod lag;
mod login;
mod mailbox;
mod names;
mod refresh;
mod refresh_limit;
mod registration;
mod resets;
mod revocation;
mod rotation;
mod shared_keys;

use std::{
    io::Write,
    net::IpAddr,
    sync::{
        Arc, LazyLock, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

pub(crate) use mailbox::mail_settings;
use tempfile::TempDir;
use tracing::Dispatch;
use zeroize::Zeroizing;

use super::{
    Accounts, Client, Clock, DeviceToken, Grant, Login, NewUser, Password, RefreshToken,
    settings::{AccountSettings, Argon2Settings, PageSettings, Registration},
};
use crate::{
    authn::{Authenticator, Revocations, settings::CacheSettings},
    limit::settings::Quota,
    policy::{
        Claims, IdentityHeaders, Rejection, Unlimited,
        headers::{MultiValue, Preset},
    },
};

pub(crate) const PASSWORD: &str = "correct horse battery staple";
pub(crate) const START: u64 = 1_800_000_000;
pub(crate) const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

/// One process over a folder; [`Site::beside`] makes another over the same one.
pub(crate) struct Site {
    pub(crate) folder: Arc<TempDir>,
    pub(crate) settings: AccountSettings,
    pub(crate) accounts: Arc<Accounts>,
    pub(crate) authn: Arc<Authenticator>,
    pub(crate) now: Arc<AtomicU64>,
}

impl Site {
    pub(crate) fn new() -> Self {
        Self::with(|_| ())
    }

    pub(crate) fn with(change: impl FnOnce(&mut AccountSettings)) -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let mut settings = settings(&folder);
        change(&mut settings);
        Self::open(folder, settings, Arc::new(AtomicU64::new(START)))
    }

    /// Another process over the same folder and clock.
    pub(crate) fn beside(&self) -> Self {
        Self::open(
            Arc::clone(&self.folder),
            self.settings.clone(),
            Arc::clone(&self.now),
        )
    }

    pub(crate) fn open(
        folder: Arc<TempDir>,
        settings: AccountSettings,
        now: Arc<AtomicU64>,
    ) -> Self {
        let time = Arc::clone(&now);
        let clock =
            Clock::new(move || UNIX_EPOCH + Duration::from_secs(time.load(Ordering::SeqCst)));
        let revocations = Arc::new(Revocations::new());
        Self::with_clock(folder, settings, now, revocations, clock)
    }

    /// One whose clock is doubted when it jumps, as that of a real machine.
    pub(crate) fn doubting() -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let settings = settings(&folder);
        let now = Arc::new(AtomicU64::new(START));
        let time = Arc::clone(&now);
        let clock =
            Clock::new(move || UNIX_EPOCH + Duration::from_secs(time.load(Ordering::SeqCst)));
        let revocations = Arc::new(Revocations::new());
        Self::with_clock(folder, settings, now, revocations, clock.doubted())
    }

    fn with_clock(
        folder: Arc<TempDir>,
        settings: AccountSettings,
        now: Arc<AtomicU64>,
        revocations: Arc<Revocations>,
        clock: Clock,
    ) -> Self {
        let accounts = Accounts::open_at(&settings, Arc::clone(&revocations), clock).unwrap();
        let templates = IdentityHeaders::new(Preset::Portcullis, Vec::new(), MultiValue::Comma);
        let authn = Authenticator::new(
            &accounts.issuers(),
            &CacheSettings::default(),
            revocations,
            Arc::new(templates),
        )
        .unwrap();
        Self {
            folder,
            settings,
            accounts,
            authn: Arc::new(authn),
            now,
        }
    }

    pub(crate) fn advance(&self, seconds: u64) {
        self.now.fetch_add(seconds, Ordering::SeqCst);
    }

    pub(crate) fn time(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.now.load(Ordering::SeqCst))
    }

    pub(crate) async fn add(&self, name: &str, roles: &[&str]) {
        let roles: Vec<String> = roles.iter().map(|role| (*role).into()).collect();
        let new = NewUser {
            username: name,
            email: &format!("{name}@example.com"),
            name: None,
            password: password(PASSWORD),
            roles: &roles,
        };
        self.accounts.add_user(new).await.unwrap();
    }

    pub(crate) async fn try_login(&self, name: &str, secret: &str) -> Result<Grant, Rejection> {
        self.login_on(None, name, secret).await
    }

    /// In a browser that has this token.
    pub(crate) async fn login_on(
        &self,
        device: Option<&DeviceToken>,
        name: &str,
        secret: &str,
    ) -> Result<Grant, Rejection> {
        let login = Login {
            device,
            name,
            password: password(secret),
            client: Client {
                ip: CLIENT,
                device: Some("test"),
            },
        };
        self.accounts.login(login).await
    }

    pub(crate) async fn login(&self, name: &str) -> Grant {
        self.try_login(name, PASSWORD).await.unwrap()
    }

    pub(crate) async fn refresh(&self, token: &RefreshToken) -> Result<Grant, Rejection> {
        self.accounts.refresh(token, CLIENT).await
    }

    /// What the gateway finds in an access token.
    pub(crate) fn claims(&self, access_token: &str) -> Result<Claims, Rejection> {
        self.authn
            .verify(access_token, self.time(), &Unlimited)
            .map(|identity| identity.claims().clone())
    }

    pub(crate) fn is_live(&self, grant: &Grant) -> bool {
        self.claims(&grant.access_token).is_ok()
    }
}

impl Grant {
    pub(crate) fn token(&self) -> &RefreshToken {
        self.refresh_token.as_ref().unwrap()
    }
}

pub(crate) fn password(text: &str) -> Password {
    Password::new(Zeroizing::new(text.into())).unwrap()
}

pub(crate) fn settings(folder: &TempDir) -> AccountSettings {
    let quota = Quota {
        count: 10_000,
        window: Duration::from_secs(1),
        burst: 10_000,
    };
    AccountSettings {
        path: "/auth".into(),
        database: folder.path().join("data/portcullis.db"),
        postgres: None,
        key_encryption: None,
        issuer: "https://localhost:8443".into(),
        signing: jsonwebtoken::Algorithm::ES256,
        clients: Vec::new(),
        pages: Some(PageSettings::default()),
        audience: vec!["portcullis".into()],
        access_ttl: Duration::from_secs(900),
        refresh_idle: Duration::from_secs(7 * 86_400),
        refresh_max: Duration::from_secs(30 * 86_400),
        refresh_grace: Duration::from_secs(10),
        refresh_per_session: quota,
        max_lag: Duration::from_secs(15),
        password_min: 15,
        breached_passwords: None,
        argon2: ARGON2,
        registration: Registration::Closed,
        register_per_ip: quota,
        login_per_ip: quota,
        ipv6_site_factor: 4,
        login_per_account: quota,
        login_failures: Quota {
            count: 100,
            window: Duration::from_secs(86_400),
            burst: 100,
        },
        mail: None,
    }
}

/// Far below the floor that the configuration keeps: these tests hash hundreds of passwords.
pub(crate) const ARGON2: Argon2Settings = Argon2Settings {
    memory_kib: 64,
    iterations: 2,
    parallelism: 1,
    concurrent: 2,
};

/// Two subscribers that live for ever and hear nothing. With a single one alive, `tracing` asks only the thread that comes
/// first to an event whether anybody listens; if that thread does not, the event is lost to the one that does.
static LISTENERS: LazyLock<[Dispatch; 2]> = LazyLock::new(|| {
    [(); 2].map(|()| {
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_writer(std::io::sink)
            .finish()
            .into()
    })
});

/// Collects what is logged on this thread while the guard lives.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub(crate) fn listen(&self) -> tracing::subscriber::DefaultGuard {
        LazyLock::force(&LISTENERS);
        let log = self.clone();
        let subscriber = tracing_subscriber::fmt()
            .json()
            .with_max_level(tracing::Level::TRACE)
            .with_writer(move || log.clone())
            .finish();
        tracing::subscriber::set_default(subscriber)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
