//! A panic in a client's body ends where it begins (FAULT-2).

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    task::Poll,
};

use super::progress::{UploadFault, UploadProgress};
use crate::telemetry::Telemetry;

/// Keeps a panic to the request in whose body it happened: the upstream sees it break off, and the client, where no answer has
/// begun, gets a 500. hyper polls bodies in the task of the upstream connection, which other streams of HTTP/2 share; that
/// task would end without a word. The body must not be polled again.
pub(super) fn contain_upload<T>(
    telemetry: &Telemetry,
    progress: &UploadProgress,
    poll: impl FnOnce() -> Poll<Option<Result<T, UploadFault>>>,
) -> Poll<Option<Result<T, UploadFault>>> {
    catch_unwind(AssertUnwindSafe(poll)).unwrap_or_else(|_panic| {
        telemetry.panicked();
        tracing::error!("a request's body panicked; it was broken off and the process goes on");
        Poll::Ready(Some(Err(progress.fail(UploadFault::Panicked))))
    })
}

#[cfg(test)]
mod tests {
    use std::panic::resume_unwind;

    use super::*;
    use crate::{policy::Rejection, telemetry::settings::LogSettings};

    #[test]
    fn fault_2_a_panic_in_a_requests_body_breaks_it_off_and_is_counted() {
        let telemetry = Telemetry::with_sink(&LogSettings::default(), Box::new(std::io::sink()));
        let progress = UploadProgress::default();
        let good = contain_upload(&telemetry, &progress, || Poll::Ready(Some(Ok("a piece"))));
        assert!(matches!(good, Poll::Ready(Some(Ok("a piece")))));
        assert_eq!(progress.rejection(), None);
        let bad = contain_upload::<()>(&telemetry, &progress, || resume_unwind(Box::new("a bug")));
        assert!(matches!(bad, Poll::Ready(Some(Err(UploadFault::Panicked)))));
        assert_eq!(progress.rejection(), Some(Rejection::Internal));
        assert!(telemetry.encode().contains("portcullis_panics_total 1"));
    }
}
