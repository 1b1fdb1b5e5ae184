//! What only another start can change. A reload that would change any of it changes nothing at all: a node that runs a part of
//! its file would be a third configuration, which nobody has written.

use std::path::Path;

use super::{Change, Config};

/// The keys in which two configurations differ and that a running process cannot change; `changes` are all that differ.
#[must_use]
pub fn needed(before: &Config, next: &Config, changes: &[Change]) -> Vec<String> {
    let (old, new) = (&before.server, &next.server);
    let mut keys: Vec<String> = [
        ("server.listen", old.listen != new.listen),
        (
            "server.redirect_listen",
            old.redirect_listen != new.redirect_listen,
        ),
        ("server.admin_listen", old.admin_listen != new.admin_listen),
        ("server.public_url", old.public_url != new.public_url),
        ("server.workers", old.workers != new.workers),
        (
            "server.takeover_socket",
            old.takeover_socket != new.takeover_socket,
        ),
        (
            "identity.assertion",
            statements(before).is_some() != statements(next).is_some(),
        ),
        (
            "identity.assertion_keys",
            statements(before).is_some()
                && statements(next).is_some()
                && statements(before) != statements(next),
        ),
        (
            "rate_limit.ipv6_site_factor",
            site_factor(before).is_some()
                && site_factor(next).is_some()
                && site_factor(before) != site_factor(next),
        ),
        ("cluster", before.cluster != next.cluster),
        ("log.access", before.log.access != next.log.access),
        ("log.format", before.log.format != next.log.format),
        (
            "log.audit_file",
            before.log.audit_file != next.log.audit_file,
        ),
    ]
    .into_iter()
    .filter(|(_, differs)| *differs)
    .map(|(key, _)| key.to_owned())
    .collect();
    // The issuer of its tokens is the public URL, which is named already. Mail is a part of accounts.
    if before.accounts != next.accounts {
        let own = changes
            .iter()
            .filter(|change| matches!(change.section(), "accounts" | "mail"));
        let own: Vec<String> = own.flat_map(Change::keys).collect();
        if own.is_empty() && keys.is_empty() {
            keys.push("accounts".to_owned());
        }
        keys.extend(own);
    }
    keys
}

/// What a wider network may do at the account routes.
fn site_factor(config: &Config) -> Option<u32> {
    config
        .accounts
        .as_ref()
        .map(|accounts| accounts.ipv6_site_factor)
}

/// The folder of the keys that sign statements to upstreams.
fn statements(config: &Config) -> Option<&Path> {
    config.assertion.as_ref().map(|on| on.keys.as_path())
}

#[cfg(test)]
mod tests;
