//! `cors` of a route: what pages of other origins may.

use std::{sync::Arc, time::Duration};

use http::{HeaderValue, Method, header::HeaderName};
use url::Url;

use super::{
    bounds::Bounds,
    diagnostic::Fault,
    reader::{Table, Text},
    route::method,
    server::secs,
};
use crate::policy::{Cors, Origins};

pub(super) fn read(table: &mut Table<'_>) -> Option<Arc<Cors>> {
    if !table.has("cors") {
        return None;
    }
    let mut table = table.section("cors");
    if !table.is_there() {
        return None;
    }
    table.need("origins", "[\"https://spa.example.com\"]");
    let texts = table.texts(
        "origins",
        "no page would be granted anything; take `cors` out",
    );
    let texts = texts.unwrap_or_default();
    let any = texts.iter().any(|text| text.text == "*");
    let credentials = table.flag("credentials").unwrap_or(false);
    let hint = "name the origins, or credentials = false";
    if any && credentials {
        let fault = Fault::new("is every origin, with credentials", hint);
        table.fault("origins", fault);
    }
    if any && texts.len() > 1 {
        table.fault(
            "origins",
            Fault::new("has `*` beside others", "leave one of both"),
        );
    }
    let named = texts.iter().filter(|text| text.text != "*");
    let listed = parse(&table, named, origin);
    let methods = table.texts("methods", "leave it out for GET, HEAD and POST");
    let methods = match methods {
        Some(texts) => parse(&table, &texts, |text| match text {
            "*" => Err(Fault::new("`*` is not a method here", "name the methods")),
            _ => method(text),
        }),
        None => vec![Method::GET, Method::HEAD, Method::POST],
    };
    let headers = table.texts_or_none("headers").unwrap_or_default();
    let headers = parse(&table, &headers, |text| {
        // `*` means a header of that name where there are credentials, and every header where not.
        HeaderName::from_bytes(text.as_bytes())
            .ok()
            .filter(|_| text != "*")
            .ok_or_else(|| Fault::from(format!("`{text}` is not a header name")))
    });
    let bounds = Bounds::new(Duration::ZERO, secs(24 * 3600));
    let max_age = table.duration("max_age", bounds).unwrap_or(secs(600));
    table.finish();
    let line: Vec<&str> = methods.iter().map(Method::as_str).collect();
    Some(Arc::new(Cors {
        origins: if any {
            Origins::Any
        } else {
            Origins::Listed(listed)
        },
        credentials,
        methods_line: HeaderValue::from_str(&line.join(", ")).ok()?,
        methods,
        headers,
        max_age: max_age.as_secs(),
    }))
}

fn parse<'t, T>(
    table: &Table<'_>,
    texts: impl IntoIterator<Item = &'t Text<'t>>,
    read: impl Fn(&'t str) -> Result<T, Fault>,
) -> Vec<T> {
    let texts = texts.into_iter();
    let read = texts.filter_map(|text| {
        let read = read(text.text);
        read.map_err(|fault| table.context.problems.add(&text.place, fault))
            .ok()
    });
    read.collect()
}

/// An origin as browsers write it, for it is compared byte for byte: lower case, no default port, nothing after the host.
fn origin(text: &str) -> Result<HeaderValue, Fault> {
    let hint = "scheme, host and port where it is not the default: \"https://spa.example.com\"";
    let bad = |what: String| Fault::new(format!("`{text}` {what}"), hint);
    let url = Url::parse(text).map_err(|_| bad("is not an origin".to_owned()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(bad("is not an http or https origin".to_owned()));
    }
    let written = url.origin().ascii_serialization();
    if written != text {
        return Err(bad(format!("is not written as an origin: {written}")));
    }
    if text.contains('*') {
        return Err(bad("has a `*` in it".to_owned()));
    }
    HeaderValue::from_str(text).map_err(|_| bad("is not an origin".to_owned()))
}
