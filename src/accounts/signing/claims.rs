//! What an access token says.

use serde::Serialize;

/// The claims of an access token, as CONTRACT §4 lists them.
#[derive(Serialize)]
pub(in crate::accounts) struct AccessClaims<'a> {
    pub(in crate::accounts) iss: &'a str,
    pub(in crate::accounts) aud: &'a [Box<str>],
    pub(in crate::accounts) sub: &'a str,
    pub(in crate::accounts) exp: u64,
    pub(in crate::accounts) iat: u64,
    pub(in crate::accounts) nbf: u64,
    pub(in crate::accounts) jti: String,
    pub(in crate::accounts) sid: &'a str,
    pub(in crate::accounts) roles: &'a [Box<str>],
    pub(in crate::accounts) scope: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::accounts) email: Option<&'a str>,
    pub(in crate::accounts) preferred_username: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::accounts) name: Option<&'a str>,
}
