//! Statements on the way of a request, and the place where their keys are published.

use std::time::SystemTime;

use http::{
    HeaderName, HeaderValue, Method, Response,
    header::{CACHE_CONTROL, CONTENT_TYPE},
    uri::PathAndQuery,
};

use super::{Admitted, Answer, Gateway, Lane};
use crate::{
    accounts::PUBLISHED_MAX_AGE,
    assertion::{KEYS_PATH, Statement, X_PORTCULLIS_ASSERTION},
    policy::{Access, Caller, PathPattern, Rejection, Route, Target},
    respond,
    upstream::Upstream,
};

/// The route of the public keys, for the route table.
#[must_use]
pub fn routes() -> Vec<Route> {
    let path = PathPattern::Exact(KEYS_PATH.into());
    let target = Target::AssertionKeys;
    vec![Route {
        methods: vec![Method::GET, Method::HEAD],
        ..Route::built_in("assertion_keys", path, target, Access::Public)
    }]
}

impl Gateway {
    /// The field that states to an upstream who calls, with what leaves for it; `None` where none are made, and for nobody.
    pub(super) fn statement(
        &self,
        lane: &Lane,
        admitted: &Admitted<'_>,
        upstream: &Upstream,
        (method, target): (&Method, &PathAndQuery),
    ) -> Result<Option<(HeaderName, HeaderValue)>, Rejection> {
        let caller = admitted.permit.caller();
        let (Some(assertions), Caller::Verified(identity)) = (&self.assertions, caller) else {
            return Ok(None);
        };
        let settings = upstream.settings();
        // The configuration was refused unless they all have the same.
        let base_path = settings.servers.first().map_or("", |one| &*one.base_path);
        let statement = Statement {
            identity,
            upstream: &settings.name,
            method,
            base_path,
            target,
        };
        let value = assertions.state(&lane.statements, &statement, SystemTime::now())?;
        Ok(Some((X_PORTCULLIS_ASSERTION, value)))
    }

    pub(super) fn answer_assertion_keys(&self) -> Response<Answer> {
        let jwks = self.assertions.as_ref().map(|on| on.jwks());
        let mut response = Response::new(Answer::from_bytes(jwks.unwrap_or_default()));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let kept = format!("public, max-age={}", PUBLISHED_MAX_AGE.as_secs());
        if let Ok(kept) = HeaderValue::from_str(&kept) {
            headers.insert(CACHE_CONTROL, kept);
        }
        respond::answer::finish_own(headers, self.hsts);
        response
    }
}
