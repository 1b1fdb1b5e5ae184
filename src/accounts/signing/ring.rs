//! Which key signs when, and until when the others are believed: a file, the same for every process.
//!
//! Who signs is a matter of the clock and of this file alone, so all processes change over at one moment and none of them has
//! to write anything then.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{KeyError, KeyState, files};

/// The file's name.
pub(super) const FILE: &str = "ring.json";

/// Every key that is in use, or will be, or was a short while ago.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ring {
    pub(super) keys: Vec<Entry>,
}

/// The times of one key, in seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    pub(super) kid: Box<str>,
    /// It signs from then on, until another does.
    pub(super) from: u64,
    /// Its last token is dead by then; `None` while no successor is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) until: Option<u64>,
}

impl Ring {
    /// Reads the ring of a folder.
    pub(super) fn read(folder: &Path) -> Result<Self, KeyError> {
        let path = folder.join(FILE);
        let text = files::read_private(&path)?;
        serde_json::from_str(&text).map_err(|_| KeyError::RingMalformed { path })
    }

    /// Writes it, in place of the last.
    pub(super) fn write(&self, folder: &Path) -> Result<(), KeyError> {
        let text = serde_json::to_vec(self).map_err(|_| KeyError::Generate)?;
        files::write(&folder.join(FILE), &text)
    }

    /// The key that signs at a time.
    pub(super) fn signing_at(&self, now: u64) -> Option<&Entry> {
        let begun = self.keys.iter().filter(|key| key.from <= now);
        begun
            .filter(|key| key.is_good(now))
            .max_by_key(|key| key.from)
    }

    /// The key that signs, or will, without a successor.
    pub(super) fn newest(&self) -> Option<&Entry> {
        let last = self.keys.iter().filter(|key| key.until.is_none());
        last.max_by_key(|key| key.from)
    }

    /// Puts a key in that signs from a time on, after every other that waits; the others are believed for as long after it as a
    /// token lives.
    pub(super) fn add(&mut self, kid: &str, from: u64, life: u64) {
        let from = match self.newest() {
            Some(newest) => from.max(newest.from.saturating_add(1)),
            None => from,
        };
        for key in self.keys.iter_mut().filter(|key| key.until.is_none()) {
            key.until = Some(from.saturating_add(life));
        }
        self.keys.push(Entry {
            kid: kid.into(),
            from,
            until: None,
        });
    }

    /// Takes a key out; says whether it was there. Where it was to follow the one that signs, that one goes on; where it signed, the
    /// one that waits begins.
    pub(super) fn remove(&mut self, kid: &str, now: u64) -> bool {
        let Some(index) = self.keys.iter().position(|key| *key.kid == *kid) else {
            return false;
        };
        let removed = self.keys.remove(index);
        let signing = self.signing_at(now).map(|key| key.kid.clone());
        if self.newest().is_none() && removed.from > now {
            let goes_on = |key: &&mut Entry| Some(&key.kid) == signing.as_ref();
            if let Some(key) = self.keys.iter_mut().find(goes_on) {
                key.until = None;
            }
        } else if removed.from <= now {
            let waiting = self.keys.iter_mut().filter(|key| key.from > now);
            let next = waiting.min_by_key(|key| key.from);
            if let Some(next) = next.filter(|_| signing.is_none()) {
                next.from = now;
            }
        }
        true
    }

    /// Takes out what is over, and says what that was.
    pub(super) fn prune(&mut self, now: u64) -> Vec<Box<str>> {
        let (good, over): (Vec<_>, Vec<_>) = std::mem::take(&mut self.keys)
            .into_iter()
            .partition(|key| key.is_good(now));
        self.keys = good;
        over.into_iter().map(|key| key.kid).collect()
    }
}

impl Entry {
    /// What the key does, where its tokens are believed and `signing` is the one that signs.
    pub(super) fn state(&self, signing: Option<&str>, now: u64) -> KeyState {
        if Some(&*self.kid) == signing {
            KeyState::Signing
        } else if self.from > now {
            KeyState::Waiting
        } else {
            KeyState::Retiring
        }
    }

    /// Whether tokens of the key are believed.
    pub(super) fn is_good(&self, now: u64) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: u64 = 100;

    fn ring() -> Ring {
        let mut ring = Ring::default();
        ring.add("a", 0, LIFE);
        ring
    }

    fn signing(ring: &Ring, now: u64) -> Option<&str> {
        ring.signing_at(now).map(|key| &*key.kid)
    }

    #[test]
    fn key_4_the_old_key_signs_until_the_new_one_does_and_is_believed_until_its_last_token_is_dead()
    {
        let mut ring = ring();
        ring.add("b", 1000, LIFE);
        for (now, kid) in [(0, "a"), (999, "a"), (1000, "b"), (9999, "b")] {
            assert_eq!(signing(&ring, now), Some(kid), "{now}");
        }
        let good = |now| ring.keys.iter().filter(|key| key.is_good(now)).count();
        assert_eq!((good(0), good(1099), good(1100)), (2, 2, 1));
        assert!(ring.clone().prune(1099).is_empty());
        assert_eq!(ring.prune(1100), ["a".into()]);
        assert_eq!(ring.keys.len(), 1);
    }

    #[test]
    fn key_4_rotations_in_a_row_take_their_turns() {
        let mut ring = ring();
        ring.add("b", 1000, LIFE);
        ring.add("c", 1500, LIFE);
        for (now, kid) in [(999, "a"), (1000, "b"), (1499, "b"), (1500, "c")] {
            assert_eq!(signing(&ring, now), Some(kid), "{now}");
        }
        let until: Vec<_> = ring.keys.iter().map(|key| key.until).collect();
        assert_eq!(until, [Some(1100), Some(1600), None]);
        // One that would begin before another that waits begins after it.
        ring.add("d", 1200, LIFE);
        assert_eq!(
            (signing(&ring, 1500), signing(&ring, 1501)),
            (Some("c"), Some("d"))
        );
    }

    #[test]
    fn key_4_a_revoked_key_is_followed_by_the_one_that_waits() {
        let mut ring = ring();
        ring.add("b", 1000, LIFE);
        assert!(!ring.remove("x", 10));
        assert_eq!(signing(&ring, 10), Some("a"));
        assert!(ring.remove("a", 10));
        assert_eq!(signing(&ring, 10), Some("b"));
        assert!(ring.remove("b", 20));
        assert_eq!(signing(&ring, 20), None);
    }

    #[test]
    fn key_4_a_revoked_key_that_waited_leaves_the_old_one_to_sign() {
        let mut ring = ring();
        ring.add("b", 1000, LIFE);
        assert!(ring.remove("b", 10));
        assert_eq!(signing(&ring, 99_999), Some("a"));
    }

    #[test]
    fn key_4_a_key_that_retires_does_not_sign_again_for_want_of_others() {
        let mut ring = ring();
        ring.add("b", 1000, LIFE);
        assert!(ring.remove("b", 1001));
        // The caller makes another.
        assert_eq!(ring.newest(), None);
    }
}
