//! `portcullis check`: what is wrong with a configuration, and what it means.

mod assertions;
mod cluster;
mod environment;
mod keys;
mod routes;
mod tls;
mod traces;
mod upstreams;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::SystemTime,
};

use clap::Args;
use serde_json::{Value, json};

use super::{Format, explain, say, tell, tell_report};
use crate::{
    authn::{Authenticator, Revocations},
    config::{Checked, Config, Problem, Report, Severity, inspect},
    server::tls::Tls,
    spans,
    upstream::{SystemRoots, tls_config},
};

/// How to answer.
#[derive(Debug, Args)]
pub struct CheckCommand {
    /// `text` for people; `json` for programs, problems and routes in one object on standard output.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// A TOML file of requests, and of what shall become of each: `[[case]]` with name, method, url, from, token or claims, headers
    /// and expect.
    #[arg(long, value_name = "FILE")]
    tests: Option<PathBuf>,
}

/// Reads the configuration and prints its problems, or the policy of every route and the warnings. Exit code 1 on any
/// error.
///
/// # Errors
/// Only where the answer could not be written.
pub fn run(command: &CheckCommand, path: &Path) -> anyhow::Result<ExitCode> {
    let checked = inspect(path);
    let unusable = checked
        .as_ref()
        .map_or_else(|_| Vec::new(), |checked| unusable(&checked.config));
    match (command.format, &checked) {
        (Format::Json, checked) => say(&format!("{:#}", as_json(checked.as_ref(), &unusable)))?,
        (Format::Text, Err(report)) => tell_report(report),
        (Format::Text, Ok(checked)) => {
            let Checked {
                config,
                warnings,
                overridden,
            } = checked;
            if unusable.is_empty() {
                say(&table(routes::COLUMNS, &routes::rows(config)))?;
                let upstreams = upstreams::rows(config);
                if !upstreams.is_empty() {
                    say(&format!("\n{}", table(upstreams::COLUMNS, &upstreams)))?;
                }
                for table in tls::tables(&config.tls, SystemTime::now()) {
                    say(&format!("\n{table}"))?;
                }
                if !overridden.is_empty() {
                    let rows = environment::rows(overridden);
                    say(&format!("\n{}", table(environment::COLUMNS, &rows)))?;
                }
                say(&summary(config))?;
            }
            if !warnings.problems().is_empty() {
                tell_report(warnings);
            }
            for fault in &unusable {
                tell(&format!("error: {fault}"));
            }
        }
    }
    let passed = match (&command.tests, &checked) {
        (Some(file), Ok(Checked { config, .. })) if unusable.is_empty() => {
            explain::run_cases(file, config)?
        }
        (Some(_), _) | (None, _) => true,
    };
    Ok(if checked.is_ok() && unusable.is_empty() && passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What `run` would still refuse: keys and certificates that are there and readable, and of no use. The built-in issuer's keys
/// are made at the first start, so they are not looked at.
fn unusable(config: &Config) -> Vec<String> {
    let mut faults = Vec::new();
    let templates = Arc::clone(&config.identity.templates);
    let revocations = Arc::new(Revocations::new());
    if let Err(issuers) =
        Authenticator::new(&config.issuers, &config.token_cache, revocations, templates)
    {
        faults.extend(issuers.iter().map(ToString::to_string));
    }
    let mut settings = config.tls.clone();
    if settings.development {
        // Pairs of which neither file exists are made by `run`.
        let is_there = |path: &Path| path.exists();
        settings
            .certificates
            .retain(|files| is_there(&files.cert) || is_there(&files.key));
    }
    if let Err(fault) = Tls::load(&settings) {
        faults.push(format!("{:#}", anyhow::Error::from(fault)));
    }
    faults.extend(assertions::fault(config));
    if let Some(Err(fault)) = config.tracing.as_ref().map(spans::try_tls) {
        faults.push(format!(
            "tracing.endpoint: {:#}",
            anyhow::Error::from(fault)
        ));
    }
    let system = SystemRoots::default();
    for settings in &config.upstreams {
        if let Err(fault) = tls_config(settings, &system) {
            let fault = anyhow::Error::from(fault);
            faults.push(format!("upstream \"{}\": {fault:#}", settings.name));
        }
    }
    faults
}

fn table<const N: usize>(columns: [&str; N], rows: &[[String; N]]) -> String {
    let header = columns.map(str::to_owned);
    let all = || std::iter::once(&header).chain(rows);
    let mut width = [0; N];
    for row in all() {
        for (width, cell) in width.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(width);
        let cells: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        cells.join("  ").trim_end().to_owned()
    };
    all().map(line).collect::<Vec<_>>().join("\n")
}

fn summary(config: &Config) -> String {
    let built_in = config.accounts.as_ref().map_or_else(
        || "no accounts".to_owned(),
        |accounts| format!("accounts under {}", accounts.path),
    );
    let count = |count: usize, what: &str| match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    };
    format!(
        "{}{}{}{}\ngood: {}, {}, {}, {built_in}",
        assertions::line(config),
        keys::line(config),
        cluster::line(config),
        traces::line(config),
        count(config.routes.len(), "route"),
        count(config.upstreams.len(), "upstream"),
        count(config.issuers.len(), "issuer"),
    )
}

fn as_json(checked: Result<&Checked, &Report>, unusable: &[String]) -> Value {
    let (report, config) = match checked {
        Ok(checked) => (&checked.warnings, Some(&checked.config)),
        Err(report) => (report, None),
    };
    let unplaced = |message: &String| json!({ "severity": "error", "key": "", "message": message, "line": 0, "column": 0, "variable": null, "hint": null });
    let problems = report.problems().iter().map(problem);
    let problems: Vec<Value> = problems.chain(unusable.iter().map(unplaced)).collect();
    let routes: Vec<Value> = config
        .into_iter()
        .flat_map(|config| {
            config
                .routes
                .iter()
                .map(|route| routes::as_json(route, config))
        })
        .collect();
    let upstreams: Vec<Value> = config
        .into_iter()
        .flat_map(|config| config.upstreams.iter().map(upstreams::as_json))
        .collect();
    let tls = config.map(|config| tls::as_json(&config.tls, SystemTime::now()));
    let overridden = checked.map_or(&[][..], |checked| &checked.overridden);
    json!({ "ok": config.is_some() && unusable.is_empty(), "problems": problems, "routes": routes, "upstreams": upstreams, "tls": tls,
        "assertion": config.and_then(assertions::as_json), "environment": environment::as_json(overridden) })
}

fn problem(problem: &Problem) -> Value {
    json!({
        "severity": match problem.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        },
        "key": problem.key,
        "message": problem.message,
        "line": problem.line,
        "column": problem.column,
        "variable": problem.variable,
        "hint": problem.hint,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::starter;

    #[test]
    fn json_has_problems_and_routes() {
        let folder = tempfile::tempdir().unwrap();
        let bad = folder.path().join("gateway.toml");
        std::fs::write(&bad, "upsteam = 1").unwrap();
        let json = as_json(inspect(&bad).as_ref(), &[]);
        assert_eq!(json["ok"], false);
        let unknown = &json["problems"].as_array().unwrap().last().unwrap();
        assert_eq!(unknown["key"], "upsteam");
        assert_eq!(
            (&unknown["line"], &unknown["column"]),
            (&json!(1), &json!(1))
        );
        std::fs::write(&bad, starter("http://127.0.0.1:9000")).unwrap();
        let json = as_json(inspect(&bad).as_ref(), &[]);
        assert_eq!(json["ok"], true);
        assert_eq!(json["routes"][0]["access"], "authenticated");
        assert_eq!(json["routes"][0]["path_prefix"], "/");
        assert_eq!(json["problems"][0]["severity"], "warning");
        assert_eq!(json["upstreams"][0]["protocol"], "http1");
        assert_eq!(json["upstreams"][0]["tls"], Value::Null);
    }
}
