//! Which fields may follow a message (MSG-13).
//!
//! Whoever reads a trailer may take it for a header that came late. So nothing passes that says who is calling and from where,
//! where a message ends, what its content is, or what a cache or a browser is to do with it, in any spelling; and nothing that
//! the header section of the same message was not allowed to say.

use std::sync::Arc;

use http::{
    HeaderMap,
    header::{self, HeaderName, HeaderValue},
};

use super::{HeaderEdits, Reserved, fold, hop_by_hop::connection_options};
use crate::policy::head::HeadLimits;

/// Fields that have a meaning only before the content, or that only the header section may bear (RFC 9110 §6.5.1), sorted.
const NEVER: [&str; 59] = [
    "age",
    "alt-svc",
    "authentication-info",
    "authorization",
    "cache-control",
    "clear-site-data",
    "connection",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-range",
    "content-security-policy",
    "content-security-policy-report-only",
    "content-type",
    "cookie",
    "date",
    "expect",
    "expires",
    "host",
    "http2-settings",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "keep-alive",
    "location",
    "max-forwards",
    "origin",
    "pragma",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "proxy-connection",
    "range",
    "referer",
    "referrer-policy",
    "refresh",
    "retry-after",
    "set-cookie",
    "strict-transport-security",
    "te",
    "traceparent",
    "tracestate",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "x-content-type-options",
    "x-frame-options",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-xss-protection",
];

/// Every name that begins so passes neither.
const NEVER_PREFIXES: [&str; 2] = ["access-control-", "sec-"];

/// Which way a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To the upstream.
    Request,
    /// To the client.
    Answer,
}

/// What may follow one message.
#[derive(Debug)]
pub struct Trailers {
    direction: Direction,
    reserved: Arc<Reserved>,
    /// Folded names that do not pass because of what this message or its route says.
    also: Vec<Box<str>>,
    /// Whether the sender takes trailers itself.
    wanted: bool,
    announced: Option<HeaderValue>,
    bytes_max: usize,
    count_max: usize,
}

/// There are more of them, or they are longer, than a header section may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrailersTooLarge;

impl Trailers {
    /// Takes note of what a header section says of the fields that will follow it. To be called before anything is removed
    /// from it; `edits` are the route's for this direction.
    #[must_use]
    pub(super) fn new(
        direction: Direction,
        reserved: &Arc<Reserved>,
        headers: &HeaderMap,
        edits: &HeaderEdits,
        limits: &HeadLimits,
    ) -> Self {
        let set = edits.set.iter().map(|(name, _)| name);
        let edited = set.chain(&edits.remove).cloned();
        let also = connection_options(headers).chain(edited);
        let mut trailers = Self {
            direction,
            reserved: Arc::clone(reserved),
            also: also.map(|name| fold(name.as_str()).into()).collect(),
            wanted: direction == Direction::Request && lists(headers, &header::TE, "trailers"),
            announced: None,
            bytes_max: limits.header_bytes,
            count_max: limits.header_count,
        };
        trailers.announced = trailers.announced_in(headers);
        trailers
    }

    /// Writes into a finished header section which fields will follow, and, in a request, that trailers are wanted.
    pub fn tell(&mut self, headers: &mut HeaderMap) {
        if let Some(names) = self.announced.take() {
            headers.insert(header::TRAILER, names);
        }
        if self.wanted {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
    }

    /// Removes what may not pass.
    ///
    /// # Errors
    /// [`TrailersTooLarge`].
    pub fn filter(&self, mut trailers: HeaderMap) -> Result<HeaderMap, TrailersTooLarge> {
        let bytes: usize = trailers
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len() + 4)
            .sum();
        if bytes > self.bytes_max || trailers.len() > self.count_max {
            return Err(TrailersTooLarge);
        }
        let refused: Vec<HeaderName> = trailers
            .keys()
            .filter(|name| !self.passes(name.as_str()))
            .cloned()
            .collect();
        for name in refused {
            trailers.remove(name);
        }
        Ok(trailers)
    }

    fn passes(&self, name: &str) -> bool {
        let folded = fold(name);
        // As in header sections, where no request's name with an underscore passes, and any answer's does.
        let spelling = match self.direction {
            Direction::Request => name,
            Direction::Answer => &folded,
        };
        !(self.reserved.has(spelling)
            || NEVER.binary_search(&&*folded).is_ok()
            || NEVER_PREFIXES
                .iter()
                .any(|prefix| folded.starts_with(prefix))
            || self.also.iter().any(|other| **other == *folded))
    }

    /// The names in `Trailer` that would pass.
    fn announced_in(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let names: Vec<HeaderName> = elements(headers, &header::TRAILER)
            .filter_map(|name| HeaderName::from_bytes(name).ok())
            .filter(|name| self.passes(name.as_str()))
            .collect();
        let names: Vec<&str> = names.iter().map(HeaderName::as_str).collect();
        let line = (!names.is_empty()).then(|| names.join(", "))?;
        HeaderValue::try_from(line).ok()
    }
}

/// The elements of a field that is a list.
fn elements<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h [u8]> {
    let lines = headers.get_all(name).into_iter();
    let elements = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    elements.map(<[u8]>::trim_ascii)
}

fn lists(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    elements(headers, name).any(|element| element.eq_ignore_ascii_case(word.as_bytes()))
}
