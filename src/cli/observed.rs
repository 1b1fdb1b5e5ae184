//! What the status page asks of a node, answered from what runs.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;

use crate::{
    accounts::Accounts,
    admin::status::{AccountFacts, Facts, IssuerFacts, Observed, RouteFacts, UpstreamFacts},
    authn::Revocations,
    gateway::Gateway,
    policy::Target,
    server::tls::Tls,
    upstream::Upstream,
};

/// A node that runs, seen from the status page.
pub(super) struct ObservedNode {
    pub(super) gateway: Arc<ArcSwap<Gateway>>,
    pub(super) tls: Arc<Tls>,
    pub(super) accounts: Option<Arc<Accounts>>,
    pub(super) revocations: Arc<Revocations>,
    /// Whether the configuration names a Redis, which a reload does not change.
    pub(super) redis: bool,
}

impl Observed for ObservedNode {
    fn cache(&self) -> [u64; 3] {
        let cache = self.gateway.load().authn.cache_stats();
        [cache.hits, cache.joined, cache.misses]
    }

    fn facts(&self) -> Facts {
        let gateway = self.gateway.load_full();
        let (used, limit) = gateway.memory.seen();
        let accounts = self.accounts.as_ref();
        Facts {
            routes: routes(&gateway),
            upstreams: gateway.upstreams.iter().map(upstream).collect(),
            issuers: issuers(&gateway),
            signing_keys: accounts
                .map(|accounts| accounts.signing_keys())
                .unwrap_or_default(),
            certificates: self.tls.certificates(),
            cache_bytes: gateway.authn.cache_stats().bytes,
            memory: (used, limit, gateway.memory.stage().number()),
            accounts: accounts.map(|accounts| AccountFacts {
                store: match accounts.settings().postgres {
                    Some(_) => "PostgreSQL",
                    None => "SQLite",
                },
                lag: self.lag(),
                password_queue: accounts.password_queue(),
            }),
            redis: self.redis,
        }
    }

    fn sessions(&self) -> BoxFuture<'_, Option<u64>> {
        Box::pin(async { self.accounts.as_ref()?.count_sessions().await.ok() })
    }
}

impl ObservedNode {
    fn lag(&self) -> Option<Duration> {
        self.revocations.feed().lag(Instant::now())
    }
}

fn routes(gateway: &Gateway) -> Vec<RouteFacts> {
    let routes = gateway.routes.all().iter();
    let facts = routes.map(|route| RouteFacts {
        route: Arc::clone(route),
        target: match route.target {
            Target::Accounts => "(accounts)".into(),
            Target::AssertionKeys => "(assertion keys)".into(),
            Target::Elsewhere => "(another proxy)".into(),
            Target::ForwardAuth => "(forward_auth)".into(),
            Target::Upstream(id) => match gateway.upstreams.get(id.0) {
                Some(upstream) => Arc::clone(&upstream.settings().name),
                None => "?".into(),
            },
        },
    });
    facts.collect()
}

fn upstream(upstream: &Arc<Upstream>) -> UpstreamFacts {
    let servers = upstream.servers().iter();
    UpstreamFacts {
        name: Arc::clone(&upstream.settings().name),
        servers: servers
            .map(|server| (server.address().to_string(), server.condition()))
            .collect(),
    }
}

fn issuers(gateway: &Gateway) -> Vec<IssuerFacts> {
    let issuers = gateway.authn.key_status().into_iter();
    let facts = issuers.map(|(name, status)| IssuerFacts {
        name,
        keys: status.map_or((0, 0), |keys| (keys.usable, keys.skipped)),
        age: status.map(|keys| keys.age),
    });
    facts.collect()
}

impl fmt::Debug for ObservedNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ObservedNode(..)")
    }
}
