//! What a configuration says, key by key, without saying it: enough to tell two of them apart and to name what differs.
//!
//! Values are kept as digests, so neither a comparison nor what is logged of it can show a secret. Where a value names a file
//! that the configuration reads, the file's content is part of the value.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fmt,
    hash::{BuildHasher, DefaultHasher, Hasher, RandomState},
    path::{Path, PathBuf},
    sync::LazyLock,
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};
use zeroize::Zeroizing;

use super::{diagnostic::Problems, environment::Overrides, files::NamedFile};

/// What a configuration was read from: enough for its outline, which is made when somebody asks. A start needs none, and for ten
/// thousand routes it would take a fifth of the time that reading takes.
#[derive(Clone, Default)]
pub struct Written {
    text: Zeroizing<String>,
    overrides: Overrides,
    root: PathBuf,
    files: Vec<NamedFile>,
}

/// A configuration in outline. Comments, blanks and the order of sections are no part of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outline(BTreeMap<Entry, BTreeMap<String, Value>>);

/// A section, or one of several under a name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    section: String,
    name: Option<String>,
}

/// The digest of a value: 128 bits, under a key that the process makes up and that never leaves it. An outline is compared with
/// another of the same process alone.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Value([u64; 2]);

/// A digest in the making.
struct Digest([DefaultHasher; 2]);

/// One difference between two configurations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    entry: Entry,
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Added,
    /// The keys that differ.
    Changed(Vec<String>),
    Removed,
}

impl Written {
    /// A text without faults, and what the environment puts in the place of its values; where its relative paths start, and the files
    /// that it reads.
    pub(super) fn new(
        (text, overrides): (&str, Overrides),
        root: &Path,
        files: Vec<NamedFile>,
    ) -> Self {
        Self {
            text: Zeroizing::new(text.to_owned()),
            overrides,
            root: root.to_owned(),
            files,
        }
    }

    /// The configuration in outline; empty where the file could not be read. Reads the text again.
    #[must_use]
    pub fn outline(&self) -> Outline {
        let (mut document, _faults) = DeTable::parse_recoverable(&self.text);
        self.overrides
            .apply(document.get_mut(), &Problems::default());
        Outline::of(document.get_ref(), &self.root, &self.files)
    }
}

/// The text is the operator's, passwords in URLs included.
impl fmt::Debug for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Written(..)")
    }
}

impl Outline {
    /// Reads a document whose relative paths start at `root`, and which reads these files.
    fn of(document: &DeTable<'_>, root: &Path, files: &[NamedFile]) -> Self {
        let content = files
            .iter()
            .map(|file| (&*file.path, file.content.as_slice()));
        let reader = Reader {
            root,
            files: content.collect(),
            ends: files
                .iter()
                .filter_map(|file| file.path.file_name())
                .collect(),
        };
        let mut outline = Self::default();
        for (name, value) in document {
            reader.section(name.get_ref(), value.get_ref(), &mut outline.0);
        }
        outline
    }

    /// What is different in `next`, in the order of sections and names.
    #[must_use]
    pub fn changes_to(&self, next: &Self) -> Vec<Change> {
        let change = |entry: &Entry, kind| Change {
            entry: entry.clone(),
            kind,
        };
        let mut changes = Vec::new();
        for (entry, before) in &self.0 {
            match next.0.get(entry) {
                None => changes.push(change(entry, Kind::Removed)),
                Some(after) if after == before => {}
                Some(after) => {
                    changes.push(change(entry, Kind::Changed(different(before, after))));
                }
            }
        }
        let new = next.0.keys().filter(|entry| !self.0.contains_key(entry));
        changes.extend(new.map(|entry| change(entry, Kind::Added)));
        changes.sort_by(|one, other| one.entry.cmp(&other.entry));
        changes
    }
}

impl Change {
    /// The section that differs.
    #[must_use]
    pub fn section(&self) -> &str {
        &self.entry.section
    }

    /// The keys that differ, with their section; the section where it came or went as a whole.
    #[must_use]
    pub fn keys(&self) -> Vec<String> {
        let section = &self.entry.section;
        match &self.kind {
            Kind::Added | Kind::Removed => vec![section.clone()],
            Kind::Changed(keys) => keys.iter().map(|key| format!("{section}.{key}")).collect(),
        }
    }
}

fn different(before: &BTreeMap<String, Value>, after: &BTreeMap<String, Value>) -> Vec<String> {
    let gone_or_other = before
        .iter()
        .filter(|(key, value)| after.get(*key) != Some(*value));
    let new = after.keys().filter(|key| !before.contains_key(*key));
    let mut keys: Vec<String> = gone_or_other
        .map(|(key, _)| key)
        .chain(new)
        .cloned()
        .collect();
    keys.sort_unstable();
    keys
}

/// Turns values into digests.
struct Reader<'r> {
    root: &'r Path,
    files: BTreeMap<&'r Path, &'r [u8]>,
    /// The last parts of their paths.
    ends: BTreeSet<&'r OsStr>,
}

impl Reader<'_> {
    fn section(
        &self,
        name: &str,
        value: &DeValue<'_>,
        entries: &mut BTreeMap<Entry, BTreeMap<String, Value>>,
    ) {
        let entry = |name: &str, of: Option<String>| Entry {
            section: name.to_owned(),
            name: of,
        };
        match value {
            DeValue::Table(table) => {
                let mut keys = BTreeMap::new();
                self.keys("", table, &mut keys);
                entries.insert(entry(name, None), keys);
            }
            DeValue::Array(list) if list.iter().all(|one| one.get_ref().is_table()) => {
                for (index, one) in list.iter().enumerate() {
                    let DeValue::Table(table) = one.get_ref() else {
                        continue;
                    };
                    let of = table.get("name").and_then(|name| name.get_ref().as_str());
                    let of = of.map_or_else(|| index.to_string(), ToOwned::to_owned);
                    let keys = table.iter().map(|(key, value)| {
                        (String::from(&**key.get_ref()), self.value(value.get_ref()))
                    });
                    entries.insert(entry(name, Some(of)), keys.collect());
                }
            }
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_) => {
                let keys = BTreeMap::from([(name.to_owned(), self.value(value))]);
                entries.insert(entry(name, None), keys);
            }
        }
    }

    /// The keys of a section, those of tables within it after a dot.
    fn keys(&self, prefix: &str, table: &DeTable<'_>, keys: &mut BTreeMap<String, Value>) {
        for (key, value) in table {
            let path = format!("{prefix}{}", key.get_ref());
            if let DeValue::Table(inner) = value.get_ref() {
                self.keys(&format!("{path}."), inner, keys);
            } else {
                keys.insert(path, self.value(value.get_ref()));
            }
        }
    }

    fn value(&self, value: &DeValue<'_>) -> Value {
        let mut digest = Digest::new();
        self.absorb(value, &mut digest);
        digest.finish()
    }

    /// The content of the file that a text names. Most name none, which shows by their last part already.
    fn file(&self, text: &str) -> Option<&[u8]> {
        let end = Path::new(text).file_name();
        if end.is_some_and(|end| !self.ends.contains(end)) {
            return None;
        }
        self.files.get(&*self.root.join(text)).copied()
    }

    /// Each piece goes in with its kind and its length, so that no two values run into one.
    fn absorb(&self, value: &DeValue<'_>, digest: &mut Digest) {
        match value {
            DeValue::String(text) => {
                digest.put(b's', text.as_bytes());
                if let Some(content) = self.file(text) {
                    digest.put(b'c', content);
                }
            }
            DeValue::Integer(number) => {
                digest.put(b'i', number.radix().to_string().as_bytes());
                digest.put(b'i', number.as_str().as_bytes());
            }
            DeValue::Float(number) => digest.put(b'f', number.as_str().as_bytes()),
            DeValue::Boolean(flag) => digest.put(b'b', &[u8::from(*flag)]),
            DeValue::Datetime(time) => digest.put(b'd', time.to_string().as_bytes()),
            DeValue::Array(list) => {
                digest.put(b'a', &list.len().to_le_bytes());
                for one in list.iter().map(Spanned::get_ref) {
                    self.absorb(one, digest);
                }
            }
            DeValue::Table(table) => {
                digest.put(b't', &table.len().to_le_bytes());
                for (key, one) in table {
                    digest.put(b'k', key.get_ref().as_bytes());
                    self.absorb(one.get_ref(), digest);
                }
            }
        }
    }
}

impl Digest {
    fn new() -> Self {
        static KEYS: LazyLock<[RandomState; 2]> = LazyLock::new(Default::default);
        Self(KEYS.each_ref().map(BuildHasher::build_hasher))
    }

    fn put(&mut self, kind: u8, bytes: &[u8]) {
        for half in &mut self.0 {
            half.write_u8(kind);
            half.write_usize(bytes.len());
            half.write(bytes);
        }
    }

    fn finish(self) -> Value {
        Value(self.0.map(|half| half.finish()))
    }
}

/// As `route "orders" changed: rate_limit, require`.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.entry.section)?;
        if let Some(name) = &self.entry.name {
            write!(f, " {name:?}")?;
        }
        match &self.kind {
            Kind::Added => f.write_str(" added"),
            Kind::Changed(keys) => write!(f, " changed: {}", keys.join(", ")),
            Kind::Removed => f.write_str(" removed"),
        }
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[digest]")
    }
}

#[cfg(test)]
mod tests;
