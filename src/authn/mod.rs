//! Turns credentials into an [`Identity`](crate::policy::Identity): extraction, verification, cache, revocation.

pub mod settings;
