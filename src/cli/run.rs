//! `portcullis run`: serves what the configuration says until it is told to stop.

use std::{path::Path, thread};

use anyhow::Context;
use aws_lc_rs::rand;
use rustix::process::{Resource, Rlimit, geteuid, getrlimit, setrlimit};

use super::node::{Node, ensure_development_pair};
use crate::{
    config::{Config, Source},
    limit,
    server::{handed::Handed, takeover::Takeover},
    telemetry,
};

/// How to begin.
#[derive(Debug, clap::Args)]
pub struct RunCommand {
    /// Take the place of the gateway that runs, if one does, without a request lost.
    ///
    /// The one that runs hands its listening sockets over by server.takeover_socket, serves until this one does, and drains. Where
    /// this one cannot start, it goes on.
    #[arg(long)]
    takeover: bool,
}

/// Loads the configuration, serves, and returns after the drain.
///
/// # Errors
/// Every problem of the configuration at once, or what could not be started; nothing is bound then.
pub fn run(command: &RunCommand, path: &Path) -> anyhow::Result<()> {
    // First of all: there must be no other thread yet.
    let handed = Handed::take()?;
    keep_no_core_dump();
    prepare_clock_and_entropy();
    let loaded = Source::file(path)?.load()?;
    telemetry::init_events(&loaded.config.log).context("log.audit_file cannot be written")?;
    warn_of_root();
    for one in &loaded.overridden {
        let (key, variable) = (&one.key, &one.variable);
        tracing::info!(key, variable, "key set by the environment");
    }
    ensure_development_pair(&loaded.config)?;
    let begun = if command.takeover {
        takeover(&loaded.config, &handed)?
    } else {
        None
    };
    let Some((takeover, handed)) = begun else {
        return Node::start(loaded, handed)?.run_until_signal();
    };
    Node::start(loaded, handed)?
        .succeed(takeover)?
        .run_until_signal()
}

/// Asks the gateway that runs for its sockets; `None` where none does.
fn takeover(config: &Config, handed: &Handed) -> anyhow::Result<Option<(Takeover, Handed)>> {
    let path = config.server.takeover_socket.as_deref();
    let path = path.context(
        "--takeover needs server.takeover_socket, in this configuration and in that of the gateway that runs: write \
         takeover_socket = \"data/takeover.sock\" under [server], and restart it once",
    )?;
    if !handed.is_empty() {
        anyhow::bail!(
            "--takeover and sockets of a service manager (LISTEN_FDS) exclude each other: those are kept over a restart"
        );
    }
    let begun = Takeover::begin(path)?;
    if begun.is_none() {
        tracing::info!(socket = %path.display(), "no gateway runs here whose place could be taken");
    }
    Ok(begun)
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

/// A dump of the memory holds keys, passwords and tokens, so none is made unless somebody raises the limit of the running process
/// (CFG-4).
fn keep_no_core_dump() {
    let limit = Rlimit {
        current: Some(0),
        maximum: getrlimit(Resource::Core).maximum,
    };
    // A soft limit can always be lowered.
    let _ = setrlimit(Resource::Core, limit);
}

fn warn_of_root() {
    if geteuid().is_root() {
        tracing::warn!(
            "running as root, which the gateway never needs: whoever finds a fault in it has the machine. Start it as a user of its \
             own; for a port below 1024 let the service manager open the socket, or give it CAP_NET_BIND_SERVICE"
        );
    }
}
