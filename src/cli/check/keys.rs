//! What `check` says of the keys that sign access tokens.

use crate::config::Config;

/// A line about them, where they are in the account store.
pub(super) fn line(config: &Config) -> String {
    let accounts = config.accounts.as_ref();
    let Some(accounts) = accounts.filter(|accounts| accounts.key_encryption.is_some()) else {
        return String::new();
    };
    let folder = accounts.key_folder();
    let left = if folder.join("ring.json").exists() {
        let folder = folder.display();
        format!(
            "; those that lie in {folder} are taken over by the first start, then remove the folder on every node"
        )
    } else {
        String::new()
    };
    format!("\nsigning keys: encrypted in the account store{left}")
}
