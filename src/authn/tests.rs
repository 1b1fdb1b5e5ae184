//! Tests of the way from a credential to an identity, by requirement.

mod allowance;
mod cache;
mod claims;
mod coalescing;
mod examples;
pub(in crate::authn) mod fixtures;
mod key_choice;
mod repeat;
mod revocation;
mod shape;
mod signature;
mod time;
