//! What there is to say of signing keys, wherever they are.

use jsonwebtoken::Algorithm;

use super::ring::Entry;

/// What there is to say of a signing key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyInfo {
    /// Its name.
    pub kid: Box<str>,
    /// What it signs with.
    pub algorithm: Algorithm,
    /// What it does.
    pub state: KeyState,
    /// Seconds since 1970: it signs from then on.
    pub from: u64,
    /// Seconds since 1970: its tokens are refused from then on; `None` while it has no successor.
    pub until: Option<u64>,
    /// What it is encrypted with; `None` for a file, and in the list of a running process.
    pub wrapping: Option<KeyWrapping>,
}

/// Which key-encryption key a signing key in the store is encrypted with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyWrapping {
    /// The present one.
    Current,
    /// The one that is being replaced.
    Old,
    /// None that is here.
    Unknown,
}

/// What a signing key does at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyState {
    /// Its tokens are still believed.
    Retiring,
    /// It signs.
    Signing,
    /// It is published, and will sign.
    Waiting,
}

impl KeyWrapping {
    /// The word of listings.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Old => "old",
            Self::Unknown => "unknown",
        }
    }
}

impl KeyState {
    /// The word of listings.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Retiring => "retiring",
            Self::Signing => "signing",
            Self::Waiting => "waiting",
        }
    }
}

/// Those of the keys that are in use, the one that signs first, then the newest. Beside each entry: what it signs with, and what it
/// is encrypted with.
pub(super) fn listed(keys: &[(&Entry, Algorithm, Option<KeyWrapping>)], now: u64) -> Vec<KeyInfo> {
    let good = keys.iter().filter(|(entry, ..)| entry.is_good(now));
    let begun = good.clone().filter(|(entry, ..)| entry.from <= now);
    let signing = begun.max_by_key(|(entry, ..)| entry.from);
    let signing = signing.map(|(entry, ..)| &*entry.kid);
    let info = |(entry, algorithm, wrapping): &(&Entry, Algorithm, Option<KeyWrapping>)| KeyInfo {
        kid: entry.kid.clone(),
        algorithm: *algorithm,
        state: entry.state(signing, now),
        from: entry.from,
        until: entry.until,
        wrapping: *wrapping,
    };
    let mut listed: Vec<KeyInfo> = good.map(info).collect();
    listed.sort_by_key(|key| (key.state != KeyState::Signing, std::cmp::Reverse(key.from)));
    listed
}
