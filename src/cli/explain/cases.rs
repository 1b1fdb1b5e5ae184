//! Policy tests: requests in a file, and what shall become of each. They are decided as `explain` decides, and so as the live
//! path does.

use std::path::Path;

use anyhow::{Context, bail};

use super::question::{Credential, Oracle, Question};
use crate::{
    cli::say,
    config::{
        Config,
        cases::{self, Case, Expectation},
    },
    gateway::explain::Explanation,
};

/// Runs every case of a file and prints a line for each; whether all passed.
///
/// # Errors
/// A file that cannot be read or has no case, and a case that is no request.
pub(crate) fn run(file: &Path, config: &Config) -> anyhow::Result<bool> {
    let cases = cases::load(file)?;
    let oracle = Oracle::new(config)?;
    let (mut passed, mut failed) = (0, 0);
    for case in cases {
        let name = case.name.clone();
        let faults = check(&oracle, case).with_context(|| format!("case `{name}`"))?;
        if faults.is_empty() {
            passed += 1;
            say(&format!("ok    {name}"))?;
        } else {
            failed += 1;
            say(&format!("FAIL  {name}: {}", faults.join("; ")))?;
        }
    }
    say(&format!("{passed} passed, {failed} failed"))?;
    Ok(failed == 0)
}

/// In what the decision differs from what is expected.
fn check(oracle: &Oracle, case: Case) -> anyhow::Result<Vec<String>> {
    let credential = match (case.token, case.claims) {
        (Some(_), Some(_)) => bail!("has a token and claims: leave one of them"),
        (Some(token), None) => Credential::Token(token.into()),
        (None, Some(claims)) => Credential::Claims(claims),
        (None, None) => Credential::None,
    };
    let question = Question {
        method: case.method,
        url: case.url,
        from: case.from,
        headers: case.headers.into_iter().collect(),
        credential,
    };
    let (_, explanation) = oracle.ask(&question)?;
    Ok(faults(&case.expect, &explanation))
}

/// What is otherwise than expected, in words.
fn faults(expected: &Expectation, explanation: &Explanation) -> Vec<String> {
    let mut faults = Vec::new();
    let mut compare = |what: &str, want: Option<&str>, got: Option<&str>| {
        if want.is_some() && want != got {
            let [want, got] = [want, got].map(|text| text.unwrap_or("none"));
            faults.push(format!("{what} {got}, not {want}"));
        }
    };
    compare("code", Some(&expected.code), Some(explanation.code()));
    compare(
        "route",
        expected.route.as_deref(),
        explanation.route.as_deref(),
    );
    let target = explanation.target.as_deref();
    compare("upstream", expected.upstream.as_deref(), target);
    let unenforced = explanation.unenforced.as_ref();
    let unenforced = unenforced.map(crate::policy::Rejection::code);
    compare("unenforced", expected.unenforced.as_deref(), unenforced);
    let told = |name: &str| {
        let mut set = explanation.set.iter();
        let found = set.find(|(field, _)| field.as_str().eq_ignore_ascii_case(name));
        found.and_then(|(_, value)| value.to_str().ok())
    };
    for (name, want) in &expected.headers {
        compare(name, Some(want), told(name));
    }
    for name in &expected.absent {
        if let Some(value) = told(name) {
            faults.push(format!("{name} is told: {value}"));
        }
    }
    faults
}
