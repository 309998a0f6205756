//! The header of a token page: the few Thrift (compact protocol) bytes between a column chunk's start and its data.
//!
//! The `parquet` crate decodes pages but does not say where a page's data begins, and the reader maps that place; so
//! this reads the header itself, accepts only what a version 1 shard may contain, and demands that every byte is used.

/// What the header of a data page says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct DataPageHeader {
    pub(crate) page_type: i32,
    pub(crate) uncompressed_bytes: i32,
    pub(crate) compressed_bytes: i32,
    pub(crate) num_values: i32,
    pub(crate) encoding: i32,
}

/// `PageType::DATA_PAGE`.
pub(crate) const DATA_PAGE: i32 = 0;

/// `Encoding::PLAIN`.
pub(crate) const PLAIN: i32 = 0;

/// Types of fields in the compact protocol of Thrift.
const TYPE_I32: u8 = 5;
const TYPE_STRUCT: u8 = 12;

impl DataPageHeader {
    /// Reads a header that occupies exactly `bytes`.
    ///
    /// # Errors
    /// What is wrong, in a few words.
    pub(crate) fn parse(bytes: &[u8]) -> Result<DataPageHeader, &'static str> {
        let mut rest = bytes;
        let mut header = DataPageHeader::default();
        let mut seen = 0u8;
        let mut id = 0;
        while let Some(field_type) = next_field(&mut rest, &mut id)? {
            match (id, field_type) {
                (1, TYPE_I32) => header.page_type = read_i32(&mut rest)?,
                (2, TYPE_I32) => header.uncompressed_bytes = read_i32(&mut rest)?,
                (3, TYPE_I32) => header.compressed_bytes = read_i32(&mut rest)?,
                (4, TYPE_I32) => _ = read_i32(&mut rest)?, // a page checksum: ours is stronger
                (5, TYPE_STRUCT) => header.parse_data_page(&mut rest)?,
                _ => return Err("unknown field"),
            }
            seen |= 1 << id;
        }
        if !rest.is_empty() {
            return Err("bytes are left over");
        }
        if seen & 0b10_1110 != 0b10_1110 { Err("a field is missing") } else { Ok(header) }
    }

    fn parse_data_page(&mut self, rest: &mut &[u8]) -> Result<(), &'static str> {
        let mut seen = 0u8;
        let mut id = 0;
        while let Some(field_type) = next_field(rest, &mut id)? {
            match (id, field_type) {
                (1, TYPE_I32) => self.num_values = read_i32(rest)?,
                (2, TYPE_I32) => self.encoding = read_i32(rest)?,
                (3 | 4, TYPE_I32) => _ = read_i32(rest)?, // level encodings: a required column has no levels
                _ => return Err("unknown field of the data page"),
            }
            seen |= 1 << id;
        }
        if seen & 0b110 != 0b110 { Err("a field of the data page is missing") } else { Ok(()) }
    }
}

/// The next field's type, its number left in `id`; `None` at the end of the struct.
fn next_field(rest: &mut &[u8], id: &mut i32) -> Result<Option<u8>, &'static str> {
    let byte = read_byte(rest)?;
    if byte == 0 {
        return Ok(None);
    }
    let delta = i32::from(byte >> 4);
    let next = if delta == 0 { read_i32(rest)? } else { *id + delta };
    // Numbers only grow, which also bounds the loop.
    if next <= *id || next > 7 {
        return Err("field numbers are out of order");
    }
    *id = next;
    Ok(Some(byte & 0x0F))
}

fn read_byte(rest: &mut &[u8]) -> Result<u8, &'static str> {
    let (first, tail) = rest.split_first().ok_or("it ends too early")?;
    *rest = tail;
    Ok(*first)
}

/// A zigzag varint of at most 32 bits.
fn read_i32(rest: &mut &[u8]) -> Result<i32, &'static str> {
    let mut value = 0u64;
    for shift in (0..35).step_by(7) {
        let byte = read_byte(rest)?;
        value |= u64::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            let value = u32::try_from(value).map_err(|_| "a number is too large")?;
            return Ok((value >> 1) as i32 ^ -((value & 1) as i32));
        }
    }
    Err("a number is too long")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// type 0, sizes 9,437,184, values 16,384, PLAIN, level encodings RLE.
    const HEADER: [u8; 21] = [
        0x15, 0x00, 0x15, 0x80, 0x80, 0x80, 0x09, 0x15, 0x80, 0x80, 0x80, 0x09, 0x2C, 0x15, 0x80, 0x80, 0x02, 0x15,
        0x00, 0x00, 0x00,
    ];

    #[test]
    fn a_header_of_ours() {
        let expected = DataPageHeader {
            page_type: DATA_PAGE,
            uncompressed_bytes: 9_437_184,
            compressed_bytes: 9_437_184,
            num_values: 16_384,
            encoding: PLAIN,
        };
        assert_eq!(DataPageHeader::parse(&HEADER), Ok(expected));
    }

    #[test]
    fn damage_is_named() {
        assert_eq!(DataPageHeader::parse(&HEADER[..20]), Err("it ends too early"));
        assert_eq!(DataPageHeader::parse(&[&HEADER[..], &[0]].concat()), Err("bytes are left over"));
        assert_eq!(DataPageHeader::parse(&[0]), Err("a field is missing"));
        assert_eq!(DataPageHeader::parse(&[0x18, 0x00]), Err("unknown field"));
        assert_eq!(DataPageHeader::parse(&[0x15, 0xFF, 0xFF, 0xFF, 0xFF, 0x1F]), Err("a number is too large"));
        assert_eq!(DataPageHeader::parse(&[0x15, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]), Err("a number is too long"));
        assert_eq!(DataPageHeader::parse(&[0x05, 0x01]), Err("field numbers are out of order"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_safe(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = DataPageHeader::parse(&bytes);
        }
    }
}
