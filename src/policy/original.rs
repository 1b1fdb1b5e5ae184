//! Which request does another proxy ask about? Forward authentication: the proxy in front sends the head of a request that it
//! is about to forward itself, and only wants to know whether it may.
//!
//! Whatever the proxy does not set, its own client can: so nothing here is guessed. Method, host and target must each be
//! stated, and where two fields state one thing they must agree; else the question is refused, and its operator notices with
//! the first request that something is missing in the proxy's configuration.

use http::{
    HeaderMap, HeaderValue, Method, Request, Version,
    header::{self, HeaderName},
    request::Parts,
    uri::PathAndQuery,
};

use super::rejection::{HeadFault, PathFault, Rejection};

const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const X_FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
const X_ORIGINAL_METHOD: HeaderName = HeaderName::from_static("x-original-method");
const X_ORIGINAL_URI: HeaderName = HeaderName::from_static("x-original-uri");
const X_ORIGINAL_URL: HeaderName = HeaderName::from_static("x-original-url");

/// A question that does not say what it is about, or says it in two ways.
const UNCLEAR: Rejection = Rejection::BadRequest(HeadFault::OriginalRequest);

/// Reads the head of the request that a trusted proxy asks about.
///
/// `X-Forwarded-Method`, `-Host` and `-Uri` are what Traefik and Caddy send; `X-Original-Method`, `X-Original-URI` and
/// `X-Original-URL` (scheme, host and target in one) are customary with nginx. Where no field names a target, the question's
/// own method and `Host` are the request's and `below` is its target, which is how Envoy asks: the path behind the endpoint's,
/// with the query. The other fields of the question are those of the request.
///
/// The answer's target still has to be normalised, and its host to be checked, like those of any request.
///
/// # Errors
/// [`Rejection::BadRequest`] where a field is there twice, cannot be read, is missing or contradicts another;
/// [`Rejection::AmbiguousPath`] for a `#`.
pub fn original_request(question: &Parts, below: Option<PathAndQuery>) -> Result<Parts, Rejection> {
    let fields = &question.headers;
    let url = single(fields, &X_ORIGINAL_URL)?.map(split).transpose()?;
    let target = agreed([
        single(fields, &X_FORWARDED_URI)?,
        single(fields, &X_ORIGINAL_URI)?,
        url.map(|(_, target)| target),
    ])?;
    let (method, host, target) = match (target, below) {
        (Some(text), _) => {
            let stated = [
                single(fields, &X_FORWARDED_METHOD)?,
                single(fields, &X_ORIGINAL_METHOD)?,
            ];
            let method = agreed(stated)?.ok_or(UNCLEAR)?;
            let stated = [
                single(fields, &X_FORWARDED_HOST)?,
                url.and_then(|(host, _)| host),
            ];
            let host = agreed(stated)?.ok_or(UNCLEAR)?;
            let method = Method::from_bytes(method.as_bytes()).map_err(|_| UNCLEAR)?;
            let host = HeaderValue::from_str(host).map_err(|_| UNCLEAR)?;
            (method, host, read_target(text)?)
        }
        (None, Some(below)) => {
            let host = fields.get(header::HOST).ok_or(UNCLEAR)?;
            (question.method.clone(), host.clone(), below)
        }
        (None, None) => return Err(UNCLEAR),
    };
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.method = method;
    parts.version = Version::HTTP_11;
    parts.uri = target.into();
    parts.headers = fields.clone();
    parts.headers.insert(header::HOST, host);
    Ok(parts)
}

/// The one value of a field; `None` where it is absent.
fn single<'h>(fields: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, Rejection> {
    let mut values = fields.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(Rejection::BadRequest(HeadFault::RepeatedField));
    }
    value.to_str().map(Some).map_err(|_| UNCLEAR)
}

/// What all that say something say; `None` where none does.
fn agreed<const N: usize>(statements: [Option<&str>; N]) -> Result<Option<&str>, Rejection> {
    let mut said = statements.into_iter().flatten();
    let first = said.next();
    if said.any(|other| Some(other) != first) {
        return Err(UNCLEAR);
    }
    Ok(first)
}

/// Host, where there is one, and target of `X-Original-URL`: an absolute URL or a target alone.
fn split(url: &str) -> Result<(Option<&str>, &str), Rejection> {
    if url.starts_with('/') {
        return Ok((None, url));
    }
    let rest = ["https://", "http://"]
        .iter()
        .find_map(|scheme| url.strip_prefix(scheme))
        .ok_or(UNCLEAR)?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (host, target) = rest.split_at_checked(end).ok_or(UNCLEAR)?;
    Ok((Some(host), if target.is_empty() { "/" } else { target }))
}

fn read_target(text: &str) -> Result<PathAndQuery, Rejection> {
    // The URI type would drop it without a word, and the proxy in front may not (URI-2).
    if text.contains('#') {
        return Err(Rejection::AmbiguousPath(PathFault::Fragment));
    }
    if !text.starts_with('/') {
        return Err(UNCLEAR);
    }
    PathAndQuery::try_from(text).map_err(|_| UNCLEAR)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(fields: &[(&str, &str)], below: Option<&str>) -> Result<Parts, Rejection> {
        let mut request = Request::get("/auth/verify");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        original_request(&parts, below.map(|path| path.parse().unwrap()))
    }

    #[track_caller]
    fn unclear(fields: &[(&str, &str)]) {
        let outcome = ask(fields, None);
        assert!(
            matches!(outcome, Err(Rejection::BadRequest(_))),
            "{fields:?}: {outcome:?}"
        );
    }

    #[track_caller]
    fn read(fields: &[(&str, &str)], below: Option<&str>, want: (&str, &str, &str)) {
        let parts = ask(fields, below).unwrap();
        let host = parts.headers.get(header::HOST).unwrap().to_str().unwrap();
        let got = (parts.method.as_str(), host, &*parts.uri.to_string());
        assert_eq!(got, want, "{fields:?}");
    }

    const METHOD: (&str, &str) = ("X-Forwarded-Method", "POST");
    const HOST: (&str, &str) = ("X-Forwarded-Host", "app.example.com");
    const URI: (&str, &str) = ("X-Forwarded-Uri", "/a?b=1");

    #[test]
    fn uri_2_what_is_not_stated_is_not_guessed() {
        unclear(&[]);
        unclear(&[METHOD, HOST]);
        unclear(&[HOST, URI]);
        unclear(&[METHOD, URI]);
        unclear(&[("Host", "gate.example.com"), METHOD, URI]);
        unclear(&[("X-Original-URL", "https://app.example.com/a")]);
        unclear(&[("X-Original-Method", "GET"), ("X-Original-URL", "/a")]);
    }

    #[test]
    fn uri_2_fields_that_contradict_each_other_are_refused() {
        unclear(&[METHOD, HOST, URI, ("X-Original-URI", "/public")]);
        unclear(&[METHOD, HOST, URI, ("X-Original-URL", "/public")]);
        unclear(&[METHOD, HOST, URI, ("X-Original-Method", "GET")]);
        unclear(&[
            METHOD,
            HOST,
            ("X-Original-URL", "https://other.example.com/a"),
        ]);
    }

    #[test]
    fn hdr_6_fields_that_are_there_twice_are_refused() {
        for twice in [METHOD, HOST, URI, ("X-Original-URL", "/a?b=1")] {
            unclear(&[METHOD, HOST, URI, twice, twice]);
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for target in ["a", "", "http:/a", "https://", "*", "/a b"] {
            unclear(&[METHOD, HOST, ("X-Forwarded-Uri", target)]);
        }
        for url in ["ftp://app.example.com/a", "app.example.com/a", "//a/b c"] {
            unclear(&[METHOD, HOST, ("X-Original-URL", url)]);
        }
        unclear(&[("X-Forwarded-Method", "G T"), HOST, URI]);
        assert_eq!(
            ask(&[METHOD, HOST, ("X-Forwarded-Uri", "/#/public")], None).err(),
            Some(Rejection::AmbiguousPath(PathFault::Fragment))
        );
    }

    #[test]
    fn each_proxy_s_way_to_ask_is_understood() {
        let want = ("POST", "app.example.com", "/a?b=1");
        read(&[METHOD, HOST, URI], None, want);
        let url = ("X-Original-URL", "https://app.example.com/a?b=1");
        let method = ("X-Original-Method", "POST");
        read(&[method, url], None, want);
        read(&[method, ("X-Original-URI", "/a?b=1"), HOST], None, want);
        read(&[METHOD, HOST, URI, url, method], None, want);
        let url = ("X-Original-URL", "https://app.example.com");
        read(&[method, url], None, ("POST", "app.example.com", "/"));
        let own = ("Host", "app.example.com");
        read(&[own], Some("/a?b"), ("GET", "app.example.com", "/a?b"));
    }
}
