//! `POST /reload`: has the configuration loaded anew, and says what came of it.
//!
//! The listener only asks. Whoever owns the configuration answers all who wait with one reload; a bounded number may.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use super::{AdminState, fresh, refuse};
use crate::{
    policy::Rejection,
    telemetry::{ConfigReload, RequestIds},
};

/// How many may wait for a reload; more are refused.
const WAITING_MAX: usize = 32;

/// Asks for a reload. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Reloads(mpsc::Sender<oneshot::Sender<Arc<Outcome>>>);

/// Hears who asks.
#[derive(Debug)]
pub struct Asked(mpsc::Receiver<oneshot::Sender<Arc<Outcome>>>);

/// Those who wait for the next reload.
#[derive(Debug, Default)]
#[must_use = "they wait for an answer"]
pub struct Waiting(Vec<oneshot::Sender<Arc<Outcome>>>);

/// What came of a reload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Outcome {
    /// It is wrong: the one that runs stays.
    Refused {
        /// Every problem.
        problems: Vec<Diagnostic>,
    },
    /// It is good, but differs in what only another start can change: the one that runs stays, whole.
    RestartRequired {
        /// The keys that differ so.
        keys: Vec<String>,
    },
    /// It runs.
    Taken {
        /// What is different now, one line for each section.
        changes: Vec<String>,
        /// What a person should look at.
        warnings: Vec<Diagnostic>,
    },
    /// It says what the one that runs says.
    Unchanged {
        /// What a person should look at.
        warnings: Vec<Diagnostic>,
    },
}

/// One thing to say of a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// The key it is about; empty where it is about the file.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The file.
    pub file: String,
    /// The line, from 1; 0 where it has no place in the file.
    pub line: usize,
    /// The column in characters, likewise.
    pub column: usize,
}

/// A refusal, as RFC 9457 has it.
#[derive(Serialize)]
struct ProblemBody<'o> {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: &'static str,
    code: &'static str,
    request_id: String,
    #[serde(flatten)]
    outcome: &'o Outcome,
}

impl Reloads {
    /// Makes both ends.
    #[must_use]
    pub fn channel() -> (Self, Asked) {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        (Self(sender), Asked(receiver))
    }

    async fn ask(&self) -> Result<Arc<Outcome>, Rejection> {
        let (sender, answer) = oneshot::channel();
        self.0.try_send(sender).map_err(|_| Rejection::Overloaded)?;
        // Nobody answers once the node drains.
        answer.await.map_err(|_| Rejection::Overloaded)
    }
}

impl Asked {
    /// Waits until somebody asks; gives all who have asked by then. Never ends once nobody can ask any more. Cancel-safe.
    pub async fn next(&mut self) -> Waiting {
        match self.0.recv().await {
            Some(first) => {
                let mut waiting = Waiting(vec![first]);
                waiting.join(self.waiting());
                waiting
            }
            None => std::future::pending().await,
        }
    }

    /// Those who have asked by now.
    pub fn waiting(&mut self) -> Waiting {
        let next = || self.0.try_recv().ok();
        Waiting(std::iter::from_fn(next).take(WAITING_MAX).collect())
    }
}

impl Waiting {
    /// Lets others wait with them.
    pub fn join(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    /// Tells all of them. One that has gone does not matter.
    pub fn tell(self, outcome: &Arc<Outcome>) {
        for sender in self.0 {
            let _ = sender.send(Arc::clone(outcome));
        }
    }
}

impl Outcome {
    /// What metrics call it.
    #[must_use]
    pub const fn result(&self) -> ConfigReload {
        match self {
            Self::Refused { .. } => ConfigReload::Refused,
            Self::RestartRequired { .. } => ConfigReload::RestartRequired,
            Self::Taken { .. } => ConfigReload::Taken,
            Self::Unchanged { .. } => ConfigReload::Unchanged,
        }
    }

    fn problem(&self) -> Option<ProblemBody<'_>> {
        let (status, code, title, detail) = match self {
            Self::Taken { .. } | Self::Unchanged { .. } => return None,
            Self::Refused { .. } => (
                422,
                "config_invalid",
                "Configuration refused",
                "The configuration has errors. The one that runs stays.",
            ),
            Self::RestartRequired { .. } => (
                409,
                "restart_required",
                "Restart required",
                "These keys change with a restart alone. Nothing was changed.",
            ),
        };
        Some(ProblemBody {
            r#type: format!("urn:portcullis:problem:{code}"),
            title,
            status,
            detail,
            code,
            request_id: RequestIds::new().next().as_str().to_owned(),
            outcome: self,
        })
    }
}

pub(super) async fn reload(State(state): State<AdminState>) -> Response {
    let outcome = match state.reloads.ask().await {
        Ok(outcome) => outcome,
        Err(rejection) => return refuse(&rejection),
    };
    let Some(problem) = outcome.problem() else {
        return fresh(Json(&*outcome));
    };
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::CONFLICT);
    let mut response = (status, Json(problem)).into_response();
    let kind = HeaderValue::from_static("application/problem+json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    fresh(response)
}
