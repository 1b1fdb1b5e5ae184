//! From a checked configuration to a running one: the parts are made and joined, or nothing changes.

use std::{collections::HashMap, sync::Arc};

use super::Config;
use crate::{
    accounts::Accounts,
    assertion::Assertions,
    authn::{
        Authenticator, IssuerFault, Revocations, remote::RemoteKeys, settings::IssuerSettings,
    },
    cluster::Cluster,
    gateway::{self, Gateway},
    limit::{BadTokens, IpLimiter, MemoryPressure, RouteLimits, Share},
    policy::{HeaderPolicy, Route, RouteConflict, Routes},
    portal::{self, Pages, PortalHandle},
    spans::Exporters,
    telemetry::{Telemetry, Tracer},
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
    /// How scarce memory is.
    pub memory: Arc<MemoryPressure>,
    /// What was revoked.
    pub revocations: Arc<Revocations>,
    /// The issuers whose keys are fetched.
    pub remote: RemoteKeys,
    /// What signs statements to upstreams, where it is on.
    pub assertions: Option<Arc<Assertions>>,
    /// The other nodes, where there may be any.
    pub cluster: Option<Arc<Cluster>>,
    /// Accounts and the way to their routes, where they are on.
    pub accounts: Option<(Arc<Accounts>, PortalHandle)>,
    /// What exports the spans of traced requests.
    pub exporters: Exporters,
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
    /// A collector of traces to which TLS cannot be set up.
    #[error("tracing.endpoint: TLS cannot be set up")]
    Tracing(#[source] TlsFault),
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

/// What runs while its successor is made.
#[derive(Debug, Clone, Copy)]
pub struct Running<'r> {
    /// What it was made from.
    pub config: &'r Config,
    /// It.
    pub gateway: &'r Gateway,
}

/// Makes the running configuration.
///
/// # Errors
/// Every unusable key, every pair of routes that tie, or the first upstream whose TLS cannot be set up.
pub fn assemble(config: &Config, lasting: &Lasting) -> Result<Gateway, AssembleError> {
    succeed(config, lasting, None)
}

/// Makes the configuration that takes the place of the running one. What did not change goes on: what limits have counted,
/// upstreams with their connections and what is known of their health, and, where nothing changed that an identity depends
/// on, the cache of verified tokens (CFG-2, CACHE-1). Nothing that runs is touched.
///
/// # Errors
/// As [`assemble`]; nothing has happened then.
pub fn succeed(
    config: &Config,
    lasting: &Lasting,
    running: Option<Running<'_>>,
) -> Result<Gateway, AssembleError> {
    let telemetry = &lasting.telemetry;
    let table = config.table.clone();
    let routes = table.with_built_in(built_in_routes(config, lasting));
    let routes = routes.map_err(AssembleError::Routes)?;
    let headers = header_policy(config)?;
    let upstreams = upstreams(config, telemetry, running)?;
    let tracer = tracer(config, lasting, running)?;
    // The last that may fail: before it nothing is fetched, after it nothing is given up.
    let authn = authenticator(config, lasting, running)?;
    let before = running.map(|running| running.gateway);
    let share = lasting.cluster.as_ref().map(|cluster| cluster.share());
    Ok(Gateway {
        proxies: config.server.trusted_proxies.clone(),
        tls: config.tls.policies.clone(),
        memory: Arc::clone(&lasting.memory),
        limit: Arc::new(match before {
            Some(before) => IpLimiter::following(&config.limit, &before.limit),
            None => IpLimiter::shared(&config.limit, share),
        }),
        route_limits: Arc::new(route_limits(config, &routes, before, share)),
        bad_tokens: Arc::new(match before {
            Some(before) => BadTokens::following(&config.limit, &before.bad_tokens),
            None => BadTokens::shared(&config.limit, share),
        }),
        route_metrics: telemetry.routes(routes.all().len()),
        routes,
        authn,
        headers,
        assertions: config
            .assertion
            .as_ref()
            .and_then(|_| lasting.assertions.clone()),
        head: config.server.head,
        upstreams,
        portal: lasting.accounts.as_ref().map(|(_, portal)| portal.clone()),
        pages: pages(config),
        forward_auth: config.forward_auth.clone(),
        telemetry: Arc::clone(telemetry),
        tracer,
        body_pace: Pace {
            idle: config.server.timeouts.body_idle,
            rate: config.server.body_rate,
        },
        server_timing: config.log.server_timing.clone(),
        hsts: !config.tls.development,
        x_rate_limit: config.x_rate_limit,
    })
}

/// The routes that the gateway answers itself.
fn built_in_routes(config: &Config, lasting: &Lasting) -> Vec<Route> {
    let mut routes = Vec::new();
    if let (Some(settings), Some(_)) = (&config.accounts, &lasting.accounts) {
        routes.extend(portal::routes(settings));
    }
    if config.assertion.is_some() {
        routes.extend(gateway::assertion::routes());
    }
    if let Some(settings) = &config.forward_auth {
        routes.extend(gateway::forward_auth::routes(settings));
    }
    routes
}

fn header_policy(config: &Config) -> Result<HeaderPolicy, AssembleError> {
    let templates = Arc::clone(&config.identity.templates);
    let headers = HeaderPolicy::new(templates, &pseudonym(config), config.identity.pass_token)
        .map_err(AssembleError::Pseudonym)?;
    Ok(match config.table.go_by_method() {
        true => headers.without_method_overrides(),
        false => headers,
    })
}

/// The pages of browsers, where they are on.
fn pages(config: &Config) -> Option<Arc<Pages>> {
    let accounts = config.accounts.as_ref()?;
    let settings = accounts.pages.as_ref()?;
    let url = &config.server.public_url;
    let pages = Pages::new(accounts, settings, url, &config.routes);
    Some(Arc::new(pages))
}

/// The running one where nothing changed; else a new one, with a queue of its own, while the old one's is exported to its end. One that
/// is made for nothing ends with nothing sent.
fn tracer(
    config: &Config,
    lasting: &Lasting,
    running: Option<Running<'_>>,
) -> Result<Option<Arc<Tracer>>, AssembleError> {
    let Some(settings) = &config.tracing else {
        return Ok(None);
    };
    let same = running.filter(|running| running.config.tracing == config.tracing);
    if let Some(tracer) = same.and_then(|running| running.gateway.tracer.clone()) {
        return Ok(Some(tracer));
    }
    let tracer = lasting.exporters.start(settings);
    let tracer = tracer.map_err(AssembleError::Tracing)?;
    Ok(Some(Arc::new(tracer)))
}

/// The running one where nothing changed that an identity depends on: its cache is good then. Else a new one, whose cache is
/// empty and has a secret of its own, so that no identity outlives what it was made by. Keys that are fetched are fetched on
/// for issuers that did not change.
fn authenticator(
    config: &Config,
    lasting: &Lasting,
    running: Option<Running<'_>>,
) -> Result<Arc<Authenticator>, AssembleError> {
    let same = running.filter(|running| {
        let before = running.config;
        before.issuers == config.issuers
            && before.token_cache == config.token_cache
            && before.identity.templates == config.identity.templates
            && before.accounts == config.accounts
    });
    if let Some(running) = same {
        return Ok(Arc::clone(&running.gateway.authn));
    }
    let own = lasting.accounts.iter();
    let own: Vec<IssuerSettings> = own.flat_map(|(accounts, _)| accounts.issuers()).collect();
    let make = |issuers: Vec<IssuerSettings>| {
        let issuers: Vec<_> = issuers.into_iter().chain(own.iter().cloned()).collect();
        let authn = Authenticator::new(
            &issuers,
            &config.token_cache,
            Arc::clone(&lasting.revocations),
            Arc::clone(&config.identity.templates),
        );
        authn.map_err(AssembleError::Issuers)
    };
    if running.is_some() {
        // Without a fetch: one that is begun is seen outside, and is for nothing where another issuer's key is of no use.
        make(config.issuers.clone())?;
    }
    let fetched = config.issuers.iter().cloned();
    let authn = make(fetched.map(|issuer| lasting.remote.live(issuer)).collect())?;
    Ok(Arc::new(authn))
}

/// By name, for the built-in routes stand among those of the configuration.
fn route_limits(
    config: &Config,
    routes: &Routes,
    before: Option<&Gateway>,
    share: Option<&Share>,
) -> RouteLimits {
    let limits = routes.all().iter().map(|route| {
        let limits = config.route_limits.get(&route.name);
        (&route.name, limits.map_or(&[][..], Vec::as_slice))
    });
    match before {
        Some(before) => RouteLimits::following(limits, &config.limit, &before.route_limits),
        None => RouteLimits::shared(limits, &config.limit, share),
    }
}

fn upstreams(
    config: &Config,
    telemetry: &Arc<Telemetry>,
    running: Option<Running<'_>>,
) -> Result<Vec<Arc<Upstream>>, AssembleError> {
    let system = SystemRoots::default();
    let before = running
        .iter()
        .flat_map(|running| &running.gateway.upstreams);
    let before: HashMap<_, _> = before.map(|old| (&old.settings().name, old)).collect();
    let make = |settings: &UpstreamSettings| {
        let name = &settings.name;
        let old = before.get(name).copied();
        if let Some(old) = old.filter(|old| old.settings() == settings) {
            return Ok(Arc::clone(old));
        }
        let metrics = |server: &ServerAddress| telemetry.upstream(name, &server.to_string());
        let upstream = Upstream::new(settings.clone(), &system, metrics);
        let upstream = upstream.map_err(|fault| AssembleError::Upstream {
            name: Arc::clone(name),
            fault,
        })?;
        if let Some(old) = old {
            upstream.continue_from(old);
        }
        Ok(upstream)
    };
    config.upstreams.iter().map(make).collect()
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
        .map(|RouteConflict { first, second, .. }| {
            format!("routes \"{first}\" and \"{second}\" match the same requests")
        })
        .collect();
    lines.join("\n")
}
