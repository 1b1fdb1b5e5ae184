//! Files of the gateway's own: that others read while they are replaced, and in folders into which nobody else writes.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
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

/// Makes a folder and those above it that are missing, with mode 0700; what is there stays as it is. Blocks.
///
/// # Errors
/// Whatever keeps it from being made.
pub(crate) fn make_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Whether others may put something in the place of what is in a folder. Where it is sticky, as `/tmp` is, they may not. Blocks.
///
/// # Errors
/// Whatever keeps its mode from being read.
pub(crate) fn is_open_to_others(folder: &Path) -> io::Result<bool> {
    let mode = folder.metadata()?.permissions().mode();
    Ok(mode & 0o022 != 0 && mode & 0o1000 == 0)
}
