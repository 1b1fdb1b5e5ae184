//! Into files of a folder, for whatever takes them from there, and for trying things out.
//!
//! A file is private and appears whole. Its name is the mail's, so a mail that is written twice is there once.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use super::SendError;
use crate::files;

/// Files that the folder takes. More means that nobody collects them.
const FILES_MAX: usize = 10_000;

pub(super) struct Spool(PathBuf);

impl Spool {
    pub(super) fn new(folder: &Path) -> Self {
        Self(folder.to_owned())
    }

    pub(super) async fn write(&self, id: &str, content: Vec<u8>) -> Result<(), SendError> {
        // The id is ours and made of hex digits and dashes.
        let path = self.0.join(format!("{id}.eml"));
        let folder = self.0.clone();
        let written = tokio::task::spawn_blocking(move || write(&folder, &path, &content)).await;
        match written {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                let folder = self.0.display();
                Err(SendError::Down(format!("{folder}: {error}")))
            }
            Err(_) => Err(SendError::Down("writing a mail panicked".to_owned())),
        }
    }
}

fn write(folder: &Path, path: &Path, content: &[u8]) -> io::Result<()> {
    files::make_folder(folder)?;
    if fs::metadata(folder)?.permissions().mode() & 0o077 != 0 {
        let message = "others may use the folder of the mails; run: chmod 700 on it";
        return Err(io::Error::other(message));
    }
    if fs::read_dir(folder)?.take(FILES_MAX).count() >= FILES_MAX {
        return Err(io::Error::other(
            "the folder is full; nobody takes mails out",
        ));
    }
    files::replace(path, content)?;
    File::open(folder)?.sync_all()
}
