//! Which headers leave for the upstream: hop-by-hop out, forged identity out, identity and forwarding fields in.
//!
//! The order is the security: options of `Connection` first, then removal, then injection last, so that nothing a client
//! names can take away what the gateway sets (HDR-1 to HDR-4). Names are compared folded to lower case with `_`, `.` and `-`
//! alike, for CGI and WSGI servers make one variable of them all (HDR-2).

use std::{collections::HashSet, net::IpAddr, sync::Arc};

use http::{
    HeaderMap, Version,
    header::{self, HeaderName, HeaderValue},
};
use serde_json::Value;

use super::{
    authorize::{Access, Caller, Permit, find},
    identity::Claims,
    rejection::{ClaimFault, Rejection},
};

/// The cookie that carries a browser's access token.
pub const SESSION_COOKIE: &str = "__Host-portcullis-session";
/// The cookie that carries a refresh token.
pub const REFRESH_COOKIE: &str = "__Secure-portcullis-refresh";

/// All injected identity values of one request together, in bytes (HDR-5).
const INJECTED_BYTES_MAX: usize = 8 << 10;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
/// The field that names a request across the chain.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Fields that belong to one connection (RFC 9110 §7.6.1), and `Expect`, which the gateway answers itself.
const HOP_BY_HOP: [HeaderName; 10] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("http2-settings"),
    header::PROXY_AUTHORIZATION,
    header::EXPECT,
];

/// End-to-end fields that `Connection` may not take away: framing, routing and credentials.
const NOT_CONNECTION_OPTIONS: [HeaderName; 5] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::AUTHORIZATION,
    header::COOKIE,
];

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

/// Every name that begins so is reserved.
const RESERVED_PREFIXES: [&str; 6] = [
    "x-forwarded-",
    "x-original-",
    "x-ssl-client-",
    "ssl-client-",
    "x-portcullis-",
    "x-auth-request-",
];

/// How the values of a list are written in one header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MultiValue {
    /// `a,b`; a comma inside a value is escaped.
    #[default]
    Comma,
    /// `["a","b"]`.
    Json,
    /// One field for each value.
    Repeat,
    /// `a b`; a space inside a value is escaped.
    Space,
}

/// A named set of identity headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Preset {
    /// `Remote-User`, `Remote-Email`, `Remote-Name`, `Remote-Groups`.
    Authelia,
    /// No header.
    None,
    /// The first four of `Portcullis`.
    Oauth2Proxy,
    /// `X-Forwarded-User`, `-Email`, `-Preferred-Username`, `-Groups`, `X-Auth-Issuer`, `X-Auth-Scopes`.
    #[default]
    Portcullis,
}

/// A header value with places for claims: `{user}`, `{claims.tenant}`, `{client_ip}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(Box<str>),
    Place(Place),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Claim(Box<str>),
    ClientIp,
    Email,
    Issuer,
    Name,
    RequestId,
    Roles,
    Route,
    Scopes,
    Session,
    Subject,
    User,
}

/// The identity headers of the configuration, compiled.
#[derive(Debug, Default)]
pub struct IdentityHeaders {
    /// Those that depend on the identity alone: written once per token.
    by_identity: Vec<(HeaderName, Template)>,
    /// Those that name the client, the request or the route: written for each request.
    by_request: Vec<(HeaderName, Template)>,
    multi_value: MultiValue,
}

/// What the gateway does to the headers of every forwarded request.
#[derive(Debug)]
pub struct HeaderPolicy {
    reserved: HashSet<Box<str>>,
    templates: Arc<IdentityHeaders>,
    pseudonym: Box<str>,
    via: HeaderValue,
    via_h2: HeaderValue,
    pass_token: bool,
}

/// What is known of a request besides its own headers.
#[derive(Debug)]
pub struct Forwarding<'a> {
    /// The peer of the socket.
    pub peer: IpAddr,
    /// Whether the peer's forwarding fields are believed.
    pub peer_is_trusted: bool,
    /// Host and port that the client asked for.
    pub authority: &'a str,
    /// The protocol version of the client's request.
    pub version: Version,
    /// The request's id: 1 to 64 letters, digits and hyphens.
    pub request_id: &'a str,
}

impl Template {
    /// Compiles a template.
    ///
    /// # Errors
    /// The unknown or unclosed place.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            if !before.is_empty() {
                pieces.push(Piece::Text(before.into()));
            }
            let (name, after) = after
                .split_once('}')
                .ok_or_else(|| format!("`{{{after}` is not closed"))?;
            pieces.push(Piece::Place(
                Place::parse(name).ok_or_else(|| format!("unknown place `{{{name}}}`"))?,
            ));
            rest = after;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.into()));
        }
        Ok(Self(pieces))
    }

    fn is_by_request(&self) -> bool {
        let by_request =
            |place: &Place| matches!(place, Place::ClientIp | Place::RequestId | Place::Route);
        self.0
            .iter()
            .any(|piece| matches!(piece, Piece::Place(place) if by_request(place)))
    }
}

impl Place {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "client_ip" => Self::ClientIp,
            "email" => Self::Email,
            "issuer" => Self::Issuer,
            "name" => Self::Name,
            "request_id" => Self::RequestId,
            "roles" => Self::Roles,
            "route" => Self::Route,
            "scopes" => Self::Scopes,
            "session" => Self::Session,
            "subject" => Self::Subject,
            "user" => Self::User,
            _ => Self::Claim(
                name.strip_prefix("claims.")
                    .filter(|path| !path.is_empty())?
                    .into(),
            ),
        })
    }
}

impl Preset {
    /// The headers of the preset, name and template.
    #[must_use]
    pub const fn headers(self) -> &'static [(&'static str, &'static str)] {
        const PORTCULLIS: [(&str, &str); 6] = [
            ("x-forwarded-user", "{user}"),
            ("x-forwarded-email", "{email}"),
            ("x-forwarded-preferred-username", "{name}"),
            ("x-forwarded-groups", "{roles}"),
            ("x-auth-issuer", "{issuer}"),
            ("x-auth-scopes", "{scopes}"),
        ];
        const OAUTH2_PROXY: [(&str, &str); 4] =
            [PORTCULLIS[0], PORTCULLIS[1], PORTCULLIS[2], PORTCULLIS[3]];
        match self {
            Self::Authelia => &[
                ("remote-user", "{user}"),
                ("remote-email", "{email}"),
                ("remote-name", "{name}"),
                ("remote-groups", "{roles}"),
            ],
            Self::None => &[],
            Self::Oauth2Proxy => &OAUTH2_PROXY,
            Self::Portcullis => &PORTCULLIS,
        }
    }
}

impl IdentityHeaders {
    /// Compiles a preset and the operator's own headers, which add to it or replace one of it.
    ///
    /// # Panics
    /// Never: the presets' templates are checked by a test.
    #[must_use]
    pub fn new(preset: Preset, own: Vec<(HeaderName, Template)>, multi_value: MultiValue) -> Self {
        let mut headers: Vec<(HeaderName, Template)> = Vec::new();
        for (name, template) in preset.headers() {
            if let Ok(template) = Template::parse(template) {
                headers.push((HeaderName::from_static(name), template));
            }
        }
        headers.retain(|(name, _)| own.iter().all(|(other, _)| other != name));
        headers.extend(own);
        let (by_request, by_identity) = headers
            .into_iter()
            .partition(|(_, template)| template.is_by_request());
        Self {
            by_identity,
            by_request,
            multi_value,
        }
    }

    /// Every name that is set, for the list of those that clients may not send.
    pub fn names(&self) -> impl Iterator<Item = &HeaderName> {
        self.by_identity
            .iter()
            .chain(&self.by_request)
            .map(|(name, _)| name)
    }

    /// Writes the headers that depend on the identity alone. A header whose claim is absent is left out.
    ///
    /// # Errors
    /// [`Rejection::ClaimMismatch`] where a value has control characters or all together are over 8 KiB (HDR-5).
    pub(super) fn render(
        &self,
        claims: &Claims,
    ) -> Result<Vec<(HeaderName, HeaderValue)>, Rejection> {
        let mut headers = Vec::with_capacity(self.by_identity.len());
        for (name, template) in &self.by_identity {
            if let (MultiValue::Repeat, [Piece::Place(Place::Roles | Place::Scopes)]) =
                (self.multi_value, &*template.0)
            {
                let list = if template.0 == [Piece::Place(Place::Roles)] {
                    &claims.roles
                } else {
                    &claims.scopes
                };
                for value in list.iter().filter(|value| !value.is_empty()) {
                    headers.push((name.clone(), header_value(&escape(value, |_| false)?)?));
                }
            } else if let Some(text) = template.write(self.multi_value, claims, None)? {
                headers.push((name.clone(), header_value(&text)?));
            }
        }
        check_size(headers.iter().map(|(name, value)| (name, value)))?;
        Ok(headers)
    }
}

/// Refuses more than 8 KiB of injected headers (HDR-5): a server behind us may cut or refuse a longer section.
fn check_size<'h>(
    headers: impl Iterator<Item = (&'h HeaderName, &'h HeaderValue)>,
) -> Result<(), Rejection> {
    let bytes: usize = headers
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum();
    if bytes > INJECTED_BYTES_MAX {
        return Err(Rejection::ClaimMismatch(ClaimFault::Unprintable));
    }
    Ok(())
}

/// What a template over the request may name.
struct RequestPlaces<'a> {
    client_ip: IpAddr,
    request_id: &'a str,
    route: &'a str,
}

impl Template {
    /// Fills the places; `None` where a claim is absent.
    fn write(
        &self,
        multi: MultiValue,
        claims: &Claims,
        request: Option<&RequestPlaces<'_>>,
    ) -> Result<Option<String>, Rejection> {
        let mut text = String::new();
        for piece in &self.0 {
            let value = match piece {
                Piece::Text(literal) => Some(literal.to_string()),
                Piece::Place(place) => place.write(multi, claims, request)?,
            };
            let Some(value) = value else { return Ok(None) };
            text.push_str(&value);
        }
        Ok(Some(text))
    }
}

impl Place {
    fn write(
        &self,
        multi: MultiValue,
        claims: &Claims,
        request: Option<&RequestPlaces<'_>>,
    ) -> Result<Option<String>, Rejection> {
        let one = |value: &Option<Box<str>>| {
            value
                .as_deref()
                .map(|value| escape(value, |_| false))
                .transpose()
        };
        match self {
            Self::Claim(path) => {
                find(&claims.all, path).map_or(Ok(None), |value| write_json(multi, value))
            }
            Self::ClientIp => Ok(request.map(|request| request.client_ip.to_string())),
            Self::Email => one(&claims.email),
            Self::Issuer => escape(&claims.issuer, |_| false).map(Some),
            Self::Name => one(&claims.name),
            Self::RequestId => Ok(request.map(|request| request.request_id.to_owned())),
            Self::Roles => write_list(multi, claims.roles.iter().map(|role| &**role)),
            Self::Route => Ok(request.map(|request| request.route.to_owned())),
            Self::Scopes => write_list(multi, claims.scopes.iter().map(|scope| &**scope)),
            Self::Session => one(&claims.session),
            Self::Subject => escape(&claims.subject, |_| false).map(Some),
            Self::User => one(&claims.user),
        }
    }
}

fn write_json(multi: MultiValue, value: &Value) -> Result<Option<String>, Rejection> {
    match value {
        Value::Null => Ok(None),
        Value::Bool(value) => Ok(Some(value.to_string())),
        Value::Number(value) => Ok(Some(value.to_string())),
        Value::String(value) => escape(value, |_| false).map(Some),
        Value::Array(list) => {
            let texts: Vec<String> = list
                .iter()
                .map(|value| {
                    value
                        .as_str()
                        .map_or_else(|| value.to_string(), ToOwned::to_owned)
                })
                .collect();
            write_list(multi, texts.iter().map(String::as_str))
        }
        Value::Object(_) => escape(&value.to_string(), |_| false).map(Some),
    }
}

fn write_list<'a>(
    multi: MultiValue,
    values: impl Iterator<Item = &'a str>,
) -> Result<Option<String>, Rejection> {
    // An empty value says nothing, and a list of words cannot show it.
    let values: Vec<&str> = values.filter(|value| !value.is_empty()).collect();
    if values.is_empty() {
        return Ok(None);
    }
    let joined = |separator: &str, special: fn(char) -> bool| {
        let escaped: Result<Vec<String>, Rejection> =
            values.iter().map(|value| escape(value, special)).collect();
        escaped.map(|values| Some(values.join(separator)))
    };
    match multi {
        MultiValue::Comma | MultiValue::Repeat => joined(",", |c| matches!(c, ',')),
        MultiValue::Space => joined(" ", |c| matches!(c, ' ')),
        MultiValue::Json => {
            if values
                .iter()
                .any(|value| value.chars().any(char::is_control))
            {
                return Err(Rejection::ClaimMismatch(ClaimFault::Unprintable));
            }
            escape_json(&values).map(Some)
        }
    }
}

/// Writes a JSON array with everything beyond ASCII as `\u` escapes, so that the header stays ASCII and decodes exactly.
fn escape_json(values: &[&str]) -> Result<String, Rejection> {
    let json = serde_json::to_string(values).map_err(|_| Rejection::Internal)?;
    let mut text = String::with_capacity(json.len());
    for character in json.chars() {
        if character.is_ascii() {
            text.push(character);
        } else {
            let mut units = [0; 2];
            for unit in character.encode_utf16(&mut units) {
                text.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    Ok(text)
}

/// Percent-encodes `%`, everything beyond ASCII, spaces at either end, and what is special to the list's style; refuses
/// control characters. Servers trim values and the elements of lists, so that ` admin` would otherwise become `admin`.
fn escape(value: &str, special: impl Fn(char) -> bool) -> Result<String, Rejection> {
    let inner = value.trim_matches(' ');
    let before = value.len() - value.trim_start_matches(' ').len();
    let after = value.len() - before - inner.len();
    let mut text = String::with_capacity(value.len());
    text.push_str(&"%20".repeat(before));
    for character in inner.chars() {
        if character.is_control() {
            return Err(Rejection::ClaimMismatch(ClaimFault::Unprintable));
        }
        if character.is_ascii() && character != '%' && !special(character) {
            text.push(character);
        } else {
            let mut utf8 = [0; 4];
            for byte in character.encode_utf8(&mut utf8).bytes() {
                text.push_str(&format!("%{byte:02X}"));
            }
        }
    }
    text.push_str(&"%20".repeat(after));
    Ok(text)
}

fn header_value(text: &str) -> Result<HeaderValue, Rejection> {
    HeaderValue::from_str(text).map_err(|_| Rejection::ClaimMismatch(ClaimFault::Unprintable))
}

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
        let reserved = PRESET_NAMES
            .iter()
            .chain(&RESERVED_NAMES)
            .map(|name| Box::from(*name))
            .chain(
                templates
                    .names()
                    .map(|name| fold(name.as_str()).into_owned().into_boxed_str()),
            )
            .collect();
        Ok(Self {
            reserved,
            templates,
            pseudonym: pseudonym.into(),
            via: HeaderValue::from_str(&format!("1.1 {pseudonym}"))?,
            via_h2: HeaderValue::from_str(&format!("2.0 {pseudonym}"))?,
            pass_token,
        })
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
        if self.has_passed(headers) {
            return Err(Rejection::LoopDetected);
        }
        let chain = if from.peer_is_trusted {
            TrustedChain::take(headers)
        } else {
            TrustedChain::default()
        };
        strip_hop_by_hop(headers);
        self.strip_reserved(headers);
        self.strip_credentials(headers, permit.route().access);
        self.inject_identity(headers, permit, from)?;
        self.inject_forwarding(headers, permit, from, chain)
    }

    fn has_passed(&self, headers: &HeaderMap) -> bool {
        // By bytes: a neighbour's hop that is not ASCII must not hide ours on the same line.
        let mut hops = headers
            .get_all(header::VIA)
            .iter()
            .flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
        hops.any(|hop| {
            let mut words = hop
                .split(u8::is_ascii_whitespace)
                .filter(|word| !word.is_empty());
            words.nth(1) == Some(self.pseudonym.as_bytes())
        })
    }

    /// Removes every reserved name, in all its spellings, and every name with an underscore.
    fn strip_reserved(&self, headers: &mut HeaderMap) {
        let forged: Vec<HeaderName> = headers
            .keys()
            .filter(|name| self.is_reserved(name.as_str()))
            .cloned()
            .collect();
        for name in forged {
            headers.remove(name);
        }
    }

    fn is_reserved(&self, name: &str) -> bool {
        if name.contains('_') {
            return true;
        }
        let name = fold(name);
        self.reserved.contains(&*name)
            || RESERVED_PREFIXES
                .iter()
                .any(|prefix| name.starts_with(prefix))
    }

    /// Removes what the gateway consumed: its token, unless the route is public or tokens are passed on, and its cookies
    /// always (HDR-8).
    fn strip_credentials(&self, headers: &mut HeaderMap, access: Access) {
        if access != Access::Public && !self.pass_token {
            headers.remove(header::AUTHORIZATION);
        }
        if headers.contains_key(header::COOKIE) {
            strip_cookies(headers);
        }
    }

    fn inject_identity(
        &self,
        headers: &mut HeaderMap,
        permit: &Permit<'_>,
        from: &Forwarding<'_>,
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
            request_id: from.request_id,
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

    fn inject_forwarding(
        &self,
        headers: &mut HeaderMap,
        permit: &Permit<'_>,
        from: &Forwarding<'_>,
        chain: TrustedChain,
    ) -> Result<(), Rejection> {
        let value = |text: &str| HeaderValue::from_str(text).map_err(|_| Rejection::Internal);
        let client = value(&permit.client().to_string())?;
        let hops = match chain.hops {
            Some(hops) => value(&format!("{hops}, {}", from.peer))?,
            None => value(&from.peer.to_string())?,
        };
        headers.insert(X_FORWARDED_FOR, hops);
        headers.insert(
            X_FORWARDED_PROTO,
            chain.proto.unwrap_or(HeaderValue::from_static("https")),
        );
        headers.insert(
            X_FORWARDED_HOST,
            chain.host.map_or_else(|| value(from.authority), Ok)?,
        );
        headers.insert(X_REAL_IP, client);
        headers.insert(X_REQUEST_ID, value(from.request_id)?);
        headers.append(
            header::VIA,
            if from.version == Version::HTTP_2 {
                self.via_h2.clone()
            } else {
                self.via.clone()
            },
        );
        if !headers.get(TRACEPARENT).is_some_and(is_traceparent) {
            headers.remove(TRACEPARENT);
            if let Some(line) = traceparent(from.request_id) {
                headers.insert(TRACEPARENT, value(&line)?);
            }
        }
        Ok(())
    }
}

/// What a trusted proxy said of the hops before it.
#[derive(Debug, Default)]
struct TrustedChain {
    hops: Option<String>,
    proto: Option<HeaderValue>,
    host: Option<HeaderValue>,
}

impl TrustedChain {
    fn take(headers: &mut HeaderMap) -> Self {
        let lines: Vec<&str> = headers
            .get_all(X_FORWARDED_FOR)
            .iter()
            .filter_map(|line| line.to_str().ok())
            .collect();
        let hops = (!lines.is_empty()).then(|| lines.join(", "));
        let single = |name: HeaderName, valid: fn(&str) -> bool| {
            let mut values = headers.get_all(name).iter();
            let value = values
                .next()
                .filter(|value| value.to_str().is_ok_and(valid))?;
            values.next().is_none().then(|| value.clone())
        };
        let proto = single(X_FORWARDED_PROTO, |value| matches!(value, "http" | "https"));
        let host = single(X_FORWARDED_HOST, |value| super::head::host(value).is_some());
        Self { hops, proto, host }
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

/// Removes the fields of one connection, and those that `Connection` names (RFC 9110 §7.6.1), from a request or an answer.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let options: Vec<HeaderName> = headers
            .get_all(header::CONNECTION)
            .iter()
            .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
            .filter_map(|option| HeaderName::from_bytes(option.trim_ascii()).ok())
            .filter(|name| !NOT_CONNECTION_OPTIONS.contains(name))
            .collect();
        for name in options {
            headers.remove(name);
        }
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

/// Removes the gateway's own cookies and keeps the others as they were. By bytes: one cookie that is not ASCII must not
/// carry ours past.
fn strip_cookies(headers: &mut HeaderMap) {
    let is_ours = |pair: &[u8]| {
        let name = pair.split(|byte| *byte == b'=').next().unwrap_or_default();
        let name = name.trim_ascii();
        name == SESSION_COOKIE.as_bytes() || name == REFRESH_COOKIE.as_bytes()
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

/// `00-` trace id `-` parent id `-` flags (W3C Trace Context §3.2.2), not all zero.
fn is_traceparent(value: &HeaderValue) -> bool {
    let Ok(text) = value.to_str() else {
        return false;
    };
    let hex = |part: &str, len: usize| {
        part.len() == len
            && part
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    match *text.split('-').collect::<Vec<_>>() {
        [version, trace, parent, flags] => {
            version == "00"
                && hex(trace, 32)
                && hex(parent, 16)
                && hex(flags, 2)
                && trace.bytes().any(|byte| byte != b'0')
                && parent.bytes().any(|byte| byte != b'0')
        }
        _ => false,
    }
}

/// A trace that begins here, when the request id is one that we made: its 32 hex digits are the trace id.
fn traceparent(request_id: &str) -> Option<String> {
    let ours = request_id.len() == 32
        && request_id
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    ours.then(|| {
        format!(
            "00-{request_id}-{}-00",
            request_id.get(16..).unwrap_or_default()
        )
    })
}

#[cfg(test)]
mod tests;
