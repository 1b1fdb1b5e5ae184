//! The description of the account routes for programs: an OpenAPI 3.1 document, made from the table of endpoints, the types that
//! the handlers read and write, and the refusals.
//!
//! What a body may hold is closed: a field that is not named is refused. Answers may gain fields in later versions.

mod operations;
mod problems;
#[cfg(test)]
mod tests;

use schemars::{
    JsonSchema, SchemaGenerator,
    generate::{Contract, SchemaSettings},
};
use serde_json::{Map, Value, json};

use super::{
    administration::{self, ID_BYTES_MAX, PAGE, PAGE_MAX},
    endpoints::{ENDPOINTS, Endpoint, Operation},
};
use crate::{
    accounts::settings::AccountSettings,
    policy::{Access, headers::REFRESH_COOKIE},
};

/// What a request brings.
enum Takes {
    /// `application/x-www-form-urlencoded`.
    Form(Value),
    /// `application/json`.
    Json(Value),
    /// The same, or no body.
    JsonOrNothing(Value),
    Nothing,
}

/// What a request that was granted gets.
enum Gives {
    Json(u16, Value),
    /// An account (201), or word that a mail is on its way (202).
    MadeOrPending(Value, Value),
    Nothing(u16),
    Page,
}

/// Collects the types of bodies, as they are read, and of answers, as they are written.
struct Types {
    read: SchemaGenerator,
    written: SchemaGenerator,
}

impl Types {
    fn new() -> Self {
        let generator = |contract| {
            SchemaSettings::draft2020_12()
                .with(|settings| {
                    settings.definitions_path = "/components/schemas".into();
                    settings.contract = contract;
                    settings.meta_schema = None;
                })
                .into_generator()
        };
        Self {
            read: generator(Contract::Deserialize),
            written: generator(Contract::Serialize),
        }
    }

    fn read<T: JsonSchema>(&mut self) -> Value {
        self.read.subschema_for::<T>().to_value()
    }

    fn written<T: JsonSchema>(&mut self) -> Value {
        self.written.subschema_for::<T>().to_value()
    }

    fn into_components(mut self) -> Map<String, Value> {
        let mut all = self.read.take_definitions(true);
        all.extend(self.written.take_definitions(true));
        all
    }
}

/// The document of what these settings serve, as JSON.
pub(super) fn document(settings: &AccountSettings) -> Vec<u8> {
    let mut types = Types::new();
    let mut paths = Map::new();
    let served = ENDPOINTS
        .iter()
        .filter(|endpoint| endpoint.operation.is_served(settings));
    for endpoint in served {
        let path = paths
            .entry(endpoint.path.text(settings))
            .or_insert_with(|| json!({}));
        if let Value::Object(path) = path {
            let method = endpoint.method.as_str().to_ascii_lowercase();
            path.insert(method, describe(endpoint, &mut types));
        }
    }
    let mut schemas = types.into_components();
    schemas.insert("Problem".into(), problems::schema());
    let document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Portcullis accounts",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "Sign-in, sessions, passwords, tokens and accounts.",
            "description": "A field of a body that is not named here is refused. An answer may have more fields in a later version. Where GET is served, HEAD is too.",
        },
        "servers": [{ "url": *settings.issuer }],
        "tags": [
            { "name": "administration", "description": "For the role admin, with a bearer token." },
            { "name": "documents", "description": "Public, and may be kept for a while." },
            { "name": "pages", "description": "HTML for browsers; no interface for programs." },
            { "name": "registration", "description": "Accounts that people make themselves." },
            { "name": "services", "description": "For services that prove who they are." },
            { "name": "sessions", "description": "Sign-in, refresh, logout, one's own account." },
        ],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": problems::common(),
            "securitySchemes": {
                "bearer": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "An access token of this gateway's own issuer." },
                "client": { "type": "http", "scheme": "basic", "description": "Name and secret of a client of the configuration (RFC 6749 §2.3.1)." },
                "refresh": { "type": "apiKey", "in": "cookie", "name": REFRESH_COOKIE, "description": "The refresh token, where it was delivered as a cookie; only for pages of the same origin, with Content-Type: application/json." },
            },
        },
    });
    document.to_string().into_bytes()
}

fn describe(endpoint: &Endpoint, types: &mut Types) -> Value {
    let operation = endpoint.operation;
    let (summary, takes, gives) = operations::terms(operation, types);
    let name = endpoint.name.trim_start_matches("auth.");
    let mut described = Map::from_iter([
        ("operationId".to_owned(), name.into()),
        ("summary".into(), summary.into()),
        ("tags".into(), json!([tag(operation)])),
        ("security".into(), security(endpoint)),
    ]);
    let parameters = parameters(endpoint);
    if !parameters.is_empty() {
        described.insert("parameters".into(), parameters.into());
    }
    if let Some(body) = body(&takes) {
        described.insert("requestBody".into(), body);
    }
    let mut responses = Map::new();
    match gives {
        Gives::Json(status, schema) => {
            responses.insert(
                status.to_string(),
                json!({ "description": "Done.", "content": { "application/json": { "schema": schema } } }),
            );
        }
        Gives::MadeOrPending(made, pending) => {
            for (status, schema) in [("201", made), ("202", pending)] {
                responses.insert(
                    status.into(),
                    json!({ "description": "Done.", "content": { "application/json": { "schema": schema } } }),
                );
            }
        }
        Gives::Nothing(status) => {
            responses.insert(status.to_string(), json!({ "description": "Done." }));
        }
        Gives::Page => {
            responses.insert(
                "200".into(),
                json!({ "description": "The page.", "content": { "text/html": {} } }),
            );
            responses.insert(
                "303".into(),
                json!({ "description": "On to another page." }),
            );
            responses.insert(
                "default".into(),
                json!({ "description": "A refusal, as a page." }),
            );
        }
    }
    if !operation.is_page() {
        let takes_body = !matches!(takes, Takes::Nothing);
        problems::extend(&mut responses, endpoint, takes_body);
    }
    described.insert("responses".into(), responses.into());
    described.into()
}

fn tag(operation: Operation) -> &'static str {
    match operation {
        Operation::Administer(_) => "administration",
        Operation::IssuerDocument | Operation::Jwks | Operation::OpenApi => "documents",
        Operation::Page(_) => "pages",
        Operation::Bootstrap | Operation::Register | Operation::VerifyRegistration => {
            "registration"
        }
        Operation::Introspect | Operation::Revoke => "services",
        Operation::ChangePassword
        | Operation::EndSession
        | Operation::ForgotPassword
        | Operation::Login
        | Operation::Logout
        | Operation::LogoutAll
        | Operation::Me
        | Operation::Refresh
        | Operation::ResetPassword
        | Operation::Sessions => "sessions",
    }
}

/// Any one of the list is enough; an empty object stands for none, which is a credential in the body or nothing.
fn security(endpoint: &Endpoint) -> Value {
    let operation = endpoint.operation;
    if matches!(operation, Operation::Introspect | Operation::Revoke) {
        json!([{ "client": [] }, {}])
    } else if matches!(operation, Operation::Logout) {
        json!([{}, { "refresh": [] }, { "bearer": [] }])
    } else if matches!(operation, Operation::Refresh) {
        json!([{}, { "refresh": [] }])
    } else if endpoint.access == Access::Authenticated && !operation.is_page() {
        json!([{ "bearer": [] }])
    } else {
        json!([])
    }
}

fn parameters(endpoint: &Endpoint) -> Vec<Value> {
    let mut parameters = Vec::new();
    if endpoint.path.has_id() {
        parameters.push(json!({
            "name": "id", "in": "path", "required": true,
            "schema": { "type": "string", "minLength": 1, "maxLength": ID_BYTES_MAX },
        }));
    }
    if let Operation::Administer(administration::Operation::List) = endpoint.operation {
        parameters.push(json!({
            "name": "after", "in": "query", "description": "The `next` of the answer before.",
            "schema": { "type": "string", "maxLength": ID_BYTES_MAX },
        }));
        parameters.push(json!({
            "name": "limit", "in": "query", "description": "Accounts in one answer.",
            "schema": { "type": "integer", "minimum": 1, "maximum": PAGE_MAX, "default": PAGE },
        }));
    }
    parameters
}

fn body(takes: &Takes) -> Option<Value> {
    let (media_type, schema, required) = match takes {
        Takes::Form(schema) => ("application/x-www-form-urlencoded", schema, true),
        Takes::Json(schema) => ("application/json", schema, true),
        Takes::JsonOrNothing(schema) => ("application/json", schema, false),
        Takes::Nothing => return None,
    };
    let mut content = Map::new();
    content.insert(media_type.into(), json!({ "schema": schema }));
    Some(json!({ "required": required, "content": content }))
}
