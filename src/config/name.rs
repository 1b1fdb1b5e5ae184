//! Names of routes, upstreams and issuers: they appear in logs and as labels of metrics.

use std::sync::Arc;

use super::{
    diagnostic::{Fault, Place},
    reader::{Table, Text},
};

/// Reads the key `name`.
pub(super) fn read_name(table: &mut Table<'_>) -> Option<(Arc<str>, Place)> {
    table.need("name", "the name in logs and metrics");
    let Text { text, place } = table.text("name")?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if text.len() > 64 || !text.bytes().all(plain) {
        let hint = "1 to 64 letters, digits, `-`, `_` and `.`";
        let fault = Fault::new(format!("`{text}` is not a name"), hint);
        table.context.problems.add(&place, fault);
        return None;
    }
    Some((text.into(), place))
}
