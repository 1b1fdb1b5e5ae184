//! The sections `[[accounts.client]]`: services that may ask about tokens and take them back.

use aws_lc_rs::digest;
use zeroize::Zeroizing;

use super::{
    diagnostic::{Fault, Place},
    issuer::boxed,
    keys,
    reader::Table,
    words::refuse_repeats,
};
use crate::accounts::settings::ClientSettings;

/// Reads every client.
pub(super) fn read(tables: Vec<Table<'_>>) -> Vec<ClientSettings> {
    let Some(problems) = tables.first().map(|table| &table.context.problems) else {
        return Vec::new();
    };
    let mut clients = Vec::new();
    let mut names = Vec::new();
    for table in tables {
        let (name, client) = read_one(table);
        names.extend(name);
        clients.extend(client);
    }
    refuse_repeats(problems, "client", names);
    clients
}

type Named = (std::sync::Arc<str>, Place);

fn read_one(mut table: Table<'_>) -> (Option<Named>, Option<ClientSettings>) {
    table.need("id", "the name by which the service calls itself");
    table.need(
        "audience",
        "whose tokens it is told of: one of these must be in their `aud`",
    );
    let id = table.text("id");
    let audience = table.texts("audience", "the service would learn nothing of any token");
    let secret = secret(&mut table);
    table.finish();
    let name = id.as_ref().map(|id| (id.text.into(), id.place.clone()));
    let client = || {
        let secret = digest::digest(&digest::SHA256, &secret?);
        Some(ClientSettings {
            id: id?.text.into(),
            secret_digest: secret.as_ref().into(),
            audience: boxed(&audience?),
        })
    };
    (name, client())
}

fn secret(table: &mut Table<'_>) -> Option<Zeroizing<Vec<u8>>> {
    let given = ["secret_file", "secret_env"].map(|key| table.has(key));
    if given != [true, false] && given != [false, true] {
        let hint = "exactly one of secret_file, secret_env";
        let message = match given {
            [false, false] => "has no secret",
            _ => "has two secrets",
        };
        let place = table.place.clone();
        let fault = Fault::new(message, hint);
        table.context.problems.add(&place, fault);
    }
    keys::secret(table)
}
