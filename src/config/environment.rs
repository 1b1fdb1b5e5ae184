//! What the environment puts in the place of the file's values: `PORTCULLIS__SERVER__ADMIN_LISTEN` is `server.admin_listen`.
//!
//! The values become a part of the document before it is read, so that the readers know, check and refuse them as they do those
//! of the file, keys that nobody knows included. They stand at places beyond the end of the text, by which a report tells which
//! variable it is about. No variable with the prefix is passed over: one that overrides nothing is an error.

use std::{borrow::Cow, ffi::OsString, ops::Range};

use toml::{
    Spanned,
    de::{DeArray, DeTable, DeValue},
};

use super::{
    diagnostic::{Fault, Place, Problems},
    place::Key,
    words::suggest,
};

/// What the names of such variables begin with.
const PREFIX: &str = "PORTCULLIS__";

/// Lists whose entries are found by a name of their own, the key of the name, and what the list is called.
const LISTS: [(&str, &str); 4] = [
    ("issuer", "name"),
    ("upstream", "name"),
    ("route", "name"),
    ("accounts.client", "id"),
];

/// What the environment says.
pub(super) struct Environment<'e> {
    /// Looks up a variable.
    pub(super) lookup: &'e dyn Fn(&str) -> Option<OsString>,
    /// The variables that would override a key, with their values.
    pub(super) overrides: Vec<(OsString, OsString)>,
}

impl Environment<'_> {
    /// The environment of this process.
    pub(super) fn of_process() -> Self {
        let begins = |name: &OsString| {
            let start = name.as_encoded_bytes().get(..PREFIX.len());
            start.is_some_and(|start| start.eq_ignore_ascii_case(PREFIX.as_bytes()))
        };
        Self {
            lookup: &|name| std::env::var_os(name),
            overrides: std::env::vars_os()
                .filter(|(name, _)| begins(name))
                .collect(),
        }
    }
}

/// A key whose value comes from the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overridden {
    /// The key, as `upstream[0].servers`.
    pub key: String,
    /// The variable.
    pub variable: String,
}

/// The variables that override keys, in the order of their names. Their values are never printed.
#[derive(Clone, Default)]
pub(super) struct Overrides {
    list: Vec<Override>,
    /// Where the text of the file ends, and the places of values from the environment begin.
    end: usize,
}

#[derive(Clone)]
struct Override {
    variable: String,
    /// The value; `None` where it is no text.
    text: Option<String>,
    /// The keys that lead to the value, in small letters; or why there are none.
    path: Result<Vec<String>, Fault>,
}

impl Overrides {
    /// Those of an environment, for a text of this length.
    pub(super) fn of(environment: &Environment<'_>, end: usize) -> Self {
        let mut list: Vec<Override> = environment
            .overrides
            .iter()
            .map(|(name, value)| Override {
                variable: name.to_string_lossy().into_owned(),
                text: value.to_str().map(ToOwned::to_owned),
                path: path(&name.to_string_lossy()),
            })
            .collect();
        list.sort_by(|one, other| one.variable.cmp(&other.variable));
        Self { list, end }
    }

    /// Puts the values into a document. Reports those that have no place in it, and tells the others.
    pub(super) fn apply<'d>(
        &'d self,
        document: &mut DeTable<'d>,
        problems: &Problems,
    ) -> Vec<Overridden> {
        let mut overridden = Vec::new();
        for (index, one) in self.list.iter().enumerate() {
            let spans = self.spans(index);
            match self.put(one, &spans, document) {
                Ok(key) => overridden.push(Overridden {
                    key,
                    variable: one.variable.clone(),
                }),
                Err(fault) => problems.add(&one.place(spans.whole), fault),
            }
        }
        overridden
    }

    /// The variable whose value stands at a place.
    pub(super) fn variable(&self, span: &Range<usize>) -> Option<&str> {
        self.at(span).map(|(one, _)| &*one.variable)
    }

    /// The text of a variable whose whole value stands at a place: what is meant where a string is wanted and the text happens to
    /// be a number.
    pub(super) fn text(&self, span: &Range<usize>) -> Option<&str> {
        let (one, is_whole) = self.at(span)?;
        one.text.as_deref().filter(|_| is_whole)
    }

    /// Whether a key stands at a place because a variable's name says so, and not its value.
    pub(super) fn names(&self, span: &Range<usize>) -> bool {
        self.at(span).is_some_and(|(_, is_whole)| is_whole)
    }

    /// The override that stands at a place, and whether the whole of its value does.
    fn at(&self, span: &Range<usize>) -> Option<(&Override, bool)> {
        let offset = span.start.checked_sub(self.end)?.checked_sub(1)?;
        Some((self.list.get(offset / 2)?, offset % 2 == 0))
    }

    /// Places of its own for each: the empty one at the end of the text is left out, for the text's own problems.
    fn spans(&self, index: usize) -> Spans {
        let start = self.end + 1 + 2 * index;
        Spans {
            whole: start..start + 1,
            part: start + 1..start + 2,
        }
    }

    /// Puts one value into the document, and says under which key.
    fn put<'d>(
        &'d self,
        one: &'d Override,
        spans: &Spans,
        document: &mut DeTable<'d>,
    ) -> Result<String, Fault> {
        let path = one.path.as_ref().map_err(Clone::clone)?;
        self.refuse_nested(one, path)?;
        let text = one.text.as_deref();
        let text = text.ok_or_else(|| Fault::new("is not UTF-8", "write plain text"))?;
        if text.trim().is_empty() {
            let hint = "take the variable out of the environment where the file's value is meant";
            return Err(Fault::new("is empty", hint));
        }
        let Some((last, tables)) = path.split_last() else {
            return Err(Fault::from("names no key"));
        };
        let (table, key) = descend(document, tables, spans)?;
        let list = LISTS.iter().find(|(list, _)| list_of(&key) == Some(*list));
        if let Some((_, name)) = list.filter(|(_, name)| *name == last) {
            let hint =
                "change it in the file: it is what the variables of its keys are named after";
            let message = format!("`{name}` cannot be set by a variable");
            return Err(Fault::new(message, hint));
        }
        let value = Spanned::new(spans.whole.clone(), value(text, spans));
        table.remove(&**last);
        table.insert(
            Spanned::new(spans.whole.clone(), Cow::Borrowed(last)),
            value,
        );
        Ok(joined(&key, last))
    }

    /// Two variables of which one sets what lies within the value of the other: which of them holds?
    fn refuse_nested(&self, one: &Override, path: &[String]) -> Result<(), Fault> {
        let around = |other: &&Override| {
            let outer = other.path.as_ref();
            outer.is_ok_and(|outer| outer.len() < path.len() && path.starts_with(outer))
        };
        match self.list.iter().find(around) {
            None => Ok(()),
            Some(outer) => {
                let message = format!("lies within {}, which is set too", outer.variable);
                debug_assert_ne!(one.variable, outer.variable, "a path within itself");
                Err(Fault::new(message, "set one of the two"))
            }
        }
    }
}

impl Override {
    /// Where a fault of it stands: at its keys, or at its name where it names none.
    fn place(&self, span: Range<usize>) -> Place {
        let key = self.path.as_ref().map(|path| path.join("."));
        let key = key.unwrap_or_else(|_| self.variable.clone());
        Place {
            key: Key::chosen(None, &key),
            span,
        }
    }
}

/// The place of a variable's whole value, and that of its parts.
struct Spans {
    whole: Range<usize>,
    part: Range<usize>,
}

/// The keys that a variable's name says.
fn path(name: &str) -> Result<Vec<String>, Fault> {
    let usual = name.to_ascii_uppercase();
    if usual != name {
        let hint = format!("write it in capitals: {usual}");
        return Err(Fault::new("is written in small letters", hint));
    }
    let keys = name.strip_prefix(PREFIX).unwrap_or_default();
    let plain = |key: &str| {
        !key.is_empty()
            && key
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    let path: Vec<&str> = keys.split("__").collect();
    if !path.iter().all(|key| plain(key)) {
        let hint =
            "two underscores between keys: PORTCULLIS__SERVER__ADMIN_LISTEN is server.admin_listen";
        return Err(Fault::new("names no key", hint));
    }
    Ok(path.iter().map(|key| key.to_ascii_lowercase()).collect())
}

/// Goes down to the table that keys lead to, and makes what is not there. Says the table's key too.
fn descend<'t, 'd>(
    mut table: &'t mut DeTable<'d>,
    path: &'d [String],
    spans: &Spans,
) -> Result<(&'t mut DeTable<'d>, String), Fault> {
    let mut key = String::new();
    let mut path = path.iter();
    while let Some(name) = path.next() {
        key = joined(&key, name);
        let list = LISTS.iter().find(|(list, _)| *list == key);
        if !table.contains_key(&**name) {
            if list.is_some() {
                let hint = "variables change what the file has, and add no entry of a list";
                return Err(Fault::new(format!("the file has no [[{key}]]"), hint));
            }
            let empty = Spanned::new(spans.whole.clone(), DeValue::Table(DeTable::new()));
            let name = Spanned::new(spans.whole.clone(), Cow::Borrowed(&**name));
            table.insert(name, empty);
        }
        let Some(value) = table.get_mut(&**name) else {
            return Err(Fault::from("names no key"));
        };
        table = match (value.get_mut(), list) {
            (DeValue::Table(inner), _) => inner,
            (DeValue::Array(entries), Some((_, id))) => {
                let (index, entry) = entry(entries, id, path.next(), &key)?;
                key = format!("{key}[{index}]");
                entry
            }
            _ => {
                let hint = "set the whole of it, as TOML";
                return Err(Fault::new(format!("`{key}` is no table"), hint));
            }
        };
    }
    Ok((table, key))
}

/// The entry of a list that a part of a variable's name means.
fn entry<'t, 'd>(
    entries: &'t mut DeArray<'d>,
    id: &str,
    wanted: Option<&String>,
    list: &str,
) -> Result<(usize, &'t mut DeTable<'d>), Fault> {
    let names: Vec<String> = entries
        .iter()
        .filter_map(|entry| named(entry, id))
        .collect();
    let is_wanted = |name: &String| Some(name) == wanted;
    let known = || {
        suggest(
            wanted.map_or("", |name| name),
            names.iter().map(|name| &**name),
        )
    };
    match names.iter().filter(|name| is_wanted(name)).count() {
        0 => {
            let name = wanted.map_or("", |name| name);
            let message = format!("no [[{list}]] of the file has the {id} `{name}`");
            return Err(Fault::new(message, known()));
        }
        1 => {}
        _ => {
            let message = format!("several [[{list}]] could be meant");
            let hint =
                "names that differ in more than capitals, `-`, `.` and `_` can be told apart";
            return Err(Fault::new(message, hint));
        }
    }
    let found = entries.iter_mut().enumerate().find_map(|(index, entry)| {
        let is_it = named(entry, id).as_ref().is_some_and(is_wanted);
        match entry.get_mut() {
            DeValue::Table(table) if is_it => Some((index, table)),
            DeValue::Table(_)
            | DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_) => None,
        }
    });
    found.ok_or_else(|| Fault::from("names no key"))
}

/// The name of an entry as a variable's name can say it.
fn named(entry: &Spanned<DeValue<'_>>, id: &str) -> Option<String> {
    let DeValue::Table(table) = entry.get_ref() else {
        return None;
    };
    let name = table.get(id)?.get_ref().as_str()?.to_ascii_lowercase();
    Some(name.replace(['-', '.'], "_"))
}

/// What a variable says: a TOML value, or the text itself where it is none.
fn value<'d>(text: &'d str, spans: &Spans) -> DeValue<'d> {
    let text = text.trim();
    match DeValue::parse(text) {
        Ok(value) => placed(value.into_inner(), &spans.part),
        Err(_) => DeValue::String(Cow::Borrowed(text)),
    }
}

/// A value whose parts all stand at one place.
fn placed<'d>(value: DeValue<'d>, span: &Range<usize>) -> DeValue<'d> {
    match value {
        DeValue::Array(list) => {
            let mut moved = DeArray::new();
            for one in list {
                moved.push(Spanned::new(span.clone(), placed(one.into_inner(), span)));
            }
            DeValue::Array(moved)
        }
        DeValue::Table(table) => {
            let moved = table.into_iter().map(|(key, value)| {
                let key = Spanned::new(span.clone(), key.into_inner());
                let value = placed(value.into_inner(), span);
                (key, Spanned::new(span.clone(), value))
            });
            DeValue::Table(moved.collect())
        }
        plain @ (DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)) => plain,
    }
}

fn joined(table: &str, key: &str) -> String {
    if table.is_empty() {
        key.to_owned()
    } else {
        format!("{table}.{key}")
    }
}

/// The list that an entry's key names one of.
fn list_of(key: &str) -> Option<&str> {
    let (list, _) = key.strip_suffix(']')?.split_once('[')?;
    Some(list)
}
