//! Obeys what the commands `key … --assertion` change, on the control runtime.

use std::{
    sync::{Arc, Weak},
    time::{Duration, SystemTime},
};

use tokio::{runtime::Handle, task::JoinHandle, time::MissedTickBehavior};

use super::{Assertions, seconds};

const POLL_PERIOD: Duration = Duration::from_secs(1);

/// The watching task. Dropping this stops it.
#[derive(Debug)]
pub struct Watch(JoinHandle<()>);

impl Assertions {
    /// Starts to watch the key folder for what other processes change, until the returned value or these assertions are dropped.
    #[must_use]
    pub fn watch(self: &Arc<Self>, runtime: &Handle) -> Watch {
        Watch(runtime.spawn(run(Arc::downgrade(self))))
    }

    fn follow(&self) -> Result<(), String> {
        let Some(keys) = &self.keys else {
            return Ok(());
        };
        let now = seconds(SystemTime::now());
        keys.follow(now).map_err(|error| error.to_string())
    }
}

async fn run(assertions: Weak<Assertions>) {
    let mut ticks = tokio::time::interval(POLL_PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        ticks.tick().await;
        let Some(assertions) = assertions.upgrade() else {
            return;
        };
        // The disk may be slow.
        let read = tokio::task::spawn_blocking(move || assertions.follow()).await;
        let fault = match read {
            Ok(read) => read.err(),
            Err(_) => Some("reading them panicked".to_owned()),
        };
        // One line when it begins and one when it ends, not one a second.
        match (&fault, failing) {
            (Some(error), false) => {
                tracing::error!(
                    error,
                    "the keys of assertions cannot be read; they stay as they were"
                );
            }
            (None, true) => tracing::info!("the keys of assertions are read again"),
            (Some(_), true) | (None, false) => {}
        }
        failing = fault.is_some();
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}
