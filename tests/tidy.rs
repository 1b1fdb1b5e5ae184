//! What the compiler cannot see: which way imports run, who may vouch for an identity, what the policy must never know,
//! how long a file may be, which versions are too old, and whether the documents know the code.
#![expect(clippy::unwrap_used, reason = "a broken helper fails its test")]

#[path = "tidy/documents.rs"]
mod documents;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The layers, lowest first. A module may import from its own layer and from those below. Modules of one layer are named
/// together: they may not import each other, save those listed in [`SIDEWAYS`].
const LAYERS: [&[&str]; 11] = [
    &["policy"],
    &[
        "files",
        "jitter",
        "keepalive",
        "moment",
        "socket",
        "telemetry",
    ],
    &["authn", "limit", "upstream", "respond", "store"],
    &["cluster", "mail", "spans"],
    &["accounts"],
    &["assertion"],
    &["portal", "gateway"],
    &["server", "admin"],
    &["config"],
    &["cli"],
    &["main"],
];

/// Imports within one layer, each with its reason.
const SIDEWAYS: [(&str, &str, &str); 1] = [(
    "gateway",
    "portal",
    "the account routes are routes of the gateway",
)];

const LINES_MAX: usize = 450;

/// Files that may be longer, each with its reason.
const LONG_FILES: [(&str, &str); 1] = [("src/policy/rejection.rs", "a table: one arm per refusal")];

struct Source {
    /// Relative to the package, with forward slashes.
    name: String,
    text: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &str) -> Vec<Source> {
    let mut files = Vec::new();
    collect(&root().join(folder), &mut files);
    files.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(!files.is_empty(), "no source in {folder}");
    files
}

fn collect(folder: &Path, files: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path: PathBuf = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path
                .strip_prefix(root())
                .unwrap()
                .to_string_lossy()
                .replace('\\', "/");
            files.push(Source {
                name,
                text: fs::read_to_string(&path).unwrap(),
            });
        }
    }
}

/// The files that git tracks; none in a source archive, which has no repository: there the packager's tree is what it is.
fn tracked() -> Vec<String> {
    let listed = Command::new("git")
        .args(["ls-files", "-z"])
        .current_dir(root())
        .output();
    let listed = listed.ok().filter(|output| output.status.success());
    let names = listed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let names = names.unwrap_or_default();
    names.split_terminator('\0').map(str::to_owned).collect()
}

impl Source {
    /// The top-level module that the file belongs to.
    fn module(&self) -> &str {
        let inside = self.name.strip_prefix("src/").unwrap_or(&self.name);
        let first = inside.split('/').next().unwrap();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    /// The lines of code with their numbers: no comments, and nothing from the file's test module on.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let tests_file = self.name.ends_with("tests.rs") || self.name.contains("/tests/");
        self.text
            .lines()
            .enumerate()
            .take_while(move |(_, line)| !tests_file && !line.starts_with("#[cfg(test)]"))
            .map(|(index, line)| (index + 1, line.split("//").next().unwrap_or_default()))
            .filter(|(_, line)| !line.trim().is_empty())
    }
}

/// Every line of code in `src` where `wrong` finds a fault.
fn faults(wrong: impl Fn(&Source, &str) -> Option<String>) -> Vec<String> {
    let mut found = Vec::new();
    for file in rust_files("src") {
        for (number, line) in file.code() {
            if let Some(fault) = wrong(&file, line) {
                found.push(format!("{}:{number}: {fault}", file.name));
            }
        }
    }
    found
}

#[track_caller]
fn none(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// The modules that a file imports from `crate` (in the binary, from `portcullis`), each with its line.
fn imports(file: &Source) -> Vec<(usize, String)> {
    let prefix = if file.module() == "main" {
        "portcullis::"
    } else {
        "crate::"
    };
    // One text, so that a `use` over several lines is read whole.
    let mut text = String::new();
    let mut starts = Vec::new();
    for (number, line) in file.code() {
        starts.push((text.len(), number));
        text.push_str(line);
        text.push('\n');
    }
    let line_of = |at: usize| {
        let index = starts.partition_point(|(start, _)| *start <= at);
        starts.get(index - 1).unwrap().1
    };
    let mut found = Vec::new();
    for (at, _) in text.match_indices(prefix) {
        let rest = text.get(at + prefix.len()..).unwrap();
        for path in group(rest) {
            let module = path.split("::").next().unwrap().to_owned();
            found.push((line_of(at), module));
        }
    }
    found
}

/// The paths after a prefix: one, or those of a group in braces, each up to its second part.
fn group(text: &str) -> Vec<String> {
    let path = |text: &str| -> String {
        text.chars()
            .take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | ':'))
            .collect()
    };
    let Some(inside) = text.strip_prefix('{') else {
        return vec![path(text)];
    };
    let (mut depth, mut start, mut found) = (0, 0, Vec::new());
    for (at, character) in inside.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                found.push(path(inside.get(start..at).unwrap().trim()));
                start = at + 1;
                if character == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    found.retain(|path| !path.is_empty());
    found
}

/// What waits without giving the thread back.
const BLOCKING: [&str; 11] = [
    "std::fs",
    "fs::",
    "File::",
    "std::net::TcpStream",
    "UnixStream::connect_addr",
    "to_socket_addrs",
    "process::Command",
    "thread::sleep",
    "block_on",
    "blocking_",
    "recv_timeout",
];

/// Files of the workers' modules whose code runs on other threads, or before the first request.
const NOT_ON_WORKERS: [(&str, &str); 9] = [
    ("src/authn/remote/", "fetches of keys: control runtime"),
    (
        "src/limit/memory/meter.rs",
        "a blocking task of the control runtime",
    ),
    (
        "src/server/mod.rs",
        "starts the workers and waits for their end",
    ),
    (
        "src/server/pulse.rs",
        "a file of the kernel's, which is no disk",
    ),
    (
        "src/server/takeover.rs",
        "at start, and on the control runtime",
    ),
    (
        "src/server/tls/",
        "certificate files: at start and on the control runtime",
    ),
    (
        "src/telemetry/audit_file.rs",
        "opened at start, then on its own thread",
    ),
    ("src/telemetry/events.rs", "the thread that writes events"),
    (
        "src/telemetry/line_queue.rs",
        "the thread that writes the log",
    ),
];

#[test]
fn fault_3_workers_call_nothing_that_blocks() {
    let on_workers = [
        "authn",
        "gateway",
        "limit",
        "policy",
        "respond",
        "server",
        "telemetry",
        "upstream",
    ];
    let found = faults(|file, line| {
        let elsewhere = NOT_ON_WORKERS
            .iter()
            .any(|(name, _)| file.name.starts_with(name));
        if elsewhere || !on_workers.contains(&file.module()) {
            return None;
        }
        let call = BLOCKING.iter().find(|call| line.contains(**call))?;
        Some(format!(
            "`{call}` may block a worker; hand it to the control runtime or to a thread"
        ))
    });
    none(&found);
}

#[test]
fn groups_of_imports_are_read() {
    assert_eq!(group("a::B;"), ["a::B"]);
    assert_eq!(
        group("{\n    a::B,\n    c::{D, e::F},\n    g,\n};"),
        ["a::B", "c::", "g"]
    );
}

#[test]
fn imports_run_downwards() {
    let mut found = Vec::new();
    for file in rust_files("src") {
        let from = file.module();
        if from == "lib" {
            continue;
        }
        let Some(own) = layer(from) else {
            found.push(format!("module `{from}` is in no layer of tests/tidy.rs"));
            continue;
        };
        for (number, to) in imports(&file) {
            let sideways = SIDEWAYS.iter().any(|(a, b, _)| *a == from && *b == to);
            let allowed = to == from || sideways || layer(&to).is_none_or(|other| other < own);
            if !allowed {
                found.push(format!(
                    "{}:{number}: `{from}` may not import `{to}`",
                    file.name
                ));
            }
        }
    }
    none(&found);
}

#[test]
fn policy_knows_no_io_no_clock_and_no_async() {
    let forbidden = [
        "hyper::",
        "tokio::",
        "async fn",
        "SystemTime::now",
        "Instant::now",
        "std::fs",
        "std::net::TcpStream",
        "jsonwebtoken::",
        "toml::",
        "tracing::",
    ];
    none(&faults(|file, line| {
        let word = forbidden.iter().find(|word| line.contains(**word))?;
        (file.module() == "policy").then(|| format!("`{word}` in policy"))
    }));
}

#[test]
fn fault_4_limits_know_no_wall_clock() {
    let limits = ["limit", "cluster"];
    none(&faults(|file, line| {
        let asks = line.contains("SystemTime") || line.contains("UNIX_EPOCH");
        (asks && limits.contains(&file.module())).then(|| "the wall clock in a limit".into())
    }));
}

#[test]
fn jwt_12_only_the_verifier_vouches_for_an_identity() {
    none(&faults(|file, line| {
        let call = line.contains("assert_verified(") && !line.contains("fn assert_verified(");
        (call && file.name != "src/authn/verifier.rs")
            .then(|| "`assert_verified` is called outside authn/verifier.rs".into())
    }));
}

#[test]
fn jwt_12_only_authorize_makes_a_permit() {
    none(&faults(|file, line| {
        let made = line.contains("Permit {")
            && !line.contains("struct ")
            && !line.contains("impl")
            && !line.contains("->");
        (made && file.name != "src/policy/authorize.rs")
            .then(|| "a `Permit` is made outside policy/authorize.rs".into())
    }));
}

#[test]
fn only_config_knows_toml() {
    none(&faults(|file, line| {
        let known = line.contains("toml::") || line.contains("toml_edit::");
        (known && file.module() != "config").then(|| "`toml::` outside config".into())
    }));
}

#[test]
fn nothing_prints_but_the_command_line() {
    none(&faults(|file, line| {
        let word = ["dbg!(", "println!(", "print!(", "eprintln!(", "eprint!("]
            .into_iter()
            .find(|word| line.contains(word))?;
        let speaks = file.module() == "cli" || file.module() == "main";
        (!speaks || word == "dbg!(").then(|| format!("`{word}..)`"))
    }));
}

#[test]
fn names_say_what_things_are() {
    none(&faults(|_, line| {
        let mut words = line.split_whitespace();
        words.find(|word| matches!(*word, "struct" | "enum" | "trait" | "type"))?;
        let name: String = words
            .next()?
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric())
            .collect();
        ["Manager", "Helper", "Util"]
            .iter()
            .any(|word| name.contains(word))
            .then(|| format!("`{name}` says nothing"))
    }));
}

#[test]
fn files_are_short() {
    let long: Vec<String> = rust_files("src")
        .iter()
        .filter(|file| !file.name.ends_with("tests.rs") && !file.name.contains("/tests/"))
        .filter(|file| LONG_FILES.iter().all(|(name, _)| *name != file.name))
        .map(|file| (&file.name, file.text.lines().count()))
        .filter(|(_, lines)| *lines > LINES_MAX)
        .map(|(name, lines)| format!("{name}: {lines} lines, {LINES_MAX} at most"))
        .collect();
    none(&long);
    let files = rust_files("src");
    for (name, reason) in LONG_FILES {
        let lines = files
            .iter()
            .find(|file| file.name == name)
            .map_or(0, |file| file.text.lines().count());
        assert!(lines > LINES_MAX, "{name} ({reason}) need not be listed");
    }
}

#[test]
fn no_tracked_file_names_a_machine() {
    // Written in two parts so that this file passes its own test.
    let paths = [["/wo", "rk/"].concat(), ["/ro", "ot/"].concat()];
    let mut found = Vec::new();
    for name in tracked() {
        let Ok(text) = fs::read_to_string(root().join(&name)) else {
            continue;
        };
        for (index, line) in text.lines().enumerate() {
            if paths.iter().any(|path| line.contains(path.as_str())) {
                found.push(format!("{name}:{}: {line}", index + 1));
            }
        }
    }
    none(&found);
}

#[test]
fn no_key_and_no_data_is_tracked() {
    // Written in two parts so that this file passes its own test.
    let private_key = ["PRIVATE", " KEY-----"].concat();
    let mut found = Vec::new();
    for name in tracked() {
        let secret = [".pem", ".key", ".db", ".db-wal"]
            .iter()
            .any(|end| name.ends_with(end));
        let holds_key = fs::read_to_string(root().join(&name)).is_ok_and(|text| {
            text.lines()
                .any(|line| line.starts_with("-----BEGIN") && line.ends_with(&private_key))
        });
        if secret || holds_key {
            found.push(name);
        }
    }
    none(&found);
}

/// The highest and lowest version of each package in the lock file.
fn locked() -> BTreeMap<String, Vec<(u32, u32, u32)>> {
    let text = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let value = |line: &str, key: &str| -> Option<String> {
        let rest = line.strip_prefix(key)?.strip_prefix(" = \"")?;
        Some(rest.strip_suffix('"')?.to_owned())
    };
    let mut packages: BTreeMap<String, Vec<(u32, u32, u32)>> = BTreeMap::new();
    let mut name = String::new();
    for line in text.lines() {
        if let Some(found) = value(line, "name") {
            name = found;
        } else if let Some(version) = value(line, "version").filter(|_| !name.is_empty()) {
            let plain = version.split(['-', '+']).next().unwrap();
            let mut parts = plain.split('.').map(|part| part.parse::<u32>().unwrap());
            let mut next = || parts.next().unwrap();
            packages
                .entry(std::mem::take(&mut name))
                .or_default()
                .push((next(), next(), next()));
        }
    }
    packages
}

#[test]
fn ver_4_versions_are_not_too_old() {
    let packages = locked();
    for (name, floor) in [
        ("hyper", (1, 11, 0)),
        ("h2", (0, 4, 18)),
        ("jsonwebtoken", (10, 3, 0)),
        ("tracing-subscriber", (0, 3, 20)),
        ("rustls", (0, 23, 46)),
        ("aws-lc-sys", (0, 39, 0)),
    ] {
        let versions = packages
            .get(name)
            .unwrap_or_else(|| panic!("{name} is not in Cargo.lock"));
        assert!(
            versions.iter().all(|version| *version >= floor),
            "{name} {versions:?} is below {floor:?}"
        );
    }
}

#[test]
fn ver_4_no_second_cryptography_is_compiled() {
    let packages = locked();
    for name in [
        "rsa",
        "openssl-sys",
        "openssl",
        "native-tls",
        "ed25519-dalek",
    ] {
        assert!(!packages.contains_key(name), "{name} is in Cargo.lock");
    }
    // `ring` stands in the lock file for platforms that are not built for; cargo says what is.
    let tree = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--offline",
            "--locked",
            "--edges",
            "normal,build,dev",
        ])
        .args(["--prefix", "none", "--format", "{p}"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        tree.status.success(),
        "{}",
        String::from_utf8_lossy(&tree.stderr)
    );
    let listing = String::from_utf8_lossy(&tree.stdout);
    assert!(listing.contains("aws-lc-rs "), "{listing}");
    let ring: Vec<&str> = listing
        .lines()
        .filter(|line| line.starts_with("ring "))
        .collect();
    assert!(ring.is_empty(), "compiled: {ring:?}");
}

#[test]
fn ver_5_the_compiler_holds_what_must_not_be_written() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| fs::read_to_string(root.join(name)).unwrap();
    let manifest: toml::Table = read("Cargo.toml").parse().unwrap();
    assert_eq!(
        manifest["lints"]["rust"]["unsafe_code"].as_str(),
        Some("forbid")
    );
    for lint in [
        "unwrap_used",
        "expect_used",
        "indexing_slicing",
        "string_slice",
        "panic",
        "as_conversions",
        "todo",
    ] {
        let level = manifest["lints"]["clippy"][lint].as_str();
        assert!(
            matches!(level, Some("warn" | "deny" | "forbid")),
            "{lint}: {level:?}"
        );
    }
    assert!(read("scripts/test").contains("cargo clippy --all-targets -- -D warnings"));
    let checks = manifest["profile"]["release"]["overflow-checks"].as_bool();
    assert_eq!(
        checks,
        Some(true),
        "an overflow must not go on with a wrong number"
    );
    none(&faults(|_, line| {
        let lifted = line.contains("allow(clippy::") && !line.contains("reason");
        lifted.then(|| "a lint is lifted without a reason".into())
    }));
}
