//! The access log: one line for each exchange that has ended.

use std::{io::Write, time::Duration};

use prometheus_client::metrics::counter::Counter;

use super::{line, line_queue::LineQueue, record::Record, settings::LogFormat};

/// Lines that may wait to be written: a tenth of a second at 80 000 requests a second, in about 3 MB.
const QUEUE_LINES: usize = 8192;

/// An exchange and how long it took.
pub(super) type Entry = (Record, Duration);

/// Starts the log's thread; `None` when it cannot be had, and nothing is logged then.
pub(super) fn start(
    format: LogFormat,
    sink: Box<dyn Write + Send>,
    dropped: Counter,
) -> Option<LineQueue<Entry>> {
    let write = move |batch: &mut String, (record, took): Entry| {
        line::write(batch, format, &record, took);
    };
    LineQueue::start("access-log", QUEUE_LINES, sink, write, dropped)
        .inspect_err(|error| tracing::error!(%error, "no thread for the access log"))
        .ok()
}
