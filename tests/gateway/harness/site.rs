//! A site: a folder with a configuration, keys and certificates, in which the gateway's commands run.

use std::{
    collections::BTreeMap,
    fs::{self, Permissions},
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    os::{
        fd::OwnedFd,
        unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::{
    Gateway, PATIENCE,
    keys::{AUDIENCE, Kind, keys},
};

/// The binary that is tested.
const GATEWAY: &str = env!("CARGO_BIN_EXE_portcullis");

type Table = BTreeMap<String, String>;

/// A configuration in the making. It starts with one upstream, five issuers and routes of every kind:
/// `/public`, `/optional`, `/private` (authenticated), `/admin` (role `admin`), `/scoped` (scope `orders:read`).
pub(crate) struct Site {
    folder: TempDir,
    sections: BTreeMap<String, Table>,
    upstreams: Vec<Table>,
    issuers: Vec<Table>,
    routes: Vec<Table>,
    variables: Table,
    /// Appended to the file as it is.
    pub(crate) extra: String,
    /// What a shell does before it becomes a command of the gateway.
    prelude: Vec<String>,
    handed: Option<TcpListener>,
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Exit {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A folder and all that is in it.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![folder.to_owned()];
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found
}

fn quoted(text: impl std::fmt::Display) -> String {
    format!("\"{text}\"")
}

impl Site {
    /// The standard site before this upstream.
    pub(crate) fn new(upstream: SocketAddr) -> Self {
        let mut site = Self::bare().upstream("legacy", &format!("http://{upstream}"));
        for kind in Kind::ALL {
            site = site.issuer(kind);
        }
        site.route("public", "/public", "public")
            .route("optional", "/optional", "optional")
            .route("private", "/private", "authenticated")
            .route("admin", "/admin", "authenticated")
            .on_route("require", r#"{ roles = ["admin"] }"#)
            .route("scoped", "/scoped", "authenticated")
            .on_route("require", r#"{ scopes = ["orders:read"] }"#)
    }

    /// A site without upstreams, issuers and routes.
    pub(crate) fn bare() -> Self {
        let site = Self {
            folder: tempfile::tempdir().unwrap(),
            sections: BTreeMap::new(),
            upstreams: Vec::new(),
            issuers: Vec::new(),
            routes: Vec::new(),
            variables: Table::new(),
            extra: String::new(),
            prelude: Vec::new(),
            handed: None,
        };
        let path = site.folder.path();
        for name in ["config", "certs", "keys", "data"] {
            fs::create_dir(path.join(name)).unwrap();
        }
        site.secret_file("certs/site.crt", &keys().certificate_pem);
        site.secret_file("certs/site.key", &keys().certificate_key_pem);
        site.set("server", "listen", r#"["127.0.0.1:0"]"#)
            .set("server", "admin_listen", r#""127.0.0.1:0""#)
            .set("server", "public_url", r#""https://localhost:8443""#)
            .set("server", "workers", "2")
            .set("server", "drain_timeout", r#""2s""#)
            .set(
                "tls",
                "certificates",
                r#"[{ cert = "certs/site.crt", key = "certs/site.key" }]"#,
            )
            .set(
                "rate_limit",
                "per_ip",
                r#"{ rate = "100000/s", burst = 100000 }"#,
            )
            .set(
                "rate_limit",
                "bad_tokens",
                r#"{ rate = "100000/s", burst = 100000 }"#,
            )
    }

    /// Sets a key, in place of what it was. `value` is TOML.
    pub(crate) fn set(mut self, section: &str, key: &str, value: &str) -> Self {
        let table = self.sections.entry(section.into()).or_default();
        table.insert(key.into(), value.into());
        self
    }

    /// Adds an upstream.
    pub(crate) fn upstream(mut self, name: &str, url: &str) -> Self {
        let servers = format!("[{}]", quoted(url));
        self.upstreams
            .push(table(&[("name", &quoted(name)), ("servers", &servers)]));
        self
    }

    /// Sets a key of the upstream that was added last.
    pub(crate) fn on_upstream(mut self, key: &str, value: &str) -> Self {
        self.upstreams
            .last_mut()
            .unwrap()
            .insert(key.into(), value.into());
        self
    }

    /// Adds the issuer of this kind of tokens, with no leeway.
    pub(crate) fn issuer(mut self, kind: Kind) -> Self {
        let name = kind.name();
        let key = match kind.public_key() {
            Some(pem) => {
                self.secret_file(&format!("keys/{name}.pub"), &pem);
                ("public_key_file", quoted(format!("keys/{name}.pub")))
            }
            None => {
                self.secret_file(&format!("keys/{name}.secret"), &keys().secret);
                ("secret_file", quoted(format!("keys/{name}.secret")))
            }
        };
        self.issuers.push(table(&[
            ("name", &quoted(name)),
            ("issuer", &quoted(kind.issuer())),
            ("audience", &format!("[{}]", quoted(AUDIENCE))),
            ("algorithms", &format!("[{}]", quoted(kind.algorithm()))),
            ("leeway", "\"0s\""),
            (key.0, &key.1),
        ]));
        self
    }

    /// Sets a key of the issuer that was added last.
    pub(crate) fn on_issuer(mut self, key: &str, value: &str) -> Self {
        self.issuers
            .last_mut()
            .unwrap()
            .insert(key.into(), value.into());
        self
    }

    /// Takes a key of the issuer that was added last away.
    pub(crate) fn off_issuer(mut self, key: &str) -> Self {
        self.issuers.last_mut().unwrap().remove(key).unwrap();
        self
    }

    /// Adds a route for a path prefix to the upstream `legacy`.
    pub(crate) fn route(mut self, name: &str, prefix: &str, access: &str) -> Self {
        self.routes.push(table(&[
            ("name", &quoted(name)),
            ("path_prefix", &quoted(prefix)),
            ("upstream", "\"legacy\""),
            ("access", &quoted(access)),
        ]));
        self
    }

    /// Sets a key of the route that was added last.
    pub(crate) fn on_route(mut self, key: &str, value: &str) -> Self {
        self.routes
            .last_mut()
            .unwrap()
            .insert(key.into(), value.into());
        self
    }

    /// Takes a key of the route that was added last away.
    pub(crate) fn off_route(mut self, key: &str) -> Self {
        self.routes.last_mut().unwrap().remove(key).unwrap();
        self
    }

    /// Forgets the standard routes.
    pub(crate) fn without_routes(mut self) -> Self {
        self.routes.clear();
        self
    }

    /// Switches accounts on, with the cheapest password hash that is allowed and no limits in the way.
    pub(crate) fn accounts(self) -> Self {
        self.set("accounts", "enabled", "true")
            .set("accounts", "store", "\"sqlite:data/portcullis.db\"")
            .set(
                "accounts",
                "login_limit",
                r#"{ per_ip = "10000/1s", per_account = "10000/1s" }"#,
            )
    }

    /// The folder of the site.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The configuration file.
    pub(crate) fn config(&self) -> PathBuf {
        self.path().join("config/gateway.toml")
    }

    /// Writes a file of the site that only its owner may read.
    pub(crate) fn secret_file(&self, name: &str, text: &str) {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(self.path().join(name))
            .unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    /// Changes the mode of a file of the site.
    pub(crate) fn mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    /// The configuration as TOML.
    pub(crate) fn toml(&self) -> String {
        let mut text = String::from("version = 1\n");
        let mut write = |head: &str, table: &Table| {
            text.push_str(&format!("\n{head}\n"));
            for (key, value) in table {
                text.push_str(&format!("{key} = {value}\n"));
            }
        };
        for (name, table) in &self.sections {
            write(&format!("[{name}]"), table);
        }
        let lists = [
            ("issuer", &self.issuers),
            ("upstream", &self.upstreams),
            ("route", &self.routes),
        ];
        for (name, tables) in lists {
            for table in tables {
                write(&format!("[[{name}]]"), table);
            }
        }
        text + "\n" + &self.extra
    }

    /// Writes the configuration file.
    pub(crate) fn write(&self) {
        fs::write(self.config(), self.toml()).unwrap();
    }

    /// Starts the gateway and waits until it is ready.
    pub(crate) async fn start(self) -> Gateway {
        self.write();
        Gateway::start(self).await
    }

    /// Sets a variable of the environment of every command.
    pub(crate) fn variable(&mut self, name: &str, value: &str) {
        self.variables.insert(name.into(), value.into());
    }

    /// Limits the open files of its commands. A file that may not grow is an error for them, not their end.
    pub(crate) fn descriptors(mut self, limit: u32) -> Self {
        self.prelude
            .push(format!("trap '' XFSZ; ulimit -n {limit} || exit"));
        self
    }

    /// Hands a socket to its commands, as a service manager does: descriptor 3, while the socket stays open here.
    pub(crate) fn hand(mut self, socket: TcpListener) -> Self {
        self.handed = Some(socket);
        let script = "exec 3<&0 0</dev/null; export LISTEN_FDS=1 LISTEN_PID=$$";
        self.prelude.push(script.to_owned());
        self
    }

    /// Runs its commands without any privilege, as a user who may write to the folder `data` alone. Whoever runs the tests
    /// without being root does so in any case, and is that user himself.
    pub(crate) fn unprivileged(mut self) -> Self {
        const NOBODY: u32 = 65534;
        let root = self.path().to_owned();
        if fs::metadata(&root).unwrap().uid() != 0 {
            return self;
        }
        fs::copy(GATEWAY, root.join("portcullis")).unwrap();
        self.write();
        for path in files(&root) {
            let is_data = path.starts_with(root.join("data"));
            let (owner, mode) = if is_data { (NOBODY, 0o700) } else { (0, 0o750) };
            chown(&path, Some(owner), Some(NOBODY)).unwrap();
            let execute = if path.is_dir() || path.ends_with("portcullis") {
                0o777
            } else {
                0o666
            };
            fs::set_permissions(&path, Permissions::from_mode(mode & execute)).unwrap();
        }
        let drop = format!(
            "--reuid {NOBODY} --regid {NOBODY} --clear-groups --no-new-privs --bounding-set=-all"
        );
        let gateway = root.join("portcullis");
        self.prelude.push(format!(
            "shift; set -- setpriv {drop} {} \"$@\"",
            gateway.display()
        ));
        self
    }

    /// A command of the gateway in this site, its output captured.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(GATEWAY);
        if !self.prelude.is_empty() {
            let script = self.prelude.join("; ") + "; exec \"$@\"";
            command = Command::new("sh");
            command.args(["-c", &script, "sh"]);
            command.arg(GATEWAY);
        }
        command
            .args(arguments)
            .arg("--config")
            .arg(self.config())
            .envs(&self.variables)
            .current_dir(self.path())
            .stdin(match &self.handed {
                Some(socket) => Stdio::from(OwnedFd::from(socket.try_clone().unwrap())),
                None => Stdio::piped(),
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs a command to its end.
    #[track_caller]
    pub(crate) fn run(&self, arguments: &[&str], stdin: &str) -> impl Future<Output = Exit> {
        let mut child = self.command(arguments).spawn().unwrap();
        if let Some(mut input) = child.stdin.take() {
            let _ = input.write_all(stdin.as_bytes());
        }
        finish(child)
    }

    /// Adds a user with these roles.
    pub(crate) async fn user(&self, name: &str, password: &str, roles: &[&str]) {
        let email = format!("{name}@example.com");
        let mut arguments = vec!["user", "add", name, "--email", &email];
        for role in roles {
            arguments.extend(["--role", role]);
        }
        let exit = self.run(&arguments, &format!("{password}\n")).await;
        assert_eq!(exit.code, Some(0), "{exit:?}");
    }
}

fn table(entries: &[(&str, &str)]) -> Table {
    entries
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

/// Waits for the end of a process; one that does not end is killed and fails the test.
pub(crate) async fn finish(mut child: Child) -> Exit {
    fn drain(mut pipe: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = pipe.read_to_end(&mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        })
    }
    let stdout = drain(child.stdout.take().unwrap());
    let stderr = drain(child.stderr.take().unwrap());
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!(
                "did not end: {:?} {:?}",
                stdout.join().unwrap(),
                stderr.join().unwrap()
            );
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    Exit {
        code: status.code(),
        stdout: stdout.join().unwrap(),
        stderr: stderr.join().unwrap(),
    }
}
