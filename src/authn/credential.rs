//! Which credential does a request carry? None, or exactly one: a bearer token in `Authorization`, or, where browsers may sign
//! in, the session cookie.
//!
//! Nothing else is looked at: a token in the query or the body is no credential here (JWT-9). What the token says is for
//! the verifier; here it is a word.

use http::{
    HeaderMap,
    header::{AUTHORIZATION, COOKIE, HeaderValue},
};

use crate::policy::{Access, Rejection, Route, TokenFault, headers::SESSION_COOKIE};

/// A token, and how it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credential<'h> {
    /// In `Authorization`.
    Bearer(&'h str),
    /// In the session cookie, where only tokens of the built-in issuer are taken.
    Cookie(&'h str),
}

/// Which credentials a route looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepts {
    /// Whether at all, and whether there must be one.
    pub access: Access,
    /// Whether the session cookie is one.
    pub cookie: bool,
}

impl From<Access> for Accepts {
    /// Bearer tokens alone.
    fn from(access: Access) -> Self {
        Self {
            access,
            cookie: false,
        }
    }
}

impl From<&Route> for Accepts {
    fn from(route: &Route) -> Self {
        Self {
            access: route.access,
            cookie: route.browsers.cookie,
        }
    }
}

/// Finds the one credential; the session cookie is looked for only where it may be one.
///
/// # Errors
/// [`Rejection::AmbiguousCredentials`] where there are two, of one kind or of both, whatever they say (JWT-9); and those of
/// [`bearer`].
pub fn find(headers: &HeaderMap, cookie: bool) -> Result<Option<Credential<'_>>, Rejection> {
    let session = if cookie { session(headers)? } else { None };
    match session {
        None => bearer(headers).map(|token| token.map(Credential::Bearer)),
        Some(_) if headers.contains_key(AUTHORIZATION) => Err(Rejection::AmbiguousCredentials),
        Some(token) => Ok(Some(Credential::Cookie(token))),
    }
}

/// Finds the value of the session cookie. One that is not text is no token of ours, and reads as empty.
///
/// # Errors
/// [`Rejection::AmbiguousCredentials`] where there are two of that name: one of them was put there by somebody else (HDR-6).
pub fn session(headers: &HeaderMap) -> Result<Option<&str>, Rejection> {
    let mut found = None;
    for line in headers.get_all(COOKIE) {
        for pair in line.as_bytes().split(|byte| *byte == b';') {
            let mut halves = pair.splitn(2, |byte| *byte == b'=');
            let name = halves.next().unwrap_or_default().trim_ascii();
            if name != SESSION_COOKIE.as_bytes() {
                continue;
            }
            let value = halves.next().unwrap_or_default().trim_ascii();
            let value = std::str::from_utf8(value).unwrap_or_default();
            if found.replace(value).is_some() {
                return Err(Rejection::AmbiguousCredentials);
            }
        }
    }
    Ok(found)
}

/// Finds the bearer token (RFC 6750 §2.1): `Bearer` in any case, one or more spaces, one `b64token`. `None` where the
/// field is absent.
///
/// # Errors
/// [`Rejection::AmbiguousCredentials`] where the field is repeated, even with equal values (HDR-6);
/// [`Rejection::TokenInvalid`] with [`TokenFault::Scheme`] for another scheme, a missing token or anything around it.
pub fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Rejection> {
    let mut fields = headers.get_all(AUTHORIZATION).iter();
    let Some(field) = fields.next() else {
        return Ok(None);
    };
    if fields.next().is_some() {
        return Err(Rejection::AmbiguousCredentials);
    }
    token(field)
        .map(Some)
        .ok_or(Rejection::TokenInvalid(TokenFault::Scheme))
}

fn token(field: &HeaderValue) -> Option<&str> {
    let (scheme, rest) = field.as_bytes().split_at_checked(b"bearer".len())?;
    let mut token = rest.strip_prefix(b" ")?;
    while let [b' ', rest @ ..] = token {
        token = rest;
    }
    let is_one = scheme.eq_ignore_ascii_case(b"bearer") && is_b64token(token);
    is_one.then(|| std::str::from_utf8(token).ok()).flatten()
}

/// `1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"="` (RFC 6750 §2.1, RFC 9110 §11.2).
fn is_b64token(token: &[u8]) -> bool {
    let mut body = token;
    while let [rest @ .., b'='] = body {
        body = rest;
    }
    // A token of several hundred bytes is looked at on every request. Without a way out at the first bad byte the compiler makes
    // one comparison of sixteen bytes: a seventh of the instructions.
    let in_alphabet = |byte: &u8| {
        matches!(
            byte,
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-'..=b'/' | b'_' | b'~' | b'+'
        )
    };
    !body.is_empty() && body.iter().fold(true, |all, byte| all & in_alphabet(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&[u8]]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_bytes(value).unwrap());
        }
        headers
    }

    #[track_caller]
    fn check(value: &str, want: Option<&str>) {
        let headers = headers(&[value.as_bytes()]);
        match want {
            Some(token) => assert_eq!(bearer(&headers), Ok(Some(token)), "{value:?}"),
            None => assert_eq!(
                bearer(&headers),
                Err(Rejection::TokenInvalid(TokenFault::Scheme)),
                "{value:?}"
            ),
        }
    }

    #[test]
    fn jwt_9_repeated_authorization_is_ambiguous_even_when_equal() {
        for second in ["Bearer a.b.c", "Bearer x.y.z", "Basic eDp5", ""] {
            assert_eq!(
                bearer(&headers(&[b"Bearer a.b.c", second.as_bytes()])),
                Err(Rejection::AmbiguousCredentials)
            );
        }
    }

    #[test]
    fn jwt_9_what_is_not_one_bearer_token_is_refused() {
        for value in [
            "",
            " ",
            "Bearer",
            "Bearer ",
            "Bearer    ",
            "Basic dXNlcjpwYXNz",
            "Digest username=\"x\"",
            "Negotiate YII",
            "a.b.c",
            "Bearera.b.c",
            "Bearer:a.b.c",
            "Bearer\ta.b.c",
            "Bearer \ta.b.c",
            " Bearer a.b.c",
            "Bearer a.b.c ",
            "Bearer a.b.c, Bearer d.e.f",
            "Bearer a.b.c,d.e.f",
            "Bearer a.b.c d.e.f",
            "Bearer token=a.b.c",
            "Bearer \"a.b.c\"",
            "Bearer a.b.c;",
            "Bearer a=b",
            "Bearer =",
            "Bearer ====",
            "Bearer a{b}",
            "Bearer a%2eb",
        ] {
            check(value, None);
        }
    }

    #[test]
    fn jwt_9_bytes_beyond_ascii_are_refused() {
        for value in [
            &b"Bearer a.\xff.c"[..],
            "Bearer é.b.c".as_bytes(),
            b"B\xe9arer a.b.c",
        ] {
            assert_eq!(
                bearer(&headers(&[value])),
                Err(Rejection::TokenInvalid(TokenFault::Scheme))
            );
        }
    }

    #[test]
    fn jwt_9_one_bearer_token_is_found() {
        assert_eq!(bearer(&HeaderMap::new()), Ok(None));
        for scheme in ["Bearer", "bearer", "BEARER", "bEaReR"] {
            check(&format!("{scheme} a.b.c"), Some("a.b.c"));
        }
        check("Bearer    a.b.c", Some("a.b.c"));
        check("Bearer A-z0._~+/9==", Some("A-z0._~+/9=="));
    }

    #[test]
    fn jwt_9_two_credentials_are_ambiguous_where_both_are_looked_at() {
        let with = |authorization: Option<&str>, cookies: &[&str]| {
            let mut headers = HeaderMap::new();
            if let Some(value) = authorization {
                headers.insert(AUTHORIZATION, value.parse().unwrap());
            }
            for line in cookies {
                headers.append(COOKIE, line.parse().unwrap());
            }
            headers
        };
        let ours = "__Host-portcullis-session=a.b.c";
        for other in ["Bearer a.b.c", "Bearer x.y.z", "Basic eDp5", ""] {
            let headers = with(Some(other), &[ours]);
            assert_eq!(find(&headers, true), Err(Rejection::AmbiguousCredentials));
        }
        let twice = format!("{ours}; {ours}");
        for cookies in [
            &[&*twice][..],
            &[ours, ours],
            &["x=1; __Host-portcullis-session", ours],
            &["__Host-portcullis-session=; a=b", ours],
        ] {
            let headers = with(None, cookies);
            assert_eq!(find(&headers, true), Err(Rejection::AmbiguousCredentials));
            assert_eq!(find(&headers, false), Ok(None));
        }
        let headers = with(Some("Bearer x.y.z"), &[ours]);
        assert_eq!(find(&headers, false), Ok(Some(Credential::Bearer("x.y.z"))));
    }

    #[test]
    fn jwt_9_only_the_cookie_of_that_very_name_is_found() {
        let found = |line: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(COOKIE, HeaderValue::from_bytes(line).unwrap());
            let found = find(&headers, true).unwrap();
            found.map(|found| match found {
                Credential::Cookie(token) => token.to_owned(),
                Credential::Bearer(token) => panic!("{token}"),
            })
        };
        for other in [
            "",
            ";",
            "a=b",
            "__host-portcullis-session=x",
            "__Host-portcullis-session2=x",
            "x__Host-portcullis-session=x",
            "a=__Host-portcullis-session=x",
            "\"__Host-portcullis-session=x\"",
            "__Secure-portcullis-refresh=x",
        ] {
            assert_eq!(found(other.as_bytes()), None, "{other}");
        }
        let name = SESSION_COOKIE;
        for (line, want) in [
            (format!("{name}=a.b.c"), "a.b.c"),
            (format!("x=1;{name}=a.b.c;y=2"), "a.b.c"),
            (format!("x=1;  {name} = a.b.c ; y=2"), "a.b.c"),
            (format!("{name}=a=b"), "a=b"),
            (format!("{name}="), ""),
            (name.to_owned(), ""),
        ] {
            assert_eq!(found(line.as_bytes()).as_deref(), Some(want), "{line}");
        }
        assert_eq!(
            found(&[name.as_bytes(), b"=\xff"].concat()).as_deref(),
            Some("")
        );
    }

    proptest::proptest! {
        #[test]
        fn jwt_7_random_fields_never_panic_and_only_words_pass(value in ".{0,64}") {
            if let Ok(field) = HeaderValue::from_bytes(value.as_bytes()) {
                let mut headers = HeaderMap::new();
                headers.append(AUTHORIZATION, field);
                if let Ok(found) = bearer(&headers) {
                    let token = found.unwrap();
                    proptest::prop_assert!(!token.is_empty() && !token.contains(' '));
                    proptest::prop_assert!(value.ends_with(token));
                }
            }
        }
    }
}
