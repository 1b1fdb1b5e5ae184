//! What clients are told of a limit that they reached, beside what every refusal tells.

use http::HeaderMap;

use super::Gateway;
use crate::{policy::Rejection, respond};

impl Gateway {
    /// Tells of it in `X-RateLimit-*` too, where that is wanted.
    pub fn tell_limit(&self, rejection: &Rejection, headers: &mut HeaderMap) {
        if self.x_rate_limit
            && let Rejection::RateLimited(exceeded) = rejection
        {
            respond::insert_x_rate_limit(headers, exceeded);
        }
    }
}
