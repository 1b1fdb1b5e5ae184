//! The only maker of refusals: a [`Rejection`](crate::policy::Rejection) becomes a response.
