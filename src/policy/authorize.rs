//! May they? The route's rule over the identity, decided on every request, cached token or not (CACHE-2).

use std::sync::Arc;

use serde_json::Value;

use super::{
    client_ip::ClientIp,
    identity::{Claims, Identity},
    rejection::{ClaimFault, Rejection},
    route::Route,
};

/// Whether a route looks at credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// A verified identity or a refusal.
    Authenticated,
    /// No credential is anonymous; a bad one is refused all the same.
    Optional,
    /// Credentials are not looked at and pass to the upstream untouched.
    Public,
}

/// Who the credential check found.
#[derive(Debug, Clone)]
pub enum Caller {
    /// Nobody: no credential was sent, or the route does not look at it.
    Anonymous,
    /// Somebody whom a verifier vouches for.
    Verified(Arc<Identity>),
}

/// What a route requires of an identity. The empty rule requires nothing beyond being verified.
#[derive(Debug, Clone, Default)]
pub struct Rule {
    /// Any one of these roles; empty: none needed.
    pub roles: Vec<Box<str>>,
    /// All of these scopes.
    pub scopes: Vec<Box<str>>,
    /// The scopes joined by spaces, for the challenge (RFC 6750 §3).
    pub scopes_line: Arc<str>,
    /// For each claim (dots reach into objects), any one of these values.
    pub claims: Vec<(Box<str>, Vec<Value>)>,
    /// One of these issuers, by their names in the configuration; empty: any.
    pub issuers: Vec<Box<str>>,
    /// One of these in `aud`; empty: what the issuer's own entry asks is enough.
    pub audiences: Vec<Box<str>>,
}

/// The proof that a request may be forwarded. Only [`authorize`] makes one and `upstream::forward` takes nothing less, so a
/// forgotten check does not compile.
///
/// ```compile_fail
/// // The fields are private: a permit cannot be written down.
/// let forged = portcullis::policy::Permit { route: todo!(), client: todo!(), caller: todo!(), unenforced: None };
/// ```
#[derive(Debug)]
pub struct Permit<'r> {
    route: &'r Route,
    client: ClientIp,
    caller: Caller,
    unenforced: Option<Rejection>,
}

impl<'r> Permit<'r> {
    /// The route that the permit is for.
    #[must_use]
    pub fn route(&self) -> &'r Route {
        self.route
    }

    /// The address that the request is charged to.
    #[must_use]
    pub fn client(&self) -> ClientIp {
        self.client
    }

    /// Who was found to call.
    #[must_use]
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// What the route would have refused, were its rules enforced.
    #[must_use]
    pub fn unenforced(&self) -> Option<&Rejection> {
        self.unenforced.as_ref()
    }

    /// Whether the gateway has taken the caller's credential, which is not the upstream's then: not on a public route, and not
    /// where one that it refused goes on for want of enforcement, for it may be one of the upstream's own.
    #[must_use]
    pub fn consumed_credential(&self) -> bool {
        self.route.access != Access::Public
            && (self.route.enforce || self.caller.identity().is_some())
    }
}

impl Caller {
    /// The identity, where there is one.
    #[must_use]
    pub fn identity(&self) -> Option<&Identity> {
        match self {
            Self::Anonymous => None,
            Self::Verified(identity) => Some(identity),
        }
    }
}

/// Decides whether this caller, or this want of one, may use this route. Where the route is not enforced the answer is always
/// yes, and the permit tells what it would have been.
///
/// # Errors
/// What the credential check refused; [`Rejection::AddressDenied`]; [`Rejection::CredentialsMissing`] for nobody where somebody is required; [`Rejection::ClaimMismatch`],
/// [`Rejection::RoleMissing`] or [`Rejection::ScopeMissing`] by the first part of the rule that is not met, in that order.
pub fn authorize(
    route: &Route,
    client: ClientIp,
    caller: Result<Caller, Rejection>,
) -> Result<Permit<'_>, Rejection> {
    let (caller, refused) = match caller {
        Ok(caller) => {
            let refused = check(route, client, &caller).err();
            (caller, refused)
        }
        Err(rejection) => (Caller::Anonymous, Some(rejection)),
    };
    match refused {
        Some(rejection) if route.enforce => Err(rejection),
        unenforced => Ok(Permit {
            route,
            client,
            caller,
            unenforced,
        }),
    }
}

fn check(route: &Route, client: ClientIp, caller: &Caller) -> Result<(), Rejection> {
    // Whoever costs a signature check was asked before; here it is asked again, so that there is no permit without it.
    route.addresses.check(client)?;
    match (route.access, caller) {
        (Access::Public, _) | (Access::Optional, Caller::Anonymous) => Ok(()),
        (Access::Authenticated, Caller::Anonymous) => Err(Rejection::CredentialsMissing),
        (Access::Authenticated | Access::Optional, Caller::Verified(identity)) => {
            route.rule.check(identity.claims())
        }
    }
}

impl Rule {
    fn check(&self, claims: &Claims) -> Result<(), Rejection> {
        if !self.issuers.is_empty()
            && !self
                .issuers
                .iter()
                .any(|name| **name == *claims.issuer_name)
        {
            return Err(Rejection::ClaimMismatch(ClaimFault::Issuer));
        }
        if !self.audiences.is_empty() && !intersects(&self.audiences, &claims.audience) {
            return Err(Rejection::ClaimMismatch(ClaimFault::Audience));
        }
        for (name, allowed) in &self.claims {
            if !find(&claims.all, name).is_some_and(|value| holds_one_of(value, allowed)) {
                return Err(Rejection::ClaimMismatch(ClaimFault::Claim));
            }
        }
        if !self.roles.is_empty() && !intersects(&self.roles, &claims.roles) {
            return Err(Rejection::RoleMissing);
        }
        if !self
            .scopes
            .iter()
            .all(|scope| claims.scopes.contains(scope))
        {
            return Err(Rejection::ScopeMissing(Arc::clone(&self.scopes_line)));
        }
        Ok(())
    }
}

fn intersects(wanted: &[Box<str>], held: &[Box<str>]) -> bool {
    wanted.iter().any(|one| held.contains(one))
}

/// Finds a claim by its name, where a dot reaches into an object. A name that itself contains dots (a URL, as some
/// providers use) is found first.
pub(crate) fn find<'c>(
    claims: &'c serde_json::Map<String, Value>,
    name: &str,
) -> Option<&'c Value> {
    if let Some(value) = claims.get(name) {
        return Some(value);
    }
    let (outer, inner) = name.split_once('.')?;
    find(claims.get(outer)?.as_object()?, inner)
}

/// Whether a claim is one of the values, or a list that has one of them.
fn holds_one_of(value: &Value, allowed: &[Value]) -> bool {
    match value {
        Value::Array(list) => list.iter().any(|element| allowed.contains(element)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
            allowed.contains(value)
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
