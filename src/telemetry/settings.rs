//! What the configuration says of logs.

use std::path::PathBuf;

use ipnet::IpNet;

/// The checked section `[log]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// How lines are written.
    pub format: LogFormat,
    /// Whether each exchange gets a line.
    pub access: bool,
    /// The lowest level of other events.
    pub level: LogLevel,
    /// Which clients are told where the time of their answers went.
    pub server_timing: Vec<IpNet>,
    /// The file that audit events are written into, besides.
    pub audit_file: Option<PathBuf>,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// One JSON object a line.
    #[default]
    Json,
    /// For people.
    Text,
}

/// The lowest level that is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogLevel {
    /// Everything that helps to find a fault.
    Debug,
    /// Failures alone.
    Error,
    /// What an operator wants to know.
    #[default]
    Info,
    /// Everything.
    Trace,
    /// What may need attention.
    Warn,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            format: LogFormat::Json,
            access: true,
            level: LogLevel::Info,
            server_timing: Vec::new(),
            audit_file: None,
        }
    }
}
