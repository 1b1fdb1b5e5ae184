//! What the configuration says of traces.

use std::{fmt, path::PathBuf, time::Duration};

use http::{HeaderMap, Uri};

/// The checked section `[tracing]`.
#[derive(Clone, PartialEq, Eq)]
pub struct TracingSettings {
    /// Where spans are sent: the collector's address for OTLP over HTTP, with its path.
    pub endpoint: Uri,
    /// What the collector is sent besides: a token, where it wants one. The values are marked as sensitive.
    pub headers: HeaderMap,
    /// The file of the roots that its certificate must lead to; `None`: the system's.
    pub ca: Option<PathBuf>,
    /// How many of a thousand requests are traced that no trusted parent has recorded.
    pub thousandths: u32,
    /// Traced requests that may wait to be exported.
    pub queue: usize,
    /// How long a span waits for others to be sent with.
    pub interval: Duration,
    /// How long one export may take.
    pub timeout: Duration,
    /// The name under which the gateway's spans are shown.
    pub service_name: Box<str>,
    /// Whether spans say who called.
    pub user: bool,
}

impl fmt::Debug for TracingSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TracingSettings")
            .field("endpoint", &self.endpoint)
            .field("thousandths", &self.thousandths)
            .finish_non_exhaustive()
    }
}
