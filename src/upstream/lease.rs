//! A connection in use by one exchange, whichever version of HTTP it speaks.

use std::{
    future::poll_fn,
    net::SocketAddr,
    rc::Rc,
    task::{Context, Poll},
};

use futures_util::{TryFutureExt, future::Either};
use http::{HeaderValue, Request, Response, header};
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http1::SendRequest},
};
use tokio::task::coop::unconstrained;

use super::{
    body::RequestBody,
    driver::Driver,
    heard::Ear,
    http2::{self, Place},
    pins,
    pool::{Idle, OpenCount},
    progress::UploadProgress,
    spare::Spare,
};

/// A connection in use by one exchange. It returns to the pool by [`Lease::release`] alone; dropped, it closes, or its stream
/// does where others use the connection too.
#[derive(Debug)]
pub struct Lease {
    connection: Connection,
    reused: bool,
    upload: Watched,
    end: End,
}

/// Where a connection of its own goes when its exchange has ended properly.
#[derive(Debug)]
enum End {
    Closed,
    Pinned(pins::Turn),
    Pooled,
}

/// The body of the request. Where the connection goes on without it, its rest is not sent.
#[derive(Debug, Default)]
struct Watched(Option<Rc<UploadProgress>>);

/// What an exchange has of a connection.
#[derive(Debug)]
pub(super) enum Connection {
    /// All of it.
    Own(Box<Own>),
    /// One stream.
    Shared(Place),
}

/// A connection that carries one exchange at once. Dropped, it closes, whatever is still under way on it.
#[derive(Debug)]
pub(super) struct Own {
    pub(super) sender: SendRequest<RequestBody>,
    pub(super) driver: Driver,
    pub(super) open: OpenCount,
    pub(super) ear: Ear,
    /// Where it leads.
    pub(super) peer: Option<SocketAddr>,
}

/// Why a request was not answered.
#[derive(Debug)]
pub(super) struct SendFault {
    /// The reason.
    pub(super) error: hyper::Error,
    /// The request, where no byte of it was sent.
    pub(super) unsent: Option<Box<Request<RequestBody>>>,
}

impl Lease {
    pub(super) fn new(connection: Connection, reused: bool) -> Self {
        if let Connection::Own(own) = &connection {
            own.ear.begin();
        }
        Self {
            connection,
            reused,
            upload: Watched::default(),
            end: End::Pooled,
        }
    }

    /// The lease of a connection that was pinned, as soon as it is ready; `None` when it has closed.
    pub(super) async fn pinned(mut connection: Box<Own>, turn: pins::Turn) -> Option<Self> {
        let Own { sender, driver, .. } = &mut *connection;
        let ready = poll_fn(|cx| driver.poll_with(cx, |cx| sender.poll_ready(cx)));
        ready.await.ok()?;
        let mut lease = Self::new(Connection::Own(connection), true);
        lease.end = End::Pinned(turn);
        Some(lease)
    }

    /// Keeps the connection for those whose turn it is next at this seat. One that others use too belongs to nobody.
    pub(super) fn keep_at(&mut self, turn: pins::Turn) {
        if let Connection::Own(own) = &self.connection {
            own.open.pool().pinned().add(&turn);
            self.end = End::Pinned(turn);
        }
    }

    /// Whether the connection belongs to one client connection.
    pub(super) fn is_pinned(&self) -> bool {
        matches!(self.end, End::Pinned(_))
    }

    /// Sends a request, and waits for the head of its answer, polled by [`Lease::poll_with`]. Dropped, it takes the request back:
    /// what was sent of it is not a whole one.
    ///
    /// # Errors
    /// Why there is no answer, with the request where no byte of it was sent.
    pub(super) fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> impl Future<Output = Result<Response<Incoming>, SendFault>> + use<> {
        match &mut self.connection {
            // Its budget is the connection's: what that has brought can be taken.
            Connection::Own(own) => Either::Left(unconstrained(own.send(request))),
            Connection::Shared(place) => Either::Right(place.send(request)),
        }
    }

    /// Polls something that waits for the connection, and before that the connection itself where nobody else does.
    pub(super) fn poll_with<T>(
        &mut self,
        cx: &mut Context<'_>,
        waiting: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        match &mut self.connection {
            Connection::Own(own) => own.driver.poll_with(cx, waiting),
            Connection::Shared(_) => waiting(cx),
        }
    }

    /// Polls what the connection may have brought already; `None` where it is not there.
    pub(super) fn peek<T>(&self, waiting: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> Option<T> {
        match &self.connection {
            Connection::Own(own) => own.driver.peek(waiting),
            Connection::Shared(_) => None,
        }
    }

    /// Has the connection go on while this exchange waits for something else.
    pub(super) fn detach(&mut self) {
        if let Connection::Own(own) = &mut self.connection {
            own.driver.detach();
        }
    }

    /// Whether the connection served an exchange before: the upstream may have closed it just now.
    #[must_use]
    pub fn is_reused(&self) -> bool {
        self.reused
    }

    /// Whether other exchanges use the connection too.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        matches!(self.connection, Connection::Shared(_))
    }

    /// Whether a byte of an answer may have come: on a connection of its own, whether any has since it was taken.
    pub(super) fn has_heard(&self) -> bool {
        match &self.connection {
            Connection::Own(own) => own.ear.has_heard(),
            Connection::Shared(_) => true,
        }
    }

    /// What is needed to send this request again after it has gone out here. To be asked for right before it is sent.
    pub(super) fn spare(&self, request: &Request<RequestBody>) -> Spare {
        match &self.connection {
            Connection::Own(own) => {
                own.ear.keep_next();
                Spare::written(request)
            }
            Connection::Shared(_) => Spare::copy(request),
        }
    }

    /// The head of the present request as it was written, where it was to be kept.
    pub(super) fn written(&self) -> Option<Vec<u8>> {
        match &self.connection {
            Connection::Own(own) => own.ear.take_first(),
            Connection::Shared(_) => None,
        }
    }

    /// Watches the request's body: a connection whose request was not sent whole is not used again (UP-1).
    pub(super) fn watch(&mut self, upload: Rc<UploadProgress>) {
        if self.is_shared() {
            upload.may_be_abandoned();
        }
        self.upload = Watched(Some(upload));
    }

    /// Sees to it that the connection is not used again.
    pub(super) fn retire(&mut self) {
        self.end = End::Closed;
    }

    /// Gives the connection back after an answer that ended properly.
    pub fn release(self) {
        // A place among streams is given back by its drop.
        let Connection::Own(mut connection) = self.connection else {
            return;
        };
        if !self.upload.is_over() || connection.sender.is_closed() {
            return;
        }
        if !connection.sender.is_ready() {
            // It has something left to do, and nobody would poll it.
            connection.driver.detach();
        }
        let pool = Rc::clone(connection.open.pool());
        match self.end {
            End::Closed => return,
            End::Pinned(turn) => turn.keep(connection),
            End::Pooled => pool.keep(Idle::now(connection)),
        }
        // Whoever waits for a connection may have an idle one closed that is pinned.
        pool.wake(1);
    }
}

impl Own {
    /// Sends a request. `TE` speaks of one connection, which HTTP/1.1 must be told (RFC 9110 §10.1.4).
    fn send(
        &mut self,
        mut request: Request<RequestBody>,
    ) -> impl Future<Output = Result<Response<Incoming>, SendFault>> + use<> {
        let says_te = request.headers().contains_key(header::TE);
        if says_te {
            let te = HeaderValue::from_static("te");
            request.headers_mut().insert(header::CONNECTION, te);
        }
        let sent = self.sender.try_send_request(request);
        sent.map_err(move |failure| {
            let mut fault = SendFault::from(failure);
            // It may go out as HTTP/2 next.
            if let Some(request) = fault.unsent.as_mut().filter(|_| says_te) {
                request.headers_mut().remove(header::CONNECTION);
            }
            fault
        })
    }
}

impl SendFault {
    /// Whether what came back is no HTTP.
    pub(super) fn is_invalid(&self) -> bool {
        let error = &self.error;
        error.is_parse() || error.is_parse_too_large() || http2::is_invalid(error)
    }

    /// Whether the server says that it did nothing with the request.
    pub(super) fn is_unprocessed(&self) -> bool {
        http2::is_unprocessed(&self.error)
    }
}

impl From<TrySendError<Request<RequestBody>>> for SendFault {
    fn from(mut failure: TrySendError<Request<RequestBody>>) -> Self {
        Self {
            unsent: failure.take_message().map(Box::new),
            error: failure.into_error(),
        }
    }
}

impl Watched {
    fn is_over(&self) -> bool {
        let upload = self.0.as_ref();
        upload.is_none_or(|upload| upload.finished().is_some())
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(upload) = &self.0 {
            upload.abandon();
        }
    }
}
