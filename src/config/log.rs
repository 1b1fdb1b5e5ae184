//! The section `[log]`.

use ipnet::IpNet;

use super::{diagnostic::Fault, network, reader::Table, words::Choice::Is};
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
    let server_timing = read_server_timing(&mut table);
    table.finish();
    LogSettings {
        format: format.unwrap_or(default.format),
        access: access.unwrap_or(default.access),
        level: level.unwrap_or(default.level),
        server_timing,
    }
}

fn read_server_timing(table: &mut Table<'_>) -> Vec<IpNet> {
    let found = network::read(table, "server_timing").unwrap_or_default();
    let networks: Vec<IpNet> = found.into_iter().map(|(network, _)| network).collect();
    let told = "everybody would be told how long each step takes, and with it what it did; list those who measure";
    network::refuse_everything(table, "server_timing", &networks, told);
    networks
}
