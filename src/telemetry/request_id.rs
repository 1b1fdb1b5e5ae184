//! Names for requests: made here, or taken from a trusted proxy.

use std::{
    cell::Cell,
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;

/// The longest request id, in bytes.
const LEN_MAX: usize = 64;

/// The name of one request in answers, logs and the header told to the upstream: 1 to 64 bytes of `[A-Za-z0-9-]`, so that it
/// fits every header and log line unescaped (LOG-5). It is kept inline; making and copying one allocates nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId {
    bytes: [u8; LEN_MAX],
    len: u8,
}

/// A source of request ids: one for each worker, for it is not `Sync`.
///
/// An id is 128 bits as 32 lower-case hex digits. Both halves are a counter, started at random by the operating system's
/// generator and mixed by a bijection: one source repeats none before 2^64, two sources collide by chance alone. Ids are
/// names, not secrets: whoever sees some can foretell others.
#[derive(Debug)]
pub struct RequestIds {
    high: Cell<u64>,
    low: Cell<u64>,
}

impl RequestId {
    /// Takes an id that someone else made; `None` unless it is 1 to 64 bytes of `[A-Za-z0-9-]`. Whether that someone is to be
    /// believed is for the caller to know.
    #[must_use]
    pub fn accept(text: &str) -> Option<Self> {
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if text.is_empty() || !text.bytes().all(valid) {
            return None;
        }
        let mut bytes = [0; LEN_MAX];
        bytes
            .get_mut(..text.len())?
            .copy_from_slice(text.as_bytes());
        Some(Self {
            bytes,
            len: u8::try_from(text.len()).ok()?,
        })
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.bytes
            .get(..usize::from(self.len))
            .and_then(|bytes| std::str::from_utf8(bytes).ok())
            .unwrap_or_default()
    }

    /// The id as a header value, to be shared by the request to the upstream and the answer.
    #[must_use]
    pub fn to_header_value(self) -> http::HeaderValue {
        // Letters, digits and hyphens fit every header. With its owner, for bytes without one are moved to the heap again as soon as
        // they are shared.
        let value = http::HeaderValue::from_maybe_shared(Bytes::from_owner(self));
        let mut value = value.unwrap_or(http::HeaderValue::from_static("unknown"));
        // It is no secret, but never comes again: the header compression of HTTP/2 must not remember it (RFC 7541 §6.2.3). It would
        // forget for it what does come again, and look through all ids that it remembers at each request.
        value.set_sensitive(true);
        value
    }
}

impl AsRef<[u8]> for RequestId {
    fn as_ref(&self) -> &[u8] {
        self.as_str().as_bytes()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RequestId({})", self.as_str())
    }
}

impl RequestIds {
    /// Starts at a random point.
    #[must_use]
    pub fn new() -> Self {
        let mut seed = [0; 16];
        if aws_lc_rs::rand::fill(&mut seed).is_err() {
            // Names need no secrecy, so the clock does where the generator fails.
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            seed = now.map_or(0, |now| now.as_nanos()).to_le_bytes();
        }
        let [high, low] = halves(u128::from_le_bytes(seed));
        Self {
            high: Cell::new(high),
            low: Cell::new(low),
        }
    }

    /// The next id.
    pub fn next(&self) -> RequestId {
        let mut bytes = [0; LEN_MAX];
        let number = [step(&self.high), step(&self.low)];
        let digits = bytes.chunks_exact_mut(2);
        for (pair, byte) in digits.zip(number.into_iter().flat_map(u64::to_be_bytes)) {
            let two = DIGITS.get(usize::from(byte)).copied();
            pair.copy_from_slice(&two.unwrap_or_default());
        }
        RequestId { bytes, len: 32 }
    }

    /// Whether one is drawn, of which so many of a thousand are. Like the ids, it can be foretold by whoever sees enough of them.
    pub(super) fn is_drawn(&self, thousandths: u32) -> bool {
        match thousandths {
            0 => false,
            1000.. => true,
            _ => step(&self.low) % 1000 < u64::from(thousandths),
        }
    }
}

impl Default for RequestIds {
    fn default() -> Self {
        Self::new()
    }
}

fn halves(number: u128) -> [u64; 2] {
    let low = u64::try_from(number & u128::from(u64::MAX)).unwrap_or_default();
    let high = u64::try_from(number >> 64).unwrap_or_default();
    [high, low]
}

/// SplitMix64: an odd step through all 2^64 values, then a bijective mixer.
fn step(state: &Cell<u64>) -> u64 {
    let next = state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    state.set(next);
    let mixed = (next ^ (next >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The two hex digits of each byte.
const DIGITS: [[u8; 2]; 256] = {
    let mut table = [[0; 2]; 256];
    let mut byte: u8 = 0;
    loop {
        #[expect(
            clippy::indexing_slicing,
            clippy::as_conversions,
            reason = "evaluated at compile time, a byte among 256"
        )]
        {
            table[byte as usize] = [digit(byte >> 4), digit(byte & 0xf)];
        }
        if byte == u8::MAX {
            break;
        }
        byte += 1;
    }
    table
};

/// The lower-case hex digit of a number below 16.
const fn digit(nibble: u8) -> u8 {
    if nibble < 10 {
        b'0' + nibble
    } else {
        b'a' + (nibble - 10)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn log_5_foreign_ids_outside_the_alphabet_are_refused() {
        let long = "a".repeat(65);
        for text in [
            "", " ", "a b", "a_b", "a.b", "a\n", "\u{e9}", "a\"", "a/b", "{}", &long,
        ] {
            assert_eq!(RequestId::accept(text), None, "{text:?}");
        }
    }

    #[test]
    fn log_5_foreign_ids_inside_the_alphabet_are_kept() {
        let longest = "Z".repeat(64);
        for text in ["a", "-", "0190d2b4-7c1e-7e3a-9b6f-1c2d3e4f5a6b", &longest] {
            let id = RequestId::accept(text).unwrap();
            assert_eq!(id.as_str(), text);
            assert_eq!(id.to_string(), text);
        }
    }

    #[test]
    fn own_ids_are_32_lower_case_hex_digits_and_differ() {
        let sources = [RequestIds::new(), RequestIds::new()];
        let mut seen = HashSet::new();
        for source in &sources {
            for _ in 0..10_000 {
                let id = source.next();
                let text = id.as_str();
                assert_eq!(text.len(), 32);
                assert!(text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')));
                assert_eq!(RequestId::accept(text), Some(id));
                assert!(seen.insert(id));
            }
        }
    }

    #[test]
    fn the_header_compression_of_http2_remembers_no_id() {
        let foreign = RequestId::accept("a").unwrap();
        for id in [RequestIds::new().next(), foreign] {
            let value = id.to_header_value();
            assert!(value.is_sensitive());
            assert_eq!(value, id.as_str());
        }
    }

    proptest! {
        #[test]
        fn log_5_accepted_ids_round_trip(text in ".{0,80}") {
            if let Some(id) = RequestId::accept(&text) {
                prop_assert_eq!(id.as_str(), text.as_str());
                prop_assert!(text.len() <= 64);
            }
        }
    }
}
