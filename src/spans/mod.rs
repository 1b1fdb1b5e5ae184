//! Sends the spans of traced requests to an OpenTelemetry collector, by OTLP over HTTP.
//!
//! No request waits for anything here: it leaves its spans in a bounded queue (`telemetry`), and one task of the control runtime takes
//! them out in batches. A collector that is slow, gone or refuses costs spans, which are counted, and nothing else.
//!
//! The exporter is our own, for it needs one message of the protocol: OpenTelemetry's crates would be sixteen more.

mod collector;
mod encode;
pub mod settings;
#[cfg(test)]
mod tests;

use std::{fmt, future::pending, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    runtime::Handle,
    sync::mpsc::Receiver,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    collector::{Collector, Taken},
    encode::Resource,
    settings::TracingSettings,
};
use crate::{
    jitter,
    telemetry::{SpanMetrics, SpanResult, Telemetry, Traced, Tracer},
    upstream::TlsFault,
};

/// The most requests in one export: about a megabyte.
const BATCH: usize = 512;
/// How often one export is tried.
const ATTEMPTS: u32 = 5;
/// The wait after the first attempt; it doubles with each.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// How long [`Exporters::flush`] waits.
const FLUSH: Duration = Duration::from_secs(5);

/// What keeps the spans of these settings from being exported before anything is sent; for a check of the configuration.
///
/// # Errors
/// What keeps TLS to the collector from being set up.
pub fn try_tls(settings: &TracingSettings) -> Result<(), TlsFault> {
    Collector::new(settings).map(|_| ())
}

/// Tells whether the collector takes spans, or why not.
pub type Report = Arc<dyn Fn(Result<(), String>) + Send + Sync>;

/// Where exporters run: made once for the process, for configurations come and go.
#[derive(Clone)]
pub struct Exporters {
    runtime: Handle,
    telemetry: Arc<Telemetry>,
    report: Report,
    leave: CancellationToken,
    tasks: TaskTracker,
}

/// The task that takes spans out of one queue.
struct Exporter {
    collector: Collector,
    resource: Resource,
    queue: Receiver<Box<Traced>>,
    interval: Duration,
    metrics: SpanMetrics,
    report: Report,
    leave: CancellationToken,
    is_well: bool,
}

impl Exporters {
    /// Exporters of this runtime. What is known of their collector is told to `report`.
    #[must_use]
    pub fn new(runtime: Handle, telemetry: Arc<Telemetry>, report: Report) -> Self {
        Self {
            runtime,
            telemetry,
            report,
            leave: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }
    }

    /// Begins to export what the tracer traces, until it is dropped. Nothing is connected before there is a span.
    ///
    /// # Errors
    /// What keeps TLS to the collector from being set up.
    pub fn start(&self, settings: &TracingSettings) -> Result<Tracer, TlsFault> {
        let collector = Collector::new(settings)?;
        let metrics = self.telemetry.spans();
        let (tracer, queue) = Tracer::new(settings.thousandths, settings.queue, metrics.clone());
        let exporter = Exporter {
            collector,
            resource: Resource::new(settings),
            queue,
            interval: settings.interval,
            metrics,
            report: Arc::clone(&self.report),
            leave: self.leave.clone(),
            is_well: true,
        };
        self.tasks.spawn_on(exporter.run(), &self.runtime);
        Ok(tracer)
    }

    /// Has everything sent that waits, and takes nothing more. Waits five seconds at most: what the collector has not taken by then
    /// is lost.
    pub async fn flush(&self) {
        self.leave.cancel();
        self.tasks.close();
        let _ = timeout(FLUSH, self.tasks.wait()).await;
    }
}

impl Exporter {
    async fn run(mut self) {
        loop {
            let batch = self.gather().await;
            if batch.is_empty() {
                break;
            }
            let spans = batch.iter().map(|traced| traced.spans()).sum();
            let body = Bytes::from(self.resource.export(&batch));
            drop(batch);
            let is_gone = self.export(body, spans).await;
            if is_gone && self.is_leaving() {
                self.give_up();
                break;
            }
        }
        // A successor says what it finds.
        if !self.is_well {
            (self.report)(Ok(()));
        }
    }

    /// Waits for spans and takes those that come within the interval; none, when no more will come.
    async fn gather(&mut self) -> Vec<Box<Traced>> {
        let mut batch = Vec::new();
        let mut until = None;
        while batch.len() < BATCH {
            let is_leaving = self.leave.is_cancelled();
            if is_leaving {
                self.queue.close();
            }
            let enough = async move {
                match until {
                    Some(until) => sleep_until(until).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                biased;
                next = self.queue.recv() => match next {
                    Some(traced) => {
                        until.get_or_insert_with(|| Instant::now() + self.interval);
                        batch.push(traced);
                    }
                    None => break,
                },
                () = enough => break,
                () = self.leave.cancelled(), if !is_leaving => {}
            }
        }
        batch
    }

    /// Whether no more will come than what waits: the gateway leaves, or another configuration has taken the place of this one's.
    fn is_leaving(&self) -> bool {
        self.leave.is_cancelled() || self.queue.is_closed()
    }

    /// Counts what waits as lost: a collector that is gone would be waited for once more for each export.
    fn give_up(&mut self) {
        self.queue.close();
        while let Ok(traced) = self.queue.try_recv() {
            self.metrics.count(SpanResult::Failed, traced.spans());
        }
    }

    /// Sends one export, again where that may do, and counts what becomes of its spans. Whether the collector is gone.
    async fn export(&mut self, body: Bytes, spans: u64) -> bool {
        let mut wait = FIRST_WAIT;
        let mut is_gone = false;
        for attempt in 1..=ATTEMPTS {
            let fault = match self.collector.send(body.clone()).await {
                Ok(taken) => {
                    self.took(&taken, spans);
                    return false;
                }
                Err(fault) => fault,
            };
            self.tell(Err(fault.what));
            is_gone = fault.again.is_some();
            let Some(asked) = fault.again else {
                break;
            };
            if attempt == ATTEMPTS || self.is_leaving() {
                break;
            }
            tokio::select! {
                () = sleep(asked.unwrap_or_default().max(jitter::half_to_all(wait))) => {}
                // Once more, at once.
                () = self.leave.cancelled() => {}
            }
            wait = wait.saturating_mul(2);
        }
        self.metrics.count(SpanResult::Failed, spans);
        is_gone
    }

    fn took(&mut self, taken: &Taken, spans: u64) {
        let rejected = taken.rejected.min(spans);
        self.metrics.count(SpanResult::Exported, spans - rejected);
        self.metrics.count(SpanResult::Failed, rejected);
        self.tell(match rejected {
            0 => Ok(()),
            _ => Err(format!("refuses spans: {}", taken.words)),
        });
    }

    /// Tells what the collector does; the log, when that changes.
    fn tell(&mut self, condition: Result<(), String>) {
        let was_well = std::mem::replace(&mut self.is_well, condition.is_ok());
        match (&condition, was_well) {
            (Err(what), true) => tracing::warn!(
                collector = what,
                "spans are not exported; requests go on (tracing.endpoint)"
            ),
            (Ok(()), false) => tracing::info!("spans are exported again"),
            (Ok(()), true) | (Err(_), false) => {}
        }
        if !(was_well && self.is_well) {
            (self.report)(condition);
        }
    }
}

impl fmt::Debug for Exporters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exporters")
            .field("running", &self.tasks.len())
            .finish_non_exhaustive()
    }
}
