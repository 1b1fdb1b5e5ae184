//! The document against the table it is made from.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::document;
use crate::{
    accounts::{
        settings::Registration,
        tests::{Site, settings},
    },
    policy::PathPattern,
    portal::{BODY_BYTES_MAX, routes},
};

const METHODS: [&str; 4] = ["get", "post", "patch", "delete"];

fn parsed(change: impl FnOnce(&mut crate::accounts::settings::AccountSettings)) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(&folder);
    change(&mut settings);
    serde_json::from_slice(&document(&settings)).unwrap()
}

/// Every operation as method, path and what is said of it.
fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            assert!(METHODS.contains(&method.as_str()), "{method} {path}");
            found.push((method.clone(), path.clone(), operation.clone()));
        }
    }
    found
}

#[test]
fn every_row_of_the_table_is_in_the_document_and_nothing_else() {
    for registration in [Registration::Closed, Registration::Invite] {
        for pages in [true, false] {
            let site = Site::with(|settings| {
                settings.registration = registration;
                settings.path = "/konto".into();
                settings.pages = settings.pages.take().filter(|_| pages);
            });
            let document: Value = serde_json::from_slice(&document(&site.settings)).unwrap();
            let described: BTreeSet<_> = operations(&document)
                .into_iter()
                .map(|(method, _, operation)| {
                    let id = operation["operationId"].as_str().unwrap();
                    (method.to_ascii_uppercase(), format!("auth.{id}"))
                })
                .collect();
            let rows = routes(&site.settings);
            let served: BTreeSet<_> = rows
                .iter()
                .map(|route| (route.methods[0].to_string(), route.name.to_string()))
                .collect();
            assert_eq!(described, served);
            assert_eq!(operations(&document).len(), rows.len());
            for route in &rows {
                let (PathPattern::Exact(path) | PathPattern::Prefix(path)) = &route.path;
                let method = route.methods[0].as_str().to_ascii_lowercase();
                let found = operations(&document).iter().any(|(m, p, operation)| {
                    let id = operation["operationId"].as_str().unwrap();
                    *m == method && p.starts_with(&**path) && *route.name == format!("auth.{id}")
                });
                assert!(found, "{method} {path}");
            }
        }
    }
}

#[test]
fn what_needs_a_token_says_so_and_can_refuse_for_want_of_one() {
    let document = parsed(|settings| settings.registration = Registration::Invite);
    for (method, path, operation) in operations(&document) {
        if operation["tags"] == json!(["pages"]) {
            continue;
        }
        let bearer = operation["security"] == json!([{ "bearer": [] }]);
        let codes = &operation["responses"]["401"]["content"]["application/problem+json"]["schema"]
            ["properties"]["code"]["enum"];
        let codes: Vec<_> = codes.as_array().into_iter().flatten().collect();
        assert_eq!(
            bearer,
            codes.contains(&&json!("credentials_missing")),
            "{method} {path}"
        );
        let roles = &operation["responses"]["403"]["content"]["application/problem+json"]["schema"]
            ["properties"]["code"]["enum"];
        let names_role = roles
            .as_array()
            .is_some_and(|codes| codes.contains(&json!("role_missing")));
        assert_eq!(
            names_role,
            path.starts_with("/auth/users"),
            "{method} {path}"
        );
    }
}

#[test]
fn auth_7_the_bodies_of_json_are_closed_and_name_no_role_or_state_for_oneself() {
    let document = parsed(|settings| settings.registration = Registration::Open);
    let mut bodies = 0;
    for (method, path, operation) in operations(&document) {
        let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
        let Some(reference) = schema["$ref"].as_str() else {
            continue;
        };
        bodies += 1;
        let schema = document
            .pointer(reference.strip_prefix('#').unwrap())
            .unwrap();
        assert_eq!(schema["additionalProperties"], false, "{method} {path}");
        let fields = schema["properties"].as_object().unwrap();
        if !path.starts_with("/auth/users") {
            for field in ["role", "roles", "disabled", "id", "pending"] {
                assert!(!fields.contains_key(field), "{path} {field}");
            }
        }
        for field in [
            "password",
            "new_password",
            "refresh_token",
            "secret",
            "token",
        ] {
            if let Some(schema) = fields.get(field) {
                assert_eq!(schema["format"], "password", "{path} {field}");
            }
        }
    }
    assert_eq!(bodies, 11);
}

#[test]
fn every_reference_leads_somewhere_and_the_document_is_small() {
    let document = parsed(|_| ());
    fn walk<'v>(value: &'v Value, found: &mut Vec<&'v str>) {
        match value {
            Value::Array(values) => values.iter().for_each(|value| walk(value, found)),
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str));
                fields.values().for_each(|value| walk(value, found));
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let mut references = Vec::new();
    walk(&document, &mut references);
    assert!(references.len() > 50);
    for reference in references {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
    let bytes = u64::try_from(document.to_string().len()).unwrap();
    assert!(bytes < 8 * BODY_BYTES_MAX, "{bytes}");
}
