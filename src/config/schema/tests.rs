//! The schema and the reader hold the same for good, and what is written down of them is in step.

use std::{collections::BTreeSet, fs, path::PathBuf, sync::LazyLock};

use boon::{Compiler, SchemaIndex, Schemas};

use super::*;
use crate::config::{reference, starter};

static COMPILED: LazyLock<(Schemas, SchemaIndex)> = LazyLock::new(|| {
    let mut schemas = Schemas::new();
    let mut compiler = Compiler::new();
    let place = "https://example.com/gateway.schema.json";
    compiler.add_resource(place, schema()).unwrap();
    let index = compiler.compile(place, &mut schemas).unwrap();
    (schemas, index)
});

/// What the schema says against a configuration.
fn judge(text: &str) -> Result<(), String> {
    let document: toml::Table = text.parse().unwrap();
    let document = serde_json::to_value(document).unwrap();
    let (schemas, index) = &*COMPILED;
    schemas
        .validate(&document, *index)
        .map_err(|error| error.to_string())
}

/// Asserts that an editor would have nothing against a configuration that the reader takes.
#[track_caller]
pub(in crate::config) fn allows(text: &str) {
    judge(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
}

/// A configuration that the schema takes, with one line more in a section of its own or another value.
const GOOD: &str = r#"
[server]
workers = 1
[tls]
development = true
[[upstream]]
name = "app"
servers = ["http://127.0.0.1:9000"]
[[route]]
name = "app"
path_prefix = "/"
upstream = "app"
access = "authenticated"
[accounts]
"#;

#[test]
fn what_is_no_configuration_is_refused_by_the_schema_and_by_the_reader() {
    allows(GOOD);
    for (old, new) in [
        ("workers = 1", "worker = 1"),
        ("workers = 1", "workers = \"1\""),
        ("workers = 1", "workers = 1.5"),
        ("workers = 1", "workers = -1"),
        ("workers = 1", "workers = 1025"),
        ("workers = 1", "drain_delay = 5"),
        ("workers = 1", "drain_delay = \"5\""),
        ("workers = 1", "drain_delay = \"5 s\""),
        ("workers = 1", "drain_delay = \"1.5s\""),
        ("workers = 1", "memory_limit = \"64MB\""),
        ("workers = 1", "listen = \"0.0.0.0:8443\""),
        ("workers = 1", "listen = []"),
        ("workers = 1", "listen = [\"\"]"),
        ("workers = 1", "listen = [\"0.0.0.0:1\", \"0.0.0.0:1\"]"),
        ("workers = 1", "public_url = \"\""),
        ("workers = 1", "timeouts = { headers = \"5s\" }"),
        ("workers = 1", "timeouts = \"5s\""),
        ("development = true", "development = \"true\""),
        ("development = true", "min_version = \"1.1\""),
        ("development = true", "certificates = [{ cert = \"x\" }]"),
        ("[server]", "[sever]"),
        ("[server]", "secret = \"x\"\n[server]"),
        ("[server]", "version = 2\n[server]"),
        ("name = \"app\"\nservers", "servers"),
        ("servers = [\"http://127.0.0.1:9000\"]", ""),
        ("access = \"authenticated\"", ""),
        ("access = \"authenticated\"", "access = \"publik\""),
        ("access = \"authenticated\"", "access = [\"public\"]"),
        (
            "upstream = \"app\"",
            "upstream = \"app\"\nrequire = { role = [\"a\"] }",
        ),
        (
            "upstream = \"app\"",
            "upstream = \"app\"\nrequire = { roles = [] }",
        ),
        (
            "upstream = \"app\"",
            "upstream = \"app\"\nrate_limit = [{ key = \"user\" }]",
        ),
        (
            "upstream = \"app\"",
            "upstream = \"app\"\nrate_limit = [{ key = \"user\", rate = \"0/s\" }]",
        ),
        (
            "upstream = \"app\"",
            "upstream = \"app\"\ncors = { credentials = true }",
        ),
        ("[[route]]", "[route]"),
        ("[accounts]", "[accounts]\nstore_password = \"hunter2\""),
        ("[accounts]", "[accounts]\nargon2 = { memory = 19 }"),
        ("[accounts]", "[accounts]\npassword_min = 7"),
        (
            "[accounts]",
            "[accounts]\nlogin_limit = { per_ip = \"10/1x\" }",
        ),
        ("[accounts]", "[mail]\nspool = \"x\""),
    ] {
        assert!(GOOD.contains(old), "{old}");
        let text = GOOD.replacen(old, new, 1);
        assert!(judge(&text).is_err(), "the schema takes {new:?}");
        let root = tempfile::tempdir().unwrap();
        let read = crate::config::parse(&text, Path::new("gateway.toml"), root.path());
        assert!(read.is_err(), "the reader takes {new:?}");
    }
}

#[test]
fn the_sample_its_examples_and_what_init_writes_are_allowed() {
    allows(sample::SAMPLE);
    allows(&sample::with_examples());
    allows(&starter("http://127.0.0.1:9000"));
    allows(SHORTEST);
}

#[test]
fn every_key_is_known_and_explained_once() {
    let entries = entries();
    assert!(entries.len() > 150, "{}", entries.len());
    let said = sample::said();
    let mut known = BTreeSet::new();
    for entry in &entries {
        let path = path(&entry.table, entry.key);
        assert_ne!(entry.shape, Shape::Any, "no reader of {path} was reached");
        let is_section = matches!(entry.shape, Shape::Table | Shape::Tables);
        assert!(
            !entry.text.is_empty() || is_section,
            "{path} is not explained"
        );
        known.insert(path.clone());
        known.insert(format!("{path}[]"));
        if !entry.shares_text {
            continue;
        }
        // A key of an inline table: its own line would be a section.
        let own = said.iter().find(|said| said.path == path);
        let is_section = said
            .iter()
            .any(|said| said.path == entry.table && said.value.is_none());
        assert!(
            !is_section || own.is_some(),
            "{path} has no line in the sample"
        );
    }
    for said in said {
        let parent = said.path.rsplit_once('.').map_or("", |(table, _)| table);
        let is_own = entries
            .iter()
            .any(|entry| entry.shape == Shape::Own && path(&entry.table, entry.key) == parent);
        assert!(
            known.contains(&said.path) || is_own,
            "nobody reads {}",
            said.path
        );
    }
}

#[test]
fn the_page_about_the_configuration_has_every_key() {
    let page = include_str!("../../../docs/configuration.md");
    for entry in entries() {
        let key = entry.key;
        let named = [
            format!("`{key}`"),
            format!("[{key}]"),
            format!(".{key}]"),
            format!(" {key} "),
            format!(" {key},"),
        ];
        let is_named = named.iter().any(|name| page.contains(name.as_str()));
        assert!(
            is_named,
            "docs/configuration.md lacks {}",
            path(&entry.table, key)
        );
    }
    // And the other way round: the first cell of each row of a table of keys.
    let known: BTreeSet<&str> = entries().iter().map(|entry| entry.key).collect();
    let mut of_keys = false;
    for line in page.lines() {
        if line.starts_with("| key") {
            of_keys = true;
        } else if !line.starts_with('|') {
            of_keys = false;
        } else if of_keys && !line.starts_with("|-") {
            let cell = line.split('|').nth(1).unwrap();
            for key in cell.split('`').skip(1).step_by(2) {
                assert!(known.contains(key), "nobody reads {key}: {line}");
            }
        }
    }
}

/// A file of the project that is made from the schema.
#[track_caller]
fn in_step(file: &str, made: &str, command: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(file);
    let found = fs::read_to_string(path).unwrap_or_default();
    let fresh = found == made;
    assert!(fresh, "{file} is stale: portcullis {command} > {file}");
}

#[test]
fn the_shipped_schema_and_the_reference_are_in_step() {
    let schema = format!("{:#}\n", schema());
    in_step("config/gateway.schema.json", &schema, "schema");
    in_step(
        "docs/reference.md",
        &reference(),
        "schema --format markdown",
    );
}

#[test]
fn editors_find_the_schema_beside_the_file() {
    let first = "#:schema ./gateway.schema.json\n";
    assert!(sample::SAMPLE.starts_with(first));
    assert!(starter("http://127.0.0.1:9000").starts_with(first));
}
