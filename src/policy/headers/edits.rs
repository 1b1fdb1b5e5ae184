//! What the operator takes out of the headers of a route's requests and answers, and puts in.

use http::{
    HeaderMap,
    header::{HeaderName, HeaderValue},
};

use super::{PRESET_NAMES, RESERVED_NAMES, RESERVED_PREFIXES, fold};

/// Fields of fixed text and fields to leave out. Both empty, the usual case: nothing is touched.
#[derive(Debug, Clone, Default)]
pub struct HeaderEdits {
    /// Set to this, whatever was there.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Taken out.
    pub remove: Vec<HeaderName>,
}

impl HeaderEdits {
    /// Takes out first, then sets. What is set is taken out too, in all the spellings that CGI and WSGI read as one: one value
    /// is left, the operator's.
    pub fn apply(&self, headers: &mut HeaderMap) {
        if self.set.is_empty() && self.remove.is_empty() {
            return;
        }
        let set = self.set.iter().map(|(name, _)| name);
        let meant: Vec<_> = set
            .chain(&self.remove)
            .map(|name| fold(name.as_str()))
            .collect();
        let gone: Vec<HeaderName> = headers
            .keys()
            .filter(|name| meant.contains(&fold(name.as_str())))
            .cloned()
            .collect();
        for name in gone {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
    }
}

/// Whether a name says who is calling or from where, in any preset and in any spelling.
#[must_use]
pub fn is_reserved_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let name = fold(&name);
    PRESET_NAMES.contains(&&*name)
        || RESERVED_NAMES.contains(&&*name)
        || RESERVED_PREFIXES
            .iter()
            .any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hdr_2_edits_mean_every_spelling_of_a_name() {
        let edits = HeaderEdits {
            set: vec![(
                HeaderName::from_static("x-env"),
                HeaderValue::from_static("prod"),
            )],
            remove: vec![HeaderName::from_static("x-debug")],
        };
        let mut headers = HeaderMap::new();
        for name in ["x-env", "x.env", "x_env", "x-debug", "x.debug", "x-kept"] {
            headers.append(name, HeaderValue::from_static("client"));
            headers.append(name, HeaderValue::from_static("again"));
        }
        edits.apply(&mut headers);
        let left: Vec<_> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
            .collect();
        assert_eq!(left.len(), 3, "{left:?}");
        assert!(left.contains(&("x-env", "prod")) && left.contains(&("x-kept", "again")));
    }

    #[test]
    fn hdr_7_reserved_names_are_known_in_every_spelling() {
        for name in [
            "X-Forwarded-User",
            "x_forwarded_for",
            "X.Real.IP",
            "Remote-User",
            "Forwarded",
            "X-Portcullis-Assertion",
            "X-Auth-Request-Email",
        ] {
            assert!(is_reserved_name(name), "{name}");
        }
        assert!(!is_reserved_name("X-Env") && !is_reserved_name("X-Forwarded"));
    }
}
