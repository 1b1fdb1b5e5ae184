//! Policy tests: requests in a TOML file, and what shall become of each.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::{Map, Value};

/// The file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cases {
    #[serde(default)]
    case: Vec<Case>,
}

/// Why a file of policy tests cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CasesFault {
    /// It has no case.
    #[error("{0} has no [[case]]")]
    Empty(PathBuf),
    /// It is no file of cases.
    #[error("{path}: {fault}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, with its line.
        fault: toml::de::Error,
    },
    /// It cannot be read.
    #[error("{0} cannot be read")]
    Unreadable(PathBuf, #[source] std::io::Error),
}

/// Reads a file of policy tests.
///
/// # Errors
/// [`CasesFault`] by variant.
pub fn load(path: &Path) -> Result<Vec<Case>, CasesFault> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| CasesFault::Unreadable(path.to_owned(), error))?;
    let cases: Cases = toml::from_str(&text).map_err(|fault| CasesFault::Malformed {
        path: path.to_owned(),
        fault,
    })?;
    if cases.case.is_empty() {
        return Err(CasesFault::Empty(path.to_owned()));
    }
    Ok(cases.case)
}

/// One request, and what shall become of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What it is called when it fails.
    pub name: String,
    /// `GET` by default.
    #[serde(default = "get")]
    pub method: String,
    /// Absolute.
    pub url: String,
    /// The peer; this machine by default.
    #[serde(default = "loopback")]
    pub from: IpAddr,
    /// A bearer token; not beside `claims`.
    pub token: Option<String>,
    /// What a good token of their issuer would say.
    pub claims: Option<Map<String, Value>>,
    /// Further fields.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// What shall become of it.
    pub expect: Expectation,
}

/// What a case expects; what is `None` may be anything.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expectation {
    /// `admitted`, or the code of a refusal.
    pub code: String,
    /// The route's name.
    pub route: Option<String>,
    /// The upstream's name.
    pub upstream: Option<String>,
    /// What a route that is not enforced would refuse with.
    pub unenforced: Option<String>,
    /// Fields that the upstream is told by the gateway.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Fields that the upstream is not told by the gateway.
    #[serde(default)]
    pub absent: Vec<String>,
}

fn get() -> String {
    "GET".to_owned()
}

fn loopback() -> IpAddr {
    Ipv4Addr::LOCALHOST.into()
}
