//! What one worker signed a short while ago, for callers who ask for the same again: a signature costs more than everything else
//! that is done for a request.
//!
//! Bounded in bytes, by two generations: the young one takes what is new, and when it is full or old it takes the place of the old
//! one, which is let go as a whole. Nothing is found that was signed more than half a life ago.

use std::{
    cell::RefCell,
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    mem,
    sync::{Arc, Weak},
};

use http::{HeaderValue, Method};

use super::{LIFE, Statement};
use crate::policy::Identity;

/// How long after its signature a statement is given again, in seconds: half of its life is then left to it.
const REUSE_SECS: u64 = LIFE.as_secs() / 2;

/// Bytes of one generation: a worker keeps twice as many at most, some 4000 statements.
const GENERATION_BYTES: usize = 2 << 20;

/// What an entry holds beside its texts, and the shell of an identity that is gone.
const ENTRY_BYTES: usize = 2 * size_of::<Entry>() + size_of::<Identity>() + 64;

/// One worker's recent statements.
#[derive(Debug, Default)]
pub struct Recent {
    /// Keyed, so that nobody can make targets that fall on one another.
    hasher: RandomState,
    generations: RefCell<Generations>,
}

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<u64, Entry>,
    old: HashMap<u64, Entry>,
    /// What the young ones hold.
    bytes: usize,
    /// When the young generation began.
    begun: u64,
}

#[derive(Debug)]
struct Entry {
    /// It keeps the place of the identity from being given to another one, so the place is a name; the claims it does not keep.
    identity: Weak<Identity>,
    upstream: Arc<str>,
    method: Method,
    target: Box<str>,
    kid: Arc<str>,
    signed_at: u64,
    value: HeaderValue,
}

impl Recent {
    /// What states the same, was signed within half a life, and by a key that still signs.
    pub(super) fn find(
        &self,
        statement: &Statement<'_>,
        now: u64,
        signs: impl Fn(&str) -> bool,
    ) -> Option<HeaderValue> {
        let place = self.place(statement);
        let generations = self.generations.borrow();
        let young = generations.young.get(&place);
        let entry = young.or_else(|| generations.old.get(&place))?;
        // A clock that was set back makes nothing younger.
        let age = now.checked_sub(entry.signed_at)?;
        let good = age < REUSE_SECS && entry.is_of(statement) && signs(&entry.kid);
        good.then(|| entry.value.clone())
    }

    /// Keeps what was signed now.
    pub(super) fn keep(
        &self,
        statement: &Statement<'_>,
        now: u64,
        kid: Arc<str>,
        value: HeaderValue,
    ) {
        let target = [statement.base_path, statement.target.as_str()].concat();
        let method = statement.method.clone();
        let bytes = ENTRY_BYTES + value.len() + target.len() + method.as_str().len();
        let place = self.place(statement);
        let entry = Entry {
            identity: Arc::downgrade(statement.identity),
            upstream: Arc::clone(statement.upstream),
            method,
            target: target.into(),
            kid,
            signed_at: now,
            value,
        };
        self.generations.borrow_mut().put(place, entry, bytes);
    }

    fn place(&self, statement: &Statement<'_>) -> u64 {
        self.hasher.hash_one((
            Arc::as_ptr(statement.identity).addr(),
            &**statement.upstream,
            statement.method,
            statement.base_path,
            statement.target.as_str(),
        ))
    }

    /// Bytes and entries of both generations.
    #[cfg(test)]
    pub(super) fn held(&self) -> (usize, usize) {
        let generations = self.generations.borrow();
        let entries = generations.young.len() + generations.old.len();
        (generations.bytes, entries)
    }
}

impl Generations {
    fn put(&mut self, place: u64, entry: Entry, bytes: usize) {
        let now = entry.signed_at;
        let is_over = now < self.begun || now - self.begun >= REUSE_SECS;
        if is_over || self.bytes + bytes > GENERATION_BYTES {
            self.old = mem::take(&mut self.young);
            (self.bytes, self.begun) = (0, now);
        }
        // An entry whose place is taken is counted twice, until the generation ends.
        self.bytes += bytes;
        self.young.insert(place, entry);
    }
}

impl Entry {
    /// Places may be the same by chance: the entry must state exactly this.
    fn is_of(&self, statement: &Statement<'_>) -> bool {
        std::ptr::eq(self.identity.as_ptr(), Arc::as_ptr(statement.identity))
            && *self.upstream == **statement.upstream
            && self.method == *statement.method
            && self.target.strip_prefix(statement.base_path) == Some(statement.target.as_str())
    }
}
