//! Where accounts are kept: the keys `store*` of `[accounts]`.

use std::path::PathBuf;

use zeroize::Zeroizing;

use super::{
    bounds::Bounds,
    context::Context,
    diagnostic::Fault,
    files::{self, Reader},
    keys::without_newline,
    reader::Table,
};
use crate::store::settings::{PostgresSettings, Secret, StoreTls};

const EMBEDDED: &str = "data/portcullis.db";

/// Keys that a shared database alone has.
const SHARED: [&str; 4] = [
    "store_password_file",
    "store_password_env",
    "store_connections",
    "danger_store_without_tls",
];

/// The embedded file, beside which this node keeps what is its own, and the shared database if there is one.
pub(super) fn read(table: &mut Table<'_>) -> (PathBuf, Option<PostgresSettings>) {
    let root = table.context.root;
    let embedded = || files::resolve(root, EMBEDDED);
    let context = table.context;
    let password = password(table);
    let most = Bounds::new(1, 100)
        .because("the server gives 100 to all nodes unless it is told otherwise");
    let connections = table.number("store_connections", most);
    let without_tls = table.flag("danger_store_without_tls").unwrap_or(false);
    let mut shared = false;
    let store = table.parsed("store", |text| {
        shared = text.starts_with("postgres:") || text.starts_with("postgresql:");
        if shared {
            return postgres(context, text, without_tls).map(Store::Postgres);
        }
        file(text).map(|path| Store::File(files::resolve(root, path)))
    });
    if !shared {
        for key in SHARED.into_iter().filter(|key| table.has(key)) {
            let hint = "take it out, or name a database: store = \"postgres://user@host/database\"";
            table.fault(key, Fault::new("has no meaning for an SQLite file", hint));
        }
    }
    match store {
        Some(Store::File(path)) => (path, None),
        Some(Store::Postgres(mut settings)) => {
            settings.password = password;
            settings.connections = connections.unwrap_or(settings.connections);
            (embedded(), Some(settings))
        }
        None => (embedded(), None),
    }
}

enum Store {
    File(PathBuf),
    Postgres(PostgresSettings),
}

fn postgres(
    context: &Context<'_>,
    text: &str,
    without_tls: bool,
) -> Result<PostgresSettings, Fault> {
    if cfg!(not(feature = "postgres")) {
        return Err(Fault::new(
            "this program was built without PostgreSQL",
            "build it with the feature `postgres`, which is on by default",
        ));
    }
    let parsed = PostgresSettings::parse(text);
    let mut settings = parsed.map_err(|fault| Fault::new(fault.message, fault.hint))?;
    if settings.is_exposed() && !without_tls {
        return Err(Fault::new(
            "speaks to another machine without TLS",
            "leave sslmode out: the server is then verified; if nobody can be on the way: danger_store_without_tls = true",
        ));
    }
    if let StoreTls::VerifyFull(Some(path)) = &mut settings.tls {
        *path = context.file(&path.to_string_lossy());
        files::chain(path)?;
    }
    Ok(settings)
}

fn file(text: &str) -> Result<&str, Fault> {
    let hint = "store = \"sqlite:data/portcullis.db\" or store = \"postgres://user@host/database\"";
    match text.strip_prefix("sqlite:").map(str::trim) {
        None => Err(Fault::new(format!("`{text}` is not a store"), hint)),
        Some("") => Err(Fault::new("names no file", hint)),
        Some(path) if path.contains(":memory:") || path.contains('?') => Err(Fault::new(
            "is not the path of a file",
            "accounts that are gone after a restart, and locks that others do not see, are no accounts",
        )),
        Some(path) if path.ends_with('/') => Err(Fault::new("is a folder", hint)),
        Some(path) => Ok(path),
    }
}

fn password(table: &mut Table<'_>) -> Option<Secret> {
    if table.has("store_password_file") && table.has("store_password_env") {
        let hint = "leave store_password_file or store_password_env";
        table.fault(
            "store_password_env",
            Fault::new("is a second password", hint),
        );
    }
    let context = table.context;
    let file = table.parsed("store_password_file", |text| {
        let content = files::read(&context.file(text), Reader::Owner)?;
        checked(without_newline(&content))
    });
    let env = table.parsed("store_password_env", |name| {
        let value = (context.env)(name)
            .ok_or_else(|| Fault::from(format!("the environment variable {name} is not set")))?;
        checked(&Zeroizing::new(value.into_encoded_bytes()))
    });
    file.or(env)
}

fn checked(password: &[u8]) -> Result<Secret, Fault> {
    if password.is_empty() {
        return Err("holds no password".to_owned().into());
    }
    if password.contains(&0) {
        return Err("holds a byte 0, which no password of PostgreSQL has"
            .to_owned()
            .into());
    }
    Ok(Secret::new(Zeroizing::new(password.to_vec())))
}
