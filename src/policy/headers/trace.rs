//! Which trace does a request belong to? The client's, where its fields are well-formed; else one that begins here (W3C Trace
//! Context §4).

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The length of a `traceparent` of version 00, and of the part of later versions that is known.
const KNOWN_BYTES: usize = 55;
/// Where the parts of a `traceparent` are.
const TRACE: std::ops::Range<usize> = 3..35;
const PARENT: std::ops::Range<usize> = 36..52;
const FLAGS: std::ops::Range<usize> = 53..55;

/// Leaves the one well-formed `traceparent` of a request as it is, with its `tracestate`. One of a later version is told as far as
/// it is known here, as version 00. Where there is none, several, or one that is not well-formed, a trace begins, and the state of
/// another, of which nobody knows which it was, is left out.
pub(super) fn pass_on(headers: &mut HeaderMap, request_id: &HeaderValue) {
    let mut values = headers.get_all(TRACEPARENT).iter();
    let parent = match (values.next(), values.next()) {
        (Some(value), None) => Version::of(value.as_bytes()),
        (None | Some(_), _) => None,
    };
    match parent {
        Some(Version::Ours) => {}
        Some(Version::Later(line)) => {
            headers.insert(TRACEPARENT, line);
        }
        None => {
            match begun(request_id) {
                Some(line) => headers.insert(TRACEPARENT, line),
                None => headers.remove(TRACEPARENT),
            };
            headers.remove(TRACESTATE);
        }
    }
}

/// A well-formed `traceparent`.
enum Version {
    /// 00.
    Ours,
    /// A later one; the line says what is known of it.
    Later(HeaderValue),
}

impl Version {
    /// `None` for what is not well-formed: too short, not in lower case, of version ff, or with an id of zeros (§3.2.2).
    fn of(line: &[u8]) -> Option<Self> {
        let known = line.get(..KNOWN_BYTES)?;
        let version = known.get(..2)?;
        let (trace, parent) = (known.get(TRACE)?, known.get(PARENT)?);
        let flags = known.get(FLAGS)?;
        let digits = [version, trace, parent, flags];
        let hyphens = [2, 35, 52].map(|place| known.get(place) == Some(&b'-'));
        let fits = digits.iter().all(|part| part.iter().all(is_hex))
            && hyphens == [true; 3]
            && [trace, parent]
                .iter()
                .all(|id| id.iter().any(|digit| *digit != b'0'))
            && version != b"ff";
        let rest = line.get(KNOWN_BYTES..)?;
        match (fits, version == b"00", rest.first()) {
            (true, true, None) => Some(Self::Ours),
            (true, false, None | Some(b'-')) => {
                // Of the flags one alone is known: sampled.
                let sampled = flags.last().copied().and_then(value)? & 1;
                let flags = if sampled == 1 { b"01" } else { b"00" };
                joined([trace, parent, flags]).map(Self::Later)
            }
            _ => None,
        }
    }
}

/// A trace that begins here, when the request id is one that we made: its 32 hex digits are the trace id, the last 16 of
/// them the parent id. It is not sampled.
fn begun(request_id: &HeaderValue) -> Option<HeaderValue> {
    let id = request_id.as_bytes();
    let ours = id.len() == 32 && id.iter().all(is_hex);
    let parent = id.get(16..).filter(|_| ours)?;
    joined([id, parent, b"00"])
}

fn joined([trace, parent, flags]: [&[u8]; 3]) -> Option<HeaderValue> {
    let mut line = Vec::with_capacity(KNOWN_BYTES);
    for part in [b"00-", trace, b"-", parent, b"-", flags] {
        line.extend_from_slice(part);
    }
    HeaderValue::from_maybe_shared(Bytes::from(line)).ok()
}

const fn is_hex(byte: &u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

const fn value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0af7651916cd43dd8448eb211c80319c";
    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn good(part: std::ops::Range<usize>) -> &'static str {
        GOOD.get(part).unwrap()
    }

    /// What becomes of these fields: `traceparent` and `tracestate`.
    fn passed(fields: &[(&'static str, &str)]) -> (Vec<String>, Vec<String>) {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        pass_on(&mut headers, &HeaderValue::from_static(ID));
        let all = |name| {
            let values = headers.get_all(name).iter();
            values
                .map(|value| value.to_str().unwrap().to_owned())
                .collect()
        };
        (all("traceparent"), all("tracestate"))
    }

    fn begun_here() -> String {
        format!("00-{ID}-8448eb211c80319c-00")
    }

    #[test]
    fn without_a_good_parent_a_trace_begins_and_no_state_goes_on() {
        let later = GOOD.replacen("00", "01", 1);
        for bad in [
            "",
            "x",
            "00-0-0-0",
            good(0..54),
            &GOOD.to_uppercase(),
            &GOOD.replacen("00", "ff", 1),
            &GOOD.replacen("00", "0g", 1),
            &GOOD.replace('-', "_"),
            &format!("{GOOD}-x"),
            &format!("{GOOD} "),
            &format!("{later}x"),
            &format!("{later}, {GOOD}"),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "01-00000000000000000000000000000000-00f067aa0ba902b7-01",
        ] {
            let got = passed(&[("traceparent", bad), ("tracestate", "a=1")]);
            assert_eq!(got, (vec![begun_here()], vec![]), "{bad}");
        }
        assert_eq!(passed(&[]), (vec![begun_here()], vec![]));
        assert_eq!(
            passed(&[("tracestate", "a=1")]),
            (vec![begun_here()], vec![])
        );
    }

    #[test]
    fn of_two_parents_neither_is_believed() {
        let two = [("traceparent", GOOD), ("traceparent", GOOD)];
        assert_eq!(passed(&two), (vec![begun_here()], vec![]));
    }

    #[test]
    fn a_good_parent_goes_on_with_all_of_its_state() {
        for flags in ["00", "01", "ff"] {
            let parent = format!("{}{flags}", good(0..53));
            let fields = [
                ("traceparent", &*parent),
                ("tracestate", "a=1"),
                ("tracestate", "b=2"),
            ];
            let want = (vec![parent.clone()], vec!["a=1".into(), "b=2".into()]);
            assert_eq!(passed(&fields), want);
        }
    }

    #[test]
    fn a_later_version_is_told_as_far_as_it_is_known() {
        for (rest, flags) in [("01", "01"), ("00", "00"), ("ff", "01"), ("fe-more", "00")] {
            let parent = format!("cc{}{rest}", good(2..53));
            let want = format!("{}{flags}", good(0..53));
            let got = passed(&[("traceparent", &parent), ("tracestate", "a=1")]);
            assert_eq!(got, (vec![want], vec!["a=1".into()]), "{parent}");
        }
    }
}
