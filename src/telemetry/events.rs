//! Events other than exchanges: start, reload, faults. They go to standard error.

use tracing::Level;
use tracing_subscriber::{
    Layer,
    filter::{LevelFilter, Targets},
    fmt,
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use super::settings::{LogFormat, LogLevel, LogSettings};

/// Sends events to standard error from now on, one JSON object a line or text. The level comes from the settings alone.
///
/// Libraries get no more than warnings whatever the level: what they trace is not ours to vouch for (LOG-1). A second call
/// changes nothing.
pub fn init_events(settings: &LogSettings) {
    let events = tracing_subscriber::registry();
    // A write to standard error may fail; reporting that to standard error would panic.
    let layer = fmt::layer()
        .with_writer(std::io::stderr)
        .log_internal_errors(false);
    let filter = filter(settings.level);
    let result = match settings.format {
        LogFormat::Json => events.with(layer.json().with_filter(filter)).try_init(),
        LogFormat::Text => events
            .with(layer.with_ansi(false).with_filter(filter))
            .try_init(),
    };
    // The only error is that there is a subscriber already.
    drop(result);
}

fn filter(level: LogLevel) -> Targets {
    let ours = match level {
        LogLevel::Debug => Level::DEBUG,
        LogLevel::Error => Level::ERROR,
        LogLevel::Info => Level::INFO,
        LogLevel::Trace => Level::TRACE,
        LogLevel::Warn => Level::WARN,
    };
    Targets::new()
        .with_default(LevelFilter::from_level(ours.min(Level::WARN)))
        .with_target("portcullis", ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_1_libraries_never_trace() {
        for level in [LogLevel::Trace, LogLevel::Debug, LogLevel::Info] {
            let filter = filter(level);
            assert!(!filter.would_enable("h2::frame", &Level::INFO));
            assert!(!filter.would_enable("rustls", &Level::DEBUG));
            assert!(filter.would_enable("rustls", &Level::WARN));
        }
        assert!(!filter(LogLevel::Error).would_enable("rustls", &Level::WARN));
    }

    #[test]
    fn own_events_follow_the_level() {
        assert!(filter(LogLevel::Trace).would_enable("portcullis::gateway", &Level::TRACE));
        assert!(!filter(LogLevel::Info).would_enable("portcullis::gateway", &Level::DEBUG));
        assert!(!filter(LogLevel::Error).would_enable("portcullis", &Level::WARN));
    }

    #[test]
    fn a_second_start_does_not_panic() {
        let settings = LogSettings {
            level: LogLevel::Error,
            ..LogSettings::default()
        };
        init_events(&settings);
        init_events(&settings);
    }
}
