//! Buffers for megabytes of rows: memory that is the system's again the moment it is dropped.
//!
//! glibc serves what is smaller than a threshold from arenas, one a thread, and what is freed there stays with the process: eight
//! cuts on as many threads kept 250 MB that nobody used. The threshold follows the sizes that are freed, up to 32 MiB; larger
//! allocations are always mapped by themselves (mallopt(3), `M_MMAP_THRESHOLD`), and pages of a mapping that are never touched
//! cost nothing. So buffers are reserved larger than that, whatever is put into them.

/// Just above the highest threshold.
const MAPPED: usize = (32 << 20) + (1 << 16);

/// Below this a buffer is not worth a mapping of its own.
const SMALL: usize = 128 << 10;

/// An empty buffer with room for at least `bytes`.
pub(crate) fn mapped(bytes: usize) -> Vec<u8> {
    Vec::with_capacity(if bytes < SMALL { bytes } else { bytes.max(MAPPED) })
}
