//! The section `[log]`.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use ipnet::IpNet;

use super::{diagnostic::Fault, files, network, reader::Table, words::Choice::Is};
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
    let root = table.context.root;
    let audit_file = table.parsed("audit_file", |text| audit_file(root, text));
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
        audit_file,
    }
}

fn read_server_timing(table: &mut Table<'_>) -> Vec<IpNet> {
    let found = network::read(table, "server_timing").unwrap_or_default();
    let networks: Vec<IpNet> = found.into_iter().map(|(network, _)| network).collect();
    let told = "everybody would be told how long each step takes, and with it what it did; list those who measure";
    network::refuse_everything(table, "server_timing", &networks, told);
    networks
}

/// The file, which need not be there; one that others may change proves nothing.
fn audit_file(root: &Path, text: &str) -> Result<PathBuf, Fault> {
    let path = files::resolve(root, text);
    let folder = path.parent().unwrap_or(root);
    if !folder.is_dir() {
        let hint = format!("mkdir -p {}", folder.display());
        return Err(Fault::new("its folder does not exist", hint));
    }
    let Ok(found) = path.metadata() else {
        return Ok(path);
    };
    if !found.is_file() {
        return Err(Fault::new(
            format!("{} is no file", path.display()),
            "the name of a file; leave the key out for standard error alone",
        ));
    }
    if found.permissions().mode() & 0o027 != 0 {
        let message = format!(
            "others than its owner may read or change {}",
            path.display()
        );
        let hint = format!(
            "chmod 600 {0}, or 640 for a group that reads it",
            path.display()
        );
        return Err(Fault::new(message, hint));
    }
    Ok(path)
}
