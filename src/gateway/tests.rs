//! What the story promises besides its order.

use std::{panic::resume_unwind, task::Poll};

use http::StatusCode;

use super::{contain::contain_poll, *};
use crate::telemetry::{RequestIds, settings::LogSettings};

#[tokio::test]
async fn fault_2_a_panic_ends_its_request_alone() {
    let telemetry = Telemetry::with_sink(&LogSettings::default(), Box::new(std::io::sink()));
    let ids = RequestIds::new();
    let good = || async { Response::new(Answer::from_bytes("fine".into())) };
    assert_eq!(
        contain(&telemetry, &ids, good()).await.status(),
        StatusCode::OK
    );
    let answer = contain(&telemetry, &ids, async { panic!("a bug") }).await;
    assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(
        contain(&telemetry, &ids, good()).await.status(),
        StatusCode::OK
    );
    assert!(telemetry.encode().contains("portcullis_panics_total 1"));
}

#[test]
fn fault_2_a_panic_in_a_body_breaks_it_off_and_is_counted() {
    let telemetry = Telemetry::with_sink(&LogSettings::default(), Box::new(std::io::sink()));
    let good = contain_poll(Some(&telemetry), || Poll::Ready(Some(Ok("a piece"))));
    assert!(matches!(good, Poll::Ready(Some(Ok("a piece")))));
    let bad = contain_poll::<()>(Some(&telemetry), || resume_unwind(Box::new("a bug")));
    assert!(matches!(bad, Poll::Ready(Some(Err(AnswerError::Panicked)))));
    assert!(telemetry.encode().contains("portcullis_panics_total 1"));
}
