//! What several nodes share through Redis: exact limits of the account routes, those of clients and routes, and word of
//! revocations.
//!
//! No proxied request waits for anything here: what its limits have let through is settled afterwards, in the background. Redis is never needed: without it each node counts alone, and stricter, and looks
//! for revocations in the store as it does anyway (RATE-5). It holds no name and no secret, and nothing that it says lets
//! anybody in; whoever can write to it can lift the limits or use them up, and no more.
//!
//! The client is our own, for it needs four commands, and must not take an answer of any size.

mod attempts;
mod clients;
mod connection;
mod limit;
mod link;
mod news;
mod pause;
mod resp;
pub mod settings;
mod share;
#[cfg(test)]
pub(crate) mod tests;

use std::{fmt, sync::Arc, time::Duration};

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use tokio::{runtime::Handle, sync::Notify};
use tokio_util::task::AbortOnDropHandle;

pub use self::{
    attempts::{Attempt, AttemptLimiter},
    clients::ClientLimiter,
    limit::SharedLimiter,
};
use self::{
    connection::Target,
    link::{Command, Link},
    news::Channels,
    resp::Reply,
    settings::ClusterSettings,
    share::Settler,
};
use crate::{
    limit::{Share, settings::Quota},
    policy::rejection::Exceeded,
    telemetry::Telemetry,
    upstream::TlsFault,
};

/// How long Redis may take to decide about a request (RATE-5).
const BUDGET: Duration = Duration::from_millis(50);

/// Tells whether Redis can be used, or why not.
pub type Report = Arc<dyn Fn(Result<(), String>) + Send + Sync>;

/// The other nodes, as far as they can be reached. Dropped, its connections end.
pub struct Cluster {
    link: Arc<Link>,
    keys: hmac::Key,
    channel: Vec<u8>,
    heard: Arc<Notify>,
    share: Share,
    telemetry: Arc<Telemetry>,
    _tasks: [AbortOnDropHandle<()>; 3],
}

/// A budget that is asked for.
struct Asked<'a> {
    /// Its limit's name.
    limit: &'static str,
    key: &'a str,
    quota: Quota,
    /// Whether it is one of tries in a row, of which there is none for the window when it is used up.
    in_a_row: bool,
}

/// What Redis decided.
enum Verdict {
    /// A request was taken from each.
    Taken,
    /// None was taken from any.
    Refused {
        /// The one of those asked for, counted from 0, that makes wait the longest.
        place: usize,
        exceeded: Exceeded,
    },
}

impl Cluster {
    /// Begins to connect, and does not wait for it: a server that is down keeps nothing from starting (FAULT-5).
    ///
    /// # Errors
    /// Where TLS cannot be set up.
    pub fn start(
        settings: &ClusterSettings,
        runtime: &Handle,
        telemetry: Arc<Telemetry>,
        report: Report,
    ) -> Result<Arc<Self>, TlsFault> {
        Self::within(BUDGET, settings, runtime, (telemetry, report))
    }

    fn within(
        budget: Duration,
        settings: &ClusterSettings,
        runtime: &Handle,
        (telemetry, report): (Arc<Telemetry>, Report),
    ) -> Result<Arc<Self>, TlsFault> {
        let target = Arc::new(Target::new(settings)?);
        let keys = keys(settings);
        let [channel, nodes] = ["revoked", "nodes"].map(|what| name(&keys, &[what]));
        let heard = Arc::new(Notify::new());
        report(Err("not connected yet".to_owned()));
        telemetry.cluster_up(false);
        let (link, task) = Link::new(Arc::clone(&target), Arc::clone(&telemetry), report, budget);
        let link = Arc::new(link);
        let channels = Channels {
            revoked: channel.clone(),
            nodes: nodes.clone(),
        };
        let news = news::listen(target, channels, Arc::clone(&heard), Arc::clone(&telemetry));
        let (share, settlements) = Share::new();
        let settler = Settler {
            link: Arc::clone(&link),
            keys: keys.clone(),
            channel: nodes,
            settlements,
            telemetry: Arc::clone(&telemetry),
        };
        let tasks = [
            runtime.spawn(task.run()),
            runtime.spawn(news),
            runtime.spawn(settler.run()),
        ];
        Ok(Arc::new(Self {
            link,
            keys,
            channel,
            heard,
            share,
            telemetry,
            _tasks: tasks.map(AbortOnDropHandle::new),
        }))
    }

    /// The way of limits to the other nodes.
    #[must_use]
    pub fn share(&self) -> &Share {
        &self.share
    }

    /// Tells the other nodes that something was revoked, after it was written to the store. Does not wait; what is lost is
    /// found by their next look at the store.
    pub fn revoked(&self) {
        self.link.tell(Command::Publish(self.channel.clone()));
    }

    /// Waits for word that another node, or this one, revoked something. For one waiter.
    pub async fn heard(&self) {
        self.heard.notified().await;
    }

    /// Takes a request from each of these budgets, which all nodes share, or from none; `None` where Redis does not say.
    async fn take(&self, asked: &[Asked<'_>]) -> Option<Verdict> {
        let names = asked
            .iter()
            .map(|asked| name(&self.keys, &["limit", asked.limit, asked.key]));
        let numbers = asked.iter().flat_map(|asked| {
            let (interval, burst) = terms(asked.quota);
            [interval, burst, u64::from(asked.in_a_row)]
                .map(|number| number.to_string().into_bytes())
        });
        let take = Command::Take {
            keys: asked.len(),
            arguments: names.chain(numbers).collect(),
        };
        let verdict = self.link.ask(take).await;
        let verdict = verdict.and_then(|reply| verdict_of(&reply, asked));
        if verdict.is_none() {
            self.telemetry.cluster_fallback();
        }
        verdict
    }

    /// Empties what was counted of tries in a row. Does not wait; what is lost is made good by the next one that goes well.
    fn forget(&self, limit: &str, key: &str) {
        let key = name(&self.keys, &["limit", limit, key]);
        self.link.tell(Command::Forget(key));
    }
}

/// Reads the script's answer; `None` for what is none.
fn verdict_of(reply: &Reply, asked: &[Asked<'_>]) -> Option<Verdict> {
    let parts = match reply {
        Reply::Integer(0) => return Some(Verdict::Taken),
        Reply::Parts(parts) => parts.as_slice(),
        Reply::Bytes(_) | Reply::Error(_) | Reply::Integer(_) => return None,
    };
    let [Reply::Integer(place), Reply::Integer(wait)] = parts else {
        return None;
    };
    let place = usize::try_from(*place).ok()?.checked_sub(1)?;
    let Asked { limit, quota, .. } = asked.get(place)?;
    Some(Verdict::Refused {
        place,
        exceeded: Exceeded {
            limit,
            retry_after: Duration::from_micros(u64::try_from(*wait).ok()?),
            quota: quota.count,
            window: quota.window,
        },
    })
}

/// The secret of the digests: the password, which all nodes have, for this site.
fn keys(settings: &ClusterSettings) -> hmac::Key {
    let password = settings.login.as_ref();
    let password = password.map_or(b"".as_slice(), |(_, password)| password.as_bytes());
    let secret = hmac::sign(
        &hmac::Key::new(hmac::HMAC_SHA256, password),
        &joined(&["portcullis cluster", &settings.site]),
    );
    hmac::Key::new(hmac::HMAC_SHA256, secret.as_ref())
}

/// The name of something in Redis: a keyed digest, so that it tells nobody whom it is about (STORE-4, CACHE-8).
fn name(keys: &hmac::Key, parts: &[&str]) -> Vec<u8> {
    let digest = hmac::sign(keys, &joined(parts));
    let digest = digest.as_ref().get(..18).unwrap_or_default();
    format!("portcullis:{}", URL_SAFE_NO_PAD.encode(digest)).into_bytes()
}

/// Parts in one piece that no other parts give.
fn joined(parts: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in parts {
        bytes.extend_from_slice(part.len().to_string().as_bytes());
        bytes.push(b':');
        bytes.extend_from_slice(part.as_bytes());
    }
    bytes
}

/// A quota for the script: the microseconds of one request, and the requests at once. Lua's numbers are exact up to 2^53; the
/// time of a whole budget stays a tenth of what is left of that.
fn terms(quota: Quota) -> (u64, u64) {
    const WHOLE_MAX: u64 = 1 << 49;
    let window = u64::try_from(quota.window.as_micros()).unwrap_or(WHOLE_MAX);
    let interval = (window.min(WHOLE_MAX) / u64::from(quota.count.max(1))).max(1);
    let burst = u64::from(quota.burst.max(1)).min((WHOLE_MAX / interval).max(1));
    (interval, burst)
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("up", &self.link.is_up())
            .finish_non_exhaustive()
    }
}
