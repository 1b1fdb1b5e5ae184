//! Counts requests and refuses those beyond a limit.

mod ip;
mod keyed;
pub mod settings;
mod table;

pub use self::{ip::IpLimiter, keyed::KeyedLimiter};
