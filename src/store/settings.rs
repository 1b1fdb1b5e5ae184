//! Where a shared store is, as a URL says it.

#[cfg(test)]
mod tests;

use std::{fmt, net::IpAddr, path::PathBuf};

use zeroize::Zeroizing;

/// The most servers of one cluster that a URL names.
const HOSTS_MAX: usize = 8;

const PORT: u16 = 5432;

/// A PostgreSQL database, and how it is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresSettings {
    /// Servers of one cluster; the first that takes writes is used.
    pub servers: Vec<Server>,
    /// The role.
    pub user: Box<str>,
    /// The database.
    pub database: Box<str>,
    /// The role's password; `None` where the server asks for none, or knows the role by its socket or certificate.
    pub password: Option<Secret>,
    /// Whether and how the server proves who it is.
    pub tls: StoreTls,
    /// Connections of this node at once, 1 to 100.
    pub connections: usize,
}

/// One server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Its name, address, or the folder of its socket.
    pub host: Host,
    /// Its port, which a socket has too.
    pub port: u16,
}

/// How a server is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// By a DNS name or an address.
    Name(Box<str>),
    /// By the folder of its Unix socket.
    Socket(PathBuf),
}

/// TLS towards the store, in the words of libpq.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreTls {
    /// `sslmode=disable`: none.
    Disable,
    /// `sslmode=verify-full`: chain and name are verified, against this file (`sslrootcert`) or the roots of the system.
    VerifyFull(Option<PathBuf>),
}

/// A password. It does not print, and is erased when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<Vec<u8>>);

/// What is wrong with a URL, and what to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UrlFault {
    /// What is wrong; never a part of the URL that may be secret.
    pub message: String,
    /// What to do.
    pub hint: &'static str,
}

impl PostgresSettings {
    /// Reads `postgres://user@host:port,host:port/database?sslmode=..&sslrootcert=..&host=..`.
    ///
    /// Without `sslmode` the server is verified, save where every host is a Unix socket. The password is not part of it:
    /// URLs are printed, logged and put into arguments.
    ///
    /// # Errors
    /// [`UrlFault`] for anything else, with a hint.
    pub fn parse(url: &str) -> Result<Self, UrlFault> {
        let hint = "postgres://user@host/database";
        let rest = url
            .strip_prefix("postgres://")
            .or_else(|| url.strip_prefix("postgresql://"))
            .ok_or_else(|| fault("is no URL of PostgreSQL", hint))?;
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = place.split_once('/').unwrap_or((place, ""));
        let (user, hosts) = authority
            .rsplit_once('@')
            .ok_or_else(|| fault("names no user", hint))?;
        if user.contains(':') {
            return Err(fault(
                "holds a password",
                "take it out and name its place: store_password_file = \"..\" or store_password_env = \"..\"",
            ));
        }
        let user = decoded(user)?;
        let database = decoded(database)?;
        if user.is_empty() {
            return Err(fault("names no user", hint));
        }
        if database.is_empty() {
            return Err(fault("names no database", hint));
        }
        let parameters = Parameters::parse(query)?;
        let servers = servers(hosts, parameters.socket)?;
        let socket = |server: &Server| matches!(server.host, Host::Socket(_));
        let tls = match parameters.disable {
            Some(true) => StoreTls::Disable,
            None if servers.iter().all(socket) => StoreTls::Disable,
            None | Some(false) if servers.iter().any(socket) => {
                return Err(fault(
                    "asks for TLS over a Unix socket, which has none",
                    "leave sslmode out, or name a host",
                ));
            }
            None | Some(false) => StoreTls::VerifyFull(parameters.roots),
        };
        Ok(Self {
            servers,
            user,
            database,
            password: None,
            tls,
            connections: 8,
        })
    }

    /// Whether what is said to the server can be read on the way: no TLS, and a host that is not this one.
    #[must_use]
    pub fn is_exposed(&self) -> bool {
        self.tls == StoreTls::Disable && !self.servers.iter().all(|server| server.host.is_local())
    }
}

impl Host {
    fn is_local(&self) -> bool {
        match self {
            Self::Name(name) => {
                &**name == "localhost"
                    || name
                        .parse::<IpAddr>()
                        .is_ok_and(|address| address.is_loopback())
            }
            Self::Socket(_) => true,
        }
    }
}

struct Parameters {
    disable: Option<bool>,
    roots: Option<PathBuf>,
    socket: Option<PathBuf>,
}

impl Parameters {
    fn parse(query: &str) -> Result<Self, UrlFault> {
        let mut found = Self {
            disable: None,
            roots: None,
            socket: None,
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decoded(value)?;
            let twice = match name {
                "sslmode" => found.disable.replace(is_disabled(&value)?).is_some(),
                "sslrootcert" if !value.is_empty() => {
                    found.roots.replace(PathBuf::from(&*value)).is_some()
                }
                "host" if value.starts_with('/') => {
                    found.socket.replace(PathBuf::from(&*value)).is_some()
                }
                "host" => {
                    return Err(fault(
                        "has a `host` that is no folder of a socket",
                        "host=/run/postgresql",
                    ));
                }
                "password" => {
                    return Err(fault(
                        "holds a password",
                        "take it out and name its place: store_password_file = \"..\" or store_password_env = \"..\"",
                    ));
                }
                _ => {
                    return Err(fault(
                        &format!("has `{name}`, which is not known here"),
                        "known are sslmode, sslrootcert, and host for the folder of a Unix socket",
                    ));
                }
            };
            if twice {
                return Err(fault(&format!("has `{name}` twice"), "leave one"));
            }
        }
        if found.disable == Some(true) && found.roots.is_some() {
            return Err(fault(
                "has sslrootcert and sslmode=disable",
                "leave sslmode out: the server is then verified",
            ));
        }
        Ok(found)
    }
}

fn is_disabled(word: &str) -> Result<bool, UrlFault> {
    match word {
        "disable" => Ok(true),
        "verify-full" => Ok(false),
        _ => Err(fault(
            &format!("has sslmode={word}, by which anybody could be the server"),
            "sslmode=verify-full, the default; sslmode=disable on this machine alone",
        )),
    }
}

fn servers(hosts: &str, socket: Option<PathBuf>) -> Result<Vec<Server>, UrlFault> {
    if let Some(folder) = socket {
        let port = match hosts.strip_prefix(':') {
            Some(port) => parse_port(port)?,
            None if hosts.is_empty() => PORT,
            None => {
                return Err(fault(
                    "has two hosts",
                    "host= is for URLs that name none before",
                ));
            }
        };
        return Ok(vec![Server {
            host: Host::Socket(folder),
            port,
        }]);
    }
    let servers: Vec<Server> = hosts.split(',').map(server).collect::<Result<_, _>>()?;
    if servers.len() > HOSTS_MAX {
        return Err(fault(
            "names more than 8 hosts",
            "the servers of one cluster, one of which takes writes",
        ));
    }
    Ok(servers)
}

fn server(text: &str) -> Result<Server, UrlFault> {
    let bad = || {
        fault(
            "has an empty or broken host",
            "postgres://user@host:5432/database",
        )
    };
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (address, rest) = rest.split_once(']').ok_or_else(bad)?;
        let port = rest.strip_prefix(':');
        if port.is_none() && !rest.is_empty() {
            return Err(bad());
        }
        (address, port)
    } else {
        match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    let host = decoded(host)?;
    if host.is_empty() {
        return Err(bad());
    }
    Ok(Server {
        host: if host.starts_with('/') {
            Host::Socket(PathBuf::from(&*host))
        } else {
            Host::Name(host)
        },
        port: port.map_or(Ok(PORT), parse_port)?,
    })
}

fn parse_port(text: &str) -> Result<u16, UrlFault> {
    let port = text.parse().ok().filter(|port| *port != 0);
    port.ok_or_else(|| fault("has a port that is none", "1 to 65535"))
}

/// Undoes percent-encoding (RFC 3986 §2.1).
fn decoded(text: &str) -> Result<Box<str>, UrlFault> {
    let bad = || fault("has a broken percent-encoding", "%40 for @, %2F for /");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || {
            let digit = rest.next().and_then(|byte| char::from(byte).to_digit(16));
            digit
                .and_then(|digit| u8::try_from(digit).ok())
                .ok_or_else(bad)
        };
        let high = digit()?;
        bytes.push(high << 4 | digit()?);
    }
    let text = String::from_utf8(bytes).map_err(|_| bad())?;
    if text.contains(char::is_control) {
        return Err(bad());
    }
    Ok(text.into())
}

fn fault(message: &str, hint: &'static str) -> UrlFault {
    UrlFault {
        message: message.to_owned(),
        hint,
    }
}

impl Secret {
    /// Takes it over.
    #[must_use]
    pub fn new(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self(bytes)
    }

    #[cfg(feature = "postgres")]
    pub(super) fn reveal(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl fmt::Display for PostgresSettings {
    /// The URL, without anything secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "postgres://{}@", self.user)?;
        for (index, server) in self.servers.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            match &server.host {
                Host::Name(name) if name.contains(':') => {
                    write!(f, "{comma}[{name}]:{}", server.port)?
                }
                Host::Name(name) => write!(f, "{comma}{name}:{}", server.port)?,
                Host::Socket(folder) => write!(f, "{comma}{}:{}", folder.display(), server.port)?,
            }
        }
        write!(f, "/{}", self.database)
    }
}
