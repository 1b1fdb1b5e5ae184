//! `portcullis run`: serves what the configuration says until it is told to stop.

use std::path::Path;

use super::node::Node;
use crate::{
    config::{self, development},
    telemetry,
};

/// Loads the configuration, serves, and returns after the drain.
///
/// # Errors
/// Every problem of the configuration at once, or what could not be started; nothing is bound then.
pub fn run(path: &Path) -> anyhow::Result<()> {
    let config = config::load(path)?;
    telemetry::init_events(&config.log);
    if config.tls.development {
        development::ensure(&config.tls, &config.server)?;
    }
    Node::start(config)?.run_until_signal()
}
