//! As much of Thrift's compact protocol as headers of Parquet pages need.

/// Structures in structures; page headers have three levels.
const MAX_DEPTH: u32 = 16;

/// Reads a structure field by field. `None` means that the bytes end too early, or are none of it.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// Types of fields, as they are numbered.
const TRUE: u8 = 1;
const FALSE: u8 = 2;
const STRUCT: u8 = 12;

/// A field that was read: its number and its type.
#[derive(Clone, Copy)]
pub(super) struct Field {
    pub(super) id: i16,
    kind: u8,
}

impl Field {
    pub(super) fn is_integer(self) -> bool {
        (4..=6).contains(&self.kind)
    }

    pub(super) fn is_truth(self) -> bool {
        matches!(self.kind, TRUE | FALSE)
    }
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, at: 0 }
    }

    /// Bytes read so far.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// Passes every field of a structure to `visit`, which reads or skips it.
    pub(super) fn fields(&mut self, mut visit: impl FnMut(&mut Self, Field) -> Option<()>) -> Option<()> {
        let mut id = 0i16;
        loop {
            let byte = self.byte()?;
            if byte == 0 {
                return Some(());
            }
            id = match byte >> 4 {
                0 => i16::try_from(self.integer()?).ok()?,
                delta => id.checked_add(i16::from(delta))?,
            };
            visit(self, Field { id, kind: byte & 15 })?;
        }
    }

    /// The value of an integer field.
    pub(super) fn int(&mut self, field: Field) -> Option<i32> {
        if !field.is_integer() {
            return None;
        }
        self.integer().and_then(|value| i32::try_from(value).ok())
    }

    /// The value of an integer field that counts something.
    pub(super) fn size(&mut self, field: Field) -> Option<u32> {
        self.int(field).and_then(|value| u32::try_from(value).ok())
    }

    /// The value of a truth field, which is in its type.
    pub(super) fn truth(&self, field: Field) -> Option<bool> {
        field.is_truth().then_some(field.kind == TRUE)
    }

    pub(super) fn skip(&mut self, field: Field) -> Option<()> {
        self.skip_kind(field.kind, 0)
    }

    fn skip_kind(&mut self, kind: u8, depth: u32) -> Option<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        match kind {
            TRUE | FALSE => Some(()),
            3 => self.advance(1),
            4..=6 => self.integer().map(|_| ()),
            7 => self.advance(8),
            8 => {
                let length = usize::try_from(self.unsigned()?).ok()?;
                self.advance(length)
            }
            9 | 10 => {
                let head = self.byte()?;
                let length = if head >> 4 == 15 { self.unsigned()? } else { u64::from(head >> 4) };
                // An element takes a byte at least, truths included.
                if length > (self.bytes.len() - self.at) as u64 {
                    return None;
                }
                let element = head & 15;
                (0..length).try_for_each(|_| match element {
                    TRUE | FALSE => self.advance(1),
                    kind => self.skip_kind(kind, depth + 1),
                })
            }
            STRUCT => self.fields(|reader, field| reader.skip_kind(field.kind, depth + 1)),
            _ => None,
        }
    }

    fn advance(&mut self, length: usize) -> Option<()> {
        self.at = self.at.checked_add(length).filter(|at| *at <= self.bytes.len())?;
        Some(())
    }

    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    /// Seven bits per byte, the lowest first.
    fn unsigned(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// Zigzag: the lowest bit is the sign.
    fn integer(&mut self) -> Option<i64> {
        let value = self.unsigned()?;
        Some((value >> 1) as i64 ^ -((value & 1) as i64))
    }
}
