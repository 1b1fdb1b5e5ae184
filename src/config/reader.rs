//! Reads a TOML document table by table and gathers every problem, where a deserialiser would stop at the first.
//!
//! A [`Table`] remembers which keys it was asked for, so [`Table::finish`] can name each key that nobody knows and the
//! nearest one that somebody does. A value that is wrong is reported and reads as absent: its reader goes on with the
//! default, so that the next problem is found too, and the configuration is refused in the end.

mod values;

use std::rc::Rc;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    context::Context,
    diagnostic::{Fault, Place},
    place::Key,
    shape::Shape,
    words::suggest,
};

/// One table of the document; absent tables read as empty ones.
pub(super) struct Table<'d> {
    pub(super) context: &'d Context<'d>,
    pub(super) place: Place,
    /// The key of `place`, for those of the values.
    key: Option<Rc<Key>>,
    entries: Option<&'d DeTable<'d>>,
    /// A bit for each key that is there. Most keys of most tables are not, and a start asks for three hundred thousand of them.
    marks: u64,
    /// Of a table that is there.
    asked: Vec<&'static str>,
}

/// The bit that stands for a key, and for others.
fn mark(key: &str) -> u64 {
    let first = key.bytes().next().unwrap_or(0);
    1 << ((usize::from(first) ^ (key.len() << 2)) % 64)
}

/// A string, never empty, and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Text<'d> {
    pub(super) text: &'d str,
    pub(super) place: Place,
}

/// A value of any type under a key of the operator's choice.
pub(super) struct Entry<'d> {
    pub(super) name: &'d str,
    pub(super) place: Place,
    pub(super) value: &'d DeValue<'d>,
}

impl<'d> Table<'d> {
    /// The whole document.
    pub(super) fn top(context: &'d Context<'d>, document: &'d Spanned<DeTable<'d>>) -> Self {
        let place = Place {
            key: Key::default(),
            span: 0..0,
        };
        Self::new(context, place, Some(document.get_ref()))
    }

    fn new(context: &'d Context<'d>, place: Place, entries: Option<&'d DeTable<'d>>) -> Self {
        let key = place.key.shared();
        if let Some(shapes) = context.shapes.filter(|_| entries.is_some()) {
            shapes.table(key.as_deref());
        }
        Self {
            context,
            key,
            place,
            marks: entries.map_or(0, |entries| {
                let keys = entries.keys().map(|key| mark(key.get_ref()));
                keys.fold(0, |all, mark| all | mark)
            }),
            asked: Vec::with_capacity(if entries.is_some() { 32 } else { 0 }),
            entries,
        }
    }

    /// Whether the key is there, whatever its value.
    pub(super) fn has(&self, key: &str) -> bool {
        self.find(key).is_some()
    }

    fn find(&self, key: &str) -> Option<&'d Spanned<DeValue<'d>>> {
        let entries = self.entries.filter(|_| self.marks & mark(key) != 0);
        entries?.get(key)
    }

    /// Takes a key for known without reading it.
    pub(super) fn know(&mut self, key: &'static str) {
        self.note(key, || Shape::Any);
        if self.entries.is_some() {
            self.asked.push(key);
        }
    }

    /// Whether the table itself is there.
    pub(super) fn is_there(&self) -> bool {
        self.entries.is_some()
    }

    /// Where the key's value stands, or the table where it is absent.
    pub(super) fn place_of(&self, key: &'static str) -> Place {
        let found = self.find(key);
        Place {
            key: Key::of(self.key.as_ref(), key),
            span: found.map_or_else(|| self.place.span.clone(), Spanned::span),
        }
    }

    /// Reports a problem with a key of this table.
    pub(super) fn fault(&self, key: &'static str, fault: impl Into<Fault>) {
        self.context.problems.add(&self.place_of(key), fault);
    }

    /// Reports the key's absence.
    pub(super) fn need(&self, key: &'static str, hint: &str) {
        if let Some(shapes) = self.context.shapes {
            shapes.need(self.key.as_deref(), key);
        }
        if !self.has(key) {
            self.fault(key, Fault::new("is missing", hint));
        }
    }

    /// Reads a string that is not empty.
    pub(super) fn text(&mut self, key: &'static str) -> Option<Text<'d>> {
        self.note(key, || Shape::Text);
        let (value, place) = self.value(key)?;
        self.as_text(value, place)
    }

    /// Reads a string and makes something of it.
    pub(super) fn parsed<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&'d str) -> Result<T, Fault>,
    ) -> Option<T> {
        let text = self.text(key)?;
        let read = parse(text.text);
        self.keep(&text.place, read)
    }

    /// Reads a list of strings, none empty and none twice. An empty list is reported with `empty`: what it would mean.
    pub(super) fn texts(&mut self, key: &'static str, empty: &str) -> Option<Vec<Text<'d>>> {
        self.note(key, || Shape::List(1));
        let texts = self.texts_or_none(key)?;
        if texts.is_empty() {
            let fault = Fault::new("is an empty list", empty);
            self.fault(key, fault);
            return None;
        }
        Some(texts)
    }

    /// Reads a list of strings that may be empty.
    pub(super) fn texts_or_none(&mut self, key: &'static str) -> Option<Vec<Text<'d>>> {
        self.note(key, || Shape::List(0));
        let (value, place) = self.value(key)?;
        let DeValue::Array(list) = value else {
            return self.mistyped(&place, "a list of strings", value);
        };
        let mut texts: Vec<Text<'d>> = Vec::with_capacity(list.len());
        let mut whole = true;
        for (index, element) in list.iter().enumerate() {
            let place = Place {
                key: Key::element(self.key.as_ref(), key, index),
                span: element.span(),
            };
            match self.as_text(element.get_ref(), place) {
                Some(text) if texts.iter().any(|other| other.text == text.text) => {
                    let fault = format!("`{}` is there twice", text.text);
                    self.context.problems.add(&text.place, fault);
                }
                Some(text) => texts.push(text),
                None => whole = false,
            }
        }
        // Where an element was wrong, the rest must not pass for the whole.
        (whole || !texts.is_empty()).then_some(texts)
    }

    /// Reads a list of strings in which the empty string has a meaning. An empty list is reported as in [`Table::texts`].
    pub(super) fn words_or_empty(
        &mut self,
        key: &'static str,
        empty: &str,
    ) -> Option<Vec<&'d str>> {
        self.note(key, || Shape::Words);
        let (value, place) = self.value(key)?;
        let DeValue::Array(list) = value else {
            return self.mistyped(&place, "a list of strings", value);
        };
        if list.is_empty() {
            self.fault(key, Fault::new("is an empty list", empty));
        }
        let mut words = Vec::with_capacity(list.len());
        for element in list {
            if let DeValue::String(word) = element.get_ref() {
                words.push(&**word);
            } else {
                self.mistyped::<()>(&place, "a list of strings", element.get_ref());
            }
        }
        Some(words)
    }

    /// Reports a table that is there and says nothing, where that would look like something.
    pub(super) fn refuse_empty(&self, key: &'static str, hint: &str) {
        let found = self.find(key);
        if let Some(DeValue::Table(table)) = found.map(Spanned::get_ref)
            && table.is_empty()
        {
            self.fault(key, Fault::new("is an empty table", hint));
        }
    }

    /// Reads a table within this one; absent is empty.
    pub(super) fn section(&mut self, key: &'static str) -> Table<'d> {
        self.note(key, || Shape::Table);
        let place = self.place_of(key);
        let entries = match self.value(key) {
            None => None,
            Some((DeValue::Table(entries), _)) => Some(entries),
            Some((value, place)) => self.mistyped(&place, "a table", value),
        };
        Table::new(self.context, place, entries)
    }

    /// Reads a list of tables, as `[[route]]` makes it; absent is empty, and an empty list is reported.
    pub(super) fn sections(&mut self, key: &'static str) -> Vec<Table<'d>> {
        self.note(key, || Shape::Tables);
        let Some((value, place)) = self.value(key) else {
            return Vec::new();
        };
        let DeValue::Array(list) = value else {
            self.mistyped::<()>(&place, &format!("a list: write [[{key}]]"), value);
            return Vec::new();
        };
        if list.is_empty() {
            self.context.problems.add(&place, "is an empty list");
        }
        let mut tables = Vec::with_capacity(list.len());
        for (index, element) in list.iter().enumerate() {
            let place = Place {
                key: Key::element(self.key.as_ref(), key, index),
                span: element.span(),
            };
            if let DeValue::Table(entries) = element.get_ref() {
                tables.push(Table::new(self.context, place, Some(entries)));
            } else {
                self.mistyped::<()>(&place, "a table", element.get_ref());
            }
        }
        tables
    }

    /// Everything in a table whose keys are the operator's own; absent is nothing.
    pub(super) fn entries(&mut self, key: &'static str) -> Option<Vec<Entry<'d>>> {
        self.note(key, || Shape::Own);
        let (value, place) = self.value(key)?;
        let DeValue::Table(entries) = value else {
            return self.mistyped(&place, "a table", value);
        };
        let table = place.key.shared();
        for name in entries.keys() {
            // Which capitals, and whether `-` or `_`, the name of a variable cannot say.
            if self.context.overrides.names(&name.span()) {
                let place = Place {
                    key: Key::chosen(table.as_ref(), name.get_ref()),
                    span: name.span(),
                };
                let hint = "set the whole table, as { \"Name\" = \"value\" }";
                let fault = Fault::new("such a name is not taken from that of a variable", hint);
                self.context.problems.add(&place, fault);
            }
        }
        let entry = |(name, value): (&'d Spanned<_>, &'d Spanned<DeValue<'d>>)| {
            let name: &'d std::borrow::Cow<'d, str> = name.get_ref();
            Entry {
                name,
                place: Place {
                    key: Key::chosen(table.as_ref(), name),
                    span: value.span(),
                },
                value: value.get_ref(),
            }
        };
        Some(entries.iter().map(entry).collect())
    }

    /// Reads a value found by [`Table::entries`] as a string that is not empty.
    pub(super) fn as_text(&self, value: &'d DeValue<'d>, place: Place) -> Option<Text<'d>> {
        let text = if let DeValue::String(text) = value {
            text
        } else if let Some(text) = self.context.overrides.text(&place.span) {
            text.trim()
        } else {
            return self.mistyped(&place, "a string", value);
        };
        if text.trim().is_empty() {
            self.context.problems.add(&place, "is empty");
            return None;
        }
        Some(Text { text, place })
    }

    /// Reports every key that was not asked for. A table that is never finished would ignore what it does not know, which
    /// the mutation tests of CFG-1 would find.
    pub(super) fn finish(self) {
        for name in self.entries.into_iter().flat_map(DeTable::keys) {
            let key: &str = name.get_ref();
            if self.asked.contains(&key) {
                continue;
            }
            let place = Place {
                key: Key::chosen(self.key.as_ref(), key),
                span: name.span(),
            };
            let known = self.asked.iter().copied();
            let elsewhere = ["_file", "_env"].map(|end| format!("{key}{end}"));
            let hint = if elsewhere.iter().all(|key| self.asked.contains(&&**key)) {
                let [file, env] = elsewhere;
                format!(
                    "a secret is not written here: name its file in {file}, or its variable in {env}"
                )
            } else {
                suggest(key, known)
            };
            let fault = Fault::new("unknown key", hint);
            self.context.problems.add(&place, fault);
        }
    }

    fn note(&self, key: &'static str, shape: impl FnOnce() -> Shape) {
        if let Some(shapes) = self.context.shapes {
            shapes.note(self.key.as_deref(), key, shape());
        }
    }

    fn value(&mut self, key: &'static str) -> Option<(&'d DeValue<'d>, Place)> {
        self.know(key);
        let value = self.find(key)?;
        let place = Place {
            key: Key::of(self.key.as_ref(), key),
            span: value.span(),
        };
        Some((value.get_ref(), place))
    }

    fn keep<T>(&self, place: &Place, read: Result<T, Fault>) -> Option<T> {
        read.map_err(|fault| self.context.problems.add(place, fault))
            .ok()
    }

    fn mistyped<T>(&self, place: &Place, wanted: &str, value: &DeValue<'_>) -> Option<T> {
        let found = match value {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "a whole number",
            DeValue::Float(_) => "a fraction",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        let mut fault = Fault::from(format!("expected {wanted}, found {found}"));
        if self.context.overrides.names(&place.span) {
            let hint = "a variable is read as TOML: true, 5, [\"a\", \"b\"], { key = \"value\" }; what is none is a string";
            fault.hint = Some(hint.to_owned());
        }
        self.context.problems.add(place, fault);
        None
    }
}
