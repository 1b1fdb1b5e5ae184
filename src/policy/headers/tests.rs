//! Tests of header hygiene.
