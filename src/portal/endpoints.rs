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

use super::{
    BODY_BYTES_MAX, administration, answers, clients, own_sessions,
    pages::{self, Page, Pages, handover::Handovers},
    passwords, registration, sign_in,
};
use crate::{
    accounts::{
        Accounts, ISSUER_NAME,
        settings::{AccountSettings, Registration},
    },
    authn::Authenticator,
    limit::BadTokens,
    policy::{
        Access, Browsers, Caller, Claims, ClientIp, PathPattern, Rejection, Route, Rule, Target,
        TokenFault,
    },
    respond,
    store::ADMIN,
    telemetry::RequestId,
};

/// The whole exchange: waiting for a hash and for the store is bounded by less.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The longest name or address that is looked at.
pub(super) const NAME_BYTES_MAX: usize = 254;

/// One row of the table.
pub(super) struct Endpoint {
    pub(super) name: &'static str,
    pub(super) method: Method,
    pub(super) path: Place,
    pub(super) access: Access,
    pub(super) operation: Operation,
}

/// Where an endpoint lies. `{id}` stands for one segment.
pub(super) enum Place {
    /// At the root.
    Root(&'static str),
    /// Below the configured prefix.
    Under(&'static str),
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Operation {
    /// Needs the role `admin`: whatever is administration can have no row without it.
    Administer(administration::Operation),
    Bootstrap,
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
    OpenApi,
    Page(Page),
    Refresh,
    Register,
    ResetPassword,
    Revoke,
    Sessions,
    VerifyRegistration,
}

/// Every endpoint. What needs an access token needs one of ours; a foreign issuer's users have no account here.
#[rustfmt::skip]
pub(super) const ENDPOINTS: [Endpoint; 38] = [
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
    Endpoint { name: "auth.register",    method: Method::POST,   path: Place::Under("/register"),      access: Access::Public,        operation: Operation::Register },
    Endpoint { name: "auth.verify",      method: Method::POST,   path: Place::Under("/register/verify"), access: Access::Public,      operation: Operation::VerifyRegistration },
    Endpoint { name: "auth.bootstrap",   method: Method::POST,   path: Place::Under("/bootstrap"),     access: Access::Public,        operation: Operation::Bootstrap },
    Endpoint { name: "auth.users",         method: Method::GET,    path: Place::Under("/users"),              access: Access::Authenticated, operation: Operation::Administer(administration::Operation::List) },
    Endpoint { name: "auth.create_user",   method: Method::POST,   path: Place::Under("/users"),              access: Access::Authenticated, operation: Operation::Administer(administration::Operation::Create) },
    Endpoint { name: "auth.user",          method: Method::GET,    path: Place::Under("/users/{id}"),         access: Access::Authenticated, operation: Operation::Administer(administration::Operation::Show) },
    Endpoint { name: "auth.change_user",   method: Method::PATCH,  path: Place::Under("/users/{id}"),         access: Access::Authenticated, operation: Operation::Administer(administration::Operation::Change) },
    Endpoint { name: "auth.delete_user",   method: Method::DELETE, path: Place::Under("/users/{id}"),         access: Access::Authenticated, operation: Operation::Administer(administration::Operation::Delete) },
    Endpoint { name: "auth.logout_user",   method: Method::POST,   path: Place::Under("/users/{id}/logout"),  access: Access::Authenticated, operation: Operation::Administer(administration::Operation::Logout) },
    Endpoint { name: "auth.invites",       method: Method::GET,    path: Place::Under("/users/invites"),      access: Access::Authenticated, operation: Operation::Administer(administration::Operation::Invites) },
    Endpoint { name: "auth.invite",        method: Method::POST,   path: Place::Under("/users/invites"),      access: Access::Authenticated, operation: Operation::Administer(administration::Operation::Invite) },
    Endpoint { name: "auth.revoke_invite", method: Method::DELETE, path: Place::Under("/users/invites/{id}"), access: Access::Authenticated, operation: Operation::Administer(administration::Operation::RevokeInvite) },
    Endpoint { name: "auth.jwks",        method: Method::GET,    path: Place::Root("/.well-known/jwks.json"),            access: Access::Public, operation: Operation::Jwks },
    Endpoint { name: "auth.issuer",      method: Method::GET,    path: Place::Root("/.well-known/openid-configuration"), access: Access::Public, operation: Operation::IssuerDocument },
    Endpoint { name: "auth.openapi",     method: Method::GET,    path: Place::Under("/openapi.json"), access: Access::Public,      operation: Operation::OpenApi },
    Endpoint { name: "auth.login_page",     method: Method::GET,  path: Place::Under("/login"),    access: Access::Public,        operation: Operation::Page(Page::Login) },
    Endpoint { name: "auth.logout_page",    method: Method::GET,  path: Place::Under("/logout"),   access: Access::Public,        operation: Operation::Page(Page::Logout) },
    Endpoint { name: "auth.account",        method: Method::GET,  path: Place::Under("/account"),  access: Access::Authenticated, operation: Operation::Page(Page::Account) },
    Endpoint { name: "auth.change_account", method: Method::POST, path: Place::Under("/account"),  access: Access::Authenticated, operation: Operation::Page(Page::ChangeAccount) },
    Endpoint { name: "auth.renew",          method: Method::GET,  path: Place::Under("/renew"),    access: Access::Public,        operation: Operation::Page(Page::Renew) },
    Endpoint { name: "auth.handover",       method: Method::GET,  path: Place::Under("/handover"), access: Access::Public,        operation: Operation::Page(Page::Handover) },
    Endpoint { name: "auth.arrive",         method: Method::GET,  path: Place::Under("/arrive"),   access: Access::Public,        operation: Operation::Page(Page::Arrive) },
    Endpoint { name: "auth.forgot_page",    method: Method::GET,  path: Place::Under("/password/forgot"), access: Access::Public, operation: Operation::Page(Page::Forgot) },
    Endpoint { name: "auth.reset_page",     method: Method::GET,  path: Place::Under("/password/reset"),  access: Access::Public, operation: Operation::Page(Page::Reset) },
    Endpoint { name: "auth.register_page",  method: Method::GET,  path: Place::Under("/register"),        access: Access::Public, operation: Operation::Page(Page::Register) },
    Endpoint { name: "auth.verify_page",    method: Method::GET,  path: Place::Under("/register/verify"), access: Access::Public, operation: Operation::Page(Page::Verify) },
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
    /// The document of [`openapi`](super::openapi).
    pub(super) openapi: Bytes,
}

/// The built-in routes, for the route table.
#[must_use]
pub fn routes(settings: &AccountSettings) -> Vec<Route> {
    ENDPOINTS
        .iter()
        .filter(|endpoint| endpoint.operation.is_served(settings))
        .enumerate()
        .map(|(index, endpoint)| Route {
            index,
            methods: if endpoint.method == Method::GET {
                vec![Method::GET, Method::HEAD]
            } else {
                vec![endpoint.method.clone()]
            },
            rule: match endpoint.access {
                Access::Authenticated => Rule {
                    roles: endpoint.operation.roles(),
                    issuers: vec![ISSUER_NAME.into()],
                    ..Rule::default()
                },
                Access::Optional | Access::Public => Rule::default(),
            },
            max_body: BODY_BYTES_MAX,
            timeout: TIMEOUT,
            browsers: Browsers {
                cookie: endpoint.operation.is_page(),
                sign_in: endpoint.operation.is_page(),
            },
            ..Route::built_in(
                endpoint.name,
                endpoint.path.pattern(settings),
                Target::Accounts,
                endpoint.access,
            )
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
        if !endpoint.operation.is_served(accounts.settings()) {
            continue;
        }
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
    pub(super) fn is_page(self) -> bool {
        matches!(self, Self::Page(_))
    }

    /// What the configuration leaves out does not exist.
    pub(super) fn is_served(self, settings: &AccountSettings) -> bool {
        let registers = if let Self::Administer(operation) = self {
            operation.is_of_invitations()
        } else {
            matches!(self, Self::Register | Self::VerifyRegistration)
                || matches!(self, Self::Page(Page::Register | Page::Verify))
        };
        let mails = matches!(
            self,
            Self::VerifyRegistration | Self::Page(Page::Forgot | Page::Reset | Page::Verify)
        );
        (!mails || settings.mail.is_some())
            && (!registers || settings.registration != Registration::Closed)
            && (!self.is_page() || settings.pages.is_some())
    }

    /// Any of these is needed; empty: none is.
    fn roles(self) -> Vec<Box<str>> {
        if matches!(self, Self::Administer(_)) {
            vec![ADMIN.into()]
        } else {
            Vec::new()
        }
    }
}

impl Place {
    pub(super) fn text(&self, settings: &AccountSettings) -> String {
        match self {
            Self::Root(path) => (*path).into(),
            Self::Under(path) => format!("{}{path}", settings.path),
        }
    }

    /// Whether a segment of it is an id.
    pub(super) fn has_id(&self) -> bool {
        let (Self::Root(path) | Self::Under(path)) = self;
        path.contains("{id}")
    }

    fn pattern(&self, settings: &AccountSettings) -> PathPattern {
        let path = self.text(settings);
        match path.split_once("/{id}") {
            Some((parent, _)) => PathPattern::Prefix(parent.into()),
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
        Operation::Administer(operation) => {
            Box::pin(administration::operate(accounts, operation, call))
        }
        Operation::Bootstrap => Box::pin(registration::bootstrap(accounts, call)),
        Operation::ChangePassword => Box::pin(passwords::change(accounts, call)),
        Operation::ForgotPassword => Box::pin(passwords::forgot(accounts, call)),
        Operation::ResetPassword => Box::pin(passwords::reset(accounts, call)),
        Operation::EndSession => Box::pin(own_sessions::end_session(accounts, call)),
        Operation::Introspect => Box::pin(clients::introspect(accounts, call)),
        Operation::IssuerDocument => Box::pin(async {
            known_keys(accounts)?;
            Ok(issuer_document(accounts))
        }),
        Operation::Jwks => Box::pin(async {
            known_keys(accounts)?;
            Ok(answers::document(accounts.jwks()))
        }),
        Operation::Login => Box::pin(sign_in::login(accounts, call)),
        Operation::Logout => Box::pin(sign_in::logout(accounts, call)),
        Operation::LogoutAll => Box::pin(own_sessions::logout_all(accounts, call)),
        Operation::Me => Box::pin(async move { own_sessions::me(accounts, &call) }),
        Operation::OpenApi => Box::pin(async move { Ok(answers::document(call.context.openapi)) }),
        Operation::Page(page) => Box::pin(pages::serve(accounts, page, call)),
        Operation::Refresh => Box::pin(sign_in::refresh(accounts, call)),
        Operation::Register => Box::pin(registration::register(accounts, call)),
        Operation::Revoke => Box::pin(clients::revoke(accounts, call)),
        Operation::Sessions => Box::pin(own_sessions::sessions(accounts, call)),
        Operation::VerifyRegistration => Box::pin(registration::verify(accounts, call)),
    }
}

/// Refuses while it is not known which keys there are: verifiers would keep an empty set, and refuse every token for as long.
fn known_keys(accounts: &Accounts) -> Result<(), Rejection> {
    if accounts.knows_keys() {
        Ok(())
    } else {
        Err(Rejection::StoreUnavailable)
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
