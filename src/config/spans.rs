//! The section `[tracing]`.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use url::{Host, Url};
use zeroize::Zeroizing;

use super::{
    bounds::Bounds,
    cluster::ca,
    diagnostic::Fault,
    files::{self, Reader},
    mail::is_loopback,
    reader::Table,
    server::secs,
};
use crate::spans::settings::TracingSettings;

const HINT: &str =
    "endpoint = \"http://127.0.0.1:4318/v1/traces\", or an https URL of another host";
const HEADERS_HINT: &str = "name=value, several on lines of their own or with commas between them: authorization=Bearer%20...";

/// The port of OTLP over gRPC, which is another protocol.
const GRPC_PORT: u16 = 4317;

/// What no collector may be sent: what the client library or the exporter sets, or what belongs to one connection.
const RESERVED: [HeaderName; 9] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::EXPECT,
    header::HOST,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::USER_AGENT,
];

/// Reads the section; `None` where it is absent or wrong.
pub(super) fn read(mut table: Table<'_>) -> Option<TracingSettings> {
    if !table.is_there() {
        table.finish();
        return None;
    }
    table.need("endpoint", HINT);
    let endpoint = table.parsed("endpoint", endpoint);
    let headers = headers(&mut table);
    let ca = ca(&mut table);
    if let Some((url, _)) = &endpoint {
        look_at(&table, url);
    }
    let share = Bounds::new(0, 1000);
    let thousandths = table.thousandths("sample", share);
    let queue = Bounds::new(16, 65_536).because("each may keep some kilobytes of memory");
    let queue = table.number("queue", queue);
    let interval = Bounds::new(Duration::from_millis(100), secs(60));
    let interval = table.duration("interval", interval);
    let timeout = Bounds::new(Duration::from_millis(100), secs(30));
    let timeout = table.duration("timeout", timeout);
    let service_name = table.parsed("service_name", service_name);
    let user = table.flag("user");
    table.finish();
    Some(TracingSettings {
        endpoint: endpoint?.1,
        headers: headers?,
        ca,
        thousandths: thousandths.unwrap_or(1000),
        queue: queue.unwrap_or(2048),
        interval: interval.unwrap_or(secs(5)),
        timeout: timeout.unwrap_or(secs(10)),
        service_name: service_name.unwrap_or("portcullis").into(),
        user: user.unwrap_or(false),
    })
}

fn endpoint(text: &str) -> Result<(Url, Uri), Fault> {
    // The text may hold a password, so it is not repeated.
    let wrong = |what: &str| Fault::new(what.to_owned(), HINT);
    let url = Url::parse(text).map_err(|_| wrong("is not a URL"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong("is neither https:// nor http://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        let hint = "headers_file, a file of mode 0600, or headers_env";
        return Err(Fault::new("holds a name or password", hint));
    }
    if url.fragment().is_some() {
        return Err(wrong("has a fragment"));
    }
    if url.path() == "/" {
        return Err(wrong("has no path, which is usually /v1/traces"));
    }
    let uri = url.as_str().parse().map_err(|_| wrong("is not a URL"))?;
    Ok((url, uri))
}

/// Says what is wrong with where spans are sent, and what to look at.
fn look_at(table: &Table<'_>, url: &Url) {
    let problems = &table.context.problems;
    let place = table.place_of("endpoint");
    let is_encrypted = url.scheme() == "https";
    if !is_encrypted && table.has("ca") {
        table.fault("ca", Fault::new("is for https://", HINT));
    }
    let is_near = match url.host() {
        Some(Host::Domain(name)) => is_loopback(name),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    if !is_encrypted && !is_near {
        let message = match ["headers_file", "headers_env"].map(|key| table.has(key)) {
            [false, false] => "spans are sent to another host without encryption",
            _ => "spans and their token are sent to another host without encryption",
        };
        let hint = "whoever is on the way reads who asked for what; use https://, or a collector on this host that sends them on";
        problems.warn(&place, Fault::new(message, hint));
    }
    if url.port() == Some(GRPC_PORT) {
        let hint = "OTLP over HTTP, which is spoken here, is usually at port 4318";
        let fault = Fault::new("names the port of OTLP over gRPC", hint);
        problems.warn(&place, fault);
    }
}

fn service_name(text: &str) -> Result<&str, Fault> {
    if text.len() > 255 || text.chars().any(char::is_control) {
        let hint = "one line of at most 255 bytes: \"portcullis\"";
        return Err(Fault::new("is no name", hint));
    }
    Ok(text)
}

/// What the collector is sent besides; empty where nothing is named, `None` where that is wrong.
fn headers(table: &mut Table<'_>) -> Option<HeaderMap> {
    const KEYS: [&str; 2] = ["headers_file", "headers_env"];
    let [in_file, in_env] = KEYS.map(|key| table.has(key));
    if in_file && in_env {
        let hint = "leave headers_file or headers_env";
        table.fault("headers_env", Fault::new("is one secret too many", hint));
    }
    let context = table.context;
    let file = table.parsed("headers_file", |text| {
        let content = files::read(&context.file(text), Reader::Owner)?;
        parse_headers(&content)
    });
    let env = table.parsed("headers_env", |name| {
        let value = (context.env)(name)
            .ok_or_else(|| Fault::from(format!("the environment variable {name} is not set")))?;
        parse_headers(&Zeroizing::new(value.into_encoded_bytes()))
    });
    match (in_file, in_env) {
        (false, false) => Some(HeaderMap::new()),
        (true, _) | (_, true) => file.or(env),
    }
}

/// Reads pairs as `OTEL_EXPORTER_OTLP_HEADERS` has them (W3C Baggage): values with `%20` for a space. Nothing of them is repeated in a
/// fault.
fn parse_headers(text: &[u8]) -> Result<HeaderMap, Fault> {
    let mut headers = HeaderMap::new();
    let pairs = text.split(|byte| matches!(byte, b',' | b'\n' | b'\r'));
    let pairs = pairs
        .map(<[u8]>::trim_ascii)
        .filter(|pair| !pair.is_empty());
    for (index, pair) in pairs.enumerate() {
        let wrong = |what: &str| {
            let message = format!("the header at place {} {what}", index + 1);
            Fault::new(message, HEADERS_HINT)
        };
        let equals = pair.iter().position(|byte| *byte == b'=');
        let (name, value) = equals
            .and_then(|at| pair.split_at_checked(at))
            .ok_or_else(|| wrong("has no `=`"))?;
        let name = HeaderName::from_bytes(name.trim_ascii()).map_err(|_| wrong("has no name"))?;
        if RESERVED.contains(&name) {
            return Err(wrong("is one that the gateway itself sets"));
        }
        let value = Zeroizing::new(decoded(value.get(1..).unwrap_or_default().trim_ascii()));
        let value = HeaderValue::from_bytes(&value);
        let mut value = value.map_err(|_| wrong("has a value that fits no header"))?;
        if value.is_empty() {
            return Err(wrong("has no value"));
        }
        value.set_sensitive(true);
        if headers.insert(name, value).is_some() {
            return Err(wrong("is there twice"));
        }
    }
    if headers.is_empty() {
        return Err(Fault::new("there is no header in it", HEADERS_HINT));
    }
    Ok(headers)
}

/// The bytes that `%` and two digits stand for; what is no such thing stays as it is.
fn decoded(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..2).filter(|_| *first == b'%');
        let digits = digits.filter(|two| two.iter().all(u8::is_ascii_hexdigit));
        let digits = digits.and_then(|two| std::str::from_utf8(two).ok());
        match digits.and_then(|two| u8::from_str_radix(two, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    bytes
}
