//! The one owner of the running configuration: it alone puts another in its place, whole or not at all (CFG-2).
//!
//! It reads the file again when it is asked to (`POST /reload`, SIGHUP) and when the file, or one that it names, has changed
//! and looks the same twice in a row. Everything is read, checked and made first; then it is swapped, and nothing that can
//! fail comes after. One reload runs at a time, and answers all who have asked by then. What is under way goes on with the
//! configuration that it began with.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use tokio::{
    runtime::Handle,
    signal::unix::Signal,
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};

use super::service;
use crate::{
    admin::{
        LastReload, Readiness,
        reload::{Asked, Diagnostic, Outcome, Waiting},
    },
    config::{
        Change, Config, Loaded, Problem, Report, Severity, Source, Written,
        assemble::{Lasting, Running, succeed},
        restart,
    },
    gateway::Gateway,
    server::{
        LiveSettings,
        tls::{Tls, files::Stamp},
    },
    telemetry::{reopen_audit_file, set_level},
};

/// Between two looks at the files: what a look costs is one `stat` call for each.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// The most lines that an event holds of differences or problems: a configuration may have thousands.
const LINES_MAX: usize = 40;
/// What the readiness document calls a configuration on the disk that is not the one that runs.
const CONDITION: &str = "configuration";

/// What runs, and all that has to be changed for another configuration to run in its place.
#[derive(Debug)]
pub(super) struct Owner {
    source: Source,
    config: Arc<Config>,
    written: Written,
    watched: Watched,
    lasting: Lasting,
    gateway: Arc<ArcSwap<Gateway>>,
    tls: Arc<Tls>,
    live: LiveSettings,
    readiness: Arc<Readiness>,
    control: Handle,
    /// Those that ran before, until the last request that began with one has ended: so that no worker has to take one apart.
    retired: Vec<Arc<Gateway>>,
}

/// What an owner needs of the node.
#[derive(Debug, Clone, Copy)]
pub(super) struct Around<'n> {
    pub(super) tls: &'n Arc<Tls>,
    pub(super) live: &'n LiveSettings,
    pub(super) readiness: &'n Arc<Readiness>,
    pub(super) control: &'n Handle,
}

/// The files of a configuration, and what they looked like when they were last read.
#[derive(Debug)]
struct Watched {
    read: Vec<(PathBuf, Stamp)>,
    /// What they looked like last time, where that is something else.
    seen: Option<Vec<Stamp>>,
}

impl Watched {
    fn new(read: Vec<(PathBuf, Stamp)>) -> Self {
        Self { read, seen: None }
    }

    /// Looks at the files; whether they have changed, and whoever writes them seems to be done.
    fn look(&mut self) -> bool {
        let now = self.read.iter().map(|(path, _)| Stamp::of(&[path]));
        let now: Vec<Stamp> = now.collect();
        if now.iter().eq(self.read.iter().map(|(_, stamp)| stamp)) {
            self.seen = None;
            return false;
        }
        let settled = self.seen.as_ref() == Some(&now);
        self.seen = Some(now);
        settled
    }
}

impl Owner {
    /// The owner of what was started with.
    pub(super) fn new(
        loaded: Loaded,
        lasting: &Lasting,
        gateway: &Arc<ArcSwap<Gateway>>,
        around: Around<'_>,
    ) -> Self {
        Self {
            source: loaded.source,
            config: Arc::new(loaded.config),
            written: loaded.written,
            watched: Watched::new(loaded.files),
            lasting: lasting.clone(),
            gateway: Arc::clone(gateway),
            tls: Arc::clone(around.tls),
            live: around.live.clone(),
            readiness: Arc::clone(around.readiness),
            control: around.control.clone(),
            retired: Vec::new(),
        }
    }

    /// Loads the configuration anew whenever somebody asks or its files change, until it is dropped. To be run on the control
    /// runtime.
    pub(super) async fn run(mut self, mut asked: Asked, mut hangup: Signal) {
        let mut looks = interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let mut waiting = Waiting::default();
            let cause = tokio::select! {
                others = asked.next() => {
                    waiting = others;
                    Some("request")
                }
                Some(()) = hangup.recv() => {
                    reopen_audit_file();
                    Some("signal")
                }
                _ = looks.tick() => None,
            };
            let ended = spawn_blocking(move || {
                let cause = cause.or_else(|| self.look().then_some("file"));
                let outcome = cause.map(|cause| self.reload(cause));
                (self, outcome)
            });
            // Only a runtime that shuts down gives nothing back: what may panic is caught.
            let Ok((owner, outcome)) = ended.await else {
                return;
            };
            self = owner;
            if let Some(outcome) = outcome {
                waiting.tell(&Arc::new(outcome));
            }
        }
    }

    fn look(&mut self) -> bool {
        let is_over = |gateway: &mut Arc<Gateway>| Arc::strong_count(gateway) == 1;
        let over: Vec<_> = self.retired.extract_if(.., is_over).collect();
        if !over.is_empty() {
            // No request counts with those any more, and what they have counted goes with them.
            self.gateway.load().keep_counters();
        }
        drop(over);
        self.watched.look()
    }

    fn reload(&mut self, cause: &'static str) -> Outcome {
        service::reloading();
        let caught = catch_unwind(AssertUnwindSafe(|| self.attempt()));
        let outcome = caught.unwrap_or_else(|_panic| {
            self.lasting.telemetry.panicked();
            self.refused("loading it panicked, which is a fault of the gateway".to_owned())
        });
        tell(cause, &outcome);
        let result = outcome.result();
        service::reloaded(result.name());
        self.lasting.telemetry.config_reload(result);
        let condition = match result.is_success() {
            true => Ok(()),
            false => Err(format!(
                "{} is not what runs: {}",
                self.source.path().display(),
                result.name()
            )),
        };
        self.readiness.set_degraded(CONDITION, condition);
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        self.readiness.set_last_reload(LastReload {
            at: now.map_or(0, |now| now.as_secs()),
            result: result.name(),
        });
        outcome
    }

    /// Reads, checks and makes all of it, then swaps.
    fn attempt(&mut self) -> Outcome {
        let reading = self.source.read();
        self.watched = Watched::new(reading.files);
        let checked = match reading.outcome {
            Ok(checked) => checked,
            Err(report) => {
                let problems = self.diagnostics(&report, Severity::Error);
                return Outcome::Refused { problems };
            }
        };
        let warnings = self.diagnostics(&checked.warnings, Severity::Warning);
        let changes = self.written.outline();
        let changes = changes.changes_to(&reading.written.outline());
        if changes.is_empty() {
            return Outcome::Unchanged { warnings };
        }
        let keys = restart::needed(&self.config, &checked.config, &changes);
        if !keys.is_empty() {
            return Outcome::RestartRequired { keys };
        }
        if let Err(error) = self.replace(checked.config) {
            return self.refused(format!("{error:#}"));
        }
        self.written = reading.written;
        Outcome::Taken {
            changes: changes.iter().map(Change::to_string).collect(),
            warnings,
        }
    }

    /// Puts another configuration in the place of the one that runs.
    fn replace(&mut self, config: Config) -> anyhow::Result<()> {
        let before = self.gateway.load_full();
        let tls = self.tls.prepare(&config.tls)?;
        let running = Running {
            config: &self.config,
            gateway: &before,
        };
        let gateway = Arc::new(succeed(&config, &self.lasting, Some(running))?);
        // From here on nothing can fail. The two that could be seen apart follow each other at once: a connection that was made
        // under another rule about client certificates than its host has is told so (421), whichever comes first.
        tls.install();
        self.gateway.store(Arc::clone(&gateway));
        self.live.set(config.server.clone());
        set_level(config.log.level);
        for upstream in &gateway.upstreams {
            upstream.start_checks(&self.control);
        }
        for upstream in &before.upstreams {
            let goes_on = |other: &Arc<_>| Arc::ptr_eq(upstream, other);
            if !gateway.upstreams.iter().any(goes_on) {
                upstream.retire();
            }
        }
        self.lasting.remote.settle(&config.issuers);
        self.config = Arc::new(config);
        self.retired.push(before);
        Ok(())
    }

    fn diagnostics(&self, report: &Report, severity: Severity) -> Vec<Diagnostic> {
        let of_kind = |problem: &&Problem| problem.severity == severity;
        let problems = report.problems().iter().filter(of_kind);
        let diagnostic = |problem: &Problem| Diagnostic {
            key: problem.key.clone(),
            message: problem.message.clone(),
            hint: problem.hint.clone(),
            file: match &problem.variable {
                Some(variable) => format!("environment variable {variable}"),
                None => self.source.path().display().to_string(),
            },
            line: problem.line,
            column: problem.column,
        };
        problems.map(diagnostic).collect()
    }

    fn refused(&self, message: String) -> Outcome {
        let problem = Diagnostic {
            key: String::new(),
            message,
            hint: None,
            file: self.source.path().display().to_string(),
            line: 0,
            column: 0,
        };
        Outcome::Refused {
            problems: vec![problem],
        }
    }
}

/// One event for each reload; nothing in it is a value of the configuration but names and what `check` would print.
fn tell(cause: &'static str, outcome: &Outcome) {
    match outcome {
        Outcome::Refused { problems } => {
            let problems = some(problems.iter().map(line));
            tracing::error!(
                target: "audit",
                event = "config_refused",
                cause,
                problems,
                "configuration not reloaded: the one that runs stays"
            );
        }
        Outcome::RestartRequired { keys } => {
            let keys = keys.join(", ");
            tracing::error!(
                target: "audit",
                event = "config_refused",
                cause,
                keys,
                "configuration not reloaded: these keys need a restart; nothing was changed"
            );
        }
        Outcome::Taken { changes, warnings } => {
            let changes = some(changes.iter().cloned());
            tracing::info!(
                target: "audit",
                event = "config_reloaded",
                cause,
                changes,
                warnings = warnings.len(),
                "configuration reloaded"
            );
        }
        Outcome::Unchanged { .. } => tracing::info!(cause, "configuration unchanged"),
    }
}

fn line(problem: &Diagnostic) -> String {
    let Diagnostic {
        key,
        message,
        file,
        line,
        column,
        ..
    } = problem;
    let place = match line {
        0 => file.clone(),
        _ => format!("{file}:{line}:{column}"),
    };
    match key.is_empty() {
        true => format!("{place}: {message}"),
        false => format!("{place}: {key}: {message}"),
    }
}

/// The first of them, and how many more there are.
fn some(mut lines: impl ExactSizeIterator<Item = String>) -> String {
    let more = lines.len().saturating_sub(LINES_MAX);
    let shown: Vec<String> = lines.by_ref().take(LINES_MAX).collect();
    let shown = shown.join("; ");
    match more {
        0 => shown,
        _ => format!("{shown}; and {more} more"),
    }
}
