//! Which fields belong to one connection and go no further.

use http::{
    HeaderMap,
    header::{self, HeaderName},
};

/// Fields that belong to one connection (RFC 9110 §7.6.1), and `Expect`, which the gateway answers itself.
static HOP_BY_HOP: [HeaderName; 10] = [
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

/// The fields of one connection that a message has. Most have none or one of them: a look at each name of the message is cheaper
/// than a look-up of each of the ten.
#[derive(Debug, Clone, Copy, Default)]
pub struct HopByHop {
    has_any: bool,
    /// Which, by their places in the list.
    found: [bool; HOP_BY_HOP.len()],
}

impl HopByHop {
    /// Looks at one of the message's names.
    pub fn look_at(&mut self, name: &HeaderName) {
        let place = place(name.as_str());
        if let Some(found) = place.and_then(|place| self.found.get_mut(place)) {
            *found = true;
            self.has_any = true;
        }
    }

    /// Removes them from the message, a request or an answer, and those that `Connection` names (RFC 9110 §7.6.1), `kept`
    /// excepted. All of the message's names must have been looked at.
    pub fn strip(self, headers: &mut HeaderMap, kept: &[HeaderName]) {
        if !self.has_any {
            return;
        }
        if has_options(headers) {
            let options: Vec<HeaderName> = connection_options(headers)
                .filter(|name| !NOT_CONNECTION_OPTIONS.contains(name) && !kept.contains(name))
                .collect();
            for name in options {
                headers.remove(name);
            }
        }
        for (name, found) in HOP_BY_HOP.iter().zip(self.found) {
            if found {
                headers.remove(name);
            }
        }
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

/// The place of a name in [`HOP_BY_HOP`].
fn place(name: &str) -> Option<usize> {
    Some(match name {
        "connection" => 0,
        "keep-alive" => 1,
        "proxy-connection" => 2,
        "te" => 3,
        "trailer" => 4,
        "transfer-encoding" => 5,
        "upgrade" => 6,
        "http2-settings" => 7,
        "proxy-authorization" => 8,
        "expect" => 9,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hop_by_hop_name_is_removed_and_others_stay() {
        let mut headers = HeaderMap::new();
        for (number, name) in HOP_BY_HOP.iter().enumerate() {
            assert_eq!(place(name.as_str()), Some(number), "{name}");
            headers.append(name, "x".parse().unwrap());
            headers.append(name, "y".parse().unwrap());
        }
        headers.append("content-type", "text/plain".parse().unwrap());
        headers.append("accept", "*/*".parse().unwrap());
        let mut hops = HopByHop::default();
        headers.keys().for_each(|name| hops.look_at(name));
        hops.strip(&mut headers, &[]);
        assert_eq!(headers.len(), 2);
    }
}
