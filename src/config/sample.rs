//! What the sample configuration says of each key: the comment above it, and its value.
//!
//! `config/gateway.toml` is what people read, so its words are the ones that editors and the reference show.

use toml::Value;

/// The sample, with every key.
pub(super) const SAMPLE: &str = include_str!("../../config/gateway.toml");

/// What the sample says of one key.
#[derive(Debug, Clone)]
pub(super) struct Said {
    /// The key with the tables that lead to it, as `upstream[].tls.ca`.
    pub(super) path: String,
    /// The comment, as one line.
    pub(super) text: String,
    /// The value; `None` for a section.
    pub(super) value: Option<Value>,
    /// Whether the line is no comment itself: the value is the default then, except where the comment says otherwise.
    pub(super) active: bool,
}

/// The sample with its examples: lines that begin with `#` and neither a space nor a colon.
pub(super) fn with_examples() -> String {
    let uncomment = |line: &'static str| match line.strip_prefix('#') {
        Some(rest) if !rest.is_empty() && !rest.starts_with([' ', ':']) => rest,
        _ => line,
    };
    let lines: Vec<&str> = SAMPLE.lines().map(uncomment).collect();
    lines.join("\n")
}

/// Everything that the sample says, each key once, in its order.
pub(super) fn said() -> Vec<Said> {
    let mut all: Vec<Said> = Vec::new();
    let mut add = |one: Said| {
        if !all.iter().any(|other| other.path == one.path) {
            all.push(one);
        }
    };
    let mut section = String::new();
    let mut text = String::new();
    // Whether the comment above was used by a key already: the next one begins another.
    let mut used = false;
    for line in SAMPLE.lines() {
        let (active, plain) = match line.strip_prefix('#') {
            Some(rest) => (false, rest.trim_start()),
            None => (true, line),
        };
        if let Some(name) = header(plain) {
            section = name;
            add(Said {
                path: section.clone(),
                text: std::mem::take(&mut text),
                value: None,
                active,
            });
        } else if let Some((key, value)) = assignment(plain) {
            let path = match &*section {
                "" => key.to_owned(),
                section => format!("{section}.{key}"),
            };
            used = true;
            within(&path, &value, &text, &mut add);
            add(Said {
                path,
                text: text.clone(),
                value: Some(value),
                active,
            });
        } else if active || plain.starts_with("---") || plain.starts_with(':') {
            text.clear();
        } else {
            if std::mem::take(&mut used) {
                text.clear();
            }
            text = format!("{text} {plain}").trim().to_owned();
        }
    }
    all
}

/// The keys of a value: they share the comment of the whole.
fn within(path: &str, value: &Value, text: &str, add: &mut impl FnMut(Said)) {
    let (path, table) = match value {
        Value::Table(table) => (path.to_owned(), table),
        Value::Array(list) => match list.first() {
            Some(Value::Table(table)) => (format!("{path}[]"), table),
            Some(_) | None => return,
        },
        Value::String(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::Boolean(_)
        | Value::Datetime(_) => return,
    };
    for (key, value) in table {
        let path = format!("{path}.{key}");
        within(&path, value, text, add);
        add(Said {
            path,
            text: text.to_owned(),
            value: Some(value.clone()),
            active: false,
        });
    }
}

/// The section that a line begins.
fn header(line: &str) -> Option<String> {
    let plain = |name: &&str| {
        name.bytes()
            .all(|b| b.is_ascii_lowercase() || b"_.".contains(&b))
    };
    if let Some(name) = line.strip_prefix("[[") {
        let name = name.strip_suffix("]]").filter(plain)?;
        return Some(format!("{name}[]"));
    }
    let name = line.strip_prefix('[')?.strip_suffix(']').filter(plain)?;
    Some(name.to_owned())
}

/// The key and the value of a line that has both, and nothing else: sentences of comments may begin like one.
fn assignment(line: &str) -> Option<(&str, Value)> {
    let (key, _) = line.split_once(" = ")?;
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    if key.is_empty() || !key.bytes().all(plain) {
        return None;
    }
    let table: toml::Table = line.parse().ok()?;
    let value = table.get(key)?.clone();
    Some((key, value))
}
