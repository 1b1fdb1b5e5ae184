//! Which certificate a client is shown: by the name that it asks for, found in a table and not by trying each.

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::pair::Pair;
use crate::policy::HostPattern;

/// The certificates of one TLS policy. A name may have several, of different kinds of key.
#[derive(Debug, Default)]
pub(super) struct Certificates {
    exact: HashMap<Box<str>, Vec<Arc<CertifiedKey>>>,
    wildcard: HashMap<Box<str>, Vec<Arc<CertifiedKey>>>,
    /// What a client sees that asks for no name or an unknown one; it then refuses by itself.
    first: Vec<Arc<CertifiedKey>>,
}

impl Certificates {
    /// Makes the table. The first pair is that of clients that ask for no known name.
    pub(super) fn new<'p>(pairs: impl IntoIterator<Item = &'p Pair>) -> Self {
        let mut table = Self::default();
        for pair in pairs {
            if table.first.is_empty() {
                table.first.push(Arc::clone(&pair.key));
            }
            for name in &pair.leaf.names {
                let keys = match name {
                    HostPattern::Exact(name) => table.exact.entry(name.clone()),
                    HostPattern::Wildcard(parent) => table.wildcard.entry(parent.clone()),
                };
                keys.or_default().push(Arc::clone(&pair.key));
            }
        }
        table
    }

    /// The certificates for a name, the most specific: exact, then wildcard, then the first of all.
    fn find(&self, name: Option<&str>) -> &[Arc<CertifiedKey>] {
        let Some(name) = name else {
            return &self.first;
        };
        let name = normal(name);
        let wildcard = || {
            let (_, parent) = name.split_once('.')?;
            self.wildcard.get(parent)
        };
        let found = self.exact.get(&*name).or_else(wildcard);
        found.unwrap_or(&self.first)
    }
}

/// A name as routes know hosts: lower case, without the dot of the root.
pub(super) fn normal(name: &str) -> Cow<'_, str> {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let keys = self.find(hello.server_name());
        let schemes = hello.signature_schemes();
        let usable = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(schemes).is_some();
        keys.iter().find(usable).or(keys.first()).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::tls::tests::Folder;

    #[test]
    fn the_most_specific_name_wins_in_any_order() {
        let folder = Folder::new();
        let pairs = [
            folder.pair("first", &["first.test"]),
            folder.pair("wild", &["*.example.com"]),
            folder.pair("exact", &["app.example.com", "*.a.example.com"]),
        ];
        for order in [[0, 1, 2], [0, 2, 1]] {
            let table = Certificates::new(order.map(|index| &pairs[index]));
            for (name, want) in [
                (Some("app.example.com"), 2),
                (Some("APP.Example.Com"), 2),
                (Some("app.example.com."), 2),
                (Some("other.example.com"), 1),
                (Some("OTHER.example.com"), 1),
                (Some("b.a.example.com"), 2),
                (Some("a.example.com"), 1),
                // A wildcard is for one label.
                (Some("x.y.example.com"), 0),
                (Some("example.com"), 0),
                (Some("unknown"), 0),
                (Some(""), 0),
                (None, 0),
            ] {
                let found = table.find(name);
                assert!(Arc::ptr_eq(&found[0], &pairs[want].key), "{name:?}");
            }
        }
    }

    #[test]
    fn a_name_may_have_several_kinds_of_key() {
        let folder = Folder::new();
        let pairs = [folder.pair("a", &["x.test"]), folder.pair("b", &["x.test"])];
        let table = Certificates::new(&pairs);
        assert_eq!(table.find(Some("x.test")).len(), 2);
        assert_eq!(table.find(None).len(), 1);
    }
}
