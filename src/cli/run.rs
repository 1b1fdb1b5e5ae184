//! `portcullis run`: serves what the configuration says until it is told to stop.

use std::path::Path;

use super::node::{Node, ensure_development_pair};
use crate::{config::Source, telemetry};

/// Loads the configuration, serves, and returns after the drain.
///
/// # Errors
/// Every problem of the configuration at once, or what could not be started; nothing is bound then.
pub fn run(path: &Path) -> anyhow::Result<()> {
    let loaded = Source::file(path)?.load()?;
    telemetry::init_events(&loaded.config.log);
    ensure_development_pair(&loaded.config)?;
    Node::start(loaded)?.run_until_signal()
}
