//! `portcullis cert dev`: a self-signed certificate for trying things out.

use std::{path::PathBuf, process::ExitCode};

use clap::Subcommand;

use crate::config::development::{NAMES, Overwrite, development_certificate, write_pair};

/// What to make.
#[derive(Debug, Subcommand)]
pub enum CertCommand {
    /// Make a self-signed certificate (ECDSA P-256, 13 months) and its key, dev.crt and dev.key.
    ///
    /// For this machine only: clients accept it when told to, as with `curl --cacert certs/dev.crt`.
    Dev {
        /// Host names and addresses that it is for [default: localhost 127.0.0.1 ::1].
        #[arg(value_name = "NAME")]
        names: Vec<String>,
        /// Where the two files go.
        #[arg(long, default_value = "certs", value_name = "DIR")]
        dir: PathBuf,
        /// Replace files that are there.
        #[arg(long)]
        force: bool,
    },
}

/// Makes the certificate.
///
/// # Errors
/// A name that is none, files that are there already, or a folder that cannot be written.
pub fn run(command: &CertCommand) -> anyhow::Result<ExitCode> {
    let CertCommand::Dev { names, dir, force } = command;
    let names = if names.is_empty() {
        NAMES.map(str::to_owned).to_vec()
    } else {
        names.clone()
    };
    let (cert, key) = (dir.join("dev.crt"), dir.join("dev.key"));
    let (cert_pem, key_pem) = development_certificate(&names)?;
    let overwrite = if *force {
        Overwrite::Yes
    } else {
        Overwrite::Never
    };
    if !*force && let Some(there) = [&cert, &key].into_iter().find(|path| path.exists()) {
        anyhow::bail!("{} is there already; --force replaces it", there.display());
    }
    write_pair((&cert, &cert_pem), (&key, &key_pem), overwrite)?;
    super::say(&format!(
        "wrote {} and {} for {}",
        cert.display(),
        key.display(),
        names.join(", ")
    ))?;
    Ok(ExitCode::SUCCESS)
}
