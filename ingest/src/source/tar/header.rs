//! One header block of a tar: v7, ustar, GNU and pax have it in common.

/// Headers and data lie at multiples of this, in bytes.
pub(super) const BLOCK: u64 = 512;

/// A header as it lies in the file.
///
/// ```text
/// 0 name 100 | mode, uid, gid | 124 size 12 | mtime | 148 checksum 8 | 156 type | 157 link name 100 | 257 magic 6 | ...
/// ustar: 345 prefix 155      old GNU sparse: 482 whether more sparse blocks follow
/// ```
pub(super) struct Header<'a>(pub(super) &'a [u8; BLOCK as usize]);

impl Header<'_> {
    /// Whether this is a header at all: its checksum holds and its numbers are numbers.
    pub(super) fn is_valid(&self) -> bool {
        self.has_checksum() && self.0[0] != 0
    }

    /// Whether the header names the format that it has, which all but the oldest do.
    pub(super) fn has_magic(&self) -> bool {
        &self.0[257..262] == b"ustar"
    }

    fn has_checksum(&self) -> bool {
        let Some(expected) = number(&self.0[148..156]) else { return false };
        // The checksum's own field counts as spaces. Some old programs summed signed bytes.
        let counted = || self.0.iter().enumerate().map(|(at, &b)| if (148..156).contains(&at) { b' ' } else { b });
        let unsigned: u64 = counted().map(u64::from).sum();
        let signed: i64 = counted().map(|byte| i64::from(byte as i8)).sum();
        expected == unsigned || i64::try_from(expected) == Ok(signed)
    }

    /// Size of the member's data in bytes, unless the field is not a number or a negative one.
    pub(super) fn size(&self) -> Option<u64> {
        number(&self.0[124..136])
    }

    pub(super) fn kind(&self) -> u8 {
        self.0[156]
    }

    /// The member's name, from the header alone.
    pub(super) fn name(&self) -> Vec<u8> {
        let name = until_nul(&self.0[..100]);
        // GNU's old format has the same magic with other bytes after it, and times where the prefix would be.
        let prefix = if &self.0[257..263] == b"ustar\0" { until_nul(&self.0[345..500]) } else { b"" };
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }

    /// What a link leads to.
    pub(super) fn link(&self) -> &[u8] {
        until_nul(&self.0[157..257])
    }

    /// Whether blocks with more of an old GNU sparse map follow the header.
    pub(super) fn is_extended(&self) -> bool {
        self.0[482] != 0
    }
}

/// The text of a field.
pub(super) fn until_nul(field: &[u8]) -> &[u8] {
    &field[..field.iter().position(|&byte| byte == 0).unwrap_or(field.len())]
}

/// A number in octal digits, or in base 256 where the first bit is set. Negative numbers are none.
fn number(field: &[u8]) -> Option<u64> {
    if field[0] & 0x80 != 0 {
        let negative = field[0] & 0x40 != 0;
        let first = u64::from(field[0] & 0x3F);
        let value = field[1..].iter().try_fold(first, |value, &b| value.checked_mul(256)?.checked_add(u64::from(b)))?;
        return (!negative).then_some(value);
    }
    let text = until_nul(field).trim_ascii();
    text.iter().try_fold(0u64, |value, &byte| match byte {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(u64::from(byte - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_base_256() {
        assert_eq!(number(b"00000001750\0"), Some(1000));
        assert_eq!(number(b"   1750 \0\0\0\0"), Some(1000));
        assert_eq!(number(b"777777777777"), Some(0o777_777_777_777));
        assert_eq!(number(b"\0\0\0\0"), Some(0));
        assert_eq!(number(b"\x80\0\0\0\0\0\0\x02\0\0\0\x01"), Some((2 << 32) + 1));
        assert_eq!(number(&[0xFF; 12]), None, "negative");
        assert_eq!(number(b"\x8F\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF"), None, "more than 64 bits");
        assert_eq!(number(b"00000001780\0"), None);
        assert_eq!(number(b"-0000000001\0"), None);
    }
}
