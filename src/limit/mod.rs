//! Counts requests and refuses those beyond a limit.

mod bad_tokens;
mod client;
mod ip;
mod keyed;
pub mod memory;
mod route;
pub mod settings;
mod share;
mod streak;
mod table;
mod tally;

pub use self::{
    bad_tokens::{BadTokens, BadTokensOf},
    ip::IpLimiter,
    keyed::KeyedLimiter,
    memory::{MemoryPressure, MemoryStage},
    route::RouteLimits,
    share::{Due, Settlements, Share, Spent},
    streak::Streaks,
};

/// Compares the processor's clock, by which limits count, with the system's, which takes milliseconds once in a process: the
/// first limit does it where nobody did before.
pub fn calibrate_clock() {
    drop(governor::clock::DefaultClock::default());
}
