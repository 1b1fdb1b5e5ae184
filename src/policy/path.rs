//! The one normalised path that matching, rules, logs and the forwarded request all use (URI-1).
//!
//! Unreserved percent-encodings are decoded once and repeated slashes are merged. Whatever two servers could read in two
//! ways after that is refused rather than repaired: dot segments, encoded slashes, backslashes, semicolons, control
//! bytes, double encoding, bytes that are not UTF-8.

use std::borrow::Cow;

use super::rejection::PathFault;

/// A path that begins with `/`, has no empty inner segment and no ambiguous byte. Borrowed where the request's own path was
/// normal already, which is the usual case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NormalPath<'a>(Cow<'a, str>);

impl<'a> NormalPath<'a> {
    /// Normalises a path as received, without its query.
    ///
    /// # Errors
    /// The first [`PathFault`] met, left to right.
    pub fn parse(raw: &'a str) -> Result<Self, PathFault> {
        if !raw.starts_with('/') {
            return Err(PathFault::Relative);
        }
        if is_plain(raw.as_bytes()) {
            Ok(Self(Cow::Borrowed(raw)))
        } else {
            normalise(raw).map(|path| Self(Cow::Owned(path)))
        }
    }

    /// The path.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the request's own path was normal already.
    #[must_use]
    pub fn is_borrowed(&self) -> bool {
        matches!(self.0, Cow::Borrowed(_))
    }

    /// The path as an upstream is told it that knows nothing of `prefix`, which ends without a slash. Cut on a segment boundary
    /// and read once more: what leaves is a normal path too and cannot climb out of the upstream's base path (URI-5).
    ///
    /// # Errors
    /// [`PathFault::Relative`] where the path does not lie under the prefix, and every fault of [`NormalPath::parse`].
    pub fn without_prefix(path: &'a str, prefix: &str) -> Result<Self, PathFault> {
        match path.strip_prefix(prefix) {
            Some("") => Ok(Self(Cow::Borrowed("/"))),
            Some(rest) => Self::parse(rest),
            None => Err(PathFault::Relative),
        }
    }

    /// The path with a life of its own.
    #[must_use]
    pub fn into_owned(self) -> NormalPath<'static> {
        NormalPath(Cow::Owned(self.0.into_owned()))
    }
}

/// The segments of a normal path as a server reads them that decodes once: `/a/b` gives `a`, `b`; `/a/` gives `a` and an empty
/// one; `/` gives one empty one; the empty path (a prefix `/` without its slash) gives none.
///
/// What is compared is what is read: `:` and `%3A` are two spellings in the request that is forwarded, and one to most servers.
pub fn decoded_segments(path: &str) -> impl Iterator<Item = Cow<'_, str>> {
    path.split('/').skip(1).map(decode)
}

fn decode(segment: &str) -> Cow<'_, str> {
    if !segment.contains('%') {
        return Cow::Borrowed(segment);
    }
    let mut octets = Vec::with_capacity(segment.len());
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        let octet = match byte {
            b'%' => escape(&mut bytes).unwrap_or(byte),
            _ => byte,
        };
        octets.push(octet);
    }
    String::from_utf8(octets).map_or(Cow::Borrowed(segment), Cow::Owned)
}

/// Whether a path is normal without any work: the quick test for nearly every request.
fn is_plain(path: &[u8]) -> bool {
    let mut previous = 0;
    for &byte in path {
        let plain = match byte {
            b'/' => previous != b'/',
            // A dot that opens a segment may be a dot segment; the slow way decides.
            b'.' => previous != b'/',
            b'%' | b';' | b'\\' | b'#' | b'?' => false,
            _ => byte > b' ' && byte < 0x7f,
        };
        if !plain {
            return false;
        }
        previous = byte;
    }
    true
}

fn normalise(raw: &str) -> Result<String, PathFault> {
    let mut normal = Vec::with_capacity(raw.len());
    let mut decoded = Vec::with_capacity(raw.len());
    let mut bytes = raw.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let octet = escape(&mut bytes)?;
                decoded.push(octet);
                push_escaped(octet, &mut normal)?;
            }
            b'/' if normal.last() == Some(&b'/') => {}
            // Raw or escaped, it is the same letter to a server; so it is written in one way.
            0x80.. => {
                decoded.push(byte);
                push_escaped(byte, &mut normal)?;
            }
            _ => {
                refuse(byte)?;
                decoded.push(byte);
                normal.push(byte);
            }
        }
    }
    if std::str::from_utf8(&decoded).is_err() {
        return Err(PathFault::NotUtf8);
    }
    // "%25" itself is an honest percent sign; "%2541" is an escape that somebody behind us may decode again. Looked for
    // in the result, for its digits may have been escapes themselves.
    let twice = |window: &[u8]| {
        window.starts_with(b"%25") && window.iter().skip(3).all(u8::is_ascii_hexdigit)
    };
    if normal.windows(5).any(twice) {
        return Err(PathFault::DoubleEncoding);
    }
    let normal = String::from_utf8(normal).map_err(|_| PathFault::NotUtf8)?;
    if normal
        .split('/')
        .any(|segment| matches!(segment, "." | ".."))
    {
        return Err(PathFault::DotSegment);
    }
    // Some servers trim a segment, and then it is another one.
    if normal
        .split('/')
        .any(|segment| segment.starts_with("%20") || segment.ends_with("%20"))
    {
        return Err(PathFault::Control);
    }
    Ok(normal)
}

/// Reads the two hex digits after a `%`.
fn escape(bytes: &mut std::str::Bytes<'_>) -> Result<u8, PathFault> {
    let digit = |byte: Option<u8>| {
        byte.and_then(|byte| char::from(byte).to_digit(16))
            .ok_or(PathFault::MalformedEscape)
    };
    let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
    u8::try_from(high * 16 + low).map_err(|_| PathFault::MalformedEscape)
}

/// Appends a decoded octet: bare where RFC 3986 §2.3 calls it unreserved, else escaped in upper case (§6.2.2.1).
fn push_escaped(octet: u8, normal: &mut Vec<u8>) -> Result<(), PathFault> {
    match octet {
        b'/' => return Err(PathFault::EncodedSlash),
        b' ' | b'%' => {}
        _ => refuse(octet)?,
    }
    if octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'.' | b'_' | b'~') {
        normal.push(octet);
    } else {
        const HEX: &[u8; 16] = b"0123456789ABCDEF";
        let digit = |nibble: u8| HEX.get(usize::from(nibble)).copied().unwrap_or(b'0');
        normal.extend([b'%', digit(octet >> 4), digit(octet & 15)]);
    }
    Ok(())
}

/// Refuses a byte that must not appear, raw or decoded.
fn refuse(byte: u8) -> Result<(), PathFault> {
    match byte {
        b';' => Err(PathFault::Parameter),
        b'\\' => Err(PathFault::Backslash),
        b'#' => Err(PathFault::Fragment),
        0..=b' ' | 0x7f => Err(PathFault::Control),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(raw: &str, want: &str) {
        assert_eq!(
            NormalPath::parse(raw).as_ref().map(NormalPath::as_str),
            Ok(want)
        );
    }

    #[track_caller]
    fn refused(raw: &str, want: PathFault) {
        assert_eq!(NormalPath::parse(raw), Err(want), "{raw}");
    }

    #[test]
    fn uri_5_a_prefix_is_cut_on_a_segment_boundary() {
        let cut = |path, prefix| {
            let cut = NormalPath::without_prefix(path, prefix);
            cut.map(|path| path.as_str().to_owned())
        };
        for (path, prefix) in [
            ("/ordersx", "/orders"),
            ("/orders%2e", "/orders"),
            ("/order", "/orders"),
            ("/", "/orders"),
            ("/Orders/1", "/orders"),
            ("/x/orders", "/orders"),
        ] {
            assert_eq!(cut(path, prefix), Err(PathFault::Relative), "{path}");
        }
        // No normal path gives these; whatever does is refused and not repaired.
        for path in [
            "/orders/..",
            "/orders/../x",
            "/orders/%2e%2e/x",
            "/orders/.",
        ] {
            assert_eq!(cut(path, "/orders"), Err(PathFault::DotSegment), "{path}");
        }
        for (path, prefix, want) in [
            ("/orders", "/orders", "/"),
            ("/orders/", "/orders", "/"),
            ("/orders/1", "/orders", "/1"),
            ("/orders/orders/1", "/orders", "/orders/1"),
            ("/a/b/c/", "/a/b", "/c/"),
            ("/caf%C3%A9/x", "/caf%C3%A9", "/x"),
            ("/orders//evil.example.com", "/orders", "/evil.example.com"),
        ] {
            assert_eq!(cut(path, prefix).as_deref(), Ok(want), "{path}");
        }
    }

    #[test]
    fn uri_1_ambiguous_paths_are_refused() {
        refused("", PathFault::Relative);
        refused("*", PathFault::Relative);
        refused("orders", PathFault::Relative);
        for path in [
            "/.",
            "/..",
            "/a/./b",
            "/a/../b",
            "/a/..",
            "/%2e",
            "/%2E%2e/b",
            "/.%2e/b",
            "/a/%2e%2e/b",
            "//../a",
        ] {
            refused(path, PathFault::DotSegment);
        }
        for path in ["/a%2fb", "/a%2Fb", "/%2f", "/..%2fb"] {
            refused(path, PathFault::EncodedSlash);
        }
        for path in ["/a%5cb", "/a\\b", "/..%5C"] {
            refused(path, PathFault::Backslash);
        }
        for path in [
            "/a%00b",
            "/a%0d%0ab",
            "/a\tb",
            "/a%7f",
            "/a%1f",
            "/a b",
            "/%20a",
            "/a%20/b",
            "/a/%20",
        ] {
            refused(path, PathFault::Control);
        }
        for path in [
            "/a%2561",
            "/%252e%252e/b",
            "/%25%32%65",
            "/%252f",
            "/%252e",
            "/%2541",
        ] {
            refused(path, PathFault::DoubleEncoding);
        }
        for path in ["/a;b", "/a;/b", "/%3b", "/..;/b"] {
            refused(path, PathFault::Parameter);
        }
        for path in ["/%", "/%4", "/%zz", "/a%4"] {
            refused(path, PathFault::MalformedEscape);
        }
        for path in ["/%ff", "/%c3%28", "/%ed%a0%80", "/%c0%ae"] {
            refused(path, PathFault::NotUtf8);
        }
        for path in ["/a#b", "/a%23b"] {
            refused(path, PathFault::Fragment);
        }
    }

    #[test]
    fn uri_1_unreserved_escapes_are_decoded_once_and_slashes_merged() {
        check("/", "/");
        check("/a/b", "/a/b");
        check("//a///b//", "/a/b/");
        check("/%61dmin", "/admin");
        check("/%7euser", "/~user");
        check("/a%20b", "/a%20b");
        check("/caf%c3%a9", "/caf%C3%A9");
        check("/caf\u{e9}", "/caf%C3%A9");
        check("/100%25", "/100%25");
        check("/100%25/b", "/100%25/b");
        check("/.well-known/jwks.json", "/.well-known/jwks.json");
        check("/a/...", "/a/...");
        check("/a/.b", "/a/.b");
        check("/a.b/c..d", "/a.b/c..d");
    }

    proptest! {
        #[test]
        fn uri_1_what_is_accepted_is_a_fixed_point(raw in "(/|[a-z.;%\\\\]|%[0-9a-f]{2}|%25|//){0,24}") {
            let raw = format!("/{raw}");
            if let Ok(path) = NormalPath::parse(&raw) {
                let again = NormalPath::parse(path.as_str());
                prop_assert_eq!(again.as_ref().map(NormalPath::as_str), Ok(path.as_str()));
                prop_assert!(!path.as_str().contains("//"));
                prop_assert!(!path.as_str().split('/').any(|segment| segment == "." || segment == ".."));
            }
        }

        #[test]
        fn uri_1_no_input_panics(raw in "\\PC{0,64}") {
            let _ = NormalPath::parse(&raw);
        }
    }
}
