//! The section `[forward_auth]`.

use super::{accounts, diagnostic::Fault, reader::Table};
use crate::{
    accounts::settings::AccountSettings, gateway::forward_auth::ForwardAuthSettings,
    server::settings::ServerSettings,
};

/// Reads the section; `None` where it is absent.
pub(super) fn read(
    mut table: Table<'_>,
    server: Option<&ServerSettings>,
    accounts: Option<&AccountSettings>,
) -> Option<ForwardAuthSettings> {
    let is_there = table.is_there();
    let path = table.parsed("path", accounts::path);
    if server.is_some_and(|server| is_there && server.trusted_proxies.is_empty()) {
        let hint = "list the proxies that ask in server.trusted_proxies; nobody else is answered";
        table.fault("path", Fault::new("would answer nobody", hint));
    }
    if let (Some(path), Some(accounts)) = (&path, accounts)
        && *path == accounts.path
    {
        let hint = "the endpoint may be below the account routes: \"/auth/verify\"";
        table.fault(
            "path",
            Fault::new("is the path of the account routes", hint),
        );
    }
    table.finish();
    is_there.then(|| ForwardAuthSettings {
        path: path.unwrap_or_else(|| "/auth/verify".into()),
    })
}
