//! Forwards an admitted request to its backend and streams the answer back.

pub mod settings;
