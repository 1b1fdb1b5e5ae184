//! `Forwarded` (RFC 7239), read from its end: the last element is the nearest proxy's, and what stands left of an element was
//! there before its writer added to it.
//!
//! From the end, because a client may begin a quoted string that it never closes: read from the start, such a string would
//! swallow what the proxies wrote behind it. What a proxy wrote is well-formed, so from the end its bounds are certain.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::{HeaderMap, header};

/// One element: what one proxy says of the request that it got.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Element {
    /// The node that made the request; `None` where it is absent, `unknown`, or goes by a made-up name (RFC 7239 §6.3).
    pub(super) client: Option<IpAddr>,
    /// The scheme that it used; as it was written.
    pub(super) proto: Option<String>,
    /// The host that it asked for; as it was written.
    pub(super) host: Option<String>,
}

/// The elements of all lines, nearest first. Ends at the first that cannot be read.
pub(super) fn elements(headers: &HeaderMap) -> impl Iterator<Item = Element> {
    let lines = headers.get_all(header::FORWARDED).iter();
    let nearest_first = lines.rev().flat_map(|line| {
        let mut rest = Some(line.to_str().ok());
        std::iter::from_fn(move || {
            let Some(text) = rest.take()? else {
                return Some(None);
            };
            let (before, element) = split_last(text, b',');
            rest = before.map(Some);
            Some(element.and_then(read))
        })
    });
    nearest_first.map_while(|element| element)
}

/// What stands before the last separator outside quotes, where there is one, and what stands behind it; `None` instead of the
/// latter where a quoted string is not closed.
fn split_last(text: &str, separator: u8) -> (Option<&str>, Option<&str>) {
    let bytes = text.as_bytes();
    let mut is_quoted = false;
    for (at, byte) in bytes.iter().enumerate().rev() {
        let is_escaped = || {
            let before = bytes.iter().take(at).rev();
            before.take_while(|byte| **byte == b'\\').count() % 2 == 1
        };
        match *byte {
            // Outside quotes nothing is escaped: a backslash there belongs to no value and `read` refuses it.
            b'"' if !is_quoted => is_quoted = true,
            b'"' if !is_escaped() => is_quoted = false,
            byte if byte == separator && !is_quoted => {
                return (text.get(..at), text.get(at + 1..));
            }
            _ => {}
        }
    }
    (None, (!is_quoted).then_some(text))
}

/// Reads one element: parameters between semicolons, in any order, none twice (RFC 7239 §4). Blanks around the semicolons are
/// borne, for proxies write them.
fn read(element: &str) -> Option<Element> {
    let mut read = Element::default();
    let mut names = Vec::new();
    let mut rest = Some(element);
    while let Some(text) = rest {
        let (before, pair) = split_last(text, b';');
        rest = before;
        let pair = pair?.trim_matches([' ', '\t']);
        if pair.is_empty() {
            continue;
        }
        let (name, value) = pair.split_once('=')?;
        let name = name.to_ascii_lowercase();
        let value = value_of(value)?;
        if !is_token(&name) || names.contains(&name) {
            return None;
        }
        match &*name {
            "for" => read.client = node(&value)?,
            "by" => drop(node(&value)?),
            "proto" => read.proto = Some(value),
            "host" => read.host = Some(value),
            _ => {}
        }
        names.push(name);
    }
    Some(read)
}

/// A token, or what a quoted string stands for.
fn value_of(text: &str) -> Option<String> {
    let Some(quoted) = text.strip_prefix('"') else {
        return is_token(text).then(|| text.to_owned());
    };
    let mut value = String::with_capacity(quoted.len());
    let mut characters = quoted.strip_suffix('"')?.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => value.push(characters.next()?),
            '"' => return None,
            other => value.push(other),
        }
    }
    Some(value)
}

/// RFC 9110 §5.6.2.
fn is_token(text: &str) -> bool {
    let is_char = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_char)
}

/// Reads a node (RFC 7239 §6): `None` where it is none, `Some(None)` where it has no address.
fn node(text: &str) -> Option<Option<IpAddr>> {
    let (name, port) = match text.strip_prefix('[') {
        Some(bracketed) => {
            let (name, rest) = bracketed.split_once(']')?;
            let address: Ipv6Addr = name.parse().ok()?;
            let port = match rest {
                "" => None,
                port => Some(port.strip_prefix(':')?),
            };
            return is_port(port).then(|| Some(IpAddr::V6(address).to_canonical()));
        }
        None => text
            .split_once(':')
            .map_or((text, None), |(name, port)| (name, Some(port))),
    };
    if !is_port(port) {
        return None;
    }
    if name.eq_ignore_ascii_case("unknown") || is_obfuscated(name) {
        return Some(None);
    }
    let address: Ipv4Addr = name.parse().ok()?;
    Some(Some(IpAddr::V4(address)))
}

fn is_port(port: Option<&str>) -> bool {
    port.is_none_or(|port| {
        let is_number = (1..=5).contains(&port.len()) && port.bytes().all(|b| b.is_ascii_digit());
        is_number || is_obfuscated(port)
    })
}

fn is_obfuscated(name: &str) -> bool {
    let is_char = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    name.strip_prefix('_')
        .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(is_char))
}

#[cfg(test)]
mod tests;
