//! The section `[server]`.

use std::{
    net::SocketAddr,
    num::NonZero,
    path::{Path, PathBuf},
    time::Duration,
};

use url::{Host, Url};

use super::{
    bounds::Bounds,
    diagnostic::Fault,
    files, network,
    reader::{Table, Text},
    units,
    words::{Choice::Is, refuse_repeats},
};
use crate::{
    limit::settings::Quota,
    policy::{ForwardedHeaders, TrustedProxies, head::HeadLimits},
    server::settings::{ServerSettings, Timeouts},
};

const PUBLIC_URL: &str = "https://localhost:8443";

pub(super) fn read(mut table: Table<'_>) -> Option<ServerSettings> {
    let listen = listen(&mut table);
    let redirect_listen = redirect_listen(&mut table, &listen);
    let public: Vec<_> = listen.iter().chain(&redirect_listen).copied().collect();
    let admin_listen = admin_listen(&mut table, &public);
    let public_url = public_url(&mut table);
    let workers = table
        .number("workers", Bounds::new(0, 1024))
        .unwrap_or(0_usize);
    let trusted_proxies = trusted_proxies(&mut table);
    let trusted_proxies = forwarded_headers(&mut table, trusted_proxies);
    let proxy_protocol = proxy_protocol(&mut table, &trusted_proxies);
    let max_connections = table.number("max_connections", Bounds::new(1, 10_000_000));
    let max_connections_per_ip = table.number("max_connections_per_ip", Bounds::new(1, 10_000_000));
    let memory_limit = table.size("memory_limit", MEMORY);
    let drain_delay = table.duration("drain_delay", Bounds::new(Duration::ZERO, secs(3600)));
    let drain_timeout = table.duration("drain_timeout", Bounds::new(Duration::ZERO, secs(3600)));
    let root = table.context.root;
    let takeover_socket = table.parsed("takeover_socket", |text| takeover_socket(root, text));
    let timeouts = timeouts(table.section("timeouts"));
    let limits = limits(table.section("limits"));
    table.finish();
    Some(ServerSettings {
        listen,
        redirect_listen,
        admin_listen,
        public_url: public_url?,
        workers: if workers == 0 { cores() } else { workers },
        trusted_proxies,
        proxy_protocol,
        max_connections: max_connections.unwrap_or(20_000),
        max_connections_per_ip: max_connections_per_ip.unwrap_or(1000),
        drain_delay: drain_delay.unwrap_or(Duration::ZERO),
        drain_timeout: drain_timeout.unwrap_or(secs(30)),
        takeover_socket,
        timeouts,
        head: limits.head,
        body_bytes: limits.body_bytes,
        h2_streams: limits.h2_streams,
        h2_control_frames: limits.h2_control_frames,
        memory_limit,
        body_rate: limits.body_rate,
    })
}

/// What a limit of memory may be.
const MEMORY: Bounds<u64> = Bounds::new(16 << 20, 1 << 44);

/// What the kernel takes of a path (unix(7)), less the byte of the name that the socket has before it is there.
const SOCKET_PATH_BYTES: usize = 106;

fn takeover_socket(root: &Path, text: &str) -> Result<PathBuf, Fault> {
    let path = files::resolve(root, text);
    if path.as_os_str().len() > SOCKET_PATH_BYTES {
        let message = format!("{} is too long for a socket", path.display());
        let hint = format!(
            "an absolute path of at most {SOCKET_PATH_BYTES} bytes: \"/run/portcullis/takeover.sock\""
        );
        return Err(Fault::new(message, hint));
    }
    Ok(path)
}

/// The number of cores this process may use.
pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

/// Whether only this machine reaches the host of a URL.
pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

fn listen(table: &mut Table<'_>) -> Vec<SocketAddr> {
    let default = SocketAddr::from(([0, 0, 0, 0], 8443));
    let empty = "the gateway would serve nobody; leave the key out for 0.0.0.0:8443";
    let Some(texts) = table.texts("listen", empty) else {
        return vec![default];
    };
    sockets(table, texts)
}

fn redirect_listen(table: &mut Table<'_>, listen: &[SocketAddr]) -> Vec<SocketAddr> {
    let texts = table.texts_or_none("redirect_listen");
    let addresses = sockets(table, texts.unwrap_or_default());
    let shared = |address: &&SocketAddr| address.port() != 0 && listen.contains(address);
    if let Some(address) = addresses.iter().find(shared) {
        let hint = "one port speaks TLS or does not: \"0.0.0.0:80\" beside \"0.0.0.0:443\"";
        let message = format!("{address} is an address of `listen` too");
        table.fault("redirect_listen", Fault::new(message, hint));
    }
    addresses
}

fn sockets(table: &Table<'_>, texts: Vec<Text<'_>>) -> Vec<SocketAddr> {
    let problems = &table.context.problems;
    let mut addresses = Vec::new();
    let mut places = Vec::new();
    for Text { text, place } in texts {
        match socket(text) {
            Ok(address) => {
                addresses.push(address);
                if address.port() != 0 {
                    places.push((address, place));
                }
            }
            Err(fault) => problems.add(&place, fault),
        }
    }
    refuse_repeats(problems, "address", places);
    addresses
}

fn admin_listen(table: &mut Table<'_>, listen: &[SocketAddr]) -> SocketAddr {
    let default = SocketAddr::from(([127, 0, 0, 1], 9901));
    let address = table.parsed("admin_listen", socket).unwrap_or(default);
    if address.port() != 0 && listen.contains(&address) {
        table.fault(
            "admin_listen",
            Fault::new(
                "is an address of `listen` or `redirect_listen`",
                "health and metrics need a listener of their own, which the public cannot reach",
            ),
        );
    } else if !address.ip().is_loopback() {
        table.context.problems.warn(
            &table.place_of("admin_listen"),
            Fault::new(
                "health and metrics are reachable from other machines",
                "they ask for no password: keep the address away from the public",
            ),
        );
    }
    address
}

fn socket(text: &str) -> Result<SocketAddr, Fault> {
    text.parse().map_err(|_| {
        Fault::new(
            format!("`{text}` is not an address with a port"),
            "an IP address and a port: \"0.0.0.0:8443\", \"[::]:8443\"",
        )
    })
}

fn public_url(table: &mut Table<'_>) -> Option<Url> {
    if table.has("public_url") {
        table.parsed("public_url", check_public_url)
    } else {
        check_public_url(PUBLIC_URL).ok()
    }
}

fn check_public_url(text: &str) -> Result<Url, Fault> {
    let example = "the scheme, the host and, unless 443, the port: \"https://app.example.com\"";
    let url = Url::parse(text)
        .map_err(|error| Fault::new(format!("`{text}` is not a URL: {error}"), example))?;
    let fault = if url.scheme() != "https" {
        "is not an https URL: tokens and cookies would travel in the clear"
    } else if !url.username().is_empty() || url.password().is_some() {
        "holds a user name"
    } else if url.query().is_some() {
        "holds a query"
    } else if url.fragment().is_some() {
        "holds a fragment"
    } else if url.path() != "/" {
        "holds a path"
    } else if url.port() == Some(0) {
        "has port 0"
    } else {
        return Ok(url);
    };
    Err(Fault::new(fault, example))
}

fn trusted_proxies(table: &mut Table<'_>) -> TrustedProxies {
    let Some(found) = network::read(table, "trusted_proxies") else {
        return TrustedProxies::default();
    };
    let networks: Vec<_> = found.iter().map(|(network, _)| *network).collect();
    let believed =
        "whoever connects could name any client address; list the proxies in front of the gateway";
    network::refuse_everything(table, "trusted_proxies", &networks, believed);
    for (network, place) in &found {
        if network.prefix_len() > 0 && network::is_wide(network) {
            table.context.problems.warn(
                place,
                Fault::new(
                    format!("{network} is wide for a network of proxies"),
                    "every address in it can name any client address",
                ),
            );
        }
    }
    TrustedProxies::new(networks)
}

/// Which fields those proxies write.
fn forwarded_headers(table: &mut Table<'_>, proxies: TrustedProxies) -> TrustedProxies {
    let fields = table.choice(
        "forwarded_headers",
        &[
            ("x-forwarded", Is(ForwardedHeaders::XForwarded)),
            ("forwarded", Is(ForwardedHeaders::Forwarded)),
        ],
    );
    proxies.by(fields.unwrap_or_default())
}

fn proxy_protocol(table: &mut Table<'_>, proxies: &TrustedProxies) -> bool {
    let required = table.flag("proxy_protocol").unwrap_or(false);
    if required && proxies.is_empty() {
        let hint = "name the proxies that connect in trusted_proxies: nobody else is let in then";
        table.fault(
            "proxy_protocol",
            Fault::new("nobody may connect: trusted_proxies is empty", hint),
        );
    }
    required
}

fn timeouts(mut table: Table<'_>) -> Timeouts {
    let bounds = Bounds::new(Duration::from_millis(100), secs(3600))
        .because("without a deadline a silent client would hold its connection for ever");
    let ages = Bounds::new(Duration::from_millis(100), secs(7 * 24 * 3600));
    let max_age = table.duration("max_age", ages);
    let timeouts = Timeouts {
        handshake: table.duration("handshake", bounds).unwrap_or(secs(10)),
        header: table.duration("header", bounds).unwrap_or(secs(10)),
        body_idle: table.duration("body_idle", bounds).unwrap_or(secs(30)),
        keep_alive: table.duration("keep_alive", bounds).unwrap_or(secs(75)),
        max_age: max_age.unwrap_or(secs(3600)),
    };
    table.finish();
    timeouts
}

/// The section `[server.limits]`.
struct Limits {
    head: HeadLimits,
    body_bytes: u64,
    h2_streams: u32,
    h2_control_frames: Quota,
    body_rate: u64,
}

fn limits(mut table: Table<'_>) -> Limits {
    let header_bytes = table.size("header_bytes", Bounds::new(8 << 10, 1 << 20));
    let header_count = table.number("header_count", Bounds::new(8, 10_000));
    let uri_bytes = table.size("uri_bytes", Bounds::new(256, 1 << 20));
    let head = HeadLimits {
        header_bytes: header_bytes.unwrap_or(32 << 10),
        header_count: header_count.unwrap_or(100),
        uri_bytes: uri_bytes.unwrap_or(8 << 10),
    };
    if head.uri_bytes > head.header_bytes {
        let hint = "the request line counts as part of the head";
        table.fault("uri_bytes", Fault::new("is more than header_bytes", hint));
    }
    let body_bytes = table.size("body", BODY).unwrap_or(10 << 20);
    let body_rate = table.parsed("min_body_rate", byte_rate).unwrap_or(240);
    let h2_streams = table.number("h2_streams", Bounds::new(1, 10_000));
    let h2_control_frames = table.parsed("h2_control_frames", control_frames);
    table.finish();
    Limits {
        head,
        body_bytes,
        h2_streams: h2_streams.unwrap_or(100),
        h2_control_frames: h2_control_frames.unwrap_or(CONTROL_FRAMES),
        body_rate,
    }
}

/// What a client may send of control frames by default.
const CONTROL_FRAMES: Quota = Quota {
    count: 2000,
    window: secs(10),
    burst: 2000,
};

fn control_frames(text: &str) -> Result<Quota, Fault> {
    let (count, window) = units::rate(text)?;
    let window_bounds = Bounds::new(secs(1), secs(3600));
    let window = window_bounds.check(window, |window| units::show_duration(*window))?;
    let counts = Bounds::new(100, 1_000_000)
        .because("with fewer a browser that leaves a page would be cut off, more are a flood");
    let count = counts.check(count, ToString::to_string)?;
    Ok(Quota {
        count,
        window,
        burst: count,
    })
}

/// Reads bytes a second: a size, a slash and `s`.
fn byte_rate(text: &str) -> Result<u64, Fault> {
    let bad = || {
        Fault::new(
            format!("`{text}` is not a rate of bytes"),
            "a size and a second: \"240B/s\", \"1KiB/s\"",
        )
    };
    let size = text.strip_suffix("/s").ok_or_else(bad)?;
    let rate = units::size(size).map_err(|_| bad())?;
    Bounds::new(1, 1 << 30)
        .because("without one a client could send a body for ever")
        .check(rate, |rate| format!("{}/s", units::show_size(*rate)))
}

/// The sizes that a limit of bodies may have.
pub(super) const BODY: Bounds<u64> = Bounds::new(1, 1 << 40);

pub(super) const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}
