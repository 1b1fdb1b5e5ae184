//! An `OPTIONS` request that may go no further (RFC 9110 §7.6.2).

use bytes::Bytes;
use http::{Response, StatusCode, header};

use super::{Admitted, Answer, Gateway};
use crate::{
    policy::{Rejection, max_forwards},
    respond,
};

impl Gateway {
    /// Answers in the upstream's place. The request was admitted: whoever may not call the route learns nothing of it, and
    /// the upstream, that there was one.
    pub(super) fn answer_last_hop(
        &self,
        admitted: &Admitted<'_>,
    ) -> Result<Response<Answer>, Rejection> {
        let allow = max_forwards::allow(&admitted.permit.route().methods)?;
        let mut response = Response::new(Answer::from_bytes(Bytes::new()));
        *response.status_mut() = StatusCode::NO_CONTENT;
        response.headers_mut().insert(header::ALLOW, allow);
        respond::answer::finish_own(response.headers_mut(), self.hsts);
        Ok(response)
    }
}
