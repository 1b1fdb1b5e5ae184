//! A real Redis server of a test's own.

use std::{
    env,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// How long it may take to begin.
const PATIENCE: Duration = Duration::from_secs(30);

/// It listens on a port of the loopback interface, keeps nothing on the disk, and ends with the test.
pub(crate) struct RedisServer {
    child: Child,
    password: Option<&'static str>,
    pub(crate) port: u16,
}

impl RedisServer {
    /// Starts one; `None` where Redis is not installed, which fails where `CI` is `true`.
    pub(crate) fn start(password: Option<&'static str>) -> Option<Self> {
        let found = Command::new("redis-server").arg("--version").output();
        if found.is_err() {
            let strict = env::var_os("CI").is_some_and(|ci| ci == "true");
            assert!(!strict, "redis-server is not installed");
            println!("not tested with Redis: redis-server is not installed");
            return None;
        }
        // Somebody may take a free port before it does; then another is as good.
        let started = (0..10).find_map(|_| {
            let free = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = free.local_addr().unwrap().port();
            drop(free);
            Self::try_start(port, password)
        });
        Some(started.expect("redis-server does not start"))
    }

    /// Ends it at once, as a crash would.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again, empty, on the same port.
    pub(crate) fn again(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(next) = Self::try_start(self.port, self.password) {
                *self = next;
                return;
            }
        }
        panic!("redis-server does not start again");
    }

    /// Sends a signal by its name: `STOP` makes one that accepts and never answers.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill")
            .args([&format!("-{name}"), &pid])
            .status();
        assert!(status.unwrap().success());
    }

    /// Sends a command in words, and gives what is answered at first.
    pub(crate) fn ask(&self, command: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        if let Some(password) = self.password {
            ask(&mut stream, &format!("AUTH {password}")).unwrap();
        }
        ask(&mut stream, command).unwrap()
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "a test waits for a process, at its beginning"
    )]
    fn try_start(port: u16, password: Option<&'static str>) -> Option<Self> {
        let port_text = port.to_string();
        let mut command = Command::new("redis-server");
        command
            .args(["-", "--port", &port_text, "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no", "--dir"])
            .arg(env::temp_dir())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if let Some(password) = password {
            command.args(["--requirepass", password]);
        }
        let mut started = Self {
            child: command.spawn().unwrap(),
            password,
            port,
        };
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if started.child.try_wait().unwrap().is_some() {
                return None;
            }
            let answer = TcpStream::connect(("127.0.0.1", port))
                .and_then(|mut stream| ask(&mut stream, "PING"));
            if answer.is_ok_and(|text| text.starts_with("+PONG") || text.starts_with("-NOAUTH")) {
                return Some(started);
            }
            thread::sleep(Duration::from_millis(10));
        }
        None
    }
}

fn ask(stream: &mut TcpStream, command: &str) -> std::io::Result<String> {
    stream.write_all(format!("{command}\r\n").as_bytes())?;
    let mut bytes = vec![0; 64 << 10];
    let length = stream.read(&mut bytes)?;
    Ok(String::from_utf8_lossy(bytes.get(..length).unwrap_or_default()).into_owned())
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
