//! Why would a request be decided as it would? The decision of the live path, and what each of its steps finds.
//!
//! The verdict is [`Gateway::admit`]'s. The steps are told by asking the same functions once more, in the same order, up to
//! the one that refuses; a test holds that both come to the same end. Nothing is forwarded.

use std::time::SystemTime;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version, header, request::Parts};

use super::{Gateway, Peer};
use crate::{
    assertion::X_PORTCULLIS_ASSERTION,
    authn::{Arrival, credential},
    policy::{
        Access, Caller, ForwardedHeaders, Forwarding, Head, Permit, Rejection, Route, Target,
        Unlimited, authorize, browser::is_by_cookie, headers::SESSION_COOKIE,
    },
    telemetry::{Record, RequestIds},
};

/// What would become of a request, and why.
#[derive(Debug)]
pub struct Explanation {
    /// What each step found, in the order of the decision; the last one may have refused.
    pub steps: Vec<Step>,
    /// The refusal; `None` for a request that would be admitted.
    pub refused: Option<Rejection>,
    /// What a route that is not enforced would have refused.
    pub unenforced: Option<Rejection>,
    /// The route, once it was found.
    pub route: Option<Box<str>>,
    /// Where the request would go.
    pub target: Option<Box<str>>,
    /// What the upstream would be told that the client did not say, in the order of the fields.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// What the client said and the upstream would not be told.
    pub removed: Vec<HeaderName>,
}

/// One step of a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What it decides.
    pub name: &'static str,
    /// What it found.
    pub found: Result<String, Rejection>,
}

/// The steps so far.
#[derive(Default)]
struct Story(Vec<Step>);

impl Story {
    /// Tells the outcome of a step, and goes on only if it did not refuse.
    fn step<T>(
        &mut self,
        name: &'static str,
        outcome: Result<T, Rejection>,
        tell: impl FnOnce(&T) -> String,
    ) -> Result<T, Rejection> {
        let found = match &outcome {
            Ok(found) => Ok(tell(found)),
            Err(rejection) => Err(rejection.clone()),
        };
        self.0.push(Step { name, found });
        outcome
    }
}

impl Explanation {
    /// The status of the answer; 200 stands for the upstream's own.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.refused
            .as_ref()
            .map_or(StatusCode::OK, Rejection::status)
    }

    /// The code that log and metrics would bear: `admitted`, or the refusal's.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.refused.as_ref().map_or("admitted", Rejection::code)
    }
}

impl Gateway {
    /// Tells what would become of a request of this peer, whose connection was made for the request's host.
    #[must_use]
    pub fn explain(&self, peer: &Peer, request: &Parts) -> Explanation {
        let request_id = RequestIds::new().next();
        let mut record = Record::begin(request, peer.ip.ip(), request_id);
        let refused = self.admit(peer, request, &mut record).err();
        let mut story = Story::default();
        let mut explanation = Explanation {
            steps: Vec::new(),
            refused,
            unenforced: None,
            route: None,
            target: None,
            set: Vec::new(),
            removed: Vec::new(),
        };
        // The story ends where a step refuses, which the verdict has said already.
        let _ = self.tell(peer, request, &mut story, &mut explanation);
        explanation.steps = story.0;
        explanation
    }

    /// What may bring the key that a refused request's token names; see [`Authenticator::arrival`](crate::authn::Authenticator).
    #[must_use]
    pub fn awaited(&self, explanation: &Explanation, request: &Parts) -> Option<Arrival> {
        let refused = explanation.refused.as_ref();
        let rejection = refused.or(explanation.unenforced.as_ref())?;
        let arrival = self.authn.arrival(rejection, &request.headers, &Unlimited);
        arrival.ok().flatten()
    }

    fn tell(
        &self,
        peer: &Peer,
        request: &Parts,
        story: &mut Story,
        explanation: &mut Explanation,
    ) -> Result<(), Rejection> {
        let client = self.proxies.client_ip(peer.ip, &request.headers);
        story.step("client", Ok(()), |()| self.told_client(peer, request))?;
        let head = story.step("head", Head::read(request, &self.head), |head| {
            format!("host {}, path {}", head.host, head.path.as_str())
        })?;
        story.step("limit", Ok(()), |()| {
            "per_ip counts the client's address; nothing is counted here".to_owned()
        })?;
        let found = self
            .routes
            .find(&head.host, head.path.as_str(), &request.method);
        let route = story.step("route", found, |route| told_route(route))?;
        explanation.route = Some((*route.name).into());
        explanation.target = Some(self.told_target(route));
        if route.enforce {
            let addresses = &route.addresses;
            story.step("addresses", addresses.check(client), |()| {
                if addresses.allow.is_empty() && addresses.deny.is_empty() {
                    "no list".to_owned()
                } else {
                    format!("{client} is not kept out")
                }
            })?;
        }
        let now = SystemTime::now();
        let caller = self.find_caller((route, peer.last_token()), request, now, &Unlimited);
        let caller = self.check_browser(caller, route, &head, request);
        let told = caller.clone();
        if route.enforce {
            story.step("caller", told, |caller| told_caller(caller, route, request))?;
        } else {
            // Whatever it finds, an unenforced route goes on.
            let _ = story.step("caller", told, |caller| told_caller(caller, route, request));
        }
        let permit = story.step("rule", authorize(route, client, caller), told_rule)?;
        explanation.unenforced = permit.unenforced().cloned();
        self.tell_headers((peer, request, &head), &permit, story, explanation)
    }

    fn tell_headers(
        &self,
        (peer, request, head): (&Peer, &Parts, &Head<'_>),
        permit: &Permit<'_>,
        story: &mut Story,
        explanation: &mut Explanation,
    ) -> Result<(), Rejection> {
        if !matches!(permit.route().target, Target::Upstream(_)) {
            return Ok(());
        }
        let host = HeaderValue::from_str(head.authority).map_err(|_| Rejection::Internal)?;
        let from = Forwarding {
            peer: &peer.field,
            believed: self.proxies.believed(peer.ip),
            host: &host,
            version: Version::HTTP_11,
            request_id: &RequestIds::new().next().to_header_value(),
            trace: self.trace_field(None, self.proxies.trusts(peer.ip)),
        };
        let mut headers = request.headers.clone();
        headers.insert(header::HOST, host.clone());
        let prepared = self.headers.prepare(&mut headers, permit, &from);
        if self.assertions.is_some() && permit.caller().identity().is_some() {
            // A statement that somebody reads off a terminal could be used.
            let told = HeaderValue::from_static("(signed for each request)");
            headers.insert(X_PORTCULLIS_ASSERTION, told);
        }
        (explanation.set, explanation.removed) = difference(&request.headers, &headers);
        let (set, removed) = (explanation.set.len(), explanation.removed.len());
        story.step("headers", prepared, |()| {
            format!("{set} set by the gateway, {removed} of the client's removed")
        })
    }

    fn told_client(&self, peer: &Peer, request: &Parts) -> String {
        let client = self.proxies.client_ip(peer.ip, &request.headers);
        let field = match self.proxies.fields() {
            ForwardedHeaders::XForwarded => "X-Forwarded-For",
            ForwardedHeaders::Forwarded => "Forwarded",
        };
        let is_named = request.headers.contains_key(field);
        match (self.proxies.trusts(peer.ip), is_named) {
            (true, true) => format!("{client}, by {field} of a trusted proxy"),
            (false, true) => {
                format!("{client}, the peer, which is no trusted proxy: {field} is ignored")
            }
            (_, false) => format!("{client}, the peer"),
        }
    }

    fn told_target(&self, route: &Route) -> Box<str> {
        match route.target {
            Target::Accounts => "(accounts)".into(),
            Target::AssertionKeys => "(assertion keys)".into(),
            Target::Elsewhere => "(another proxy)".into(),
            Target::ForwardAuth => "(forward_auth)".into(),
            Target::Upstream(id) => {
                let upstream = self.upstreams.get(id.0);
                upstream
                    .map_or("?", |upstream| &upstream.settings().name)
                    .into()
            }
        }
    }
}

fn told_route(route: &Route) -> String {
    let access = match route.access {
        Access::Authenticated => "authenticated",
        Access::Optional => "optional",
        Access::Public => "public",
    };
    let enforced = if route.enforce { "" } else { ", not enforced" };
    let strict = if route.strict { ", strict" } else { "" };
    format!("{}, {access}{enforced}{strict}", route.name)
}

fn told_caller(caller: &Caller, route: &Route, request: &Parts) -> String {
    match caller {
        Caller::Anonymous if route.access == Access::Public => {
            "nobody: credentials are not looked at".to_owned()
        }
        Caller::Anonymous => {
            let cookie = route.browsers.cookie;
            match (cookie, credential::session(&request.headers)) {
                (true, Ok(Some(_))) => {
                    format!("nobody: the cookie {SESSION_COOKIE} is not, or no longer, good")
                }
                (true, _) => {
                    format!("nobody: neither a bearer token nor {SESSION_COOKIE} was sent")
                }
                (false, _) => format!(
                    "nobody: no bearer token was sent (a cookie {SESSION_COOKIE} is not looked at)"
                ),
            }
        }
        Caller::Verified(identity) => {
            let claims = identity.claims();
            let key = claims.key_id.as_deref().unwrap_or("the only one");
            let list = |texts: &[Box<str>]| match texts {
                [] => "none".to_owned(),
                texts => texts.join(" "),
            };
            let by = match is_by_cookie(route, &request.headers) {
                true => ", by cookie",
                false => "",
            };
            format!(
                "subject {} of issuer {}{by}, verified with key {key}; roles {}; scopes {}; expires at {}",
                claims.subject,
                claims.issuer_name,
                list(&claims.roles),
                list(&claims.scopes),
                claims.expires_at,
            )
        }
    }
}

fn told_rule(permit: &Permit<'_>) -> String {
    match permit.unenforced() {
        None => "allows it".to_owned(),
        Some(rejection) => format!(
            "would refuse it with {}, were it enforced",
            rejection.code()
        ),
    }
}

/// What was set, and what is gone. A field whose values are as they were is neither.
fn difference(
    before: &HeaderMap,
    after: &HeaderMap,
) -> (Vec<(HeaderName, HeaderValue)>, Vec<HeaderName>) {
    let was_there = |name: &HeaderName, value: &HeaderValue| {
        before.get_all(name).iter().any(|old| old == value)
    };
    let mut set: Vec<_> = after
        .iter()
        .filter(|(name, value)| !was_there(name, value))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    set.sort_by(|(one, _), (other, _)| one.as_str().cmp(other.as_str()));
    let gone = before.keys().filter(|name| !after.contains_key(*name));
    (set, gone.cloned().collect())
}
