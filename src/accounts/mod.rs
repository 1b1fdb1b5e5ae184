//! What login means: users, sessions, passwords, signing keys. No HTTP in it.

pub mod settings;
