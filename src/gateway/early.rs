//! Interim answers, written to a client of HTTP/1.1 between the answers that hyper writes.
//!
//! hyper's server has no interim answers. The stream below it writes them, and may do so only where the answer before has ended
//! and this one has not begun. An exchange that still waits for its answer has not begun it. As for the one before: hyper takes
//! a request on as soon as that is whole in its buffer, which it tries to write at the end of every turn, and it flushes the
//! stream only when nothing is left in the buffer. So between a flush and the next write nothing is half written, and what is
//! written next is the head of this answer, or hyper's own `100 Continue`, which is as good after an interim answer as before.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    pin::Pin,
    task::Context,
};

use crate::upstream::Hints;

/// The interim answers that a connection has still to write.
#[derive(Debug, Default)]
pub struct EarlyHeads {
    /// Whether a stream writes them, and hyper has nothing unwritten on it.
    is_flushed: Cell<bool>,
    unwritten: RefCell<Vec<u8>>,
}

impl EarlyHeads {
    /// Notes whether hyper has written all that it had.
    pub fn set_flushed(&self, is_flushed: bool) {
        self.is_flushed.set(is_flushed);
    }

    /// Whether it has.
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        self.is_flushed.get()
    }

    /// What is to be written before anything else; empty most of the time.
    #[must_use]
    pub fn unwritten(&self) -> &RefCell<Vec<u8>> {
        &self.unwritten
    }

    /// Waits for an exchange with an upstream and passes on what is heard before its answer. An answer before it that is not
    /// wholly written hides it: a hint that comes late is worth nothing.
    ///
    /// The exchange stays where it is: a future that took it in would have room for it twice.
    pub(super) async fn relay<F: Future>(
        &self,
        hints: Option<&Hints>,
        mut exchange: Pin<&mut F>,
    ) -> F::Output {
        poll_fn(|cx| {
            let polled = exchange.as_mut().poll(cx);
            if let Some(hints) = hints {
                self.pass_on(hints, cx);
            }
            polled
        })
        .await
    }

    fn pass_on(&self, hints: &Hints, cx: &Context<'_>) {
        let heads = hints.take(cx);
        if self.is_flushed() {
            let mut unwritten = self.unwritten.borrow_mut();
            heads
                .iter()
                .for_each(|head| unwritten.extend_from_slice(head));
        }
    }
}
