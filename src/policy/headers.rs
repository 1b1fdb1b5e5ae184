//! Which headers leave for the upstream: hop-by-hop out, forged identity out, identity and forwarding fields in.
//!
//! The order is the security: options of `Connection` first, then removal, then injection last, so that nothing a client
//! names can take away what the gateway sets (HDR-1 to HDR-4). Names are compared folded to lower case with `_`, `.` and `-`
//! alike, for CGI and WSGI servers make one variable of them all (HDR-2).

mod edits;
mod forwarding;
mod hop_by_hop;
mod templates;
mod trace;
mod trailers;

use std::{collections::HashSet, sync::Arc};

use http::{
    HeaderMap,
    header::{self, HeaderName, HeaderValue},
};

pub use edits::{HeaderEdits, is_reserved_name};
pub use forwarding::{Forwarding, X_REQUEST_ID};
use forwarding::{TrustedChain, Via};
pub use hop_by_hop::HopByHop;
pub use templates::{IdentityHeaders, MultiValue, Preset, Template};
use templates::{RequestPlaces, check_size, header_value};
use trace::{TRACEPARENT, TRACESTATE};
pub use trace::{TraceField, TraceParent};
pub use trailers::{Direction, Trailers, TrailersTooLarge};

use super::{
    authorize::{Caller, Permit},
    head::HeadLimits,
    rejection::Rejection,
    route::Route,
};

/// The cookie that carries a browser's access token.
pub const SESSION_COOKIE: &str = "__Host-portcullis-session";
/// The cookie that carries a refresh token.
pub const REFRESH_COOKIE: &str = "__Secure-portcullis-refresh";
/// The cookie that says that there is a refresh cookie, where that one is not sent.
pub const RENEWABLE_COOKIE: &str = "__Host-portcullis-renewable";
/// The cookie that counts renewals within seconds.
pub const RENEWALS_COOKIE: &str = "__Host-portcullis-renewals";
/// The cookie of a browser that another host of ours is to send back signed in.
pub const HANDOVER_COOKIE: &str = "__Host-portcullis-handover";
/// The cookie of a browser in which an account was opened before.
pub const DEVICE_COOKIE: &str = "__Host-portcullis-device";

/// Every cookie of the gateway's own: no upstream is told of one, and none may set one.
pub const OWN_COOKIES: [&str; 6] = [
    SESSION_COOKIE,
    REFRESH_COOKIE,
    RENEWABLE_COOKIE,
    RENEWALS_COOKIE,
    HANDOVER_COOKIE,
    DEVICE_COOKIE,
];

/// About how many fields are injected: room is made for them at once.
const INJECTED_USUALLY: usize = 14;

/// Names of every preset, which no client may send whatever preset is chosen.
const PRESET_NAMES: [&str; 10] = [
    "x-forwarded-user",
    "x-forwarded-email",
    "x-forwarded-preferred-username",
    "x-forwarded-groups",
    "x-auth-issuer",
    "x-auth-scopes",
    "remote-user",
    "remote-email",
    "remote-name",
    "remote-groups",
];

/// Further names that upstreams commonly believe (HDR-7).
const RESERVED_NAMES: [&str; 16] = [
    "forwarded",
    "x-real-ip",
    "x-request-id",
    "x-rewrite-url",
    "proxy",
    "client-cert",
    "client-cert-chain",
    "x-client-cert",
    "x-client-verify",
    "x-ssl-cert",
    "x-remote-user",
    "x-cluster-client-ip",
    "x-client-ip",
    "true-client-ip",
    "cf-connecting-ip",
    "x-arr-clientcert",
];

/// Names by which some servers do another method than the request's.
const METHOD_OVERRIDES: [&str; 3] = [
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
];

/// Every name that begins so is reserved.
const RESERVED_PREFIXES: [&str; 6] = [
    "x-forwarded-",
    "x-original-",
    "x-ssl-client-",
    "ssl-client-",
    "x-portcullis-",
    "x-auth-request-",
];

/// What the gateway does to the headers of every forwarded request.
#[derive(Debug)]
pub struct HeaderPolicy {
    reserved: Arc<Reserved>,
    templates: Arc<IdentityHeaders>,
    via: Via,
    pass_token: bool,
}

/// What a client has sent that does not go on as it is.
#[derive(Debug, Default)]
struct Found {
    hops: HopByHop,
    /// Reserved names, in all their spellings, and names with an underscore.
    reserved: Vec<HeaderName>,
    has_via: bool,
    has_cookie: bool,
    has_trace: bool,
}

/// The names that no client may send.
#[derive(Debug, Clone)]
struct Reserved {
    names: HashSet<Box<str>>,
    initials: Initials,
}

/// The initial letters of a set of names: most headers of most requests are in no list, and their first letter says so.
#[derive(Debug, Clone, Copy)]
struct Initials(u32);

impl HeaderPolicy {
    /// Makes the policy. `pseudonym` is the gateway's name in `Via`: a token that is the same on every node of one gateway
    /// and differs between gateways, so that a loop is seen and a chain is not taken for one.
    ///
    /// # Errors
    /// When the pseudonym is not a token that fits a header.
    pub fn new(
        templates: Arc<IdentityHeaders>,
        pseudonym: &str,
        pass_token: bool,
    ) -> Result<Self, http::Error> {
        let reserved: HashSet<Box<str>> = PRESET_NAMES
            .iter()
            .chain(&RESERVED_NAMES)
            .map(|name| Box::from(*name))
            .chain(
                templates
                    .names()
                    .map(|name| fold(name.as_str()).into_owned().into_boxed_str()),
            )
            .collect();
        let initials = reserved.iter().map(|name| &**name).chain(RESERVED_PREFIXES);
        let initials = Initials::of(initials);
        Ok(Self {
            reserved: Arc::new(Reserved {
                names: reserved,
                initials,
            }),
            templates,
            via: Via::new(pseudonym)?,
            pass_token,
        })
    }

    /// The same where routes go by the method: fields that name another one are taken out, for an upstream that obeys them would do
    /// what was not decided on (URI-2).
    #[must_use]
    pub fn without_method_overrides(mut self) -> Self {
        let reserved = Arc::make_mut(&mut self.reserved);
        let names = METHOD_OVERRIDES.into_iter();
        reserved.names.extend(names.map(Box::from));
        let initials = reserved.names.iter().map(|name| &**name);
        reserved.initials = Initials::of(initials.chain(RESERVED_PREFIXES));
        self
    }

    /// The compiled identity headers.
    #[must_use]
    pub fn templates(&self) -> &Arc<IdentityHeaders> {
        &self.templates
    }

    /// Rewrites the headers of an admitted request in place for its upstream.
    ///
    /// # Errors
    /// [`Rejection::LoopDetected`] where the request has passed this gateway before, [`Rejection::ClaimMismatch`] where a
    /// header cannot be written.
    pub fn prepare(
        &self,
        headers: &mut HeaderMap,
        permit: &Permit<'_>,
        from: &Forwarding<'_>,
    ) -> Result<(), Rejection> {
        let found = self.look_through(headers);
        if found.has_via && self.via.is_in(headers) {
            return Err(Rejection::LoopDetected);
        }
        let chain = TrustedChain::take(headers, from.believed);
        found.hops.strip(headers, &[]);
        for name in found.reserved {
            headers.remove(name);
        }
        if permit.consumed_credential() && !self.pass_token {
            headers.remove(header::AUTHORIZATION);
        }
        if found.has_cookie {
            strip_cookies(headers);
        }
        // Before the injection: what the gateway says of the caller stands whatever the operator wrote.
        let edits = &permit.route().request_headers;
        edits.apply(headers);
        headers.reserve(INJECTED_USUALLY);
        self.inject_identity(headers, permit, from.request_id)?;
        forwarding::inject(headers, permit, from, chain, &self.via)?;
        let has_trace = found.has_trace || !edits.set.is_empty();
        trace::pass_on(headers, from.request_id, from.trace, has_trace);
        Ok(())
    }

    /// What may follow a message on a route whose trailers pass; `None` on others (MSG-13). `headers` are those that came.
    #[must_use]
    pub fn trailers(
        &self,
        direction: Direction,
        headers: &HeaderMap,
        route: &Route,
        limits: &HeadLimits,
    ) -> Option<Box<Trailers>> {
        let edits = match direction {
            Direction::Request => &route.request_headers,
            Direction::Answer => &route.response_headers,
        };
        route.streams.trailers.then(|| {
            let trailers = Trailers::new(direction, &self.reserved, headers, edits, limits);
            Box::new(trailers)
        })
    }

    /// The identity headers alone, for a proxy that forwards the request itself. Empty for nobody.
    ///
    /// # Errors
    /// [`Rejection::ClaimMismatch`] where a header cannot be written.
    pub fn identity(
        &self,
        permit: &Permit<'_>,
        request_id: &HeaderValue,
    ) -> Result<HeaderMap, Rejection> {
        let mut headers = HeaderMap::new();
        self.inject_identity(&mut headers, permit, request_id)?;
        Ok(headers)
    }

    /// Looks once at every name that a client has sent: most of those that matter are in few requests, and a look-up of each
    /// would cost more.
    fn look_through(&self, headers: &HeaderMap) -> Found {
        let mut found = Found::default();
        for name in headers.keys() {
            found.hops.look_at(name);
            found.has_via |= *name == header::VIA;
            found.has_cookie |= *name == header::COOKIE;
            found.has_trace |= *name == TRACEPARENT || *name == TRACESTATE;
            if self.reserved.has(name.as_str()) {
                found.reserved.push(name.clone());
            }
        }
        found
    }

    fn inject_identity(
        &self,
        headers: &mut HeaderMap,
        permit: &Permit<'_>,
        request_id: &HeaderValue,
    ) -> Result<(), Rejection> {
        let Caller::Verified(identity) = permit.caller() else {
            return Ok(());
        };
        for (name, value) in identity.headers() {
            headers.append(name, value.clone());
        }
        if self.templates.by_request.is_empty() {
            return Ok(());
        }
        let places = RequestPlaces {
            client_ip: permit.client().ip(),
            request_id: request_id.to_str().map_err(|_| Rejection::Internal)?,
            route: &permit.route().name,
        };
        for (name, template) in &self.templates.by_request {
            if let Some(text) =
                template.write(self.templates.multi_value, identity.claims(), Some(&places))?
            {
                headers.insert(name, header_value(&text)?);
            }
        }
        check_size(
            self.templates
                .names()
                .filter_map(|name| Some((name, headers.get(name)?))),
        )
    }
}

impl Reserved {
    /// Whether the name is one of them, in any spelling, or has an underscore.
    fn has(&self, name: &str) -> bool {
        if name.as_bytes().contains(&b'_') {
            return true;
        }
        if !self.initials.has(name) {
            return false;
        }
        let name = fold(name);
        self.names.contains(&*name)
            || RESERVED_PREFIXES
                .iter()
                .any(|prefix| name.starts_with(prefix))
    }
}

impl Initials {
    fn of<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        Self(names.fold(0, |letters, name| letters | Self::bit(name)))
    }

    fn has(self, name: &str) -> bool {
        self.0 & Self::bit(name) != 0
    }

    /// One bit for each letter; everything else shares one.
    fn bit(name: &str) -> u32 {
        match name.as_bytes().first() {
            Some(letter @ b'a'..=b'z') => 1 << (letter - b'a'),
            Some(_) | None => 1 << 26,
        }
    }
}

/// Lower case with `_` and `.` read as `-`. Header names of `http` are lower case already.
fn fold(name: &str) -> std::borrow::Cow<'_, str> {
    if name.contains(['_', '.']) {
        name.replace(['_', '.'], "-").into()
    } else {
        name.into()
    }
}

/// Removes the gateway's own cookies and keeps the others as they were. By bytes: one cookie that is not ASCII must not
/// carry ours past.
fn strip_cookies(headers: &mut HeaderMap) {
    let is_ours = |pair: &[u8]| {
        let name = pair.split(|byte| *byte == b'=').next().unwrap_or_default();
        let name = name.trim_ascii();
        OWN_COOKIES.iter().any(|ours| name == ours.as_bytes())
    };
    let pairs = |line: &HeaderValue| -> Vec<Vec<u8>> {
        line.as_bytes()
            .split(|byte| *byte == b';')
            .map(|pair| pair.trim_ascii().to_vec())
            .collect()
    };
    let has_ours = |line: &HeaderValue| line.as_bytes().split(|byte| *byte == b';').any(is_ours);
    if !headers.get_all(header::COOKIE).iter().any(has_ours) {
        return;
    }
    let lines: Vec<HeaderValue> = headers.get_all(header::COOKIE).iter().cloned().collect();
    headers.remove(header::COOKIE);
    for line in lines {
        let mut kept = pairs(&line);
        kept.retain(|pair| !pair.is_empty() && !is_ours(pair));
        if let (false, Ok(value)) = (
            kept.is_empty(),
            HeaderValue::from_bytes(&kept.join(&b"; "[..])),
        ) {
            headers.append(header::COOKIE, value);
        }
    }
}

#[cfg(test)]
mod tests;
