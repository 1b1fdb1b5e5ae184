//! Panics end where they begin (FAULT-2).

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use http::Response;

use super::Answer;
use crate::{
    policy::Rejection,
    respond,
    telemetry::{RequestIds, Telemetry},
};

/// Keeps a panic to the request in which it happened (FAULT-2): its client gets a 500, nobody else notices.
pub async fn contain(
    telemetry: &Telemetry,
    request_ids: &RequestIds,
    exchange: impl Future<Output = Response<Answer>>,
) -> Response<Answer> {
    if let Ok(response) = AssertUnwindSafe(exchange).catch_unwind().await {
        return response;
    }
    telemetry.panicked();
    let request_id = request_ids.next();
    tracing::error!(%request_id, "a request panicked; it was answered with 500 and the process goes on");
    respond::refusal(&Rejection::Internal, &request_id).map(Answer::from_bytes)
}
