//! Every section in turn, and what two of them mean together.

use std::{collections::BTreeSet, sync::Arc};

use toml::{Spanned, de::DeTable};

use super::{
    Config, accounts,
    bounds::Bounds,
    cluster,
    context::Context,
    diagnostic::{Fault, Problems},
    forward_auth, identity, issuer, limit, log, mail, overlap,
    reader::Table,
    route::{self, Placed, Surroundings},
    server, spans, tls, upstream,
};
use crate::{
    accounts::settings::AccountSettings,
    authn::settings::{BUILT_IN, IssuerSettings},
    policy::Access,
    server::settings::ServerSettings,
};

/// Reads every section. `None` only where a problem was reported.
pub(super) fn read<'d>(
    context: &'d Context<'d>,
    document: &'d Spanned<DeTable<'d>>,
) -> Option<Config> {
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
    let accounts = accounts_with_mail(&mut top, limit.ipv6_site_factor, server, tls.development);
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
    let tracing = spans::read(top.section("tracing"));
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
        limit: limit.per_client,
        x_rate_limit: limit.x_headers,
        upstreams: upstreams.settings,
        route_limits: route::limits(&routes),
        table: table?,
        routes: routes.into_iter().map(|placed| placed.route).collect(),
        forward_auth,
        accounts,
        cluster,
        tracing,
        log,
    })
}

/// The accounts, and how their owners are written to.
fn accounts_with_mail(
    top: &mut Table<'_>,
    ipv6_site_factor: u32,
    server: Option<&ServerSettings>,
    development: bool,
) -> Option<AccountSettings> {
    let there = (top.has("accounts"), top.has("mail"));
    let accounts = accounts::read(top.section("accounts"), there, ipv6_site_factor, server);
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
