//! `portcullis demo`: gateway, sample backend and sample user in one process, ready to try.

mod echo;

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use anyhow::Context;
use aws_lc_rs::rand;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use clap::Args;
use tokio::runtime::Runtime;
use zeroize::Zeroizing;

use super::node::{Node, ensure_development_pair};
use crate::{
    accounts::{AccountError, NewUser, passwords::Password},
    config::Source,
    server::handed::Handed,
    telemetry,
};

/// Arguments of `demo`.
#[derive(Debug, Args)]
pub struct DemoCommand {
    /// Keep the data (store, keys, certificate) in this folder; by default a temporary one, removed at the end
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Serve on this port of the loopback interface
    #[arg(long, default_value_t = 8443, value_name = "PORT")]
    port: u16,
    /// Serve the admin listener on this port of the loopback interface
    #[arg(long, default_value_t = 9901, value_name = "PORT")]
    admin_port: u16,
}

/// The name of the sample user.
const USER: &str = "admin";

/// The first line of the demo's configuration.
const MARK: &str = "# Written by portcullis demo; written anew at each start.";

/// A folder that is removed at the end, unless the operator named it.
struct DataFolder {
    path: PathBuf,
    temporary: bool,
}

/// Serves the demo until it is told to stop.
///
/// # Errors
/// What could not be started: mostly a port that is taken.
pub fn run(args: &DemoCommand) -> anyhow::Result<()> {
    let data = DataFolder::make(args.data.clone())?;
    let backend_runtime = Runtime::new()?;
    let backend = backend_runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))?;
    let text = configuration(args, backend.local_addr()?);
    let origin = data.path.join("gateway.toml");
    refuse_foreign(&origin)?;
    fs::write(&origin, &text).with_context(|| format!("cannot write {}", origin.display()))?;
    let loaded = Source::at(&origin, &data.path).load()?;
    telemetry::init_events(&loaded.config.log).context("log.audit_file cannot be written")?;
    ensure_development_pair(&loaded.config)?;
    backend_runtime.spawn(echo::serve(backend));
    let node = Node::start(loaded, Handed::default()).map_err(name_ports)?;
    let password = make_user(&node)?;
    let password = password.as_ref().map(|password| password.as_str());
    super::say(instructions(args, password, &data.path).trim_end())?;
    node.run_until_signal()
}

/// Says what to do about a port that is taken. The key that such an error names is in a file that is written anew at each start.
fn name_ports(error: anyhow::Error) -> anyhow::Error {
    let mut faults = error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>());
    if faults.any(|fault| fault.kind() == io::ErrorKind::AddrInUse) {
        return error.context("choose other ports with --port and --admin-port");
    }
    error
}

/// Keeps the demo from writing over a configuration that somebody else wrote (`--data config`).
fn refuse_foreign(path: &Path) -> anyhow::Result<()> {
    match fs::read_to_string(path) {
        Ok(text) if text.starts_with(MARK) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(_) | Err(_) => anyhow::bail!(
            "{} is not the demo's: name another folder in --data",
            path.display()
        ),
    }
}

/// The demo's configuration: the same file format and the same checks as anyone's.
fn configuration(args: &DemoCommand, backend: SocketAddr) -> String {
    let DemoCommand {
        port, admin_port, ..
    } = args;
    format!(
        r#"{MARK}
version = 1

[server]
listen       = ["127.0.0.1:{port}"]
admin_listen = "127.0.0.1:{admin_port}"
public_url   = "https://localhost:{port}"
max_connections = 1000

[tls]
certificates = [{{ cert = "dev.crt", key = "dev.key" }}]
development  = true

[rate_limit]
per_ip = {{ rate = "10/s", burst = 30 }}

[[upstream]]
name    = "echo"
servers = ["http://{backend}"]

[[route]]
name        = "app"
path_prefix = "/"
upstream    = "echo"
access      = "authenticated"

[[route]]
name        = "public"
path_prefix = "/public"
upstream    = "echo"
access      = "public"

[[route]]
name        = "auditors"
path_prefix = "/audit"
upstream    = "echo"
access      = "authenticated"
require     = {{ roles = ["auditor"] }}

[accounts]
store = "sqlite:portcullis.db"

[log]
access = false
level  = "warn"
"#
    )
}

/// Makes the sample user; `None` where the kept data has it already.
fn make_user(node: &Node) -> anyhow::Result<Option<Zeroizing<String>>> {
    let accounts = node.accounts().context("the demo's accounts are off")?;
    let mut bytes = Zeroizing::new([0; 15]);
    rand::fill(&mut *bytes).context("the system gives no random bytes")?;
    let password = Zeroizing::new(BASE64_URL_SAFE_NO_PAD.encode(*bytes));
    let user = NewUser {
        username: USER,
        email: "admin@demo.example",
        name: Some("Demo Admin"),
        password: Password::new(password.clone())?,
        roles: &["admin".to_owned()],
    };
    match node.control().block_on(accounts.add_user(user)) {
        Ok(_) => Ok(Some(password)),
        Err(AccountError::Exists) => Ok(None),
        Err(error) => Err(error).context("cannot make the demo's user"),
    }
}

fn instructions(args: &DemoCommand, password: Option<&str>, data: &Path) -> String {
    let url = format!("https://localhost:{}", args.port);
    let admin = args.admin_port;
    let ca = data.join("dev.crt");
    let ca = ca.display();
    let shown = password.unwrap_or("<the one shown when this folder was new>");
    format!(
        r#"
Portcullis demo: {url}   (user {USER}, password {shown})
A sample backend stands behind it and answers with what it received.

Open in a browser, which warns of the demo's own certificate: {url}/hello

Copy into another terminal:

  # 1. Without a token: 401, with the reason
  curl -s --cacert {ca} {url}/

  # 2. Sign in, keep the token
  TOKEN=$(curl -s --cacert {ca} {url}/auth/login -H 'Content-Type: application/json' \
    -d '{{"username":"{USER}","password":"{shown}"}}' | sed 's/.*"access_token":"\([^"]*\)".*/\1/')

  # 3. With the token: 200, and what the backend was told
  curl -s --cacert {ca} {url}/hello -H "Authorization: Bearer $TOKEN"

  # 4. A forged identity header does not get through
  curl -s --cacert {ca} {url}/hello -H "Authorization: Bearer $TOKEN" -H 'X-Forwarded-User: root'

  # 5. A role that the user does not have: 403
  curl -s --cacert {ca} {url}/audit -H "Authorization: Bearer $TOKEN"

  # 6. Past the limit (10 a second, 30 at once): 429
  for i in $(seq 60); do curl -s -o /dev/null -w '%{{http_code}}\n' --cacert {ca} {url}/public & done | sort | uniq -c

  # 7. Health and metrics; what goes on, in a browser: http://127.0.0.1:{admin}/status
  curl -s http://127.0.0.1:{admin}/readyz; curl -s http://127.0.0.1:{admin}/metrics | grep portcullis_decisions

Configuration of the demo: {}
Press Ctrl-C to stop.
"#,
        data.join("gateway.toml").display(),
    )
}

impl DataFolder {
    fn make(asked: Option<PathBuf>) -> anyhow::Result<Self> {
        let temporary = asked.is_none();
        let path = match asked {
            Some(path) => path,
            None => {
                let mut bytes = [0; 6];
                rand::fill(&mut bytes).context("the system gives no random bytes")?;
                std::env::temp_dir().join(format!(
                    "portcullis-demo-{}",
                    BASE64_URL_SAFE_NO_PAD.encode(bytes)
                ))
            }
        };
        let mut builder = fs::DirBuilder::new();
        builder.mode(0o700).recursive(!temporary);
        builder
            .create(&path)
            .with_context(|| format!("cannot make the folder {}", path.display()))?;
        let path = path.canonicalize()?;
        Ok(Self { path, temporary })
    }
}

impl Drop for DataFolder {
    fn drop(&mut self) {
        if self.temporary {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_of_somebody_else_is_not_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.toml");
        refuse_foreign(&path).unwrap();
        fs::write(&path, "version = 1\n").unwrap();
        let error = refuse_foreign(&path).unwrap_err().to_string();
        assert!(error.contains("gateway.toml"), "{error}");
        let args = DemoCommand {
            data: None,
            port: 1,
            admin_port: 2,
        };
        fs::write(&path, configuration(&args, ([127, 0, 0, 1], 3).into())).unwrap();
        refuse_foreign(&path).unwrap();
    }

    #[test]
    fn a_port_that_is_taken_names_the_options_and_other_faults_do_not() {
        let said = |kind: io::ErrorKind| {
            let error = anyhow::Error::from(io::Error::from(kind)).context("cannot listen");
            format!("{:#}", name_ports(error))
        };
        assert!(!said(io::ErrorKind::PermissionDenied).contains("--port"));
        let taken = said(io::ErrorKind::AddrInUse);
        assert!(taken.contains("--admin-port: cannot listen"), "{taken}");
    }
}
