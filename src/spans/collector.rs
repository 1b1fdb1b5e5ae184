//! One export: a request with a bounded answer in a bounded time, over verified TLS where the endpoint says https (OTLP/HTTP).

use std::{error::Error, fmt, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER, USER_AGENT},
};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use serde::Deserialize;
use tokio::time::timeout;

use super::settings::TracingSettings;
use crate::upstream::{SystemRoots, TlsFault, client_config, settings::TlsSettings};

/// As much of an answer is read, in bytes. It says how many spans were refused, and why.
const BODY_BYTES_MAX: usize = 64 << 10;
/// As much of its words is told, in characters.
const WORDS_MAX: usize = 200;
/// The longest wait that a collector may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);
/// How long an unused connection is kept.
const IDLE: Duration = Duration::from_secs(60);

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const AGENT: HeaderValue =
    HeaderValue::from_static(concat!("portcullis/", env!("CARGO_PKG_VERSION")));

/// The way to the collector.
#[derive(Debug)]
pub(super) struct Collector {
    client: legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    settings: TracingSettings,
}

/// What the collector did not take.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Taken {
    /// How many spans.
    pub(super) rejected: u64,
    /// What it says of them.
    pub(super) words: String,
}

/// Why an export was not taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ExportFault {
    /// What to tell the operator; nothing of the request is in it.
    pub(super) what: String,
    /// Whether another attempt may do, after the wait that the collector asks for.
    pub(super) again: Option<Option<Duration>>,
}

/// An answer to an export, as far as it matters (`ExportTraceServiceResponse`).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Response {
    partial_success: PartialSuccess,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct PartialSuccess {
    rejected_spans: Count,
    error_message: String,
}

/// A 64-bit number, which Protobuf's JSON has as a string and takes as a number too.
#[derive(Deserialize)]
#[serde(untagged)]
enum Count {
    Text(String),
    Number(u64),
}

impl Default for Count {
    fn default() -> Self {
        Self::Number(0)
    }
}

impl Collector {
    /// Prepares the way; nothing is connected yet.
    ///
    /// # Errors
    /// What keeps TLS from being set up, where the endpoint needs it.
    pub(super) fn new(settings: &TracingSettings) -> Result<Self, TlsFault> {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls(settings)?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        let client = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(1)
            .build(connector);
        Ok(Self {
            client,
            settings: settings.clone(),
        })
    }

    /// Sends one export, once.
    ///
    /// # Errors
    /// [`ExportFault`], which says whether it may be sent again.
    pub(super) async fn send(&self, body: Bytes) -> Result<Taken, ExportFault> {
        let within = self.settings.timeout;
        let exchange = timeout(within, self.exchange(body)).await;
        exchange.unwrap_or_else(|_| {
            Err(ExportFault {
                what: format!("no answer within {within:?}"),
                again: Some(None),
            })
        })
    }

    async fn exchange(&self, body: Bytes) -> Result<Taken, ExportFault> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.settings.endpoint.clone();
        let headers = request.headers_mut();
        headers.extend(self.settings.headers.clone());
        headers.insert(CONTENT_TYPE, JSON);
        headers.insert(USER_AGENT, AGENT);
        let response = self.client.request(request).await;
        let response = response.map_err(|error| ExportFault {
            what: format!("cannot be reached: {}", Cause(&error)),
            again: Some(None),
        })?;
        let (parts, body) = response.into_parts();
        if !parts.status.is_success() {
            return Err(refused(parts.status, &parts.headers));
        }
        // It was taken, whatever becomes of the rest of the answer.
        let body = Limited::new(body, BODY_BYTES_MAX).collect().await;
        Ok(body.map_or_else(|_| Taken::default(), |body| taken(&body.to_bytes())))
    }
}

/// Whom to trust; nobody, where no TLS is spoken.
fn tls(settings: &TracingSettings) -> Result<ClientConfig, TlsFault> {
    if settings.endpoint.scheme_str() == Some("https") {
        let roots = TlsSettings {
            ca: settings.ca.clone(),
            ..TlsSettings::default()
        };
        let config = client_config(&roots, &SystemRoots::default(), &[])?;
        return Ok((*config).clone());
    }
    let provider = aws_lc_rs::default_provider();
    let builder = ClientConfig::builder_with_provider(provider.into());
    let builder = builder.with_safe_default_protocol_versions()?;
    let nobody = builder.with_root_certificates(RootCertStore::empty());
    Ok(nobody.with_no_client_auth())
}

/// Statuses after which the same may be sent again, by the protocol; after others it would be refused again.
fn refused(status: StatusCode, headers: &HeaderMap) -> ExportFault {
    let again = matches!(status.as_u16(), 429 | 502 | 503 | 504);
    let hint = match status.as_u16() {
        401 | 403 => ": look at tracing.headers_file or tracing.headers_env",
        404 | 405 => ": look at the path of tracing.endpoint, usually /v1/traces",
        _ => "",
    };
    ExportFault {
        what: format!("answers {}{hint}", status.as_u16()),
        again: again.then(|| retry_after(headers)),
    }
}

/// The wait in seconds (RFC 9110 §10.2.3); a date is not read.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let seconds = Duration::from_secs(seconds.parse().ok()?);
    Some(seconds.min(RETRY_AFTER_MAX))
}

fn taken(body: &[u8]) -> Taken {
    let response: Response = serde_json::from_slice(body).unwrap_or_default();
    let partial = response.partial_success;
    let rejected = match partial.rejected_spans {
        Count::Text(digits) => digits.parse().unwrap_or(0),
        Count::Number(number) => number,
    };
    let words = partial.error_message.chars().take(WORDS_MAX);
    Taken {
        rejected,
        words: words.filter(|letter| !letter.is_control()).collect(),
    }
}

/// The cause at the end of the chain says most.
struct Cause<'e>(&'e (dyn Error + 'static));

impl fmt::Display for Cause<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut last = self.0;
        while let Some(source) = last.source() {
            last = source;
        }
        fmt::Display::fmt(last, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_collector_says_is_read_as_far_as_it_is_known() {
        let none = Taken::default();
        for body in ["", "{}", "[]", "{\"partialSuccess\":7}", "\u{1}"] {
            assert_eq!(taken(body.as_bytes()), none, "{body}");
        }
        for count in ["3", "\"3\""] {
            let body = format!(
                "{{\"partialSuccess\":{{\"rejectedSpans\":{count},\"errorMessage\":\"too\\nold\"}},\"x\":1}}"
            );
            let want = Taken {
                rejected: 3,
                words: "tooold".into(),
            };
            assert_eq!(taken(body.as_bytes()), want);
        }
        let long = format!(
            "{{\"partialSuccess\":{{\"errorMessage\":\"{}\"}}}}",
            "x".repeat(5000)
        );
        assert_eq!(taken(long.as_bytes()).words.len(), WORDS_MAX);
    }

    #[test]
    fn the_protocols_statuses_alone_are_worth_another_attempt() {
        let headers = HeaderMap::new();
        for status in 300..600 {
            let fault = refused(StatusCode::from_u16(status).unwrap(), &headers);
            let again = [429, 502, 503, 504].contains(&status);
            assert_eq!(fault.again.is_some(), again, "{status}");
        }
        for (value, want) in [
            ("7", Some(7)),
            ("0", Some(0)),
            ("86400", Some(30)),
            ("-1", None),
            ("Wed, 21 Oct 2015 07:28:00 GMT", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, value.parse().unwrap());
            let fault = refused(StatusCode::SERVICE_UNAVAILABLE, &headers);
            let want = want.map(Duration::from_secs);
            assert_eq!(fault.again, Some(want), "{value}");
        }
    }
}
