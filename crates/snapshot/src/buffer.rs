//! Buffers for megabytes of rows: used again while work goes on, and the system's again when it ends.
//!
//! glibc serves what is smaller than a threshold from arenas, one a thread, and what is freed there stays with the process: eight
//! cuts on as many threads kept 250 MB that nobody used. The threshold follows the sizes that are freed, up to 32 MiB; larger
//! allocations are always mapped by themselves (mallopt(3), `M_MMAP_THRESHOLD`), and pages of a mapping that are never touched
//! cost nothing. So buffers are reserved larger than that, whatever is put into them. A fresh mapping costs a page fault per
//! 4 KiB (a twentieth of the CPU of a cut), so a buffer that is dropped is kept for the next one.
//! Invariant: with the last buffer in use all that are kept go.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

/// Just above the highest threshold.
const MAPPED: usize = (32 << 20) + (1 << 16);
/// Below this a buffer is not worth a mapping of its own.
const SMALL: usize = 128 << 10;
/// What is kept at most: so many buffers, none with more bytes in it than this.
const KEPT: usize = 8;
const KEPT_BYTES: usize = 8 << 20;

static POOL: Mutex<Pool> = Mutex::new(Pool { kept: Vec::new(), in_use: 0 });

/// Buffers that wait for their next use.
struct Pool {
    kept: Vec<Vec<u8>>,
    in_use: usize,
}

impl Pool {
    fn take(&mut self) -> Vec<u8> {
        self.in_use += 1;
        self.kept.pop().unwrap_or_else(|| Vec::with_capacity(MAPPED))
    }

    /// Takes a buffer back and returns what is to be freed.
    fn give_back(&mut self, mut buffer: Vec<u8>) -> Vec<Vec<u8>> {
        self.in_use -= 1;
        if self.in_use == 0 {
            self.kept.push(buffer);
            return std::mem::take(&mut self.kept);
        }
        if self.kept.len() == KEPT || buffer.len() > KEPT_BYTES {
            return vec![buffer];
        }
        buffer.clear();
        self.kept.push(buffer);
        Vec::new()
    }
}

/// A growing buffer, empty at first.
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    pooled: bool,
}

impl Buffer {
    /// One for megabytes.
    pub(crate) fn new() -> Self {
        Self { bytes: POOL.lock().unwrap_or_else(PoisonError::into_inner).take(), pooled: true }
    }

    /// One with room for at least `bytes`.
    pub(crate) fn of(bytes: usize) -> Self {
        if bytes < SMALL {
            return Self { bytes: Vec::with_capacity(bytes), pooled: false };
        }
        let mut buffer = Self::new();
        buffer.bytes.reserve(bytes);
        buffer
    }

    /// As bytes that can be shared; kept for the next use when the last share is dropped.
    pub(crate) fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.pooled {
            let buffer = std::mem::take(&mut self.bytes);
            let freed = POOL.lock().unwrap_or_else(PoisonError::into_inner).give_back(buffer);
            // Unmapping takes a moment: not under the lock.
            drop(freed);
        }
    }
}

impl Deref for Buffer {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.bytes
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool() -> Pool {
        Pool { kept: Vec::new(), in_use: 0 }
    }

    #[test]
    fn a_buffer_that_is_given_back_is_the_next_one_and_empty() {
        let mut pool = pool();
        let (mut first, _other) = (pool.take(), pool.take());
        first.extend_from_slice(b"rows");
        let place = first.as_ptr();
        assert!(pool.give_back(first).is_empty());
        let again = pool.take();
        assert_eq!((again.as_ptr(), again.len()), (place, 0));
    }

    #[test]
    fn with_the_last_buffer_in_use_all_are_freed() {
        let mut pool = pool();
        let (first, second) = (pool.take(), pool.take());
        assert!(pool.give_back(first).is_empty());
        assert_eq!(pool.give_back(second).len(), 2);
        assert_eq!((pool.in_use, pool.kept.len()), (0, 0));
    }

    #[test]
    fn no_more_than_a_few_are_kept_and_none_that_is_large() {
        let mut pool = pool();
        let mut taken: Vec<_> = (0..KEPT + 3).map(|_| pool.take()).collect();
        let mut large = taken.remove(0);
        large.resize(KEPT_BYTES + 1, 0);
        assert_eq!(pool.give_back(large).len(), 1);
        taken.pop();
        let freed: usize = taken.into_iter().map(|buffer| pool.give_back(buffer).len()).sum();
        assert_eq!((pool.kept.len(), freed), (KEPT, 1));
    }
}
