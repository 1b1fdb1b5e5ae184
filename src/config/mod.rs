//! From the file to checked types: all problems at once, each with its place and a hint.
//!
//! Nobody else knows TOML. A section is read by the module of its name, which knows the keys, the defaults and the ranges;
//! after it, no code asks whether a value is sane. What two sections mean together is checked in `sections` and
//! `overlap`. There is no half-loaded configuration: one error, and all of it is refused (CFG-1, NET-7).

mod accounts;
pub mod assemble;
mod bounds;
pub mod cases;
mod client;
mod closed;
mod cluster;
mod context;
mod cors;
pub mod development;
mod diagnostic;
mod environment;
mod fetch;
mod files;
mod forward_auth;
mod gaps;
mod header_edits;
mod identity;
mod introspection;
mod issuer;
mod key_encryption;
mod keys;
mod limit;
mod log;
mod mail;
mod name;
mod network;
mod outline;
mod overlap;
mod pages;
mod place;
mod reader;
mod reference;
pub mod restart;
mod route;
mod rule;
mod sample;
mod schema;
mod sections;
mod server;
mod shape;
mod source;
mod spans;
mod starter;
mod store;
mod tls;
mod units;
mod upstream;
mod words;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

pub use diagnostic::{Problem, Report, Severity};
use environment::Environment;
pub use environment::Overridden;
pub use outline::{Change, Outline, Written};
pub use reference::reference;
pub use schema::schema;
pub use source::{Loaded, Reading, Source};
pub use starter::starter;
pub(crate) use units::{read_duration, show_duration, show_size, show_thousandths};

use crate::{
    accounts::settings::AccountSettings,
    assertion::settings::AssertionSettings,
    authn::settings::{CacheSettings, IssuerSettings},
    cluster::settings::ClusterSettings,
    gateway::forward_auth::ForwardAuthSettings,
    limit::settings::{IpLimitSettings, RouteLimitSettings},
    policy::{IdentityHeaders, Route, Routes},
    server::settings::{ServerSettings, TlsSettings},
    spans::settings::TracingSettings,
    telemetry::settings::LogSettings,
    upstream::settings::UpstreamSettings,
};

/// A whole configuration, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where relative paths start.
    pub root: PathBuf,
    /// Listeners and connections.
    pub server: ServerSettings,
    /// Certificates.
    pub tls: TlsSettings,
    /// Whose tokens are believed, without the built-in issuer.
    pub issuers: Vec<IssuerSettings>,
    /// The cache of verified tokens.
    pub token_cache: CacheSettings,
    /// What upstreams are told of the caller.
    pub identity: IdentitySettings,
    /// Signed statements to upstreams; `None` where they are off.
    pub assertion: Option<AssertionSettings>,
    /// Limits per client address.
    pub limit: IpLimitSettings,
    /// Whether 429 bears `X-RateLimit-*` too.
    pub x_rate_limit: bool,
    /// Backends, in the order of the file: a route's `UpstreamId` is the place here.
    pub upstreams: Vec<UpstreamSettings>,
    /// Routes in the order of the file, without the built-in ones.
    pub routes: Vec<Arc<Route>>,
    /// The same as requests find them.
    pub table: Routes,
    /// The limits of the routes that have any, by their names.
    pub route_limits: HashMap<Arc<str>, Vec<RouteLimitSettings>>,
    /// The endpoint where other proxies ask; `None` where the section is absent.
    pub forward_auth: Option<ForwardAuthSettings>,
    /// Accounts; `None` where the section is absent or disabled.
    pub accounts: Option<AccountSettings>,
    /// What is shared with other nodes; `None` where the section is absent.
    pub cluster: Option<ClusterSettings>,
    /// The collector of traces; `None` where the section is absent.
    pub tracing: Option<TracingSettings>,
    /// Logs.
    pub log: LogSettings,
}

impl Config {
    /// Where what the gateway keeps lies: the folder of the account database, or `data` at the root.
    #[must_use]
    pub fn data_folder(&self) -> PathBuf {
        data_folder(self.accounts.as_ref(), &self.root)
    }
}

fn data_folder(accounts: Option<&AccountSettings>, root: &Path) -> PathBuf {
    let database = accounts.map(|accounts| &accounts.database);
    let beside = database.and_then(|database| database.parent());
    beside.map_or_else(|| root.join("data"), Path::to_owned)
}

/// The checked section `[identity]`.
#[derive(Debug, Clone)]
pub struct IdentitySettings {
    /// The headers, compiled.
    pub templates: Arc<IdentityHeaders>,
    /// Whether the caller's token is forwarded too.
    pub pass_token: bool,
}

/// A configuration that can be run, and what a person should still look at.
#[derive(Debug, Clone)]
pub struct Checked {
    /// The configuration.
    pub config: Config,
    /// Warnings alone, possibly none.
    pub warnings: Report,
    /// The keys whose values come from the environment, in the order of the variables' names.
    pub overridden: Vec<Overridden>,
}

/// Reads a configuration file. Relative paths in it start at the parent of the file's folder: the project's root when the
/// file is `config/gateway.toml`.
///
/// # Errors
/// Every problem of the file, and of the files that it names.
pub fn load(path: &Path) -> Result<Config, Report> {
    inspect(path).map(|checked| checked.config)
}

/// Reads a configuration file as [`load`] does, and keeps the warnings.
///
/// # Errors
/// Every problem of the file, and of the files that it names, warnings included.
pub fn inspect(path: &Path) -> Result<Checked, Report> {
    Source::file(path)?.read().outcome
}

/// Reads a configuration from text. `origin` is what reports call it; relative paths start at `root`.
///
/// # Errors
/// Every problem of the text, and of the files that it names.
pub fn parse(text: &str, origin: &Path, root: &Path) -> Result<Config, Report> {
    check(text, origin, root, &Environment::of_process()).map(|checked| checked.config)
}

fn check(
    text: &str,
    origin: &Path,
    root: &Path,
    environment: &Environment<'_>,
) -> Result<Checked, Report> {
    source::examine(text, origin, root, environment).outcome
}

#[cfg(test)]
mod tests;
