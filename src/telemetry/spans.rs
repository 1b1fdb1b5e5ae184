//! Which requests are traced, and the way of their spans to whoever exports them.
//!
//! A request of which nothing is recorded costs one look at a number. One that is recorded is handed over when it has ended: into a
//! bounded queue, and where that is full it is dropped and counted, so that no request waits for a collector.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, Method};
use prometheus_client::{
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};
use tokio::sync::mpsc;

use super::{
    Record, RequestId, RequestIds, UpstreamMetrics,
    labels::ResultLabel,
    line::{bare_host, bare_path},
    results::SpanResult,
};
use crate::policy::{TraceField, TraceParent};

/// The most bytes of a path that are kept for its span.
const TEXT_BYTES_MAX: usize = 1 << 10;
/// The same of a method. Those of the standards are shorter.
const METHOD_BYTES_MAX: usize = 32;

/// Decides which requests are traced. One for each configuration.
#[derive(Debug)]
pub struct Tracer {
    thousandths: u32,
    queue: SpanQueue,
}

/// The ids of a request that is traced, from its head on.
#[derive(Debug, Clone)]
pub struct Trace {
    /// The span that is the parent of ours, in 16 hexadecimal digits; `None` where the trace begins here.
    pub parent: Option<[u8; 16]>,
    /// The span of the request as the gateway serves it.
    pub server: [u8; 16],
    /// The span of the request to the upstream, which the upstream is told of; and the trace that all are in.
    pub client: TraceParent,
    /// The server of the upstream that was asked last; `None` where none was.
    pub asked: Option<Arc<UpstreamMetrics>>,
    /// Where it goes when it has ended. Not kept beyond that: while anybody has it, the queue does not end.
    queue: Option<SpanQueue>,
}

/// A request that was traced and has ended.
#[derive(Debug)]
pub struct Traced {
    /// What is known of it.
    pub record: Record,
    /// From its head's arrival to its end.
    pub took: Duration,
}

/// Counts spans by what became of them.
#[derive(Debug, Clone, Default)]
pub struct SpanMetrics(Family<ResultLabel, Counter>);

/// The senders' end of the queue.
#[derive(Debug, Clone)]
struct SpanQueue {
    sender: mpsc::Sender<Box<Traced>>,
    metrics: SpanMetrics,
}

impl Tracer {
    /// Traces so many of a thousand requests, beside those that a trusted parent has recorded; and gives the other end of the queue,
    /// in which this many requests may wait. It ends when the tracer is dropped and the last request that it traced has ended.
    #[must_use]
    pub fn new(
        thousandths: u32,
        capacity: usize,
        metrics: SpanMetrics,
    ) -> (Self, mpsc::Receiver<Box<Traced>>) {
        let (sender, receiver) = mpsc::channel(capacity.max(1));
        let queue = SpanQueue { sender, metrics };
        (Self { thousandths, queue }, receiver)
    }

    /// Begins the trace of a request, if it shall be traced. Whether the parent is recorded is believed where the peer is trusted;
    /// else anybody could have everything exported. To which trace a request belongs is believed of everybody, as it is of every
    /// service behind.
    #[must_use]
    pub fn begin(
        &self,
        headers: &HeaderMap,
        trusted: bool,
        (request_id, ids): (RequestId, &RequestIds),
    ) -> Option<Box<Trace>> {
        let is_drawn = ids.is_drawn(self.thousandths);
        if !is_drawn && !trusted {
            return None;
        }
        let parent = TraceParent::of(headers);
        let chosen = is_drawn || parent.is_some_and(|parent| parent.sampled);
        chosen.then(|| {
            let trace = parent.map_or_else(|| begun(request_id, ids), |parent| parent.trace);
            let [server, client] = halves(&digits(ids.next()));
            Box::new(Trace {
                parent: parent.map(|parent| parent.span),
                server,
                client: TraceParent {
                    trace,
                    span: client,
                    sampled: true,
                },
                asked: None,
                queue: Some(self.queue.clone()),
            })
        })
    }
}

impl Trace {
    /// The trace, in 32 hexadecimal digits.
    #[must_use]
    pub fn id(&self) -> &str {
        std::str::from_utf8(&self.client.trace).unwrap_or_default()
    }

    /// What the upstream is told.
    #[must_use]
    pub fn field(&self) -> TraceField<'_> {
        TraceField::Recorded(&self.client)
    }

    /// Hands over the request that has ended.
    pub(super) fn end(&self, record: &Record, took: Duration) {
        let Some(queue) = &self.queue else {
            return;
        };
        let Ok(place) = queue.sender.try_reserve() else {
            let spans = Traced::spans_of(record);
            return queue.metrics.count(SpanResult::Dropped, spans);
        };
        let mut record = record.clone();
        if let Some(trace) = &mut record.trace {
            trace.queue = None;
        }
        // A queue of the longest methods and targets would be hundreds of megabytes.
        record.path = record.path.map(cut);
        if let Some(first) = record.method.as_str().as_bytes().get(..METHOD_BYTES_MAX) {
            record.method = Method::from_bytes(first).unwrap_or_default();
        }
        place.send(Box::new(Traced { record, took }));
    }
}

impl Traced {
    /// How many spans it has: its own, and that of the upstream where one was asked.
    #[must_use]
    pub fn spans(&self) -> u64 {
        Self::spans_of(&self.record)
    }

    fn spans_of(record: &Record) -> u64 {
        1 + u64::from(record.upstream_asked.is_some())
    }

    /// The host asked for, without user information.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        self.record.host.as_deref().map(bare_host)
    }

    /// The normalised path, without query.
    #[must_use]
    pub fn path(&self) -> Option<&str> {
        self.record.path.as_deref().map(bare_path)
    }
}

impl SpanMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "spans",
            "Spans of traced requests by what became of them; absent without tracing",
            self.0.clone(),
        );
    }

    /// Makes every series, so that the first one that is lost is growth.
    #[must_use]
    pub(super) fn begun(&self) -> Self {
        for result in SpanResult::ALL {
            self.count(result, 0);
        }
        self.clone()
    }

    /// Counts spans.
    pub fn count(&self, result: SpanResult, spans: u64) {
        let result = result.name();
        self.0.get_or_create(&ResultLabel { result }).inc_by(spans);
    }
}

/// The id of a trace that begins here: the request's own where we made it, so that who knows one knows the other.
fn begun(request_id: RequestId, ids: &RequestIds) -> [u8; 32] {
    let own = request_id.as_str().as_bytes();
    let is_hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let own = own
        .try_into()
        .ok()
        .filter(|own: &[u8; 32]| own.iter().all(is_hex));
    own.unwrap_or_else(|| digits(ids.next()))
}

/// The digits of an id that we made.
fn digits(id: RequestId) -> [u8; 32] {
    id.as_str().as_bytes().try_into().unwrap_or([b'1'; 32])
}

/// The beginning of a text, as much as is exported.
fn cut(text: Box<str>) -> Box<str> {
    // A character has at most four bytes.
    let mut ends = (0..4).filter_map(|less| text.get(..TEXT_BYTES_MAX.saturating_sub(less)));
    match text.len() {
        0..=TEXT_BYTES_MAX => text,
        _ => ends.next().unwrap_or_default().into(),
    }
}

fn halves(digits: &[u8; 32]) -> [[u8; 16]; 2] {
    let (first, second) = digits.split_at(16);
    [first, second].map(|half| half.try_into().unwrap_or([b'1'; 16]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::tests::record;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn tracer(thousandths: u32) -> (Tracer, mpsc::Receiver<Box<Traced>>, SpanMetrics) {
        let metrics = SpanMetrics::default();
        let (tracer, receiver) = Tracer::new(thousandths, 2, metrics.clone());
        (tracer, receiver, metrics)
    }

    fn headers(parent: Option<&'static str>) -> HeaderMap {
        let parent = parent.map(|line| ("traceparent".parse().unwrap(), line.parse().unwrap()));
        parent.into_iter().collect()
    }

    fn begin(tracer: &Tracer, parent: Option<&'static str>, trusted: bool) -> Option<Box<Trace>> {
        let ids = RequestIds::new();
        tracer.begin(&headers(parent), trusted, (ids.next(), &ids))
    }

    #[test]
    fn a_strangers_flag_has_nothing_recorded_and_a_trusted_proxys_has() {
        let (none, ..) = tracer(0);
        let unsampled = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
        for (parent, trusted) in [
            (Some(PARENT), false),
            (None, false),
            (None, true),
            (Some(unsampled), true),
            (Some("00-0-0-01"), true),
        ] {
            let traced = begin(&none, parent, trusted);
            assert!(traced.is_none(), "{parent:?} {trusted}");
        }
        let trace = begin(&none, Some(PARENT), true).unwrap();
        assert_eq!(trace.id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(trace.parent, Some(*b"00f067aa0ba902b7"));
    }

    #[test]
    fn a_trace_without_a_parent_bears_the_id_of_its_request() {
        let (all, ..) = tracer(1000);
        let ids = RequestIds::new();
        let id = ids.next();
        let trace = all.begin(&headers(None), false, (id, &ids)).unwrap();
        assert_eq!((trace.id(), trace.parent), (id.as_str(), None));
        assert_ne!(trace.server, trace.client.span);
        // A trusted proxy's name for it may be anything.
        let named = RequestId::accept("order-7").unwrap();
        let trace = all.begin(&headers(None), true, (named, &ids)).unwrap();
        assert!(trace.id().bytes().all(|byte| byte.is_ascii_hexdigit()));
    }

    #[test]
    fn about_the_share_of_requests_is_traced() {
        let (some, ..) = tracer(100);
        let ids = RequestIds::new();
        let traced = |_: &u32| {
            let id = ids.next();
            some.begin(&headers(None), false, (id, &ids)).is_some()
        };
        let count = (0..100_000).filter(traced).count();
        // Eleven standard deviations.
        assert!((9_000..11_000).contains(&count), "{count}");
    }

    #[test]
    fn what_does_not_fit_the_queue_is_dropped_and_counted() {
        let (all, mut receiver, metrics) = tracer(1000);
        let long = format!("/{}", "\u{20ac}".repeat(5000));
        let asked = Record {
            path: Some(long.clone().into()),
            method: Method::from_bytes(&[b'X'; 5000]).unwrap(),
            upstream_asked: Some(Duration::ZERO),
            ..record()
        };
        for _ in 0..4 {
            let trace = begin(&all, None, false).unwrap();
            let ended = Record {
                trace: Some(trace.clone()),
                ..asked.clone()
            };
            trace.end(&ended, Duration::from_millis(1));
        }
        let label = ResultLabel { result: "dropped" };
        assert_eq!(metrics.0.get(&label).unwrap().get(), 4);
        drop(all);
        let waiting: Vec<_> = std::iter::from_fn(|| receiver.try_recv().ok()).collect();
        let spans = waiting.iter().map(|traced| traced.spans());
        assert_eq!(spans.sum::<u64>(), 4);
        let path = waiting[0].path().unwrap();
        assert!(long.starts_with(path) && (1020..=1024).contains(&path.len()));
        assert_eq!(waiting[0].record.method.as_str(), "X".repeat(32));
        // What was taken out keeps nothing open.
        let ended = receiver.try_recv().unwrap_err();
        assert_eq!(ended, mpsc::error::TryRecvError::Disconnected);
    }
}
