//! `Server-Timing` (W3C Server Timing) for clients that the operator listed: where the time of their answer went.
//!
//! Nobody else gets the field, for how long a step takes tells what it did. A refusal has its whole time alone.

use std::{fmt::Write, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue};

use super::Gateway;
use crate::telemetry::Record;

const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

impl Gateway {
    /// Adds the phases of an exchange to the head of its answer, where its client is on the list.
    pub(super) fn tell_timing(&self, record: &Record, headers: &mut HeaderMap) {
        if self.server_timing.is_empty() {
            return;
        }
        let listed = record.client.is_some_and(|client| {
            let mut networks = self.server_timing.iter();
            networks.any(|network| network.contains(&client))
        });
        if listed && let Some(value) = phases(record, record.started.elapsed()) {
            // After what the upstream tells of its own: the field is a list.
            headers.append(SERVER_TIMING, value);
        }
    }
}

/// `admit`, until the upstream was asked; `upstream`, until the first byte of its answer; `total`, until the head of ours. In
/// milliseconds.
fn phases(record: &Record, total: Duration) -> Option<HeaderValue> {
    let mut text = String::with_capacity(64);
    let mut phase = |name: &str, took: Duration| {
        let micros = took.as_micros();
        let comma = if text.is_empty() { "" } else { ", " };
        let _ = write!(
            text,
            "{comma}{name};dur={}.{:03}",
            micros / 1000,
            micros % 1000
        );
    };
    let asked = record.upstream_asked.zip(record.upstream_time);
    if let (Some((before, upstream)), None) = (asked, record.code) {
        phase("admit", before);
        phase("upstream", upstream);
    }
    phase("total", total);
    HeaderValue::try_from(text).ok()
}
