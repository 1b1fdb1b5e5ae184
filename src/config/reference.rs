//! The reference of every key, as Markdown, from what the schema is made from.

use super::{
    schema::{self, Entry},
    shape::Shape,
};

const HEAD: &str = "\
# Every key of `gateway.toml`

This page is written by `portcullis schema --format markdown`; change the comments of
[config/gateway.toml](../config/gateway.toml) and the readers instead. What keys mean together is told in
[configuration.md](configuration.md). `[]` is one of a list: `[[route]]`. A required key is one that its table cannot be without.
";

/// The page.
#[must_use]
pub fn reference() -> String {
    let entries = schema::entries();
    let mut tables: Vec<&str> = Vec::new();
    for entry in &entries {
        if !tables.contains(&&*entry.table) {
            tables.push(&entry.table);
        }
    }
    let mut page = HEAD.to_owned();
    for table in tables {
        let title = if table.is_empty() { "Top level" } else { table };
        let title = if table.is_empty() {
            title.to_owned()
        } else {
            format!("`{title}`")
        };
        page.push_str(&format!(
            "\n## {title}\n\n| key | value | default | meaning |\n|---|---|---|---|\n"
        ));
        for entry in entries.iter().filter(|entry| entry.table == table) {
            page.push_str(&row(entry));
        }
    }
    page
}

fn row(entry: &Entry) -> String {
    let default = match &entry.default {
        None if entry.required => "required".to_owned(),
        None => String::new(),
        Some(value) => format!("`{value}`"),
    };
    let meaning = match (&entry.shape, entry.shares_text) {
        (Shape::Table | Shape::Tables, _) if entry.text.is_empty() => "see below".to_owned(),
        (_, true) => {
            let table = entry.table.trim_end_matches("[]");
            let table = table.rsplit('.').next().unwrap_or(table);
            format!("see `{table}`")
        }
        (_, false) => entry.text.replace('|', "\\|"),
    };
    let cells = [
        format!("`{}`", entry.key),
        value(&entry.shape),
        default,
        meaning,
    ];
    format!("| {} |\n", cells.join(" | "))
}

/// What a value may be, in words.
fn value(shape: &Shape) -> String {
    let kind = match shape {
        Shape::Any => "",
        Shape::Choice(words) => {
            let words: Vec<String> = words.iter().map(|word| format!("`\"{word}\"`")).collect();
            return words.join(", ");
        }
        Shape::Duration(_) => "duration",
        Shape::Flag => "true or false",
        Shape::Fraction(_) => "fraction",
        Shape::List(0) => "list of strings",
        Shape::List(_) => "list of strings, one at least",
        Shape::Number(_) => "number",
        Shape::Own => "table with names of your own",
        Shape::Rate => "rate",
        Shape::Size(_) => "size",
        Shape::Table => "table",
        Shape::Tables => "list of tables",
        Shape::Text => "string",
        Shape::Words => "list of strings",
    };
    match schema::range(shape) {
        None => kind.to_owned(),
        Some(range) => format!("{kind}, {range}"),
    }
}
