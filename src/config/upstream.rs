//! The sections `[[upstream]]`.

mod servers;
mod tls;

use std::{collections::BTreeMap, sync::Arc};

use http::uri::PathAndQuery;

use super::{
    bounds::Bounds,
    diagnostic::{Fault, Place, Problems},
    mail::is_loopback,
    name::read_name,
    reader::Table,
    server::secs,
    words::{Choice, refuse_repeats},
};
use crate::{
    policy::{UpstreamId, head},
    upstream::settings::{
        Balance, EjectSettings, Endpoint, HealthSettings, HostPolicy, Protocol, RetrySettings,
        ServerAddress, UpstreamSettings,
    },
};

/// The upstreams, and for every name that was given, good or bad, its place among them: a route to an upstream with a
/// fault is not itself at fault.
#[derive(Default)]
pub(super) struct Upstreams {
    pub(super) settings: Vec<UpstreamSettings>,
    pub(super) places: BTreeMap<Arc<str>, Option<UpstreamId>>,
}

/// `stated`: the upstreams are sent signed statements.
pub(super) fn read(tables: Vec<Table<'_>>, stated: bool) -> Upstreams {
    let mut upstreams = Upstreams::default();
    let problems = tables.first().map(|table| &table.context.problems);
    let mut named: Vec<(Arc<str>, Place)> = Vec::new();
    let mut exposed: Vec<Place> = Vec::new();
    for table in tables {
        let servers = table.place_of("servers");
        let (name, settings) = read_one(table, stated);
        if !stated && settings.as_ref().is_some_and(is_exposed) {
            exposed.push(servers);
        }
        if let Some((name, place)) = name {
            let id = settings
                .is_some()
                .then_some(UpstreamId(upstreams.settings.len()));
            upstreams.places.insert(Arc::clone(&name), id);
            named.push((name, place));
        }
        upstreams.settings.extend(settings);
    }
    if let Some(problems) = problems {
        refuse_repeats(problems, "upstream", named);
        warn_of_exposed(problems, &exposed);
    }
    upstreams
}

/// Whether a server of the upstream listens on the network and cannot tell the gateway from others.
fn is_exposed(upstream: &UpstreamSettings) -> bool {
    let is_elsewhere = |server: &ServerAddress| match &server.endpoint {
        Endpoint::Tcp { host, tls, .. } => {
            let knows_us = *tls && upstream.tls.client.is_some();
            !knows_us && !is_loopback(host)
        }
        Endpoint::Unix(_) => false,
    };
    upstream.servers.iter().any(is_elsewhere)
}

/// One warning for all of them, at the first.
fn warn_of_exposed(problems: &Problems, exposed: &[Place]) {
    let Some(first) = exposed.first() else {
        return;
    };
    let others = match exposed.len() {
        1 => String::new(),
        count => format!(" (as are those of {} more)", count - 1),
    };
    let message = format!(
        "its servers are on the network{others}: whoever reaches one past the gateway can write identity headers himself"
    );
    let hint = "let a firewall admit the gateway alone, and where the server can, have it ask for a certificate (tls.client_cert) or verify \
                a signed statement (identity.assertion); on this machine: 127.0.0.1 or unix:";
    problems.warn(first, Fault::new(message, hint));
}

fn read_one(
    mut table: Table<'_>,
    stated: bool,
) -> (Option<(Arc<str>, Place)>, Option<UpstreamSettings>) {
    let name = read_name(&mut table);
    let servers = servers::read(&mut table, stated);
    let protocol = table.choice("protocol", &PROTOCOLS);
    let h2_streams = table.number("h2_streams", Bounds::new(1, 1000));
    let tls = tls::read(&mut table, servers.as_deref());
    let balance = table.choice("balance", &BALANCES);
    let eject = eject(&mut table);
    let health = health(&mut table);
    let retry = retry(&mut table);
    let deadline = Bounds::new(std::time::Duration::from_millis(10), secs(24 * 3600));
    let resolve_every = table.duration("resolve_every", Bounds::new(secs(1), secs(3600)));
    let connect_timeout = table.duration("connect_timeout", deadline);
    let response_timeout = table.duration("response_timeout", deadline);
    let idle_timeout = table.duration("idle_timeout", deadline);
    let max_connections = table.number("max_connections", Bounds::new(1, 1_000_000));
    let max_pending = table.number("max_pending", Bounds::new(0, 1_000_000));
    let host = table.parsed("host", host).unwrap_or_default();
    let early_hints = table.flag("early_hints");
    table.finish();
    let settings = name
        .as_ref()
        .zip(servers)
        .map(|((name, _), servers)| UpstreamSettings {
            name: Arc::clone(name),
            servers,
            balance: balance.unwrap_or_default(),
            eject,
            health,
            retry,
            protocol: protocol.unwrap_or_default(),
            h2_streams: h2_streams.unwrap_or(100),
            tls,
            resolve_every: resolve_every.unwrap_or(secs(30)),
            connect_timeout: connect_timeout.unwrap_or(secs(3)),
            response_timeout: response_timeout.unwrap_or(secs(30)),
            idle_timeout: idle_timeout.unwrap_or(secs(60)),
            max_connections: max_connections.unwrap_or(1024),
            max_pending: max_pending.unwrap_or(1024),
            host,
            early_hints: early_hints.unwrap_or(false),
        });
    (name, settings)
}

const PROTOCOLS: [(&str, Choice<Protocol>); 3] = [
    ("http1", Choice::Is(Protocol::Http1)),
    ("h2", Choice::Is(Protocol::Http2)),
    ("auto", Choice::Is(Protocol::Auto)),
];

const BALANCES: [(&str, Choice<Balance>); 4] = [
    ("least_requests", Choice::Is(Balance::LeastRequests)),
    ("round_robin", Choice::Is(Balance::RoundRobin)),
    ("hash_ip", Choice::Is(Balance::HashIp)),
    ("hash_user", Choice::Is(Balance::HashUser)),
];

fn eject(table: &mut Table<'_>) -> Option<EjectSettings> {
    table.refuse_empty(
        "eject",
        "each of its keys has a default: eject = { failures = 5 }",
    );
    let mut eject = table.section("eject");
    let time = Bounds::new(secs(1), secs(3600));
    let failures = eject.number("failures", Bounds::new(1, 1000));
    let window = eject.duration("window", time);
    let duration = eject.duration("for", time);
    let is_there = eject.is_there();
    eject.finish();
    is_there.then(|| EjectSettings {
        failures: failures.unwrap_or(5),
        window: window.unwrap_or(secs(10)),
        duration: duration.unwrap_or(secs(10)),
    })
}

fn health(table: &mut Table<'_>) -> Option<HealthSettings> {
    let mut health = table.section("health");
    let is_there = health.is_there();
    if is_there {
        health.need("path", "what to ask for: path = \"/healthz\"");
    }
    let path = health.parsed("path", |text| {
        let parsed = PathAndQuery::try_from(text).ok();
        let parsed = parsed.filter(|path| text.starts_with('/') && path.as_str() == text);
        parsed
            .map(|path| path.as_str().into())
            .ok_or_else(|| Fault::new(format!("`{text}` is not a path"), "it begins with a slash"))
    });
    let time = Bounds::new(std::time::Duration::from_millis(100), secs(3600));
    let interval = health.duration("interval", time);
    let timeout = health.duration("timeout", time);
    let count = Bounds::new(1, 1000);
    let (healthy, unhealthy) = (
        health.number("healthy", count),
        health.number("unhealthy", count),
    );
    health.finish();
    path.filter(|_| is_there).map(|path| HealthSettings {
        path,
        interval: interval.unwrap_or(secs(5)),
        timeout: timeout.unwrap_or(secs(2)),
        healthy: healthy.unwrap_or(2),
        unhealthy: unhealthy.unwrap_or(3),
    })
}

/// On, unless it is switched off by no attempts.
fn retry(table: &mut Table<'_>) -> Option<RetrySettings> {
    table.refuse_empty(
        "retry",
        "retries are on without it; off is: retry = { attempts = 0 }",
    );
    let mut retry = table.section("retry");
    let attempts = retry.number("attempts", Bounds::new(0, 3));
    let most = Bounds::new(0, 200).because("more would be a load of their own in an outage");
    let thousandths = retry.thousandths("budget", most);
    retry.finish();
    let settings = RetrySettings {
        attempts: attempts.unwrap_or(1),
        thousandths: thousandths.unwrap_or(200),
    };
    (settings.attempts > 0).then_some(settings)
}

fn host(text: &str) -> Result<HostPolicy, Fault> {
    match text {
        "client" => Ok(HostPolicy::Client),
        "upstream" => Ok(HostPolicy::Upstream),
        _ if head::host(text).is_some() => Ok(HostPolicy::Fixed(text.to_ascii_lowercase().into())),
        _ => Err(Fault::new(
            format!("`{text}` is not a host"),
            "\"upstream\" for the one in the server's URL, or a fixed name",
        )),
    }
}
