//! What becomes of a client's body, for whoever waits for the answer, and whether the rest of it is still wanted.

use std::{
    cell::{Cell, RefCell},
    fmt,
    rc::Rc,
    task::{Context, Waker},
};

use tokio::time::Instant;

use super::Server;
use crate::{
    moment,
    policy::{HeadFault, Rejection},
};

/// What became of a client's body and which server it went to, seen by whoever waits for the answer.
#[derive(Debug, Default)]
pub struct UploadProgress {
    bytes: Cell<u64>,
    finished: Cell<Option<Instant>>,
    fault: Cell<Option<UploadFault>>,
    rest: RefCell<Rest>,
    /// When anything last went either way, for exchanges that silence ends.
    stirred: Cell<Option<Instant>>,
    /// The id of the server that was asked last.
    asked: Cell<Option<u64>>,
}

/// Whether what is left of a body is still wanted.
#[derive(Debug, Default)]
enum Rest {
    /// For as long as the connection is, which goes down with the exchange.
    #[default]
    Wanted,
    /// Until somebody says otherwise, who wakes whoever waits for it.
    WantedFor(Option<Waker>),
    /// Not any more.
    Unwanted,
}

/// Why a client's body could not be sent whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UploadFault {
    /// The client went away or sent bad framing.
    Broken,
    /// A fault of ours.
    Panicked,
    /// No byte came for the time allowed.
    Stalled,
    /// The body is longer than the route takes.
    TooLarge,
    /// Its trailers are larger than a header section may be.
    TrailersTooLarge,
}

impl UploadProgress {
    /// The progress of a request without a body.
    #[must_use]
    pub fn finished_now() -> Rc<Self> {
        Rc::new(Self {
            finished: Cell::new(Some(moment::recent_timer())),
            ..Self::default()
        })
    }

    /// Another server is asked, or the same one again.
    pub(super) fn asks(&self, server: &Server) {
        self.asked.set(Some(server.id()));
    }

    /// Whether this server was the one that was asked last.
    pub(super) fn has_asked(&self, server: &Server) -> bool {
        self.asked.get() == Some(server.id())
    }

    /// Bytes handed to the upstream so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// When the last byte was handed over; `None` while there is more to come.
    #[must_use]
    pub fn finished(&self) -> Option<Instant> {
        self.finished.get()
    }

    /// What went wrong on the client's side, as a refusal.
    #[must_use]
    pub fn rejection(&self) -> Option<Rejection> {
        self.fault.get().map(|fault| match fault {
            UploadFault::Broken => Rejection::BadRequest(HeadFault::Body),
            UploadFault::Panicked => Rejection::Internal,
            UploadFault::Stalled => Rejection::RequestTimeout,
            UploadFault::TooLarge => Rejection::BodyTooLarge,
            UploadFault::TrailersTooLarge => Rejection::HeadersTooLarge,
        })
    }

    /// Prepares for [`UploadProgress::abandon`]. Without it that does nothing, and the body need not listen for it.
    pub(super) fn may_be_abandoned(&self) {
        *self.rest.borrow_mut() = Rest::WantedFor(None);
    }

    /// Says that what is left of the body is not to be sent: the exchange is over, and its connection goes on.
    pub(super) fn abandon(&self) {
        let mut rest = self.rest.borrow_mut();
        if let Rest::WantedFor(waker) = &mut *rest {
            let waker = waker.take();
            *rest = Rest::Unwanted;
            drop(rest);
            waker.into_iter().for_each(Waker::wake);
        }
    }

    pub(super) fn is_wanted(&self, cx: &Context<'_>) -> bool {
        match &mut *self.rest.borrow_mut() {
            Rest::Wanted => true,
            Rest::WantedFor(Some(waker)) => {
                waker.clone_from(cx.waker());
                true
            }
            Rest::WantedFor(none) => {
                *none = Some(cx.waker().clone());
                true
            }
            Rest::Unwanted => false,
        }
    }

    /// Has the exchange last until nothing goes either way.
    pub(super) fn last_until_silence(&self) {
        self.stirred.set(Some(Instant::now()));
    }

    /// Notes that something went one way or the other, where that matters.
    pub(super) fn stir(&self) {
        if self.stirred.get().is_some() {
            self.stirred.set(Some(Instant::now()));
        }
    }

    /// Since when nothing has gone either way, where that matters.
    pub(super) fn silent_since(&self) -> Option<Instant> {
        self.stirred.get()
    }

    /// Notes that so many more bytes were handed over.
    pub(super) fn count(&self, bytes: u64) {
        if bytes > 0 {
            self.stir();
        }
        self.bytes.set(self.bytes.get().saturating_add(bytes));
    }

    /// Notes that the last byte was.
    pub(super) fn finish(&self) {
        self.finished.set(Some(Instant::now()));
    }

    /// Notes what went wrong.
    pub(super) fn fail(&self, fault: UploadFault) -> UploadFault {
        self.fault.set(Some(fault));
        fault
    }
}

impl fmt::Display for UploadFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Broken => "the client's body broke off",
            Self::Panicked => "the gateway has a fault",
            Self::Stalled => "the client's body stalled",
            Self::TooLarge => "the client's body is too large",
            Self::TrailersTooLarge => "the client's trailers are too large",
        })
    }
}

impl std::error::Error for UploadFault {}
