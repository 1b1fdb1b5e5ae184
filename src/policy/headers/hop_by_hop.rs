//! Which fields belong to one connection and go no further.

use http::{
    HeaderMap,
    header::{self, HeaderName},
};

/// Fields that belong to one connection (RFC 9110 §7.6.1), and `Expect`, which the gateway answers itself.
const HOP_BY_HOP: [&str; 10] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
    "proxy-authorization",
    "expect",
];

/// End-to-end fields that `Connection` may not take away: framing, routing and credentials.
const NOT_CONNECTION_OPTIONS: [HeaderName; 5] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::AUTHORIZATION,
    header::COOKIE,
];

/// Removes the fields of one connection, and those that `Connection` names (RFC 9110 §7.6.1), from a request or an answer. What
/// `kept` names is not taken away by `Connection`.
pub fn strip_hop_by_hop(headers: &mut HeaderMap, kept: &[HeaderName]) {
    if has_options(headers) {
        let options: Vec<HeaderName> = connection_options(headers)
            .filter(|name| !NOT_CONNECTION_OPTIONS.contains(name) && !kept.contains(name))
            .collect();
        for name in options {
            headers.remove(name);
        }
    }
    // Most messages have none or one of them: a look at each name is cheaper than a look-up of each of the ten.
    while let Some(name) = headers.keys().find(|name| is_hop_by_hop(name)).cloned() {
        headers.remove(name);
    }
}

/// Whether `Connection` names anything but itself and `keep-alive`, which nearly every server says.
fn has_options(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(header::CONNECTION).iter();
    lines.any(|line| !line.as_bytes().eq_ignore_ascii_case(b"keep-alive"))
}

/// The names that `Connection` holds, `keep-alive` excepted, which is hop-by-hop whether or not it is named.
pub(super) fn connection_options(headers: &HeaderMap) -> impl Iterator<Item = HeaderName> {
    let lines = headers.get_all(header::CONNECTION).into_iter();
    let options = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    let options = options.map(<[u8]>::trim_ascii);
    // What nearly every server says, and a field that goes in any case.
    let options = options.filter(|option| !option.eq_ignore_ascii_case(b"keep-alive"));
    options.filter_map(|option| HeaderName::from_bytes(option).ok())
}

fn is_hop_by_hop(name: &HeaderName) -> bool {
    HOP_BY_HOP.contains(&name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hop_by_hop_name_is_removed_and_others_stay() {
        let mut headers = HeaderMap::new();
        for name in HOP_BY_HOP {
            headers.append(name, "x".parse().unwrap());
            headers.append(name, "y".parse().unwrap());
        }
        headers.append("content-type", "text/plain".parse().unwrap());
        headers.append("accept", "*/*".parse().unwrap());
        strip_hop_by_hop(&mut headers, &[]);
        assert_eq!(headers.len(), 2);
    }
}
