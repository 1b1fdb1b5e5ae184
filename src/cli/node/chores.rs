//! What a node does beside its requests: mail, looks at stores, workers and memory, and what a scrape reads.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use tokio::{
    runtime::{Handle, Runtime},
    task::spawn_blocking,
    time::interval,
};

use crate::{
    accounts::{self, Delivery, Watch, watch_lag},
    admin::Readiness,
    assertion,
    config::assemble::Lasting,
    gateway::Gateway,
    limit::memory,
    server::{Server, pulse, tls::Tls},
    telemetry::Scrape,
};

/// Between two rounds of dropping cached tokens that have expired.
const TIDY_INTERVAL: Duration = Duration::from_secs(10);

/// What is done beside the requests, for as long as this lives.
#[derive(Debug)]
pub(super) struct Chores {
    _accounts: Option<Watch>,
    _assertions: Option<assertion::Watch>,
    pub(super) delivery: Option<Delivery>,
}

impl Chores {
    pub(super) fn begin(lasting: &Lasting, control: &Handle, readiness: &Arc<Readiness>) -> Self {
        let accounts = lasting.accounts.as_ref().map(|(accounts, _)| accounts);
        let assertions = lasting.assertions.as_ref();
        Self {
            _accounts: accounts.map(|accounts| accounts.watch(control, report_store(readiness))),
            _assertions: assertions.map(|on| on.watch(control)),
            delivery: accounts
                .and_then(|accounts| accounts.deliver(control, Arc::clone(&lasting.telemetry))),
        }
    }
}

/// Shows a store that cannot be used without making the node un-ready: proxied requests do not need it, and every node would
/// be at once (STORE-3).
fn report_store(readiness: &Arc<Readiness>) -> accounts::Report {
    let readiness = Arc::clone(readiness);
    Box::new(move |condition| readiness.set_degraded("account store", condition))
}

/// Watches how old what is known of revocations is (STORE-6). Degraded and not un-ready: every node would be at once, and what does
/// not need the store with them.
pub(super) fn watch_feed(control: &Runtime, lasting: &Lasting, readiness: &Arc<Readiness>) {
    let readiness = Arc::clone(readiness);
    let report = move |condition| readiness.set_degraded("revocations", condition);
    control.spawn(watch_lag(Arc::clone(&lasting.revocations), report));
    let revocations = Arc::clone(&lasting.revocations);
    lasting.telemetry.on_scrape(
        "revocations",
        Box::new(move |scrape| {
            let lag = revocations.feed().lag(Instant::now());
            scrape.revocation_lag(lag.unwrap_or_default());
        }),
    );
}

/// Drops now and then what has expired of what is remembered for speed.
pub(super) fn tidy(control: &Runtime, gateway: &Arc<ArcSwap<Gateway>>) {
    let gateway = Arc::clone(gateway);
    control.spawn(async move {
        let mut ticks = interval(TIDY_INTERVAL);
        loop {
            ticks.tick().await;
            let authn = Arc::clone(&gateway.load().authn);
            // One that panics is told of by the panic hook, and the next round begins anew.
            let _ = spawn_blocking(move || authn.tidy_cache()).await;
        }
    });
}

/// Watches whether the workers turn, and the memory, for them to give up what is next dear while it is scarce (FAULT-1).
pub(super) fn watch_workers(
    control: &Runtime,
    server: &Server,
    (gateway, readiness): (&Arc<ArcSwap<Gateway>>, &Arc<Readiness>),
) {
    let turning = Arc::clone(readiness);
    let report = move |worker, turns| turning.set(&format!("worker {worker}"), turns);
    control.spawn(pulse::watch(server.pulses().to_vec(), report));
    let pressure = Arc::clone(&gateway.load().memory);
    let (live, gateway) = (server.live().clone(), Arc::clone(gateway));
    let connections = live.clone();
    let readiness = Arc::clone(readiness);
    let hooks = memory::Hooks {
        limit: move || live.current().memory_limit,
        is_alone: move || connections.open_connections() == 0,
        give_up: move || gateway.load().authn.give_up_cache(),
        report: move |condition| readiness.set_degraded("memory", condition),
    };
    control.spawn(memory::watch(pressure, memory::Meter::find(), hooks));
}

/// Lets a scrape read what changes without an event.
pub(super) fn sample(lasting: &Lasting, gateway: &Arc<ArcSwap<Gateway>>, tls: &Arc<Tls>) {
    let telemetry = &lasting.telemetry;
    if let Some((accounts, _)) = &lasting.accounts {
        let accounts = Arc::clone(accounts);
        let sampler =
            move |scrape: &mut Scrape<'_>| scrape.password_queue(accounts.password_queue());
        telemetry.on_scrape("accounts", Box::new(sampler));
    }
    let tls = Arc::clone(tls);
    telemetry.on_scrape("tls", Box::new(move |scrape| tls.sample(scrape)));
    let memory = Arc::clone(&gateway.load().memory);
    telemetry.on_scrape(
        "memory",
        Box::new(move |scrape| scrape.memory(memory.seen(), memory.stage().number())),
    );
    let gateway = Arc::clone(gateway);
    telemetry.on_scrape(
        "authn",
        Box::new(move |scrape| {
            let authn = Arc::clone(&gateway.load().authn);
            let cache = authn.cache_stats();
            scrape.token_cache_bytes(cache.bytes);
            scrape.token_cache_lookups([cache.hits, cache.joined, cache.misses]);
            for (issuer, status) in authn.key_status() {
                let (usable, skipped) = status.map_or((0, 0), |keys| (keys.usable, keys.skipped));
                scrape.jwks_keys(&issuer, usable, skipped);
                if let Some(keys) = status {
                    scrape.jwks_age(&issuer, keys.age);
                }
            }
        }),
    );
}
