//! Single values: flags, numbers with their bounds, durations, sizes, rates, words.

use std::time::Duration;

use toml::de::DeValue;

use super::Table;
use crate::{
    config::{
        bounds::Bounds,
        diagnostic::Fault,
        shape::Shape,
        units,
        words::{Choice, choose},
    },
    limit::settings::Quota,
};

impl Table<'_> {
    /// Reads `true` or `false`.
    pub(in crate::config) fn flag(&mut self, key: &'static str) -> Option<bool> {
        self.note(key, || Shape::Flag);
        let (value, place) = self.value(key)?;
        let DeValue::Boolean(flag) = value else {
            return self.mistyped(&place, "true or false", value);
        };
        Some(*flag)
    }

    /// Reads a whole number into the type that holds it.
    pub(in crate::config) fn number<T: TryFrom<u64>>(
        &mut self,
        key: &'static str,
        bounds: Bounds<u64>,
    ) -> Option<T> {
        self.note(key, || Shape::Number(bounds));
        let (value, place) = self.value(key)?;
        let DeValue::Integer(digits) = value else {
            return self.mistyped(&place, "a whole number", value);
        };
        let read = i128::from_str_radix(digits.as_str(), digits.radix())
            .ok()
            .and_then(|number| u64::try_from(number).ok())
            .ok_or_else(|| Fault::from("is negative or far too large"))
            .and_then(|number| bounds.check(number, u64::to_string))
            .and_then(|number| T::try_from(number).map_err(|_| "is too large".into()));
        self.keep(&place, read)
    }

    /// Reads a fraction, in thousandths.
    pub(in crate::config) fn thousandths(
        &mut self,
        key: &'static str,
        bounds: Bounds<u32>,
    ) -> Option<u32> {
        self.note(key, || Shape::Fraction(bounds));
        let (value, place) = self.value(key)?;
        let text = match value {
            DeValue::Float(number) => number.as_str(),
            DeValue::Integer(number) => number.as_str(),
            DeValue::String(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_)
            | DeValue::Table(_) => return self.mistyped(&place, "a fraction", value),
        };
        let read = units::thousandths(text)
            .and_then(|number| bounds.check(number, |value| units::show_thousandths(*value)));
        self.keep(&place, read)
    }

    /// Reads a duration.
    pub(in crate::config) fn duration(
        &mut self,
        key: &'static str,
        bounds: Bounds<Duration>,
    ) -> Option<Duration> {
        self.note(key, || Shape::Duration(bounds));
        self.parsed(key, |text| {
            bounds.check(units::duration(text)?, |value| units::show_duration(*value))
        })
    }

    /// Reads a size in bytes.
    pub(in crate::config) fn size<T: TryFrom<u64>>(
        &mut self,
        key: &'static str,
        bounds: Bounds<u64>,
    ) -> Option<T> {
        self.note(key, || Shape::Size(bounds));
        self.parsed(key, |text| {
            let bytes = bounds.check(units::size(text)?, |value| units::show_size(*value))?;
            T::try_from(bytes).map_err(|_| "is too large for this machine".into())
        })
    }

    /// Reads a rate; all of it may come at once.
    pub(in crate::config) fn rate(&mut self, key: &'static str) -> Option<Quota> {
        self.note(key, || Shape::Rate);
        self.parsed(key, |text| {
            let (count, window) = units::rate(text)?;
            Bounds::new(Duration::from_secs(1), DAY)
                .check(window, |value| units::show_duration(*value))?;
            Ok(Quota {
                count,
                window,
                burst: count,
            })
        })
    }

    /// Reads one word of several.
    pub(in crate::config) fn choice<T: Copy>(
        &mut self,
        key: &'static str,
        words: &[(&str, Choice<T>)],
    ) -> Option<T> {
        self.note(key, || {
            Shape::Choice(words.iter().map(|(word, _)| (*word).to_owned()).collect())
        });
        self.parsed(key, |text| choose(text, words))
    }
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
