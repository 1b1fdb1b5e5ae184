//! Is a key still one of its issuer's? Asked of cached identities after something was revoked (CACHE-4).

use std::sync::atomic::{AtomicBool, Ordering};

use aws_lc_rs::digest::{Context, Digest, SHA256};
use jsonwebtoken::Algorithm;

/// The life of one key under one name for one algorithm. It goes on from a set to the next as long as that has the very same
/// key, and is shared by every identity that the key has verified.
#[derive(Debug)]
pub(in crate::authn) struct KeyLife {
    print: Digest,
    over: AtomicBool,
}

impl KeyLife {
    /// A life that begins. `parts` are the bytes of the key.
    pub(super) fn new(id: Option<&str>, algorithm: Algorithm, parts: [&[u8]; 2]) -> Self {
        let mut context = Context::new(&SHA256);
        let id = id.map_or_else(|| "-".to_owned(), |id| format!("={id}"));
        for part in [id.as_bytes(), format!("{algorithm:?}").as_bytes()]
            .into_iter()
            .chain(parts)
        {
            // With its length before it, a part cannot lend bytes to the next.
            context.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            context.update(part);
        }
        Self {
            print: context.finish(),
            over: AtomicBool::new(false),
        }
    }

    /// The life of an issuer's word, which ends with what it was about.
    pub(in crate::authn) fn of_words(issuer: &str) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(issuer.as_bytes());
        Self {
            print: context.finish(),
            over: AtomicBool::new(false),
        }
    }

    /// Whether both are of the same key.
    pub(super) fn is_of(&self, other: &Self) -> bool {
        self.print.as_ref() == other.print.as_ref()
    }

    /// Whether the key was taken back.
    pub(in crate::authn) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Ends it, for good.
    pub(super) fn end(&self) {
        self.over.store(true, Ordering::Release);
    }
}
