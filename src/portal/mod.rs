//! The built-in account routes: HTTP over accounts, no rules of its own.
