//! The section `[identity]`: what upstreams are told of the caller.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use http::HeaderName;

use super::{
    IdentitySettings, data_folder,
    diagnostic::{Fault, Place, Problems},
    files,
    reader::{Entry, Table, Text},
    words::{Choice::Is, refuse_repeats},
};
use crate::{
    accounts::settings::AccountSettings,
    assertion::settings::AssertionSettings,
    policy::{
        IdentityHeaders,
        headers::{MultiValue, Preset, Template},
    },
    server::settings::ServerSettings,
};

/// Fields that an identity may not be written into: framing, routing, credentials, and what the gateway itself sets.
const RESERVED: [&str; 25] = [
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "set-cookie",
    "te",
    "traceparent",
    "tracestate",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-real-ip",
    "x-request-id",
    "x-portcullis-assertion",
];

/// Fields that say where a request came from, which the gateway writes itself.
const FORWARDING: [&str; 5] = [
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-proto",
];

/// What was said of signed statements.
pub(super) struct Statements {
    /// The folder of their keys, where one is named.
    keys: Option<(PathBuf, Place)>,
}

impl Statements {
    /// The settings, once it is known where everything else lies. `None` only where a problem was reported.
    pub(super) fn settle(
        self,
        problems: &Problems,
        server: &ServerSettings,
        (accounts, root): (Option<&AccountSettings>, &Path),
    ) -> Option<AssertionSettings> {
        let keys = match self.keys {
            None => data_folder(accounts, root).join("assertion-keys"),
            Some((keys, place)) => {
                if accounts.is_some_and(|accounts| accounts.key_folder() == keys) {
                    let hint = "a key that signs both would let one stand for the other";
                    let message = "is the folder of the keys that sign access tokens";
                    problems.add(&place, Fault::new(message, hint));
                    return None;
                }
                keys
            }
        };
        let issuer = server.public_url.as_str().trim_end_matches('/').into();
        Some(AssertionSettings { issuer, keys })
    }
}

/// The headers, and what was said of signed statements where they are on.
pub(super) fn read(mut table: Table<'_>) -> (IdentitySettings, Option<Statements>) {
    let preset = table.choice(
        "preset",
        &[
            ("authelia", Is(Preset::Authelia)),
            ("none", Is(Preset::None)),
            ("oauth2-proxy", Is(Preset::Oauth2Proxy)),
            ("portcullis", Is(Preset::Portcullis)),
        ],
    );
    let preset = preset.unwrap_or_default();
    let own = headers(&mut table, preset);
    let multi_value = table.choice(
        "multi_value",
        &[
            ("comma", Is(MultiValue::Comma)),
            ("json", Is(MultiValue::Json)),
            ("repeat", Is(MultiValue::Repeat)),
            ("space", Is(MultiValue::Space)),
        ],
    );
    let pass_token = table.flag("pass_token").unwrap_or(false);
    let statements = statements(&mut table);
    table.finish();
    let templates = IdentityHeaders::new(preset, own, multi_value.unwrap_or_default());
    let settings = IdentitySettings {
        templates: Arc::new(templates),
        pass_token,
    };
    (settings, statements)
}

fn statements(table: &mut Table<'_>) -> Option<Statements> {
    let is_on = table.flag("assertion").unwrap_or(false);
    let root = table.context.root;
    let folder = table.text("assertion_keys");
    if folder.is_some() && !is_on {
        let hint = "assertion = true, or take the key out";
        let place = table.place_of("assertion_keys");
        let fault = Fault::new("signs nothing", hint);
        table.context.problems.warn(&place, fault);
    }
    is_on.then(|| Statements {
        // Without a slash at its end, so that one folder has one name.
        keys: folder.map(|Text { text, place }| {
            let path = files::resolve(root, text);
            (path.components().collect(), place)
        }),
    })
}

fn headers(table: &mut Table<'_>, preset: Preset) -> Vec<(HeaderName, Template)> {
    let entries = table.entries("headers").unwrap_or_default();
    let mut headers = Vec::with_capacity(entries.len());
    let mut folded = Vec::new();
    for Entry { name, place, value } in entries {
        let problems = &table.context.problems;
        let header = check_name(name, preset).map_err(|fault| problems.add(&place, fault));
        folded.push((fold(name), place.clone()));
        let template = table
            .as_text(value, place.clone())
            .and_then(|text| template(text.text, &place, table));
        headers.extend(header.ok().zip(template));
    }
    // CGI and WSGI make one variable of `X-User` and `x_user`; which of them would win is anybody's guess (HDR-2).
    refuse_repeats(&table.context.problems, "header", folded);
    headers
}

fn check_name(name: &str, preset: Preset) -> Result<HeaderName, Fault> {
    let header = HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| Fault::from(format!("`{name}` is not a header name")))?;
    let folded = fold(name);
    if RESERVED.contains(&&*folded) || FORWARDING.contains(&&*folded) {
        let hint = "the gateway sets or removes this header itself; take another name";
        return Err(Fault::new(format!("`{name}` is reserved"), hint));
    }
    let twin = preset
        .headers()
        .iter()
        .find(|(other, _)| *other == folded && *other != header.as_str());
    if let Some((other, _)) = twin {
        let hint = format!("many servers take both for one; write `{other}` to replace it");
        return Err(Fault::new(
            format!("`{name}` is also set as `{other}`"),
            hint,
        ));
    }
    Ok(header)
}

fn template(text: &str, place: &Place, table: &Table<'_>) -> Option<Template> {
    let hint = "places: {user} {subject} {email} {name} {roles} {scopes} {issuer} {session} {claims.a.b} {client_ip} {request_id} {route}";
    let read = if let Some(bad) = text.chars().find(|c| !(' '..='~').contains(c)) {
        let message = format!("{bad:?} may not be in a header value");
        Err(Fault::new(message, "printable ASCII and places"))
    } else if has_stray_brace(text) {
        Err(Fault::new("`}` closes nothing", hint))
    } else {
        Template::parse(text).map_err(|message| Fault::new(message, hint))
    };
    read.map_err(|fault| table.context.problems.add(place, fault))
        .ok()
}

/// Whether a brace closes nothing. Unclosed ones are found by [`Template::parse`].
fn has_stray_brace(text: &str) -> bool {
    let mut open = false;
    for character in text.chars() {
        match character {
            '{' => open = true,
            '}' if !open => return true,
            '}' => open = false,
            _ => {}
        }
    }
    false
}

fn fold(name: &str) -> String {
    name.to_ascii_lowercase().replace(['_', '.'], "-")
}
