//! The range of a number.

use super::diagnostic::Fault;

/// The least and the most that a number may be, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds<T> {
    least: T,
    most: T,
    why: Option<&'static str>,
}

impl<T> Bounds<T> {
    pub(super) const fn new(least: T, most: T) -> Self {
        Self {
            least,
            most,
            why: None,
        }
    }

    /// The least and the most.
    pub(super) const fn ends(&self) -> (&T, &T) {
        (&self.least, &self.most)
    }

    pub(super) const fn because(mut self, why: &'static str) -> Self {
        self.why = Some(why);
        self
    }
}

impl<T: PartialOrd> Bounds<T> {
    /// Takes a value within the bounds, or says how it is beyond them.
    pub(super) fn check(&self, value: T, show: impl Fn(&T) -> String) -> Result<T, Fault> {
        let (least, most) = (show(&self.least), show(&self.most));
        let hint = self.why.map_or_else(
            || format!("from {least} to {most}"),
            |why| format!("from {least} to {most}: {why}"),
        );
        if value < self.least {
            let message = format!("{} is below the least allowed, {least}", show(&value));
            Err(Fault::new(message, hint))
        } else if value > self.most {
            let message = format!("{} is above the most allowed, {most}", show(&value));
            Err(Fault::new(message, hint))
        } else {
            Ok(value)
        }
    }
}
