//! The refusals: which of them an operation may answer with, by status.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Map, Value, json};

use crate::{
    policy::rejection::{ClaimFault, Exceeded},
    policy::{Access, HeadFault, PasswordFault, PathFault, Rejection, TokenFault},
    portal::endpoints::{Endpoint, Operation},
};

type ByStatus = BTreeMap<u16, Vec<Rejection>>;

/// The problem document (RFC 9457) of every refusal.
pub(super) fn schema() -> Value {
    json!({
        "type": "object",
        "description": "A refusal (RFC 9457). `code` says which; `detail` what to do.",
        "required": ["type", "title", "status", "detail", "code", "request_id"],
        "properties": {
            "type": { "type": "string", "description": "urn:portcullis:problem: and the code." },
            "title": { "type": "string" },
            "status": { "type": "integer" },
            "detail": { "type": "string" },
            "code": { "type": "string" },
            "error": { "const": "invalid_client", "description": "Of RFC 6749 §5.2, where a service did not prove who it is." },
            "request_id": { "type": "string", "description": "The name of this exchange in the logs." },
        },
    })
}

/// What any operation may refuse with, by the names of `components`.
pub(super) fn common() -> Map<String, Value> {
    let by_status = grouped(anywhere());
    let named = by_status
        .iter()
        .map(|(status, refusals)| (name(*status), response(*status, refusals)));
    named.collect()
}

/// Adds the refusals of an operation to its responses.
pub(super) fn extend(responses: &mut Map<String, Value>, endpoint: &Endpoint, takes_body: bool) {
    let common = grouped(anywhere());
    let mut all = anywhere();
    all.extend(own(endpoint, takes_body));
    for (status, refusals) in grouped(all) {
        let described = if common.get(&status) == Some(&refusals) {
            json!({ "$ref": format!("#/components/responses/{}", name(status)) })
        } else {
            response(status, &refusals)
        };
        responses.insert(status.to_string(), described);
    }
}

fn name(status: u16) -> String {
    format!("Refused{status}")
}

fn response(status: u16, refusals: &[Rejection]) -> Value {
    let mut codes: Vec<&str> = Vec::new();
    let mut titles: Vec<String> = Vec::new();
    for refusal in refusals {
        if !codes.contains(&refusal.code()) {
            codes.push(refusal.code());
            titles.push(format!("`{}`: {}", refusal.code(), refusal.title()));
        }
    }
    let mut headers = Map::new();
    match status {
        401 => {
            headers.insert(
                "WWW-Authenticate".into(),
                json!({ "schema": { "type": "string" }, "required": true }),
            );
        }
        405 => {
            headers.insert(
                "Allow".into(),
                json!({ "schema": { "type": "string" }, "required": true }),
            );
        }
        429 | 503 => {
            headers.insert(
                "Retry-After".into(),
                json!({ "schema": { "type": "integer" }, "required": true }),
            );
        }
        _ => {}
    }
    json!({
        "description": titles.join("; "),
        "headers": headers,
        "content": { "application/problem+json": { "schema": {
            "allOf": [{ "$ref": "#/components/schemas/Problem" }],
            "properties": { "status": { "const": status }, "code": { "enum": codes } },
        } } },
    })
}

fn grouped(refusals: Vec<Rejection>) -> ByStatus {
    let mut by_status = ByStatus::new();
    for refusal in refusals {
        let group = by_status.entry(refusal.status().as_u16()).or_default();
        if !group.contains(&refusal) {
            group.push(refusal);
        }
    }
    by_status
}

/// What the gateway refuses before it knows the route's business, and what may happen to any request.
fn anywhere() -> Vec<Rejection> {
    vec![
        Rejection::AddressDenied,
        Rejection::AmbiguousCredentials,
        Rejection::AmbiguousPath(PathFault::DotSegment),
        Rejection::BadRequest(HeadFault::Body),
        Rejection::BodyTooLarge,
        Rejection::ExpectationFailed,
        Rejection::HeadersTooLarge,
        Rejection::HttpsRequired,
        Rejection::Internal,
        Rejection::LoopDetected,
        Rejection::MethodNotAllowed(Vec::new()),
        Rejection::MisdirectedRequest,
        Rejection::Overloaded,
        Rejection::RateLimited(Exceeded {
            limit: "",
            retry_after: Duration::ZERO,
            quota: 0,
            window: Duration::ZERO,
        }),
        Rejection::RequestTimeout,
        Rejection::RouteNotFound,
        Rejection::StoreUnavailable,
        Rejection::UriTooLong,
    ]
}

/// What an operation refuses with beyond that.
fn own(endpoint: &Endpoint, takes_body: bool) -> Vec<Rejection> {
    let mut refusals = Vec::new();
    if takes_body {
        refusals.push(Rejection::OriginDenied);
        refusals.push(Rejection::UnsupportedMediaType);
    }
    if endpoint.access == Access::Authenticated {
        refusals.extend([
            Rejection::ClaimMismatch(ClaimFault::Issuer),
            Rejection::CredentialsMissing,
            Rejection::KeysUnavailable,
            Rejection::TokenExpired,
            Rejection::TokenInvalid(TokenFault::Signature),
        ]);
    }
    let taken = [
        Rejection::AccountExists,
        Rejection::PasswordRefused(PasswordFault::Common),
    ];
    match endpoint.operation {
        Operation::Administer(_) => {
            refusals.extend(taken);
            refusals.extend([
                Rejection::LastAdmin,
                Rejection::OriginDenied,
                Rejection::RoleMissing,
            ]);
        }
        Operation::Bootstrap | Operation::Register => {
            refusals.extend(taken);
            refusals.push(Rejection::LinkInvalid);
        }
        Operation::ChangePassword => {
            refusals.push(Rejection::InvalidCredentials);
            refusals.push(Rejection::PasswordRefused(PasswordFault::Common));
        }
        Operation::ResetPassword => {
            refusals.push(Rejection::LinkInvalid);
            refusals.push(Rejection::PasswordRefused(PasswordFault::Common));
        }
        Operation::VerifyRegistration => refusals.extend([
            Rejection::AccountExists,
            Rejection::InvalidCredentials,
            Rejection::LinkInvalid,
        ]),
        Operation::Introspect | Operation::Revoke => refusals.push(Rejection::InvalidClient),
        Operation::Login => refusals.push(Rejection::InvalidCredentials),
        Operation::Refresh => refusals.push(Rejection::InvalidGrant),
        Operation::EndSession
        | Operation::ForgotPassword
        | Operation::IssuerDocument
        | Operation::Jwks
        | Operation::Logout
        | Operation::LogoutAll
        | Operation::Me
        | Operation::OpenApi
        | Operation::Page(_)
        | Operation::Sessions => {}
    }
    refusals
}
