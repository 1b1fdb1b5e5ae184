//! Who knows what an opaque token says? Its issuer, which is asked (RFC 7662).
//!
//! Whoever waits for an answer does not ask: a question is a task of its own, one for each token, so that no client who leaves
//! can end it for the others (CACHE-7). How many are under way is bounded. An issuer that fails is left alone for a while that
//! doubles (FAULT-5), and what it said is remembered for a second, long enough for those who wait (CACHE-5).
//!
//! A token is in the body of the question and nowhere else: not in an address, a log or an error.

use std::{
    collections::HashMap,
    fmt,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::Full;
use moka::{policy::EvictionPolicy, sync::Cache};
use serde::Deserialize;
use tokio::{sync::watch, time::Instant};
use url::form_urlencoded::byte_serialize;
use zeroize::Zeroizing;

use super::{
    Around,
    client::{Client, ExchangeFault},
};
use crate::{
    authn::{
        arrival::{Arrival, Ended},
        cache::Key,
        settings::IntrospectionSettings,
        strict_json::members,
    },
    jitter,
    policy::Rejection,
};

/// The largest answer, in bytes: as much as the claims of a JWT may take, twice.
const ANSWER_BYTES_MAX: usize = 16 << 10;
/// How long an answer is remembered, the good and the bad: for those who waited for it, and for the repeats of a token that is
/// not active (CACHE-5). A good one is in the cache of tokens from then on.
const MEMORY: Duration = Duration::from_secs(1);
/// What the remembered answers may take, in bytes.
const MEMORY_BYTES: u64 = 4 << 20;
/// So many failures in a row, and the issuer is left alone.
const FAILURES_MAX: u32 = 3;
/// The first pause; each further failure doubles it.
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// Asks one issuer about its tokens.
pub struct Introspector {
    name: Arc<str>,
    settings: Arc<IntrospectionSettings>,
    client: Client,
    /// `None` where name and secret cannot be written in a field, which their encoding rules out.
    credentials: Option<HeaderValue>,
    around: Around,
    state: Mutex<State>,
    answers: Cache<Key, Bytes>,
}

#[derive(Default)]
struct State {
    /// Questions that are under way.
    asked: HashMap<Key, watch::Receiver<Option<Ended>>>,
    breaker: Breaker,
}

/// When the issuer may be asked.
#[derive(Debug, Default)]
struct Breaker {
    failures: u32,
    /// Nobody asks before this; after it, one does.
    until: Option<Instant>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum AskFault {
    /// It is none that can be read in one way.
    #[error("its answer is no JSON object in which `active` is true or false and no name repeats")]
    Answer,
    /// There was none.
    #[error("{0}")]
    Exchange(ExchangeFault),
    /// An answer that is no success. A redirect is none: where to ask stands in the configuration.
    #[error("its answer is {0}")]
    Status(StatusCode),
    /// More than is read.
    #[error("its answer is larger than 16 KiB")]
    TooLarge,
}

/// A question that is under way. When it is dropped, however that comes, the next may ask.
struct Question {
    introspector: Arc<Introspector>,
    key: Key,
}

#[derive(Deserialize)]
struct Active {
    active: bool,
}

impl Introspector {
    /// Nobody has been asked yet.
    pub(super) fn new(
        name: &Arc<str>,
        settings: Arc<IntrospectionSettings>,
        around: Around,
    ) -> Self {
        (around.report)(name, Ok(()));
        Self {
            name: Arc::clone(name),
            client: Client::new(&settings.fetch),
            credentials: credentials(&settings),
            settings,
            around,
            state: Mutex::default(),
            answers: Cache::builder()
                .max_capacity(MEMORY_BYTES)
                .weigher(|_, answer: &Bytes| u32::try_from(answer.len() + 256).unwrap_or(u32::MAX))
                .time_to_live(MEMORY)
                // The others let nothing new in where they are full, and a request waits for the new.
                .eviction_policy(EvictionPolicy::lru())
                .build(),
        }
    }

    /// What the issuer's tokens begin with.
    pub(in crate::authn) fn token_prefix(&self) -> &str {
        &self.settings.token_prefix
    }

    /// What the issuer said of a token within the last second: a JSON object without a repeated name, `active` in it.
    pub(in crate::authn) fn answer(&self, key: &Key) -> Option<Bytes> {
        self.answers.get(key)
    }

    /// Joins the question about a token, or asks. `charge` is called before a new question alone; it says whether anybody was
    /// charged.
    ///
    /// # Errors
    /// [`Rejection::KeysUnavailable`] where the issuer is left alone or too many questions are under way, and those of `charge`.
    pub(in crate::authn) fn ask(
        self: &Arc<Self>,
        key: Key,
        token: &str,
        charge: impl FnOnce() -> Result<bool, Rejection>,
    ) -> Result<Arrival, Rejection> {
        let wait = self.settings.wait;
        let mut state = self.state();
        if let Some(ended) = state.asked.get(&key) {
            return Ok(Arrival::answer(ended.clone(), wait, false));
        }
        if self.answers.contains_key(&key) {
            return Ok(Arrival::here());
        }
        let now = Instant::now();
        if state.asked.len() >= self.settings.max_concurrent || !state.breaker.may_ask(now) {
            return Err(Rejection::KeysUnavailable);
        }
        let is_charged = charge()?;
        state.breaker.begin(now, self.settings.cooldown);
        let (end, ended) = watch::channel(None);
        state.asked.insert(key, ended.clone());
        drop(state);
        let question = Question {
            introspector: Arc::clone(self),
            key,
        };
        let token = Zeroizing::new(token.to_owned());
        self.around.runtime.spawn(async move {
            let outcome = question.put(&token).await;
            drop(question);
            // Nobody may be waiting any more.
            end.send_replace(Some(outcome));
        });
        Ok(Arrival::answer(ended, wait, is_charged))
    }

    /// One exchange, and what is to be learned of it.
    async fn exchange(&self, token: &str) -> Result<Bytes, AskFault> {
        let internal = |what| AskFault::Exchange(ExchangeFault::Internal(what));
        let credentials = self.credentials.clone();
        let credentials = credentials.ok_or(internal("its credentials"))?;
        let token: String = byte_serialize(token.as_bytes()).collect();
        let body = format!("token={token}&token_type_hint=access_token");
        let request = Request::post(&self.settings.url)
            .header(header::ACCEPT, "application/json")
            .header(header::AUTHORIZATION, credentials)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(
                header::USER_AGENT,
                concat!("portcullis/", env!("CARGO_PKG_VERSION")),
            )
            .body(Full::from(body))
            .map_err(|_| internal("no request"))?;
        let answer = self.client.exchange(request).await;
        let answer = answer.map_err(AskFault::Exchange)?;
        if answer.status != StatusCode::OK {
            return Err(AskFault::Status(answer.status));
        }
        if answer.body.len() > ANSWER_BYTES_MAX {
            return Err(AskFault::TooLarge);
        }
        members(&answer.body, ["active"]).ok_or(AskFault::Answer)?;
        let Active { active } =
            serde_json::from_slice(&answer.body).map_err(|_| AskFault::Answer)?;
        let result = if active { "active" } else { "inactive" };
        self.around.telemetry.introspected(&self.name, result);
        Ok(answer.body)
    }

    fn succeed(&self) {
        let had_failed = self.state().breaker.succeed();
        if had_failed {
            tracing::info!(
                issuer = &*self.name,
                "an issuer answers about its tokens again"
            );
            (self.around.report)(&self.name, Ok(()));
        }
    }

    fn fail(&self, result: &'static str, fault: &str) {
        let issuer = &*self.name;
        self.around.telemetry.introspected(issuer, result);
        let is_first = self.state().breaker.fail(self.settings.cooldown);
        // One line when it begins, not one for each token.
        if is_first {
            tracing::warn!(
                issuer,
                result,
                fault,
                "an issuer cannot be asked about its tokens"
            );
            let condition = format!("it cannot be asked about its tokens: {fault}");
            (self.around.report)(issuer, Err(condition));
        } else {
            tracing::debug!(issuer, result, fault, "an issuer still cannot be asked");
        }
    }

    // A panic between two operations leaves map and breaker whole.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Question {
    async fn put(&self, token: &str) -> Ended {
        let introspector = &*self.introspector;
        let exchange = AssertUnwindSafe(introspector.exchange(token));
        match exchange.catch_unwind().await {
            Ok(Ok(answer)) => {
                introspector.answers.insert(self.key, answer);
                introspector.succeed();
                Ended::Answered
            }
            Ok(Err(fault)) => {
                introspector.fail(fault.name(), &fault.to_string());
                if fault.may_be_the_tokens() {
                    Ended::Failed
                } else {
                    Ended::Outage
                }
            }
            Err(_panic) => {
                introspector.around.telemetry.panicked();
                introspector.fail("internal", "reading the answer panicked");
                Ended::Failed
            }
        }
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        self.introspector.state().asked.remove(&self.key);
    }
}

impl Breaker {
    fn may_ask(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| until <= now)
    }

    /// Whoever asks first after a pause asks for all: the others wait for what comes of it.
    fn begin(&mut self, now: Instant, cooldown: Duration) {
        if self.until.is_some() {
            self.until = now.checked_add(self.pause(cooldown));
        }
    }

    /// Whether it had failed.
    fn succeed(&mut self) -> bool {
        let had_failed = self.failures > 0;
        *self = Self::default();
        had_failed
    }

    /// Whether it is the first failure.
    fn fail(&mut self, cooldown: Duration) -> bool {
        self.failures = self.failures.saturating_add(1);
        if self.failures >= FAILURES_MAX {
            let pause = jitter::tenth_more(self.pause(cooldown));
            self.until = Instant::now().checked_add(pause);
        }
        self.failures == 1
    }

    fn pause(&self, cooldown: Duration) -> Duration {
        let doublings = self.failures.saturating_sub(FAILURES_MAX).min(16);
        let pause = PAUSE_MIN.saturating_mul(1 << doublings);
        pause.min(cooldown)
    }
}

impl AskFault {
    const fn name(&self) -> &'static str {
        match self {
            Self::Answer => "answer",
            Self::Exchange(fault) => fault.name(),
            Self::Status(_) => "status",
            Self::TooLarge => "too_large",
        }
    }

    /// Whether another token might have got an answer. What comes of an outage, or of our own name and secret, costs no client
    /// anything.
    fn may_be_the_tokens(&self) -> bool {
        match self {
            Self::Answer | Self::TooLarge | Self::Exchange(ExchangeFault::TooLarge) => true,
            Self::Exchange(_) => false,
            Self::Status(status) => !matches!(
                *status,
                StatusCode::UNAUTHORIZED
                    | StatusCode::FORBIDDEN
                    | StatusCode::TOO_MANY_REQUESTS
                    | StatusCode::BAD_GATEWAY
                    | StatusCode::SERVICE_UNAVAILABLE
                    | StatusCode::GATEWAY_TIMEOUT
            ),
        }
    }
}

/// Name and secret, form-encoded each, as `Basic` (RFC 6749 §2.3.1).
fn credentials(settings: &IntrospectionSettings) -> Option<HeaderValue> {
    let mut plain = Zeroizing::new(String::new());
    plain.extend(byte_serialize(settings.client_id.as_bytes()));
    plain.push(':');
    plain.extend(byte_serialize(&settings.client_secret));
    let text = Zeroizing::new(format!("Basic {}", STANDARD.encode(plain.as_bytes())));
    let mut value = HeaderValue::from_str(&text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

impl fmt::Debug for Introspector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Introspector")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
