//! What accounts keep: one trait, SQLite behind it.
