//! What `check` says of traces.

use crate::config::{Config, show_thousandths};

/// A line about them, where they are exported.
pub(super) fn line(config: &Config) -> String {
    let Some(tracing) = &config.tracing else {
        return String::new();
    };
    // Of its headers nothing is told, and of the path there is nothing to tell.
    let to = tracing.endpoint.authority();
    let to = to.map_or("", |authority| authority.as_str());
    let share = match tracing.thousandths {
        0 => "of requests that a trusted proxy has recorded".to_owned(),
        1000 => "of all requests".to_owned(),
        some => format!("of {} of all requests", show_thousandths(some)),
    };
    format!("\ntraces: {share}, to {to}")
}
