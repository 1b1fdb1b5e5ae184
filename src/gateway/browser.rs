//! What is done for browsers alone: their session cookie is guarded, and whoever must sign in first is sent to do so.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, header, request::Parts};

use super::{Answer, Gateway, Inbound, note};
use crate::{
    policy::{
        Caller, Cors, Head, Rejection, Route,
        browser::{check_change, is_by_cookie, is_navigation, may_be_sent_on},
    },
    respond::{self, page::Look},
    telemetry::Record,
};

/// How refusals look where there are no accounts.
static PLAIN: LazyLock<Look> = LazyLock::new(Look::default);

/// What a page reads of a refusal beside its body.
const READABLE: HeaderValue = HeaderValue::from_static("Retry-After, WWW-Authenticate");

impl Gateway {
    /// Refuses a change that another site's page makes in the name of whoever is signed in (SESS-6).
    pub(super) fn check_browser(
        &self,
        caller: Result<Caller, Rejection>,
        route: &Route,
        head: &Head<'_>,
        request: &Parts,
    ) -> Result<Caller, Rejection> {
        let caller = caller?;
        if caller.identity().is_some() && is_by_cookie(route, &request.headers) {
            let own = self.pages.as_ref().map_or("", |pages| &*pages.origin);
            check_change(request, head.authority, own, route)?;
        }
        Ok(caller)
    }

    /// Sends a browser that opened a page and is not signed in to the login page, where its route says so. Every other refusal
    /// stands, and this one is what log and metrics tell.
    ///
    /// # Errors
    /// The refusal, which stands.
    pub(super) fn send_to_sign_in(
        &self,
        rejection: Rejection,
        request: &Parts,
        record: &mut Record,
    ) -> Result<Response<Answer>, Rejection> {
        match self.sign_in_answer(&rejection, request) {
            None => Err(rejection),
            Some(mut response) => {
                note(&rejection, record);
                respond::answer::finish_own(response.headers_mut(), self.hsts);
                Ok(response.map(Answer::from_bytes))
            }
        }
    }

    /// The answer that sends a browser to the login page; `None` where the refusal stands.
    pub(super) fn sign_in_answer(
        &self,
        rejection: &Rejection,
        request: &Parts,
    ) -> Option<Response<Bytes>> {
        let pages = self.pages.as_ref()?;
        if !is_for_want_of_sign_in(rejection) || !may_be_sent_on(&request.method, &request.headers)
        {
            return None;
        }
        let head = Head::read(request, &self.head).ok()?;
        let path = head.path.as_str();
        let route = self.routes.find(&head.host, path, &request.method).ok()?;
        if !route.browsers.sign_in {
            return None;
        }
        let target = match head.query {
            Some(query) => format!("{path}?{query}"),
            None => path.to_owned(),
        };
        pages
            .sign_in(route, &head.host, &target, &request.headers)
            .ok()?
    }

    /// Lets a page of another origin read a refusal where it may read the route's answers: it could not tell a token that has
    /// expired from a network that is down, nor how long to wait.
    pub(super) fn let_page_read(&self, inbound: &mut Inbound<'_>, refusal: &mut HeaderMap) {
        let kept = inbound.reader.take();
        let Some((cors, origin)) = kept.or_else(|| self.reader(&inbound.parts)) else {
            return;
        };
        cors.finish(refusal, Some(origin));
        refusal.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, READABLE);
    }

    /// The origin that may read what the route of this request answers, and by which rule.
    fn reader(&self, request: &Parts) -> Option<(Arc<Cors>, HeaderValue)> {
        if !request.headers.contains_key(header::ORIGIN) {
            return None;
        }
        let head = Head::read(request, &self.head).ok()?;
        let path = head.path.as_str();
        let route = self.routes.find(&head.host, path, &request.method).ok()?;
        let cors = route.cors.as_ref()?;
        Some((Arc::clone(cors), cors.granted(&request.headers)?))
    }

    /// Makes a page of a refusal for a person, and leaves it as it is for a program.
    pub(super) fn shown(
        &self,
        rejection: &Rejection,
        is_page: bool,
        record: &Record,
        document: Response<Bytes>,
    ) -> Response<Bytes> {
        if !is_page {
            return document;
        }
        let Some(pages) = &self.pages else {
            return PLAIN.refusal(rejection, &record.request_id, document, None);
        };
        // Whoever opened a page would have been sent there, where that helps.
        let is_form = !matches!(record.method, Method::GET | Method::HEAD);
        let may_help = is_form && is_for_want_of_sign_in(rejection);
        let login = may_help.then(|| pages.login_url());
        let look = &pages.look;
        look.refusal(rejection, &record.request_id, document, login.as_deref())
    }
}

/// Whether who is refused could pass once he has signed in.
fn is_for_want_of_sign_in(rejection: &Rejection) -> bool {
    matches!(
        rejection,
        Rejection::CredentialsMissing | Rejection::TokenExpired | Rejection::TokenInvalid(_)
    )
}

/// Whether a person will look at the answer of this request.
pub(super) fn wants_page(request: &Parts) -> bool {
    is_navigation(&request.method, &request.headers)
}
