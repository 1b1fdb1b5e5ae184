//! What is kept of a request that may go on, and the one case in which it may after all.

use http::{HeaderMap, HeaderValue, request::Parts, uri::PathAndQuery};

use super::{Gateway, Inbound};
use crate::{
    authn::Charge,
    policy::{Allowance, ClientIp, Head, NormalPath, Permit, Rejection},
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
    /// Whether the request's `Host` field says the same.
    pub(super) says_host: bool,
}

impl<'g> Admitted<'g> {
    pub(super) fn new(permit: Permit<'g>, head: Head<'_>) -> Result<Self, Rejection> {
        let field = head.field.filter(|field| *field == head.authority);
        let host = match field {
            Some(field) => field.clone(),
            None => HeaderValue::from_str(head.authority).map_err(|_| Rejection::Internal)?,
        };
        let path = if head.path.is_borrowed() {
            None
        } else {
            Some(head.path.into_owned())
        };
        Ok(Self {
            permit,
            path,
            host,
            says_host: field.is_some(),
        })
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
    /// Decides once more about a request whose token lacks something that is under way: a key that a fetch may bring, or its
    /// issuer's word. Every other refusal stands, and nobody else waits.
    pub(super) async fn admit_later(
        &self,
        rejection: Rejection,
        inbound: &Inbound<'_>,
        record: &mut Record,
    ) -> Result<Admitted<'_>, Rejection> {
        let (peer, parts) = (inbound.peer, &inbound.parts);
        let client = self.proxies.client_ip(peer.ip, &parts.headers);
        let charge = self
            .await_arrival(rejection, client, &parts.headers)
            .await?;
        let decided = self.admit_again(peer, parts, record);
        let bad = match &decided {
            Ok(admitted) => admitted.permit.unenforced(),
            Err(rejection) => Some(rejection),
        };
        self.settle(charge, client, bad);
        decided
    }

    /// Waits for what a refused request's token lacks.
    ///
    /// # Errors
    /// The refusal, where nothing is under way for it, or why nothing is.
    pub(super) async fn await_arrival(
        &self,
        rejection: Rejection,
        client: ClientIp,
        headers: &HeaderMap,
    ) -> Result<Charge, Rejection> {
        let budget = self.bad_tokens.of(client);
        let arrival = self.authn.arrival(&rejection, headers, &budget)?;
        Ok(arrival.ok_or(rejection)?.wait().await)
    }

    /// Gives back what a wait was charged with, unless it brought to light a bad token (RATE-8).
    pub(super) fn settle(&self, charge: Charge, client: ClientIp, refused: Option<&Rejection>) {
        let is_bad = matches!(refused, Some(Rejection::TokenInvalid(_)));
        if charge == Charge::Returnable && !is_bad {
            self.bad_tokens.of(client).give_back();
        }
    }
}
