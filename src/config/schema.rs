//! The JSON Schema of `gateway.toml`, for editors and other programs: which keys there are, what their values may be, what they
//! mean.
//!
//! Keys, types, words and ranges are learned from the readers, while they read the sample with all its examples; what a key means
//! and its default are the sample's comment and value. So the schema can know neither more nor less than the reader does. It says
//! less than `portcullis check`, which also knows what keys mean together.

use std::{cell::RefCell, ffi::OsString, path::Path};

use serde_json::{Map, Value, json};
use toml::de::DeTable;

use super::{
    context::Context,
    diagnostic::Problems,
    environment::Overrides,
    sample::{self, Said},
    sections,
    shape::{Known, Shape, Shapes},
    units,
};

/// What a file needs at the least. Beside the sample it shows which keys are needed in any case.
const SHORTEST: &str = r#"
[server]
trusted_proxies = ["192.0.2.1/32"]
[tls]
certificates = [{ cert = "x", key = "x" }]
[[upstream]]
name = "x"
servers = ["https://127.0.0.1:1"]
tls = { ca = "x" }
[[route]]
name = "x"
path_prefix = "/"
access = "public"
[accounts]
[forward_auth]
"#;

const DURATION: &str = "^[0-9]+(ms|s|m|h|d)$";
const RATE: &str = "^0*[1-9][0-9]*/([0-9]+)?(ms|s|m|h|d)$";
const SIZE: &str = "^[0-9]+(B|KiB|MiB|GiB|TiB)$";

/// What is known of one key, from its reader and from the sample.
#[derive(Debug)]
pub(super) struct Entry {
    /// The table that it is a key of, as `upstream[].tls`; empty for the document.
    pub(super) table: String,
    pub(super) key: &'static str,
    pub(super) shape: Shape,
    /// Whether its table cannot be without it.
    pub(super) required: bool,
    /// What it means.
    pub(super) text: String,
    pub(super) default: Option<toml::Value>,
    /// Whether the words are those of the table that it is in.
    pub(super) shares_text: bool,
}

/// Every key, in the order in which it is read.
pub(super) fn entries() -> Vec<Entry> {
    let shapes = Shapes::default();
    for text in [&*sample::with_examples(), SHORTEST] {
        ask(text, &shapes);
    }
    let (known, tables) = shapes.take();
    let said = sample::said();
    let entry = |one: Known| {
        let path = path(&one.table, one.key);
        let list = format!("{path}[]");
        let own = said
            .iter()
            .find(|said| said.path == path || said.path == list);
        let around = || {
            let table = one.table.trim_end_matches("[]");
            said.iter()
                .find(|said| said.path == table && said.value.is_some())
        };
        let found = own.or_else(around);
        let required = one.needed > 0 && one.needed >= tables(&one.table);
        Entry {
            required,
            text: found.map(|said| said.text.clone()).unwrap_or_default(),
            default: own.and_then(default).filter(|_| !required),
            shares_text: own.is_none_or(|own| around().is_some_and(|other| other.text == own.text)),
            table: one.table,
            key: one.key,
            shape: one.shape,
        }
    };
    known.into_iter().map(entry).collect()
}

/// Has a text read, for what its readers ask. Its files are not there, and its problems are nobody's.
fn ask(text: &str, shapes: &Shapes) {
    let (document, _) = DeTable::parse_recoverable(text);
    let overrides = Overrides::default();
    let context = Context {
        root: Path::new("/nonexistent"),
        env: &|_| None::<OsString>,
        overrides: &overrides,
        shapes: Some(shapes),
        problems: Problems::default(),
        files: RefCell::default(),
    };
    let _ = sections::read(&context, &document);
}

/// The value of the sample, where it is the default: its comment may say another one, or that there is none.
fn default(said: &Said) -> Option<toml::Value> {
    let value = said.value.as_ref()?;
    let text = &said.text;
    if text.contains("Needed") || text.contains("Default: that of") {
        return None;
    }
    let stated = ["Default ", "default "].into_iter().find_map(|word| {
        let (_, after) = text.split_once(word)?;
        after.split_whitespace().next()
    });
    let stated = stated.map(|word| word.trim_end_matches(['.', ',', ';', ':']));
    match (value, stated) {
        (toml::Value::Boolean(_), Some("true")) => Some(true.into()),
        (toml::Value::Boolean(_), Some("false")) => Some(false.into()),
        (toml::Value::String(own), Some(word)) if word == own => Some(value.clone()),
        (toml::Value::Integer(own), Some(word)) if word == own.to_string() => Some(value.clone()),
        (_, Some("as")) => Some(value.clone()),
        _ if said.active || text.contains("These are the default") => Some(value.clone()),
        _ => None,
    }
}

/// The JSON Schema, draft 2020-12.
#[must_use]
pub fn schema() -> Value {
    let entries = entries();
    let mut root = table(&entries, "");
    let about = "What every key may be. `portcullis check` also knows what keys mean together, and the files that they name.";
    for (key, value) in [
        ("$schema", "https://json-schema.org/draft/2020-12/schema"),
        ("title", "Portcullis gateway.toml"),
        ("description", about),
    ] {
        put(&mut root, key, json!(value));
    }
    root
}

/// The schema of a table: its keys and no others.
fn table(entries: &[Entry], name: &str) -> Value {
    let own = entries.iter().filter(|entry| entry.table == name);
    let mut properties = Map::new();
    let mut required = Vec::new();
    for entry in own {
        properties.insert(entry.key.to_owned(), property(entries, entry));
        if entry.required {
            required.push(entry.key);
        }
    }
    let mut table =
        json!({ "type": "object", "additionalProperties": false, "properties": properties });
    if !required.is_empty() {
        put(&mut table, "required", json!(required));
    }
    table
}

fn property(entries: &[Entry], entry: &Entry) -> Value {
    let path = path(&entry.table, entry.key);
    let text = json!({ "type": "string", "minLength": 1 });
    let patterned =
        |pattern: &str, unit: &str| json!({ "type": "string", "pattern": pattern, "x-unit": unit });
    let mut property = match &entry.shape {
        Shape::Any => json!({}),
        Shape::Choice(words) => json!({ "type": "string", "enum": words }),
        Shape::Duration(_) => patterned(DURATION, "duration"),
        Shape::Flag => json!({ "type": "boolean" }),
        Shape::Fraction(bounds) => {
            let (least, most) = bounds.ends();
            json!({ "type": "number", "minimum": f64::from(*least) / 1000.0, "maximum": f64::from(*most) / 1000.0 })
        }
        Shape::List(least) => {
            json!({ "type": "array", "items": text, "minItems": least, "uniqueItems": true })
        }
        Shape::Number(bounds) => {
            let (least, most) = bounds.ends();
            json!({ "type": "integer", "minimum": least, "maximum": most })
        }
        Shape::Own => json!({ "type": "object" }),
        Shape::Rate => patterned(RATE, "rate"),
        Shape::Size(_) => patterned(SIZE, "bytes"),
        Shape::Table => table(entries, &path),
        Shape::Tables => {
            json!({ "type": "array", "items": table(entries, &format!("{path}[]")), "minItems": 1 })
        }
        Shape::Text => text,
        Shape::Words => json!({ "type": "array", "items": { "type": "string" }, "minItems": 1 }),
    };
    let range = range(&entry.shape).map(|range| format!("Range: {range}."));
    let words = [Some(entry.text.clone()), range];
    let words: Vec<String> = words
        .into_iter()
        .flatten()
        .filter(|text| !text.is_empty())
        .collect();
    if !words.is_empty() {
        put(&mut property, "description", json!(words.join(" ")));
    }
    if let Some(default) = entry
        .default
        .as_ref()
        .and_then(|value| serde_json::to_value(value).ok())
    {
        put(&mut property, "default", default);
    }
    property
}

/// Gives an object one more member.
fn put(object: &mut Value, name: &str, member: Value) {
    if let Value::Object(members) = object {
        members.insert(name.to_owned(), member);
    }
}

/// The least and the most, in the units of the file.
pub(super) fn range(shape: &Shape) -> Option<String> {
    let (least, most) = match shape {
        Shape::Duration(bounds) => {
            let (least, most) = bounds.ends();
            (units::show_duration(*least), units::show_duration(*most))
        }
        Shape::Fraction(bounds) => {
            let (least, most) = bounds.ends();
            (
                units::show_thousandths(*least),
                units::show_thousandths(*most),
            )
        }
        Shape::Number(bounds) => {
            let (least, most) = bounds.ends();
            (least.to_string(), most.to_string())
        }
        Shape::Size(bounds) => {
            let (least, most) = bounds.ends();
            (units::show_size(*least), units::show_size(*most))
        }
        Shape::Any
        | Shape::Choice(_)
        | Shape::Flag
        | Shape::List(_)
        | Shape::Own
        | Shape::Rate
        | Shape::Table
        | Shape::Tables
        | Shape::Text
        | Shape::Words => return None,
    };
    Some(format!("{least} to {most}"))
}

/// A key with the tables that lead to it.
pub(super) fn path(table: &str, key: &str) -> String {
    if table.is_empty() {
        key.to_owned()
    } else {
        format!("{table}.{key}")
    }
}

#[cfg(test)]
pub(super) mod tests;
