//! What becomes of a gateway whose clients want all of its memory (FAULT-1): it must not be killed for it, must serve a good client
//! again when they have gone, and give the memory back.
//!
//! The gateway runs in a control group of its own with 512 MiB, or what `--limit` says in MiB, so this needs the right to make one
//! (root, cgroup version 1 or 2). Once in five seconds a line says how it fares, and at the end what the group's memory is.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::hmac;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use tokio::time::interval;

use crate::{
    attacks::{self, Attack, bomb, frame, settings},
    gateway::{Additions, Gateway, Process, SECRET, SECRET_NAME, SINK},
    good,
};

/// How often it is looked at.
const LOOK: Duration = Duration::from_secs(5);
/// How long it is watched after the attack.
const AFTER: Duration = Duration::from_secs(60);

/// All at once.
static MIX: [Attack; 5] = [
    Attack {
        name: "slow bodies",
        connections: 2500,
        http2: false,
        start: || {
            let head = "POST /slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000000\r\n\r\n";
            [head.as_bytes(), &[b'x'; 20_000]].concat()
        },
        then: |_| vec![b'x'; 1000],
        every: Duration::from_secs(2),
        again: Duration::from_secs(5),
    },
    Attack {
        name: "HTTP/2 uploads that nobody reads, to the end of their windows",
        connections: 500,
        http2: true,
        start: || {
            let path = u8::try_from(SINK.len()).unwrap();
            let block = [
                &[0x83, 0x87, 0x04, path],
                SINK.as_bytes(),
                &[0x01, 9],
                b"localhost",
            ];
            let data = (0..4).map(|_| frame(0, 0, 1, &[b'x'; 16_000]));
            [settings(), frame(1, 4, 1, &block.concat())]
                .into_iter()
                .chain(data)
                .flatten()
                .collect()
        },
        then: |_| Vec::new(),
        every: Duration::from_secs(1),
        again: Duration::from_secs(5),
    },
    Attack {
        name: "header bombs",
        connections: 100,
        http2: true,
        start: bomb,
        then: |_| frame(8, 0, 1, &[0, 0, 0, 1]),
        every: Duration::from_millis(500),
        again: Duration::from_secs(1),
    },
    Attack {
        name: "logins",
        connections: 40,
        http2: false,
        start: Vec::new,
        then: |n| {
            let body =
                format!(r#"{{"username":"somebody{n}","password":"not the password of anybody"}}"#);
            let length = body.len();
            format!(
                "POST /auth/login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                 Content-Length: {length}\r\n\r\n{body}"
            )
            .into_bytes()
        },
        every: Duration::from_millis(200),
        again: Duration::from_secs(1),
    },
    Attack {
        name: "good tokens, each another one",
        connections: 60,
        http2: false,
        start: Vec::new,
        then: |_| {
            let token = token();
            format!(
                "GET /private HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n"
            )
            .into_bytes()
        },
        every: Duration::from_millis(1),
        again: Duration::from_secs(1),
    },
];

/// A control group with a limit of memory, removed with this.
struct Group {
    folder: PathBuf,
    usage: PathBuf,
}

impl Group {
    fn new(limit: u64) -> Self {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        let of = |mark: &str| own.lines().find_map(|line| Some(line.split_once(mark)?.1));
        let (root, own, limit_file, usage_file) = match of(":memory:") {
            Some(own) => (
                "memory",
                own,
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
            ),
            None => (".", of("0::").unwrap(), "memory.max", "memory.current"),
        };
        let parent = Path::new("/sys/fs/cgroup").join(root);
        let parent = parent.join(own.trim_start_matches('/'));
        // Where the own group is not shown, the root of what is shown takes its place.
        let parent = [parent, Path::new("/sys/fs/cgroup").join(root)];
        let parent = parent.iter().find(|folder| folder.is_dir()).unwrap();
        let folder = parent.join(format!("portcullis-attack-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join(limit_file), limit.to_string()).unwrap();
        let usage = folder.join(usage_file);
        Self { folder, usage }
    }

    /// What it consists of, as the kernel tells.
    fn stat(&self) -> String {
        let read = |name: &str| fs::read_to_string(self.folder.join(name)).unwrap_or_default();
        let kernel = read("memory.kmem.usage_in_bytes");
        format!("{}memory.kmem.usage_in_bytes {kernel}", read("memory.stat"))
    }

    /// Has the kernel take back what it can, as it does before it kills.
    fn reclaim(&self) {
        let first = fs::write(self.folder.join("memory.force_empty"), "0");
        // Of version 2; less than that can be had back, which is an error.
        let _ = first.or_else(|_| fs::write(self.folder.join("memory.reclaim"), "1G"));
    }

    /// In MiB.
    fn used(&self) -> u64 {
        let text = fs::read_to_string(&self.usage).unwrap();
        text.trim().parse::<u64>().unwrap() >> 20
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.folder);
    }
}

/// Attacks for so long, then watches what stays.
pub(crate) async fn run(length: Duration, limit: u64) {
    let group = Group::new(limit << 20);
    let into = group.folder.join("cgroup.procs").display().to_string();
    let script = format!("echo $$ > {into} && exec \"$@\"");
    let tables = format!(
        r#"
        [[issuer]]
        name = "bench"
        issuer = "bench"
        audience = ["bench"]
        algorithms = ["HS256"]
        secret_env = "{SECRET_NAME}"
        [[route]]
        name = "private"
        path_prefix = "/private"
        upstream = "app"
        access = "authenticated"
        [accounts]
        store = "sqlite:data/portcullis.db"
        login_limit = {{ per_ip = "1000000/1s", per_account = "5/15m" }}
        [token_cache]
        max_bytes = "256MiB"
        "#
    );
    let additions = Additions {
        server: "workers = 2\nmax_connections_per_ip = 10000",
        tables: &tables,
    };
    let gateway = Gateway::start(&["sh", "-c", &script, "sh"], &additions).await;
    println!(
        "| after s | group MiB | resident MiB | stage | token cache MiB | connections | shed | good answers | not answered well |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    let begun = Instant::now();
    let good = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
    let visits = tokio::spawn(visit(Arc::clone(&gateway.process), Arc::clone(&good)));
    let mut ticks = interval(LOOK);
    ticks.tick().await;
    ticks.tick().await;
    line(&gateway, &group, (begun, &good)).await;
    let attacks: Vec<_> = MIX
        .iter()
        .map(|attack| attacks::start(attack, &gateway, length))
        .collect();
    while begun.elapsed() < length {
        ticks.tick().await;
        line(&gateway, &group, (begun, &good)).await;
    }
    for (attack, running) in MIX.iter().zip(attacks) {
        let sums = running.await.unwrap();
        eprintln!(
            "{}: {} connections, {} sent",
            attack.name, sums.opened, sums.sent
        );
    }
    println!("| attack over | | | | | | | | |");
    let over = Instant::now();
    while over.elapsed() < AFTER {
        ticks.tick().await;
        line(&gateway, &group, (begun, &good)).await;
    }
    visits.abort();
    let used = group.used();
    group.reclaim();
    println!(
        "\n{used} MiB are charged to the group, {} when the kernel has taken back what it can.\n",
        group.used()
    );
    println!("{}", group.stat());
}

/// Asks as a good client does until it is told to stop; counts what was answered and what was not.
async fn visit(process: Arc<Process>, counts: Arc<[AtomicUsize; 2]>) {
    loop {
        let found = good::measure(&process, Duration::from_secs(1)).await;
        for (count, found) in counts.iter().zip([found.answered(), found.failed]) {
            count.fetch_add(found, Ordering::Relaxed);
        }
    }
}

async fn line(gateway: &Gateway, group: &Group, (begun, good): (Instant, &[AtomicUsize; 2])) {
    let process = &gateway.process;
    let [answered, failed] = good
        .each_ref()
        .map(|count| count.swap(0, Ordering::Relaxed));
    let shown = async |series: &str, unit: f64| match process.metric(series).await {
        Some(value) => format!("{:.0}", value / unit),
        None => "–".to_owned(),
    };
    println!(
        "| {} | {} | {:.0} | {} | {} | {} | {} | {} | {} |",
        begun.elapsed().as_secs(),
        group.used(),
        process.memory(),
        shown("portcullis_memory_stage ", 1.0).await,
        shown("portcullis_token_cache_bytes ", 1_048_576.0).await,
        shown("portcullis_connections{listener=\"tls\"} ", 1.0).await,
        shown("portcullis_connections_shed_total ", 1.0).await,
        answered,
        failed,
    );
}

/// An access token of the bench's issuer that nobody has seen, with some claims that make it large.
fn token() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let until = now.as_secs() + 600;
    let padding = "p".repeat(2000);
    let claims = format!(
        r#"{{"iss":"bench","aud":"bench","sub":"user{number}","exp":{until},"email":"{padding}"}}"#
    );
    let [head, claims] =
        [r#"{"alg":"HS256","typ":"JWT"}"#, &claims].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part));
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let signed = format!("{head}.{claims}");
    let tag = BASE64_URL_SAFE_NO_PAD.encode(hmac::sign(&key, signed.as_bytes()));
    format!("{signed}.{tag}")
}
