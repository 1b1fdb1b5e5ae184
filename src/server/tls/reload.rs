//! New certificates in the place of old ones while connections go on (NET-9).
//!
//! Files are looked at every second. A pair is taken when it looks the same twice in a row, parses, goes together, and is no
//! worse than the one in use; otherwise the one in use stays, and the fault is told once. It is tried again at every look, so
//! a pair that is not valid yet is taken when its time comes.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};

use super::{Anchors, Pair, Tls, fault::TlsFault, files::Stamp, label};
use crate::{
    server::settings::CertificateFiles,
    telemetry::{CertificateReload, Telemetry},
};

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
    /// Whose they are.
    files: Vec<CertificateFiles>,
    pairs: Vec<Watched>,
    anchors: Vec<Watched>,
    warned: Option<SystemTime>,
}

/// What one look has brought.
#[derive(Debug, Default)]
struct News {
    changed: bool,
    refused: usize,
    taken: Vec<PathBuf>,
}

/// What is read from files.
trait Material {
    /// The file that it is told by.
    fn path(&self) -> &Path;
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
        Self {
            files: Vec::new(),
            pairs: Vec::new(),
            anchors: Vec::new(),
            tls,
            telemetry,
            warned: None,
        }
    }

    /// Looks at every file, and takes what is new and good.
    pub(super) fn look(&mut self, now: SystemTime) {
        let tls = Arc::clone(&self.tls);
        let _successor = tls.begin_successor();
        let (mut pairs, mut anchors) = (tls.pairs(), tls.anchors());
        self.follow(&pairs, &anchors);
        let mut news = News::default();
        for (watched, pair) in self.pairs.iter_mut().zip(&mut pairs) {
            let looked = watched.look(&pair.stamp, Pair::stamp_of(&pair.files), || pair.renew(now));
            news.take(watched, looked, pair, Pair::is_same_as);
        }
        for (watched, anchors) in self.anchors.iter_mut().zip(&mut anchors) {
            let Some(anchors) = anchors else { continue };
            let stamp = Stamp::of(&[&anchors.path]);
            let looked = watched.look(&anchors.stamp, stamp, || Anchors::load(&anchors.path));
            news.take(watched, looked, anchors, Anchors::is_same_as);
        }
        for _ in 0..news.refused {
            let refused = CertificateReload::Refused;
            self.telemetry.certificate_reload(refused);
        }
        if news.changed
            && let Err(fault) = self.tls.install(pairs.clone(), anchors)
        {
            tracing::error!(error = whole(&fault), "certificates not reloaded");
            return;
        }
        // Told when it is true.
        for file in news.taken {
            self.telemetry.certificate_reload(CertificateReload::Taken);
            tracing::info!(file = %file.display(), "certificate reloaded");
        }
        self.warn_of_ends(&pairs, now);
    }

    /// Begins anew where another configuration names other files.
    fn follow(&mut self, pairs: &[Arc<Pair>], anchors: &[Option<Arc<Anchors>>]) {
        let files = pairs.iter().map(|pair| pair.files.clone());
        let files: Vec<CertificateFiles> = files.collect();
        if self.files != files {
            let watched = |count| std::iter::repeat_with(Watched::default).take(count);
            self.pairs = watched(pairs.len()).collect();
            self.anchors = watched(anchors.len()).collect();
            self.files = files;
        }
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

impl News {
    /// Puts what is new in the place of what is in use.
    fn take<M: Material>(
        &mut self,
        watched: &mut Watched,
        looked: Option<Result<M, TlsFault>>,
        current: &mut Arc<M>,
        is_same: impl Fn(&M, &M) -> bool,
    ) {
        match looked {
            None => {}
            Some(Ok(new)) => {
                self.changed = true;
                if !is_same(&new, current) {
                    self.taken.push(new.path().to_owned());
                }
                *current = Arc::new(new);
            }
            Some(Err(fault)) if watched.complain(&fault) => self.refused += 1,
            Some(Err(_told_before)) => {}
        }
    }
}

impl Material for Pair {
    fn path(&self) -> &Path {
        &self.files.cert
    }
}

impl Material for Anchors {
    fn path(&self) -> &Path {
        &self.path
    }
}

impl Watched {
    /// What is new, or why it is not taken; `None` where nothing has changed, or not for good yet.
    fn look<M>(
        &mut self,
        used: &Stamp,
        stamp: Stamp,
        load: impl FnOnce() -> Result<M, TlsFault>,
    ) -> Option<Result<M, TlsFault>> {
        if stamp == *used {
            *self = Self::default();
            return None;
        }
        if self.seen.as_ref() != Some(&stamp) {
            // Whoever writes them may not be done.
            self.seen = Some(stamp);
            self.complaint = None;
            return None;
        }
        Some(load())
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
