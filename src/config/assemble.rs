//! From a checked configuration to a running one: the parts are made and joined, or nothing changes.

use std::sync::Arc;

use super::Config;
use crate::{
    accounts::Accounts,
    authn::{Authenticator, IssuerFault, Revocations, remote::RemoteKeys},
    gateway::{self, Gateway},
    limit::{BadTokens, IpLimiter, RouteLimits},
    policy::{HeaderPolicy, HostPattern, Route, RouteConflict, Routes},
    portal::{self, Pages, PortalHandle},
    telemetry::Telemetry,
    upstream::{
        Pace, SystemRoots, TlsFault, Upstream,
        settings::{ServerAddress, UpstreamSettings},
    },
};

/// What outlives a configuration: it is made once for the process.
#[derive(Debug, Clone)]
pub struct Lasting {
    /// Counters and the access log.
    pub telemetry: Arc<Telemetry>,
    /// What was revoked.
    pub revocations: Arc<Revocations>,
    /// The issuers whose keys are fetched.
    pub remote: RemoteKeys,
    /// Accounts and the way to their routes, where they are on.
    pub accounts: Option<(Arc<Accounts>, PortalHandle)>,
}

/// Why a checked configuration cannot be put together.
#[derive(Debug, thiserror::Error)]
pub enum AssembleError {
    /// Keys that cannot verify anything.
    #[error("{}", issuers(.0))]
    Issuers(Vec<IssuerFault>),
    /// Routes between which a request could not choose.
    #[error("{}", conflicts(.0))]
    Routes(Vec<RouteConflict>),
    /// A name that does not fit a header.
    #[error("the gateway's name in Via cannot be written")]
    Pseudonym(#[source] http::Error),
    /// An upstream whose TLS cannot be set up.
    #[error("upstream \"{name}\": TLS cannot be set up")]
    Upstream {
        /// Its name.
        name: Arc<str>,
        /// Why.
        #[source]
        fault: TlsFault,
    },
}

/// Makes the running configuration.
///
/// # Errors
/// Every unusable key, every pair of routes that tie, or the first upstream whose TLS cannot be set up.
pub fn assemble(config: &Config, lasting: &Lasting) -> Result<Gateway, AssembleError> {
    let telemetry = &lasting.telemetry;
    let fetched = config.issuers.iter().cloned();
    let mut issuers: Vec<_> = fetched.map(|issuer| lasting.remote.live(issuer)).collect();
    let mut routes = config.routes.clone();
    if let (Some(settings), Some((accounts, _))) = (&config.accounts, &lasting.accounts) {
        issuers.extend(accounts.issuers());
        routes.extend(on_every_host(portal::routes(settings), &config.routes));
    }
    if let Some(settings) = &config.forward_auth {
        let asked = gateway::forward_auth::routes(settings);
        routes.extend(on_every_host(asked, &config.routes));
    }
    let templates = Arc::clone(&config.identity.templates);
    let revocations = Arc::clone(&lasting.revocations);
    let authn = Authenticator::new(
        &issuers,
        &config.token_cache,
        revocations,
        Arc::clone(&templates),
    )
    .map_err(AssembleError::Issuers)?;
    let pages = config.accounts.as_ref().and_then(|accounts| {
        let settings = accounts.pages.as_ref()?;
        let url = &config.server.public_url;
        Some(Arc::new(Pages::new(
            accounts,
            settings,
            url,
            &config.routes,
        )))
    });
    let routes = Routes::new(routes).map_err(AssembleError::Routes)?;
    let pseudonym = pseudonym(config);
    let headers = HeaderPolicy::new(templates, &pseudonym, config.identity.pass_token)
        .map_err(AssembleError::Pseudonym)?;
    Ok(Gateway {
        proxies: config.server.trusted_proxies.clone(),
        tls: config.tls.policies.clone(),
        limit: Arc::new(IpLimiter::new(&config.limit)),
        route_limits: Arc::new(route_limits(config, &routes)),
        bad_tokens: Arc::new(BadTokens::new(&config.limit)),
        route_metrics: routes
            .all()
            .iter()
            .map(|route: &Route| telemetry.route(&route.name))
            .collect(),
        routes,
        authn: Arc::new(authn),
        headers,
        head: config.server.head,
        upstreams: upstreams(config, telemetry)?,
        portal: lasting.accounts.as_ref().map(|(_, portal)| portal.clone()),
        pages,
        forward_auth: config.forward_auth.clone(),
        telemetry: Arc::clone(telemetry),
        body_pace: Pace {
            idle: config.server.timeouts.body_idle,
            rate: config.server.body_rate,
        },
        hsts: !config.tls.development,
    })
}

/// By name, for the built-in routes stand among those of the configuration.
fn route_limits(config: &Config, routes: &Routes) -> RouteLimits {
    let limits = routes.all().iter().map(|route: &Route| {
        let limits = config.route_limits.get(&route.name);
        limits.map_or(&[][..], Vec::as_slice)
    });
    RouteLimits::new(limits, &config.limit)
}

fn upstreams(
    config: &Config,
    telemetry: &Arc<Telemetry>,
) -> Result<Vec<Arc<Upstream>>, AssembleError> {
    let system = SystemRoots::default();
    let make = |settings: &UpstreamSettings| {
        let name = &settings.name;
        let metrics = |server: &ServerAddress| telemetry.upstream(name, &server.to_string());
        let upstream = Upstream::new(settings.clone(), &system, metrics);
        upstream.map_err(|fault| AssembleError::Upstream {
            name: Arc::clone(name),
            fault,
        })
    };
    config.upstreams.iter().map(make).collect()
}

/// Puts the built-in routes on every host that a route names too. A route of a named host and the prefix `/` is more specific
/// than a built-in route of any host: a login on that host would otherwise go to its upstream, password and all.
fn on_every_host(built_in: Vec<Route>, configured: &[Route]) -> Vec<Route> {
    let mut hosts: Vec<HostPattern> = Vec::new();
    for host in configured.iter().flat_map(|route| &route.hosts) {
        if !hosts.contains(host) {
            hosts.push(host.clone());
        }
    }
    if hosts.is_empty() {
        return built_in;
    }
    let named = built_in.clone().into_iter();
    let named = named.map(|route| Route {
        hosts: hosts.clone(),
        ..route
    });
    named.chain(built_in).collect()
}

/// The gateway's name in `Via`: the same on every node of one gateway, another for another gateway, so that a loop is
/// seen and a chain of two gateways is not taken for one (RFC 9110 §7.6.3 allows a pseudonym).
fn pseudonym(config: &Config) -> String {
    use aws_lc_rs::digest;
    let digest = digest::digest(
        &digest::SHA256,
        config.server.public_url.as_str().as_bytes(),
    );
    let tail: String = digest
        .as_ref()
        .iter()
        .take(4)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("portcullis-{tail}")
}

fn issuers(faults: &[IssuerFault]) -> String {
    let lines: Vec<String> = faults
        .iter()
        .map(|IssuerFault { issuer, fault }| format!("issuer \"{issuer}\": {fault}"))
        .collect();
    lines.join("\n")
}

fn conflicts(conflicts: &[RouteConflict]) -> String {
    let lines: Vec<String> = conflicts
        .iter()
        .map(|RouteConflict { first, second }| {
            format!("routes \"{first}\" and \"{second}\" match the same requests")
        })
        .collect();
    lines.join("\n")
}
