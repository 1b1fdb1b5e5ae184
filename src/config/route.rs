//! The sections `[[route]]`.

use std::{collections::HashMap, sync::Arc, time::Duration};

use http::Method;
use ipnet::IpNet;

use super::{
    bounds::Bounds,
    cors,
    diagnostic::{Fault, Place},
    header_edits::{self, Side},
    limit,
    name::read_name,
    network,
    overlap::covers,
    reader::{Table, Text},
    rule,
    server::{BODY, secs},
    upstream::Upstreams,
    words::{Choice::Is, refuse_repeats, suggest},
};
use crate::{
    limit::settings::RouteLimitSettings,
    policy::{
        Access, Addresses, Browsers, HostPattern, IdentityHeaders, NormalPath, PathFault,
        PathPattern, Route, Rule, Streams, Target, head,
    },
    upstream::settings::{Protocol, ServerAddress},
};

/// What a route refers to.
pub(super) struct Surroundings<'s> {
    pub(super) upstreams: &'s Upstreams,
    /// Every name that `require.issuers` may hold.
    pub(super) issuers: &'s [Arc<str>],
    /// What requests are told of the caller, which a route cannot change.
    pub(super) identity: &'s IdentityHeaders,
    /// Whether other proxies ask about requests that they forward themselves.
    pub(super) asked_by_proxies: bool,
    /// The largest body where the route says nothing.
    pub(super) body_bytes: u64,
    /// Whether there is a built-in issuer.
    pub(super) has_accounts: bool,
    /// Whether browsers can sign in, to accounts of the gateway's own.
    pub(super) has_pages: bool,
}

/// A route and where it stands.
pub(super) struct Placed {
    pub(super) route: Arc<Route>,
    pub(super) limits: Vec<RouteLimitSettings>,
    pub(super) place: Place,
}

pub(super) fn read(tables: Vec<Table<'_>>, around: &Surroundings<'_>) -> Vec<Placed> {
    // Room for all at once: ten thousand of them, moved again and again as the list grows, take longer than all else here.
    let mut routes = Vec::with_capacity(tables.len());
    let mut names = Vec::with_capacity(tables.len());
    let problems = tables.first().map(|table| &table.context.problems);
    for table in tables {
        let (name, route) = read_one(table, routes.len(), around);
        names.extend(name);
        routes.extend(route);
    }
    if let Some(problems) = problems {
        refuse_repeats(problems, "route", names);
    }
    routes
}

fn read_one(
    mut table: Table<'_>,
    index: usize,
    around: &Surroundings<'_>,
) -> (Option<(Arc<str>, Place)>, Option<Placed>) {
    let name = read_name(&mut table);
    let hosts = hosts(&mut table);
    let path = path(&mut table);
    let methods = methods(&mut table);
    let strip_prefix = strip_prefix(&mut table, path.as_ref());
    let target = target(&mut table, around);
    let addresses = addresses(&mut table);
    let access = access(&mut table);
    let rule = rule::of(&mut table, access, around.issuers);
    let enforce = enforce(&mut table);
    let strict = rule::strict(&mut table, access, around.has_accounts, &rule);
    let caller = Side::Request(around.identity);
    let request_headers = header_edits::read(&mut table, "request_headers", caller);
    let response_headers = header_edits::read(&mut table, "response_headers", Side::Response);
    let cors = cors::read(&mut table);
    let max_body = table.size("max_body", BODY);
    let bounds = Bounds::new(Duration::from_millis(100), secs(24 * 3600));
    let timeout = table.duration("timeout", bounds);
    let streams = streams(&mut table);
    refuse_shared_sockets(&mut table, streams, target, around.upstreams);
    let browsers = browsers(&mut table, around.has_pages, &rule);
    let limits = limit::read_route(&mut table, access);
    let place = table.place.clone();
    table.finish();
    let route = || {
        Some(Placed {
            route: Arc::new(Route {
                name: Arc::clone(&name.as_ref()?.0),
                index,
                hosts: hosts?,
                path: path?,
                methods: methods?,
                target: target?,
                strip_prefix,
                addresses: addresses?,
                access: access?,
                rule,
                enforce,
                strict,
                request_headers,
                response_headers,
                cors,
                max_body: max_body.unwrap_or(around.body_bytes),
                timeout: timeout.unwrap_or(secs(300)),
                streams,
                browsers,
            }),
            limits,
            place,
        })
    };
    let route = route();
    (name, route)
}

/// The limits of the routes that have any, by their names.
pub(super) fn limits(routes: &[Placed]) -> HashMap<Arc<str>, Vec<RouteLimitSettings>> {
    let limited = routes.iter().filter(|placed| !placed.limits.is_empty());
    let named = limited.map(|placed| (Arc::clone(&placed.route.name), placed.limits.clone()));
    named.collect()
}

/// Whether the route's rules are enforced. They are unless the operator is trying them out, and then he is told at each start.
fn enforce(table: &mut Table<'_>) -> bool {
    let enforce = table.flag("enforce").unwrap_or(true);
    if !enforce {
        let message = "lets every request pass and only tells what would be refused";
        let hint =
            "enforce = true when the access log shows no `unenforced` that should not be there";
        table
            .context
            .problems
            .warn(&table.place_of("enforce"), Fault::new(message, hint));
    }
    enforce
}

fn hosts(table: &mut Table<'_>) -> Option<Vec<HostPattern>> {
    if !table.has("hosts") {
        return Some(Vec::new());
    }
    let texts = table.texts("hosts", "no host would match; leave it out for every host")?;
    let problems = &table.context.problems;
    let several = texts.len() > 1;
    let mut hosts = Vec::with_capacity(texts.len());
    let mut written = Vec::new();
    for Text { text, place } in texts {
        match host(text) {
            Ok(pattern) => {
                if !hosts.contains(&pattern) {
                    hosts.push(pattern);
                }
                if several {
                    written.push((text.to_ascii_lowercase(), place));
                }
            }
            Err(fault) => problems.add(&place, fault),
        }
    }
    refuse_repeats(problems, "host", written);
    Some(hosts)
}

fn host(text: &str) -> Result<HostPattern, Fault> {
    let hint =
        "a name or address without scheme, port and path: \"app.example.com\", \"*.example.com\"";
    let bad = |what: &str| Fault::new(format!("`{text}` {what}"), hint);
    let (name, wildcard) = match text.strip_prefix("*.") {
        Some(name) => (name, true),
        None => (text, false),
    };
    if name.contains('*') {
        return Err(bad("has a `*` that is not the first label"));
    }
    let is_ipv6 = name.starts_with('[') && name.ends_with(']');
    if name.contains(':') && !is_ipv6 {
        return Err(bad("has a port or a scheme"));
    }
    let host = head::host(name).ok_or_else(|| bad("is not a host"))?;
    if wildcard && (is_ipv6 || name.parse::<std::net::IpAddr>().is_ok()) {
        return Err(bad("is a wildcard over an address"));
    }
    Ok(if wildcard {
        HostPattern::Wildcard(host.into())
    } else {
        HostPattern::Exact(host.into())
    })
}

fn path(table: &mut Table<'_>) -> Option<PathPattern> {
    match (table.has("path"), table.has("path_prefix")) {
        (true, true) => table.fault(
            "path",
            Fault::new("is there beside path_prefix", "leave exactly one"),
        ),
        (false, false) => table.need(
            "path_prefix",
            "path_prefix = \"/app\", or path = \"/exact\"",
        ),
        (true, false) | (false, true) => {}
    }
    let exact = table.parsed("path", normal);
    let prefix = table.parsed("path_prefix", normal);
    exact
        .map(PathPattern::Exact)
        .or(prefix.map(PathPattern::Prefix))
}

/// A path as requests are matched by it. What would be normalised away is refused, for a reader would see another path
/// than the one that is protected.
fn normal(text: &str) -> Result<Box<str>, Fault> {
    let hint = "begins with `/`; no `.` or `..` segments, `%2F`, `;`, `\\`, `?`, `#` or spaces";
    if text.contains('?') {
        return Err(Fault::new(format!("`{text}` holds a query"), hint));
    }
    match NormalPath::parse(text) {
        Ok(path) if path.as_str() == text => Ok(text.into()),
        Ok(path) => Err(Fault::new(
            format!("`{text}` is not normalised"),
            format!("requests are matched as `{}`; write it so", path.as_str()),
        )),
        Err(PathFault::Relative) => Err(Fault::new(
            format!("`{text}` does not begin with `/`"),
            hint,
        )),
        Err(_) => Err(Fault::new(
            format!("`{text}` could be read in two ways"),
            hint,
        )),
    }
}

/// What is cut off must be part of every path that the route takes: a prefix of `path_prefix`, on a segment boundary.
fn strip_prefix(table: &mut Table<'_>, path: Option<&PathPattern>) -> Option<Box<str>> {
    table.parsed("strip_prefix", |text| {
        let prefix = normal(text)?;
        let bare = prefix.trim_end_matches('/');
        if bare.is_empty() {
            let hint = "every path begins with `/`; take the key out";
            return Err(Fault::new("strips nothing", hint));
        }
        match path {
            Some(PathPattern::Exact(_)) => Err(Fault::new(
                "is for routes with a path_prefix",
                "write path_prefix instead of path, or take the key out",
            )),
            Some(PathPattern::Prefix(path)) if !covers(bare, path) => Err(Fault::new(
                format!("`{text}` is not a prefix of path_prefix, `{path}`"),
                format!("write `{path}`, or the segments that it begins with"),
            )),
            Some(PathPattern::Prefix(_)) | None => Ok(bare.into()),
        }
    })
}

fn methods(table: &mut Table<'_>) -> Option<Vec<Method>> {
    if !table.has("methods") {
        return Some(Vec::new());
    }
    let texts = table.texts(
        "methods",
        "no request would match; leave it out for every method",
    )?;
    let mut methods = Vec::with_capacity(texts.len());
    for Text { text, place } in texts {
        match method(text) {
            Ok(method) => methods.push(method),
            Err(fault) => table.context.problems.add(&place, fault),
        }
    }
    Some(methods)
}

pub(super) fn method(text: &str) -> Result<Method, Fault> {
    let bad = |what: &str, hint: &str| Err(Fault::new(format!("`{text}` {what}"), hint));
    match Method::from_bytes(text.as_bytes()) {
        Ok(Method::CONNECT | Method::TRACE) => bad("is never forwarded", "take it out"),
        _ if text.bytes().any(|byte| byte.is_ascii_lowercase()) => bad(
            "is not in capitals",
            "methods are case-sensitive: \"GET\", \"POST\"",
        ),
        Ok(method) => Ok(method),
        Err(_) => bad(
            "is not a method",
            "\"GET\", \"POST\", ..; leave the key out for all",
        ),
    }
}

fn target(table: &mut Table<'_>, around: &Surroundings<'_>) -> Option<Target> {
    if around.asked_by_proxies && !table.has("upstream") {
        return Some(Target::Elsewhere);
    }
    let upstreams = around.upstreams;
    table.need("upstream", "the name of an [[upstream]]");
    let Text { text, place } = table.text("upstream")?;
    let Some(id) = upstreams.places.get(text) else {
        let hint = if upstreams.places.is_empty() {
            "there is no [[upstream]]".to_owned()
        } else {
            suggest(text, upstreams.places.keys().map(|name| &**name))
        };
        let fault = Fault::new(format!("no upstream is named `{text}`"), hint);
        table.context.problems.add(&place, fault);
        return None;
    };
    id.map(Target::Upstream)
}

/// Where a network could not be read there is no route: its list would be another one without it.
fn addresses(table: &mut Table<'_>) -> Option<Addresses> {
    let allow = networks(table, "allow_ips")?;
    let deny = networks(table, "deny_ips")?;
    if let Some(dead) = allow
        .iter()
        .find(|one| deny.iter().any(|net| net.contains(*one)))
    {
        let fault = format!("`{dead}` is wholly within `deny_ips`, which wins");
        table.fault(
            "allow_ips",
            Fault::new(fault, "take it out of one of the two lists"),
        );
    }
    let everything = "nobody could use the route; take it out, or narrow the list";
    network::refuse_everything(table, "deny_ips", &deny, everything);
    Some(Addresses { allow, deny })
}

fn networks(table: &mut Table<'_>, key: &'static str) -> Option<Vec<IpNet>> {
    if !table.has(key) {
        return Some(Vec::new());
    }
    let networks = network::read(table, key)?;
    Some(networks.into_iter().map(|(network, _)| network).collect())
}

/// What the route allows of exchanges that go on.
fn streams(table: &mut Table<'_>) -> Streams {
    let usual = Streams::default();
    let bounds = Bounds::new(secs(1), secs(24 * 3600));
    Streams {
        websocket: table.flag("websocket").unwrap_or(usual.websocket),
        trailers: table.flag("trailers").unwrap_or(usual.trailers),
        idle_timeout: table
            .duration("idle_timeout", bounds)
            .unwrap_or(usual.idle_timeout),
    }
}

/// What the route does for browsers. Whoever may not use it once he has signed in is not sent to do so.
fn browsers(table: &mut Table<'_>, has_pages: bool, rule: &Rule) -> Browsers {
    let words = [("auto", Is(true)), ("never", Is(false))];
    let asked = table.choice("sign_in", &words);
    if asked == Some(true) && !has_pages {
        let hint = "[accounts] with cookie_session = true, or take the key out";
        let fault = Fault::new("\"auto\" needs a page to sign in at", hint);
        table.fault("sign_in", fault);
    }
    let takes_ours = rule::takes_ours(rule);
    Browsers {
        cookie: has_pages && takes_ours,
        sign_in: has_pages && takes_ours && asked.unwrap_or(true),
    }
}

/// An upstream's connection that becomes a WebSocket cannot be one that other requests use, too.
fn refuse_shared_sockets(
    table: &mut Table<'_>,
    streams: Streams,
    target: Option<Target>,
    upstreams: &Upstreams,
) {
    let Some(Target::Upstream(id)) = target.filter(|_| streams.websocket) else {
        return;
    };
    let Some(upstream) = upstreams.settings.get(id.0) else {
        return;
    };
    let may_share = match upstream.protocol {
        Protocol::Auto => upstream.servers.iter().any(ServerAddress::is_tls),
        Protocol::Http1 => false,
        Protocol::Http2 => true,
    };
    if may_share {
        let what = format!("needs HTTP/1.1, and `{}` may speak HTTP/2", upstream.name);
        let hint = "protocol = \"http1\" on that upstream, or on one of its own for this route";
        table.fault("websocket", Fault::new(what, hint));
    }
}

fn access(table: &mut Table<'_>) -> Option<Access> {
    table.need(
        "access",
        "who may: \"authenticated\", \"optional\" or \"public\"",
    );
    table.choice(
        "access",
        &[
            ("authenticated", Is(Access::Authenticated)),
            ("optional", Is(Access::Optional)),
            ("public", Is(Access::Public)),
        ],
    )
}
