//! How near is the process to the end of its memory, and what is given up for it? (FAULT-1)
//!
//! Memory is looked at from outside the workers, several times a second when it is scarce ([`watch`]), and judged as one of five
//! stages. A request reads the stage, which is one relaxed load. Each stage gives up what is next dear: kept connections and
//! what is remembered for speed, then new requests, then new connections, then open ones.

mod meter;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use crate::policy::Rejection;

pub use meter::{Meter, Reading};

/// Above which part of the limit, in thousandths, each stage begins, the mildest first.
const STAGES: [(u64, MemoryStage); 4] = [
    (920, MemoryStage::Lean),
    (950, MemoryStage::Refusing),
    (960, MemoryStage::Closed),
    (975, MemoryStage::Cutting),
];

/// How far below the beginning of its stage memory must fall for it to end, in thousandths of the limit.
const SLACK: u64 = 20;

/// From here on, in thousandths, memory is looked at often.
const NEAR: u64 = 800;

/// Between two looks, far from the limit and near it.
const LOOKS: (Duration, Duration) = (Duration::from_millis(250), Duration::from_millis(50));

/// How often what was remembered anew is given up again while memory is scarce.
const RELIEF_EVERY: Duration = Duration::from_secs(10);

/// For how long nobody must have had a connection before what is in use then is taken for what the process itself needs.
const ALONE: Duration = Duration::from_secs(1);

/// How scarce memory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MemoryStage {
    /// It is not.
    Calm,
    /// 92 %: connections end with their request, and the token cache is emptied.
    Lean,
    /// 95 %: new requests are refused.
    Refusing,
    /// 96 %: new connections are closed, and nothing more is read of open ones.
    Closed,
    /// 97.5 %: open connections are cut off, a quarter at a time.
    Cutting,
}

/// The stage of the process, shared by all workers and over all reloads.
#[derive(Debug, Default)]
pub struct MemoryPressure {
    stage: AtomicU8,
    used: AtomicU64,
    limit: AtomicU64,
    /// What was in use when nobody had a connection, in bytes: whoever is refused on account of it is refused for nothing.
    excused: AtomicU64,
    /// Told when memory is scarce.
    scarce: Notify,
}

impl MemoryStage {
    /// The number that the metric shows, 0 to 4.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Calm => 0,
            Self::Lean => 1,
            Self::Refusing => 2,
            Self::Closed => 3,
            Self::Cutting => 4,
        }
    }

    const fn of(number: u8) -> Self {
        match number {
            0 => Self::Calm,
            1 => Self::Lean,
            2 => Self::Refusing,
            3 => Self::Closed,
            _ => Self::Cutting,
        }
    }

    /// What is done in this stage, for the operator.
    const fn measure(self) -> &'static str {
        match self {
            Self::Calm => "nothing",
            Self::Lean => "connections end with their request, the token cache is emptied",
            Self::Refusing => "new requests are refused",
            Self::Closed => "new connections are closed, nothing is read of open ones",
            Self::Cutting => "new connections are closed, open ones cut off",
        }
    }
}

impl MemoryPressure {
    /// The present stage. One relaxed load: a request that misses a change by a moment does no harm.
    #[must_use]
    pub fn stage(&self) -> MemoryStage {
        MemoryStage::of(self.stage.load(Ordering::Relaxed))
    }

    /// Whether memory is as scarce as this, or more.
    #[must_use]
    pub fn is_at(&self, stage: MemoryStage) -> bool {
        self.stage.load(Ordering::Relaxed) >= stage.number()
    }

    /// Whether a new request may begin.
    ///
    /// # Errors
    /// [`Rejection::Overloaded`] from [`MemoryStage::Refusing`] on.
    pub fn check(&self) -> Result<(), Rejection> {
        match self.is_at(MemoryStage::Refusing) {
            true => Err(Rejection::Overloaded),
            false => Ok(()),
        }
    }

    /// Waits until memory is scarce: [`MemoryStage::Lean`] or worse. Costs nothing until then. Cancel safe.
    pub async fn until_scarce(&self) {
        loop {
            // Before the look: whoever is told between it and the wait is told all the same.
            let told = self.scarce.notified();
            if self.is_at(MemoryStage::Lean) {
                return;
            }
            told.await;
        }
    }

    /// What was last seen, in bytes: in use, and the limit, 0 where there is none.
    #[must_use]
    pub fn seen(&self) -> (u64, u64) {
        let load = |number: &AtomicU64| number.load(Ordering::Relaxed);
        (load(&self.used), load(&self.limit))
    }

    /// Takes a look into account and says whether the stage is another now. It rises at once as far as it has to, and falls by
    /// one at a time, once memory is well below where the stage began.
    pub fn judge(&self, reading: Reading) -> Option<MemoryStage> {
        self.used.store(reading.used, Ordering::Relaxed);
        self.limit
            .store(reading.limit.unwrap_or(0), Ordering::Relaxed);
        let before = self.stage();
        let part = reading.thousandths();
        let begun = STAGES.iter().rev().find(|(from, _)| part >= *from);
        let mut next = begun.map_or(MemoryStage::Calm, |(_, stage)| *stage);
        if next < before {
            let began = STAGES.iter().find(|(_, stage)| *stage == before);
            let stays = began.is_some_and(|(from, _)| part + SLACK >= *from);
            // Without a limit there is nothing to fall below of.
            next = match (stays && reading.limit.is_some(), reading.limit) {
                (true, _) => before,
                (false, Some(_)) => MemoryStage::of(before.number().saturating_sub(1)),
                (false, None) => MemoryStage::Calm,
            };
        }
        if next == MemoryStage::Calm {
            self.excused.store(0, Ordering::Relaxed);
        } else if self.is_excused(reading) {
            next = next.min(MemoryStage::Lean);
        }
        self.stage.store(next.number(), Ordering::Relaxed);
        if next > before {
            self.scarce.notify_waiters();
        }
        (next != before).then_some(next)
    }

    /// Notes what is in use while nobody has a connection. It is the process itself, or what the allocator keeps for the next
    /// requests; to refuse those would free none of it, and the stage would stay for ever. From then on requests are refused
    /// when more is in use than that.
    pub fn excuse(&self, used: u64) {
        self.excused.store(used, Ordering::Relaxed);
    }

    fn is_excused(&self, reading: Reading) -> bool {
        let excused = self.excused.load(Ordering::Relaxed);
        let more = reading.limit.unwrap_or(0).saturating_mul(SLACK) / 1000;
        excused != 0 && reading.used <= excused.saturating_add(more)
    }
}

/// What the watch asks and tells.
pub struct Hooks<L, A, G, R> {
    /// The configured limit of this moment, in bytes.
    pub limit: L,
    /// Whether no client has a connection.
    pub is_alone: A,
    /// Gives up what is remembered for speed alone. May block.
    pub give_up: G,
    /// Told of each change: what is wrong.
    pub report: R,
}

impl<L, A, G, R> std::fmt::Debug for Hooks<L, A, G, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hooks(..)")
    }
}

/// Looks at the memory for as long as the process lives. To be run on the control runtime.
pub async fn watch<L, A, G, R>(
    pressure: Arc<MemoryPressure>,
    meter: Meter,
    hooks: Hooks<L, A, G, R>,
) where
    L: Fn() -> Option<u64>,
    A: Fn() -> bool,
    G: Fn() + Clone + Send + 'static,
    R: Fn(Result<(), String>),
{
    let meter = Arc::new(meter);
    let mut relieved: Option<Instant> = None;
    let mut alone_since: Option<Instant> = None;
    loop {
        let (reader, limit) = (Arc::clone(&meter), (hooks.limit)());
        // The kernel may take its time to add up a group's numbers.
        let read = tokio::task::spawn_blocking(move || reader.read(limit)).await;
        let Ok(reading) = read else {
            // The stage stays: who cannot see must not think that all is well.
            tokio::time::sleep(LOOKS.0).await;
            continue;
        };
        let is_alone = pressure.is_at(MemoryStage::Refusing) && (hooks.is_alone)();
        alone_since = is_alone.then(|| alone_since.unwrap_or_else(Instant::now));
        if alone_since.is_some_and(|since| since.elapsed() >= ALONE) {
            pressure.excuse(reading.used);
        }
        let changed = pressure.judge(reading);
        if let Some(stage) = changed {
            tell(stage, reading, &hooks.report);
        }
        if pressure.is_at(MemoryStage::Lean) {
            if relieved.is_none_or(|last| last.elapsed() >= RELIEF_EVERY) {
                relieved = Some(Instant::now());
                let _ = tokio::task::spawn_blocking(hooks.give_up.clone()).await;
            }
        } else {
            relieved = None;
        }
        let (far, near) = LOOKS;
        let is_near = reading.thousandths() >= NEAR;
        tokio::time::sleep(if is_near { near } else { far }).await;
    }
}

fn tell(stage: MemoryStage, reading: Reading, report: &impl Fn(Result<(), String>)) {
    let (used, limit) = (reading.used, reading.limit.unwrap_or(0));
    let (number, does) = (stage.number(), stage.measure());
    if stage == MemoryStage::Calm {
        tracing::info!(used, limit, "memory is no longer scarce");
        report(Ok(()));
    } else {
        tracing::warn!(stage = number, used, limit, does, "memory is scarce");
        let mib = |bytes: u64| bytes >> 20;
        let (used, limit) = (mib(used), mib(limit));
        report(Err(format!("{used} of {limit} MiB are in use: {does}")));
    }
}

#[cfg(test)]
mod tests;
