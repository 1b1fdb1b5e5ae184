//! Tests of the way from a credential to an identity, by requirement.

mod allowance;
mod cache;
mod coalescing;
mod claims;
pub(in crate::authn) mod fixtures;
mod key_choice;
mod revocation;
mod shape;
mod signature;
mod time;
