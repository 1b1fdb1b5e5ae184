//! The sections `[[issuer]]`: whose tokens are believed, and by which keys.

use std::{sync::Arc, time::Duration};

use jsonwebtoken::Algorithm;

use super::{
    bounds::Bounds,
    diagnostic::{Fault, Place, Related},
    introspection, keys,
    name::read_name,
    reader::{Table, Text},
    server::secs,
    words::{Choice, Choice::Is, choose, refuse_repeats},
};
use crate::{
    authn::settings::{BUILT_IN, ClaimNames, IssuerSettings},
    server::settings::ServerSettings,
};

const ALGORITHMS: [(&str, Choice<Algorithm>); 12] = [
    ("ES256", Is(Algorithm::ES256)),
    ("ES384", Is(Algorithm::ES384)),
    ("EdDSA", Is(Algorithm::EdDSA)),
    ("HS256", Is(Algorithm::HS256)),
    ("HS384", Is(Algorithm::HS384)),
    ("HS512", Is(Algorithm::HS512)),
    ("PS256", Is(Algorithm::PS256)),
    ("PS384", Is(Algorithm::PS384)),
    ("PS512", Is(Algorithm::PS512)),
    ("RS256", Is(Algorithm::RS256)),
    ("RS384", Is(Algorithm::RS384)),
    ("RS512", Is(Algorithm::RS512)),
];

/// One entry before its keys were found, for the checks over all of them.
struct Entry {
    name: Option<(Arc<str>, Place)>,
    issuer: Option<(Arc<str>, Place)>,
    algorithms: Vec<Algorithm>,
    /// What its opaque tokens begin with, where it is asked about them.
    opaque: Option<(Box<str>, Place)>,
}

/// The issuers, and every name that was given, good or bad: a rule over an issuer with a fault is not itself at fault.
#[derive(Default)]
pub(super) struct Issuers {
    pub(super) settings: Vec<IssuerSettings>,
    pub(super) names: Vec<Arc<str>>,
}

/// Reads every issuer.
pub(super) fn read(tables: Vec<Table<'_>>, server: Option<&ServerSettings>) -> Issuers {
    let mut issuers = Issuers::default();
    let Some(problems) = tables.first().map(|table| &table.context.problems) else {
        return issuers;
    };
    let mut entries = Vec::new();
    for table in tables {
        let (entry, settings) = read_one(table, server);
        issuers
            .names
            .extend(entry.name.iter().map(|(name, _)| Arc::clone(name)));
        issuers.settings.extend(settings);
        entries.push(entry);
    }
    let names = entries.iter().filter_map(|entry| entry.name.clone());
    refuse_repeats(problems, "issuer", names);
    for (index, entry) in entries.iter().enumerate() {
        for other in entries.iter().take(index) {
            for (related, place, fault) in entry.collides_with(other) {
                problems.add_related(&place, related, fault);
            }
        }
    }
    issuers
}

fn read_one(
    mut table: Table<'_>,
    server: Option<&ServerSettings>,
) -> (Entry, Option<IssuerSettings>) {
    let name = read_name(&mut table);
    if let Some((BUILT_IN, place)) = name.as_ref().map(|(name, place)| (&**name, place)) {
        let hint = "the built-in issuer has this name; take another";
        let fault = Fault::new(format!("`{BUILT_IN}` is reserved"), hint);
        table.context.problems.add(place, fault);
    }
    let issuer = read_issuer(&mut table, server);
    table.need(
        "audience",
        "who the tokens are for: audience = [\"orders\"]",
    );
    let audience = table.texts(
        "audience",
        "without an audience, a token made for another service would be taken",
    );
    let is_opaque = table.has(introspection::URL);
    let (algorithms, keys) = if is_opaque {
        (Vec::new(), introspection::read(&mut table))
    } else {
        let algorithms = algorithms(&mut table);
        let named = issuer.as_ref().map(|(issuer, place)| (&**issuer, place));
        let keys = keys::read(&mut table, named, &algorithms);
        introspection::refuse_own(&mut table);
        (algorithms, keys)
    };
    let opaque = introspection::claimed(&table, keys.as_ref());
    let leeway = Bounds::new(Duration::ZERO, secs(60))
        .because("an expired token is taken for so much longer");
    let leeway = table.duration("leeway", leeway);
    let token_types = if is_opaque {
        default_types()
    } else {
        token_types(&mut table)
    };
    let claims = claims(&mut table);
    table.finish();
    let entry = Entry {
        name: name.clone(),
        issuer: issuer.clone(),
        algorithms: algorithms.clone(),
        opaque,
    };
    let settings = || {
        Some(IssuerSettings {
            name: name?.0,
            issuer: issuer?.0,
            audience: boxed(&audience?),
            algorithms,
            keys: keys?,
            leeway: leeway.unwrap_or(secs(30)),
            token_types,
            claims,
        })
    };
    (entry, settings())
}

fn read_issuer(
    table: &mut Table<'_>,
    server: Option<&ServerSettings>,
) -> Option<(Arc<str>, Place)> {
    table.need("issuer", "the exact `iss` of its tokens");
    let Text { text, place } = table.text("issuer")?;
    let own = server.map(|server| server.public_url.as_str().trim_end_matches('/'));
    if own == Some(text.trim_end_matches('/')) {
        let hint = "the gateway signs its own tokens with this `iss`; it needs no entry";
        let fault = Fault::new("is server.public_url, the built-in issuer", hint);
        table.context.problems.add(&place, fault);
    }
    Some((text.into(), place))
}

fn algorithms(table: &mut Table<'_>) -> Vec<Algorithm> {
    table.need(
        "algorithms",
        "what its tokens are signed with: algorithms = [\"RS256\"]",
    );
    let texts = table.texts("algorithms", "no token could be verified");
    let mut algorithms = Vec::new();
    for Text { text, place } in texts.into_iter().flatten() {
        match choose(text, &ALGORITHMS) {
            Ok(algorithm) => algorithms.push(algorithm),
            Err(_) if text.eq_ignore_ascii_case("none") => {
                table
                    .context
                    .problems
                    .add(&place, "a token without a signature is never taken");
            }
            Err(fault) => table.context.problems.add(&place, fault),
        }
    }
    let symmetric = algorithms.iter().filter(|one| is_symmetric(**one)).count();
    if symmetric > 0 && symmetric < algorithms.len() {
        table.fault(
            "algorithms",
            Fault::new(
                "mixes HS* with others",
                "a public key could be taken for a shared secret; write two [[issuer]] entries with the same `issuer`",
            ),
        );
    }
    algorithms
}

/// Whether a token is signed with the secret that verifies it.
pub(super) fn is_symmetric(algorithm: Algorithm) -> bool {
    matches!(
        algorithm,
        Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512
    )
}

/// Here alone the empty string has a meaning: `typ` is absent.
fn token_types(table: &mut Table<'_>) -> Vec<Box<str>> {
    let types = table.words_or_empty("token_types", "no token would be taken");
    types.map_or_else(default_types, |types| {
        types.into_iter().map(Box::from).collect()
    })
}

fn default_types() -> Vec<Box<str>> {
    vec!["at+jwt".into(), "JWT".into(), "".into()]
}

fn claims(table: &mut Table<'_>) -> ClaimNames {
    let default = ClaimNames::default();
    table.refuse_empty("claims", "leave it out for the usual claims");
    let mut claims = table.section("claims");
    let mut read = |key, default| {
        claims
            .text(key)
            .map_or(default, |text| Box::from(text.text))
    };
    let names = ClaimNames {
        user: read("user", default.user),
        email: read("email", default.email),
        name: read("name", default.name),
        roles: read("roles", default.roles),
        scopes: read("scopes", default.scopes),
    };
    claims.finish();
    names
}

impl Entry {
    /// `iss` and `alg` choose the entry: two may share an `issuer` only when they have no algorithm in common.
    /// Two that are asked about tokens may share it, if no token can be of both.
    fn collides_with(&self, other: &Self) -> Vec<(Related, Place, Fault)> {
        let opaque = self.opaque.as_ref().zip(other.opaque.as_ref());
        let opaque = opaque.and_then(|(own, other)| introspection::collide(own, other));
        self.shares_algorithm(other)
            .into_iter()
            .chain(opaque)
            .collect()
    }

    fn shares_algorithm(&self, other: &Self) -> Option<(Related, Place, Fault)> {
        let (issuer, place) = self.issuer.as_ref()?;
        let (other_issuer, other_place) = other.issuer.as_ref()?;
        let common = self
            .algorithms
            .iter()
            .find(|algorithm| other.algorithms.contains(algorithm))?;
        if issuer != other_issuer {
            return None;
        }
        let related = Related {
            span: other_place.span.clone(),
            label: "the first is here",
        };
        let message = format!("another entry has this issuer and {common:?}");
        let hint = "`iss` and `alg` choose the entry, so they may not have an algorithm in common";
        Some((related, place.clone(), Fault::new(message, hint)))
    }
}

/// The texts alone.
pub(super) fn boxed(texts: &[Text<'_>]) -> Vec<Box<str>> {
    texts.iter().map(|text| text.text.into()).collect()
}
