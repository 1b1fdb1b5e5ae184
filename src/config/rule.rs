//! `require` of a route: what it asks of an identity. Anything here that would ask nothing is an error, for it was
//! written to ask something.

use std::sync::Arc;

use serde_json::Value;
use toml::de::DeValue;

use super::{
    diagnostic::Fault,
    issuer::boxed,
    reader::{Entry, Table, Text},
    words::suggest,
};
use crate::{
    authn::settings::BUILT_IN,
    policy::{Access, Rule},
};

/// Reads `require` of a route with this `access`.
pub(super) fn of(table: &mut Table<'_>, access: Option<Access>, issuers: &[Arc<str>]) -> Rule {
    if table.has("require") {
        match access {
            Some(Access::Public) => table.fault(
                "require",
                Fault::new(
                    "a public route does not look at credentials, so it can require nothing",
                    "access = \"authenticated\", or take `require` out",
                ),
            ),
            Some(Access::Optional) => table.context.problems.warn(
                &table.place_of("require"),
                Fault::new(
                    "callers without credentials need not meet it",
                    "access = \"authenticated\" if everybody must",
                ),
            ),
            Some(Access::Authenticated) | None => {}
        }
    }
    read(table, issuers)
}

/// Whether the route refuses users of the built-in issuer while revocations cannot be learned of. Said of a route where none of
/// them can come it would promise what does not happen.
pub(super) fn strict(
    table: &mut Table<'_>,
    access: Option<Access>,
    has_accounts: bool,
    rule: &Rule,
) -> bool {
    let strict = table.flag("strict").unwrap_or(false);
    let fault = if !strict {
        None
    } else if access == Some(Access::Public) {
        let hint = "access = \"authenticated\", or take `strict` out";
        Some(Fault::new(
            "a public route does not look at credentials",
            hint,
        ))
    } else if !has_accounts || !takes_ours(rule) {
        let hint = "[accounts], and `portcullis` among require.issuers where they are named; or take `strict` out";
        let message = "is about tokens of the gateway's own accounts, and this route takes none";
        Some(Fault::new(message, hint))
    } else {
        None
    };
    if let Some(fault) = fault {
        table.fault("strict", fault);
    }
    strict
}

/// Whether the rule allows tokens of the built-in issuer.
pub(super) fn takes_ours(rule: &Rule) -> bool {
    rule.issuers.is_empty() || rule.issuers.iter().any(|one| **one == *BUILT_IN)
}

/// Reads the table `require`. `issuers` are the names that may be required.
fn read(table: &mut Table<'_>, issuers: &[Arc<str>]) -> Rule {
    if !table.has("require") {
        table.know("require");
        return Rule::default();
    }
    table.refuse_empty(
        "require",
        "it requires nothing; leave it out if any caller will do",
    );
    let mut rule = table.section("require");
    let roles = list(&mut rule, "roles", "leave it out if no role is needed");
    let scopes = list(&mut rule, "scopes", "leave it out if no scope is needed");
    let audiences = list(
        &mut rule,
        "audiences",
        "leave it out if the issuer's own audience is enough",
    );
    for Text { text, place } in &scopes {
        let token = |byte: u8| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
        if !text.bytes().all(token) {
            let hint = "one scope an element; no spaces or quotes (RFC 6749 §3.3)";
            let fault = Fault::new(format!("`{text}` is not a scope"), hint);
            rule.context.problems.add(place, fault);
        }
    }
    let named = list(&mut rule, "issuers", "leave it out if any issuer will do");
    for Text { text, place } in &named {
        if !issuers.iter().any(|name| **name == **text) {
            let hint = suggest(text, issuers.iter().map(|name| &**name));
            let fault = Fault::new(format!("no issuer is named `{text}`"), hint);
            rule.context.problems.add(place, fault);
        }
    }
    let claims = claims(&mut rule);
    rule.finish();
    let scopes = boxed(&scopes);
    Rule {
        roles: boxed(&roles),
        scopes_line: scopes.join(" ").into(),
        scopes,
        claims,
        issuers: boxed(&named),
        audiences: boxed(&audiences),
    }
}

fn list<'d>(table: &mut Table<'d>, key: &'static str, empty: &str) -> Vec<Text<'d>> {
    table.texts(key, empty).unwrap_or_default()
}

fn claims(table: &mut Table<'_>) -> Vec<(Box<str>, Vec<Value>)> {
    table.refuse_empty("claims", "leave it out if no claim is needed");
    let entries = table.entries("claims").unwrap_or_default();
    let mut claims = Vec::with_capacity(entries.len());
    for Entry { name, place, value } in entries {
        match values(value) {
            _ if name.trim().is_empty() => table.context.problems.add(&place, "names no claim"),
            Ok(values) => claims.push((name.into(), values)),
            Err(fault) => table.context.problems.add(&place, fault),
        }
    }
    claims
}

/// One value or a list of them, any of which will do.
fn values(value: &DeValue<'_>) -> Result<Vec<Value>, Fault> {
    let DeValue::Array(list) = value else {
        return Ok(vec![scalar(value)?]);
    };
    if list.is_empty() {
        let hint = "no value would do; leave the claim out if it is not needed";
        return Err(Fault::new("is an empty list", hint));
    }
    list.iter()
        .map(|element| scalar(element.get_ref()))
        .collect()
}

fn scalar(value: &DeValue<'_>) -> Result<Value, Fault> {
    match value {
        DeValue::String(text) if text.is_empty() => Err("is empty".into()),
        DeValue::String(text) => Ok(Value::String(text.clone().into_owned())),
        DeValue::Boolean(flag) => Ok(Value::Bool(*flag)),
        DeValue::Integer(digits) => i64::from_str_radix(digits.as_str(), digits.radix())
            .map(Value::from)
            .map_err(|_| "is too large".into()),
        DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
            Err(Fault::new(
                "is compared exactly",
                "strings, whole numbers, true and false",
            ))
        }
    }
}
