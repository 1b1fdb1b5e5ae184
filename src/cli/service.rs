//! What the service manager that started the gateway is told, where there is one that listens (`NOTIFY_SOCKET`; sd_notify(3)):
//! that it serves, loads its configuration anew, leaves, and that its workers turn. Started otherwise, nothing is sent.

use std::{sync::Arc, time::Duration};

use sd_notify::NotifyState;
use tokio::{
    runtime::Handle,
    time::{MissedTickBehavior, interval},
};

use crate::server::pulse::{self, Pulse};

/// What the drain may take beyond its own limits: mails that are being sent, the last lines of the log.
const FAREWELL: Duration = Duration::from_secs(10);

/// The gateway serves.
pub(super) fn ready() {
    tell(&[NotifyState::Ready, NotifyState::Status("serving")]);
}

/// A reload begins. [`reloaded`] must follow.
pub(super) fn reloading() {
    // `Type=notify-reload` tells an answer to its own signal from one to an earlier one by this time.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => complain(&error),
    }
}

/// The reload has ended. The manager knows no failed reload of a service that goes on, so the status line says what came of it.
pub(super) fn reloaded(result: &str) {
    let status = format!("serving; last reload: {result}");
    tell(&[NotifyState::Ready, NotifyState::Status(&status)]);
}

/// The gateway drains, which takes this long at most; without it, the manager's own limit would cut a longer drain off.
pub(super) fn stopping(at_most: Duration) {
    let micros = at_most.saturating_add(FAREWELL).as_micros();
    let extended = NotifyState::ExtendTimeoutUsec(u32::try_from(micros).unwrap_or(u32::MAX));
    tell(&[
        NotifyState::Stopping,
        extended,
        NotifyState::Status("draining"),
    ]);
}

/// Tells the manager again and again that every worker turns, where it asks for that (`WatchdogSec=`); it starts the gateway
/// anew when one does not. Lasts until the runtime ends, so through the drain as well.
pub(super) fn watch(control: &Handle, pulses: &[Arc<Pulse>]) {
    let Some(limit) = sd_notify::watchdog_enabled() else {
        return;
    };
    let pulses = pulses.to_vec();
    control.spawn(async move {
        // Half the limit, as sd_watchdog_enabled(3) advises.
        let mut looks = interval((limit / 2).max(Duration::from_millis(1)));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            if pulses.iter().all(|pulse| pulse::turns(pulse)) {
                tell(&[NotifyState::Watchdog]);
            }
        }
    });
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        complain(&error);
    }
}

fn complain(error: &std::io::Error) {
    tracing::warn!(%error, "cannot tell the service manager (NOTIFY_SOCKET)");
}
