//! Refusals, one line each: what was written, which key is named, what is said of it.

use std::{ffi::OsString, fs, os::unix::fs::PermissionsExt};

use super::*;
use tempfile::TempDir;

mod accounts;
mod callers;
mod certificates;
mod cluster;
mod diagnostics;
mod environment;
mod introspection;
mod keys;
mod mail;
mod overlaps;
mod routes;
mod server;
mod spans;
mod store;
mod upstream_tls;
mod upstreams;

/// A good configuration without any default left to chance.
const BASE: &str = r#"
version = 1
[server]
listen = ["127.0.0.1:0"]
public_url = "https://gate.example.com"
[server.timeouts]
[server.limits]
[tls]
certificates = [{ cert = "certs/site.crt", key = "certs/site.key" }]
[[issuer]]
name = "corp"
issuer = "https://idp.example.com"
audience = ["orders"]
algorithms = ["RS256"]
jwks_file = "corp.json"
[token_cache]
[identity]
[rate_limit]
[[upstream]]
name = "app"
servers = ["http://127.0.0.1:9000"]
[[route]]
name = "all"
path_prefix = "/"
upstream = "app"
access = "authenticated"
[accounts]
[mail]
from = "Gate <no-reply@example.com>"
spool = "data/mail"
[log]
"#;

/// A project folder with the files that [`BASE`] names.
struct Project {
    folder: TempDir,
    variables: Vec<(&'static str, String)>,
    overrides: Vec<(OsString, OsString)>,
}

impl Project {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let names = ["gate.example.com".to_owned()];
        let (cert, key) = development::development_certificate(&names).unwrap();
        let project = Self {
            folder,
            variables: Vec::new(),
            overrides: Vec::new(),
        };
        project.write("certs/site.crt", cert, 0o644);
        project.write("certs/site.key", key, 0o600);
        let jwks = r#"{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"}]}"#;
        project.write("corp.json", jwks, 0o644);
        project
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>, mode: u32) {
        let path = self.folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn read(&self, text: &str) -> Result<Checked, Report> {
        let lookup = |name: &str| {
            let found = self.variables.iter().find(|(other, _)| *other == name);
            found.map(|(_, value)| OsString::from(value))
        };
        let environment = Environment {
            lookup: &lookup,
            overrides: self.overrides.clone(),
        };
        let origin = Path::new("gateway.toml");
        check(text, origin, self.folder.path(), &environment)
    }

    /// Asserts that a text is refused with exactly one error, of this key and with these words.
    #[track_caller]
    fn refuses(&self, text: &str, key: &str, words: &str) {
        let report = self.read(text).map(|checked| checked.config).unwrap_err();
        let errors: Vec<&Problem> = report
            .problems()
            .iter()
            .filter(|problem| problem.severity == Severity::Error)
            .collect();
        assert!(errors.len() == 1, "not one error:\n{report}");
        assert_eq!(errors[0].key, key, "{report}");
        assert!(errors[0].message.contains(words), "{report}");
    }

    #[track_caller]
    fn accepts(&self, text: &str) -> Config {
        let checked = self.read(text).unwrap_or_else(|report| panic!("{report}"));
        // What is good to the reader is good to editors.
        if self.overrides.is_empty() {
            schema::tests::allows(text);
        }
        checked.config
    }

    #[track_caller]
    fn warns(&self, text: &str, key: &str, words: &str) {
        let warnings = self.read(text).unwrap().warnings;
        let found = warnings.problems().iter().any(|problem| {
            problem.severity == Severity::Warning
                && problem.key == key
                && problem.message.contains(words)
        });
        assert!(found, "{warnings}");
    }
}

/// [`BASE`] with a line of a section replaced or added; a bare key is taken out.
fn with(section: &str, line: &str) -> String {
    with_in(BASE, section, line)
}

fn with_in(text: &str, section: &str, line: &str) -> String {
    let key = line.split(" =").next().unwrap();
    let mut lines = Vec::new();
    let mut inside = false;
    let mut found = false;
    for old in text.lines() {
        if old.starts_with('[') {
            inside = old == section && !found;
            found |= inside;
            lines.push(old);
            if inside && line.contains('=') {
                lines.push(line);
            }
        } else if !inside || !old.starts_with(&format!("{key} =")) {
            lines.push(old);
        }
    }
    assert!(found, "{section}");
    lines.join("\n")
}

#[track_caller]
fn refused(section: &str, line: &str, key: &str, words: &str) {
    Project::new().refuses(&with(section, line), key, words);
}

/// Refuses each row of a table: a line of the section, the key that is named, and words that are said of it.
#[track_caller]
fn refused_each(section: &str, table: &str) {
    let project = Project::new();
    for row in table.lines().filter(|row| !row.trim().is_empty()) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [line, key, words] = cells[..] else {
            panic!("{row}")
        };
        project.refuses(&with(section, line), key, words);
    }
}

#[track_caller]
fn accepted(section: &str, line: &str) -> Config {
    Project::new().accepts(&with(section, line))
}
