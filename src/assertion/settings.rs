//! What the configuration says of statements.

use std::{path::PathBuf, sync::Arc};

/// The checked `identity.assertion` and what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssertionSettings {
    /// `iss`: the public URL without a trailing slash.
    pub issuer: Arc<str>,
    /// The folder of the keys; never that of the keys of access tokens.
    pub keys: PathBuf,
}
