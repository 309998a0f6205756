//! Tables of FlatBuffers, the form of Arrow's messages, read in place. Every offset is checked: `None` is damage.

/// A table within a buffer.
#[derive(Clone, Copy)]
pub(super) struct Table<'a> {
    bytes: &'a [u8],
    start: usize,
    vtable: usize,
    vtable_bytes: usize,
}

/// `None`: damaged; `Some(None)`: the field is not there, and has its default.
type Slot = Option<Option<usize>>;

impl<'a> Table<'a> {
    /// The table that a buffer is of.
    pub(super) fn root(bytes: &'a [u8]) -> Option<Table<'a>> {
        Self::at(bytes, u32::from_le_bytes(read(bytes, 0)?) as usize)
    }

    fn at(bytes: &'a [u8], start: usize) -> Option<Table<'a>> {
        let back = i64::from(i32::from_le_bytes(read(bytes, start)?));
        let vtable = usize::try_from(i64::try_from(start).ok()?.checked_sub(back)?).ok()?;
        let vtable_bytes = u16::from_le_bytes(read(bytes, vtable)?).into();
        Some(Table { bytes, start, vtable, vtable_bytes })
    }

    fn slot(&self, index: usize) -> Slot {
        // Two sizes come before the fields.
        let place = 4 + 2 * index;
        if place + 2 > self.vtable_bytes {
            return Some(None);
        }
        match u16::from_le_bytes(read(self.bytes, self.vtable + place)?) {
            0 => Some(None),
            offset => Some(Some(self.start + usize::from(offset))),
        }
    }

    fn scalar<const WIDTH: usize>(&self, index: usize) -> Option<Option<[u8; WIDTH]>> {
        match self.slot(index)? {
            None => Some(None),
            Some(place) => read(self.bytes, place).map(Some),
        }
    }

    pub(super) fn u8(&self, index: usize) -> Option<u8> {
        Some(self.scalar::<1>(index)?.map_or(0, u8::from_le_bytes))
    }

    pub(super) fn i16(&self, index: usize) -> Option<i16> {
        Some(self.scalar::<2>(index)?.map_or(0, i16::from_le_bytes))
    }

    pub(super) fn i32(&self, index: usize) -> Option<i32> {
        Some(self.scalar::<4>(index)?.map_or(0, i32::from_le_bytes))
    }

    pub(super) fn i64(&self, index: usize) -> Option<i64> {
        Some(self.scalar::<8>(index)?.map_or(0, i64::from_le_bytes))
    }

    /// Where the offset in a field leads.
    fn target(&self, place: usize) -> Option<usize> {
        place.checked_add(u32::from_le_bytes(read(self.bytes, place)?) as usize)
    }

    pub(super) fn table(&self, index: usize) -> Option<Option<Table<'a>>> {
        match self.slot(index)? {
            None => Some(None),
            Some(place) => Self::at(self.bytes, self.target(place)?).map(Some),
        }
    }

    /// First byte and number of the items of a list, which have `width` bytes each; nothing where there is no list.
    fn items(&self, index: usize, width: usize) -> Option<(usize, usize)> {
        let Some(place) = self.slot(index)? else { return Some((0, 0)) };
        let list = self.target(place)?;
        let count = u32::from_le_bytes(read(self.bytes, list)?) as usize;
        let end = (list + 4).checked_add(count.checked_mul(width)?)?;
        (end <= self.bytes.len()).then_some((list + 4, count))
    }

    pub(super) fn text(&self, index: usize) -> Option<&'a str> {
        let (start, count) = self.items(index, 1)?;
        std::str::from_utf8(&self.bytes[start..start + count]).ok()
    }

    pub(super) fn tables(&self, index: usize) -> Option<Vec<Table<'a>>> {
        let (start, count) = self.items(index, 4)?;
        (0..count).map(|item| Self::at(self.bytes, self.target(start + 4 * item)?)).collect()
    }

    /// A list of structs of two numbers.
    pub(super) fn pairs(&self, index: usize) -> Option<Vec<[i64; 2]>> {
        let (start, count) = self.items(index, 16)?;
        let number = |place: usize| read(self.bytes, place).map(i64::from_le_bytes);
        (0..count).map(|item| Some([number(start + 16 * item)?, number(start + 16 * item + 8)?])).collect()
    }
}

fn read<const WIDTH: usize>(bytes: &[u8], at: usize) -> Option<[u8; WIDTH]> {
    bytes.get(at..at.checked_add(WIDTH)?)?.try_into().ok()
}
