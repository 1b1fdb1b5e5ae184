//! Every word of the status page, in one place: a translation is another table of this type.

/// The words of the page.
#[derive(Debug)]
pub(super) struct Texts {
    /// `lang` of the page (BCP 47).
    pub(super) language: &'static str,
    /// The title.
    pub(super) title: &'static str,
    /// Said while values arrive by themselves.
    pub(super) live: &'static str,
    /// Said while they are held back.
    pub(super) paused: &'static str,
    /// Said when they stopped.
    pub(super) lost: &'static str,
    /// The button that holds them back.
    pub(super) pause: &'static str,
    /// The button that lets them go on.
    pub(super) go_on: &'static str,
    /// Said where there are no scripts.
    pub(super) no_script: &'static str,
    /// The link that loads it again.
    pub(super) reload_page: &'static str,
    /// The node takes requests.
    pub(super) state_ready: &'static str,
    /// It does, and something is wrong.
    pub(super) state_degraded: &'static str,
    /// It does not.
    pub(super) state_not_ready: &'static str,
    /// It ends.
    pub(super) state_draining: &'static str,
    /// Before the time since the start.
    pub(super) up: &'static str,
    /// Requests in a second.
    pub(super) requests: &'static str,
    /// Of them refused.
    pub(super) refused: &'static str,
    /// Of them failed.
    pub(super) failed: &'static str,
    /// The median.
    pub(super) p50: &'static str,
    /// The 99th percentile.
    pub(super) p99: &'static str,
    /// The median of the latency.
    pub(super) latency: &'static str,
    /// Its 99th percentile.
    pub(super) latency_p99: &'static str,
    /// The part of look-ups of the token cache that hit.
    pub(super) cache_hits: &'static str,
    /// Open connections.
    pub(super) connections: &'static str,
    /// Open tunnels.
    pub(super) tunnels: &'static str,
    /// Memory in use.
    pub(super) memory: &'static str,
    /// Sessions of accounts.
    pub(super) sessions: &'static str,
    /// The first plot.
    pub(super) requests_plot: &'static str,
    /// The second.
    pub(super) latency_plot: &'static str,
    /// The third.
    pub(super) cache_plot: &'static str,
    /// What the plots go over.
    pub(super) five_minutes: &'static str,
    /// What is wrong.
    pub(super) troubles: &'static str,
    /// Requests by code.
    pub(super) decisions: &'static str,
    /// Requests refused by limits.
    pub(super) limits: &'static str,
    /// There were none.
    pub(super) no_limits: &'static str,
    /// A code.
    pub(super) code: &'static str,
    /// A limit.
    pub(super) limit: &'static str,
    /// Count of the last minute.
    pub(super) last_minute: &'static str,
    /// Count since the start.
    pub(super) total: &'static str,
    /// The upstreams.
    pub(super) upstreams: &'static str,
    /// An upstream.
    pub(super) upstream: &'static str,
    /// Its servers.
    pub(super) servers: &'static str,
    /// A server that takes requests.
    pub(super) healthy: &'static str,
    /// One that cannot be reached.
    pub(super) unreachable: &'static str,
    /// One that had too many faults.
    pub(super) ejected: &'static str,
    /// One whose health checks fail.
    pub(super) fails_checks: &'static str,
    /// The routes.
    pub(super) routes: &'static str,
    /// A route.
    pub(super) route: &'static str,
    /// What it matches.
    pub(super) matches: &'static str,
    /// It answers to every host.
    pub(super) any_host: &'static str,
    /// Who may.
    pub(super) access: &'static str,
    /// It only tells.
    pub(super) not_enforced: &'static str,
    /// Where its requests go.
    pub(super) to: &'static str,
    /// Refused in the last minute.
    pub(super) refused_minute: &'static str,
    /// After a count of routes.
    pub(super) left_out: &'static str,
    /// Keys that verify tokens.
    pub(super) keys: &'static str,
    /// An issuer.
    pub(super) issuer: &'static str,
    /// Keys that can be used.
    pub(super) usable: &'static str,
    /// Those that cannot.
    pub(super) skipped: &'static str,
    /// Since they were read or fetched.
    pub(super) age: &'static str,
    /// After a while.
    pub(super) ago: &'static str,
    /// They never were.
    pub(super) never: &'static str,
    /// Keys that sign tokens of accounts.
    pub(super) signing_keys: &'static str,
    /// A key.
    pub(super) key: &'static str,
    /// Its algorithm.
    pub(super) algorithm: &'static str,
    /// What it does.
    pub(super) state: &'static str,
    /// It signs.
    pub(super) signing: &'static str,
    /// It will.
    pub(super) waiting: &'static str,
    /// It did.
    pub(super) retiring: &'static str,
    /// Since when.
    pub(super) since: &'static str,
    /// Certificates in use.
    pub(super) certificates: &'static str,
    /// A name in one.
    pub(super) certificate: &'static str,
    /// When it ends.
    pub(super) ends: &'static str,
    /// After a number of days.
    pub(super) days: &'static str,
    /// The process.
    pub(super) node: &'static str,
    /// Its version.
    pub(super) version: &'static str,
    /// When it started.
    pub(super) started: &'static str,
    /// Its configuration.
    pub(super) configuration: &'static str,
    /// It was not loaded anew.
    pub(super) as_started: &'static str,
    /// It was.
    pub(super) taken: &'static str,
    /// It was, and was the same.
    pub(super) unchanged: &'static str,
    /// It was not: errors.
    pub(super) config_refused: &'static str,
    /// It was not: a restart is needed.
    pub(super) restart_required: &'static str,
    /// What keeps accounts.
    pub(super) store: &'static str,
    /// Before how long ago revocations were read.
    pub(super) lag: &'static str,
    /// Redis.
    pub(super) redis: &'static str,
    /// It can be used.
    pub(super) redis_up: &'static str,
    /// It cannot.
    pub(super) redis_down: &'static str,
    /// Requests that wait for a password hash.
    pub(super) hash_queue: &'static str,
    /// The memory of the cache.
    pub(super) cache_memory: &'static str,
    /// Before the whole.
    pub(super) of: &'static str,
    /// Memory.
    pub(super) memory_stage: &'static str,
    /// How scarce it is, from not at all.
    pub(super) stage_0: &'static str,
    /// The first stage.
    pub(super) stage_1: &'static str,
    /// The second.
    pub(super) stage_2: &'static str,
    /// The third.
    pub(super) stage_3: &'static str,
    /// The fourth.
    pub(super) stage_4: &'static str,
    /// Faults of the process.
    pub(super) faults: &'static str,
    /// Tasks that panicked.
    pub(super) panics: &'static str,
    /// Log lines that were dropped.
    pub(super) log_dropped: &'static str,
    /// The last refusals.
    pub(super) refusals: &'static str,
    /// What is shown of them.
    pub(super) refusals_note: &'static str,
    /// There were none.
    pub(super) no_refusals: &'static str,
    /// When.
    pub(super) time: &'static str,
    /// What was asked.
    pub(super) request: &'static str,
    /// Who asked.
    pub(super) client: &'static str,
    /// Why it was refused.
    pub(super) because: &'static str,
    /// Its name.
    pub(super) request_id: &'static str,
    /// The head was not read, or there is no access log.
    pub(super) no_path: &'static str,
}

/// English.
pub(super) static ENGLISH: Texts = Texts {
    language: "en",
    title: "Status",
    live: "live",
    paused: "paused",
    lost: "no connection, trying again",
    pause: "Pause",
    go_on: "Resume",
    no_script: "Without scripts this page shows the moment at which it was loaded.",
    reload_page: "Load it again",
    state_ready: "ready",
    state_degraded: "ready, with troubles",
    state_not_ready: "not ready",
    state_draining: "shutting down",
    up: "up",
    requests: "requests/s",
    refused: "refused/s",
    failed: "5xx/s",
    p50: "median",
    p99: "99 %",
    latency: "p50 latency",
    latency_p99: "p99 latency",
    cache_hits: "cache hits",
    connections: "connections",
    tunnels: "WebSockets",
    memory: "memory",
    sessions: "sessions",
    requests_plot: "Requests per second",
    latency_plot: "Latency",
    cache_plot: "Token cache hits",
    five_minutes: "the last 5 minutes",
    troubles: "Troubles",
    decisions: "Decisions",
    limits: "Limits hit",
    no_limits: "No limit has refused anything.",
    code: "Code",
    limit: "Limit",
    last_minute: "Last minute",
    total: "Since the start",
    upstreams: "Upstreams",
    upstream: "Upstream",
    servers: "Servers",
    healthy: "healthy",
    unreachable: "unreachable",
    ejected: "ejected",
    fails_checks: "fails its checks",
    routes: "Routes",
    route: "Route",
    matches: "Matches",
    any_host: "any host",
    access: "Access",
    not_enforced: "not enforced",
    to: "To",
    refused_minute: "Refused",
    left_out: "more routes with fewer requests are not shown.",
    keys: "Keys",
    issuer: "Issuer",
    usable: "Keys",
    skipped: "skipped",
    age: "Read",
    ago: "ago",
    never: "no key yet",
    signing_keys: "Own signing keys",
    key: "Key",
    algorithm: "Algorithm",
    state: "State",
    signing: "signs",
    waiting: "waits",
    retiring: "believed",
    since: "From",
    certificates: "Certificates",
    certificate: "Name",
    ends: "Ends",
    days: "days",
    node: "Node",
    version: "Version",
    started: "Started",
    configuration: "Configuration",
    as_started: "as at the start",
    taken: "reloaded",
    unchanged: "looked at, unchanged",
    config_refused: "refused: it has errors",
    restart_required: "refused: needs a restart",
    store: "Account store",
    lag: "revocations read",
    redis: "Redis",
    redis_up: "in use",
    redis_down: "cannot be used",
    hash_queue: "waiting for a password hash",
    cache_memory: "Token cache",
    of: "of",
    memory_stage: "Memory",
    stage_0: "not scarce",
    stage_1: "scarce: kept connections end",
    stage_2: "scarce: new requests are refused",
    stage_3: "scarce: new connections are closed",
    stage_4: "scarce: open connections are cut off",
    faults: "Faults",
    panics: "panics",
    log_dropped: "log lines dropped",
    refusals: "Last refusals",
    refusals_note: "The last 100, of any second 20 at most. Host and path are those of the access log, and not kept where there is none.",
    no_refusals: "Nothing has been refused.",
    time: "Time (UTC)",
    request: "Request",
    client: "Client",
    because: "Code and reason",
    request_id: "Request id",
    no_path: "not kept",
};

impl Texts {
    /// How the node is.
    pub(super) fn node_state(&self, state: &str) -> &'static str {
        match state {
            "ready" => self.state_ready,
            "degraded" => self.state_degraded,
            "draining" => self.state_draining,
            _ => self.state_not_ready,
        }
    }

    /// How a server is.
    pub(super) fn server_state(&self, state: &str) -> &'static str {
        match state {
            "healthy" => self.healthy,
            "ejected" => self.ejected,
            "fails_checks" => self.fails_checks,
            _ => self.unreachable,
        }
    }

    /// What a signing key does.
    pub(super) fn key_state(&self, state: &str) -> &'static str {
        match state {
            "signing" => self.signing,
            "waiting" => self.waiting,
            _ => self.retiring,
        }
    }

    /// What came of the last reload.
    pub(super) fn reload(&self, result: &str) -> &'static str {
        match result {
            "taken" => self.taken,
            "unchanged" => self.unchanged,
            "restart_required" => self.restart_required,
            _ => self.config_refused,
        }
    }

    /// How scarce memory is.
    pub(super) fn memory(&self, stage: &u8) -> &'static str {
        match stage {
            0 => self.stage_0,
            1 => self.stage_1,
            2 => self.stage_2,
            3 => self.stage_3,
            _ => self.stage_4,
        }
    }
}
