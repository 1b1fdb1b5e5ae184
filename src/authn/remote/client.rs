//! One exchange with an issuer: a bounded answer in a bounded time, from an address that may be asked.
//!
//! No redirect is followed: where keys come from stands in the configuration. What is checked is the address that a connection
//! is made to and not the name, so that a name which points into our own network is refused whatever it said a moment ago
//! (KEY-3).

use std::{
    error::Error,
    fmt, io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{
        self,
        connect::{HttpConnector, dns::Name},
    },
    rt::{TokioExecutor, TokioTimer},
};
use ipnet::IpNet;
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use tokio::time::timeout;
use tower_service::Service;

use crate::authn::settings::FetchSettings;

/// The largest answer, in bytes (KEY-2).
const BODY_BYTES_MAX: usize = 256 << 10;

/// How long an unused connection is kept. Exchanges with one issuer are minutes apart, save for introspection.
const IDLE: Duration = Duration::from_secs(30);

/// Why an exchange gave nothing.
#[derive(Debug, Clone, thiserror::Error)]
pub(in crate::authn) enum ExchangeFault {
    /// Every address of the name is one that is not asked.
    #[error(
        "its host has the address {0}, which is not asked unless `fetch.networks` names its network"
    )]
    Address(IpAddr),
    /// Something within us.
    #[error("cannot be asked: {0}")]
    Internal(&'static str),
    /// No answer in time.
    #[error("did not answer within {0:?}")]
    Timeout(Duration),
    /// More than is read.
    #[error("its answer is larger than 256 KiB")]
    TooLarge,
    /// No connection, no trust, or no answer.
    #[error("cannot be reached: {0}")]
    Unreachable(String),
}

impl ExchangeFault {
    /// The label in metrics: a closed set.
    pub(in crate::authn) const fn name(&self) -> &'static str {
        match self {
            Self::Address(_) => "address",
            Self::Internal(_) => "internal",
            Self::Timeout(_) => "timeout",
            Self::TooLarge => "too_large",
            Self::Unreachable(_) => "unreachable",
        }
    }
}

/// A client for one issuer.
#[derive(Debug, Clone)]
pub(in crate::authn) struct Client {
    client: Option<legacy::Client<HttpsConnector<HttpConnector<Resolver>>, Full<Bytes>>>,
    timeout: Duration,
}

/// A whole answer.
#[derive(Debug)]
pub(in crate::authn) struct Exchange {
    pub(in crate::authn) status: StatusCode,
    pub(in crate::authn) headers: HeaderMap,
    pub(in crate::authn) body: Bytes,
}

impl Client {
    /// Reads the system's trusted certificates, and adds those of the settings.
    pub(in crate::authn) fn new(settings: &FetchSettings) -> Self {
        let client = tls(settings).map(|tls| {
            let mut http = HttpConnector::new_with_resolver(Resolver {
                networks: settings.networks.clone().into(),
            });
            http.enforce_http(false);
            let connector = HttpsConnectorBuilder::new()
                .with_tls_config(tls)
                .https_or_http()
                .enable_all_versions()
                .wrap_connector(http);
            legacy::Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE)
                .build(connector)
        });
        Self {
            client,
            timeout: settings.timeout,
        }
    }

    /// Sends a request and reads all of the answer.
    ///
    /// # Errors
    /// [`ExchangeFault`] by variant; an answer of any status is none.
    pub(in crate::authn) async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Exchange, ExchangeFault> {
        let exchange = async {
            let client = self.client.as_ref();
            let client = client.ok_or(ExchangeFault::Internal("no TLS configuration"))?;
            let response = client.request(request).await;
            let response = response.map_err(|error| unreachable(&error))?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, BODY_BYTES_MAX).collect().await;
            let body = body.map_err(|error| {
                if error.is::<LengthLimitError>() {
                    ExchangeFault::TooLarge
                } else {
                    unreachable(&*error)
                }
            })?;
            Ok(Exchange {
                status: parts.status,
                headers: parts.headers,
                body: body.to_bytes(),
            })
        };
        timeout(self.timeout, exchange)
            .await
            .unwrap_or(Err(ExchangeFault::Timeout(self.timeout)))
    }
}

/// Whom to trust. `None` where the back-end offers no protocol version, which it does.
fn tls(settings: &FetchSettings) -> Option<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    let (_, unreadable) = roots.add_parsable_certificates(native.certs);
    if unreadable > 0 || !native.errors.is_empty() {
        tracing::debug!(unreadable, errors = ?native.errors, "some of the system's certificates cannot be used");
    }
    roots.add_parsable_certificates(settings.roots.iter().cloned());
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .ok()?;
    Some(builder.with_root_certificates(roots).with_no_client_auth())
}

/// The cause at the end of the chain says most.
fn unreachable(error: &(dyn Error + 'static)) -> ExchangeFault {
    let mut last = error;
    loop {
        if let Some(NotAsked(address)) = refused(last) {
            return ExchangeFault::Address(*address);
        }
        match last.source() {
            Some(source) => last = source,
            None => return ExchangeFault::Unreachable(last.to_string()),
        }
    }
}

fn refused<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e NotAsked> {
    let direct = error.downcast_ref::<NotAsked>();
    // `io::Error` shows the source of what it carries, and not that itself.
    let carried = || {
        let carried = error.downcast_ref::<io::Error>()?.get_ref()?;
        carried.downcast_ref::<NotAsked>()
    };
    direct.or_else(carried)
}

/// The system's resolver, without the addresses that are not asked.
#[derive(Debug, Clone)]
struct Resolver {
    networks: Arc<[IpNet]>,
}

/// Every address of a name was refused; this is one of them.
#[derive(Debug)]
struct NotAsked(IpAddr);

impl fmt::Display for NotAsked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the address {} is not asked", self.0)
    }
}

impl Error for NotAsked {}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, io::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let networks = Arc::clone(&self.networks);
        Box::pin(async move {
            let found: Vec<_> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let may = |address: &&SocketAddr| may_be_asked(address.ip(), &networks);
            let asked: Vec<_> = found.iter().filter(may).copied().collect();
            match found.first() {
                Some(first) if asked.is_empty() => Err(io::Error::other(NotAsked(first.ip()))),
                _ => Ok(asked.into_iter()),
            }
        })
    }
}

/// Whether an address may be asked that a name resolved to: not this machine, its link, or the metadata service of a cloud,
/// where whoever controls the name could make us speak to what trusts us.
fn may_be_asked(address: IpAddr, networks: &[IpNet]) -> bool {
    let address = plain(address);
    if networks.iter().any(|network| network.contains(&address)) {
        return true;
    }
    match address {
        IpAddr::V4(v4) => {
            !(v4.is_loopback()
                || v4.is_link_local()
                || v4.is_unspecified()
                || v4.is_multicast()
                || v4.is_broadcast()
                || v4.octets().first() == Some(&0))
        }
        IpAddr::V6(v6) => {
            !(v6.is_loopback()
                || v6.is_unicast_link_local()
                || v6.is_unspecified()
                || v6.is_multicast()
                // Amazon's metadata service.
                || v6 == Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254))
        }
    }
}

/// The IPv4 address that an IPv6 address stands for: mapped (RFC 4291 §2.5.5.2) or behind NAT64 (RFC 6052 §2.1).
fn plain(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else {
        return address;
    };
    let translated = match v6.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            let bits = (u32::from(high) << 16) | u32::from(low);
            Some(IpAddr::from(bits.to_be_bytes()))
        }
        _ => None,
    };
    translated
        .or_else(|| v6.to_ipv4_mapped().map(IpAddr::V4))
        .unwrap_or(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_3_addresses_of_this_machine_its_link_and_metadata_are_not_asked() {
        for address in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "169.254.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "ff02::1",
            "fd00:ec2::254",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b::7f00:1",
        ] {
            assert!(!may_be_asked(address.parse().unwrap(), &[]), "{address}");
        }
    }

    #[test]
    fn key_3_other_addresses_and_named_networks_are_asked() {
        for address in [
            "192.0.2.7",
            "10.1.2.3",
            "192.168.1.1",
            "2001:db8::1",
            "fd12::7",
        ] {
            assert!(may_be_asked(address.parse().unwrap(), &[]), "{address}");
        }
        let named = ["127.0.0.0/8".parse().unwrap()];
        assert!(may_be_asked("127.0.0.1".parse().unwrap(), &named));
        assert!(may_be_asked("::ffff:127.0.0.1".parse().unwrap(), &named));
        assert!(!may_be_asked("169.254.169.254".parse().unwrap(), &named));
    }

    #[tokio::test]
    async fn key_3_a_name_that_resolves_to_this_machine_is_refused_by_its_address() {
        let settings = FetchSettings {
            roots: Vec::new(),
            networks: Vec::new(),
            timeout: Duration::from_secs(30),
        };
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let request = Request::get(format!("http://localhost:{port}/")).body(Full::default());
        let refused = Client::new(&settings).exchange(request.unwrap()).await;
        assert!(
            matches!(&refused, Err(ExchangeFault::Address(ip)) if ip.is_loopback()),
            "{refused:?}"
        );
        assert_eq!(
            listener.accept().unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
    }
}
