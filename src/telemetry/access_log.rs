//! The access log's way out: a bounded queue and one thread that writes.
//!
//! Workers only move a record into the queue; formatting and writing happen on the thread. Where the sink is slow the queue
//! fills, and what does not fit is dropped and counted: a request never waits for its log line (LOG-4).

use std::{
    io::Write,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, Receiver, SyncSender},
    },
    thread::{self, Thread},
    time::Duration,
};

use prometheus_client::metrics::counter::Counter;

use super::{line, record::Record, settings::LogFormat};

/// Lines that wait for the thread: a tenth of a second at 80 000 requests a second, in about 3 MB.
const QUEUE_LINES: usize = 8192;
/// A batch is written when it has grown to this many bytes.
const BATCH_BYTES: usize = 64 << 10;
/// After a batch the thread stays away from the queue, so that the next lines gather and their senders need not wake it:
/// at most a hundred wake-ups a second, whatever the load.
const LINGER: Duration = Duration::from_millis(10);

/// The caller's end of the queue.
#[derive(Debug)]
pub(super) struct AccessLog {
    queue: SyncSender<Line>,
    writer: Thread,
    accepted: AtomicU64,
    progress: Arc<Progress>,
    dropped: Counter,
}

#[derive(Debug)]
struct Line {
    record: Record,
    took: Duration,
}

/// How many lines have left the queue, written or lost.
#[derive(Debug, Default)]
struct Progress {
    done: Mutex<u64>,
    moved: Condvar,
}

/// The thread's end of the queue.
struct Writer {
    queue: Receiver<Line>,
    sink: Box<dyn Write + Send>,
    format: LogFormat,
    progress: Arc<Progress>,
    dropped: Counter,
    batch: String,
}

impl AccessLog {
    /// Starts the thread. It ends when the `AccessLog` is dropped and the queue is empty. It is not joined then, for a sink
    /// that hangs would hang the caller; [`AccessLog::flush`] is the wait. `None` when no thread can be had.
    pub(super) fn start(
        format: LogFormat,
        sink: Box<dyn Write + Send>,
        dropped: Counter,
    ) -> Option<Self> {
        let (sender, receiver) = mpsc::sync_channel(QUEUE_LINES);
        let progress = Arc::new(Progress::default());
        let writer = Writer {
            queue: receiver,
            sink,
            format,
            progress: Arc::clone(&progress),
            dropped: dropped.clone(),
            batch: String::new(),
        };
        let thread = thread::Builder::new().name("access-log".into());
        match thread.spawn(move || writer.run()) {
            Ok(handle) => Some(Self {
                queue: sender,
                writer: handle.thread().clone(),
                accepted: AtomicU64::new(0),
                progress,
                dropped,
            }),
            Err(error) => {
                tracing::error!(%error, "no thread for the access log; nothing is logged");
                None
            }
        }
    }

    /// Queues one line, or drops and counts it. Never waits.
    pub(super) fn push(&self, record: Record, took: Duration) {
        match self.queue.try_send(Line { record, took }) {
            Ok(()) => {
                self.accepted.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => {
                self.dropped.inc();
            }
        }
    }

    /// Waits until every line queued before is written or lost, or the time is over.
    pub(super) fn flush(&self, limit: Duration) {
        let accepted = self.accepted.load(Ordering::Relaxed);
        self.writer.unpark();
        let done = self.progress.done.lock();
        let done = done.unwrap_or_else(PoisonError::into_inner);
        let waited = self
            .progress
            .moved
            .wait_timeout_while(done, limit, |done| *done < accepted);
        drop(waited);
    }
}

impl Writer {
    fn run(mut self) {
        while let Ok(line) = self.queue.recv() {
            let mut next = Some(line);
            while let Some(line) = next {
                next = self.write_batch(line);
            }
            thread::park_timeout(LINGER);
        }
    }

    /// Writes `first` and what waits behind it; the line that did not fit into the batch any more comes back.
    fn write_batch(&mut self, first: Line) -> Option<Line> {
        let mut lines = 0;
        let mut next = Some(first);
        while let Some(entry) = next.take_if(|_| self.batch.len() < BATCH_BYTES) {
            line::write(&mut self.batch, self.format, &entry.record, entry.took);
            lines += 1;
            next = self.queue.try_recv().ok();
        }
        let written = self.sink.write_all(self.batch.as_bytes());
        if written.and_then(|()| self.sink.flush()).is_err() {
            self.dropped.inc_by(lines);
        }
        self.batch.clear();
        let mut done = self
            .progress
            .done
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *done += lines;
        drop(done);
        self.progress.moved.notify_all();
        next
    }
}
