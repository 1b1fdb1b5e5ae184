//! From the file to checked types: all problems at once, each with its place and a hint.
//!
//! Nobody else knows TOML. A section is read by the module of its name, which knows the keys, the defaults and the ranges;
//! after it, no code asks whether a value is sane. What two sections mean together is checked in `read` and
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
mod fetch;
mod files;
mod forward_auth;
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
pub mod restart;
mod route;
mod rule;
mod server;
mod source;
mod starter;
mod store;
mod tls;
mod units;
mod upstream;
mod words;

use std::{
    cell::RefCell,
    collections::{BTreeSet, HashMap},
    ffi::OsString,
    path::{Path, PathBuf},
    sync::Arc,
};

use toml::{Spanned, de::DeTable};

use bounds::Bounds;
use context::Context;
use diagnostic::{Fault, Place, Problems};
pub use diagnostic::{Problem, Report, Severity};
pub use outline::{Change, Outline, Written};
use place::Key;
use reader::Table;
use route::{Placed, Surroundings};
pub use source::{Loaded, Reading, Source};
pub use starter::starter;
pub(crate) use units::{show_duration, show_size};

use crate::{
    accounts::settings::AccountSettings,
    assertion::settings::AssertionSettings,
    authn::settings::{BUILT_IN, CacheSettings, IssuerSettings},
    cluster::settings::ClusterSettings,
    gateway::forward_auth::ForwardAuthSettings,
    limit::settings::{IpLimitSettings, RouteLimitSettings},
    policy::{Access, IdentityHeaders, Route, Routes},
    server::settings::{ServerSettings, TlsSettings},
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

/// What the environment says.
struct Environment<'e> {
    lookup: &'e dyn Fn(&str) -> Option<OsString>,
    /// Variables that would override a key.
    overrides: Vec<String>,
}

impl Environment<'_> {
    fn of_process() -> Self {
        let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        Self {
            lookup: &|name| std::env::var_os(name),
            overrides: names
                .filter(|name| name.starts_with("PORTCULLIS__"))
                .collect(),
        }
    }
}

fn check(
    text: &str,
    origin: &Path,
    root: &Path,
    environment: &Environment<'_>,
) -> Result<Checked, Report> {
    examine(text, origin, root, environment).outcome
}

fn examine(text: &str, origin: &Path, root: &Path, environment: &Environment<'_>) -> Reading {
    let (document, faults) = DeTable::parse_recoverable(text);
    let problems = Problems::default();
    if !faults.is_empty() {
        // What could be read of a broken file says little: a key is not missing that stands in a broken line.
        for fault in faults {
            let place = Place {
                key: Key::default(),
                span: fault.span().unwrap_or(0..0),
            };
            problems.add(&place, fault.message());
        }
        return Reading {
            outcome: Err(problems.report(origin, text)),
            written: Written::default(),
            files: Vec::new(),
        };
    }
    for name in &environment.overrides {
        let hint = "set the key in the file: an override is never ignored silently";
        let message = format!("the environment variable {name} is not yet supported");
        problems.add_nowhere(Fault::new(message, hint));
    }
    let context = Context {
        root,
        env: environment.lookup,
        problems,
        files: RefCell::default(),
    };
    let config = read(&context, &document);
    let files = context.files.take();
    let written = Written::new(text, root, files.clone());
    let report = context.problems.report(origin, text);
    Reading {
        outcome: match config {
            Some(config) if !report.has_errors() => Ok(Checked {
                config,
                warnings: report,
            }),
            _ => Err(report),
        },
        written,
        files: files
            .into_iter()
            .filter(|file| !file.watched_elsewhere)
            .map(|file| (file.path, file.stamp))
            .collect(),
    }
}

/// Reads every section. `None` only where a problem was reported.
fn read<'d>(context: &'d Context<'d>, document: &'d Spanned<DeTable<'d>>) -> Option<Config> {
    let mut top = Table::top(context, document);
    top.number::<u64>(
        "version",
        Bounds::new(1, 1).because("the one version there is"),
    );
    let server = server::read(top.section("server"));
    let server = server.as_ref();
    let tls = tls::read(top.section("tls"), server);
    let issuers = issuer::read(top.sections("issuer"), server);
    let token_cache = limit::read_cache(top.section("token_cache"));
    let (identity, statements) = identity::read(top.section("identity"));
    let limit = limit::read(top.section("rate_limit"));
    let upstreams = upstream::read(top.sections("upstream"), statements.is_some());
    let accounts = accounts_with_mail(&mut top, server, tls.development);
    let cluster = cluster::read(top.section("cluster"), server, accounts.as_ref());
    let assertion = statements.zip(server).and_then(|(statements, server)| {
        statements.settle(&context.problems, server, (accounts.as_ref(), context.root))
    });
    let forward_auth = forward_auth::read(top.section("forward_auth"), server, accounts.as_ref());
    let mut issuer_names = issuers.names;
    if accounts.is_some() {
        issuer_names.push(BUILT_IN.into());
    }
    let around = Surroundings {
        upstreams: &upstreams,
        issuers: &issuer_names,
        identity: &identity.templates,
        asked_by_proxies: forward_auth.is_some(),
        body_bytes: server.map_or(0, |server| server.body_bytes),
        has_accounts: accounts.is_some(),
        has_pages: (accounts.as_ref()).is_some_and(|accounts| accounts.pages.is_some()),
    };
    let routes = route::read(top.sections("route"), &around);
    let log = log::read(top.section("log"));
    if !top.has("route") {
        top.need("route", "a gateway without [[route]] forwards nothing");
    }
    top.finish();
    let built_in = overlap::BuiltIn {
        accounts: accounts.as_ref(),
        forward_auth: forward_auth.as_ref(),
        assertion_keys: assertion.is_some(),
    };
    let table = overlap::check(&context.problems, &routes, &built_in);
    check_issuers(&context.problems, &routes, &issuers.settings, &issuer_names);
    Some(Config {
        root: context.root.to_owned(),
        server: server?.clone(),
        tls,
        issuers: issuers.settings,
        token_cache,
        identity,
        assertion,
        limit,
        upstreams: upstreams.settings,
        route_limits: route::limits(&routes),
        table: table?,
        routes: routes.into_iter().map(|placed| placed.route).collect(),
        forward_auth,
        accounts,
        cluster,
        log,
    })
}

/// The accounts, and how their owners are written to.
fn accounts_with_mail(
    top: &mut Table<'_>,
    server: Option<&ServerSettings>,
    development: bool,
) -> Option<AccountSettings> {
    let there = (top.has("accounts"), top.has("mail"));
    let accounts = accounts::read(top.section("accounts"), there, server);
    let mail = mail::read(top.section("mail"));
    check_mail(top, accounts.is_some(), development);
    accounts.map(|accounts| AccountSettings { mail, ..accounts })
}

/// Points at accounts whose owners cannot be written to, and at mail that has nobody to write to.
fn check_mail(top: &Table<'_>, accounts: bool, development: bool) {
    let (key, message, hint) = match (accounts, top.has("mail")) {
        (true, false) if !development => (
            "accounts",
            "forgotten passwords cannot be reset, and nobody is told of a changed one",
            "add [mail] with `from`, and `smtp` or, to try it, `spool`",
        ),
        (false, true) => (
            "mail",
            "nobody is written to: only accounts send mail",
            "take the section out, or add [accounts]",
        ),
        (true, _) | (false, false) => return,
    };
    let place = top.place_of(key);
    let problems = &top.context.problems;
    problems.warn(&place, Fault::new(message, hint));
}

/// Checks that somebody can be verified, and points at routes where two issuers could give two people one name.
fn check_issuers(
    problems: &Problems,
    routes: &[Placed],
    issuers: &[IssuerSettings],
    names: &[Arc<str>],
) {
    let mut mixed: Vec<&Placed> = Vec::new();
    for placed in routes {
        let route = &placed.route;
        if names.is_empty() && route.access == Access::Authenticated {
            let hint = "add an [[issuer]], or [accounts] for accounts of the gateway's own";
            let fault = Fault::new("nobody could be verified for it", hint);
            problems.add(&placed.place, fault);
        }
        let wanted = &route.rule.issuers;
        let accepted: BTreeSet<&str> = names
            .iter()
            .filter(|name| wanted.is_empty() || wanted.iter().any(|one| **one == ***name))
            .map(|name| {
                // Entries that share an `iss` are one issuer.
                let entry = issuers.iter().find(|issuer| issuer.name == *name);
                entry.map_or(&**name, |entry| &*entry.issuer)
            })
            .collect();
        if route.access != Access::Public && accepted.len() > 1 {
            mixed.push(placed);
        }
    }
    if let Some(first) = mixed.first() {
        let others = match mixed.len() {
            1 => String::new(),
            count => format!(", as {} more routes do", count - 1),
        };
        let hint = "name one in require.issuers, or let the upstream tell them apart by {issuer}";
        let message =
            format!("takes several issuers, whose users could bear the same name{others}");
        problems.warn(&first.place, Fault::new(message, hint));
    }
}

#[cfg(test)]
mod tests;
