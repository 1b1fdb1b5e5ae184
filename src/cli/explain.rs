//! `portcullis explain`: what would become of a request, step by step, and why. Nothing is forwarded.

mod cases;
mod question;

use std::{io::Write as _, path::Path, process::ExitCode};

use clap::Args;
use serde_json::{Value, json};

pub(super) use cases::run as run_cases;
use question::{Oracle, Question};

use super::{Format, say, token::unverified};
use crate::{
    authn::{checks, credential},
    gateway::explain::Explanation,
    policy::Rejection,
};

/// The request that is asked about.
#[derive(Debug, Args)]
pub struct ExplainCommand {
    /// The method, in capitals
    method: String,
    /// The URL, as the client would ask for it, such as `https://app.example.com/orders/7`
    url: String,
    /// The bearer token that it carries; `-` reads one line of standard input
    #[arg(long, conflicts_with = "claims")]
    token: Option<String>,
    /// Claims, as JSON, that a good token of their issuer would bear; what is left out is filled in
    #[arg(long, value_name = "JSON")]
    claims: Option<String>,
    /// The address that it comes from
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    from: std::net::IpAddr,
    /// A header field, `Name: value`; may be given several times
    #[arg(long = "header", value_name = "K:V")]
    headers: Vec<String>,
    /// `text` for people, `json` for programs.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Tells what the configuration would decide. Exit code 0, whatever that is.
///
/// # Errors
/// A configuration that does not load, and a question that is none.
pub fn run(command: ExplainCommand, path: &Path) -> anyhow::Result<ExitCode> {
    let oracle = Oracle::new(&crate::config::load(path)?)?;
    let question = Question::read(&command)?;
    let (parts, explanation) = oracle.ask(&question)?;
    let says = match credential::bearer(&parts.headers) {
        Ok(Some(token)) => Some(unverified(token)),
        Ok(None) | Err(_) => None,
    };
    let text = match command.format {
        Format::Json => format!("{:#}", as_json(&explanation, says.as_ref())),
        Format::Text => as_text(&question, &explanation, says.as_ref()),
    };
    say(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn as_text(
    question: &Question,
    explanation: &Explanation,
    says: Option<&(Option<Value>, Option<Value>)>,
) -> String {
    let mut lines = vec![
        format!(
            "{} {} from {}",
            question.method, question.url, question.from
        ),
        String::new(),
    ];
    for (number, step) in explanation.steps.iter().enumerate() {
        let found = match &step.found {
            Ok(found) => found.clone(),
            Err(rejection) => format!("REFUSED {}", named(rejection)),
        };
        lines.push(format!("{:>2} {:<10} {found}", number + 1, step.name));
    }
    let checks = told_checks(explanation, says);
    for (check, state) in checks {
        let state = match state {
            Some(true) => "passed",
            Some(false) => "FAILED",
            None => "not reached",
        };
        lines.push(format!("   {check:<10} {state}"));
    }
    if let (Some((header, claims)), true) = (says, explanation.refused.is_some()) {
        let show = |value: &Option<Value>| {
            let shown = value.as_ref().map(ToString::to_string);
            shown.unwrap_or_else(|| "unreadable".to_owned())
        };
        lines.push(format!(
            "   the token says, unverified: {} {}",
            show(header),
            show(claims)
        ));
    }
    for (name, value) in &explanation.set {
        lines.push(format!(
            "   + {name}: {}",
            String::from_utf8_lossy(value.as_bytes())
        ));
    }
    for name in &explanation.removed {
        lines.push(format!("   - {name}"));
    }
    lines.push(String::new());
    lines.push(verdict(explanation));
    lines.join("\n")
}

/// What is known of each check of a JWT. An opaque token passes none of them: its header, which nobody can read, did not.
fn told_checks(
    explanation: &Explanation,
    says: Option<&(Option<Value>, Option<Value>)>,
) -> Vec<(&'static str, Option<bool>)> {
    let refused = explanation.refused.as_ref();
    let told = refused.map_or_else(Vec::new, checks::told);
    let is_read = told.contains(&("header", Some(true)));
    match says {
        Some((None, None)) if is_read => Vec::new(),
        _ => told,
    }
}

fn verdict(explanation: &Explanation) -> String {
    match &explanation.refused {
        None => {
            let target = explanation.target.as_deref().unwrap_or("?");
            let route = explanation.route.as_deref().unwrap_or("?");
            format!("admitted: to {target}, by route {route}")
        }
        Some(rejection) => format!(
            "{} {}: {}",
            rejection.status().as_u16(),
            named(rejection),
            rejection.detail()
        ),
    }
}

/// The code, and the reason that only logs have.
fn named(rejection: &Rejection) -> String {
    match rejection.reason() {
        Some(reason) => format!("{} ({reason})", rejection.code()),
        None => rejection.code().to_owned(),
    }
}

fn as_json(explanation: &Explanation, says: Option<&(Option<Value>, Option<Value>)>) -> Value {
    let steps: Vec<Value> = explanation
        .steps
        .iter()
        .map(|step| match &step.found {
            Ok(found) => json!({ "step": step.name, "passed": true, "found": found }),
            Err(rejection) => json!({
                "step": step.name, "passed": false, "code": rejection.code(), "reason": rejection.reason(),
            }),
        })
        .collect();
    let set = explanation
        .set
        .iter()
        .map(|(name, value)| json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())]));
    let checks = told_checks(explanation, says);
    let checks = checks
        .into_iter()
        .map(|(check, passed)| json!({ "check": check, "passed": passed }));
    let removed = explanation.removed.iter().map(|name| name.as_str());
    json!({
        "code": explanation.code(),
        "status": explanation.status().as_u16(),
        "reason": explanation.refused.as_ref().and_then(Rejection::reason),
        "unenforced": explanation.unenforced.as_ref().map(Rejection::code),
        "route": explanation.route,
        "upstream": explanation.target,
        "steps": steps,
        "checks": checks.collect::<Vec<_>>(),
        "set": set.collect::<Vec<_>>(),
        "removed": removed.collect::<Vec<_>>(),
        "token": says.map(|(header, claims)| json!({ "header": header, "claims": claims })),
    })
}

/// Reads one line of standard input, after a prompt where somebody sits there.
fn line_of_input() -> anyhow::Result<zeroize::Zeroizing<String>> {
    let _ = std::io::stderr().flush();
    let mut line = zeroize::Zeroizing::new(String::new());
    std::io::stdin().read_line(&mut line)?;
    Ok(line)
}
