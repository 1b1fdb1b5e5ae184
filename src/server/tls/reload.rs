//! New certificates in the place of old ones while connections go on (NET-9).
//!
//! Files are looked at every second. A pair is taken when it looks the same twice in a row, parses, goes together, and is no
//! worse than the one in use; otherwise the one in use stays, and the fault is told once. It is tried again at every look, so
//! a pair that is not valid yet is taken when its time comes.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};

use super::{Pair, Tls, fault::TlsFault, files::Stamp, label};
use crate::telemetry::{CertificateReload, Telemetry};

/// Between two looks at the files: what a look costs is two `stat` calls for each pair.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// From when before its end on a certificate is warned of.
pub const WARNED_BEFORE: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How often.
const WARNED_EVERY: Duration = Duration::from_secs(24 * 60 * 60);

/// Watches the files of the certificates for as long as it is polled. To be run on the control runtime.
pub async fn watch(tls: Arc<Tls>, telemetry: Arc<Telemetry>) {
    let new = || Watcher::new(Arc::clone(&tls), Arc::clone(&telemetry));
    let mut watcher = new();
    let mut ticks = interval(LOOK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // A disk may make it wait.
        let looked = spawn_blocking(move || {
            watcher.look(SystemTime::now());
            watcher
        });
        watcher = match looked.await {
            Ok(watcher) => watcher,
            Err(error) if error.is_panic() => {
                telemetry.panicked();
                tracing::error!("looking at the certificates panicked; it goes on");
                new()
            }
            Err(_shut_down) => return,
        };
    }
}

/// What is known of the files between two looks.
#[derive(Debug)]
pub(super) struct Watcher {
    tls: Arc<Tls>,
    telemetry: Arc<Telemetry>,
    watched: Vec<Watched>,
    warned: Option<SystemTime>,
}

#[derive(Debug, Default)]
struct Watched {
    /// What the files looked like last time, where it is not what is in use.
    seen: Option<Stamp>,
    /// What was said last of them.
    complaint: Option<String>,
}

impl Watcher {
    pub(super) fn new(tls: Arc<Tls>, telemetry: Arc<Telemetry>) -> Self {
        let watched = tls.pairs().iter().map(|_| Watched::default()).collect();
        Self {
            tls,
            telemetry,
            watched,
            warned: None,
        }
    }

    /// Looks at every file, and takes what is new and good.
    pub(super) fn look(&mut self, now: SystemTime) {
        let mut pairs = self.tls.pairs();
        let mut taken = Vec::new();
        let mut changed = false;
        for (watched, pair) in self.watched.iter_mut().zip(&mut pairs) {
            match watched.look(pair, now) {
                None => {}
                Some(Ok(new)) => {
                    let new = Arc::new(new);
                    changed = true;
                    if !new.is_same_as(pair) {
                        taken.push(Arc::clone(&new));
                    }
                    *pair = new;
                }
                Some(Err(fault)) if watched.complain(&fault) => {
                    self.telemetry
                        .certificate_reload(CertificateReload::Refused);
                }
                Some(Err(_told_before)) => {}
            }
        }
        if changed {
            self.tls.install(pairs.clone());
        }
        // Told when it is true.
        for pair in taken {
            self.telemetry.certificate_reload(CertificateReload::Taken);
            tracing::info!(cert = %pair.files.cert.display(), name = label(&pair), "certificate reloaded");
        }
        self.warn_of_ends(&pairs, now);
    }

    /// Once a day, and when the process starts.
    fn warn_of_ends(&mut self, pairs: &[Arc<Pair>], now: SystemTime) {
        let is_due = |warned: SystemTime| {
            now.duration_since(warned)
                .is_ok_and(|past| past >= WARNED_EVERY)
        };
        if !self.warned.is_none_or(is_due) {
            return;
        }
        self.warned = Some(now);
        for pair in pairs {
            let left = pair.leaf.left_at(now);
            if left < WARNED_BEFORE {
                let days = left.as_secs() / (24 * 60 * 60);
                let what = if left.is_zero() {
                    "certificate has expired"
                } else {
                    "certificate expires soon"
                };
                tracing::warn!(cert = %pair.files.cert.display(), name = label(pair), days, "{what}");
            }
        }
    }
}

impl Watched {
    /// A new pair, or why there is none; `None` where nothing has changed, or not for good yet.
    fn look(&mut self, pair: &Pair, now: SystemTime) -> Option<Result<Pair, TlsFault>> {
        let stamp = Pair::stamp_of(&pair.files);
        if stamp == pair.stamp {
            *self = Self::default();
            return None;
        }
        if self.seen.as_ref() != Some(&stamp) {
            // Whoever writes them may not be done.
            self.seen = Some(stamp);
            self.complaint = None;
            return None;
        }
        Some(pair.renew(now))
    }

    /// Tells of a fault, unless that was the last thing said of these files.
    fn complain(&mut self, fault: &TlsFault) -> bool {
        let text = whole(fault);
        if self.complaint.as_ref() == Some(&text) {
            return false;
        }
        tracing::warn!(
            error = text,
            "certificate not reloaded: the one in use stays"
        );
        self.complaint = Some(text);
        true
    }
}

/// A fault with its causes.
fn whole(fault: &TlsFault) -> String {
    let mut text = fault.to_string();
    let mut cause = std::error::Error::source(fault);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
