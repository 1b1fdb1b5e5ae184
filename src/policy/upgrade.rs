//! Does a request ask for a WebSocket, clearly, and may the page that sends it have one?

use http::{
    HeaderMap, HeaderValue, Method, Version,
    header::{self, HeaderName},
    request::Parts,
};

use super::{
    cors::{Cors, Origins},
    rejection::{HeadFault, Rejection},
};

/// What binds an answer `101` to the request that asked for it (RFC 6455 §4.1): 16 bytes in base64.
pub const SEC_WEBSOCKET_KEY: HeaderName = header::SEC_WEBSOCKET_KEY;

/// The length of a key.
const KEY_LENGTH: usize = 24;

/// Whether an HTTP/1.1 request asks for a WebSocket (RFC 6455 §4.1, RFC 9110 §7.8). Whatever else an `Upgrade` field may ask
/// for is not granted: the field goes no further, and the request is one like any other.
///
/// # Errors
/// [`Rejection::BadRequest`] where it asks for one and is not what such a request must be: a `GET` without a body and with
/// one key. A server behind us could take it for one or the other (MSG-3).
pub fn asks_for_websocket(request: &Parts, has_body: bool) -> Result<bool, Rejection> {
    let headers = &request.headers;
    let asks = request.version == Version::HTTP_11
        && is_only(headers, &header::UPGRADE, b"websocket")
        && lists(headers, &header::CONNECTION, b"upgrade");
    if !asks {
        return Ok(false);
    }
    let is_clear = request.method == Method::GET && !has_body && has_key(headers);
    if is_clear {
        Ok(true)
    } else {
        Err(Rejection::BadRequest(HeadFault::Upgrade))
    }
}

/// Lets a WebSocket be opened by programs, which name no origin, by pages of the same host, and by those that the route's `cors`
/// lists: browsers ask nobody before they open one, and bear cookies (UP-7). `*` lists nobody here. `host` is host and port as
/// the client named them. Whoever is known `by_cookie` is a browser, and must name its origin.
///
/// # Errors
/// [`Rejection::OriginDenied`].
pub fn check_origin(
    headers: &HeaderMap,
    host: &str,
    cors: Option<&Cors>,
    by_cookie: bool,
) -> Result<(), Rejection> {
    let Some(origin) = headers.get(header::ORIGIN) else {
        return match by_cookie {
            true => Err(Rejection::OriginDenied),
            false => Ok(()),
        };
    };
    let listed = cors.is_some_and(|cors| match &cors.origins {
        Origins::Any => false,
        Origins::Listed(list) => list.contains(origin),
    });
    if listed || is_own(origin, host) {
        Ok(())
    } else {
        Err(Rejection::OriginDenied)
    }
}

/// Whether an origin is this host over TLS. The port 443 may be written or not.
pub(super) fn is_own(origin: &HeaderValue, host: &str) -> bool {
    let bare = |host: &str| {
        host.strip_suffix(":443")
            .unwrap_or(host)
            .to_ascii_lowercase()
    };
    let page = origin.to_str().ok();
    let page = page.and_then(|origin| origin.strip_prefix("https://"));
    page.is_some_and(|page| bare(page) == bare(host))
}

/// Whether a field is there once and says this, in any case.
fn is_only(headers: &HeaderMap, name: &HeaderName, word: &[u8]) -> bool {
    let mut values = headers.get_all(name).iter();
    let is_word = |value: &HeaderValue| value.as_bytes().trim_ascii().eq_ignore_ascii_case(word);
    values.next().is_some_and(is_word) && values.next().is_none()
}

/// Whether one of the elements of a list is this, in any case.
fn lists(headers: &HeaderMap, name: &HeaderName, word: &[u8]) -> bool {
    let mut elements = headers
        .get_all(name)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    elements.any(|element| element.trim_ascii().eq_ignore_ascii_case(word))
}

fn has_key(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(SEC_WEBSOCKET_KEY).iter();
    let is_key = |value: &HeaderValue| {
        let key = value.as_bytes();
        let digits = key.strip_suffix(b"==").unwrap_or_default();
        let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
        key.len() == KEY_LENGTH && digits.iter().all(is_digit) && !digits.is_empty()
    };
    values.next().is_some_and(is_key) && values.next().is_none()
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

    fn parts(method: &str, fields: &[(&str, &str)]) -> Parts {
        let mut builder = Request::builder().method(method).uri("/");
        for (name, value) in fields {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap().into_parts().0
    }

    #[test]
    fn msg_3_what_asks_for_a_websocket_and_is_none_is_refused() {
        let upgrade = ("upgrade", "websocket");
        let connection = ("connection", "keep-alive, Upgrade");
        let key = ("sec-websocket-key", KEY);
        let refused = |request: &Parts, has_body| {
            assert_eq!(
                asks_for_websocket(request, has_body),
                Err(Rejection::BadRequest(HeadFault::Upgrade)),
                "{request:?}"
            );
        };
        refused(&parts("POST", &[upgrade, connection, key]), false);
        refused(&parts("GET", &[upgrade, connection, key]), true);
        refused(&parts("GET", &[upgrade, connection]), false);
        refused(&parts("GET", &[upgrade, connection, key, key]), false);
        for bad in [
            "",
            "==",
            "dGhlIHNhbXBsZSBub25jZQ",
            "dGhlIHNhbXBsZSBub25jZ*==",
        ] {
            let key = ("sec-websocket-key", bad);
            refused(&parts("GET", &[upgrade, connection, key]), false);
        }
        let mut old = parts("POST", &[upgrade, connection, key]);
        old.version = Version::HTTP_10;
        assert_eq!(asks_for_websocket(&old, false), Ok(false));
    }

    #[test]
    fn msg_3_only_the_one_token_asks() {
        let connection = ("connection", "upgrade");
        let key = ("sec-websocket-key", KEY);
        for (upgrade, connection, want) in [
            ("websocket", "upgrade", true),
            ("WebSocket", "Upgrade, keep-alive", true),
            ("websocket", "keep-alive", false),
            ("h2c", "upgrade", false),
            ("websocket, h2c", "upgrade", false),
            ("websocket/13", "upgrade", false),
        ] {
            let fields = [("upgrade", upgrade), ("connection", connection), key];
            assert_eq!(
                asks_for_websocket(&parts("GET", &fields), false),
                Ok(want),
                "{upgrade} {connection}"
            );
        }
        let twice = [("upgrade", "websocket"), ("upgrade", "websocket")];
        let twice = parts("GET", &[twice[0], twice[1], connection, key]);
        assert_eq!(asks_for_websocket(&twice, false), Ok(false));
    }

    #[test]
    fn up_7_pages_of_other_hosts_are_denied() {
        let check = |origin: &str, host: &str, cors: Option<&Cors>| {
            let fields = [("origin", origin)];
            check_origin(&parts("GET", &fields).headers, host, cors, false).is_ok()
        };
        let cors = |origins| Cors {
            origins,
            credentials: false,
            methods: Vec::new(),
            methods_line: HeaderValue::from_static("GET"),
            headers: Vec::new(),
            max_age: 0,
        };
        for foreign in [
            "https://evil.example",
            "http://app.example",
            "https://app.example.evil",
            "https://app.example:8443",
            "https://xapp.example",
            "null",
            "",
            "app.example",
        ] {
            assert!(!check(foreign, "app.example", None), "{foreign}");
            assert!(!check(foreign, "app.example", Some(&cors(Origins::Any))));
        }
        assert!(check("https://app.example", "App.Example", None));
        assert!(check("https://app.example", "app.example:443", None));
        assert!(check("https://app.example:8443", "app.example:8443", None));
        let listed = cors(Origins::Listed(vec![
            "https://spa.example".parse().unwrap(),
        ]));
        assert!(check("https://spa.example", "app.example", Some(&listed)));
        assert!(!check(
            "https://spa.example.evil",
            "app.example",
            Some(&listed)
        ));
        let none = HeaderMap::new();
        assert_eq!(check_origin(&none, "app.example", None, false), Ok(()));
        let denied = Err(Rejection::OriginDenied);
        assert_eq!(check_origin(&none, "app.example", None, true), denied);
    }
}
