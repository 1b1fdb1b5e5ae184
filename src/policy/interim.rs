//! Which interim answers of an upstream go on to the client, and what of them (RFC 9110 §15.2, RFC 8297, MSG-14).

use http::{
    HeaderMap, StatusCode,
    header::{CONTENT_SECURITY_POLICY, HeaderName, LINK},
};

/// How many interim answers to one request go on.
pub const INTERIM_HEADS_MAX: usize = 4;

/// The longest one, in bytes as it is sent.
pub const INTERIM_BYTES_MAX: usize = 4 << 10;

/// The fields that go on: what to fetch early, and the policy that such fetches obey. A list of what may, not of what may not:
/// a client takes an interim answer before the final one was seen, and nothing that the gateway does to answers is done to it.
const FIELDS: [HeaderName; 2] = [LINK, CONTENT_SECURITY_POLICY];

/// The interim answer as HTTP/1.1 has it; `None` for one that goes no further. 100 belongs to an expectation, which ended at
/// the gateway, and 101 changes the protocol.
#[must_use]
pub fn head(status: StatusCode, headers: &HeaderMap) -> Option<Vec<u8>> {
    if !status.is_informational()
        || matches!(
            status,
            StatusCode::CONTINUE | StatusCode::SWITCHING_PROTOCOLS
        )
    {
        return None;
    }
    let reason = status.canonical_reason().unwrap_or_default();
    let mut head = format!("HTTP/1.1 {} {reason}\r\n", status.as_str()).into_bytes();
    for name in &FIELDS {
        for value in headers.get_all(name) {
            for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                head.extend_from_slice(part);
            }
        }
        if head.len() > INTERIM_BYTES_MAX {
            return None;
        }
    }
    head.extend_from_slice(b"\r\n");
    (head.len() <= INTERIM_BYTES_MAX).then_some(head)
}

#[cfg(test)]
mod tests {
    use http::header::HeaderValue;

    use super::*;

    fn text(status: u16, fields: &[(&'static str, &str)]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        let head = head(StatusCode::from_u16(status).unwrap(), &headers)?;
        Some(String::from_utf8(head).unwrap())
    }

    #[test]
    fn msg_14_only_listed_fields_of_interim_answers_go_on() {
        let fields = [
            ("connection", "x-hop"),
            ("set-cookie", "__Host-portcullis-session=stolen"),
            ("link", "</a>; rel=preload"),
            ("content-length", "5"),
            ("transfer-encoding", "chunked"),
            ("location", "https://evil.example/"),
            ("link", "</b>; rel=preload"),
            ("x-hop", "1"),
        ];
        assert_eq!(
            text(103, &fields).unwrap(),
            "HTTP/1.1 103 Early Hints\r\nlink: </a>; rel=preload\r\nlink: </b>; rel=preload\r\n\r\n"
        );
        assert!(text(102, &[]).unwrap().starts_with("HTTP/1.1 102 "));
        assert_eq!(text(199, &[]).unwrap(), "HTTP/1.1 199 \r\n\r\n");
    }

    #[test]
    fn msg_14_interim_answers_of_others_and_final_ones_are_none() {
        for status in [100, 101, 200, 204, 304, 401] {
            assert_eq!(text(status, &[("link", "</a>")]), None, "{status}");
        }
    }

    #[test]
    fn msg_14_a_large_interim_answer_goes_no_further() {
        let longest = INTERIM_BYTES_MAX - "HTTP/1.1 103 Early Hints\r\nlink: \r\n\r\n".len();
        let head = text(103, &[("link", &"x".repeat(longest))]).unwrap();
        assert_eq!(head.len(), INTERIM_BYTES_MAX);
        assert_eq!(text(103, &[("link", &"x".repeat(longest + 1))]), None);
        assert_eq!(text(103, &[("link", &"x".repeat(100_000))]), None);
    }
}
