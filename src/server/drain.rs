//! How the connections of one worker hear that they are to end: all of them when the gateway leaves, some at a time while memory is
//! scarce.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    future::poll_fn,
    task::{Poll, Waker},
};

/// Into how many parts the connections are divided where not all can end at once.
pub(super) const PARTS: u64 = 4;

/// The order to end after what is under way, and the connections that wait to hear it.
#[derive(Debug, Default)]
pub(super) struct Drain {
    requested: Cell<bool>,
    /// Whether connections of HTTP/1.1 may wait for their next request.
    is_patient: Cell<bool>,
    next: Cell<u64>,
    /// The part of the connections whose turn it is to end while memory is scarce.
    part: Cell<u64>,
    wakers: RefCell<HashMap<u64, Waker>>,
}

/// Whether kept connections of HTTP/1.1 are closed while they are silent. The next request may be on its way to one, and would be
/// lost; they had better be asked with its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Haste {
    /// They are asked with their next answer.
    Patient,
    /// They are.
    Prompt,
}

/// A connection's place among those that wait.
#[derive(Debug)]
pub(super) struct DrainPlace<'d> {
    drain: &'d Drain,
    id: u64,
    registered: Cell<bool>,
}

impl Drain {
    /// Has the connections end, as far as this haste wants it. What was asked patiently may be asked promptly later.
    pub(super) fn request(&self, haste: Haste) {
        self.requested.set(true);
        self.is_patient.set(haste == Haste::Patient);
        for waker in self.wakers.borrow().values() {
            waker.wake_by_ref();
        }
    }

    /// Whether a connection is to end, of HTTP/2 or of HTTP/1.1.
    #[must_use]
    pub(super) fn ends(&self, is_multiplexed: bool) -> bool {
        self.requested.get() && (is_multiplexed || !self.is_patient.get())
    }

    /// Wakes the next part of the connections, so that they look how scarce memory is.
    pub(super) fn wake_part(&self) {
        let part = self.part.get().wrapping_add(1) % PARTS;
        self.part.set(part);
        let wakers = self.wakers.borrow();
        let turn = wakers.iter().filter(|(id, _)| *id % PARTS == part);
        for (_, waker) in turn {
            waker.wake_by_ref();
        }
    }

    /// Whether the gateway drains.
    #[must_use]
    pub(super) fn is_requested(&self) -> bool {
        self.requested.get()
    }

    /// Waits until connections are to end.
    pub(super) async fn requested(&self) {
        let place = self.register();
        poll_fn(|cx| {
            if self.is_requested() {
                return Poll::Ready(());
            }
            place.wake_by(cx.waker());
            Poll::Pending
        })
        .await;
    }

    /// Takes a place.
    #[must_use]
    pub(super) fn register(&self) -> DrainPlace<'_> {
        let id = self.next.get();
        self.next.set(id.wrapping_add(1));
        DrainPlace {
            drain: self,
            id,
            registered: Cell::new(false),
        }
    }
}

impl DrainPlace<'_> {
    /// Whether it is this connection's turn to end, where not all can.
    #[must_use]
    pub(super) fn has_turn(&self) -> bool {
        self.id % PARTS == self.drain.part.get()
    }

    /// Says whom to wake. A connection is one task with one waker, so the first call is the one that counts.
    pub(super) fn wake_by(&self, waker: &Waker) {
        if !self.registered.replace(true) {
            self.drain
                .wakers
                .borrow_mut()
                .insert(self.id, waker.clone());
        }
    }
}

impl Drop for DrainPlace<'_> {
    fn drop(&mut self) {
        self.drain.wakers.borrow_mut().remove(&self.id);
    }
}
