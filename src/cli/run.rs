//! `portcullis run`: serves what the configuration says until it is told to stop.

use std::path::Path;

use super::node::{Node, ensure_development_pair};
use crate::{config, telemetry};

/// Loads the configuration, serves, and returns after the drain.
///
/// # Errors
/// Every problem of the configuration at once, or what could not be started; nothing is bound then.
pub fn run(path: &Path) -> anyhow::Result<()> {
    let config = config::load(path)?;
    telemetry::init_events(&config.log);
    ensure_development_pair(&config)?;
    Node::start(config)?.run_until_signal()
}
