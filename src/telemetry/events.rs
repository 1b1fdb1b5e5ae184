//! Events other than exchanges: start, reload, faults. They go to standard error.

use std::{
    io::{self, Write},
    path::Path,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use prometheus_client::metrics::counter::Counter;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::{
    Layer, Registry,
    filter::{FilterFn, LevelFilter, Targets, filter_fn},
    fmt,
    layer::SubscriberExt,
    registry::LookupSpan,
    reload,
    util::SubscriberInitExt,
};

use super::{
    audit_file::AuditFile,
    line_queue::LineQueue,
    settings::{LogFormat, LogLevel, LogSettings},
};

/// Events that may wait to be written.
const QUEUE_EVENTS: usize = 1024;

type Queue = LineQueue<String>;

/// Where audit events go besides; empty where the settings name no file.
static AUDIT: OnceLock<Audit> = OnceLock::new();

/// The queue of the audit file, and the wish that it be opened again.
struct Audit {
    queue: Queue,
    reopen: Arc<AtomicBool>,
}

/// Where events go once [`write_behind`] was called; empty when there is no thread. Standard error is one for the process,
/// and so is this.
static QUEUE: OnceLock<Option<Queue>> = OnceLock::new();
/// How the level is changed.
static LEVEL: OnceLock<reload::Handle<Targets, Registry>> = OnceLock::new();
/// How many of the queue's dropped events were told to a [`Telemetry`](super::Telemetry).
static DROPPED_TOLD: AtomicU64 = AtomicU64::new(0);

/// Sends events to standard error from now on, one JSON object a line or text. The level comes from the settings alone.
///
/// Libraries get no more than warnings whatever the level: what they trace is not ours to vouch for (LOG-1). A second call
/// changes nothing. Where the settings name an audit file, audit events go there too, whatever the level.
///
/// # Errors
/// An audit file that cannot be opened, or for which no thread can be had.
pub fn init_events(settings: &LogSettings) -> io::Result<()> {
    if let Some(path) = &settings.audit_file {
        open_audit(path)?;
    }
    let events = tracing_subscriber::registry();
    // A write to standard error may fail; reporting that to standard error would panic.
    let layer = fmt::layer()
        .with_writer(|| EventWriter(QUEUE.get().and_then(Option::as_ref)))
        .log_internal_errors(false);
    let (filter, handle) = reload::Layer::new(filter(settings.level));
    let result = match settings.format {
        LogFormat::Json => events
            .with(layer.json().with_span_list(false).with_filter(filter))
            .with(to_audit_file(settings))
            .try_init(),
        LogFormat::Text => events
            .with(layer.with_ansi(false).with_filter(filter))
            .with(to_audit_file(settings))
            .try_init(),
    };
    // The only error is that there is a subscriber already.
    if result.is_ok() {
        let _ = LEVEL.set(handle);
    }
    Ok(())
}

/// For commands, which say for themselves what they have done: audit events go to the file that the settings name, and errors of ours,
/// which say why something failed, to standard error. [`flush_audit`] is the end.
///
/// # Errors
/// As [`init_events`].
pub fn init_audit(settings: &LogSettings) -> io::Result<()> {
    if let Some(path) = &settings.audit_file {
        open_audit(path)?;
    }
    let why = |about: &Metadata<'_>| {
        *about.level() == Level::ERROR && about.target().starts_with(env!("CARGO_CRATE_NAME"))
    };
    let errors = fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(false)
        .with_target(false)
        .without_time()
        .log_internal_errors(false)
        .with_filter(filter_fn(why).with_max_level_hint(LevelFilter::ERROR));
    // The only error is that there is a subscriber already.
    let _ = tracing_subscriber::registry()
        .with(errors)
        .with(to_audit_file(settings))
        .try_init();
    Ok(())
}

/// Waits until the audit events so far are written, two seconds at most.
pub fn flush_audit() {
    if let Some(audit) = AUDIT.get() {
        audit.queue.flush(super::FLUSH_TIMEOUT);
    }
}

/// What takes audit events to the file, where the settings name one.
fn to_audit_file<S>(settings: &LogSettings) -> Option<Box<dyn Layer<S> + Send + Sync>>
where
    S: Subscriber + for<'s> LookupSpan<'s>,
{
    settings.audit_file.as_ref()?;
    let layer = fmt::layer()
        .with_writer(|| EventWriter(AUDIT.get().map(|audit| &audit.queue)))
        .log_internal_errors(false);
    let layer = match settings.format {
        LogFormat::Json => layer.json().with_span_list(false).boxed(),
        LogFormat::Text => layer.with_ansi(false).boxed(),
    };
    Some(layer.with_filter(audit_alone()).boxed())
}

/// Audit events, and the spans that they happen in.
fn audit_alone() -> FilterFn<impl Fn(&Metadata<'_>) -> bool> {
    let wanted = |about: &Metadata<'_>| about.is_span() || about.target() == "audit";
    filter_fn(wanted).with_max_level_hint(LevelFilter::INFO)
}

/// Opens the audit file and starts its thread; where that was done already, nothing.
fn open_audit(path: &Path) -> io::Result<()> {
    if AUDIT.get().is_some() {
        return Ok(());
    }
    let reopen = Arc::new(AtomicBool::new(false));
    let sink = Box::new(AuditFile::open(path, Arc::clone(&reopen))?);
    let append = |batch: &mut String, event: String| batch.push_str(&event);
    let queue = LineQueue::start("audit-log", QUEUE_EVENTS, sink, append, Counter::default())?;
    let _ = AUDIT.set(Audit { queue, reopen });
    Ok(())
}

/// Has the audit file opened again before the next event, as whoever rotates logs asks by a signal.
pub fn reopen_audit_file() {
    if let Some(audit) = AUDIT.get() {
        audit.reopen.store(true, Ordering::Relaxed);
    }
}

/// Changes the lowest level from now on, where [`init_events`] was called.
pub fn set_level(level: LogLevel) {
    if let Some(handle) = LEVEL.get() {
        // The only error is that the subscriber has gone.
        let _ = handle.modify(|current| *current = filter(level));
    }
}

/// From now on events are written by a thread, so that no request waits for standard error (LOG-4). Before, while the
/// process starts, each is written by whoever emits it.
pub(super) fn write_behind() {
    QUEUE.get_or_init(|| {
        let append = |batch: &mut String, event: String| batch.push_str(&event);
        let sink = Box::new(io::stderr());
        LineQueue::start("events", QUEUE_EVENTS, sink, append, Counter::default()).ok()
    });
}

/// Waits until the events so far are written, or the time is over.
pub(super) fn flush(limit: Duration) {
    if let Some(audit) = AUDIT.get() {
        audit.queue.flush(limit);
    }
    if let Some(Some(queue)) = QUEUE.get() {
        queue.flush(limit);
    }
}

/// How many events were dropped since this was last asked.
pub(super) fn newly_dropped() -> u64 {
    let events = QUEUE.get().and_then(Option::as_ref);
    let audit = AUDIT.get().map(|audit| &audit.queue);
    let dropped: u64 = events.into_iter().chain(audit).map(Queue::dropped).sum();
    dropped.saturating_sub(DROPPED_TOLD.swap(dropped, Ordering::Relaxed))
}

/// Takes one event, which the subscriber writes in one piece.
struct EventWriter<'a>(Option<&'a Queue>);

impl Write for EventWriter<'_> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        match self.0 {
            Some(queue) => queue.push(String::from_utf8_lossy(event).into_owned()),
            None => io::stderr().write_all(event)?,
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn filter(level: LogLevel) -> Targets {
    let ours = match level {
        LogLevel::Debug => Level::DEBUG,
        LogLevel::Error => Level::ERROR,
        LogLevel::Info => Level::INFO,
        LogLevel::Trace => Level::TRACE,
        LogLevel::Warn => Level::WARN,
    };
    Targets::new()
        .with_default(LevelFilter::from_level(ours.min(Level::WARN)))
        // It warns of each connection that a server ends, of which the store tells once.
        .with_target("deadpool", LevelFilter::ERROR)
        .with_target("portcullis", ours)
        .with_target("audit", ours)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Tells the test what is written, and waits for its leave each time.
    struct Guarded(mpsc::Sender<Vec<u8>>, mpsc::Receiver<()>);

    impl Write for Guarded {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).unwrap();
            self.1.recv().map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn log_4_events_do_not_wait_for_the_sink() {
        let (written, writes) = mpsc::channel();
        let (leave, guarded) = mpsc::channel();
        let sink = Box::new(Guarded(written, guarded));
        let append = |batch: &mut String, event: String| batch.push_str(&event);
        let queue = LineQueue::start("events", 2, sink, append, Counter::default()).unwrap();
        let emit = |event: &[u8]| EventWriter(Some(&queue)).write_all(event).unwrap();
        emit(b"one\n");
        assert_eq!(writes.recv().unwrap(), b"one\n");
        // The thread hangs in its write now: two more fit, the others are dropped.
        emit(b"two\n");
        emit(b"thr\xffe\n");
        emit(b"four\n");
        emit(b"five\n");
        assert_eq!(queue.dropped(), 2);
        leave.send(()).unwrap();
        assert_eq!(writes.recv().unwrap(), "two\nthr\u{fffd}e\n".as_bytes());
        // The sink fails from here on; what it had taken is lost.
        drop(leave);
        queue.flush(Duration::from_secs(60));
        assert_eq!(queue.dropped(), 4);
    }

    #[test]
    fn log_1_libraries_never_trace() {
        for level in [LogLevel::Trace, LogLevel::Debug, LogLevel::Info] {
            let filter = filter(level);
            assert!(!filter.would_enable("h2::frame", &Level::INFO));
            assert!(!filter.would_enable("rustls", &Level::DEBUG));
            assert!(filter.would_enable("rustls", &Level::WARN));
        }
        assert!(!filter(LogLevel::Error).would_enable("rustls", &Level::WARN));
    }

    #[test]
    fn own_events_follow_the_level() {
        assert!(filter(LogLevel::Trace).would_enable("portcullis::gateway", &Level::TRACE));
        assert!(!filter(LogLevel::Info).would_enable("portcullis::gateway", &Level::DEBUG));
        assert!(!filter(LogLevel::Error).would_enable("portcullis", &Level::WARN));
    }

    #[test]
    fn a_second_start_does_not_panic() {
        let settings = LogSettings {
            level: LogLevel::Error,
            ..LogSettings::default()
        };
        init_events(&settings).unwrap();
        init_events(&settings).unwrap();
        assert_eq!(newly_dropped(), 0);
    }
}
