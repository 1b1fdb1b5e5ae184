//! `portcullis run`: serves what the configuration says until it is told to stop.

use std::{path::Path, thread};

use aws_lc_rs::rand;

use super::node::{Node, ensure_development_pair};
use crate::{config::Source, limit, telemetry};

/// Loads the configuration, serves, and returns after the drain.
///
/// # Errors
/// Every problem of the configuration at once, or what could not be started; nothing is bound then.
pub fn run(path: &Path) -> anyhow::Result<()> {
    prepare_clock_and_entropy();
    let loaded = Source::file(path)?.load()?;
    telemetry::init_events(&loaded.config.log);
    ensure_development_pair(&loaded.config)?;
    Node::start(loaded)?.run_until_signal()
}

/// Does on a thread of its own, while the configuration is read, what the process does once and somebody would wait for later:
/// gathering entropy for the random generator, and calibrating the clock of the limits. Whoever needs either before it is done
/// waits for it as ever, and one that fails here fails there again, where it is reported.
fn prepare_clock_and_entropy() {
    let work = || {
        let _ = rand::fill(&mut [0]);
        limit::calibrate_clock();
    };
    let name = "prepare".to_owned();
    // Without a thread it is done later.
    let _ = thread::Builder::new().name(name).spawn(work);
}
