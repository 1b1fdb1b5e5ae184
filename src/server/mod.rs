//! Accepts connections, decrypts them, and gives each request to the gateway.

pub mod settings;
