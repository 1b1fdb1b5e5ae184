//! The endpoint that other proxies ask before they forward a request themselves: the same decision, and no forwarding.

use bytes::Bytes;
use http::{Response, StatusCode, header, request::Parts, uri::PathAndQuery};

use super::{Answer, Gateway, Inbound, browser::wants_page, note};
use crate::{
    policy::{Access, Head, PathPattern, Permit, Rejection, Route, Target, original_request},
    respond,
    telemetry::Record,
};

/// The checked section `[forward_auth]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardAuthSettings {
    /// Where it is asked, without a slash at its end.
    pub path: Box<str>,
}

/// The path that oauth2-proxy answers at, for configurations that were written for it.
pub const ALIAS: &str = "/oauth2/auth";

/// What nginx's `auth_request` is configured to say, and the proxies that hand a redirect on do not.
const NGINX_FIELDS: [&str; 3] = ["x-original-url", "x-original-uri", "x-original-method"];

/// The endpoint's routes, for the route table.
#[must_use]
pub fn routes(settings: &ForwardAuthSettings) -> Vec<Route> {
    let route = |name: &str, path| Route::built_in(name, path, Target::ForwardAuth, Access::Public);
    vec![
        route("forward_auth", PathPattern::Prefix(settings.path.clone())),
        route("forward_auth.alias", PathPattern::Exact(ALIAS.into())),
    ]
}

impl Gateway {
    /// Answers a proxy's question about a request: 200 with the headers that tell its upstream who is calling, or the refusal.
    ///
    /// A status that is neither success, 401, 429 nor a fault of ours becomes 403: what is not allowed is forbidden, and
    /// proxies take anything else for a failure. Body, log and metrics keep the code. Only [`Self::proxies`] are answered, for
    /// anybody else could find out what a stolen token opens without any upstream's noticing.
    pub(super) async fn answer_question(
        &self,
        inbound: &Inbound<'_>,
        path: &str,
        record: &mut Record,
    ) -> Result<Response<Answer>, Rejection> {
        if !self.proxies.trusts(inbound.peer.ip) {
            return Err(Rejection::RouteNotFound);
        }
        let below = self.below_endpoint(inbound, path)?;
        let original = original_request(&inbound.parts, below);
        let decided = match &original {
            Ok(original) => self.decide_question(inbound, original, record).await,
            Err(rejection) => Err(rejection.clone()),
        };
        Ok(decided.unwrap_or_else(|rejection| {
            note(&rejection, record);
            let status = understood(rejection.status());
            let mut refusal = respond::refusal_as(status, &rejection, &record.request_id);
            self.tell_limit(&rejection, refusal.headers_mut());
            let mut answer = match &original {
                Ok(original) => {
                    let refusal = self.shown(&rejection, wants_page(original), record, refusal);
                    match self.sign_in_answer(&rejection, original) {
                        Some(sent_on) => {
                            understood_redirect(path, &inbound.parts, refusal, sent_on)
                        }
                        None => refusal,
                    }
                }
                Err(_) => refusal,
            };
            respond::answer::finish_own(answer.headers_mut(), self.hsts);
            answer.map(Answer::from_bytes)
        }))
    }

    async fn decide_question(
        &self,
        inbound: &Inbound<'_>,
        original: &Parts,
        record: &mut Record,
    ) -> Result<Response<Answer>, Rejection> {
        record.method = original.method.clone();
        let head = Head::read(original, &self.head)?;
        self.keep_for_log(&head, record);
        let client = self.proxies.client_ip(inbound.peer.ip, &original.headers);
        let mut decided = self.decide((client, inbound.peer.last_token()), &head, original, record);
        if let Some(rejection) = refused(&decided).cloned() {
            let waited = self.await_arrival(rejection, client, &original.headers);
            match (waited.await, &decided) {
                (Ok(charge), _) => {
                    decided =
                        self.decide((client, inbound.peer.last_token()), &head, original, record);
                    self.settle(charge, client, refused(&decided));
                }
                (Err(rejection), Err(_)) => return Err(rejection),
                (Err(_), Ok(_)) => {}
            }
        }
        let permit = decided?;
        match permit.route().target {
            Target::Elsewhere | Target::Upstream(_) => {}
            // What the gateway itself answers is reached by asking for it, not by asking about it.
            Target::Accounts | Target::AssertionKeys | Target::ForwardAuth => {
                return Err(Rejection::RouteNotFound);
            }
        }
        let mut response = Response::new(Answer::from_bytes(Bytes::new()));
        *response.headers_mut() = self.headers.identity(&permit, &inbound.request_id)?;
        respond::answer::finish_own(response.headers_mut(), self.hsts);
        Ok(response)
    }

    /// The path behind the endpoint's own, with the query; `None` where there is none.
    fn below_endpoint(
        &self,
        inbound: &Inbound<'_>,
        path: &str,
    ) -> Result<Option<PathAndQuery>, Rejection> {
        let endpoint = self.forward_auth.as_ref().map_or("", |on| &*on.path);
        let Some(below) = path.strip_prefix(endpoint).filter(|path| !path.is_empty()) else {
            return Ok(None);
        };
        let target = match inbound.parts.uri.query() {
            Some(query) => format!("{below}?{query}"),
            None => below.to_owned(),
        };
        let target = PathAndQuery::try_from(target).map_err(|_| Rejection::Internal)?;
        Ok(Some(target))
    }
}

/// Why a request is refused, or would be if its route were enforced.
fn refused<'p>(decided: &'p Result<Permit<'_>, Rejection>) -> Option<&'p Rejection> {
    match decided {
        Ok(permit) => permit.unenforced(),
        Err(rejection) => Some(rejection),
    }
}

/// Sends a browser to the login page, where the asking proxy hands our answer on as it is. nginx takes a redirect for a
/// failure: it gets the 401 that it understands, with the address in `Location` beside it.
fn understood_redirect(
    path: &str,
    question: &Parts,
    mut refusal: Response<Bytes>,
    sent_on: Response<Bytes>,
) -> Response<Bytes> {
    let fields = &question.headers;
    if path != ALIAS && !NGINX_FIELDS.iter().any(|name| fields.contains_key(*name)) {
        return sent_on;
    }
    for name in [header::LOCATION, header::SET_COOKIE] {
        for value in sent_on.headers().get_all(&name) {
            refusal.headers_mut().append(&name, value.clone());
        }
    }
    refusal
}

/// The status that says the same to a proxy that asks.
fn understood(status: StatusCode) -> StatusCode {
    let is_kept = status == StatusCode::UNAUTHORIZED || status == StatusCode::TOO_MANY_REQUESTS;
    if status.is_client_error() && !is_kept {
        StatusCode::FORBIDDEN
    } else {
        status
    }
}
