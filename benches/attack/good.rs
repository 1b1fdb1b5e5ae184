//! The client that does nothing wrong.

use std::time::{Duration, Instant};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{sleep_until, timeout},
};

use crate::gateway::Process;

const FROM: [u8; 4] = [127, 0, 0, 2];
const CONNECTIONS: usize = 4;
const INTERVAL: Duration = Duration::from_millis(20);
/// An answer that takes longer is a failure.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long answers took, and how many did not come.
#[derive(Debug, Default)]
pub(crate) struct Latencies {
    millis: Vec<f64>,
    pub(crate) failed: usize,
}

impl Latencies {
    pub(crate) fn answered(&self) -> usize {
        self.millis.len()
    }

    /// A percentile in milliseconds.
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        let rank = (self.millis.len() * percent / 100).min(self.millis.len().saturating_sub(1));
        self.millis.get(rank).copied().unwrap_or(f64::NAN)
    }
}

/// Sends requests at fixed times, whether or not earlier ones were slow.
pub(crate) async fn measure(gateway: &Process, length: Duration) -> Latencies {
    let clients = (0..CONNECTIONS).map(|_| client(gateway, length));
    let mut all = Latencies::default();
    for found in futures_util::future::join_all(clients).await {
        all.millis.extend(found.millis);
        all.failed += found.failed;
    }
    all.millis.sort_by(f64::total_cmp);
    all
}

async fn client(gateway: &Process, length: Duration) -> Latencies {
    let mut found = Latencies::default();
    let begun = Instant::now();
    let mut due = begun;
    let mut connection = None;
    while due.duration_since(begun) < length {
        sleep_until(due.into()).await;
        let exchange = async {
            let mut stream = match connection.take() {
                Some(stream) => stream,
                None => gateway.connect(FROM, false).await.ok()?,
            };
            let request = b"GET /good HTTP/1.1\r\nHost: localhost\r\n\r\n";
            stream.write_all(request).await.ok()?;
            let mut answer = Vec::new();
            while !is_whole(&answer) {
                if stream.read_buf(&mut answer).await.ok()? == 0 {
                    return None;
                }
            }
            answer.starts_with(b"HTTP/1.1 200").then_some(stream)
        };
        match timeout(PATIENCE, exchange).await {
            Ok(Some(stream)) => {
                found.millis.push(due.elapsed().as_secs_f64() * 1000.0);
                connection = Some(stream);
            }
            Ok(None) | Err(_) => found.failed += 1,
        }
        due += INTERVAL;
    }
    found
}

/// Whether the head and the kibibyte behind it are there; a byte more would be the next answer's.
fn is_whole(answer: &[u8]) -> bool {
    let head = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    head.is_some_and(|end| answer.len() == end + 4 + 1024)
}
