//! Counts requests and refuses those beyond a limit.

mod bad_tokens;
mod client;
mod ip;
mod keyed;
pub mod memory;
mod route;
pub mod settings;
mod table;

pub use self::{
    bad_tokens::{BadTokens, BadTokensOf},
    ip::IpLimiter,
    keyed::KeyedLimiter,
    memory::{MemoryPressure, MemoryStage},
    route::RouteLimits,
};
