//! `portcullis init`: a configuration that works, from nothing.

use std::{
    fs::{DirBuilder, OpenOptions},
    io::Write,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context, bail};
use clap::Args;

use super::say;
use crate::{
    accounts::{AccountError, Accounts, settings::AccountSettings},
    authn::Revocations,
    config::{
        self,
        development::{NAMES, Overwrite, development_certificate, write_pair},
    },
};

/// Where, and for which backend.
#[derive(Debug, Args)]
pub struct InitCommand {
    /// The backend that the one route goes to.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9000")]
    upstream: String,
    /// The project's folder; made when missing.
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
}

/// Writes `config/gateway.toml`, its schema for editors, `certs/dev.crt`, `certs/dev.key` and the folder `data`. Nothing that exists is touched.
///
/// # Errors
/// A configuration that is there already, an upstream that is none, or a folder that cannot be written.
pub fn run(command: &InitCommand) -> anyhow::Result<ExitCode> {
    let dir = &command.dir;
    let file = dir.join("config/gateway.toml");
    if file.exists() {
        bail!(
            "{} exists; nothing was written. Move it away, or choose another --dir",
            file.display()
        );
    }
    // Read before it is written: a bad --upstream must not leave a configuration that does not load.
    let text = config::starter(&command.upstream);
    config::parse(&text, &file, dir)?;
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    make_certificate(dir)?;
    make_data_folder(&dir.join("data"))?;
    write_new(&file, &text)?;
    say(&format!("wrote   {}", file.display()))?;
    write_schema(&dir.join("config").join(super::schema::FILE))?;
    // What is told to work has been seen to work.
    let accounts = config::load(&file)?.accounts;
    say(&next_steps(dir, &file))?;
    if let Some(settings) = accounts {
        say(&first_administrator(&settings, dir)?)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn make_certificate(dir: &Path) -> anyhow::Result<()> {
    let (cert, key) = (dir.join("certs/dev.crt"), dir.join("certs/dev.key"));
    if cert.exists() && key.exists() {
        return say(&format!("kept    {}, which exists", cert.display()));
    }
    let (cert_pem, key_pem) = development_certificate(&NAMES.map(str::to_owned))?;
    write_pair((&cert, &cert_pem), (&key, &key_pem), Overwrite::Never)
        .context("a half of the development certificate exists; move it away")?;
    say(&format!("wrote   {}", cert.display()))?;
    say(&format!("wrote   {}", key.display()))
}

/// Makes the folder of the store, for its owner alone: it holds password hashes and signing keys.
fn make_data_folder(folder: &Path) -> anyhow::Result<()> {
    if folder.exists() {
        return say(&format!("kept    {}, which exists", folder.display()));
    }
    DirBuilder::new()
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("cannot make {}", folder.display()))?;
    say(&format!("made    {}", folder.display()))
}

/// Writes what the first line of the configuration tells editors to read.
fn write_schema(file: &Path) -> anyhow::Result<()> {
    if file.exists() {
        return say(&format!("kept    {}, which exists", file.display()));
    }
    write_new(file, &format!("{}\n", super::schema::text()))?;
    say(&format!("wrote   {}", file.display()))
}

fn write_new(path: &Path, text: &str) -> anyhow::Result<()> {
    let write = || {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
        file.write_all(text.as_bytes())
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// Tells the one-time secret of the first administrator, unless the data folder has one already.
fn first_administrator(settings: &AccountSettings, dir: &Path) -> anyhow::Result<String> {
    let accounts = Accounts::open(settings, Arc::new(Revocations::new()))?;
    match super::runtime()?.block_on(accounts.bootstrap()) {
        Ok(made) => Ok(format!(
            "\n{}",
            super::user::bootstrap_text(&accounts, &made, &curl(dir))
        )),
        Err(AccountError::AdminExists) => Ok(String::new()),
        Err(error) => Err(error).context("cannot make the first administrator's secret"),
    }
}

fn next_steps(dir: &Path, file: &Path) -> String {
    let option = if dir == Path::new(".") {
        String::new()
    } else {
        format!(" --config {}", file.display())
    };
    let curl = curl(dir);
    format!(
        r#"
Next:
  portcullis check{option}
  portcullis user add alice --email alice@example.com{option}
  portcullis run{option}

Then, in another terminal, sign in and call the backend with the access token:
  {curl} https://localhost:8443/auth/login \
    -H 'Content-Type: application/json' -d '{{"username":"alice","password":"..."}}'
  {curl} https://localhost:8443/ -H "Authorization: Bearer $TOKEN""#
    )
}

/// curl, told to believe the development certificate.
fn curl(dir: &Path) -> String {
    format!("curl --cacert {}", dir.join("certs/dev.crt").display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn init(dir: &Path, upstream: &str) -> anyhow::Result<ExitCode> {
        run(&InitCommand {
            upstream: upstream.to_owned(),
            dir: dir.to_owned(),
        })
    }

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_configuration_is_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("config")).unwrap();
        let file = dir.path().join("config/gateway.toml");
        std::fs::write(&file, "mine").unwrap();
        init(dir.path(), "http://127.0.0.1:9000").unwrap_err();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
        assert!(!dir.path().join("certs").exists(), "nothing was written");
    }

    #[test]
    fn a_bad_upstream_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        for upstream in ["", "ftp://x", "127.0.0.1:9000", "http://user:pw@x/"] {
            init(dir.path(), upstream).unwrap_err();
        }
        assert_eq!(dir.path().read_dir().unwrap().count(), 0);
    }

    #[test]
    fn half_a_certificate_is_not_completed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("certs")).unwrap();
        std::fs::write(dir.path().join("certs/dev.key"), "mine").unwrap();
        init(dir.path(), "http://127.0.0.1:9000").unwrap_err();
        let key = std::fs::read_to_string(dir.path().join("certs/dev.key"));
        assert_eq!(key.unwrap(), "mine");
    }

    #[test]
    fn key_5_what_it_makes_is_for_its_owner_alone_and_loads() {
        let dir = tempfile::tempdir().unwrap();
        init(dir.path(), "http://127.0.0.1:9000/base").unwrap();
        assert_eq!(mode(&dir.path().join("certs/dev.key")), 0o600);
        assert_eq!(mode(&dir.path().join("data")), 0o700);
        let config = config::load(&dir.path().join("config/gateway.toml")).unwrap();
        assert_eq!(&*config.upstreams[0].servers[0].base_path, "/base");
        // The database lies in the project's folder, not beside the configuration.
        let database = dir.path().join("data/portcullis.db");
        assert_eq!(config.accounts.unwrap().database, database);
    }

    #[test]
    fn auth_7_a_secret_is_told_while_there_is_no_administrator() {
        let dir = tempfile::tempdir().unwrap();
        init(dir.path(), "http://127.0.0.1:9000").unwrap();
        let config = config::load(&dir.path().join("config/gateway.toml")).unwrap();
        let settings = config.accounts.unwrap();
        let text = first_administrator(&settings, dir.path()).unwrap();
        assert!(text.contains("/auth/bootstrap"), "{text}");
        assert!(text.contains("curl --cacert"), "{text}");
        let database = mode(&dir.path().join("data/portcullis.db"));
        assert_eq!(database, 0o600);
        let accounts = Accounts::open(&settings, Arc::new(Revocations::new())).unwrap();
        let admin = crate::accounts::NewUser {
            username: "ann",
            email: "ann@example.com",
            name: None,
            password: crate::accounts::tests::password(crate::accounts::tests::PASSWORD),
            roles: &["admin".into()],
        };
        let runtime = crate::cli::runtime().unwrap();
        runtime.block_on(accounts.add_user(admin)).unwrap();
        assert_eq!(first_administrator(&settings, dir.path()).unwrap(), "");
    }
}
