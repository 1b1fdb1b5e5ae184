//! What `check` says of what nodes share.

use crate::config::Config;

/// A line about it, where they share anything.
pub(super) fn line(config: &Config) -> String {
    let Some(redis) = &config.cluster else {
        return String::new();
    };
    let exact = config.accounts.as_ref().map_or(
        "",
        |_| ", those of logins, refreshes, registrations and mail exactly",
    );
    format!(
        "\ncluster: limits are those of all nodes, in Redis at {} port {}{exact}",
        redis.host, redis.port
    )
}
