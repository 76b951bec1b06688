//! The read-through cache: answers ready to send, bounded, coherent, counted.

pub mod entry;
pub mod generation;
mod hearing;
pub mod invalidation;
mod kept;
pub mod listener;
pub(crate) mod news;
pub(crate) mod primary;
mod replayed;
mod writes;

pub use entry::{Answer, ByReplica, Entry};
pub use invalidation::{Changed, Changes, Reason};
pub(crate) use kept::Kept;
pub use kept::{Cache, CacheSettings, Counts, Via};
pub use writes::Write;

/// The slot of a text of parts, of so many. FNV-1a, because processes of other versions must come to the
/// same.
fn slot(parts: &[&str], slots: usize) -> u32 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    let mut hash = OFFSET;
    let mut byte = |byte: u8| hash = (hash ^ u64::from(byte)).wrapping_mul(PRIME);
    for part in parts {
        part.bytes().for_each(&mut byte);
        // No id has a control character, so that parts cannot run into each other.
        byte(0);
    }
    // The low bits of FNV mix least.
    ((hash ^ (hash >> 32)) % slots as u64) as u32
}
