//! Files of the gateway's own that others read while they are replaced.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// Writes a file of mode 0600, in place of one that is there. It appears whole, its content on the disk, or not at all; that it
/// outlives a loss of power takes a sync of its folder, too. Blocks.
///
/// # Errors
/// Whatever keeps the draft beside it from being written or renamed; the draft is removed then.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let draft = path.with_extension(format!("{}.draft", uuid::Uuid::new_v4()));
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&draft)
        .and_then(|mut file| {
            file.write_all(content)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&draft, path));
    if written.is_err() {
        // It may not be there at all.
        let _ = fs::remove_file(&draft);
    }
    written
}
