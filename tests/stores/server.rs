//! A private PostgreSQL: made for this run on a free port, and gone with it, however it ends.

use std::{
    net::TcpListener,
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

/// Nobody: PostgreSQL refuses to run as root.
const NOBODY: u32 = 65_534;

/// Starts the server and ends it when its standard input does, which the death of the test's process brings about too. Then
/// removes the folder of a server that nobody resumes: what tests share is not dropped at their end.
const KEEPER: &str = r#"
"$0" "$@" >>"$LOG" 2>&1 &
server=$!
read -r _
kill -INT $server 2>/dev/null
wait $server
[ -z "$LAST" ] || rm -rf "$LAST"
"#;

pub(crate) struct Server {
    folder: TempDir,
    programs: PathBuf,
    pub(crate) port: u16,
    keeper: Option<Child>,
    shared: bool,
}

/// Where the programs of PostgreSQL are: the newest of Debian's folders, or the path.
fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok();
    let mut folders: Vec<PathBuf> = versions
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .collect();
    folders.sort();
    folders.reverse();
    let path = std::env::var_os("PATH").unwrap_or_default();
    folders.extend(std::env::split_paths(&path));
    folders
        .into_iter()
        .find(|folder| folder.join("initdb").exists() && folder.join("postgres").exists())
}

impl Server {
    /// The one that the tests of this run share, each with a database of its own. `None` on a machine without PostgreSQL, which
    /// is a failure where `CI=true`.
    pub(crate) fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Option<Server>> = OnceLock::new();
        SHARED.get_or_init(|| Self::make(|_| (), true)).as_ref()
    }

    /// One for a single test, after `change` to its data folder.
    pub(crate) fn start(change: impl FnOnce(&Path)) -> Option<Self> {
        Self::make(change, false)
    }

    fn make(change: impl FnOnce(&Path), shared: bool) -> Option<Self> {
        let Some(programs) = programs() else {
            assert!(
                std::env::var("CI").as_deref() != Ok("true"),
                "PostgreSQL is missing (apt-get install postgresql)"
            );
            println!("not tested with PostgreSQL: it is missing");
            return None;
        };
        let folder = tempfile::Builder::new().prefix("pg").tempdir().unwrap();
        give(folder.path());
        let data = folder.path().join("data");
        let made = as_nobody(&mut Command::new(programs.join("initdb")))
            .args(["--auth=trust", "--username=postgres", "--no-sync"])
            .args(["--encoding=UTF8", "--locale=C"])
            .arg(&data)
            .output()
            .unwrap();
        assert!(made.status.success(), "initdb: {made:?}");
        change(&data);
        let mut server = Self {
            folder,
            programs,
            port: 0,
            keeper: None,
            shared,
        };
        for _ in 0..5 {
            // Somebody may take the port before the server does.
            server.port = TcpListener::bind("127.0.0.1:0")
                .and_then(|listener| listener.local_addr())
                .unwrap()
                .port();
            if server.try_resume() {
                return Some(server);
            }
            assert!(!shared, "{}", server.log());
            server.stop();
        }
        panic!("{}", server.log());
    }

    /// Starts it again, on the same port.
    pub(crate) fn resume(&mut self) {
        assert!(self.try_resume(), "{}", self.log());
    }

    fn try_resume(&mut self) -> bool {
        let data = self.folder.path().join("data");
        let socket = self.folder.path().display().to_string();
        let keeper = as_nobody(&mut Command::new("sh"))
            .arg("-c")
            .arg(KEEPER)
            .arg(self.programs.join("postgres"))
            .arg("-D")
            .arg(&data)
            .args(["-c", "fsync=off", "-c", "max_connections=200"])
            .args(["-c", "listen_addresses=127.0.0.1"])
            .args(["-c", &format!("port={}", self.port)])
            .args(["-c", &format!("unix_socket_directories={socket}")])
            .env("LOG", self.folder.path().join("log"))
            .env("LAST", if self.shared { &*socket } else { "" })
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.keeper = Some(keeper);
        let until = Instant::now() + Duration::from_secs(60);
        while Instant::now() < until {
            let asked = Command::new(self.programs.join("pg_isready"))
                .args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()])
                .status();
            if asked.is_ok_and(|status| status.success()) {
                return true;
            }
            if !matches!(self.keeper.as_mut().unwrap().try_wait(), Ok(None)) {
                return false;
            }
            std::thread::park_timeout(Duration::from_millis(50));
        }
        false
    }

    /// As if its machine had lost power: no connection is closed in order.
    pub(crate) fn kill(&mut self) {
        let file = std::fs::read_to_string(self.folder.path().join("data/postmaster.pid")).unwrap();
        let process = file.lines().next().unwrap();
        let children = format!("/proc/{process}/task/{process}/children");
        let children = std::fs::read_to_string(children).unwrap();
        let killed = Command::new("kill")
            .arg("-9")
            .arg(process)
            .args(children.split_whitespace())
            .status()
            .unwrap();
        assert!(killed.success());
        self.stop();
        // A new one does not start while one of the old is left.
        let is_there = |child: &str| Path::new("/proc").join(child).exists();
        let until = Instant::now() + Duration::from_secs(30);
        while children.split_whitespace().any(is_there) && Instant::now() < until {
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }

    /// Shuts it down in order.
    pub(crate) fn stop(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            drop(keeper.stdin.take());
            keeper.wait().unwrap();
        }
    }

    /// What it has written down.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// A database of the caller's own, by its URL.
    pub(crate) async fn database(&self) -> String {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("t{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let admin = connect(&self.url("postgres", "postgres")).await;
        admin
            .batch_execute(&format!("CREATE DATABASE {name}"))
            .await
            .unwrap();
        self.url("postgres", &name)
    }

    pub(crate) fn url(&self, user: &str, database: &str) -> String {
        format!(
            "postgres://{user}@127.0.0.1:{}/{database}?sslmode=disable",
            self.port
        )
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A connection beside those of the store.
pub(crate) async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Makes a file or folder the server's own.
pub(crate) fn give(path: &Path) {
    if is_root() {
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
}

fn as_nobody(command: &mut Command) -> &mut Command {
    command.current_dir("/").env("LC_ALL", "C");
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}
