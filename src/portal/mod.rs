//! The built-in account routes: HTTP over accounts, no rules of its own.
//!
//! The gateway treats them as routes like any other: it finds them in the route table, checks the credential and reads the
//! body, then hands the request to a [`PortalHandle`], which does the work on the control runtime.

mod administration;
mod answers;
mod clients;
mod cookies;
mod endpoints;
mod forms;
mod logo;
mod openapi;
mod own_sessions;
mod pages;
mod passwords;
mod registration;
mod requests;
mod sign_in;
#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc};

use axum::{Router, body::Body};
use bytes::Bytes;
use http::{Request, Response};
use tokio::{runtime::Handle, sync::Semaphore};
use tower_service::Service;
use tracing::Instrument;

use crate::{
    accounts::Accounts,
    authn::Authenticator,
    limit::BadTokens,
    policy::{Caller, ClientIp, Rejection},
    respond,
    telemetry::RequestId,
};

/// For `fuzz/` alone.
#[doc(hidden)]
pub use cookies::refresh_cookie;
pub use endpoints::routes;
pub use logo::{Logo, LogoError};
pub use pages::Pages;
use pages::handover::Handovers;

/// The largest body that any of these routes takes, in bytes.
pub const BODY_BYTES_MAX: u64 = 16 << 10;

/// Requests in work at once, over all workers. Most of them wait for the store or for a password hash, each of which has a
/// bound of its own; this one bounds the memory.
const CALLS_MAX: usize = 1024;

/// A request to one of the built-in routes, after the gateway's checks.
#[derive(Debug)]
pub struct PortalCall {
    /// It, with its whole body, at most 16 KiB.
    pub request: Request<Bytes>,
    /// The address that it is charged to.
    pub client: ClientIp,
    /// Its id.
    pub request_id: RequestId,
    /// Who calls, by the route's access.
    pub caller: Caller,
    /// What verifies an access token that is to be revoked.
    pub authn: Arc<Authenticator>,
    /// How many failed verifications the client may cause.
    pub bad_tokens: Arc<BadTokens>,
    /// The pages, where browsers may sign in.
    pub pages: Option<Arc<Pages>>,
}

/// Takes requests from the workers. Cheap to clone.
#[derive(Clone)]
pub struct PortalHandle {
    router: Router,
    runtime: Handle,
    calls: Arc<Semaphore>,
    handovers: Arc<Handovers>,
    openapi: Bytes,
}

/// Starts to serve the built-in routes; the work is done on `runtime`.
#[must_use]
pub fn start(accounts: Arc<Accounts>, runtime: &Handle) -> PortalHandle {
    PortalHandle {
        openapi: openapi::document(accounts.settings()).into(),
        router: endpoints::router(accounts),
        runtime: runtime.clone(),
        calls: Arc::new(Semaphore::new(CALLS_MAX)),
        handovers: Arc::default(),
    }
}

impl PortalHandle {
    /// Answers a request; with a refusal that says `overloaded` where too many are in work.
    ///
    /// The work goes on when the caller stops to wait: a client that leaves does not undo or tear a transaction.
    pub async fn call(&self, call: PortalCall) -> Response<Bytes> {
        let request_id = call.request_id;
        let refuse = |rejection| answers::guard(respond::refusal(&rejection, &request_id));
        let Ok(permit) = Arc::clone(&self.calls).try_acquire_owned() else {
            return refuse(Rejection::Overloaded);
        };
        let router = self.router.clone();
        let shared = (Arc::clone(&self.handovers), self.openapi.clone());
        // What happens to accounts on the way is told with the exchange that brought it about (LOG-4).
        let exchange = tracing::error_span!(
            target: "audit", "exchange", request_id = request_id.as_str(), client = %call.client.ip()
        );
        let work = async move {
            let response = answer(router, call, shared).await;
            drop(permit);
            response
        };
        let work = self.runtime.spawn(work.instrument(exchange));
        match work.await {
            Ok(Some(response)) => response,
            Ok(None) | Err(_) => refuse(Rejection::Internal),
        }
    }
}

/// `None` where the answer cannot be read, which no handler of ours brings about.
async fn answer(
    mut router: Router,
    call: PortalCall,
    (handovers, openapi): (Arc<Handovers>, Bytes),
) -> Option<Response<Bytes>> {
    let (mut parts, body) = call.request.into_parts();
    parts.extensions.insert(endpoints::Context {
        client: call.client,
        request_id: call.request_id,
        caller: call.caller,
        authn: call.authn,
        bad_tokens: call.bad_tokens,
        pages: call.pages,
        handovers,
        openapi,
    });
    let request = Request::from_parts(parts, Body::from(body));
    let response = match Service::call(&mut router, request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    let (parts, body) = response.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.ok()?;
    Some(Response::from_parts(parts, body))
}

impl fmt::Debug for PortalHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PortalHandle")
            .field("free", &self.calls.available_permits())
            .finish_non_exhaustive()
    }
}
