//! What the status page shows and `/status.json` says, put together from what was counted and what runs.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{
    facts::{Facts, RouteFacts, UpstreamFacts},
    history::{History, Mark, Passed},
    rows::{
        CertificateRow, Counted, IssuerRow, KeyRow, NodeRow, RefusalRow, ReloadRow, RouteRow,
        ServerRow, Status, Traffic, UpstreamRow,
    },
    units::{Bytes, Count, Millis, Moment, Name, Rate, Share, Span},
};
use crate::{
    accounts::KeyState,
    admin::{Problem, Readiness},
    policy::{Access, PathPattern},
    telemetry::{Durations, Refusal, RouteTotals, Telemetry},
    upstream::Condition,
};

/// Routes that are shown: those with the most requests.
const ROUTES_MAX: usize = 200;
/// The seconds behind what is told of now.
const NOW: usize = 10;
/// The seconds behind what is told of the last minute.
const MINUTE: usize = 60;
/// A certificate with fewer days than this is to be looked after.
const DAYS_MIN: i64 = 21;

/// What a [`Status`] is made of.
#[derive(Debug)]
pub(super) struct Sources<'s> {
    pub(super) telemetry: &'s Telemetry,
    pub(super) readiness: &'s Readiness,
    pub(super) history: &'s History,
    pub(super) facts: Facts,
    pub(super) sessions: Option<u64>,
    pub(super) started: SystemTime,
}

impl Status {
    pub(super) fn of(sources: Sources<'_>, now: SystemTime) -> Self {
        let Sources {
            telemetry,
            readiness,
            history,
            facts,
            sessions,
            started,
        } = sources;
        let minute = history.over(MINUTE);
        let problems = readiness.problems();
        let degraded = readiness.degraded();
        let (time, started_at) = (moment(now), moment(started));
        let totals = history.reading().map(|reading| &reading.totals);
        let limited = history.reading().map(|reading| &reading.limits);
        let marked = history.minute_ago();
        let (routes, routes_left_out) = routes(telemetry, &facts.routes, marked);
        Self {
            version: env!("CARGO_PKG_VERSION"),
            time,
            started_at,
            uptime: Span(time.0.saturating_sub(started_at.0)),
            state: match (readiness.draining(), problems.is_empty()) {
                (true, _) => "draining",
                (false, true) if degraded.is_empty() => "ready",
                (false, true) => "degraded",
                (false, false) => "not_ready",
            },
            last_reload: readiness.last_reload().map(|last| ReloadRow {
                at: Moment(last.at),
                result: last.result,
            }),
            traffic: traffic(telemetry, &history.over(NOW), &minute),
            decisions: counted(totals.map(|totals| &totals.codes), &minute.codes),
            limits: counted(limited, &minute.limits),
            upstreams: upstreams(telemetry, &facts.upstreams, marked),
            routes,
            routes_left_out,
            issuers: issuers(&facts),
            signing_keys: signing_keys(&facts),
            certificates: certificates(&facts, time),
            node: node(telemetry, &facts, &degraded, sessions),
            refusals: telemetry.refusals().into_iter().map(refusal).collect(),
            problems,
            degraded,
        }
    }
}

pub(super) fn moment(time: SystemTime) -> Moment {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Moment(since.as_secs())
}

fn traffic(telemetry: &Telemetry, now: &Passed, minute: &Passed) -> Traffic {
    let quantile = |thousandths| Millis(now.durations.quantile(thousandths));
    let [hit, joined, missed] = minute.cache;
    Traffic {
        requests: Rate::of(now.requests, now.took),
        refused: Rate::of(now.refused, now.took),
        failed: Rate::of(now.failed, now.took),
        p50: quantile(500),
        p90: quantile(900),
        p99: quantile(990),
        cache_hits: Share::of(hit + joined, hit + joined + missed),
        connections: Count(telemetry.open_connections("tls")),
        tunnels: Count(telemetry.open_tunnels()),
    }
}

type Counts = std::collections::BTreeMap<&'static str, u64>;

/// Those of the last minute first, then the most frequent.
fn counted(totals: Option<&Counts>, minute: &Counts) -> Vec<Counted> {
    let totals = totals.into_iter().flatten();
    let row = |(name, total): (&&'static str, &u64)| Counted {
        name,
        last_minute: Count(minute.get(name).copied().unwrap_or_default()),
        total: Count(*total),
    };
    let mut rows: Vec<Counted> = totals.map(row).collect();
    rows.sort_by_key(|row| std::cmp::Reverse((row.last_minute, row.total)));
    rows
}

fn upstreams(
    telemetry: &Telemetry,
    facts: &[UpstreamFacts],
    marked: Option<&Mark>,
) -> Vec<UpstreamRow> {
    let totals = telemetry.upstream_totals();
    let row = |upstream: &UpstreamFacts| {
        let of = |totals: &HashMap<Arc<str>, Durations>| {
            totals.get(&upstream.name).copied().unwrap_or_default()
        };
        let before = marked.map(|mark| of(&mark.upstreams)).unwrap_or_default();
        let passed = of(&totals).since(&before);
        let server = |(address, condition): &(String, Condition)| ServerRow {
            address: address.clone(),
            state: condition_name(*condition),
            well: *condition == Condition::Well,
        };
        UpstreamRow {
            name: Name(Arc::clone(&upstream.name)),
            last_minute: Count(passed.count()),
            p50: Millis(passed.quantile(500)),
            p99: Millis(passed.quantile(990)),
            servers: upstream.servers.iter().map(server).collect(),
        }
    };
    facts.iter().map(row).collect()
}

const fn condition_name(condition: Condition) -> &'static str {
    match condition {
        Condition::Ejected => "ejected",
        Condition::FailsChecks => "fails_checks",
        Condition::Unreachable => "unreachable",
        Condition::Well => "healthy",
    }
}

/// The routes with the most requests, in the order of the table, and how many there are beside.
fn routes(
    telemetry: &Telemetry,
    facts: &[RouteFacts],
    marked: Option<&Mark>,
) -> (Vec<RouteRow>, usize) {
    let totals = telemetry.route_totals();
    let requests = |facts: &RouteFacts| {
        let totals = totals.get(&facts.route.name);
        totals.map(RouteTotals::requests).unwrap_or_default()
    };
    let mut shown: Vec<(usize, &RouteFacts)> = facts.iter().enumerate().collect();
    if shown.len() > ROUTES_MAX {
        shown.sort_by_key(|(_, facts)| std::cmp::Reverse(requests(facts)));
        shown.truncate(ROUTES_MAX);
        shown.sort_by_key(|(place, _)| *place);
    }
    let left_out = facts.len() - shown.len();
    let rows = shown.into_iter().map(|(_, facts)| {
        let name = &facts.route.name;
        let now = totals.get(name).copied().unwrap_or_default();
        route(facts, now, marked.map(|mark| mark.routes.get(name)))
    });
    (rows.collect(), left_out)
}

/// A route that no mark has had no requests then, or too few to be noted.
fn route(facts: &RouteFacts, now: RouteTotals, marked: Option<Option<&RouteTotals>>) -> RouteRow {
    let route = &facts.route;
    let before = match marked {
        None => None,
        Some(Some(before)) => Some(*before),
        Some(None) => Some(RouteTotals::default()),
    };
    let grown = |of: fn(&RouteTotals) -> u64| {
        before.map(|before| Count(of(&now).saturating_sub(of(&before))))
    };
    let durations = now
        .durations
        .since(&before.map(|before| before.durations).unwrap_or_default());
    RouteRow {
        name: Name(Arc::clone(&route.name)),
        hosts: route.hosts.iter().map(ToString::to_string).collect(),
        path: match &route.path {
            PathPattern::Exact(path) => path.to_string(),
            PathPattern::Prefix(path) => format!("{}/*", path.trim_end_matches('/')),
        },
        methods: route.methods.iter().map(ToString::to_string).collect(),
        access: match route.access {
            Access::Authenticated => "authenticated",
            Access::Optional => "optional",
            Access::Public => "public",
        },
        enforced: route.enforce,
        target: Name(Arc::clone(&facts.target)),
        last_minute: grown(RouteTotals::requests),
        refused_last_minute: grown(|totals| totals.refused),
        total: Count(now.requests()),
        p99: Millis(durations.quantile(990)),
    }
}

fn issuers(facts: &Facts) -> Vec<IssuerRow> {
    let rows = facts.issuers.iter().map(|issuer| IssuerRow {
        name: Name(Arc::clone(&issuer.name)),
        keys: issuer.keys.0,
        skipped: issuer.keys.1,
        age: issuer.age.map(|age| Span(age.as_secs())),
    });
    rows.collect()
}

fn signing_keys(facts: &Facts) -> Vec<KeyRow> {
    let rows = facts.signing_keys.iter().map(|key| KeyRow {
        kid: key.kid.clone(),
        algorithm: format!("{:?}", key.algorithm),
        state: match key.state {
            KeyState::Retiring => "retiring",
            KeyState::Signing => "signing",
            KeyState::Waiting => "waiting",
        },
        from: Moment(key.from),
    });
    rows.collect()
}

fn certificates(facts: &Facts, now: Moment) -> Vec<CertificateRow> {
    let rows = facts.certificates.iter().map(|(name, ends)| {
        let ends = moment(*ends);
        let signed = |moment: Moment| i64::try_from(moment.0).unwrap_or(i64::MAX);
        let days = signed(ends).saturating_sub(signed(now)).div_euclid(86_400);
        CertificateRow {
            name: name.clone(),
            ends,
            days,
            well: days >= DAYS_MIN,
        }
    });
    rows.collect()
}

fn node(
    telemetry: &Telemetry,
    facts: &Facts,
    degraded: &[Problem],
    sessions: Option<u64>,
) -> NodeRow {
    let (used, limit, stage) = facts.memory;
    let accounts = facts.accounts.as_ref();
    let waiting = |waiting: usize| Count(u64::try_from(waiting).unwrap_or(u64::MAX));
    NodeRow {
        memory: Bytes(used),
        memory_limit: (limit > 0).then_some(Bytes(limit)),
        memory_stage: stage,
        cache: Bytes(facts.cache_bytes),
        store: accounts.map(|accounts| accounts.store),
        revocation_lag: Millis(accounts.and_then(|accounts| accounts.lag)),
        sessions: sessions.map(Count),
        password_queue: accounts.map(|accounts| waiting(accounts.password_queue)),
        redis: facts
            .redis
            .then(|| !degraded.iter().any(|problem| problem.what == "redis")),
        log_dropped: Count(telemetry.log_dropped()),
        panics: Count(telemetry.panics()),
        admin_connections: Count(telemetry.open_connections("admin")),
    }
}

fn refusal(refusal: Refusal) -> RefusalRow {
    let (issuer, user) = refusal.caller.unzip();
    RefusalRow {
        time: moment(refusal.time),
        status: refusal.status,
        code: refusal.code,
        reason: refusal.reason,
        method: refusal.method,
        host: refusal.host,
        path: refusal.path,
        route: refusal.route.map(Name),
        client: refusal.client.to_string(),
        issuer,
        user,
        request_id: refusal.request_id,
    }
}

/// The longest of some durations, in milliseconds.
pub(super) fn millis(duration: Option<Duration>) -> f64 {
    duration.unwrap_or_default().as_secs_f64() * 1000.0
}
