//! Which trace does a request belong to? The client's, where its fields are well-formed; else one that begins here (W3C Trace
//! Context §4). Where the gateway records spans of its own, the upstream is told of them.

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};

pub(super) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub(super) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The length of a `traceparent` of version 00, and of the part of later versions that is known.
const KNOWN_BYTES: usize = 55;
/// Where the parts of a `traceparent` are.
const TRACE: std::ops::Range<usize> = 3..35;
const PARENT: std::ops::Range<usize> = 36..52;
const FLAGS: std::ops::Range<usize> = 53..55;

/// A span, as `traceparent` names it: digits in lower case, neither id of zeros alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace that it belongs to, in 32 hexadecimal digits.
    pub trace: [u8; 32],
    /// The span, in 16 hexadecimal digits.
    pub span: [u8; 16],
    /// Whether whoever wrote it records the trace.
    pub sampled: bool,
}

/// What an upstream is told of the trace.
#[derive(Debug, Clone, Copy)]
pub enum TraceField<'a> {
    /// What the client said, as it is.
    AsItCame,
    /// The client's trace, but not that it is recorded: a stranger's word for that would have every service behind export
    /// whatever the stranger likes.
    NotRecorded,
    /// That this span asks, which is recorded.
    Recorded(&'a TraceParent),
}

impl TraceParent {
    /// What the one well-formed `traceparent` of a request names; `None` where there is none, several, or one that is not
    /// well-formed.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let line = single(headers)?;
        Version::of(line)?;
        let flags = line.get(FLAGS)?;
        Some(Self {
            trace: line.get(TRACE)?.try_into().ok()?,
            span: line.get(PARENT)?.try_into().ok()?,
            sampled: is_sampled(flags),
        })
    }

    fn line(&self) -> Option<HeaderValue> {
        let flags = if self.sampled { b"01" } else { b"00" };
        joined([&self.trace, &self.span, flags])
    }
}

/// The one `traceparent` of a request.
fn single(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(TRACEPARENT).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => Some(value.as_bytes()),
        (None | Some(_), _) => None,
    }
}

/// Leaves the one well-formed `traceparent` of a request as it is, with its `tracestate`, unless `told` says otherwise. One of a
/// later version is told as far as it is known here, as version 00. Where there is none, several, or one that is not well-formed, a
/// trace begins, and the state of another, of which nobody knows which it was, is left out. `came` says whether either field came.
pub(super) fn pass_on(
    headers: &mut HeaderMap,
    request_id: &HeaderValue,
    told: TraceField<'_>,
    came: bool,
) {
    let parent = came.then(|| single(headers).and_then(Version::of));
    let parent = parent.flatten();
    if came && parent.is_none() {
        headers.remove(TRACESTATE);
    }
    let claimed = || TraceParent::of(headers).filter(|parent| parent.sampled);
    let disbelieved = match told {
        TraceField::NotRecorded if parent.is_some() => claimed(),
        TraceField::AsItCame | TraceField::NotRecorded | TraceField::Recorded(_) => None,
    };
    let line = match (told, disbelieved, parent) {
        (TraceField::Recorded(span), _, _) => span.line(),
        (_, Some(parent), _) => unrecorded(&parent, request_id),
        (_, None, Some(Version::Ours)) => return,
        (_, None, Some(Version::Later(line))) => Some(line),
        (_, None, None) => begun(request_id),
    };
    match line {
        Some(line) => headers.insert(TRACEPARENT, line),
        None => headers.remove(TRACEPARENT),
    };
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
                let flags = if is_sampled(flags) { b"01" } else { b"00" };
                joined([trace, parent, flags]).map(Self::Later)
            }
            _ => None,
        }
    }
}

/// A trace that begins here, when the request id is one that we made: its 32 hex digits are the trace id, the last 16 of
/// them the parent id. It is not sampled.
fn begun(request_id: &HeaderValue) -> Option<HeaderValue> {
    joined([request_id.as_bytes(), own_parent(request_id)?, b"00"])
}

/// The trace of a parent that is not to be believed. Whoever changes the flag puts another parent in (§3.3.1.1).
fn unrecorded(parent: &TraceParent, request_id: &HeaderValue) -> Option<HeaderValue> {
    joined([&parent.trace, own_parent(request_id)?, b"00"])
}

/// The last 16 digits of a request id that we made.
fn own_parent(request_id: &HeaderValue) -> Option<&[u8]> {
    let id: &[u8; 32] = request_id.as_bytes().try_into().ok()?;
    // Without a way out at the first that is none, sixteen are compared at once.
    let ours = id.iter().fold(true, |ours, digit| ours & is_hex(digit));
    id.get(16..).filter(|_| ours)
}

/// Whether the lowest bit of two digits is set.
fn is_sampled(flags: &[u8]) -> bool {
    let low = flags.last().copied().and_then(value);
    low.is_some_and(|low| low & 1 == 1)
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
        told(TraceField::AsItCame, fields)
    }

    fn told(told: TraceField<'_>, fields: &[(&'static str, &str)]) -> (Vec<String>, Vec<String>) {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        let came = !fields.is_empty();
        pass_on(&mut headers, &HeaderValue::from_static(ID), told, came);
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

    #[test]
    fn a_strangers_word_that_a_trace_is_recorded_does_not_go_on() {
        let not_recorded = |parent: &str| {
            told(
                TraceField::NotRecorded,
                &[("traceparent", parent), ("tracestate", "a=1")],
            )
        };
        let trace = good(TRACE);
        for flags in ["01", "03", "ff"] {
            for version in ["00", "cc"] {
                let parent = format!("{version}{}{flags}", good(2..53));
                let want = format!("00-{trace}-8448eb211c80319c-00");
                let got = not_recorded(&parent);
                assert_eq!(got, (vec![want], vec!["a=1".into()]), "{parent}");
            }
        }
        let unsampled = format!("{}00", good(0..53));
        let want = (vec![unsampled.clone()], vec!["a=1".into()]);
        assert_eq!(not_recorded(&unsampled), want);
        assert_eq!(not_recorded("x"), (vec![begun_here()], vec![]));
    }

    #[test]
    fn a_recorded_span_takes_the_parents_place_and_keeps_the_state_of_a_good_one() {
        let span = TraceParent {
            trace: *b"4bf92f3577b34da6a3ce929d0e0e4736",
            span: *b"1122334455667788",
            sampled: true,
        };
        let want = "00-4bf92f3577b34da6a3ce929d0e0e4736-1122334455667788-01";
        for (parent, state) in [(GOOD, vec!["a=1".to_owned()]), ("x", vec![])] {
            let fields = [("traceparent", parent), ("tracestate", "a=1")];
            let got = told(TraceField::Recorded(&span), &fields);
            assert_eq!(got, (vec![want.to_owned()], state), "{parent}");
        }
    }

    #[test]
    fn a_parent_is_read_where_there_is_one_good_one() {
        let read = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(TRACEPARENT, value.parse().unwrap());
            }
            TraceParent::of(&headers)
        };
        let want = TraceParent {
            trace: *b"4bf92f3577b34da6a3ce929d0e0e4736",
            span: *b"00f067aa0ba902b7",
            sampled: true,
        };
        assert_eq!(read(&[GOOD]), Some(want));
        let unsampled = format!("{}02", good(0..53));
        let sampled = false;
        assert_eq!(read(&[&unsampled]), Some(TraceParent { sampled, ..want }));
        for bad in [&[][..], &[GOOD, GOOD], &["x"], &["-01"]] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }
}
