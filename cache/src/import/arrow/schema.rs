//! The columns of an Arrow stream: names, types, and how many buffers each takes.

use crate::import::arrow::flatbuffer::Table;

/// Columns and columns within columns that a schema may have.
const FIELDS_MAX: usize = 10_000;
const DEPTH_MAX: usize = 32;

/// The number of each type in Arrow's union of types.
mod types {
    pub(super) const NULL: u8 = 1;
    pub(super) const INT: u8 = 2;
    pub(super) const BINARY: u8 = 4;
    pub(super) const UTF8: u8 = 5;
    pub(super) const BOOL: u8 = 6;
    pub(super) const LIST: u8 = 12;
    pub(super) const STRUCT: u8 = 13;
    pub(super) const UNION: u8 = 14;
    pub(super) const FIXED_SIZE_LIST: u8 = 16;
    pub(super) const MAP: u8 = 17;
    pub(super) const LARGE_BINARY: u8 = 19;
    pub(super) const LARGE_UTF8: u8 = 20;
    pub(super) const LARGE_LIST: u8 = 21;
    pub(super) const RUN_END_ENCODED: u8 = 22;
    /// The first of those whose number of buffers is not fixed, or that came later.
    pub(super) const VIEWS: u8 = 23;
}

/// What a column holds, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Integers of so many bytes.
    Int {
        bytes: usize,
        is_signed: bool,
    },
    Bool,
    /// Text, with offsets of 32 or 64 bits.
    Text {
        is_large: bool,
    },
    /// Lists of the only child, with offsets of 32 or 64 bits.
    List {
        is_large: bool,
    },
    /// Lists of so many of the only child.
    FixedList {
        size: usize,
    },
    /// Anything else, of so many buffers.
    Other {
        buffers: usize,
    },
}

/// A column, or a column within one.
pub(super) struct Field {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) children: Vec<Field>,
}

impl Field {
    /// The fields of a schema; an error is a sentence about it.
    pub(super) fn of_schema(schema: Table<'_>) -> Result<Vec<Field>, String> {
        const DAMAGED: &str = "its schema is damaged";
        if schema.i16(0).ok_or(DAMAGED)? != 0 {
            return Err("its numbers are big-endian".into());
        }
        let mut left = FIELDS_MAX;
        let fields = schema.tables(1).ok_or(DAMAGED)?;
        fields.into_iter().map(|field| Field::read(field, 0, &mut left)).collect()
    }

    fn read(field: Table<'_>, depth: usize, left: &mut usize) -> Result<Field, String> {
        const DAMAGED: &str = "a column of its schema is damaged";
        *left = left.checked_sub(1).filter(|_| depth < DEPTH_MAX).ok_or("its schema has too many columns")?;
        let name = field.text(0).ok_or(DAMAGED)?.to_owned();
        let number = field.u8(2).ok_or(DAMAGED)?;
        let details = field.table(3).ok_or(DAMAGED)?;
        if field.table(4).ok_or(DAMAGED)?.is_some() {
            // Of a dictionary: the numbers of its entries.
            return Ok(Field { name, kind: Kind::Other { buffers: 2 }, children: Vec::new() });
        }
        let children = field.tables(5).ok_or(DAMAGED)?;
        let children: Result<Vec<_>, _> =
            children.into_iter().map(|child| Field::read(child, depth + 1, left)).collect();
        let children = children?;
        let number_of = |index| details.map_or(Some(0), |details| details.i32(index)).ok_or(DAMAGED);
        let kind = match number {
            types::INT => {
                let bytes = match number_of(0)? {
                    bits @ (8 | 16 | 32 | 64) => bits as usize / 8,
                    _ => return Err(DAMAGED.into()),
                };
                Kind::Int { bytes, is_signed: details.map_or(Some(0), |details| details.u8(1)).ok_or(DAMAGED)? != 0 }
            }
            types::BOOL => Kind::Bool,
            types::UTF8 | types::LARGE_UTF8 => Kind::Text { is_large: number == types::LARGE_UTF8 },
            types::LIST | types::LARGE_LIST => Kind::List { is_large: number == types::LARGE_LIST },
            types::FIXED_SIZE_LIST => Kind::FixedList { size: usize::try_from(number_of(0)?).map_err(|_| DAMAGED)? },
            types::NULL | types::RUN_END_ENCODED => Kind::Other { buffers: 0 },
            types::STRUCT => Kind::Other { buffers: 1 },
            types::BINARY | types::LARGE_BINARY => Kind::Other { buffers: 3 },
            // Sparse ones have types, dense ones offsets, too.
            types::UNION => {
                Kind::Other { buffers: 1 + usize::from(details.map_or(Some(0), |d| d.i16(0)).ok_or(DAMAGED)? == 1) }
            }
            types::MAP => Kind::Other { buffers: 2 },
            0 => return Err(DAMAGED.into()),
            types::VIEWS.. => return Err(format!("its column {name} is of a type that is not read (number {number})")),
            // Numbers, dates, times and the like: which are there, and values.
            _ => Kind::Other { buffers: 2 },
        };
        let has_child = matches!(kind, Kind::List { .. } | Kind::FixedList { .. });
        if has_child && children.len() != 1 {
            return Err(DAMAGED.into());
        }
        Ok(Field { name, kind, children })
    }

    /// Buffers of the column itself.
    pub(super) fn own_buffers(&self) -> usize {
        match self.kind {
            Kind::Int { .. } | Kind::Bool | Kind::List { .. } => 2,
            Kind::Text { .. } => 3,
            Kind::FixedList { .. } => 1,
            Kind::Other { buffers } => buffers,
        }
    }

    /// Nodes and buffers of the column and all within it.
    pub(super) fn size(&self) -> (usize, usize) {
        let of_children = self.children.iter().map(Field::size);
        of_children.fold((1, self.own_buffers()), |(nodes, buffers), (n, b)| (nodes + n, buffers + b))
    }
}
