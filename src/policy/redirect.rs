//! Where may a browser be sent? To a path of our own, or to a page of an origin that is listed (URI-6).
//!
//! A target is read and never repaired: what two readers could take for two places is refused. What comes out is written anew,
//! with an origin from the configuration, so nothing that a stranger wrote can become the host.

use std::fmt;

use url::{Origin, Url};

use super::path::NormalPath;

/// The longest target, in bytes.
const TARGET_BYTES_MAX: usize = 8 << 10;

/// Where redirects may go.
#[derive(Debug, Clone)]
pub struct RedirectTargets {
    own: Base,
    listed: Vec<Base>,
}

/// An origin as text, without a slash at its end, and to be compared.
#[derive(Debug, Clone)]
struct Base {
    text: Box<str>,
    origin: Origin,
}

/// A place that a browser may be sent to: an absolute URL. Only [`RedirectTargets::read`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedirectTarget(String);

impl RedirectTargets {
    /// Allows paths below `own`, and pages of the `listed` origins. Of the URLs only scheme, host and port count.
    #[must_use]
    pub fn new(own: &Url, listed: &[Url]) -> Self {
        Self {
            own: Base::of(own),
            listed: listed.iter().map(Base::of).collect(),
        }
    }

    /// Reads a target: a path that begins with exactly one slash, with its query, or a URL of a listed origin or our own.
    /// `None` for everything else.
    #[must_use]
    pub fn read(&self, text: &str) -> Option<RedirectTarget> {
        // URL parsers drop tabs and line ends, take backslashes for slashes, and cut at a fragment.
        let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'\\' | b'#');
        if text.len() > TARGET_BYTES_MAX || !text.bytes().all(plain) {
            return None;
        }
        if text.starts_with('/') {
            return self.own.below(text);
        }
        let rest = text.strip_prefix("https://")?;
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at_checked(end)?;
        let base = self.of(text).filter(|_| !authority.contains('@'))?;
        if target.starts_with('/') {
            base.below(target)
        } else {
            base.below(&format!("/{target}"))
        }
    }

    /// The listed origin of a URL. The host is what the parser makes of it: case, digits and IDNA are its business.
    fn of(&self, url: &str) -> Option<&Base> {
        let origin = Url::parse(url).ok()?.origin();
        let mut bases = std::iter::once(&self.own).chain(&self.listed);
        bases.find(|base| base.origin == origin)
    }
}

impl Base {
    fn of(url: &Url) -> Self {
        let origin = url.origin();
        Self {
            text: origin.ascii_serialization().into(),
            origin,
        }
    }

    /// Joins a path and its query to the origin.
    fn below(&self, target: &str) -> Option<RedirectTarget> {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        let normal = NormalPath::parse(path).ok()?;
        // Merged slashes are harmless after an origin, but whoever wrote `//host` meant a host.
        if path.starts_with("//") {
            return None;
        }
        let mut url = String::with_capacity(self.text.len() + target.len());
        url.push_str(&self.text);
        url.push_str(normal.as_str());
        if let Some(query) = query {
            url.push('?');
            url.push_str(query);
        }
        Some(RedirectTarget(url))
    }
}

impl RedirectTarget {
    /// The URL.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RedirectTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests;
