//! Where do an issuer's keys come from that nobody put into a file? From its provider, in the background.
//!
//! One task for each issuer fetches its key set, by the rules of HTTP caching within the bounds of the configuration, and once
//! more when a token names a key that is not there (KEY-1). A set is read in full before it takes the place of the last;
//! whatever goes wrong, the last good one stays for as long as the configuration allows, over a restart too (KEY-2). Nothing
//! here runs on the way of a request, and no start waits for it.

mod caching;
mod client;
mod copy;
mod fetcher;
mod introspector;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;

pub use self::introspector::Introspector;

use self::{client::Client, copy::Copy, fetcher::Fetcher};
use super::{
    keys::{Demand, LiveKeys},
    revocation::Revocations,
    settings::{IssuerSettings, KeySource, RemoteSettings},
};
use crate::telemetry::Telemetry;

/// Hears, for an issuer by its name, that its keys are good, or what is wrong with them.
pub type Report = Arc<dyn Fn(&str, Result<(), String>) + Send + Sync>;

/// The issuers whose keys are fetched. One value serves the process: a reload that does not change an issuer goes on with the
/// keys that it has.
#[derive(Clone)]
pub struct RemoteKeys {
    around: Around,
    /// While a configuration takes the place of another, those of both.
    issuers: Arc<Mutex<Vec<Known>>>,
}

/// What every fetcher has to do with.
#[derive(Clone)]
pub struct Around {
    /// Where fetches run.
    pub runtime: Handle,
    /// The folder of copies; made when there is something to keep.
    pub folder: PathBuf,
    /// Hears when a key is gone.
    pub revocations: Arc<Revocations>,
    /// Counts fetches.
    pub telemetry: Arc<Telemetry>,
    /// Hears how it stands.
    pub report: Report,
}

struct Known {
    name: Arc<str>,
    issuer: Arc<str>,
    algorithms: Vec<jsonwebtoken::Algorithm>,
    settings: Arc<RemoteSettings>,
    keys: Weak<LiveKeys>,
}

impl RemoteKeys {
    /// Nothing is fetched yet.
    #[must_use]
    pub fn new(around: Around) -> Self {
        Self {
            around,
            issuers: Arc::default(),
        }
    }

    /// Puts live keys in the place of those that must be fetched, and begins to fetch them: those of the copy on the disk at
    /// first, where there is one. They are fetched as long as somebody has them. An issuer that must be asked about its tokens
    /// can be asked from then on.
    #[must_use]
    pub fn live(&self, mut issuer: IssuerSettings) -> IssuerSettings {
        if let KeySource::Remote(settings) = &issuer.keys {
            let settings = Arc::clone(settings);
            issuer.keys = KeySource::Live(self.keys(&issuer, settings));
        } else if let KeySource::Introspection(settings) = &issuer.keys {
            let asks = Introspector::new(&issuer.name, Arc::clone(settings), self.around.clone());
            issuer.keys = KeySource::Introspected(Arc::new(asks));
        }
        issuer
    }

    /// Ends the fetches for issuers that are not among these any more, after a configuration has taken the place of another.
    /// What those were told of is told to be well: nobody is interested in it.
    pub fn settle(&self, current: &[IssuerSettings]) {
        self.issuers().retain(|known| {
            if current.iter().any(|issuer| known.is_for(issuer)) {
                return true;
            }
            if let Some(keys) = known.keys.upgrade() {
                keys.stop();
            }
            let is_remote = |issuer: &IssuerSettings| {
                issuer.name == known.name && matches!(issuer.keys, KeySource::Remote(_))
            };
            if !current.iter().any(is_remote) {
                (self.around.report)(&known.name, Ok(()));
            }
            false
        });
    }

    fn issuers(&self) -> MutexGuard<'_, Vec<Known>> {
        self.issuers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keys(&self, issuer: &IssuerSettings, settings: Arc<RemoteSettings>) -> Arc<LiveKeys> {
        let mut issuers = self.issuers();
        // Those of a configuration that came to nothing.
        issuers.retain(|known| known.keys.strong_count() > 0);
        let same = issuers.iter().find(|known| known.is_for(issuer));
        if let Some(keys) = same.and_then(|known| known.keys.upgrade()) {
            return keys;
        }
        let keys = self.start(issuer, &settings);
        let known = Known {
            name: Arc::clone(&issuer.name),
            issuer: Arc::clone(&issuer.issuer),
            algorithms: issuer.algorithms.clone(),
            settings,
            keys: Arc::downgrade(&keys),
        };
        issuers.push(known);
        keys
    }

    fn start(&self, issuer: &IssuerSettings, settings: &Arc<RemoteSettings>) -> Arc<LiveKeys> {
        let around = &self.around;
        let demand = Arc::new(Demand::new(settings.cooldown, settings.wait));
        let keys = Arc::new(LiveKeys::awaited(Arc::clone(&demand)));
        let mut fetcher = Fetcher::new(
            issuer,
            Arc::clone(settings),
            Client::new(&settings.fetch),
            Copy::new(&around.folder, issuer, settings),
            around.clone(),
        );
        fetcher.begin_with_copy(&keys);
        let task = fetcher.run(Arc::downgrade(&keys), demand);
        keys.own(AbortOnDropHandle::new(around.runtime.spawn(task)));
        keys
    }
}

impl Known {
    fn is_for(&self, issuer: &IssuerSettings) -> bool {
        let KeySource::Remote(settings) = &issuer.keys else {
            return false;
        };
        self.name == issuer.name
            && self.issuer == issuer.issuer
            && self.algorithms == issuer.algorithms
            && self.settings == *settings
    }
}

impl fmt::Debug for RemoteKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteKeys")
            .field("folder", &self.around.folder)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Around {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Around")
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}
