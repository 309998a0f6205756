//! Reading numbers from untrusted bytes.

/// The little-endian u16 at `at`, if the bytes reach that far.
pub(super) fn u16_le(bytes: &[u8], at: usize) -> Option<u16> {
    let end = at.checked_add(2)?;
    bytes.get(at..end)?.try_into().ok().map(u16::from_le_bytes)
}

/// The little-endian u32 at `at`, if the bytes reach that far.
pub(super) fn u32_le(bytes: &[u8], at: usize) -> Option<u32> {
    let end = at.checked_add(4)?;
    bytes.get(at..end)?.try_into().ok().map(u32::from_le_bytes)
}

/// The big-endian u32 at `at`, if the bytes reach that far.
pub(super) fn u32_be(bytes: &[u8], at: usize) -> Option<u32> {
    let end = at.checked_add(4)?;
    bytes.get(at..end)?.try_into().ok().map(u32::from_be_bytes)
}
