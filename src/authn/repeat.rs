//! The token of the last request on a connection. Most connections bring one token again and again; one that was found in the
//! cache twice in a row is remembered with its entry there, and then costs a comparison and no digest and look-up.
//!
//! What is remembered says which token it is and nothing of what it is worth: the entry is judged as one that was looked up. It
//! is not kept alive either: when the cache lets it go (for want of room, of memory, or with a configuration that is no more), what
//! is remembered here is of no use. The token's text is overwritten two seconds after its last use at the latest, whatever its
//! connection does meanwhile (CACHE-8).

use std::{
    cell::{Cell, RefCell},
    fmt,
    rc::{Rc, Weak},
    sync::{self, Arc},
};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use zeroize::Zeroizing;

use super::cache::{Entry, Key};

/// The longest token that is remembered, in bytes: what a connection may hold for this. Usual ones have 300 to 1 500.
const REMEMBERED_BYTES_MAX: usize = 2 << 10;

/// After so many repeats the cache is asked once, so that it learns which tokens are in use.
const REPEATS_MAX: u8 = 63;

/// Of the connections of one worker, those that remember a token.
#[derive(Default)]
pub struct LastTokens(Rc<RefCell<Vec<Weak<Memory>>>>);

/// What a connection remembers of its last token.
#[derive(Default)]
pub struct LastToken {
    memory: Rc<Memory>,
    all: LastTokens,
}

#[derive(Default)]
struct Memory {
    /// The key of the last token that the cache had.
    seen: Cell<Option<Key>>,
    kept: RefCell<Option<Kept>>,
    /// Whether the token was used since somebody looked.
    used: Cell<bool>,
    /// Whether its worker knows that there is a token.
    listed: Cell<bool>,
}

/// A token that came twice in a row.
struct Kept {
    token: Zeroizing<Box<[u8]>>,
    key: Key,
    entry: sync::Weak<Entry>,
    /// The cache that the entry is of.
    cache: u64,
    repeats: u8,
}

impl LastTokens {
    /// Of a connection that has just been made.
    #[must_use]
    pub fn of_connection(&self) -> LastToken {
        LastToken {
            memory: Rc::default(),
            all: Self(Rc::clone(&self.0)),
        }
    }

    /// Has the connections forget the tokens that were not used since the last time; a worker does so every second.
    pub fn forget_unused(&self) {
        self.0.borrow_mut().retain(|memory| {
            let Some(memory) = memory.upgrade() else {
                return false;
            };
            let is_used = memory.used.replace(false);
            if !is_used {
                memory.kept.replace(None);
                memory.listed.set(false);
            }
            is_used
        });
    }
}

impl LastToken {
    /// The entry of this token in this cache, where it is the one that is remembered. Several clients may share a connection
    /// behind a balancer, so the time of the comparison says nothing but how long the token is that another one has sent.
    pub(super) fn entry(&self, token: &str, cache: u64) -> Option<(Key, Arc<Entry>)> {
        let mut memory = self.memory.kept.borrow_mut();
        let kept = memory.as_mut()?;
        let is_it =
            kept.cache == cache && verify_slices_are_equal(&kept.token, token.as_bytes()).is_ok();
        if !is_it || kept.repeats == REPEATS_MAX {
            return None;
        }
        let Some(entry) = kept.entry.upgrade() else {
            *memory = None;
            return None;
        };
        kept.repeats += 1;
        self.memory.used.set(true);
        Some((kept.key, entry))
    }

    /// Takes note of a token that was found in this cache.
    pub(super) fn note(&self, token: &str, (key, entry): (Key, &Arc<Entry>), cache: u64) {
        let mut memory = self.memory.kept.borrow_mut();
        if self.memory.seen.replace(Some(key)) != Some(key) {
            *memory = None;
            return;
        }
        if let Some(kept) = memory.as_mut() {
            kept.entry = Arc::downgrade(entry);
            kept.repeats = 0;
        } else if token.len() <= REMEMBERED_BYTES_MAX {
            *memory = Some(Kept {
                token: Zeroizing::new(token.as_bytes().into()),
                key,
                entry: Arc::downgrade(entry),
                cache,
                repeats: 0,
            });
        }
        self.memory.used.set(true);
        if memory.is_some() && !self.memory.listed.replace(true) {
            let mut all = self.all.0.borrow_mut();
            all.push(Rc::downgrade(&self.memory));
        }
    }

    #[cfg(test)]
    pub(super) fn is_kept(&self) -> bool {
        self.memory.kept.borrow().is_some()
    }
}

impl fmt::Debug for LastToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LastToken").finish_non_exhaustive()
    }
}

impl fmt::Debug for LastTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LastTokens").finish_non_exhaustive()
    }
}
