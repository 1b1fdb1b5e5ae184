//! One exchange as one line of text. What strangers write (method, host, path) is escaped and cut (LOG-2).

use std::{
    fmt::{Display, Write},
    time::Duration,
};

use http::Version;
use jiff::Timestamp;

use super::{record::Record, settings::LogFormat};

/// The most bytes that one field takes in a line, escapes included.
const FIELD_BYTES_MAX: usize = 1 << 10;
/// Ends a field that was cut.
const CUT: char = '…';

/// Appends the line of one exchange, with its line feed.
pub(super) fn write(out: &mut String, format: LogFormat, record: &Record, took: Duration) {
    match format {
        LogFormat::Json => json(out, record, took),
        LogFormat::Text => text(out, record, took),
    }
    out.push('\n');
}

fn json(out: &mut String, record: &Record, took: Duration) {
    let mut object = Object::open(out);
    object.number("time", Quoted(Moment::of(record)));
    object.text("request_id", record.request_id.as_str());
    object.some_text("trace_id", record.trace.as_ref().map(|trace| trace.id()));
    if let Some(client) = record.client {
        object.number("client", Quoted(client));
    }
    object.number("peer", Quoted(record.peer));
    object.text("method", record.method.as_str());
    object.some_text("host", record.host.as_deref().map(bare_host));
    object.some_text("path", record.path.as_deref().map(bare_path));
    object.text("protocol", protocol(record.version));
    object.some_text("route", record.route.as_ref().map(|route| route.name()));
    object.some_text(
        "upstream",
        record.upstream.as_ref().map(|server| server.name()),
    );
    object.number("status", record.status.as_u16());
    object.some_text("code", record.code);
    object.some_text("reason", record.reason);
    object.some_text("unenforced", record.unenforced);
    if let Some(caller) = &record.caller {
        let claims = caller.claims();
        object.nested("user", |user| {
            user.text("issuer", &claims.issuer);
            user.text("subject", &claims.subject);
        });
        object.some_text("session", claims.session.as_deref());
    }
    object.number("duration_ms", Millis(took));
    if let Some(time) = record.upstream_time {
        object.number("upstream_ms", Millis(time));
    }
    object.number("bytes_in", record.bytes_in);
    object.number("bytes_out", record.bytes_out);
    object.text("ending", record.ending.name());
    object.close();
}

fn text(out: &mut String, record: &Record, took: Duration) {
    put(out, format_args!("{} ", Moment::of(record)));
    put(out, format_args!("{} ", record.status.as_u16()));
    escape(out, record.method.as_str());
    out.push(' ');
    escape(out, record.host.as_deref().map_or("-", bare_host));
    escape(out, record.path.as_deref().map_or("-", bare_path));
    put(
        out,
        format_args!(" {} {}ms", protocol(record.version), Millis(took)),
    );
    put(
        out,
        format_args!(" client={}", record.client.unwrap_or(record.peer)),
    );
    let mut pair = |name: &str, value: Option<&str>| {
        if let Some(value) = value {
            put(out, format_args!(" {name}=\""));
            escape(out, value);
            out.push('"');
        }
    };
    pair("trace", record.trace.as_ref().map(|trace| trace.id()));
    pair("route", record.route.as_ref().map(|route| route.name()));
    pair(
        "upstream",
        record.upstream.as_ref().map(|server| server.name()),
    );
    pair("code", record.code);
    pair("reason", record.reason);
    pair("unenforced", record.unenforced);
    if let Some(caller) = &record.caller {
        let claims = caller.claims();
        pair("issuer", Some(&claims.issuer));
        pair("subject", Some(&claims.subject));
        pair("session", claims.session.as_deref());
    }
    if let Some(time) = record.upstream_time {
        put(out, format_args!(" upstream_ms={}", Millis(time)));
    }
    put(
        out,
        format_args!(
            " in={} out={} ending={} id={}",
            record.bytes_in,
            record.bytes_out,
            record.ending.name(),
            record.request_id
        ),
    );
}

/// The path without query or fragment, whatever the caller kept: a query may hold a reset token (LOG-1).
pub(super) fn bare_path(path: &str) -> &str {
    path.split(['?', '#']).next().unwrap_or_default()
}

/// The host without user information: `name:password@host` is refused, but it is logged as a refusal first (LOG-1).
pub(super) fn bare_host(host: &str) -> &str {
    host.rsplit('@').next().unwrap_or_default()
}

const fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "HTTP/0.9",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_11 => "HTTP/1.1",
        Version::HTTP_2 => "HTTP/2.0",
        Version::HTTP_3 => "HTTP/3.0",
        _ => "HTTP",
    }
}

/// A JSON object under way. Keys are ours and need no escape.
struct Object<'a> {
    out: &'a mut String,
    empty: bool,
}

impl<'a> Object<'a> {
    fn open(out: &'a mut String) -> Self {
        out.push('{');
        Self { out, empty: true }
    }

    fn key(&mut self, name: &str) {
        if !self.empty {
            self.out.push(',');
        }
        self.empty = false;
        self.out.push('"');
        self.out.push_str(name);
        self.out.push_str("\":");
    }

    fn text(&mut self, name: &str, value: &str) {
        self.key(name);
        self.out.push('"');
        escape(self.out, value);
        self.out.push('"');
    }

    fn some_text(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(name, value);
        }
    }

    /// A value that writes itself as JSON.
    fn number(&mut self, name: &str, value: impl Display) {
        self.key(name);
        put(self.out, format_args!("{value}"));
    }

    fn nested(&mut self, name: &str, fill: impl FnOnce(&mut Object<'_>)) {
        self.key(name);
        let mut object = Object::open(self.out);
        fill(&mut object);
        object.close();
    }

    fn close(self) {
        self.out.push('}');
    }
}

/// Text that needs no escape, in quotes.
struct Quoted<T>(T);

impl<T: Display> Display for Quoted<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "\"{}\"", self.0)
    }
}

/// Milliseconds with three decimals.
struct Millis(Duration);

impl Display for Millis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let micros = self.0.as_micros();
        write!(f, "{}.{:03}", micros / 1000, micros % 1000)
    }
}

/// UTC with milliseconds (RFC 3339); 1970 for a clock beyond the calendar.
struct Moment(Timestamp);

impl Moment {
    fn of(record: &Record) -> Self {
        Self(Timestamp::try_from(record.time).unwrap_or(Timestamp::UNIX_EPOCH))
    }
}

impl Display for Moment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.3}", self.0)
    }
}

/// Appends the inside of a JSON string of at most [`FIELD_BYTES_MAX`] bytes. Beyond what JSON asks, every control character
/// and line separator is escaped, so that no terminal obeys a log line.
fn escape(out: &mut String, text: &str) {
    let plain = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\';
    if text.len() <= FIELD_BYTES_MAX && text.bytes().all(plain) {
        out.push_str(text);
        return;
    }
    let end = out.len() + FIELD_BYTES_MAX - CUT.len_utf8();
    for character in text.chars() {
        let before = out.len();
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            _ if is_unsafe(character) => {
                put(out, format_args!("\\u{:04x}", u32::from(character)));
            }
            _ => out.push(character),
        }
        if out.len() > end {
            out.truncate(before);
            out.push(CUT);
            return;
        }
    }
}

/// Controls of both blocks, the line separators, and the marks that reverse the direction of what follows. All of them have
/// four hex digits.
pub(super) const fn is_unsafe(character: char) -> bool {
    matches!(character,
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn put(out: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a `String` cannot fail; a `Display` of ours does not either.
    let _ = out.write_fmt(arguments);
}

#[cfg(test)]
mod tests;
