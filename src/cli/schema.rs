//! `portcullis schema`: what `gateway.toml` may say, for editors and people.

use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::say;
use crate::config;

/// What the file is called that the first line of a configuration names.
pub(super) const FILE: &str = "gateway.schema.json";

/// For whom.
#[derive(Debug, Args)]
pub struct SchemaCommand {
    /// `json` is a JSON Schema (2020-12) for editors; `markdown` is docs/reference.md.
    #[arg(long, value_enum, default_value = "json")]
    format: Format,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// For editors.
    Json,
    /// For people.
    Markdown,
}

/// Prints the schema. No configuration is read.
///
/// # Errors
/// Only where it could not be written.
pub fn run(command: &SchemaCommand) -> anyhow::Result<ExitCode> {
    match command.format {
        Format::Json => say(&text())?,
        Format::Markdown => say(config::reference().trim_end())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The JSON Schema as text, without a line end.
pub(super) fn text() -> String {
    format!("{:#}", config::schema())
}
