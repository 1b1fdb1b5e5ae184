//! Memory that nobody uses goes back to the operating system.
//!
//! mimalloc keeps what was freed for a second, for it is mostly wanted again, and looks what is due whenever it frees a page. A
//! gateway that falls silent after many connections does not: they rest within the same second, their buffers are freed, and all
//! of it stays resident until there is work again. So each worker gives it an occasion.

use std::hint::black_box;

/// Larger than what mimalloc cuts out of a page that others use too, so that freeing it frees a page. It is never written to and
/// costs addresses alone.
const PIECE: usize = 1 << 20;

/// Has the allocator look whether there is memory to give back. To be called every second; it takes some microseconds. Other
/// allocators have ways of their own.
pub(super) fn give_back() {
    if cfg!(feature = "mimalloc") {
        drop(black_box(Vec::<u8>::with_capacity(PIECE)));
    }
}
