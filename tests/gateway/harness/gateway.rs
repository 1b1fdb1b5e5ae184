//! A running gateway: its addresses, its output, its end.

use std::{
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, ExitStatus},
    sync::{Arc, Mutex, mpsc},
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::sync::watch;

use super::{PATIENCE, Raw, Site, eventually, http1::Answer, request};

/// How long a gateway whose test is over may take to leave. Its drain is a matter of the tests of it.
const FAREWELL: Duration = Duration::from_millis(300);

/// The lines that a process has written so far.
pub(crate) struct Lines {
    lines: Arc<Mutex<Vec<String>>>,
    written: watch::Receiver<()>,
    ended: Mutex<mpsc::Receiver<()>>,
}

impl Lines {
    fn read(pipe: impl Read + Send + 'static) -> Self {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (write, written) = watch::channel(());
        let (end, ended) = mpsc::channel();
        let shared = Arc::clone(&lines);
        std::thread::spawn(move || {
            let mut pipe = BufReader::new(pipe);
            let mut line = Vec::new();
            while pipe
                .read_until(b'\n', &mut line)
                .is_ok_and(|count| count > 0)
            {
                let text = String::from_utf8_lossy(&line)
                    .trim_end_matches('\n')
                    .to_owned();
                shared.lock().unwrap().push(text);
                write.send_replace(());
                line.clear();
            }
            let _ = end.send(());
        });
        Self {
            lines,
            written,
            ended: Mutex::new(ended),
        }
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    pub(crate) fn text(&self) -> String {
        self.all().join("\n")
    }

    /// Waits for a line of which something can be made.
    pub(crate) async fn find<T>(&self, what: &str, made: impl Fn(&str) -> Option<T>) -> T {
        let mut written = self.written.clone();
        let wait = async {
            loop {
                if let Some(found) = self.all().iter().find_map(|line| made(line)) {
                    return Some(found);
                }
                if written.changed().await.is_err() {
                    return self.all().iter().find_map(|line| made(line));
                }
            }
        };
        match tokio::time::timeout(PATIENCE, wait).await {
            Ok(Some(found)) => found,
            Ok(None) => panic!("{what}: the output ended without it:\n{}", self.text()),
            Err(_) => panic!("{what}: no such line within {PATIENCE:?}:\n{}", self.text()),
        }
    }
}

/// A running gateway. Dropped, it is told to leave, and made to when it does not.
pub(crate) struct Gateway {
    child: Child,
    /// The TLS listener.
    pub(crate) tls: SocketAddr,
    /// The admin listener.
    pub(crate) admin: SocketAddr,
    /// Standard output: the access log.
    pub(crate) out: Lines,
    /// Standard error: events.
    pub(crate) err: Lines,
    pub(crate) site: Site,
}

/// Finds the address in the event of a listener that was opened.
fn listening(listener: &str) -> impl Fn(&str) -> Option<SocketAddr> {
    move |line| {
        let event: Value = serde_json::from_str(line).ok()?;
        let fields = &event["fields"];
        let ours = fields["message"] == "listening" && fields["listener"] == listener;
        ours.then(|| fields["address"].as_str()?.parse().ok())?
    }
}

impl Gateway {
    /// Starts the gateway of a site whose files are written.
    pub(crate) async fn start(site: Site) -> Self {
        Self::launch(site, &["run"]).await
    }

    /// As [`Self::start`], by another command.
    pub(crate) async fn launch(site: Site, command: &[&str]) -> Self {
        let mut child = site.command(command).spawn().unwrap();
        let out = Lines::read(child.stdout.take().unwrap());
        let err = Lines::read(child.stderr.take().unwrap());
        let tls = err.find("the TLS listener", listening("tls")).await;
        let admin = err.find("the admin listener", listening("admin")).await;
        let gateway = Self {
            child,
            tls,
            admin,
            out,
            err,
            site,
        };
        eventually("readiness", async || {
            (gateway.admin("/readyz").await.status == 200).then_some(())
        })
        .await;
        gateway
    }

    /// The address of another listener, by its name in events.
    pub(crate) async fn listener(&self, name: &str) -> SocketAddr {
        self.err.find("a listener", listening(name)).await
    }

    /// Asks the admin listener.
    pub(crate) async fn admin(&self, target: &str) -> Answer {
        let mut raw = Raw::plain(self.admin).await;
        raw.exchange(request("GET", target, &[("connection", "close")], ""))
            .await
    }

    /// One value of a metric, by its name and labels as they are written.
    pub(crate) async fn metric(&self, series: &str) -> Option<f64> {
        let text = self.admin("/metrics").await.text();
        text.lines().find_map(|line| {
            line.strip_prefix(series)?
                .strip_prefix(' ')?
                .split(' ')
                .next()?
                .parse()
                .ok()
        })
    }

    /// Waits for the access-log line of which this holds.
    pub(crate) async fn access_line(&self, holds: impl Fn(&Value) -> bool) -> Value {
        self.out
            .find("an access-log line", |line| {
                serde_json::from_str::<Value>(line)
                    .ok()
                    .filter(|line| holds(line))
            })
            .await
    }

    /// The folder of the site.
    pub(crate) fn path(&self) -> &Path {
        self.site.path()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([&format!("-{name}"), &self.pid().to_string()])
            .status();
        assert!(status.unwrap().success());
    }

    /// Waits for the gateway's own end.
    pub(crate) async fn exit(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "the gateway goes on:\n{}",
                self.err.text()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Starts the gateway of the same site again, after its end.
    pub(crate) async fn again(mut self) -> Self {
        assert!(self.child.try_wait().unwrap().is_some(), "it still runs");
        let site = std::mem::replace(&mut self.site, Site::bare());
        Self::start(site).await
    }

    /// Starts one of the same site that takes the place of this one. The site is its own then.
    pub(crate) async fn successor(&mut self) -> Self {
        let site = std::mem::replace(&mut self.site, Site::bare());
        Self::launch(site, &["run", "--takeover"]).await
    }

    /// Resident memory in KiB, where the system tells.
    pub(crate) fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_some()) {
            return;
        }
        let _ = Command::new("kill")
            .arg(self.child.id().to_string())
            .status();
        let gone = self
            .err
            .ended
            .lock()
            .is_ok_and(|ended| ended.recv_timeout(FAREWELL).is_ok());
        if !gone {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
        if std::thread::panicking() {
            // Captured, and shown for the test that failed.
            println!(
                "events of the gateway:\n{}\naccess log:\n{}",
                self.err.text(),
                self.out.text()
            );
        }
    }
}
