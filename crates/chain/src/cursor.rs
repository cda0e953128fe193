//! Reads big-endian fields off untrusted bytes. Never panics, never reads past the end.

/// The bytes ended before the field did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("needs {wanted} bytes at offset {offset} but only {left} are left")]
pub struct Truncated {
    /// Where the field starts.
    pub offset: usize,
    /// How long it is.
    pub wanted: usize,
    /// How many bytes there are.
    pub left: usize,
}

/// A position in a slice.
#[derive(Debug, Clone)]
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(crate) fn position(&self) -> usize {
        self.at
    }

    pub(crate) fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// The bytes from an earlier position up to here.
    pub(crate) fn since(&self, start: usize) -> &'a [u8] {
        &self.bytes[start..self.at]
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], Truncated> {
        if count > self.left() {
            return Err(Truncated { offset: self.at, wanted: count, left: self.left() });
        }
        self.at += count;
        Ok(self.since(self.at - count))
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Truncated> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Truncated> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Truncated> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Truncated> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Truncated> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// Bytes preceded by their number as `u8`.
    pub(crate) fn short(&mut self) -> Result<&'a [u8], Truncated> {
        let count = self.u8()?;
        self.take(usize::from(count))
    }

    /// Bytes preceded by their number as `u32`.
    pub(crate) fn long(&mut self) -> Result<&'a [u8], Truncated> {
        let count = self.u32()?;
        self.take(usize::try_from(count).unwrap_or(usize::MAX))
    }
}
