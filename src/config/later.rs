//! What the contract names and this version does not do yet. Such a key is refused by name, for a setting that is read
//! and not obeyed is worse than none; it is accepted only with the value that says what the gateway does anyway.
//!
//! Whoever builds a feature deletes its rows here.

use toml::de::DeValue;

/// The value that asks for nothing beyond today's behaviour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Harmless {
    /// A flag that is set so.
    Flag(bool),
    /// There is none: the key asks for the feature whatever its value.
    Nothing,
    /// This word.
    Word(&'static str),
}

use Harmless::{Flag, Nothing, Word};

/// Section, key, and the value that is accepted.
pub(super) const NOT_YET: &[(&str, &str, Harmless)] = &[
    ("", "cluster", Nothing),
    ("", "mail", Nothing),
    ("accounts", "cookie_session", Flag(false)),
    ("identity", "assertion", Flag(false)),
    ("issuer", "introspection_url", Nothing),
    ("route", "sign_in", Word("never")),
];

impl Harmless {
    /// Whether the value asks for nothing beyond today's behaviour.
    pub(super) fn accepts(self, value: &DeValue<'_>) -> bool {
        match (self, value) {
            (Self::Flag(flag), DeValue::Boolean(value)) => flag == *value,
            (Self::Word(word), DeValue::String(text)) => word == text,
            _ => false,
        }
    }

    /// What may be written until then.
    pub(super) fn hint(self) -> String {
        let value = match self {
            Self::Flag(flag) => flag.to_string(),
            Self::Nothing => return "take the key out: it is never ignored silently".to_owned(),
            Self::Word(word) => format!("{word:?}"),
        };
        format!("only `{value}` is accepted for now, which says what the gateway does")
    }
}
