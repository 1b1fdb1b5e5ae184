//! What happens to a request: limit, token, role, fields, upstream.

use std::{
    error::Error,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use http::{HeaderValue, StatusCode, header};
use pingora::{
    Result,
    http::{RequestHeader, ResponseHeader},
    modules::http::HttpModules,
    proxy::{ProxyHttp, Session},
    upstreams::peer::HttpPeer,
};
use pingora_limits::rate::Rate;
use uuid::Uuid;

use crate::{
    settings::Settings,
    tokens::{Identity, Tokens},
};

const PUBLIC: &str = "/public";
/// Removed from each request before anything is set.
const RESERVED: [&str; 7] = [
    "Authorization",
    "X-Forwarded-User",
    "X-Forwarded-Email",
    "X-Forwarded-Preferred-Username",
    "X-Forwarded-Groups",
    "X-Auth-Scopes",
    "X-Auth-Issuer",
];
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const UPSTREAM_TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) struct Gate {
    peer: HttpPeer,
    limit: Rate,
    rate: isize,
    tokens: Tokens,
    unauthorized: ResponseHeader,
    forbidden: ResponseHeader,
    limited: ResponseHeader,
}

/// What is known of one request.
pub(crate) struct Caller {
    address: IpAddr,
    identity: Option<Arc<Identity>>,
}

impl Gate {
    pub(crate) fn new(settings: &Settings) -> Result<Self, Box<dyn Error>> {
        let mut peer = HttpPeer::new(settings.upstream, false, String::new());
        peer.options.connection_timeout = Some(CONNECT_TIMEOUT);
        peer.options.read_timeout = Some(UPSTREAM_TIMEOUT);
        peer.options.write_timeout = Some(UPSTREAM_TIMEOUT);
        let mut unauthorized = refusal(StatusCode::UNAUTHORIZED)?;
        unauthorized.insert_header(header::WWW_AUTHENTICATE, "Bearer")?;
        let mut limited = refusal(StatusCode::TOO_MANY_REQUESTS)?;
        limited.insert_header(header::RETRY_AFTER, "1")?;
        Ok(Self {
            peer,
            limit: Rate::new(Duration::from_secs(1)),
            rate: settings.rate,
            tokens: Tokens::new(settings)?,
            unauthorized,
            forbidden: refusal(StatusCode::FORBIDDEN)?,
            limited,
        })
    }

    /// The answer of a refusal; none where the request may go on.
    fn refuse(&self, request: &RequestHeader, caller: &mut Caller) -> Option<&ResponseHeader> {
        if self.limit.observe(&caller.address, 1) > self.rate {
            return Some(&self.limited);
        }
        if is_public(request.uri.path()) {
            return None;
        }
        let Some(identity) = bearer(request).and_then(|token| self.tokens.identity(token)) else {
            return Some(&self.unauthorized);
        };
        if !identity.allowed {
            return Some(&self.forbidden);
        }
        caller.identity = Some(identity);
        None
    }
}

/// An answer without a body, which leaves the connection open.
fn refusal(status: StatusCode) -> Result<ResponseHeader> {
    let mut answer = ResponseHeader::build(status, Some(4))?;
    answer.set_content_length(0)?;
    Ok(answer)
}

fn is_public(path: &str) -> bool {
    path.strip_prefix(PUBLIC)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The token of the one `Authorization` field that there may be.
fn bearer(request: &RequestHeader) -> Option<&str> {
    let mut fields = request.headers.get_all(header::AUTHORIZATION).iter();
    let field = fields.next()?.to_str().ok()?;
    if fields.next().is_some() {
        return None;
    }
    field.strip_prefix("Bearer ")
}

#[async_trait]
impl ProxyHttp for Gate {
    type CTX = Caller;

    fn new_ctx(&self) -> Caller {
        Caller {
            address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            identity: None,
        }
    }

    /// None: the default is a module for compression that is switched off.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn request_filter(&self, session: &mut Session, caller: &mut Caller) -> Result<bool> {
        if let Some(address) = session.client_addr().and_then(|address| address.as_inet()) {
            caller.address = address.ip();
        }
        let Some(answer) = self.refuse(session.req_header(), caller) else {
            return Ok(false);
        };
        session
            .write_response_header(Box::new(answer.clone()), true)
            .await?;
        Ok(true)
    }

    async fn upstream_peer(
        &self,
        _session: &mut Session,
        _caller: &mut Caller,
    ) -> Result<Box<HttpPeer>> {
        Ok(Box::new(self.peer.clone()))
    }

    async fn upstream_request_filter(
        &self,
        _session: &mut Session,
        request: &mut RequestHeader,
        caller: &mut Caller,
    ) -> Result<()> {
        for name in RESERVED {
            request.remove_header(name);
        }
        if let Some(identity) = &caller.identity {
            tell(request, identity)?;
        }
        let address = HeaderValue::try_from(caller.address.to_string()).ok();
        if let Some(address) = address {
            request.insert_header("X-Forwarded-For", address.clone())?;
            request.insert_header("X-Real-IP", address)?;
        }
        request.insert_header("X-Forwarded-Proto", HeaderValue::from_static("https"))?;
        // Set by Pingora from `:authority` where the client speaks HTTP/2.
        if let Some(host) = request.headers.get(header::HOST).cloned() {
            request.insert_header("X-Forwarded-Host", host)?;
        }
        let mut text = [0; 32];
        let id: &str = Uuid::new_v4().as_simple().encode_lower(&mut text);
        request.insert_header("X-Request-Id", id)?;
        Ok(())
    }
}

fn tell(request: &mut RequestHeader, identity: &Identity) -> Result<()> {
    request.insert_header("X-Forwarded-User", identity.user.clone())?;
    request.insert_header("X-Forwarded-Groups", identity.groups.clone())?;
    request.insert_header("X-Auth-Issuer", identity.issuer.clone())?;
    let optional = [
        ("X-Forwarded-Email", &identity.email),
        ("X-Forwarded-Preferred-Username", &identity.name),
        ("X-Auth-Scopes", &identity.scopes),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            request.insert_header(name, value.clone())?;
        }
    }
    Ok(())
}
