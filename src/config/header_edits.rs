//! `request_headers` and `response_headers` of a route: which fields an operator may touch.

use http::header::{HeaderName, HeaderValue};

use super::{
    diagnostic::{Fault, Place},
    reader::{Entry, Table, Text},
    words::refuse_repeats,
};
use crate::policy::{
    HeaderEdits, IdentityHeaders,
    headers::{Template, is_reserved_name},
};

/// Fields of one connection, and those that say where a message ends or what its bytes are.
const FRAMING: [&str; 13] = [
    "connection",
    "content-encoding",
    "content-length",
    "expect",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Fields of a request that the gateway reads or writes itself.
const OF_REQUESTS: [&str; 5] = ["authorization", "host", "traceparent", "tracestate", "via"];

/// Fields of an answer that the gateway puts in where they are missing, so that taking them out would do nothing.
const DEFAULTS: [&str; 3] = [
    "referrer-policy",
    "strict-transport-security",
    "x-content-type-options",
];

/// Whose headers are edited.
#[derive(Clone, Copy)]
pub(super) enum Side<'i> {
    /// Those of requests; these names are set from the identity.
    Request(&'i IdentityHeaders),
    /// Those of an upstream's answers.
    Response,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Edit {
    Remove,
    Set,
}

pub(super) fn read(table: &mut Table<'_>, key: &'static str, side: Side<'_>) -> HeaderEdits {
    if !table.has(key) {
        table.know(key);
        return HeaderEdits::default();
    }
    table.refuse_empty(
        key,
        "{ set = { \"X-Env\" = \"prod\" }, remove = [\"X-Debug\"] }",
    );
    let mut table = table.section(key);
    let problems = &table.context.problems;
    let mut edits = HeaderEdits::default();
    let mut folded: Vec<(String, Place)> = Vec::new();
    for Entry { name, place, value } in table.entries("set").unwrap_or_default() {
        let value = table
            .as_text(value, place.clone())
            .and_then(|text| plain(text.text, &place, &table));
        match header(name, side, Edit::Set) {
            Ok(name) => {
                folded.push((fold(&name), place));
                edits.set.extend(value.map(|value| (name, value)));
            }
            Err(fault) => problems.add(&place, fault),
        }
    }
    for Text { text, place } in table.texts_or_none("remove").unwrap_or_default() {
        match header(text, side, Edit::Remove) {
            Ok(name) => {
                folded.push((fold(&name), place));
                edits.remove.push(name);
            }
            Err(fault) => problems.add(&place, fault),
        }
    }
    refuse_repeats(problems, "header", folded);
    table.finish();
    edits
}

fn header(name: &str, side: Side<'_>, edit: Edit) -> Result<HeaderName, Fault> {
    let header = HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| Fault::from(format!("`{name}` is not a header name")))?;
    let folded = fold(&header);
    let own = match side {
        Side::Request(identity) => {
            OF_REQUESTS.contains(&&*folded)
                || is_reserved_name(&folded)
                || identity.names().any(|other| fold(other) == folded)
                // Clients' cookies hold the gateway's own, which are taken out; none may be put back.
                || (folded == "cookie" && edit == Edit::Set)
        }
        Side::Response => matches!(&*folded, "set-cookie" | "x-request-id") && edit == Edit::Set,
    };
    if own || FRAMING.contains(&&*folded) {
        let hint = "the gateway sets or removes this header itself";
        return Err(Fault::new(format!("`{name}` is reserved"), hint));
    }
    if matches!(side, Side::Request(_)) && name.contains('_') {
        let hint = format!(
            "names with `_` are not forwarded; write `{}`",
            name.replace('_', "-")
        );
        return Err(Fault::new(format!("`{name}` has an underscore"), hint));
    }
    if matches!(side, Side::Response) && edit == Edit::Remove && DEFAULTS.contains(&&*folded) {
        let hint = "give it another value with `set`";
        let message = format!("`{name}` is on every answer of the gateway");
        return Err(Fault::new(message, hint));
    }
    Ok(header)
}

/// Reads a value: text as it is. One that looks like a template of `[identity]` is pointed at.
fn plain(text: &str, place: &Place, table: &Table<'_>) -> Option<HeaderValue> {
    let problems = &table.context.problems;
    if let Some(bad) = text.chars().find(|c| !(' '..='~').contains(c)) {
        let message = format!("{bad:?} may not be in a header value");
        problems.add(place, Fault::new(message, "printable ASCII"));
        return None;
    }
    if text.contains('{') && !text.contains('"') && Template::parse(text).is_ok() {
        let fault = Fault::new(
            "is sent as it is: places are for identity.headers",
            "take the braces out, or set the header in [identity]",
        );
        problems.warn(place, fault);
    }
    HeaderValue::from_str(text.trim()).ok()
}

fn fold(name: &HeaderName) -> String {
    name.as_str().replace(['_', '.'], "-")
}
