//! Hears that another node has revoked something. What it was is read from the store, so that a message has nothing to be
//! believed: whoever can send one causes a look at the store, and no more (CACHE-4).

use std::{io, sync::Arc, time::Duration};

use tokio::{
    sync::Notify,
    time::{Instant, MissedTickBehavior, interval, sleep},
};

use super::{
    connection::{Connection, Target, refused},
    pause::Pauses,
    resp::{Reply, command},
};
use crate::telemetry::Telemetry;

/// How often the connection is tried.
const PING_PERIOD: Duration = Duration::from_secs(2);

/// Pings without any answer that end the connection.
const SILENT_PINGS: u32 = 2;

/// Where a node listens.
pub(super) struct Channels {
    /// Somebody revoked something.
    pub(super) revoked: Vec<u8>,
    /// Nodes are counted by who hears this; what is said on it means nothing.
    pub(super) nodes: Vec<u8>,
}

/// Listens until it is dropped, and notifies at each message, and after each new connection, for one may have been missed.
pub(super) async fn listen(
    target: Arc<Target>,
    channels: Channels,
    heard: Arc<Notify>,
    telemetry: Arc<Telemetry>,
) {
    let mut pauses = Pauses::default();
    loop {
        let begun = Instant::now();
        let ended = match target.connect().await {
            Ok(mut connection) => follow(&mut connection, &channels, &heard, &telemetry).await,
            Err(error) => Err(error),
        };
        if let Err(error) = ended {
            // The other connection's failure is told; this one costs the time until the next look at the store at most.
            tracing::debug!(%error, "revocations of other nodes are not heard of");
        }
        sleep(pauses.after(begun.elapsed())).await;
    }
}

async fn follow(
    connection: &mut Connection,
    channels: &Channels,
    heard: &Notify,
    telemetry: &Telemetry,
) -> io::Result<()> {
    for channel in [&channels.revoked, &channels.nodes] {
        let subscribe = command(&[b"SUBSCRIBE", channel]);
        connection.ask_in_time(&subscribe).await?;
    }
    heard.notify_one();
    let mut pings = interval(PING_PERIOD);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut silent = 0;
    loop {
        tokio::select! {
            reply = connection.replies.next() => {
                silent = 0;
                if is_message(&refused(reply?)?, &channels.revoked) {
                    telemetry.cluster_message();
                    heard.notify_one();
                }
            }
            _ = pings.tick() => {
                if silent >= SILENT_PINGS {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                silent += 1;
                let ping = command(&[b"PING"]);
                let sent = tokio::time::timeout(PING_PERIOD, connection.send(&ping)).await;
                sent.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
            }
        }
    }
}

fn is_message(reply: &Reply, channel: &[u8]) -> bool {
    let is =
        |reply: &Reply, bytes: &[u8]| matches!(reply, Reply::Bytes(Some(text)) if text == bytes);
    match reply {
        Reply::Parts(parts) => {
            matches!(parts.as_slice(), [kind, on, _] if is(kind, b"message") && is(on, channel))
        }
        Reply::Bytes(_) | Reply::Error(_) | Reply::Integer(_) => false,
    }
}
