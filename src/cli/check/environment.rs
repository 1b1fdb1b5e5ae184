//! What `portcullis check` tells of keys that the environment overrides: their names, and never their values.

use serde_json::{Value, json};

use crate::config::Overridden;

pub(super) const COLUMNS: [&str; 2] = ["KEY", "FROM THE ENVIRONMENT"];

/// A key and its variable, in the order of [`COLUMNS`].
pub(super) fn rows(overridden: &[Overridden]) -> Vec<[String; 2]> {
    let row = |one: &Overridden| [one.key.clone(), one.variable.clone()];
    overridden.iter().map(row).collect()
}

/// The same for programs.
pub(super) fn as_json(overridden: &[Overridden]) -> Vec<Value> {
    let shown = overridden.iter();
    let shown = shown.map(|one| json!({ "key": one.key, "variable": one.variable }));
    shown.collect()
}
