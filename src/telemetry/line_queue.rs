//! The way out of log lines: a bounded queue and one thread that writes.
//!
//! Whoever logs only moves an entry into the queue; formatting and writing happen on the thread. Where the sink is slow the
//! queue fills, and what does not fit is dropped and counted: a request never waits for a log line (LOG-4).

use std::{
    fmt,
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

/// A batch is written when it has grown to this many bytes.
const BATCH_BYTES: usize = 64 << 10;
/// After a batch the thread stays away from the queue, so that the next lines gather and their senders need not wake it:
/// at most a hundred wake-ups a second, whatever the load.
const LINGER: Duration = Duration::from_millis(10);

/// The senders' end of the queue.
pub(super) struct LineQueue<T> {
    queue: SyncSender<T>,
    writer: Thread,
    accepted: AtomicU64,
    progress: Arc<Progress>,
    dropped: Counter,
}

/// How many entries have left the queue, written or lost.
#[derive(Debug, Default)]
struct Progress {
    done: Mutex<u64>,
    moved: Condvar,
}

/// The thread's end of the queue.
struct Writer<T, F> {
    queue: Receiver<T>,
    sink: Box<dyn Write + Send>,
    format: F,
    progress: Arc<Progress>,
    dropped: Counter,
    batch: String,
}

impl<T: Send + 'static> LineQueue<T> {
    /// Starts the thread, which appends entries to a batch with `format` and writes batches to `sink`; `capacity` entries
    /// may wait for it. It ends when the queue is dropped and empty. It is not joined then, for a sink that hangs would hang
    /// the caller; [`LineQueue::flush`] is the wait.
    ///
    /// # Errors
    /// When no thread can be had.
    pub(super) fn start(
        name: &str,
        capacity: usize,
        sink: Box<dyn Write + Send>,
        format: impl Fn(&mut String, T) + Send + 'static,
        dropped: Counter,
    ) -> std::io::Result<Self> {
        let (sender, receiver) = mpsc::sync_channel(capacity);
        let progress = Arc::new(Progress::default());
        let writer = Writer {
            queue: receiver,
            sink,
            format,
            progress: Arc::clone(&progress),
            dropped: dropped.clone(),
            batch: String::new(),
        };
        let thread = thread::Builder::new().name(name.into());
        let handle = thread.spawn(move || writer.run())?;
        Ok(Self {
            queue: sender,
            writer: handle.thread().clone(),
            accepted: AtomicU64::new(0),
            progress,
            dropped,
        })
    }

    /// Queues an entry, or drops and counts it. Never waits.
    pub(super) fn push(&self, entry: T) {
        if self.queue.try_send(entry).is_ok() {
            self.accepted.fetch_add(1, Ordering::Relaxed);
        } else {
            self.dropped.inc();
        }
    }

    /// Waits until every entry that this thread has queued is written or lost, or the time is over.
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

    /// How many entries were dropped or lost.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.get()
    }
}

impl<T, F: Fn(&mut String, T)> Writer<T, F> {
    fn run(mut self) {
        while let Ok(entry) = self.queue.recv() {
            let mut next = Some(entry);
            while let Some(entry) = next {
                next = self.write_batch(entry);
            }
            thread::park_timeout(LINGER);
        }
    }

    /// Writes `first` and what waits behind it; the entry that did not fit into the batch any more comes back.
    fn write_batch(&mut self, first: T) -> Option<T> {
        let mut entries = 0;
        let mut next = Some(first);
        while let Some(entry) = next.take_if(|_| self.batch.len() < BATCH_BYTES) {
            (self.format)(&mut self.batch, entry);
            entries += 1;
            next = self.queue.try_recv().ok();
        }
        let written = self.sink.write_all(self.batch.as_bytes());
        if written.and_then(|()| self.sink.flush()).is_err() {
            self.dropped.inc_by(entries);
        }
        self.batch.clear();
        let done = self.progress.done.lock();
        *done.unwrap_or_else(PoisonError::into_inner) += entries;
        self.progress.moved.notify_all();
        next
    }
}

impl<T> fmt::Debug for LineQueue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LineQueue")
            .field("accepted", &self.accepted)
            .field("dropped", &self.dropped)
            .finish_non_exhaustive()
    }
}
