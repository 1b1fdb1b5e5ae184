//! The last touch on every answer: what an upstream may not say to our clients, and the security fields that are missing.

use http::{
    HeaderMap,
    header::{self, Entry, HeaderName, HeaderValue},
};

use crate::policy::headers::{HopByHop, OWN_COOKIES};

/// Keeps browsers from guessing a type.
pub(super) const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");
/// What browsers do by default, for upstreams whose pages may rely on it.
const REFERRER_OF_UPSTREAM: HeaderValue =
    HeaderValue::from_static("strict-origin-when-cross-origin");
/// Our own pages bear tokens in their addresses (password reset) and tell them to nobody.
const REFERRER_OF_OURS: HeaderValue = HeaderValue::from_static("no-referrer");
/// For the caller's own cache alone.
const PRIVATE: HeaderValue = HeaderValue::from_static("private");
/// One year. Sub-domains are not ours to speak for.
const HSTS: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// Fields for the receiver of the content, which no `Connection` field may take away (RFC 9110 §7.6.1: such an option is never
/// appropriate). Without them an answer would be less guarded than its upstream meant it to be.
const NOT_CONNECTION_OPTIONS: [HeaderName; 8] = [
    header::CACHE_CONTROL,
    header::CONTENT_SECURITY_POLICY,
    header::REFERRER_POLICY,
    header::SET_COOKIE,
    header::STRICT_TRANSPORT_SECURITY,
    header::VARY,
    header::X_CONTENT_TYPE_OPTIONS,
    header::X_FRAME_OPTIONS,
];

/// Finishes an upstream's answer (HDR-9): fields of its connection out, cookies in the gateway's name out, framing made
/// unambiguous, missing security fields in. `hsts` is for answers over TLS. An answer `101` needs its `Connection` and `Upgrade`
/// put back by whoever joins the connections.
pub fn finish_upstream(headers: &mut HeaderMap, hsts: bool) {
    let has_repeated = headers.len() > headers.keys_len();
    // One look at all names is cheaper than a look-up of each of these.
    let (mut is_coded, mut has_cookies) = (false, false);
    let mut hops = HopByHop::default();
    for name in headers.keys() {
        hops.look_at(name);
        is_coded |= *name == header::TRANSFER_ENCODING;
        has_cookies |= *name == header::SET_COOKIE;
    }
    if is_coded || has_repeated {
        unify_framing(headers);
    }
    hops.strip(headers, &NOT_CONNECTION_OPTIONS);
    if has_cookies {
        strip_reserved_cookies(headers);
    }
    insert_missing(headers, REFERRER_OF_UPSTREAM, hsts);
}

/// Gives values memory of their own, for an answer over HTTP/2. Those that an upstream sent are pieces of the buffer that they were
/// read into, 8 KiB or many times that, and the compression of header fields remembers values for as long as the client's connection
/// lives (RFC 7541 §2.3.2): an idle connection would keep a buffer for each.
pub fn detach(headers: &mut HeaderMap) {
    for (name, value) in headers.iter_mut() {
        // The one does not go on to the client, and the other is never remembered.
        if *name == header::CONNECTION || *name == header::CONTENT_LENGTH {
            continue;
        }
        // It is a value, so it makes one.
        if let Ok(mut own) = HeaderValue::from_bytes(value.as_bytes()) {
            own.set_sensitive(value.is_sensitive());
            *value = own;
        }
    }
}

/// What an upstream says that knows of shared caches, and what keeps them from giving the answer to others by itself.
const KNOWING: [&[u8]; 6] = [
    b"must-revalidate",
    b"no-cache",
    b"no-store",
    b"private",
    b"public",
    b"s-maxage",
];

/// Keeps an answer to a caller who is known out of caches that several people share, unless its upstream says otherwise. That is what
/// RFC 9111 §3.5 says where `Authorization` is there; to a cache a session cookie is a cookie like any other, and a backend that
/// knows nothing of sign-in says nothing of it.
pub fn keep_private(headers: &mut HeaderMap) {
    let knows = |line: &HeaderValue| {
        let mut directives = line.as_bytes().split(|byte| *byte == b',');
        directives.any(|directive| {
            let name = directive.split(|byte| *byte == b'=').next();
            let name = name.unwrap_or_default().trim_ascii();
            KNOWING.iter().any(|known| name.eq_ignore_ascii_case(known))
        })
    };
    if !headers.get_all(header::CACHE_CONTROL).iter().any(knows) {
        headers.append(header::CACHE_CONTROL, PRIVATE);
    }
}

/// Finishes an answer of our own: missing security fields in. `hsts` is for answers over TLS.
pub fn finish_own(headers: &mut HeaderMap, hsts: bool) {
    insert_missing(headers, REFERRER_OF_OURS, hsts);
}

/// `Content-Length` beside `Transfer-Encoding` says nothing (RFC 9112 §6.3), and one said twice is said once.
fn unify_framing(headers: &mut HeaderMap) {
    if headers.contains_key(header::TRANSFER_ENCODING) {
        headers.remove(header::CONTENT_LENGTH);
    } else if let Entry::Occupied(mut length) = headers.entry(header::CONTENT_LENGTH)
        && length.iter().nth(1).is_some()
    {
        // hyper has refused lengths that differ.
        let first = length.get().clone();
        length.insert(first);
    }
}

/// Removes cookies that bear a name of ours. A browser would take an upstream's word for a session (login as somebody else).
fn strip_reserved_cookies(headers: &mut HeaderMap) {
    if !headers.get_all(header::SET_COOKIE).iter().any(is_reserved) {
        return;
    }
    let Entry::Occupied(cookies) = headers.entry(header::SET_COOKIE) else {
        return;
    };
    let (name, values) = cookies.remove_entry_mult();
    let kept: Vec<HeaderValue> = values.filter(|cookie| !is_reserved(cookie)).collect();
    for cookie in kept {
        headers.append(&name, cookie);
    }
}

/// Whether a browser could send this cookie back so that it reads as one of ours. That includes nameless ones: `=name=value`
/// and `name` alone come back as `name=value` and `name`. Case is ignored, which is stricter than browsers are.
fn is_reserved(cookie: &HeaderValue) -> bool {
    let is_space = |byte: &u8| byte.is_ascii_whitespace();
    let name: Vec<u8> = cookie
        .as_bytes()
        .iter()
        .copied()
        .skip_while(|byte| is_space(byte) || *byte == b'=')
        .take_while(|byte| !matches!(byte, b'=' | b';'))
        .collect();
    let name = name.trim_ascii_end();
    OWN_COOKIES
        .iter()
        .any(|reserved| name.eq_ignore_ascii_case(reserved.as_bytes()))
}

fn insert_missing(headers: &mut HeaderMap, referrer: HeaderValue, hsts: bool) {
    let mut default = |name: HeaderName, value: HeaderValue| {
        headers.entry(name).or_insert(value);
    };
    default(header::X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    default(header::REFERRER_POLICY, referrer);
    if hsts {
        default(header::STRICT_TRANSPORT_SECURITY, HSTS);
    }
}

#[cfg(test)]
mod tests;
