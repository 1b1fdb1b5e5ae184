//! What each operation takes and gives: the types that its handler reads and writes.

use serde_json::json;

use super::{Gives, Takes, Types};
use crate::portal::{
    administration::{
        self, ChangeBody, CreateBody, InviteAnswer, InviteBody, InvitesAnswer, UserAnswer,
        UsersAnswer,
    },
    answers::{self, GrantAnswer},
    clients,
    endpoints::Operation,
    passwords,
    registration::{self, PendingAnswer, RegisteredAnswer},
    sign_in,
};

/// A summary, what a request brings, and what it gets.
pub(super) type Terms = (&'static str, Takes, Gives);

#[expect(
    clippy::too_many_lines,
    reason = "a table; a row for each operation, and nothing else"
)]
pub(super) fn terms(operation: Operation, types: &mut Types) -> Terms {
    match operation {
        Operation::Administer(operation) => administers(operation, types),
        Operation::Bootstrap => (
            "Makes the first administrator's account, by a secret that works once",
            Takes::Json(types.read::<registration::BootstrapBody>()),
            Gives::Json(201, types.written::<RegisteredAnswer<'_>>()),
        ),
        Operation::ChangePassword => (
            "Changes the caller's password, and ends the other sessions",
            Takes::Json(types.read::<passwords::ChangeBody>()),
            Gives::Nothing(204),
        ),
        Operation::EndSession => (
            "Ends one of the caller's sessions",
            Takes::Nothing,
            Gives::Nothing(204),
        ),
        Operation::ForgotPassword => (
            "Asks for a link by mail; the answer is the same for every address",
            Takes::Json(types.read::<passwords::ForgotBody>()),
            Gives::Json(202, types.written::<passwords::AcceptedAnswer>()),
        ),
        Operation::Introspect => (
            "Tells a service whether an access token is good (RFC 7662)",
            Takes::Form(clients::form_schema()),
            Gives::Json(
                200,
                json!({ "anyOf": [
                    types.written::<answers::Active<'_>>(),
                    types.written::<answers::Inactive>(),
                ] }),
            ),
        ),
        Operation::IssuerDocument => document(
            "Where the issuer's keys and endpoints are",
            &["issuer", "jwks_uri"],
        ),
        Operation::Jwks => document("The public keys of access tokens (RFC 7517)", &["keys"]),
        Operation::Login => (
            "Signs in with name or address and password",
            Takes::Json(types.read::<sign_in::LoginBody>()),
            Gives::Json(200, types.written::<GrantAnswer<'_>>()),
        ),
        Operation::Logout => (
            "Ends the session of whatever credential is sent",
            Takes::JsonOrNothing(types.read::<sign_in::TokenBody>()),
            Gives::Nothing(204),
        ),
        Operation::LogoutAll => (
            "Ends every session of the caller",
            Takes::Nothing,
            Gives::Nothing(204),
        ),
        Operation::Me => (
            "Tells the caller what the access token says",
            Takes::Nothing,
            Gives::Json(200, types.written::<answers::MeAnswer<'_>>()),
        ),
        Operation::OpenApi => document("This document", &["openapi", "paths"]),
        Operation::Page(_) => ("A page for browsers", Takes::Nothing, Gives::Page),
        Operation::Refresh => (
            "Exchanges a refresh token, of the body or the cookie, for new tokens",
            Takes::JsonOrNothing(types.read::<sign_in::TokenBody>()),
            Gives::Json(200, types.written::<GrantAnswer<'_>>()),
        ),
        Operation::Register => (
            "Makes an account, by an invitation or as the configuration allows",
            Takes::Json(types.read::<registration::RegisterBody>()),
            Gives::MadeOrPending(
                types.written::<RegisteredAnswer<'_>>(),
                types.written::<PendingAnswer>(),
            ),
        ),
        Operation::ResetPassword => (
            "Sets a new password by a link's token, and ends every session",
            Takes::Json(types.read::<passwords::ResetBody>()),
            Gives::Nothing(204),
        ),
        Operation::Revoke => (
            "Takes a token back for a service (RFC 7009)",
            Takes::Form(clients::form_schema()),
            Gives::Nothing(200),
        ),
        Operation::Sessions => (
            "Lists the caller's sessions, the last used first",
            Takes::Nothing,
            Gives::Json(200, types.written::<answers::SessionsAnswer<'_>>()),
        ),
        Operation::VerifyRegistration => (
            "Makes the account of a registration, by its link's token and the password that was chosen",
            Takes::Json(types.read::<registration::VerifyBody>()),
            Gives::Json(201, types.written::<RegisteredAnswer<'_>>()),
        ),
    }
}

fn administers(operation: administration::Operation, types: &mut Types) -> Terms {
    use administration::Operation as Act;
    let account = |types: &mut Types, status| {
        let account = types.written::<UserAnswer<'_>>();
        Gives::Json(status, account)
    };
    match operation {
        Act::Change => (
            "Changes an account; null takes the display name away",
            Takes::Json(types.read::<ChangeBody>()),
            account(types, 200),
        ),
        Act::Create => (
            "Makes an account; without a password nobody can sign in to it",
            Takes::Json(types.read::<CreateBody>()),
            account(types, 201),
        ),
        Act::Delete => (
            "Erases an account; its name stays taken",
            Takes::Nothing,
            Gives::Nothing(204),
        ),
        Act::Invite => (
            "Makes an invitation; its secret is told once, here or by mail",
            Takes::Json(types.read::<InviteBody>()),
            Gives::Json(201, types.written::<InviteAnswer<'_>>()),
        ),
        Act::Invites => (
            "Lists the invitations that wait",
            Takes::Nothing,
            Gives::Json(200, types.written::<InvitesAnswer<'_>>()),
        ),
        Act::List => (
            "Lists accounts by name",
            Takes::Nothing,
            Gives::Json(200, types.written::<UsersAnswer<'_>>()),
        ),
        Act::Logout => (
            "Ends every session of an account",
            Takes::Nothing,
            Gives::Nothing(204),
        ),
        Act::RevokeInvite => (
            "Takes an invitation back",
            Takes::Nothing,
            Gives::Nothing(204),
        ),
        Act::Show => ("Shows one account", Takes::Nothing, account(types, 200)),
    }
}

fn document(summary: &'static str, required: &[&str]) -> Terms {
    let schema = json!({ "type": "object", "required": required });
    (summary, Takes::Nothing, Gives::Json(200, schema))
}
