//! The section `[log]`.

use super::{diagnostic::Fault, reader::Table, words::Choice::Is};
use crate::telemetry::settings::{LogFormat, LogLevel, LogSettings};

pub(super) fn read(mut table: Table<'_>) -> LogSettings {
    let default = LogSettings::default();
    let format = table.choice(
        "format",
        &[("json", Is(LogFormat::Json)), ("text", Is(LogFormat::Text))],
    );
    let access = table.flag("access");
    let level = table.choice(
        "level",
        &[
            ("debug", Is(LogLevel::Debug)),
            ("error", Is(LogLevel::Error)),
            ("info", Is(LogLevel::Info)),
            ("trace", Is(LogLevel::Trace)),
            ("warn", Is(LogLevel::Warn)),
        ],
    );
    if access == Some(false) {
        table.context.problems.warn(
            &table.place_of("access"),
            Fault::new(
                "no exchange is logged",
                "who was refused, and why, cannot be looked up afterwards",
            ),
        );
    }
    table.finish();
    LogSettings {
        format: format.unwrap_or(default.format),
        access: access.unwrap_or(default.access),
        level: level.unwrap_or(default.level),
    }
}
