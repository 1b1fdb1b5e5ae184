//! Open pages: what changes is sent to them each second, as events (HTML, "Server-sent events").

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::body::Body;
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{Stream, stream};
use tokio::{
    sync::{OwnedSemaphorePermit, watch},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::page::Part;

/// Pages that are sent events at once.
pub(super) const LISTENERS_MAX: usize = 16;
/// A page asks anew after this long: one whose machine has gone must not hold its place for ever.
pub(in crate::admin) const LIFE: Duration = Duration::from_secs(600);

/// All parts of the page at a moment.
pub(super) type Frame = Arc<Vec<Part>>;

/// What a request to the admin listener can do about its connection.
#[derive(Debug, Clone, Default)]
pub(in crate::admin) struct Exchange {
    /// When the listener stops.
    pub(in crate::admin) shutdown: CancellationToken,
    /// Whether the connection may be longer than those of others.
    stays: Arc<AtomicBool>,
}

impl Exchange {
    pub(in crate::admin) fn new(shutdown: CancellationToken) -> Self {
        Self {
            shutdown,
            stays: Arc::default(),
        }
    }

    /// Says that the answer goes on.
    pub(super) fn stay(&self) {
        self.stays.store(true, Ordering::Relaxed);
    }

    /// Whether it does.
    pub(in crate::admin) fn stays(&self) -> bool {
        self.stays.load(Ordering::Relaxed)
    }
}

/// A page that is open.
struct Listener {
    frames: watch::Receiver<Frame>,
    /// What it has been sent.
    sent: Frame,
    shutdown: CancellationToken,
    until: Instant,
    _place: OwnedSemaphorePermit,
}

/// The events of a page: at first all parts, then those that have changed. It ends with the listener, or after ten minutes.
pub(super) fn body(
    frames: watch::Receiver<Frame>,
    shutdown: CancellationToken,
    place: OwnedSemaphorePermit,
) -> Body {
    let listener = Listener {
        frames,
        sent: Frame::default(),
        shutdown,
        until: Instant::now() + LIFE,
        _place: place,
    };
    Body::from_stream(events(listener))
}

fn events(listener: Listener) -> impl Stream<Item = Result<Bytes, Infallible>> {
    stream::unfold(listener, |mut listener| async {
        let changed = tokio::select! {
            biased;
            () = listener.shutdown.cancelled() => return None,
            () = sleep_until(listener.until) => return None,
            changed = listener.frames.changed() => changed,
        };
        changed.ok()?;
        let frame = Arc::clone(&listener.frames.borrow_and_update());
        let text = difference(&listener.sent, &frame);
        listener.sent = frame;
        Some((Ok(text), listener))
    })
}

/// The events that make one frame of another; a comment where there is nothing to say.
fn difference(before: &[Part], now: &[Part]) -> Bytes {
    let mut text = BytesMut::new();
    for (place, (id, html)) in now.iter().enumerate() {
        let same = before
            .get(place)
            .is_some_and(|(before, old)| before == id && old == html);
        if !same {
            event(&mut text, id, html);
        }
    }
    if text.is_empty() {
        text.put_slice(b":\n\n");
    }
    text.freeze()
}

/// One event. Whatever ends a line there begins another of its data.
fn event(text: &mut BytesMut, id: &str, html: &[u8]) {
    text.put_slice(b"event: part\ndata: ");
    text.put_slice(id.as_bytes());
    for line in html.split(|byte| matches!(byte, b'\n' | b'\r')) {
        text.put_slice(b"\ndata: ");
        text.put_slice(line);
    }
    text.put_slice(b"\n\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(id: &'static str, html: &'static str) -> Part {
        (id, Bytes::from_static(html.as_bytes()))
    }

    #[track_caller]
    fn check(before: &[Part], now: &[Part], want: &str) {
        assert_eq!(difference(before, now), want.as_bytes());
    }

    #[test]
    fn only_what_changed_is_sent() {
        let (a, b) = (part("a", "1"), part("b", "2"));
        let both = [a.clone(), b];
        let all = "event: part\ndata: a\ndata: 1\n\nevent: part\ndata: b\ndata: 2\n\n";
        check(&[], &both, all);
        check(&both, &both, ":\n\n");
        let other = [a, part("b", "3")];
        check(&both, &other, "event: part\ndata: b\ndata: 3\n\n");
    }

    #[test]
    fn no_text_ends_an_event_or_begins_another() {
        let hostile = part("a", "x\n\nevent: part\ndata: b\r\rdata: y");
        let want = "event: part\ndata: a\ndata: x\ndata: \ndata: event: part\ndata: data: b\ndata: \ndata: data: y\n\n";
        check(&[], &[hostile], want);
    }
}
