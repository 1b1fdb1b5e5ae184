//! What a caller may still cost. Whoever keeps such budgets is asked by whoever does the work, and neither knows the other.

use super::rejection::Exceeded;

/// How many failed verifications somebody may still cause (RATE-8).
pub trait Allowance {
    /// Takes one, before any work on a signature.
    ///
    /// # Errors
    /// [`Exceeded`] where none is left.
    fn take(&self) -> Result<(), Exceeded>;

    /// Gives back what was taken, for the verification did not fail.
    fn give_back(&self);
}

/// Any number of them: for the operator's own commands.
#[derive(Debug, Clone, Copy)]
pub struct Unlimited;

impl Allowance for Unlimited {
    fn take(&self) -> Result<(), Exceeded> {
        Ok(())
    }

    fn give_back(&self) {}
}
