//! Counts requests and refuses those beyond a limit.

pub mod settings;
