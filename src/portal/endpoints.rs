//! The endpoints: one table, from which the route table and the router are made, and what each does.
//!
//! An endpoint without a row has no path, so none can be forgotten when access is decided (AUTH-10).

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    routing::{MethodFilter, on},
};
use bytes::Bytes;
use http::{Method, Request, Response, request::Parts};
use serde::Deserialize;

use super::{
    BODY_BYTES_MAX, answers, clients, cookies, forms,
    pages::{self, Page, Pages, handover::Handovers},
    passwords,
    requests::{self, Secret},
};
use crate::{
    accounts::{
        Accounts, Client, Grant, ISSUER_NAME, Login, RefreshToken, passwords::Password,
        settings::AccountSettings,
    },
    authn::Authenticator,
    limit::BadTokens,
    policy::{
        Access, Addresses, Browsers, Caller, Claims, ClientIp, HeadFault, HeaderEdits, PathPattern,
        Rejection, Route, Rule, Streams, Target, TokenFault,
    },
    respond,
    telemetry::RequestId,
};

/// The whole exchange: waiting for a hash and for the store is bounded by less.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The longest name or address that is looked at.
pub(super) const NAME_BYTES_MAX: usize = 254;

/// One row of the table.
struct Endpoint {
    name: &'static str,
    method: Method,
    path: Place,
    access: Access,
    operation: Operation,
}

/// Where an endpoint lies. `{id}` stands for one segment, at the end.
enum Place {
    /// At the root.
    Root(&'static str),
    /// Below the configured prefix.
    Under(&'static str),
}

#[derive(Debug, Clone, Copy)]
enum Operation {
    ChangePassword,
    EndSession,
    ForgotPassword,
    Introspect,
    IssuerDocument,
    Jwks,
    Login,
    Logout,
    LogoutAll,
    Me,
    Page(Page),
    Refresh,
    ResetPassword,
    Revoke,
    Sessions,
}

/// Every endpoint. What needs an access token needs one of ours; a foreign issuer's users have no account here.
#[rustfmt::skip]
const ENDPOINTS: [Endpoint; 21] = [
    Endpoint { name: "auth.login",       method: Method::POST,   path: Place::Under("/login"),         access: Access::Public,        operation: Operation::Login },
    Endpoint { name: "auth.refresh",     method: Method::POST,   path: Place::Under("/refresh"),       access: Access::Public,        operation: Operation::Refresh },
    Endpoint { name: "auth.logout",      method: Method::POST,   path: Place::Under("/logout"),        access: Access::Public,        operation: Operation::Logout },
    Endpoint { name: "auth.logout_all",  method: Method::POST,   path: Place::Under("/logout-all"),    access: Access::Authenticated, operation: Operation::LogoutAll },
    Endpoint { name: "auth.me",          method: Method::GET,    path: Place::Under("/me"),            access: Access::Authenticated, operation: Operation::Me },
    Endpoint { name: "auth.sessions",    method: Method::GET,    path: Place::Under("/sessions"),      access: Access::Authenticated, operation: Operation::Sessions },
    Endpoint { name: "auth.end_session", method: Method::DELETE, path: Place::Under("/sessions/{id}"), access: Access::Authenticated, operation: Operation::EndSession },
    Endpoint { name: "auth.password",    method: Method::POST,   path: Place::Under("/password"),        access: Access::Authenticated, operation: Operation::ChangePassword },
    Endpoint { name: "auth.forgot",      method: Method::POST,   path: Place::Under("/password/forgot"), access: Access::Public,        operation: Operation::ForgotPassword },
    Endpoint { name: "auth.reset",       method: Method::POST,   path: Place::Under("/password/reset"),  access: Access::Public,        operation: Operation::ResetPassword },
    Endpoint { name: "auth.introspect",  method: Method::POST,   path: Place::Under("/introspect"),    access: Access::Public,        operation: Operation::Introspect },
    Endpoint { name: "auth.revoke",      method: Method::POST,   path: Place::Under("/revoke"),        access: Access::Public,        operation: Operation::Revoke },
    Endpoint { name: "auth.jwks",        method: Method::GET,    path: Place::Root("/.well-known/jwks.json"),            access: Access::Public, operation: Operation::Jwks },
    Endpoint { name: "auth.issuer",      method: Method::GET,    path: Place::Root("/.well-known/openid-configuration"), access: Access::Public, operation: Operation::IssuerDocument },
    Endpoint { name: "auth.login_page",     method: Method::GET,  path: Place::Under("/login"),    access: Access::Public,        operation: Operation::Page(Page::Login) },
    Endpoint { name: "auth.logout_page",    method: Method::GET,  path: Place::Under("/logout"),   access: Access::Public,        operation: Operation::Page(Page::Logout) },
    Endpoint { name: "auth.account",        method: Method::GET,  path: Place::Under("/account"),  access: Access::Authenticated, operation: Operation::Page(Page::Account) },
    Endpoint { name: "auth.change_account", method: Method::POST, path: Place::Under("/account"),  access: Access::Authenticated, operation: Operation::Page(Page::ChangeAccount) },
    Endpoint { name: "auth.renew",          method: Method::GET,  path: Place::Under("/renew"),    access: Access::Public,        operation: Operation::Page(Page::Renew) },
    Endpoint { name: "auth.handover",       method: Method::GET,  path: Place::Under("/handover"), access: Access::Public,        operation: Operation::Page(Page::Handover) },
    Endpoint { name: "auth.arrive",         method: Method::GET,  path: Place::Under("/arrive"),   access: Access::Public,        operation: Operation::Page(Page::Arrive) },
];

/// What the gateway found out about a request.
#[derive(Clone)]
pub(super) struct Context {
    pub(super) client: ClientIp,
    pub(super) request_id: RequestId,
    pub(super) caller: Caller,
    pub(super) authn: Arc<Authenticator>,
    /// How many failed verifications the client may cause.
    pub(super) bad_tokens: Arc<BadTokens>,
    /// The pages, where browsers may sign in.
    pub(super) pages: Option<Arc<Pages>>,
    pub(super) handovers: Arc<Handovers>,
}

/// The built-in routes, for the route table.
#[must_use]
pub fn routes(settings: &AccountSettings) -> Vec<Route> {
    let has_pages = settings.pages.is_some();
    ENDPOINTS
        .iter()
        .filter(|endpoint| has_pages || !endpoint.operation.is_page())
        .enumerate()
        .map(|(index, endpoint)| Route {
            name: endpoint.name.into(),
            index,
            hosts: Vec::new(),
            path: endpoint.path.pattern(settings),
            methods: if endpoint.method == Method::GET {
                vec![Method::GET, Method::HEAD]
            } else {
                vec![endpoint.method.clone()]
            },
            target: Target::Accounts,
            strip_prefix: None,
            addresses: Addresses::default(),
            request_headers: HeaderEdits::default(),
            response_headers: HeaderEdits::default(),
            cors: None,
            access: endpoint.access,
            rule: match endpoint.access {
                Access::Authenticated => Rule {
                    issuers: vec![ISSUER_NAME.into()],
                    ..Rule::default()
                },
                Access::Optional | Access::Public => Rule::default(),
            },
            enforce: true,
            max_body: BODY_BYTES_MAX,
            timeout: TIMEOUT,
            streams: Streams::default(),
            browsers: Browsers {
                cookie: endpoint.operation.is_page(),
                sign_in: endpoint.operation.is_page(),
            },
        })
        .collect()
}

/// The same endpoints as a router. The gateway's route table has chosen already; this one finds the operation again.
pub(super) fn router(accounts: Arc<Accounts>) -> Router {
    let refuse = |rejection: Rejection| {
        move |request: Request<Body>| async move {
            match request.extensions().get::<Context>() {
                Some(context) => respond::refusal(&rejection, &context.request_id).map(Body::from),
                None => Response::default(),
            }
        }
    };
    let mut router = Router::new();
    for endpoint in ENDPOINTS {
        let Ok(filter) = MethodFilter::try_from(endpoint.method) else {
            continue; // every method of the table has a filter, as a test proves
        };
        let accounts = Arc::clone(&accounts);
        let path = endpoint.path.text(accounts.settings());
        let handler = on(filter, move |request: Request<Body>| {
            handle(Arc::clone(&accounts), endpoint.operation, request)
        });
        router = router.route(&path, handler);
    }
    router
        .fallback(refuse(Rejection::RouteNotFound))
        .method_not_allowed_fallback(refuse(Rejection::MethodNotAllowed(Vec::new())))
}

impl Operation {
    /// Whether it is a page of browsers, which are known there by their session cookie.
    fn is_page(self) -> bool {
        matches!(self, Self::Page(_))
    }
}

impl Place {
    fn text(&self, settings: &AccountSettings) -> String {
        match self {
            Self::Root(path) => (*path).into(),
            Self::Under(path) => format!("{}{path}", settings.path),
        }
    }

    fn pattern(&self, settings: &AccountSettings) -> PathPattern {
        let path = self.text(settings);
        match path.strip_suffix("/{id}") {
            Some(parent) => PathPattern::Prefix(parent.into()),
            None => PathPattern::Exact(path.into()),
        }
    }
}

/// A request under way: who, what, with which body.
pub(super) struct Call {
    pub(super) context: Context,
    pub(super) parts: Parts,
    pub(super) body: Bytes,
}

pub(super) type Answered = Result<Response<Bytes>, Rejection>;

async fn handle(
    accounts: Arc<Accounts>,
    operation: Operation,
    request: Request<Body>,
) -> Response<Body> {
    let (mut parts, body) = request.into_parts();
    let Some(context) = parts.extensions.remove::<Context>() else {
        return Response::default(); // only `PortalHandle::call` reaches the router, and it puts one there
    };
    let request_id = context.request_id;
    let limit = usize::try_from(BODY_BYTES_MAX).unwrap_or(usize::MAX);
    let answered = match axum::body::to_bytes(body, limit).await {
        Ok(body) => {
            let call = Call {
                context,
                parts,
                body,
            };
            operate(&accounts, operation, call).await
        }
        Err(_) => Err(Rejection::BodyTooLarge),
    };
    let response = answered.unwrap_or_else(|rejection| respond::refusal(&rejection, &request_id));
    answers::guard(response).map(Body::from)
}

fn operate<'a>(
    accounts: &'a Accounts,
    operation: Operation,
    call: Call,
) -> Pin<Box<dyn Future<Output = Answered> + Send + 'a>> {
    match operation {
        Operation::ChangePassword => Box::pin(passwords::change(accounts, call)),
        Operation::ForgotPassword => Box::pin(passwords::forgot(accounts, call)),
        Operation::ResetPassword => Box::pin(passwords::reset(accounts, call)),
        Operation::EndSession => Box::pin(end_session(accounts, call)),
        Operation::Introspect => Box::pin(clients::introspect(accounts, call)),
        Operation::IssuerDocument => Box::pin(async { Ok(issuer_document(accounts)) }),
        Operation::Jwks => Box::pin(async { Ok(answers::document(accounts.jwks())) }),
        Operation::Login => Box::pin(login(accounts, call)),
        Operation::Logout => Box::pin(logout(accounts, call)),
        Operation::LogoutAll => Box::pin(logout_all(accounts, call)),
        Operation::Me => Box::pin(async move { me(accounts, &call) }),
        Operation::Page(page) => Box::pin(pages::serve(accounts, page, call)),
        Operation::Refresh => Box::pin(refresh(accounts, call)),
        Operation::Revoke => Box::pin(clients::revoke(accounts, call)),
        Operation::Sessions => Box::pin(sessions(accounts, call)),
    }
}

/// Where the refresh token goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Delivery {
    Body,
    #[default]
    Cookie,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LoginBody {
    username: String,
    password: Secret,
    #[serde(default)]
    delivery: Delivery,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct TokenBody {
    refresh_token: Option<Secret>,
}

async fn login(accounts: &Accounts, call: Call) -> Answered {
    if forms::is_form(&call.parts.headers) && call.context.pages.is_some() {
        return pages::serve(accounts, Page::SubmitLogin, call).await;
    }
    // A page elsewhere must not sign its visitor in to an account of its own choice (AUTH-8).
    requests::refuse_foreign_origin(&call.parts.headers, accounts.settings())?;
    let before = cookies::refresh_cookie(&call.parts.headers)?;
    let body: LoginBody = requests::json(&call.parts.headers, &call.body)?;
    if body.username.len() > NAME_BYTES_MAX {
        return Err(Rejection::BadRequest(HeadFault::Body));
    }
    let login = Login {
        name: &body.username,
        password: Password::new(body.password.0)?,
        client: Client {
            ip: call.context.client.ip(),
            device: requests::user_agent(&call.parts.headers),
        },
    };
    let grant = accounts.login(login).await?;
    // Whoever put that cookie there, its session is not this login's, and nobody goes on with it.
    if let Some(token) = before.as_deref().and_then(|text| RefreshToken::parse(text)) {
        accounts.logout(&token).await?;
    }
    deliver(accounts, &grant, body.delivery)
}

async fn refresh(accounts: &Accounts, call: Call) -> Answered {
    let headers = &call.parts.headers;
    let cookie = cookies::refresh_cookie(headers)?;
    let body: TokenBody = if call.body.is_empty() {
        TokenBody::default()
    } else {
        requests::json(headers, &call.body)?
    };
    let (text, delivery) = match (cookie, body.refresh_token.map(|token| token.0)) {
        (Some(_), Some(_)) => return Err(Rejection::AmbiguousCredentials),
        (None, None) => return Err(Rejection::InvalidGrant),
        (None, Some(token)) => (token, Delivery::Body),
        (Some(token), None) => {
            requests::require_own_origin(headers, accounts.settings())?;
            (token, Delivery::Cookie)
        }
    };
    let token = RefreshToken::parse(&text).ok_or(Rejection::InvalidGrant)?;
    let grant = accounts.refresh(&token, call.context.client.ip()).await?;
    deliver(accounts, &grant, delivery)
}

/// Ends the session of whatever was presented: cookie, token in the body, access token. What is not good ends nothing, and
/// the answer is the same (SESS-5).
async fn logout(accounts: &Accounts, call: Call) -> Answered {
    if forms::is_form(&call.parts.headers) && call.context.pages.is_some() {
        return pages::serve(accounts, Page::SubmitLogout, call).await;
    }
    let headers = &call.parts.headers;
    let cookie = cookies::refresh_cookie(headers)?;
    if cookie.is_some() {
        requests::require_own_origin(headers, accounts.settings())?;
    }
    let body: TokenBody = if call.body.is_empty() {
        TokenBody::default()
    } else {
        requests::json(headers, &call.body)?
    };
    for text in cookie
        .iter()
        .chain(&body.refresh_token.map(|token| token.0))
    {
        if let Some(token) = RefreshToken::parse(text) {
            accounts.logout(&token).await?;
        }
    }
    let Context {
        authn,
        bad_tokens,
        client,
        ..
    } = &call.context;
    let budget = bad_tokens.of(*client);
    let bearer = authn.authenticate(headers, Access::Optional, accounts.time(), &budget);
    // Nobody has looked at this token: to say that its session has ended would be untrue.
    if let Err(limited @ Rejection::RateLimited(_)) = bearer {
        return Err(limited);
    }
    if let Ok(Caller::Verified(identity)) = bearer {
        let claims = identity.claims();
        if let (true, Some(session)) = (*claims.issuer_name == *ISSUER_NAME, &claims.session) {
            accounts.end_session(&claims.subject, session).await?;
        }
    }
    match cookie {
        Some(_) => cookies::forget(answers::no_content(), accounts.settings()),
        None => Ok(answers::no_content()),
    }
}

async fn logout_all(accounts: &Accounts, call: Call) -> Answered {
    accounts.logout_all(&claims(&call)?.subject).await?;
    Ok(answers::no_content())
}

fn me(accounts: &Accounts, call: &Call) -> Answered {
    Ok(answers::me(claims(call)?, accounts.time()))
}

async fn sessions(accounts: &Accounts, call: Call) -> Answered {
    let claims = claims(&call)?;
    let sessions = accounts.sessions(&claims.subject).await?;
    Ok(answers::sessions(&sessions, claims.session.as_deref()))
}

/// Sessions are looked for among the caller's own, so another's id is as unknown as a made-up one.
async fn end_session(accounts: &Accounts, call: Call) -> Answered {
    let claims = claims(&call)?;
    let path = call.parts.uri.path();
    let id = path.rsplit('/').next().filter(|id| id.len() <= 64);
    let id = id.ok_or(Rejection::RouteNotFound)?;
    if accounts.end_session(&claims.subject, id).await? {
        Ok(answers::no_content())
    } else {
        Err(Rejection::RouteNotFound)
    }
}

fn issuer_document(accounts: &Accounts) -> Response<Bytes> {
    let issuer = &accounts.settings().issuer;
    let algorithms = accounts.algorithms();
    let prefix = format!("{issuer}{}", accounts.settings().path);
    let methods = ["client_secret_basic", "client_secret_post"];
    let document = serde_json::json!({
        "introspection_endpoint": format!("{prefix}/introspect"),
        "introspection_endpoint_auth_methods_supported": methods,
        "revocation_endpoint": format!("{prefix}/revoke"),
        "revocation_endpoint_auth_methods_supported": methods,
        "issuer": **issuer,
        "jwks_uri": format!("{issuer}/.well-known/jwks.json"),
        "response_types_supported": [],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": algorithms,
    });
    answers::document(document.to_string().into_bytes())
}

fn deliver(accounts: &Accounts, grant: &Grant, delivery: Delivery) -> Answered {
    match delivery {
        Delivery::Body => Ok(answers::grant(grant, true)),
        Delivery::Cookie => {
            cookies::grant(answers::grant(grant, false), grant, accounts.settings())
        }
    }
}

/// The claims of the caller of a route whose access is `authenticated`. The gateway lets nobody else through; should it, here
/// is the second door.
pub(super) fn claims(call: &Call) -> Result<&Claims, Rejection> {
    let identity = call.context.caller.identity();
    let claims = identity.ok_or(Rejection::CredentialsMissing)?.claims();
    if *claims.issuer_name == *ISSUER_NAME {
        Ok(claims)
    } else {
        Err(Rejection::TokenInvalid(TokenFault::Issuer))
    }
}
