//! Reads the users file of Authelia: YAML with `users`, and below it an account for each name.
//!
//! Only what such a file needs of YAML is taken: no anchors, aliases or tags, so that nothing in it can grow.

use std::borrow::Cow;

use saphyr_parser::{Event, Parser, ScalarStyle, StrInput};

use super::Entry;

/// How deep a file may nest; a users file has five levels.
const DEPTH_MAX: usize = 16;

enum Node {
    List(Vec<Node>),
    Map(Vec<Field>),
    /// A text, and whether it was written without quotes, in which case it may stand for another type.
    Text(String, bool),
}

struct Field {
    line: usize,
    name: String,
    value: Node,
}

/// The accounts of a file in its order.
///
/// # Errors
/// What is wrong with the file as a whole, with its line.
pub(super) fn read(text: &str) -> anyhow::Result<Vec<Entry>> {
    let mut parser = Parser::new_from_str(text);
    let root = loop {
        let (event, line) = next(&mut parser)?;
        if !matches!(event, Event::StreamStart | Event::DocumentStart(_)) {
            break node(&mut parser, event, line, 0)?;
        }
    };
    let Node::Map(fields) = root else {
        anyhow::bail!("the file is no mapping with `users`");
    };
    let users = fields.into_iter().find(|field| field.name == "users");
    let Some(Node::Map(users)) = users.map(|field| field.value) else {
        anyhow::bail!("the file has no mapping `users`");
    };
    users.into_iter().map(entry).collect()
}

fn entry(user: Field) -> anyhow::Result<Entry> {
    let Field { line, name, value } = user;
    let Node::Map(fields) = value else {
        anyhow::bail!("line {line}: the account is no mapping");
    };
    let mut entry = Entry {
        line,
        name,
        email: None,
        display_name: None,
        hash: String::new(),
        groups: Vec::new(),
        disabled: false,
    };
    for Field { line, name, value } in fields {
        match (&*name, value) {
            ("password", Node::Text(hash, _)) => entry.hash = hash,
            ("email", Node::Text(email, _)) => {
                entry.email = Some(email).filter(|email| !email.is_empty())
            }
            ("displayname", Node::Text(name, _)) => {
                entry.display_name = Some(name).filter(|name| !name.is_empty());
            }
            ("disabled", Node::Text(text, true)) if matches!(&*text, "true" | "True" | "TRUE") => {
                entry.disabled = true;
            }
            ("disabled", Node::Text(text, true))
                if matches!(&*text, "false" | "False" | "FALSE") => {}
            ("groups", Node::Text(text, true)) if matches!(&*text, "" | "~" | "null") => {}
            ("groups", Node::List(groups)) => {
                for group in groups {
                    let Node::Text(group, _) = group else {
                        anyhow::bail!("line {line}: a group is no text");
                    };
                    entry.groups.push(group);
                }
            }
            ("password" | "email" | "displayname" | "disabled" | "groups", _) => {
                anyhow::bail!("line {line}: `{name}` has another type than it should have");
            }
            // Authelia knows more of a user than an account has: given names, telephone numbers, addresses.
            _ => {}
        }
    }
    Ok(entry)
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "whatever else YAML has, now or later, is refused"
)]
fn node<'t>(
    parser: &mut Parser<'t, StrInput<'t>>,
    first: Event<'t>,
    line: usize,
    depth: usize,
) -> anyhow::Result<Node> {
    anyhow::ensure!(depth < DEPTH_MAX, "line {line}: it nests too deep");
    match first {
        Event::Scalar(text, style, 0, None) => Ok(Node::Text(
            Cow::into_owned(text),
            style == ScalarStyle::Plain,
        )),
        Event::SequenceStart(0, None) => {
            let mut list = Vec::new();
            loop {
                match next(parser)? {
                    (Event::SequenceEnd, _) => return Ok(Node::List(list)),
                    (event, line) => list.push(node(parser, event, line, depth + 1)?),
                }
            }
        }
        Event::MappingStart(0, None) => mapping(parser, depth),
        _ => anyhow::bail!("line {line}: anchors, aliases and tags of YAML are not read"),
    }
}

fn mapping<'t>(parser: &mut Parser<'t, StrInput<'t>>, depth: usize) -> anyhow::Result<Node> {
    let mut fields: Vec<Field> = Vec::new();
    let mut names = std::collections::HashSet::new();
    loop {
        let (event, line) = next(parser)?;
        if event == Event::MappingEnd {
            return Ok(Node::Map(fields));
        }
        let Node::Text(name, _) = node(parser, event, line, depth + 1)? else {
            anyhow::bail!("line {line}: a key is no text");
        };
        anyhow::ensure!(
            names.insert(name.clone()),
            "line {line}: a key is there twice"
        );
        let (event, at) = next(parser)?;
        let value = node(parser, event, at, depth + 1)?;
        fields.push(Field { line, name, value });
    }
}

/// The next event and its line. An error of the reader's says where; what it quotes is not told, for it may be a hash.
fn next<'t>(parser: &mut Parser<'t, StrInput<'t>>) -> anyhow::Result<(Event<'t>, usize)> {
    match parser.next_event() {
        Some(Ok((event, span))) => Ok((event, span.start.line())),
        Some(Err(error)) => anyhow::bail!("line {}: this is not YAML", error.marker().line()),
        None => anyhow::bail!("the file ends too early"),
    }
}
