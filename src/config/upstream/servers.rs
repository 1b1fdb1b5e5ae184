//! `servers` of an upstream: URLs and paths of sockets.

use std::{os::unix::ffi::OsStrExt, path::Path};

use url::{Host, Url};

use crate::{
    config::{
        diagnostic::Fault,
        files,
        reader::{Table, Text},
    },
    policy::NormalPath,
    upstream::settings::{Endpoint, ServerAddress},
};

/// What an address of a socket holds on Linux, but for its last byte.
const SOCKET_PATH_MAX: usize = 107;

/// The servers, when every one of them can be used. `stated`: requests carry a signed statement about their target, which is made
/// before a server is chosen.
pub(super) fn read(table: &mut Table<'_>, stated: bool) -> Option<Vec<ServerAddress>> {
    table.need(
        "servers",
        "where it listens: servers = [\"http://127.0.0.1:9000\"]",
    );
    let texts = table.texts(
        "servers",
        "the upstream would have nowhere to send a request",
    )?;
    let problems = &table.context.problems;
    let mut servers: Vec<ServerAddress> = Vec::with_capacity(texts.len());
    for Text { text, place } in &texts {
        match address(text, table.context.root) {
            Ok(server) if servers.contains(&server) => {
                let hint = "a server counts once, however its URL is written";
                problems.add(place, Fault::new(format!("`{text}` is there twice"), hint));
            }
            Ok(server) => servers.push(server),
            Err(fault) => problems.add(place, fault),
        }
    }
    let first = servers.first().map(|server| &server.base_path);
    if stated && servers.iter().any(|one| Some(&one.base_path) != first) {
        let hint = "identity.assertion signs the path that the upstream receives: make them several upstreams";
        let fault = Fault::new("have different base paths", hint);
        table.fault("servers", fault);
        return None;
    }
    (servers.len() == texts.len()).then_some(servers)
}

fn address(text: &str, root: &Path) -> Result<ServerAddress, Fault> {
    if let Some(path) = text.strip_prefix("unix:") {
        return socket(path, root);
    }
    let hint = "the form is http://host:port, https://host:port or unix:/path, and a base path after a port";
    let bad = |what: &str| Fault::new(format!("`{text}` {what}"), hint);
    let url = Url::parse(text).map_err(|error| bad(&format!("is not a URL: {error}")))?;
    let tls = match url.scheme() {
        "http" => false,
        "https" => true,
        _ => return Err(bad("is neither http, https nor unix")),
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err(bad(
            "holds a user name or password, which would not be sent",
        ));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(bad("holds a query or fragment, which would not be sent"));
    }
    let host = match url.host() {
        Some(Host::Domain(name)) => name.to_owned(),
        Some(Host::Ipv4(address)) => address.to_string(),
        Some(Host::Ipv6(address)) => address.to_string(),
        None => return Err(bad("names no host")),
    };
    let port = url.port_or_known_default().filter(|port| *port != 0);
    let port = port.ok_or_else(|| bad("has port 0"))?;
    Ok(ServerAddress {
        endpoint: Endpoint::Tcp {
            host: host.into(),
            port,
            tls,
        },
        base_path: base_path(text)?.into(),
    })
}

fn socket(path: &str, root: &Path) -> Result<ServerAddress, Fault> {
    let hint = "the form is unix:/path/to.sock, or a path below the project without the slash";
    if path.is_empty() || path.starts_with("//") || path.ends_with('/') {
        return Err(Fault::new(format!("`unix:{path}` names no socket"), hint));
    }
    let path = files::resolve(root, path);
    if path.as_os_str().len() > SOCKET_PATH_MAX || path.as_os_str().as_bytes().contains(&0) {
        let message = format!("{} is no path of a socket", path.display());
        return Err(Fault::new(
            message,
            "it has at most 107 bytes, none of them 0",
        ));
    }
    Ok(ServerAddress {
        endpoint: Endpoint::Unix(path.into()),
        base_path: "".into(),
    })
}

/// The path as written: `Url` would silently resolve dot segments.
fn base_path(text: &str) -> Result<String, Fault> {
    let after = text.split_once("//").map_or("", |(_, after)| after);
    let Some(start) = after.find('/') else {
        return Ok(String::new());
    };
    let raw = after.get(start..).unwrap_or("/");
    let path = NormalPath::parse(raw)
        .ok()
        .filter(|path| path.as_str() == raw)
        .ok_or_else(|| {
            Fault::new(
                format!("`{raw}` could be read in two ways"),
                "a base path without dot segments, doubled slashes and escapes",
            )
        })?;
    Ok(path.as_str().trim_end_matches('/').to_owned())
}
