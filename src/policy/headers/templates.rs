//! The identity headers: presets and the operator's own, compiled once, written once for each verified token.
//!
//! Values keep to ASCII by percent-encoding, so that servers which read header bytes as Latin-1 and those which read them as
//! UTF-8 see the same; a list cannot be made longer by what one of its values contains (HDR-5).

use std::net::IpAddr;

use http::header::{HeaderName, HeaderValue};
use serde_json::Value;

use crate::policy::{
    authorize::find,
    identity::Claims,
    rejection::{ClaimFault, Rejection},
};

/// All injected identity values of one request together, in bytes (HDR-5).
const INJECTED_BYTES_MAX: usize = 8 << 10;

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
#[derive(Debug, Default, PartialEq, Eq)]
pub struct IdentityHeaders {
    /// Those that depend on the identity alone: written once per token.
    by_identity: Vec<(HeaderName, Template)>,
    /// Those that name the client, the request or the route: written for each request.
    pub(super) by_request: Vec<(HeaderName, Template)>,
    pub(super) multi_value: MultiValue,
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
    pub(in crate::policy) fn render(
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
pub(super) fn check_size<'h>(
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
pub(super) struct RequestPlaces<'a> {
    pub(super) client_ip: IpAddr,
    pub(super) request_id: &'a str,
    pub(super) route: &'a str,
}

impl Template {
    /// Fills the places; `None` where a claim is absent.
    pub(super) fn write(
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

pub(super) fn header_value(text: &str) -> Result<HeaderValue, Rejection> {
    HeaderValue::from_str(text).map_err(|_| Rejection::ClaimMismatch(ClaimFault::Unprintable))
}
