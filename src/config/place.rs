//! Where a value stands: its bytes, and the keys that lead to it. They are written out only where somebody will read them, for
//! at every start fifty thousand values are read that nothing is wrong with.

use std::{
    fmt::{self, Display, Formatter},
    ops::Range,
    rc::Rc,
};

/// A key and where its value stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) key: Key,
    pub(super) span: Range<usize>,
}

/// The keys that lead to a value, as `route[2].upstream`; none for the document as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Key {
    table: Option<Rc<Key>>,
    step: Step,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Step {
    #[default]
    Document,
    Name(&'static str),
    /// One of a list under a name.
    Element(&'static str, usize),
    /// A name of the operator's choice.
    Chosen(Box<str>),
}

impl Key {
    /// The keys of a table, to be shared by what is in it.
    pub(super) fn shared(&self) -> Option<Rc<Self>> {
        (self.step != Step::Document).then(|| Rc::new(self.clone()))
    }

    /// A key of a table.
    pub(super) fn of(table: Option<&Rc<Self>>, name: &'static str) -> Self {
        Self::at(table, Step::Name(name))
    }

    /// An element of a list that is a key of a table.
    pub(super) fn element(table: Option<&Rc<Self>>, name: &'static str, index: usize) -> Self {
        Self::at(table, Step::Element(name, index))
    }

    /// A key of a table that the operator made up.
    pub(super) fn chosen(table: Option<&Rc<Self>>, name: &str) -> Self {
        Self::at(table, Step::Chosen(name.into()))
    }

    fn at(table: Option<&Rc<Self>>, step: Step) -> Self {
        Self {
            table: table.cloned(),
            step,
        }
    }
}

impl Display for Key {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if let Some(table) = &self.table {
            write!(f, "{table}.")?;
        }
        match &self.step {
            Step::Document => Ok(()),
            Step::Name(name) => f.write_str(name),
            Step::Element(name, index) => write!(f, "{name}[{index}]"),
            Step::Chosen(name) => f.write_str(name),
        }
    }
}
