//! What is seen from outside: access log, metrics, request ids.

pub mod settings;
