//! The life of one issuer's keys: fetch, keep, wait, and again.

use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, Weak},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderMap, Request, StatusCode, Uri, header};
use http_body_util::Full;
use jsonwebtoken::Algorithm;
use serde::Deserialize;
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    Around, caching,
    client::{Client, Exchange, ExchangeFault},
    copy::Copy,
};
use crate::{
    authn::{
        keys::{Demand, KeyFault, KeySet, LiveKeys},
        settings::{IssuerSettings, KeyPlace, RemoteSettings},
    },
    jitter,
};

/// Why a fetch brought no keys.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum FetchFault {
    /// The discovery document is none.
    #[error("{0}: is no discovery document with `issuer` and `jwks_uri`")]
    Document(Uri),
    /// No answer.
    #[error("{0}: {1}")]
    Exchange(Uri, ExchangeFault),
    /// The discovery document names a host for the keys that nobody allowed.
    #[error("the discovery document names {0}; if that is right, add its host to `fetch.hosts`")]
    Host(String),
    /// The discovery document is another issuer's.
    #[error("the discovery document is of the issuer `{0}`, which is not the configured one")]
    Issuer(String),
    /// The set.
    #[error("{0}: {1}")]
    Keys(Uri, KeyFault),
    /// An answer that is no success. A redirect is none: where keys come from stands in the configuration.
    #[error("{0}: the answer is {1}")]
    Status(Uri, StatusCode),
}

/// Fetches the keys of one issuer.
pub(super) struct Fetcher {
    name: Arc<str>,
    issuer: Arc<str>,
    algorithms: Vec<Algorithm>,
    settings: Arc<RemoteSettings>,
    client: Client,
    copy: Copy,
    around: Around,
    /// When the keys will be too old; `None` while there are none.
    good_until: Option<Instant>,
    failing: bool,
}

/// What a fetch brought.
struct Fetched {
    set: KeySet,
    text: Bytes,
    headers: HeaderMap,
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

impl Fetcher {
    pub(super) fn new(
        issuer: &IssuerSettings,
        settings: Arc<RemoteSettings>,
        client: Client,
        copy: Copy,
        around: Around,
    ) -> Self {
        Self {
            name: Arc::clone(&issuer.name),
            issuer: Arc::clone(&issuer.issuer),
            algorithms: issuer.algorithms.clone(),
            settings,
            client,
            copy,
            around,
            good_until: None,
            failing: false,
        }
    }

    /// Takes the keys that are on the disk, if they are not too old. Blocks for a small file.
    pub(super) fn begin_with_copy(&mut self, keys: &LiveKeys) {
        let issuer = &*self.name;
        let kept = match self.copy.read(SystemTime::now()) {
            Ok(kept) => kept,
            Err(error) => {
                tracing::warn!(issuer, %error, "the kept copy of an issuer's keys is not used");
                None
            }
        };
        let Some((text, age)) = kept.filter(|(_, age)| *age < self.settings.max_stale) else {
            (self.around.report)(issuer, Err("its keys have not been fetched yet".into()));
            return;
        };
        match KeySet::of_published(&text, &self.algorithms) {
            Ok(set) => {
                tracing::info!(issuer, age = ?age, "began with the kept copy of an issuer's keys");
                self.good_until = Instant::now().checked_add(self.settings.max_stale - age);
                keys.replace(set.aged(age), &self.around.revocations);
                (self.around.report)(issuer, Ok(()));
            }
            // The algorithms may be others than when it was kept.
            Err(fault) => {
                tracing::warn!(issuer, %fault, "the kept copy of an issuer's keys is not used")
            }
        }
    }

    /// Fetches until nobody has these keys any more.
    pub(super) async fn run(mut self, keys: Weak<LiveKeys>, demand: Arc<Demand>) {
        loop {
            let outcome = AssertUnwindSafe(self.fetch()).catch_unwind().await;
            let Some(live) = keys.upgrade() else {
                return;
            };
            let pause = match outcome {
                Ok(Ok(fetched)) => self.succeed(&live, fetched),
                Ok(Err(fault)) => self.fail(&live, result(&fault), &fault.to_string()),
                Err(_panic) => {
                    self.around.telemetry.panicked();
                    self.fail(&live, "internal", "reading the keys panicked")
                }
            };
            drop(live);
            demand.finish();
            self.rest(pause, &keys, &demand).await;
            demand.claim();
        }
    }

    /// Waits for the next fetch, and takes the keys away when they become too old meanwhile.
    async fn rest(&mut self, pause: Duration, keys: &Weak<LiveKeys>, demand: &Demand) {
        let pause = sleep(pause);
        tokio::pin!(pause);
        loop {
            let stale = async {
                match self.good_until {
                    Some(time) => sleep_until(time).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = &mut pause => return,
                () = demand.asked() => return,
                () = stale => {}
            }
            if let Some(live) = keys.upgrade() {
                self.withdraw_stale(&live);
            }
        }
    }

    fn succeed(&mut self, keys: &LiveKeys, fetched: Fetched) -> Duration {
        let issuer = &*self.name;
        let pause = jitter::tenth_less(caching::refresh_after(&fetched.headers, &self.settings));
        let (usable, skipped) = (fetched.set.count(), fetched.set.skipped);
        keys.replace(fetched.set, &self.around.revocations);
        self.good_until = Instant::now().checked_add(self.settings.max_stale);
        self.around.telemetry.jwks_fetched(issuer, "ok");
        (self.around.report)(issuer, Ok(()));
        if self.failing {
            tracing::info!(
                issuer,
                usable,
                skipped,
                "an issuer's keys are fetched again"
            );
        } else {
            tracing::debug!(issuer, usable, skipped, next = ?pause, "fetched an issuer's keys");
        }
        self.failing = false;
        self.keep(fetched.text);
        pause
    }

    fn fail(&mut self, keys: &LiveKeys, result: &'static str, fault: &str) -> Duration {
        let issuer = &*self.name;
        self.around.telemetry.jwks_fetched(issuer, result);
        let age = keys.status().map(|status| status.age);
        // One line when it begins, not one for each attempt.
        if self.failing {
            tracing::debug!(
                issuer,
                result,
                fault,
                "an issuer's keys still cannot be fetched"
            );
        } else {
            tracing::warn!(issuer, result, fault, last_good = ?age, "an issuer's keys cannot be fetched");
        }
        self.failing = true;
        (self.around.report)(issuer, Err(fault.to_owned()));
        self.withdraw_stale(keys);
        // Later rather than earlier: the cooldown holds for every fetch.
        jitter::tenth_more(self.settings.cooldown)
    }

    fn withdraw_stale(&mut self, keys: &LiveKeys) {
        if self.good_until.is_some_and(|time| time <= Instant::now()) {
            self.good_until = None;
            keys.withdraw(&self.around.revocations);
            tracing::error!(
                issuer = &*self.name,
                "an issuer's keys are too old; its tokens are refused until they can be fetched"
            );
        }
    }

    /// Writes the copy without waiting for the disk.
    fn keep(&self, text: Bytes) {
        let (copy, name) = (self.copy.clone(), Arc::clone(&self.name));
        self.around.runtime.spawn_blocking(move || {
            let kept = std::str::from_utf8(&text)
                .map_err(std::io::Error::other)
                .and_then(|text| copy.write(text, SystemTime::now()));
            if let Err(error) = kept {
                tracing::warn!(issuer = &*name, %error, "an issuer's keys cannot be kept for the next start");
            }
        });
    }

    async fn fetch(&self) -> Result<Fetched, FetchFault> {
        let uri = match &self.settings.place {
            KeyPlace::Jwks(uri) => uri.clone(),
            KeyPlace::Discovery(uri) => self.discover(uri).await?,
        };
        let answer = self.get(&uri).await?;
        let set = KeySet::of_published(&answer.body, &self.algorithms)
            .map_err(|fault| FetchFault::Keys(uri, fault))?;
        Ok(Fetched {
            set,
            text: answer.body,
            headers: answer.headers,
        })
    }

    /// Asks the issuer where its keys are. The answer must be about this issuer (OpenID Connect Discovery 1.0 §4.3), or
    /// whoever can write to one of a provider's tenants could name keys for another.
    async fn discover(&self, document: &Uri) -> Result<Uri, FetchFault> {
        let answer = self.get(document).await?;
        let found: Discovery = serde_json::from_slice(&answer.body)
            .map_err(|_| FetchFault::Document(document.clone()))?;
        if found.issuer != *self.issuer {
            return Err(FetchFault::Issuer(found.issuer.chars().take(200).collect()));
        }
        let named = || FetchFault::Host(found.jwks_uri.chars().take(200).collect());
        let uri: Uri = found.jwks_uri.parse().map_err(|_| named())?;
        let own = uri.host() == document.host();
        let host = uri.host().ok_or_else(named)?;
        let listed = self.settings.hosts.iter().any(|listed| **listed == *host);
        // An issuer that the configuration names without TLS, on this machine, may have its keys there too.
        let scheme =
            uri.scheme_str() == Some("https") || (own && uri.scheme() == document.scheme());
        if scheme && (own || listed) {
            Ok(uri)
        } else {
            Err(named())
        }
    }

    async fn get(&self, uri: &Uri) -> Result<Exchange, FetchFault> {
        let request = Request::get(uri)
            .header(header::ACCEPT, "application/json, application/jwk-set+json")
            .header(
                header::USER_AGENT,
                concat!("portcullis/", env!("CARGO_PKG_VERSION")),
            )
            .body(Full::default());
        let cannot = |fault| FetchFault::Exchange(uri.clone(), fault);
        let request = request.map_err(|_| cannot(ExchangeFault::Internal("no request")))?;
        let answer = self.client.exchange(request).await.map_err(cannot)?;
        if answer.status == StatusCode::OK {
            Ok(answer)
        } else {
            Err(FetchFault::Status(uri.clone(), answer.status))
        }
    }
}

/// The label of a failure: a closed set.
fn result(fault: &FetchFault) -> &'static str {
    match fault {
        FetchFault::Document(_) | FetchFault::Issuer(_) | FetchFault::Host(_) => "discovery",
        FetchFault::Exchange(_, fault) => fault.name(),
        FetchFault::Keys(..) => "keys",
        FetchFault::Status(..) => "status",
    }
}
