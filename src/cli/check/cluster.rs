//! What `check` says of what nodes share.

use crate::config::Config;

/// A line about it, where they share anything.
pub(super) fn line(config: &Config) -> String {
    let Some(redis) = config
        .cluster
        .as_ref()
        .filter(|_| config.accounts.is_some())
    else {
        return String::new();
    };
    format!(
        "\ncluster: limits of logins, registrations and mail are those of all nodes, in Redis at {} port {}; limits per client and of \
         routes are each node's own",
        redis.host, redis.port
    )
}
