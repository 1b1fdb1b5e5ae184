//! Is the request's head unambiguous? Framing, host, path and single-value fields, checked before anything else.
//!
//! hyper and h2 have parsed the bytes and refused what is not HTTP; here goes what is HTTP and still could be read in two
//! ways by the server behind us (MSG-1, MSG-4, MSG-9, HDR-6).

use std::borrow::Cow;

use http::{HeaderMap, HeaderValue, Method, Version, header, request::Parts};

use super::{
    path::NormalPath,
    rejection::{HeadFault, Rejection},
};

/// How much head a client may send, the same in both versions of HTTP. The listeners read a little more than this, so that
/// a client just beyond a limit is told so in full.
#[derive(Debug, Clone, Copy)]
pub struct HeadLimits {
    /// Header section, in bytes.
    pub header_bytes: usize,
    /// Header fields; each cookie crumb of HTTP/2 counts.
    pub header_count: usize,
    /// Request target, in bytes.
    pub uri_bytes: usize,
}

/// What a request asks for, in the one reading that everything after this uses.
#[derive(Debug)]
pub struct Head<'a> {
    /// The host in lower case, without port and trailing dot: what routes are matched by.
    pub host: Cow<'a, str>,
    /// Host and port as the client named them: what the upstream is told.
    pub authority: &'a str,
    /// The `Host` field as it came.
    pub field: Option<&'a HeaderValue>,
    /// The normalised path.
    pub path: NormalPath<'a>,
    /// The query, untouched, without its `?`.
    pub query: Option<&'a str>,
}

impl<'a> Head<'a> {
    /// Reads a request's head.
    ///
    /// # Errors
    /// The first of: method of no route ([`Rejection::MethodNotAllowed`]), a size over its limit, ambiguous framing, a
    /// repeated single-value field, a bad or contradictory host ([`Rejection::BadRequest`]), an ambiguous path.
    pub fn read(parts: &'a Parts, limits: &HeadLimits) -> Result<Self, Rejection> {
        if matches!(parts.method, Method::CONNECT | Method::TRACE) {
            return Err(Rejection::MethodNotAllowed(Vec::new()));
        }
        check_sizes(parts, limits)?;
        check_framing(parts.version, &parts.headers)?;
        check_single_fields(&parts.headers)?;
        let field = parts.headers.get(header::HOST);
        let authority = authority(parts, field)?;
        let host = host(authority).ok_or(Rejection::BadRequest(HeadFault::HostSyntax))?;
        let path = NormalPath::parse(parts.uri.path()).map_err(Rejection::AmbiguousPath)?;
        Ok(Self {
            host,
            authority,
            field,
            path,
            query: parts.uri.query(),
        })
    }
}

fn check_sizes(parts: &Parts, limits: &HeadLimits) -> Result<(), Rejection> {
    let target = parts
        .uri
        .path_and_query()
        .map_or(0, |target| target.as_str().len());
    if target > limits.uri_bytes {
        return Err(Rejection::UriTooLong);
    }
    // Each field as HTTP/1.1 writes it: name, colon, space, value, line end.
    let bytes: usize = parts
        .headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum();
    if bytes > limits.header_bytes || parts.headers.len() > limits.header_count {
        return Err(Rejection::HeadersTooLarge);
    }
    Ok(())
}

/// Refuses framing that two servers could read in two ways (RFC 9112 §6.3). hyper has refused malformed and differing
/// lengths, and a `Transfer-Encoding` that does not end in `chunked`.
fn check_framing(version: Version, headers: &HeaderMap) -> Result<(), Rejection> {
    if !matches!(
        version,
        Version::HTTP_10 | Version::HTTP_11 | Version::HTTP_2
    ) {
        return Err(Rejection::BadRequest(HeadFault::Version));
    }
    // One look at all names is cheaper than a look-up of either, which few requests have.
    let mut names = headers.keys();
    if !names.any(|name| *name == header::TRANSFER_ENCODING || *name == header::EXPECT) {
        return Ok(());
    }
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        let chunked = coding.as_bytes().eq_ignore_ascii_case(b"chunked");
        if !chunked || codings.next().is_some() || version != Version::HTTP_11 {
            return Err(Rejection::BadRequest(HeadFault::TransferEncoding));
        }
        if headers.contains_key(header::CONTENT_LENGTH) {
            return Err(Rejection::BadRequest(HeadFault::Framing));
        }
    }
    let other = |value: &HeaderValue| !value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    if headers.get_all(header::EXPECT).iter().any(other) {
        return Err(Rejection::ExpectationFailed);
    }
    Ok(())
}

/// Refuses fields of security meaning that appear more than once: no decision uses the first or the last (HDR-6).
fn check_single_fields(headers: &HeaderMap) -> Result<(), Rejection> {
    // A map with as many keys as values has no repeated field, which is nearly every request.
    if headers.keys_len() == headers.len() {
        return Ok(());
    }
    let repeated = |name: header::HeaderName| headers.get_all(name).iter().nth(1).is_some();
    if repeated(header::AUTHORIZATION) {
        return Err(Rejection::AmbiguousCredentials);
    }
    let single = [
        header::HOST,
        header::CONTENT_LENGTH,
        header::ORIGIN,
        header::HeaderName::from_static("x-request-id"),
    ];
    if single.into_iter().any(repeated) {
        return Err(Rejection::BadRequest(HeadFault::RepeatedField));
    }
    Ok(())
}

/// Finds host and port. An absolute-form target replaces `Host` (RFC 9112 §3.2.2); in HTTP/2 a `Host` beside `:authority`
/// must equal it (RFC 9113 §8.3.1).
fn authority<'a>(parts: &'a Parts, field: Option<&'a HeaderValue>) -> Result<&'a str, Rejection> {
    // Something else behind us might go by the scheme; ours is in `X-Forwarded-Proto` alone.
    if !matches!(parts.uri.scheme_str(), None | Some("http" | "https")) {
        return Err(Rejection::BadRequest(HeadFault::Scheme));
    }
    let field = match field {
        Some(value) => Some(
            value
                .to_str()
                .map_err(|_| Rejection::BadRequest(HeadFault::HostSyntax))?,
        ),
        None => None,
    };
    let target = parts.uri.authority().map(http::uri::Authority::as_str);
    match (parts.version, target, field) {
        (Version::HTTP_2, Some(target), Some(field)) if !target.eq_ignore_ascii_case(field) => {
            Err(Rejection::BadRequest(HeadFault::AuthorityMismatch))
        }
        (Version::HTTP_2, Some(target), _) => Ok(target),
        // HTTP/1.1 needs the field even where the target has an authority (RFC 9112 §3.2).
        (_, _, None) => Err(Rejection::BadRequest(HeadFault::HostMissing)),
        (_, Some(target), Some(_)) => Ok(target),
        (_, None, Some(field)) => Ok(field),
    }
}

/// Reads a host with an optional port: lower case, without port and trailing dot. `None` for anything that is not a name of
/// letters, digits, hyphens, underscores and dots, or a bracketed IPv6 address; user information is not a host.
#[must_use]
pub fn host(authority: &str) -> Option<Cow<'_, str>> {
    let (name, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (inner, after) = rest.split_once(']')?;
            inner.parse::<std::net::Ipv6Addr>().ok()?;
            (
                authority.get(..inner.len() + 2)?,
                after
                    .strip_prefix(':')
                    .or(after.is_empty().then_some("0"))?,
            )
        }
        None => {
            // Short as it is, a byte after the other is quicker than a search.
            let (name, port) = match authority.bytes().position(|byte| byte == b':') {
                Some(colon) => (authority.get(..colon)?, authority.get(colon + 1..)?),
                None => (authority, "0"),
            };
            let name = name.strip_suffix('.').unwrap_or(name);
            are_labels(name).then_some((name, port))?
        }
    };
    if port.is_empty() || port.len() > 5 || !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let upper = name.bytes().any(|byte| byte.is_ascii_uppercase());
    Some(if upper {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    })
}

/// Whether a name is one or more labels with a dot between each two. In one walk, for every request has a host.
fn are_labels(name: &str) -> bool {
    let mut before = b'.';
    for byte in name.bytes() {
        let is_label = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if !is_label && (byte != b'.' || before == b'.') {
            return false;
        }
        before = byte;
    }
    before != b'.'
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    const LIMITS: HeadLimits = HeadLimits {
        header_bytes: 32 << 10,
        header_count: 100,
        uri_bytes: 8 << 10,
    };

    fn parts(build: impl FnOnce(http::request::Builder) -> http::request::Builder) -> Parts {
        build(
            Request::builder()
                .uri("/")
                .header("host", "app.example.com"),
        )
        .body(())
        .unwrap()
        .into_parts()
        .0
    }

    #[track_caller]
    fn refused(parts: &Parts, want: Rejection) {
        assert_eq!(Head::read(parts, &LIMITS).unwrap_err(), want);
    }

    #[test]
    fn msg_4_connect_and_trace_are_refused() {
        refused(
            &parts(|r| r.method("CONNECT")),
            Rejection::MethodNotAllowed(vec![]),
        );
        refused(
            &parts(|r| r.method("TRACE")),
            Rejection::MethodNotAllowed(vec![]),
        );
    }

    #[test]
    fn msg_1_ambiguous_framing_is_refused() {
        let fault = |fault| Rejection::BadRequest(fault);
        for coding in [
            "gzip, chunked",
            "chunked, chunked",
            "identity",
            "xchunked",
            "chunked;q=1",
        ] {
            refused(
                &parts(|r| r.header("transfer-encoding", coding)),
                fault(HeadFault::TransferEncoding),
            );
        }
        let twice = |r: http::request::Builder| {
            r.header("transfer-encoding", "chunked")
                .header("transfer-encoding", "chunked")
        };
        refused(&parts(twice), fault(HeadFault::TransferEncoding));
        let old = |r: http::request::Builder| {
            r.version(Version::HTTP_10)
                .header("transfer-encoding", "chunked")
        };
        refused(&parts(old), fault(HeadFault::TransferEncoding));
        let both = |r: http::request::Builder| {
            r.header("transfer-encoding", "chunked")
                .header("content-length", "3")
        };
        refused(&parts(both), fault(HeadFault::Framing));
    }

    #[test]
    fn msg_9_host_is_required_single_and_well_formed() {
        let no_host = Request::builder().uri("/").body(()).unwrap().into_parts().0;
        refused(&no_host, Rejection::BadRequest(HeadFault::HostMissing));
        refused(
            &parts(|r| r.header("host", "app.example.com")),
            Rejection::BadRequest(HeadFault::RepeatedField),
        );
        for bad in [
            "",
            "user@app",
            "a b",
            "a/b",
            "a:b",
            "a:",
            "a..b",
            "a..",
            ".a",
            "..",
            ".:1",
            "[::1",
            "[x]",
            "a:123456",
            ".",
            "app.example.com,evil",
        ] {
            let request = Request::builder()
                .uri("/")
                .header("host", bad)
                .body(())
                .unwrap()
                .into_parts()
                .0;
            refused(&request, Rejection::BadRequest(HeadFault::HostSyntax));
        }
    }

    #[test]
    fn msg_9_schemes_but_http_and_https_are_refused() {
        for target in [
            "ftp://app.example.com/",
            "ws://app.example.com/",
            "://app.example.com/",
        ] {
            refused(
                &parts(|r| r.uri(target)),
                Rejection::BadRequest(HeadFault::Scheme),
            );
        }
        for target in ["http://app.example.com/", "HTTPS://app.example.com/", "/"] {
            assert!(
                Head::read(&parts(|r| r.uri(target)), &LIMITS).is_ok(),
                "{target}"
            );
        }
    }

    #[test]
    fn uri_4_host_is_lower_case_without_port_and_trailing_dot() {
        for (given, want) in [
            ("App.Example.COM:8443", "app.example.com"),
            ("app.", "app"),
            ("[::1]:8443", "[::1]"),
            ("a_b", "a_b"),
        ] {
            assert_eq!(host(given).as_deref(), Some(want));
        }
    }

    #[test]
    fn hdr_6_repeated_single_value_fields_are_refused() {
        let two = |name: &'static str| parts(move |r| r.header(name, "a").header(name, "a"));
        refused(&two("authorization"), Rejection::AmbiguousCredentials);
        refused(
            &two("origin"),
            Rejection::BadRequest(HeadFault::RepeatedField),
        );
        refused(
            &two("x-request-id"),
            Rejection::BadRequest(HeadFault::RepeatedField),
        );
    }

    #[test]
    fn msg_8_sizes_are_limited() {
        let long = format!("/{}", "a".repeat(8 << 10));
        refused(&parts(|r| r.uri(long)), Rejection::UriTooLong);
        let many = parts(|r| (0..100).fold(r, |r, i| r.header(format!("x-{i}"), "1")));
        refused(&many, Rejection::HeadersTooLarge);
        let large = parts(|r| r.header("x-large", "a".repeat(32 << 10)));
        refused(&large, Rejection::HeadersTooLarge);
    }

    #[test]
    fn msg_12_other_expectations_are_417() {
        refused(
            &parts(|r| r.header("expect", "200-ok")),
            Rejection::ExpectationFailed,
        );
        assert!(Head::read(&parts(|r| r.header("expect", "100-Continue")), &LIMITS).is_ok());
    }
}
