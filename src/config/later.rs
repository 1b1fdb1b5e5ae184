//! What the contract names and this version does not do yet. Such a key is refused by name, for a setting that is read
//! and not obeyed is worse than none.
//!
//! Whoever builds a feature deletes its rows here.

/// Section and key.
pub(super) const NOT_YET: &[(&str, &str)] = &[
    ("accounts", "store_password_env"),
    ("accounts", "store_password_file"),
];
