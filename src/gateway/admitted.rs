//! What is kept of a request that may go on, and the one case in which it may after all.

use http::{HeaderValue, request::Parts, uri::PathAndQuery};

use super::{Gateway, Inbound};
use crate::{
    policy::{ClientIp, Head, NormalPath, Permit, Rejection},
    telemetry::Record,
};

/// A request that may go on, with what of its head is needed further.
#[derive(Debug)]
pub struct Admitted<'g> {
    pub(super) permit: Permit<'g>,
    /// The normalised path; `None` where the request's own was normal.
    path: Option<NormalPath<'static>>,
    /// Host and port as the client named them.
    pub(super) host: HeaderValue,
}

impl<'g> Admitted<'g> {
    /// `field` is the request's own `Host`, shared where it says the same.
    pub(super) fn new(
        permit: Permit<'g>,
        head: Head<'_>,
        field: Option<&HeaderValue>,
    ) -> Result<Self, Rejection> {
        let host = match field.filter(|field| field.as_bytes() == head.authority.as_bytes()) {
            Some(field) => field.clone(),
            None => HeaderValue::from_str(head.authority).map_err(|_| Rejection::Internal)?,
        };
        let path = if head.path.is_borrowed() {
            None
        } else {
            Some(head.path.into_owned())
        };
        Ok(Self { permit, path, host })
    }

    /// The address that the request is charged to.
    #[must_use]
    pub fn client(&self) -> ClientIp {
        self.permit.client()
    }

    /// The normalised path.
    pub(super) fn path<'a>(&'a self, parts: &'a Parts) -> &'a str {
        match &self.path {
            Some(path) => path.as_str(),
            None => parts.uri.path(),
        }
    }

    /// The normalised path with the query as it came: what was decided on is what is forwarded (URI-1).
    /// Only the route's `strip_prefix` is cut off, after the decision (URI-5).
    pub(super) fn target(&self, parts: &Parts) -> Result<PathAndQuery, Rejection> {
        let prefix = self.permit.route().strip_prefix.as_deref();
        if let (None, None, Some(target)) = (prefix, &self.path, parts.uri.path_and_query()) {
            return Ok(target.clone());
        }
        let path = self.path(parts);
        let stripped = prefix.map(|prefix| NormalPath::without_prefix(path, prefix));
        let stripped = stripped.transpose().map_err(Rejection::AmbiguousPath)?;
        let path = stripped.as_ref().map_or(path, NormalPath::as_str);
        let target = match parts.uri.query() {
            Some(query) => format!("{path}?{query}"),
            None => path.to_owned(),
        };
        PathAndQuery::try_from(target).map_err(|_| Rejection::Internal)
    }
}

impl Gateway {
    /// Decides once more about a request whose token names a key that a fetch under way may bring, after that fetch. Every other
    /// refusal stands, and nobody else waits.
    pub(super) async fn admit_later(
        &self,
        rejection: Rejection,
        inbound: &Inbound<'_>,
        record: &mut Record,
    ) -> Result<Admitted<'_>, Rejection> {
        let arrival = self.authn.arrival(&rejection, &inbound.parts.headers);
        arrival.ok_or(rejection)?.wait().await;
        self.admit(inbound.peer, &inbound.parts, record)
    }
}
