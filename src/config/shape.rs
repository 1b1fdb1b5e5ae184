//! What the readers ask for: every key, and what its value may be. It is learned from the readers themselves, while they read, so
//! that no second list of keys exists.

use std::{cell::RefCell, time::Duration};

use super::{bounds::Bounds, place::Key};

/// What a value may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Shape {
    /// Nothing is known of it: its reader was not reached.
    Any,
    /// One of these words.
    Choice(Vec<String>),
    Duration(Bounds<Duration>),
    Flag,
    /// Thousandths.
    Fraction(Bounds<u32>),
    /// Strings, so many at least.
    List(usize),
    Number(Bounds<u64>),
    /// A table whose keys are the operator's own.
    Own,
    Rate,
    Size(Bounds<u64>),
    Table,
    /// A list of tables.
    Tables,
    Text,
    /// Strings, of which one may be empty.
    Words,
}

/// A key, and what is known of it.
#[derive(Debug)]
pub(super) struct Known {
    /// The table that it is a key of, as `upstream[].tls`; empty for the document.
    pub(super) table: String,
    pub(super) key: &'static str,
    pub(super) shape: Shape,
    /// How often it was needed.
    pub(super) needed: usize,
}

/// Everything that was asked for, in the order of the questions.
#[derive(Debug, Default)]
pub(super) struct Shapes {
    known: RefCell<Vec<Known>>,
    /// The tables that were there, each as often as it was.
    tables: RefCell<Vec<String>>,
}

impl Shapes {
    /// Takes note of a key. What was said first holds, for a reader of durations asks for a text in turn.
    pub(super) fn note(&self, table: Option<&Key>, key: &'static str, shape: Shape) {
        self.with(table, key, |known| {
            if known.shape == Shape::Any {
                known.shape = shape;
            }
        });
    }

    /// Takes note that a key must be there.
    pub(super) fn need(&self, table: Option<&Key>, key: &'static str) {
        self.with(table, key, |known| known.needed += 1);
    }

    /// Takes note of a table that is there.
    pub(super) fn table(&self, table: Option<&Key>) {
        self.tables.borrow_mut().push(pattern(table));
    }

    /// Every key, and how often each table was there.
    pub(super) fn take(self) -> (Vec<Known>, impl Fn(&str) -> usize) {
        let tables = self.tables.into_inner();
        let count = move |table: &str| tables.iter().filter(|other| *other == table).count();
        (self.known.into_inner(), count)
    }

    fn with(&self, table: Option<&Key>, key: &'static str, change: impl FnOnce(&mut Known)) {
        let table = pattern(table);
        let mut known = self.known.borrow_mut();
        let is_it = |one: &Known| one.key == key && one.table == table;
        if !known.iter().any(is_it) {
            known.push(Known {
                table: table.clone(),
                key,
                shape: Shape::Any,
                needed: 0,
            });
        }
        if let Some(found) = known.iter_mut().find(|one| is_it(one)) {
            change(found);
        }
    }
}

/// The keys of a table without the places in its lists: `upstream[].tls`.
fn pattern(table: Option<&Key>) -> String {
    let text = table.map(ToString::to_string).unwrap_or_default();
    let mut pattern = String::with_capacity(text.len());
    let mut inside = false;
    for letter in text.chars() {
        inside &= letter != ']';
        if !inside {
            pattern.push(letter);
        }
        inside |= letter == '[';
    }
    pattern
}
