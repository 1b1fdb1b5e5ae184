//! What the story promises besides its order.

use super::*;
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
