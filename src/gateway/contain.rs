//! Panics end where they begin (FAULT-2).

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    task::Poll,
};

use futures_util::FutureExt;
use http::Response;

use super::{Answer, AnswerError};
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

/// Keeps a panic to the answer in whose body it happened: the client sees it break off. hyper polls bodies, and whatever else
/// it does there would end as well. The body must not be polled again.
pub(super) fn contain_poll<T>(
    telemetry: Option<&Telemetry>,
    poll: impl FnOnce() -> Poll<Option<Result<T, AnswerError>>>,
) -> Poll<Option<Result<T, AnswerError>>> {
    catch_unwind(AssertUnwindSafe(poll)).unwrap_or_else(|_panic| {
        if let Some(telemetry) = telemetry {
            telemetry.panicked();
        }
        tracing::error!("an answer's body panicked; it was broken off and the process goes on");
        Poll::Ready(Some(Err(AnswerError::Panicked)))
    })
}
